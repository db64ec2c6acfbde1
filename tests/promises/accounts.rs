//! What a Kustomization names as its service account is who acts: its rights are the bounds of what is applied.

use afresh::api::READY;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::env::{Cluster, Env, message};
use crate::support::installation;
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    objects_are_written_and_read_as_the_account_and_all_else_as_the_daemon,
    the_flag_names_an_account_for_those_that_name_none,
    what_an_account_that_is_gone_has_applied_is_left_in_place,
    a_name_that_no_account_can_have_is_refused,
}

const ACCOUNT: &str = "team";

/// Objects of the scenario's namespace, applied by a person.
async fn apply(env: &Env, object: Value) {
    let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
    let params = PatchParams::apply("somebody").force();
    env.objects(kind).patch(name, &params, &Patch::Apply(&object)).await.expect("it is accepted");
}

fn role(name: &str, rules: Value) -> Value {
    json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": name }, "rules": rules })
}

fn bound(name: &str, account: &str, namespace: &str) -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({
        "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": group, "kind": "Role", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": namespace }],
    })
}

/// An account that may write these resources, and that the daemon may act as.
pub async fn account(env: &Env, resources: Value) {
    apply(env, json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": ACCOUNT } })).await;
    may(env, resources).await;
    impersonation(env).await;
}

async fn may(env: &Env, resources: Value) {
    let verbs = json!(["get", "list", "watch", "create", "patch", "delete"]);
    apply(env, role("writer", json!([{ "apiGroups": [""], "resources": resources, "verbs": verbs }]))).await;
    apply(env, bound("writer", ACCOUNT, &env.namespace)).await;
}

/// As manifests/impersonation has it, for one account.
async fn impersonation(env: &Env) {
    let rules = json!([{
        "apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": [ACCOUNT], "verbs": ["impersonate"],
    }]);
    apply(env, role("impersonator", rules)).await;
    apply(env, bound("impersonator", "afresh", installation::NAMESPACE)).await;
}

/// Who has sent requests about an object so far, those that only watch left out; empty for the daemon itself.
async fn senders(env: &Env, resource: &str, name: &str) -> Vec<String> {
    let own = format!("system:serviceaccount:{}:", env.namespace);
    let mut senders: Vec<String> = match &env.cluster {
        Cluster::Sandbox(sandbox) => {
            let about = |e: &afresh::sandbox::Entry| {
                e.resource == resource && e.name == name && e.manager != "somebody" && e.manager != "unknown"
            };
            sandbox.requests().find(about).into_iter().map(|entry| entry.impersonated).collect()
        }
        Cluster::Real(plane) => {
            let entries = plane.audit().expect("the audit log can be read");
            let text = |entry: &Value, pointer: &str| {
                entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let about = entries.iter().filter(|entry| {
                text(entry, "/userAgent").starts_with("afresh")
                    && text(entry, "/objectRef/namespace") == env.namespace
                    && resource.starts_with(&text(entry, "/objectRef/resource"))
                    && text(entry, "/objectRef/name") == name
                    && text(entry, "/verb") != "watch"
                    && text(entry, "/verb") != "list"
            });
            about.map(|entry| text(entry, "/impersonatedUser/username")).collect()
        }
    };
    senders.sort();
    senders.dedup();
    senders.iter().map(|sender| sender.replace(&own, "")).collect()
}

async fn objects_are_written_and_read_as_the_account_and_all_else_as_the_daemon(env: &mut Env) {
    account(env, json!(["configmaps"])).await;
    env.push("A", &[("app/settings.yaml", &config_map("settings", "a")), ("app/more.yaml", &config_map("more", "a"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| spec["serviceAccountName"] = json!(ACCOUNT)).await;
    env.start();
    env.until("app", "it is Ready", |app| app.status.as_ref().is_some_and(|s| s.conditions.is_true(READY))).await;
    let b =
        env.push_changes("B", &[("app/more.yaml", None), ("app/settings.yaml", Some(&config_map("settings", "b")))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    env.until_gone("ConfigMap", "more").await;
    // the audit log is written a moment later
    for name in ["settings", "more"] {
        env.eventually("the account alone has sent requests", async || {
            (senders(env, "configmaps", name).await == [ACCOUNT]).then_some(())
        })
        .await;
    }
    assert_eq!(senders(env, "kustomizations.kustomize.toolkit.fluxcd.io", "app").await, [""]);
}

async fn the_flag_names_an_account_for_those_that_name_none(env: &mut Env) {
    account(env, json!(["configmaps"])).await;
    env.arguments.extend(["--default-service-account".to_owned(), ACCOUNT.to_owned()]);
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    env.eventually("the account has sent requests", async || {
        (senders(env, "configmaps", "settings").await == [ACCOUNT]).then_some(())
    })
    .await;
}

async fn what_an_account_that_is_gone_has_applied_is_left_in_place(env: &mut Env) {
    account(env, json!(["configmaps"])).await;
    env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| spec["serviceAccountName"] = json!(ACCOUNT)).await;
    env.start();
    env.until("app", "it is Ready", |app| app.status.as_ref().is_some_and(|s| s.conditions.is_true(READY))).await;
    // as when a namespace goes with all that is in it
    for (kind, name) in [("RoleBinding", "writer"), ("ServiceAccount", ACCOUNT)] {
        env.objects(kind).delete(name, &DeleteParams::default()).await.unwrap();
        env.until_gone(kind, name).await;
    }
    env.kustomizations().delete("app", &DeleteParams::default()).await.unwrap();
    env.eventually("the Kustomization is gone", async || {
        env.kustomizations().get_opt("app").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(env.live("ConfigMap", "settings").await.is_some());
    let gone = format!("{}/{ACCOUNT}` is gone", env.namespace);
    env.eventually("an Event says so", async || {
        env.events("app").await.iter().any(|(_, text)| text.contains(&gone)).then_some(())
    })
    .await;
}

async fn a_name_that_no_account_can_have_is_refused(env: &mut Env) {
    env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| spec["serviceAccountName"] = json!("system:masters")).await;
    env.start();
    env.until("app", "Stalled names it", |app| {
        let stalled = app.status.as_ref().and_then(|status| status.conditions.get("Stalled"));
        stalled.is_some_and(|stalled| stalled.message.contains("`system:masters`"))
    })
    .await;
    assert!(env.live("ConfigMap", "settings").await.is_none());
}

// Only a real API server knows rights.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_account_may_not_do_is_refused_with_its_name() {
    let Some(mut env) = Env::on_real_server("account-rights").await else { return };
    apply(&env, json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": ACCOUNT } })).await;
    let files = [
        ("app/settings.yaml", config_map("settings", "a")),
        (
            "app/api.yaml",
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "api" } }).to_string(),
        ),
    ];
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let a = env.push("A", &files);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| {
        spec["serviceAccountName"] = json!(ACCOUNT);
        spec["retryInterval"] = json!("2s");
    })
    .await;
    env.start();
    let app = env.failed_at("app", &a, "cannot impersonate").await;
    assert!(message(&app).contains("manifests/impersonation"), "{}", message(&app));
    impersonation(&env).await;
    may(&env, json!(["configmaps"])).await;
    let name = format!("system:serviceaccount:{}:{ACCOUNT}", env.namespace);
    let app = env.failed_at("app", &a, &name).await;
    assert!(
        message(&app).contains("ServiceAccount") && message(&app).contains("grant it the right"),
        "{}",
        message(&app)
    );
    may(&env, json!(["configmaps", "serviceaccounts"])).await;
    env.ready_at("app", &a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_sees_of_what_health_checks_name_no_more_than_it_may() {
    let Some(mut env) = Env::on_real_server("account-health").await else { return };
    account(&env, json!(["configmaps"])).await;
    let a = env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.source(|_| {}).await;
    let other = json!([{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "namespace": "default" }]);
    env.kustomization("app", |spec| {
        spec["serviceAccountName"] = json!(ACCOUNT);
        spec["healthChecks"] = other;
    })
    .await;
    env.start();
    let app = env.failed_at("app", &a, "can't be looked at").await;
    assert!(message(&app).contains(&format!("system:serviceaccount:{}:{ACCOUNT}", env.namespace)), "{}", message(&app));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_account_may_not_apply_stands_in_nobodys_way() {
    let Some(mut env) = Env::on_real_server("account-claims").await else { return };
    account(&env, json!(["secrets"])).await;
    // both declare the same object, and the one that may not apply it comes first
    let map = config_map("settings", "a");
    let a = env.push("A", &[("intruder/settings.yaml", &map), ("owner/settings.yaml", &map)]);
    env.source(|_| {}).await;
    env.kustomization("intruder", |spec| spec["serviceAccountName"] = json!(ACCOUNT)).await;
    env.start();
    env.failed_at("intruder", &a, "forbidden").await;
    env.kustomization("owner", |_| {}).await;
    env.ready_at("owner", &a).await;
    let labels: DynamicObject = env.objects("ConfigMap").get("settings").await.unwrap();
    assert_eq!(labels.metadata.labels.unwrap()["kustomize.toolkit.fluxcd.io/name"], "owner");
}
