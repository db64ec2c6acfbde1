//! Objects are created, read, changed and listed as on a real API server.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::{CONFIG_MAPS, DEPLOYMENTS, cluster, config_map, deployment};

#[tokio::test]
async fn an_object_is_created_read_and_changed_through_kubes_client() {
    let c = cluster().await;
    let api: Api<ConfigMap> = Api::namespaced(c.client.clone(), "default");
    let made = serde_json::from_value(config_map("a", &json!({"k": "v"}))).unwrap();
    let made = api.create(&PostParams::default(), &made).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    let read = api.get("a").await.unwrap();
    assert_eq!(read, made);
    let patch = json!({"data": {"k": "w"}});
    let changed = api.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(changed.data.unwrap()["k"], "w");
    assert_ne!(changed.metadata.resource_version, made.metadata.resource_version);
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn refusals_carry_the_codes_reasons_and_details_of_kubernetes() {
    let c = cluster().await;
    let missing = c.get(&format!("{CONFIG_MAPS}/x")).await;
    assert_eq!((missing.code, missing.reason()), (404, "NotFound"));
    assert_eq!(missing.message(), "configmaps \"x\" not found");
    assert_eq!(missing.body["details"], json!({"name": "x", "kind": "configmaps"}));

    let made = c.post(CONFIG_MAPS, &config_map("x", &json!({}))).await;
    assert_eq!(made.code, 201);
    let twice = c.post(CONFIG_MAPS, &config_map("x", &json!({}))).await;
    assert_eq!((twice.code, twice.reason()), (409, "AlreadyExists"));

    let mut stale = made.body.clone();
    assert_eq!(c.merge(&format!("{CONFIG_MAPS}/x"), &json!({"data": {"a": "b"}})).await.code, 200);
    stale["data"] = json!({"a": "c"});
    let conflict = c.put(&format!("{CONFIG_MAPS}/x"), &stale).await;
    assert_eq!((conflict.code, conflict.reason()), (409, "Conflict"));
    assert_eq!(
        conflict.message(),
        "Operation cannot be fulfilled on configmaps \"x\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );

    let nowhere = c.post("/api/v1/namespaces/nowhere/configmaps", &config_map("x", &json!({}))).await;
    assert_eq!((nowhere.code, nowhere.message()), (404, "namespaces \"nowhere\" not found"));

    let bad_name = c.post(CONFIG_MAPS, &config_map("Not_Valid", &json!({}))).await;
    assert_eq!((bad_name.code, bad_name.reason()), (422, "Invalid"));
    assert_eq!(bad_name.body["details"]["causes"][0]["field"], "metadata.name");

    let mut mismatch = config_map("x", &json!({}));
    mismatch["apiVersion"] = json!("v2");
    let mismatch = c.post(CONFIG_MAPS, &mismatch).await;
    assert_eq!(mismatch.code, 400);

    let method = c.post(&format!("{CONFIG_MAPS}/x"), &json!({})).await;
    assert_eq!((method.code, method.reason()), (405, "MethodNotAllowed"));
    assert_eq!(c.get("/apis/nothing.example.com/v1/things").await.code, 404);
    let patch = c.send("PATCH", &format!("{CONFIG_MAPS}/x"), "text/plain", &json!({})).await;
    assert_eq!((patch.code, patch.reason()), (415, "UnsupportedMediaType"));
}

#[tokio::test]
async fn a_change_that_changes_nothing_is_no_write() {
    let c = cluster().await;
    let made = c.post(DEPLOYMENTS, &deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web");
    let same = c.merge(&path, &json!({"spec": {"replicas": 1}})).await;
    assert_eq!(same.body["metadata"]["resourceVersion"], made.body["metadata"]["resourceVersion"]);
    let applied = c.apply(&path, &deployment("web")).await;
    let again = c.apply(&path, &deployment("web")).await;
    assert_eq!(again.code, 200, "{again:?}");
    assert_eq!(again.body["metadata"]["resourceVersion"], applied.body["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn the_generation_counts_changes_of_the_spec_only() {
    let c = cluster().await;
    let path = format!("{DEPLOYMENTS}/web");
    let generation = |raw: &crate::support::Raw| raw.body["metadata"]["generation"].as_i64();
    assert_eq!(generation(&c.post(DEPLOYMENTS, &deployment("web")).await), Some(1));
    assert_eq!(generation(&c.merge(&path, &json!({"metadata": {"labels": {"a": "b"}}})).await), Some(1));
    assert_eq!(generation(&c.merge(&path, &json!({"spec": {"replicas": 2}})).await), Some(2));
    let status = c.merge(&format!("{path}/status"), &json!({"status": {"replicas": 2}, "spec": {"replicas": 7}})).await;
    assert_eq!((generation(&status), status.body["spec"]["replicas"].as_i64()), (Some(2), Some(2)));
    let spec = c.merge(&path, &json!({"status": {"replicas": 9}})).await;
    assert_eq!(spec.body["status"]["replicas"], 2);
    // Deployments count annotations too: they are copied to their ReplicaSets
    assert_eq!(generation(&c.merge(&path, &json!({"metadata": {"annotations": {"a": "b"}}})).await), Some(3));
    assert_eq!(c.post(CONFIG_MAPS, &config_map("x", &json!({}))).await.body["metadata"].get("generation"), None);
}

#[tokio::test]
async fn lists_are_selected_cut_and_continued() {
    let c = cluster().await;
    for i in 0..5 {
        let mut map = config_map(&format!("m{i}"), &json!({}));
        map["metadata"]["labels"] = json!({"odd": (i % 2 == 1).to_string()});
        assert_eq!(c.post(CONFIG_MAPS, &map).await.code, 201);
    }
    let api: Api<ConfigMap> = Api::namespaced(c.client.clone(), "default");
    assert_eq!(api.list(&ListParams::default().labels("odd=true")).await.unwrap().items.len(), 2);
    assert_eq!(api.list(&ListParams::default().labels("odd notin (true)")).await.unwrap().items.len(), 3);
    assert_eq!(api.list(&ListParams::default().fields("metadata.name=m3")).await.unwrap().items.len(), 1);
    let mut names = Vec::new();
    let mut token = None;
    loop {
        let mut params = ListParams::default().limit(2);
        params.continue_token = token;
        let page = api.list(&params).await.unwrap();
        names.extend(page.items.into_iter().filter_map(|m| m.metadata.name));
        token = page.metadata.continue_.filter(|t| !t.is_empty());
        if token.is_none() {
            break;
        }
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);
    let bad = c.get(&format!("{CONFIG_MAPS}?fieldSelector=data.x%3Dy")).await;
    assert_eq!(bad.code, 400);
}

#[tokio::test]
async fn metadata_only_answers_carry_no_values() {
    let c = cluster().await;
    c.post(CONFIG_MAPS, &config_map("a", &json!({"secret": "value"}))).await;
    let api: Api<ConfigMap> = Api::namespaced(c.client.clone(), "default");
    let list = api.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(list.items[0].metadata.name.as_deref(), Some("a"));
    assert_eq!(api.get_metadata("a").await.unwrap().metadata.name.as_deref(), Some("a"));
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let raw = c.send_as("GET", CONFIG_MAPS, "", accept, &json!(null)).await;
    assert_eq!(raw.body["kind"], "PartialObjectMetadataList");
    assert!(!raw.body.to_string().contains("value"));
}

#[tokio::test]
async fn a_dry_run_answers_and_stores_nothing() {
    let c = cluster().await;
    let made = c.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a", &json!({}))).await;
    assert_eq!(made.code, 201);
    assert_eq!(c.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    c.post(CONFIG_MAPS, &config_map("a", &json!({}))).await;
    let path = format!("{CONFIG_MAPS}/a?dryRun=All");
    assert_eq!(c.merge(&path, &json!({"data": {"a": "b"}})).await.body["data"]["a"], "b");
    assert_eq!(c.delete(&path).await.code, 200);
    assert!(c.get(&format!("{CONFIG_MAPS}/a")).await.body.pointer("/data/a").is_none());
}

#[tokio::test]
async fn every_write_is_refused_or_stored_once_under_contention() {
    let c = cluster().await;
    c.post(CONFIG_MAPS, &config_map("a", &json!({}))).await;
    let api: Api<ConfigMap> = Api::namespaced(c.client.clone(), "default");
    let writes = (0..20).map(|i| {
        let api = api.clone();
        async move {
            let patch = json!({"data": {format!("k{i}"): "v"}});
            api.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.is_ok()
        }
    });
    let stored = futures::future::join_all(writes).await.into_iter().filter(|ok| *ok).count();
    assert_eq!(api.get("a").await.unwrap().data.unwrap().len(), stored);
    assert!(stored > 0);
}

#[tokio::test]
async fn the_scale_of_a_deployment_is_read_and_written() {
    let c = cluster().await;
    c.post(DEPLOYMENTS, &deployment("web")).await;
    let api: Api<Deployment> = Api::namespaced(c.client.clone(), "default");
    let scale = api.get_scale("web").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(1));
    let patch = json!({"spec": {"replicas": 3}});
    api.patch_scale("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(api.get("web").await.unwrap().spec.unwrap().replicas, Some(3));
}

/// Without a version a patch is tried anew when somebody else was there first.
#[tokio::test(flavor = "multi_thread")]
async fn who_scales_beside_another_writer_is_not_refused() {
    let c = cluster().await;
    c.post(DEPLOYMENTS, &deployment("web")).await;
    let api: Api<Deployment> = Api::namespaced(c.client.clone(), "default");
    let (scaled, labelled) = (api.clone(), api);
    let params = PatchParams::default;
    let label = tokio::spawn(async move {
        for n in 0..300 {
            let patch = json!({"metadata": {"labels": {"n": n.to_string()}}});
            labelled.patch("web", &params(), &Patch::Merge(&patch)).await.unwrap();
        }
    });
    for n in 0..300 {
        let patch = json!({"spec": {"replicas": n}});
        scaled.patch_scale("web", &params(), &Patch::Merge(&patch)).await.unwrap();
    }
    label.await.unwrap();
}

#[tokio::test]
async fn a_cluster_starts_with_its_namespaces_and_their_accounts() {
    let c = cluster().await;
    let api: Api<Namespace> = Api::all(c.client.clone());
    let names: Vec<_> = api.list(&ListParams::default()).await.unwrap().items;
    let names: Vec<_> = names.into_iter().filter_map(|n| n.metadata.name).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    assert_eq!(c.get("/api/v1/namespaces/default/serviceaccounts/default").await.code, 200);
    assert_eq!(c.client.apiserver_version().await.unwrap().major, "1");
}

#[tokio::test]
async fn unknown_fields_are_dropped_with_a_warning_or_refused() {
    let c = cluster().await;
    let mut object = deployment("web");
    object["spec"]["replica"] = json!(3);
    let strict = c.post(&format!("{DEPLOYMENTS}?fieldValidation=Strict"), &object).await;
    assert_eq!((strict.code, strict.reason()), (400, "BadRequest"));
    let warned = c.post(DEPLOYMENTS, &object).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.warnings, [r#"299 - "unknown field \"spec.replica\"""#]);
    assert!(warned.body["spec"].get("replica").is_none());
    // server-side apply refuses whatever the level
    let applied = c.apply(&format!("{DEPLOYMENTS}/web"), &object).await;
    assert_eq!((applied.code, applied.reason()), (500, ""));
    assert!(applied.message().ends_with(".spec.replica: field not declared in schema"));
}

#[tokio::test]
async fn applied_fields_are_owned_and_go_when_they_are_no_longer_applied() {
    let c = cluster().await;
    let path = format!("{CONFIG_MAPS}/a");
    c.apply(&path, &config_map("a", &json!({"x": "1", "y": "2"}))).await;
    c.merge(&format!("{path}?fieldManager=other"), &json!({"data": {"z": "3"}})).await;
    let clash = format!("{path}?fieldManager=third");
    let clash = c.send("PATCH", &clash, "application/apply-patch+yaml", &config_map("a", &json!({"x": "9"}))).await;
    assert_eq!(clash.code, 409);
    assert_eq!(clash.message(), "Apply failed with 1 conflict: conflict with \"tester\": .data.x");
    let answer = c.apply(&path, &config_map("a", &json!({"x": "1"}))).await;
    assert_eq!(answer.body["data"], json!({"x": "1", "z": "3"}));
    let managers = answer.body["metadata"]["managedFields"].as_array().unwrap();
    let names: Vec<_> = managers.iter().map(|m| (m["manager"].as_str(), m["operation"].as_str())).collect();
    assert_eq!(names, [(Some("tester"), Some("Apply")), (Some("other"), Some("Update"))]);
}

#[tokio::test]
async fn access_reviews_say_that_everything_is_allowed() {
    let c = cluster().await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "create", "resource": "pods"}}});
    let answer = c.post(path, &review).await;
    assert_eq!((answer.code, &answer.body["status"]["allowed"]), (201, &json!(true)));
    assert_eq!(c.get(path).await.code, 405);
}

#[tokio::test]
async fn hostile_bodies_get_an_answer() {
    let c = cluster().await;
    for definition in afresh::api::definitions() {
        let definition = serde_json::to_value(definition).unwrap();
        c.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await;
    }
    let discovery = c.get("/apis").await.body;
    let groups = discovery["groups"].as_array().unwrap().iter();
    let mut versions: Vec<String> =
        groups.map(|g| format!("/apis/{}", g["preferredVersion"]["groupVersion"].as_str().unwrap())).collect();
    versions.push("/api/v1".into());
    let shapes = [json!(null), json!("x"), json!([]), json!([null]), json!({}), json!(7), json!({"a": {"b": []}})];
    for version in versions {
        for resource in c.get(&version).await.body["resources"].as_array().unwrap() {
            let (name, kind) = (resource["name"].as_str().unwrap(), &resource["kind"]);
            if name.contains('/') {
                continue;
            }
            let scope = if resource["namespaced"] == true { "/namespaces/default" } else { "" };
            let path = format!("{version}{scope}/{name}");
            let api_version = version.trim_start_matches("/apis/").trim_start_matches("/api/");
            for (i, shape) in shapes.iter().enumerate() {
                for field in ["metadata", "spec", "status", "data", "rules", "stringData", "webhooks"] {
                    let mut body =
                        json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": format!("n{i}")}});
                    body[field] = shape.clone();
                    // the answers differ; that there is one is what counts
                    c.post(&path, &body).await;
                    c.apply(&format!("{path}/n{i}"), &body).await;
                    c.merge(&format!("{path}/n{i}"), &body).await;
                }
            }
        }
    }
    assert_eq!(c.get("/readyz").await.code, 200);
}
