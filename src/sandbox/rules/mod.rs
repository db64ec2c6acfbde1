//! What the API server does to objects of some kinds before they are stored: defaults that no schema states, the
//! first status, fields that belong to the server.
//!
//! In: an object as it would be stored. Out: the same object, completed. Never refuses: that is `validation`'s.

mod defaults;
mod service;

use serde_json::{Value, json};

use super::addresses::Addresses;
use super::definition;
use super::metadata;
use super::refusal::Cause;
use super::resource::Resource;

pub use service::{allocate, give_back, give_back_new};

/// Keeps a claim while Pods use it; the collector removes it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Counts the changes of a DaemonSet's template.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Nodes and definitions are created with the status that is sent, or ours.
pub fn keeps_status_on_create(resource: &Resource) -> bool {
    resource.is("", "nodes")
}

/// Fills in the defaults of built-in kinds.
pub fn default(resource: &Resource, value: &mut Value) {
    if resource.custom.is_none() {
        if resource.is("", "secrets") {
            encode_string_data(value);
        }
        defaults::fill(&resource.group, &resource.kind, value);
    }
}

/// What the server sets when it creates an object.
pub fn prepare_create(resource: &Resource, value: &mut Value) {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Namespace") => {
            let name = metadata::name(value).to_owned();
            let labels = metadata::of(value).entry("labels").or_insert_with(|| json!({}));
            metadata::as_map(labels).insert("kubernetes.io/metadata.name".into(), name.into());
            value["spec"]["finalizers"] = json!(["kubernetes"]);
            value["status"] = json!({ "phase": "Active" });
        }
        ("", "Pod") => {
            admit_pod(value);
            value["status"] = json!({ "phase": "Pending", "qosClass": quality_of_service(value) });
        }
        ("", "PersistentVolumeClaim") => {
            value["status"] = json!({ "phase": "Pending" });
            add_finalizer(value, CLAIM_PROTECTION);
        }
        ("", "PersistentVolume") => value["status"] = json!({ "phase": "Pending" }),
        ("", "Service") => {
            value["status"] = json!({ "loadBalancer": {} });
            service::families(value);
        }
        ("apps", "Deployment") | ("batch", "CronJob") => value["status"] = json!({}),
        ("apps", "StatefulSet") => value["status"] = json!({ "availableReplicas": 0, "replicas": 0 }),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => value["status"] = json!({ "replicas": 0 }),
        ("apps", "DaemonSet") => {
            value["metadata"]["annotations"][TEMPLATE_GENERATION] = json!("1");
            value["status"] = json!({ "currentNumberScheduled": 0, "desiredNumberScheduled": 0,
                "numberMisscheduled": 0, "numberReady": 0 });
        }
        ("batch", "Job") => {
            value["status"] = json!({});
            own_job_labels(value);
            defaults::job_labels(value);
        }
        ("networking.k8s.io", "Ingress") => value["status"] = json!({ "loadBalancer": {} }),
        ("policy", "PodDisruptionBudget") => {
            value["status"] = json!({ "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0,
                "expectedPods": 0 });
        }
        ("autoscaling", "HorizontalPodAutoscaler") => {
            value["status"] = json!({ "currentMetrics": null, "desiredReplicas": 0 });
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            definition::default(value);
            definition::establish(value);
        }
        ("coordination.k8s.io", "Lease") => drop_coordination(value),
        _ => {}
    }
}

/// What the server sets or keeps when it changes an object.
pub fn prepare_update(resource: &Resource, old: &Value, new: &mut Value) {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Namespace") => {
            let name = metadata::name(new).to_owned();
            let labels = metadata::of(new).entry("labels").or_insert_with(|| json!({}));
            metadata::as_map(labels).insert("kubernetes.io/metadata.name".into(), name.into());
            new["spec"]["finalizers"] = old.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            definition::default(new);
            if !metadata::is_terminating(new) {
                definition::establish(new);
            }
        }
        ("batch", "Job") => keep_job_labels(old, new),
        ("coordination.k8s.io", "Lease") => drop_coordination(new),
        ("", "Service") => service::keep_allocated(old, new),
        ("apps", "DaemonSet") => count_template(old, new),
        _ => {}
    }
}

/// Counts the changes of a DaemonSet's template, in the annotation that the server still writes.
fn count_template(old: &Value, new: &mut Value) {
    let of = |set: &Value| set["metadata"]["annotations"][TEMPLATE_GENERATION].as_str().and_then(|n| n.parse().ok());
    let count: u64 = of(old).unwrap_or(1);
    let changed = old.pointer("/spec/template") != new.pointer("/spec/template");
    new["metadata"]["annotations"][TEMPLATE_GENERATION] = json!((count + u64::from(changed)).to_string());
}

