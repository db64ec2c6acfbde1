//! Fields by name: which of those that are declared our entry of `managedFields` no longer holds, and who holds them now.
//!
//! Comes in: a declared object and field trees. Goes out: paths as people write them,
//! `spec.template.spec.containers[name="main"].image`. No value goes out, but those that list items go by.

use std::fmt::{self, Write as _};

use serde_json::Value;

use crate::manifest::Pointer;

use super::fields::FieldTree;

/// One field of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(Box<str>),
    /// An item of a list: its place in what is declared, and what it goes by.
    Item(usize, Box<str>),
}

/// Which fields of an object others have taken, and who.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Fields of ours that we no longer hold; a whole subtree with several is one.
    pub fields: Vec<FieldPath>,
    /// The managers that hold any of them now. What was removed is nobody's.
    pub writers: Vec<Box<str>>,
}

/// Paths told of one object, and managers: more is not read.
const FIELDS_SHOWN_MAX: usize = 5;
const WRITERS_SHOWN_MAX: usize = 3;
/// Paths looked for in one object: enough to say that there are more than are shown.
const FIELDS_MAX: usize = 64;
/// Letters of one path: a key may be long.
const PATH_SHOWN_MAX: usize = 200;

impl FieldPath {
    /// A place of a declared object.
    pub fn of(pointer: &Pointer, declared: &Value) -> Self {
        let mut at = Some(declared);
        let steps = pointer.tokens().iter().map(|token| {
            let above = at.take();
            match above {
                Some(Value::Array(items)) => {
                    let index: usize = token.parse().unwrap_or(usize::MAX);
                    at = items.get(index);
                    Step::Item(index, token.clone())
                }
                _ => {
                    at = above.and_then(|above| above.get(&**token));
                    Step::Field(token.clone())
                }
            }
        });
        Self(steps.collect())
    }
}

impl FieldTree {
    /// The declared fields that are not in the set, but for those at the places of `free`.
    ///
    /// What the server never lists is not asked for: `apiVersion`, `kind`, the name and namespace, nulls, and the status
    /// of kinds that have one of their own.
    pub fn missing(&self, declared: &Value, free: &[Pointer]) -> Vec<FieldPath> {
        let mut search = Search { free, at: Vec::new(), found: Vec::new() };
        for (name, value) in declared.as_object().into_iter().flatten() {
            match name.as_str() {
                "apiVersion" | "kind" | "status" => {}
                "metadata" => search.metadata(self, value),
                _ => search.field(self, name, value),
            }
        }
        search.found
    }

    /// True if the set holds a field of the declared object, or all that it is a part of.
    pub fn holds(&self, path: &FieldPath, declared: &Value) -> bool {
        let (mut tree, mut value) = (self, declared);
        for (depth, step) in path.0.iter().enumerate() {
            if tree.is_empty() {
                return depth > 0;
            }
            let next = match step {
                Step::Field(name) => tree.child(&format!("f:{name}")).zip(value.get(&**name)),
                Step::Item(index, _) => value.get(index).and_then(|item| {
                    tree.elements().find(|(element, _)| names(element, *index, item)).map(|(_, tree)| (tree, item))
                }),
            };
            match next {
                Some(next) => (tree, value) = next,
                None => return false,
            }
        }
        true
    }
}

/// A walk through a declared object beside a field tree.
struct Search<'a> {
    free: &'a [Pointer],
    at: Vec<Place<'a>>,
    found: Vec<FieldPath>,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Field(&'a str),
    /// The place in the list, the element of the field tree if there is one, and the item itself.
    Item(usize, Option<&'a str>, &'a Value),
}

impl<'a> Search<'a> {
    fn metadata(&mut self, tree: &'a FieldTree, value: &'a Value) {
        self.at.push(Place::Field("metadata"));
        let own = tree.child("f:metadata");
        for (name, value) in value.as_object().into_iter().flatten() {
            if matches!(name.as_str(), "name" | "namespace" | "creationTimestamp") {
                continue;
            }
            match own {
                Some(own) => self.field(own, name, value),
                None => {
                    self.at.push(Place::Field(name));
                    self.lost(value);
                    self.at.pop();
                }
            }
        }
        self.at.pop();
    }

