//! Knowing without asking: what our entry's hash tells, and what the store makes of it.

use afresh::api::{APPLY_MANAGER, DESIRED, OWNER_NAME_LABEL};
use afresh::apply::{Action, Stop};
use afresh::cluster::{Holding, Observed, ObservedOptions, WatchError, WriteGate};
use serde_json::{Value, json};

use crate::{Bench, eventually, work};

fn deployment() -> Value {
    json!({"spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
            {"name": "web", "image": "i", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}]},
        ]}},
    }})
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_a_field_of_ours_changes_the_hash_of_our_entry_and_nobody_else_does() {
    let Some(bench) = Bench::new("entry-hash").await else { return };
    let object = bench.declared("apps/v1", "Deployment", "web", "d", deployment());
    let first = bench.apply_as(APPLY_MANAGER, &object.value).await.unwrap();
    let hash = first.seen.entry.expect("our entry");
    // a controller writes to its status meanwhile, but not for ever
    eventually("applying the same is no write", async || {
        let before = bench.apply_as(APPLY_MANAGER, &object.value).await.unwrap();
        bench.apply_as(APPLY_MANAGER, &object.value).await.unwrap().seen == before.seen
    })
    .await;

    let container = |more: Value| {
        let mut container = json!({"name": "web", "image": "i"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    };
    let cases = [
        ("kubectl-edit", json!({"spec": {"replicas": 3}}), true),
        (APPLY_MANAGER, json!({"spec": {"replicas": 3}}), true),
        ("kubectl-edit", json!({"spec": {"replicas": null}}), true),
        (
            "kubectl-edit",
            container(
                json!({"image": "other", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}]}),
            ),
            true,
        ),
        ("kubectl-edit", container(json!({"env": []})), true),
        ("kubectl-edit", json!({"metadata": {"annotations": {DESIRED: "x"}}}), true),
        ("kubectl-edit", json!({"metadata": {"labels": {OWNER_NAME_LABEL: null}}}), true),
        ("kubectl-edit", json!({"spec": {"replicas": 2}}), false),
        ("kubectl-edit", json!({"metadata": {"annotations": {"foreign": "x"}}}), false),
        ("kubectl-edit", json!({"spec": {"paused": true}}), false),
    ];
    for (manager, patch, changes) in cases {
        bench.patch_as(manager, &object.id, patch.clone()).await;
        let kind = bench.cluster.resolve("apps", "Deployment", None).await.unwrap();
        let seen = bench.cluster.get_seen(&kind, &object.id).await.unwrap().unwrap();
        assert_eq!(seen.entry != Some(hash), changes, "{manager} {patch}");
        let restored = bench.apply_as(APPLY_MANAGER, &object.value).await.unwrap();
        assert_eq!(restored.seen.entry, Some(hash), "applying again restores it after {patch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_knows_how_each_object_stands_also_after_a_restart() {
    let Some(bench) = Bench::new("holding").await else { return };
    bench.watch(&[("", "ConfigMap"), ("", "Secret"), ("apps", "Deployment")]).await;
    let mut bell = bench.observed.subscribe(&bench.owner);
    let config = bench.config_map("config", "c1", json!({"a": "b"}));
    let secret = bench.declared("v1", "Secret", "secret", "s1", json!({"data": {"a": "Yg=="}}));
    let web = bench.declared("apps/v1", "Deployment", "web", "w1", deployment());
    let all = [config.clone(), secret.clone(), web.clone()];
    let holding = |observed: &Observed| {
        [(&config, "c1"), (&secret, "s1"), (&web, "w1")]
            .map(|(o, digest)| observed.holding(&o.id, digest, || o.value.clone()))
    };

    assert_eq!(holding(&bench.observed), [Holding::Absent; 3]);
    bench.applier.apply(&work(all.clone()), &Stop::default(), |_| {}).await.unwrap();
    assert_eq!(holding(&bench.observed), [Holding::Held; 3], "the answers are believed before any event comes");
    assert!(bell.has_changed().unwrap());
    assert_eq!(bench.observed.owned(&bench.owner).len(), 3);
    assert!(bench.observed.get(&secret.id).unwrap().health.is_none(), "no content of a Secret comes in");
    assert!(bench.observed.get(&web.id).unwrap().health.is_some());

    // a second process finds everything as it was left
    let restarted = Observed::new(bench.cluster.clone(), WriteGate::default(), ObservedOptions::default());
    let mut kinds = Vec::new();
    for (group, kind) in [("", "ConfigMap"), ("", "Secret"), ("apps", "Deployment")] {
        kinds.push(bench.cluster.resolve(group, kind, None).await.unwrap());
    }
    restarted.ensure_watched(&bench.owner, &kinds).await.unwrap();
    assert_eq!(holding(&restarted), [Holding::Held; 3], "the fields that are ours show it");

    let again = bench.applier.apply(&work(all), &Stop::default(), |_| {}).await.unwrap();
    assert!(again.objects.iter().all(|o| o.action == Action::Unchanged), "{again:?}");

    bell.mark_unchanged();
    bench.patch_as("kubectl-edit", &config.id, json!({"data": {"a": "changed"}})).await;
    bell.changed().await.unwrap();
    eventually("drift is seen by both", async || {
        [&bench.observed, &restarted]
            .iter()
            .all(|o| o.holding(&config.id, "c1", || config.value.clone()) == Holding::Drifted)
    })
    .await;
    assert_eq!(bench.observed.holding(&config.id, "c2", || config.value.clone()), Holding::Outdated);

    bench.patch_as("kubectl-edit", &secret.id, json!({"metadata": {"labels": {OWNER_NAME_LABEL: null}}})).await;
    eventually("an object without our label is none of ours", async || {
        bench.observed.holding(&secret.id, "s1", || secret.value.clone()) == Holding::Absent
    })
    .await;
    let later = Observed::new(bench.cluster.clone(), WriteGate::default(), ObservedOptions::default());
    later.ensure_watched(&bench.owner, &kinds).await.unwrap();
    assert_eq!(later.holding(&config.id, "c1", || config.value.clone()), Holding::Undecided, "only an apply can tell");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_forbidden_says_so_at_once() {
    let Some(bench) = Bench::new("forbidden-watch").await else { return };
    let nobody = bench.cluster.as_service_account(&bench.namespace, "nobody").unwrap();
    let observed = Observed::new(nobody, WriteGate::default(), ObservedOptions::default());
    let kind = bench.cluster.resolve("apps", "StatefulSet", None).await.unwrap();
    let error = observed.ensure_watched(&bench.owner, &[kind]).await.unwrap_err();
    assert!(matches!(&error, WatchError::Forbidden { resource, .. } if resource == "statefulsets.apps"), "{error}");
}
