//! Files that were encrypted with SOPS for age recipients, in the clear.
//!
//! ```text
//!  a file ──► metadata: who can open it, what of it is encrypted ──► keys ──► data key
//!    │                                                                          │
//!    └──► tree (YAML, JSON) · dotenv · ini · binary ── each value in its place ◄┘ ──► MAC ──► the text in the clear
//! ```
//!
//! In: a text, its format and the [`Keys`]. Out: the same text with each encrypted value replaced where it stands and
//! without SOPS' own part, so that lines keep their numbers. What was changed after it was encrypted is refused: the MAC
//! is verified. Errors name places and recipients, never a value. Nothing is written anywhere.

mod dotenv;
mod ini;
mod keys;
mod metadata;
mod secret;
mod tree;
mod value;

use serde_json::Value;
use sha2::{Digest as _, Sha512};

use crate::manifest::{SECRET_TEXT_MARK, SourceError};

pub use keys::{KeyError, Keys};
use metadata::Metadata;
pub(super) use secret::open as secrets;
use value::{Cipher, Plain};

/// How a file is written, as SOPS tells it from the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Json,
    Dotenv,
    Ini,
    /// Anything: SOPS keeps it as one value in a JSON file.
    Binary,
}

/// Key of a Secret whose value is JSON whatever its extension says.
const DOCKER_CONFIG: &str = ".dockerconfigjson";

impl Format {
    pub(super) fn of(name: &str) -> Self {
        if name.ends_with(DOCKER_CONFIG) {
            return Self::Json;
        }
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("yaml" | "yml") => Self::Yaml,
            Some("json") => Self::Json,
            Some("env") => Self::Dotenv,
            Some("ini") => Self::Ini,
            _ => Self::Binary,
        }
    }

    /// The format of an encrypted content, if it is one, by what SOPS writes into it.
    fn of_content(content: &[u8]) -> Option<Self> {
        let has = |mark: &str| holds(content, mark);
        if !has(ENCRYPTED) {
            None
        } else if has("sops_mac=ENC[") {
            Some(Self::Dotenv)
        } else if has("[sops]") {
            Some(Self::Ini)
        } else if has("\"mac\": \"ENC[") || has("\"mac\":\"ENC[") {
            Some(Self::Json)
        } else if has("mac: ENC[") || has("mac: 'ENC[") || has("mac: \"ENC[") {
            Some(Self::Yaml)
        } else {
            None
        }
    }
}

fn holds(content: &[u8], mark: &str) -> bool {
    content.windows(mark.len()).any(|window| window == mark.as_bytes())
}

/// A content that was decrypted, and the values that came out.
pub(super) struct Clear<T> {
    pub content: T,
    pub values: Vec<String>,
}

/// How each encrypted value begins.
const ENCRYPTED: &str = "ENC[AES256_GCM,";

/// What is said of an encrypted value without the rest.
const CUT_OFF: &str = "a value that SOPS encrypted stands here without SOPS' own part (`sops`): the file was cut off, \
                       or the value was copied from another file";

/// A text of manifests or values in the clear: lines keep their numbers, and excerpts of it will not show its values.
/// `None` if nothing in it is encrypted.
pub(super) fn manifest(path: &str, text: &str, keys: &Keys) -> Result<Option<Clear<String>>, SourceError> {
    // whoever reads it says what is wrong
    if tree::is_something_else(path, text) {
        return Ok(None);
    }
    let Some(mut clear) = tree::open(path, text, keys, tree::Lines::Kept)? else { return Ok(None) };
    if !clear.content.ends_with('\n') {
        clear.content.push('\n');
    }
    clear.content.push_str(SECRET_TEXT_MARK);
    clear.content.push('\n');
    Ok(Some(clear))
}