    fn field(&mut self, tree: &'a FieldTree, name: &'a str, value: &'a Value) {
        if value.is_null() {
            return;
        }
        self.at.push(Place::Field(name));
        match tree.child(&format!("f:{name}")) {
            Some(tree) => self.value(tree, value),
            None => self.lost(value),
        }
        self.at.pop();
    }

    fn value(&mut self, tree: &'a FieldTree, value: &'a Value) {
        // a childless node is a scalar, an empty or an atomic value: held as a whole
        if tree.is_empty() {
            return;
        }
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| self.field(tree, name, value)),
            Value::Array(items) => items.iter().enumerate().for_each(|(at, item)| self.item(tree, at, item)),
            _ => self.lost(value),
        }
    }

    fn item(&mut self, tree: &'a FieldTree, index: usize, item: &'a Value) {
        let before = self.found.len();
        let mut nearest = None;
        // where a key field is left to its default, several may be meant
        for (element, tree) in tree.elements().filter(|(element, _)| names(element, index, item)) {
            self.at.push(Place::Item(index, Some(element), item));
            if element.starts_with("k:") || element.starts_with("i:") {
                self.value(tree, item);
            }
            self.at.pop();
            if self.found.len() == before {
                return;
            }
            let missing = self.found.split_off(before);
            nearest.get_or_insert(missing);
        }
        match nearest {
            Some(missing) => self.found.extend(missing),
            None => {
                self.at.push(Place::Item(index, None, item));
                self.lost(item);
                self.at.pop();
            }
        }
    }

    /// Nothing of what is here is held.
    fn lost(&mut self, value: &'a Value) {
        let begins = |pointer: &&Pointer| self.at.iter().zip(pointer.tokens()).all(|(at, token)| at.is(token));
        let (above, below): (Vec<_>, Vec<_>) =
            self.free.iter().filter(begins).partition(|pointer| pointer.tokens().len() <= self.at.len());
        if !above.is_empty() {
            return;
        }
        // the only field of a map is named itself
        let alone = value.as_object().is_some_and(|fields| fields.len() == 1);
        if alone || !below.is_empty() {
            match value {
                Value::Object(fields) => {
                    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                        self.at.push(Place::Field(name));
                        self.lost(value);
                        self.at.pop();
                    }
                    return;
                }
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.at.push(Place::Item(index, None, item));
                        self.lost(item);
                        self.at.pop();
                    }
                    return;
                }
                _ => {}
            }
        }
        if self.found.len() < FIELDS_MAX {
            self.found.push(FieldPath(self.at.iter().map(Place::step).collect()));
        }
    }
}

impl Place<'_> {
    fn is(&self, token: &str) -> bool {
        match self {
            Self::Field(name) => *name == token,
            Self::Item(index, ..) => token.parse() == Ok(*index),
        }
    }

    fn step(&self) -> Step {
        match self {
            Self::Field(name) => Step::Field((*name).into()),
            Self::Item(index, element, item) => Step::Item(*index, called(*index, *element, item).into()),
        }
    }
}

/// What an item goes by: its key, its own value if it is a text or a number, else its place.
fn called(index: usize, element: Option<&str>, item: &Value) -> String {
    if let Some(Ok(Value::Object(key))) = element.and_then(|e| e.strip_prefix("k:")).map(serde_json::from_str) {
        return key.iter().map(|(field, value)| format!("{field}={value}")).collect::<Vec<_>>().join(",");
    }
    match item {
        Value::Object(fields) => fields.get("name").map_or(index.to_string(), |name| format!("name={name}")),
        Value::Array(_) | Value::Null => index.to_string(),
        scalar => scalar.to_string(),
    }
}

