//! What templates can call: minijinja's filters but those that aren't bounded, look inside or escape for HTML, and some
//! for manifests. What they make is counted.
//!
//! | filter | gives |
//! |---|---|
//! | `toyaml` | YAML in block style, to be indented with `indent` |
//! | `tojson` | JSON on one line, which is YAML as well; of a text, a quoted text |
//! | `b64encode`, `b64decode` | base64 of a text and back |
//! | `sha256sum` | the hexadecimal SHA-256 of a text |
//! | `required("…")` | the value itself, or the message as an error if it is undefined, null or empty |
//!
//! No clock, no randomness, no files.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use minijinja::filters as builtin;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde_json::{Map, Number, Value as Json};
use sha2::{Digest, Sha256};

use super::guard;
use crate::manifest::yaml;

/// A text that a filter makes, and an operand. Larger ones don't fit into a ConfigMap.
const MAX_TEXT_BYTES: usize = 2 << 20;
/// Values that `toyaml` and `tojson` write, and items of lists.
const MAX_VALUES: usize = 200_000;
/// Levels that `toyaml` and `tojson` write.
const MAX_LEVELS: usize = yaml::MAX_DEPTH;
const MAX_INDENT: usize = 200;
const MAX_RANGE: i64 = 10_000;
/// What is counted of an item of a list, besides its text.
const ITEM_BYTES: usize = 32;
/// Everything that one template makes on its way, kept or not.
const MAX_MADE_BYTES: usize = 64 << 20;

/// Counts what a template makes.
#[derive(Debug, Default)]
pub(super) struct Meter {
    made_bytes: AtomicUsize,
}

impl Meter {
    /// For the next template.
    pub(super) fn reset(&self) {
        self.made_bytes.store(0, Ordering::Relaxed);
    }

    fn make(&self, bytes: usize) -> Result<(), Error> {
        let before = self.made_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > MAX_MADE_BYTES {
            return Err(invalid(format!("the template makes more than {MAX_MADE_BYTES} bytes of text on its way")));
        }
        Ok(())
    }

    /// Counts a value that was made or takes part in making one.
    fn count(&self, value: &Value) -> Result<(), Error> {
        match (value.as_str(), value.len()) {
            (Some(text), _) => {
                bounded(Some(text.len()))?;
                self.make(text.len())
            }
            (None, Some(length)) if length > MAX_VALUES => {
                Err(invalid(format!("a list becomes longer than {MAX_VALUES}")))
            }
            (None, Some(length)) => self.make(length * ITEM_BYTES),
            (None, None) => Ok(()),
        }
    }
}

