//! YAML as kustomize keeps it between its steps: the text and the style of scalars, not their values.
//!
//! In: a file's bytes, or a JSON value. Out: [`Node`]s, and at the end JSON values by the rules of YAML 1.2's core
//! schema with go-yaml's additions. A plain `yes` is text here, `0644` is a number. Aliases and merges are expanded.

use std::collections::HashMap;

use libyaml_safer::{Event, EventData, Mark, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

use crate::manifest::SourceError;
use crate::manifest::yaml::{self, MAX_DEPTH, MAX_DOCUMENTS, MAX_NODES};

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Scalar(Scalar),
    Map(Vec<(String, Node)>),
    List(Vec<Node>),
}

/// A scalar as written, and what it was taken for when it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    pub text: String,
    pub quoted: bool,
    pub tag: Tag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Whatever the text says once it is written out.
    Any,
    Str,
    Int,
    Float,
    Bool,
    Null,
    Timestamp,
}

/// One document of a file.
pub struct Document {
    pub node: Node,
    pub line: u32,
    pub index: usize,
}

impl Scalar {
    /// Text, whatever it looks like.
    pub fn string(text: impl Into<String>) -> Self {
        Self { text: text.into(), quoted: false, tag: Tag::Str }
    }

    pub fn plain(text: impl Into<String>, tag: Tag) -> Self {
        Self { text: text.into(), quoted: false, tag }
    }

    pub fn is_null(&self) -> bool {
        self.tag == Tag::Null
    }

    /// The value that a reader of the written YAML sees.
    fn value(&self) -> Result<Value, String> {
        if self.quoted || self.tag == Tag::Str {
            return Ok(Value::String(self.text.clone()));
        }
        let (tag, value) = resolve(&self.text);
        match (self.tag, tag) {
            (Tag::Any, _) => Ok(value),
            (wanted, found) if wanted == found => Ok(value),
            (Tag::Float, Tag::Int) => Ok(value),
            (wanted, _) => Err(format!("`{}` is not {}", self.text, wanted.name())),
        }
    }
}

impl Tag {
    fn name(self) -> &'static str {
        match self {
            Self::Any | Self::Str => "text",
            Self::Int => "an integer",
            Self::Float => "a number",
            Self::Bool => "a boolean",
            Self::Null => "null",
            Self::Timestamp => "a time",
        }
    }
}

impl Node {
    pub fn string(text: impl Into<String>) -> Self {
        Self::Scalar(Scalar::string(text))
    }

    pub fn null() -> Self {
        Self::Scalar(Scalar::plain("null", Tag::Null))
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(scalar) if scalar.is_null())
    }

    /// The text of a scalar, whatever it stands for.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// A field of a mapping, also if it is null.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Self::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match self {
            Self::Map(entries) => entries.iter_mut().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// A field on a path of mappings; `None` if it is absent or null.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key)).filter(|node| !node.is_null())
    }

    pub fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.text()
    }

    /// Sets a field. A scalar keeps the style of the one it replaces, as kustomize does.
    pub fn set(&mut self, key: &str, mut node: Node) {
        let Self::Map(entries) = self else { return };
        match entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => {
                keep_style(old, &mut node);
                *old = node;
            }
            None => entries.push((key.to_owned(), node)),
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<Node> {
        let Self::Map(entries) = self else { return None };
        let index = entries.iter().position(|(name, _)| name == key)?;
        Some(entries.remove(index).1)
    }

    /// The mapping at a key, made if it is absent or null; `None` if something else is there.
    pub fn map_at(&mut self, key: &str) -> Option<&mut Node> {
        if self.get(key).is_none_or(Node::is_null) {
            self.remove(key);
            self.set(key, Node::Map(Vec::new()));
        }
        self.get_mut(key).filter(|node| matches!(node, Node::Map(_)))
    }

    /// The value that a reader of the written YAML sees.
    pub fn value(&self) -> Result<Value, String> {
        match self {
            Self::Scalar(scalar) => scalar.value(),
            Self::List(items) => items.iter().map(Node::value).collect::<Result<_, _>>().map(Value::Array),
            Self::Map(entries) => {
                let mut map = Map::new();
                for (key, node) in entries {
                    map.insert(key.clone(), node.value()?);
                }
                Ok(Value::Object(map))
            }
        }
    }

    pub fn from_value(value: &Value) -> Self {
        match value {
            Value::Null => Self::null(),
            Value::Bool(value) => Self::Scalar(Scalar::plain(value.to_string(), Tag::Bool)),
            Value::Number(number) if number.is_f64() => Self::Scalar(Scalar::plain(number.to_string(), Tag::Float)),
            Value::Number(number) => Self::Scalar(Scalar::plain(number.to_string(), Tag::Int)),
            Value::String(text) => Self::string(text.clone()),
            Value::Array(items) => Self::List(items.iter().map(Self::from_value).collect()),
            Value::Object(map) => {
                Self::Map(map.iter().map(|(key, value)| (key.clone(), Self::from_value(value))).collect())
            }
        }
    }
}

