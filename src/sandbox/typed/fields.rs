//! Sets of fields, as `managedFields` records who owns what (`fieldsV1`).
//!
//! In: the JSON form (`f:name`, `k:{…}`, `v:…`, `i:n`, `.`) or paths. Out: the same form, sorted as an API server
//! writes it, and set algebra. Never looks at objects: [`super::extract`] does.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

/// Deeper sets than this are refused: no object that the server accepts nests so far.
const DEPTH_MAX: usize = 128;

/// A scalar that names a list item; numbers compare by value, so `1` and `1.0` are one key.
#[derive(Clone, Debug)]
pub struct Scalar(pub Value);

/// One step from an object to a part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A struct's field or a map's entry.
    Field(Box<str>),
    /// An item of a list that is a map by these keys, sorted by key name.
    Key(Box<[(Box<str>, Scalar)]>),
    /// An item of a list that is a set.
    Item(Scalar),
    /// A position in a list; kept where a stored set has it, never made.
    Index(i64),
}

/// A set of paths. A path and paths below it are independent members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    members: BTreeSet<Step>,
    children: BTreeMap<Step, FieldSet>,
}

/// Why a `fieldsV1` document was not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSetError {
    #[error("expected an object, found `{0}`")]
    NotAnObject(String),
    #[error("unknown path element `{0}`")]
    UnknownElement(String),
    #[error("the field set is nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
}

impl Step {
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self::field(rest)),
            "v" => serde_json::from_str(rest).ok().map(|v| Self::Item(Scalar(v))),
            "i" => rest.parse().ok().map(Self::Index),
            "k" => {
                let keys: BTreeMap<Box<str>, Value> = serde_json::from_str(rest).ok()?;
                Some(Self::Key(keys.into_iter().map(|(name, value)| (name, Scalar(value))).collect()))
            }
            _ => None,
        }
    }

    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Item(value) => format!("v:{}", value.0),
            Self::Index(i) => format!("i:{i}"),
            Self::Key(keys) => {
                let mut text = String::from("k:{");
                for (i, (name, value)) in keys.iter().enumerate() {
                    if i > 0 {
                        text.push(',');
                    }
                    text.push_str(&Value::from(name.as_ref()).to_string());
                    text.push(':');
                    text.push_str(&value.0.to_string());
                }
                text.push('}');
                text
            }
        }
    }
}

/// As the API server writes a step in messages: `.name`, `[name="web"]`, `[="x"]`, `[0]`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Item(value) => write!(f, "[={}]", value.0),
            Self::Index(i) => write!(f, "[{i}]"),
            Self::Key(keys) => {
                f.write_str("[")?;
                for (i, (name, value)) in keys.iter().enumerate() {
                    write!(f, "{}{name}={}", if i > 0 { "," } else { "" }, value.0)?;
                }
                f.write_str("]")
            }
        }
    }
}

/// A whole path in the form of messages: `.spec.containers[name="web"].image`.
pub fn display_path(path: &[Step]) -> String {
    path.iter().map(ToString::to_string).collect()
}

impl FieldSet {
    /// Reads a `fieldsV1` object.
    pub fn parse(value: &Value) -> Result<Self, FieldSetError> {
        Self::parse_level(value, 0).map(|(set, _)| set)
    }

    /// The set below a path element, and whether the element itself is a member.
    fn parse_level(value: &Value, depth: usize) -> Result<(Self, bool), FieldSetError> {
        if depth > DEPTH_MAX {
            return Err(FieldSetError::TooDeep);
        }
        let Value::Object(map) = value else { return Err(FieldSetError::NotAnObject(value.to_string())) };
        let mut set = Self::default();
        let mut itself = map.is_empty();
        for (name, below) in map {
            if name == "." {
                itself = true;
                continue;
            }
            let step = Step::parse(name).ok_or_else(|| FieldSetError::UnknownElement(name.clone()))?;
            let (child, member) = Self::parse_level(below, depth + 1)?;
            if member {
                set.members.insert(step.clone());
            }
            if !child.is_empty() {
                set.children.insert(step, child);
            }
        }
        Ok((set, itself))
    }

