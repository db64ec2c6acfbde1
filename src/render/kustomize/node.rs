//! YAML as kustomize keeps it between its steps: the text and the style of scalars, not their values.
//!
//! In: a file's bytes, or a JSON value. Out: [`Node`]s, and at the end JSON values by the rules of YAML 1.2's core
//! schema with go-yaml's additions. A plain `yes` is text here, `0644` is a number. Aliases and merges are expanded.

use std::collections::{HashMap, HashSet};

use libyaml_safer::{Event, EventData, Mark, ScalarStyle};
use serde_json::{Map, Value};

use super::budget::{Budget, NODE_BYTES};
use super::scalar::resolve;
pub use super::scalar::{Scalar, Tag};
use crate::manifest::SourceError;
use crate::manifest::yaml::{
    self, EventReader, GAVE_UP, MAX_DEPTH, MAX_DOCUMENTS, MAX_EXPANDED_BYTES, MAX_NODES, Unread,
};

/// Up to so many keys of a mapping are searched one by one.
const FEW: usize = 16;
/// How often a reader asks whether to go on: some hundred times a second.
const ASK_AFTER_NODES: usize = 512;

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Scalar(Scalar),
    Map(Vec<(String, Node)>),
    List(Vec<Node>),
}

/// One document of a file.
pub struct Document {
    pub node: Node,
    pub line: u32,
    pub index: usize,
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

