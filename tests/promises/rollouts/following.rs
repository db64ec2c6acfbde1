//! What is followed, for whom, and who may change it.

use std::collections::BTreeSet;

use afresh::api::Truth;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::{
    HASH, RECORD, annotate, begin, container, follow, in_trouble, reader, replica_sets, rolled_out, secret, settled,
    workload,
};
use crate::support::env::{Cluster, Env, message, truth};
use crate::support::installation;
use crate::support::manifests::job;
use crate::support::rollouts::Rollouts;
use crate::support::scenarios;

scenarios! {
    a_push_that_changes_only_a_secret_rolls_exactly_the_workloads_that_read_it,
    every_kind_of_reference_is_followed_as_far_as_it_reads,
    opting_in_and_out_rolls_nothing,
    a_restart_that_a_person_asked_for_survives,
    what_is_taken_over_is_rolled_by_its_next_change_alone,
    a_key_that_others_keep_in_a_declared_secret_counts,
    no_value_is_told_to_anyone,
    what_no_container_reads_and_what_is_no_configuration_rolls_nothing,
    what_a_person_changes_of_a_declared_secret_is_put_back_and_rolls_nothing,
    another_word_than_those_that_are_served_is_refused,
    a_person_is_told_which_workload_follows_what_and_why_it_was_rolled,
}

mod alone {
    use super::a_namespace_asks_for_all_of_its_workloads;
    use crate::support::scenarios;

    scenarios! {
        on clusters of their own:
        a_namespace_asks_for_all_of_its_workloads,
    }
}

/// Name, kind, and the Pod that reads the Secret `s-NAME` or the ConfigMap `c-NAME` in one of all ways. `by_key`: it reads
/// the key `value` alone.
fn readers() -> Vec<(&'static str, &'static str, Value, Value, bool)> {
    let volume = |source: Value| {
        let mut volume = json!({ "name": "v" });
        volume.as_object_mut().unwrap().extend(source.as_object().cloned().unwrap());
        json!({ "volumes": [volume] })
    };
    let init = |fields: Value| {
        let mut pod = container(json!({}));
        let mut first = container(fields)["containers"][0].clone();
        first["name"] = "first".into();
        pod["initContainers"] = json!([first]);
        pod
    };
    let items = json!([{ "key": "value", "path": "value" }]);
    let env_from = |name: &str| json!({ "envFrom": [{ "secretRef": { "name": name } }] });
    let none = json!({});
    vec![
        (
            "env",
            "Deployment",
            follow(),
            container(
                json!({ "env": [{ "name": "X", "valueFrom": { "secretKeyRef": { "name": "s-env", "key": "value" } } }] }),
            ),
            true,
        ),
        (
            "env-map",
            "Deployment",
            follow(),
            container(
                json!({ "env": [{ "name": "X", "valueFrom": { "configMapKeyRef": { "name": "c-env-map", "key": "value" } } }] }),
            ),
            true,
        ),
        ("env-from", "Deployment", follow(), container(env_from("s-env-from")), false),
        (
            "env-from-map",
            "Deployment",
            follow(),
            container(json!({ "envFrom": [{ "configMapRef": { "name": "c-env-from-map" } }] })),
            false,
        ),
        ("volume", "Deployment", follow(), volume(json!({ "secret": { "secretName": "s-volume" } })), false),
        ("volume-map", "Deployment", follow(), volume(json!({ "configMap": { "name": "c-volume-map" } })), false),
        (
            "secret-items",
            "Deployment",
            follow(),
            volume(json!({ "secret": { "secretName": "s-secret-items", "items": items } })),
            true,
        ),
        (
            "projected-map",
            "Deployment",
            follow(),
            volume(json!({ "projected": { "sources": [{ "configMap": { "name": "c-projected-map" } }] } })),
            false,
        ),
        (
            "optional",
            "Deployment",
            follow(),
            container(json!({ "envFrom": [{ "secretRef": { "name": "s-optional", "optional": true } }] })),
            false,
        ),
        (
            "secret-auto",
            "Deployment",
            json!({ "secret.reloader.stakater.com/auto": "true" }),
            container(env_from("s-secret-auto")),
            false,
        ),
        ("items", "Deployment", follow(), volume(json!({ "configMap": { "name": "c-items", "items": items } })), true),
        (
            "projected",
            "Deployment",
            follow(),
            volume(json!({ "projected": { "sources": [{ "secret": { "name": "s-projected", "items": items } }] } })),
            true,
        ),
        ("init", "Deployment", follow(), init(env_from("s-init")), false),
        (
            "sidecar",
            "Deployment",
            follow(),
            init(json!({ "restartPolicy": "Always", "envFrom": [{ "secretRef": { "name": "s-sidecar" } }] })),
            false,
        ),
        ("stateful", "StatefulSet", follow(), container(env_from("s-stateful")), false),
        ("daemon", "DaemonSet", follow(), container(env_from("s-daemon")), false),
        ("cron", "CronJob", follow(), container(env_from("s-cron")), false),
        ("auto", "Deployment", json!({ "reloader.stakater.com/auto": "true" }), container(env_from("s-auto")), false),
        ("named", "Deployment", json!({ "secret.reloader.stakater.com/reload": "x, s-named" }), none.clone(), false),
        ("named-map", "Deployment", json!({ "configmap.reloader.stakater.com/reload": "c-named-map" }), none, false),
    ]
}

