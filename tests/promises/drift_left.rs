//! Drift that is left: reported where that is asked for, not looked at where that is asked for. What Git changes is applied
//! in any case.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::drift::{edit, told};
use crate::support::env::{Env, message};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    drift_is_reported_and_left_until_git_changes_the_object,
    what_somebody_deletes_stays_deleted_until_git_changes_it,
    a_restart_leaves_what_is_left_and_says_nothing_new,
    drift_is_not_looked_at,
    the_word_of_the_live_object_counts_first,
    an_unknown_mode_is_refused_by_name,
}

const CONDITION: &str = "afresh.dev/Drift";

/// What `kubectl annotate` does with the Kustomization.
async fn annotate(env: &Env, mode: Value) {
    let change = json!({ "metadata": { "annotations": { "afresh.dev/drift": mode } } });
    env.kustomizations().patch("app", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
}

/// A ConfigMap that asks for a mode itself.
fn asking(name: &str, value: &str, mode: &str) -> String {
    let metadata = json!({ "name": name, "annotations": { "afresh.dev/drift": mode } });
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "value": value } }).to_string()
}

/// Until the condition says this; empty: until it is gone.
async fn left(env: &Env, text: &str) {
    env.until("app", &format!("{CONDITION} says `{text}`"), |app| {
        let said = app.status.as_ref().and_then(|status| status.conditions.get(CONDITION));
        said.map_or(text.is_empty(), |condition| !text.is_empty() && condition.message.contains(text))
    })
    .await;
}

async fn objects_left(env: &Env) -> Option<f64> {
    let labels = [("name", "app"), ("namespace", env.namespace.as_str()), ("state", "left")];
    env.measured("afresh_drift_objects", &labels).await
}

async fn value_of(env: &Env, name: &str) -> Value {
    env.live("ConfigMap", name).await.unwrap()["data"]["value"].clone()
}

