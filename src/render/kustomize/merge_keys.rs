//! How strategic merge treats lists: from the table of the built-in kinds, or from a schema that `openapi` names.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde_json::Value;

use super::resource::{Gvk, Resource};
use crate::manifest::yaml;

/// What is known of a value: a type, a list of a type, or nothing.
#[derive(Clone, Copy)]
pub enum Shape<'a> {
    Unknown,
    Struct(&'a Table, &'a Type),
    List(&'a Table, &'a Field),
}

#[derive(Debug, Default, Deserialize)]
pub struct Type {
    #[serde(default)]
    fields: HashMap<String, Field>,
    /// Of the fields that have no name of their own.
    #[serde(default)]
    others: Option<Box<Field>>,
}

#[derive(Debug, Default, Deserialize)]
pub struct Field {
    #[serde(rename = "ref")]
    reference: Option<String>,
    item: Option<Box<Field>>,
    #[serde(default)]
    keys: Vec<String>,
    merge: Option<String>,
    strategy: Option<String>,
    /// Written in place, in a schema of somebody's own.
    #[serde(skip)]
    inline: Option<Box<Type>>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    group: String,
    version: String,
    kind: String,
    #[serde(rename = "type")]
    type_name: String,
}

#[derive(Debug, Default, Deserialize)]
pub struct Table {
    types: HashMap<String, Type>,
    kinds: Vec<Kind>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let table = include_str!("../../manifest/schema.json");
    let mut table: Table = serde_json::from_str(table).expect("the embedded table is well formed");
    for (known, field) in YOUNGER_FIELDS {
        table.types.get_mut(known).map(|known| known.fields.remove(field));
    }
    table.kinds.retain(|kind| !YOUNGER_KINDS.contains(&kind.kind.as_str()));
    table
});

/// Lists that merge by the types of today, but that kustomize, whose schema is that of Kubernetes 1.21, replaces.
const YOUNGER_FIELDS: [(&str, &str); 6] = [
    ("admissionregistration.v1.MutatingWebhook", "matchConditions"),
    ("admissionregistration.v1.ValidatingWebhook", "matchConditions"),
    ("apiextensions.v1.JSONSchemaProps", "x-kubernetes-validations"),
    ("core.v1.EphemeralContainer", "ports"),
    ("core.v1.PodSpec", "resourceClaims"),
    ("core.v1.PodSpec", "schedulingGates"),
];
/// Kinds that are not in it at all.
const YOUNGER_KINDS: [&str; 4] = [
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// Kustomize's name for the schema that it has built in.
const BUILTIN_VERSION: &str = "v1.21.2";

/// The schema of one build.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// That of `openapi`. It stands in for the built-in one.
    custom: Option<Arc<Table>>,
    /// The built-in one was in use before, and stays.
    keeps_builtin: bool,
    /// It was chosen: the first choice counts.
    is_chosen: bool,
    /// The built-in one was asked for something.
    is_used: bool,
}

impl Schema {
    /// `openapi` of a kustomization; the root's comes first. `text`: what `path` leads to.
    pub fn choose(&mut self, version: Option<&str>, text: Option<&str>) -> Result<(), String> {
        if self.is_chosen {
            return Ok(());
        }
        match (version, text) {
            (Some(_), Some(_)) => return Err("`version` and `path` exclude each other".into()),
            (None, None) => return Ok(()),
            (Some(BUILTIN_VERSION), None) => {}
            (Some(other), None) => return Err(format!("schema `{other}` is not built in, only `{BUILTIN_VERSION}`")),
            (None, Some(text)) => {
                self.custom = Some(Arc::new(Table::read(text)?));
                self.keeps_builtin = self.is_used;
            }
        }
        self.is_chosen = true;
        Ok(())
    }

    /// An object was met: kinds that are not built in make kustomize look into its schema.
    pub fn met(&mut self, resource: &Resource) {
        self.is_used = self.is_used || TABLE.kind(&resource.gvk()).is_none();
    }

    /// Objects are patched: kustomize looks into its schema for each.
    pub fn patching(&mut self) {
        self.is_used = true;
    }

    pub fn shape(&self, gvk: &Gvk) -> Shape<'_> {
        let custom = self.custom.as_deref();
        let builtin = (custom.is_none() || self.keeps_builtin).then_some(&*TABLE);
        [custom, builtin].into_iter().flatten().find_map(|table| table.kind(gvk)).unwrap_or(Shape::Unknown)
    }
}

