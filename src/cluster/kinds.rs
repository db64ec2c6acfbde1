//! The kinds that Afresh asks for by name, without discovery: its own, and the few built-in ones it reads or makes.

use super::discovery::ApiKind;
use crate::manifest::ObjectId;

/// The group of Alert and Provider; not every cluster has it.
pub const NOTIFICATION_GROUP: &str = "notification.toolkit.fluxcd.io";

impl ApiKind {
    pub fn git_repository() -> Self {
        Self::new("source.toolkit.fluxcd.io", "v1", "GitRepository", "gitrepositories", true)
    }

    pub fn kustomization() -> Self {
        Self::new("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "kustomizations", true)
    }

    pub fn alert() -> Self {
        Self::new(NOTIFICATION_GROUP, "v1beta3", "Alert", "alerts", true)
    }

    pub fn provider() -> Self {
        Self::new(NOTIFICATION_GROUP, "v1beta3", "Provider", "providers", true)
    }

    pub fn secret() -> Self {
        Self::new("", "v1", "Secret", "secrets", true)
    }

    pub fn config_map() -> Self {
        Self::new("", "v1", "ConfigMap", "configmaps", true)
    }

    pub fn namespace() -> Self {
        Self::new("", "v1", "Namespace", "namespaces", false)
    }

    pub fn replica_set() -> Self {
        Self::new("apps", "v1", "ReplicaSet", "replicasets", true)
    }

    pub fn controller_revision() -> Self {
        Self::new("apps", "v1", "ControllerRevision", "controllerrevisions", true)
    }

    pub fn lease() -> Self {
        Self::new("coordination.k8s.io", "v1", "Lease", "leases", true)
    }

    pub fn event() -> Self {
        Self::new("", "v1", "Event", "events", true)
    }

    /// The identity of an object of this kind; `namespace` is empty for one that has none.
    pub fn object(&self, namespace: impl Into<String>, name: impl Into<String>) -> ObjectId {
        ObjectId::new(&*self.group, &*self.kind, namespace, name)
    }
}
