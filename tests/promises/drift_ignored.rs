//! `spec.ignore`: fields that are left to others once their object is there.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::drift::{edit, told};
use crate::support::env::{Env, message};
use crate::support::scenarios;

scenarios! {
    an_ignored_field_is_left_and_the_rest_is_put_back,
    a_field_that_another_applies_is_let_go,
    a_rule_that_goes_is_a_field_that_is_put_back,
    a_rule_that_can_not_be_used_is_refused_by_name,
}

fn config_map(name: &str, left: &str, kept: &str) -> String {
    let data = json!({ "left": left, "kept": kept });
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data }).to_string()
}

async fn ignore(env: &Env, rules: Value) {
    env.kustomization("app", |spec| spec["ignore"] = rules).await;
}

fn left_of_x() -> Value {
    json!([{ "paths": ["/data/left"], "target": { "kind": "ConfigMap", "name": "x" } }])
}

async fn data(env: &Env, name: &str) -> Value {
    env.live("ConfigMap", name).await.unwrap()["data"].clone()
}

async fn begin(env: &mut Env) {
    let a = env.push("A", &[("app/x.yaml", &config_map("x", "a", "a")), ("app/y.yaml", &config_map("y", "a", "a"))]);
    env.source(|_| {}).await;
    ignore(env, left_of_x()).await;
    env.start();
    env.ready_at("app", &a).await;
}

async fn an_ignored_field_is_left_and_the_rest_is_put_back(env: &mut Env) {
    begin(env).await;
    assert_eq!(data(env, "x").await, json!({ "left": "a", "kept": "a" }), "what is not there yet is made as declared");
    edit(env, "x", json!({ "data": { "left": "theirs" } })).await;
    edit(env, "y", json!({ "data": { "left": "theirs" } })).await;
    env.until_live("ConfigMap", "y", "it is corrected", |found| found["data"]["left"] == "a").await;
    assert_eq!(data(env, "x").await["left"], "theirs");
    edit(env, "x", json!({ "data": { "kept": "theirs" } })).await;
    told(env, "DriftCorrected", &["/x (data.kept, written by kubectl-edit)"]).await;
    assert_eq!(data(env, "x").await, json!({ "left": "theirs", "kept": "a" }));

    let b = env.push("B", &[("app/x.yaml", &config_map("x", "b", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    assert_eq!(data(env, "x").await, json!({ "left": "theirs", "kept": "b" }));

    // and after a restart nothing is written
    env.daemon.take().unwrap().stop().await.unwrap();
    edit(env, "x", json!({ "data": { "left": "again" } })).await;
    let version = env.live("ConfigMap", "x").await.unwrap()["metadata"]["resourceVersion"].clone();
    env.start();
    env.reconcile("app").await;
    assert_eq!(env.live("ConfigMap", "x").await.unwrap()["metadata"]["resourceVersion"], version);
}

async fn a_field_that_another_applies_is_let_go(env: &mut Env) {
    begin(env).await;
    let theirs =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x" }, "data": { "left": "theirs" } });
    env.objects("ConfigMap").patch("x", &PatchParams::apply("tuner").force(), &Patch::Apply(&theirs)).await.unwrap();
    let b = env.push("B", &[("app/x.yaml", &config_map("x", "b", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    assert_eq!(data(env, "x").await, json!({ "left": "theirs", "kept": "b" }));
    // it is theirs alone: what they let go of is gone
    let nothing = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x" } });
    env.objects("ConfigMap").patch("x", &PatchParams::apply("tuner"), &Patch::Apply(&nothing)).await.unwrap();
    env.until_live("ConfigMap", "x", "it has gone", |found| found["data"] == json!({ "kept": "b" })).await;
}

async fn a_rule_that_goes_is_a_field_that_is_put_back(env: &mut Env) {
    begin(env).await;
    edit(env, "x", json!({ "data": { "left": "theirs" } })).await;
    edit(env, "y", json!({ "data": { "left": "theirs" } })).await;
    env.until_live("ConfigMap", "y", "it is corrected", |found| found["data"]["left"] == "a").await;
    env.daemon.take().unwrap().stop().await.unwrap();
    env.start();
    env.reconcile("app").await;
    assert_eq!(data(env, "x").await["left"], "theirs");
    ignore(env, json!([])).await;
    env.until_live("ConfigMap", "x", "it is corrected", |found| found["data"]["left"] == "a").await;
}

async fn a_rule_that_can_not_be_used_is_refused_by_name(env: &mut Env) {
    begin(env).await;
    for (rules, named) in [
        (json!([{ "paths": ["data.left"] }]), "`spec.ignore[0].paths[0]` is `data.left`"),
        (json!([{ "paths": ["/data/left"], "target": { "kind": "(" } }]), "`spec.ignore[0].target.kind`"),
        (json!([{ "paths": ["/metadata/name"] }]), "`/metadata/name`"),
    ] {
        ignore(env, rules).await;
        let stalled = env.until("app", named, |app| message(app).contains(named)).await;
        assert!(stalled.status.unwrap().conditions.is_true("Stalled"));
    }
    ignore(env, left_of_x()).await;
    let b = env.push("B", &[("app/x.yaml", &config_map("x", "b", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
}
