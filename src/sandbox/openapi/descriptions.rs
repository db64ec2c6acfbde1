//! What types and fields mean, in the API's own words.
//!
//! They come from the JSON schemas of the Kubernetes types that this program is built with. Those are a few releases
//! older than the served API: what is younger has no description.

use std::sync::OnceLock;

use k8s_openapi::api::{
    admissionregistration, apps, authorization, autoscaling, batch, certificates, coordination, core, discovery,
    events, networking, node, policy, rbac, scheduling, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use schemars::SchemaGenerator;
use serde_json::{Map, Value};

/// The schemas by their long names; made when a document is first asked for, not at start.
static SCHEMAS: OnceLock<Map<String, Value>> = OnceLock::new();

macro_rules! describe {
    ($generator:ident, $($kind:path),* $(,)?) => { $( $generator.subschema_for::<$kind>(); )* };
}

fn schemas() -> &'static Map<String, Value> {
    SCHEMAS.get_or_init(|| {
        let mut generator = SchemaGenerator::default();
        describe!(
            generator,
            core::v1::Binding,
            core::v1::ComponentStatus,
            core::v1::ConfigMap,
            core::v1::Endpoints,
            core::v1::Event,
            core::v1::LimitRange,
            core::v1::Namespace,
            core::v1::Node,
            core::v1::PersistentVolume,
            core::v1::PersistentVolumeClaim,
            core::v1::Pod,
            core::v1::PodTemplate,
            core::v1::ReplicationController,
            core::v1::ResourceQuota,
            core::v1::Secret,
            core::v1::Service,
            core::v1::ServiceAccount,
            apps::v1::ControllerRevision,
            apps::v1::DaemonSet,
            apps::v1::Deployment,
            apps::v1::ReplicaSet,
            apps::v1::StatefulSet,
            batch::v1::CronJob,
            batch::v1::Job,
            autoscaling::v2::HorizontalPodAutoscaler,
            policy::v1::PodDisruptionBudget,
            networking::v1::IPAddress,
            networking::v1::Ingress,
            networking::v1::IngressClass,
            networking::v1::NetworkPolicy,
            networking::v1::ServiceCIDR,
            rbac::v1::ClusterRole,
            rbac::v1::ClusterRoleBinding,
            rbac::v1::Role,
            rbac::v1::RoleBinding,
            storage::v1::CSIDriver,
            storage::v1::CSINode,
            storage::v1::CSIStorageCapacity,
            storage::v1::StorageClass,
            storage::v1::VolumeAttachment,
            scheduling::v1::PriorityClass,
            node::v1::RuntimeClass,
            coordination::v1::Lease,
            discovery::v1::EndpointSlice,
            events::v1::Event,
            certificates::v1::CertificateSigningRequest,
            authorization::v1::LocalSubjectAccessReview,
            authorization::v1::SelfSubjectAccessReview,
            authorization::v1::SelfSubjectRulesReview,
            authorization::v1::SubjectAccessReview,
            admissionregistration::v1::MutatingWebhookConfiguration,
            admissionregistration::v1::ValidatingAdmissionPolicy,
            admissionregistration::v1::ValidatingAdmissionPolicyBinding,
            admissionregistration::v1::ValidatingWebhookConfiguration,
            apiextensions::v1::CustomResourceDefinition,
            apiregistration::v1::APIService,
        );
        generator.take_definitions(false)
    })
}

/// The description of a type.
pub fn of(name: &str) -> Option<&'static str> {
    schemas().get(name)?.get("description")?.as_str()
}

/// The description of a field of a type.
pub fn field(name: &str, field: &str) -> Option<&'static str> {
    schemas().get(name)?.get("properties")?.get(field)?.get("description")?.as_str()
}
