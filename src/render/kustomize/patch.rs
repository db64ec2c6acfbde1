//! Patches: strategic merge or JSON (RFC 6902), by target or by the identity in the patch.

use serde_json::{Value, json};

use super::budget::{Budget, weight};
use super::file::PatchOptions;
use super::json6902::Operations;
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
    Json(Operations),
}

/// Reads the text of a patch; `name` is for messages.
pub fn read(
    name: &str,
    text: &str,
    options: Option<&PatchOptions>,
    place: Place,
    budget: &Budget<'_>,
) -> Result<Patch, String> {
    let said = |error: crate::manifest::SourceError| error.to_string();
    if text.starts_with('[') {
        let operations = serde_json::from_str(text);
        let operations = operations.map_err(|_| "operations that begin with `[` must be JSON, with quoted keys")?;
        return Operations::read(operations).map(Patch::Json);
    }
    let documents = node::documents(name, text.as_bytes(), budget).map_err(said)?;
    if let Some(node::Document { node: Node::List(_), index, .. }) = documents.first() {
        let operations = yaml::documents(name, text.as_bytes()).map_err(said)?.swap_remove(*index).value;
        return Operations::read(operations).map(Patch::Json);
    }
    let mut patches = Vec::new();
    for document in documents {
        let has = |path: &[&str]| document.node.text_at(path).is_some_and(|text| !text.is_empty());
        if !has(&["kind"]) || !has(&["metadata", "name"]) {
            return Err("a strategic merge patch needs `kind` and `metadata.name`".into());
        }
        let mut patch = Resource::new(document.node, place);
        if let Some(options) = options {
            (patch.may_change_name, patch.may_change_kind) = (options.allow_name_change, options.allow_kind_change);
        }
        patches.push(patch);
    }
    Ok(Patch::Merge(patches))
}

impl Patch {
    /// Tells whether an object may be another one now.
    pub fn apply(
        &self,
        all: &mut Vec<Resource>,
        target: Option<&Selector>,
        schema: &Schema,
        budget: &Budget<'_>,
    ) -> Result<bool, String> {
        let mut is_another = false;
        match (self, target) {
            (Self::Merge(patches), Some(selector)) => {
                if patches.len() > 1 {
                    return Err("a patch with a `target` can hold one document only".into());
                }
                // a patch of nothing changes nothing
                let Some(mut patch) = patches.first().cloned() else { return Ok(false) };
                as_text(&mut patch.node);
                let weight = weight(&patch.node);
                for index in select(all, selector, budget)? {
                    budget.spend(weight)?;
                    let mut patch = patch.clone();
                    let api_version = all[index].node.text_at(&["apiVersion"]).unwrap_or_default().to_owned();
                    patch.node.set("apiVersion", Node::string(api_version));
                    is_another |= patch.may_change_name || patch.may_change_kind;
                    strategic(&mut all[index], patch, schema)?;
                }
            }
            (Self::Merge(patches), None) => {
                for patch in patches {
                    budget.spend(weight(&patch.node))?;
                    is_another |= patch.may_change_name || patch.may_change_kind;
                    let index = find(all, &patch.id())?;
                    strategic(&mut all[index], patch.clone(), schema)?;
                    all.retain(|resource| !resource.node.is_null());
                }
            }
            (Self::Json(_), None) => return Err("a JSON patch needs a `target`".into()),
            (Self::Json(operations), Some(selector)) => {
                for index in select(all, selector, budget)? {
                    let before = all[index].id();
                    all[index].remember_id();
                    json(&mut all[index], operations, budget)?;
                    is_another |= !all[index].id().same(&before);
                }
            }
        }
        all.retain(|resource| !resource.node.is_null());
        Ok(is_another)
    }
}

/// Labels and annotations of a patch with a target are text to kustomize, a null as well, and none of them say nothing.
fn as_text(patch: &mut Node) {
    let Some(metadata) = patch.get_mut("metadata") else { return };
    for field in ["labels", "annotations"] {
        match metadata.get_mut(field) {
            Some(Node::Map(entries)) if !entries.is_empty() => {
                for (_, node) in entries {
                    *node = Node::string(node.text().unwrap_or_default());
                }
            }
            _ => drop(metadata.remove(field)),
        }
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
    resource.settle();
    Ok(())
}

/// Applies operations to one object.
pub fn json(resource: &mut Resource, operations: &Operations, budget: &Budget<'_>) -> Result<(), String> {
    let id = resource.id();
    let mut value = resource.node.value()?;
    // kustomize's own notes are annotations, so that there is a mapping to add to
    if resource.has_notes()
        && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.entry("annotations").or_insert_with(|| json!({}));
    }
    operations.apply(&mut value, budget).map_err(|error| format!("`{id}`: {error}"))?;
    let mut node = Node::from_value(&value);
    node.numbers_as_floats();
    resource.replace(node);
    Ok(())
}
