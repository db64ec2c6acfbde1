//! The types of the built-in kinds, read from the embedded tables.
//!
//! In: `manifest/schema.json` (from a real API server's OpenAPI and discovery documents) and `gotypes.json` (how the
//! server's own types encode empty values; `tests/tools/gotypes` makes it). Out: an arena of types and the kinds
//! with their root types.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use serde_json::Value;

use super::schema::{
    Arena, Empty, Field, KindInfo, ListKind, ListShape, MapShape, PatchRule, Primitive, Shape, TypeId,
};

/// Group, version and kind.
type Key = (Box<str>, Box<str>, Box<str>);

/// The built-in kinds.
pub(super) struct Table {
    pub arena: Arc<Arena>,
    pub kinds: BTreeMap<Key, (TypeId, Arc<KindInfo>)>,
}

static TABLE: OnceLock<Table> = OnceLock::new();

impl Table {
    /// The table, read when it is first asked for.
    pub fn get() -> &'static Self {
        TABLE.get_or_init(|| {
            let types = serde_json::from_str(include_str!("../../manifest/schema.json"))
                .expect("the embedded table of types is valid, a test reads it");
            let encodings = serde_json::from_str(include_str!("gotypes.json"))
                .expect("the embedded table of encodings is valid, a test reads it");
            Self::build(types, &encodings)
        })
    }

    fn build(document: TableDocument, encodings: &BTreeMap<String, BTreeMap<String, String>>) -> Self {
        let mut builder = Builder { arena: Arena::default(), ids: HashMap::new() };
        for name in document.types.keys() {
            let id = builder.arena.add(name, Shape::Untyped);
            builder.ids.insert(name.clone(), id);
        }
        for (name, ty) in &document.types {
            let codes = encodings.get(name);
            let fields = ty
                .fields
                .iter()
                .map(|(field, document)| {
                    let code = codes.and_then(|codes| codes.get(field)).map_or("", String::as_str);
                    let required = ty.required.iter().any(|required| required == field);
                    (field.as_str().into(), builder.field(document, required, code))
                })
                .collect();
            let shape = Shape::Map(MapShape { fields, element: None, atomic: ty.atomic });
            let id = builder.ids[name];
            builder.arena.types[id as usize].shape = shape;
        }
        let kinds = document
            .kinds
            .into_iter()
            .filter_map(|kind| {
                let root = *builder.ids.get(&kind.ty)?;
                let key = (kind.info.group.clone(), kind.info.version.clone(), kind.info.kind.clone());
                Some((key, (root, Arc::new(kind.info))))
            })
            .collect();
        Self { arena: Arc::new(builder.arena), kinds }
    }
}

struct Builder {
    arena: Arena,
    ids: HashMap<String, TypeId>,
}

impl Builder {
    fn field(&mut self, document: &FieldDocument, required: bool, code: &str) -> Field {
        let ty = self.type_of(document, code.ends_with('i'));
        Field {
            ty,
            required,
            empty: match code.trim_end_matches('i') {
                "p" => Empty::Optional,
                "n" => Empty::Null,
                "s" => Empty::Struct,
                "z" | "o" => Empty::Zero,
                "r" => Empty::Written,
                "q" => Empty::Opaque,
                _ => Empty::Omitted,
            },
            default: document.default.clone(),
            enumeration: document.enumeration.clone(),
            patch: document.strategy.as_ref().map(|strategy| PatchRule {
                merge: strategy.split(',').any(|word| word == "merge"),
                key: document.merge.as_deref().unwrap_or_default().into(),
                retain_keys: strategy.split(',').any(|word| word == "retainKeys"),
            }),
        }
    }

    fn type_of(&mut self, document: &FieldDocument, narrow: bool) -> TypeId {
        if let Some(id) = document.reference.as_ref().and_then(|name| self.ids.get(name).copied()) {
            return match (document.atomic, self.arena.types[id as usize].shape.clone()) {
                (true, Shape::Map(map)) if !map.atomic => {
                    let name = self.arena.types[id as usize].name.clone();
                    self.arena.add(&name, Shape::Map(MapShape { atomic: true, ..map }))
                }
                _ => id,
            };
        }
        let item = document.item.as_ref().map(|item| self.type_of(item, false));
        let shape = match (document.t.as_deref().unwrap_or("any"), item) {
            ("string", _) => Shape::Scalar(Primitive::String),
            ("bytes", _) => Shape::Scalar(Primitive::Bytes),
            ("time", _) => Shape::Scalar(Primitive::Time),
            ("microtime", _) => Shape::Scalar(Primitive::MicroTime),
            ("integer", _) if narrow => Shape::Scalar(Primitive::Int32),
            ("integer", _) => Shape::Scalar(Primitive::Int64),
            ("number", _) => Shape::Scalar(Primitive::Number),
            ("boolean", _) => Shape::Scalar(Primitive::Boolean),
            ("intorstring", _) => Shape::Scalar(Primitive::IntOrString),
            ("quantity", _) => Shape::Scalar(Primitive::Quantity),
            ("map", Some(element)) => {
                Shape::Map(MapShape { fields: BTreeMap::new(), element: Some(element), atomic: document.atomic })
            }
            ("list", Some(item)) => Shape::List(ListShape {
                item,
                kind: match document.list.as_deref() {
                    Some("map") => ListKind::Map(document.keys.iter().map(|key| key.as_str().into()).collect()),
                    Some("set") => ListKind::Set,
                    _ => ListKind::Atomic,
                },
            }),
            _ => Shape::Untyped,
        };
        self.arena.add("", shape)
    }
}

#[derive(Deserialize)]
struct TableDocument {
    types: BTreeMap<String, TypeDocument>,
    kinds: Vec<KindDocument>,
}

#[derive(Deserialize)]
struct TypeDocument {
    fields: BTreeMap<String, FieldDocument>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    atomic: bool,
}

#[derive(Deserialize)]
struct FieldDocument {
    t: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    item: Option<Box<FieldDocument>>,
    list: Option<String>,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    atomic: bool,
    merge: Option<String>,
    strategy: Option<String>,
    default: Option<Value>,
    #[serde(default, rename = "enum")]
    enumeration: Vec<Value>,
}

#[derive(Deserialize)]
struct KindDocument {
    #[serde(flatten)]
    info: KindInfo,
    #[serde(rename = "type")]
    ty: String,
}