async fn a_push_that_changes_only_a_secret_rolls_exactly_the_workloads_that_read_it(env: &mut Env) {
    let key =
        json!({ "env": [{ "name": "X", "valueFrom": { "secretKeyRef": { "name": "credentials", "key": "user" } } }] });
    let web = workload("Deployment", "web", &json!({}), &container(key));
    let other = workload("Deployment", "other", &json!({}), &json!({}));
    let rollouts = Rollouts::count(env).await;
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    annotate(env, follow()).await;
    let data = |user: &str, more: &str| secret("credentials", json!({ "user": user, "more": more }));
    let revision =
        env.push("B", &[("app/web.yaml", &web), ("app/other.yaml", &other), ("app/secret.yaml", &data("a", "x"))]);
    env.start();
    env.ready_at("app", &revision).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);

    let revision = env.push("C", &[("app/secret.yaml", &data("b", "x"))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1, "in the same apply");
    env.eventually("there are two ReplicaSets", async || (replica_sets(env, "web").await == 2).then_some(())).await;
    assert_eq!(rollouts.of(env, "Deployment", "other").await, 0);
    let told = |(reason, text): &(String, String)| {
        reason == "ConfigurationChanged" && text.contains("Deployment") && text.contains("secret/credentials: user")
    };
    env.eventually("it is told why", async || env.events("app").await.iter().any(told).then_some(())).await;

    let revision = env.push("D", &[("app/secret.yaml", &data("b", "y"))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1, "it does not read that key");
    let hash = env.live("Deployment", "web").await.unwrap().pointer(HASH).cloned();
    let revision = env.push("E", &[("app/secret.yaml", &data("c", "y"))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    let revision = env.push("F", &[("app/secret.yaml", &data("b", "z"))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    assert_eq!(env.live("Deployment", "web").await.unwrap().pointer(HASH).cloned(), hash, "taken back");
    env.eventually("the ReplicaSet is used again", async || (replica_sets(env, "web").await == 3).then_some(())).await;
    let corrected = env.events("app").await.into_iter().find(|(reason, _)| reason == "DriftCorrected");
    assert_eq!(corrected, None, "a rollout is no drift");
}

async fn every_kind_of_reference_is_followed_as_far_as_it_reads(env: &mut Env) {
    let write = async |env: &Env, name: &str, data: Value| {
        let (kind, field) = if name.starts_with('s') { ("Secret", "stringData") } else { ("ConfigMap", "data") };
        let mut object = Map::from_iter([("apiVersion".to_owned(), json!("v1")), ("kind".to_owned(), json!(kind))]);
        object.insert("metadata".into(), json!({ "name": name }));
        object.insert(field.into(), data);
        let params = PatchParams::apply("another").force();
        env.objects(kind).patch(name, &params, &Patch::Apply(Value::Object(object))).await.unwrap();
    };
    let readers = readers();
    let read_by =
        |name: &str| if name.ends_with("map") || name == "items" { format!("c-{name}") } else { format!("s-{name}") };
    let mut files = Vec::new();
    for (name, kind, annotations, pod, _) in &readers {
        write(env, &read_by(name), json!({ "value": "a", "more": "a" })).await;
        files.push((format!("app/{name}.yaml"), workload(kind, name, annotations, pod)));
    }
    let deaf = workload(
        "Deployment",
        "deaf",
        &json!({}),
        &container(json!({ "envFrom": [{ "secretRef": { "name": "s-env" } }] })),
    );
    files.push(("app/deaf.yaml".into(), deaf));
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let rollouts = begin(env, &files).await;
    for (name, ..) in &readers {
        write(env, &read_by(name), json!({ "value": "b", "more": "a" })).await;
    }
    for (name, kind, ..) in &readers {
        rollouts.until(env, kind, name, 1).await;
    }
    for (name, ..) in &readers {
        write(env, &read_by(name), json!({ "value": "b", "more": "b" })).await;
    }
    for (name, kind, _, _, by_key) in &readers {
        if !by_key {
            rollouts.until(env, kind, name, 2).await;
        }
    }
    settled(env, &rollouts).await;
    for (name, kind, _, _, by_key) in &readers {
        assert_eq!(rollouts.of(env, kind, name).await, if *by_key { 1 } else { 2 }, "{name}");
    }
    assert_eq!(rollouts.of(env, "Deployment", "deaf").await, 0, "nobody asked for it");
    assert!(env.objects("Job").list(&ListParams::default()).await.unwrap().items.is_empty(), "no run was fired");
}

async fn opting_in_and_out_rolls_nothing(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let web =
        workload("Deployment", "web", &json!({}), &container(json!({ "envFrom": [{ "secretRef": { "name": "a" } }] })));
    let rollouts = begin(env, &[("app/web.yaml", &web)]).await;
    annotate(env, follow()).await;
    env.until_live("Deployment", "web", "it is followed", |found| found.pointer(RECORD).is_some()).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);
    env.secret("a", json!({ "value": "1" })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    annotate(env, json!({ "afresh.dev/rollout": null })).await;
    env.until_live("Deployment", "web", "it is not followed", |found| found.pointer(RECORD).is_none()).await;
    env.secret("a", json!({ "value": "2" })).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1);
    let web = env.live("Deployment", "web").await.unwrap();
    assert!(web.pointer(HASH).is_some(), "taking it out would roll it");
}

async fn a_restart_that_a_person_asked_for_survives(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    let asked = json!({ "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z" });
    let by = PatchParams { field_manager: Some("kubectl-rollout".into()), ..PatchParams::default() };
    let patch = json!({ "spec": { "template": { "metadata": { "annotations": asked } } } });
    env.objects("Deployment").patch("web", &by, &Patch::Merge(patch)).await.unwrap();
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 1);
    env.secret("a", json!({ "value": "1" })).await;
    rollouts.until(env, "Deployment", "web", 2).await;
    let web = env.live("Deployment", "web").await.unwrap();
    let annotations = &web["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["kubectl.kubernetes.io/restartedAt"], "2026-01-01T00:00:00Z");
    assert!(annotations["afresh.dev/config-hash"].is_string());
}

async fn what_is_taken_over_is_rolled_by_its_next_change_alone(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    // as Flux's controller has left it
    let mut web: Value = serde_json::from_str(&reader("web", "a")).unwrap();
    let labels = ["name", "namespace"].map(|label| format!("kustomize.toolkit.fluxcd.io/{label}"));
    web["metadata"]["labels"] = json!({ &labels[0]: "app", &labels[1]: env.namespace });
    web["metadata"]["annotations"] = json!({});
    let flux = PatchParams::apply("kustomize-controller").force();
    env.objects("Deployment").patch("web", &flux, &Patch::Apply(web)).await.unwrap();
    rolled_out(env, "web").await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    env.until_live("Deployment", "web", "it is followed", |found| found.pointer(RECORD).is_some()).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);
    env.secret("a", json!({ "value": "1" })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
}

async fn a_key_that_others_keep_in_a_declared_secret_counts(env: &mut Env) {
    let rollouts =
        begin(env, &[("app/web.yaml", &reader("web", "a")), ("app/a.yaml", &secret("a", json!({ "ours": "0" })))])
            .await;
    let write = async |value: &str| {
        let by = PatchParams { field_manager: Some("operator".into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "stringData": { "theirs": value } }));
        env.objects("Secret").patch("a", &by, &patch).await.unwrap();
    };
    write("0").await;
    rollouts.until(env, "Deployment", "web", 1).await;
    write("1").await;
    rollouts.until(env, "Deployment", "web", 2).await;
    let revision = env.push("B", &[("app/a.yaml", &secret("a", json!({ "ours": "1" })))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 3);
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 3);
}

async fn no_value_is_told_to_anyone(env: &mut Env) {
    let canaries = ["canary-zero-7d1f", "canary-one-93ab", "canary-two-55ce"];
    env.secret("a", json!({ "value": canaries[0] })).await;
    let declared = |value: &str| secret("declared", json!({ "value": value }));
    let pod =
        container(json!({ "envFrom": [{ "secretRef": { "name": "a" } }, { "secretRef": { "name": "declared" } }] }));
    let web = workload("Deployment", "web", &follow(), &pod);
    let rollouts = begin(env, &[("app/web.yaml", &web), ("app/declared.yaml", &declared(canaries[0]))]).await;
    env.secret("a", json!({ "value": canaries[1] })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    let revision = env.push("B", &[("app/declared.yaml", &declared(canaries[2]))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    let daemon = env.daemon.as_ref().unwrap();
    let mut told = daemon.log().join("\n");
    told += &daemon.ask("/metrics").await.unwrap().1;
    told += &format!("{:?}", env.events("app").await);
    told += &json!(env.kustomizations().get("app").await.unwrap()).to_string();
    told += &env.live("Deployment", "web").await.unwrap().to_string();
    for canary in canaries {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(canary);
        assert!(!told.contains(canary) && !told.contains(&encoded), "{canary} was told");
    }
}

async fn a_namespace_asks_for_all_of_its_workloads(env: &mut Env) {
    env.secret("a", json!({ "value": "0" })).await;
    let pod = container(json!({ "envFrom": [{ "secretRef": { "name": "a" } }] }));
    let (web, never) = (json!({}), json!({ "afresh.dev/rollout": "never" }));
    let (web, never) = (workload("Deployment", "web", &web, &pod), workload("Deployment", "never", &never, &pod));
    let rollouts = begin(env, &[("app/web.yaml", &web), ("app/never.yaml", &never)]).await;
    env.daemon.take().unwrap().stop().await.unwrap();
    if let Cluster::Real(_) = env.cluster {
        env.arguments.push(format!("--runtime-namespace={}", installation::NAMESPACE));
    }
    let namespace = std::mem::take(&mut env.namespace);
    env.start();
    env.namespace = namespace;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(env.client.clone());
    let patch = Patch::Merge(json!({ "metadata": { "annotations": follow() } }));
    namespaces.patch(&env.namespace, &PatchParams::default(), &patch).await.unwrap();
    env.until_live("Deployment", "web", "it is followed", |found| found.pointer(RECORD).is_some()).await;
    env.secret("a", json!({ "value": "1" })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "never").await, 0);
}

async fn what_no_container_reads_and_what_is_no_configuration_rolls_nothing(env: &mut Env) {
    let names = ["registry", "sh.helm.release.v1.web.v1", "release", "ignored", "never"];
    let write = async |env: &Env, value: &str| {
        for name in names {
            let (kind, annotations) = match name {
                "release" => ("helm.sh/release.v1", json!({})),
                "ignored" => ("Opaque", json!({ "reloader.stakater.com/ignore": "true" })),
                "never" => ("Opaque", json!({ "afresh.dev/rollout": "never" })),
                _ => ("Opaque", json!({})),
            };
            let object = json!({
                "apiVersion": "v1", "kind": "Secret", "type": kind,
                "metadata": { "name": name, "annotations": annotations }, "stringData": { "value": value },
            });
            let params = PatchParams::apply("another").force();
            env.objects("Secret").patch(name, &params, &Patch::Apply(object)).await.unwrap();
        }
        let authority = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kube-root-ca.crt" }, "data": { "more": value },
        });
        let params = PatchParams::apply("another").force();
        env.objects("ConfigMap").patch("kube-root-ca.crt", &params, &Patch::Apply(authority)).await.unwrap();
    };
    write(env, "a").await;
    env.secret("read", json!({ "value": "a" })).await;
    let sources = names[1..].iter().map(|name| json!({ "secretRef": { "name": name } }));
    let mut pod = container(json!({ "envFrom": sources.collect::<Vec<_>>() }));
    pod["imagePullSecrets"] = json!([{ "name": "registry" }]);
    pod["volumes"] = json!([{ "name": "token", "projected": { "sources": [
        { "serviceAccountToken": { "path": "token" } },
        { "configMap": { "name": "kube-root-ca.crt" } },
    ] } }]);
    let mut run: Value = serde_json::from_str(&job("migrate", "web:1", 600)).unwrap();
    run["metadata"]["annotations"] = follow();
    run["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{ "secretRef": { "name": "read" } }]);
    let web = workload("Deployment", "web", &follow(), &pod);
    let rollouts = begin(env, &[("app/web.yaml", &web), ("app/migrate.yaml", &run.to_string())]).await;
    let before = env.live("Job", "migrate").await.unwrap();

    write(env, "b").await;
    env.secret("read", json!({ "value": "b" })).await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);
    let after = env.live("Job", "migrate").await.unwrap();
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"], "Jobs are never touched");
    assert_eq!(before["spec"], after["spec"]);
}

async fn what_a_person_changes_of_a_declared_secret_is_put_back_and_rolls_nothing(env: &mut Env) {
    let rollouts =
        begin(env, &[("app/web.yaml", &reader("web", "a")), ("app/a.yaml", &secret("a", json!({ "ours": "0" })))])
            .await;
    let by = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({ "stringData": { "ours": "1" } }));
    env.objects("Secret").patch("a", &by, &patch).await.unwrap();
    // MA==: `0`
    env.until_live("Secret", "a", "it is put back", |found| found["data"]["ours"] == "MA==").await;
    settled(env, &rollouts).await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);
}

async fn another_word_than_those_that_are_served_is_refused(env: &mut Env) {
    let word = |text: &str| json!({ "afresh.dev/rollout": text });
    env.secret("a", json!({ "value": "0" })).await;
    let rollouts = begin(env, &[("app/web.yaml", &reader("web", "a"))]).await;
    annotate(env, word("always")).await;
    env.until("app", "it is refused", |found| message(found).contains("`afresh.dev/rollout: always` is not served"))
        .await;
    annotate(env, word("never")).await;
    env.until("app", "it is served again", |found| truth(found) == Some(Truth::True)).await;
    let pod = container(json!({ "envFrom": [{ "secretRef": { "name": "a" } }] }));
    let push = env.push("B", &[("app/web.yaml", &workload("Deployment", "web", &word("sometimes"), &pod))]);
    env.announce().await;
    env.failed_at("app", &push, "asks for `afresh.dev/rollout: sometimes`, which is not served").await;
    assert_eq!(rollouts.of(env, "Deployment", "web").await, 0);
}

async fn a_person_is_told_which_workload_follows_what_and_why_it_was_rolled(env: &mut Env) {
    let canary = "canary-of-rollouts-51c7";
    env.secret("a", json!({ "value": "0" })).await;
    env.secret("b", json!({ "user": "0", "more": canary })).await;
    let pod = container(json!({
        "envFrom": [{ "secretRef": { "name": "a" } }],
        "env": [{ "name": "X", "valueFrom": { "secretKeyRef": { "name": "b", "key": "user" } } }],
    }));
    let deaf = workload("Deployment", "deaf", &json!({}), &pod);
    let web = workload("Deployment", "web", &follow(), &pod);
    let rollouts = begin(env, &[("app/web.yaml", &web), ("app/deaf.yaml", &deaf)]).await;
    env.secret("b", json!({ "user": canary })).await;
    rollouts.until(env, "Deployment", "web", 1).await;
    env.objects("Secret").delete("a", &DeleteParams::default()).await.unwrap();
    in_trouble(env, "MissingReference", "secret/a").await;

    let look = async |output: &str| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_afresh"));
        command.args(["get", "rollouts", "-o", output, "-n", &env.namespace]).arg("--kubeconfig").arg(env.kubeconfig());
        command.env_clear().env("HOME", env.folder()).env("TMPDIR", env.folder());
        let said = command.output().await.expect("afresh runs");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).expect("text")
    };
    let json = env.eventually("what is missing is recorded", async || {
        let told = look("json").await;
        told.contains("missing").then_some(told)
    });
    let json = json.await;
    let told: Vec<Value> = serde_json::from_str(&json).unwrap();
    let names: BTreeSet<_> = told.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(["marker", "web"]), "{json}");
    let web = told.iter().find(|one| one["name"] == "web").unwrap();
    assert_eq!(web["follows"], json!(["secret/a", "secret/b: user"]));
    assert_eq!(web["cause"], json!(["secret/b: user"]));
    assert_eq!(web["missing"], json!(["secret/a"]));
    assert!(web["lastRollout"].as_str().is_some_and(|at| at.starts_with("20")), "{web}");
    let table = look("table").await;
    for word in ["deployment/web", "secret/b: user", "missing: secret/a"] {
        assert!(table.contains(word), "{table}");
    }
    assert!(!table.contains(canary) && !json.contains(canary));
}
