//! What the API server refuses in objects of built-in kinds although they have the right form.
//!
//! In: an object as it would be stored (defaulted), and the one that it replaces. Out: what is wrong, in the
//! server's words. Covers the rules that people break; `metadata` has its own place in the server.

mod autoscaling;
mod configuration;
mod coordination;
mod forms;
mod network;
mod node;
mod pod;
mod schedule;
mod storage;
mod workload;

use serde_json::Value;

use super::cause::Cause;
use node::Node;

pub(super) const IMMUTABLE: &str = "field is immutable";

/// What is wrong with `new` (of a built-in kind), which is created or takes the place of `old`.
pub fn invalid(group: &str, kind: &str, old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let node = Node::root(new);
    let previous = old.map(Node::root);
    let previous = previous.as_ref();
    match (group, kind) {
        ("", "ConfigMap") => configuration::config_map(&node, previous),
        ("", "Secret") => configuration::secret(&node, previous),
        ("", "Pod") => pod::pod(&node, previous),
        ("", "Service") => network::service(&node, previous),
        ("", "PersistentVolumeClaim") => storage::claim(&node, previous),
        ("apps", "Deployment") => workload::deployment(&node, previous),
        ("apps", "ReplicaSet") => workload::replica_set(&node, previous),
        ("apps", "StatefulSet") => workload::stateful_set(&node, previous),
        ("apps", "DaemonSet") => workload::daemon_set(&node, previous),
        ("batch", "Job") => workload::job(&node, previous),
        ("batch", "CronJob") => workload::cron_job(&node, previous),
        ("networking.k8s.io", "Ingress") => network::ingress(&node),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::autoscaler(&node),
        ("coordination.k8s.io", "Lease") => coordination::lease(&node),
        ("policy", "PodDisruptionBudget") => autoscaling::disruption_budget(&node),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            configuration::role_binding(&node, previous)
        }
        _ => Vec::new(),
    }
}

/// What the server takes and warns of.
pub fn warnings(group: &str, kind: &str, object: &Value) -> Vec<String> {
    let path = match (group, kind) {
        ("", "Pod") => "spec",
        ("", "ReplicationController") | ("apps", _) | ("batch", "Job") => "spec.template.spec",
        ("batch", "CronJob") => "spec.jobTemplate.spec.template.spec",
        _ => return Vec::new(),
    };
    pod::warnings(&Node::root(object).at(path))
}

/// A cause if a field differs from what it was.
fn immutable(new: &Node<'_>, old: Option<&Node<'_>>, path: &str) -> Option<Cause> {
    let (new, old) = (new.at(path), old?.at(path));
    (new.value != old.value).then(|| Cause::invalid(new.path, new.value, IMMUTABLE))
}
