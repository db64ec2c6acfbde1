//! From events to values: anchors, merges, duplicate keys and limits.

use std::collections::{BTreeSet, HashMap};

use libyaml_safer::{Error as YamlError, Event, EventData, Mark};
use serde_json::{Map, Value};

use super::events::{EventReader, GAVE_UP, TO_THE_END, Unread};
use super::position::first_key;
use super::scalar::{self, Scalar};
use crate::manifest::SourceError;

/// Larger than any bundle of CRDs that people ship as one file; small enough to parse within a second.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// Documents in one file.
pub const MAX_DOCUMENTS: usize = 10_000;
/// JSON readers of API servers and of this program stop at 128 levels; managed fields of an object nest a few levels
/// deeper than the object.
pub const MAX_DEPTH: usize = 120;
/// Values in one file after aliases were expanded: stops alias bombs, is ten times what large bundles hold.
pub const MAX_NODES: usize = 1_000_000;
/// Text in one file after aliases were expanded.
pub const MAX_EXPANDED_BYTES: usize = 64 << 20;

/// One document of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// `null` if the document is empty.
    pub value: Value,
    /// From 1: the line of its first node.
    pub line: u32,
    /// Its place in the stream, from 0.
    pub index: usize,
}

/// Reads all documents of a file; empty ones are `null`.
pub fn documents(path: &str, bytes: &[u8]) -> Result<Vec<Document>, SourceError> {
    documents_while(path, bytes, TO_THE_END)
}

/// As long as `go_on` says so: what the error says of a text that was left is not for anybody.
pub fn documents_while(path: &str, bytes: &[u8], go_on: &dyn Fn() -> bool) -> Result<Vec<Document>, SourceError> {
    Reader::new(path, bytes, go_on)?.stream()
}

/// Reads a file that holds one document, as values and settings do. An empty file is `null`.
pub fn single(path: &str, bytes: &[u8]) -> Result<Document, SourceError> {
    single_while(path, bytes, TO_THE_END)
}

/// See [`documents_while`].
pub fn single_while(path: &str, bytes: &[u8], go_on: &dyn Fn() -> bool) -> Result<Document, SourceError> {
    let mut documents = documents_while(path, bytes, go_on)?.into_iter();
    let first = documents.next().unwrap_or(Document { value: Value::Null, line: 1, index: 0 });
    match documents.find(|d| !d.value.is_null()) {
        None => Ok(first),
        Some(second) => Err(SourceError::new(
            path,
            &String::from_utf8_lossy(bytes),
            second.line,
            1,
            "this file can hold one document only",
        )),
    }
}

/// The text of a file, without a byte order mark: not too long, and UTF-8.
pub fn text<'a>(path: &str, bytes: &'a [u8]) -> Result<&'a str, SourceError> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(SourceError::whole_file(
            path,
            format!("the file is {} bytes long, over the limit of {MAX_FILE_BYTES}", bytes.len()),
        ));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let line = valid.matches('\n').count() as u32 + 1;
        let column = valid.rsplit('\n').next().map_or(0, |l| l.chars().count()) as u32 + 1;
        let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        SourceError::new(
            path,
            &String::from_utf8_lossy(bytes),
            line,
            column,
            format!("the file is not UTF-8 text: byte 0x{byte:02x}"),
        )
    })
}

/// What an anchor stands for.
struct Anchored {
    /// `None` while the anchored node is still being read.
    node: Option<Node>,
    nodes: usize,
    bytes: usize,
    height: usize,
}

#[derive(Clone)]
enum Node {
    Scalar(Scalar),
    Collection(Value),
}

struct Reader<'a> {
    path: &'a str,
    text: &'a str,
    events: EventReader<'a>,
    anchors: HashMap<String, Anchored>,
    nodes: usize,
    bytes: usize,
    /// The deepest level that was reached since an anchored node began.
    deepest: usize,
}

impl<'a> Reader<'a> {
    fn new(path: &'a str, bytes: &'a [u8], go_on: &'a dyn Fn() -> bool) -> Result<Self, SourceError> {
        let text = text(path, bytes)?;
        let events = EventReader::watched(text, go_on);
        Ok(Self { path, text, events, anchors: HashMap::new(), nodes: 0, bytes: 0, deepest: 0 })
    }

    fn stream(mut self) -> Result<Vec<Document>, SourceError> {
        let mut documents = Vec::new();
        loop {
            let event = self.next()?;
            match event.data {
                EventData::StreamStart { .. } | EventData::DocumentEnd { .. } => {}
                EventData::DocumentStart { .. } => {
                    if documents.len() == MAX_DOCUMENTS {
                        return Err(
                            self.error(event.start_mark, format!("more than {MAX_DOCUMENTS} documents in one file"))
                        );
                    }
                    self.anchors.clear();
                    let first = self.next()?;
                    let line = first.start_mark.line as u32 + 1;
                    let value = self.value(first, 1)?;
                    documents.push(Document { value, line, index: documents.len() });
                }
                _ => return Ok(documents),
            }
        }
    }

