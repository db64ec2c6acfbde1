//! What can't be changed in place: left alone, or created anew where someone has asked for it and nothing is lost.
//! Objects that ask to be handled otherwise: created only once, left alone, shared with others.

use afresh::api::{APPLY_MANAGER, CONFIRM_RECREATE, FORCE, RECONCILE, SSA};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::env::Env;
use crate::support::manifests::{claim, config_map, deployment, job};
use crate::support::scenarios;

scenarios! {
    what_can_not_be_changed_is_left_without_force_and_created_anew_with_it,
    an_annotation_has_one_object_created_anew,
    a_stateful_set_is_created_anew_only_with_consent_on_itself,
    a_replacement_that_the_server_would_not_take_leaves_the_old_object,
    an_object_deleted_to_be_created_anew_is_created_after_a_crash,
    what_is_to_be_created_once_is_neither_corrected_nor_taken_over,
    what_is_to_be_ignored_is_neither_applied_nor_deleted,
    what_is_not_ours_and_asks_to_be_ignored_is_never_written,
    a_job_with_another_template_is_created_anew_and_runs_again,
    a_claim_is_created_anew_only_with_consent_on_itself,
    what_is_to_be_merged_keeps_the_fields_of_kubectl,
}

const KUBECTL: &str = "kubectl-client-side-apply";

/// A manifest, changed.
fn with(text: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut object: Value = serde_json::from_str(text).expect("manifests are JSON");
    change(&mut object);
    format!("{object:#}\n")
}

fn annotated(text: &str, key: &str, value: &str) -> String {
    with(text, |object| object["metadata"]["annotations"] = json!({ key: value }))
}

/// The Deployment `web` with another selector, which no Deployment can be given.
fn reselected() -> String {
    with(&deployment("web", "web:1"), |web| {
        web["spec"]["selector"]["matchLabels"]["tier"] = "front".into();
        web["spec"]["template"]["metadata"]["labels"]["tier"] = "front".into();
    })
}

fn service(address: Option<&str>) -> String {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" }, "spec": { "ports": [{ "port": 80 }] },
    });
    if let Some(address) = address {
        service["spec"]["clusterIP"] = address.into();
    }
    format!("{service:#}\n")
}

fn stateful_set(service: &str) -> String {
    with(&deployment("db", "db:1"), |set| {
        set["kind"] = "StatefulSet".into();
        set["spec"]["serviceName"] = service.into();
    })
}

async fn uid_of(env: &Env, kind: &str, name: &str) -> Value {
    env.live(kind, name).await.unwrap_or_else(|| panic!("{kind}/{name} is there"))["metadata"]["uid"].clone()
}

async fn what_can_not_be_changed_is_left_without_force_and_created_anew_with_it(env: &mut Env) {
    env.begin(&[("app/web.yaml", &deployment("web", "web:1")), ("app/settings.yaml", &config_map("settings", "a"))])
        .await;
    let before = uid_of(env, "Deployment", "web").await;
    let settings = uid_of(env, "ConfigMap", "settings").await;

    let b = env.push("B", &[("app/web.yaml", &reselected())]);
    env.announce().await;
    env.failed_at("app", &b, "field is immutable").await;
    assert_eq!(uid_of(env, "Deployment", "web").await, before, "nobody asked for it to be deleted");

    env.kustomization("app", |spec| spec["force"] = true.into()).await;
    env.ready_at("app", &b).await;
    let web = env.live("Deployment", "web").await.expect("it is there");
    assert_ne!(web["metadata"]["uid"], before);
    assert_eq!(web["spec"]["selector"]["matchLabels"]["tier"], "front");
    assert_eq!(uid_of(env, "ConfigMap", "settings").await, settings, "what can be changed is not created anew");
}

async fn an_annotation_has_one_object_created_anew(env: &mut Env) {
    env.begin(&[("app/web.yaml", &service(None))]).await;
    let before = uid_of(env, "Service", "web").await;
    let b = env.push("B", &[("app/web.yaml", &service(Some("None")))]);
    env.announce().await;
    env.failed_at("app", &b, "may not change once set").await;
    assert_eq!(uid_of(env, "Service", "web").await, before);

    let c = env.push("C", &[("app/web.yaml", &annotated(&service(Some("None")), FORCE, "Enabled"))]);
    env.announce().await;
    env.ready_at("app", &c).await;
    let web = env.live("Service", "web").await.expect("it is there");
    assert_ne!(web["metadata"]["uid"], before);
    assert_eq!(web["spec"]["clusterIP"], "None");
}

