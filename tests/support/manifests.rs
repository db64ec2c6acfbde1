//! Small manifests. None names a namespace: the Kustomization's `targetNamespace` does.

use afresh::sandbox::kubelet::BEHAVIOUR;
use serde_json::{Value, json};

pub fn config_map(name: &str, value: &str) -> String {
    write(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "value": value } }))
}

/// One Pod of `image`; the kubelet of the tests reads its tag.
pub fn deployment(name: &str, image: &str) -> String {
    write(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "app": name } }, "template": pod(name, image, "Always") },
    }))
}

/// As [`deployment`]; its Pods behave as the kubelet's annotation says.
pub fn deployment_behaving(name: &str, image: &str, behaviour: &str) -> String {
    let mut template = pod(name, image, "Always");
    template["metadata"]["annotations"] = json!({ BEHAVIOUR: behaviour });
    write(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "app": name } }, "template": template },
    }))
}

pub fn secret(name: &str, value: &str) -> String {
    write(
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "value": value } }),
    )
}

pub fn claim(name: &str) -> String {
    write(json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": name },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    }))
}

/// A Job that is removed `ttl` seconds after it finished.
pub fn job(name: &str, image: &str, ttl: u32) -> String {
    write(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": name },
        "spec": { "ttlSecondsAfterFinished": ttl, "template": pod(name, image, "Never") },
    }))
}

/// For a Kustomization's spec: it is Ready once its objects are healthy, for which they have ten minutes.
pub fn waits_ten_minutes(spec: &mut Value) {
    spec["wait"] = json!(true);
    spec["timeout"] = json!("10m");
}

fn pod(name: &str, image: &str, restart: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": name } },
        "spec": { "restartPolicy": restart, "containers": [{ "name": "main", "image": image }] },
    })
}

/// JSON is YAML.
fn write(object: Value) -> String {
    format!("{object:#}\n")
}
