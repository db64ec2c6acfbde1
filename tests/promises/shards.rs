//! Several instances share the work, by labels or by shards: each object is served by one of them, and by one at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use afresh::api::{APPLY_MANAGER, HELD_BY, Kustomization};
use afresh::sandbox::{Effect, Match, Verb};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::leadership::{said, writes};
use crate::support::daemon::{Daemon, Runner};
use crate::support::env::{Cluster, Env, PATIENCE, SOURCE, is_ready_at};
use crate::support::installation;
use crate::support::manifests::config_map;
use crate::support::scenarios;
use crate::support::wait::watch_until;

scenarios! {
    two_instances_serve_each_what_its_labels_select,
    an_application_that_gets_another_label_goes_to_another_instance_and_nothing_is_deleted,
    an_object_goes_from_an_application_of_one_instance_to_one_of_another_without_being_deleted,
    what_an_instance_held_that_is_gone_is_taken_over_when_its_lease_is_over,
    replicas_divide_the_applications_and_each_that_joins_takes_its_part,
    a_replica_killed_during_an_apply_loses_its_shards_to_the_others_and_nothing_is_done_twice,
}

mod slow {
    use super::*;

    scenarios! {
        only on the sandbox:
        while_a_write_of_the_first_instance_is_under_way_the_second_one_waits,
    }

    async fn while_a_write_of_the_first_instance_is_under_way_the_second_one_waits(env: &mut Env) {
        let [_rest, first] = begin(env).await;
        let Cluster::Sandbox(sandbox) = &env.cluster else { unreachable!("it runs on the sandbox") };
        let applies = Match::verb(Verb::Patch).on("configmaps").named("settings").by_manager(APPLY_MANAGER);
        let slow = sandbox.faults().once(applies, Effect::Delay(Duration::from_secs(3)));
        env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
        env.announce().await;
        env.eventually("B's write is on its way", async || (sandbox.faults().applied(slow) > 0).then_some(())).await;
        label(env, "app", None).await;
        said(&first, "letting go").await;
        assert!(marked(env, "app").await.ends_with(FIRST), "it is not let go of while a write is under way");
        until_marked(env, "app", REST).await;
        let landed = env.live("ConfigMap", "settings").await.unwrap();
        assert_eq!(landed["data"]["value"], "b", "the first instance's write had landed before");
    }
}

const KEY: &str = "sharding.fluxcd.io/key";
/// The Leases of the two selectors: the first eight digits of their SHA-256.
const REST: &str = "afresh-42da7484";
const FIRST: &str = "afresh-73fdc1be";

/// An instance for what has the label, and one for the rest, which serves the source; `app` is Ready and the first's.
pub(crate) async fn begin(env: &mut Env) -> [Daemon; 2] {
    may_hold_other_leases(env).await;
    let a = env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    label(env, "app", Some("shard1")).await;
    let (rest, first) = (start(env, "!sharding.fluxcd.io/key"), start(env, "sharding.fluxcd.io/key=shard1"));
    env.ready_at("app", &a).await;
    [rest, first]
}

fn start(env: &mut Env, selector: &str) -> Daemon {
    let arguments = env.arguments.clone();
    env.arguments.extend(["--watch-label-selector".to_owned(), selector.to_owned()]);
    let name: String = selector.chars().filter(char::is_ascii_alphanumeric).collect();
    let daemon = env.start_replica(&name, env.kubeconfig());
    env.arguments = arguments;
    daemon
}

/// As manifests/shards has it.
async fn may_hold_other_leases(env: &Env) {
    let group = "rbac.authorization.k8s.io";
    let objects = [
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": { "name": "shards" },
            "rules": [{ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "list", "update"] }],
        }),
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": { "name": "shards" },
            "roleRef": { "apiGroup": group, "kind": "Role", "name": "shards" },
            "subjects": [{ "kind": "ServiceAccount", "name": "afresh", "namespace": installation::NAMESPACE }],
        }),
    ];
    for object in objects {
        let kind = object["kind"].as_str().unwrap().to_owned();
        env.objects(&kind).patch("shards", &PatchParams::apply("somebody"), &Patch::Apply(object)).await.unwrap();
    }
}

