//! Promise 2: an application that names objects in `healthChecks` is Ready when they are, whoever applies them.

use afresh::api::{HEALTHY, Kustomization, READY};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::env::{Env, PATIENCE, message};
use crate::support::manifests::{config_map, deployment};
use crate::support::scenarios;
use crate::support::wait::watch_until;

scenarios! {
    an_object_that_somebody_else_applies_is_waited_for,
    what_is_not_named_does_not_count,
    the_cause_is_named_where_somebody_elses_workload_fails,
    an_object_of_a_kind_that_comes_later_is_waited_for,
    a_named_object_that_comes_back_makes_the_application_ready_by_itself,
    a_restart_is_no_news_for_an_application_with_health_checks,
    what_is_declared_is_judged_by_expressions_where_there_are_some,
    somebody_elses_object_is_judged_by_expressions_too,
    an_expression_that_is_none_is_named_before_anything_is_applied,
}

const MAP: (&str, &str) = ("app/settings.yaml", "settings");

/// A Kustomization of one ConfigMap that checks these objects of the namespace.
async fn checking(env: &mut Env, checks: Value) -> String {
    let (path, name) = MAP;
    let revision = env.push("A", &[(path, &config_map(name, "a"))]);
    env.source(|_| {}).await;
    checks_for(env, checks).await;
    env.start();
    revision
}

async fn checks_for(env: &Env, mut checks: Value) {
    for check in checks.as_array_mut().unwrap() {
        check["namespace"] = json!(env.namespace);
    }
    env.kustomization("app", |spec| {
        spec["healthChecks"] = checks;
        spec["timeout"] = json!("10m");
    })
    .await;
}

/// Applied by a person.
async fn apply(env: &Env, kind: &str, name: &str, manifest: &str) {
    let object: Value = serde_json::from_str(manifest).unwrap();
    let params = PatchParams::apply("somebody").force();
    env.objects(kind).patch(name, &params, &Patch::Apply(object)).await.expect("it is accepted");
}

fn deployment_check(name: &str) -> Value {
    json!([{ "apiVersion": "apps/v1", "kind": "Deployment", "name": name }])
}

async fn an_object_that_somebody_else_applies_is_waited_for(env: &mut Env) {
    let revision = checking(env, deployment_check("api")).await;
    let waiting = env.until("app", "it says what it waits for", |app| message(app).contains("not there yet")).await;
    assert!(message(&waiting).contains(&format!("Deployment/{}/api", env.namespace)), "{}", message(&waiting));
    assert!(env.live("ConfigMap", "settings").await.is_some(), "what is declared is applied before");
    apply(env, "Deployment", "api", &deployment("api", "api:1")).await;
    let ready = env.ready_at("app", &revision).await;
    assert!(ready.status.unwrap().conditions.is_true(HEALTHY));
}

async fn what_is_not_named_does_not_count(env: &mut Env) {
    let files = [("app/web.yaml", deployment("web", "web:crash")), ("app/api.yaml", deployment("api", "api:1"))];
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let revision = env.push("A", &files);
    env.source(|_| {}).await;
    checks_for(env, deployment_check("api")).await;
    env.start();
    env.ready_at("app", &revision).await;
    checks_for(env, deployment_check("web")).await;
    env.until("app", "the crash counts now", |app| message(app).contains("CrashLoopBackOff")).await;
}

async fn the_cause_is_named_where_somebody_elses_workload_fails(env: &mut Env) {
    checking(env, deployment_check("api")).await;
    apply(env, "Deployment", "api", &deployment("api", "api:crash")).await;
    env.until("app", "container and reason are named", |app| {
        message(app).contains("CrashLoopBackOff") && message(app).contains("main")
    })
    .await;
}

