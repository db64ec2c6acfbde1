//! What is done to objects after they are built: `commonMetadata`.

use serde_json::{Map, Value};

use super::CommonMetadata;

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
