//! Promise 4: quiet when nothing changes, after a restart too. And the end of the process loses nothing.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::daemon::Runner;
use crate::support::env::Env;
use crate::support::manifests::{config_map, deployment};
use crate::support::scenarios;

scenarios! {
    nothing_is_written_or_asked_in_steady_state,
    suspended_and_stalled_applications_cost_nothing,
    values_from_elsewhere_are_read_once_for_each_change,
    a_restart_writes_nothing_where_all_is_as_declared,
    an_upgrade_writes_nothing_where_all_is_as_declared,
    a_restart_during_a_health_wait_goes_on_waiting,
    a_kill_during_a_broken_revision_does_not_hold_back_the_fix,
}

/// Long enough for anything that repeats every second or two to show.
const WHILE: Duration = Duration::from_secs(5);

/// Requests of the daemon that a quiet one doesn't make.
async fn loud_requests(env: &Env) -> Vec<String> {
    let loud = env.requests_of_the_daemon().await.into_iter();
    loud.filter(|request| !request.contains("/leases") && !request.starts_with("watch ")).collect()
}

async fn nothing_is_written_or_asked_in_steady_state(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a")), ("app/web.yaml", &deployment("web", "web:1"))])
        .await;
    env.until_live("Deployment", "web", "available", |web| web["status"]["availableReplicas"] == 1).await;
    // What belongs to becoming ready may still be under way.
    tokio::time::sleep(WHILE).await;
    let before = loud_requests(env).await.len();
    tokio::time::sleep(WHILE).await;
    let after = loud_requests(env).await;
    assert!(after.len() == before, "{:#?}", &after[before..]);
}

async fn suspended_and_stalled_applications_cost_nothing(env: &mut Env) {
    env.runner = Runner::Process;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a")), ("other/x.yaml", &config_map("x", "a"))]).await;
    env.kustomization("app", |spec| spec["suspend"] = json!(true)).await;
    env.kustomization("stalled", |spec| spec["kubeConfig"] = json!({ "secretRef": { "name": "remote" } })).await;
    env.until("stalled", "it is stalled", |stalled| {
        stalled.status.as_ref().is_some_and(|status| status.conditions.is_true("Stalled"))
    })
    .await;
    env.kustomization("other", |_| {}).await;
    let b = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.announce().await;
    env.ready_at("other", &b).await;

    let daemon = env.daemon.as_ref().unwrap();
    let Some(before) = daemon.cpu_ticks() else { return };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = daemon.cpu_ticks().unwrap() - before;
    assert!(used < 40, "{used} hundredths of a second of processor time in two seconds");
}

