//! Which fields an entry of `metadata.managedFields` holds: a tree of paths, its hash, and whether it covers an object.
//!
//! Comes in: `fieldsV1` of Kubernetes (KEP-555, structured-merge-diff's path elements `f:`, `k:`, `v:`, `i:` and `.`).

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A set of field paths. Children are sorted by path element; a childless node is a member of the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldTree(Vec<(Box<str>, FieldTree)>);

/// The hash of an entry's fields: equal hashes mean equal sets of fields.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryHash([u8; 16]);

impl EntryHash {
    /// That of no entry.
    pub(super) const NONE: Self = Self([0; 16]);
}

impl fmt::Debug for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryHash({})", hex::encode(self.0))
    }
}

/// `.`: the node itself is a member besides its children.
const ITSELF: &str = ".";

impl FieldTree {
    pub fn hash(&self) -> EntryHash {
        let mut hasher = Sha256::new();
        self.feed(&mut hasher);
        let full = hasher.finalize();
        let mut short = [0; 16];
        short.copy_from_slice(&full[..16]);
        EntryHash(short)
    }

    /// Length-prefixed, so that no two trees feed the same bytes.
    fn feed(&self, hasher: &mut Sha256) {
        hasher.update((self.0.len() as u64).to_be_bytes());
        for (element, child) in &self.0 {
            hasher.update((element.len() as u64).to_be_bytes());
            hasher.update(element.as_bytes());
            child.feed(hasher);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the fields in the map at `field`: `a` and `b` of `f:data: {f:a, f:b}`.
    pub fn names_in(&self, field: &str) -> impl Iterator<Item = &str> {
        let fields = self.child(&format!("f:{field}")).into_iter().flat_map(|tree| &tree.0);
        fields.filter_map(|(element, _)| element.strip_prefix("f:"))
    }

    pub(super) fn child(&self, element: &str) -> Option<&FieldTree> {
        self.0.binary_search_by(|(e, _)| (**e).cmp(element)).ok().map(|at| &self.0[at].1)
    }

    /// Adds all paths of `other`.
    pub fn unite(&mut self, other: &FieldTree) {
        // a childless node is a member; it stays one when it gets children
        if self.0.is_empty() && !other.0.is_empty() {
            self.0.push((ITSELF.into(), FieldTree::default()));
        }
        if other.0.is_empty() && !self.0.is_empty() && self.child(ITSELF).is_none() {
            self.insert(ITSELF, FieldTree::default());
        }
        for (element, theirs) in &other.0 {
            match self.0.binary_search_by(|(e, _)| e.cmp(element)) {
                Ok(at) => self.0[at].1.unite(theirs),
                Err(at) => self.0.insert(at, (element.clone(), theirs.clone())),
            }
        }
    }

    fn insert(&mut self, element: &str, tree: FieldTree) {
        if let Err(at) = self.0.binary_search_by(|(e, _)| (**e).cmp(element)) {
            self.0.insert(at, (element.into(), tree));
        }
    }

    /// Takes the fields of the set out of an object, but for those that one of `kept` holds: what server-side apply does
    /// with fields that a manager declares no longer. True if nothing is left of the value.
    pub fn take_out(&self, value: &mut Value, kept: &[&FieldTree]) -> bool {
        for (element, gone) in &self.0 {
            if &**element == ITSELF {
                continue;
            }
            let holders: Vec<&FieldTree> = kept.iter().filter_map(|tree| tree.child(element)).collect();
            let vanishes = |value: &mut Value| {
                if gone.0.is_empty() {
                    return holders.is_empty();
                }
                // an item of a list stays while anybody holds any of it
                gone.take_out(value, &holders) && holders.is_empty()
            };
            match value {
                Value::Object(fields) => {
                    let Some(name) = element.strip_prefix("f:") else { continue };
                    if fields.get_mut(name).is_some_and(vanishes) {
                        fields.remove(name);
                    }
                }
                Value::Array(items) => {
                    let at = items.iter().position(|item| is_named(element, item));
                    if let Some(at) = at
                        && (vanishes(&mut items[at]) || (holders.is_empty() && gone.child(ITSELF).is_some()))
                    {
                        items.remove(at);
                    }
                }
                _ => {}
            }
        }
        match value {
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        }
    }

    /// The elements of one level and what is below each.
    pub(super) fn elements(&self) -> impl Iterator<Item = (&str, &FieldTree)> {
        self.0.iter().map(|(element, tree)| (&**element, tree))
    }

    /// The names on the way to the only field of the set; `None` if it is not one field alone.
    pub(super) fn only_field(&self) -> Option<Vec<&str>> {
        let (mut tree, mut names) = (self, Vec::new());
        while let [(element, below)] = tree.0.as_slice() {
            names.push(element.strip_prefix("f:")?);
            tree = below;
        }
        (tree.is_empty() && !names.is_empty()).then_some(names)
    }

    /// True if every leaf of the declared object is in the set: see [`FieldTree::missing`].
    pub fn covers(&self, declared: &Value) -> bool {
        declared.is_object() && self.missing(declared, &[]).is_empty()
    }
}

/// True if a path element of a list's item (`k:`, `v:`) names this one.
pub(super) fn is_named(element: &str, item: &Value) -> bool {
    match (element.strip_prefix("k:"), element.strip_prefix("v:")) {
        (Some(key), _) => is_keyed_by(item, key),
        (_, Some(value)) => serde_json::from_str::<Value>(value).is_ok_and(|value| value == *item),
        _ => false,
    }
}

/// True if the item has the key's values; a key field that the item leaves out was defaulted by the server.
fn is_keyed_by(item: &Value, key: &str) -> bool {
    let Ok(Value::Object(key)) = serde_json::from_str::<Value>(key) else { return false };
    let mut named = false;
    let agrees = key.iter().all(|(field, value)| match item.get(field) {
        Some(declared) => {
            named = true;
            declared == value
        }
        None => true,
    });
    agrees && named
}

impl<'de> Deserialize<'de> for FieldTree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tree;
        impl<'de> Visitor<'de> for Tree {
            type Value = FieldTree;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tree of field paths")
            }

            fn visit_unit<E>(self) -> Result<FieldTree, E> {
                Ok(FieldTree::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldTree, A::Error> {
                let mut children: Vec<(Box<str>, FieldTree)> = Vec::new();
                while let Some(child) = map.next_entry()? {
                    children.push(child);
                }
                if !children.is_sorted_by(|a, b| a.0 < b.0) {
                    children.sort_by(|a, b| a.0.cmp(&b.0));
                    children.dedup_by(|a, b| a.0 == b.0);
                }
                children.shrink_to_fit();
                Ok(FieldTree(children))
            }
        }
        deserializer.deserialize_any(Tree)
    }
}

impl Serialize for FieldTree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (element, child) in &self.0 {
            map.serialize_entry(element, child)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tree(value: Value) -> FieldTree {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_hash_tells_sets_of_fields_apart_whatever_their_order() {
        let a = serde_json::from_str::<FieldTree>(r#"{"f:spec":{"f:a":{},"f:b":{}}}"#).unwrap();
        let b = serde_json::from_str::<FieldTree>(r#"{"f:spec":{"f:b":{},"f:a":{}}}"#).unwrap();
        assert_eq!(a.hash(), b.hash());
        for other in
            [json!({"f:spec": {"f:a": {}}}), json!({"f:spec": {"f:a": {"f:b": {}}}}), json!({}), json!({"f:spec": {}})]
        {
            assert_ne!(a.hash(), tree(other).hash());
        }
    }

    #[test]
    fn a_union_keeps_membership_of_nodes_that_get_children() {
        for (a, b, expected) in [
            (json!({"f:a": {}}), json!({"f:b": {}}), json!({"f:a": {}, "f:b": {}})),
            (json!({"f:a": {}}), json!({"f:a": {"f:b": {}}}), json!({"f:a": {".": {}, "f:b": {}}})),
            (json!({"f:a": {"f:b": {}}}), json!({"f:a": {}}), json!({"f:a": {".": {}, "f:b": {}}})),
            (
                json!({"f:a": {".": {}, "f:b": {}}}),
                json!({"f:a": {"f:c": {}}}),
                json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}}),
            ),
        ] {
            let mut united = tree(a);
            united.unite(&tree(b));
            assert_eq!(united, tree(expected));
        }
    }

