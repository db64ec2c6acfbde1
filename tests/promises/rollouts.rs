//! A changed Secret or ConfigMap rolls exactly the workloads that read it, once, whoever changes it and whenever.

use std::time::Duration;

use afresh::sandbox::{Effect, Match, Verb};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Map, Value, json};

use crate::support::env::{Cluster, Env};
use crate::support::manifests::config_map;
use crate::support::rollouts::Rollouts;
use crate::support::scenarios;

scenarios! {
    a_push_that_changes_only_a_secret_rolls_exactly_the_workloads_that_read_it,
    every_kind_of_reference_is_followed_as_far_as_it_reads,
    a_burst_is_one_rollout,
    churn_that_does_not_end_is_taken_up_every_five_seconds,
    fifty_workloads_are_rolled_once_each,
    what_changes_nothing_rolls_nothing,
    a_change_while_the_daemon_was_down_is_caught_at_start,
    a_restart_under_load_rolls_nothing_twice,
    a_loop_is_stopped_after_five_rollouts,
    a_missing_secret_rolls_nothing_until_it_is_back,
    a_changed_template_waits_for_a_secret_that_is_missing,
    opting_in_and_out_rolls_nothing,
    another_installation_key_rolls_nothing,
    a_restart_that_a_person_asked_for_survives,
    a_key_that_others_keep_in_a_declared_secret_counts,
    following_costs_nothing_while_nothing_changes,
    no_value_is_told_to_anyone,
    configuration_with_a_hashed_name_stays_while_an_old_replica_set_needs_it,
}

mod alone {
    use super::{a_namespace_asks_for_all_of_its_workloads, what_can_not_be_read_counts_as_it_was_and_is_said};
    use crate::support::scenarios;

    scenarios! {
        only on the sandbox:
        // the daemon serves all namespaces
        a_namespace_asks_for_all_of_its_workloads,
        what_can_not_be_read_counts_as_it_was_and_is_said,
    }
}

/// The condition that says what is wrong with rollouts.
const CONDITION: &str = "afresh.dev/Rollouts";
const RECORD: &str = "/metadata/annotations/afresh.dev~1config";
const HASH: &str = "/spec/template/metadata/annotations/afresh.dev~1config-hash";

fn follow() -> Value {
    json!({ "afresh.dev/rollout": "on-config-change" })
}

/// A workload of one Pod whose specification is `pod`, with annotations of its own.
fn workload(kind: &str, name: &str, annotations: &Value, pod: &Value) -> String {
    let mut pod = pod.clone();
    if pod["containers"].is_null() {
        pod["containers"] = json!([{ "name": "main", "image": "web:1" }]);
    }
    let template = json!({ "metadata": { "labels": { "app": name } }, "spec": pod });
    let selector = json!({ "matchLabels": { "app": name } });
    let (api_version, spec) = match kind {
        "CronJob" => {
            let mut template = template;
            template["spec"]["restartPolicy"] = "Never".into();
            ("batch/v1", json!({ "schedule": "0 0 1 1 *", "jobTemplate": { "spec": { "template": template } } }))
        }
        "StatefulSet" => {
            ("apps/v1", json!({ "replicas": 1, "serviceName": name, "selector": selector, "template": template }))
        }
        "DaemonSet" => ("apps/v1", json!({ "selector": selector, "template": template })),
        _ => ("apps/v1", json!({ "replicas": 1, "selector": selector, "template": template })),
    };
    let metadata = json!({ "name": name, "annotations": annotations });
    format!("{:#}\n", json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec }))
}

/// A Deployment that reads all of a Secret.
fn reader(name: &str, secret: &str) -> String {
    let pod = container(json!({ "envFrom": [{ "secretRef": { "name": secret } }] }));
    workload("Deployment", name, &follow(), &pod)
}

fn container(fields: Value) -> Value {
    let mut container = json!({ "name": "main", "image": "web:1" });
    container.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap_or_default());
    json!({ "containers": [container] })
}