    fn next(&mut self) -> Result<Event, SourceError> {
        self.events.next().map_err(|error| match error {
            Unread::Syntax(error) => self.syntax(&error),
            Unread::GaveUp => SourceError::whole_file(self.path, GAVE_UP),
        })
    }

    fn value(&mut self, event: Event, depth: usize) -> Result<Value, SourceError> {
        let mark = event.start_mark;
        match self.node(event, depth)? {
            Node::Collection(value) => Ok(value),
            Node::Scalar(scalar) => scalar.into_value().map_err(|reason| self.error(mark, reason)),
        }
    }

    fn node(&mut self, event: Event, depth: usize) -> Result<Node, SourceError> {
        let mark = event.start_mark;
        if depth > MAX_DEPTH {
            return Err(self.error(mark, format!("values are nested deeper than {MAX_DEPTH} levels")));
        }
        self.deepest = self.deepest.max(depth);
        self.spend(mark, 1, 0)?;
        match event.data {
            EventData::Alias { anchor } => self.alias(&anchor, mark, depth),
            EventData::Scalar { anchor, tag, value, plain_implicit, .. } => {
                self.spend(mark, 0, value.len())?;
                let length = value.len();
                let scalar = scalar::resolve(value, tag.as_deref(), plain_implicit)
                    .map_err(|reason| self.error(mark, reason))?;
                if let Some(anchor) = anchor {
                    let node = Some(Node::Scalar(scalar.clone()));
                    self.anchors.insert(anchor, Anchored { node, nodes: 1, bytes: length, height: 0 });
                }
                Ok(Node::Scalar(scalar))
            }
            EventData::SequenceStart { anchor, .. } => {
                self.anchored(anchor, mark, depth, |reader| reader.sequence(depth))
            }
            EventData::MappingStart { anchor, .. } => {
                self.anchored(anchor, mark, depth, |reader| reader.mapping(mark, depth))
            }
            _ => Err(self.error(mark, "a value was expected here")),
        }
    }

    /// Reads a collection and remembers it under its anchor.
    fn anchored(
        &mut self,
        anchor: Option<String>,
        mark: Mark,
        depth: usize,
        read: impl FnOnce(&mut Self) -> Result<Value, SourceError>,
    ) -> Result<Node, SourceError> {
        let Some(anchor) = anchor else { return Ok(Node::Collection(read(self)?)) };
        self.anchors.insert(anchor.clone(), Anchored { node: None, nodes: 0, bytes: 0, height: 0 });
        let (nodes, bytes) = (self.nodes, self.bytes);
        let outer = std::mem::replace(&mut self.deepest, depth);
        let value = read(self)?;
        let (nodes, bytes, height) = (self.nodes - nodes, self.bytes - bytes, self.deepest - depth);
        self.deepest = self.deepest.max(outer);
        // The anchor keeps a copy of its own.
        self.spend(mark, nodes, bytes)?;
        let node = Some(Node::Collection(value.clone()));
        self.anchors.insert(anchor, Anchored { node, nodes: nodes + 1, bytes, height });
        Ok(Node::Collection(value))
    }

