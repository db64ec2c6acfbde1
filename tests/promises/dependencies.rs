//! Promise 1: whoever waits for another application goes on in the moment in which it may.

use afresh::api::{Kustomization, READY};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::env::{Env, message, truth};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    an_expression_says_when_a_dependency_is_ready,
    an_expression_about_a_dependency_that_is_none_is_named,
}

async fn begin(env: &mut Env, expression: &str) -> String {
    let revision = env.push("A", &[("db/db.yaml", &config_map("db", "a")), ("web/web.yaml", &config_map("web", "a"))]);
    env.source(|_| {}).await;
    env.kustomization("db", |spec| spec["suspend"] = json!(true)).await;
    env.kustomization("web", |spec| spec["dependsOn"] = json!([{ "name": "db", "readyExpr": expression }])).await;
    env.start();
    revision
}

async fn annotate(env: &Env, name: &str) {
    let version = json!({ "metadata": { "annotations": { "version": "2" } } });
    env.kustomizations().patch(name, &PatchParams::default(), &Patch::Merge(version)).await.unwrap();
}

async fn an_expression_says_when_a_dependency_is_ready(env: &mut Env) {
    let expression = "dep.metadata.annotations['version'] == self.metadata.annotations['version']";
    let revision = begin(env, expression).await;
    env.until("web", "it says what it waits for", |web| message(web).contains("`readyExpr`")).await;
    annotate(env, "db").await;
    env.until("web", "it still waits", |web| message(web).contains("no such key")).await;
    assert!(env.live("ConfigMap", "web").await.is_none());
    // neither is Ready, and nobody pushes: the expression alone decides
    annotate(env, "web").await;
    env.ready_at("web", &revision).await;
    assert_eq!(truth(&env.kustomizations().get("db").await.unwrap()), None, "it was not even tried");
}

async fn an_expression_about_a_dependency_that_is_none_is_named(env: &mut Env) {
    let revision = begin(env, "dep.metadata.name").await;
    let stalled = |web: &Kustomization| {
        let stalled = web.status.as_ref().and_then(|status| status.conditions.get("Stalled"));
        stalled.is_some_and(|stalled| stalled.reason == "InvalidCELExpression")
    };
    let web = env.until("web", "Stalled names the expression", stalled).await;
    assert!(message(&web).contains("`spec.dependsOn[0].readyExpr`: it must be of type bool"), "{}", message(&web));
    env.kustomization("web", |spec| {
        spec["dependsOn"] = json!([{ "name": "db", "readyExpr": "dep.metadata.name == 'db'" }]);
    })
    .await;
    let web = env.ready_at("web", &revision).await;
    assert!(web.status.unwrap().conditions.is_true(READY));
}
