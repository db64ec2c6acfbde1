//! Strategic merge patches.
//!
//! In: an object of a built-in kind and a patch with directives. Out: the patched object. The rules are those of
//! "Strategic merge patch" in the Kubernetes API conventions: `$patch`, `$retainKeys`, `$setElementOrder/…`,
//! `$deleteFromPrimitiveList/…`. Custom resources don't have it.

use serde_json::{Map, Value};

use super::check::go_value;
use super::schema::{PatchRule, Schema, Type};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Why a patch can't be carried out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrategicError {
    #[error("unknown patch type: {directive} in map: {map}")]
    Directive { directive: String, map: String },
    #[error("map: {item} does not contain declared merge key: {key}")]
    MergeKey { item: String, key: String },
    #[error("list of `{0}` can't be merged: its items have no merge key")]
    NoMergeKey(String),
    #[error("invalid patch format of `{0}`: expected a list")]
    NotAList(String),
    #[error("the patch is no object")]
    NotAnObject,
}

type Result<T> = std::result::Result<T, StrategicError>;

/// `object` with `patch` carried out.
pub fn strategic_merge(schema: &Schema, object: &Value, patch: &Value) -> Result<Value> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(StrategicError::NotAnObject);
    };
    merge_maps(Some(schema.root()), object.clone(), patch.clone()).map(Value::Object)
}

fn merge_maps(
    ty: Option<Type<'_>>,
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
) -> Result<Map<String, Value>> {
    match patch.get(PATCH).and_then(Value::as_str) {
        None => {}
        Some("replace") => {
            patch.remove(PATCH);
            return Ok(patch);
        }
        Some("delete") => return Ok(Map::new()),
        Some("merge") => {
            patch.remove(PATCH);
        }
        Some(other) => {
            let map = go_value(&Value::Object(patch.clone()));
            return Err(StrategicError::Directive { directive: other.into(), map });
        }
    }
    if let Some(Value::Array(keys)) = patch.remove(RETAIN_KEYS) {
        original.retain(|name, _| keys.iter().any(|key| key.as_str() == Some(name)));
    }
    set_orders(ty, &mut original, &mut patch)?;
    for (key, change) in patch {
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (original.get_mut(name), &change) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        let Some(current) = original.get_mut(&key) else {
            if !change.is_null() {
                original.insert(key, plain(change));
            }
            continue;
        };
        if change.is_null() {
            original.remove(&key);
            continue;
        }
        let field_type = ty.and_then(|ty| ty.entry(&key));
        let rule = rule(ty, &key);
        *current = match (current.take(), change) {
            (Value::Object(current), Value::Object(change)) => Value::Object(merge_maps(field_type, current, change)?),
            (Value::Array(current), Value::Array(change)) if rule.is_some_and(|rule| rule.merge) => {
                let merge_key = rule.map_or("", |rule| &rule.key);
                Value::Array(merge_lists(field_type, &key, merge_key, current, change)?)
            }
            (_, change) => change,
        };
    }
    Ok(original)
}

fn rule<'a>(ty: Option<Type<'a>>, name: &str) -> Option<&'a PatchRule> {
    ty.and_then(|ty| ty.field(name)).and_then(|(field, _)| field.patch.as_ref())
}

/// A part of a patch that meets nothing: without its directives and nulls.
fn plain(patch: Value) -> Value {
    match patch {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(key, value)| !key.starts_with('$') && !value.is_null())
                .map(|(key, value)| (key, plain(value)))
                .collect(),
        ),
        Value::Array(items) => {
            let is_directive = |item: &Value| item.get(PATCH).is_some();
            Value::Array(items.into_iter().filter(|item| !is_directive(item)).map(plain).collect())
        }
        scalar => scalar,
    }
}

/// Carries out `$setElementOrder/…` and the changes of the lists that it orders.
fn set_orders(ty: Option<Type<'_>>, original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<()> {
    let ordered: Vec<String> = patch.keys().filter_map(|key| key.strip_prefix(ELEMENT_ORDER)).map(Into::into).collect();
    for name in ordered {
        let Some(Value::Array(order)) = patch.remove(&format!("{ELEMENT_ORDER}{name}")) else {
            return Err(StrategicError::NotAList(name));
        };
        let list_type = ty.and_then(|ty| ty.entry(&name));
        let merge_key = rule(ty, &name).map_or("", |rule| &rule.key);
        let before = original.get(&name).and_then(Value::as_array).cloned();
        let merged = match (before.clone(), patch.remove(&name)) {
            (Some(before), Some(Value::Array(change))) => merge_lists(list_type, &name, merge_key, before, change)?,
            (Some(before), None) => before,
            (None, Some(change @ Value::Array(_))) => match plain(change) {
                Value::Array(items) => items,
                _ => Vec::new(),
            },
            (None, None) => continue,
            (_, Some(other)) => {
                patch.insert(name, other);
                continue;
            }
        };
        let before = before.unwrap_or_default();
        original.insert(name, Value::Array(in_order(merged, &order, &before, merge_key)));
    }
    Ok(())
}

