//! An object between kustomize's steps: what it is, what it was called before, and the list of all of them.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::budget::Budget;
use super::node::{Node, Scalar, Tag};
use super::selector::Selector;
use crate::render::objects::Place;
use crate::render::scope;

/// Group, version and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gvk {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl Gvk {
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    pub fn parse(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self::new(group, version, kind)
    }

    /// Whether it is what a partial one asks for.
    pub fn is(&self, wanted: &Gvk) -> bool {
        (wanted.group.is_empty() || wanted.group == self.group)
            && (wanted.version.is_empty() || wanted.version == self.version)
            && (wanted.kind.is_empty() || wanted.kind == self.kind)
    }
}

/// What an object says it is.
pub fn gvk_of(node: &Node) -> Gvk {
    Gvk::parse(node.text_at(&["apiVersion"]).unwrap_or_default(), node.text_at(&["kind"]).unwrap_or_default())
}

/// Objects without a namespace go by this one, those without the possibility of one by none.
const NOWHERE: &str = "default";
const CLUSTER: &str = "_non_namespaceable_";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    pub gvk: Gvk,
    pub name: String,
    /// As written; [`Id::namespace`] is what counts.
    pub written_namespace: String,
    is_cluster_scoped: bool,
}

impl Id {
    pub fn new(gvk: Gvk, name: &str, namespace: &str) -> Self {
        let is_cluster_scoped = scope::is_cluster_scoped(&gvk.group, &gvk.kind);
        Self { gvk, name: name.into(), written_namespace: namespace.into(), is_cluster_scoped }
    }

    pub fn namespace(&self) -> &str {
        match self.written_namespace.as_str() {
            _ if self.is_cluster_scoped => CLUSTER,
            "" => NOWHERE,
            namespace => namespace,
        }
    }

    pub fn is_cluster_scoped(&self) -> bool {
        self.is_cluster_scoped
    }

    /// Whether both mean one object.
    pub fn same(&self, other: &Id) -> bool {
        self.gvk == other.gvk && self.name == other.name && self.namespace() == other.namespace()
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.written_namespace.as_str() {
            "" | CLUSTER => write!(f, "{}/{}", self.gvk.kind, self.name),
            namespace => write!(f, "{}/{namespace}/{}", self.gvk.kind, self.name),
        }
    }
}

/// What a generated object does to one that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    #[default]
    Create,
    Replace,
    Merge,
}

/// What was put around a name, in order.
#[derive(Clone, Debug, Default)]
pub struct Affixes {
    pub prefixes: Vec<String>,
    pub suffixes: Vec<String>,
}

impl Affixes {
    fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.suffixes.is_empty()
    }

    /// Whether both names were given the same. `allow_none`: or one of them none.
    pub fn same(&self, other: &Affixes, allow_none: bool) -> bool {
        let same = |a: &[String], b: &[String]| match a.is_empty() || b.is_empty() {
            true => allow_none || a.len() == b.len(),
            false => a.ends_with(b) || b.ends_with(a),
        };
        same(&self.prefixes, &other.prefixes) && same(&self.suffixes, &other.suffixes)
    }
}

#[derive(Clone, Debug)]
pub struct Resource {
    pub node: Node,
    pub place: Place,
    /// What it was called before each change of its name or namespace.
    previous: Vec<Id>,
    pub affixes: Affixes,
    pub behaviour: Behaviour,
    pub needs_hash: bool,
    pub may_change_name: bool,
    pub may_change_kind: bool,
    /// The names of the variables that it has the values of.
    pub variables: Vec<String>,
    /// What scalars that are one say, by their number less one.
    shared: Vec<Scalar>,
}

impl Resource {
    pub fn new(node: Node, place: Place) -> Self {
        Self {
            node,
            place,
            previous: Vec::new(),
            affixes: Affixes::default(),
            behaviour: Behaviour::Create,
            needs_hash: false,
            may_change_name: false,
            may_change_kind: false,
            variables: Vec::new(),
            shared: Vec::new(),
        }
    }

