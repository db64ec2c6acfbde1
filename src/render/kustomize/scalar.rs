//! Scalars as kustomize keeps them: their text and style, and what they stand for to go-yaml v3 once they are written.

use serde_json::Value;

use crate::manifest::yaml;

/// A scalar as written, and what it was taken for when it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    pub text: String,
    pub quoted: bool,
    pub tag: Tag,
    /// Which of an object's scalars kustomize holds as one in memory: those of the same number; 0 is by itself.
    pub shared: usize,
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

impl Scalar {
    /// Text, whatever it looks like.
    pub fn string(text: impl Into<String>) -> Self {
        Self::plain(text, Tag::Str)
    }

    pub fn plain(text: impl Into<String>, tag: Tag) -> Self {
        Self { text: text.into(), quoted: false, tag, shared: 0 }
    }

    pub fn is_null(&self) -> bool {
        self.tag == Tag::Null
    }

    /// The value that a reader of the written YAML sees.
    pub fn value(&self) -> Result<Value, String> {
        if self.quoted || self.tag == Tag::Str {
            return Ok(Value::String(self.text.clone()));
        }
        if is_infinite(&self.text) {
            return Err("infinity and NaN have no place in a Kubernetes object".into());
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
    pub fn name(self) -> &'static str {
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

/// What a plain scalar stands for to go-yaml v3: YAML 1.2's core schema, with old octals, underscores and times.
pub fn resolve(text: &str) -> (Tag, Value) {
    let as_text = || (Tag::Str, Value::String(text.to_owned()));
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return (Tag::Null, Value::Null),
        "true" | "True" | "TRUE" => return (Tag::Bool, Value::Bool(true)),
        "false" | "False" | "FALSE" => return (Tag::Bool, Value::Bool(false)),
        _ => {}
    }
    if is_infinite(text) {
        // without a value that JSON knows
        return (Tag::Float, Value::Null);
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return as_text();
    }
    if let Some(time) = time(text) {
        return (Tag::Timestamp, Value::String(time));
    }
    let Some(number) = yaml::number(text) else { return as_text() };
    let tag = if matches!(number, yaml::Number::Float(_)) { Tag::Float } else { Tag::Int };
    number.into_value().map_or_else(|_| as_text(), |value| (tag, value))
}

/// Not numbers that JSON knows.
fn is_infinite(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

/// A plain date or time becomes a time, which JSON writes in full: `2020-1-2`, `2020-1-2 3:4:5.6`, `2020-1-2T3:4:5Z`.
fn time(text: &str) -> Option<String> {
    if text.len() < 8 || !text.is_ascii() || text.as_bytes()[4] != b'-' {
        return None;
    }
    let number = |text: &str, length: std::ops::RangeInclusive<usize>| -> Option<i32> {
        let fine = length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if fine { text.parse().ok() } else { None }
    };
    let (date, clock) = match text.find([' ', 'T', 't']) {
        Some(at) => (&text[..at], Some((text.as_bytes()[at], &text[at + 1..]))),
        None => (text, None),
    };
    let mut parts = date.splitn(3, '-');
    let year = number(parts.next()?, 4..=4)?;
    let month = i8::try_from(number(parts.next()?, 1..=2)?).ok()?;
    let day = i8::try_from(number(parts.next()?, 1..=2)?).ok()?;
    let date = jiff::civil::Date::new(i16::try_from(year).ok()?, month, day).ok()?;
    let Some((separator, clock)) = clock else { return Some(format!("{date}T00:00:00Z")) };
    let (clock, zone) = match clock.find(['Z', '+', '-']) {
        Some(at) if separator != b' ' => clock.split_at(at),
        None if separator == b' ' => (clock, "Z"),
        _ => return None,
    };
    let zone_is_fine = match zone.strip_prefix(['+', '-']) {
        Some(offset) => offset
            .split_once(':')
            .is_some_and(|(h, m)| number(h, 2..=2).is_some_and(|h| h < 24) && number(m, 2..=2).is_some_and(|m| m < 60)),
        None => zone == "Z",
    };
    let (whole, fraction) = clock.split_once('.').map_or((clock, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut parts = whole.splitn(3, ':');
    let (hour, minute, second) =
        (number(parts.next()?, 1..=2)?, number(parts.next()?, 1..=2)?, number(parts.next()?, 1..=2)?);
    let fraction_is_fine = fraction.is_none_or(|digits| number(digits, 1..=9).is_some());
    if !zone_is_fine || !fraction_is_fine || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let fraction = fraction.unwrap_or_default().trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let zone = if matches!(zone, "+00:00" | "-00:00") { "Z" } else { zone };
    Some(format!("{date}T{hour:02}:{minute:02}:{second:02}{dot}{fraction}{zone}"))
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
            ("2020-1-2T3:4:5.60Z", json!("2020-01-02T03:04:05.6Z")),
            ("2020-01-02 03:04:05", json!("2020-01-02T03:04:05Z")),
            ("2020-01-02T03:04:05+02:00", json!("2020-01-02T03:04:05+02:00")),
            ("2020-01-02t03:04:05z", json!("2020-01-02t03:04:05z")),
            ("2020-02-30", json!("2020-02-30")),
            ("100000000000000000000", json!(1e20)),
            ("-.inf", json!(null)),
        ] {
            assert_eq!(resolve(text).1, wanted, "{text}");
        }
    }
}
