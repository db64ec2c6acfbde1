//! A label selector as people write it: `key=value, key!=value, key in (a, b), key notin (a), key, !key`.
//!
//! Comes in: the text of a flag. Goes out: whether labels meet all of its requirements. Pure. What it never does: take a
//! selector for less than it says; what can't be read is refused with the part that can't.

use std::collections::BTreeMap;
use std::fmt;

/// Names of labels and their values, in bytes: limits of the Kubernetes API.
const NAME_BYTES_MAX: usize = 63;
const PREFIX_BYTES_MAX: usize = 253;

/// All requirements must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSelector {
    /// As it was written: the names of Leases are made of it.
    text: String,
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    /// Holds for what has no such label, too.
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// Why a text is no label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("a requirement is missing before or after a comma")]
    Empty,
    /// Flux refuses them, too.
    #[error("`{0}` compares numbers, which selectors of labels can't here")]
    Order(String),
    #[error("`{0}` is no requirement: try `key=value`, `key in (a, b)`, `key` or `!key`")]
    Unreadable(String),
    #[error("`{0}` is not a label's name")]
    Key(String),
    #[error("`{0}` is not a label's value")]
    Value(String),
}

impl LabelSelector {
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let requirements = parts(text).map(|part| requirement(part.trim())).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), requirements })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let label = |key: &str| labels.and_then(|labels| labels.get(key));
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => label(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
        })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What stands between commas that are not in parentheses.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn requirement(part: &str) -> Result<Requirement, SelectorError> {
    if part.is_empty() {
        return Err(SelectorError::Empty);
    }
    if part.contains(['<', '>']) {
        return Err(SelectorError::Order(part.to_owned()));
    }
    if let Some(rest) = part.strip_prefix('!') {
        return Ok(Requirement::Absent(key(rest)?));
    }
    if let Some((left, list)) = part.split_once('(') {
        let unreadable = || SelectorError::Unreadable(part.to_owned());
        let list = list.strip_suffix(')').ok_or_else(unreadable)?;
        let values = list.split(',').map(value).collect::<Result<_, _>>()?;
        let (name, word) = left.trim_end().rsplit_once(char::is_whitespace).ok_or_else(unreadable)?;
        return match word {
            "in" => Ok(Requirement::In(key(name)?, values)),
            "notin" => Ok(Requirement::NotIn(key(name)?, values)),
            _ => Err(unreadable()),
        };
    }
    if let Some((name, text)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(key(name)?, vec![value(text)?]));
    }
    if let Some((name, text)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement::In(key(name)?, vec![value(text)?]));
    }
    if part.contains(char::is_whitespace) {
        return Err(SelectorError::Unreadable(part.to_owned()));
    }
    Ok(Requirement::Exists(key(part)?))
}

/// `name` or `prefix/name`.
fn key(text: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let domain = |prefix: &str| {
        let letters = prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
        letters && prefix.split('.').all(is_word) && prefix.len() <= PREFIX_BYTES_MAX
    };
    let good = is_name(name) && prefix.is_none_or(domain);
    if good { Ok(text.to_owned()) } else { Err(SelectorError::Key(text.to_owned())) }
}

fn value(text: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    if text.is_empty() || is_name(text) { Ok(text.to_owned()) } else { Err(SelectorError::Value(text.to_owned())) }
}

fn is_name(text: &str) -> bool {
    let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    letters && is_word(text) && text.len() <= NAME_BYTES_MAX
}

/// It begins and ends with a letter or a digit.
fn is_word(text: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric());
    ends(text.bytes().next()) && ends(text.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_select_as_kubectl_documents() {
        let labels: BTreeMap<String, String> = [("app", "web"), ("sharding.fluxcd.io/key", "shard1"), ("empty", "")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        for (text, labelled, bare) in [
            ("sharding.fluxcd.io/key=shard1", true, false),
            ("sharding.fluxcd.io/key == shard1", true, false),
            ("sharding.fluxcd.io/key=shard2", false, false),
            ("sharding.fluxcd.io/key", true, false),
            ("!sharding.fluxcd.io/key", false, true),
            ("sharding.fluxcd.io/key in (shard1, shard2)", true, false),
            ("sharding.fluxcd.io/key notin (shard1,shard2)", false, true),
            ("sharding.fluxcd.io/key!=shard2", true, true),
            ("app=web,sharding.fluxcd.io/key notin (shard2)", true, false),
            ("app, !other", true, false),
            ("empty=", true, false),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!((selector.matches(Some(&labels)), selector.matches(None)), (labelled, bare), "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_with_the_part_that_is_none() {
        for (text, expected) in [
            ("app=(web)", "`app=(web)` is no requirement"),
            ("a b", "`a b` is no requirement"),
            ("app within (x)", "is no requirement"),
            ("app in (x", "is no requirement"),
            ("=x", "`` is not a label's name"),
            ("a/b/c=x", "`a/b/c` is not a label's name"),
            ("Up.Case/c=x", "`Up.Case/c` is not a label's name"),
            ("app=-x", "`-x` is not a label's value"),
            ("app=web,", "a requirement is missing"),
            ("n>4", "compares numbers"),
        ] {
            let error = LabelSelector::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
