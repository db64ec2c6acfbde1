//! `crds`: OpenAPI definitions of custom resources say which of their fields hold labels, annotations and names.
//!
//! In: a file that maps type names to `Schema`s, as kustomize expects it. Out: what `configurations` could say as well.

use serde_json::{Map, Value};

use super::field_spec::{FieldSpec, NameReference, Tables, merge};
use super::merge_keys::schema_file;

/// Types that lead to one another; kustomize itself never ends at a type that holds itself.
const DEPTH_MAX: usize = 32;

/// The last part of a type's name is its kind; neither group nor version is known.
pub fn tables(text: &str) -> Result<Tables, String> {
    let Value::Object(types) = schema_file("the definitions", text)? else {
        return Err("it is no mapping of type names to schemas".into());
    };
    if let Some((name, _)) = types.iter().find(|(_, definition)| !definition.is_object()) {
        return Err(format!("`{name}` is no mapping with a `Schema`"));
    }
    let mut tables = Tables::default();
    for name in types.keys() {
        let Some(properties) = properties(&types, name) else { continue };
        if ["kind", "apiVersion", "metadata"].iter().all(|field| properties.contains_key(*field)) {
            let kind = name.rsplit('.').next().unwrap_or(name);
            read(&mut tables, kind, &types, name, &[])?;
        }
    }
    Ok(tables)
}

fn properties<'a>(types: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
    let definition = types.get(name)?;
    definition.get("Schema").or_else(|| definition.get("schema"))?.get("properties")?.as_object()
}

fn read(tables: &mut Tables, kind: &str, types: &Map<String, Value>, name: &str, path: &[&str]) -> Result<(), String> {
    if path.len() > DEPTH_MAX {
        return Err(format!("`{name}` leads to itself, or deeper than {DEPTH_MAX} types"));
    }
    for (field, property) in properties(types, name).into_iter().flatten() {
        let path: Vec<&str> = path.iter().copied().chain([field.as_str()]).collect();
        let spec = |path: String| FieldSpec {
            kind: kind.to_owned(),
            path,
            group: String::new(),
            version: String::new(),
            create: false,
        };
        let said = |key: &str| property.get(key).and_then(Value::as_str);
        let here = || [spec(path.join("/"))];
        if said("x-kubernetes-annotation").is_some() {
            merge(&mut tables.common_annotations, &here())?;
        }
        if said("x-kubernetes-label-selector").is_some() {
            merge(&mut tables.common_labels, &here())?;
        }
        if said("x-kubernetes-identity").is_some() {
            merge(&mut tables.name_prefix, &here())?;
        }
        let referred = (said("x-kubernetes-object-ref-api-version"), said("x-kubernetes-object-ref-kind"));
        if let (Some(version), Some(referred)) = referred {
            let key = said("x-kubernetes-object-ref-name-key").unwrap_or("name");
            let reference = NameReference {
                group: String::new(),
                version: version.to_owned(),
                kind: referred.to_owned(),
                field_specs: vec![spec(format!("{}/{key}", path.join("/")))],
            };
            tables.merge(&Tables { name_reference: vec![reference], ..Tables::default() })?;
        }
        if let Some(other) = said("$ref") {
            read(tables, kind, types, other, &path)?;
        }
    }
    Ok(())
}
