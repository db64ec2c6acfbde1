//! Policies: what they deny does not reach the cluster, and never holds back what is pushed next.

use std::path::PathBuf;

use afresh::api::Truth;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::accounts;
use crate::support::env::{self, Cluster, Env};
use crate::support::installation;
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    after_a_restart_while_a_repository_is_denied_its_last_good_revision_is_kept_as_it_is,
    what_a_policy_denies_is_not_applied_and_the_next_push_is_tried_at_once,
    what_is_denied_of_a_repository_is_offered_to_nobody_and_the_last_good_revision_stays,
    a_broken_edit_of_the_policies_keeps_the_last_good_ones_and_a_mended_one_is_in_force_at_once,
    a_policy_sees_the_object_as_it_is_in_the_cluster,
    a_policy_sees_the_namespace_as_it_is_in_the_cluster,
    a_policy_sees_as_whom_an_object_is_applied,
    warnings_and_notes_are_events_and_hold_back_nothing,
    a_secret_whose_values_git_does_not_hold_is_no_plaintext,
}

/// A policy for ConfigMaps, and its binding.
fn for_config_maps(name: &str, actions: &[&str], validation: Value) -> String {
    policy(name, actions, json!({ "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] }), validation)
}

fn for_repositories(name: &str, actions: &[&str], validation: Value) -> String {
    let rule = json!({ "apiGroups": ["afresh.dev"], "apiVersions": ["*"], "resources": ["snapshots"] });
    policy(name, actions, rule, validation)
}

fn policy(name: &str, actions: &[&str], mut rule: Value, validation: Value) -> String {
    rule["operations"] = json!(["CREATE", "UPDATE"]);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": name },
        "spec": { "matchConstraints": { "resourceRules": [rule] }, "validations": [validation] },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": name }, "spec": { "policyName": name, "validationActions": actions },
    });
    format!("{policy}\n---\n{binding}\n")
}

/// Puts policies into the folder that the daemon is told of.
fn in_force(env: &mut Env, name: &str, text: &str) -> PathBuf {
    let folder = env.folder().join("policies");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), text).unwrap();
    if !env.arguments.iter().any(|argument| argument == "--policies") {
        env.arguments.extend(["--policies".into(), folder.display().to_string()]);
    }
    folder
}

fn no_bad_values() -> String {
    let validation = json!({ "expression": "object.data.value != 'bad'", "message": "the value is bad" });
    for_config_maps("no-bad-values", &["Deny"], validation)
}

async fn what_a_policy_denies_is_not_applied_and_the_next_push_is_tried_at_once(env: &mut Env) {
    in_force(env, "values.yaml", &no_bad_values());
    let first = env.begin(&[("app/one.yaml", &config_map("one", "good"))]).await;
    let denied = env.push(
        "B",
        &[
            ("app/one.yaml", &config_map("one", "changed")),
            ("app/two.yaml", &format!("# two\n{}", config_map("two", "bad"))),
        ],
    );
    env.announce().await;
    let found = env.failed_at("app", &denied, "app/two.yaml:5: ConfigMap/").await;
    let message = env::message(&found);
    assert!(message.contains("the value is bad (policy `no-bad-values`, binding `no-bad-values`)"), "{message}");
    let ready = found.status.as_ref().unwrap().conditions.get("Ready").unwrap();
    assert_eq!(ready.reason, "PolicyDenied");
    assert_eq!(found.status.as_ref().unwrap().last_applied_revision.as_deref(), Some(first.as_str()));
    assert_eq!(env.live("ConfigMap", "one").await.unwrap()["data"]["value"], "good", "nothing of it is applied");
    assert!(env.live("ConfigMap", "two").await.is_none());

    // the same is declared, a line further down
    let moved = env.push("C", &[("app/two.yaml", &format!("# number\n# two\n{}", config_map("two", "bad")))]);
    env.failed_at("app", &moved, "app/two.yaml:6: ConfigMap/").await;

    // nobody is told: it is looked for
    let fix = env.push("D", &[("app/two.yaml", &config_map("two", "fine"))]);
    env.ready_at("app", &fix).await;
    assert_eq!(env.live("ConfigMap", "one").await.unwrap()["data"]["value"], "changed");
    assert_eq!(env.live("ConfigMap", "two").await.unwrap()["data"]["value"], "fine");
}