/// A scalar that replaces another is written in the other's style.
pub fn keep_style(old: &Node, new: &mut Node) {
    if let (Node::Scalar(old), Node::Scalar(new)) = (old, new) {
        new.quoted = old.quoted;
    }
}

/// The documents of a file; empty ones are left out.
pub fn documents(path: &str, bytes: &[u8]) -> Result<Vec<Document>, SourceError> {
    let text = yaml::text(path, bytes)?;
    // for the errors: the plain reader knows best what is wrong and where
    yaml::documents(path, bytes)?;
    let mut parser = Parser::new();
    parser.set_input(text.as_bytes());
    let reader = Reader { path, text, parser, anchors: HashMap::new(), nodes: 0 };
    reader.stream()
}

struct Reader<'a> {
    path: &'a str,
    text: &'a str,
    parser: Parser<&'a [u8]>,
    anchors: HashMap<String, Node>,
    nodes: usize,
}

impl Reader<'_> {
    fn stream(mut self) -> Result<Vec<Document>, SourceError> {
        let (mut documents, mut index) = (Vec::new(), 0);
        loop {
            let event = self.next()?;
            match event.data {
                EventData::StreamEnd => return Ok(documents),
                EventData::DocumentStart { .. } => {
                    if index == MAX_DOCUMENTS {
                        return Err(self.error(event.start_mark, "too many documents"));
                    }
                    self.anchors.clear();
                    let first = self.next()?;
                    let line = first.start_mark.line as u32 + 1;
                    let node = self.node(first, 1)?;
                    if !node.is_null() {
                        documents.push(Document { node, line, index });
                    }
                    index += 1;
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<Event, SourceError> {
        self.parser.parse().map_err(|error| {
            let mark = error.problem_mark().unwrap_or_default();
            self.error(mark, error.to_string())
        })
    }

    fn node(&mut self, event: Event, depth: usize) -> Result<Node, SourceError> {
        let mark = event.start_mark;
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return Err(self.error(mark, "the document is too large or too deep"));
        }
        let (node, anchor) = match event.data {
            EventData::Alias { anchor } => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| self.error(mark, format!("there is no anchor `{anchor}`")))?;
                self.nodes += size(&node);
                (node, None)
            }
            EventData::Scalar { anchor, tag, value, plain_implicit, style, .. } => {
                let quoted = style != ScalarStyle::Plain;
                let tag = match tag.as_deref() {
                    Some("tag:yaml.org,2002:str" | "!") => Tag::Str,
                    Some("tag:yaml.org,2002:int") => Tag::Int,
                    Some("tag:yaml.org,2002:float") => Tag::Float,
                    Some("tag:yaml.org,2002:bool") => Tag::Bool,
                    Some("tag:yaml.org,2002:null") => Tag::Null,
                    _ if quoted || !plain_implicit => Tag::Str,
                    _ => resolve(&value).0,
                };
                (Node::Scalar(Scalar { text: value, quoted, tag }), anchor)
            }
            EventData::SequenceStart { anchor, .. } => (self.list(depth)?, anchor),
            EventData::MappingStart { anchor, .. } => (self.map(depth)?, anchor),
            _ => return Err(self.error(mark, "a value was expected here")),
        };
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Node, SourceError> {
        let mut items = Vec::new();
        loop {
            let event = self.next()?;
            if event.data == EventData::SequenceEnd {
                return Ok(Node::List(items));
            }
            items.push(self.node(event, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Node, SourceError> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let event = self.next()?;
            let mark = event.start_mark;
            if event.data == EventData::MappingEnd {
                break;
            }
            let is_merge =
                matches!(&event.data, EventData::Scalar { value, style: ScalarStyle::Plain, .. } if value == "<<");
            let Node::Scalar(key) = self.node(event, depth + 1)? else {
                return Err(self.error(mark, "a list or a mapping can't be a key"));
            };
            let event = self.next()?;
            let value = self.node(event, depth + 1)?;
            if is_merge {
                match value {
                    Node::List(items) => merged.extend(items),
                    other => merged.push(other),
                }
            } else {
                entries.push((key.text, value));
            }
        }
        // what is given beside a merge wins, then the first that is merged
        for (key, value) in
            merged.into_iter().filter_map(|node| if let Node::Map(map) = node { Some(map) } else { None }).flatten()
        {
            if !entries.iter().any(|(name, _)| *name == key) {
                entries.push((key, value));
            }
        }
        Ok(Node::Map(entries))
    }

    fn error(&self, mark: Mark, message: impl Into<String>) -> SourceError {
        SourceError::new(self.path, self.text, mark.line as u32 + 1, mark.column as u32 + 1, message)
    }
}

fn size(node: &Node) -> usize {
    match node {
        Node::Scalar(_) => 1,
        Node::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Node::Map(entries) => 1 + entries.iter().map(|(_, node)| size(node)).sum::<usize>(),
    }
}

/// What a plain scalar stands for to go-yaml v3: YAML 1.2's core schema, with old octals, underscores and times.
pub fn resolve(text: &str) -> (Tag, Value) {
    let as_text = || (Tag::Str, Value::String(text.to_owned()));
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return (Tag::Null, Value::Null),
        "true" | "True" | "TRUE" => return (Tag::Bool, Value::Bool(true)),
        "false" | "False" | "FALSE" => return (Tag::Bool, Value::Bool(false)),
        _ => {}
    }
    let first = text.as_bytes()[0];
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return as_text();
    }
    if let Some(time) = time(text) {
        return (Tag::Timestamp, Value::String(time));
    }
    let plain = text.replace('_', "");
    if first != b'.'
        && let Some(number) = integer(&plain)
    {
        return (Tag::Int, Value::Number(number));
    }
    match float(if first == b'.' { text } else { &plain }) {
        Some(value) => (Tag::Float, value),
        None => as_text(),
    }
}

/// Go's `ParseInt` with base 0: a prefix says the base, a leading `0` is octal.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::try_from(u128::from_str_radix(digits, radix).ok()?).ok()?;
    let value = if negative { -magnitude } else { magnitude };
    i64::try_from(value).map(Number::from).or_else(|_| u64::try_from(value).map(Number::from)).ok()
}

