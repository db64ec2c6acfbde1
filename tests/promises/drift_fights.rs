//! A fight with another writer is slowed and said, and ends when nobody fights.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::drift::{edit, told};
use crate::support::env::Env;
use crate::support::manifests::config_map;
use crate::support::scenarios;
use crate::support::wait::{eventually, watch_until};

scenarios! {
    a_fight_is_slowed_and_said_once_and_ends_when_it_is_calm,
}

/// A first pause, another twice as long, a calm while, and some time for a slow machine.
const END_MAX: Duration = Duration::from_secs(120);

async fn a_fight_is_slowed_and_said_once_and_ends_when_it_is_calm(env: &mut Env) {
    env.begin(&[("app/x.yaml", &config_map("x", "a")), ("app/y.yaml", &config_map("y", "a"))]).await;
    let changes = Arc::new(AtomicUsize::new(0));
    let (objects, counted) = (env.objects("ConfigMap"), changes.clone());
    let fighter = tokio::spawn(async move {
        let by = PatchParams { field_manager: Some("fighter".into()), ..PatchParams::default() };
        loop {
            let ours = watch_until(&objects, "x", END_MAX, |x| x.is_some_and(|x| x.data["data"]["value"] == "a"));
            if ours.await.is_err() {
                return;
            }
            let change = Patch::Merge(json!({ "data": { "value": "theirs" } }));
            if objects.patch("x", &by, &change).await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    told(env, "DriftFight", &["/x is changed again and again", "data.value, written by fighter"]).await;
    let labels = [("name", "app"), ("namespace", env.namespace.as_str()), ("state", "fought")];
    env.eventually("it is counted", async || {
        (env.measured("afresh_drift_objects", &labels).await == Some(1.0)).then_some(())
    })
    .await;
    // others are put back at once
    let since = Instant::now();
    edit(env, "y", json!({ "data": { "value": "by hand" } })).await;
    env.until_live("ConfigMap", "y", "it is corrected", |found| found["data"]["value"] == "a").await;
    assert!(since.elapsed() < Duration::from_secs(4), "another object waited {:?}", since.elapsed());
    // a new revision of the object itself, too
    let b = env.push("B", &[("app/y.yaml", &config_map("y", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    let before = changes.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let more = changes.load(Ordering::Relaxed) - before;
    assert!(more <= 1, "{more} corrections within four seconds of a pause of five or more");

    fighter.abort();
    let over = eventually(END_MAX, async || {
        env.events("app")
            .await
            .into_iter()
            .find(|(reason, message)| reason == "DriftFightOver" && message.contains("/x"))
    });
    assert!(over.await.is_some(), "the fight never ends");
    assert_eq!(env.live("ConfigMap", "x").await.unwrap()["data"]["value"], "a");
    env.until("app", "nothing is said of it any more", |app| {
        app.status.as_ref().is_some_and(|status| status.conditions.get("afresh.dev/Drift").is_none())
    })
    .await;
    let fights = env.events("app").await.into_iter().filter(|(reason, _)| reason == "DriftFight");
    assert_eq!(fights.count(), 1);
}
