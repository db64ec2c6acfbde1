//! What `kubectl apply -k` installs in one namespace: enough, and nothing that isn't needed. Only a real API server knows
//! rights.

use std::path::Path;

use afresh::manifest::yaml;
use serde_json::{Value, json};

use crate::support::env::{Cluster, Env};
use crate::support::installation;
use crate::support::manifests::{config_map, deployment};
use crate::support::rights::{self, Request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_one_namespace_rights_in_that_namespace_suffice() {
    let Some(mut env) = Env::on_real_server("in-one-namespace").await else { return };
    let Cluster::Real(plane) = env.cluster else { unreachable!() };
    let namespace = env.namespace.clone();
    let folder = env.folder().join("overlay");
    let overlay = installation::apply_overlay(
        plane,
        &folder,
        |refer| json!({ "namespace": namespace, "resources": [refer("namespaced")] }),
    );
    overlay.await.unwrap();
    env.use_kubeconfig(installation::kubeconfig_of(plane, &env.namespace).await.unwrap());

    let begun = plane.audit().unwrap().len();
    let widening = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "wide" },
        "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["update", "deletecollection"] }],
    });
    let bound = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "wide" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "wide" },
        "subjects": [{ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "somebody" }],
    });
    env.begin(&[
        ("app/settings.yaml", &config_map("settings", "a")),
        ("app/web.yaml", &deployment("web", "web:1")),
        ("app/role.yaml", &widening.to_string()),
        ("app/binding.yaml", &bound.to_string()),
    ])
    .await;
    env.until_live("Deployment", "web", "available", |web| web["status"]["availableReplicas"] == 1).await;
    env.push("B", &[("app/settings.yaml", &config_map("other", "a"))]);
    env.announce().await;
    env.until_gone("ConfigMap", "settings").await;
    // with what it gives up at its end; nothing so far was refused
    env.daemon.take().unwrap().stop().await.unwrap();
    let requests = rights::requests_of(plane, begun, &env.namespace);
    env.start();

    let outside = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "outside" } });
    let c = env.push("C", &[("outside/namespace.yaml", &outside.to_string())]);
    env.announce().await;
    env.kustomization("outside", |_| {}).await;
    // `targetNamespace` renames it, as kustomize does
    env.failed_at("outside", &c, &format!("outside/namespace.yaml:1: Namespace/{}", env.namespace)).await;
    let elsewhere = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "there", "namespace": "default" },
    });
    let d = env.push("D", &[("elsewhere/there.yaml", &elsewhere.to_string())]);
    env.announce().await;
    env.kustomization("elsewhere", |spec| spec["targetNamespace"] = Value::Null).await;
    env.failed_at("elsewhere", &d, "ConfigMap/default/there").await;
    // it goes on serving what it may
    env.ready_at("app", &d).await;
    env.daemon.take().unwrap().stop().await.unwrap();

    let rules = rights::rules_in(&installation::manifests().join("namespaced/role.yaml"), &env.namespace);
    let group = "rbac.authorization.k8s.io";
    let trials = [
        Request::trial("create", "", "configmaps", &env.namespace, yaml_of(&config_map("trial", "a"))),
        Request::trial("escalate", group, "roles", &env.namespace, renamed(&widening)),
        Request::trial("bind", group, "roles", &env.namespace, renamed(&bound)),
    ];
    let all: Vec<_> = requests.into_iter().chain(trials).collect();
    rights::each_is_needed(plane, &env.client, &rules, &Vec::new(), &all).await;
}

fn yaml_of(text: &str) -> Value {
    yaml::documents("object.yaml", text.as_bytes()).unwrap().remove(0).value
}

fn renamed(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"]["name"] = "trial".into();
    object
}

#[test]
fn the_definitions_in_the_manifests_are_those_of_the_program() {
    let path = installation::manifests().join("crds/afresh.yaml");
    let shipped = std::fs::read_to_string(&path).unwrap();
    assert!(
        shipped == afresh::api::definitions_yaml(),
        "{} is outdated: cargo run -- crds > manifests/crds/afresh.yaml",
        Path::new("manifests/crds/afresh.yaml").display()
    );
}
