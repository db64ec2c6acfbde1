//! Texts without secret values, however servers and libraries spell them: as they are, quoted, in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Shorter values ("1", "no") are not secrets and would tear words apart.
pub const REDACTED_BYTES_MIN: usize = 3;

/// Lines of a value, as excerpts show them; shorter ones are braces and the like.
const LINE_BYTES_MIN: usize = 8;

/// What stands for a value.
const STARS: &str = "***";

/// Values that a text may not hold.
#[derive(Default)]
pub struct Redaction(Vec<String>);

impl Redaction {
    pub fn of<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut spellings = Vec::new();
        for value in values.into_iter().filter(|value| value.len() >= REDACTED_BYTES_MIN) {
            let quoted = serde_json::Value::from(value).to_string();
            let quoted = &quoted[1..quoted.len() - 1];
            if quoted != value {
                spellings.push(quoted.to_owned());
            }
            spellings.push(value.to_owned());
            let lines = value.lines().map(str::trim).filter(|line| line.len() >= LINE_BYTES_MIN && *line != value);
            spellings.extend(lines.map(str::to_owned));
            spellings.push(STANDARD.encode(value));
        }
        // a value may be part of another
        spellings.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        spellings.dedup();
        Self(spellings)
    }

    /// Puts stars in the places of values.
    pub fn apply(&self, text: &mut String) {
        for value in &self.0 {
            if text.contains(value) {
                *text = text.replace(value, STARS);
            }
        }
    }

    /// Puts as many stars as a value has bytes, so that places in the text stay where they are.
    pub fn blank(&self, text: &mut String) {
        for value in &self.0 {
            if text.contains(value) {
                *text = text.replace(value, &"*".repeat(value.len()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_out_in_every_spelling_and_the_longest_first() {
        let redaction = Redaction::of(["hunter2", "hunter2-and-more", "a \"b\"", "no"]);
        for (text, wanted) in [
            ("it is hunter2-and-more, hunter2", "it is ***, ***"),
            (r#"invalid value: "a \"b\"""#, r#"invalid value: "***""#),
            ("data: aHVudGVyMg==", "data: ***"),
            ("no: nothing", "no: nothing"),
        ] {
            let mut said = text.to_owned();
            redaction.apply(&mut said);
            assert_eq!(said, wanted);
        }
        let mut line = "password: hunter2 # grüße".to_owned();
        redaction.blank(&mut line);
        assert_eq!(line, "password: ******* # grüße");
    }
}