/// Candidates for a Lease are behind a feature gate that is closed by default: their fields are not stored.
fn drop_coordination(lease: &mut Value) {
    if let Some(spec) = lease.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|field, _| !matches!(field.as_str(), "strategy" | "preferredHolder"));
    }
}

/// What admission adds to every Pod: its priority, and that it stays on a Node that fails for five minutes.
fn admit_pod(pod: &mut Value) {
    let spec = metadata::as_map(&mut pod["spec"]);
    spec.entry("priority").or_insert(json!(0));
    spec.entry("preemptionPolicy").or_insert(json!("PreemptLowerPriority"));
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covers = |t: &Value| {
            let matches_key = t["key"] == key || (t["key"].is_null() && t["operator"] == "Exists");
            matches_key && (t["effect"].is_null() || t["effect"] == "NoExecute")
        };
        if !tolerations.iter().any(covers) {
            tolerations.push(json!({ "key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 300 }));
        }
    }
}

/// `stringData` is written, never stored.
fn encode_string_data(value: &mut Value) {
    use base64::Engine as _;
    let Some(Value::Object(plain)) = value.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
    if plain.is_empty() {
        return;
    }
    let Some(map) = value.as_object_mut() else { return };
    let data = map.entry("data").or_insert_with(|| json!({}));
    for (key, text) in plain {
        let text = text.as_str().unwrap_or_default();
        metadata::as_map(data).insert(key, base64::engine::general_purpose::STANDARD.encode(text).into());
    }
}

fn add_finalizer(value: &mut Value, finalizer: &str) {
    let list = metadata::of(value).entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut()
        && !list.iter().any(|f| f == finalizer)
    {
        list.push(finalizer.into());
    }
}

/// A Job finds its Pods by labels that carry its uid, unless it says that it does so itself.
fn own_job_labels(job: &mut Value) {
    if job.pointer("/spec/manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    let (uid, name) = (metadata::uid(job).to_owned(), metadata::name(job).to_owned());
    let labels = &mut job["spec"]["template"]["metadata"]["labels"];
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        metadata::as_map(labels).insert(key.into(), value.clone().into());
    }
    let labels = metadata::as_map(&mut job["spec"]["selector"]).entry("matchLabels").or_insert_with(|| json!({}));
    metadata::as_map(labels).insert("batch.kubernetes.io/controller-uid".into(), uid.into());
}

/// A client that sends a whole Job again need not know the labels that the server added.
fn keep_job_labels(old: &Value, new: &mut Value) {
    if new.pointer("/spec/selector").is_none_or(Value::is_null) {
        new["spec"]["selector"] = old.pointer("/spec/selector").cloned().unwrap_or(Value::Null);
    }
    let Some(kept) = old.pointer("/spec/template/metadata/labels").and_then(Value::as_object) else { return };
    for key in ["batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name"] {
        if let Some(value) = kept.get(key) {
            let labels = &mut new["spec"]["template"]["metadata"]["labels"];
            metadata::as_map(labels).entry(key).or_insert_with(|| value.clone());
        }
    }
}

/// Guaranteed, Burstable or BestEffort, by the requests and limits of all containers.
fn quality_of_service(pod: &Value) -> &'static str {
    let lists =
        ["containers", "initContainers"].map(|list| pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array));
    let containers: Vec<&Value> = lists.into_iter().flatten().flatten().collect();
    let of =
        |container: &Value, which: &str, name: &str| container.pointer(&format!("/resources/{which}/{name}")).cloned();
    let any =
        |c: &&Value| ["requests", "limits"].iter().any(|w| ["cpu", "memory"].iter().any(|n| of(c, w, n).is_some()));
    let full = |c: &Value| {
        ["cpu", "memory"].iter().all(|n| {
            let limit = of(c, "limits", n);
            limit.is_some() && of(c, "requests", n).is_none_or(|r| Some(r) == limit)
        })
    };
    if !containers.iter().any(any) {
        "BestEffort"
    } else if containers.iter().all(|c| full(c)) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Result of taking addresses for a Service.
pub type Allocation = Result<(), Vec<Cause>>;

/// True if the kind has addresses.
fn is_service(resource: &Resource) -> bool {
    resource.is("", "services")
}

/// Gives back what a Service has that `old` had not.
fn release_difference(addresses: &Addresses, old: &Value, new: &Value) {
    let mut gained = json!({ "spec": { "ports": [] } });
    if new.pointer("/spec/clusterIP") != old.pointer("/spec/clusterIP") {
        gained["spec"]["clusterIP"] = new.pointer("/spec/clusterIP").cloned().unwrap_or(Value::Null);
    }
    let ports = |value: &Value| -> Vec<Value> {
        value.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let before: Vec<Value> = ports(old).iter().map(|p| p["nodePort"].clone()).collect();
    gained["spec"]["ports"] = ports(new).into_iter().filter(|p| !before.contains(&p["nodePort"])).collect();
    addresses.release(&gained);
}
