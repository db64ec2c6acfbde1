//! Where a value stands in a file, found by reading the file once more: only errors and findings ask.

use libyaml_safer::{Event, EventData, Mark};

use super::events::EventReader;
use super::scalar;

/// One step from a value to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathSegment {
    Key(String),
    Index(usize),
}

impl From<&str> for PathSegment {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for PathSegment {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// The line and column (from 1) of the value at `path` in the document with the given index: of its key if it has one.
/// If the path ends in something that isn't in the text (a default, a merged key), the nearest parent's place.
/// `None` if there is no such document or the text isn't YAML.
pub fn locate(text: &str, document: usize, path: &[PathSegment]) -> Option<(u32, u32)> {
    let mut events = Events::new(text);
    let mut current = events.enter_document(document)?;
    let mut mark = current.start_mark;
    for segment in path {
        let found = match (segment, &current.data) {
            (PathSegment::Key(key), EventData::MappingStart { .. }) => events.enter_key(key),
            (PathSegment::Index(index), EventData::SequenceStart { .. }) => events.enter_item(*index),
            _ => None,
        };
        let Some((at, event)) = found else { break };
        mark = at;
        current = event;
    }
    Some((mark.line as u32 + 1, mark.column as u32 + 1))
}

/// The lines (from 1) of the items of a list that is the value of `key` at the top of a document.
pub fn item_lines(text: &str, document: usize, key: &str) -> Vec<u32> {
    let mut lines = Vec::new();
    let mut events = Events::new(text);
    let list = events.enter_document(document).and_then(|_| events.enter_key(key));
    if !list.is_some_and(|(_, event)| matches!(event.data, EventData::SequenceStart { .. })) {
        return lines;
    }
    while let Some((mark, event)) = events.enter_item(0) {
        lines.push(mark.line as u32 + 1);
        if events.skip(&event.data).is_none() {
            break;
        }
    }
    lines
}

/// Where a key was first given in the mapping that begins at `mapping`.
pub(super) fn first_key(text: &str, mapping: Mark, key: &str) -> Option<Mark> {
    let mut events = Events::new(text);
    loop {
        let event = events.next()?;
        if matches!(event.data, EventData::MappingStart { .. }) && event.start_mark == mapping {
            return events.enter_key(key).map(|(mark, _)| mark);
        }
    }
}

struct Events<'a>(EventReader<'a>);

impl<'a> Events<'a> {
    fn new(text: &'a str) -> Self {
        Self(EventReader::new(text.strip_prefix('\u{feff}').unwrap_or(text)))
    }

    fn next(&mut self) -> Option<Event> {
        match self.0.next() {
            Ok(event) if event.data == EventData::StreamEnd => None,
            Ok(event) => Some(event),
            Err(_) => None,
        }
    }

    /// The first event of a document.
    fn enter_document(&mut self, document: usize) -> Option<Event> {
        let mut seen = 0;
        loop {
            if let EventData::DocumentStart { .. } = self.next()?.data {
                if seen == document {
                    return self.next();
                }
                seen += 1;
            }
        }
    }

    /// After a mapping's start: the mark of a key and the first event of its value.
    fn enter_key(&mut self, wanted: &str) -> Option<(Mark, Event)> {
        loop {
            let key = self.next()?;
            if key.data == EventData::MappingEnd {
                return None;
            }
            let mark = key.start_mark;
            let matches = match key.data {
                EventData::Scalar { value, tag, plain_implicit, .. } => {
                    scalar::resolve(value, tag.as_deref(), plain_implicit)
                        .ok()
                        .and_then(|s| s.into_key().ok())
                        .as_deref()
                        == Some(wanted)
                }
                _ => {
                    self.skip(&key.data)?;
                    false
                }
            };
            let value = self.next()?;
            if matches {
                return Some((mark, value));
            }
            self.skip(&value.data)?;
        }
    }

    /// After a sequence's start: the mark and the first event of an item.
    fn enter_item(&mut self, index: usize) -> Option<(Mark, Event)> {
        for _ in 0..index {
            let item = self.next()?;
            if item.data == EventData::SequenceEnd {
                return None;
            }
            self.skip(&item.data)?;
        }
        let item = self.next()?;
        (item.data != EventData::SequenceEnd).then_some((item.start_mark, item))
    }

    /// Passes over the rest of the value whose first event was read.
    fn skip(&mut self, first: &EventData) -> Option<()> {
        let mut open = usize::from(opens(first));
        while open > 0 {
            let event = self.next()?;
            match event.data {
                EventData::MappingEnd | EventData::SequenceEnd => open -= 1,
                data if opens(&data) => open += 1,
                _ => {}
            }
        }
        Some(())
    }
}

fn opens(data: &EventData) -> bool {
    matches!(data, EventData::MappingStart { .. } | EventData::SequenceStart { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_its_line_and_column() {
        let text = "a: 1\n---\n# the second\nspec:\n  on: x\n  list:\n    - name: p\n      port: 1\n    - {name: q, port: 2}\n  ? k\n  : v\n";
        type Case<'a> = (usize, &'a [PathSegment], Option<(u32, u32)>);
        let cases: [Case<'_>; 9] = [
            (0, &["a".into()], Some((1, 1))),
            (1, &[], Some((4, 1))),
            (1, &["spec".into(), "true".into()], Some((5, 3))),
            (1, &["spec".into(), "list".into(), 0.into(), "port".into()], Some((8, 7))),
            (1, &["spec".into(), "list".into(), 1.into(), "port".into()], Some((9, 17))),
            (1, &["spec".into(), "k".into()], Some((10, 5))),
            (1, &["spec".into(), "list".into(), 7.into(), "port".into()], Some((6, 3))),
            (1, &["spec".into(), "absent".into()], Some((4, 1))),
            (2, &[], None),
        ];
        assert_eq!(item_lines("kind: List\nitems:\n- a: 1\n\n- b: [2]\n- c\n", 0, "items"), [3, 5, 6]);
        for (document, path, wanted) in cases {
            assert_eq!(locate(text, document, path), wanted, "{path:?}");
        }
    }
}