async fn label(env: &Env, name: &str, shard: Option<&str>) {
    env.kustomizations().patch(name, &PatchParams::default(), &Patch::Merge(labelled(shard))).await.unwrap();
}

/// The patch that says whose an object is.
pub(crate) fn labelled(shard: Option<&str>) -> Value {
    json!({ "metadata": { "labels": { KEY: shard } } })
}

/// The Lease that an application is marked with.
async fn marked(env: &Env, name: &str) -> String {
    let found = env.kustomizations().get(name).await.unwrap();
    found.annotations().get(HELD_BY).cloned().unwrap_or_default()
}

async fn until_marked(env: &Env, name: &str, lease: &str) {
    let mark = format!("{}/{lease}", env.namespace);
    let is = |found: Option<&Kustomization>| found.is_some_and(|app| app.annotations().get(HELD_BY) == Some(&mark));
    watch_until(&env.kustomizations(), name, PATIENCE, is).await.expect("it is marked");
}

async fn owner(env: &Env, name: &str) -> Value {
    let found = env.live("ConfigMap", name).await.unwrap();
    found["metadata"]["labels"]["kustomize.toolkit.fluxcd.io/name"].clone()
}

async fn uid(env: &Env, name: &str) -> Value {
    env.live("ConfigMap", name).await.expect("it is there")["metadata"]["uid"].clone()
}

async fn two_instances_serve_each_what_its_labels_select(env: &mut Env) {
    let [rest, first] = begin(env).await;
    let b = env.push(
        "B",
        &[
            ("app/settings.yaml", &config_map("settings", "b")),
            ("base/base.yaml", &config_map("base", "b")),
            ("top/top.yaml", &config_map("top", "b")),
        ],
    );
    // one of each instance waits for one of the other
    env.kustomization("base", |spec| spec["dependsOn"] = json!([{ "name": "app" }])).await;
    let mut object = json!({ "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization" });
    object["metadata"] = json!({ "name": "top", "labels": { KEY: "shard1" } });
    object["spec"] = json!({
        "interval": "10m", "path": "./top", "prune": true, "targetNamespace": env.namespace,
        "sourceRef": { "kind": "GitRepository", "name": SOURCE }, "dependsOn": [{ "name": "base" }],
    });
    let params = PatchParams::apply("scenario");
    env.kustomizations().patch("top", &params, &Patch::Apply(object)).await.unwrap();
    env.announce().await;
    for (name, lease) in [("app", FIRST), ("base", REST), ("top", FIRST)] {
        env.ready_at(name, &b).await;
        assert_eq!(marked(env, name).await, format!("{}/{lease}", env.namespace), "{name}");
    }
    env.fetched(&b).await;

    for digest in ["42da7484", "73fdc1be"] {
        for base in ["afresh", "kustomize-controller-leader-election", "source-controller-leader-election"] {
            let lease = env.live("Lease", &format!("{base}-{digest}")).await;
            let holder = lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(str::to_owned));
            assert!(holder.is_some_and(|holder| !holder.is_empty()), "{base}-{digest} is held");
        }
    }
    // the first serves no source, and follows the other's all the same
    let of_source = |text: &str| text.lines().any(|l| l.contains("afresh_") && l.contains("kind=\"GitRepository\""));
    assert!(of_source(&rest.ask("/metrics").await.unwrap().1));
    let before = (writes(&rest).await, writes(&first).await);
    env.push("C", &[("readme.md", "nothing that anyone renders")]);
    env.announce().await;
    let is_at_c = |source: Option<&afresh::api::GitRepository>| {
        source.is_some_and(|s| s.status.as_ref().is_some_and(|s| s.artifact.as_ref().is_some_and(|a| a.revision != b)))
    };
    watch_until(&env.sources(), SOURCE, PATIENCE, is_at_c).await.expect("its status is written");
    assert_ne!(writes(&rest).await, before.0, "by the one that it belongs to");
}

