//! The transformations that every object goes through: namespace, name, labels, annotations, images, replicas.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::budget::Budget;
use super::field_spec::{Create, FieldSpec, Tables, merge};
use super::file::{Image, Labels, Replica, Text};
use super::generate;
use super::node::{Node, Scalar, Tag, keep_style};
use super::regular;
use super::resource::{Gvk, Resource, twin};

type Outcome = Result<(), String>;

/// Writes a scalar over another, in its style.
fn write(node: &mut Node, scalar: Scalar) -> Outcome {
    let mut new = Node::Scalar(scalar);
    match node {
        Node::Scalar(_) => {
            keep_style(node, &mut new);
            *node = new;
            Ok(())
        }
        _ => Err("a scalar was expected".into()),
    }
}

/// Keys and values of labels or annotations.
pub type Pairs = BTreeMap<String, Text>;

/// `namespace`, and what a NamespaceTransformer can be told besides.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    pub namespace: String,
    pub specs: Vec<FieldSpec>,
    /// What has one keeps it.
    pub unset_only: bool,
    pub subjects: Subjects,
}

/// Which subjects of role bindings are put into the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Subjects {
    #[default]
    #[serde(rename = "defaultOnly", alias = "")]
    DefaultOnly,
    #[serde(rename = "allServiceAccounts")]
    AllServiceAccounts,
    #[serde(rename = "none")]
    None,
}

impl Namespace {
    pub fn of(namespace: &str, specs: &[FieldSpec]) -> Self {
        Self { namespace: namespace.into(), specs: specs.to_vec(), ..Self::default() }
    }

    fn write(&self, node: &mut Node) -> Outcome {
        if self.unset_only && node.text().is_some_and(|text| !text.is_empty()) && !node.is_null() {
            return Ok(());
        }
        write(node, Scalar::string(&self.namespace))
    }
}

pub fn namespace(all: &mut [Resource], wanted: &Namespace, budget: &Budget<'_>) -> Outcome {
    let namespace = &wanted.namespace;
    if namespace.is_empty() {
        return Ok(());
    }
    for resource in all.iter_mut() {
        budget.spend(namespace.len())?;
        resource.remember_id();
        put_into_namespace(resource, wanted)?;
    }
    match twin(all) {
        Some(id) => Err(format!("in namespace `{namespace}` two objects are `{id}`")),
        None => Ok(()),
    }
}

pub fn put_into_namespace(resource: &mut Resource, wanted: &Namespace) -> Outcome {
    let gvk = resource.gvk();
    if !resource.id().is_cluster_scoped() {
        let field = FieldSpec::everywhere("metadata/namespace");
        field.visit(&mut resource.node, Create::Scalar(Tag::Str), &mut |node| wanted.write(node))?;
    }
    let is_binding = matches!(gvk.kind.as_str(), "RoleBinding" | "ClusterRoleBinding");
    if is_binding {
        subjects(&mut resource.node, wanted)?;
    }
    let is_core = resource.node.text_at(&["apiVersion"]) == Some("v1");
    for spec in &wanted.specs {
        let is_subjects = is_binding
            && spec.path == "subjects/namespace"
            && matches!(spec.kind.as_str(), "RoleBinding" | "ClusterRoleBinding");
        if spec.path == "metadata/namespace" || is_subjects || (spec.path == "metadata/name" && !is_core) {
            continue;
        }
        spec.visit(&mut resource.node, Create::Scalar(Tag::Str), &mut |node| wanted.write(node))?;
    }
    Ok(())
}

