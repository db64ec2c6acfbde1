//! Kustomize on a cluster: an overlay goes live, its generated names follow its content, what it no longer has goes.

use serde_json::json;

use crate::support::env::Env;
use crate::support::manifests::deployment;
use crate::support::scenarios;

scenarios! {
    an_overlay_goes_live_and_generated_names_follow_their_content,
    a_broken_kustomization_names_its_entry_and_does_not_hold_back_its_fix,
}

const OVERLAY: &str =
    "resources: [../base]\nnamePrefix: shop-\nconfigMapGenerator:\n- name: settings\n  literals: [greeting=hello]\n";

fn web() -> String {
    let mut web: serde_json::Value = serde_json::from_str(&deployment("web", "web:1")).expect("JSON");
    web["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{ "configMapRef": { "name": "settings" } }]);
    web.to_string()
}

/// The ConfigMap that the Deployment reads.
async fn settings_of(env: &Env) -> String {
    let web = env.live("Deployment", "shop-web").await.expect("the Deployment is there");
    let name = web.pointer("/spec/template/spec/containers/0/envFrom/0/configMapRef/name");
    name.and_then(|name| name.as_str()).expect("it reads a ConfigMap").to_owned()
}

async fn an_overlay_goes_live_and_generated_names_follow_their_content(env: &mut Env) {
    let base = "resources: [web.yaml]\n";
    env.begin(&[("base/kustomization.yaml", base), ("base/web.yaml", &web()), ("app/kustomization.yaml", OVERLAY)])
        .await;
    let first = settings_of(env).await;
    assert_eq!(env.live("ConfigMap", &first).await.expect("it is there")["data"]["greeting"], "hello");

    let changed = env.push("B", &[("app/kustomization.yaml", &OVERLAY.replace("hello", "good day"))]);
    env.announce().await;
    env.ready_at("app", &changed).await;
    let second = settings_of(env).await;
    assert_ne!(first, second, "another content has another name");
    assert_eq!(env.live("ConfigMap", &second).await.expect("it is there")["data"]["greeting"], "good day");
    env.until_gone("ConfigMap", &first).await;
}

async fn a_broken_kustomization_names_its_entry_and_does_not_hold_back_its_fix(env: &mut Env) {
    env.begin(&[
        ("base/kustomization.yaml", "resources: [web.yaml]\n"),
        ("base/web.yaml", &web()),
        ("app/kustomization.yaml", OVERLAY),
    ])
    .await;
    let broken = env.push("B", &[("base/kustomization.yaml", "resources:\n- webb.yaml\n")]);
    env.announce().await;
    env.failed_at("app", &broken, "base/kustomization.yaml:2:3: there is no file or directory `base/webb.yaml`").await;

    let fix = env.push("C", &[("base/kustomization.yaml", "resources: [web.yaml]\nnamespace: ignored\n")]);
    env.ready_at("app", &fix).await;
    assert!(env.live("Deployment", "shop-web").await.is_some(), "the target namespace wins");
}
