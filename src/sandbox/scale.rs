//! The scale subresource: replicas read and written without the rest of the object.

use serde_json::{Value, json};

use super::metadata;
use super::refusal::{Cause, Refusal};
use super::resource::Resource;

/// A custom kind's path such as `.spec.replicas`, as a JSON pointer.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

/// The `Scale` of an object.
pub fn read(resource: &Resource, value: &Value) -> Value {
    let custom = resource.custom.as_ref().and_then(|c| c.scale.as_ref());
    let number = |path: Option<&str>, fallback: &str| {
        let path = path.map_or_else(|| fallback.to_owned(), pointer);
        value.pointer(&path).and_then(Value::as_i64).unwrap_or(0)
    };
    let mut status = json!({ "replicas": number(custom.map(|c| c.status_replicas.as_str()), "/status/replicas") });
    let selector = match custom {
        Some(custom) => {
            custom.selector.as_deref().and_then(|path| value.pointer(&pointer(path))?.as_str().map(str::to_owned))
        }
        None => selector_text(value),
    };
    if let Some(selector) = selector {
        status["selector"] = selector.into();
    }
    let mut metadata = json!({
        "name": metadata::name(value),
        "namespace": metadata::namespace(value),
        "uid": metadata::uid(value),
        "resourceVersion": metadata::field(value, "resourceVersion"),
        "creationTimestamp": metadata::field(value, "creationTimestamp"),
    });
    if metadata::namespace(value).is_empty() {
        metadata::as_map(&mut metadata).remove("namespace");
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": { "replicas": number(custom.map(|c| c.spec_replicas.as_str()), "/spec/replicas") },
        "status": status,
    })
}

fn selector_text(value: &Value) -> Option<String> {
    let labels = value.pointer("/spec/selector/matchLabels")?.as_object()?;
    let pairs = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    Some(pairs.collect::<Vec<_>>().join(","))
}

/// The object with the replicas of a `Scale`.
pub fn write(resource: &Resource, live: &Value, scale: &Value) -> Result<Value, Refusal> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let cause = Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
        return Err(Refusal::invalid_scale(metadata::name(live), &cause));
    }
    let custom = resource.custom.as_ref().and_then(|c| c.scale.as_ref());
    let path = custom.map_or(".spec.replicas", |c| c.spec_replicas.as_str());
    let mut new = live.clone();
    let mut at = &mut new;
    for step in path.split('.').filter(|s| !s.is_empty()) {
        at = metadata::as_map(at).entry(step).or_insert(Value::Null);
    }
    *at = replicas.into();
    Ok(new)
}
