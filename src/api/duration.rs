//! Durations as Go writes them: `1m30s`, `250ms`.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A duration in the form `([0-9]+(\.[0-9]+)?(ms|s|m|h))+`, the pattern of Flux's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    /// Reads `1m30s`; `None` if it is not a duration or too long to count in 64 bits of seconds.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text;
        let mut total = Duration::ZERO;
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let number: f64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let seconds = match &rest[..unit_len] {
                "ms" => number / 1e3,
                "s" => number,
                "m" => number * 60.0,
                "h" => number * 3600.0,
                _ => return None,
            };
            total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
            rest = &rest[unit_len..];
        }
        Some(Self(total))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (hours, minutes, seconds, rest) =
            (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60, millis % 1000);
        if millis < 1000 {
            return if millis == 0 { f.write_str("0s") } else { write!(f, "{millis}ms") };
        }
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        if rest > 0 { write!(f, "{seconds}.{rest:03}s") } else { write!(f, "{seconds}s") }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is not a duration like `1m30s`")))
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_go_does() {
        for (text, millis, printed) in [
            ("1m30s", 90_000, "1m30s"),
            ("250ms", 250, "250ms"),
            ("1.5h", 5_400_000, "1h30m0s"),
            ("60s", 60_000, "1m0s"),
            ("0s", 0, "0s"),
            ("1.5s", 1500, "1.500s"),
        ] {
            let read = GoDuration::parse(text).expect(text);
            assert_eq!(read.0.as_millis(), millis, "{text}");
            assert_eq!(read.to_string(), printed, "{text}");
        }
        for text in ["", "1", "m", "1d", "-1s", "1..5s", "1e400s"] {
            assert_eq!(GoDuration::parse(text), None, "{text}");
        }
    }
}
