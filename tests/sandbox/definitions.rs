//! Custom kinds: served as soon as they are defined, gone with their definition.

use serde_json::{Value, json};

use crate::support::{Cluster, cluster};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const KUSTOMIZATIONS: &str = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/default/kustomizations";

async fn with_our_kinds() -> Cluster {
    let c = cluster().await;
    for definition in afresh::api::definitions() {
        let made = c.post(DEFINITIONS, &serde_json::to_value(definition).unwrap()).await;
        assert_eq!(made.code, 201, "{made:?}");
        let established = made.body["status"]["conditions"].as_array().unwrap();
        assert!(established.iter().any(|c| c["type"] == "Established" && c["status"] == "True"));
    }
    c
}

fn kustomization(name: &str) -> Value {
    json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": {"name": name},
        "spec": {"interval": "1m", "path": "./", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "r"}},
    })
}

#[tokio::test]
async fn a_defined_kind_is_served_at_once_and_shown_in_discovery() {
    let c = with_our_kinds().await;
    let made = c.post(KUSTOMIZATIONS, &kustomization("app")).await;
    assert_eq!(made.code, 201, "{made:?}");
    assert_eq!(made.body["metadata"]["generation"], 1);
    let list = c.get("/apis/kustomize.toolkit.fluxcd.io/v1").await;
    assert!(list.body["resources"].as_array().unwrap().iter().any(|r| r["name"] == "kustomizations/status"));
    let discovery = kube::Discovery::new(c.client.clone()).run_aggregated().await.unwrap();
    assert!(discovery.has_group("kustomize.toolkit.fluxcd.io"));
    assert!(kube::Discovery::new(c.client.clone()).run().await.unwrap().has_group("apps"));
}

#[tokio::test]
async fn status_and_spec_are_written_separately() {
    let c = with_our_kinds().await;
    c.post(KUSTOMIZATIONS, &kustomization("app")).await;
    let path = format!("{KUSTOMIZATIONS}/app");
    let status = json!({"status": {"observedGeneration": 1}, "spec": {"path": "./x"}});
    let answer = c.merge(&format!("{path}/status"), &status).await;
    assert_eq!((answer.code, &answer.body["spec"]["path"]), (200, &json!("./")), "{answer:?}");
    let answer = c.merge(&path, &json!({"status": {"observedGeneration": 9}, "spec": {"path": "./y"}})).await;
    assert_eq!(answer.body["status"]["observedGeneration"], 1);
    assert_eq!(answer.body["metadata"]["generation"], 2);
}

#[tokio::test]
async fn tables_show_the_columns_of_the_definition() {
    let c = with_our_kinds().await;
    c.post(KUSTOMIZATIONS, &kustomization("app")).await;
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "R", "message": "done",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    c.merge(&format!("{KUSTOMIZATIONS}/app/status"), &status).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = c.send_as("GET", KUSTOMIZATIONS, "", accept, &Value::Null).await.body;
    let names: Vec<_> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Age", "Ready", "Status"]);
    let cells = &table["rows"][0]["cells"];
    assert_eq!((&cells[0], &cells[2], &cells[3]), (&json!("app"), &json!("True"), &json!("done")));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn a_definition_takes_its_objects_along() {
    let c = with_our_kinds().await;
    c.post(KUSTOMIZATIONS, &kustomization("app")).await;
    let path = format!("{DEFINITIONS}/kustomizations.kustomize.toolkit.fluxcd.io");
    c.delete(&path).await;
    c.until(&path, "gone", |a| a.code == 404).await;
    assert_eq!(c.get(KUSTOMIZATIONS).await.code, 404);
}

#[tokio::test]
async fn an_update_of_a_custom_object_needs_its_version() {
    let c = with_our_kinds().await;
    c.post(KUSTOMIZATIONS, &kustomization("app")).await;
    let answer = c.put(&format!("{KUSTOMIZATIONS}/app"), &kustomization("app")).await;
    assert_eq!(answer.code, 422);
    assert!(answer.message().ends_with("metadata.resourceVersion: Invalid value: 0: must be specified for an update"));
}
