//! Promise 3: nothing owned is orphaned, nothing foreign is deleted.

use kube::api::DeleteParams;
use serde_json::json;

use crate::support::env::Env;
use crate::support::manifests::{config_map, job};
use crate::support::scenarios;

scenarios! {
    what_a_broken_commit_created_and_its_fix_no_longer_has_is_removed,
    an_object_moved_between_two_applications_in_one_commit_survives,
    a_job_removed_after_its_time_to_live_is_not_run_again,
    an_object_that_is_no_longer_declared_is_deleted,
    an_object_that_says_so_is_never_deleted,
    two_applications_that_declare_one_object_do_not_fight,
    a_deleted_application_takes_its_objects_with_it,
    a_suspended_application_is_left_alone,
}

async fn what_a_broken_commit_created_and_its_fix_no_longer_has_is_removed(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    // The autoscaler comes in a later stage than ConfigMaps, so these are there when it is refused.
    let refused = r#"
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: { name: web }
spec:
  maxReplicas: many
  scaleTargetRef: { apiVersion: apps/v1, kind: Deployment, name: web }
"#;
    let broken = env.push(
        "B",
        &[
            ("app/x.yaml", &config_map("x", "b")),
            ("app/y.yaml", &config_map("y", "b")),
            ("app/z.yaml", &config_map("z", "b")),
            ("app/autoscaler.yaml", refused),
        ],
    );
    env.announce().await;
    env.failed_at("app", &broken, "HorizontalPodAutoscaler").await;
    for name in ["x", "y", "z"] {
        assert!(env.live("ConfigMap", name).await.is_some(), "{name} was created by the broken commit");
    }

    let removed = ["app/x.yaml", "app/y.yaml", "app/z.yaml", "app/autoscaler.yaml"].map(|path| (path, None));
    let fix = env.push_changes("C", &removed);
    env.ready_at("app", &fix).await;
    for name in ["x", "y", "z"] {
        env.until_gone("ConfigMap", name).await;
    }
}

async fn an_object_moved_between_two_applications_in_one_commit_survives(env: &mut Env) {
    let (moved, left, right) = (config_map("moved", "a"), config_map("left", "a"), config_map("right", "a"));
    env.kustomization("right", |_| {}).await;
    env.push("right", &[("right/right.yaml", &right)]);
    env.kustomization("left", |_| {}).await;
    let a = env.push("A", &[("left/left.yaml", &left), ("left/moved.yaml", &moved)]);
    env.source(|_| {}).await;
    env.start();
    env.ready_at("left", &a).await;
    env.ready_at("right", &a).await;
    let before = env.live("ConfigMap", "moved").await.unwrap();

    let b = env.push_changes("B", &[("left/moved.yaml", None), ("right/moved.yaml", Some(&moved))]);
    env.announce().await;
    env.ready_at("left", &b).await;
    env.ready_at("right", &b).await;
    let after = env.live("ConfigMap", "moved").await.expect("the moved object survives");
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"], "it is still the same object");
    assert_eq!(after["metadata"]["labels"]["kustomize.toolkit.fluxcd.io/name"], "right");
}

async fn a_job_removed_after_its_time_to_live_is_not_run_again(env: &mut Env) {
    let a = env.push("A", &[("app/migrate.yaml", &job("migrate", "migrate:1", 1))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| spec["wait"] = json!(true)).await;
    env.start();
    env.ready_at("app", &a).await;
    env.until_gone("Job", "migrate").await;

    let b = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    env.reconcile("app").await;
    assert!(env.live("Job", "migrate").await.is_none(), "the Job was run again");
}

async fn an_object_that_is_no_longer_declared_is_deleted(env: &mut Env) {
    env.begin(&[("app/x.yaml", &config_map("x", "a")), ("app/y.yaml", &config_map("y", "a"))]).await;
    let b = env.push_changes("B", &[("app/y.yaml", None)]);
    env.announce().await;
    env.ready_at("app", &b).await;
    env.until_gone("ConfigMap", "y").await;
    assert!(env.live("ConfigMap", "x").await.is_some());
}

async fn an_object_that_says_so_is_never_deleted(env: &mut Env) {
    let kept = r#"
apiVersion: v1
kind: ConfigMap
metadata:
  name: kept
  annotations: { kustomize.toolkit.fluxcd.io/prune: disabled }
"#;
    env.begin(&[("app/x.yaml", &config_map("x", "a")), ("app/kept.yaml", kept)]).await;
    let b = env.push_changes("B", &[("app/kept.yaml", None)]);
    env.announce().await;
    env.ready_at("app", &b).await;
    assert!(env.live("ConfigMap", "kept").await.is_some());
}

async fn two_applications_that_declare_one_object_do_not_fight(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "first"))]).await;
    let b = env.push("B", &[("second/settings.yaml", &config_map("settings", "second"))]);
    env.kustomization("second", |_| {}).await;
    env.announce().await;
    env.failed_at("second", &b, "app").await;
    env.ready_at("app", &b).await;
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "first");
    let refusals = async |env: &Env| {
        let events = env.events("second").await.into_iter();
        events.filter(|(_, text)| text.starts_with("declared by another application already")).count()
    };
    env.eventually("an Event tells of the refusal", async || (refusals(env).await == 1).then_some(())).await;

    // Neither a retry nor a commit elsewhere tells it again; giving way and coming back does.
    env.request_now("second").await;
    let c = env.push("C", &[("elsewhere/readme.md", "c\n")]);
    env.announce().await;
    env.ready_at("app", &c).await;
    assert_eq!(refusals(env).await, 1);
    let d = env.push("D", &[("second/settings.yaml", &config_map("of-second", "second"))]);
    env.announce().await;
    env.ready_at("second", &d).await;
    let e = env.push("E", &[("second/settings.yaml", &config_map("settings", "second"))]);
    env.announce().await;
    env.failed_at("second", &e, "app").await;
    env.eventually("another Event tells of it", async || (refusals(env).await == 2).then_some(())).await;
}

async fn a_deleted_application_takes_its_objects_with_it(env: &mut Env) {
    env.begin(&[("app/x.yaml", &config_map("x", "a"))]).await;
    env.kustomizations().delete("app", &DeleteParams::default()).await.unwrap();
    env.until_gone("ConfigMap", "x").await;
    env.eventually("the Kustomization is gone", async || {
        env.kustomizations().get_opt("app").await.unwrap().is_none().then_some(())
    })
    .await;
}

async fn a_suspended_application_is_left_alone(env: &mut Env) {
    env.begin(&[("app/x.yaml", &config_map("x", "a")), ("other/y.yaml", &config_map("y", "a"))]).await;
    env.kustomization("other", |_| {}).await;
    env.kustomization("app", |spec| spec["suspend"] = json!(true)).await;
    let b = env.push("B", &[("app/x.yaml", &config_map("x", "b")), ("other/y.yaml", &config_map("y", "b"))]);
    env.announce().await;
    env.ready_at("other", &b).await;
    assert_eq!(env.live("ConfigMap", "x").await.unwrap()["data"]["value"], "a");

    env.kustomization("app", |spec| spec["suspend"] = json!(false)).await;
    env.ready_at("app", &b).await;
}
