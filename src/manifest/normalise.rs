//! What is the same for the API server is made the same here, before hashing and sending.

use base64::Engine as _;
use serde_json::{Map, Value};

/// Brings an object into the form it is hashed and sent in, as Flux does: a Secret's `stringData` becomes `data`,
/// `status` goes (but a CustomResourceDefinition's), a `creationTimestamp: null` goes.
pub fn normalise(value: &mut Value) {
    let Some(object) = value.as_object_mut() else { return };
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind != "CustomResourceDefinition" {
        object.remove("status");
    }
    without_empty_timestamp(object);
    for path in [&["spec", "template"][..], &["spec", "jobTemplate"], &["spec", "jobTemplate", "spec", "template"]] {
        let mut inner = Some(&mut *object);
        for key in path {
            inner = inner.and_then(|map| map.get_mut(*key)).and_then(Value::as_object_mut);
        }
        if let Some(template) = inner {
            without_empty_timestamp(template);
        }
    }
    if kind == "Secret" && api_version == "v1" {
        encode_string_data(object);
    }
}

fn without_empty_timestamp(object: &mut Map<String, Value>) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata.get("creationTimestamp").is_some_and(Value::is_null)
    {
        metadata.remove("creationTimestamp");
    }
}

/// `stringData` wins over `data`, as in the API server. Values that aren't text stay, for the server to refuse.
fn encode_string_data(object: &mut Map<String, Value>) {
    let Some(Value::Object(texts)) = object.remove("stringData") else { return };
    let data = object.entry("data").or_insert_with(|| Value::Object(Map::new()));
    if data.is_null() {
        *data = Value::Object(Map::new());
    }
    let Some(data) = data.as_object_mut() else {
        object.insert("stringData".to_owned(), Value::Object(texts));
        return;
    };
    let mut refused = Map::new();
    for (key, value) in texts {
        match value {
            Value::String(text) => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(text);
                data.insert(key, Value::String(encoded));
            }
            Value::Null => {
                data.insert(key, Value::String(String::new()));
            }
            other => {
                refused.insert(key, other);
            }
        }
    }
    if !refused.is_empty() {
        object.insert("stringData".to_owned(), Value::Object(refused));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_that_mean_the_same_become_the_same() {
        let cases = [
            (
                json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}}),
                json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "eQ==", "b": "eg=="}}),
            ),
            (
                json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"port": 5432}}),
                json!({"apiVersion": "v1", "kind": "Secret", "data": {}, "stringData": {"port": 5432}}),
            ),
            (
                json!({"apiVersion": "example.org/v1", "kind": "Secret", "stringData": {"a": "y"}}),
                json!({"apiVersion": "example.org/v1", "kind": "Secret", "stringData": {"a": "y"}}),
            ),
            (
                json!({"kind": "Deployment", "metadata": {"creationTimestamp": null, "name": "a"},
                       "spec": {"template": {"metadata": {"creationTimestamp": null}}}, "status": {}}),
                json!({"kind": "Deployment", "metadata": {"name": "a"}, "spec": {"template": {"metadata": {}}}}),
            ),
            (
                json!({"kind": "CustomResourceDefinition", "status": {"storedVersions": ["v1"]}}),
                json!({"kind": "CustomResourceDefinition", "status": {"storedVersions": ["v1"]}}),
            ),
        ];
        for (mut given, wanted) in cases {
            normalise(&mut given);
            assert_eq!(given, wanted);
        }
    }
}
