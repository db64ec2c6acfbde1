//! Many GitRepositories of one remote: what is asked of it once serves them all.

use std::time::{Duration, Instant};

use afresh::api::{Key, Receiver, receiver_path};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::support::env::{Env, SOURCE};
use crate::support::forge::Forge;
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    one_webhook_for_a_hundred_sources_of_one_remote_asks_it_a_few_times,
}

const SOURCES: usize = 100;
const TOKEN: &str = "one-for-all";
/// Of the hundred, each on its own, the last one would be asked for after 95 s.
const ALL_LIVE_MAX: Duration = Duration::from_secs(30);
/// One look may have begun before the last of them heard of it, and one waits behind it; the rest is for slow machines.
const LOOKS_MAX: usize = 6;

fn name(number: usize) -> String {
    format!("team-{number}")
}

/// A commit for each branch; gives the revisions.
fn push_all(env: &Env, value: &str) -> Vec<String> {
    let push = |number: usize| {
        let settings = config_map(&format!("settings-{number}"), value);
        let commit = env.repository.commit(value, &[("app/settings.yaml", Some(&settings))]).expect("a commit");
        env.repository.set_branch(&name(number), commit).expect("a branch");
        format!("{}@sha1:{commit}", name(number))
    };
    (0..SOURCES).map(push).collect()
}

fn looks(env: &Env) -> usize {
    env.git.records().iter().filter(|record| record.command.as_deref() == Some("ls-refs")).count()
}

async fn one_webhook_for_a_hundred_sources_of_one_remote_asks_it_a_few_times(env: &mut Env) {
    env.secret("hook", json!({ "token": TOKEN })).await;
    let first = push_all(env, "a");
    let url = env.git.url(SOURCE);
    for number in 0..SOURCES {
        env.source_at(&name(number), &url, |spec| spec["ref"]["branch"] = json!(name(number))).await;
        env.kustomization(&name(number), |spec| {
            spec["path"] = json!("./app");
            spec["sourceRef"]["name"] = json!(name(number));
        })
        .await;
    }
    let resources: Vec<_> = (0..SOURCES).map(|n| json!({ "kind": "GitRepository", "name": name(n) })).collect();
    let receiver = json!({
        "apiVersion": "notification.toolkit.fluxcd.io/v1", "kind": "Receiver", "metadata": { "name": "all" },
        "spec": { "type": "generic", "secretRef": { "name": "hook" }, "resources": resources },
    });
    let receivers: Api<Receiver> = Api::namespaced(env.client.clone(), &env.namespace);
    let params = PatchParams::apply("scenario").force();
    receivers.patch("all", &params, &Patch::Apply(receiver)).await.expect("the Receiver is accepted");
    env.arguments.extend(["--webhook-addr", "127.0.0.1:0"].map(str::to_owned));
    env.start();
    for (number, revision) in first.iter().enumerate() {
        env.ready_at(&name(number), revision).await;
    }

    let second = push_all(env, "b");
    let before = looks(env);
    let path = receiver_path(TOKEN.as_bytes(), &Key::new(env.namespace.as_str(), "all"));
    let forge = Forge::new(TOKEN, &url);
    let daemon = env.daemon.as_ref().unwrap();
    env.eventually("the Receiver takes deliveries", async || {
        (forge.deliver(daemon, &path, "push", "{}").await.0 == 200).then_some(())
    })
    .await;
    let sent = Instant::now();
    for (number, revision) in second.iter().enumerate() {
        env.ready_at(&name(number), revision).await;
    }
    let took = sent.elapsed();
    assert!(took < ALL_LIVE_MAX, "the last of them was live after {took:?}");
    let looked = looks(env) - before;
    assert!((1..=LOOKS_MAX).contains(&looked), "the remote was asked {looked} times");
}