/// The account `default` is the one of the binding's own namespace.
fn subjects(node: &mut Node, wanted: &Namespace) -> Outcome {
    let (field, value) = match wanted.subjects {
        Subjects::None => return Ok(()),
        Subjects::DefaultOnly => ("name", "default"),
        Subjects::AllServiceAccounts => ("kind", "ServiceAccount"),
    };
    let Some(Node::List(subjects)) = node.get_mut("subjects") else { return Ok(()) };
    for subject in subjects.iter_mut().filter(|subject| subject.get(field).and_then(Node::text) == Some(value)) {
        if subject.get("namespace").is_none_or(Node::is_null) {
            subject.remove("namespace");
            subject.set("namespace", Node::string(""));
        }
        if let Some(namespace) = subject.get_mut("namespace") {
            wanted.write(namespace)?;
        }
    }
    Ok(())
}

/// Before or after the name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Affix {
    Prefix,
    Suffix,
}

/// Kinds whose names mean something.
fn keeps_its_name(gvk: &Gvk) -> bool {
    gvk.kind == "CustomResourceDefinition"
        || gvk.kind == "Namespace"
        || (gvk.kind == "APIService" && gvk.group == "apiregistration.k8s.io")
}

pub fn affix(all: &mut [Resource], side: Affix, text: &str, specs: &[FieldSpec]) -> Outcome {
    for resource in all {
        let original = resource.original_id().gvk;
        if keeps_its_name(&original) {
            continue;
        }
        for spec in specs.iter().filter(|spec| spec.selects(&original)) {
            if spec.path == "metadata/name" {
                if text.is_empty() {
                    continue;
                }
                match side {
                    Affix::Prefix => resource.affixes.prefixes.push(text.to_owned()),
                    Affix::Suffix => resource.affixes.suffixes.push(text.to_owned()),
                }
                resource.remember_id();
            }
            spec.visit(&mut resource.node, Create::Scalar(Tag::Str), &mut |node| {
                let old = node.text().unwrap_or_default();
                let new = if side == Affix::Prefix { format!("{text}{old}") } else { format!("{old}{text}") };
                write(node, Scalar::plain(new, Tag::Any))
            })?;
        }
    }
    Ok(())
}

/// The fields that one entry of `labels` is written to.
pub fn label_fields(labels: &Labels, tables: &Tables) -> Result<Vec<FieldSpec>, String> {
    let mut specs = labels.fields.clone();
    merge(&mut specs, &tables.labels)?;
    if labels.include_selectors {
        merge(&mut specs, &tables.common_labels)?;
    } else {
        if labels.include_templates {
            merge(&mut specs, &tables.template_labels)?;
        }
        merge(&mut specs, &[FieldSpec::everywhere("metadata/labels")])?;
    }
    Ok(specs)
}

/// Sets entries of the mappings that the specs lead to. Entries that are made at once stay one, as in kustomize: what is
/// written into one of them later is written into all.
pub fn entries(all: &mut [Resource], pairs: &Pairs, specs: &[FieldSpec]) -> Outcome {
    for resource in all {
        for (key, value) in pairs {
            let new = resource.share(Scalar::string(&value.0));
            let mut is_over_others = false;
            for spec in specs {
                spec.visit(&mut resource.node, Create::Map, &mut |node| match node {
                    Node::Map(_) => {
                        let old = node.get(key).and_then(Node::scalar).map_or(0, |old| old.shared);
                        is_over_others |= old != 0 && old != new.shared;
                        node.set(key, Node::Scalar(new.clone()));
                        Ok(())
                    }
                    _ => Err("a mapping was expected".into()),
                })?;
            }
            if is_over_others {
                resource.settle();
            }
        }
    }
    Ok(())
}

