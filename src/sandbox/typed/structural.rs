//! What a CustomResourceDefinition's schema says about an object's values.
//!
//! In: an `openAPIV3Schema` and an object. Out: the object pruned and defaulted, or what is wrong with it. Not
//! looked at: `allOf`, `anyOf`, `oneOf`, `not`, formats and CEL rules.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use regex::Regex;
use serde_json::{Map, Value};

use super::cause::Cause;
use super::schema::Schema;

/// Deeper values are neither pruned nor checked; the API server's own limit on nesting is far above.
const DEPTH_MAX: usize = 64;
/// A pattern's compiled program may not be larger; what is larger is not checked.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Compiled patterns kept; a definition has a few.
const PATTERNS_MAX: usize = 1000;

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn number(schema: &Value, name: &str) -> Option<u64> {
    schema.get(name).and_then(Value::as_u64)
}

fn texts<'a>(schema: &'a Value, name: &str) -> impl Iterator<Item = &'a str> {
    schema.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The schema of an entry of a map or struct.
fn entry<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema
        .get("properties")
        .and_then(|properties| properties.get(name))
        .or_else(|| schema.get("additionalProperties").filter(|additional| additional.is_object()))
}

impl Schema {
    /// Fills in the defaults that a definition states. Built-in kinds state none.
    pub fn fill_defaults(&self, object: &mut Value) {
        if let Some(document) = &self.custom {
            default_level(document, object, 0);
        }
    }

    /// What the definition says is wrong with an object's values. Nothing for built-in kinds.
    pub fn invalid_values(&self, object: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        if let Some(document) = &self.custom {
            check(document, object, "", 0, &mut causes);
        }
        causes
    }
}

/// Drops what the schema doesn't have; the answer names it: `spec.foo`, `spec.items[0].bar`.
pub fn prune(schema: &Value, object: &mut Value) -> Vec<String> {
    let mut pruned = Vec::new();
    prune_level(schema, object, "", true, 0, &mut pruned);
    pruned
}

fn prune_level(schema: &Value, value: &mut Value, path: &str, resource: bool, depth: usize, pruned: &mut Vec<String>) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Object(map) => {
            let open = flag(schema, "x-kubernetes-preserve-unknown-fields")
                || schema.get("additionalProperties").is_some_and(|additional| *additional != Value::Bool(false));
            let resource = resource || flag(schema, "x-kubernetes-embedded-resource");
            let mut dropped = Vec::new();
            for (name, value) in map.iter_mut() {
                let path = join(path, name);
                if resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                match entry(schema, name) {
                    Some(schema) => prune_level(schema, value, &path, false, depth + 1, pruned),
                    None if open => {}
                    None => {
                        dropped.push(name.clone());
                        pruned.push(path);
                    }
                }
            }
            for name in dropped {
                map.remove(&name);
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for (i, item) in items.iter_mut().enumerate() {
                    prune_level(schema, item, &format!("{path}[{i}]"), false, depth + 1, pruned);
                }
            }
        }
        _ => {}
    }
}

/// Takes out nulls where null is no value and no default takes its place.
pub fn drop_nulls(schema: &Value, value: &mut Value) {
    drop_nulls_level(schema, value, 0);
}

fn drop_nulls_level(schema: &Value, value: &mut Value, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let nullable = flag(property, "nullable") || property.get("default").is_some();
                if !nullable && map.get(name).is_some_and(Value::is_null) {
                    map.remove(name);
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(schema) = entry(schema, name) {
                    drop_nulls_level(schema, value, depth + 1);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for item in items {
                    drop_nulls_level(schema, item, depth + 1);
                }
            }
        }
        _ => {}
    }
}

fn default_level(schema: &Value, value: &mut Value, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let absent = match map.get(name) {
                    None => true,
                    Some(value) => value.is_null() && !flag(property, "nullable"),
                };
                if let Some(default) = property.get("default").filter(|_| absent) {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(schema) = entry(schema, name) {
                    default_level(schema, value, depth + 1);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for item in items {
                    default_level(schema, item, depth + 1);
                }
            }
        }
        _ => {}
    }
}

fn check(schema: &Value, value: &Value, path: &str, depth: usize, causes: &mut Vec<Cause>) {
    if depth > DEPTH_MAX || (value.is_null() && flag(schema, "nullable")) {
        return;
    }
    if let Some(cause) = wrong_type(schema, value, path) {
        let fraction = value.is_f64() && schema.get("type").and_then(Value::as_str) == Some("integer");
        causes.push(cause);
        if flag(schema, "x-kubernetes-int-or-string") && schema.get("anyOf").is_some() {
            let detail = format!("{path:?} must validate at least one schema (anyOf)");
            causes.push(Cause::invalid("<nil>", &Value::from(""), &detail));
            causes.extend(wrong_type(&serde_json::json!({"type": "integer"}), value, path));
        }
        if fraction {
            let detail = format!("Checked value must be of type integer (default format) in {path}");
            causes.push(Cause::invalid("<nil>", &Value::from(""), &detail));
        }
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array).filter(|allowed| !allowed.contains(value)) {
        let allowed: Vec<String> =
            allowed.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
        causes.push(Cause::unsupported(path, value, &allowed));
    }
    match value {
        Value::Number(_) => check_number(schema, value, path, causes),
        Value::String(text) => check_text(schema, text, path, causes),
        Value::Array(items) => check_list(schema, items, path, depth, causes),
        Value::Object(map) => check_map(schema, map, path, depth, causes),
        Value::Null | Value::Bool(_) => {}
    }
}

