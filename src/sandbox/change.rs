//! What a change of an object takes from the new one and what it keeps of the old one.
//!
//! In: the stored object and the one that takes its place. Out: the latter with what is the server's own. Pure.

use serde_json::{Map, Value, json};

use super::metadata;
use super::refusal::Cause;
use super::request::{Request, Subresource};
use super::resource::Generation;

/// Fields of `metadata` that no writer changes.
const KEPT: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "resourceVersion",
    "generateName",
];

/// Puts the server's own fields back into `metadata`.
pub fn keep_metadata(old: &Value, new: &mut Value) {
    let metadata = metadata::of(new);
    for field in KEPT {
        keep(metadata, old, field);
    }
    metadata.remove("selfLink");
}

/// A field's presence in `metadata` is what the server says, not what the client says.
fn keep(metadata: &mut Map<String, Value>, live: &Value, field: &str) {
    match live.get("metadata").and_then(|m| m.get(field)) {
        Some(value) => metadata.insert(field.to_owned(), value.clone()),
        None => metadata.remove(field),
    };
}

/// Removes a field of a map.
pub fn take_field(value: &mut Value, field: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(field);
    }
}

/// Makes a field what it is in `from`.
pub fn copy_field(from: &Value, to: &mut Value, field: &str) {
    match from.get(field) {
        Some(value) => to[field] = value.clone(),
        None => take_field(to, field),
    }
}

/// True if a changed object has nothing left that keeps it.
pub fn leaves(value: &Value) -> bool {
    let kept_by_spec = value["kind"] == "Namespace"
        && value.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
    let immediate = value.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0;
    metadata::is_terminating(value) && immediate && !kept_by_spec && metadata::finalizers(value).is_empty()
}

/// Drops the fields of an object that `keep` does not name; it always has a kind and metadata.
pub fn retain(value: &mut Value, keep: impl Fn(&str) -> bool) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata") || keep(field));
    }
}

/// The live object with the status and the metadata of the new one: so built-in kinds take it, but for labels.
pub fn with_status_and_metadata(old: &Value, mut new: Value) -> Value {
    let mut result = old.clone();
    copy_field(&new, &mut result, "status");
    result["metadata"] = new["metadata"].take();
    match old.pointer("/metadata/labels") {
        Some(labels) => result["metadata"]["labels"] = labels.clone(),
        None => take_field(&mut result["metadata"], "labels"),
    }
    result
}

/// The live object with the status of the new one: so custom kinds take it.
pub fn with_status(old: &Value, mut new: Value) -> Value {
    let managed = new.pointer_mut("/metadata/managedFields").map(Value::take);
    let status = new.get_mut("status").map(Value::take);
    let mut result = old.clone();
    match status {
        Some(status) => result["status"] = status,
        None => take_field(&mut result, "status"),
    }
    if let Some(managed) = managed {
        metadata::of(&mut result).insert("managedFields".into(), managed);
    }
    result
}

/// The live object with the finalizers in the spec of the new one.
pub fn with_finalizers(old: &Value, new: &Value) -> Value {
    let mut result = old.clone();
    result["spec"]["finalizers"] = new.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
    result
}

/// `metadata.generation` counts the changes of what is asked for.
pub fn bump_generation(request: &Request, old: &Value, new: &mut Value) {
    let resource = &*request.resource;
    let differs = |without: &[&str]| {
        let empty = Map::new();
        let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
        let counts = |field: &String| {
            !matches!(field.as_str(), "apiVersion" | "kind" | "metadata") && !without.contains(&field.as_str())
        };
        old.keys().chain(new.keys()).filter(|f| counts(f)).any(|f| old.get(f) != new.get(f))
    };
    let annotations = || old.pointer("/metadata/annotations") != new.pointer("/metadata/annotations");
    let bump = match (resource.generation, request.subresource) {
        (Generation::None, _) | (_, Subresource::Status) => false,
        (Generation::Spec, _) => differs(&["status"]),
        (Generation::SpecAndAnnotations, _) => differs(&["status"]) || annotations(),
        (Generation::All, _) => differs(&[]),
    };
    if bump {
        let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        metadata::of(new).insert("generation".into(), (generation + 1).into());
    }
}

/// What is wrong if an object that is being deleted gains finalizers.
pub fn forbidden_finalizers(old: &Value, new: &Value) -> Option<Vec<Cause>> {
    if !metadata::is_terminating(old) {
        return None;
    }
    let before = metadata::finalizers(old);
    let added: Vec<&str> = metadata::finalizers(new).into_iter().filter(|f| !before.contains(f)).collect();
    (!added.is_empty()).then(|| {
        let list = added.iter().map(|f| format!("\"{f}\"")).collect::<Vec<_>>().join(", ");
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
        );
        let cause = Cause::forbidden("metadata.finalizers", &detail);
        // the API server looks twice
        vec![cause.clone(), cause]
    })
}
