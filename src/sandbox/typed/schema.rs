//! What the fields of an object are: the types of the built-in kinds and of custom resources, in one form.
//!
//! In: the embedded tables (see [`super::table`]) or a CustomResourceDefinition (see [`super::crd`]). Out: [`Schema`],
//! a cheap handle on the type of one kind, and [`Type`], a cheap handle on the type of one of its parts. Never looks
//! at objects.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::table::Table;

pub(super) type TypeId = u32;

/// The types of one source, by number: recursive types refer to themselves.
#[derive(Debug, Default)]
pub(super) struct Arena {
    pub types: Vec<TypeDef>,
}

/// One type: its name in the API server's own words (empty for nameless ones) and its shape.
#[derive(Clone, Debug)]
pub(super) struct TypeDef {
    pub name: Box<str>,
    pub shape: Shape,
}

#[derive(Clone, Debug)]
pub enum Shape {
    Scalar(Primitive),
    Map(MapShape),
    List(ListShape),
    /// Nothing is known: maps merge by entry, lists are replaced whole.
    Untyped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primitive {
    String,
    /// Base64 in JSON.
    Bytes,
    Time,
    /// With six digits of a second's fraction, no more and no less.
    MicroTime,
    Int32,
    Int64,
    Number,
    Boolean,
    IntOrString,
    Quantity,
    /// Any scalar.
    Any,
}

/// A struct (named fields), a map (one type for every entry), or both.
#[derive(Clone, Debug, Default)]
pub struct MapShape {
    pub(super) fields: BTreeMap<Box<str>, Field>,
    pub(super) element: Option<TypeId>,
    /// Owned and replaced as a whole.
    pub atomic: bool,
}

#[derive(Clone, Debug)]
pub struct ListShape {
    pub(super) item: TypeId,
    pub kind: ListKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    Atomic,
    Set,
    /// Items are identified by the values of these fields.
    Map(Box<[Box<str>]>),
}

/// A named field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    pub(super) ty: TypeId,
    pub required: bool,
    pub empty: Empty,
    pub default: Option<Value>,
    pub enumeration: Vec<Value>,
    pub patch: Option<PatchRule>,
}

impl Field {
    /// What the server's own type writes for this field, which is of type `ty`, where it isn't set; `None`: nothing.
    pub fn unset(&self, ty: Type<'_>) -> Option<Value> {
        match self.empty {
            Empty::Struct => Some(ty.zero()),
            Empty::Null => Some(Value::Null),
            Empty::Written => Some(ty.zero_scalar()),
            Empty::Omitted | Empty::Optional | Empty::Zero | Empty::Opaque => None,
        }
    }
}

/// What a server's own type writes for a field without a value. Custom resources are written as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Empty {
    /// Nothing; an empty list or map is no value.
    #[default]
    Omitted,
    /// Nothing; an empty value is a value (`p` in `gotypes.json`).
    Optional,
    /// `null` (`n`).
    Null,
    /// The struct with nothing set (`s`).
    Struct,
    /// Nothing, also for a scalar's zero value (`z`, or `o` for structs).
    Zero,
    /// A scalar's zero value (`r`).
    Written,
    /// A value with an encoding of its own, left alone (`q`).
    Opaque,
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchRule {
    /// Lists are merged item by item: by this key, or as a set of scalars where it is empty.
    pub merge: bool,
    pub key: Box<str>,
    /// `$retainKeys` applies.
    pub retain_keys: bool,
}

/// One kind as the server registers it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KindInfo {
    pub group: Box<str>,
    pub version: Box<str>,
    pub kind: Box<str>,
    pub plural: Box<str>,
    pub singular: Box<str>,
    #[serde(default, rename = "short")]
    pub short_names: Vec<Box<str>>,
    #[serde(default)]
    pub categories: Vec<Box<str>>,
    pub namespaced: bool,
    #[serde(default)]
    pub subresources: Vec<Box<str>>,
    #[serde(default)]
    pub verbs: Vec<Box<str>>,
}

