//! Promise 1: what a newer revision preempts, and what it leaves alone.

use std::time::Duration;

use serde_json::json;

use crate::support::env::Env;
use crate::support::manifests::{config_map, deployment_behaving};
use crate::support::scenarios;

scenarios! {
    ten_commits_alternately_broken_and_good_end_on_the_last,
    a_commit_elsewhere_does_not_disturb_a_running_health_wait,
    a_changed_spec_preempts_a_health_wait,
    a_request_acts_at_once_and_is_echoed,
    a_failed_revision_that_heals_turns_ready_by_itself,
}

async fn ten_commits_alternately_broken_and_good_end_on_the_last(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "0"))]).await;
    // The pace is the scenario's: people who push in a hurry.
    let mut pace = tokio::time::interval(Duration::from_secs(1));
    let mut last = String::new();
    for number in 1..=10 {
        pace.tick().await;
        let good = config_map("settings", &number.to_string());
        let text = if number % 2 == 0 { &good } else { "[" };
        last = env.push(&number.to_string(), &[("app/settings.yaml", text)]);
        env.announce().await;
    }
    env.ready_at("app", &last).await;
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "10");
}

async fn a_commit_elsewhere_does_not_disturb_a_running_health_wait(env: &mut Env) {
    env.begin_waiting().await;
    let before = env.live("Deployment", "web").await.unwrap();
    let elsewhere = env.push("B", &[("other/readme.md", "nothing of this application\n")]);
    env.announce().await;
    env.fetched(&elsewhere).await;
    env.change_behaviour("web", "ready").await;
    env.ready_at("app", &elsewhere).await;
    let after = env.live("Deployment", "web").await.unwrap();
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(before["spec"], after["spec"], "nothing was sent again");
}

async fn a_changed_spec_preempts_a_health_wait(env: &mut Env) {
    let revision = env.begin_waiting().await;
    env.kustomization("app", |spec| spec["wait"] = json!(false)).await;
    env.ready_at("app", &revision).await;
}

async fn a_request_acts_at_once_and_is_echoed(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    env.reconcile("app").await;
}

async fn a_failed_revision_that_heals_turns_ready_by_itself(env: &mut Env) {
    let revision = env.push("A", &[("app/web.yaml", &deployment_behaving("web", "web:1", "never"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| {
        spec["wait"] = json!(true);
        spec["timeout"] = json!("1s");
        spec["retryInterval"] = json!("10m");
    })
    .await;
    env.start();
    env.failed_at("app", &revision, "web").await;
    env.change_behaviour("web", "ready").await;
    env.ready_at("app", &revision).await;
}
