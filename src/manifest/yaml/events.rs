//! The events of a text, one after the other.
//!
//! libyaml-safer panics where a block scalar ends with the text instead of with a line break. So the text is given that
//! line break, and it is taken out of the value again.

use std::io::{Chain, Read as _};

use libyaml_safer::{Error, Event, EventData, Parser, ScalarStyle};

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

    pub fn next(&mut self) -> Result<Event, Error> {
        let mut event = self.parser.parse()?;
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
                match events.next().expect(text).data {
                    EventData::StreamEnd => break,
                    EventData::Scalar { value, .. } => last = value,
                    _ => {}
                }
            }
            assert_eq!(last, wanted, "{text:?}");
        }
    }
}
