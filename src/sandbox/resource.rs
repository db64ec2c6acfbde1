//! What the sandbox knows about one served resource: its names, scope and subresources.

use std::sync::Arc;

use super::definition::CustomVersion;
use super::typed::Schema;

/// The verbs of every resource that is stored.
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Which collection an object is stored in; the version is only a way of reading it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CollectionId {
    pub group: Arc<str>,
    pub plural: Arc<str>,
}

/// Where the objects of a kind that is served in two groups are stored: events, in the core group's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Stored,
    EventsGroup,
}

/// What counts as a change of what is asked for, and so bumps `metadata.generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The kind has no generation.
    None,
    /// Anything but metadata and status.
    Spec,
    /// Anything but metadata and status, and the annotations: Deployments copy them to their ReplicaSets.
    SpecAndAnnotations,
    /// Anything but metadata: a custom kind without the status subresource.
    All,
}

/// One resource in one served version.
#[derive(Debug)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub namespaced: bool,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    /// False for reviews: they are answered and forgotten.
    pub stored: bool,
    pub status: bool,
    pub scale: bool,
    pub generation: Generation,
    /// An update has to say which version it replaces.
    pub states_version: bool,
    /// An update of an object that isn't there creates it.
    pub created_by_update: bool,
    pub form: Form,
    pub collection: CollectionId,
    pub schema: Schema,
    /// Set for kinds that come from a CustomResourceDefinition.
    pub custom: Option<Arc<CustomVersion>>,
}

impl Resource {
    /// `group/version`, or `version` alone in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `plural.group`, or `plural` alone in the core group.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `Kind.group`, or `Kind` alone in the core group.
    pub fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }

    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    /// The served verbs.
    pub fn verbs(&self) -> Vec<&'static str> {
        let collection = self.stored && !self.is("", "namespaces");
        let serves = |verb: &&str| match *verb {
            "create" => true,
            "deletecollection" => collection,
            _ => self.stored,
        };
        VERBS.into_iter().filter(serves).collect()
    }

    /// The served subresources, by name.
    pub fn subresources(&self) -> impl Iterator<Item = &'static str> {
        let pod = self.is("", "pods");
        [(pod, "binding"), (pod, "eviction"), (self.scale, "scale"), (self.status, "status")]
            .into_iter()
            .filter(|(has, _)| *has)
            .map(|(_, name)| name)
    }
}

/// What a subresource exchanges, if that is not the resource's own kind: group, version and kind.
pub fn subresource_kind(name: &str) -> Option<(&'static str, &'static str, &'static str)> {
    match name {
        "binding" => Some(("", "v1", "Binding")),
        "eviction" => Some(("policy", "v1", "Eviction")),
        "scale" => Some(("autoscaling", "v1", "Scale")),
        _ => None,
    }
}

/// The verbs of a subresource.
pub fn subresource_verbs(name: &str) -> &'static [&'static str] {
    match name {
        "binding" | "eviction" => &["create"],
        _ => &["get", "patch", "update"],
    }
}
