//! Watches that end badly: what they would have told is found out all the same, and nobody waits for it.

use std::time::{Duration, Instant};

use hyper::Method;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::{begin_with_another, through_a_gateway};
use crate::support::env::Env;
use crate::support::gateway::Fault;
use crate::support::manifests::{config_map, deployment};
use crate::support::scenarios;

scenarios! {
    a_watch_that_sends_garbage_is_begun_anew_with_pauses,
    a_watch_whose_version_is_gone_is_listed_anew,
    a_watch_that_is_forbidden_is_a_condition_and_a_metric_until_it_is_allowed,
    a_kind_is_watched_from_its_first_use_to_its_last,
    pods_are_watched_where_a_workload_is_waited_for_and_no_longer,
}

fn is_watch_of(target: &str, kind: &str) -> bool {
    target.contains(kind) && target.contains("watch=true")
}

fn is_list_of(method: &Method, target: &str, kind: &str) -> bool {
    method == Method::GET && target.contains(&format!("/{kind}?limit=")) && target.contains("labelSelector")
}

/// Somebody deletes an object, and it is put back.
async fn is_seen(env: &Env, kind: &str, name: &str) {
    let before = env.live(kind, name).await.expect("it is there");
    env.objects(kind).delete(name, &DeleteParams::default()).await.expect("somebody deletes it");
    env.until_live(kind, name, "it is put back", |now| now["metadata"]["uid"] != before["metadata"]["uid"]).await;
}

async fn a_watch_that_sends_garbage_is_begun_anew_with_pauses(env: &mut Env) {
    let gateway = through_a_gateway(env).await;
    env.push(
        "A",
        &[("app/settings.yaml", &config_map("settings", "a")), ("other/web.yaml", &deployment("web", "web:1"))],
    );
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    env.kustomization("other", |_| {}).await;
    let good = json!({ "type": "BOOKMARK", "object": { "metadata": { "resourceVersion": "1" } } });
    gateway.set(Fault::Say(format!("{good}\n{{\"type\":\"ADDED\",\"object\":[\n\0\u{1}nonsense\n")), |_, target| {
        is_watch_of(target, "/configmaps")
    });
    env.start();
    let b = env.push(
        "B",
        &[("app/settings.yaml", &config_map("settings", "b")), ("other/web.yaml", &deployment("web", "web:2"))],
    );
    env.announce().await;
    env.ready_at("app", &b).await;
    env.ready_at("other", &b).await;
    is_seen(env, "Deployment", "web").await;
    // it is asked again, and not in a hot loop
    env.eventually("it is asked again", async || (gateway.applied() >= 3).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = gateway.applied();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let asked = gateway.applied() - before;
    assert!(asked <= 4, "{asked} watches in five seconds");
    is_seen(env, "ConfigMap", "settings").await;
    gateway.clear();
    is_seen(env, "ConfigMap", "settings").await;
}

async fn a_watch_whose_version_is_gone_is_listed_anew(env: &mut Env) {
    let gateway = through_a_gateway(env).await;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let gone = json!({ "type": "ERROR", "object": {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
        "message": "too old resource version",
    } });
    gateway.times(1, Fault::Say(format!("{gone}\n")), |_, target| is_watch_of(target, "/configmaps?"));
    gateway.times(u32::MAX, Fault::Slow(Duration::ZERO), |method, target| is_list_of(method, target, "configmaps"));
    // the running watches break off and go on from where they were, but for the one that can't
    gateway.go_down();
    env.objects("ConfigMap").delete("settings", &DeleteParams::default()).await.expect("somebody deletes it");
    gateway.turned_away(1).await;
    gateway.come_up();
    env.until_live("ConfigMap", "settings", "it is put back", |_| true).await;
    assert_eq!(gateway.applied(), 2, "one watch was refused, one list was asked for");
    is_seen(env, "ConfigMap", "settings").await;
    assert_eq!(gateway.applied(), 2);
}

/// The state of the watch of a kind, as the metrics say.
async fn state_of(env: &Env, resource: &str) -> Option<&'static str> {
    for state in ["starting", "current", "lost", "forbidden", "unserved"] {
        if env.measured("afresh_watches", &[("resource", resource), ("state", state)]).await.is_some() {
            return Some(state);
        }
    }
    None
}

async fn until_state(env: &Env, resource: &str, wanted: Option<&str>) {
    env.eventually(&format!("the watch of {resource} is {wanted:?}"), async || {
        (state_of(env, resource).await == wanted).then_some(())
    })
    .await;
}

async fn a_watch_that_is_forbidden_is_a_condition_and_a_metric_until_it_is_allowed(env: &mut Env) {
    let gateway = through_a_gateway(env).await;
    let a = env.push(
        "A",
        &[("app/settings.yaml", &config_map("settings", "a")), ("other/web.yaml", &deployment("web", "web:1"))],
    );
    begin_with_another(env, &a, |_| {}).await;
    until_state(env, "configmaps", Some("current")).await;

    gateway.set(Fault::Answer(403), |method, target| {
        is_watch_of(target, "/configmaps?") || is_list_of(method, target, "configmaps")
    });
    // the right was taken away; whoever watches notices with the next connection
    gateway.go_down();
    gateway.turned_away(1).await;
    gateway.come_up();
    until_state(env, "configmaps", Some("forbidden")).await;
    let failed = env.failed_at("app", &a, "can't watch `configmaps`").await;
    let said = crate::support::env::message(&failed);
    assert!(said.contains("app/settings.yaml") && said.contains("grant `list` and `watch`"), "{said}");
    let b = env.push("B", &[("other/web.yaml", &deployment("web", "web:2"))]);
    env.announce().await;
    env.ready_at("other", &b).await;

    until_patient(env, "app").await;
    let asked = gateway.applied();
    gateway.clear();
    let allowed = Instant::now();
    env.ready_at("app", &b).await;
    assert!(allowed.elapsed() < WITHOUT_A_RETRY, "{:?}", allowed.elapsed());
    assert!(asked < 40, "{asked} lists and watches in half a minute");
    until_state(env, "configmaps", Some("current")).await;
    is_seen(env, "ConfigMap", "settings").await;
}

