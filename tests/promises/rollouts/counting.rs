//! How often it is rolled: exactly once for each change, however changes come.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{HASH, RECORD, begin, container, follow, reader, secret, settled, workload};
use crate::support::env::Env;
use crate::support::rollouts::Rollouts;
use crate::support::scenarios;

scenarios! {
    a_burst_is_one_rollout,
    churn_that_does_not_end_is_taken_up_every_five_seconds,
    fifty_workloads_are_rolled_once_each,
    what_changes_nothing_rolls_nothing,
    a_change_while_the_daemon_was_down_is_caught_at_start,
    a_restart_under_load_rolls_nothing_twice,
    another_installation_key_rolls_nothing,
    a_lost_installation_key_rolls_nothing,
    following_costs_nothing_while_nothing_changes,
    a_secret_of_a_mebibyte_is_followed_as_any_other,
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

/// So many workloads that read one Secret, which changes; their names.
async fn begin_sharing(env: &mut Env, count: usize) -> (Vec<String>, Rollouts) {
    env.secret("shared", json!({ "value": "0" })).await;
    let names: Vec<String> = (0..count).map(|n| format!("web-{n}")).collect();
    let files: Vec<_> = names.iter().map(|name| (format!("app/{name}.yaml"), reader(name, "shared"))).collect();
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let rollouts = begin(env, &files).await;
    env.secret("shared", json!({ "value": "1" })).await;
    (names, rollouts)
}

async fn each_is_rolled_once(env: &Env, rollouts: &Rollouts, names: &[String]) {
    for name in names {
        rollouts.until(env, "Deployment", name, 1).await;
    }
    settled(env, rollouts).await;
    for name in names {
        assert_eq!(rollouts.of(env, "Deployment", name).await, 1, "{name}");
    }
}

async fn fifty_workloads_are_rolled_once_each(env: &mut Env) {
    let (names, rollouts) = begin_sharing(env, 50).await;
    each_is_rolled_once(env, &rollouts, &names).await;
    let reads = env.requests_of_the_daemon().await;
    let reads = reads.iter().filter(|r| r.starts_with("get ") && r.ends_with("secrets/shared")).count();
    assert_eq!(reads, 2, "one reads for all");
}

async fn what_changes_nothing_rolls_nothing(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    let before = env.live("Deployment", "web").await.unwrap();
    let held = env.live("Secret", "a").await.unwrap();
    let label = Patch::Merge(json!({ "metadata": { "labels": { "x": "y" }, "annotations": { "x": "y" } } }));
    env.objects("Secret").patch("a", &PatchParams::default(), &label).await.unwrap();
    settled(env, &rollouts).await;
    env.objects("Secret").delete("a", &DeleteParams::default()).await.unwrap();
    env.secret("a", json!({ "value": "0" })).await;
    settled(env, &rollouts).await;
    // as another operator makes it: the same keys, of another type
    env.objects("Secret").delete("a", &DeleteParams::default()).await.unwrap();
    let typed = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "example.com/typed", "metadata": { "name": "a" },
        "data": held["data"],
    });
    env.objects("Secret").patch("a", &PatchParams::apply("another"), &Patch::Apply(typed)).await.unwrap();
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
    let (names, rollouts) = begin_sharing(env, 20).await;
    env.eventually("the first is rolled", async || {
        names.iter().any(|name| rollouts.seen("Deployment", name) == Some(1)).then_some(())
    })
    .await;
    env.daemon.take().unwrap().kill().await.unwrap();
    env.start();
    each_is_rolled_once(env, &rollouts, &names).await;
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

async fn a_lost_installation_key_rolls_nothing(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let files = [("app/web.yaml", &*reader("web", "a")), ("app/b.yaml", &*secret("b", json!({ "value": "0" })))];
    let rollouts = begin(env, &files).await;
    env.secret("a", json!({ "value": "1" })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    env.daemon.take().unwrap().stop().await.unwrap();
    env.objects("Secret").delete("afresh-installation", &DeleteParams::default()).await.unwrap();
    env.start();
    env.reconcile("app").await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1);
    env.secret("a", json!({ "value": "2" })).await;
    rollouts.until(env, "Deployment", "web", 2).await;
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

async fn a_secret_of_a_mebibyte_is_followed_as_any_other(env: &mut Env) {
    // as much as an API server takes, but for another key
    let large = |last: char| format!("{}{last}", "x".repeat((1 << 20) - 100));
    env.secret("live", json!({ "value": large('a') })).await;
    let declared = |last: char| secret("declared", json!({ "value": large(last) }));
    let pod =
        container(json!({ "envFrom": [{ "secretRef": { "name": "live" } }, { "secretRef": { "name": "declared" } }] }));
    let web = workload("Deployment", "web", &follow(), &pod);
    let rollouts = begin(env, &[("app/web.yaml", &web), ("app/declared.yaml", &declared('a'))]).await;
    env.secret("live", json!({ "value": large('b') })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    let revision = env.push("B", &[("app/declared.yaml", &declared('b'))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 2);
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 2);
}
