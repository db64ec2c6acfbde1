//! A built-in object as the server's own types write it.
//!
//! In: an object of a built-in kind. Out: the same with nulls and empty optional parts left out and with the parts
//! that are always there, and amounts in their canonical form, so that what was read and written again stays equal.
//! Never touches unknown fields.

use serde_json::{Map, Value};

use super::quantity::Quantity;
use super::schema::{Empty, Primitive, Shape, Type};

/// Rewrites an object in place.
pub fn canonical(ty: Type<'_>, value: &mut Value) {
    match (ty.shape(), value) {
        (Shape::Map(_), Value::Object(map)) => {
            if ty.fields().next().is_some() {
                canonical_struct(ty, map);
            } else {
                for (name, entry) in map.iter_mut() {
                    let Some(ty) = ty.entry(name) else { continue };
                    // A null is read as a zero value.
                    if entry.is_null() && matches!(ty.shape(), Shape::Scalar(Primitive::String | Primitive::Bytes)) {
                        *entry = "".into();
                    }
                    canonical(ty, entry);
                }
            }
        }
        (Shape::List(_), Value::Array(items)) => {
            for item in items {
                canonical(ty.item(), item);
            }
        }
        (Shape::Scalar(Primitive::Quantity), amount) => {
            let text = amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
            if let Ok(quantity) = Quantity::parse(&text) {
                *amount = quantity.to_string().into();
            }
        }
        // in UTC, with six digits of a second's fraction
        (Shape::Scalar(Primitive::MicroTime), Value::String(text)) => {
            if let Ok(time) = text.parse::<jiff::Timestamp>() {
                *text = format!("{time:.6}");
            }
        }
        _ => {}
    }
}

fn canonical_struct(ty: Type<'_>, map: &mut Map<String, Value>) {
    for (name, entry) in map.iter_mut() {
        if let Some((_, ty)) = ty.field(name) {
            canonical(ty, entry);
        }
    }
    map.retain(|name, entry| match ty.field(name) {
        // An empty list of managers is a request to forget them all.
        Some(_) if name == "managedFields" => !entry.is_null(),
        Some((field, _)) => is_written(field.empty, entry),
        None => true,
    });
    for (name, field, ty) in ty.fields() {
        if !map.contains_key(name)
            && let Some(value) = field.unset(ty)
        {
            map.insert(name.into(), value);
        }
    }
}

fn is_written(empty: Empty, value: &Value) -> bool {
    match empty {
        Empty::Omitted => !is_empty(value),
        Empty::Optional | Empty::Struct | Empty::Written => !value.is_null(),
        Empty::Zero => !is_empty(value) && !is_zero(value),
        Empty::Null | Empty::Opaque => true,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(set) => !set,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sandbox::typed::schema::Schema;

    #[test]
    fn an_object_is_written_as_the_servers_types_write_it() {
        for (kind, given, written) in [
            ("ConfigMap", json!({"data": {"a": null}, "binaryData": {}}), json!({"metadata": {}, "data": {"a": ""}})),
            (
                "Service",
                json!({"spec": {"ports": [], "type": "", "selector": null}}),
                json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}}),
            ),
            (
                "Pod",
                json!({"spec": {"containers": [{"resources": {"requests": {"cpu": 0.5}}, "tty": false}],
                    "securityContext": {}, "hostNetwork": false, "shareProcessNamespace": false}}),
                json!({"metadata": {}, "status": {}, "spec": {"containers": [{"name": "", "resources":
                    {"requests": {"cpu": "500m"}}}], "securityContext": {}, "shareProcessNamespace": false}}),
            ),
        ] {
            let schema = Schema::builtin("", "v1", kind).expect("built in");
            let mut object = given;
            canonical(schema.root(), &mut object);
            assert_eq!(object, written);
            canonical(schema.root(), &mut object);
            assert_eq!(object, written, "once is enough");
        }
    }
}
