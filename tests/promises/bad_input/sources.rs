//! Repositories that are not as expected.

use crate::support::env::{Env, message};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    a_repository_without_commits_is_no_reason_to_give_up,
    a_force_push_is_followed,
}

async fn a_repository_without_commits_is_no_reason_to_give_up(env: &mut Env) {
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    env.start();
    let waits = env.until("app", "it says that there is no revision", |app| !message(app).is_empty()).await;
    assert!(message(&waits).contains("has no commits\nhint: push a first commit"), "{}", message(&waits));
    let first = env.push("first", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.ready_at("app", &first).await;
}

async fn a_force_push_is_followed(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let text = config_map("settings", "b");
    let commit = env.repository.force_push("another history", &[("app/settings.yaml", &text)]).unwrap();
    env.announce().await;
    env.ready_at("app", &format!("main@sha1:{commit}")).await;
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "b");
}