/// A file of schemas, which is JSON mostly and may be YAML. `name`: what it is called in errors.
pub fn schema_file(name: &str, text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("{name}: it is not JSON: {error}"));
    }
    Ok(yaml::single(name, text.as_bytes()).map_err(|error| error.to_string())?.value)
}

impl Table {
    fn kind(&self, gvk: &Gvk) -> Option<Shape<'_>> {
        let kind =
            self.kinds.iter().find(|k| k.kind == gvk.kind && k.group == gvk.group && k.version == gvk.version)?;
        self.types.get(&kind.type_name).map(|known| Shape::Struct(self, known))
    }

    /// An OpenAPI document (version 2) in JSON or YAML: its `definitions`.
    fn read(text: &str) -> Result<Self, String> {
        let document = schema_file("the schema", text)?;
        let Some(Value::Object(definitions)) = document.get("definitions") else {
            return Err("the schema has no `definitions`".into());
        };
        let mut table = Self::default();
        for (name, schema) in definitions {
            for gvk in schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array).into_iter().flatten() {
                let text = |key: &str| gvk.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                let (group, version, kind) = (text("group"), text("version"), text("kind"));
                if version.is_empty() || kind.is_empty() {
                    return Err(format!("`x-kubernetes-group-version-kind` of `{name}` needs `version` and `kind`"));
                }
                table.kinds.push(Kind { group, version, kind, type_name: name.clone() });
            }
            table.types.insert(name.clone(), Type::read(schema));
        }
        Ok(table)
    }
}

impl Type {
    fn read(schema: &Value) -> Self {
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        Self {
            fields: properties.map(|(name, schema)| (name.clone(), Field::read(schema))).collect(),
            others: others.map(|schema| Box::new(Field::read(schema))),
        }
    }
}

impl Field {
    fn read(schema: &Value) -> Self {
        let text = |key: &str| schema.get(key).and_then(Value::as_str).map(str::to_owned);
        if let Some(reference) = text("$ref") {
            let name = reference.strip_prefix("#/definitions/").unwrap_or(&reference).to_owned();
            return Self { reference: Some(name), ..Self::default() };
        }
        let is_list = schema.get("type").is_some_and(|kind| kind == "array" || *kind == serde_json::json!(["array"]));
        let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
        Self {
            reference: None,
            // a list of anything is a list all the same
            item: is_list.then(|| Box::new(schema.get("items").map(Self::read).unwrap_or_default())),
            keys: keys.filter_map(|key| key.as_str().map(str::to_owned)).collect(),
            merge: text("x-kubernetes-patch-merge-key"),
            strategy: text("x-kubernetes-patch-strategy"),
            inline: Some(Box::new(Type::read(schema))),
        }
    }

    fn shape<'a>(&'a self, table: &'a Table) -> Shape<'a> {
        if self.item.is_some() {
            return Shape::List(table, self);
        }
        let named = self.reference.as_ref().and_then(|name| table.types.get(name));
        named.or(self.inline.as_deref()).map_or(Shape::Unknown, |known| Shape::Struct(table, known))
    }
}

impl<'a> Shape<'a> {
    pub fn field(self, name: &str) -> Self {
        match self {
            Self::Struct(table, known) => {
                let field = known.fields.get(name).or(known.others.as_deref());
                field.map_or(Self::Unknown, |field| field.shape(table))
            }
            _ => Self::Unknown,
        }
    }

    pub fn item(self) -> Self {
        match self {
            Self::List(table, field) => field.item.as_deref().map_or(Self::Unknown, |item| item.shape(table)),
            _ => Self::Unknown,
        }
    }

    /// The keys by which items are one; empty for a list of scalars. `None`: the list is replaced as a whole.
    pub fn merge_keys(self) -> Option<Vec<&'a str>> {
        let Self::List(_, field) = self else { return None };
        if !field.strategy.as_deref()?.split(',').any(|strategy| strategy == "merge") {
            return None;
        }
        if !field.keys.is_empty() {
            return Some(field.keys.iter().map(String::as_str).collect());
        }
        Some(field.merge.as_deref().into_iter().collect())
    }
}