async fn an_application_that_gets_another_label_goes_to_another_instance_and_nothing_is_deleted(env: &mut Env) {
    let [rest, first] = begin(env).await;
    assert!(marked(env, "app").await.ends_with(FIRST));
    let (before, version) = (uid(env, "settings").await, resource_version(env).await);

    label(env, "app", None).await;
    until_marked(env, "app", REST).await;
    said(&first, "let go: other instances may serve it").await;
    let theirs = writes(&first).await;
    let b = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    assert_eq!(resource_version(env).await, version, "what is as declared is not written again");
    env.announce().await;
    env.ready_at("app", &b).await;
    assert_eq!(uid(env, "settings").await, before);
    let app = env.kustomizations().get("app").await.unwrap();
    assert_eq!(app.finalizers().len(), 1);

    // and back, in the middle of a change
    let mine = writes(&rest).await;
    label(env, "app", Some("shard1")).await;
    let c = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    env.announce().await;
    until_marked(env, "app", FIRST).await;
    env.ready_at("app", &c).await;
    assert_eq!(uid(env, "settings").await, before);
    assert_ne!(writes(&first).await, theirs);
    assert_ne!(mine, Vec::<String>::new());
    // what is deleted is cleaned up by the one that serves it
    env.kustomizations().delete("app", &Default::default()).await.unwrap();
    env.until_gone("ConfigMap", "settings").await;
    watch_until(&env.kustomizations(), "app", PATIENCE, |found| found.is_none()).await.expect("it is let go");
}

async fn resource_version(env: &Env) -> Value {
    env.live("ConfigMap", "settings").await.expect("it is there")["metadata"]["resourceVersion"].clone()
}

async fn an_object_goes_from_an_application_of_one_instance_to_one_of_another_without_being_deleted(env: &mut Env) {
    let [_rest, _first] = begin(env).await;
    let keep = ("other/keep.yaml", config_map("keep", "a"));
    let b = env.push("B", &[(keep.0, &keep.1), ("app/more.yaml", &config_map("more", "b"))]);
    env.kustomization("other", |_| {}).await;
    env.announce().await;
    env.ready_at("app", &b).await;
    env.ready_at("other", &b).await;
    let before = uid(env, "settings").await;
    let moved = [("app/settings.yaml", None), ("other/settings.yaml", Some(config_map("settings", "a")))];
    let moved: Vec<_> = moved.iter().map(|(path, text)| (*path, text.as_deref())).collect();
    let c = env.push_changes("C", &moved);
    env.announce().await;
    env.ready_at("other", &c).await;
    env.ready_at("app", &c).await;
    assert_eq!(uid(env, "settings").await, before, "it was not deleted");
    assert_eq!(owner(env, "settings").await, "other");

    // two that declare the same: the one that has it keeps it, and the other says whose it is
    let settings = config_map("settings", "a");
    env.push_changes("D", &[("app/settings.yaml", Some(&settings))]);
    env.announce().await;
    env.until("app", "it is told", |app| crate::support::env::message(app).contains("/other`")).await;
    assert_eq!(owner(env, "settings").await, "other");
    let e = env.push_changes("E", &[("other/settings.yaml", None)]);
    env.announce().await;
    env.ready_at("app", &e).await;
    env.ready_at("other", &e).await;
    assert_eq!(uid(env, "settings").await, before, "nor this time");
    assert_eq!(owner(env, "settings").await, "app");
}

