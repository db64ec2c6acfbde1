//! `'%s has %d'.format([…])`, as cel-go has it: its verbs, and numbers as they are written in English.

use super::EvaluationError;
use super::evaluate::Budget;
use super::functions::{other, plain};
use super::text::{bounded, quoted};
use super::time;
use super::value::Value;

/// More digits than a number has are all zeros.
const PRECISION_MAX: usize = 300;
const PRECISION: usize = 6;

/// A part of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'p> {
    Text(&'p str),
    Value { verb: char, precision: Option<usize> },
}

/// The parts of a format, or what is wrong with it.
pub fn parts(pattern: &str) -> Result<Vec<Part<'_>>, String> {
    let (mut parts, mut rest) = (Vec::new(), pattern);
    while let Some((text, after)) = rest.split_once('%') {
        parts.push(Part::Text(text));
        let (precision, after) = match after.strip_prefix('.') {
            Some(digits) => {
                let (number, after) =
                    digits.split_at(digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len()));
                let wrong = |_| "a format has a precision that is no number".to_owned();
                (Some(number.parse::<usize>().map_err(wrong)?.min(PRECISION_MAX)), after)
            }
            None => (None, after),
        };
        let mut letters = after.chars();
        match letters.next() {
            Some('%') => parts.push(Part::Text("%")),
            Some(verb) if "sdfebxXo".contains(verb) => parts.push(Part::Value { verb, precision }),
            Some(verb) => return Err(format!("`%{verb}` is no verb of a format")),
            None => return Err("a format ends in `%`".to_owned()),
        }
        rest = letters.as_str();
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

/// Whether a verb is for values of this type.
pub fn takes(verb: char, kind: &str) -> bool {
    match verb {
        's' => matches!(
            kind,
            "string"
                | "bool"
                | "bytes"
                | "int"
                | "uint"
                | "double"
                | "map"
                | "list"
                | "type"
                | "null_type"
                | time::DURATION
                | time::TIMESTAMP
        ),
        'f' | 'e' => kind == "double",
        'b' => matches!(kind, "int" | "uint" | "bool"),
        'x' | 'X' => matches!(kind, "int" | "uint" | "string" | "bytes"),
        _ => matches!(kind, "int" | "uint"),
    }
}

/// More values than the format has verbs for are left out.
pub fn made(pattern: &str, values: &[Value<'_>], budget: &Budget) -> Result<String, EvaluationError> {
    let (mut out, mut values) = (String::new(), values.iter());
    for part in parts(pattern).map_err(other)? {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Value { verb, precision } => {
                let value = values.next().ok_or_else(|| other("a format has more verbs than values"))?;
                if !takes(verb, value.type_name()) {
                    return Err(other(format!("`%{verb}` is not for a {}", value.type_name())));
                }
                out.push_str(&written(verb, precision, value));
            }
        }
        bounded(out.len(), budget)?;
    }
    Ok(out)
}

/// A value that its verb takes.
fn written(verb: char, precision: Option<usize>, value: &Value<'_>) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let based = |magnitude: u64, sign: &str| match verb {
        'b' => format!("{sign}{magnitude:b}"),
        'o' => format!("{sign}{magnitude:o}"),
        'x' | 'X' => format!("{sign}{magnitude:x}"),
        _ => format!("{sign}{magnitude}"),
    };
    let text = match (verb, value) {
        ('f', Value::Double(number)) => fixed(*number, precision.unwrap_or(PRECISION)),
        ('e', Value::Double(number)) => scientific(*number),
        ('s', value) if !matches!(value, Value::List(_) | Value::Map(_)) => plain(value),
        ('s', value) => nested(value),
        (_, Value::Int(number)) => based(number.unsigned_abs(), if *number < 0 { "-" } else { "" }),
        (_, Value::Uint(number)) => based(*number, ""),
        (_, Value::Bool(value)) => u8::from(*value).to_string(),
        (_, Value::Text(text)) => hex(text.as_str().as_bytes()),
        (_, Value::Bytes(bytes)) => hex(bytes),
        (_, value) => plain(value),
    };
    if verb == 'X' { text.to_ascii_uppercase() } else { text }
}

/// A value within a list or a map: as it would be written in an expression.
fn nested(value: &Value<'_>) -> String {
    match value {
        Value::Text(text) => quoted(text.as_str()),
        Value::Bytes(bytes) => format!("b{}", quoted(&String::from_utf8_lossy(bytes))),
        Value::Double(number) => format!("{number:.PRECISION$}"),
        Value::Duration(_) => format!("duration({})", quoted(&plain(value))),
        Value::Timestamp(_) => format!("timestamp({})", quoted(&plain(value))),
        Value::List(list) => {
            let items: Vec<String> = list.iter().map(|item| nested(&item)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let entries = map.entries();
            let mut entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{}:{}", nested(key), nested(value))).collect();
            entries.sort();
            format!("{{{}}}", entries.join(", "))
        }
        value => plain(value),
    }
}

fn unwritable(number: f64) -> Option<String> {
    match number {
        number if number.is_nan() => Some("NaN".to_owned()),
        number if number.is_infinite() => Some(if number > 0.0 { "∞" } else { "-∞" }.to_owned()),
        _ => None,
    }
}

/// With a comma between thousands.
fn fixed(number: f64, precision: usize) -> String {
    if let Some(text) = unwritable(number) {
        return text;
    }
    let text = format!("{:.precision$}", number.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if number.is_sign_negative() { "-" } else { "" };
    format!("{sign}{grouped}{fraction}")
}

/// `1.500000×10⁰³`
fn scientific(number: f64) -> String {
    if let Some(text) = unwritable(number) {
        return text;
    }
    let text = format!("{number:.PRECISION$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(("", exponent), |digits| ("⁻", digits));
    let raised = |digit: char| match digit {
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '4' => '⁴',
        '5' => '⁵',
        '6' => '⁶',
        '7' => '⁷',
        '8' => '⁸',
        '9' => '⁹',
        _ => '⁰',
    };
    let raised: String = format!("{digits:0>2}").chars().map(raised).collect();
    format!("{mantissa}×10{sign}{raised}")
}

/// As Go writes a number in as few digits as tell it from others.
pub fn shortest(number: f64) -> String {
    if !number.is_finite() {
        let sign = if number > 0.0 { "+" } else { "-" };
        return if number.is_nan() { "NaN".to_owned() } else { format!("{sign}Inf") };
    }
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        -4..=5 => number.to_string(),
        exponent => format!("{mantissa}e{}{:02}", if exponent < 0 { "-" } else { "+" }, exponent.abs()),
    }
}
