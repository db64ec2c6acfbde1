//! What is missing, can't be read, was made anew under its name, or goes round in circles: nothing is rolled into it.

use std::time::Duration;

use afresh::sandbox::{Effect, Match, RuleId, Verb};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::rights;
use super::{HASH, begin, container, follow, in_trouble, out_of_trouble, reader, secret, settled, trouble, workload};
use crate::rights::narrow_applier;
use crate::support::env::{Cluster, Env};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    a_loop_is_stopped_after_five_rollouts,
    a_missing_secret_rolls_nothing_until_it_is_back,
    a_changed_template_waits_for_a_secret_that_is_missing,
    a_key_that_does_not_exist_is_waited_for,
    an_immutable_secret_is_not_made_anew_under_its_name_even_by_force,
    an_immutable_secret_that_others_made_anew_rolls_only_if_a_person_asks,
}

mod alone {
    use super::what_can_not_be_read_counts_as_it_was_and_is_said;
    use crate::support::scenarios;

    scenarios! {
        on clusters of their own:
        what_can_not_be_read_counts_as_it_was_and_is_said,
    }
}

async fn a_loop_is_stopped_after_five_rollouts(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    // an operator that writes back whenever what it looks after is rolled
    let operator = {
        let (deployments, secrets) = (env.objects("Deployment"), env.objects("Secret"));
        tokio::spawn(async move {
            let hash = async || json!(deployments.get("web").await.unwrap()).pointer(HASH).cloned();
            let mut last = hash().await;
            for times in 0.. {
                let found = hash().await;
                if found != last {
                    last = found;
                    let data = json!({ "stringData": { "value": times.to_string() } });
                    secrets.patch("a", &PatchParams::default(), &Patch::Merge(data)).await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    env.secret("a", json!({ "value": "go" })).await;
    in_trouble(env, "RolloutLoop", "Deployment").await;
    operator.abort();
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 5);
    let told = |(reason, _): &(String, String)| reason == "RolloutLoop";
    env.eventually("it is told", async || env.events("app").await.iter().any(told).then_some(())).await;
    assert!(env.is_counted("afresh_rollout_loops", &[("name", "app")]).await);
    // neither does a restart go on with it
    env.daemon.take().unwrap().stop().await.unwrap();
    env.start();
    let marked = rollouts.of(env, "Deployment", "marker").await;
    env.secret("marker", json!({ "value": "again" })).await;
    rollouts.until(env, "Deployment", "marker", marked + 1).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 5);
    // a person has looked
    env.reconcile("app").await;
    rollouts.until(env, "Deployment", "web", 6).await;
    out_of_trouble(env).await;
}

async fn a_missing_secret_rolls_nothing_until_it_is_back(env: &mut Env) {
    for name in ["a", "b"] {
        env.secret(name, json!({ "value": "0" })).await;
    }
    let both = container(json!({ "envFrom": [
        { "secretRef": { "name": "a" } },
        { "secretRef": { "name": "b" } },
        { "secretRef": { "name": "sometimes", "optional": true } },
    ] }));
    let rollouts = begin(env, &[("app/web.yaml", &workload("Deployment", "web", &follow(), &both))]).await;
    env.objects("Secret").delete("a", &DeleteParams::default()).await.unwrap();
    env.secret("b", json!({ "value": "1" })).await;
    in_trouble(env, "MissingReference", "secret/a of Deployment").await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);
    assert!(env.is_counted("afresh_rollout_references", &[("name", "app"), ("state", "missing")]).await);
    env.secret("a", json!({ "value": "0" })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    out_of_trouble(env).await;
    env.secret("sometimes", json!({ "value": "0" })).await;
    rollouts.until(env, "Deployment", "web", 2).await;
    env.objects("Secret").delete("sometimes", &DeleteParams::default()).await.unwrap();
    rollouts.until(env, "Deployment", "web", 3).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 3);
}

async fn a_changed_template_waits_for_a_secret_that_is_missing(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    let settings = config_map("settings", "with it");
    let revision = env.push("B", &[("app/web.yaml", &reader("web", "later")), ("app/settings.yaml", &settings)]);
    env.announce().await;
    env.until("app", "it waits", |found| {
        let ready = found.status.as_ref().and_then(|status| status.conditions.get("Ready"));
        ready.is_some_and(|ready| ready.message.contains("secret/later"))
    })
    .await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0, "it runs as it did");
    assert!(env.live("ConfigMap", "settings").await.is_some(), "all else is applied");
    env.secret("later", json!({ "value": "0" })).await;
    env.ready_at("app", &revision).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1);
    assert_eq!(trouble(env).await, None);
}

/// The daemon may not read a Secret, though it sees when it changes.
enum Forbidden {
    By(RuleId),
    /// The right to get it is missing.
    Rights {
        name: &'static str,
    },
}

async fn forbid_reading(env: &Env, name: &'static str, others: &[&str]) -> Forbidden {
    match &env.cluster {
        Cluster::Sandbox(sandbox) => {
            let reads = Match::verb(Verb::Get).on("secrets").in_namespace(&env.namespace).named(name);
            Forbidden::By(sandbox.faults().always(reads, Effect::Forbid))
        }
        Cluster::Real(_) => {
            let watched =
                json!({ "apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["list", "watch"] });
            let read =
                json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": others });
            rights::give(env, "reads-others", json!([watched, read])).await;
            rights::without_secrets(env).await;
            narrow_applier(&env.client).await;
            rights::until_may_get_secret(env, name, false).await;
            Forbidden::Rights { name }
        }
    }
}

impl Forbidden {
    async fn ends(self, env: &Env) {
        match (self, &env.cluster) {
            (Self::By(fault), Cluster::Sandbox(sandbox)) => sandbox.faults().remove(fault),
            (Self::Rights { name }, _) => {
                let read = json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] });
                rights::give(env, "reads-all", json!([read])).await;
                rights::until_may_get_secret(env, name, true).await;
            }
            (Self::By(_), Cluster::Real(_)) => unreachable!("faults are the sandbox's"),
        }
    }
}