    pub fn scalar(&self) -> Option<&Scalar> {
        match self {
            Self::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The text of a scalar, whatever it stands for.
    pub fn text(&self) -> Option<&str> {
        self.scalar().map(|scalar| scalar.text.as_str())
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

    /// What an object says that it is, and nothing else of it.
    pub fn head(&self) -> Value {
        let shallow = |node: &Node| match node {
            Self::Scalar(scalar) => scalar.value().unwrap_or_default(),
            Self::List(_) => Value::Array(Vec::new()),
            Self::Map(_) => Value::Object(Map::new()),
        };
        let fields = |node: &Node, names: &[&str]| -> Map<String, Value> {
            names.iter().filter_map(|name| Some(((*name).to_owned(), shallow(node.get(name)?)))).collect()
        };
        if !matches!(self, Self::Map(_)) {
            return shallow(self);
        }
        let mut head = fields(self, &["apiVersion", "kind", "metadata"]);
        if let Some(metadata @ Self::Map(_)) = self.get("metadata") {
            let metadata = fields(metadata, &["name", "namespace", "labels", "annotations"]);
            head.insert("metadata".to_owned(), Value::Object(metadata));
        }
        Value::Object(head)
    }

    /// Numbers as they are after kustomize had the object as JSON: doubles, whose whole values are integers.
    pub fn numbers_as_floats(&mut self) {
        match self {
            Self::Scalar(scalar) if scalar.tag == Tag::Int => {
                let as_float = scalar.text.parse::<f64>().ok();
                let value = as_float.and_then(|f| yaml::Number::Float(f).into_value().ok());
                if let Some(Value::Number(number)) = value {
                    scalar.tag = if number.is_f64() { Tag::Float } else { Tag::Int };
                    scalar.text = number.to_string();
                }
            }
            Self::Scalar(_) => {}
            Self::List(items) => items.iter_mut().for_each(Self::numbers_as_floats),
            Self::Map(entries) => entries.iter_mut().for_each(|(_, node)| node.numbers_as_floats()),
        }
    }

    /// A copy for another object.
    pub fn alone(&self) -> Self {
        let mut copy = self.clone();
        copy.each_shared(&mut |scalar| scalar.shared = 0);
        copy
    }

    /// Each scalar that is one with others, by the names of the fields that lead there.
    pub fn each_shared(&mut self, visit: &mut dyn FnMut(&mut Scalar)) {
        match self {
            Self::Scalar(scalar) if scalar.shared != 0 => visit(scalar),
            Self::Scalar(_) => {}
            Self::List(items) => items.iter_mut().for_each(|item| item.each_shared(visit)),
            Self::Map(entries) => {
                let mut sorted: Vec<&mut (String, Node)> = entries.iter_mut().collect();
                sorted.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
                sorted.into_iter().for_each(|(_, node)| node.each_shared(visit));
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

/// A scalar that replaces another is written in the other's style, and into all that is one with it.
pub fn keep_style(old: &Node, new: &mut Node) {
    if let (Node::Scalar(old), Node::Scalar(new)) = (old, new) {
        (new.quoted, new.shared) = (old.quoted, old.shared);
    }
}

/// The documents of a file; empty ones are left out.
pub fn documents(path: &str, bytes: &[u8], budget: &Budget<'_>) -> Result<Vec<Document>, SourceError> {
    let text = yaml::text(path, bytes)?;
    let go_on = || budget.go_on().is_ok();
    let events = EventReader::watched(text, &go_on);
    let reader = Reader { path, text, events, budget, anchors: HashMap::new(), nodes: 0, asked: 0, bytes: 0 };
    reader.stream()
}

struct Reader<'a> {
    path: &'a str,
    text: &'a str,
    events: EventReader<'a>,
    budget: &'a Budget<'a>,
    anchors: HashMap<String, (Node, Size)>,
    nodes: usize,
    /// Nodes of which the budget knows.
    asked: usize,
    /// Text that aliases brought.
    bytes: usize,
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
        self.events.next().map_err(|error| match error {
            Unread::Syntax(_) if self.budget.stopped().is_some() => SourceError::whole_file(self.path, "cancelled"),
            Unread::Syntax(error) => {
                let mark = error.problem_mark().unwrap_or_default();
                self.in_words(self.error(mark, error.to_string()))
            }
            Unread::GaveUp => SourceError::whole_file(self.path, GAVE_UP),
        })
    }

    /// The plain reader has better words for what both refuse.
    fn in_words(&self, error: SourceError) -> SourceError {
        yaml::documents(self.path, self.text.as_bytes()).err().unwrap_or(error)
    }

    fn node(&mut self, event: Event, depth: usize) -> Result<Node, SourceError> {
        let mark = event.start_mark;
        self.spend(mark, depth, Size { nodes: 1, bytes: 0, height: 0 })?;
        let (node, anchor) = match event.data {
            EventData::Alias { anchor } => {
                let known = self.anchors.get(&anchor).cloned();
                let (node, size) = known.ok_or_else(|| self.error(mark, format!("there is no anchor `{anchor}`")))?;
                self.spend(mark, depth, size)?;
                (node, None)
            }
            EventData::Scalar { anchor, tag, value, plain_implicit, style, .. } => {
                let plain = style == ScalarStyle::Plain;
                let (tag, quoted) = match tag.as_deref() {
                    Some("tag:yaml.org,2002:str" | "!") => (Tag::Str, !plain),
                    // what a tag says holds in quotes as well
                    Some("tag:yaml.org,2002:int") => (Tag::Int, false),
                    Some("tag:yaml.org,2002:float") => (Tag::Float, false),
                    Some("tag:yaml.org,2002:bool") => (Tag::Bool, false),
                    Some("tag:yaml.org,2002:null") => (Tag::Null, false),
                    Some("tag:yaml.org,2002:binary") => {
                        let text = yaml::binary(&value).map_err(|message| self.error(mark, message))?;
                        return Ok(Node::string(text));
                    }
                    _ if !plain || !plain_implicit => (Tag::Str, !plain),
                    _ => (resolve(&value).0, false),
                };
                (Node::Scalar(Scalar { quoted, ..Scalar::plain(value, tag) }), anchor)
            }
            EventData::SequenceStart { anchor, .. } => (self.list(depth)?, anchor),
            EventData::MappingStart { anchor, .. } => (self.map(mark, depth)?, anchor),
            _ => return Err(self.error(mark, "a value was expected here")),
        };
        if let Some(anchor) = anchor {
            let size = Size::of(&node);
            // the anchor keeps a copy of its own
            self.spend(mark, 1, Size { height: 0, ..size })?;
            self.anchors.insert(anchor, (node.clone(), size));
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

    fn map(&mut self, start: Mark, depth: usize) -> Result<Node, SourceError> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        // the keys, once they are many
        let mut seen: Option<HashSet<String>> = None;
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
            if key.tag != Tag::Str {
                let message = format!("the key `{}` is {}, not text: put quotes around it", key.text, key.tag.name());
                return Err(self.error(mark, message));
            }
            let event = self.next()?;
            let value = self.node(event, depth + 1)?;
            if is_merge {
                match value {
                    Node::List(items) => merged.extend(items),
                    other => merged.push(other),
                }
            } else {
                let is_new = match &mut seen {
                    Some(seen) => seen.insert(key.text.clone()),
                    None => !entries.iter().any(|(known, _)| *known == key.text),
                };
                if !is_new {
                    return Err(self.in_words(self.error(mark, format!("key `{}` is given twice", key.text))));
                }
                entries.push((key.text, value));
                if seen.is_none() && entries.len() == FEW {
                    seen = Some(entries.iter().map(|(known, _)| known.clone()).collect());
                }
            }
        }
        if merged.iter().any(|node| !matches!(node, Node::Map(_))) {
            return Err(self.error(start, "`<<` takes a mapping or a list of mappings"));
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

    fn spend(&mut self, mark: Mark, depth: usize, size: Size) -> Result<(), SourceError> {
        self.nodes += size.nodes;
        self.bytes += size.bytes;
        if depth + size.height > MAX_DEPTH {
            return Err(self.error(mark, format!("values are nested deeper than {MAX_DEPTH} levels")));
        }
        if self.nodes > MAX_NODES {
            let error = self.error(mark, format!("more than {MAX_NODES} values in one file, aliases expanded"));
            return Err(error.with_hint("aliases of aliases multiply; write the repeated part out, or split the file"));
        }
        if self.bytes > MAX_EXPANDED_BYTES {
            return Err(self.error(mark, format!("more than {MAX_EXPANDED_BYTES} bytes in one file, aliases expanded")));
        }
        let new = self.nodes - self.asked;
        if new >= ASK_AFTER_NODES {
            self.asked = self.nodes;
            self.budget.spend(new * NODE_BYTES).map_err(|message| self.error(mark, message))?;
        }
        Ok(())
    }

    fn error(&self, mark: Mark, message: impl Into<String>) -> SourceError {
        SourceError::new(self.path, self.text, mark.line as u32 + 1, mark.column as u32 + 1, message)
    }
}

/// What an alias brings.
#[derive(Clone, Copy)]
struct Size {
    nodes: usize,
    bytes: usize,
    /// Levels below it.
    height: usize,
}

impl Size {
    fn of(node: &Node) -> Self {
        match node {
            Node::Scalar(scalar) => Self { nodes: 1, bytes: scalar.text.len(), height: 0 },
            Node::List(items) => items.iter().fold(Self::EMPTY, |size, item| size.with(item, 0)),
            Node::Map(entries) => entries.iter().fold(Self::EMPTY, |size, (key, node)| size.with(node, key.len())),
        }
    }

    const EMPTY: Self = Self { nodes: 1, bytes: 0, height: 0 };

    fn with(self, below: &Node, key: usize) -> Self {
        let below = Self::of(below);
        Self {
            nodes: self.nodes + below.nodes,
            bytes: self.bytes + below.bytes + key,
            height: self.height.max(below.height + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::yaml::MAX_FILE_BYTES;

    #[test]
    fn aliases_and_merges_are_expanded() {
        let text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n";
        let documents =
            documents("f.yaml", text.as_bytes(), &Budget::new(&|| false, MAX_FILE_BYTES as usize)).expect("YAML");
        let value = documents[0].node.value().expect("a value");
        assert_eq!(value, json!({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}));
    }
}
