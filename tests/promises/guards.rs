//! Promise 3, the guards: what would lose data is deleted only after a person has agreed, and when it is deleted.

use afresh::api::{CONFIRM_PRUNE, PRUNE_WHEN, Truth};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::env::{Env, message, truth};
use crate::support::manifests::{claim, config_map, deployment};
use crate::support::scenarios;

scenarios! {
    a_claim_is_deleted_only_after_a_person_agreed,
    an_application_that_comes_out_empty_waits_for_a_person,
    a_kustomization_that_is_emptied_waits_for_a_person_and_not_for_its_fix,
    a_namespace_with_contents_is_deleted_only_after_a_person_agreed,
    a_namespace_that_holds_nothing_else_is_deleted_without_a_question,
    a_definition_is_deleted_only_after_a_person_agreed_on_that_definition,
    objects_can_be_deleted_before_health_is_waited_for,
}

async fn annotate(env: &Env, key: &str, value: &str) {
    let patch = json!({ "metadata": { "annotations": { key: value } } });
    env.kustomizations().patch("app", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Until the application says what it would delete, and what to do to agree.
async fn until_it_asks(env: &Env, revision: &str, object: &str) {
    let asks = env.failed_at("app", revision, CONFIRM_PRUNE).await;
    let text = message(&asks);
    assert!(text.contains(object) && text.contains(&format!("{CONFIRM_PRUNE}='{revision}'")), "{text}");
}

async fn a_claim_is_deleted_only_after_a_person_agreed(env: &mut Env) {
    env.begin(&[("app/x.yaml", &config_map("x", "a")), ("app/data.yaml", &claim("data"))]).await;
    let b = env.push_changes("B", &[("app/data.yaml", None)]);
    env.announce().await;
    until_it_asks(env, &b, "PersistentVolumeClaim").await;
    let data = env.live("PersistentVolumeClaim", "data").await.expect("the claim is kept");
    assert!(data["metadata"]["deletionTimestamp"].is_null(), "{data:#}");

    annotate(env, CONFIRM_PRUNE, &b).await;
    env.ready_at("app", &b).await;
    env.eventually("the claim is deleted", async || {
        // A real server keeps a claim until its protection has looked at it.
        let data = env.live("PersistentVolumeClaim", "data").await;
        data.is_none_or(|data| !data["metadata"]["deletionTimestamp"].is_null()).then_some(())
    })
    .await;
}

async fn an_application_that_comes_out_empty_waits_for_a_person(env: &mut Env) {
    env.begin(&[("app/x.yaml", &config_map("x", "a")), ("app/y.yaml", &config_map("y", "a"))]).await;
    let changes = [("app/x.yaml", None), ("app/y.yaml", None), ("app/readme.md", Some("Nothing here.\n"))];
    let b = env.push_changes("B", &changes);
    env.announce().await;
    until_it_asks(env, &b, "all 2 objects").await;
    assert!(env.live("ConfigMap", "x").await.is_some());

    annotate(env, CONFIRM_PRUNE, &b).await;
    env.until_gone("ConfigMap", "x").await;
    env.until_gone("ConfigMap", "y").await;
}

async fn a_kustomization_that_is_emptied_waits_for_a_person_and_not_for_its_fix(env: &mut Env) {
    let full = "resources: [x.yaml]\n";
    env.begin(&[("app/x.yaml", &config_map("x", "a")), ("app/kustomization.yaml", full)]).await;
    let emptied = env.push("B", &[("app/kustomization.yaml", "kind: Kustomization\n")]);
    env.announce().await;
    until_it_asks(env, &emptied, "all 1 objects").await;
    assert!(env.live("ConfigMap", "x").await.is_some());

    let fix = env.push("C", &[("app/kustomization.yaml", full), ("app/x.yaml", &config_map("x", "b"))]);
    env.announce().await;
    env.ready_at("app", &fix).await;
    env.until_live("ConfigMap", "x", "it is the fix's", |x| x["data"]["value"] == "b").await;

    let nothing = env.push("D", &[("app/kustomization.yaml", "")]);
    env.announce().await;
    until_it_asks(env, &nothing, "all 1 objects").await;
    annotate(env, CONFIRM_PRUNE, &nothing).await;
    env.until_gone("ConfigMap", "x").await;
    env.ready_at("app", &nothing).await;
}

/// Makes an application of these files that puts nothing into a namespace by itself: `targetNamespace` would rename
/// Namespaces.
async fn begin_without_namespace(env: &mut Env, files: &[(&str, &str)]) {
    let revision = env.push("A", files);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| drop(spec.as_object_mut().unwrap().remove("targetNamespace"))).await;
    env.start();
    env.ready_at("app", &revision).await;
}

fn placed(name: &str, namespace: &str) -> String {
    let metadata = json!({ "name": name, "namespace": namespace });
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata }).to_string()
}

