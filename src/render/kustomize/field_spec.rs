//! Where a transformation writes: kustomize's field specs, its default tables, and how a path is followed.

use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use super::node::{Node, Scalar, Tag};
use super::resource::Gvk;

/// One place in the objects of some kinds. Lists on the way are entered without being named.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldSpec {
    #[serde(default)]
    pub group: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub path: String,
    #[serde(default)]
    pub create: bool,
}

/// Which fields hold the names of objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NameReference {
    #[serde(default)]
    pub group: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub field_specs: Vec<FieldSpec>,
}

/// The tables that transformations go by; a file named in `configurations` adds to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Tables {
    pub name_prefix: Vec<FieldSpec>,
    pub name_suffix: Vec<FieldSpec>,
    pub namespace: Vec<FieldSpec>,
    pub common_labels: Vec<FieldSpec>,
    pub labels: Vec<FieldSpec>,
    pub template_labels: Vec<FieldSpec>,
    pub common_annotations: Vec<FieldSpec>,
    pub name_reference: Vec<NameReference>,
    pub var_reference: Vec<FieldSpec>,
    pub images: Vec<FieldSpec>,
    pub replicas: Vec<FieldSpec>,
}

/// What is made where a path ends in nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Create {
    Never,
    Scalar(Tag),
    Map,
}

impl FieldSpec {
    pub fn selects(&self, gvk: &Gvk) -> bool {
        (self.kind.is_empty() || self.kind == gvk.kind)
            && (self.group.is_empty() || self.group == gvk.group)
            && (self.version.is_empty() || self.version == gvk.version)
    }

    fn selects_object(&self, object: &Node) -> bool {
        let text = |field: &str| object.text_at(&[field]).unwrap_or_default();
        let api_version = text("apiVersion");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        (self.kind.is_empty() || self.kind == text("kind"))
            && (self.group.is_empty() || self.group == group)
            && (self.version.is_empty() || self.version == version)
    }

    pub fn everywhere(path: &str) -> Self {
        let (group, version, kind) = Default::default();
        Self { group, version, kind, path: path.into(), create: true }
    }

    /// Calls `write` for each node that the path leads to in an object.
    pub fn visit(
        &self,
        object: &mut Node,
        create: Create,
        write: &mut dyn FnMut(&mut Node) -> Result<(), String>,
    ) -> Result<(), String> {
        if !self.selects_object(object) {
            return Ok(());
        }
        let create = if self.create { create } else { Create::Never };
        let path = split_path(&self.path, '/');
        walk(object, &path, create, write).map_err(|error| format!("field `{}`: {error}", self.path))
    }

    fn covers(&self, other: &FieldSpec) -> bool {
        let gvk = Gvk::new(&self.group, &self.version, &self.kind);
        other.selects(&gvk) && self.path == other.path
    }
}

fn walk(
    node: &mut Node,
    path: &[String],
    create: Create,
    write: &mut dyn FnMut(&mut Node) -> Result<(), String>,
) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else { return write(node) };
    match node {
        Node::List(items) => items.iter_mut().try_for_each(|item| walk(item, path, create, write)),
        Node::Map(_) => {
            let (name, is_list) = first.strip_suffix("[]").map_or((first.as_str(), false), |name| (name, true));
            if name.is_empty() {
                return Err("a field without a name".into());
            }
            if node.get(name).is_none_or(Node::is_null) {
                let made = match create {
                    Create::Never => return Ok(()),
                    _ if is_list => return Ok(()),
                    Create::Scalar(tag) if rest.is_empty() => Node::Scalar(Scalar::plain("", tag)),
                    _ => Node::Map(Vec::new()),
                };
                node.remove(name);
                node.set(name, made);
            }
            match node.get_mut(name) {
                Some(field) => walk(field, rest, create, write),
                None => Ok(()),
            }
        }
        Node::Scalar(scalar) if scalar.is_null() => Ok(()),
        Node::Scalar(_) => Err(format!("a mapping or a list was expected before `{first}`")),
    }
}

/// Splits a path; a separator after a backslash is part of a name.
pub fn split_path(path: &str, separator: char) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let path = if path.len() > 1 { path.strip_prefix(separator).unwrap_or(path) } else { path };
    for part in path.split(separator) {
        match parts.last_mut() {
            Some(last) if last.ends_with('\\') => {
                last.pop();
                last.push(separator);
                last.push_str(part);
            }
            _ => parts.push(part.to_owned()),
        }
    }
    parts
}

/// Adds specs that aren't covered yet.
pub fn merge(specs: &mut Vec<FieldSpec>, more: &[FieldSpec]) -> Result<(), String> {
    for spec in more {
        match specs.iter().find(|known| known.covers(spec)) {
            Some(known) if known.create != spec.create => {
                return Err(format!("field specs for `{}` contradict each other in `create`", spec.path));
            }
            Some(_) => {}
            None => specs.push(spec.clone()),
        }
    }
    Ok(())
}

impl Tables {
    /// Kustomize's own.
    pub fn defaults() -> Arc<Tables> {
        static DEFAULTS: LazyLock<Arc<Tables>> = LazyLock::new(|| Arc::new(super::tables::defaults()));
        DEFAULTS.clone()
    }

    pub fn merge(&mut self, more: &Tables) -> Result<(), String> {
        merge(&mut self.name_prefix, &more.name_prefix)?;
        merge(&mut self.name_suffix, &more.name_suffix)?;
        merge(&mut self.namespace, &more.namespace)?;
        merge(&mut self.common_labels, &more.common_labels)?;
        merge(&mut self.labels, &more.labels)?;
        merge(&mut self.template_labels, &more.template_labels)?;
        merge(&mut self.common_annotations, &more.common_annotations)?;
        merge(&mut self.var_reference, &more.var_reference)?;
        merge(&mut self.images, &more.images)?;
        merge(&mut self.replicas, &more.replicas)?;
        for reference in &more.name_reference {
            let same = |known: &&mut NameReference| {
                (&known.group, &known.version, &known.kind) == (&reference.group, &reference.version, &reference.kind)
            };
            match self.name_reference.iter_mut().find(same) {
                Some(known) => merge(&mut known.field_specs, &reference.field_specs)?,
                None => self.name_reference.push(reference.clone()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_after_a_backslash_is_part_of_a_name() {
        assert_eq!(split_path(r"metadata/annotations/a.b\/c", '/'), ["metadata", "annotations", "a.b/c"]);
        assert_eq!(split_path("/spec/x", '/'), ["spec", "x"]);
    }
}
