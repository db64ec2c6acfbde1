//! The events of a text, one after the other.
//!
//! libyaml-safer panics where a block scalar ends with the text instead of with a line break. So the text is given that
//! line break, and it is taken out of the value again. Where else it panics, the text is refused.
//!
//! The text is given to it in parts: it keeps four bytes for each character that it was given, and between two parts it
//! is asked whether the reader should go on.

use std::io::{self, BufRead, Read};
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

/// Read in less than a millisecond.
const PART_BYTES: usize = 16 * 1024;

/// For texts that are read to their end.
pub const TO_THE_END: &dyn Fn() -> bool = &|| true;

/// What is left of a text, and what comes after it.
struct Parts<'a> {
    text: &'a [u8],
    more: &'static [u8],
    go_on: &'a dyn Fn() -> bool,
}

impl BufRead for Parts<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !(self.go_on)() {
            return Err(io::Error::other("it is no longer wanted"));
        }
        let left = if self.text.is_empty() { self.more } else { self.text };
        Ok(&left[..left.len().min(PART_BYTES)])
    }

    fn consume(&mut self, amount: usize) {
        match self.text {
            [] => self.more = &self.more[amount..],
            text => self.text = &text[amount..],
        }
    }
}

impl Read for Parts<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

pub struct EventReader<'a> {
    parser: Parser<Parts<'a>>,
    /// Where the text ends with its new line break; `None` if it had one.
    added_at: Option<u64>,
}

impl<'a> EventReader<'a> {
    pub fn new(text: &'a str) -> Self {
        Self::watched(text, TO_THE_END)
    }

    /// As long as `go_on` says so.
    pub fn watched(text: &'a str, go_on: &'a dyn Fn() -> bool) -> Self {
        let ends = text.ends_with(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
        // where there is no block scalar, errors at the end keep their place
        let more: &'static [u8] = if ends || !text.contains(['|', '>']) { b"" } else { b"\n" };
        let mut parser = Parser::new();
        parser.set_input(Parts { text: text.as_bytes(), more, go_on });
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
    use std::cell::Cell;

    use super::*;

    fn values(mut events: EventReader<'_>) -> Result<Vec<String>, Unread> {
        let mut values = Vec::new();
        loop {
            match events.next()?.data {
                EventData::StreamEnd => return Ok(values),
                EventData::Scalar { value, .. } => values.push(value),
                _ => {}
            }
        }
    }

    #[test]
    fn a_character_may_lie_across_two_parts() {
        for shift in 0..4 {
            let long = format!("{}{}", "x".repeat(shift), "aé€😀".repeat(PART_BYTES));
            let read = values(EventReader::new(&format!("- {long}\n- |\n  {long}"))).unwrap_or_default();
            assert!(read == [long.clone(), long], "{shift}: {} values", read.len());
        }
    }

    #[test]
    fn a_long_text_that_is_no_longer_wanted_is_left_soon() {
        let text = format!("a: {}\n", "x".repeat(64 * PART_BYTES));
        let asked = Cell::new(0);
        let go_on = || asked.replace(asked.get() + 1) < 3;
        assert!(values(EventReader::watched(&text, &go_on)).is_err());
        assert!(asked.get() < 8, "asked {} times", asked.get());
    }

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