async fn drift_is_reported_and_left_until_git_changes_the_object(env: &mut Env) {
    let a = env.begin(&[("app/x.yaml", &config_map("x", "a")), ("app/y.yaml", &asking("y", "a", "correct"))]).await;
    annotate(env, json!("warn")).await;
    env.reconcile("app").await;
    edit(env, "x", json!({ "data": { "value": "by hand" } })).await;
    told(env, "DriftDetected", &["/x: data.value, written by kubectl-edit"]).await;
    left(env, "/x: data.value").await;
    assert_eq!(objects_left(env).await, Some(1.0));
    // the object's own word counts more
    edit(env, "y", json!({ "data": { "value": "by hand" } })).await;
    env.until_live("ConfigMap", "y", "it is corrected", |found| found["data"]["value"] == "a").await;
    assert_eq!(value_of(env, "x").await, "by hand");
    env.ready_at("app", &a).await;

    // another object's change touches it no more than this one's own does not
    let b = env.push("B", &[("app/y.yaml", &asking("y", "b", "correct"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    assert_eq!(value_of(env, "x").await, "by hand");
    let c = env.push("C", &[("app/x.yaml", &config_map("x", "c"))]);
    env.announce().await;
    env.ready_at("app", &c).await;
    assert_eq!(value_of(env, "x").await, "c");
    left(env, "").await;
    env.eventually("no object is left", async || (objects_left(env).await == Some(0.0)).then_some(())).await;

    // and back: what is left is put back
    edit(env, "x", json!({ "data": { "value": "again" } })).await;
    left(env, "/x: data.value").await;
    annotate(env, Value::Null).await;
    env.until_live("ConfigMap", "x", "it is corrected", |found| found["data"]["value"] == "c").await;
    left(env, "").await;
}

async fn what_somebody_deletes_stays_deleted_until_git_changes_it(env: &mut Env) {
    env.begin(&[("app/x.yaml", &asking("x", "a", "warn")), ("app/y.yaml", &config_map("y", "a"))]).await;
    env.objects("ConfigMap").delete("x", &DeleteParams::default()).await.unwrap();
    told(env, "DriftDetected", &["/x: deleted"]).await;
    env.daemon.take().unwrap().stop().await.unwrap();
    env.start();
    edit(env, "y", json!({ "data": { "value": "by hand" } })).await;
    env.until_live("ConfigMap", "y", "it is corrected", |found| found["data"]["value"] == "a").await;
    env.reconcile("app").await;
    assert!(env.live("ConfigMap", "x").await.is_none(), "a restart is no reason to make it");
    let b = env.push("B", &[("app/x.yaml", &asking("x", "b", "warn"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    assert_eq!(value_of(env, "x").await, "b");
}

async fn a_restart_leaves_what_is_left_and_says_nothing_new(env: &mut Env) {
    env.begin(&[("app/x.yaml", &asking("x", "a", "warn")), ("app/y.yaml", &asking("y", "a", "warn"))]).await;
    edit(env, "x", json!({ "data": { "value": "by hand" } })).await;
    left(env, "/x: data.value").await;
    // it is told after the condition is written
    told(env, "DriftDetected", &["/x: data.value"]).await;
    env.daemon.take().unwrap().stop().await.unwrap();
    // and while nobody looks
    edit(env, "y", json!({ "data": { "value": "by hand" } })).await;
    env.start();
    told(env, "DriftDetected", &["/y: data.value"]).await;
    left(env, "/x: data.value").await;
    assert_eq!((value_of(env, "x").await, value_of(env, "y").await), (json!("by hand"), json!("by hand")));
    let events = env.events("app").await;
    let of_x = events.iter().filter(|(reason, message)| reason == "DriftDetected" && message.contains("/x:"));
    assert_eq!(of_x.count(), 1, "{events:?}");
}

async fn drift_is_not_looked_at(env: &mut Env) {
    env.begin(&[("app/x.yaml", &asking("x", "a", "off")), ("app/y.yaml", &config_map("y", "a"))]).await;
    edit(env, "x", json!({ "data": { "value": "by hand" } })).await;
    edit(env, "y", json!({ "data": { "value": "by hand" } })).await;
    told(env, "DriftCorrected", &["/y (data.value"]).await;
    assert_eq!(value_of(env, "x").await, "by hand");
    assert_eq!(objects_left(env).await, Some(0.0));
    let b = env.push("B", &[("app/x.yaml", &asking("x", "b", "off"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    assert_eq!(value_of(env, "x").await, "b");
    assert!(env.events("app").await.iter().all(|(_, message)| !message.contains("/x")));
}

async fn the_word_of_the_live_object_counts_first(env: &mut Env) {
    env.begin(&[("app/x.yaml", &config_map("x", "a")), ("app/y.yaml", &config_map("y", "a"))]).await;
    let mode = |mode: Value| json!({ "metadata": { "annotations": { "afresh.dev/drift": mode } } });
    edit(env, "x", mode(json!("off"))).await;
    edit(env, "x", json!({ "data": { "value": "by hand" } })).await;
    edit(env, "y", json!({ "data": { "value": "by hand" } })).await;
    env.until_live("ConfigMap", "y", "it is corrected", |found| found["data"]["value"] == "a").await;
    assert_eq!(value_of(env, "x").await, "by hand");
    edit(env, "x", mode(Value::Null)).await;
    env.until_live("ConfigMap", "x", "it is corrected", |found| found["data"]["value"] == "a").await;
    edit(env, "x", mode(json!("sometimes"))).await;
    told(env, "DriftModeUnknown", &["/x", "`correct`, `warn` or `off`"]).await;
}

async fn an_unknown_mode_is_refused_by_name(env: &mut Env) {
    env.begin(&[("app/x.yaml", &config_map("x", "a"))]).await;
    annotate(env, json!("never")).await;
    let stalled = env
        .until("app", "it is stalled", |app| {
            app.status.as_ref().is_some_and(|status| status.conditions.is_true("Stalled"))
        })
        .await;
    assert!(message(&stalled).contains("`afresh.dev/drift: never`"), "{}", message(&stalled));
    annotate(env, json!("correct")).await;
    let b = env.push("B", &[("app/x.yaml", &asking("x", "b", "never"))]);
    env.announce().await;
    env.failed_at("app", &b, "app/x.yaml:1: ").await;
    let c = env.push("C", &[("app/x.yaml", &config_map("x", "c"))]);
    env.announce().await;
    env.ready_at("app", &c).await;
}
