//! The built-in resources that the sandbox serves: those of the type table, and what the table does not say of them.

use std::sync::{Arc, LazyLock};

use super::resource::{CollectionId, Form, Generation, Resource};
use super::typed::{KindInfo, Schema};

/// Kinds whose objects have no generation. All others count changes of what is asked for.
const WITHOUT_GENERATION: [&str; 33] = [
    "APIService",
    "CSIDriver",
    "CSINode",
    "CSIStorageCapacity",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "ControllerRevision",
    "Endpoints",
    "Event",
    "HorizontalPodAutoscaler",
    "IPAddress",
    "Lease",
    "LimitRange",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "ResourceClaim",
    "ResourceClaimTemplate",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "RuntimeClass",
    "Secret",
    "Service",
    "ServiceAccount",
    "ServiceCIDR",
    "StorageClass",
    "VolumeAttachment",
    "VolumeAttributesClass",
    "Workload",
];

/// Kinds whose updates have to say which version they replace: found out by asking a real server for each kind.
const STATING_VERSION: [&str; 15] = [
    "APIService",
    "CSIDriver",
    "CSINode",
    "CSIStorageCapacity",
    "CustomResourceDefinition",
    "Lease",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "PodDisruptionBudget",
    "RuntimeClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
];

/// Kinds whose objects an update creates where there are none; found out in the same way.
const CREATED_BY_UPDATE: [&str; 10] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "Endpoints",
    "Event",
    "Lease",
    "LimitRange",
    "Role",
    "RoleBinding",
    "RuntimeClass",
    "Service",
];

static RESOURCES: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(|| {
    Schema::builtin_kinds().filter(|kind| is_stored(kind) || is_review(kind)).filter_map(resource_of).collect()
});

fn is_review(kind: &KindInfo) -> bool {
    &*kind.group == "authorization.k8s.io"
}

/// Bindings and component states are of no use here.
fn is_stored(kind: &KindInfo) -> bool {
    kind.verbs.iter().any(|verb| verb.as_ref() == "watch")
}

/// All built-in resources, by group.
pub fn resources() -> &'static [Arc<Resource>] {
    &RESOURCES
}

/// A built-in resource that is known to be in the table.
pub fn resource(group: &str, plural: &str) -> Arc<Resource> {
    let found = RESOURCES.iter().find(|r| r.is(group, plural));
    Arc::clone(found.unwrap_or_else(|| panic!("`{plural}` of `{group}` is not in the table of built-in resources")))
}

fn resource_of(info: &'static KindInfo) -> Option<Arc<Resource>> {
    let events_group = &*info.group == "events.k8s.io";
    let has = |name: &str| info.subresources.iter().any(|s| s.as_ref() == name);
    let words = |list: &[Box<str>]| list.iter().map(ToString::to_string).collect();
    let generation = match info.kind.as_ref() {
        "Deployment" => Generation::SpecAndAnnotations,
        kind if WITHOUT_GENERATION.contains(&kind) => Generation::None,
        _ => Generation::Spec,
    };
    Some(Arc::new(Resource {
        group: info.group.to_string(),
        version: info.version.to_string(),
        plural: info.plural.to_string(),
        singular: info.singular.to_string(),
        kind: info.kind.to_string(),
        list_kind: format!("{}List", info.kind),
        namespaced: info.namespaced,
        short_names: words(&info.short_names),
        categories: words(&info.categories),
        stored: is_stored(info),
        status: has("status"),
        scale: has("scale"),
        generation,
        states_version: STATING_VERSION.contains(&info.kind.as_ref()),
        created_by_update: CREATED_BY_UPDATE.contains(&info.kind.as_ref()),
        form: if events_group { Form::EventsGroup } else { Form::Stored },
        collection: CollectionId {
            group: if events_group { "".into() } else { info.group.as_ref().into() },
            plural: info.plural.as_ref().into(),
        },
        schema: Schema::builtin(&info.group, &info.version, &info.kind)?,
        custom: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_scopes_subresources_and_short_names() {
        let deployments = resource("apps", "deployments");
        assert_eq!(deployments.subresources().collect::<Vec<_>>(), ["scale", "status"]);
        assert_eq!(deployments.short_names, ["deploy"]);
        assert_eq!(deployments.singular, "deployment");
        assert!(!resource("", "namespaces").namespaced);
        assert!(resources().len() > 40);
        assert_eq!(resources()[0].group, "");
    }
}
