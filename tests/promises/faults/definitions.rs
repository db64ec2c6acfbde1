//! A definition that goes while objects of its kind are owned.

use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use super::begin_with_another;
use crate::support::env::Env;
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    a_definition_that_somebody_deletes_is_a_condition_until_it_is_back,
}

/// A kind of the scenario's own.
fn definition(group: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("widgets.{group}") },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": { "kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList" },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                    "spec": { "type": "object", "properties": { "size": { "type": "integer" } } },
                } } },
            }],
        },
    })
}

async fn a_definition_that_somebody_deletes_is_a_condition_until_it_is_back(env: &mut Env) {
    let group = format!("{}.example.org", env.namespace);
    let definitions = env.cluster_objects("CustomResourceDefinition");
    let name = format!("widgets.{group}");
    let install = async || {
        let params = PatchParams::apply("somebody").force();
        definitions.patch(&name, &params, &Patch::Apply(definition(&group))).await.expect("a definition");
    };
    install().await;
    let widget = |size: u32| {
        let metadata = json!({ "name": "gear" });
        let spec = json!({ "size": size });
        json!({ "apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": metadata, "spec": spec }).to_string()
    };
    let files =
        |size: u32| [("app/gear.yaml", widget(size)), ("other/other.yaml", config_map("other", &size.to_string()))];
    let push = |env: &Env, size: u32| {
        env.push(&size.to_string(), &files(size).each_ref().map(|(path, text)| (*path, text.as_str())))
    };
    let a = push(env, 1);
    begin_with_another(env, &a, |spec| spec["retryInterval"] = json!("2s")).await;

    definitions.delete(&name, &DeleteParams::default()).await.expect("somebody deletes it");
    let failed = env.failed_at("app", &a, "Widget").await;
    let said = crate::support::env::message(&failed);
    assert!(said.contains("app/gear.yaml"), "{said}");
    let b = push(env, 2);
    env.announce().await;
    env.ready_at("other", &b).await;
    env.failed_at("app", &b, "Widget").await;

    install().await;
    env.ready_at("app", &b).await;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(&group, "v1", "Widget"));
    let widgets: Api<DynamicObject> = Api::namespaced_with(env.client.clone(), &env.namespace, &kind);
    assert_eq!(json!(widgets.get("gear").await.expect("it is back"))["spec"]["size"], 2);
    // and is watched again
    widgets.delete("gear", &DeleteParams::default()).await.expect("somebody deletes it");
    env.eventually("it is put back", async || widgets.get_opt("gear").await.ok().flatten()).await;
    env.ready_at("app", &b).await;
    definitions.delete(&name, &DeleteParams::default()).await.expect("the scenario takes it away");
}
