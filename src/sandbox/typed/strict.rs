//! An object as it came with a request, read into the server's own types.
//!
//! In: decoded JSON of a built-in kind. Out: the object without unknown fields, with their paths; or the server's
//! words on the first value of a wrong type. Never looks at what values mean.

use serde_json::Value;

use super::encoding;
use super::quantity::Quantity;
use super::schema::{Primitive, Schema, Shape, Type};
use super::structural;

/// Reads an object in place: drops what the type doesn't have (the answer names it: `spec.foo`) and encodes the rest
/// as the server does. A value of a wrong type is an error: `json: cannot unmarshal string into …`.
pub fn decode(schema: &Schema, object: &mut Value) -> Result<Vec<String>, String> {
    if let Some(document) = &schema.custom {
        let mut unknown = structural::prune(document, object);
        structural::drop_nulls(document, object);
        if let (Some((_, ty)), Some(metadata)) = (schema.root().field("metadata"), object.get_mut("metadata")) {
            let place = Place { path: "metadata".into(), json_path: "metadata".into(), owner: "" };
            unknown.extend(visit(ty, metadata, &place)?);
            encoding::canonical(ty, metadata);
        }
        return Ok(unknown);
    }
    let place = Place { path: String::new(), json_path: String::new(), owner: short_name(schema.root().name()) };
    let unknown = visit(schema.root(), object, &place)?;
    encoding::canonical(schema.root(), object);
    Ok(unknown)
}

/// Where a value stands.
struct Place<'a> {
    /// With positions: `spec.containers[0]`.
    path: String,
    /// Without: `spec.containers`.
    json_path: String,
    /// The struct that has the field.
    owner: &'a str,
}

impl Place<'_> {
    fn wrong(&self, found: &str, ty: Type<'_>) -> String {
        let Self { owner, json_path, .. } = self;
        format!("json: cannot unmarshal {found} into Go struct field {owner}.{json_path} of type {}", go_type(ty))
    }
}

fn visit(ty: Type<'_>, value: &mut Value, place: &Place<'_>) -> Result<Vec<String>, String> {
    let mut unknown = Vec::new();
    if value.is_null() {
        return Ok(unknown);
    }
    let found = kind_of(value);
    match ty.shape() {
        Shape::Untyped => {}
        Shape::Scalar(primitive) => scalar(*primitive, ty, value, place)?,
        Shape::Map(_) => {
            let Value::Object(map) = value else { return Err(place.wrong(found, ty)) };
            let is_struct = ty.fields().next().is_some();
            let owner = if is_struct { short_name(ty.name()) } else { place.owner };
            let mut dropped = Vec::new();
            for (name, entry) in map.iter_mut() {
                let path = join(&place.path, name);
                let json_path = if is_struct { join(&place.json_path, name) } else { place.json_path.clone() };
                match ty.entry(name) {
                    Some(ty) => unknown.extend(visit(ty, entry, &Place { path, json_path, owner })?),
                    None => {
                        dropped.push(name.clone());
                        unknown.push(path);
                    }
                }
            }
            for name in dropped {
                map.remove(&name);
            }
        }
        Shape::List(_) => {
            let Value::Array(items) = value else { return Err(place.wrong(found, ty)) };
            for (i, item) in items.iter_mut().enumerate() {
                let path = format!("{}[{i}]", place.path);
                let place = Place { path, json_path: place.json_path.clone(), owner: place.owner };
                unknown.extend(visit(ty.item(), item, &place)?);
            }
        }
    }
    Ok(unknown)
}

fn scalar(primitive: Primitive, ty: Type<'_>, value: &Value, place: &Place<'_>) -> Result<(), String> {
    let found = kind_of(value);
    let integer = |value: &Value, narrow: bool| -> Result<(), String> {
        let Value::Number(number) = value else { return Err(place.wrong(found, ty)) };
        let fits = number.as_i64().is_some_and(|n| !narrow || i32::try_from(n).is_ok());
        if fits { Ok(()) } else { Err(place.wrong(&format!("number {number}"), ty)) }
    };
    match (primitive, value) {
        (Primitive::Int32, value) => integer(value, true),
        (Primitive::Int64, value) => integer(value, false),
        (Primitive::Number, Value::Number(_))
        | (Primitive::String, Value::String(_))
        | (Primitive::Boolean, Value::Bool(_))
        | (Primitive::IntOrString, Value::String(_))
        | (Primitive::Any, _) => Ok(()),
        (Primitive::IntOrString, value) => integer(value, true),
        (Primitive::Quantity, Value::String(_) | Value::Number(_)) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Quantity::parse(&text).map(drop).map_err(|error| error.to_string())
        }
        (Primitive::Time, Value::String(text)) => match text.parse::<jiff::Timestamp>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
            )),
        },
        (Primitive::MicroTime, Value::String(text)) => micro_time_fault(text).map_or(Ok(()), Err),
        (Primitive::Bytes, Value::String(text)) => {
            base64_fault(text).map_or(Ok(()), |at| Err(format!("illegal base64 data at input byte {at}")))
        }
        _ => Err(place.wrong(found, ty)),
    }
}

/// Why a text is no time with microseconds, in the words of Go's parser.
fn micro_time_fault(text: &str) -> Option<String> {
    const LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";
    const SECONDS: usize = "2006-01-02T15:04:05".len();
    let fault =
        |rest: &str, of: &str| Some(format!("parsing time {text:?} as {LAYOUT:?}: cannot parse {rest:?} as {of:?}"));
    if text.parse::<jiff::Timestamp>().is_err() {
        return fault(text, "2006");
    }
    let fraction = text.get(SECONDS..).unwrap_or_default();
    let digits = fraction.strip_prefix('.').map_or(0, |f| f.bytes().take_while(u8::is_ascii_digit).count());
    match digits {
        6 => None,
        0..6 => fault(fraction, ".000000"),
        _ => fault(&fraction[1 + 6..], "Z07:00"),
    }
}

/// The first byte at which a text is not base64, as Go's decoder counts.
fn base64_fault(text: &str) -> Option<usize> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let bare: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    STANDARD.decode(&bare).err()?;
    let is_digit = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    let digits = bare.bytes().take_while(|b| is_digit(*b)).count();
    Some(match bare.as_bytes().get(digits) {
        Some(b'=') | None => digits - digits % 4,
        Some(_) => digits,
    })
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// `Container` for `core.v1.Container`.
fn short_name(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A type as Go prints it: `[]v1.Container`, `map[string]string`, `int32`.
fn go_type(ty: Type<'_>) -> String {
    match ty.shape() {
        Shape::List(_) => format!("[]{}", go_type(ty.item())),
        Shape::Map(_) if ty.name().is_empty() => {
            format!("map[string]{}", ty.entry("").map(go_type).unwrap_or_default())
        }
        Shape::Map(_) | Shape::Untyped => {
            let mut parts = ty.name().rsplit('.');
            let (name, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{version}.{name}")
        }
        Shape::Scalar(primitive) => match primitive {
            Primitive::Int32 | Primitive::IntOrString => "int32",
            Primitive::Int64 => "int64",
            Primitive::Number => "float64",
            Primitive::Boolean => "bool",
            Primitive::Bytes => "[]uint8",
            Primitive::Time => "v1.Time",
            Primitive::MicroTime => "v1.MicroTime",
            Primitive::Quantity => "resource.Quantity",
            Primitive::String | Primitive::Any => "string",
        }
        .into(),
    }
}
