//! YAML and JSON: values are replaced in the text where they stand.
//!
//! Documents that carry the same MAC were encrypted together; others of the same file stand for themselves. A document
//! whose annotation asks for it stays as it is. One without SOPS' part may not hold an encrypted value: it was cut off.

use std::ops::Range;

use libyaml_safer::{Event, EventData, MappingStyle, Mark};
use serde_json::Value;

use super::keys::Keys;
use super::metadata::Metadata;
use super::{CUT_OFF, Clear, Sealed};
use crate::manifest::SourceError;
use crate::manifest::yaml::{self, EventReader, GAVE_UP, Leaf, Unread};

/// SOPS' own part at the top of a document.
pub(super) const OWN: &str = "sops";
/// What tells it from a value of that name.
const OWN_FIELDS: [&str; 3] = ["mac", "lastmodified", "version"];
/// Objects with this annotation are for an operator in the cluster to decrypt (Flux's rule).
const LEFT_ALONE: &str = "kustomize.toolkit.fluxcd.io/decrypt";

/// Parts of a file that were encrypted by themselves: each costs as much as all its recipients and our identities.
const PARTS_MAX: usize = 256;
/// What an encrypted value begins with, even if little of it is left.
const BEGINNING: &str = "ENC[";

/// What a document is to us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Its values are opened by one of the parts.
    Sealed(usize),
    /// In the clear.
    Clear,
    /// For somebody else to open, or SOPS' own.
    LeftAlone,
}

/// Whether the text in the clear has the lines of the encrypted one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    Kept,
    Dropped,
}

/// Whether it can't be read, and doesn't look like a file of SOPS either: a template, perhaps.
pub(super) fn is_something_else(path: &str, text: &str) -> bool {
    text.contains(BEGINNING) && !text.contains(OWN) && yaml::documents(path, text.as_bytes()).is_err()
}

/// The text in the clear; `None` if no document of it is encrypted.
pub(super) fn open(path: &str, text: &str, keys: &Keys, lines: Lines) -> Result<Option<Clear<String>>, SourceError> {
    let mut parts: Vec<Sealed> = Vec::new();
    let mut part_of = Vec::new();
    if !text.contains(BEGINNING) {
        return Ok(None);
    }
    for document in yaml::documents(path, text.as_bytes())? {
        let own = document.value.get(OWN).filter(|own| OWN_FIELDS.iter().any(|field| own.get(field).is_some()));
        let Some(own) = own.filter(|_| !is_left_alone(&document.value)) else {
            part_of.push(if is_left_alone(&document.value) { Part::LeftAlone } else { Part::Clear });
            continue;
        };
        let failed = |message| {
            let (line, column) = yaml::locate(text, document.index, &[OWN.into()]).unwrap_or((document.line, 1));
            SourceError::new(path, text, line, column, message)
        };
        let metadata = Metadata::of(own).map_err(failed)?;
        if parts.last().is_none_or(|last| last.metadata.mac != metadata.mac) {
            if parts.len() == PARTS_MAX {
                return Err(failed(format!("more than {PARTS_MAX} parts of the file were encrypted by themselves")));
            }
            parts.push(Sealed::new(metadata, keys).map_err(failed)?);
        }
        part_of.push(Part::Sealed(parts.len() - 1));
    }
    let events = EventReader::new(text);
    let mut walk = Walk {
        path,
        text,
        events,
        at: Cursor::default(),
        parts,
        part: Part::Clear,
        keys: Vec::new(),
        edits: Vec::new(),
        lines,
    };
    walk.stream(&part_of)?;
    let Walk { parts, edits, .. } = walk;
    if parts.is_empty() {
        return Ok(None);
    }
    let mut values = Vec::new();
    for part in parts {
        values.extend(part.verify().map_err(|message| SourceError::whole_file(path, message))?);
    }
    Ok(Some(Clear { content: edited(text, edits), values }))
}

/// Whether an object asks for staying as it is.
pub(super) fn is_left_alone(document: &Value) -> bool {
    let annotation = document.pointer("/metadata/annotations").and_then(|annotations| annotations.get(LEFT_ALONE));
    annotation.and_then(Value::as_str).is_some_and(|value| value.eq_ignore_ascii_case("disabled"))
}

fn edited(text: &str, edits: Vec<(Range<usize>, String)>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (range, replacement) in edits {
        out.push_str(&text[done..range.start]);
        out.push_str(&replacement);
        done = range.end;
    }
    out.push_str(&text[done..]);
    out
}

/// Marks count characters; they are asked for in their order.
#[derive(Default)]
struct Cursor {
    characters: u64,
    bytes: usize,
}

struct Walk<'a> {
    path: &'a str,
    text: &'a str,
    events: EventReader<'a>,
    at: Cursor,
    parts: Vec<Sealed>,
    /// What the present document is.
    part: Part,
    /// The keys that lead to the present value.
    keys: Vec<String>,
    edits: Vec<(Range<usize>, String)>,
    lines: Lines,
}