async fn a_stateful_set_is_created_anew_only_with_consent_on_itself(env: &mut Env) {
    env.begin(&[("app/db.yaml", &stateful_set("one"))]).await;
    let before = uid_of(env, "StatefulSet", "db").await;
    env.kustomization("app", |spec| {
        spec["force"] = true.into();
        spec["retryInterval"] = "1s".into();
    })
    .await;
    let b = env.push("B", &[("app/db.yaml", &stateful_set("two"))]);
    env.announce().await;
    env.failed_at("app", &b, "waiting for consent\nhint: kubectl annotate --overwrite statefulsets.apps/db -n").await;
    assert_eq!(uid_of(env, "StatefulSet", "db").await, before);

    let consent =
        |revision: &str| Patch::Merge(json!({ "metadata": { "annotations": { CONFIRM_RECREATE: revision } } }));
    let sets = env.objects("StatefulSet");
    sets.patch("db", &PatchParams::default(), &consent("main@sha1:of-something-else")).await.expect("it is annotated");
    env.reconcile("app").await;
    env.failed_at("app", &b, "waiting for consent").await;
    assert_eq!(uid_of(env, "StatefulSet", "db").await, before, "the consent was to another revision");

    sets.patch("db", &PatchParams::default(), &consent(&b)).await.expect("it is annotated");
    env.ready_at("app", &b).await;
    let db = env.live("StatefulSet", "db").await.expect("it is there");
    assert_ne!(db["metadata"]["uid"], before);
    assert_eq!(db["spec"]["serviceName"], "two");
    assert_eq!(db["metadata"]["annotations"].get(CONFIRM_RECREATE), None, "a consent holds once");
}

async fn a_replacement_that_the_server_would_not_take_leaves_the_old_object(env: &mut Env) {
    let other = with(&service(None), |other| other["metadata"]["name"] = "other".into());
    env.begin(&[("app/web.yaml", &service(None)), ("app/other.yaml", &other)]).await;
    let before = uid_of(env, "Service", "web").await;
    let taken = env.live("Service", "other").await.expect("it is there")["spec"]["clusterIP"].clone();
    let taken = taken.as_str().expect("it has an address");

    let b = env.push("B", &[("app/web.yaml", &annotated(&service(Some(taken)), FORCE, "Enabled"))]);
    env.announce().await;
    env.failed_at("app", &b, "is free can't be tried").await;
    assert_eq!(uid_of(env, "Service", "web").await, before, "the old one is left");
}

async fn an_object_deleted_to_be_created_anew_is_created_after_a_crash(env: &mut Env) {
    env.begin(&[("app/web.yaml", &deployment("web", "web:1"))]).await;
    let before = uid_of(env, "Deployment", "web").await;
    // someone's finalizer holds the deletion, so that the crash comes between it and the creation
    let deployments = env.objects("Deployment");
    let finalizers = |names: Value| Patch::Merge(json!({ "metadata": { "finalizers": names } }));
    let params = PatchParams::default();
    deployments.patch("web", &params, &finalizers(json!(["example.com/hold"]))).await.expect("it is held");

    let b = env.push("B", &[("app/web.yaml", &annotated(&reselected(), FORCE, "Enabled"))]);
    env.announce().await;
    env.until_live("Deployment", "web", "it is being deleted", |web| !web["metadata"]["deletionTimestamp"].is_null())
        .await;
    env.daemon.take().expect("it runs").kill().await.expect("it is killed");
    deployments.patch("web", &params, &finalizers(json!(null))).await.expect("it is let go");
    env.until_gone("Deployment", "web").await;

    env.start();
    env.ready_at("app", &b).await;
    let web = env.live("Deployment", "web").await.expect("it is there again");
    assert_ne!(web["metadata"]["uid"], before);
    assert_eq!(web["spec"]["selector"]["matchLabels"]["tier"], "front");
}