fn secret(name: &str, data: Value) -> String {
    format!("{:#}\n", json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data }))
}

/// Once this has passed, whatever was to be rolled before was rolled: changes are taken up in their order.
async fn settled(env: &Env, rollouts: &Rollouts) {
    let before = rollouts.of(env, "Deployment", "marker").await;
    env.secret("marker", json!({ "value": format!("after {before}") })).await;
    rollouts.until(env, "Deployment", "marker", before + 1).await;
    env.reconcile("app").await;
}

/// The application `app` with these files, and a workload `marker`, which reads a Secret of that name.
async fn begin(env: &mut Env, files: &[(&str, &str)]) -> Rollouts {
    let rollouts = Rollouts::count(env).await;
    env.secret("marker", json!({ "value": "0" })).await;
    let marker = reader("marker", "marker");
    let mut all = vec![("app/marker.yaml", marker.as_str())];
    all.extend(files);
    env.begin(&all).await;
    env.until_live("Deployment", "marker", "it is followed", |found| found.pointer(RECORD).is_some()).await;
    rollouts
}

async fn annotate(env: &Env, annotations: Value) {
    let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    env.kustomizations().patch("app", &PatchParams::default(), &patch).await.unwrap();
}

/// Why rollouts are in trouble: reason and message.
async fn trouble(env: &Env) -> Option<(String, String)> {
    let app = env.kustomizations().get("app").await.unwrap();
    let condition = app.status?.conditions.get(CONDITION).cloned()?;
    Some((condition.reason, condition.message))
}

async fn in_trouble(env: &Env, reason: &str, text: &str) {
    env.until("app", &format!("{reason}: {text}"), |found| {
        let condition = found.status.as_ref().and_then(|status| status.conditions.get(CONDITION));
        condition.is_some_and(|c| c.reason == reason && c.message.contains(text))
    })
    .await;
}

async fn out_of_trouble(env: &Env) {
    env.until("app", "all is well with rollouts", |found| {
        found.status.as_ref().is_some_and(|status| status.conditions.get(CONDITION).is_none())
    })
    .await;
}

async fn rolled_out(env: &Env, name: &str) {
    env.until_live("Deployment", name, "it is rolled out", |found| {
        found["status"]["observedGeneration"] == found["metadata"]["generation"]
            && found["status"]["updatedReplicas"] == 1
            && found["status"]["availableReplicas"] == 1
    })
    .await;
}

async fn replica_sets(env: &Env, app: &str) -> usize {
    let of_app = ListParams::default().labels(&format!("app={app}"));
    env.objects("ReplicaSet").list(&of_app).await.unwrap().items.len()
}