impl Walk<'_> {
    fn stream(&mut self, part_of: &[Part]) -> Result<(), SourceError> {
        let mut documents = part_of.iter();
        loop {
            let event = self.next()?;
            match event.data {
                EventData::DocumentStart { .. } => {
                    self.part = documents.next().copied().unwrap_or(Part::Clear);
                    let root = self.next()?;
                    self.node(root, true)?;
                }
                EventData::StreamStart { .. } | EventData::DocumentEnd { .. } => {}
                _ => return Ok(()),
            }
        }
    }

    fn next(&mut self) -> Result<Event, SourceError> {
        // it was read once already
        self.events.next().map_err(|error| match error {
            Unread::Syntax(error) => SourceError::whole_file(self.path, error.problem()),
            Unread::GaveUp => SourceError::whole_file(self.path, GAVE_UP),
        })
    }

    fn error(&self, mark: Mark, message: impl Into<String>) -> SourceError {
        SourceError::new(self.path, self.text, mark.line as u32 + 1, mark.column as u32 + 1, message)
    }

    fn byte(&mut self, mark: Mark) -> usize {
        let ahead = mark.index.saturating_sub(self.at.characters) as usize;
        let rest = &self.text[self.at.bytes..];
        self.at.bytes += rest.char_indices().nth(ahead).map_or(rest.len(), |(offset, _)| offset);
        self.at.characters = mark.index.max(self.at.characters);
        self.at.bytes
    }

    /// A value and all below it; says where it ends.
    fn node(&mut self, event: Event, is_root: bool) -> Result<usize, SourceError> {
        let (start, end) = (event.start_mark, event.end_mark);
        match event.data {
            EventData::Scalar { value, tag, plain_implicit, .. } => {
                let begin = self.byte(start);
                let finish = self.byte(end);
                let leaf = yaml::leaf(value, tag.as_deref(), plain_implicit);
                self.leaf(start, begin..finish, leaf)?;
                Ok(finish)
            }
            EventData::SequenceStart { .. } => loop {
                let event = self.next()?;
                if event.data == EventData::SequenceEnd {
                    return Ok(self.byte(event.end_mark));
                }
                self.node(event, false)?;
            },
            EventData::MappingStart { style, .. } => self.mapping(style == MappingStyle::Flow, is_root),
            EventData::Alias { .. } if matches!(self.part, Part::Sealed(_)) => {
                Err(self.error(start, "an alias in an encrypted document is not served: SOPS writes none"))
            }
            _ => Ok(self.byte(end)),
        }
    }

    fn mapping(&mut self, is_flow: bool, is_root: bool) -> Result<usize, SourceError> {
        let mut before = None;
        // SOPS' part was the first of a mapping in braces: it goes together with the comma behind it
        let mut first_in_flow = None;
        loop {
            let event = self.next()?;
            let begin = self.byte(event.start_mark);
            if let Some(start) = first_in_flow.take() {
                self.remove(start..begin);
            }
            let mark = event.start_mark;
            let key = match event.data {
                EventData::MappingEnd => return Ok(self.byte(event.end_mark)),
                EventData::Scalar { value, .. } => value,
                // it was refused when the document was read
                _ => return Err(self.error(mark, "a list or a mapping can't be a key")),
            };
            let value = self.next()?;
            if is_root && key == OWN && matches!(self.part, Part::Sealed(_)) {
                let part = std::mem::replace(&mut self.part, Part::LeftAlone);
                let end = self.node(value, false)?;
                self.part = part;
                match (is_flow, before) {
                    (false, _) => self.remove(begin..self.line_start(begin, end)),
                    (true, Some(before)) => self.remove(before..end),
                    (true, None) => first_in_flow = Some(begin),
                }
                continue;
            }
            self.keys.push(key);
            before = Some(self.node(value, false)?);
            self.keys.pop();
        }
    }

    /// The end of a block: where the last of its lines ended, rather than where the next token begins.
    fn line_start(&self, begin: usize, end: usize) -> usize {
        match self.text[begin..end].rfind('\n') {
            Some(newline) if self.text[begin + newline..end].trim().is_empty() => begin + newline + 1,
            _ => end,
        }
    }

    fn remove(&mut self, range: Range<usize>) {
        let newlines = match self.lines {
            Lines::Kept => self.text[range.clone()].matches('\n').count(),
            Lines::Dropped => 0,
        };
        self.edits.push((range, "\n".repeat(newlines)));
    }

    fn leaf(&mut self, mark: Mark, range: Range<usize>, leaf: Leaf) -> Result<(), SourceError> {
        let part = match self.part {
            Part::Sealed(part) => &mut self.parts[part],
            Part::LeftAlone => return Ok(()),
            Part::Clear => {
                let is_encrypted = matches!(&leaf, Leaf::Text(text) if text.starts_with(BEGINNING));
                return if is_encrypted { Err(self.error(mark, CUT_OFF)) } else { Ok(()) };
            }
        };
        let text = match leaf {
            Leaf::Text(text) => text,
            Leaf::Null => return Ok(()),
            Leaf::Typed(text) => {
                part.clear(text.as_bytes());
                return Ok(());
            }
        };
        let opened = part.value(&text, &self.keys);
        let opened = opened.and_then(|plain| plain.map(|plain| plain.scalar()).transpose());
        match opened {
            Ok(None) => {}
            Ok(Some(scalar)) => {
                let newlines = self.text[range.clone()].matches('\n').count();
                self.edits.push((range, scalar + &"\n".repeat(newlines)));
            }
            Err(message) => return Err(self.error(mark, format!("`{}`: {message}", self.keys.join(".")))),
        }
        Ok(())
    }
}
