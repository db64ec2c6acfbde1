//! Replicas that are set through the scale subresource, by an autoscaler or by `kubectl scale`, are left to it.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::drift::told;
use crate::support::env::Env;
use crate::support::manifests::{config_map, deployment};
use crate::support::scenarios;

scenarios! {
    a_scaled_workload_keeps_its_number_until_git_says_another,
    a_restart_keeps_the_number_of_a_scaled_workload,
}

async fn scale(env: &Env, replicas: u32) {
    let workloads: Api<Deployment> = Api::namespaced(env.client.clone(), &env.namespace);
    let by = PatchParams { field_manager: Some("kubectl".into()), ..PatchParams::default() };
    let change = json!({ "spec": { "replicas": replicas } });
    workloads.patch_scale("web", &by, &Patch::Merge(change)).await.expect("it is scaled");
}

fn web(image: &str, replicas: u32) -> String {
    let mut web: Value = serde_json::from_str(&deployment("web", image)).unwrap();
    web["spec"]["replicas"] = replicas.into();
    web.to_string()
}

async fn replicas(env: &Env) -> Value {
    env.live("Deployment", "web").await.unwrap()["spec"]["replicas"].clone()
}

async fn release(env: &Env, message: &str, web: &str) {
    let revision = env.push(message, &[("app/web.yaml", web)]);
    env.announce().await;
    env.ready_at("app", &revision).await;
}

async fn a_scaled_workload_keeps_its_number_until_git_says_another(env: &mut Env) {
    env.begin(&[("app/web.yaml", &web("web:1", 1)), ("app/x.yaml", &config_map("x", "a"))]).await;
    scale(env, 3).await;
    told(env, "ReplicasTakenOver", &["/web: spec.replicas is left to kubectl"]).await;
    assert_eq!(replicas(env).await, 3);
    scale(env, 2).await;

    // another change of Git, and one by hand, leave the number
    release(env, "B", &web("web:2", 1)).await;
    let live = env.live("Deployment", "web").await.unwrap();
    assert_eq!(live["spec"]["template"]["spec"]["containers"][0]["image"], "web:2");
    assert_eq!(live["spec"]["replicas"], 2);
    let by = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    let change =
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "main", "image": "web:3" }] } } } });
    env.objects("Deployment").patch("web", &by, &Patch::Strategic(change)).await.unwrap();
    told(
        env,
        "DriftCorrected",
        &["/web (spec.template.spec.containers[name=\"main\"].image, written by kubectl-edit)"],
    )
    .await;
    assert_eq!(replicas(env).await, 2);
    let events = env.events("app").await;
    let told_of = events.iter().filter(|(reason, _)| reason == "ReplicasTakenOver");
    assert_eq!(told_of.count(), 1, "{events:?}");

    // a new number in Git is meant
    release(env, "C", &web("web:2", 4)).await;
    assert_eq!(replicas(env).await, 4);
    env.until("app", "nothing is said of replicas", |app| {
        app.status.as_ref().is_some_and(|status| status.conditions.get("afresh.dev/Drift").is_none())
    })
    .await;
}

async fn a_restart_keeps_the_number_of_a_scaled_workload(env: &mut Env) {
    env.begin(&[("app/web.yaml", &web("web:1", 1))]).await;
    scale(env, 3).await;
    told(env, "ReplicasTakenOver", &["/web"]).await;
    env.daemon.take().unwrap().stop().await.unwrap();
    let before = env.requests_of_the_daemon().await.len();
    env.start();
    env.reconcile("app").await;
    assert_eq!(replicas(env).await, 3);
    let after = env.requests_of_the_daemon().await;
    let about = after[before..].iter().filter(|r| r.contains("/web") && !r.starts_with("watch ")).collect::<Vec<_>>();
    assert!(about.is_empty(), "{about:?}");
    release(env, "B", &web("web:2", 1)).await;
    assert_eq!(replicas(env).await, 3);
}
