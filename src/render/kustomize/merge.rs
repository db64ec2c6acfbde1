//! Strategic merge as kustomize does it: patches over objects, by the types where they are known.
//!
//! Maps merge by key and a null removes; lists with merge keys merge item by item, the patch's items first; all other
//! lists and scalars are replaced. `$patch: delete|replace|merge` changes that for a mapping or a list. Kustomize knows no
//! other directive: `$setElementOrder`, `$deleteFromPrimitiveList` and `$retainKeys` are fields like any.

use super::merge_keys::{Schema, Shape};
use super::node::{Node, Scalar, Tag, keep_style};
use super::resource::gvk_of;

const DIRECTIVE: &str = "$patch";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

/// `None`: nothing is left of the object.
pub fn merge(object: Node, mut patch: Node, schema: &Schema) -> Result<Option<Node>, String> {
    // kustomize drops a whole object that would take the place of another
    match map_directive(&mut patch)? {
        Directive::Delete => return Ok(None),
        Directive::Replace => return Ok(Some(object)),
        Directive::Merge => {}
    }
    let shape = schema.shape(&gvk_of(&object));
    both(Some(object), Some(patch), shape)
}

fn present(node: &Option<Node>) -> Option<&Node> {
    node.as_ref().filter(|node| !node.is_null())
}

fn both(old: Option<Node>, new: Option<Node>, shape: Shape<'_>) -> Result<Option<Node>, String> {
    match (present(&old), present(&new)) {
        (Some(Node::Scalar(_)), None | Some(Node::Scalar(_))) | (None, Some(Node::Scalar(_))) => {
            Ok(if new.is_some() { new } else { old })
        }
        (Some(Node::List(_)), None | Some(Node::List(_))) | (None, Some(Node::List(_))) => lists(old, new, shape),
        (Some(Node::Map(_)), None | Some(Node::Map(_))) | (None, Some(Node::Map(_))) => maps(old, new, shape),
        // an explicit null that nobody touches stays
        (None, None) => Ok(if new.is_none() { old } else { None }),
        (Some(a), Some(b)) => Err(format!("{} can't be merged into {}", describe(b), describe(a))),
    }
}

fn describe(node: &Node) -> &'static str {
    match node {
        Node::Scalar(_) => "a scalar",
        Node::List(_) => "a list",
        Node::Map(_) => "a mapping",
    }
}

fn maps(old: Option<Node>, new: Option<Node>, shape: Shape<'_>) -> Result<Option<Node>, String> {
    let had = present(&old).is_some();
    let mut new = new;
    if had && new.as_ref().is_some_and(Node::is_null) {
        return Ok(None);
    }
    let directive = new.as_mut().map(map_directive).transpose()?.unwrap_or(Directive::Merge);
    let (mut base, mut patch) = match directive {
        Directive::Delete => return Ok(None),
        // what is added or put in place goes through the same rules: nulls in it go
        _ if !had || directive == Directive::Replace => (new.clone(), new),
        _ => (old, new),
    };
    let Some(Node::Map(entries)) = &mut base else { return Ok(base) };
    let mut keys: Vec<String> = entries.iter().map(|(key, _)| key.clone()).collect();
    if let Some(Node::Map(more)) = &patch {
        keys.extend(
            more.iter().map(|(key, _)| key.clone()).filter(|key| !entries.iter().any(|(known, _)| known == key)),
        );
    }
    for key in keys {
        let Some(base) = &mut base else { break };
        let old = base.get_mut(&key).map(|old| std::mem::replace(old, Node::null()));
        let new = patch.as_mut().and_then(|patch| patch.remove(&key));
        let untouched_null = new.is_none() && old.as_ref().is_some_and(Node::is_null);
        let before = match &old {
            Some(Node::Scalar(scalar)) => Some((scalar.quoted, scalar.shared)),
            _ => None,
        };
        match both(old, new, shape.field(&key)).map_err(|error| within(&key, error))? {
            Some(mut value) if !value.is_null() || untouched_null => {
                if let (Node::Scalar(scalar), Some(before)) = (&mut value, before) {
                    (scalar.quoted, scalar.shared) = before;
                }
                match base.get_mut(&key) {
                    Some(place) => *place = value,
                    None => base.set(&key, value),
                }
            }
            _ => drop(base.remove(&key)),
        }
    }
    Ok(base)
}