fn wrong_type(schema: &Value, value: &Value, path: &str) -> Option<Cause> {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let expected = if flag(schema, "x-kubernetes-int-or-string") {
        "integer,string"
    } else {
        schema.get("type").and_then(Value::as_str).filter(|expected| !expected.is_empty())?
    };
    let fits = expected.split(',').any(|expected| expected == found || (expected == "number" && found == "integer"))
        || (expected == "integer" && value.as_f64().is_some_and(|n| n.fract() == 0.0));
    (!fits).then(|| Cause::wrong_type(path, found, expected))
}

fn check_number(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(n) = value.as_f64() else { return };
    let bound = |name: &str| schema.get(name).and_then(|bound| bound.as_f64().map(|n| (n, bound)));
    let mut fail = |detail: String| causes.push(Cause::invalid(path, value, &detail));
    if let Some((minimum, printed)) = bound("minimum") {
        if flag(schema, "exclusiveMinimum") {
            if n <= minimum {
                fail(format!("{path} in body should be greater than {printed}"));
            }
        } else if n < minimum {
            fail(format!("{path} in body should be greater than or equal to {printed}"));
        }
    }
    if let Some((maximum, printed)) = bound("maximum") {
        if flag(schema, "exclusiveMaximum") {
            if n >= maximum {
                fail(format!("{path} in body should be less than {printed}"));
            }
        } else if n > maximum {
            fail(format!("{path} in body should be less than or equal to {printed}"));
        }
    }
    if let Some((factor, printed)) = bound("multipleOf")
        && factor != 0.0
        && (n / factor).fract() != 0.0
    {
        fail(format!("{path} in body should be a multiple of {printed}"));
    }
}

fn check_text(schema: &Value, text: &str, path: &str, causes: &mut Vec<Cause>) {
    let length = text.chars().count() as u64;
    let value = Value::from(text);
    if let Some(limit) = number(schema, "maxLength").filter(|limit| length > *limit) {
        causes.push(Cause::too_long(path, limit));
    }
    if let Some(limit) = number(schema, "minLength").filter(|limit| length < *limit) {
        let detail = format!("{path} in body should be at least {limit} chars long");
        causes.push(Cause::invalid(path, &value, &detail));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && compiled(pattern).is_some_and(|regex| !regex.is_match(text))
    {
        causes.push(Cause::invalid(path, &value, &format!("{path} in body should match '{pattern}'")));
    }
}

/// `None` for a pattern that can't be compiled: the definition was accepted, so it isn't the object's fault.
fn compiled(pattern: &str) -> Option<Arc<Regex>> {
    static PATTERNS: OnceLock<Mutex<HashMap<String, Option<Arc<Regex>>>>> = OnceLock::new();
    let mut patterns = PATTERNS.get_or_init(Mutex::default).lock().unwrap_or_else(|held| held.into_inner());
    if let Some(known) = patterns.get(pattern) {
        return known.clone();
    }
    if patterns.len() >= PATTERNS_MAX {
        patterns.clear();
    }
    let regex = regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build().ok().map(Arc::new);
    patterns.insert(pattern.to_owned(), regex.clone());
    regex
}

fn check_list(schema: &Value, items: &[Value], path: &str, depth: usize, causes: &mut Vec<Cause>) {
    if let Some(limit) = number(schema, "maxItems").filter(|limit| items.len() as u64 > *limit) {
        causes.push(Cause::too_many(path, items.len(), limit));
    }
    if let Some(limit) = number(schema, "minItems").filter(|limit| (items.len() as u64) < *limit) {
        let detail = format!("{path} in body should have at least {limit} items");
        causes.push(Cause::invalid(path, &Value::from(items.len()), &detail));
    }
    if let Some(item_schema) = schema.get("items") {
        for (i, item) in items.iter().enumerate() {
            check(item_schema, item, &format!("{path}[{i}]"), depth + 1, causes);
        }
    }
    let keys: Vec<&str> = texts(schema, "x-kubernetes-list-map-keys").collect();
    let identity = |item: &Value| -> Option<Value> {
        match schema.get("x-kubernetes-list-type").and_then(Value::as_str)? {
            "set" => Some(item.clone()),
            "map" => {
                let key = |key: &&str| Some(((*key).to_owned(), item.get(key)?.clone()));
                Some(Value::Object(keys.iter().filter_map(key).collect::<Map<_, _>>()))
            }
            _ => None,
        }
    };
    let identities: Vec<Option<Value>> = items.iter().map(identity).collect();
    for (i, id) in identities.iter().enumerate() {
        if let Some(id) = id.as_ref().filter(|_| identities[..i].contains(id)) {
            causes.push(Cause::duplicate(format!("{path}[{i}]"), id));
        }
    }
}

fn check_map(schema: &Value, map: &Map<String, Value>, path: &str, depth: usize, causes: &mut Vec<Cause>) {
    for name in texts(schema, "required") {
        if !map.contains_key(name) {
            causes.push(Cause::required(join(path, name), ""));
        }
    }
    if flag(schema, "x-kubernetes-embedded-resource") {
        for name in ["apiVersion", "kind"] {
            if map.get(name).and_then(Value::as_str).unwrap_or_default().is_empty() {
                causes.push(Cause::required(join(path, name), ""));
            }
        }
    }
    if let Some(limit) = number(schema, "maxProperties").filter(|limit| map.len() as u64 > *limit) {
        causes.push(Cause::too_many(path, map.len(), limit));
    }
    if let Some(limit) = number(schema, "minProperties").filter(|limit| (map.len() as u64) < *limit) {
        let detail = format!("{path} in body should have at least {limit} properties");
        causes.push(Cause::invalid(path, &Value::from(map.len()), &detail));
    }
    for (name, value) in map {
        if let Some(schema) = entry(schema, name)
            && (depth > 0 || name != "metadata")
        {
            check(schema, value, &join(path, name), depth + 1, causes);
        }
    }
}