async fn a_push_that_changes_only_a_secret_rolls_exactly_the_workloads_that_read_it(env: &mut Env) {
    let key =
        json!({ "env": [{ "name": "X", "valueFrom": { "secretKeyRef": { "name": "credentials", "key": "user" } } }] });
    let web = workload("Deployment", "web", &json!({}), &container(key));
    let other = workload("Deployment", "other", &json!({}), &json!({}));
    let rollouts = Rollouts::count(env).await;
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    annotate(env, follow()).await;
    let data = |user: &str, more: &str| secret("credentials", json!({ "user": user, "more": more }));
    let revision =
        env.push("B", &[("app/web.yaml", &web), ("app/other.yaml", &other), ("app/secret.yaml", &data("a", "x"))]);
    env.start();
    env.ready_at("app", &revision).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);

    let revision = env.push("C", &[("app/secret.yaml", &data("b", "x"))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1, "in the same apply");
    env.eventually("there are two ReplicaSets", async || (replica_sets(env, "web").await == 2).then_some(())).await;
    assert_eq!(rollouts.of(env, "Deployment", "other").await, 0);
    let told = |(reason, text): &(String, String)| {
        reason == "ConfigurationChanged" && text.contains("Deployment") && text.contains("secret/credentials: user")
    };
    env.eventually("it is told why", async || env.events("app").await.iter().any(told).then_some(())).await;

    let revision = env.push("D", &[("app/secret.yaml", &data("b", "y"))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1, "it does not read that key");
    let hash = env.live("Deployment", "web").await.unwrap().pointer(HASH).cloned();
    let revision = env.push("E", &[("app/secret.yaml", &data("c", "y"))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    let revision = env.push("F", &[("app/secret.yaml", &data("b", "z"))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    assert_eq!(env.live("Deployment", "web").await.unwrap().pointer(HASH).cloned(), hash, "taken back");
    env.eventually("the ReplicaSet is used again", async || (replica_sets(env, "web").await == 3).then_some(())).await;
    let corrected = env.events("app").await.into_iter().find(|(reason, _)| reason == "DriftCorrected");
    assert_eq!(corrected, None, "a rollout is no drift");
}

/// Name, kind, and the Pod that reads the Secret `s-NAME` or the ConfigMap `c-NAME` in one of all ways. `by_key`: it reads
/// the key `value` alone.
fn readers() -> Vec<(&'static str, &'static str, Value, Value, bool)> {
    let volume = |source: Value| {
        let mut volume = json!({ "name": "v" });
        volume.as_object_mut().unwrap().extend(source.as_object().cloned().unwrap());
        json!({ "volumes": [volume] })
    };
    let init = |fields: Value| {
        let mut pod = container(json!({}));
        let mut first = container(fields)["containers"][0].clone();
        first["name"] = "first".into();
        pod["initContainers"] = json!([first]);
        pod
    };
    let items = json!([{ "key": "value", "path": "value" }]);
    let env_from = |name: &str| json!({ "envFrom": [{ "secretRef": { "name": name } }] });
    let none = json!({});
    vec![
        (
            "env",
            "Deployment",
            follow(),
            container(
                json!({ "env": [{ "name": "X", "valueFrom": { "secretKeyRef": { "name": "s-env", "key": "value" } } }] }),
            ),
            true,
        ),
        (
            "env-map",
            "Deployment",
            follow(),
            container(
                json!({ "env": [{ "name": "X", "valueFrom": { "configMapKeyRef": { "name": "c-env-map", "key": "value" } } }] }),
            ),
            true,
        ),
        ("env-from", "Deployment", follow(), container(env_from("s-env-from")), false),
        (
            "env-from-map",
            "Deployment",
            follow(),
            container(json!({ "envFrom": [{ "configMapRef": { "name": "c-env-from-map" } }] })),
            false,
        ),
        ("volume", "Deployment", follow(), volume(json!({ "secret": { "secretName": "s-volume" } })), false),
        ("items", "Deployment", follow(), volume(json!({ "configMap": { "name": "c-items", "items": items } })), true),
        (
            "projected",
            "Deployment",
            follow(),
            volume(json!({ "projected": { "sources": [{ "secret": { "name": "s-projected", "items": items } }] } })),
            true,
        ),
        ("init", "Deployment", follow(), init(env_from("s-init")), false),
        (
            "sidecar",
            "Deployment",
            follow(),
            init(json!({ "restartPolicy": "Always", "envFrom": [{ "secretRef": { "name": "s-sidecar" } }] })),
            false,
        ),
        ("stateful", "StatefulSet", follow(), container(env_from("s-stateful")), false),
        ("daemon", "DaemonSet", follow(), container(env_from("s-daemon")), false),
        ("cron", "CronJob", follow(), container(env_from("s-cron")), false),
        ("auto", "Deployment", json!({ "reloader.stakater.com/auto": "true" }), container(env_from("s-auto")), false),
        ("named", "Deployment", json!({ "secret.reloader.stakater.com/reload": "x, s-named" }), none.clone(), false),
        ("named-map", "Deployment", json!({ "configmap.reloader.stakater.com/reload": "c-named-map" }), none, false),
    ]
}

async fn every_kind_of_reference_is_followed_as_far_as_it_reads(env: &mut Env) {
    let write = async |env: &Env, name: &str, data: Value| {
        let (kind, field) = if name.starts_with('s') { ("Secret", "stringData") } else { ("ConfigMap", "data") };
        let mut object = Map::from_iter([("apiVersion".to_owned(), json!("v1")), ("kind".to_owned(), json!(kind))]);
        object.insert("metadata".into(), json!({ "name": name }));
        object.insert(field.into(), data);
        let params = PatchParams::apply("another").force();
        env.objects(kind).patch(name, &params, &Patch::Apply(Value::Object(object))).await.unwrap();
    };
    let readers = readers();
    let read_by =
        |name: &str| if name.ends_with("map") || name == "items" { format!("c-{name}") } else { format!("s-{name}") };
    let mut files = Vec::new();
    for (name, kind, annotations, pod, _) in &readers {
        write(env, &read_by(name), json!({ "value": "a", "more": "a" })).await;
        files.push((format!("app/{name}.yaml"), workload(kind, name, annotations, pod)));
    }
    let deaf = workload(
        "Deployment",
        "deaf",
        &json!({}),
        &container(json!({ "envFrom": [{ "secretRef": { "name": "s-env" } }] })),
    );
    files.push(("app/deaf.yaml".into(), deaf));
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let rollouts = begin(env, &files).await;
    for (name, ..) in &readers {
        write(env, &read_by(name), json!({ "value": "b", "more": "a" })).await;
    }
    for (name, kind, ..) in &readers {
        rollouts.until(env, kind, name, 1).await;
    }
    for (name, ..) in &readers {
        write(env, &read_by(name), json!({ "value": "b", "more": "b" })).await;
    }
    for (name, kind, _, _, by_key) in &readers {
        if !by_key {
            rollouts.until(env, kind, name, 2).await;
        }
    }
    settled(env, &rollouts).await;
    for (name, kind, _, _, by_key) in &readers {
        assert_eq!(rollouts.of(env, kind, name).await, if *by_key { 1 } else { 2 }, "{name}");
    }
    assert_eq!(rollouts.of(env, "Deployment", "deaf").await, 0, "nobody asked for it");
    assert!(env.objects("Job").list(&ListParams::default()).await.unwrap().items.is_empty(), "no run was fired");
}

async fn a_burst_is_one_rollout(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    env.secret("b", json!({ "value": "0" })).await;
    let both = container(json!({ "envFrom": [{ "secretRef": { "name": "a" } }, { "secretRef": { "name": "b" } }] }));
    let rollouts = begin(env, &[("app/web.yaml", &workload("Deployment", "web", &follow(), &both))]).await;
    for n in 1..4 {
        env.secret("a", json!({ "value": n.to_string() })).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        env.secret("b", json!({ "value": n.to_string() })).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    rollouts.until(env, "Deployment", "web", 1).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1);
}

async fn churn_that_does_not_end_is_taken_up_every_five_seconds(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    let began = tokio::time::Instant::now();
    let mut changes = 0;
    while began.elapsed() < Duration::from_secs(7) {
        changes += 1;
        env.secret("a", json!({ "value": changes.to_string() })).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        if began.elapsed() < Duration::from_millis(4500) {
            assert_eq!(rollouts.of(env, "Deployment", "web").await, 0, "after {:?}", began.elapsed());
        }
    }
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1, "five seconds after the first");
    rollouts.until(env, "Deployment", "web", 2).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 2);
}

async fn fifty_workloads_are_rolled_once_each(env: &mut Env) {
    env.secret("shared", json!({ "value": "0" })).await;
    let names: Vec<String> = (0..50).map(|n| format!("web-{n}")).collect();
    let files: Vec<_> = names.iter().map(|name| (format!("app/{name}.yaml"), reader(name, "shared"))).collect();
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let rollouts = begin(env, &files).await;
    env.secret("shared", json!({ "value": "1" })).await;
    for name in &names {
        rollouts.until(env, "Deployment", name, 1).await;
    }
    settled(env, &rollouts).await;
    for name in &names {
        assert_eq!(rollouts.of(env, "Deployment", name).await, 1, "{name}");
    }
    let reads = env.requests_of_the_daemon().await;
    let reads = reads.iter().filter(|r| r.starts_with("get ") && r.ends_with("secrets/shared")).count();
    assert_eq!(reads, 2, "one reads for all");
}

async fn what_changes_nothing_rolls_nothing(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    let before = env.live("Deployment", "web").await.unwrap();
    let label = Patch::Merge(json!({ "metadata": { "labels": { "x": "y" }, "annotations": { "x": "y" } } }));
    env.objects("Secret").patch("a", &PatchParams::default(), &label).await.unwrap();
    settled(env, &rollouts).await;
    env.objects("Secret").delete("a", &DeleteParams::default()).await.unwrap();
    env.secret("a", json!({ "value": "0" })).await;
    settled(env, &rollouts).await;
    let after = env.live("Deployment", "web").await.unwrap();
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);
    assert_eq!(before.pointer(RECORD), after.pointer(RECORD), "nothing was written");
}

async fn a_change_while_the_daemon_was_down_is_caught_at_start(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    env.secret("b", json!({ "value": "0" })).await;
    let rollouts =
        begin(env, &[("app/web.yaml", &reader("web", "a")), ("app/other.yaml", &reader("other", "b"))]).await;
    env.daemon.take().unwrap().stop().await.unwrap();
    env.secret("a", json!({ "value": "1" })).await;
    env.start();
    rollouts.until(env, "Deployment", "web", 1).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1);
    assert_eq!(rollouts.of(env, "Deployment", "other").await, 0, "a restart rolls nothing");
}

async fn a_restart_under_load_rolls_nothing_twice(env: &mut Env) {
    env.secret("shared", json!({ "value": "0" })).await;
    let names: Vec<String> = (0..20).map(|n| format!("web-{n}")).collect();
    let files: Vec<_> = names.iter().map(|name| (format!("app/{name}.yaml"), reader(name, "shared"))).collect();
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let rollouts = begin(env, &files).await;
    env.secret("shared", json!({ "value": "1" })).await;
    env.eventually("the first is rolled", async || {
        names.iter().any(|name| rollouts.seen("Deployment", name) == Some(1)).then_some(())
    })
    .await;
    env.daemon.take().unwrap().kill().await.unwrap();
    env.start();
    for name in &names {
        rollouts.until(env, "Deployment", name, 1).await;
    }
    settled(env, &rollouts).await;
    for name in &names {
        assert_eq!(rollouts.of(env, "Deployment", name).await, 1, "{name}");
    }
}

async fn a_loop_is_stopped_after_five_rollouts(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    // an operator that writes back whenever what it looks after is rolled
    let operator = {
        let (deployments, secrets) = (env.objects("Deployment"), env.objects("Secret"));
        tokio::spawn(async move {
            let hash = async || json!(deployments.get("web").await.unwrap()).pointer(HASH).cloned();
            let mut last = hash().await;
            for times in 0.. {
                let found = hash().await;
                if found != last {
                    last = found;
                    let data = json!({ "stringData": { "value": times.to_string() } });
                    secrets.patch("a", &PatchParams::default(), &Patch::Merge(data)).await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    env.secret("a", json!({ "value": "go" })).await;
    in_trouble(env, "RolloutLoop", "Deployment").await;
    operator.abort();
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 5);
    let told = |(reason, _): &(String, String)| reason == "RolloutLoop";
    env.eventually("it is told", async || env.events("app").await.iter().any(told).then_some(())).await;
    assert!(env.is_counted("afresh_rollout_loops", &[("name", "app")]).await);
    // neither does a restart go on with it
    env.daemon.take().unwrap().stop().await.unwrap();
    env.start();
    let marked = rollouts.of(env, "Deployment", "marker").await;
    env.secret("marker", json!({ "value": "again" })).await;
    rollouts.until(env, "Deployment", "marker", marked + 1).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 5);
    // a person has looked
    env.reconcile("app").await;
    rollouts.until(env, "Deployment", "web", 6).await;
    out_of_trouble(env).await;
}

async fn a_missing_secret_rolls_nothing_until_it_is_back(env: &mut Env) {
    for name in ["a", "b"] {
        env.secret(name, json!({ "value": "0" })).await;
    }
    let both = container(json!({ "envFrom": [
        { "secretRef": { "name": "a" } },
        { "secretRef": { "name": "b" } },
        { "secretRef": { "name": "sometimes", "optional": true } },
    ] }));
    let rollouts = begin(env, &[("app/web.yaml", &workload("Deployment", "web", &follow(), &both))]).await;
    env.objects("Secret").delete("a", &DeleteParams::default()).await.unwrap();
    env.secret("b", json!({ "value": "1" })).await;
    in_trouble(env, "MissingReference", "secret/a of Deployment").await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);
    assert!(env.is_counted("afresh_rollout_references", &[("name", "app"), ("state", "missing")]).await);
    env.secret("a", json!({ "value": "0" })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    out_of_trouble(env).await;
    env.secret("sometimes", json!({ "value": "0" })).await;
    rollouts.until(env, "Deployment", "web", 2).await;
    env.objects("Secret").delete("sometimes", &DeleteParams::default()).await.unwrap();
    rollouts.until(env, "Deployment", "web", 3).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 3);
}

async fn a_changed_template_waits_for_a_secret_that_is_missing(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    let settings = config_map("settings", "with it");
    let revision = env.push("B", &[("app/web.yaml", &reader("web", "later")), ("app/settings.yaml", &settings)]);
    env.announce().await;
    env.until("app", "it waits", |found| {
        let ready = found.status.as_ref().and_then(|status| status.conditions.get("Ready"));
        ready.is_some_and(|ready| ready.message.contains("secret/later"))
    })
    .await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0, "it runs as it did");
    assert!(env.live("ConfigMap", "settings").await.is_some(), "all else is applied");
    env.secret("later", json!({ "value": "0" })).await;
    env.ready_at("app", &revision).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1);
    assert_eq!(trouble(env).await, None);
}

async fn opting_in_and_out_rolls_nothing(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let web =
        workload("Deployment", "web", &json!({}), &container(json!({ "envFrom": [{ "secretRef": { "name": "a" } }] })));
    let rollouts = begin(env, &[("app/web.yaml", &web)]).await;
    annotate(env, follow()).await;
    env.until_live("Deployment", "web", "it is followed", |found| found.pointer(RECORD).is_some()).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);
    env.secret("a", json!({ "value": "1" })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    annotate(env, json!({ "afresh.dev/rollout": null })).await;
    env.until_live("Deployment", "web", "it is not followed", |found| found.pointer(RECORD).is_none()).await;
    env.secret("a", json!({ "value": "2" })).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1);
    let web = env.live("Deployment", "web").await.unwrap();
    assert!(web.pointer(HASH).is_some(), "taking it out would roll it");
}

