//! Structured data inside of a text, as replacements change it: a value of a ConfigMap that is itself JSON or YAML.
//!
//! In: the text, and what changes the values in it. Out: the text as kustomize writes it anew: JSON compact or by two
//! spaces, YAML by two spaces with its comments in their places. Never guesses: YAML whose comments or aliases kustomize
//! would move is refused by name.

use std::borrow::Cow;

use libyaml_safer::{Event, EventData, MappingStyle, ScalarStyle, SequenceStyle};
use serde_json::Value;

use super::budget::Budget;
use super::generate::as_go_writes;
use super::node::{Node, documents};
use super::scalar::{Tag, resolve};
use crate::manifest::yaml::{EventReader, emit};

/// Changes the values in a text.
pub fn rewrite(
    text: &str,
    budget: &Budget<'_>,
    change: impl FnOnce(&mut Node) -> Result<(), String>,
) -> Result<String, String> {
    let is_json = text.trim_start().starts_with(['{', '[']);
    if is_json { json(text, change) } else { yaml(text, budget, change) }
}

fn json(text: &str, change: impl FnOnce(&mut Node) -> Result<(), String>) -> Result<String, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("the text is not JSON: {error}"))?;
    let mut node = Node::from_value(&value);
    change(&mut node)?;
    let value = node.value()?;
    let is_pretty = text.contains('\n') && text.contains("  ");
    let written = if is_pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
    Ok(as_go_writes(written.map_err(|error| error.to_string())?))
}

fn yaml(
    text: &str,
    budget: &Budget<'_>,
    change: impl FnOnce(&mut Node) -> Result<(), String>,
) -> Result<String, String> {
    let events = events(text)?;
    let found = documents("the text", text.as_bytes(), budget).map_err(|error| error.to_string())?;
    let Some(document) = found.into_iter().next().filter(|document| !matches!(document.node, Node::Scalar(_))) else {
        return Err("the path leads into a text that is neither JSON nor YAML".into());
    };
    let mut after = document.node.clone();
    change(&mut after)?;
    let mut copy = Copy { events: events.iter(), out: Vec::with_capacity(events.len()) };
    copy.node(&document.node, &after)?;
    let written = print(copy.out)?;
    let read = documents("the text", written.as_bytes(), budget).map_err(|error| error.to_string())?;
    if !read.first().is_some_and(|read| reads_as(&read.node, &after)) {
        return Err(unserved("a text in several lines that would be folded otherwise"));
    }
    let Some(comments) = Comments::of(text, &events)? else { return Ok(written.trim().to_owned()) };
    let before = print(events)?;
    if comments.lines != before.trim().lines().collect::<Vec<_>>() {
        return Err(unserved("comments, and isn't laid out as kustomize lays YAML out"));
    }
    comments.put_back(written.trim())
}

/// Whether it is the same, whatever its scalars are taken for.
fn reads_as(read: &Node, wanted: &Node) -> bool {
    match (read, wanted) {
        (Node::Scalar(read), Node::Scalar(wanted)) => read.text == wanted.text,
        (Node::List(read), Node::List(wanted)) => {
            read.len() == wanted.len() && read.iter().zip(wanted).all(|(read, wanted)| reads_as(read, wanted))
        }
        (Node::Map(read), Node::Map(wanted)) => {
            let same = |((a, read), (b, wanted)): (&(String, Node), &(String, Node))| a == b && reads_as(read, wanted);
            read.len() == wanted.len() && read.iter().zip(wanted).all(same)
        }
        _ => false,
    }
}

fn unserved(what: &str) -> String {
    format!("the path leads into YAML that has {what}: that is not served by this version of Afresh")
}

/// Those of the values of the only document.
fn events(text: &str) -> Result<Vec<Event>, String> {
    let mut reader = EventReader::new(text);
    let (mut events, mut documents) = (Vec::new(), 0);
    loop {
        let event = reader.next().map_err(|_| "the path leads into a text that is not YAML")?;
        match &event.data {
            EventData::StreamEnd => return Ok(events),
            EventData::DocumentStart { .. } if documents == 1 => return Err(unserved("several documents")),
            EventData::DocumentStart { .. } => documents += 1,
            EventData::StreamStart { .. } | EventData::DocumentEnd { .. } => {}
            EventData::Alias { .. } => return Err(unserved("aliases")),
            EventData::Scalar { value, style: ScalarStyle::Plain, .. } if value == "<<" => {
                return Err(unserved("merges"));
            }
            _ => events.push(event),
        }
    }
}

