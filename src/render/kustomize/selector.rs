//! Which objects a patch or a replacement is for: regular expressions over identity, Kubernetes' selectors over labels
//! and annotations.

use regex::Regex;
use serde::Deserialize;

use crate::api::PatchTarget;
use crate::manifest::Object;

use super::regular;
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
    group: Pattern,
    version: Pattern,
    kind: Pattern,
    name: Pattern,
    namespace: Pattern,
    annotations: Vec<Requirement>,
    labels: Vec<Requirement>,
}

impl From<&PatchTarget> for Selector {
    fn from(target: &PatchTarget) -> Self {
        Self {
            group: target.group.clone(),
            version: target.version.clone(),
            kind: target.kind.clone(),
            name: target.name.clone(),
            namespace: target.namespace.clone(),
            annotation_selector: target.annotation_selector.clone(),
            label_selector: target.label_selector.clone(),
        }
    }
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

    /// The first field that can't be read, and why.
    pub fn mistake(&self) -> Option<(&'static str, String)> {
        let patterns = [
            ("group", &self.group),
            ("version", &self.version),
            ("kind", &self.kind),
            ("name", &self.name),
            ("namespace", &self.namespace),
        ];
        let selectors = [("annotationSelector", &self.annotation_selector), ("labelSelector", &self.label_selector)];
        let in_patterns = patterns.into_iter().find_map(|(field, text)| Some((field, whole(text).err()?)));
        in_patterns.or_else(|| selectors.into_iter().find_map(|(field, text)| Some((field, requirements(text).err()?))))
    }

    /// Nothing of an identity is asked for.
    pub fn names_nothing(&self) -> bool {
        [&self.group, &self.version, &self.kind, &self.name, &self.namespace].into_iter().all(String::is_empty)
    }
}

enum Pattern {
    Anything,
    /// Without anything that means something in an expression.
    Text(String),
    Expression(Regex),
}

fn whole(pattern: &str) -> Result<Pattern, String> {
    if pattern.is_empty() {
        return Ok(Pattern::Anything);
    }
    if pattern.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'/') {
        return Ok(Pattern::Text(pattern.to_owned()));
    }
    regular::compile_whole(pattern).map(Pattern::Expression)
}

impl Pattern {
    fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Text(wanted) => wanted == text,
            Self::Expression(regex) => regex.is_match(text),
        }
    }
}

impl Matcher {
    /// Whether an object has all that is asked for.
    pub fn object(&self, object: &Object) -> bool {
        let id = &object.id;
        let texts = |map: &str| -> Vec<(String, String)> {
            let map =
                object.value.get("metadata").and_then(|metadata| metadata.get(map)).and_then(|map| map.as_object());
            let texts = map.into_iter().flatten();
            texts.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
        };
        self.gvk(&Gvk::new(&id.group, &object.version, &id.kind))
            && self.name(&id.name)
            && self.namespace(&id.namespace)
            && self.labels(&texts("labels"))
            && self.annotations(&texts("annotations"))
    }

    pub fn gvk(&self, gvk: &Gvk) -> bool {
        self.group.is_match(&gvk.group) && self.version.is_match(&gvk.version) && self.kind.is_match(&gvk.kind)
    }

    pub fn name(&self, name: &str) -> bool {
        self.name.is_match(name)
    }

    pub fn namespace(&self, namespace: &str) -> bool {
        self.namespace.is_match(namespace)
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
    Above(String, i64),
    Below(String, i64),
}

impl Requirement {
    fn holds(&self, labels: &[(String, String)]) -> bool {
        let value = |key: &str| labels.iter().find(|(name, _)| name == key).map(|(_, value)| value);
        let number = |key: &str| value(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(key, values) => value(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => value(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => value(key).is_some(),
            Self::Absent(key) => value(key).is_none(),
            Self::Above(key, limit) => number(key).is_some_and(|value| value > *limit),
            Self::Below(key, limit) => number(key).is_some_and(|value| value < *limit),
        }
    }
}

/// `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`: the grammar of apimachinery's `labels.Parse`.
fn requirements(text: &str) -> Result<Vec<Requirement>, String> {
    let mut tokens = Tokens { rest: text };
    let mut requirements = Vec::new();
    let said = |error: String| format!("`{text}` is not a label selector: {error}");
    if tokens.peek().is_none() {
        return Ok(requirements);
    }
    loop {
        requirements.push(tokens.requirement().map_err(said)?);
        match tokens.next() {
            None => return Ok(requirements),
            Some(",") => {}
            Some(other) => return Err(said(format!("`,` or the end was expected before `{other}`"))),
        }
    }
}

/// Words, and what stands between them.
struct Tokens<'a> {
    rest: &'a str,
}

const OPERATORS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", "<", ">"];

impl<'a> Tokens<'a> {
    fn peek(&self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        if let Some(operator) = OPERATORS.into_iter().find(|operator| rest.starts_with(operator)) {
            return Some(operator);
        }
        let ends = |c: char| c.is_whitespace() || "=!(),<>".contains(c);
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        if word.is_empty() { None } else { Some(word) }
    }

