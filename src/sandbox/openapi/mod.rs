//! The OpenAPI v3 documents: an index with a hash for each group version, and one document for each.
//!
//! ```text
//!  registry ─▶ index
//!      └─────▶ operations  what may be asked of each resource
//!            └ schemas     types ◀─ the type table, definitions
//!                            └──◀─ descriptions
//! ```
//!
//! kubectl reads them to explain fields, to see that the server validates them, and to learn how lists are patched.
//! A document is made when it is asked for. There is no OpenAPI v2.

mod descriptions;
mod operations;
mod schemas;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::discovery::VERSION;
use super::registry::Registry;
use super::resource::Resource;

/// Where a group version is, below `/` and below `/openapi/v3/`.
fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The index: a client that knows a hash knows the document.
pub fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, versions) in registry.groups() {
        for (version, resources) in versions {
            let path = path(&group, &version);
            let url = format!("/openapi/v3/{path}?hash={}", hash(&path, &resources));
            paths.insert(path, json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths })
}

/// Changes with whatever a document is made from.
fn hash(path: &str, resources: &[Arc<Resource>]) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{} {VERSION} {path}", env!("CARGO_PKG_VERSION")));
    for resource in resources {
        hash.update(format!("\n{} {:?}", resource.kind, resource.subresources().collect::<Vec<_>>()));
        if let Some(document) = resource.schema.document() {
            hash.update(document.to_string());
        }
    }
    hex::encode_upper(hash.finalize())
}

/// The document of a group version; `None` if it isn't served.
pub fn document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let groups = registry.groups();
    let (_, versions) = groups.into_iter().find(|(name, _)| name == group)?;
    let (_, resources) = versions.into_iter().find(|(name, _)| name == version)?;
    let mut components = schemas::Components::new();
    let mut paths = Map::new();
    for resource in &resources {
        let schema = components.add(resource);
        operations::describe(resource, &schema, &mut paths);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": VERSION },
        "paths": paths,
        "components": { "schemas": components.into_schemas() },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_to_a_schema_with_a_description() {
        let registry = Registry::new();
        let mut undescribed = Vec::new();
        for (group, versions) in registry.groups() {
            for (version, _) in versions {
                let document = document(&registry, &group, &version).unwrap();
                let schemas = document["components"]["schemas"].as_object().unwrap();
                for reference in references(&document) {
                    let name = reference.strip_prefix("#/components/schemas/").unwrap();
                    assert!(schemas.contains_key(name), "{group}/{version}: {reference}");
                }
                for (name, schema) in schemas {
                    if schema["description"].is_null() {
                        undescribed.push(name.clone());
                    }
                }
            }
        }
        undescribed.sort();
        undescribed.dedup();
        // types that are younger than the descriptions
        assert!(undescribed.len() < 40, "{} types without a description: {undescribed:?}", undescribed.len());
    }

    fn references(value: &Value) -> Vec<String> {
        match value {
            Value::Object(map) => {
                let own = map.get("$ref").and_then(Value::as_str).map(str::to_owned);
                own.into_iter().chain(map.values().flat_map(references)).collect()
            }
            Value::Array(items) => items.iter().flat_map(references).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn the_hash_of_a_group_changes_when_its_kinds_do() {
        let registry = Registry::new();
        let before = index(&registry);
        let widget = json!({"spec": {"group": "apps", "scope": "Namespaced", "names": {"plural": "ws", "kind": "W"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
        registry.define(&widget);
        let after = index(&registry);
        assert_ne!(before["paths"]["apis/apps/v1"], after["paths"]["apis/apps/v1"]);
        assert_eq!(before["paths"]["apis/batch/v1"], after["paths"]["apis/batch/v1"]);
    }
}
