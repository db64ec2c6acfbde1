//! The cluster is kept as declared, whoever changes it.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::env::Env;
use crate::support::manifests::{config_map, deployment, secret};
use crate::support::scenarios;

scenarios! {
    a_value_changed_by_hand_is_corrected,
    a_deleted_object_is_made_again,
    a_field_that_git_does_not_mention_stays,
    a_field_removed_from_git_goes,
    an_object_with_reconciling_disabled_is_left_alone,
    the_event_of_a_correction_names_the_fields_and_who_wrote_them,
    of_a_secret_the_keys_are_named_and_no_values,
    a_correction_is_one_request,
}

/// What a person does with `kubectl edit`.
pub async fn edit(env: &Env, name: &str, change: serde_json::Value) {
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

/// Until an Event has been told with this reason that has all of these texts.
pub async fn told(env: &Env, reason: &str, texts: &[&str]) -> String {
    env.eventually(&format!("an Event {reason} with {texts:?}"), async || {
        let events = env.events("app").await;
        let mut messages = events.into_iter().filter(|(told, _)| told == reason).map(|(_, message)| message);
        messages.find(|message| texts.iter().all(|text| message.contains(text)))
    })
    .await
}

async fn the_event_of_a_correction_names_the_fields_and_who_wrote_them(env: &mut Env) {
    env.begin(&[("app/web.yaml", &deployment("web", "web:1")), ("app/x.yaml", &config_map("x", "a"))]).await;
    let by = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    let change = json!({ "spec": { "replicas": 2, "template": { "spec": { "containers": [
        { "name": "main", "image": "web:2" },
    ] } } } });
    env.objects("Deployment").patch("web", &by, &Patch::Strategic(change)).await.unwrap();
    let image = "spec.template.spec.containers[name=\"main\"].image";
    told(env, "DriftCorrected", &["/web (spec.replicas", image, "written by kubectl-edit"]).await;
    let web = env.live("Deployment", "web").await.unwrap();
    assert_eq!(web["spec"]["replicas"], 1);
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "web:1");
    env.objects("ConfigMap").delete("x", &DeleteParams::default()).await.unwrap();
    told(env, "DriftCorrected", &["/x (deleted)"]).await;
}

async fn of_a_secret_the_keys_are_named_and_no_values(env: &mut Env) {
    env.begin(&[("app/token.yaml", &secret("token", "planted-by-git"))]).await;
    let by = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    let change = json!({ "stringData": { "value": "planted-by-hand" } });
    env.objects("Secret").patch("token", &by, &Patch::Merge(change)).await.unwrap();
    let message = told(env, "DriftCorrected", &["/token (data.value, written by kubectl-edit)"]).await;
    for value in ["planted", "cGxhbnRlZC"] {
        assert!(!message.contains(value), "{message}");
    }
}

async fn a_correction_is_one_request(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let before = env.requests_of_the_daemon().await.len();
    edit(env, "settings", json!({ "data": { "value": "by hand" } })).await;
    env.until_live("ConfigMap", "settings", "it is corrected", |found| found["data"]["value"] == "a").await;
    told(env, "DriftCorrected", &["data.value"]).await;
    let after = env.requests_of_the_daemon().await;
    let about: Vec<_> = after[before..].iter().filter(|request| request.contains("/settings")).collect();
    assert_eq!(about.len(), 1, "{about:?}");
}
