//! From Flux to Afresh, and from one Afresh to the next: nothing is done that need not be.

use std::process::Output;

use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::env::{Cluster, Env};
use crate::support::manifests::{config_map, deployment};
use crate::support::scenarios;

scenarios! {
    the_check_of_a_migration_names_what_is_not_served_and_changes_nothing,
    objects_that_flux_applied_are_adopted_without_a_restart,
    a_namespace_in_the_file_of_a_cluster_scoped_object_counts_for_nothing,
    after_an_upgrade_nothing_is_applied_again,
}

/// `afresh migrate --check` as a person runs it, with rights to read everything.
async fn check(env: &Env, more: &[&str]) -> Output {
    let kubeconfig = match &env.cluster {
        Cluster::Sandbox(_) => env.kubeconfig().to_owned(),
        Cluster::Real(plane) => plane.kubeconfig().to_owned(),
    };
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_afresh"));
    command.args(["migrate", "--check", "--flux-namespace", &env.namespace]).args(more);
    command.env_clear().env("HOME", env.folder()).arg("--kubeconfig").arg(kubeconfig).output().await.unwrap()
}

async fn the_check_of_a_migration_names_what_is_not_served_and_changes_nothing(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a")), ("app/gone.yaml", &config_map("gone", "a"))])
        .await;
    env.daemon.take().unwrap().stop().await.unwrap();
    env.kustomization("remote", |spec| spec["kubeConfig"] = json!({ "secretRef": { "name": "elsewhere" } })).await;
    env.objects("ConfigMap").delete("gone", &Default::default()).await.unwrap();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "source-controller-leader-election" },
        "spec": { "holderIdentity": "source-controller-1", "leaseDurationSeconds": 35 },
    });
    let lease: DynamicObject = serde_json::from_value(lease).unwrap();
    let params = PatchParams::apply("flux").force();
    env.objects("Lease").patch("source-controller-leader-election", &params, &Patch::Apply(lease)).await.unwrap();

    let before = writes(env).await;
    let output = check(env, &["-o", "json"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of_ours = |list: &Value| -> Vec<Value> {
        let all = list.as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|found| found["namespace"] == *env.namespace).collect()
    };
    let unserved = of_ours(&report["unserved"]);
    assert_eq!(unserved.len(), 1, "{report:#}");
    assert_eq!((&unserved[0]["name"], &unserved[0]["reasons"]), (&json!("remote"), &json!(["`spec.kubeConfig`"])));
    assert_eq!(of_ours(&report["served"]).len(), 2, "the source and the application: {report:#}");
    let app = of_ours(&report["applications"]).into_iter().find(|app| app["name"] == "app").unwrap();
    assert_eq!(app["adopted"], 1);
    assert!(app["absent"][0].as_str().unwrap().contains("gone"), "{app}");
    assert!(report["leases"].to_string().contains("source-controller-1"), "{report:#}");

    let text = String::from_utf8(check(env, &[]).await.stdout).unwrap();
    for words in ["`spec.kubeConfig`", "stands by while `source-controller-1`", "kustomization files"] {
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(writes(env).await, before, "a check only reads");
}

/// What programs of ours wrote so far.
async fn writes(env: &Env) -> Vec<String> {
    match &env.cluster {
        Cluster::Sandbox(_) => {
            let reads = ["get ", "list ", "watch "];
            let all = env.requests_of_the_daemon().await;
            all.into_iter().filter(|request| !reads.iter().any(|read| request.starts_with(read))).collect()
        }
        // of the administrator's requests with our user agent: the check's alone
        Cluster::Real(plane) => {
            let entries = plane.audit().unwrap();
            let ours = entries.iter().filter(|entry| {
                entry["user"]["username"] == "admin"
                    && entry["userAgent"].as_str().is_some_and(|a| a.starts_with("afresh"))
            });
            let writes =
                ours.filter(|entry| !["get", "list", "watch"].contains(&entry["verb"].as_str().unwrap_or_default()));
            writes.map(|entry| format!("{} {}", entry["verb"], entry["requestURI"])).collect()
        }
    }
}

async fn objects_that_flux_applied_are_adopted_without_a_restart(env: &mut Env) {
    // as kustomize-controller leaves an object: its manager, its labels, nothing of ours
    let mut object: Value = serde_json::from_str(&deployment("web", "web:1")).unwrap();
    object["metadata"]["labels"] = json!({
        "kustomize.toolkit.fluxcd.io/name": "app", "kustomize.toolkit.fluxcd.io/namespace": env.namespace,
    });
    object["metadata"]["namespace"] = json!(env.namespace);
    let params = PatchParams::apply("kustomize-controller").force();
    env.objects("Deployment").patch("web", &params, &Patch::Apply(&object)).await.unwrap();
    let before = env.until_live("Deployment", "web", "it runs", |web| web["status"]["availableReplicas"] == 1).await;

    let running = pods(env).await;
    env.begin(&[("app/web.yaml", &deployment("web", "web:1"))]).await;
    let after = env.live("Deployment", "web").await.unwrap();
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(before["spec"], after["spec"]);
    assert_eq!(pods(env).await, running, "nothing is rolled");
}

/// The API server takes no notice of it, and Flux records it.
async fn a_namespace_in_the_file_of_a_cluster_scoped_object_counts_for_nothing(env: &mut Env) {
    let name = format!("reader-{}", env.namespace);
    let role = |verb: &str, namespace: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": name, "namespace": namespace },
            "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": [verb] }],
        })
        .to_string()
    };
    let applied: Value = serde_json::from_str(&role("get", "anywhere")).unwrap();
    let params = PatchParams::apply("kustomize-controller").force();
    let roles = env.cluster_objects("ClusterRole");
    let before = roles.patch(&name, &params, &Patch::Apply(&applied)).await.expect("the server takes it");

    let first = env.push("A", &[("app/role.yaml", &role("get", "anywhere"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    let id = format!("anywhere_{name}_rbac.authorization.k8s.io_ClusterRole");
    let recorded = json!({ "status": { "inventory": { "entries": [{ "id": id, "v": "v1" }] } } });
    let status = PatchParams::default();
    env.kustomizations().patch_status("app", &status, &Patch::Merge(recorded)).await.unwrap();
    env.start();
    let app = env.ready_at("app", &first).await;
    let entries = app.status.and_then(|status| status.inventory).unwrap_or_default().entries;
    assert_eq!(entries[0].id, format!("_{name}_rbac.authorization.k8s.io_ClusterRole"));
    assert_eq!(entries.len(), 1, "{entries:?}");

    let second = env.push("B", &[("app/role.yaml", &role("list", "elsewhere"))]);
    env.announce().await;
    env.ready_at("app", &second).await;
    let after = roles.get(&name).await.expect("it stays");
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert_eq!(after.data["rules"][0]["verbs"], json!(["list"]));

    let third = env.push_changes("C", &[("app/role.yaml", None), ("app/kept.yaml", Some(&config_map("kept", "a")))]);
    env.announce().await;
    env.ready_at("app", &third).await;
    assert!(roles.get_opt(&name).await.unwrap().is_none(), "it is deleted with its file");
}

/// The uids of all Pods.
async fn pods(env: &Env) -> Vec<Option<String>> {
    let list = env.objects("Pod").list(&Default::default()).await.unwrap();
    list.items.into_iter().map(|pod| pod.metadata.uid).collect()
}

/// What another version leaves behind: other words in conditions, other fields in our state, an annotation more.
async fn after_an_upgrade_nothing_is_applied_again(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a")), ("app/web.yaml", &deployment("web", "web:1"))])
        .await;
    env.until_live("Deployment", "web", "available", |web| web["status"]["availableReplicas"] == 1).await;
    env.daemon.take().unwrap().stop().await.unwrap();
    let other = json!({ "metadata": { "annotations": {
        "afresh.dev/state": r#"{"jobs":{},"ofAnotherVersion":{"build":"0.0.9"}}"#, "afresh.dev/unknown": "x",
    } } });
    env.kustomizations().patch("app", &PatchParams::default(), &Patch::Merge(other)).await.unwrap();
    let versions = async |env: &Env| {
        let mut all = Vec::new();
        for (kind, name) in [("ConfigMap", "settings"), ("Deployment", "web")] {
            all.push(env.live(kind, name).await.unwrap()["metadata"]["resourceVersion"].clone());
        }
        all
    };
    let before = versions(env).await;
    // another build: nothing is in its cache, and it calls itself otherwise in Leases
    let successor = env.start_replica("upgraded", env.kubeconfig());
    let token = env.request_now("app").await;
    env.until("app", "the request is echoed", |app| {
        app.status.as_ref().and_then(|status| status.last_handled_reconcile_at.as_deref()) == Some(&token)
    })
    .await;
    assert_eq!(versions(env).await, before);
    successor.stop().await.unwrap();
}
