//! Functions on texts. Positions count characters, as CEL has it.

use super::EvaluationError;
use super::evaluate::{Budget, no_overload};
use super::functions::{Maybe, other, plain};
use super::regular::{Pattern, search};
use super::value::{Text, Value};

/// A text that a function makes.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;

pub fn on_text<'a>(function: &str, text: &Text<'a>, arguments: &[Value<'a>], budget: &Budget) -> Maybe<'a> {
    let text = text.as_str();
    let outside = || other("index out of range");
    Ok(match (function, arguments) {
        ("size", []) => Some(Value::Int(text.chars().count() as i64)),
        ("contains", [Value::Text(part)]) => Some(Value::Bool(text.contains(part.as_str()))),
        ("startsWith", [Value::Text(part)]) => Some(Value::Bool(text.starts_with(part.as_str()))),
        ("endsWith", [Value::Text(part)]) => Some(Value::Bool(text.ends_with(part.as_str()))),
        ("matches" | "find" | "findAll", [Value::Text(pattern), rest @ ..]) => {
            let pattern = Pattern::made(pattern.as_str(), budget)?;
            Some(search(function, &Value::Text(Text::Borrowed(text)), &pattern, rest, budget)?)
        }
        ("charAt", [Value::Int(at)]) => {
            let (at, length) = (usize::try_from(*at).map_err(|_| outside())?, text.chars().count());
            if at > length {
                return Err(outside());
            }
            Some(Value::text(text.chars().nth(at).map(String::from).unwrap_or_default()))
        }
        ("indexOf" | "lastIndexOf", [Value::Text(part), rest @ ..]) => {
            let bound = match rest {
                [] => None,
                [Value::Int(at)] => Some(usize::try_from(*at).map_err(|_| outside())?),
                _ => return Ok(None),
            };
            Some(Value::Int(position(function, text, part.as_str(), bound).ok_or_else(outside)?))
        }
        ("lowerAscii", []) => Some(Value::text(text.to_ascii_lowercase())),
        ("upperAscii", []) => Some(Value::text(text.to_ascii_uppercase())),
        ("trim", []) => Some(Value::text(text.trim())),
        ("replace", [Value::Text(from), Value::Text(to), rest @ ..]) => {
            let limit = match rest {
                [] => usize::MAX,
                [Value::Int(limit)] => usize::try_from(*limit).unwrap_or(usize::MAX),
                _ => return Ok(None),
            };
            let times = text.matches(from.as_str()).take(limit).count();
            let length = text.len() + times.saturating_mul(to.as_str().len());
            bounded(length, budget)?;
            Some(Value::text(text.replacen(from.as_str(), to.as_str(), limit)))
        }
        ("split", [Value::Text(separator), rest @ ..]) => {
            let limit = match rest {
                [] => usize::MAX,
                [Value::Int(0)] => return Ok(Some(Value::list(Vec::new()))),
                [Value::Int(limit)] => usize::try_from(*limit).unwrap_or(usize::MAX),
                _ => return Ok(None),
            };
            let parts: Vec<Value<'a>> = if separator.as_str().is_empty() {
                text.chars().map(|c| Value::text(c.to_string())).collect()
            } else {
                text.splitn(limit, separator.as_str()).map(Value::text).collect()
            };
            budget.take(parts.len())?;
            Some(Value::list(parts))
        }
        ("substring", [Value::Int(start), rest @ ..]) => {
            let length = text.chars().count();
            let end = match rest {
                [] => length,
                [Value::Int(end)] => usize::try_from(*end).map_err(|_| outside())?,
                _ => return Ok(None),
            };
            let start = usize::try_from(*start).map_err(|_| outside())?;
            if start > end || end > length {
                return Err(outside());
            }
            Some(Value::text(text.chars().skip(start).take(end - start).collect::<String>()))
        }
        ("format", [Value::List(values)]) => {
            Some(Value::text(format(text, &values.iter().collect::<Vec<_>>(), budget)?))
        }
        _ => None,
    })
}

fn position(function: &str, text: &str, part: &str, bound: Option<usize>) -> Option<i64> {
    let offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let chars = |bytes: usize| offsets.binary_search(&bytes).ok();
    let found = match (function, bound) {
        ("indexOf", bound) => {
            let start = *offsets.get(bound.unwrap_or(0))?;
            text[start..].find(part).map(|at| start + at)
        }
        (_, None) => text.rfind(part),
        (_, Some(bound)) => {
            let last = *offsets.get(bound)?;
            let end = (last + part.len()).min(text.len());
            let end = (end..=text.len()).find(|end| text.is_char_boundary(*end))?;
            text[..end].rfind(part).filter(|at| *at <= last)
        }
    };
    Some(found.and_then(chars).map_or(-1, |at| at as i64))
}

/// A text of so many bytes is made.
pub fn bounded(bytes: usize, budget: &Budget) -> Result<(), EvaluationError> {
    if bytes > TEXT_BYTES_MAX {
        return Err(EvaluationError::TooCostly);
    }
    budget.take(bytes / 64)
}

/// `'%s has %d'.format([…])`, as cel-go has it.
fn format(pattern: &str, values: &[Value<'_>], budget: &Budget) -> Result<String, EvaluationError> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let precision = rest.strip_prefix('.').map(|digits| {
            let length = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            (digits[..length].parse::<usize>().unwrap_or(6).min(30), &digits[length..])
        });
        let precision = precision.map(|(precision, after)| {
            rest = after;
            precision
        });
        let Some(verb) = rest.chars().next() else { return Err(other("a format ends in `%`")) };
        rest = &rest[verb.len_utf8()..];
        let Some(value) = values.next() else { return Err(other("a format has more verbs than values")) };
        let text = match (verb, value) {
            ('s', value) => plain(value),
            ('d', Value::Int(_) | Value::Uint(_) | Value::Double(_)) => plain(value),
            ('f', value) => std::format!("{:.*}", precision.unwrap_or(6), number(value)?),
            ('e', value) => std::format!("{:.*e}", precision.unwrap_or(6), number(value)?),
            ('b', Value::Int(value)) => std::format!("{value:b}"),
            ('b', Value::Bool(value)) => u8::from(*value).to_string(),
            ('o', Value::Int(value)) => std::format!("{value:o}"),
            ('x', Value::Int(value)) => std::format!("{value:x}"),
            ('X', Value::Int(value)) => std::format!("{value:X}"),
            ('x', Value::Text(text)) => text.as_str().bytes().map(|byte| std::format!("{byte:02x}")).collect(),
            ('X', Value::Text(text)) => text.as_str().bytes().map(|byte| std::format!("{byte:02X}")).collect(),
            (verb, value) => return Err(other(std::format!("`%{verb}` is not for a {}", value.type_name()))),
        };
        out.push_str(&text);
        bounded(out.len(), budget)?;
    }
    out.push_str(rest);
    Ok(out)
}

fn number(value: &Value<'_>) -> Result<f64, EvaluationError> {
    match value {
        Value::Int(value) => Ok(*value as f64),
        Value::Uint(value) => Ok(*value as f64),
        Value::Double(value) => Ok(*value),
        other => Err(no_overload("format", &[other])),
    }
}

/// `strings.quote`: printable on one line, as cel-go escapes it.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
