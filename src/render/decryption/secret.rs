//! Secrets among the objects: values that are encrypted files themselves, and what was left encrypted.
//!
//! In: the objects and the keys, if the application has any. Out: the same objects with such values in the clear,
//! and what came out. A Secret
//! that would reach the cluster as SOPS wrote it is refused: whoever reads it would take the cipher for the value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::keys::Keys;
use super::tree::{OWN, is_left_alone};
use super::{CUT_OFF, ENCRYPTED, Format, file};
use crate::manifest::SourceError;
use crate::manifest::yaml::PathSegment;
use crate::render::objects::{Draft, Text};

pub(in crate::render) fn open(
    drafts: &mut [Draft],
    texts: &[Text],
    keys: Option<&Keys>,
) -> Result<Vec<String>, SourceError> {
    let mut secrets = Vec::new();
    for draft in drafts.iter_mut().filter(|draft| draft.kind() == "Secret" && draft.group().is_empty()) {
        if is_left_alone(&draft.value) {
            continue;
        }
        let place = draft.place;
        let failed = |path: &[&str], message: String| {
            let path: Vec<PathSegment> = path.iter().map(|key| (*key).into()).collect();
            texts[place.text].error(place, &path, message)
        };
        if let Some(keys) = keys {
            files(&mut draft.value, keys, &mut secrets).map_err(|(key, message)| failed(&["data", &key], message))?;
        }
        let Some(path) = left_encrypted(&draft.value) else { continue };
        let message = match keys {
            None => {
                "the Secret is encrypted with SOPS, and the application has no `spec.decryption` (`afresh render`: no \
                 `--sops-age-key-file`)"
            }
            Some(_) => CUT_OFF,
        };
        return Err(failed(&path, message.to_owned()));
    }
    Ok(secrets)
}

/// Opens values of `data` that are whole encrypted files; else says the key whose value is not opened.
fn files(secret: &mut Value, keys: &Keys, secrets: &mut Vec<String>) -> Result<(), (String, String)> {
    let Some(Value::Object(data)) = secret.get_mut("data") else { return Ok(()) };
    for (key, value) in data {
        let Some(content) = value.as_str().and_then(decoded) else { continue };
        let clear = file(key, &content, Format::of(key), keys).map_err(|error| (key.clone(), error.message))?;
        if let Some(clear) = clear {
            *value = Value::String(STANDARD.encode(clear.content));
            secrets.extend(clear.values);
        }
    }
    Ok(())
}

/// Where a Secret is as SOPS wrote it. (Whole files may be: their reader may decrypt them.)
fn left_encrypted(secret: &Value) -> Option<Vec<&str>> {
    if secret.get(OWN).is_some() {
        return Some(vec![OWN]);
    }
    ["data", "stringData"].into_iter().find_map(|field| {
        let values = secret.get(field)?.as_object()?;
        let is_encrypted = |text: &str| {
            text.starts_with(ENCRYPTED)
                || field == "data" && decoded(text).is_some_and(|d| d.starts_with(ENCRYPTED.as_bytes()))
        };
        let (key, _) = values.iter().find(|(_, value)| value.as_str().is_some_and(is_encrypted))?;
        Some(vec![field, key.as_str()])
    })
}

/// What isn't base64 is told by the API server.
fn decoded(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.replace('\n', "")).ok()
}