fn namespace(name: &str) -> String {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }).to_string()
}

/// What a person makes beside the application.
async fn make_by_hand(objects: Api<DynamicObject>, object: Value) {
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    objects.patch(&name, &PatchParams::apply("someone"), &Patch::Apply(object)).await.unwrap();
}

/// Until the object is on its way out, or gone. What has contents takes time, which is not the daemon's.
async fn until_going(env: &Env, kind: &str, name: &str) {
    env.eventually(&format!("{kind}/{name} is deleted"), async || {
        let found = env.cluster_objects(kind).get_opt(name).await.unwrap();
        found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()).then_some(())
    })
    .await;
}

async fn assert_stays(env: &Env, kind: &str, name: &str) {
    let found = env.cluster_objects(kind).get_opt(name).await.unwrap().expect("it is still there");
    assert!(found.metadata.deletion_timestamp.is_none(), "{kind}/{name} is being deleted");
}

async fn a_namespace_with_contents_is_deleted_only_after_a_person_agreed(env: &mut Env) {
    let extra = format!("{}-x", env.namespace);
    let settings = placed("settings", &env.namespace);
    begin_without_namespace(env, &[("app/namespace.yaml", &namespace(&extra)), ("app/settings.yaml", &settings)]).await;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ConfigMap"));
    let inside: Api<DynamicObject> = Api::namespaced_with(env.client.clone(), &extra, &resource);
    let by_hand = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "by-hand" } });
    make_by_hand(inside.clone(), by_hand).await;

    let b = env.push_changes("B", &[("app/namespace.yaml", None)]);
    env.announce().await;
    until_it_asks(env, &b, &format!("Namespace/{extra}")).await;
    // Agreement with another revision is none with this one.
    annotate(env, CONFIRM_PRUNE, "main@sha1:0123456789012345678901234567890123456789").await;
    let token = env.request_now("app").await;
    env.until("app", "the request is echoed", |app| {
        app.status.as_ref().and_then(|status| status.last_handled_reconcile_at.as_deref()) == Some(&token)
    })
    .await;
    until_it_asks(env, &b, &format!("Namespace/{extra}")).await;
    assert_stays(env, "Namespace", &extra).await;
    assert!(inside.get_opt("by-hand").await.unwrap().is_some());

    annotate(env, CONFIRM_PRUNE, &b).await;
    env.ready_at("app", &b).await;
    until_going(env, "Namespace", &extra).await;
}

async fn a_namespace_that_holds_nothing_else_is_deleted_without_a_question(env: &mut Env) {
    let extra = format!("{}-x", env.namespace);
    let (settings, inside) = (placed("settings", &env.namespace), placed("inside", &extra));
    let files =
        [("app/namespace.yaml", namespace(&extra)), ("app/inside.yaml", inside), ("app/settings.yaml", settings)];
    begin_without_namespace(env, &files.each_ref().map(|(path, text)| (*path, text.as_str()))).await;
    let b = env.push_changes("B", &[("app/namespace.yaml", None), ("app/inside.yaml", None)]);
    env.announce().await;
    env.ready_at("app", &b).await;
    until_going(env, "Namespace", &extra).await;
}

