//! The kinds that Afresh serves: Flux's, with Flux's conditions, reasons, labels and finalizer, so that a cluster
//! moves from Flux to Afresh and back.
//!
//! Every field of Flux's schema is here. A field that is not served yet is carried as free-form JSON, so that the API
//! server never drops it, and `unserved` names it once it is set to more than its default.

mod alert;
mod condition;
mod definitions;
mod duration;
mod git_repository;
mod kustomization;
mod label_selector;
mod provider;
mod receiver;
pub mod service_account;

pub use alert::{Alert, AlertSpec, EventSeverity, EventSource};
pub use condition::{Condition, Conditions, HEALTHY, READY, RECONCILING, STALLED, Truth, rfc3339};
pub use definitions::{definitions, definitions_yaml};
pub use duration::GoDuration;
pub use git_repository::{
    Artifact, GitRepository, GitRepositorySpec, GitRepositoryStatus, IncludeSpec, LocalReference, RefSpec,
};
pub use kustomization::{
    BuildMetadata, CommonMetadata, DeletionPolicy, Dependency, HealthCheck, HealthCheckExpression, IgnoreRule, Image,
    Inventory, InventoryEntry, Kustomization, KustomizationSpec, KustomizationStatus, Patch, PatchTarget, PostBuild,
    Snapshot as HistoryEntry, SourceReference, SubstituteReference, SubstituteStrategy,
};
pub use label_selector::{LabelSelector, SelectorError};
pub use provider::{Provider, ProviderSpec};
pub use receiver::{RECEIVER_PATH, Receiver, ReceiverResource, ReceiverSpec, ReceiverStatus, receiver_path};

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Label: the Kustomization that owns an object.
pub const OWNER_NAME_LABEL: &str = "kustomize.toolkit.fluxcd.io/name";
/// Label: the namespace of the Kustomization that owns an object.
pub const OWNER_NAMESPACE_LABEL: &str = "kustomize.toolkit.fluxcd.io/namespace";
/// `disabled`: the object is never deleted by us.
pub const PRUNE: &str = "kustomize.toolkit.fluxcd.io/prune";
/// `Override`, `Merge`, `IfNotPresent` or `Ignore`.
pub const SSA: &str = "kustomize.toolkit.fluxcd.io/ssa";
/// `disabled`: neither applied nor deleted by us.
pub const RECONCILE: &str = "kustomize.toolkit.fluxcd.io/reconcile";
/// `enabled`: the object is deleted and created anew where it can't be changed in place.
pub const FORCE: &str = "kustomize.toolkit.fluxcd.io/force";
/// `flux`: the object is of Flux's own installation.
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// Any new value asks for a reconciliation now; echoed in `status.lastHandledReconcileAt`.
pub const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";
/// On a source, beside that: `<its value> <commit>`, or `gone`: what a webhook said that will be seen there.
pub const EXPECTED: &str = "afresh.dev/expected";
/// Held by every Kustomization that we serve, so that deleting it cleans up first.
pub const FINALIZER: &str = "finalizers.fluxcd.io";
/// The digest of an object as we last sent it.
pub const DESIRED: &str = "afresh.dev/desired";
/// On a workload, its Namespace or its Kustomization: `on-config-change` or `never`.
pub const ROLLOUT: &str = "afresh.dev/rollout";
/// On an object, in Git or live, or its Kustomization: `correct`, `warn` or `off`.
pub const DRIFT: &str = "afresh.dev/drift";
/// The condition of a Kustomization whose objects others have changed and that are not put back, or not at once.
pub const DRIFT_CONDITION: &str = "afresh.dev/Drift";
/// On a pod template: the hash of the configuration that its Pods read.
pub const CONFIG_HASH: &str = "afresh.dev/config-hash";
/// On a workload: what its Pods have read, as digests.
pub const CONFIG: &str = "afresh.dev/config";
/// Annotations of this prefix on an object go into the metadata of its notifications.
pub const EVENT_METADATA_PREFIX: &str = "event.toolkit.fluxcd.io/";
/// On a Kustomization, and on a CustomResourceDefinition for itself: `<revision>` whose guarded deletions a person has
/// agreed to.
pub const CONFIRM_PRUNE: &str = "afresh.dev/confirm-prune";
/// On an object that may hold data: `<revision>` for which a person has agreed to its being created anew.
pub const CONFIRM_RECREATE: &str = "afresh.dev/confirm-recreate";
/// On a Kustomization: `before-health` deletes before the health checks.
pub const PRUNE_WHEN: &str = "afresh.dev/prune";
/// On a Kustomization: our own bounded state.
pub const STATE: &str = "afresh.dev/state";
/// On a Kustomization: `<namespace>/<name>` of the Lease whose holder serves it, where several instances share the work.
pub const HELD_BY: &str = "afresh.dev/held-by";

/// The manager of declared objects (server-side apply).
pub const APPLY_MANAGER: &str = "kustomize-controller";
/// Where `kubectl apply` on the client's side keeps the whole object that it applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager of status and finalizers.
pub const STATUS_MANAGER: &str = "gotk-kustomize-controller";

/// The name of one of our own objects. Cheap to clone: all that know an object share it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<NamespacedName>);

#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self(Arc::new(NamespacedName { namespace: namespace.into(), name: name.into() }))
    }

    /// Of an object as the API server sends it.
    pub fn of(object: &serde_json::Value) -> Self {
        let text = |pointer| object.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default();
        Self::new(text("/metadata/namespace"), text("/metadata/name"))
    }
}

impl Deref for Key {
    type Target = NamespacedName;

    fn deref(&self) -> &NamespacedName {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// True if a carried, unserved field is set to more than nothing.
fn is_set(value: &Option<serde_json::Value>) -> bool {
    use serde_json::Value;
    match value {
        None | Some(Value::Null) | Some(Value::Bool(false)) => false,
        Some(Value::String(s)) => !s.is_empty(),
        Some(Value::Array(a)) => !a.is_empty(),
        Some(Value::Object(o)) => !o.is_empty(),
        Some(_) => true,
    }
}

/// Schema of a field that is carried but not served: anything, kept whole.
fn carried(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}