    /// The `fieldsV1` object of this set.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        for step in &self.members {
            if !self.children.contains_key(step) {
                map.insert(step.encode(), Value::Object(Map::new()));
            }
        }
        for (step, child) in &self.children {
            let mut below = child.to_value();
            if let (true, Value::Object(below)) = (self.members.contains(step), &mut below) {
                below.insert(".".into(), Value::Object(Map::new()));
            }
            map.insert(step.encode(), below);
        }
        map.sort_keys();
        Value::Object(map)
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    pub fn insert(&mut self, path: &[Step]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Adds a member of this level.
    pub(super) fn insert_member(&mut self, step: Step) {
        self.members.insert(step);
    }

    /// Adds everything of `below` under `step`.
    pub(super) fn insert_child(&mut self, step: Step, below: Self) {
        if !below.is_empty() {
            self.children.entry(step).or_default().absorb(below);
        }
    }

    pub fn has(&self, path: &[Step]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|child| child.has(rest)),
        }
    }

    pub(super) fn has_member(&self, step: &Step) -> bool {
        self.members.contains(step)
    }

    /// What lies below one step; `None` if nothing does.
    pub fn below(&self, step: &Step) -> Option<&Self> {
        self.children.get(step)
    }

    pub(super) fn children(&self) -> impl Iterator<Item = (&Step, &Self)> {
        self.children.iter()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Step> {
        self.members.iter()
    }

    fn absorb(&mut self, other: Self) {
        self.members.extend(other.members);
        for (step, below) in other.children {
            self.children.entry(step).or_default().absorb(below);
        }
    }

    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.absorb(other.clone());
        self
    }

    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: self
                .children
                .iter()
                .filter_map(|(step, below)| {
                    let shared = below.intersection(other.children.get(step)?);
                    (!shared.is_empty()).then(|| (step.clone(), shared))
                })
                .collect(),
        }
    }

    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self {
            members: self.members.difference(&other.members).cloned().collect(),
            children: self
                .children
                .iter()
                .filter_map(|(step, below)| {
                    let rest = match other.children.get(step) {
                        Some(theirs) => below.difference(theirs),
                        None => below.clone(),
                    };
                    (!rest.is_empty()).then(|| (step.clone(), rest))
                })
                .collect(),
        }
    }

    /// This set without the members of `other` and without anything below them.
    #[must_use]
    pub fn without_subtrees(&self, other: &Self) -> Self {
        Self {
            members: self.members.difference(&other.members).cloned().collect(),
            children: self
                .children
                .iter()
                .filter(|(step, _)| !other.members.contains(step))
                .filter_map(|(step, below)| {
                    let rest = match other.children.get(step) {
                        Some(theirs) => below.without_subtrees(theirs),
                        None => below.clone(),
                    };
                    (!rest.is_empty()).then(|| (step.clone(), rest))
                })
                .collect(),
        }
    }

    /// All paths: the members of a level before what lies below it.
    pub fn paths(&self) -> Vec<Vec<Step>> {
        let mut paths = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
        for step in &self.members {
            let mut path = prefix.clone();
            path.push(step.clone());
            paths.push(path);
        }
        for (step, below) in &self.children {
            prefix.push(step.clone());
            below.collect_paths(prefix, paths);
            prefix.pop();
        }
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        fn rank(value: &Value) -> u8 {
            match value {
                Value::Number(_) => 0,
                Value::String(_) => 1,
                Value::Bool(_) => 2,
                Value::Array(_) => 3,
                Value::Object(_) => 4,
                Value::Null => 5,
            }
        }
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default()),
            },
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) => rank(a).cmp(&rank(b)).then_with(|| a.to_string().cmp(&b.to_string())),
        }
    }
}

/// Whether two values are the same to the API server: numbers by value, maps whatever their order.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => Scalar(a.clone()) == Scalar(b.clone()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn set(value: Value) -> FieldSet {
        FieldSet::parse(&value).expect("a field set")
    }

    #[test]
    fn a_set_is_written_as_it_was_read() {
        for value in [
            json!({"f:data": {"f:a": {}}}),
            json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {".": {}, "v:\"a.dev/x\"": {}}}}),
            json!({"f:spec": {"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}),
            json!({"f:list": {"i:3": {}}}),
        ] {
            assert_eq!(set(value.clone()).to_value(), value);
        }
    }

    #[test]
    fn what_is_no_field_set_is_refused() {
        assert!(matches!(FieldSet::parse(&json!([])), Err(FieldSetError::NotAnObject(_))));
        assert!(matches!(FieldSet::parse(&json!({"x": {}})), Err(FieldSetError::UnknownElement(_))));
        assert!(matches!(FieldSet::parse(&json!({"k:nonsense": {}})), Err(FieldSetError::UnknownElement(_))));
        let mut deep = json!({});
        for _ in 0..200 {
            deep = json!({ "f:a": deep });
        }
        assert_eq!(FieldSet::parse(&deep), Err(FieldSetError::TooDeep));
    }

    #[test]
    fn paths_read_as_in_the_servers_messages() {
        let set = set(
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {"f:image": {}}}, "f:finalizers": {"v:\"x\"": {}}}}),
        );
        let paths: Vec<_> = set.paths().iter().map(|path| display_path(path)).collect();
        assert_eq!(paths, [".spec.containers[name=\"web\"].image", ".spec.finalizers[=\"x\"]"]);
    }

    #[test]
    fn a_path_and_the_paths_below_it_are_independent() {
        let both = set(json!({"f:a": {".": {}, "f:b": {}}}));
        let parent = set(json!({"f:a": {}}));
        assert_eq!(both.difference(&parent), set(json!({"f:a": {"f:b": {}}})));
        assert_eq!(both.intersection(&parent), parent);
        assert!(both.without_subtrees(&parent).is_empty());
    }

    fn any_set() -> impl Strategy<Value = FieldSet> {
        prop::collection::vec(prop::collection::vec("[a-c]", 1..4), 0..8).prop_map(|paths| {
            let mut set = FieldSet::default();
            for path in paths {
                set.insert(&path.iter().map(|name| Step::field(name)).collect::<Vec<_>>());
            }
            set
        })
    }

    proptest! {
        #[test]
        fn the_algebra_holds(a in any_set(), b in any_set()) {
            let union = a.clone().union(&b);
            prop_assert_eq!(&union, &b.clone().union(&a));
            prop_assert_eq!(union.difference(&b), a.difference(&b));
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert_eq!(FieldSet::parse(&union.to_value()), Ok(union));
        }
    }
}