fn definition(plural: &str, kind: &str, group: &str) -> String {
    let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let version = json!({ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": { "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List") },
            "versions": [version],
        },
    })
    .to_string()
}

async fn a_definition_is_deleted_only_after_a_person_agreed_on_that_definition(env: &mut Env) {
    let group = format!("{}.example.com", env.namespace);
    let settings = placed("settings", &env.namespace);
    let files = [
        ("app/widgets.yaml", definition("widgets", "Widget", &group)),
        ("app/gadgets.yaml", definition("gadgets", "Gadget", &group)),
        ("app/settings.yaml", settings),
    ];
    begin_without_namespace(env, &files.each_ref().map(|(path, text)| (*path, text.as_str()))).await;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(&group, "v1", "Widget"));
    let widgets: Api<DynamicObject> = Api::namespaced_with(env.client.clone(), &env.namespace, &resource);
    env.eventually("widgets are served", async || widgets.list(&Default::default()).await.ok()).await;
    let widget = json!({ "apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": { "name": "by-hand" } });
    make_by_hand(widgets.clone(), widget).await;

    let b = env.push_changes("B", &[("app/widgets.yaml", None), ("app/gadgets.yaml", None)]);
    env.announce().await;
    let asks = message(&env.failed_at("app", &b, CONFIRM_PRUNE).await);
    let command = format!("crd gadgets.{group} widgets.{group} {CONFIRM_PRUNE}='{b}'");
    assert!(asks.contains(&command), "{asks}");
    // agreement on the Kustomization is about what it holds; with a definition the objects of others would go
    annotate(env, CONFIRM_PRUNE, &b).await;
    env.reconcile("app").await;
    for name in ["gadgets", "widgets"] {
        assert_stays(env, "CustomResourceDefinition", &format!("{name}.{group}")).await;
    }
    assert!(widgets.get_opt("by-hand").await.unwrap().is_some());

    let definitions = env.cluster_objects("CustomResourceDefinition");
    let agree = async |name: &str| {
        let patch = json!({ "metadata": { "annotations": { CONFIRM_PRUNE: b } } });
        definitions.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        env.request_now("app").await;
    };
    agree(&format!("gadgets.{group}")).await;
    until_going(env, "CustomResourceDefinition", &format!("gadgets.{group}")).await;
    assert_stays(env, "CustomResourceDefinition", &format!("widgets.{group}")).await;
    agree(&format!("widgets.{group}")).await;
    env.ready_at("app", &b).await;
    until_going(env, "CustomResourceDefinition", &format!("widgets.{group}")).await;
}

async fn objects_can_be_deleted_before_health_is_waited_for(env: &mut Env) {
    let a = env.push("A", &[("app/web.yaml", &deployment("web", "web:1")), ("app/old.yaml", &config_map("old", "a"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| spec["wait"] = json!(true)).await;
    env.start();
    env.ready_at("app", &a).await;

    // The usual way: what goes waits until what comes is healthy.
    let never = deployment("web", "web:missing");
    let b = env.push_changes("B", &[("app/web.yaml", Some(&never)), ("app/old.yaml", None)]);
    env.announce().await;
    env.until("app", "it waits for health", |app| {
        let attempted = app.status.as_ref().and_then(|status| status.last_attempted_revision.as_deref());
        attempted == Some(&b) && truth(app) != Some(Truth::True) && message(app).contains("Deployment")
    })
    .await;
    assert!(env.live("ConfigMap", "old").await.is_some(), "deleted before the new objects are healthy");

    annotate(env, PRUNE_WHEN, "before-health").await;
    env.until_gone("ConfigMap", "old").await;
    let app = env.kustomizations().get("app").await.unwrap();
    assert_ne!(truth(&app), Some(Truth::True), "the Deployment is not healthy");

    let c = env.push("C", &[("app/web.yaml", &deployment("web", "web:2"))]);
    env.announce().await;
    env.ready_at("app", &c).await;
}