    fn next(&mut self) -> Option<&'a str> {
        let token = self.peek()?;
        self.rest = &self.rest.trim_start()[token.len()..];
        Some(token)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.peek() == Some("!");
        if absent {
            self.next();
        }
        let key = self.next().filter(|key| !OPERATORS.contains(key)).ok_or("a key was expected")?.to_owned();
        check_key(&key)?;
        if absent {
            return Ok(Requirement::Absent(key));
        }
        if matches!(self.peek(), None | Some(",")) {
            return Ok(Requirement::Exists(key));
        }
        Ok(match self.next() {
            Some("=" | "==") => Requirement::In(key, vec![self.value()?]),
            Some("!=") => Requirement::NotIn(key, vec![self.value()?]),
            Some(">") => Requirement::Above(key, self.number()?),
            Some("<") => Requirement::Below(key, self.number()?),
            Some("in") => Requirement::In(key, self.values()?),
            Some("notin") => Requirement::NotIn(key, self.values()?),
            other => return Err(format!("`{}` is not an operator", other.unwrap_or_default())),
        })
    }

    /// One value; none is the empty one.
    fn value(&mut self) -> Result<String, String> {
        match self.peek() {
            None | Some(",") => Ok(String::new()),
            Some(word) if OPERATORS.contains(&word) => Err(format!("a value was expected before `{word}`")),
            Some(word) => {
                self.next();
                check_value(word)?;
                Ok(word.to_owned())
            }
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        let value = self.value()?;
        value.parse().map_err(|_| format!("`{value}` is not a number"))
    }

    /// Values in parentheses. Between two commas is the empty one.
    fn values(&mut self) -> Result<Vec<String>, String> {
        if self.next() != Some("(") {
            return Err("`(` was expected after `in` and `notin`".into());
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Some(end @ ("," | ")")) => {
                    values.push(String::new());
                    if end == ")" {
                        return Ok(values);
                    }
                }
                Some(word) if !OPERATORS.contains(&word) => {
                    check_value(word)?;
                    values.push(word.to_owned());
                    match self.next() {
                        Some(",") => {}
                        Some(")") => return Ok(values),
                        _ => return Err(format!("`,` or `)` was expected after `{word}`")),
                    }
                }
                _ => return Err("the values have no `)`".into()),
            }
        }
    }
}

/// Letters and digits at both ends, and `-`, `_`, `.` between them.
fn is_name(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && ends(text.chars().next())
        && ends(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn check_value(value: &str) -> Result<(), String> {
    if is_name(value) { Ok(()) } else { Err(format!("`{value}` is not a value of a label")) }
}

/// A name, or a domain and a name.
fn check_key(key: &str) -> Result<(), String> {
    let is_domain = |domain: &str| {
        domain.len() <= 253
            && domain.split('.').all(|part| {
                is_name(part) && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            })
    };
    let fine = match key.split_once('/') {
        Some((domain, name)) => is_domain(domain) && is_name(name),
        None => is_name(key),
    };
    if fine { Ok(()) } else { Err(format!("`{key}` is not a key of a label")) }
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
            ("app in ()", false),
            ("app in (,web)", true),
            ("tier = front", true),
            ("size>1", false),
        ] {
            let selector = Selector { label_selector: text.into(), ..Selector::default() };
            assert_eq!(selector.compile().expect("a selector").labels(&labels), wanted, "{text}");
        }
        for bad in ["a in b", "a b", "a in (b", "-a=b", "a=b c", "a,", "=b", "a>x", "x/y/z"] {
            assert!(requirements(bad).is_err(), "{bad}");
        }
    }
}