pub(super) fn add_to(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    // Unbounded memory.
    for name in ["format", "batch", "slice", "chain", "zip"] {
        environment.remove_filter(name);
    }
    // Escaping for HTML, and looking inside.
    for name in ["safe", "escape", "e", "pprint"] {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    environment.add_function("range", range);
    environment.add_filter("sum", sum);
    // What makes texts and lists is counted.
    for (name, filter) in [
        ("upper", Value::from_function(builtin::upper)),
        ("lower", Value::from_function(builtin::lower)),
        ("title", Value::from_function(builtin::title)),
        ("capitalize", Value::from_function(builtin::capitalize)),
        ("trim", Value::from_function(builtin::trim)),
        ("string", Value::from_function(builtin::string)),
        ("reverse", Value::from_function(builtin::reverse)),
        ("split", Value::from_function(builtin::split)),
        ("lines", Value::from_function(builtin::lines)),
        ("list", Value::from_function(builtin::list)),
        ("sort", Value::from_function(builtin::sort)),
        ("unique", Value::from_function(builtin::unique)),
        ("dictsort", Value::from_function(builtin::dictsort)),
        ("groupby", Value::from_function(builtin::groupby)),
        ("map", Value::from_function(builtin::map)),
        ("select", Value::from_function(builtin::select)),
        ("reject", Value::from_function(builtin::reject)),
        ("selectattr", Value::from_function(builtin::selectattr)),
        ("rejectattr", Value::from_function(builtin::rejectattr)),
        ("replace", Value::from_function(replace)),
        ("join", Value::from_function(join)),
        ("indent", Value::from_function(indent)),
        ("tojson", Value::from_function(tojson)),
        ("toyaml", Value::from_function(toyaml)),
        ("b64encode", Value::from_function(|text: String| BASE64.encode(text))),
        ("b64decode", Value::from_function(b64decode)),
        ("sha256sum", Value::from_function(|text: String| hex::encode(Sha256::digest(text)))),
    ] {
        let meter = Arc::clone(meter);
        let counted = move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
            let arguments: Vec<Value> = arguments.0.into_iter().map(ValueOrKwargs::into_value).collect();
            let made = filter.call(state, &arguments)?;
            meter.count(&made)?;
            Ok::<_, Error>(made)
        };
        environment.add_filter(name, counted);
    }
    environment.add_filter("required", required);
    // What `guard` puts into templates.
    let counting = Arc::clone(meter);
    environment.add_filter(guard::COUNTED, move |value: Value| counting.count(&value).map(|()| value));
    environment.add_filter(guard::NUMBER, |value: Value| match value.kind() {
        ValueKind::String | ValueKind::Seq | ValueKind::Iterable => Err(invalid("only numbers can be multiplied")),
        _ => Ok(value),
    });
    let counting = Arc::clone(meter);
    environment.add_function(guard::TEXT, move |bytes: usize| counting.make(bytes));
    let counting = Arc::clone(meter);
    environment.add_function("dict", move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
        let arguments: Vec<Value> = arguments.0.into_iter().map(ValueOrKwargs::into_value).collect();
        let made = Value::from_function(minijinja::functions::dict).call(state, &arguments)?;
        counting.count(&made)?;
        Ok::<_, Error>(made)
    });
}

fn range(first: i64, second: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    let (start, end) = second.map_or((0, first), |end| (first, end));
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(invalid("a range needs steps other than 0"));
    }
    let length = (i128::from(end) - i128::from(start)) / i128::from(step);
    if length > i128::from(MAX_RANGE) {
        return Err(invalid(format!("a range is longer than {MAX_RANGE}")));
    }
    let inside = |n: &i64| if step > 0 { *n < end } else { *n > end };
    Ok(std::iter::successors(Some(start), |n| n.checked_add(step)).take_while(inside).map(Value::from).collect())
}

/// Of numbers only.
fn sum(values: &Value, attribute: Option<String>, arguments: Kwargs) -> Result<Value, Error> {
    let attribute = attribute.or(arguments.get("attribute")?);
    arguments.assert_all_used()?;
    let (mut whole, mut real) = (Some(0_i64), 0.0);
    for value in values.try_iter()? {
        let value = match &attribute {
            Some(name) => value.get_attr(name)?,
            None => value,
        };
        let number = f64::try_from(value.clone()).map_err(|_| invalid("only numbers have a sum"))?;
        real += number;
        whole = value.as_i64().filter(|_| value.is_integer()).and_then(|n| whole?.checked_add(n));
    }
    Ok(whole.map_or_else(|| Value::from(real), Value::from))
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn bounded(length: Option<usize>) -> Result<(), Error> {
    match length {
        Some(length) if length <= MAX_TEXT_BYTES => Ok(()),
        _ => Err(invalid(format!("a text becomes longer than {MAX_TEXT_BYTES} bytes"))),
    }
}

fn replace(text: String, from: String, to: String) -> Result<String, Error> {
    let growth = text.matches(from.as_str()).count().checked_mul(to.len());
    bounded(growth.and_then(|growth| growth.checked_add(text.len())))?;
    Ok(text.replace(&from, &to))
}

fn join(values: &Value, separator: Option<String>) -> Result<String, Error> {
    let separator = separator.unwrap_or_default();
    let mut out = String::new();
    for (index, value) in values.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(&separator);
        }
        match value.as_str() {
            Some(text) => out.push_str(text),
            None => out.push_str(&text_of(&value)?),
        }
        bounded(Some(out.len()))?;
    }
    Ok(out)
}

