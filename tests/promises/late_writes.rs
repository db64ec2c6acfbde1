//! Promise 1, below the surface: requests that take their time, and what they do when they land at last. Only the
//! sandbox can be made to do so.

use std::time::Duration;

use afresh::api::APPLY_MANAGER;
use afresh::sandbox::{Effect, Match, Subresource, Verb};

use serde_json::json;

use crate::drift::edit;
use crate::support::env::{Cluster, Env};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    only on the sandbox:
    a_write_of_a_broken_revision_that_lands_after_its_fix_is_corrected,
    a_slow_write_is_followed_by_the_newest_value,
    a_refused_finalizer_is_tried_again_with_pauses,
    what_others_write_while_what_is_left_to_them_is_read_is_not_undone,
}

fn faults(env: &Env) -> &afresh::sandbox::Faults {
    match &env.cluster {
        Cluster::Sandbox(sandbox) => sandbox.faults(),
        Cluster::Real(_) => unreachable!("these scenarios run on the sandbox"),
    }
}

fn applies_of_settings() -> Match {
    Match::verb(Verb::Patch).on("configmaps").named("settings").by_manager(APPLY_MANAGER)
}

async fn a_write_of_a_broken_revision_that_lands_after_its_fix_is_corrected(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let late = faults(env).always(applies_of_settings(), Effect::LandLate(Duration::from_secs(3)));
    env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.announce().await;
    let sent = async || (faults(env).applied(late) > 0).then_some(());
    env.eventually("B's write is on its way", sent).await;
    faults(env).remove(late);

    let fix = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    env.announce().await;
    let landed = env.until_live("ConfigMap", "settings", "B's write lands", |found| found["data"]["value"] == "b");
    tokio::join!(landed, env.ready_at("app", &fix));
    env.until_live("ConfigMap", "settings", "it is corrected", |found| found["data"]["value"] == "c").await;
    env.ready_at("app", &fix).await;
}

async fn a_slow_write_is_followed_by_the_newest_value(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let slow = faults(env).once(applies_of_settings(), Effect::Delay(Duration::from_secs(2)));
    env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.announce().await;
    env.eventually("B's write is on its way", async || (faults(env).applied(slow) > 0).then_some(())).await;
    let fix = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    env.announce().await;
    env.ready_at("app", &fix).await;
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "c");
}

async fn a_refused_finalizer_is_tried_again_with_pauses(env: &mut Env) {
    let refusal = Effect::Answer { code: 422, message: "no finalizers today".into() };
    let objects = Match { subresource: Some(Subresource::None), ..Match::verb(Verb::Patch).on("kustomizations") };
    let refused = faults(env).always(objects, refusal);
    let revision = env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.source(|_| {}).await;
    env.start();
    // Written by another request than those that are refused.
    env.create_kustomization("app").await;
    env.until("app", "the refusal shows", |app| crate::support::env::message(app).contains("no finalizers today"))
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let tries = faults(env).applied(refused);
    assert!(tries < 10, "{tries} tries in three seconds");
    faults(env).clear();
    env.ready_at("app", &revision).await;
}

async fn what_others_write_while_what_is_left_to_them_is_read_is_not_undone(env: &mut Env) {
    let settings = |value: &str| {
        let data = json!({ "left": "git", "value": value });
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" }, "data": data }).to_string()
    };
    let a = env.push("A", &[("app/settings.yaml", &settings("a"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| spec["ignore"] = json!([{ "paths": ["/data/left"] }])).await;
    env.start();
    env.ready_at("app", &a).await;
    edit(env, "settings", json!({ "data": { "left": "first" } })).await;

    let reads = Match::verb(Verb::Get).on("configmaps").named("settings").by_manager("afresh");
    let read = faults(env).once(reads, Effect::DelayAnswer(Duration::from_secs(2)));
    let b = env.push("B", &[("app/settings.yaml", &settings("b"))]);
    env.announce().await;
    env.eventually("it is read", async || (faults(env).applied(read) > 0).then_some(())).await;
    edit(env, "settings", json!({ "data": { "left": "second" } })).await;
    env.ready_at("app", &b).await;
    let found = env.live("ConfigMap", "settings").await.unwrap();
    assert_eq!(found["data"], json!({ "left": "second", "value": "b" }));
}
