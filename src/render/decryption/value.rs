//! One encrypted value: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`.
//!
//! In: its text, the data key, and the path of the value, which is authenticated with it. Out: the value.

use aes_gcm::aead::consts::U32;
use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{AesGcm, Nonce, aes::Aes256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ENCRYPTED;

/// What the MAC begins with if it vouches for encrypted values only: SHA-256 of `sops`.
pub(super) const MAC_ONLY_ENCRYPTED: [u8; 32] = [
    0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b, 0x0b, 0x97, 0x5b,
    0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
];

/// AES-256-GCM with the long nonces that SOPS uses.
pub(super) struct Cipher(AesGcm<Aes256, U32>);

/// A value in the clear.
pub(super) struct Plain {
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

/// The type that a value had before it was encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bytes,
    Int,
    Float,
    Bool,
    Time,
    /// Is no value.
    Comment,
}

impl Cipher {
    pub(super) fn new(key: &[u8]) -> Result<Self, String> {
        AesGcm::new_from_slice(key).map(Self).map_err(|_| "the data key has not 32 bytes".to_owned())
    }

    /// Opens a value; `place` is what it was encrypted for.
    pub(super) fn open(&self, text: &str, place: &str) -> Result<Plain, String> {
        const FORM: &str = "an encrypted value was expected here: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`";
        let parts = text.strip_prefix(ENCRYPTED).and_then(|rest| {
            let (data, rest) = rest.strip_prefix("data:")?.split_once(",iv:")?;
            let (nonce, rest) = rest.split_once(",tag:")?;
            let (tag, kind) = rest.split_once(",type:")?;
            Some((data, nonce, tag, kind.strip_suffix(']')?))
        });
        let (data, nonce, tag, kind) = parts.ok_or(FORM)?;
        let decoded = |text: &str| STANDARD.decode(text).map_err(|_| FORM);
        let (mut data, nonce, tag) = (decoded(data)?, decoded(nonce)?, decoded(tag)?);
        let nonce: [u8; 32] = nonce.try_into().map_err(|_| FORM)?;
        data.extend(tag);
        let payload = Payload { msg: &data, aad: place.as_bytes() };
        let bytes = self.0.decrypt(&Nonce::from(nonce), payload).map_err(|_| {
            "the value can't be decrypted: it was changed, or moved here from another key or another file".to_owned()
        })?;
        let kind = match kind {
            "str" => Kind::Text,
            "bytes" => Kind::Bytes,
            "int" => Kind::Int,
            "float" => Kind::Float,
            "bool" => Kind::Bool,
            "time" => Kind::Time,
            "comment" => Kind::Comment,
            other => return Err(format!("an encrypted value of type `{other}` is not served")),
        };
        Ok(Plain { kind, bytes })
    }
}

impl Plain {
    /// What the MAC takes of it.
    pub(super) fn mac_bytes(&self) -> Result<Vec<u8>, String> {
        Ok(match self.kind {
            Kind::Text | Kind::Bytes | Kind::Time => self.bytes.clone(),
            Kind::Comment => Vec::new(),
            Kind::Bool => if self.truth()? { "True" } else { "False" }.into(),
            Kind::Int | Kind::Float => self.number()?.into_bytes(),
        })
    }

    /// As a scalar of YAML, which is one of JSON as well.
    pub(super) fn scalar(&self) -> Result<String, String> {
        Ok(match self.kind {
            Kind::Text | Kind::Bytes | Kind::Time => quoted(self.text()?),
            Kind::Bool => self.truth()?.to_string(),
            Kind::Int | Kind::Float => self.number()?,
            Kind::Comment => return Err("a comment in the place of a value is not served".into()),
        })
    }

    /// As text without quotes.
    pub(super) fn plain(&self) -> Result<String, String> {
        match self.kind {
            Kind::Text | Kind::Bytes | Kind::Time | Kind::Comment => self.text().map(str::to_owned),
            _ => self.scalar(),
        }
    }

    fn text(&self) -> Result<&str, String> {
        std::str::from_utf8(&self.bytes).map_err(|_| "the value is not UTF-8 text".to_owned())
    }

    fn truth(&self) -> Result<bool, String> {
        match self.text()? {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err("the value is of type `bool` and is none".into()),
        }
    }

    fn number(&self) -> Result<String, String> {
        let text = self.text()?;
        match self.kind {
            Kind::Int => text.parse::<i64>().ok().map(|n| n.to_string()),
            _ => text.parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| n.to_string()),
        }
        .ok_or_else(|| "the value is of a number's type and is none".into())
    }
}

/// Double quotes around text: one line, whatever it holds.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                quoted.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