async fn another_installation_key_rolls_nothing(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    env.secret("a", json!({ "value": "1" })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    env.daemon.take().unwrap().stop().await.unwrap();
    let before = env.live("Deployment", "web").await.unwrap();
    // as another installation would have written it: digests of a key that nobody has
    let mut record: Value = serde_json::from_str(before.pointer(RECORD).unwrap().as_str().unwrap()).unwrap();
    record["key"] = "00000000".into();
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { "afresh.dev/config": record.to_string() } } }));
    env.objects("Deployment").patch("web", &PatchParams::default(), &patch).await.unwrap();
    env.secret("a", json!({ "value": "2" })).await;
    env.start();
    settled(env, &rollouts).await;
    let after = env.live("Deployment", "web").await.unwrap();
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1, "a baseline again");
    assert_eq!(after.pointer(HASH), before.pointer(HASH));
    env.secret("a", json!({ "value": "3" })).await;
    rollouts.until(env, "Deployment", "web", 2).await;
}

async fn a_restart_that_a_person_asked_for_survives(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    let asked = json!({ "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z" });
    let by = PatchParams { field_manager: Some("kubectl-rollout".into()), ..PatchParams::default() };
    let patch = json!({ "spec": { "template": { "metadata": { "annotations": asked } } } });
    env.objects("Deployment").patch("web", &by, &Patch::Merge(patch)).await.unwrap();
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1);
    env.secret("a", json!({ "value": "1" })).await;
    rollouts.until(env, "Deployment", "web", 2).await;
    let web = env.live("Deployment", "web").await.unwrap();
    let annotations = &web["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["kubectl.kubernetes.io/restartedAt"], "2026-01-01T00:00:00Z");
    assert!(annotations["afresh.dev/config-hash"].is_string());
}

