//! The columns of the built-in kinds, in the order in which they are shown.

use serde_json::Value;

/// `name type priority`; the type may carry a format after a colon.
type Columns = &'static [(&'static str, &'static str, i64)];

const NAME: (&str, &str, i64) = ("Name", "string:name", 0);
const AGE: (&str, &str, i64) = ("Age", "string", 0);
const CONTAINERS: (&str, &str, i64) = ("Containers", "string", 1);
const IMAGES: (&str, &str, i64) = ("Images", "string", 1);
const SELECTOR: (&str, &str, i64) = ("Selector", "string", 1);

pub(super) fn columns(group: &str, kind: &str) -> Columns {
    match (group, kind) {
        ("", "Pod") => &[
            NAME,
            ("Ready", "string", 0),
            ("Status", "string", 0),
            ("Restarts", "string", 0),
            AGE,
            ("IP", "string", 1),
            ("Node", "string", 1),
            ("Nominated Node", "string", 1),
            ("Readiness Gates", "string", 1),
        ],
        ("apps", "Deployment") => &[
            NAME,
            ("Ready", "string", 0),
            ("Up-to-date", "string", 0),
            ("Available", "string", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        ("apps", "ReplicaSet") | ("", "ReplicationController") => &[
            NAME,
            ("Desired", "integer", 0),
            ("Current", "integer", 0),
            ("Ready", "integer", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        ("apps", "StatefulSet") => &[NAME, ("Ready", "string", 0), AGE, CONTAINERS, IMAGES],
        ("apps", "DaemonSet") => &[
            NAME,
            ("Desired", "integer", 0),
            ("Current", "integer", 0),
            ("Ready", "integer", 0),
            ("Up-to-date", "integer", 0),
            ("Available", "integer", 0),
            ("Node Selector", "string", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        ("batch", "Job") => &[
            NAME,
            ("Status", "string", 0),
            ("Completions", "string", 0),
            ("Duration", "string", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        ("batch", "CronJob") => &[
            NAME,
            ("Schedule", "string", 0),
            ("Timezone", "string", 0),
            ("Suspend", "boolean", 0),
            ("Active", "integer", 0),
            ("Last Schedule", "string", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        ("", "Service") => &[
            NAME,
            ("Type", "string", 0),
            ("Cluster-IP", "string", 0),
            ("External-IP", "string", 0),
            ("Port(s)", "string", 0),
            AGE,
            SELECTOR,
        ],
        ("networking.k8s.io", "Ingress") => &[
            NAME,
            ("Class", "string", 0),
            ("Hosts", "string", 0),
            ("Address", "string", 0),
            ("Ports", "string", 0),
            AGE,
        ],
        ("networking.k8s.io", "IngressClass") => &[NAME, ("Controller", "string", 0), ("Parameters", "string", 0), AGE],
        ("networking.k8s.io", "NetworkPolicy") => &[NAME, ("Pod-Selector", "string", 0), AGE],
        ("", "ConfigMap") => &[NAME, ("Data", "string", 0), AGE],
        ("", "Secret") => &[NAME, ("Type", "string", 0), ("Data", "string", 0), AGE],
        ("", "Namespace") => &[NAME, ("Status", "string", 0), AGE],
        ("", "ServiceAccount") => &[NAME, ("Secrets", "string", 0), AGE],
        ("", "Node") => &[
            NAME,
            ("Status", "string", 0),
            ("Roles", "string", 0),
            AGE,
            ("Version", "string", 0),
            ("Internal-IP", "string", 1),
            ("External-IP", "string", 1),
            ("OS-Image", "string", 1),
            ("Kernel-Version", "string", 1),
            ("Container-Runtime", "string", 1),
        ],
        (_, "Event") => &[
            ("Last Seen", "string", 0),
            ("Type", "string", 0),
            ("Reason", "string", 0),
            ("Object", "string", 0),
            ("Subobject", "string", 1),
            ("Source", "string", 1),
            ("Message", "string", 0),
            ("First Seen", "string", 1),
            ("Count", "string", 1),
            ("Name", "string:name", 1),
        ],
        ("", "PersistentVolumeClaim") => &[
            NAME,
            ("Status", "string", 0),
            ("Volume", "string", 0),
            ("Capacity", "string", 0),
            ("Access Modes", "string", 0),
            ("StorageClass", "string", 0),
            ("VolumeAttributesClass", "string", 0),
            AGE,
            ("VolumeMode", "string", 1),
        ],
        ("", "PersistentVolume") => &[
            NAME,
            ("Capacity", "string", 0),
            ("Access Modes", "string", 0),
            ("Reclaim Policy", "string", 0),
            ("Status", "string", 0),
            ("Claim", "string", 0),
            ("StorageClass", "string", 0),
            AGE,
        ],
        ("policy", "PodDisruptionBudget") => &[
            NAME,
            ("Min Available", "string", 0),
            ("Max Unavailable", "string", 0),
            ("Allowed Disruptions", "integer", 0),
            AGE,
        ],
        ("autoscaling", "HorizontalPodAutoscaler") => &[
            NAME,
            ("Reference", "string", 0),
            ("MinPods", "string", 0),
            ("MaxPods", "string", 0),
            ("Replicas", "integer", 0),
            AGE,
        ],
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => &[NAME, ("Created At", "date", 0)],
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => &[NAME, ("Role", "string", 0), AGE],
        ("storage.k8s.io", "StorageClass") => &[
            NAME,
            ("Provisioner", "string", 0),
            ("ReclaimPolicy", "string", 0),
            ("VolumeBindingMode", "string", 0),
            ("AllowVolumeExpansion", "boolean", 0),
            AGE,
        ],
        ("coordination.k8s.io", "Lease") => &[NAME, ("Holder", "string", 0), AGE],
        ("scheduling.k8s.io", "PriorityClass") => {
            &[NAME, ("Value", "integer", 0), ("Global-Default", "boolean", 0), AGE, ("PreemptionPolicy", "string", 0)]
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => &[NAME, ("Created At", "date", 0)],
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration") => {
            &[NAME, ("Webhooks", "integer", 0), AGE]
        }
        _ => &[NAME, AGE],
    }
}

pub fn definitions(group: &str, kind: &str) -> Vec<Value> {
    let definition = |(name, kind, priority): &(&str, &str, i64)| {
        let (kind, format) = kind.split_once(':').unwrap_or((kind, ""));
        super::definition(name, kind, format, *priority, "")
    };
    columns(group, kind).iter().map(definition).collect()
}
