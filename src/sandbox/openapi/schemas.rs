//! The components of an OpenAPI document: one schema for each type that a group's kinds are made of.
//!
//! In: resources with their types. Out: schemas by name, in the API server's names, with references between them.

use serde_json::{Map, Value, json};

use super::descriptions;
use crate::sandbox::resource::Resource;
use crate::sandbox::typed::{Empty, Field, ListKind, Primitive, Shape, Type};

/// Scalars that the API describes as types of their own.
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";

/// The API's name of a type in the table: `io.k8s.api.apps.v1.Deployment` for `apps.v1.Deployment`.
fn long_name(name: &str) -> String {
    let package = match name.split('.').next().unwrap_or_default() {
        "meta" => "io.k8s.apimachinery.pkg.apis",
        "apiextensions" => "io.k8s.apiextensions-apiserver.pkg.apis",
        "apiregistration" => "io.k8s.kube-aggregator.pkg.apis",
        _ => "io.k8s.api",
    };
    format!("{package}.{name}")
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Gathers the types that are referred to.
pub struct Components {
    schemas: Map<String, Value>,
}

impl Components {
    pub fn new() -> Self {
        Self { schemas: Map::new() }
    }

    pub fn into_schemas(self) -> Map<String, Value> {
        self.schemas
    }

    /// Adds the type of a resource with all that it refers to, and answers its name.
    pub fn add(&mut self, resource: &Resource) -> String {
        let kind = json!([{ "group": resource.group, "version": resource.version, "kind": resource.kind }]);
        let name = match resource.schema.document() {
            Some(document) => self.custom(resource, document),
            None => self.named(resource.schema.root()),
        };
        self.schemas[&name]["x-kubernetes-group-version-kind"] = kind;
        name
    }

    /// A definition's schema is its own description; the server adds what every object has.
    fn custom(&mut self, resource: &Resource, document: &Value) -> String {
        let group: Vec<&str> = resource.group.split('.').rev().collect();
        let name = format!("{}.{}.{}", group.join("."), resource.version, resource.kind);
        let mut schema = document.clone();
        schema["type"] = "object".into();
        if let Some((_, metadata)) = resource.schema.root().field("metadata") {
            let metadata = self.named(metadata);
            let description = descriptions::field("io.k8s.api.core.v1.ConfigMap", "metadata");
            schema["properties"]["metadata"] = json!({ "description": description, "allOf": [reference(&metadata)] });
        }
        for field in ["apiVersion", "kind"] {
            let description = descriptions::field("io.k8s.api.core.v1.ConfigMap", field);
            schema["properties"][field] = json!({ "description": description, "type": "string" });
        }
        self.schemas.insert(name.clone(), schema);
        name
    }

    /// Adds a struct, and answers its name.
    fn named(&mut self, ty: Type<'_>) -> String {
        let name = long_name(ty.name());
        if self.schemas.contains_key(&name) {
            return name;
        }
        // types may be recursive
        self.schemas.insert(name.clone(), Value::Null);
        let mut properties = Map::new();
        let mut required = Vec::new();
        for (field_name, field, ty) in ty.fields() {
            if field.required {
                required.push(field_name);
            }
            let mut property = self.property(field, ty);
            if let Some(description) = descriptions::field(&name, field_name) {
                property["description"] = description.into();
            }
            properties.insert(field_name.into(), property);
        }
        let mut schema = json!({ "type": "object" });
        if let Some(description) = descriptions::of(&name) {
            schema["description"] = description.into();
        }
        if !properties.is_empty() {
            schema["properties"] = properties.into();
        }
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        if ty.base().atomic_map() {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        self.schemas.insert(name.clone(), schema);
        name
    }

    fn property(&mut self, field: &Field, ty: Type<'_>) -> Value {
        let mut property = self.value(ty);
        let default = field.default.clone().or_else(|| match field.empty {
            Empty::Struct => Some(json!({})),
            Empty::Zero if is_struct(ty) => Some(json!({})),
            Empty::Written => Some(ty.zero_scalar()),
            _ => None,
        });
        if let Some(default) = default {
            set_default(&mut property, default);
        } else if property.get("$ref").is_some() {
            // siblings of a reference are ignored
            property = json!({ "allOf": [property] });
        }
        if !field.enumeration.is_empty() {
            property["enum"] = field.enumeration.clone().into();
        }
        if let Some(patch) = &field.patch {
            let words = [(patch.merge, "merge"), (patch.retain_keys, "retainKeys")];
            let words: Vec<&str> = words.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect();
            property["x-kubernetes-patch-strategy"] = words.join(",").into();
            if !patch.key.is_empty() {
                property["x-kubernetes-patch-merge-key"] = patch.key.as_ref().into();
            }
        }
        property
    }

    /// A type without what the field says that has it.
    fn value(&mut self, ty: Type<'_>) -> Value {
        match ty.shape() {
            Shape::Untyped => json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }),
            Shape::Scalar(primitive) => self.scalar(*primitive),
            Shape::List(_) => {
                let mut list = json!({ "type": "array", "items": self.element(ty.item()) });
                match ty.list_kind() {
                    ListKind::Atomic => list["x-kubernetes-list-type"] = "atomic".into(),
                    ListKind::Set => list["x-kubernetes-list-type"] = "set".into(),
                    ListKind::Map(keys) => {
                        list["x-kubernetes-list-type"] = "map".into();
                        list["x-kubernetes-list-map-keys"] = keys.iter().map(|key| Value::from(key.as_ref())).collect();
                    }
                }
                list
            }
            Shape::Map(_) if is_struct(ty) => {
                let mut value = reference(&self.named(ty));
                if ty.atomic_map() && !ty.base().atomic_map() {
                    value = json!({ "allOf": [value], "x-kubernetes-map-type": "atomic" });
                }
                value
            }
            Shape::Map(_) => {
                let mut map = json!({ "type": "object" });
                if let Some(element) = ty.entry("") {
                    map["additionalProperties"] = self.element(element);
                }
                if ty.atomic_map() {
                    map["x-kubernetes-map-type"] = "atomic".into();
                }
                map
            }
        }
    }

    /// An entry of a list or map; the API states the zero value of those that are never null.
    fn element(&mut self, ty: Type<'_>) -> Value {
        let mut value = self.value(ty);
        match ty.shape() {
            Shape::Map(_) if is_struct(ty) => set_default(&mut value, json!({})),
            Shape::Scalar(
                Primitive::String | Primitive::Int32 | Primitive::Int64 | Primitive::Number | Primitive::Boolean,
            ) => set_default(&mut value, ty.zero_scalar()),
            _ => {}
        }
        value
    }

    fn scalar(&mut self, primitive: Primitive) -> Value {
        let (name, schema) = match primitive {
            Primitive::String => return json!({ "type": "string" }),
            Primitive::Bytes => return json!({ "type": "string", "format": "byte" }),
            Primitive::Int32 => return json!({ "type": "integer", "format": "int32" }),
            Primitive::Int64 => return json!({ "type": "integer", "format": "int64" }),
            Primitive::Number => return json!({ "type": "number", "format": "double" }),
            Primitive::Boolean => return json!({ "type": "boolean" }),
            Primitive::Any => return json!({}),
            Primitive::Time => (TIME, json!({ "type": "string", "format": "date-time" })),
            Primitive::MicroTime => (MICRO_TIME, json!({ "type": "string", "format": "date-time" })),
            Primitive::Quantity => (QUANTITY, json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] })),
            Primitive::IntOrString => (
                INT_OR_STRING,
                json!({ "oneOf": [{ "type": "integer" }, { "type": "string" }], "format": "int-or-string" }),
            ),
        };
        self.schemas.entry(name).or_insert_with(|| {
            let mut schema = schema;
            if let Some(description) = descriptions::of(name) {
                schema["description"] = description.into();
            }
            schema
        });
        reference(name)
    }
}

fn is_struct(ty: Type<'_>) -> bool {
    ty.fields().next().is_some() || !ty.name().is_empty()
}

/// A default beside a reference needs the reference to be wrapped.
fn set_default(schema: &mut Value, default: Value) {
    if schema.get("$ref").is_some() {
        *schema = json!({ "allOf": [schema.take()] });
    }
    schema["default"] = default;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::builtin;

    #[test]
    fn a_deployment_is_described_with_all_its_parts() {
        let mut components = Components::new();
        let name = components.add(&builtin::resource("apps", "deployments"));
        assert_eq!(name, "io.k8s.api.apps.v1.Deployment");
        let schemas = Value::Object(components.into_schemas());
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["items"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
        assert!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]["properties"]["labels"].is_object());
        let replicas = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["replicas"];
        assert_eq!((&replicas["type"], &replicas["format"]), (&json!("integer"), &json!("int32")));
        assert!(replicas["description"].as_str().is_some_and(|text| text.contains("desired pods")));
    }
}
