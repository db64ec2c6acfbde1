//! How strategic merge treats the lists of the built-in kinds, from the table of their types.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::resource::Gvk;

/// What is known of a value: a type, a list of a type, or nothing.
#[derive(Clone, Copy)]
pub enum Shape {
    Unknown,
    Struct(&'static Type),
    List(&'static Field),
}

#[derive(Deserialize)]
pub struct Type {
    #[serde(default)]
    fields: HashMap<String, Field>,
}

#[derive(Deserialize)]
pub struct Field {
    #[serde(rename = "ref")]
    reference: Option<String>,
    item: Option<Box<Field>>,
    #[serde(default)]
    keys: Vec<String>,
    merge: Option<String>,
    strategy: Option<String>,
}

#[derive(Deserialize)]
struct Kind {
    group: String,
    version: String,
    kind: String,
    #[serde(rename = "type")]
    type_name: String,
}

#[derive(Deserialize)]
struct Table {
    types: HashMap<String, Type>,
    kinds: Vec<Kind>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../manifest/schema.json")).expect("the embedded table is well formed")
});

impl Shape {
    pub fn of_kind(gvk: &Gvk) -> Self {
        let table = &*TABLE;
        let kind = table.kinds.iter().find(|k| k.kind == gvk.kind && k.group == gvk.group && k.version == gvk.version);
        kind.and_then(|kind| table.types.get(&kind.type_name)).map_or(Self::Unknown, Self::Struct)
    }

    pub fn field(self, name: &str) -> Self {
        match self {
            Self::Struct(known) => known.fields.get(name).map_or(Self::Unknown, Self::of_field),
            _ => Self::Unknown,
        }
    }

    pub fn item(self) -> Self {
        match self {
            Self::List(field) => field.item.as_deref().map_or(Self::Unknown, Self::of_field),
            _ => Self::Unknown,
        }
    }

    fn of_field(field: &'static Field) -> Self {
        if field.item.is_some() {
            return Self::List(field);
        }
        field.reference.as_ref().and_then(|name| TABLE.types.get(name)).map_or(Self::Unknown, Self::Struct)
    }

    /// The keys by which items are one; empty for a list of scalars. `None`: the list is replaced as a whole.
    pub fn merge_keys(self) -> Option<Vec<&'static str>> {
        let Self::List(field) = self else { return None };
        if !field.strategy.as_deref()?.split(',').any(|strategy| strategy == "merge") {
            return None;
        }
        if !field.keys.is_empty() {
            return Some(field.keys.iter().map(String::as_str).collect());
        }
        Some(field.merge.as_deref().into_iter().collect())
    }
}
