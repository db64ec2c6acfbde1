//! Sections of lines `key = value`, with SOPS' own part in the section `sops`.

use super::keys::Keys;
use super::metadata::{self, Metadata};
use super::{Clear, Sealed};
use crate::manifest::SourceError;

/// The section of keys that stand in none.
const DEFAULT_SECTION: &str = "DEFAULT";
const OWN_SECTION: &str = "sops";

pub(super) fn open(path: &str, text: &str, keys: &Keys) -> Result<Clear<String>, SourceError> {
    let failed = |line: usize, message: String| SourceError::new(path, text, line as u32, 1, message);
    let lines = read(text).map_err(|line| failed(line, "a line `key = value` was expected here".into()))?;
    let own = lines.iter().filter(|line| line.section == OWN_SECTION).filter_map(|line| line.entry);
    let own = own.map(|(key, value)| (key.trim().to_owned(), unquoted(value).replace("\\n", "\n")));
    let metadata = metadata::unflatten(own).and_then(|own| Metadata::of(&own)).map_err(|message| failed(0, message))?;
    let mut sealed = Sealed::new(metadata, keys).map_err(|message| failed(0, message))?;
    let mut plain = String::with_capacity(text.len());
    for line in lines.iter().filter(|line| line.section != OWN_SECTION) {
        let Some((key, value)) = line.entry else {
            let comment = line.text.trim_start().strip_prefix(';');
            match comment.and_then(|comment| sealed.comment(comment.trim(), &[line.section.to_owned()])) {
                Some(opened) => plain.push_str(&format!("; {opened}")),
                None => plain.push_str(line.text),
            }
            plain.push('\n');
            continue;
        };
        let place = [line.section.to_owned(), key.trim().to_owned()];
        let opened = sealed.value(unquoted(value), &place).map_err(|message| failed(line.number, message))?;
        match opened {
            None => plain.push_str(line.text),
            Some(opened) => {
                let value = opened.plain().map_err(|message| failed(line.number, message))?;
                plain.push_str(&format!("{key}= {}", quoted(&value)));
            }
        }
        plain.push('\n');
    }
    let values = sealed.verify().map_err(|message| failed(0, message))?;
    Ok(Clear { content: plain.trim_end_matches('\n').to_owned() + "\n", values })
}

struct Line<'a> {
    /// From 1.
    number: usize,
    section: &'a str,
    text: &'a str,
    /// The key and the value as they are written.
    entry: Option<(&'a str, &'a str)>,
}

/// The lines with their sections, or the number of the line that is none.
fn read(text: &str) -> Result<Vec<Line<'_>>, usize> {
    let mut section = DEFAULT_SECTION;
    let mut lines = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let number = index + 1;
        let trimmed = text.trim();
        let entry = if trimmed.is_empty() || trimmed.starts_with([';', '#']) {
            None
        } else if let Some(name) = trimmed.strip_prefix('[') {
            section = name.strip_suffix(']').ok_or(number)?.trim();
            None
        } else {
            Some(text.split_once('=').ok_or(number)?)
        };
        lines.push(Line { number, section, text, entry });
    }
    Ok(lines)
}

/// A value without the quotes that the format puts around some.
fn unquoted(value: &str) -> &str {
    let value = value.trim();
    for quote in ["\"\"\"", "`", "\"", "'"] {
        if value.len() >= 2 * quote.len()
            && let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote))
        {
            return inner;
        }
    }
    value
}

/// A value as a reader of the format takes it back.
fn quoted(value: &str) -> String {
    if value.contains(['\n', '`']) {
        format!("\"\"\"{value}\"\"\"")
    } else if value.contains(['#', ';']) || value.trim() != value {
        format!("`{value}`")
    } else {
        value.to_owned()
    }
}
