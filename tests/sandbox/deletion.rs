//! Deletion: finalizers, owners, namespaces.

use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, DEPLOYMENTS, cluster, config_map, deployment};

fn owned(name: &str, owner: &Value, block: bool) -> Value {
    let mut map = config_map(name, &json!({}));
    map["metadata"]["ownerReferences"] = json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "blockOwnerDeletion": block, "controller": true,
    }]);
    map
}

#[tokio::test]
async fn a_finalizer_holds_a_deleted_object_until_it_is_removed() {
    let c = cluster().await;
    let mut map = config_map("a", &json!({}));
    map["metadata"]["finalizers"] = json!(["example.com/hold"]);
    c.post(CONFIG_MAPS, &map).await;
    let path = format!("{CONFIG_MAPS}/a");
    let deleted = c.delete(&path).await;
    assert_eq!(deleted.code, 200);
    assert!(deleted.body["metadata"]["deletionTimestamp"].is_string());
    let more = c.merge(&path, &json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}})).await;
    assert_eq!(more.code, 422, "{more:?}");
    c.merge(&path, &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(c.get(&path).await.code, 404);
}

#[tokio::test]
async fn dependents_go_after_their_owner() {
    let c = cluster().await;
    let owner = c.post(DEPLOYMENTS, &deployment("web")).await.body;
    c.post(CONFIG_MAPS, &owned("child", &owner, false)).await;
    let answer = c.delete(&format!("{DEPLOYMENTS}/web")).await;
    assert_eq!((answer.body["kind"].as_str(), answer.body["status"].as_str()), (Some("Status"), Some("Success")));
    c.until(&format!("{CONFIG_MAPS}/child"), "gone", |a| a.code == 404).await;
}

#[tokio::test]
async fn an_owner_that_is_deleted_in_the_foreground_goes_last() {
    let c = cluster().await;
    let owner = c.post(DEPLOYMENTS, &deployment("web")).await.body;
    let mut child = owned("child", &owner, true);
    child["metadata"]["finalizers"] = json!(["example.com/hold"]);
    c.post(CONFIG_MAPS, &child).await;
    let path = format!("{DEPLOYMENTS}/web");
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"});
    let answer = c.send("DELETE", &path, "application/json", &options).await;
    assert_eq!(answer.body["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let child = format!("{CONFIG_MAPS}/child");
    c.until(&child, "terminating", |a| a.body["metadata"]["deletionTimestamp"].is_string()).await;
    assert_eq!(c.get(&path).await.code, 200);
    c.merge(&child, &json!({"metadata": {"finalizers": null}})).await;
    c.until(&path, "gone", |a| a.code == 404).await;
}

#[tokio::test]
async fn orphans_stay_without_their_owner() {
    let c = cluster().await;
    let owner = c.post(DEPLOYMENTS, &deployment("web")).await.body;
    c.post(CONFIG_MAPS, &owned("child", &owner, true)).await;
    let path = format!("{DEPLOYMENTS}/web");
    c.delete(&format!("{path}?propagationPolicy=Orphan")).await;
    c.until(&path, "gone", |a| a.code == 404).await;
    let child = c.get(&format!("{CONFIG_MAPS}/child")).await;
    assert_eq!(child.code, 200);
    assert!(child.body["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty));
}

#[tokio::test]
async fn a_namespace_takes_its_contents_along_and_accepts_nothing_new() {
    let c = cluster().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    assert_eq!(c.post("/api/v1/namespaces", &namespace).await.body["status"]["phase"], "Active");
    let maps = "/api/v1/namespaces/shop/configmaps";
    let mut held = config_map("held", &json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    c.post(maps, &held).await;
    c.post(maps, &config_map("free", &json!({}))).await;
    let answer = c.delete("/api/v1/namespaces/shop").await;
    assert_eq!(answer.body["status"]["phase"], "Terminating");
    c.until(&format!("{maps}/free"), "gone", |a| a.code == 404).await;
    let late = c.post(maps, &config_map("late", &json!({}))).await;
    assert_eq!((late.code, late.body["details"]["causes"][0]["reason"].as_str()), (403, Some("NamespaceTerminating")));
    c.merge(&format!("{maps}/held"), &json!({"metadata": {"finalizers": null}})).await;
    c.until("/api/v1/namespaces/shop", "gone", |a| a.code == 404).await;
    assert_eq!(c.post("/api/v1/namespaces", &namespace).await.code, 201);
    assert_eq!(c.delete("/api/v1/namespaces/default").await.code, 403);
}

#[tokio::test]
async fn a_deletion_with_the_wrong_uid_is_refused() {
    let c = cluster().await;
    c.post(CONFIG_MAPS, &config_map("a", &json!({}))).await;
    let options = json!({"preconditions": {"uid": "other"}});
    let answer = c.send("DELETE", &format!("{CONFIG_MAPS}/a"), "application/json", &options).await;
    assert_eq!((answer.code, answer.reason()), (409, "Conflict"));
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let c = cluster().await;
    for name in ["a", "b"] {
        let mut map = config_map(name, &json!({}));
        map["metadata"]["labels"] = json!({"name": name});
        c.post(CONFIG_MAPS, &map).await;
    }
    c.delete(&format!("{CONFIG_MAPS}?labelSelector=name%3Da")).await;
    assert_eq!(c.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    assert_eq!(c.get(&format!("{CONFIG_MAPS}/b")).await.code, 200);
}
