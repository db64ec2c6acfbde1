//! What the API server refuses: the rules that no schema states.

use serde_json::Value;

use super::definition;
use super::refusal::Cause;
use super::resource::Resource;

/// Errors in an object that is about to be created.
pub fn validate(resource: &Resource, value: &Value) -> Vec<Cause> {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition::validate(value),
        _ => Vec::new(),
    }
}

/// Errors in a change of an object.
pub fn validate_update(resource: &Resource, _old: &Value, new: &Value) -> Vec<Cause> {
    validate(resource, new)
}
