//! Watches deliver every change once, in order, and only what was selected.

use std::pin::pin;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, WatchEvent, WatchParams};
use serde_json::json;

use crate::support::{CONFIG_MAPS, PATIENCE, cluster, config_map};

fn describe(event: &WatchEvent<ConfigMap>) -> String {
    let name = |m: &ConfigMap| m.metadata.name.clone().unwrap_or_default();
    match event {
        WatchEvent::Added(m) => format!("ADDED {}", name(m)),
        WatchEvent::Modified(m) => format!("MODIFIED {}", name(m)),
        WatchEvent::Deleted(m) => format!("DELETED {}", name(m)),
        WatchEvent::Bookmark(b) => format!("BOOKMARK {:?}", b.metadata.annotations),
        WatchEvent::Error(e) => format!("ERROR {} {}", e.code, e.reason),
    }
}

async fn first(api: &Api<ConfigMap>, params: &WatchParams, version: &str, count: usize) -> Vec<String> {
    let mut stream = pin!(api.watch(params, version).await.unwrap());
    let mut seen = Vec::new();
    let collect = async {
        while seen.len() < count {
            match stream.try_next().await.unwrap() {
                Some(event) => seen.push(describe(&event)),
                None => break,
            }
        }
    };
    tokio::time::timeout(PATIENCE, collect).await.unwrap();
    seen
}

#[tokio::test]
async fn a_watch_from_a_version_sees_what_came_after_it() {
    let c = cluster().await;
    let made = c.post(CONFIG_MAPS, &config_map("a", &json!({}))).await;
    let version = made.body["metadata"]["resourceVersion"].as_str().unwrap();
    c.merge(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"x": "y"}})).await;
    c.post(CONFIG_MAPS, &config_map("b", &json!({}))).await;
    c.delete(&format!("{CONFIG_MAPS}/a")).await;
    let api: Api<ConfigMap> = Api::namespaced(c.client.clone(), "default");
    let seen = first(&api, &WatchParams::default(), version, 3).await;
    assert_eq!(seen, ["MODIFIED a", "ADDED b", "DELETED a"]);
    // without a version it begins with what there is
    assert_eq!(first(&api, &WatchParams::default(), "0", 1).await, ["ADDED b"]);
}

#[tokio::test]
async fn an_object_that_ceases_to_match_the_selector_is_deleted_for_the_watcher() {
    let c = cluster().await;
    let mut map = config_map("a", &json!({}));
    map["metadata"]["labels"] = json!({"mine": "yes"});
    let made = c.post(CONFIG_MAPS, &map).await;
    let version = made.body["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{CONFIG_MAPS}/a");
    c.merge(&path, &json!({"data": {"x": "y"}})).await;
    c.merge(&path, &json!({"metadata": {"labels": {"mine": null}}})).await;
    c.merge(&path, &json!({"data": {"x": "z"}})).await;
    c.merge(&path, &json!({"metadata": {"labels": {"mine": "yes"}}})).await;
    let api: Api<ConfigMap> = Api::namespaced(c.client.clone(), "default");
    let seen = first(&api, &WatchParams::default().labels("mine=yes"), version, 3).await;
    assert_eq!(seen, ["MODIFIED a", "DELETED a", "ADDED a"]);
}

#[tokio::test]
async fn a_streamed_list_ends_with_its_bookmark() {
    let c = cluster().await;
    c.post(CONFIG_MAPS, &config_map("a", &json!({}))).await;
    c.post(CONFIG_MAPS, &config_map("b", &json!({}))).await;
    let api: Api<ConfigMap> = Api::namespaced(c.client.clone(), "default");
    let seen = first(&api, &WatchParams::default().initial_events(), "", 3).await;
    assert_eq!(seen[..2], ["ADDED a", "ADDED b"]);
    assert!(seen[2].contains("k8s.io/initial-events-end"), "{seen:?}");
}

#[tokio::test]
async fn a_metadata_watch_carries_no_values() {
    let c = cluster().await;
    c.post(CONFIG_MAPS, &config_map("a", &json!({"secret": "value"}))).await;
    let api: Api<ConfigMap> = Api::namespaced(c.client.clone(), "default");
    let mut stream = pin!(api.watch_metadata(&WatchParams::default(), "0").await.unwrap());
    let event = tokio::time::timeout(PATIENCE, stream.try_next()).await.unwrap().unwrap();
    let Some(WatchEvent::Added(object)) = event else { panic!("{event:?}") };
    assert_eq!(object.metadata.name.as_deref(), Some("a"));
}

#[tokio::test]
async fn a_version_that_the_server_does_not_know_is_expired() {
    let c = cluster().await;
    let api: Api<ConfigMap> = Api::namespaced(c.client.clone(), "default");
    assert_eq!(first(&api, &WatchParams::default(), "99999", 1).await, ["ERROR 410 Expired"]);
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout() {
    let c = cluster().await;
    let api: Api<ConfigMap> = Api::namespaced(c.client.clone(), "default");
    let seen = first(&api, &WatchParams::default().timeout(1), "0", 1).await;
    assert!(seen.is_empty());
}
