//! The types of a custom resource.
//!
//! In: a CustomResourceDefinition. Out: a [`Schema`] for one of its versions. Values, bounds and formats stay in the
//! definition's own schema, which [`super::structural`] reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::schema::{Arena, Empty, Field, KindInfo, ListKind, ListShape, MapShape, Primitive, Schema, Shape, TypeId};

/// Deeper schemas are cut off: below, everything is untyped.
const DEPTH_MAX: usize = 64;

impl Schema {
    /// The schema of a custom resource in one version; `None` if the definition has no such version.
    pub fn of_crd(crd: &Value, version: &str) -> Option<Self> {
        let versions = crd.pointer("/spec/versions")?.as_array()?;
        let served = versions.iter().find(|v| v.get("name").and_then(Value::as_str) == Some(version))?;
        let text = |path: &str| crd.pointer(path).and_then(Value::as_str).unwrap_or_default().into();
        let texts = |path: &str| -> Vec<Box<str>> {
            let names = crd.pointer(path).and_then(Value::as_array).into_iter().flatten();
            names.filter_map(Value::as_str).map(Into::into).collect()
        };
        let subresources = served.get("subresources").and_then(Value::as_object);
        let kind: Box<str> = text("/spec/names/kind");
        let info = KindInfo {
            group: text("/spec/group"),
            version: version.into(),
            plural: text("/spec/names/plural"),
            singular: match text("/spec/names/singular") {
                empty if empty.is_empty() => kind.to_lowercase().into(),
                singular => singular,
            },
            kind,
            short_names: texts("/spec/names/shortNames"),
            categories: texts("/spec/names/categories"),
            namespaced: crd.pointer("/spec/scope").and_then(Value::as_str) == Some("Namespaced"),
            subresources: subresources.into_iter().flatten().map(|(name, _)| name.as_str().into()).collect(),
            verbs: ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
                .map(Into::into)
                .into(),
        };
        let document = served.pointer("/schema/openAPIV3Schema").cloned().unwrap_or(Value::Null);
        let mut builder = Builder { arena: Arena::default(), any: 0, metadata: 0 };
        builder.any = builder.arena.add("", Shape::Untyped);
        builder.metadata = match object_meta() {
            Some(schema) => match schema.root().field("metadata") {
                Some((_, ty)) => builder.arena.import(ty, &mut HashMap::new()),
                None => builder.any,
            },
            None => builder.any,
        };
        let root = builder.object(&document, true, 0);
        Some(Self { arena: Arc::new(builder.arena), root, info: Arc::new(info), custom: Some(Arc::new(document)) })
    }
}

fn object_meta() -> Option<Schema> {
    Schema::builtin("", "v1", "ConfigMap")
}

struct Builder {
    arena: Arena,
    any: TypeId,
    metadata: TypeId,
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or_default()
}

impl Builder {
    fn ty(&mut self, schema: &Value, depth: usize) -> TypeId {
        if depth > DEPTH_MAX {
            return self.any;
        }
        let shape = match schema.get("type").and_then(Value::as_str).unwrap_or_default() {
            _ if flag(schema, "x-kubernetes-int-or-string") => Shape::Scalar(Primitive::IntOrString),
            "object" => return self.object(schema, flag(schema, "x-kubernetes-embedded-resource"), depth),
            "array" => {
                let item = schema.get("items").map_or(self.any, |items| self.ty(items, depth + 1));
                let keys = || schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
                let kind = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                    Some("map") => ListKind::Map(keys().filter_map(Value::as_str).map(Into::into).collect()),
                    Some("set") => ListKind::Set,
                    _ => ListKind::Atomic,
                };
                Shape::List(ListShape { item, kind })
            }
            "string" => Shape::Scalar(Primitive::String),
            "integer" => Shape::Scalar(Primitive::Int64),
            "number" => Shape::Scalar(Primitive::Number),
            "boolean" => Shape::Scalar(Primitive::Boolean),
            _ => return self.any,
        };
        self.arena.add("", shape)
    }

    /// A struct, a map or both; `resource` if it has an object's `apiVersion`, `kind` and `metadata`.
    fn object(&mut self, schema: &Value, resource: bool, depth: usize) -> TypeId {
        let properties = schema.get("properties").and_then(Value::as_object);
        let preserved = flag(schema, "x-kubernetes-preserve-unknown-fields");
        let element = match schema.get("additionalProperties") {
            Some(Value::Object(_)) => schema.get("additionalProperties").map(|element| self.ty(element, depth + 1)),
            Some(Value::Bool(true)) => Some(self.any),
            _ if preserved => Some(self.any),
            _ => None,
        };
        if properties.is_none() && preserved && !resource {
            return self.any;
        }
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut fields = BTreeMap::new();
        for (name, property) in properties.into_iter().flatten() {
            let ty = if resource && name == "metadata" { self.metadata } else { self.ty(property, depth + 1) };
            fields.insert(
                name.as_str().into(),
                Field {
                    ty,
                    required: required.contains(&name.as_str()),
                    empty: Empty::Opaque,
                    default: property.get("default").cloned(),
                    enumeration: Vec::new(),
                    patch: None,
                },
            );
        }
        if resource {
            let text = self.arena.add("", Shape::Scalar(Primitive::String));
            for (name, ty) in [("apiVersion", text), ("kind", text), ("metadata", self.metadata)] {
                fields.entry(name.into()).or_insert(Field {
                    ty,
                    required: false,
                    empty: Empty::Opaque,
                    default: None,
                    enumeration: Vec::new(),
                    patch: None,
                });
            }
        }
        let atomic = schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic");
        self.arena.add("", Shape::Map(MapShape { fields, element, atomic }))
    }
}