/// Events of the text, with the values of the changed one.
struct Copy<'a> {
    events: std::slice::Iter<'a, Event>,
    out: Vec<Event>,
}

impl Copy<'_> {
    fn node(&mut self, before: &Node, after: &Node) -> Result<(), String> {
        let Some(event) = self.events.next() else { return Err(unserved("no end")) };
        match (&event.data, before, after) {
            (EventData::Scalar { .. }, Node::Scalar(old), Node::Scalar(new)) if old.text == new.text => {
                self.out.push(again(event));
                Ok(())
            }
            (EventData::Scalar { .. }, Node::Scalar(_), Node::Scalar(new)) => {
                self.out.push(changed(event, &new.text));
                Ok(())
            }
            (EventData::SequenceStart { .. }, Node::List(old), Node::List(new)) => {
                self.out.push(again(event));
                old.iter().zip(new).try_for_each(|(before, after)| self.node(before, after))?;
                new.iter().skip(old.len()).for_each(|created| self.created(created));
                self.end()
            }
            (EventData::MappingStart { .. }, Node::Map(old), Node::Map(new)) => {
                self.out.push(again(event));
                for ((_, before), (_, after)) in old.iter().zip(new) {
                    self.out.extend(self.events.next().map(again));
                    self.node(before, after)?;
                }
                for (key, created) in new.iter().skip(old.len()) {
                    self.out.push(plain(key));
                    self.created(created);
                }
                self.end()
            }
            _ => Err(unserved("something else than a plain value there")),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.out.extend(self.events.next().map(again));
        Ok(())
    }

    /// What the path lacked.
    fn created(&mut self, node: &Node) {
        match node {
            Node::Scalar(scalar) => self.out.push(plain(&scalar.text)),
            Node::List(items) => {
                self.out.push(Event::sequence_start(None, None, true, SequenceStyle::Block));
                items.iter().for_each(|item| self.created(item));
                self.out.push(Event::sequence_end());
            }
            Node::Map(entries) => {
                self.out.push(Event::mapping_start(None, None, true, MappingStyle::Block));
                for (key, node) in entries {
                    self.out.push(plain(key));
                    self.created(node);
                }
                self.out.push(Event::mapping_end());
            }
        }
    }
}

fn plain(text: &str) -> Event {
    let style = if text.contains('\n') { ScalarStyle::Literal } else { ScalarStyle::Plain };
    Event::scalar(None, None, text, true, true, style)
}

/// The same event once more.
fn again(event: &Event) -> Event {
    match &event.data {
        EventData::Scalar { anchor, tag, value, plain_implicit, quoted_implicit, style } => {
            let (anchor, tag) = (anchor.as_deref(), tag.as_deref());
            Event::scalar(anchor, tag, value, *plain_implicit, *quoted_implicit, *style)
        }
        EventData::SequenceStart { anchor, tag, implicit, style } => {
            Event::sequence_start(anchor.as_deref(), tag.as_deref(), *implicit, *style)
        }
        EventData::MappingStart { anchor, tag, implicit, style } => {
            Event::mapping_start(anchor.as_deref(), tag.as_deref(), *implicit, *style)
        }
        EventData::SequenceEnd => Event::sequence_end(),
        // there are no others among those that are kept
        _ => Event::mapping_end(),
    }
}

/// A scalar keeps its style and its tag: text stays text, and a number that becomes text says that it was one.
fn changed(event: &Event, new: &str) -> Event {
    let EventData::Scalar { anchor, tag, value: old, plain_implicit, quoted_implicit, style } = &event.data else {
        return again(event);
    };
    let (anchor, tag) = (anchor.as_deref(), tag.as_deref());
    if *style != ScalarStyle::Plain || tag.is_some() {
        return Event::scalar(anchor, tag, new, *plain_implicit, *quoted_implicit, *style);
    }
    let (was, is) = (resolve(old).0, resolve(new).0);
    let style = match () {
        () if new.contains('\n') => ScalarStyle::Literal,
        () if was == Tag::Str && is != Tag::Str => ScalarStyle::DoubleQuoted,
        () => ScalarStyle::Plain,
    };
    if was == is || was == Tag::Str {
        return Event::scalar(anchor, None, new, true, true, style);
    }
    let tag = format!("tag:yaml.org,2002:{}", go_name(was));
    Event::scalar(anchor, Some(&tag), new, false, false, style)
}

fn go_name(tag: Tag) -> &'static str {
    match tag {
        Tag::Any | Tag::Str => "str",
        Tag::Int => "int",
        Tag::Float => "float",
        Tag::Bool => "bool",
        Tag::Null => "null",
        Tag::Timestamp => "timestamp",
    }
}

