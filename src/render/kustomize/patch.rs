//! Patches: strategic merge or JSON (RFC 6902), by target or by the identity in the patch.

use serde_json::{Value, json};

use super::file::PatchOptions;
use super::merge;
use super::merge_keys::Schema;
use super::node::{self, Node};
use super::resource::{Resource, find, select};
use super::selector::Selector;
use crate::manifest::yaml;
use crate::render::objects::Place;

/// A patch that was read.
pub enum Patch {
    Merge(Vec<Resource>),
    Json(json_patch::Patch),
}

/// Reads the text of a patch; `name` is for messages.
pub fn read(name: &str, text: &str, options: Option<&PatchOptions>, place: Place) -> Result<Patch, String> {
    let said = |error: crate::manifest::SourceError| error.to_string();
    let documents = node::documents(name, text.as_bytes()).map_err(said)?;
    let Some(first) = documents.first() else { return Err("the patch is empty".into()) };
    if let Node::List(_) = first.node {
        let operations = yaml::documents(name, text.as_bytes()).map_err(said)?.swap_remove(first.index).value;
        return operations_of(operations).map(Patch::Json);
    }
    let mut patches = Vec::new();
    for document in documents {
        let has = |path: &[&str]| document.node.text_at(path).is_some_and(|text| !text.is_empty());
        if !has(&["kind"]) || !has(&["metadata", "name"]) {
            return Err("a strategic merge patch needs `apiVersion`, `kind` and `metadata.name`".into());
        }
        let mut patch = Resource::new(document.node, place);
        if let Some(options) = options {
            (patch.may_change_name, patch.may_change_kind) = (options.allow_name_change, options.allow_kind_change);
        }
        patches.push(patch);
    }
    Ok(Patch::Merge(patches))
}

/// As `patch` of RFC 6902; an operation that isn't one is named.
pub fn operations_of(value: Value) -> Result<json_patch::Patch, String> {
    let Value::Array(operations) = value else { return Err("a JSON patch is a list of operations".into()) };
    let mut patch = Vec::new();
    for (index, operation) in operations.into_iter().enumerate() {
        let name = operation.get("op").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut operation = operation;
        // a missing value is null, as kustomize takes it
        if matches!(name.as_str(), "add" | "replace" | "test") && operation.get("value").is_none() {
            operation["value"] = Value::Null;
        }
        let read = serde_json::from_value(operation);
        patch.push(read.map_err(|error| format!("operation {} (`{name}`): {error}", index + 1))?);
    }
    Ok(json_patch::Patch(patch))
}

impl Patch {
    pub fn apply(&self, all: &mut Vec<Resource>, target: Option<&Selector>, schema: &Schema) -> Result<(), String> {
        match (self, target) {
            (Self::Merge(patches), Some(selector)) => {
                let [patch] = &patches[..] else {
                    return Err("a patch with a `target` can hold one document only".into());
                };
                for index in select(all, selector)? {
                    let mut patch = patch.clone();
                    let api_version = all[index].node.text_at(&["apiVersion"]).unwrap_or_default().to_owned();
                    patch.node.set("apiVersion", Node::string(api_version));
                    strategic(&mut all[index], patch, schema)?;
                }
            }
            (Self::Merge(patches), None) => {
                for patch in patches {
                    let index = find(all, &patch.id())?;
                    strategic(&mut all[index], patch.clone(), schema)?;
                    all.retain(|resource| !resource.node.is_null());
                }
            }
            (Self::Json(_), None) => return Err("a JSON patch needs a `target`".into()),
            (Self::Json(operations), Some(selector)) => {
                for index in select(all, selector)? {
                    all[index].remember_id();
                    json(&mut all[index], operations)?;
                }
            }
        }
        all.retain(|resource| !resource.node.is_null());
        Ok(())
    }
}

fn strategic(resource: &mut Resource, patch: Resource, schema: &Schema) -> Result<(), String> {
    let id = resource.id();
    if patch.may_change_name || patch.may_change_kind {
        resource.remember_id();
    }
    let old = std::mem::replace(&mut resource.node, Node::null());
    let merged = merge::merge(old, patch.node, schema).map_err(|error| format!("`{id}`: {error}"))?;
    let Some(merged) = merged else { return Ok(()) };
    resource.node = merged;
    if !patch.may_change_kind {
        resource.node.set("kind", Node::string(&id.gvk.kind));
    }
    if !patch.may_change_name {
        resource.set_name(&id.name);
    }
    resource.set_namespace(&id.written_namespace);
    Ok(())
}

/// Applies operations to one object.
pub fn json(resource: &mut Resource, operations: &json_patch::Patch) -> Result<(), String> {
    let id = resource.id();
    let mut value = resource.node.value()?;
    // kustomize's own notes are annotations, so that there is a mapping to add to
    if resource.has_notes()
        && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.entry("annotations").or_insert_with(|| json!({}));
    }
    json_patch::patch(&mut value, operations).map_err(|error| {
        let at = error.operation + 1;
        format!("`{id}`: operation {at} at `{}`: {}", error.path, error.kind)
    })?;
    resource.node = Node::from_value(&value);
    Ok(())
}
