//! Promise 2: status tells the truth, and tells it once.

use afresh::api::READY;
use serde_json::json;

use crate::support::env::{Env, message};
use crate::support::manifests::{config_map, deployment};
use crate::support::scenarios;

scenarios! {
    ready_says_which_revision_is_applied,
    a_commit_that_changes_nothing_here_leaves_the_conditions_alone,
    an_unchanged_application_says_nothing_of_waiting_for_its_dependency,
    a_crash_loop_is_named_with_container_and_reason,
    a_field_that_is_not_served_is_named,
    a_cycle_of_dependencies_is_named_and_holds_back_only_its_members,
    each_change_of_state_is_one_event,
}

async fn ready_says_which_revision_is_applied(env: &mut Env) {
    let a = env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    assert_eq!(env.status_message("app").await, format!("Applied revision: {a}"));
}

async fn a_commit_that_changes_nothing_here_leaves_the_conditions_alone(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let before = env.kustomizations().get("app").await.unwrap().status.unwrap();
    let b = env.push("B", &[("elsewhere/readme.md", "b\n")]);
    env.announce().await;
    let after = env.ready_at("app", &b).await.status.unwrap();
    let time = |conditions: &afresh::api::Conditions| conditions.get(READY).unwrap().last_transition_time.clone();
    assert_eq!(time(&before.conditions), time(&after.conditions));
}

async fn an_unchanged_application_says_nothing_of_waiting_for_its_dependency(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a")), ("db/db.yaml", &config_map("db", "a"))]).await;
    env.kustomization("db", |spec| spec["path"] = json!("./db")).await;
    env.kustomization("web", |spec| spec["dependsOn"] = json!([{ "name": "db" }])).await;
    let a = env.push("A", &[("web/web.yaml", &config_map("web", "a"))]);
    env.announce().await;
    let before = env.ready_at("web", &a).await.status.unwrap();
    let events = env
        .eventually("the event of A", async || {
            let events = env.events("web").await;
            events.iter().any(|(_, message)| message.contains(&a)).then_some(events)
        })
        .await;
    let b = env.push("B", &[("db/db.yaml", &config_map("db", "b"))]);
    env.announce().await;
    let after = env.ready_at("web", &b).await.status.unwrap();
    assert_eq!(env.live("ConfigMap", "db").await.unwrap()["data"]["value"], "b");
    let ready =
        |status: &afresh::api::KustomizationStatus| status.conditions.get(READY).unwrap().last_transition_time.clone();
    assert_eq!(ready(&before), ready(&after));
    assert_eq!(env.events("web").await, events, "nothing happened to it");
}

async fn a_crash_loop_is_named_with_container_and_reason(env: &mut Env) {
    let revision = env.push("A", &[("app/web.yaml", &deployment("web", "web:crash"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| spec["wait"] = json!(true)).await;
    env.start();
    env.until("app", "the cause is named", |app| {
        let status = serde_json::to_string(&app.status).unwrap_or_default();
        status.contains("CrashLoopBackOff") && status.contains("main")
    })
    .await;
    let applied = env.kustomizations().get("app").await.unwrap().status.unwrap().last_applied_revision;
    assert_ne!(applied, Some(revision), "it isn't healthy");
}

async fn a_field_that_is_not_served_is_named(env: &mut Env) {
    env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| spec["kubeConfig"] = json!({ "secretRef": { "name": "remote" } })).await;
    env.start();
    env.until("app", "Stalled names the field", |app| {
        let stalled = app.status.as_ref().and_then(|status| status.conditions.get("Stalled"));
        stalled.is_some_and(|stalled| stalled.message.contains("kubeConfig"))
    })
    .await;
    assert!(env.live("ConfigMap", "settings").await.is_none(), "nothing was applied");
}

async fn a_cycle_of_dependencies_is_named_and_holds_back_only_its_members(env: &mut Env) {
    let map = |name| config_map(name, "a");
    let revision = env.push("A", &[("x/x.yaml", &map("x")), ("y/y.yaml", &map("y")), ("z/z.yaml", &map("z"))]);
    env.source(|_| {}).await;
    env.kustomization("x", |spec| spec["dependsOn"] = json!([{ "name": "y" }])).await;
    env.kustomization("y", |spec| spec["dependsOn"] = json!([{ "name": "x" }])).await;
    env.kustomization("z", |_| {}).await;
    env.start();
    env.ready_at("z", &revision).await;
    env.until("x", "the cycle is named", |x| message(x).contains("cycle") && message(x).contains('y')).await;
    env.kustomization("y", |spec| spec["dependsOn"] = json!([])).await;
    env.ready_at("x", &revision).await;
}

async fn each_change_of_state_is_one_event(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let broken = env.push("B", &[("app/settings.yaml", "[")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    let fix = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    env.ready_at("app", &fix).await;
    let events = env
        .eventually("three Events", async || {
            let events = env.events("app").await;
            (events.len() >= 3).then_some(events)
        })
        .await;
    let about_failure = events.iter().filter(|(_, message)| message.contains("app/settings.yaml")).count();
    assert_eq!(about_failure, 1, "{events:#?}");
}
