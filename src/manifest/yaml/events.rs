//! The events of a text, one after the other.
//!
//! libyaml-safer panics where a block scalar ends with the text instead of with a line break. So the text is given that
//! line break, and it is taken out of the value again. Where else it panics, the text is refused.

use std::io::{Chain, Read as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use libyaml_safer::{Error, Event, EventData, Parser, ScalarStyle};

/// Why there is no next event.
pub enum Unread {
    /// The text isn't YAML.
    Syntax(Error),
    /// The library gave up, as it does at a tag in a list or mapping in braces that a comma follows (`[!a, b]`).
    GaveUp,
}

/// What is said of a text at which the library gave up.
pub const GAVE_UP: &str = "the file can't be read: perhaps a tag without a value stands before a comma";

pub struct EventReader<'a> {
    parser: Parser<Chain<&'a [u8], &'static [u8]>>,
    /// Where the text ends with its new line break; `None` if it had one.
    added_at: Option<u64>,
}

impl<'a> EventReader<'a> {
    pub fn new(text: &'a str) -> Self {
        let ends = text.ends_with(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
        // where there is no block scalar, errors at the end keep their place
        let more: &'static [u8] = if ends || !text.contains(['|', '>']) { b"" } else { b"\n" };
        let mut parser = Parser::new();
        parser.set_input(text.as_bytes().chain(more));
        Self { parser, added_at: (!more.is_empty()).then_some(text.len() as u64 + 1) }
    }

    pub fn next(&mut self) -> Result<Event, Unread> {
        // after a panic nothing is asked of the parser any more: whoever reads stops at the error
        let parsed = catch_unwind(AssertUnwindSafe(|| self.parser.parse()));
        let mut event = parsed.map_err(|_| Unread::GaveUp)?.map_err(Unread::Syntax)?;
        if let EventData::Scalar { value, style: ScalarStyle::Literal | ScalarStyle::Folded, .. } = &mut event.data
            && self.added_at.is_some_and(|end| event.end_mark.index >= end)
            && value.ends_with('\n')
        {
            value.pop();
        }
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_scalar_may_end_with_the_text() {
        for (text, wanted) in [
            ("a: |\n  x", "x"),
            ("a: |\n  x\n", "x\n"),
            ("a: |-\n  x", "x"),
            ("a: |+\n  x", "x"),
            ("a: >\n  x\n  y", "x y"),
            ("a: |\n  x\n# comment", "x\n"),
            ("- b: |\n    x\r\n    y", "x\ny"),
            ("a: |", ""),
            ("a: 'x'", "x"),
        ] {
            let mut events = EventReader::new(text);
            let mut last = String::new();
            loop {
                let Ok(event) = events.next() else { panic!("{text:?} is YAML") };
                match event.data {
                    EventData::StreamEnd => break,
                    EventData::Scalar { value, .. } => last = value,
                    _ => {}
                }
            }
            assert_eq!(last, wanted, "{text:?}");
        }
    }

    #[test]
    fn what_the_library_cannot_read_is_an_error() {
        let mut events = EventReader::new("a: [!x, y]\n");
        let error = loop {
            match events.next() {
                Ok(event) if event.data == EventData::StreamEnd => break None,
                Ok(_) => {}
                Err(error) => break Some(error),
            }
        };
        assert!(matches!(error, Some(Unread::GaveUp)));
    }
}
