//! Which objects a patch or a replacement is for: regular expressions over identity, Kubernetes' selectors over labels
//! and annotations.

use regex::Regex;
use serde::Deserialize;

use super::resource::Gvk;

/// As written. Expressions match whole values; empty ones match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Selector {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub annotation_selector: String,
    pub label_selector: String,
}

pub struct Matcher {
    group: Option<Regex>,
    version: Option<Regex>,
    kind: Option<Regex>,
    name: Option<Regex>,
    namespace: Option<Regex>,
    annotations: Vec<Requirement>,
    labels: Vec<Requirement>,
}

impl Selector {
    pub fn compile(&self) -> Result<Matcher, String> {
        Ok(Matcher {
            group: whole(&self.group)?,
            version: whole(&self.version)?,
            kind: whole(&self.kind)?,
            name: whole(&self.name)?,
            namespace: whole(&self.namespace)?,
            annotations: requirements(&self.annotation_selector)?,
            labels: requirements(&self.label_selector)?,
        })
    }

    /// Nothing of an identity is asked for.
    pub fn names_nothing(&self) -> bool {
        [&self.group, &self.version, &self.kind, &self.name, &self.namespace].into_iter().all(String::is_empty)
    }
}

fn whole(pattern: &str) -> Result<Option<Regex>, String> {
    if pattern.is_empty() {
        return Ok(None);
    }
    match Regex::new(&format!("^(?:{pattern})$")) {
        Ok(regex) => Ok(Some(regex)),
        Err(_) => Err(format!("`{pattern}` is not a regular expression")),
    }
}

fn is_match(regex: &Option<Regex>, text: &str) -> bool {
    regex.as_ref().is_none_or(|regex| regex.is_match(text))
}

impl Matcher {
    pub fn gvk(&self, gvk: &Gvk) -> bool {
        is_match(&self.group, &gvk.group) && is_match(&self.version, &gvk.version) && is_match(&self.kind, &gvk.kind)
    }

    pub fn name(&self, name: &str) -> bool {
        is_match(&self.name, name)
    }

    pub fn namespace(&self, namespace: &str) -> bool {
        is_match(&self.namespace, namespace)
    }

    pub fn labels(&self, labels: &[(String, String)]) -> bool {
        self.labels.iter().all(|requirement| requirement.holds(labels))
    }

    pub fn annotations(&self, annotations: &[(String, String)]) -> bool {
        self.annotations.iter().all(|requirement| requirement.holds(annotations))
    }
}

/// One term of a label selector.
#[derive(Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Requirement {
    fn holds(&self, labels: &[(String, String)]) -> bool {
        let value = |key: &str| labels.iter().find(|(name, _)| name == key).map(|(_, value)| value);
        match self {
            Self::In(key, values) => value(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => value(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => value(key).is_some(),
            Self::Absent(key) => value(key).is_none(),
        }
    }
}

/// `a=b,c!=d,e in (f,g),h notin (i),j,!k`
fn requirements(text: &str) -> Result<Vec<Requirement>, String> {
    terms(text).into_iter().map(|term| requirement(term.trim())).collect()
}

/// Commas inside parentheses separate values, not terms.
fn terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut open) = (Vec::new(), 0, false);
    for (index, c) in text.char_indices() {
        match c {
            '(' => open = true,
            ')' => open = false,
            ',' if !open => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        terms.push(&text[start..]);
    }
    terms
}

fn requirement(term: &str) -> Result<Requirement, String> {
    let bad = || format!("`{term}` is not a term of a label selector");
    let named = |key: &str| -> Result<String, String> {
        let key = key.trim();
        let fine = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        if fine { Ok(key.to_owned()) } else { Err(bad()) }
    };
    if let Some(key) = term.strip_prefix('!') {
        return Ok(Requirement::Absent(named(key)?));
    }
    for (operator, is_in) in [(" notin ", false), (" in ", true)] {
        let spaced = term.replacen('(', " (", 1);
        if let Some((key, values)) = spaced.split_once(operator) {
            let inner = values.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or_else(bad)?;
            let values = inner.split(',').map(|value| value.trim().to_owned()).collect();
            let key = named(key)?;
            return Ok(if is_in { Requirement::In(key, values) } else { Requirement::NotIn(key, values) });
        }
    }
    if let Some((key, value)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(named(key)?, vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = term.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Ok(Requirement::In(named(key)?, vec![value.trim().to_owned()]));
    }
    Ok(Requirement::Exists(named(term)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_are_read_as_kubectl_reads_them() {
        let labels = vec![("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "front".to_owned())];
        for (text, wanted) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (web, api),tier", true),
            ("app notin (web)", false),
            ("!app", false),
            ("!other, app", true),
            ("other=x", false),
        ] {
            let selector = Selector { label_selector: text.into(), ..Selector::default() };
            assert_eq!(selector.compile().expect("a selector").labels(&labels), wanted, "{text}");
        }
        assert!(requirements("a in b").is_err());
        assert!(requirements("a b").is_err());
    }
}