/// True if an element of a list's field tree names this item.
fn names(element: &str, index: usize, item: &Value) -> bool {
    match element.strip_prefix("i:") {
        Some(at) => at.parse() == Ok(index),
        None => super::fields::is_named(element, item),
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for step in &self.0 {
            match step {
                Step::Field(name) if is_plain(name) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(name);
                }
                Step::Field(name) => write!(text, "[{}]", Value::from(&**name))?,
                Step::Item(_, called) => write!(text, "[{called}]")?,
            }
        }
        if text.chars().count() > PATH_SHOWN_MAX {
            text = text.chars().take(PATH_SHOWN_MAX).chain(['…']).collect();
        }
        f.write_str(&text)
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// `spec.replicas, spec.paused and 3 more, written by kubectl-edit`; what is not known is left out.
impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<_> = self.fields.iter().take(FIELDS_SHOWN_MAX).map(ToString::to_string).collect();
        f.write_str(&fields.join(", "))?;
        if self.fields.len() > FIELDS_SHOWN_MAX {
            write!(f, " and {} more", self.fields.len() - FIELDS_SHOWN_MAX)?;
        }
        if !self.writers.is_empty() {
            let writers: Vec<_> = self.writers.iter().take(WRITERS_SHOWN_MAX).map(|w| &**w).collect();
            let more = if self.writers.len() > WRITERS_SHOWN_MAX { " and others" } else { "" };
            let comma = if fields.is_empty() { "" } else { ", " };
            write!(f, "{comma}written by {}{more}", writers.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tree(value: Value) -> FieldTree {
        serde_json::from_value(value).unwrap()
    }

    fn shown(paths: &[FieldPath]) -> Vec<String> {
        paths.iter().map(ToString::to_string).collect()
    }

    fn declared() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"app": "web"}, "annotations": {"a.io/b": "x", "c": "x"}},
            "spec": {"replicas": 1, "paused": null, "selector": {"matchLabels": {"app": "web"}},
                "finalizers": ["one", "two"],
                "template": {"spec": {"containers": [
                    {"name": "main", "image": "i", "ports": [{"containerPort": 80}]}, {"name": "side", "image": "j"},
                ]}}},
        })
    }

    /// The fields of [`declared`], but for those named.
    fn held(without: &[&str]) -> FieldTree {
        let mut fields = json!({
            "f:metadata": {"f:labels": {"f:app": {}}, "f:annotations": {"f:a.io/b": {}, "f:c": {}}},
            "f:spec": {"f:replicas": {}, "f:selector": {},
                "f:finalizers": {"v:\"one\"": {}, "v:\"two\"": {}},
                "f:template": {"f:spec": {"f:containers": {
                    "k:{\"name\":\"main\"}": {".": {}, "f:name": {}, "f:image": {},
                        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}},
                    "k:{\"name\":\"side\"}": {".": {}, "f:name": {}, "f:image": {}},
                }}}},
        });
        for pointer in without {
            let (above, last) = pointer.rsplit_once('/').unwrap();
            fields.pointer_mut(above).unwrap().as_object_mut().unwrap().remove(&last.replace('|', "/")).unwrap();
        }
        tree(fields)
    }

    #[test]
    fn what_others_took_is_named_as_people_write_it() {
        let containers = "/f:spec/f:template/f:spec/f:containers";
        for (without, expected) in [
            (vec![], vec![]),
            (vec!["/f:spec/f:replicas".to_owned()], vec!["spec.replicas"]),
            (
                vec![format!("{containers}/k:{{\"name\":\"main\"}}/f:image")],
                vec!["spec.template.spec.containers[name=\"main\"].image"],
            ),
            (
                vec![format!("{containers}/k:{{\"name\":\"side\"}}")],
                vec!["spec.template.spec.containers[name=\"side\"]"],
            ),
            (
                vec![format!(
                    "{containers}/k:{{\"name\":\"main\"}}/f:ports/k:{{\"containerPort\":80,\"protocol\":\"TCP\"}}/f:containerPort"
                )],
                vec![
                    "spec.template.spec.containers[name=\"main\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
                ],
            ),
            (vec!["/f:metadata/f:annotations/f:a.io|b".to_owned()], vec!["metadata.annotations[\"a.io/b\"]"]),
            (vec!["/f:metadata".to_owned()], vec!["metadata.annotations", "metadata.labels.app"]),
            (vec!["/f:spec/f:finalizers/v:\"two\"".to_owned()], vec!["spec.finalizers[\"two\"]"]),
            (vec!["/f:spec/f:selector".to_owned()], vec!["spec.selector.matchLabels.app"]),
            (vec!["/f:spec/f:template".to_owned()], vec!["spec.template.spec.containers"]),
        ] {
            let without: Vec<&str> = without.iter().map(String::as_str).collect();
            assert_eq!(shown(&held(&without).missing(&declared(), &[])), expected, "{without:?}");
        }
    }

    #[test]
    fn what_may_be_anybodys_is_not_missed() {
        let free = |texts: &[&str]| texts.iter().map(|t| Pointer::parse(t).unwrap()).collect::<Vec<_>>();
        let without = ["/f:spec/f:replicas", "/f:spec/f:template"];
        for (pointers, expected) in [
            (free(&["/spec/replicas"]), vec!["spec.template.spec.containers"]),
            (free(&["/spec/replicas", "/spec/template"]), vec![]),
            (free(&["/spec"]), vec![]),
            // only a part of what is gone is free
            (
                free(&["/spec/replicas", "/spec/template/spec/containers/0/image", "/spec/template/spec/containers/1"]),
                vec![
                    "spec.template.spec.containers[name=\"main\"].name",
                    "spec.template.spec.containers[name=\"main\"].ports",
                ],
            ),
        ] {
            let mut found = shown(&held(&without).missing(&declared(), &pointers));
            found.sort();
            assert_eq!(found, expected, "{pointers:?}");
        }
    }

    #[test]
    fn whoever_holds_a_field_or_all_around_it_is_found() {
        let missing = held(&["/f:spec/f:replicas", "/f:spec/f:template", "/f:spec/f:finalizers"]);
        let paths = missing.missing(&declared(), &[]);
        assert_eq!(shown(&paths), ["spec.finalizers", "spec.replicas", "spec.template.spec.containers"]);
        for (other, expected) in [
            (json!({"f:spec": {"f:replicas": {}}}), [false, true, false]),
            (json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"f:x": {}}}}}}), [false, false, true]),
            (json!({"f:spec": {}}), [true, true, true]),
            (json!({"f:metadata": {"f:labels": {}}}), [false, false, false]),
            (json!({}), [false, false, false]),
        ] {
            let holds = paths.iter().map(|path| tree(other.clone()).holds(path, &declared())).collect::<Vec<_>>();
            assert_eq!(holds, expected, "{other}");
        }
    }

    #[test]
    fn what_is_told_of_one_object_is_bounded() {
        let data: serde_json::Map<_, _> = (0..100).map(|n| (format!("key-{n:03}"), json!("v"))).collect();
        let fields = tree(json!({"f:data": {"f:other": {}}})).missing(&json!({"data": data}), &[]);
        assert_eq!(fields.len(), FIELDS_MAX);
        let writers = ["a", "b", "c", "d"].map(Box::from).to_vec();
        assert_eq!(
            Drift { fields, writers }.to_string(),
            "data.key-000, data.key-001, data.key-002, data.key-003, data.key-004 and 59 more, written by a, b, c and others"
        );
        let long = tree(json!({"f:data": {"f:other": {}}})).missing(&json!({"data": {"k".repeat(300): "v"}}), &[]);
        assert_eq!(long[0].to_string().chars().count(), PATH_SHOWN_MAX + 1);
        assert_eq!(Drift { fields: Vec::new(), writers: vec!["a".into()] }.to_string(), "written by a");
        assert_eq!(Drift::default().to_string(), "");
    }
}
