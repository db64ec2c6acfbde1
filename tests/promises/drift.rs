//! The cluster is kept as declared, whoever changes it.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::env::Env;
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    a_value_changed_by_hand_is_corrected,
    a_deleted_object_is_made_again,
    a_field_that_git_does_not_mention_stays,
    a_field_removed_from_git_goes,
    an_object_with_reconciling_disabled_is_left_alone,
}

async fn edit(env: &Env, name: &str, change: serde_json::Value) {
    let by = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    env.objects("ConfigMap").patch(name, &by, &Patch::Merge(change)).await.unwrap();
}

async fn a_value_changed_by_hand_is_corrected(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    edit(env, "settings", json!({ "data": { "value": "by hand" } })).await;
    env.until_live("ConfigMap", "settings", "it is corrected", |found| found["data"]["value"] == "a").await;
}

async fn a_deleted_object_is_made_again(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let before = env.live("ConfigMap", "settings").await.unwrap();
    env.objects("ConfigMap").delete("settings", &DeleteParams::default()).await.unwrap();
    env.until_live("ConfigMap", "settings", "it is there again", |found| {
        found["metadata"]["uid"] != before["metadata"]["uid"] && found["data"]["value"] == "a"
    })
    .await;
}

async fn a_field_that_git_does_not_mention_stays(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    edit(env, "settings", json!({ "data": { "value": "by hand", "other": "by hand" } })).await;
    let found = env.until_live("ConfigMap", "settings", "it is corrected", |found| found["data"]["value"] == "a").await;
    assert_eq!(found["data"]["other"], "by hand");
}

async fn a_field_removed_from_git_goes(env: &mut Env) {
    let two = config_map("settings", "a").replace("\"value\": \"a\"", "\"value\": \"a\", \"more\": \"m\"");
    env.begin(&[("app/settings.yaml", &two)]).await;
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["more"], "m");
    let b = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"], json!({ "value": "b" }));
}

async fn an_object_with_reconciling_disabled_is_left_alone(env: &mut Env) {
    env.begin(&[("app/x.yaml", &config_map("x", "a")), ("app/y.yaml", &config_map("y", "a"))]).await;
    let disabled = json!({ "kustomize.toolkit.fluxcd.io/reconcile": "disabled" });
    edit(env, "x", json!({ "metadata": { "annotations": disabled }, "data": { "value": "by hand" } })).await;
    edit(env, "y", json!({ "data": { "value": "by hand" } })).await;
    env.until_live("ConfigMap", "y", "it is corrected", |found| found["data"]["value"] == "a").await;
    let b = env.push("B", &[("app/x.yaml", &config_map("x", "b")), ("app/y.yaml", &config_map("y", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    assert_eq!(env.live("ConfigMap", "x").await.unwrap()["data"]["value"], "by hand");
}