async fn an_object_of_a_kind_that_comes_later_is_waited_for(env: &mut Env) {
    // a kind of its own: scenarios share the real server
    let kind = Custom::of(env);
    let check = json!([{ "apiVersion": format!("{}/v1beta1", kind.group), "kind": "Cache", "name": "main" }]);
    let revision = checking(env, check).await;
    env.until("app", "the kind is missed", |app| message(app).contains("no kind `Cache`")).await;
    kind.define(env).await;
    kind.apply(env, json!({ "conditions": [ready("False")] })).await;
    env.until("app", "it is seen and waited for", |app| message(app).contains("Testing")).await;
    kind.apply(env, json!({ "conditions": [ready("True")] })).await;
    env.ready_at("app", &revision).await;
}

async fn a_named_object_that_comes_back_makes_the_application_ready_by_itself(env: &mut Env) {
    let kind = Custom::of(env);
    kind.define(env).await;
    kind.apply(env, json!({ "conditions": [stalled("True"), ready("False")] })).await;
    let check = json!([{ "apiVersion": format!("{}/v1", kind.group), "kind": "Cache", "name": "main" }]);
    let revision = checking(env, check).await;
    env.until("app", "it failed", |app| failed_at(app, &revision, "Testing")).await;
    kind.apply(env, json!({ "conditions": [stalled("False"), ready("True")] })).await;
    env.ready_at("app", &revision).await;
}

async fn a_restart_is_no_news_for_an_application_with_health_checks(env: &mut Env) {
    let revision = checking(env, json!([{ "apiVersion": "v1", "kind": "ServiceAccount", "name": "else" }])).await;
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "else" } });
    apply(env, "ServiceAccount", "else", &account.to_string()).await;
    let before = env.ready_at("app", &revision).await;
    env.daemon.take().unwrap().stop().await.unwrap();
    env.start();
    // an attempt is over once what it was asked for is echoed
    env.reconcile("app").await;
    let after = env.kustomizations().get("app").await.unwrap();
    assert_eq!(before.status.unwrap().conditions, after.status.unwrap().conditions);
}

fn by_phase(group: &str) -> Value {
    json!([{
        "apiVersion": format!("{group}/v1"), "kind": "Cache",
        "inProgress": "has(status.phase) && status.phase == 'Starting'",
        "failed": "status.phase == 'Broken'",
        "current": "status.phase == 'Up' && metadata.name == 'main'",
    }])
}

async fn what_is_declared_is_judged_by_expressions_where_there_are_some(env: &mut Env) {
    let kind = Custom::of(env);
    kind.define(env).await;
    let declared = json!({
        "apiVersion": format!("{}/v1", kind.group), "kind": "Cache", "metadata": { "name": "main" }, "spec": { "size": 1 },
    });
    let revision = env.push("A", &[("app/cache.yaml", &declared.to_string())]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| {
        spec["wait"] = json!(true);
        spec["timeout"] = json!("10m");
        spec["healthCheckExprs"] = by_phase(&kind.group);
    })
    .await;
    env.start();
    env.until("app", "what is missing is named", |app| message(app).contains("`status` is not known")).await;
    kind.apply(env, json!({ "phase": "Starting", "conditions": [ready("True")] })).await;
    env.until("app", "it is in progress", |app| message(app).contains("`inProgress` (Testing)")).await;
    kind.apply(env, json!({ "phase": "Broken", "conditions": [ready("True")] })).await;
    env.until("app", "it failed", |app| failed_at(app, &revision, "`failed` (Testing)")).await;
    kind.apply(env, json!({ "phase": "Up" })).await;
    env.ready_at("app", &revision).await;
}