fn indent(
    text: String,
    width: usize,
    first: Option<bool>,
    blank: Option<bool>,
    arguments: Kwargs,
) -> Result<String, Error> {
    let first = first.or(arguments.get("first")?).unwrap_or(false);
    let blank = blank.or(arguments.get("blank")?).unwrap_or(false);
    arguments.assert_all_used()?;
    if width > MAX_INDENT {
        return Err(invalid(format!("indented by more than {MAX_INDENT} columns")));
    }
    bounded(text.lines().count().checked_mul(width).and_then(|growth| growth.checked_add(text.len())))?;
    let margin = " ".repeat(width);
    let lines = text.split('\n').enumerate().map(|(index, line)| {
        let wanted = if index == 0 { first } else { blank || !line.is_empty() };
        if wanted { format!("{margin}{line}") } else { line.to_owned() }
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn tojson(value: &Value) -> Result<String, Error> {
    text_of_json(value)
}

fn toyaml(value: &Value) -> Result<String, Error> {
    Ok(yaml::write(&to_json(value)?).trim_end().to_owned())
}

fn b64decode(text: String) -> Result<String, Error> {
    let bytes = BASE64.decode(text.trim()).map_err(|_| invalid("this is not base64"))?;
    String::from_utf8(bytes).map_err(|_| invalid("this is not base64 of a text"))
}

fn required(value: &Value, message: String) -> Result<Value, Error> {
    if value.is_undefined() || value.is_none() || value.as_str() == Some("") {
        return Err(invalid(message));
    }
    Ok(value.clone())
}

/// A value as it is put into a template: text as it is, null as `null`, lists and mappings as JSON.
pub(super) fn text_of(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => text_of_json(value),
        _ => Ok(value.to_string()),
    }
}

fn text_of_json(value: &Value) -> Result<String, Error> {
    serde_json::to_string(&to_json(value)?).map_err(|_| invalid("this has no form in JSON"))
}

/// Values of YAML and JSON for templates.
pub(super) fn from_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(n), _, _) => Value::from(n),
            (_, Some(n), _) => Value::from(n),
            (_, _, Some(n)) => Value::from(n),
            _ => Value::from(()),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(items) => items.iter().map(from_json).collect(),
        Json::Object(map) => Value::from_pairs(map.iter().map(|(key, value)| (key.as_str(), from_json(value)))),
    }
}

fn to_json(value: &Value) -> Result<Json, Error> {
    write_json(value, 0, &mut 0, &mut 0)
}

fn write_json(value: &Value, level: usize, values: &mut usize, bytes: &mut usize) -> Result<Json, Error> {
    *values += 1;
    if level > MAX_LEVELS || *values > MAX_VALUES {
        return Err(invalid(format!("more than {MAX_VALUES} values or {MAX_LEVELS} levels")));
    }
    Ok(match value.kind() {
        ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number => Json::Number(number(value)?),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default().to_owned();
            *bytes += text.len();
            bounded(Some(*bytes))?;
            Json::String(text)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()? {
                items.push(write_json(&item, level + 1, values, bytes)?);
            }
            Json::Array(items)
        }
        ValueKind::Map => {
            let mut map = Map::new();
            for key in value.try_iter()? {
                let name = key.to_string();
                *bytes += name.len();
                bounded(Some(*bytes))?;
                map.insert(name, write_json(&value.get_item(&key)?, level + 1, values, bytes)?);
            }
            Json::Object(map)
        }
        ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
        _ => return Err(invalid("this has no form in YAML and JSON")),
    })
}

fn number(value: &Value) -> Result<Number, Error> {
    if let Some(n) = value.as_i64().filter(|_| value.is_integer()) {
        return Ok(n.into());
    }
    if let Ok(n) = u64::try_from(value.clone()) {
        return Ok(n.into());
    }
    f64::try_from(value.clone())
        .ok()
        .and_then(Number::from_f64)
        .ok_or_else(|| invalid("this number has no form in JSON"))
}
