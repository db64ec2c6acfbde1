//! The order in which kinds are applied: what others need comes first. Deletion goes the other way round.

use crate::manifest::ObjectId;

/// Objects of one stage may be applied at the same time; a stage begins when the one before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// What other objects live in or are instances of.
    Definitions,
    /// StorageClass, IngressClass and whatever else is referenced by name by all.
    Classes,
    /// What workloads read, run as and are reached by.
    Configuration,
    Workloads,
    /// Custom resources, Ingress, autoscalers and all others.
    Rest,
    /// What intercepts requests: its own server must run first.
    Webhooks,
}

impl Stage {
    pub const ALL: [Stage; 6] =
        [Self::Definitions, Self::Classes, Self::Configuration, Self::Workloads, Self::Rest, Self::Webhooks];
}

pub fn stage_of(id: &ObjectId) -> Stage {
    match (id.group.as_str(), id.kind.as_str()) {
        ("apiextensions.k8s.io", "CustomResourceDefinition")
        | ("", "Namespace")
        | ("rbac.authorization.k8s.io", "ClusterRole") => Stage::Definitions,
        (
            "",
            "ConfigMap"
            | "Secret"
            | "ServiceAccount"
            | "Service"
            | "Endpoints"
            | "PersistentVolume"
            | "PersistentVolumeClaim"
            | "LimitRange"
            | "ResourceQuota",
        )
        | ("discovery.k8s.io", "EndpointSlice")
        | ("networking.k8s.io", "NetworkPolicy")
        | ("rbac.authorization.k8s.io", _) => Stage::Configuration,
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job" | "CronJob")
        | ("", "Pod" | "ReplicationController") => Stage::Workloads,
        ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Stage::Webhooks,
        (_, kind) if kind.ends_with("Class") => Stage::Classes,
        _ => Stage::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_need_comes_first() {
        let cases = [
            ("apiextensions.k8s.io", "CustomResourceDefinition", Stage::Definitions),
            ("", "Namespace", Stage::Definitions),
            ("rbac.authorization.k8s.io", "ClusterRole", Stage::Definitions),
            ("storage.k8s.io", "StorageClass", Stage::Classes),
            ("gateway.networking.k8s.io", "GatewayClass", Stage::Classes),
            ("rbac.authorization.k8s.io", "ClusterRoleBinding", Stage::Configuration),
            ("", "Secret", Stage::Configuration),
            ("", "PersistentVolumeClaim", Stage::Configuration),
            ("apps", "StatefulSet", Stage::Workloads),
            ("batch", "Job", Stage::Workloads),
            ("networking.k8s.io", "Ingress", Stage::Rest),
            ("autoscaling", "HorizontalPodAutoscaler", Stage::Rest),
            ("example.org", "Deployment", Stage::Rest),
            ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", Stage::Webhooks),
        ];
        for (group, kind, stage) in cases {
            assert_eq!(stage_of(&ObjectId::new(group, kind, "", "a")), stage, "{group}/{kind}");
        }
        assert!(Stage::ALL.is_sorted());
    }
}