    /// A scalar of which all copies in the object are one.
    pub fn share(&mut self, scalar: Scalar) -> Scalar {
        let scalar = Scalar { shared: self.shared.len() + 1, ..scalar };
        self.shared.push(scalar.clone());
        scalar
    }

    /// Scalars that are one say the same again, after some of them were written.
    pub fn settle(&mut self) {
        if self.shared.is_empty() {
            return;
        }
        let mut written: HashMap<usize, Scalar> = HashMap::new();
        self.node.each_shared(&mut |scalar| {
            if self.shared.get(scalar.shared - 1).is_some_and(|known| known != scalar) {
                written.insert(scalar.shared, scalar.clone());
            }
        });
        if written.is_empty() {
            return;
        }
        self.node.each_shared(&mut |scalar| {
            if let Some(new) = written.get(&scalar.shared) {
                scalar.clone_from(new);
            }
        });
        for (number, new) in written {
            self.shared[number - 1] = new;
        }
    }

    /// Another object in its place, of which nothing is one.
    pub fn replace(&mut self, node: Node) {
        self.node = node;
        self.shared.clear();
    }

    pub fn gvk(&self) -> Gvk {
        gvk_of(&self.node)
    }

    pub fn name(&self) -> &str {
        self.node.text_at(&["metadata", "name"]).unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.node.text_at(&["metadata", "namespace"]).unwrap_or_default()
    }

    pub fn set_name(&mut self, name: &str) {
        if let Some(metadata) = self.node.map_at("metadata") {
            metadata.set("name", Node::string(name));
        }
    }

    pub fn set_namespace(&mut self, namespace: &str) {
        let Some(metadata) = self.node.map_at("metadata") else { return };
        if namespace.is_empty() {
            metadata.remove("namespace");
        } else {
            metadata.set("namespace", Node::string(namespace));
        }
    }

    pub fn id(&self) -> Id {
        Id::new(self.gvk(), self.name(), self.namespace())
    }

    /// Its earlier names, with the group and version it has now.
    pub fn previous_ids(&self) -> impl Iterator<Item = Id> {
        let now = self.gvk();
        self.previous.iter().map(move |id| Id {
            gvk: Gvk { kind: id.gvk.kind.clone(), ..now.clone() },
            name: id.name.clone(),
            written_namespace: id.written_namespace.clone(),
            is_cluster_scoped: false,
        })
    }

    /// What it was called at first.
    pub fn original_id(&self) -> Id {
        self.previous_ids().next().unwrap_or_else(|| self.id())
    }

    pub fn any_id(&self, wanted: impl Fn(&Id) -> bool) -> bool {
        self.previous_ids().any(|id| wanted(&id)) || wanted(&self.id())
    }

    pub fn is_or_was(&self, wanted: &Id) -> bool {
        let is_called_so = self.name() == wanted.name || self.previous.iter().any(|id| id.name == wanted.name);
        is_called_so && self.any_id(|id| id.same(wanted))
    }

    /// Called before a change of name or namespace.
    pub fn remember_id(&mut self) {
        let mut id = self.id();
        id.written_namespace = id.namespace().to_owned();
        self.previous.push(id);
    }

    /// Kustomize's own notes live among the annotations: something noted means that there are annotations.
    pub fn has_notes(&self) -> bool {
        !self.previous.is_empty() || self.needs_hash || !self.affixes.is_empty()
    }

    pub fn text_map(&self, field: &str) -> Vec<(String, String)> {
        match self.node.at(&["metadata", field]) {
            Some(Node::Map(entries)) => {
                entries.iter().map(|(key, node)| (key.clone(), node.text().unwrap_or_default().to_owned())).collect()
            }
            _ => Vec::new(),
        }
    }