fn float(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let starts_well = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if !starts_well || !unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-')) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    if value.is_finite() && value.fract() == 0.0 && value.abs() < 1e21 {
        return format!("{value}").parse::<i64>().ok().map(|n| Value::Number(n.into()));
    }
    Number::from_f64(value).map(Value::Number)
}

/// A plain date or time becomes a time, which JSON writes in full.
fn time(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || !bytes[..4].iter().all(u8::is_ascii_digit) || bytes[4] != b'-' {
        return None;
    }
    if let Ok(date) = jiff::civil::Date::strptime("%Y-%m-%d", text) {
        return Some(format!("{date}T00:00:00Z"));
    }
    if let Ok(at) = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S%.f", text) {
        return Some(format!("{at}Z").replacen(' ', "T", 1));
    }
    let separated = bytes.get(8..)?.iter().any(|b| matches!(b, b'T' | b't'));
    if !separated {
        return None;
    }
    let upper = text.to_ascii_uppercase();
    // the offset as given
    upper.parse::<jiff::Timestamp>().ok().map(|_| upper)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_are_what_go_yaml_takes_them_for() {
        for (text, wanted) in [
            ("yes", json!("yes")),
            ("0644", json!(420)),
            ("0o17", json!(15)),
            ("1_000", json!(1000)),
            ("1:30", json!("1:30")),
            ("-0x10", json!(-16)),
            ("1e3", json!(1000)),
            (".5", json!(0.5)),
            ("1.2.3", json!("1.2.3")),
            ("09", json!(9)),
            ("~", json!(null)),
            ("2020-01-02", json!("2020-01-02T00:00:00Z")),
        ] {
            assert_eq!(resolve(text).1, wanted, "{text}");
        }
    }

    #[test]
    fn aliases_and_merges_are_expanded() {
        let text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n";
        let documents = documents("f.yaml", text.as_bytes()).expect("YAML");
        let value = documents[0].node.value().expect("a value");
        assert_eq!(value, json!({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}));
    }
}