async fn a_key_that_others_keep_in_a_declared_secret_counts(env: &mut Env) {
    let rollouts =
        begin(env, &[("app/web.yaml", &reader("web", "a")), ("app/a.yaml", &secret("a", json!({ "ours": "0" })))])
            .await;
    let write = async |value: &str| {
        let by = PatchParams { field_manager: Some("operator".into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "stringData": { "theirs": value } }));
        env.objects("Secret").patch("a", &by, &patch).await.unwrap();
    };
    write("0").await;
    rollouts.until(env, "Deployment", "web", 1).await;
    write("1").await;
    rollouts.until(env, "Deployment", "web", 2).await;
    let revision = env.push("B", &[("app/a.yaml", &secret("a", json!({ "ours": "1" })))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 3);
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 3);
}

async fn a_namespace_asks_for_all_of_its_workloads(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let pod = container(json!({ "envFrom": [{ "secretRef": { "name": "a" } }] }));
    let (web, never) = (json!({}), json!({ "afresh.dev/rollout": "never" }));
    let (web, never) = (workload("Deployment", "web", &web, &pod), workload("Deployment", "never", &never, &pod));
    let rollouts = begin(env, &[("app/web.yaml", &web), ("app/never.yaml", &never)]).await;
    env.daemon.take().unwrap().stop().await.unwrap();
    let namespace = std::mem::take(&mut env.namespace);
    env.start();
    env.namespace = namespace;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(env.client.clone());
    let patch = Patch::Merge(json!({ "metadata": { "annotations": follow() } }));
    namespaces.patch(&env.namespace, &PatchParams::default(), &patch).await.unwrap();
    env.until_live("Deployment", "web", "it is followed", |found| found.pointer(RECORD).is_some()).await;
    env.secret("a", json!({ "value": "1" })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "never").await, 0);
}