/// Until the next attempt at what fails would come half a minute later.
async fn until_patient(env: &Env, name: &str) {
    let of_it = [("kind", "Kustomization"), ("name", name)];
    env.eventually("it has failed again and again", async || {
        (env.measured("afresh_failures_total", &of_it).await >= Some(6.0)).then_some(())
    })
    .await;
}

/// A forbidden watch is tried again within 12 s, and whoever needs it then goes on.
const WITHOUT_A_RETRY: Duration = Duration::from_secs(25);

/// With roles, as a person takes and grants rights; only a real API server knows them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_to_watch_that_is_granted_is_made_use_of_without_anybody_asking() {
    let Some(mut env) = Env::on_real_server_of_its_own("granted_right").await else { return };
    let env = &mut env;
    let roles = env.cluster_objects("ClusterRole");
    let blind =
        json!({ "rules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "create", "patch", "delete"] }] });
    roles.patch("afresh-applies-everything", &PatchParams::default(), &Patch::Merge(blind)).await.expect("less rights");
    env.eventually("they are less", async || {
        let sum = json!(roles.get("afresh-applier").await.expect("the role"));
        (!sum["rules"].to_string().contains("watch")).then_some(())
    })
    .await;
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "robot" } });
    let a = env.push("A", &[("app/robot.yaml", &account.to_string())]);
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    env.start();
    env.failed_at("app", &a, "can't watch `serviceaccounts`").await;
    until_state(env, "serviceaccounts", Some("forbidden")).await;
    until_patient(env, "app").await;

    // as the runbook says
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": "afresh-sees-accounts", "labels": { "afresh.dev/aggregate-to-applier": "true" } },
        "rules": [{ "apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["list", "watch"] }],
    });
    roles.patch("afresh-sees-accounts", &PatchParams::apply("somebody"), &Patch::Apply(role)).await.expect("a role");
    let allowed = Instant::now();
    env.ready_at("app", &a).await;
    assert!(allowed.elapsed() < WITHOUT_A_RETRY, "{:?}", allowed.elapsed());
    until_state(env, "serviceaccounts", Some("current")).await;
    is_seen(env, "ServiceAccount", "robot").await;
    env.assert_nothing_is_told().await;
}

async fn a_kind_is_watched_from_its_first_use_to_its_last(env: &mut Env) {
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "robot" } }).to_string();
    let settings = |value: &str| config_map("settings", value);
    env.push("A", &[("app/settings.yaml", &settings("a")), ("other/robot.yaml", &account.replace("robot", "other"))]);
    env.begin(&[("app/robot.yaml", &account)]).await;
    until_state(env, "serviceaccounts", Some("current")).await;
    until_state(env, "configmaps", Some("current")).await;
    env.kustomization("other", |_| {}).await;
    env.until_live("ServiceAccount", "other", "it is applied", |_| true).await;

    // one of two goes: the other one still has such objects
    let b = env.push_changes("B", &[("app/robot.yaml", None)]);
    env.announce().await;
    env.ready_at("app", &b).await;
    env.ready_at("other", &b).await;
    env.until_gone("ServiceAccount", "robot").await;
    assert_eq!(state_of(env, "serviceaccounts").await, Some("current"));
    is_seen(env, "ServiceAccount", "other").await;

    let params = DeleteParams::default();
    env.kustomizations().delete("other", &params).await.expect("somebody deletes the application");
    until_state(env, "serviceaccounts", None).await;
    assert_eq!(state_of(env, "configmaps").await, Some("current"));

    // and from its next use on
    let c = env.push("C", &[("app/robot.yaml", &account)]);
    env.announce().await;
    env.ready_at("app", &c).await;
    assert_eq!(state_of(env, "serviceaccounts").await, Some("current"));
    is_seen(env, "ServiceAccount", "robot").await;
}

async fn pods_are_watched_where_a_workload_is_waited_for_and_no_longer(env: &mut Env) {
    let gateway = through_a_gateway(env).await;
    gateway.times(u32::MAX, Fault::Slow(Duration::ZERO), |_, target| {
        is_watch_of(target, "/pods?") || is_watch_of(target, "/replicasets?")
    });
    env.push("A", &[("other/settings.yaml", &config_map("settings", "a"))]);
    env.kustomization("other", |_| {}).await;
    let waiting = env.begin_waiting().await;
    env.ready_at("other", &waiting).await;
    env.eventually("the Pods are watched", async || (gateway.applied() >= 2).then_some(())).await;
    env.change_behaviour("web", "ready").await;
    env.ready_at("app", &waiting).await;

    // whoever still watches begins anew after this, and what is still watched is seen
    let before = gateway.applied();
    gateway.go_down();
    gateway.turned_away(2).await;
    gateway.come_up();
    is_seen(env, "ConfigMap", "settings").await;
    assert_eq!(gateway.applied(), before, "nobody asks why a workload is not healthy");
}