    fn alias(&mut self, name: &str, mark: Mark, depth: usize) -> Result<Node, SourceError> {
        let Some(anchored) = self.anchors.get(name) else {
            return Err(self.error(mark, format!("there is no anchor `{name}`")));
        };
        let (nodes, bytes, height) = (anchored.nodes, anchored.bytes, anchored.height);
        if anchored.node.is_none() {
            return Err(self.error(mark, format!("anchor `{name}` contains itself")));
        }
        if depth + height > MAX_DEPTH {
            return Err(self.error(mark, format!("values are nested deeper than {MAX_DEPTH} levels")));
        }
        self.deepest = self.deepest.max(depth + height);
        self.spend(mark, nodes, bytes)?;
        self.anchors
            .get(name)
            .and_then(|anchored| anchored.node.clone())
            .ok_or_else(|| self.error(mark, format!("there is no anchor `{name}`")))
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, SourceError> {
        let mut items = Vec::new();
        loop {
            let event = self.next()?;
            if event.data == EventData::SequenceEnd {
                return Ok(Value::Array(items));
            }
            items.push(self.value(event, depth + 1)?);
        }
    }

    fn mapping(&mut self, start: Mark, depth: usize) -> Result<Value, SourceError> {
        let mut map = Map::new();
        // Keys that came from a merge and may be given once more.
        let mut merged = BTreeSet::new();
        loop {
            let event = self.next()?;
            let mark = event.start_mark;
            if event.data == EventData::MappingEnd {
                return Ok(Value::Object(map));
            }
            if is_merge(&event.data) {
                let event = self.next()?;
                let at = event.start_mark;
                let value = self.value(event, depth + 1)?;
                self.merge(&mut map, &mut merged, value, at)?;
                continue;
            }
            let key = match self.node(event, depth + 1)? {
                Node::Scalar(scalar) => scalar.into_key().map_err(|reason| self.error(mark, reason))?,
                Node::Collection(_) => {
                    let error = self.error(mark, "a list or a mapping can't be a key");
                    return Err(match self.text.get(byte_at(self.text, mark)..) {
                        Some(rest) if rest.starts_with('{') => error.with_hint(
                            "`{{ … }}` without quotes is a mapping to YAML; quote it, or render this folder with `render: template`",
                        ),
                        _ => error,
                    });
                }
            };
            if map.contains_key(&key) && !merged.remove(&key) {
                return Err(self.duplicate(&key, start, mark));
            }
            let event = self.next()?;
            let value = self.value(event, depth + 1)?;
            map.insert(key, value);
        }
    }

    fn merge(
        &self,
        map: &mut Map<String, Value>,
        merged: &mut BTreeSet<String>,
        value: Value,
        mark: Mark,
    ) -> Result<(), SourceError> {
        let sources = match value {
            Value::Object(source) => vec![source],
            Value::Array(items) => items
                .into_iter()
                .rev()
                .map(|item| match item {
                    Value::Object(source) => Ok(source),
                    _ => Err(self.error(mark, "`<<` takes a mapping or a list of mappings")),
                })
                .collect::<Result<_, _>>()?,
            _ => return Err(self.error(mark, "`<<` takes a mapping or a list of mappings")),
        };
        for (key, value) in sources.into_iter().flatten() {
            if !map.contains_key(&key) {
                merged.insert(key.clone());
            }
            map.insert(key, value);
        }
        Ok(())
    }

    fn duplicate(&self, key: &str, mapping: Mark, second: Mark) -> SourceError {
        let error = |text: String| self.error(second, text);
        match first_key(self.text, mapping, key) {
            Some(first) => error(format!("key `{key}` is given twice, first in line {}", first.line + 1)).with_related(
                self.text,
                first.line as u32 + 1,
                first.column as u32 + 1,
                "first given here",
            ),
            None => error(format!("key `{key}` is given twice")),
        }
    }

    fn spend(&mut self, mark: Mark, nodes: usize, bytes: usize) -> Result<(), SourceError> {
        self.nodes += nodes;
        self.bytes += bytes;
        if self.nodes > MAX_NODES {
            return Err(self
                .error(mark, format!("more than {MAX_NODES} values in one file, aliases expanded"))
                .with_hint("aliases of aliases multiply; write the repeated part out, or split the file"));
        }
        if self.bytes > MAX_EXPANDED_BYTES {
            return Err(self.error(mark, format!("more than {MAX_EXPANDED_BYTES} bytes in one file, aliases expanded")));
        }
        Ok(())
    }

    fn error(&self, mark: Mark, message: impl Into<String>) -> SourceError {
        SourceError::new(self.path, self.text, mark.line as u32 + 1, mark.column as u32 + 1, message)
    }

    fn syntax(&self, error: &YamlError) -> SourceError {
        let Some(mark) = error.problem_mark() else {
            // The reader stops at characters that YAML doesn't allow and doesn't say where.
            return match self.text.char_indices().find(|(_, c)| !is_allowed(*c)) {
                Some((offset, c)) => {
                    let before = &self.text[..offset];
                    let line = before.matches('\n').count() as u32 + 1;
                    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) as u32 + 1;
                    let message = format!("the control character U+{:04X} is not allowed in YAML", c as u32);
                    SourceError::new(self.path, self.text, line, column, message)
                }
                None => SourceError::whole_file(self.path, error.problem()),
            };
        };
        let mut message = error.problem().to_owned();
        if let (Some(context), Some(at)) = (error.context(), error.context_mark()) {
            message = format!("{message} {context} that begins in line {}", at.line + 1);
        }
        let source_error = self.error(mark, message);
        match self.text.get(byte_at(self.text, mark)..).and_then(|rest| rest.chars().next()) {
            Some('\t') => source_error.with_hint("YAML is indented with spaces, not with tabs"),
            Some('@' | '`' | '%') => {
                source_error.with_hint("put quotes around a value that begins with this character")
            }
            _ => source_error,
        }
    }
}

fn is_merge(data: &EventData) -> bool {
    match data {
        EventData::Scalar { value, plain_implicit, tag, .. } => {
            value == "<<" && (*plain_implicit || tag.as_deref() == Some("tag:yaml.org,2002:merge"))
        }
        _ => false,
    }
}

fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

fn byte_at(text: &str, mark: Mark) -> usize {
    text.char_indices().nth(mark.index as usize).map_or(text.len(), |(offset, _)| offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(text: &str) -> String {
        match documents("a.yaml", text.as_bytes()) {
            Ok(read) => panic!("{} documents were read", read.len()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn documents_know_their_line() {
        let text = "# head\n\na: 1\n---\n\n---\n# c\nb: 2\n--- [1]\n...\n---\n";
        let read = documents("a.yaml", text.as_bytes()).expect("YAML");
        let summary: Vec<_> = read.into_iter().map(|d| (d.index, d.line, d.value)).collect();
        assert_eq!(
            summary,
            [
                (0, 3, json!({"a": 1})),
                (1, 6, Value::Null),
                (2, 8, json!({"b": 2})),
                (3, 9, json!([1])),
                (4, 12, Value::Null)
            ]
        );
    }

    #[test]
    fn an_error_names_the_place_and_no_value() {
        let cases = [
            ("a: 1\nb: 2\na: 3\n", "a.yaml:3:1: key `a` is given twice, first in line 1"),
            ("m:\n- {x: 1, x: 2}\n", "a.yaml:2:10: key `x` is given twice, first in line 2"),
            ("on: 1\ntrue: 2\n", "a.yaml:2:1: key `true` is given twice, first in line 1"),
            ("a: &a {q: 1}\nb:\n  <<: *a\n  q: 2\n  q: 3\n", "a.yaml:5:3: key `q` is given twice, first in line 4"),
            ("a: !!int secret\n", "a.yaml:1:4: a scalar tagged `!!int` is not an integer"),
            ("a: .inf\n", "a.yaml:1:4: infinity and NaN have no place in a Kubernetes object"),
            ("a: &x [*x]\n", "a.yaml:1:8: anchor `x` contains itself"),
            ("a: 1\n---\nb: *a\n", "a.yaml:3:4: there is no anchor `a`"),
            (
                "a:\n\tb: 1\n",
                "a.yaml:2:1: found character that cannot start any token while scanning for the next token that begins in line 2",
            ),
            (
                "a: \"x\n",
                "a.yaml:2:1: found unexpected end of stream while scanning a quoted scalar that begins in line 1",
            ),
            ("a: {{ b }}\n", "a.yaml:1:5: a list or a mapping can't be a key"),
            ("x: é\u{7}\n", "a.yaml:1:5: the control character U+0007 is not allowed in YAML"),
        ];
        for (text, wanted) in cases {
            assert_eq!(refused(text), wanted);
        }
        let error = documents("a.yaml", b"a: 1\nb: x\xff\n").expect_err("not UTF-8");
        assert_eq!(error.to_string(), "a.yaml:2:5: the file is not UTF-8 text: byte 0xff");
    }

    #[test]
    fn ten_thousand_levels_are_an_error_not_a_crash() {
        for text in ["[".repeat(10_000), "{a: ".repeat(10_000), "- ".repeat(10_000)] {
            assert!(refused(&text).contains("nested deeper than 120 levels"));
        }
        let stairs: String = (0..10_000).map(|n| format!("{}a:\n", " ".repeat(n.min(500)))).collect();
        refused(&stairs);
        // Deep by aliases.
        let mut text = "a0: &a0 [[[[[[[[[[]]]]]]]]]]\n".to_owned();
        for n in 1..15 {
            text.push_str(&format!("a{n}: &a{n} [[[[[[[[[[*a{}]]]]]]]]]]\n", n - 1));
        }
        assert!(refused(&text).contains("nested deeper than 120 levels"));
    }

    #[test]
    fn bombs_are_refused_before_they_expand() {
        let mut nodes = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        let mut bytes = format!("a0: &a0 [{}]\n", "x".repeat(1 << 20));
        for n in 1..9 {
            let list = vec![format!("*a{}", n - 1); 9].join(",");
            nodes.push_str(&format!("a{n}: &a{n} [{list}]\n"));
            bytes.push_str(&format!("a{n}: &a{n} [{list}]\n"));
        }
        assert!(refused(&nodes).contains("more than 1000000 values"));
        assert!(refused(&bytes).contains("bytes in one file, aliases expanded"));
        assert!(refused(&"---\n".repeat(MAX_DOCUMENTS + 2)).contains("more than 10000 documents"));
        let large = vec![b'#'; MAX_FILE_BYTES as usize + 1];
        assert!(documents("a.yaml", &large).expect_err("large").to_string().contains("over the limit"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[-a:{}\\[\\]&*!|>'\"#%@ \\n\\t<?~.0-9]{0,60}") {
            let _ = documents("a.yaml", text.as_bytes()).map_err(|error| error.render(true));
        }
    }
}