async fn values_from_elsewhere_are_read_once_for_each_change(env: &mut Env) {
    env.start();
    let values = async |value: &str| {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "values" }, "data": { "colour": value },
        });
        let params = PatchParams::apply("test").force();
        env.objects("ConfigMap").patch("values", &params, &Patch::Apply(&map)).await.unwrap();
    };
    let reads = async || {
        let requests = env.requests_of_the_daemon().await;
        requests.iter().filter(|request| request.starts_with("get ") && request.contains("configmaps/values")).count()
    };
    values("red").await;
    let settings = |number: &str| config_map("settings", &format!("${{colour}} {number}"));
    let a = env.push("A", &[("app/settings.yaml", &settings("1"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| {
        spec["postBuild"] = json!({ "substituteFrom": [{ "kind": "ConfigMap", "name": "values" }] });
    })
    .await;
    env.ready_at("app", &a).await;
    for number in ["2", "3"] {
        let revision = env.push(number, &[("app/settings.yaml", &settings(number))]);
        env.announce().await;
        env.ready_at("app", &revision).await;
    }
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "red 3");
    assert_eq!(reads().await, 1, "three revisions were rendered with the same values");

    values("blue").await;
    env.until_live("ConfigMap", "settings", "it has the new value", |found| found["data"]["value"] == "blue 3").await;
    assert_eq!(reads().await, 2);
}

async fn a_restart_writes_nothing_where_all_is_as_declared(env: &mut Env) {
    env.runner = Runner::Process;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a")), ("app/web.yaml", &deployment("web", "web:1"))])
        .await;
    env.until_live("Deployment", "web", "available", |web| web["status"]["availableReplicas"] == 1).await;
    let settled = env.kustomizations().get("app").await.unwrap();
    env.daemon.take().unwrap().stop().await.expect("SIGTERM is an orderly end");

    let before = env.requests_of_the_daemon().await.len();
    env.start();
    // It serves again: a request is echoed. That is the only write.
    env.reconcile("app").await;
    assert_eq!(about_objects(&env.requests_of_the_daemon().await[before..]), Vec::<&String>::new());
    let now = env.kustomizations().get("app").await.unwrap();
    assert_eq!(settled.status.unwrap().conditions, now.status.unwrap().conditions);
}

/// Of these requests the ones that read or write the objects of an application, dry-runs too.
fn about_objects(requests: &[String]) -> Vec<&String> {
    let objects = ["/configmaps/settings", "/deployments/web", "/secrets/access", "/services/web"];
    let about = requests.iter().filter(|request| objects.iter().any(|object| request.contains(object)));
    about.filter(|request| !request.starts_with("watch ") && !request.starts_with("list ")).collect()
}

async fn an_upgrade_writes_nothing_where_all_is_as_declared(env: &mut Env) {
    // only a daemon in this process can be of another version than this build
    env.runner = Runner::InProcess;
    env.version = Some("0.0.1".to_owned());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "access" }, "stringData": { "token": "t" },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" }, "spec": { "ports": [{ "port": 80 }] },
    });
    env.begin(&[
        ("app/settings.yaml", &config_map("settings", "a")),
        ("app/web.yaml", &deployment("web", "web:1")),
        ("app/access.yaml", &secret.to_string()),
        ("app/service.yaml", &service.to_string()),
    ])
    .await;
    env.until_live("Deployment", "web", "available", |web| web["status"]["availableReplicas"] == 1).await;
    let objects = async |env: &Env| {
        let mut all = Vec::new();
        for (kind, name) in [("ConfigMap", "settings"), ("Deployment", "web"), ("Secret", "access"), ("Service", "web")]
        {
            all.push(env.live(kind, name).await.unwrap());
        }
        all
    };
    let (settled, before) = (env.kustomizations().get("app").await.unwrap(), objects(env).await);
    env.daemon.take().unwrap().stop().await.unwrap();

    let asked = env.requests_of_the_daemon().await.len();
    env.version = Some("99.0.0".to_owned());
    // a new Pod: neither the folder nor the name of the one before
    env.daemon = Some(env.start_replica("upgraded", env.kubeconfig()));
    env.reconcile("app").await;
    assert!(env.is_counted("afresh_build_info", &[("version", "99.0.0")]).await);
    assert_eq!(about_objects(&env.requests_of_the_daemon().await[asked..]), Vec::<&String>::new());
    assert_eq!(objects(env).await, before);
    let now = env.kustomizations().get("app").await.unwrap();
    assert_eq!(settled.status.unwrap().conditions, now.status.unwrap().conditions);

    // and it is the newer one that goes on
    let b = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    let after = objects(env).await;
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after);
    assert_eq!(changed.map(|(_, after)| after["metadata"]["name"].as_str().unwrap()).collect::<Vec<_>>(), ["settings"]);
}

async fn a_restart_during_a_health_wait_goes_on_waiting(env: &mut Env) {
    let revision = env.begin_waiting().await;
    let before = env.live("Deployment", "web").await.unwrap();
    env.daemon.take().unwrap().stop().await.unwrap();
    env.start();
    env.change_behaviour("web", "ready").await;
    env.ready_at("app", &revision).await;
    let after = env.live("Deployment", "web").await.unwrap();
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(before["spec"], after["spec"]);
}

async fn a_kill_during_a_broken_revision_does_not_hold_back_the_fix(env: &mut Env) {
    env.runner = Runner::Process;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let broken = env.push("B", &[("app/settings.yaml", "[")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    env.daemon.take().unwrap().kill().await.unwrap();
    let fix = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    env.start();
    env.ready_at("app", &fix).await;
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "c");
}
