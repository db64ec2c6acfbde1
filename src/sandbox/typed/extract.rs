//! Which fields an object has, and an object without some of its fields.
//!
//! In: a value with its type. Out: the [`FieldSet`] of its leaves, or the value less a set. What counts as a leaf
//! follows server-side apply: scalars, atomic lists and maps, nulls, empty maps; and every list item and map entry
//! is a member besides what lies below it. Never validates: unknown parts are passed over.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::{FieldSet, Scalar, Step};
use super::schema::{ListKind, Shape, Type};

/// How a value of a type is walked. An untyped value is walked as what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Scalar,
    Map,
    List,
}

pub(super) fn form(ty: Type<'_>, value: &Value) -> Form {
    match (ty.shape(), value) {
        (Shape::Scalar(_), _) => Form::Scalar,
        (Shape::Map(_), _) | (Shape::Untyped, Value::Object(_) | Value::Null) => Form::Map,
        (Shape::List(_), _) | (Shape::Untyped, Value::Array(_)) => Form::List,
        (Shape::Untyped, _) => Form::Scalar,
    }
}

/// How an item of a list is named in paths; `Err` says why it can't be.
pub(super) fn item_step(list: Type<'_>, item: &Value) -> Result<Step, String> {
    let keys = match list.list_kind() {
        ListKind::Map(keys) => keys,
        ListKind::Atomic => return Err("invalid indexing of non-associative list".into()),
        ListKind::Set => {
            return match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
                scalar => Ok(Step::Item(Scalar(scalar.clone()))),
            };
        }
    };
    let Value::Object(map) = item else {
        let what = if item.is_null() { "a null element" } else { "non-map elements" };
        return Err(format!("associative list with keys may not have {what}"));
    };
    let mut values: Vec<(Box<str>, Scalar)> = keys
        .iter()
        .filter_map(|key| {
            let default = || list.item().field(key).and_then(|(field, _)| field.default.clone());
            map.get(key.as_ref()).cloned().or_else(default).map(|value| (key.clone(), Scalar(value)))
        })
        .collect();
    if values.is_empty() {
        let names: Vec<_> = keys.iter().map(|key| format!("{key:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    values.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Step::Key(values.into()))
}

/// The fields that `value` sets.
pub fn field_set(ty: Type<'_>, value: &Value) -> FieldSet {
    fields_below(ty, value).0
}

/// The set below a value, and whether the value itself is a leaf.
fn fields_below(ty: Type<'_>, value: &Value) -> (FieldSet, bool) {
    let mut set = FieldSet::default();
    match form(ty, value) {
        Form::Scalar => return (set, true),
        Form::Map if ty.atomic_map() => return (set, true),
        Form::List if *ty.list_kind() == ListKind::Atomic => return (set, true),
        Form::Map => {
            for (name, entry) in value.as_object().into_iter().flatten() {
                let Some(entry_type) = ty.entry(name) else { continue };
                let (below, leaf) = fields_below(entry_type, entry);
                let empty = entry.is_null() || entry.as_object().is_some_and(Map::is_empty);
                let step = Step::field(name);
                if leaf || empty || ty.field(name).is_none() {
                    set.insert_member(step.clone());
                }
                set.insert_child(step, below);
            }
        }
        Form::List => {
            let items: Vec<(Step, &Value)> = value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|item| item_step(ty, item).ok().map(|step| (step, item)))
                .collect();
            let mut counts: BTreeMap<&Step, usize> = BTreeMap::new();
            for (step, _) in &items {
                *counts.entry(step).or_default() += 1;
            }
            for (step, item) in &items {
                set.insert_member(step.clone());
                // An item that occurs twice is owned as a whole.
                if counts[step] == 1 {
                    set.insert_child(step.clone(), fields_below(ty.item(), item).0);
                }
            }
        }
    }
    (set, false)
}

/// `set` with the named fields on the way to its members as members, so that removing the set removes a struct
/// that was given by its parts only.
pub(super) fn with_named_parents(ty: Option<Type<'_>>, set: &FieldSet) -> FieldSet {
    let mut out = FieldSet::default();
    for step in set.members() {
        out.insert_member(step.clone());
    }
    for (step, below) in set.children() {
        let below_type = match step {
            Step::Field(name) => {
                if ty.is_some_and(|ty| ty.field(name).is_some()) {
                    out.insert_member(step.clone());
                }
                ty.and_then(|ty| ty.entry(name))
            }
            Step::Key(_) => ty.filter(|ty| matches!(ty.shape(), Shape::List(_))).map(Type::item),
            _ => None,
        };
        out.insert_child(step.clone(), with_named_parents(below_type, below));
    }
    out
}

/// `value` without the fields in `set`; a map or list that becomes empty becomes null.
pub fn without(ty: Type<'_>, value: &Value, set: &FieldSet) -> Value {
    match form(ty, value) {
        Form::Scalar => value.clone(),
        Form::Map => {
            let Some(map) = value.as_object().filter(|_| !ty.atomic_map()) else { return Value::Null };
            let kept: Map<String, Value> = map
                .iter()
                .filter_map(|(name, entry)| {
                    let step = Step::field(name);
                    if set.has_member(&step) {
                        return None;
                    }
                    let entry = match (set.below(&step), ty.entry(name)) {
                        (Some(below), Some(ty)) => without(ty, entry, below),
                        _ => entry.clone(),
                    };
                    Some((name.clone(), entry))
                })
                .collect();
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        Form::List => {
            let Some(items) = value.as_array().filter(|_| *ty.list_kind() != ListKind::Atomic) else {
                return Value::Null;
            };
            let kept: Vec<Value> = items
                .iter()
                .filter_map(|item| {
                    let Ok(step) = item_step(ty, item) else { return Some(item.clone()) };
                    if set.has_member(&step) {
                        return None;
                    }
                    Some(set.below(&step).map_or_else(|| item.clone(), |below| without(ty.item(), item, below)))
                })
                .collect();
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
    }
}