impl KindInfo {
    /// `group/version`, or `version` alone in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    pub fn has_status(&self) -> bool {
        self.subresources.iter().any(|name| name.as_ref() == "status")
    }
}

/// The schema of one kind in one version.
#[derive(Clone, Debug)]
pub struct Schema {
    pub(super) arena: Arc<Arena>,
    pub(super) root: TypeId,
    pub(super) info: Arc<KindInfo>,
    /// The `openAPIV3Schema` of a custom resource.
    pub(super) custom: Option<Arc<Value>>,
}

/// The type of a part of an object.
#[derive(Clone, Copy, Debug)]
pub struct Type<'a> {
    arena: &'a Arena,
    id: TypeId,
}

impl Schema {
    /// The schema of a built-in kind; `None` if the server has no such kind.
    pub fn builtin(group: &str, version: &str, kind: &str) -> Option<Self> {
        let table = Table::get();
        let (root, info) = table.kinds.get(&(group.into(), version.into(), kind.into()))?;
        Some(Self { arena: table.arena.clone(), root: *root, info: info.clone(), custom: None })
    }

    /// All built-in kinds.
    pub fn builtin_kinds() -> impl Iterator<Item = &'static KindInfo> {
        Table::get().kinds.values().map(|(_, info)| info.as_ref())
    }

    pub fn info(&self) -> &KindInfo {
        &self.info
    }

    pub fn api_version(&self) -> String {
        self.info.api_version()
    }

    /// The `openAPIV3Schema` of a custom resource.
    pub fn document(&self) -> Option<&Value> {
        self.custom.as_deref()
    }

    pub fn is_custom(&self) -> bool {
        self.custom.is_some()
    }

    /// `apps/v1, Kind=Deployment`; `/v1, Kind=ConfigMap` in the core group.
    pub fn display_kind(&self) -> String {
        let KindInfo { group, version, kind, .. } = self.info();
        format!("{group}/{version}, Kind={kind}")
    }

    pub fn root(&self) -> Type<'_> {
        Type { arena: &self.arena, id: self.root }
    }
}

impl Type<'static> {
    /// The type of a built-in kind.
    pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<Self> {
        let table = Table::get();
        let (root, _) = table.kinds.get(&(group.into(), version.into(), kind.into()))?;
        Some(Self { arena: &table.arena, id: *root })
    }

    /// A type of the table.
    pub fn named(name: &str) -> Option<Self> {
        let arena = &Table::get().arena;
        let id = arena.types.iter().position(|def| *def.name == *name)?;
        Some(Self { arena, id: TypeId::try_from(id).ok()? })
    }
}