async fn somebody_elses_object_is_judged_by_expressions_too(env: &mut Env) {
    let kind = Custom::of(env);
    kind.define(env).await;
    kind.apply(env, json!({ "phase": "Broken", "conditions": [ready("True")] })).await;
    let mut check = json!([{ "apiVersion": format!("{}/v1", kind.group), "kind": "Cache", "name": "main" }]);
    check[0]["namespace"] = json!(env.namespace);
    let revision = env.push("A", &[(MAP.0, &config_map(MAP.1, "a"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| {
        spec["healthChecks"] = check;
        spec["healthCheckExprs"] = by_phase(&kind.group);
        spec["timeout"] = json!("10m");
    })
    .await;
    env.start();
    env.until("app", "it failed", |app| failed_at(app, &revision, "`failed`")).await;
    kind.apply(env, json!({ "phase": "Up", "conditions": [ready("False")] })).await;
    env.ready_at("app", &revision).await;
}

async fn an_expression_that_is_none_is_named_before_anything_is_applied(env: &mut Env) {
    env.push("A", &[(MAP.0, &config_map(MAP.1, "a"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| {
        spec["healthCheckExprs"] =
            json!([{ "apiVersion": "example.org/v1", "kind": "Cache", "current": "status.up(" }]);
    })
    .await;
    env.start();
    let app = env
        .until("app", "Stalled names the expression", |app| {
            let stalled = app.status.as_ref().and_then(|status| status.conditions.get("Stalled"));
            stalled.is_some_and(|stalled| stalled.reason == "InvalidCELExpression")
        })
        .await;
    assert!(message(&app).contains("`spec.healthCheckExprs[0].current`"), "{}", message(&app));
    assert!(env.live("ConfigMap", "settings").await.is_none());
    env.kustomization("app", |_| {}).await;
    env.until("app", "it is Ready without it", |app| app.status.as_ref().is_some_and(|s| s.conditions.is_true(READY)))
        .await;
}

fn failed_at(app: &Kustomization, revision: &str, text: &str) -> bool {
    let status = app.status.as_ref();
    status.is_some_and(|status| {
        status.last_attempted_revision.as_deref() == Some(revision)
            && status.conditions.get(HEALTHY).is_some_and(|healthy| healthy.message.contains(text))
    })
}

fn ready(status: &str) -> Value {
    condition("Ready", status)
}

fn stalled(status: &str) -> Value {
    condition("Stalled", status)
}

fn condition(kind: &str, status: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": "Testing", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

/// A kind of custom resources that only one scenario has, since scenarios share the real server.
struct Custom {
    group: String,
}

impl Custom {
    fn of(env: &Env) -> Self {
        Self { group: format!("{}.example.org", env.namespace) }
    }

    async fn define(&self, env: &Env) {
        let name = format!("caches.{}", self.group);
        let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": name },
            "spec": {
                "group": self.group,
                "scope": "Namespaced",
                "names": { "kind": "Cache", "plural": "caches" },
                "versions": [{
                    "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": anything },
                }],
            },
        });
        let definitions: Api<CustomResourceDefinition> = Api::all(env.client.clone());
        let params = PatchParams::apply("somebody").force();
        definitions.patch(&name, &params, &Patch::Apply(definition)).await.expect("the definition is accepted");
        let established = |definition: Option<&CustomResourceDefinition>| {
            let status = definition.and_then(|definition| definition.status.as_ref());
            let mut conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.any(|condition| condition.type_ == "Established" && condition.status == "True")
        };
        watch_until(&definitions, &name, PATIENCE, established).await.expect("the definition is established");
    }

    /// The object `main` with this status.
    async fn apply(&self, env: &Env, status: Value) {
        let version = GroupVersionKind::gvk(&self.group, "v1", "Cache");
        let api: Api<DynamicObject> =
            Api::namespaced_with(env.client.clone(), &env.namespace, &ApiResource::from_gvk(&version));
        let object = json!({
            "apiVersion": format!("{}/v1", self.group), "kind": "Cache", "metadata": { "name": "main" },
            "status": status,
        });
        // a kind that came a moment ago may not be served yet
        let params = PatchParams::apply("somebody").force();
        env.eventually("the object is accepted", async || {
            api.patch("main", &params, &Patch::Apply(&object)).await.ok()
        })
        .await;
    }
}
