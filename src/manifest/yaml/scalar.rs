//! What a plain scalar means: YAML 1.1 as go-yaml v2 resolves it, which is what kubectl and Flux read.
//!
//! In: a scalar's text, its tag and whether it was plain. Out: null, a boolean, a number or text. Never fails on an
//! untagged scalar: what is nothing else is text.

use base64::Engine as _;
use serde_json::Value;

pub(super) const STR_TAG: &str = "tag:yaml.org,2002:str";
const BOOL_TAG: &str = "tag:yaml.org,2002:bool";
const INT_TAG: &str = "tag:yaml.org,2002:int";
const FLOAT_TAG: &str = "tag:yaml.org,2002:float";
const NULL_TAG: &str = "tag:yaml.org,2002:null";
const TIMESTAMP_TAG: &str = "tag:yaml.org,2002:timestamp";
const BINARY_TAG: &str = "tag:yaml.org,2002:binary";

/// A resolved scalar.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// Above `i64::MAX`.
    Unsigned(u64),
    Float(f64),
    Text(String),
}

impl Scalar {
    /// The value that goes into JSON. Infinities and NaN have none.
    pub(super) fn into_value(self) -> Result<Value, &'static str> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Bool(b),
            Self::Int(n) => Value::Number(n.into()),
            Self::Unsigned(n) => Value::Number(n.into()),
            Self::Float(f) => float_value(f)?,
            Self::Text(s) => Value::String(s),
        })
    }

    /// The text of a mapping's key: `on: …` is the key `true`, `1: …` the key `1`.
    pub(super) fn into_key(self) -> Result<String, &'static str> {
        match self {
            Self::Text(s) => Ok(s),
            Self::Bool(b) => Ok(b.to_string()),
            Self::Int(n) => Ok(n.to_string()),
            Self::Float(f) => Ok(float_key(f)),
            Self::Null => Err("null can't be a key"),
            Self::Unsigned(_) => Err("a number as large as this can't be a key"),
        }
    }
}

/// Resolves a scalar. `plain` says that it was written without quotes and without a tag.
pub(super) fn resolve(text: String, tag: Option<&str>, plain: bool) -> Result<Scalar, String> {
    let tag = match tag {
        None | Some("") if !plain => return Ok(Scalar::Text(text)),
        None | Some("") => return Ok(untagged(text)),
        Some(tag) => tag,
    };
    let wanted = match tag {
        STR_TAG => return Ok(Scalar::Text(text)),
        BINARY_TAG => return binary(&text).map(Scalar::Text),
        BOOL_TAG => "a boolean",
        INT_TAG => "an integer",
        FLOAT_TAG => "a number",
        NULL_TAG => "null",
        TIMESTAMP_TAG => "a time",
        // A tag that YAML doesn't define says nothing here.
        _ => return Ok(Scalar::Text(text)),
    };
    match (tag, untagged(text)) {
        (BOOL_TAG, s @ Scalar::Bool(_)) | (NULL_TAG, s @ Scalar::Null) | (FLOAT_TAG, s @ Scalar::Float(_)) => Ok(s),
        (INT_TAG, s @ (Scalar::Int(_) | Scalar::Unsigned(_))) => Ok(s),
        (FLOAT_TAG, Scalar::Int(n)) => Ok(Scalar::Float(n as f64)),
        // Times stay text, as in go-yaml.
        (TIMESTAMP_TAG, Scalar::Text(s)) if s.as_bytes().get(4) == Some(&b'-') => Ok(Scalar::Text(s)),
        _ => Err(format!("a scalar tagged `!!{}` is not {wanted}", tag.rsplit(':').next().unwrap_or(tag))),
    }
}

/// A scalar as tools on go-yaml v3 read it, with numbers and times in their plain spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaf {
    Null,
    Text(String),
    /// A number, a time, `True` or `False`.
    Typed(String),
}

/// Resolves a scalar as go-yaml v3 does: `yes` and `on` are text, an unquoted date is a time.
pub fn leaf(text: String, tag: Option<&str>, plain: bool) -> Leaf {
    let untagged = plain && tag.is_none_or(str::is_empty);
    let is_true_or_false = matches!(text.as_str(), "true" | "True" | "TRUE" | "false" | "False" | "FALSE");
    match resolve(text.clone(), tag, plain) {
        Ok(Scalar::Null) => Leaf::Null,
        Ok(Scalar::Bool(truth)) if is_true_or_false => Leaf::Typed(if truth { "True" } else { "False" }.to_owned()),
        Ok(Scalar::Int(number)) => Leaf::Typed(number.to_string()),
        Ok(Scalar::Unsigned(number)) => Leaf::Typed(number.to_string()),
        Ok(Scalar::Float(number)) => Leaf::Typed(number.to_string()),
        Ok(Scalar::Text(text)) if untagged => time(&text).map_or(Leaf::Text(text), Leaf::Typed),
        Ok(Scalar::Text(text)) => Leaf::Text(text),
        Ok(Scalar::Bool(_)) | Err(_) => Leaf::Text(text),
    }
}