async fn what_can_not_be_read_counts_as_it_was_and_is_said(env: &mut Env) {
    for name in ["a", "b"] {
        env.secret(name, json!({ "value": "0" })).await;
    }
    let both = container(json!({ "envFrom": [{ "secretRef": { "name": "a" } }, { "secretRef": { "name": "b" } }] }));
    let rollouts = begin(env, &[("app/web.yaml", &workload("Deployment", "web", &follow(), &both))]).await;
    let forbidden = forbid_reading(env, "a", &["b", "marker"]).await;
    env.secret("a", json!({ "value": "1" })).await;
    in_trouble(env, "UnreadableReference", "secret/a of Deployment").await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);
    env.secret("b", json!({ "value": "1" })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    forbidden.ends(env).await;
    env.secret("a", json!({ "value": "2" })).await;
    rollouts.until(env, "Deployment", "web", 2).await;
    out_of_trouble(env).await;
}

async fn a_key_that_does_not_exist_is_waited_for(env: &mut Env) {
    env.secret("a", json!({ "user": "0" })).await;
    let keys = |optional: bool| {
        let of = |key: &str, optional: bool| json!({ "name": key, "valueFrom": { "secretKeyRef": { "name": "a", "key": key, "optional": optional } } });
        container(json!({ "env": [of("user", false), of("password", optional)] }))
    };
    let (strict, lenient) = (keys(false), keys(true));
    let strict = workload("Deployment", "strict", &follow(), &strict);
    let lenient = workload("Deployment", "lenient", &follow(), &lenient);
    let rollouts = begin(env, &[("app/strict.yaml", &strict), ("app/lenient.yaml", &lenient)]).await;
    in_trouble(env, "MissingReference", "secret/a: password of Deployment").await;
    env.secret("a", json!({ "user": "1" })).await;
    rollouts.until(env, "Deployment", "lenient", 1).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "strict").await, 0, "its Pods would not start");
    env.secret("a", json!({ "user": "1", "password": "1" })).await;
    rollouts.until(env, "Deployment", "lenient", 2).await;
    out_of_trouble(env).await;
    settled(env, &rollouts).await;
    assert_eq!(
        rollouts.of(env, "Deployment", "strict").await,
        0,
        "its Pods wait for the key, and start with what is there"
    );
}

/// A Secret that can't be changed.
fn sealed(name: &str, value: &str) -> Value {
    let mut object: Value = serde_json::from_str(&secret(name, json!({ "value": value }))).unwrap();
    object["immutable"] = true.into();
    object
}

async fn an_immutable_secret_is_not_made_anew_under_its_name_even_by_force(env: &mut Env) {
    let rollouts =
        begin(env, &[("app/web.yaml", &reader("web", "a")), ("app/a.yaml", &sealed("a", "0").to_string())]).await;
    let before = env.live("Secret", "a").await.unwrap();
    let refused = "declare the new content under a new name";
    let b = env.push("B", &[("app/a.yaml", &sealed("a", "1").to_string())]);
    env.announce().await;
    env.failed_at("app", &b, refused).await;
    let mut forced = sealed("a", "2");
    forced["metadata"]["annotations"] = json!({ "kustomize.toolkit.fluxcd.io/force": "enabled" });
    let c = env.push("C", &[("app/a.yaml", &forced.to_string())]);
    env.announce().await;
    env.failed_at("app", &c, refused).await;
    assert_eq!(env.live("Secret", "a").await.unwrap()["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);

    let d = env.push("D", &[("app/a.yaml", &sealed("a-2", "2").to_string()), ("app/web.yaml", &reader("web", "a-2"))]);
    env.announce().await;
    env.ready_at("app", &d).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1);
}

async fn an_immutable_secret_that_others_made_anew_rolls_only_if_a_person_asks(env: &mut Env) {
    let make = async |env: &Env, value: &str| {
        let params = PatchParams::apply("another").force();
        env.objects("Secret").patch("a", &params, &Patch::Apply(sealed("a", value))).await.unwrap();
    };
    let remake = async |env: &Env, value: &str| {
        env.objects("Secret").delete("a", &DeleteParams::default()).await.unwrap();
        env.until_gone("Secret", "a").await;
        make(env, value).await;
    };
    make(env, "0").await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    remake(env, "1").await;
    in_trouble(env, "ImmutableRecreated", "give new content a new name").await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);
    remake(env, "0").await;
    out_of_trouble(env).await;
    let counted = [("name", "app"), ("state", "recreated")];
    assert_eq!(env.measured("afresh_rollout_references", &counted).await, Some(0.0));
    remake(env, "2").await;
    in_trouble(env, "ImmutableRecreated", "secret/a of Deployment").await;
    env.eventually("it is counted", async || {
        (env.measured("afresh_rollout_references", &counted).await == Some(1.0)).then_some(())
    })
    .await;
    env.reconcile("app").await;
    rollouts.until(env, "Deployment", "web", 1).await;
    out_of_trouble(env).await;
}