impl<'a> Type<'a> {
    pub fn name(self) -> &'a str {
        &self.def().name
    }

    pub fn shape(self) -> &'a Shape {
        &self.def().shape
    }

    fn def(self) -> &'a TypeDef {
        &self.arena.types[self.id as usize]
    }

    /// The type of this name without what one of its users says of it.
    pub fn base(self) -> Self {
        let named = self.arena.types.iter().position(|def| def.name == self.def().name);
        named.and_then(|id| TypeId::try_from(id).ok()).map_or(self, |id| self.at(id))
    }

    fn at(self, id: TypeId) -> Self {
        Self { arena: self.arena, id }
    }

    /// The named field and its type.
    pub fn field(self, name: &str) -> Option<(&'a Field, Self)> {
        let Shape::Map(map) = self.shape() else { return None };
        let field = map.fields.get(name)?;
        Some((field, self.at(field.ty)))
    }

    /// The named fields with their types, sorted by name.
    pub fn fields(self) -> impl Iterator<Item = (&'a str, &'a Field, Self)> {
        let fields = match self.shape() {
            Shape::Map(map) => Some(&map.fields),
            _ => None,
        };
        fields.into_iter().flatten().map(move |(name, field)| (name.as_ref(), field, self.at(field.ty)))
    }

    /// The type of the entry `name` of a struct or map; `None` if it may have no such entry.
    pub fn entry(self, name: &str) -> Option<Self> {
        match self.shape() {
            Shape::Map(map) => map.fields.get(name).map(|field| field.ty).or(map.element).map(|id| self.at(id)),
            Shape::Untyped => Some(self),
            _ => None,
        }
    }

    /// The type of a list's items; its own for an untyped list.
    pub fn item(self) -> Self {
        match self.shape() {
            Shape::List(list) => self.at(list.item),
            _ => self,
        }
    }

    /// Whether a list value of this type is owned and replaced as a whole.
    pub fn list_kind(self) -> &'a ListKind {
        match self.shape() {
            Shape::List(list) => &list.kind,
            _ => &ListKind::Atomic,
        }
    }

    /// Whether a map value of this type is owned and replaced as a whole.
    pub fn atomic_map(self) -> bool {
        matches!(self.shape(), Shape::Map(MapShape { atomic: true, .. }))
    }

    /// The struct with nothing set, as the server's own type encodes it.
    pub fn zero(self) -> Value {
        let mut map = serde_json::Map::new();
        for (name, field, ty) in self.fields() {
            if let Some(value) = field.unset(ty) {
                map.insert(name.into(), value);
            }
        }
        Value::Object(map)
    }

    /// What a scalar of this type is when nothing is set.
    pub fn zero_scalar(self) -> Value {
        match self.shape() {
            Shape::Scalar(Primitive::Int32 | Primitive::Int64 | Primitive::Number) => Value::from(0),
            Shape::Scalar(Primitive::Boolean) => Value::from(false),
            _ => Value::from(""),
        }
    }
}

impl Arena {
    /// Adds a type and answers its number.
    pub fn add(&mut self, name: &str, shape: Shape) -> TypeId {
        let id = TypeId::try_from(self.types.len()).unwrap_or(TypeId::MAX);
        self.types.push(TypeDef { name: name.into(), shape });
        id
    }

    /// Copies a type of another arena with all that it refers to.
    pub fn import(&mut self, ty: Type<'_>, seen: &mut HashMap<TypeId, TypeId>) -> TypeId {
        if let Some(id) = seen.get(&ty.id) {
            return *id;
        }
        let id = self.add(ty.name(), Shape::Untyped);
        seen.insert(ty.id, id);
        let shape = match ty.shape().clone() {
            Shape::Map(mut map) => {
                for field in map.fields.values_mut() {
                    field.ty = self.import(ty.at(field.ty), seen);
                }
                map.element = map.element.map(|element| self.import(ty.at(element), seen));
                Shape::Map(map)
            }
            Shape::List(list) => Shape::List(ListShape { item: self.import(ty.at(list.item), seen), kind: list.kind }),
            shape => shape,
        };
        self.types[id as usize].shape = shape;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_tables_describe_every_kind() {
        let kinds: Vec<_> = Schema::builtin_kinds().collect();
        assert!(kinds.len() > 50, "{}", kinds.len());
        for info in kinds {
            let schema = Schema::builtin(&info.group, &info.version, &info.kind).expect("listed");
            assert!(schema.root().field("kind").is_some(), "{}", schema.display_kind());
        }
        assert!(Schema::builtin("apps", "v1", "Nonsense").is_none());
    }

    #[test]
    fn an_empty_deployment_is_encoded_as_the_server_does() {
        let schema = Schema::builtin("apps", "v1", "Deployment").expect("built in");
        assert_eq!(schema.display_kind(), "apps/v1, Kind=Deployment");
        let zero = schema.root().zero();
        assert_eq!(
            zero,
            serde_json::json!({
                "metadata": {},
                "spec": {
                    "selector": null,
                    "strategy": {},
                    "template": {"metadata": {}, "spec": {"containers": null}}
                },
                "status": {}
            })
        );
    }
}
