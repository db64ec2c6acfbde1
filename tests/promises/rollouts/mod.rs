//! A changed Secret or ConfigMap rolls exactly the workloads that read it, once, whoever changes it and whenever.

mod counting;
mod following;
mod history;
mod rights;
mod waiting;

use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::env::Env;
use crate::support::rollouts::Rollouts;

/// The condition that says what is wrong with rollouts.
const CONDITION: &str = "afresh.dev/Rollouts";
const RECORD: &str = "/metadata/annotations/afresh.dev~1config";
const HASH: &str = "/spec/template/metadata/annotations/afresh.dev~1config-hash";

fn follow() -> Value {
    json!({ "afresh.dev/rollout": "on-config-change" })
}

/// A workload of one Pod whose specification is `pod`, with annotations of its own.
fn workload(kind: &str, name: &str, annotations: &Value, pod: &Value) -> String {
    let mut pod = pod.clone();
    if pod["containers"].is_null() {
        pod["containers"] = json!([{ "name": "main", "image": "web:1" }]);
    }
    let template = json!({ "metadata": { "labels": { "app": name } }, "spec": pod });
    let selector = json!({ "matchLabels": { "app": name } });
    let (api_version, spec) = match kind {
        "CronJob" => {
            let mut template = template;
            template["spec"]["restartPolicy"] = "Never".into();
            ("batch/v1", json!({ "schedule": "0 0 1 1 *", "jobTemplate": { "spec": { "template": template } } }))
        }
        "StatefulSet" => {
            ("apps/v1", json!({ "replicas": 1, "serviceName": name, "selector": selector, "template": template }))
        }
        "DaemonSet" => ("apps/v1", json!({ "selector": selector, "template": template })),
        _ => ("apps/v1", json!({ "replicas": 1, "selector": selector, "template": template })),
    };
    let metadata = json!({ "name": name, "annotations": annotations });
    format!("{:#}\n", json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec }))
}

/// A Deployment that reads all of a Secret.
fn reader(name: &str, secret: &str) -> String {
    let pod = container(json!({ "envFrom": [{ "secretRef": { "name": secret } }] }));
    workload("Deployment", name, &follow(), &pod)
}

fn container(fields: Value) -> Value {
    let mut container = json!({ "name": "main", "image": "web:1" });
    container.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap_or_default());
    json!({ "containers": [container] })
}

fn secret(name: &str, data: Value) -> String {
    format!("{:#}\n", json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data }))
}

/// Once this has passed, whatever was to be rolled before was rolled: changes are taken up in their order.
async fn settled(env: &Env, rollouts: &Rollouts) {
    let before = rollouts.of(env, "Deployment", "marker").await;
    env.secret("marker", json!({ "value": format!("after {before}") })).await;
    rollouts.until(env, "Deployment", "marker", before + 1).await;
    env.reconcile("app").await;
}

/// The application `app` with these files, and a workload `marker`, which reads a Secret of that name.
async fn begin(env: &mut Env, files: &[(&str, &str)]) -> Rollouts {
    let rollouts = Rollouts::count(env).await;
    env.secret("marker", json!({ "value": "0" })).await;
    let marker = reader("marker", "marker");
    let mut all = vec![("app/marker.yaml", marker.as_str())];
    all.extend(files);
    env.begin(&all).await;
    env.until_live("Deployment", "marker", "it is followed", |found| found.pointer(RECORD).is_some()).await;
    rollouts
}

async fn annotate(env: &Env, annotations: Value) {
    let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    env.kustomizations().patch("app", &PatchParams::default(), &patch).await.unwrap();
}

/// Why rollouts are in trouble: reason and message.
async fn trouble(env: &Env) -> Option<(String, String)> {
    let app = env.kustomizations().get("app").await.unwrap();
    let condition = app.status?.conditions.get(CONDITION).cloned()?;
    Some((condition.reason, condition.message))
}

async fn in_trouble(env: &Env, reason: &str, text: &str) {
    env.until("app", &format!("{reason}: {text}"), |found| {
        let condition = found.status.as_ref().and_then(|status| status.conditions.get(CONDITION));
        condition.is_some_and(|c| c.reason == reason && c.message.contains(text))
    })
    .await;
}

async fn out_of_trouble(env: &Env) {
    env.until("app", "all is well with rollouts", |found| {
        found.status.as_ref().is_some_and(|status| status.conditions.get(CONDITION).is_none())
    })
    .await;
}

async fn rolled_out(env: &Env, name: &str) {
    env.until_live("Deployment", name, "it is rolled out", |found| {
        found["status"]["observedGeneration"] == found["metadata"]["generation"]
            && found["status"]["updatedReplicas"] == 1
            && found["status"]["availableReplicas"] == 1
    })
    .await;
}

async fn replica_sets(env: &Env, app: &str) -> usize {
    let of_app = ListParams::default().labels(&format!("app={app}"));
    env.objects("ReplicaSet").list(&of_app).await.unwrap().items.len()
}
