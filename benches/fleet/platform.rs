//! The applications: what their repository holds, what a bare client sends for them.

use std::time::{Duration, Instant};

use afresh::cluster::Cluster;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use crate::support::NAMESPACE;
use crate::support::application::apply;

/// The repository of all applications, and one of a single application that is to be repaired meanwhile.
pub const FLEET: &str = "fleet";
pub const REPAIRED: &str = "repaired";
/// What the Deployments of a bare client are called after.
pub const BARE: &str = "bare";
/// What changes, on the pod template.
pub const VALUE: &str = "bench.example.com/value";
/// Requests of the bare client under way at a time: more make the API server no faster.
const CONCURRENCY: usize = 16;

pub fn name(prefix: &str, index: usize) -> String {
    format!("{prefix}-{index:04}")
}

/// Deployment, ServiceAccount, Service, Ingress.
pub fn objects(name: &str, value: usize) -> [Value; 4] {
    let metadata = json!({ "name": name, "namespace": NAMESPACE, "labels": { "app": name } });
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata });
    // headless: a cluster has fewer addresses than these are
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": { "clusterIP": "None", "selector": { "app": name }, "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] },
    });
    let backend = json!({ "service": { "name": name, "port": { "name": "http" } } });
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata,
        "spec": { "rules": [{
            "host": format!("{name}.example.com"),
            "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] },
        }] },
    });
    [deployment(name, value), account, service, ingress]
}

/// One without Pods: what is measured is not how they start.
pub fn deployment(name: &str, value: usize) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "app": name } },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name }, "annotations": { VALUE: value.to_string() } },
                "spec": {
                    "serviceAccountName": name,
                    "containers": [{
                        "name": "app", "image": "registry.example.com/app:1",
                        "ports": [{ "name": "http", "containerPort": 8080 }],
                        "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
                    }],
                },
            },
        },
    })
}

/// The files of an application, all of them or the one that changes.
pub fn files(name: &str, value: usize, only_what_changes: bool) -> Vec<(String, String)> {
    let objects = objects(name, value).into_iter().take(if only_what_changes { 1 } else { 4 });
    let file = |object: &Value| {
        let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
        // JSON is YAML
        (format!("{name}/{kind}.yaml"), format!("{object:#}\n"))
    };
    objects.map(|object| file(&object)).collect()
}

/// Applies as quickly as the API server takes it. Gives the time until the last answer.
pub async fn apply_all(cluster: &Cluster, objects: Vec<Value>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let applies = objects.iter().map(|object| apply(cluster, object));
    stream::iter(applies).buffer_unordered(CONCURRENCY).try_collect::<Vec<()>>().await?;
    Ok(began.elapsed())
}
