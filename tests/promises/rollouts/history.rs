//! What the history of workloads needs stays.

use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

use super::{container, rolled_out, workload};
use crate::support::env::{Cluster, Env};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    configuration_with_a_hashed_name_stays_while_an_old_replica_set_needs_it,
    configuration_with_a_hashed_name_stays_while_a_controller_revision_needs_it,
}

async fn configuration_with_a_hashed_name_stays_while_an_old_replica_set_needs_it(env: &mut Env) {
    let names = ["settings-2fgh4tkd6c", "settings-b7mk2c8f5t", "settings-9h6d4gtcbm"];
    let web = |map: &str| {
        let pod = container(json!({ "envFrom": [{ "configMapRef": { "name": map } }] }));
        workload("Deployment", "web", &json!({}), &pod)
    };
    env.begin(&[("app/settings.yaml", &config_map(names[0], "0")), ("app/web.yaml", &web(names[0]))]).await;
    rolled_out(env, "web").await;
    for (n, name) in names.iter().enumerate().skip(1) {
        let files = [("app/settings.yaml", config_map(name, &n.to_string())), ("app/web.yaml", web(name))];
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let revision = env.push(name, &files);
        env.announce().await;
        env.ready_at("app", &revision).await;
        assert!(env.live("ConfigMap", names[n - 1]).await.is_some(), "the ReplicaSet before needs it");
        rolled_out(env, "web").await;
    }
    let oldest = env.eventually("there are three ReplicaSets", async || {
        let all = env.objects("ReplicaSet").list(&ListParams::default().labels("app=web")).await.unwrap();
        let of_first = |set: &&kube::api::DynamicObject| json!(set).to_string().contains(names[0]);
        if all.items.len() == 3 { all.items.iter().find(of_first).cloned() } else { None }
    });
    let oldest = oldest.await;
    // as the controller does once there are more than `revisionHistoryLimit`
    let name = oldest.metadata.name.as_deref().unwrap_or_default();
    env.objects("ReplicaSet").delete(name, &DeleteParams::default()).await.unwrap();
    env.reconcile("app").await;
    env.until_gone("ConfigMap", names[0]).await;
    assert!(env.live("ConfigMap", names[1]).await.is_some(), "`kubectl rollout undo` would need it");
}

async fn configuration_with_a_hashed_name_stays_while_a_controller_revision_needs_it(env: &mut Env) {
    let names = ["settings-2fgh4tkd6c", "settings-b7mk2c8f5t"];
    let db = |map: &str| {
        workload(
            "StatefulSet",
            "db",
            &json!({}),
            &container(json!({ "envFrom": [{ "configMapRef": { "name": map } }] })),
        )
    };
    env.begin(&[("app/settings.yaml", &config_map(names[0], "0")), ("app/db.yaml", &db(names[0]))]).await;
    let set = env
        .until_live("StatefulSet", "db", "it runs", |found| {
            found["status"]["observedGeneration"] == 1 && found["status"]["availableReplicas"] == 1
        })
        .await;
    if let Cluster::Sandbox(_) = env.cluster {
        // as the controller keeps it, which the sandbox has not
        let revision = json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1,
            "metadata": { "name": "db-1", "labels": { "app": "db" }, "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": set["metadata"]["uid"], "controller": true,
            }] },
            "data": { "spec": { "template": set["spec"]["template"] } },
        });
        let revision = serde_json::from_value(revision).unwrap();
        env.objects("ControllerRevision").create(&PostParams::default(), &revision).await.unwrap();
    }
    let of_first = async |env: &Env| {
        let all = env.objects("ControllerRevision").list(&ListParams::default().labels("app=db")).await.unwrap();
        all.items.into_iter().find(|one| json!(one).to_string().contains(names[0]))
    };
    let revision = env.push("B", &[("app/settings.yaml", &config_map(names[1], "1")), ("app/db.yaml", &db(names[1]))]);
    env.announce().await;
    env.ready_at("app", &revision).await;
    env.until_live("StatefulSet", "db", "it runs anew", |found| {
        let status = &found["status"];
        status["observedGeneration"] == 2 && status["updatedReplicas"] == 1 && status["availableReplicas"] == 1
    })
    .await;
    env.reconcile("app").await;
    assert!(env.live("ConfigMap", names[0]).await.is_some(), "a rollback would need it");
    let old = env.eventually("there is a revision of it", async || of_first(env).await).await;
    let name = old.metadata.name.unwrap_or_default();
    env.objects("ControllerRevision").delete(&name, &DeleteParams::default()).await.unwrap();
    env.reconcile("app").await;
    env.until_gone("ConfigMap", names[0]).await;
}
