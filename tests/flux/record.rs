//! Writes down what Flux is and what it does, for scenarios that run without it. Only with `AFRESH_RECORD`: tests/flux/record.

use std::path::Path;
use std::process::Stdio;

use afresh::manifest::yaml;
use afresh::plan::Inventory;
use anyhow::ensure;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

use crate::controllers;
use crate::served::Served;
use crate::support::flux::{self, COMMIT, COMPONENTS, NAMESPACE, URL};

fn asked_for() -> bool {
    let asked = std::env::var_os("AFRESH_RECORD").is_some();
    if !asked {
        println!("skipped: tests/flux/record records");
    }
    asked
}

/// `gotk-components.yaml`: definitions and Deployments of the two controllers as their release ships them, labelled and
/// bound as `flux install` does.
#[tokio::test]
#[ignore = "writes tests/flux; tests/flux/record runs it"]
async fn the_manifests_of_flux() {
    if !asked_for() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let home = controllers::home().unwrap();
    for name in ["source-controller", "kustomize-controller"] {
        let copied = std::process::Command::new("cp")
            .arg("-r")
            .arg(home.join(format!("{name}.config")))
            .arg(folder.path().join(name))
            .status();
        assert!(copied.unwrap().success());
    }
    let bound = |name: &str| json!({ "kind": "ServiceAccount", "name": name, "namespace": NAMESPACE });
    let account = |name: &str| json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name } });
    let more = [
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }),
        account("source-controller"),
        account("kustomize-controller"),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": format!("cluster-reconciler-{NAMESPACE}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [bound("kustomize-controller"), bound("source-controller")],
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "allow-egress" },
            "spec": { "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [{}], "ingress": [{ "from": [{ "podSelector": {} }] }] },
        }),
    ];
    let more: Vec<_> = more.iter().map(Value::to_string).collect();
    std::fs::write(folder.path().join("more.yaml"), more.join("\n---\n")).unwrap();
    let account_of = |name: &str| {
        let patch = json!([{ "op": "add", "path": "/spec/template/spec/serviceAccountName", "value": name }]);
        json!({ "target": { "kind": "Deployment", "name": name }, "patch": patch.to_string() })
    };
    let kustomization = json!({
        "namespace": NAMESPACE,
        "resources": [
            "more.yaml",
            "source-controller/crd", "source-controller/manager",
            "kustomize-controller/crd", "kustomize-controller/manager",
        ],
        "labels": [{
            "pairs": {
                "app.kubernetes.io/instance": NAMESPACE, "app.kubernetes.io/part-of": "flux",
                "app.kubernetes.io/version": "v2.9.5",
            },
            "includeTemplates": true,
        }],
        "patches": [account_of("source-controller"), account_of("kustomize-controller")],
    });
    std::fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string()).unwrap();
    let kubectl = Path::new(&std::env::var_os("KUBEBUILDER_ASSETS").unwrap()).join("kubectl");
    let built =
        std::process::Command::new(kubectl).arg("kustomize").arg(folder.path()).stderr(Stdio::inherit()).output();
    let built = built.unwrap();
    assert!(built.status.success());
    let documents = yaml::documents("components.yaml", &built.stdout).unwrap();
    let mut text =
        String::from("# Flux v2.9.5, source-controller and kustomize-controller. Written by tests/flux/record.\n");
    for document in documents {
        let mut value = document.value;
        without_descriptions(&mut value);
        text.push_str("---\n");
        text.push_str(&yaml::write(&value));
    }
    std::fs::write(flux::folder().join("platform").join(COMPONENTS), text).unwrap();
}

/// The words of others are left out; they say nothing to a machine.
fn without_descriptions(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("description").is_some_and(Value::is_string) {
                fields.remove("description");
            }
            fields.values_mut().for_each(without_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(without_descriptions),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes tests/flux; tests/flux/record runs it"]
async fn what_flux_leaves_in_a_cluster() {
    if !asked_for() {
        return;
    }
    let served = Served::by_flux("record").await;
    let objects = recorded(&served).await.unwrap();
    let commit = served.commit();
    let text = serde_json::to_string_pretty(&objects).unwrap();
    let text = text.replace(&served.url(), URL).replace(&commit, COMMIT);
    std::fs::write(flux::folder().join("cluster.json"), text + "\n").unwrap();
}

/// The source, the Kustomizations, and all that is in their inventories, in an order in which they can be made.
async fn recorded(served: &Served) -> anyhow::Result<Vec<Value>> {
    let client = &served.env.client;
    let mut objects = Vec::new();
    let kustomizations = flux::objects(client, "kustomize.toolkit.fluxcd.io/v1", "Kustomization", NAMESPACE);
    for kustomization in kustomizations.list(&ListParams::default()).await? {
        let status: Value = kustomization.data["status"].clone();
        let (inventory, unreadable) =
            Inventory::read(serde_json::from_value(status["inventory"].clone()).ok().as_ref());
        ensure!(unreadable.is_empty(), "{unreadable:?}");
        for (id, version) in inventory.iter() {
            let api_version = if id.group.is_empty() { version.clone() } else { format!("{}/{version}", id.group) };
            let found = flux::objects(client, &api_version, &id.kind, &id.namespace).get(&id.name).await?;
            objects.push(bare(found));
        }
    }
    let rank = |object: &Value| match object["kind"].as_str().unwrap_or_default() {
        "CustomResourceDefinition" => 0,
        "Namespace" => 1,
        "GitRepository" => 3,
        "Kustomization" => 4,
        _ => 2,
    };
    objects.sort_by_key(|object| (rank(object), object["kind"].to_string(), object["metadata"]["name"].to_string()));
    Ok(objects)
}

/// Without what a server gives to each object anew. The status of what Flux does not report on is the controllers'.
fn bare(found: DynamicObject) -> Value {
    let mut object = json!(found);
    let of_flux = object["apiVersion"].as_str().is_some_and(|version| version.contains("toolkit.fluxcd.io"));
    let metadata = object["metadata"].as_object_mut().expect("metadata");
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
        metadata.remove(field);
    }
    if !of_flux {
        let fields = metadata["managedFields"].as_array_mut().expect("managed fields");
        fields.retain(|entry| entry["subresource"] != "status");
        object.as_object_mut().expect("an object").remove("status");
    }
    if let Some(artifact) = object.pointer_mut("/status/artifact") {
        let path = artifact["path"].as_str().unwrap_or_default();
        artifact["url"] = format!("http://source-controller.{NAMESPACE}.svc.cluster.local./{path}").into();
    }
    for allocated in ["clusterIP", "clusterIPs"] {
        if object["kind"] == "Service" {
            object["spec"].as_object_mut().expect("a spec").remove(allocated);
        }
    }
    // who prepared the cluster of the test is not Flux
    object["metadata"]["managedFields"].as_array_mut().expect("managed fields").retain(|e| e["manager"] != "scenario");
    object
}