async fn following_costs_nothing_while_nothing_changes(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    settled(env, &rollouts).await;
    let loud = async || {
        let requests = env.requests_of_the_daemon().await.into_iter();
        requests.filter(|r| !r.contains("/leases") && !r.starts_with("watch ")).collect::<Vec<_>>()
    };
    // What belongs to the last rollout may still be under way.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = loud().await.len();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = loud().await;
    assert!(after.len() == before, "{:#?}", &after[before..]);
}

async fn no_value_is_told_to_anyone(env: &mut Env) {
    let canaries = ["canary-zero-7d1f", "canary-one-93ab", "canary-two-55ce"];
    env.secret("a", json!({ "value": canaries[0] })).await;
    let declared = |value: &str| secret("declared", json!({ "value": value }));
    let pod =
        container(json!({ "envFrom": [{ "secretRef": { "name": "a" } }, { "secretRef": { "name": "declared" } }] }));
    let web = workload("Deployment", "web", &follow(), &pod);
    let rollouts = begin(env, &[("app/web.yaml", &web), ("app/declared.yaml", &declared(canaries[0]))]).await;
    env.secret("a", json!({ "value": canaries[1] })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    let revision = env.push("B", &[("app/declared.yaml", &declared(canaries[2]))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    let daemon = env.daemon.as_ref().unwrap();
    let mut told = daemon.log().join("\n");
    told += &daemon.ask("/metrics").await.unwrap().1;
    told += &format!("{:?}", env.events("app").await);
    told += &json!(env.kustomizations().get("app").await.unwrap()).to_string();
    told += &env.live("Deployment", "web").await.unwrap().to_string();
    for canary in canaries {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(canary);
        assert!(!told.contains(canary) && !told.contains(&encoded), "{canary} was told");
    }
}

async fn configuration_with_a_hashed_name_stays_while_an_old_replica_set_needs_it(env: &mut Env) {
    let names = ["settings-2fgh4tkd6c", "settings-b7mk2c8f5t", "settings-9h6d4gtcbm"];
    let web = |map: &str| {
        let pod = container(json!({ "envFrom": [{ "configMapRef": { "name": map } }] }));
        workload("Deployment", "web", &json!({}), &pod)
    };
    env.begin(&[("app/settings.yaml", &config_map(names[0], "0")), ("app/web.yaml", &web(names[0]))]).await;
    rolled_out(env, "web").await;
    for (n, name) in names.iter().enumerate().skip(1) {
        let files = [("app/settings.yaml", config_map(name, &n.to_string())), ("app/web.yaml", web(name))];
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let revision = env.push(name, &files);
        env.announce().await;
        env.ready_at("app", &revision).await;
        assert!(env.live("ConfigMap", names[n - 1]).await.is_some(), "the ReplicaSet before needs it");
        rolled_out(env, "web").await;
    }
    let oldest = env.eventually("there are three ReplicaSets", async || {
        let all = env.objects("ReplicaSet").list(&ListParams::default().labels("app=web")).await.unwrap();
        let of_first = |set: &&kube::api::DynamicObject| json!(set).to_string().contains(names[0]);
        if all.items.len() == 3 { all.items.iter().find(of_first).cloned() } else { None }
    });
    let oldest = oldest.await;
    // as the controller does once there are more than `revisionHistoryLimit`
    let name = oldest.metadata.name.as_deref().unwrap_or_default();
    env.objects("ReplicaSet").delete(name, &DeleteParams::default()).await.unwrap();
    env.reconcile("app").await;
    env.until_gone("ConfigMap", names[0]).await;
    assert!(env.live("ConfigMap", names[1]).await.is_some(), "`kubectl rollout undo` would need it");
}

async fn what_can_not_be_read_counts_as_it_was_and_is_said(env: &mut Env) {
    for name in ["a", "b"] {
        env.secret(name, json!({ "value": "0" })).await;
    }
    let both = container(json!({ "envFrom": [{ "secretRef": { "name": "a" } }, { "secretRef": { "name": "b" } }] }));
    let rollouts = begin(env, &[("app/web.yaml", &workload("Deployment", "web", &follow(), &both))]).await;
    let Cluster::Sandbox(sandbox) = &env.cluster else { return };
    let reads = Match::verb(Verb::Get).on("secrets").in_namespace(&env.namespace).named("a");
    let fault = sandbox.faults().always(reads, Effect::Forbid);
    env.secret("a", json!({ "value": "1" })).await;
    in_trouble(env, "UnreadableReference", "secret/a of Deployment").await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);
    env.secret("b", json!({ "value": "1" })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    sandbox.faults().remove(fault);
    env.secret("a", json!({ "value": "2" })).await;
    rollouts.until(env, "Deployment", "web", 2).await;
    out_of_trouble(env).await;
}