/// A file that becomes a value of a Secret, in the clear; `None` if it isn't encrypted.
pub(super) fn file(
    path: &str,
    content: &[u8],
    wanted: Format,
    keys: &Keys,
) -> Result<Option<Clear<Vec<u8>>>, SourceError> {
    let Some(format) = Format::of_content(content) else {
        return if holds(content, ENCRYPTED) { Err(SourceError::whole_file(path, CUT_OFF)) } else { Ok(None) };
    };
    let text = crate::manifest::yaml::text(path, content)?;
    if wanted == Format::Binary && format == Format::Json {
        return binary(path, text, keys).map(Some);
    }
    let clear = match format {
        Format::Yaml | Format::Json => tree::open(path, text, keys, tree::Lines::Dropped)?,
        Format::Dotenv => Some(dotenv::open(path, text, keys)?),
        Format::Ini | Format::Binary => Some(ini::open(path, text, keys)?),
    };
    Ok(clear.map(|clear| Clear { content: clear.content.into_bytes(), values: clear.values }))
}

/// Any file, which SOPS keeps as the value `data` of a JSON file.
fn binary(path: &str, text: &str, keys: &Keys) -> Result<Clear<Vec<u8>>, SourceError> {
    let failed = |message: String| SourceError::whole_file(path, message);
    let value: Value = serde_json::from_str(text)
        .map_err(|error| failed(format!("the encrypted file is not JSON: line {}", error.line())))?;
    let metadata = Metadata::of(&value["sops"]).map_err(&failed)?;
    let Some(data) = value["data"].as_str() else {
        return Err(failed("the encrypted file has no `data`: give its key the extension of its format".into()));
    };
    let mut sealed = Sealed::new(metadata, keys).map_err(&failed)?;
    let plain = sealed.value(data, &["data".to_owned()]).map_err(&failed)?;
    let values = sealed.verify().map_err(&failed)?;
    Ok(Clear { content: plain.map_or_else(|| data.as_bytes().to_vec(), |plain| plain.bytes), values })
}

/// What is opened with one data key and vouched for by one MAC.
struct Sealed {
    metadata: Metadata,
    cipher: Cipher,
    mac: Sha512,
    /// What was opened and is not public anyway.
    values: Vec<String>,
}

impl Sealed {
    fn new(metadata: Metadata, keys: &Keys) -> Result<Self, String> {
        let cipher = Cipher::new(&keys.open(&metadata)?)?;
        let mut mac = Sha512::new();
        if metadata.mac_only_encrypted {
            mac.update(value::MAC_ONLY_ENCRYPTED);
        }
        Ok(Self { metadata, cipher, mac, values: Vec::new() })
    }

    /// The next value of the file in its order, given as text; `None` if it stands there in the clear.
    fn value(&mut self, text: &str, path: &[String]) -> Result<Option<Plain>, String> {
        if !self.metadata.encrypts(path, text) {
            self.clear(text.as_bytes());
            return Ok(None);
        }
        if text.is_empty() {
            return Ok(None);
        }
        let plain = self.cipher.open(text, &format!("{}:", path.join(":")))?;
        self.mac.update(plain.mac_bytes()?);
        if let Ok(value) = plain.plain()
            && !is_public(path)
        {
            self.values.push(value);
        }
        Ok(Some(plain))
    }

    /// A comment, in the clear if it was encrypted. The MAC is of values only.
    fn comment(&self, text: &str, path: &[String]) -> Option<String> {
        let comment = self.cipher.open(text, &format!("{}:", path.join(":"))).ok()?;
        comment.plain().ok()
    }

    /// The next value of the file stands in the clear.
    fn clear(&mut self, bytes: &[u8]) {
        if !self.metadata.mac_only_encrypted {
            self.mac.update(bytes);
        }
    }

    /// What was opened, if the values are those that were encrypted together.
    fn verify(self) -> Result<Vec<String>, String> {
        const CHANGED: &str = "the file was changed after it was encrypted: its MAC is of other values";
        let Self { metadata, cipher, mac, values } = self;
        let wanted = cipher.open(&metadata.mac, &metadata.last_modified).map_err(|_| CHANGED)?;
        if hex::encode_upper(mac.finalize()).as_bytes() == wanted.bytes { Ok(values) } else { Err(CHANGED.into()) }
    }
}

/// What says which object it is: status and Events show it.
fn is_public(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let path = path.strip_prefix(&["items"]).unwrap_or(&path);
    matches!(path, ["apiVersion" | "kind" | "type"] | ["metadata", "name" | "namespace"])
}