    #[test]
    fn what_a_manager_lets_go_of_is_taken_out_unless_another_holds_it() {
        let object = json!({"data": {"a": "1", "b": "2"}, "spec": {"replicas": 3, "containers": [
            {"name": "web", "image": "i", "env": [{"name": "X"}]}, {"name": "old", "image": "j"},
        ], "finalizers": ["a", "b"]}});
        for (gone, kept, expected) in [
            (json!({"f:data": {"f:b": {}}}), json!({}), json!({"data": {"a": "1"}})),
            (json!({"f:data": {"f:b": {}}}), json!({"f:data": {"f:b": {}}}), json!({})),
            (json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}}), json!({}), json!({"data": null})),
            (
                json!({"f:spec": {"f:containers": {"k:{\"name\":\"old\"}": {".": {}, "f:name": {}, "f:image": {}}}}}),
                json!({}),
                json!({"spec": {"containers": [object["spec"]["containers"][0]]}}),
            ),
            (
                json!({"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:name": {}, "f:image": {}, "f:env": {}}}}}),
                json!({"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:name": {}, "f:image": {}}}}}),
                json!({"spec": {"containers": [{"name": "web", "image": "i"}, object["spec"]["containers"][1]]}}),
            ),
            (json!({"f:spec": {"f:finalizers": {"v:\"a\"": {}}}}), json!({}), json!({"spec": {"finalizers": ["b"]}})),
        ] {
            let mut left = object.clone();
            tree(gone.clone()).take_out(&mut left, &[&tree(kept)]);
            let mut wanted = object.clone();
            for (section, fields) in expected.as_object().unwrap() {
                match fields {
                    Value::Null => drop(wanted.as_object_mut().unwrap().remove(section)),
                    Value::Object(fields) if section == "data" => wanted[section] = json!(fields),
                    fields => fields.as_object().unwrap().iter().for_each(|(k, v)| wanted[section][k] = v.clone()),
                }
            }
            assert_eq!(left, wanted, "{gone}");
        }
    }

    #[test]
    fn an_object_is_covered_if_each_of_its_leaves_is_owned() {
        let owned = tree(json!({
            "f:metadata": {"f:labels": {"f:app": {}}, "f:annotations": {"f:x": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:finalizers": {"v:\"a\"": {}},
                "f:template": {"f:spec": {"f:containers": {
                    "k:{\"name\":\"web\"}": {".": {}, "f:name": {}, "f:image": {},
                        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}},
                }}},
            },
        }));
        let object = |spec: Value| json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "a", "namespace": "b", "labels": {"app": "x"}}, "spec": spec});
        let containers = |c: Value| object(json!({"template": {"spec": {"containers": [c]}}}));
        for (value, covered) in [
            (object(json!({"replicas": 1})), true),
            (object(json!({"replicas": null})), true),
            (object(json!({"selector": {"matchLabels": {"a": "b"}}})), true),
            (object(json!({"paused": true})), false),
            (object(json!({"finalizers": ["a"]})), true),
            (object(json!({"finalizers": ["a", "b"]})), false),
            (containers(json!({"name": "web", "image": "i"})), true),
            (containers(json!({"name": "web", "image": "i", "ports": [{"containerPort": 80}]})), true),
            (containers(json!({"name": "web", "image": "i", "ports": [{"containerPort": 81}]})), false),
            (containers(json!({"name": "web", "command": ["a"]})), false),
            (containers(json!({"name": "other"})), false),
            (json!({"metadata": {"name": "a", "labels": {"other": "x"}}}), false),
        ] {
            assert_eq!(owned.covers(&value), covered, "{value}");
        }
    }
}