    /// As it is written: annotations are text, and none is no mapping.
    pub fn written(&self) -> Result<Value, String> {
        let mut node = self.node.clone();
        if let Some(metadata) = node.get_mut("metadata") {
            match metadata.get_mut("annotations") {
                Some(Node::Map(entries)) if !entries.is_empty() => {
                    for (_, node) in entries {
                        if let Node::Scalar(scalar) = node {
                            scalar.tag = Tag::Str;
                        }
                    }
                }
                _ => drop(metadata.remove("annotations")),
            }
        }
        node.value()
    }

    /// Takes over what the object that it replaces was called.
    pub fn take_history(&mut self, old: &Resource) {
        self.previous.clone_from(&old.previous);
        self.affixes.clone_from(&old.affixes);
        self.variables.clone_from(&old.variables);
    }
}

/// Resources by name, while nothing but new ones comes to a list.
#[derive(Default)]
pub struct Names(HashMap<String, Vec<usize>>);

impl Names {
    pub fn of(all: &[Resource]) -> Self {
        let mut names = Self::default();
        for (index, resource) in all.iter().enumerate() {
            names.0.entry(resource.name().to_owned()).or_default().push(index);
        }
        names
    }

    /// Adds a resource whose identity is not there yet; else tells the index of the one that has it.
    pub fn append(&mut self, all: &mut Vec<Resource>, resource: Resource) -> Result<(), usize> {
        let id = resource.id();
        let known = self.0.entry(id.name.clone()).or_default();
        if let Some(index) = known.iter().find(|index| all[**index].id().same(&id)) {
            return Err(*index);
        }
        known.push(all.len());
        all.push(resource);
        Ok(())
    }
}

/// An identity that two of them have.
pub fn twin(all: &[Resource]) -> Option<Id> {
    let mut seen = HashSet::new();
    all.iter().map(Resource::id).find(|id| !seen.insert((id.gvk.clone(), id.name.clone(), id.namespace().to_owned())))
}

/// The one resource that has, or had, an identity.
pub fn find(all: &[Resource], id: &Id) -> Result<usize, String> {
    let mut found = all.iter().enumerate().filter(|(_, resource)| resource.is_or_was(id));
    let Some((index, _)) = found.next() else { return Err(missing(all, id)) };
    match found.next() {
        None => Ok(index),
        Some(_) => Err(format!("more than one object is, or was, `{id}`")),
    }
}

/// Names shown of those that are there.
const SHOWN_MAX: usize = 5;

fn missing(all: &[Resource], id: &Id) -> String {
    let mut near: Vec<String> = all
        .iter()
        .map(Resource::id)
        .filter(|other| other.gvk.kind == id.gvk.kind)
        .map(|other| other.to_string())
        .collect();
    if near.is_empty() {
        near =
            all.iter().map(Resource::id).filter(|other| other.name == id.name).map(|other| other.to_string()).collect();
    }
    near.truncate(SHOWN_MAX);
    match near.is_empty() {
        true => format!("there is no `{id}`"),
        false => format!("there is no `{id}`, but `{}`", near.join("`, `")),
    }
}

/// The resources that a selector means, by their present or first names.
pub fn select(all: &[Resource], selector: &Selector, budget: &Budget<'_>) -> Result<Vec<usize>, String> {
    let matcher = selector.compile()?;
    let meant = |resource: &Resource| {
        if !matcher.gvk(&resource.gvk()) {
            return false;
        }
        let (now, first) = (resource.id(), resource.original_id());
        (matcher.namespace(first.namespace()) || matcher.namespace(now.namespace()))
            && (matcher.name(&first.name) || matcher.name(&now.name))
            && matcher.labels(&resource.text_map("labels"))
            && matcher.annotations(&resource.text_map("annotations"))
    };
    let mut found = Vec::new();
    for (index, resource) in all.iter().enumerate() {
        budget.go_on()?;
        if meant(resource) {
            found.push(index);
        }
    }
    Ok(found)
}
