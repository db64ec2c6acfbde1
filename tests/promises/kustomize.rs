//! Kustomize on a cluster: an overlay goes live, its generated names follow its content, what it no longer has goes.

use kube::api::ListParams;
use serde_json::json;

use crate::support::env::{Env, message};
use crate::support::manifests::deployment;
use crate::support::scenarios;

scenarios! {
    an_overlay_goes_live_and_generated_names_follow_their_content,
    a_broken_kustomization_names_its_entry_and_does_not_hold_back_its_fix,
    what_the_kustomization_adds_goes_live_over_plain_files_and_templates,
    a_mistake_in_the_kustomization_is_at_its_field_and_its_repair_goes_live,
    values_of_secrets_do_not_show_whatever_is_made_of_them,
}

const OVERLAY: &str =
    "resources: [../base]\nnamePrefix: shop-\nconfigMapGenerator:\n- name: settings\n  literals: [greeting=hello]\n";

fn web() -> String {
    let mut web: serde_json::Value = serde_json::from_str(&deployment("web", "web:1")).expect("JSON");
    web["spec"]["revisionHistoryLimit"] = 0.into();
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
    // until then Pods of the revision before may still need it
    env.eventually("the history is forgotten", async || {
        let sets = env.objects("ReplicaSet").list(&ListParams::default()).await.ok()?;
        (!json!(sets.items).to_string().contains(&first)).then_some(())
    })
    .await;
    env.reconcile("app").await;
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

async fn what_the_kustomization_adds_goes_live_over_plain_files_and_templates(env: &mut Env) {
    let template = "{% for name in values.names %}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ name }}}\ndata: {level: \"${level^^}\"}\n{% endfor %}\n";
    env.push(
        "A",
        &[
            ("app/web.yaml", &web()),
            ("app/chart/afresh.yaml", "render: template\nvalues: values.yaml\n"),
            ("app/chart/values.yaml", "names: [settings, other]\n"),
            ("app/chart/all.yaml", template),
            (
                "part/kustomization.yaml",
                "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nlabels: [{pairs: {part: one}}]\n",
            ),
        ],
    );
    env.source(|_| {}).await;
    env.kustomization("app", |spec| {
        spec["namePrefix"] = "shop-".into();
        spec["components"] = json!(["../part", "../nowhere"]);
        spec["ignoreMissingComponents"] = true.into();
        spec["images"] = json!([{ "name": "web", "newTag": "2" }]);
        spec["patches"] = json!([{
            "target": { "kind": "Deployment" },
            "patch": "[{\"op\": \"replace\", \"path\": \"/spec/replicas\", \"value\": 2}]",
        }]);
        spec["commonMetadata"] = json!({ "annotations": { "team": "shop" } });
        spec["postBuild"] = json!({ "substitute": { "level": "debug" } });
    })
    .await;
    env.start();
    env.until_live("Deployment", "shop-web", "it is applied", |_| true).await;
    let web = env.live("Deployment", "shop-web").await.expect("it is there");
    assert_eq!(web["spec"]["replicas"], 2);
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "web:2");
    assert_eq!(web["metadata"]["labels"]["part"], "one");
    assert_eq!(web["metadata"]["annotations"]["team"], "shop");
    assert_eq!(settings_of(env).await, "shop-settings", "references follow the prefix");
    let settings = env.until_live("ConfigMap", "shop-settings", "it is applied", |_| true).await;
    assert_eq!(settings["data"]["level"], "DEBUG");
}

async fn a_mistake_in_the_kustomization_is_at_its_field_and_its_repair_goes_live(env: &mut Env) {
    let a = env.begin(&[("app/web.yaml", &web())]).await;
    let target = |name: &str| {
        let patch = "[{\"op\": \"add\", \"path\": \"/metadata/labels\", \"value\": {\"patched\": \"yes\"}}]";
        json!([{ "target": { "kind": "Service" }, "patch": patch }, { "target": { "name": name }, "patch": patch }])
    };
    env.kustomization("app", |spec| spec["patches"] = target("(")).await;
    env.failed_at("app", &a, "spec.patches[1].target.name: `(` is not a regular expression").await;
    env.kustomization("app", |spec| spec["patches"] = target("web")).await;
    env.until_live("Deployment", "web", "it is patched", |web| web["metadata"]["labels"]["patched"] == "yes").await;
    env.ready_at("app", &a).await;
}

async fn values_of_secrets_do_not_show_whatever_is_made_of_them(env: &mut Env) {
    env.secret("values", json!({ "password": "correcthorse" })).await;
    let a = env.push("A", &[("app/settings.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, labels: {bad: \"${password^^} ${password:0:7}\"}}\n")]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| {
        spec["postBuild"] = json!({ "substituteFrom": [{ "kind": "Secret", "name": "values" }] });
    })
    .await;
    env.start();
    let app = env.failed_at("app", &a, "***").await;
    let text = message(&app);
    for secret in ["correcthorse", "CORRECTHORSE", "correct"] {
        assert!(!text.contains(secret), "{text}");
    }
}