async fn what_an_instance_held_that_is_gone_is_taken_over_when_its_lease_is_over(env: &mut Env) {
    env.runner = Runner::Process;
    env.arguments.extend(["--leader-elect-lease-duration".to_owned(), "4s".to_owned()]);
    let [_rest, first] = begin(env).await;
    first.kill().await.unwrap();
    let moved = std::time::Instant::now();
    label(env, "app", None).await;
    let b = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.announce().await;
    until_marked(env, "app", REST).await;
    // whether a Lease is over is told by how long it was seen unchanged, and nobody had looked at this one before
    assert!(moved.elapsed() >= Duration::from_secs(3), "taken over after {:?}", moved.elapsed());
    let ready = |found: Option<&Kustomization>| found.is_some_and(|app| is_ready_at(app, &b));
    watch_until(&env.kustomizations(), "app", PATIENCE, ready).await.expect("the other one serves it");
}

pub(crate) const APPLICATIONS: [&str; 6] = ["one", "two", "three", "four", "five", "six"];
/// A tenth of what is usual, so that nobody waits for half a minute.
pub(crate) const LEASE: Duration = Duration::from_secs(4);
/// What a machine that compiles beside the test adds to a second or two.
pub(crate) const SLACK: Duration = Duration::from_secs(6);

/// Six applications, for replicas that divide them in so many shards.
pub(crate) async fn divide(env: &mut Env, shards: u32) -> String {
    may_hold_other_leases(env).await;
    let lease = format!("{}s", LEASE.as_secs());
    let arguments = ["--shards".to_owned(), shards.to_string(), "--leader-elect-lease-duration".to_owned(), lease];
    env.arguments.extend(arguments);
    let revision = env.push("A", &of_all("a").iter().map(|(p, t)| (p.as_str(), t.as_str())).collect::<Vec<_>>());
    env.source(|_| {}).await;
    for name in APPLICATIONS {
        env.kustomization(name, |_| {}).await;
    }
    revision
}

pub(crate) fn of_all(value: &str) -> Vec<(String, String)> {
    APPLICATIONS.iter().map(|name| (format!("{name}/map.yaml"), config_map(name, value))).collect()
}

pub(crate) async fn all_ready_at(env: &Env, revision: &str) {
    for name in APPLICATIONS {
        env.ready_at(name, revision).await;
    }
}

/// How many shards each replica serves, once that adds up to all of them and is as expected.
pub(crate) async fn until_divided(env: &Env, replicas: &[&Daemon], expected: &[usize]) {
    env.eventually(&format!("the shards are divided {expected:?}"), async || {
        let mut counts = Vec::new();
        for replica in replicas {
            let text = replica.ask("/metrics").await?.1;
            counts.push(text.lines().filter(|l| l.starts_with("afresh_shard{") && l.ends_with(" 1")).count());
        }
        counts.sort_by(|a, b| b.cmp(a));
        (counts == expected).then_some(())
    })
    .await;
}

/// Who serves each application, by what the replicas measure.
async fn servers(replicas: &[&Daemon]) -> Vec<Vec<usize>> {
    let mut texts = Vec::new();
    for replica in replicas {
        texts.push(replica.ask("/metrics").await.unwrap().1);
    }
    let serves = |text: &String, name: &str| {
        let name = format!("name=\"{name}\"");
        text.lines().any(|l| l.starts_with("afresh_ready{") && l.contains("\"Kustomization\"") && l.contains(&name))
    };
    let of = |name: &&str| (0..texts.len()).filter(|at| serves(&texts[*at], name)).collect();
    APPLICATIONS.iter().map(of).collect()
}

