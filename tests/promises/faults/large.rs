//! An application of more objects than its inventory can hold.

use crate::support::env::{Env, message};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    more_objects_than_an_inventory_holds_are_refused_before_anything_is_applied,
}

/// One file of many objects.
fn maps(file: u32, count: u32) -> String {
    let one = |n: u32| config_map(&format!("a-name-of-some-length-{file:02}-{n:04}"), "a");
    (0..count).map(one).collect::<Vec<_>>().join("\n---\n")
}

async fn more_objects_than_an_inventory_holds_are_refused_before_anything_is_applied(env: &mut Env) {
    let files: Vec<_> = (0..15).map(|file| (format!("big/{file}.yaml"), maps(file, 1000))).collect();
    let mut files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let other = config_map("other", "a");
    files.push(("other/other.yaml", &other));
    let a = env.push("A", &files);
    env.source(|_| {}).await;
    env.kustomization("big", |_| {}).await;
    env.kustomization("other", |_| {}).await;
    env.start();
    env.ready_at("other", &a).await;
    let failed = env.failed_at("big", &a, "15000 objects").await;
    let said = message(&failed);
    assert!(said.contains("split"), "{said}");
    assert!(env.live("ConfigMap", "a-name-of-some-length-00-0000").await.is_none());
    assert!(failed.status.unwrap().inventory.is_none_or(|inventory| inventory.entries.is_empty()));

    // what fits is applied
    let removed: Vec<_> = (1..15).map(|file| format!("big/{file}.yaml")).collect();
    let few = maps(0, 20);
    let mut changes: Vec<(&str, Option<&str>)> = removed.iter().map(|path| (path.as_str(), None)).collect();
    changes.push(("big/0.yaml", Some(&few)));
    let b = env.push_changes("B", &changes);
    env.announce().await;
    env.ready_at("big", &b).await;
}
