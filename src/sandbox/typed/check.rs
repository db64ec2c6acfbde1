//! Whether a configuration fits its type, as server-side apply asks before it merges.
//!
//! In: a value with its type. Out: nothing, or the API server's words on every misfit with its path. Coarser than
//! the rules of a kind: it knows maps, lists and scalars, unknown fields and repeated items.

use std::collections::BTreeSet;

use serde_json::Value;

use super::extract::{Form, form, item_step};
use super::fields::Step;
use super::schema::{ListKind, Primitive, Shape, Type};

/// Checks a whole object.
pub fn fits(ty: Type<'_>, value: &Value) -> Result<(), String> {
    let mut misfits = Vec::new();
    visit(ty, value, "", &mut misfits);
    match misfits.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn visit(ty: Type<'_>, value: &Value, path: &str, misfits: &mut Vec<String>) {
    let mut misfit = |path: &str, reason: &str| {
        misfits.push(if path.is_empty() { reason.to_owned() } else { format!("{path}: {reason}") });
    };
    if value.is_null() {
        return;
    }
    match form(ty, value) {
        Form::Scalar => {
            if let Some(reason) = scalar_misfit(ty, value) {
                misfit(path, &reason);
            }
        }
        Form::Map => {
            let Some(map) = value.as_object() else {
                return misfit(path, &format!("expected map, got &{{{}}}", go_value(value)));
            };
            for (name, entry) in map {
                let path = format!("{path}{}", Step::field(name));
                match ty.entry(name) {
                    Some(ty) => visit(ty, entry, &path, misfits),
                    None => misfits.push(format!("{path}: field not declared in schema")),
                }
            }
        }
        Form::List => {
            let Some(items) = value.as_array() else {
                return misfit(path, &format!("expected list, got &{{{}}}", go_value(value)));
            };
            let mut seen = BTreeSet::new();
            for (i, item) in items.iter().enumerate() {
                let step = match ty.list_kind() {
                    ListKind::Atomic => Step::Index(i64::try_from(i).unwrap_or(i64::MAX)),
                    ListKind::Set | ListKind::Map(_) => match item_step(ty, item) {
                        Ok(step) => step,
                        Err(reason) => return misfits.push(format!("{path}: element {i}: {reason}")),
                    },
                };
                if seen.contains(&step) {
                    misfits.push(format!("{path}: duplicate entries for key {step}"));
                }
                visit(ty.item(), item, &format!("{path}{step}"), misfits);
                seen.insert(step);
            }
        }
    }
}

fn scalar_misfit(ty: Type<'_>, value: &Value) -> Option<String> {
    let Shape::Scalar(primitive) = ty.shape() else { return None };
    let got = go_value(value);
    match (primitive, value) {
        (Primitive::Int32 | Primitive::Int64 | Primitive::Number, Value::Number(_))
        | (Primitive::String | Primitive::Bytes | Primitive::Time | Primitive::MicroTime, Value::String(_))
        | (Primitive::Boolean, Value::Bool(_))
        | (
            Primitive::Any | Primitive::IntOrString | Primitive::Quantity,
            Value::Number(_) | Value::String(_) | Value::Bool(_),
        ) => None,
        (Primitive::Int32 | Primitive::Int64 | Primitive::Number, _) => {
            Some(format!("expected numeric (int or float), got {}", go_type(value)))
        }
        (Primitive::Boolean, _) => Some(format!("expected boolean, got &{{{got}}}")),
        (Primitive::String | Primitive::Bytes | Primitive::Time | Primitive::MicroTime, _) => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{got}}}"))
        }
        _ => Some(format!("expected any scalar, got &{{{got}}}")),
    }
}

/// The name of the Go type that the server reads this value into.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go prints it.
pub(super) fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<_> = map.iter().map(|(name, value)| format!("{name}:{}", go_value(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        scalar => scalar.to_string(),
    }
}