fn print(events: Vec<Event>) -> Result<String, String> {
    let text = emit(|emitter| events.into_iter().try_for_each(|event| emitter.emit(event)))
        .map_err(|error| format!("the text can't be written anew: {error}"))?;
    // the end of a document whose last text keeps its line breaks, which kustomize doesn't mark
    Ok(text.strip_suffix("\n...\n").map(str::to_owned).unwrap_or(text))
}

/// What a text has between its values.
struct Comments<'a> {
    /// The lines without their comments, and without those that are empty.
    lines: Vec<Cow<'a, str>>,
    /// Before which line, and what is written there.
    above: Vec<(usize, &'a str)>,
    /// At the end of which line.
    beside: Vec<(usize, &'a str)>,
}

impl<'a> Comments<'a> {
    /// `None`: there are none.
    fn of(text: &'a str, events: &[Event]) -> Result<Option<Self>, String> {
        let mut found = Self { lines: Vec::new(), above: Vec::new(), beside: Vec::new() };
        let mut scalars = events.iter().filter(|event| matches!(event.data, EventData::Scalar { .. })).peekable();
        // those above the next line, which have its indentation
        let mut pending: Vec<&str> = Vec::new();
        let mut is_parted = false;
        for (number, line) in text.lines().enumerate() {
            let at = |column: usize| (number as u64, column as u64);
            let mut is_inside = false;
            let mut comment = None;
            for (column, (offset, c)) in line.char_indices().enumerate() {
                while scalars.next_if(|scalar| (scalar.end_mark.line, scalar.end_mark.column) <= at(column)).is_some() {
                }
                is_inside = scalars.peek().is_some_and(|s| (s.start_mark.line, s.start_mark.column) <= at(column));
                if c == '#' && !is_inside && (offset == 0 || line[..offset].ends_with([' ', '\t'])) {
                    comment = Some(offset);
                    break;
                }
            }
            is_inside |=
                scalars.peek().is_some_and(|s| s.start_mark.line < number as u64 && s.end_mark.line > number as u64);
            let (content, comment) = comment.map_or((line, None), |at| (&line[..at], Some(&line[at..])));
            match (content.trim().is_empty() && !is_inside, comment) {
                (true, Some(_)) => {
                    if is_parted {
                        return Err(unserved("a comment after an empty line under another"));
                    }
                    pending.push(line);
                }
                // an empty line goes, but for the one under a comment at the very top
                (true, None) if pending.is_empty() => {}
                (true, None) if found.lines.is_empty() => is_parted = true,
                (true, None) => return Err(unserved("an empty line under a comment")),
                (false, comment) => {
                    let here = found.lines.len();
                    let indent = |line: &str| line.len() - line.trim_start().len();
                    if pending.iter().any(|above| indent(above) != indent(content)) {
                        return Err(unserved("a comment at another indentation than what it stands above"));
                    }
                    found.above.extend(pending.drain(..).map(|above| (here, above)));
                    if std::mem::take(&mut is_parted) {
                        found.above.push((here, ""));
                    }
                    let content = if comment.is_some() { content.trim_end() } else { content };
                    found.lines.push(Cow::Borrowed(content));
                    found.beside.extend(comment.map(|comment| (here, comment)));
                }
            }
        }
        if pending.iter().any(|comment| !comment.starts_with('#')) {
            return Err(unserved("an indented comment at its end"));
        }
        let end = found.lines.len();
        found.above.extend(pending.into_iter().map(|comment| (end, comment)));
        Ok((!found.above.is_empty() || !found.beside.is_empty()).then_some(found))
    }

    fn put_back(&self, written: &str) -> Result<String, String> {
        let lines: Vec<&str> = written.lines().collect();
        if lines.len() != self.lines.len() {
            return Err(unserved("comments, and other lines afterwards"));
        }
        let mut text = String::with_capacity(written.len());
        let (mut above, mut beside) = (self.above.iter().peekable(), self.beside.iter().peekable());
        for number in 0..=lines.len() {
            while let Some((_, comment)) = above.next_if(|(at, _)| *at == number) {
                text.push_str(comment.trim_end());
                text.push('\n');
            }
            let Some(line) = lines.get(number) else { break };
            text.push_str(line);
            if let Some((_, comment)) = beside.next_if(|(at, _)| *at == number) {
                text.push(' ');
                text.push_str(comment.trim_end());
            }
            text.push('\n');
        }
        Ok(text.trim().to_owned())
    }
}