async fn what_is_denied_of_a_repository_is_offered_to_nobody_and_the_last_good_revision_stays(env: &mut Env) {
    let validation = json!({
        "expression": "!object.spec.files.exists(f, f.path.endsWith('.tfstate'))",
        "messageExpression": "'a state is committed: ' + object.spec.files.filter(f, f.path.endsWith('.tfstate')).map(f, f.path + ' ' + string(f.size) + ' ' + f.mode).join(', ') + ' by ' + object.spec.commit.author + ': ' + object.spec.commit.message",
    });
    in_force(env, "state.yaml", &for_repositories("no-state", &["Deny"], validation));
    let first = env.begin(&[("app/one.yaml", &config_map("one", "good"))]).await;
    let before = env.kustomizations().get("app").await.unwrap();
    let name = before.metadata.name.clone().unwrap();
    let source_name = env.sources().list(&Default::default()).await.unwrap().items[0].metadata.name.clone().unwrap();
    let get = async || env.sources().get(&source_name).await.unwrap();

    env.push("B: with state", &[("infra/terraform.tfstate", "{}\n"), ("app/one.yaml", &config_map("one", "changed"))]);
    env.announce().await;
    let denied = env
        .eventually("the source says why", async || {
            let found = get().await;
            let ready = found.status.as_ref()?.conditions.get("Ready")?.clone();
            (ready.reason == "PolicyDenied").then_some(ready)
        })
        .await;
    assert_eq!(denied.status, Truth::False);
    assert!(
        denied.message.contains("a state is committed: infra/terraform.tfstate 3 100644 by "),
        "{}",
        denied.message
    );
    assert!(denied.message.contains("B: with state (policy `no-state`, binding `no-state`)"), "{}", denied.message);
    let found = get().await;
    assert_eq!(found.status.unwrap().artifact.unwrap().revision, first, "the last good revision stays");
    let after = env.kustomizations().get(&name).await.unwrap();
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version, "the application stays as it is");
    assert_eq!(env.live("ConfigMap", "one").await.unwrap()["data"]["value"], "good");

    let fix = env.push_changes("C", &[("infra/terraform.tfstate", None)]);
    env.ready_at("app", &fix).await;
    let ready = get().await.status.unwrap().conditions.get("Ready").unwrap().clone();
    assert_eq!(ready.status, Truth::True, "{}", ready.message);
    assert_eq!(env.live("ConfigMap", "one").await.unwrap()["data"]["value"], "changed");
}

async fn after_a_restart_while_a_repository_is_denied_its_last_good_revision_is_kept_as_it_is(env: &mut Env) {
    let validation =
        json!({ "expression": "!object.spec.files.exists(f, f.path.endsWith('.tfstate'))", "message": "a state" });
    in_force(env, "state.yaml", &for_repositories("no-state", &["Deny"], validation));
    let first = env.begin(&[("app/one.yaml", &config_map("one", "good"))]).await;
    env.push("B", &[("infra/terraform.tfstate", "{}\n"), ("app/one.yaml", &config_map("one", "changed"))]);
    env.announce().await;
    env.source_fails(env::SOURCE, "a state").await;
    let before = env.kustomizations().get("app").await.unwrap().status.unwrap().conditions.get("Ready").cloned();
    for cache_is_lost in [false, true] {
        env.daemon.take().unwrap().stop().await.unwrap();
        if cache_is_lost {
            std::fs::remove_dir_all(env.data_dir()).unwrap();
        }
        // nobody was there to see it
        let drifted = Patch::Merge(json!({ "data": { "value": "drifted" } }));
        env.objects("ConfigMap").patch("one", &PatchParams::default(), &drifted).await.unwrap();
        env.start();
        env.until_live("ConfigMap", "one", "it is put back", |found| found["data"]["value"] == "good").await;
        // and what is changed from now on
        env.objects("ConfigMap").patch("one", &PatchParams::default(), &drifted).await.unwrap();
        env.until_live("ConfigMap", "one", "it is put back", |found| found["data"]["value"] == "good").await;
        env.source_fails(env::SOURCE, "a state").await;
        let source = env.sources().get(env::SOURCE).await.unwrap().status.unwrap();
        assert_eq!(source.artifact.unwrap().revision, first);
        assert_eq!(source.conditions.get("Ready").unwrap().reason, "PolicyDenied");
        let app = env.kustomizations().get("app").await.unwrap().status.unwrap();
        assert_eq!(app.last_applied_revision.as_deref(), Some(first.as_str()));
        let ready = app.conditions.get("Ready").cloned();
        assert_eq!(ready.map(|r| (r.status, r.message)), before.clone().map(|r| (r.status, r.message)), "it is Ready");
    }
    let fix = env.push_changes("C", &[("infra/terraform.tfstate", None)]);
    env.ready_at("app", &fix).await;
    assert_eq!(env.live("ConfigMap", "one").await.unwrap()["data"]["value"], "changed");
}