fn merge_lists(
    ty: Option<Type<'_>>,
    name: &str,
    merge_key: &str,
    original: Vec<Value>,
    patch: Vec<Value>,
) -> Result<Vec<Value>> {
    if !original.iter().chain(&patch).any(Value::is_object) {
        let mut merged: Vec<Value> = Vec::new();
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(in_order(merged, &patch, &original, ""));
    }
    if merge_key.is_empty() {
        return Err(StrategicError::NoMergeKey(name.into()));
    }
    let mut merged = original.clone();
    let mut changes = Vec::new();
    let mut replace = false;
    for item in patch {
        match item.get(PATCH).and_then(Value::as_str) {
            None => changes.push(item),
            Some("delete") => {
                let key = key_of(&item, merge_key)?;
                merged.retain(|other| other.get(merge_key) != Some(&key));
            }
            Some("replace") => replace = true,
            Some(other) => {
                return Err(StrategicError::Directive { directive: other.into(), map: go_value(&item) });
            }
        }
    }
    if replace {
        return Ok(changes);
    }
    let item_type = ty.map(Type::item);
    let order = changes.clone();
    for change in changes {
        let key = key_of(&change, merge_key)?;
        let known = merged.iter_mut().find(|item| item.get(merge_key) == Some(&key));
        match (known, change) {
            (Some(Value::Object(item)), Value::Object(change)) => {
                *item = merge_maps(item_type, std::mem::take(item), change)?;
            }
            (_, change) => merged.push(plain(change)),
        }
    }
    Ok(in_order(merged, &order, &original, merge_key))
}

fn key_of(item: &Value, merge_key: &str) -> Result<Value> {
    item.get(merge_key)
        .cloned()
        .ok_or_else(|| StrategicError::MergeKey { item: go_value(item), key: merge_key.to_owned() })
}

/// `items` with those named in `order` in that order; the others keep the places that they had in `before`.
fn in_order(items: Vec<Value>, order: &[Value], before: &[Value], merge_key: &str) -> Vec<Value> {
    let position = |list: &[Value], item: &Value| {
        list.iter().position(|other| match merge_key {
            "" => other == item,
            key => other.get(key).is_some() && other.get(key) == item.get(key),
        })
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| position(order, item).is_some());
    named.sort_by_key(|item| position(order, item));
    others.sort_by_key(|item| position(before, item));
    let mut sorted = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (named.peek(), others.peek()) {
            (Some(named), Some(other)) => match (position(before, other), position(before, named)) {
                (Some(other), Some(named)) => other < named,
                _ => false,
            },
            (None, Some(_)) => true,
            (_, None) => false,
        };
        match if other_first { others.next() } else { named.next() } {
            Some(item) => sorted.push(item),
            None => return sorted,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(patch: &Value) -> Result<Value> {
        let schema = Schema::builtin("", "v1", "Pod").expect("built in");
        let pod = json!({"spec": {
            "containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}],
            "tolerations": [{"key": "x"}],
            "nodeSelector": {"k": "v"},
        }});
        strategic_merge(&schema, &pod, patch)
    }

    #[test]
    fn lists_merge_by_the_key_of_their_type_or_are_replaced() {
        let result = patched(&json!({"spec": {
            "containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}],
            "tolerations": [{"key": "y"}],
            "nodeSelector": {"k": null, "l": "w"},
        }}));
        assert_eq!(
            result,
            Ok(json!({"spec": {
                "containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}],
                "tolerations": [{"key": "y"}],
                "nodeSelector": {"l": "w"},
            }}))
        );
    }

    #[test]
    fn an_order_is_kept_around_items_that_it_does_not_name() {
        let result = patched(&json!({"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}],
            "containers": [{"name": "c", "image": "3"}],
        }}));
        let names: Vec<_> = result.expect("patched")["spec"]["containers"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|c| c["name"].clone())
            .collect();
        assert_eq!(names, ["c", "a", "b"]);
    }

    #[test]
    fn what_a_patch_gets_wrong_is_named() {
        assert_eq!(
            patched(&json!({"spec": {"containers": [{"image": "2"}]}})),
            Err(StrategicError::MergeKey { item: "map[image:2]".into(), key: "name".into() })
        );
        assert!(matches!(patched(&json!({"spec": {"$patch": "x"}})), Err(StrategicError::Directive { .. })));
        assert_eq!(patched(&json!(1)), Err(StrategicError::NotAnObject));
    }
}
