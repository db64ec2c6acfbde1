//! The values that templates see: files merged in order.

use serde_json::{Map, Value};

use super::error::RenderError;
use super::objects::describe;
use super::reader::Reader;
use super::settings::Settings;
use super::yaml;

/// Larger than any set of values that people keep in one file.
const MAX_VALUES_BYTES: u64 = 1 << 20;

/// Reads and merges the values files that the settings name.
pub(super) fn read(reader: &Reader<'_>, settings: &Settings) -> Result<Value, RenderError> {
    let mut merged = Map::new();
    for reference in &settings.values {
        let Some(content) = reader.text(&reference.path, MAX_VALUES_BYTES)? else {
            return Err(settings.error(reference, format!("there is no file `{}`", reference.path)).into());
        };
        let document = yaml::single(&reference.path, content.as_bytes())?;
        match document.value {
            Value::Null => {}
            Value::Object(values) => merge(&mut merged, values),
            other => {
                let message = format!("values must be a mapping, not {}", describe(&other));
                let error = crate::manifest::SourceError::new(&reference.path, &content, document.line, 1, message);
                return Err(error.into());
            }
        }
    }
    Ok(Value::Object(merged))
}

/// Mappings are merged, all else is replaced; a null removes what an earlier file gave, and is a value otherwise.
fn merge(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(base)), Value::Object(over)) => merge(base, over),
            (Some(_), Value::Null) => {
                base.remove(&key);
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn later_values_win() {
        let mut base = json!({"a": {"x": 1, "y": [1, 2]}, "b": 1, "c": {"d": 1}, "e": null});
        let over = json!({"a": {"y": [3], "z": {"q": 1}}, "b": {"now": "a map"}, "c": null, "f": null});
        if let (Some(base), Value::Object(over)) = (base.as_object_mut(), over) {
            merge(base, over);
        }
        assert_eq!(base, json!({"a": {"x": 1, "y": [3], "z": {"q": 1}}, "b": {"now": "a map"}, "e": null, "f": null}));
    }
}