async fn what_is_to_be_created_once_is_neither_corrected_nor_taken_over(env: &mut Env) {
    let once = |name: &str, value: &str| annotated(&config_map(name, value), SSA, "IfNotPresent");
    let foreign: Value = serde_json::from_str(&config_map("foreign", "theirs")).expect("JSON");
    let foreign = serde_json::from_value(foreign).expect("an object");
    let maps = env.objects("ConfigMap");
    maps.create(&PostParams::default(), &foreign).await.expect("it is created");

    env.begin(&[("app/ours.yaml", &once("ours", "a")), ("app/foreign.yaml", &once("foreign", "a"))]).await;
    assert_eq!(env.live("ConfigMap", "ours").await.expect("it was absent")["data"]["value"], "a");
    let theirs = env.live("ConfigMap", "foreign").await.expect("it is there");
    assert_eq!(theirs["data"]["value"], "theirs");

    let change = Patch::Merge(json!({ "data": { "value": "by hand" } }));
    maps.patch("ours", &PatchParams::default(), &change).await.expect("it is changed");
    let b = env.push("B", &[("app/ours.yaml", &once("ours", "b")), ("app/new.yaml", &config_map("new", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    assert_eq!(env.live("ConfigMap", "ours").await.expect("it is there")["data"]["value"], "by hand");

    let c = env.push_changes("C", &[("app/ours.yaml", None), ("app/foreign.yaml", None)]);
    env.announce().await;
    env.ready_at("app", &c).await;
    env.until_gone("ConfigMap", "ours").await;
    let left = env.live("ConfigMap", "foreign").await.expect("it was never ours");
    assert_eq!(left["metadata"]["resourceVersion"], theirs["metadata"]["resourceVersion"], "nor touched");
}

async fn what_is_to_be_ignored_is_neither_applied_nor_deleted(env: &mut Env) {
    env.begin(&[
        ("app/absent.yaml", &annotated(&config_map("absent", "a"), SSA, "Ignore")),
        ("app/released.yaml", &config_map("released", "a")),
    ])
    .await;
    assert!(env.live("ConfigMap", "absent").await.is_none());

    // on the live object it counts as well
    let release =
        Patch::Merge(json!({ "metadata": { "annotations": { RECONCILE: "disabled" } }, "data": { "value": "mine" } }));
    env.objects("ConfigMap").patch("released", &PatchParams::default(), &release).await.expect("it is released");
    let b = env
        .push("B", &[("app/released.yaml", &config_map("released", "b")), ("app/new.yaml", &config_map("new", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    assert_eq!(env.live("ConfigMap", "released").await.expect("it is there")["data"]["value"], "mine");

    let c = env.push_changes("C", &[("app/released.yaml", None), ("app/absent.yaml", None)]);
    env.announce().await;
    env.ready_at("app", &c).await;
    assert!(env.live("ConfigMap", "released").await.is_some(), "it is not deleted either");
}

async fn what_is_not_ours_and_asks_to_be_ignored_is_never_written(env: &mut Env) {
    let version = async |env: &Env, name: &str| -> Value {
        env.live("ConfigMap", name).await.expect("it stays")["metadata"]["resourceVersion"].clone()
    };
    let mut before = Vec::new();
    for (name, key, value) in [("one", SSA, "Ignore"), ("two", RECONCILE, "disabled"), ("three", SSA, "ignore")] {
        let theirs = serde_json::from_str(&annotated(&config_map(name, "theirs"), key, value)).expect("an object");
        env.objects("ConfigMap").create(&PostParams::default(), &theirs).await.expect("it is created");
        before.push((name, version(env, name).await));
    }
    // among others, and (as what comes last) alone; what Git says of the annotation changes nothing
    env.begin(&[
        ("app/one.yaml", &config_map("one", "a")),
        ("app/two.yaml", &config_map("two", "a")),
        ("app/three.yaml", &annotated(&config_map("three", "a"), SSA, "Override")),
        ("app/ours.yaml", &config_map("ours", "a")),
    ])
    .await;
    assert_eq!(env.live("ConfigMap", "ours").await.expect("it is applied")["data"]["value"], "a");
    let b = env.push_changes("B", &[("app/two.yaml", None), ("app/three.yaml", None), ("app/ours.yaml", None)]);
    env.announce().await;
    env.ready_at("app", &b).await;
    env.until_gone("ConfigMap", "ours").await;
    let c = env.push("C", &[("app/one.yaml", &config_map("one", "b"))]);
    env.announce().await;
    env.ready_at("app", &c).await;
    for (name, before) in before {
        assert_eq!(version(env, name).await, before, "{name} was never written");
    }

    // once it asks for nothing any more, it is taken over
    let taken = Patch::Merge(json!({ "metadata": { "annotations": { SSA: null } } }));
    env.objects("ConfigMap").patch("one", &PatchParams::default(), &taken).await.expect("it is changed");
    env.reconcile("app").await;
    env.until_live("ConfigMap", "one", "it is as declared", |one| one["data"]["value"] == "b").await;
}

async fn a_job_with_another_template_is_created_anew_and_runs_again(env: &mut Env) {
    env.begin(&[("app/task.yaml", &job("task", "task:1", 600))]).await;
    env.kustomization("app", |spec| spec["force"] = true.into()).await;
    let before = uid_of(env, "Job", "task").await;
    let b = env.push("B", &[("app/task.yaml", &job("task", "task:2", 600))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    let task = env.live("Job", "task").await.expect("it is there");
    assert_ne!(task["metadata"]["uid"], before);
    assert_eq!(task["spec"]["template"]["spec"]["containers"][0]["image"], "task:2");
}

async fn a_claim_is_created_anew_only_with_consent_on_itself(env: &mut Env) {
    let class = |class: &str| with(&claim("data"), |claim| claim["spec"]["storageClassName"] = class.into());
    env.begin(&[("app/data.yaml", &class("slow"))]).await;
    env.kustomization("app", |spec| {
        spec["force"] = true.into();
        spec["retryInterval"] = "1s".into();
    })
    .await;
    let before = uid_of(env, "PersistentVolumeClaim", "data").await;
    let b = env.push("B", &[("app/data.yaml", &class("fast"))]);
    env.announce().await;
    let asks = "waiting for consent\nhint: kubectl annotate --overwrite persistentvolumeclaims/data -n";
    env.failed_at("app", &b, asks).await;
    let data = env.live("PersistentVolumeClaim", "data").await.expect("it is there");
    assert_eq!((&data["metadata"]["uid"], &data["metadata"]["deletionTimestamp"]), (&before, &Value::Null));

    let claims = env.objects("PersistentVolumeClaim");
    let params = PatchParams::default();
    let consent = Patch::Merge(json!({ "metadata": { "annotations": { CONFIRM_RECREATE: b } } }));
    claims.patch("data", &params, &consent).await.expect("it is annotated");
    env.ready_at("app", &b).await;
    let data = env.live("PersistentVolumeClaim", "data").await.expect("it is there again");
    assert_ne!(data["metadata"]["uid"], before);
    assert_eq!(data["spec"]["storageClassName"], "fast");
    assert_eq!(data["metadata"]["annotations"].get(CONFIRM_RECREATE), None, "a consent holds once");
}

async fn what_is_to_be_merged_keeps_the_fields_of_kubectl(env: &mut Env) {
    for name in ["merged", "overridden"] {
        let by_kubectl = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "value": "old", "extra": "kept" },
        });
        let by_kubectl = serde_json::from_value(by_kubectl).expect("an object");
        let params = PostParams { field_manager: Some(KUBECTL.into()), ..PostParams::default() };
        env.objects("ConfigMap").create(&params, &by_kubectl).await.expect("kubectl applies it");
    }
    env.begin(&[
        ("app/merged.yaml", &annotated(&config_map("merged", "new"), SSA, "Merge")),
        ("app/overridden.yaml", &config_map("overridden", "new")),
    ])
    .await;
    let merged = env.live("ConfigMap", "merged").await.expect("it is there");
    assert_eq!(merged["data"], json!({ "value": "new", "extra": "kept" }));
    let overridden = env.live("ConfigMap", "overridden").await.expect("it is there");
    assert_eq!(overridden["data"], json!({ "value": "new" }), "what Git does not have goes");
    let managers = |object: &Value| -> Vec<String> {
        let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        entries.iter().filter_map(|entry| entry["manager"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(managers(&overridden), [APPLY_MANAGER]);
    assert!(managers(&merged).contains(&KUBECTL.to_owned()), "{:?}", managers(&merged));
}