fn within(key: &str, error: String) -> String {
    match error.strip_prefix("at `") {
        Some(rest) => format!("at `{key}.{rest}"),
        None => format!("at `{key}`: {error}"),
    }
}

fn lists(old: Option<Node>, new: Option<Node>, shape: Shape<'_>) -> Result<Option<Node>, String> {
    let Some(keys) = shape.merge_keys() else {
        return Ok(if new.is_some() { new } else { old });
    };
    let had = present(&old).is_some();
    let mut new = new;
    if had && new.as_ref().is_some_and(Node::is_null) {
        return Ok(None);
    }
    let (base, patch) = if had {
        match new.as_mut().map(list_directive).transpose()?.unwrap_or(Directive::Merge) {
            Directive::Delete => return Ok(None),
            Directive::Replace => (new.clone(), new),
            Directive::Merge => (old, new),
        }
    } else {
        (new.clone(), new)
    };
    let items = |node: Option<Node>| match node {
        Some(Node::List(items)) => items,
        _ => Vec::new(),
    };
    let merged = items_by_key(items(base), items(patch), &keys, shape.item())?;
    Ok(Some(Node::List(merged)))
}

/// The values of the keys of one item; an absent one is empty.
type Values = Vec<String>;

/// Merges lists item by item. The order is kustomize's: what the patch names comes first, but for lists with several
/// keys each item that was there moves behind those.
fn items_by_key(mut old: Vec<Node>, new: Vec<Node>, keys: &[&str], shape: Shape<'_>) -> Result<Vec<Node>, String> {
    if keys.is_empty() {
        return Ok(scalars(old, new));
    }
    let mut known: Vec<Values> = Vec::new();
    for item in new.iter().chain(&old) {
        let values = values_of(item, keys);
        if !known.contains(&values) {
            known.push(values);
        }
    }
    if keys.len() > 1 {
        unify(&mut known);
    }
    let is_used = |i: &usize| known.iter().any(|values| !values[*i].is_empty());
    let mut used: Vec<usize> = (0..keys.len()).filter(is_used).collect();
    if used.is_empty() {
        used = (0..keys.len()).collect();
    }
    let keys: Vec<&str> = used.iter().map(|i| keys[*i]).collect();
    let mut items: Vec<Node> = Vec::new();
    for values in &known {
        let values: Values = used.iter().map(|i| values[*i].clone()).collect();
        // an item is looked for by the keys that it has
        let own: Vec<(&str, &str)> =
            keys.iter().zip(&values).filter(|(_, v)| !v.is_empty()).map(|(k, v)| (*k, v.as_str())).collect();
        let is_meant = |item: &Node| own.iter().all(|(key, value)| item.get(key).and_then(Node::text) == Some(value));
        let before = old.iter().position(is_meant).filter(|_| !own.is_empty());
        let after = new.iter().find(|item| is_meant(item)).filter(|_| !own.is_empty()).cloned();
        let replaces = after.as_ref().and_then(|item| item.get(DIRECTIVE)).and_then(Node::text) == Some("replace");
        let merged = both(before.map(|index| old[index].clone()), after, shape)?;
        let Some(mut merged) = merged.filter(|node| !is_empty(node)) else {
            set_item(&mut old, None, &keys, &values);
            continue;
        };
        for (key, value) in &own {
            if merged.get(key).is_none() {
                merged.set(key, Node::Scalar(Scalar::plain(*value, Tag::Any)));
            }
        }
        if let Some(index) = before.filter(|_| !replaces) {
            old[index] = merged.clone();
        }
        set_item(&mut items, Some(merged), &keys, &values);
    }
    if known.is_empty() {
        return Ok(old);
    }
    for item in old {
        let mut values = Vec::new();
        for key in &keys {
            match item.get(key) {
                Some(value) => values.push(value.text().unwrap_or_default().to_owned()),
                None => items.push(item.clone()),
            }
        }
        if keys.len() > 1 {
            set_item(&mut items, None, &keys, &values);
        }
        set_item(&mut items, Some(item), &keys, &values);
    }
    Ok(items)
}