async fn a_broken_edit_of_the_policies_keeps_the_last_good_ones_and_a_mended_one_is_in_force_at_once(env: &mut Env) {
    let folder = in_force(env, "values.yaml", &no_bad_values());
    let first = env.begin(&[("app/one.yaml", &config_map("one", "good"))]).await;
    let broken = no_bad_values().replace("object.data.value != 'bad'", "object.data.value + ");
    std::fs::write(folder.join("values.yaml"), broken).unwrap();
    env.eventually("it is measured that they are refused", async || {
        (env.measured("afresh_policies_refused", &[]).await == Some(1.0)).then_some(())
    })
    .await;
    let denied = env.push("B", &[("app/one.yaml", &config_map("one", "bad"))]);
    env.announce().await;
    env.failed_at("app", &denied, "the value is bad").await;
    assert_eq!(env.live("ConfigMap", "one").await.unwrap()["data"]["value"], "good");

    // the rule is taken back: what was denied goes live without a push
    std::fs::write(folder.join("values.yaml"), no_bad_values().replace("!= 'bad'", "!= 'worse'")).unwrap();
    env.ready_at("app", &denied).await;
    assert_eq!(env.measured("afresh_policies_refused", &[]).await, Some(0.0));
    assert_eq!(env.live("ConfigMap", "one").await.unwrap()["data"]["value"], "bad");

    // and given again: what is live stays, and is no longer what may be
    std::fs::write(folder.join("values.yaml"), no_bad_values()).unwrap();
    env.failed_at("app", &denied, "the value is bad").await;
    assert_eq!(env.live("ConfigMap", "one").await.unwrap()["data"]["value"], "bad");
    let back = env.push("C", &[("app/one.yaml", &config_map("one", "good"))]);
    env.ready_at("app", &back).await;
    assert_ne!(first, back);
}

async fn a_policy_sees_the_object_as_it_is_in_the_cluster(env: &mut Env) {
    let validation = json!({
        "expression": "request.operation == 'CREATE' || int(object.data.value) >= int(oldObject.data.value)",
        "messageExpression": "'from ' + oldObject.data.value + ' to ' + object.data.value",
    });
    in_force(env, "grows.yaml", &for_config_maps("it-only-grows", &["Deny"], validation));
    env.begin(&[("app/one.yaml", &config_map("one", "5"))]).await;
    let grown = env.push("B", &[("app/one.yaml", &config_map("one", "7")), ("app/two.yaml", &config_map("two", "1"))]);
    env.announce().await;
    env.ready_at("app", &grown).await;
    let shrunk = env.push("C", &[("app/one.yaml", &config_map("one", "6"))]);
    env.announce().await;
    env.failed_at("app", &shrunk, "from 7 to 6").await;
    assert_eq!(env.live("ConfigMap", "one").await.unwrap()["data"]["value"], "7");
    let fix = env.push("D", &[("app/one.yaml", &config_map("one", "8"))]);
    env.ready_at("app", &fix).await;
}

async fn a_policy_sees_the_namespace_as_it_is_in_the_cluster(env: &mut Env) {
    let label = async |env: &Env, value: Value| {
        let change = Patch::Merge(json!({ "metadata": { "labels": { "tier": value } } }));
        let namespaces = env.cluster_objects("Namespace");
        namespaces.patch(&env.namespace, &PatchParams::default(), &change).await.unwrap();
    };
    let validation = json!({
        "expression": "namespaceObject.metadata.name == object.metadata.namespace && namespaceObject.metadata.?labels.?tier.orValue('') == 'free'",
        "messageExpression": "'not in ' + namespaceObject.metadata.name",
    });
    in_force(env, "tier.yaml", &for_config_maps("tier", &["Deny"], validation));
    label(env, json!("free")).await;
    env.begin(&[("app/one.yaml", &config_map("one", "a"))]).await;
    label(env, json!("closed")).await;
    let denied = env.push("B", &[("app/one.yaml", &config_map("one", "b"))]);
    env.announce().await;
    env.failed_at("app", &denied, &format!("not in {}", env.namespace)).await;
    assert_eq!(env.live("ConfigMap", "one").await.unwrap()["data"]["value"], "a");
    // what the cluster has a say in is asked again, without a push
    label(env, json!("free")).await;
    env.ready_at("app", &denied).await;
    assert_eq!(env.live("ConfigMap", "one").await.unwrap()["data"]["value"], "b");
}