/// `2006-1-2`, alone or with a time of day after `T`, `t` or a space, as RFC 3339 spells it.
fn time(text: &str) -> Option<String> {
    if !looks_like_a_time(text) {
        return None;
    }
    let (date, rest) = text.find(['T', 't', ' ']).map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
    let numbers = |text: &str, mark: char| -> Option<Vec<u32>> { text.split(mark).map(|n| n.parse().ok()).collect() };
    let [year, month @ 1..=12, day @ 1..=31] = numbers(date, '-')?[..] else { return None };
    let Some(rest) = rest else { return Some(format!("{year:04}-{month:02}-{day:02}T00:00:00Z")) };
    let (clock, zone) = rest.find(['Z', '+', '-']).map_or((rest, "Z"), |at| rest.split_at(at));
    let (clock, fraction) = clock.split_once('.').map_or((clock, ""), |(clock, fraction)| (clock, fraction));
    let [hour @ 0..=23, minute @ 0..=59, second @ 0..=59] = numbers(clock, ':')?[..] else { return None };
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{dot}{fraction}{zone}"))
}

/// Whether plain text would be read as text again.
pub(super) fn plain_is_text(text: &str) -> bool {
    matches!(untagged(text.to_owned()), Scalar::Text(_))
        && text != "<<"
        && !looks_like_base60(text)
        && !looks_like_a_time(text)
}

/// The text that a `!!binary` scalar holds.
pub fn binary(text: &str) -> Result<String, String> {
    let compact: String = text.split_ascii_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(compact)
        .map_err(|_| "a `!!binary` scalar is not base64".to_owned())?;
    String::from_utf8(bytes).map_err(|_| "a `!!binary` scalar is not UTF-8 text".to_owned())
}

fn untagged(text: String) -> Scalar {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    match number(&text) {
        Some(Number::Int(n)) => Scalar::Int(n),
        Some(Number::Unsigned(n)) => Scalar::Unsigned(n),
        Some(Number::Float(f)) => Scalar::Float(f),
        None => Scalar::Text(text),
    }
}

/// A number, as both versions of go-yaml understand plain text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Int(i64),
    /// Above `i64::MAX`.
    Unsigned(u64),
    Float(f64),
}

impl Number {
    /// As Go writes it in JSON; infinities and NaN have no place there.
    pub fn into_value(self) -> Result<Value, &'static str> {
        match self {
            Self::Int(n) => Ok(n.into()),
            Self::Unsigned(n) => Ok(n.into()),
            Self::Float(f) => float_value(f),
        }
    }
}

/// The number that plain text stands for; `None` if it is none. Not the words for infinities and NaN.
pub fn number(text: &str) -> Option<Number> {
    let first = *text.as_bytes().first()?;
    if first == b'.' {
        return float(text).map(Number::Float);
    }
    if !(first.is_ascii_digit() || first == b'+' || first == b'-') {
        return None;
    }
    let plain = text.replace('_', "");
    integer(&plain).or_else(|| float(&plain).map(Number::Float))
}

/// An integer as Go's `ParseInt` with base 0: a prefix says the base, a leading `0` is octal.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    let (radix, digits) = match lower.as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u128::from_str_radix(digits, radix).ok()?;
    if negative {
        let value = i128::try_from(magnitude).ok()?.checked_neg()?;
        return i64::try_from(value).ok().map(Number::Int);
    }
    if let Ok(value) = i64::try_from(magnitude) {
        return Some(Number::Int(value));
    }
    // Go parses unsigned numbers without a sign only.
    if text.starts_with('+') {
        return None;
    }
    u64::try_from(magnitude).ok().map(Number::Unsigned)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, and within the range of a double.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|e| digits(e.strip_prefix(['-', '+']).unwrap_or(e)));
    if !(mantissa_ok && exponent_ok) {
        return None;
    }
    text.parse::<f64>().ok().filter(|f| f.is_finite())
}

fn looks_like_a_time(text: &str) -> bool {
    let b = text.as_bytes();
    b.len() >= 8 && b[..4].iter().all(u8::is_ascii_digit) && b[4] == b'-' && b[5].is_ascii_digit()
}

/// `1:30` and the like, which YAML 1.1 calls a number of base 60 and older readers take for one.
fn looks_like_base60(text: &str) -> bool {
    text.contains(':') && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'_' | b'.' | b'+' | b'-'))
}

/// A float in JSON as Go writes it: a whole number below 1e21 has no fraction, so that it is read back as an integer.
fn float_value(f: f64) -> Result<Value, &'static str> {
    if !f.is_finite() {
        return Err("infinity and NaN have no place in a Kubernetes object");
    }
    if f.fract() == 0.0 && f.abs() < 1e21 {
        let digits = format!("{f}");
        if let Ok(n) = digits.parse::<i64>() {
            return Ok(n.into());
        }
        if let Ok(n) = digits.parse::<u64>() {
            return Ok(n.into());
        }
    }
    serde_json::Number::from_f64(f).map(Value::Number).ok_or("this number has no place in JSON")
}

/// A float key in the spelling of Go's `FormatFloat(f, 'g', -1, 32)`.
fn float_key(f: f64) -> String {
    if f.is_nan() {
        return ".nan".to_owned();
    }
    if f.is_infinite() {
        return if f > 0.0 { ".inf".to_owned() } else { "-.inf".to_owned() };
    }
    let narrow = f as f32;
    let exponent =
        if narrow == 0.0 { 0 } else { format!("{narrow:e}").rsplit('e').next().map_or(0, |e| e.parse().unwrap_or(0)) };
    if (-4..21).contains(&exponent) && exponent < 6 {
        return format!("{narrow}");
    }
    let scientific = format!("{narrow:e}");
    match scientific.split_once('e') {
        Some((mantissa, e)) => {
            let (sign, digits) = match e.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', e),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => scientific,
    }
}
