//! Functions on texts. Positions count characters, as CEL has it.

use super::EvaluationError;
use super::evaluate::Budget;
use super::formatting;
use super::functions::{Maybe, other};
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
                [Value::Int(at)] => Some(*at),
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
                let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).take(limit).collect();
                let ends = starts.iter().skip(1).copied().chain([text.len()]);
                starts.iter().zip(ends).map(|(start, end)| Value::text(&text[*start..end])).collect()
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
            Some(Value::text(formatting::made(text, &values.iter().collect::<Vec<_>>(), budget)?))
        }
        _ => None,
    })
}

/// In characters; `None` if it is asked for a place before the text.
fn position(function: &str, text: &str, part: &str, bound: Option<i64>) -> Option<i64> {
    let offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let chars = |bytes: usize| offsets.binary_search(&bytes).map_or(-1, |at| at as i64);
    let Some(bound) = bound else {
        let found = if function == "indexOf" { text.find(part) } else { text.rfind(part) };
        return Some(found.map_or(-1, chars));
    };
    let from = usize::try_from(bound).ok()?;
    if part.is_empty() {
        return Some(bound);
    }
    let Some(&from) = offsets.get(from).filter(|from| **from < text.len()) else { return Some(-1) };
    let found = match function {
        "indexOf" => text[from..].find(part).map(|at| from + at),
        _ => text[..text.floor_char_boundary(from.saturating_add(part.len()))].rfind(part),
    };
    Some(found.map_or(-1, chars))
}

/// A text of so many bytes is made.
pub fn bounded(bytes: usize, budget: &Budget) -> Result<(), EvaluationError> {
    if bytes > TEXT_BYTES_MAX {
        return Err(EvaluationError::TooCostly);
    }
    budget.take(bytes / 64)
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
