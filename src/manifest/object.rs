//! One declared object and the place it was written at.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::identity::ObjectId;

/// Where an object or a part of it was written: a path inside the repository and a line in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Relative to the root of the repository, with `/`.
    pub path: Arc<str>,
    /// From 1; in a template's case the line of the rendered text.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.line)
    }
}

/// An object as rendered: `apiVersion`, `kind` and `metadata.name` are present and are strings.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub id: ObjectId,
    /// The version part of `apiVersion`.
    pub version: String,
    /// The whole object; its maps are sorted by key, so equal objects serialise equally.
    pub value: Value,
    pub origin: Origin,
}

impl Object {
    /// `group/version`, or `version` alone in the core group.
    pub fn api_version(&self) -> String {
        if self.id.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.id.group, self.version) }
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.value.get("metadata")?.get("annotations")?.get(key)?.as_str()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.value.get("metadata")?.get("labels")?.get(key)?.as_str()
    }
}