/// Puts an item in the place of those with its keys, or at the end; `None` takes them out.
fn set_item(items: &mut Vec<Node>, item: Option<Node>, keys: &[&str], values: &[String]) {
    let mut found = false;
    let mut result = Vec::with_capacity(items.len() + 1);
    for known in items.drain(..).filter(|known| !is_empty(known)) {
        if !matches(&known, keys, values) {
            // without any value to look for, nothing stays: so does kustomize
            if !values.is_empty() {
                result.push(known);
            }
            continue;
        }
        found = true;
        result.extend(item.clone());
    }
    if !found {
        result.extend(item);
    }
    *items = result;
}

/// A list of scalars is a set: the patch's first.
fn scalars(old: Vec<Node>, new: Vec<Node>) -> Vec<Node> {
    let mut result: Vec<Node> = Vec::new();
    for item in new.into_iter().chain(old) {
        match result.iter_mut().find(|known| known.text() == item.text()) {
            Some(known) => {
                let mut item = item;
                keep_style(known, &mut item);
                *known = item;
            }
            None => result.push(item),
        }
    }
    result
}

fn values_of(item: &Node, keys: &[&str]) -> Values {
    keys.iter()
        .map(|key| item.get(key).filter(|node| !node.is_null()).and_then(Node::text).unwrap_or_default().to_owned())
        .collect()
}

/// Items that agree in what both of them say are one: an absent key is taken from the other.
fn unify(known: &mut [Values]) {
    for i in 0..known.len() {
        for j in 0..known.len() {
            let (mut common, mut merged) = (false, Vec::new());
            let fits = known[i].iter().zip(&known[j]).all(|(a, b)| {
                common |= a == b;
                merged.push(if a.is_empty() { b.clone() } else { a.clone() });
                a == b || a.is_empty() || b.is_empty()
            });
            if fits && common {
                known[i].clone_from(&merged);
                known[j] = merged;
            }
        }
    }
}

/// Whether an item has the keys; values that are not given match whatever the one before matched.
fn matches(item: &Node, keys: &[&str], values: &[String]) -> bool {
    let mut last = false;
    keys.iter().enumerate().all(|(index, key)| {
        if let Some(value) = values.get(index) {
            last = item.get(key).is_some_and(|field| value.is_empty() || field.text() == Some(value.as_str()));
        }
        last
    })
}

fn is_empty(node: &Node) -> bool {
    node.is_null() || matches!(node, Node::Map(entries) if entries.is_empty())
}

fn directive(text: &str) -> Result<Directive, String> {
    match text {
        "delete" => Ok(Directive::Delete),
        "replace" => Ok(Directive::Replace),
        "merge" => Ok(Directive::Merge),
        other => Err(format!("`$patch: {other}` is none of delete, replace and merge")),
    }
}

/// Takes the directive out of a mapping.
fn map_directive(patch: &mut Node) -> Result<Directive, String> {
    match patch.remove(DIRECTIVE) {
        Some(node) => directive(node.text().unwrap_or_default()),
        None => Ok(Directive::Merge),
    }
}

/// Takes the directive out of a list: an item of its own.
fn list_directive(patch: &mut Node) -> Result<Directive, String> {
    let Node::List(items) = patch else { return Ok(Directive::Merge) };
    let alone = |item: &Node| matches!(item, Node::Map(entries) if entries.len() == 1 && entries[0].0 == DIRECTIVE);
    match items.iter().position(alone) {
        Some(index) => {
            let item = items.remove(index);
            directive(item.get(DIRECTIVE).and_then(Node::text).unwrap_or_default())
        }
        None => Ok(Directive::Merge),
    }
}