async fn replicas_divide_the_applications_and_each_that_joins_takes_its_part(env: &mut Env) {
    let a = divide(env, 4).await;
    let first = env.start_replica("first", env.kubeconfig());
    all_ready_at(env, &a).await;
    until_divided(env, &[&first], &[4]).await;

    let second = env.start_replica("second", env.kubeconfig());
    until_divided(env, &[&first, &second], &[2, 2]).await;
    let b = env.push("B", &of_all("b").iter().map(|(p, t)| (p.as_str(), t.as_str())).collect::<Vec<_>>());
    env.announce().await;
    all_ready_at(env, &b).await;
    let servers = servers(&[&first, &second]).await;
    assert!(servers.iter().all(|by| by.len() == 1), "each is served by one: {servers:?}");

    let third = env.start_replica("third", env.kubeconfig());
    until_divided(env, &[&first, &second, &third], &[2, 1, 1]).await;
    let c = env.push("C", &of_all("c").iter().map(|(p, t)| (p.as_str(), t.as_str())).collect::<Vec<_>>());
    env.announce().await;
    all_ready_at(env, &c).await;

    // who goes in good order is replaced at once
    third.stop().await.unwrap();
    until_divided(env, &[&first, &second], &[2, 2]).await;
    let lease = env.live("Lease", "afresh").await.unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "afresh-of-4-shards", "the replicas hold it in common");
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

async fn a_replica_killed_during_an_apply_loses_its_shards_to_the_others_and_nothing_is_done_twice(env: &mut Env) {
    env.runner = Runner::Process;
    let a = divide(env, 2).await;
    let first = env.start_replica("first", env.kubeconfig());
    let second = env.start_replica("second", env.kubeconfig());
    until_divided(env, &[&first, &second], &[1, 1]).await;
    all_ready_at(env, &a).await;
    let many = APPLICATIONS.iter().flat_map(|app| (0..25).map(move |n| (app, n)));
    let many: Vec<_> =
        many.map(|(app, n)| (format!("{app}/{n}.yaml"), config_map(&format!("{app}-{n}"), "b"))).collect();
    let b = env.push("B", &many.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect::<Vec<_>>());
    env.announce().await;
    env.eventually("the apply has begun", async || (!versions(env).await.is_empty()).then_some(())).await;
    first.kill().await.unwrap();
    let killed = std::time::Instant::now();
    let done = versions(env).await;
    until_divided(env, &[&second], &[2]).await;
    let silent = killed.elapsed();
    assert!(silent < LEASE + SLACK, "taken over after {silent:?}, the Lease lasts {LEASE:?}");
    all_ready_at(env, &b).await;
    let after = versions(env).await;
    assert_eq!(after.len(), many.len());
    for (name, version) in &done {
        assert_eq!(after.get(name), Some(version), "{name} was applied before and needs nothing more");
    }
    second.stop().await.unwrap();
}

/// The version of each object of the second commit.
async fn versions(env: &Env) -> BTreeMap<String, String> {
    let list = env.objects("ConfigMap").list(&ListParams::default()).await.unwrap();
    let many = list.items.into_iter().filter(|one| one.name_any().contains('-'));
    let many = many.filter(|one| APPLICATIONS.iter().any(|app| one.name_any().starts_with(app)));
    many.map(|one| (one.name_any(), one.resource_version().unwrap_or_default())).collect()
}

#[test]
fn a_number_of_shards_that_is_none_is_refused_at_the_start_with_the_name_of_its_flag() {
    for more in [vec!["--shards", "1"], vec!["--shards", "17"], vec!["--shards", "2", "--no-leader-election"]] {
        let arguments = ["--data-dir", "/nonexistent"].into_iter().chain(more).map(Into::into);
        let error = afresh::cli::run::config(arguments).unwrap_err().to_string();
        assert!(error.contains("--shards"), "{error}");
    }
}

#[test]
fn a_selector_that_is_none_is_refused_at_the_start_with_the_name_of_its_flag() {
    for text in ["sharding.fluxcd.io/key in shard1", "a=b=c", "n>4", "a,,b"] {
        let arguments = ["--data-dir", "/nonexistent", "--watch-label-selector", text].map(Into::into);
        let error = afresh::cli::run::config(arguments).unwrap_err().to_string();
        assert!(error.contains("--watch-label-selector") && error.contains(text), "{error}");
    }
}
