//! `buildMetadata`: notes on each object that say where it came from and what changed it.
//!
//! The notes are annotations from the first step on, as in kustomize, so that patches and replacements see them; those
//! that nobody asked for go at the end.

use serde_json::Value;

use super::file::{Kustomization, Metadata};
use super::node::Node;
use super::resource::Resource;
use crate::manifest::yaml;

const ORIGIN: &str = "config.kubernetes.io/origin";
const TRANSFORMATIONS: &str = "alpha.config.kubernetes.io/transformations";
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "kustomize-v5.8.1");

/// A file, or what a kustomization or a file of configuration made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// From the directory that is built; `..` climbs from there.
    pub path: String,
    /// Of a remote base.
    pub repo: String,
    pub reference: String,
    pub configured_in: String,
    pub configured_by: Option<Configuration>,
}

/// The object that configures a generator or a transformer; one of a kustomization's fields has no name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

impl Origin {
    /// Of what is named by `path` here.
    pub fn join(&self, path: &str) -> Self {
        Self { path: clean(&format!("{}/{path}", self.path)), ..self.clone() }
    }

    /// Of what the builtin `kind` makes, by a field of the file `name` here.
    pub fn by_field(&self, name: &str, kind: &str) -> Self {
        self.join(name).by(Configuration {
            api_version: "builtin".into(),
            kind: kind.into(),
            ..Configuration::default()
        })
    }

    /// Of what a configuration in this file makes.
    pub fn by(self, configuration: Configuration) -> Self {
        Self { configured_in: self.path, path: String::new(), configured_by: Some(configuration), ..self }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |indent: &str, name: &str, value: &str| {
            if !value.is_empty() {
                text.push_str(&format!("{indent}{name}: {}", yaml::write(&Value::String(value.to_owned()))));
            }
        };
        line("", "path", &self.path);
        line("", "repo", &self.repo);
        line("", "ref", &self.reference);
        line("", "configuredIn", &self.configured_in);
        if let Some(by) = &self.configured_by {
            text.push_str("configuredBy:\n");
            let mut line = |name: &str, value: &str| {
                if !value.is_empty() {
                    text.push_str(&format!("  {name}: {}", yaml::write(&Value::String(value.to_owned()))));
                }
            };
            line("apiVersion", &by.api_version);
            line("kind", &by.kind);
            line("name", &by.name);
            line("namespace", &by.namespace);
        }
        text
    }

    pub fn note(&self, resource: &mut Resource) {
        annotate(resource, ORIGIN, self.text());
    }

    /// What a generator made may say itself where it came from.
    pub fn note_unless_known(&self, resource: &mut Resource) {
        if note_of(resource, ORIGIN).is_none() {
            self.note(resource);
        }
    }

    /// Notes a change; what has no origin was made by what changed it.
    pub fn note_change(&self, all: &mut [Resource]) {
        let text = self.text();
        let mut item = String::new();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            item.push_str(if index == 0 { "- " } else { "  " });
            item.push_str(line);
        }
        for resource in all {
            if note_of(resource, ORIGIN).is_none() {
                annotate(resource, ORIGIN, text.clone());
            } else {
                let before = note_of(resource, TRANSFORMATIONS).unwrap_or_default();
                annotate(resource, TRANSFORMATIONS, before + &item);
            }
        }
    }
}

/// Where a file's object came from, as it was noted.
pub fn of(resource: &Resource) -> Origin {
    let text = note_of(resource, ORIGIN).unwrap_or_default();
    let line = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    Origin { path: line("path"), repo: line("repo"), reference: line("ref"), ..Origin::default() }
}

/// The note of the object that another one is merged with stays.
pub fn keep(made: &mut Resource, old: &Resource) {
    if let Some(origin) = note_of(old, ORIGIN) {
        annotate(made, ORIGIN, origin);
    }
}

/// The last step: what `buildMetadata` of the root asks for stays.
pub fn finish(root: &Kustomization, all: &mut [Resource]) {
    let wants = |wanted: Metadata| root.build_metadata.contains(&wanted);
    for resource in all {
        if wants(Metadata::ManagedByLabel)
            && let Some(labels) = resource.node.map_at("metadata").and_then(|metadata| metadata.map_at("labels"))
        {
            labels.set(MANAGED_BY.0, Node::string(MANAGED_BY.1));
        }
        let Some(annotations) = resource.node.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"))
        else {
            continue;
        };
        if !wants(Metadata::OriginAnnotations) {
            annotations.remove(ORIGIN);
        }
        if !wants(Metadata::TransformerAnnotations) {
            annotations.remove(TRANSFORMATIONS);
        }
    }
}

fn note_of(resource: &Resource, key: &str) -> Option<String> {
    resource.node.text_at(&["metadata", "annotations", key]).map(str::to_owned)
}

fn annotate(resource: &mut Resource, key: &str, text: String) {
    let annotations = resource.node.map_at("metadata").and_then(|metadata| metadata.map_at("annotations"));
    if let Some(annotations) = annotations {
        annotations.set(key, Node::string(text));
    }
}

/// A relative path without `.` and without `..` behind a name.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_from_the_directory_that_is_built() {
        let root = Origin::default();
        for (steps, wanted) in [
            (&["a.yaml"][..], "a.yaml"),
            (&["../base", "x/./d.yaml"], "../base/x/d.yaml"),
            (&["../base", "../../other", "d.yaml"], "../../other/d.yaml"),
            (&["a/b", "../c/", "d.yaml"], "a/c/d.yaml"),
        ] {
            let origin = steps.iter().fold(root.clone(), |origin, step| origin.join(step));
            assert_eq!(origin.path, wanted, "{steps:?}");
        }
    }
}