async fn a_policy_sees_as_whom_an_object_is_applied(env: &mut Env) {
    let validation = json!({
        "expression": "request.userInfo.username == 'system:serviceaccount:' + object.metadata.namespace + ':team' && 'system:serviceaccounts:' + object.metadata.namespace in request.userInfo.groups && 'system:authenticated' in request.userInfo.groups",
        "messageExpression": "'applied by `' + request.userInfo.username + '`'",
    });
    in_force(env, "who.yaml", &for_config_maps("who", &["Deny"], validation));
    accounts::account(env, json!(["configmaps"])).await;
    let revision = env.push("A", &[("app/one.yaml", &config_map("one", "a"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    env.start();
    // the sandbox does not say who somebody is
    let own = match &env.cluster {
        Cluster::Sandbox(_) => String::new(),
        Cluster::Real(_) => format!("system:serviceaccount:{}:afresh", installation::NAMESPACE),
    };
    env.failed_at("app", &revision, &format!("applied by `{own}`")).await;
    env.kustomization("app", |spec| spec["serviceAccountName"] = json!("team")).await;
    env.ready_at("app", &revision).await;
    // it was asked once, and is known for all that follows
    env.kustomization("app", |_| {}).await;
    let revision = env.push("B", &[("app/one.yaml", &config_map("one", "b"))]);
    env.announce().await;
    env.failed_at("app", &revision, &format!("applied by `{own}`")).await;
    if matches!(env.cluster, Cluster::Sandbox(_)) {
        let log = env.daemon.as_ref().unwrap().log();
        assert_eq!(log.iter().filter(|line| line.contains("does not say who Afresh is")).count(), 1);
    }
}

async fn warnings_and_notes_are_events_and_hold_back_nothing(env: &mut Env) {
    let bad = |message: &str| json!({ "expression": "object.data.value != 'bad'", "message": message });
    in_force(env, "warn.yaml", &for_config_maps("warn", &["Warn"], bad("warned of")));
    in_force(env, "audit.yaml", &for_config_maps("audit", &["Audit"], bad("noted down")));
    env.begin(&[("app/one.yaml", &config_map("one", "bad"))]).await;
    for (reason, text) in [("PolicyWarning", "warned of (policy `warn`"), ("PolicyAudit", "noted down (policy `audit`")]
    {
        env.eventually(reason, async || {
            let told = env.events("app").await;
            told.iter().any(|(said, message)| said == reason && message.contains(text)).then_some(())
        })
        .await;
    }
    assert_eq!(env.live("ConfigMap", "one").await.unwrap()["data"]["value"], "bad");
}

async fn a_secret_whose_values_git_does_not_hold_is_no_plaintext(env: &mut Env) {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/no-plaintext-secrets.yaml");
    in_force(env, "secrets.yaml", &std::fs::read_to_string(shipped).unwrap());
    env.secret("values", json!({ "PASSWORD": "hunter2" })).await;
    let secret = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: database}}\nstringData: {{url: 'postgres://shop:{value}@db'}}\n"
        )
    };
    let substituted = env.push("A", &[("app/secret.yaml", &secret("${PASSWORD}"))]);
    env.source(|_| {}).await;
    let from = json!({ "substituteFrom": [{ "kind": "Secret", "name": "values" }] });
    env.kustomization("app", |spec| spec["postBuild"] = from).await;
    env.start();
    env.ready_at("app", &substituted).await;
    assert_eq!(env.live("Secret", "database").await.unwrap()["data"]["url"], "cG9zdGdyZXM6Ly9zaG9wOmh1bnRlcjJAZGI=");

    let plain = env.push("B", &[("app/secret.yaml", &secret("correct-horse"))]);
    env.announce().await;
    let found = env.failed_at("app", &plain, "the Secret has values in plain text").await;
    assert!(!env::message(&found).contains("horse"), "{}", env::message(&found));
    assert_eq!(env.live("Secret", "database").await.unwrap()["data"]["url"], "cG9zdGdyZXM6Ly9zaG9wOmh1bnRlcjJAZGI=");
}