pub fn image(all: &mut [Resource], image: &Image, specs: &[FieldSpec]) -> Outcome {
    let pattern = format!("^{}(:[a-zA-Z0-9_.{{}}-]*)?(@sha256:[a-zA-Z0-9_.{{}}-]*)?$", image.name);
    let pattern = regular::compile(&pattern).map_err(|_| format!("`{}` is not an image's name", image.name))?;
    for resource in all.iter_mut().filter(|resource| resource.gvk().kind != "CustomResourceDefinition") {
        // first wherever containers are, in any kind, then where the tables say
        containers(&mut resource.node, &mut |node| match node.text() {
            Some(text) if pattern.is_match(text) => {
                let new = renamed(text, image);
                write(node, Scalar::plain(new, Tag::Any))
            }
            _ => Ok(()),
        })?;
        for spec in specs {
            spec.visit(&mut resource.node, Create::Never, &mut |node| {
                let Some(text) = node.text() else { return Err("a scalar was expected".into()) };
                if !pattern.is_match(text) {
                    return Ok(());
                }
                let new = renamed(text, image);
                write(node, Scalar::plain(new, Tag::Any))
            })?;
        }
    }
    Ok(())
}

/// Calls `write` for the image of each container, wherever in an object containers are listed.
fn containers(node: &mut Node, write: &mut dyn FnMut(&mut Node) -> Outcome) -> Outcome {
    match node {
        Node::Scalar(_) => Ok(()),
        Node::List(items) => items.iter_mut().try_for_each(|item| containers(item, write)),
        Node::Map(entries) => entries.iter_mut().try_for_each(|(key, node)| {
            containers(node, write)?;
            match node {
                Node::List(items) if key == "containers" || key == "initContainers" => {
                    items.iter_mut().filter_map(|item| item.get_mut("image")).try_for_each(&mut *write)
                }
                _ => Ok(()),
            }
        }),
    }
}

fn renamed(text: &str, image: &Image) -> String {
    let (name, mut tag, mut digest) = split_image(text);
    let mut result = if image.new_name.is_empty() { name.to_owned() } else { image.new_name.clone() };
    let suffixed = format!("{tag}{}", image.tag_suffix);
    match (image.new_tag.as_str(), image.digest.as_str()) {
        ("", "") if !image.tag_suffix.is_empty() => (tag, digest) = (&suffixed, ""),
        ("", "") => {}
        (new_tag, new_digest) => (tag, digest) = (new_tag, new_digest),
    }
    for (separator, part) in [(':', tag), ('@', digest)] {
        if !part.is_empty() {
            result.push(separator);
            result.push_str(part);
        }
    }
    result
}

/// Name, tag and digest. A colon before the first slash is a port.
fn split_image(text: &str) -> (&str, &str, &str) {
    let host = text.find('/').filter(|at| *at > 0).unwrap_or(0);
    let find = |c: char| text[host..].find(c).map(|at| at + host);
    match (find(':'), find('@')) {
        (None, None) => (text, "", ""),
        (colon, Some(at)) if colon.is_none_or(|colon| at < colon) => (&text[..at], "", &text[at + 1..]),
        (Some(colon), Some(at)) => (&text[..colon], &text[colon + 1..at], &text[at + 1..]),
        (Some(colon), None) => (&text[..colon], &text[colon + 1..], ""),
        (None, Some(at)) => (&text[..at], "", &text[at + 1..]),
    }
}

pub fn replicas(all: &mut [Resource], replica: &Replica, specs: &[FieldSpec]) -> Outcome {
    let mut found = false;
    for spec in specs {
        for resource in all.iter_mut().filter(|r| r.any_id(|id| id.name == replica.name && spec.selects(&id.gvk))) {
            found = true;
            spec.visit(&mut resource.node, Create::Scalar(Tag::Int), &mut |node| {
                write(node, Scalar::plain(replica.count.to_string(), Tag::Int))
            })?;
        }
    }
    if found {
        return Ok(());
    }
    let kinds: Vec<&str> = specs.iter().map(|spec| spec.kind.as_str()).collect();
    Err(format!("there is no `{}` among the kinds that have replicas: {}", replica.name, kinds.join(", ")))
}

/// The hash of a generated object goes into its name.
pub fn add_hash(resource: &mut Resource) -> Outcome {
    if resource.needs_hash {
        let hash = generate::hash(resource)?;
        resource.remember_id();
        let name = format!("{}-{hash}", resource.name());
        resource.set_name(&name);
    }
    Ok(())
}
