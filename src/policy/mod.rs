//! Policies: Kubernetes' ValidatingAdmissionPolicies, evaluated before anything reaches the cluster.
//!
//! ```text
//!  documents of --policies ─ compile ─▶ PolicySet ─ evaluate (Subject) ─▶ Findings: denied, warned of, noted
//! ```
//!
//! Comes in: documents, and one object at a time. Goes out: what the policies say. Pure and synchronous: no Kubernetes
//! client, no clock, no file system. A folder with anything wrong in it is refused as a whole; what can't be evaluated
//! is refused unless its policy says otherwise. Every evaluation is bounded in steps.

mod declared;
mod definition;
mod matching;
mod place;
mod repository;
mod resources;
mod set;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use definition::Action;
pub use place::place;
pub use repository::snapshot;
pub use resources::Resources;
pub use set::{Allowance, Document, PolicyError, PolicySet};

/// One object, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    /// The plural, as rules name it.
    pub resource: &'a str,
    pub namespaced: bool,
    pub object: &'a Value,
    /// The live object, where it is known: then it is an update.
    pub old_object: Option<&'a Value>,
    /// The Namespace that the object is in, where it is known.
    pub namespace_object: Option<&'a Value>,
    /// Who applies it, where that is known.
    pub user: Option<&'a User>,
}

/// Who sends a request, as an API server calls them; empty where that is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    pub username: String,
    pub groups: Vec<String>,
    pub uid: String,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A service account that somebody acts as.
    pub fn service_account(namespace: &str, name: &str) -> User {
        let all = "system:serviceaccounts".to_owned();
        let groups = vec![all.clone(), format!("{all}:{namespace}"), "system:authenticated".to_owned()];
        User { username: format!("system:serviceaccount:{namespace}:{name}"), groups, ..User::default() }
    }
}

impl<'a> Subject<'a> {
    pub fn operation(&self) -> &'static str {
        if self.old_object.is_some() { "UPDATE" } else { "CREATE" }
    }

    fn is_secret(&self) -> bool {
        self.group.is_empty() && self.kind == "Secret"
    }

    pub fn name(&self) -> &'a str {
        self.metadata("name")
    }

    pub fn namespace(&self) -> &'a str {
        self.metadata("namespace")
    }

    fn metadata(&self, field: &str) -> &'a str {
        self.object.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_str).unwrap_or_default()
    }
}

/// What a policy says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub policy: String,
    pub binding: String,
    pub action: Action,
    pub message: String,
    /// As in the answer of an API server: `Invalid`, `Forbidden`, …
    pub reason: String,
}

/// In the words of an API server.
impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let did = match self.action {
            Action::Deny => "denied request",
            Action::Warn => "warned",
            Action::Audit => "noted",
        };
        write!(f, "ValidatingAdmissionPolicy '{}' with binding '{}' {did}: {}", self.policy, self.binding, self.message)
    }
}

#[cfg(test)]
mod tests;
