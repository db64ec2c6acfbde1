//! Lines `KEY=value`, with SOPS' own part in keys that begin with `sops_`.

use super::keys::Keys;
use super::metadata::{self, Metadata};
use super::{Clear, Sealed};
use crate::manifest::SourceError;

const PREFIX: &str = "sops_";

pub(super) fn open(path: &str, text: &str, keys: &Keys) -> Result<Clear<String>, SourceError> {
    let failed = |line: usize, message: String| SourceError::new(path, text, line as u32, 1, message);
    let entries = || text.split('\n').enumerate().filter(|(_, line)| !line.is_empty());
    let own = entries().filter_map(|(_, line)| line.strip_prefix(PREFIX)?.split_once('='));
    let own = own.map(|(key, value)| (key.to_owned(), value.replace("\\n", "\n")));
    let metadata = metadata::unflatten(own).and_then(|own| Metadata::of(&own)).map_err(|message| failed(0, message))?;
    let mut sealed = Sealed::new(metadata, keys).map_err(|message| failed(0, message))?;
    let mut plain = String::with_capacity(text.len());
    for (index, line) in entries().filter(|(_, line)| !line.starts_with(PREFIX)) {
        if let Some(comment) = line.strip_prefix('#') {
            let opened = sealed.comment(comment, &[]);
            plain.push_str(&format!("#{}\n", opened.as_deref().unwrap_or(comment)));
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            return Err(failed(index + 1, "a line `KEY=value` was expected here".into()));
        };
        let value = value.replace("\\n", "\n");
        let opened = sealed.value(&value, &[key.to_owned()]).map_err(|message| failed(index + 1, message))?;
        let value = match opened {
            Some(opened) => opened.plain().map_err(|message| failed(index + 1, message))?,
            None => value,
        };
        plain.push_str(&format!("{key}={}\n", value.replace('\n', "\\n")));
    }
    let values = sealed.verify().map_err(|message| failed(0, message))?;
    Ok(Clear { content: plain, values })
}
