//! What is done to objects after they are built: `commonMetadata`, and what a target namespace can't hold.

use serde_json::{Map, Value};

use super::CommonMetadata;
use super::objects::Draft;
use super::scope;

/// Takes objects whose definition is among them and says `scope: Cluster` out of the target namespace again: kustomize
/// takes every kind that it doesn't know for a namespaced one.
pub(super) fn free_cluster_scoped(drafts: &mut [Draft], namespace: &str) {
    let cluster_scoped = scope::defined_here(drafts);
    for draft in drafts {
        let kind = (draft.group().to_owned(), draft.kind().to_owned());
        if draft.namespace() == namespace
            && cluster_scoped.contains(&kind)
            && let Some(metadata) = draft.value.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("namespace");
        }
    }
}

/// Sets labels and annotations over what the object has.
pub(super) fn set_common_metadata(value: &mut Value, metadata: &CommonMetadata<'_>) {
    for (field, entries) in [("labels", metadata.labels), ("annotations", metadata.annotations)] {
        if entries.is_empty() {
            continue;
        }
        let Some(object) = value.get_mut("metadata").and_then(Value::as_object_mut) else { continue };
        let map = object.entry(field).or_insert_with(|| Value::Object(Map::new()));
        if map.is_null() {
            *map = Value::Object(Map::new());
        }
        if let Some(map) = map.as_object_mut() {
            map.extend(entries.iter().map(|(key, entry)| (key.clone(), Value::String(entry.clone()))));
        }
    }
}
