//! Apply and deletion against a real server.

use std::sync::Mutex;

use afresh::api::{OWNER_NAME_LABEL, OWNER_NAMESPACE_LABEL, PRUNE};
use afresh::apply::{Action, ApplyError, Kept, Stop, UnknownFields};
use afresh::cluster::{ErrorClass, OwnerKey};
use afresh::manifest::ObjectId;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{Bench, eventually, object, work};

fn definition(group: &str) -> Value {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}});
    json!({"spec": {
        "group": group, "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
    }})
}

fn deployment(container: Value) -> Value {
    json!({"spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}},
    }})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_brings_its_own_kind_and_namespace_is_applied_in_one_go() {
    let Some(bench) = Bench::new("bootstrap").await else { return };
    let crd = bench.declared(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "widgets.bootstrap.example.org",
        "d",
        definition("bootstrap.example.org"),
    );
    let namespace = bench.declared("v1", "Namespace", "bootstrap-made", "d", json!({}));
    let mut widget =
        (*bench.declared("bootstrap.example.org/v1", "Widget", "w", "d", json!({"spec": {"size": 1}}))).clone();
    widget.value["metadata"]["namespace"] = json!("bootstrap-made");
    widget.id = ObjectId::new("bootstrap.example.org", "Widget", "bootstrap-made", "w");
    let told = Mutex::new(Vec::new());
    let applied = bench
        .applier
        .apply(&work([widget.clone().into(), crd, namespace]), &Stop::default(), |p| {
            told.lock().unwrap().push(p.objects)
        })
        .await
        .unwrap();
    assert!(applied.objects.iter().all(|o| o.action == Action::Created), "{applied:?}");
    assert_eq!(*told.lock().unwrap(), [1, 2, 2, 3, 3]);

    let mut typo = widget;
    typo.value["spec"]["sise"] = json!(1);
    let error = bench.applier.apply(&work([typo.into()]), &Stop::default(), |_| {}).await.unwrap_err();
    let ApplyError::Refused { refusals, .. } = error else { panic!("{error}") };
    assert_eq!(refusals[0].error.class, ErrorClass::UnknownField { paths: vec![".spec.sise".into()] });
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_of_built_in_kinds_are_dropped_and_named_unless_they_are_to_be_refused() {
    let Some(bench) = Bench::new("unknown-fields").await else { return };
    let container = json!({"name": "web", "image": "i", "imagePulPolicy": "Always", "ports": [{"containerPort": 80, "prot": "TCP"}]});
    let mut typos = deployment(container);
    typos["spec"]["replica"] = json!(2);
    let web = bench.declared("apps/v1", "Deployment", "web", "d", typos);
    let config = bench.config_map("config", "d", json!({"a": "b"}));

    let mut strict = work([web.clone(), config.clone()]);
    strict.unknown_fields = UnknownFields::Refuse;
    let error = bench.applier.apply(&strict, &Stop::default(), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("Deployment/unknown-fields/web (app.yaml:1): "), "{error}");
    assert_eq!(bench.live(&web.id).await, None);

    let applied = bench.applier.apply(&work([web.clone(), config]), &Stop::default(), |_| {}).await.unwrap();
    let outcome = applied.objects.iter().find(|o| o.id == web.id).unwrap();
    let mut dropped: Vec<&str> = outcome.dropped.iter().map(|d| d.path.as_str()).collect();
    dropped.sort_unstable();
    let container = ".spec.template.spec.containers[name=\"web\"]";
    assert_eq!(
        dropped,
        [
            ".spec.replica".to_owned(),
            format!("{container}.imagePulPolicy"),
            format!("{container}.ports[containerPort=80,protocol=\"TCP\"].prot"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refusal_in_a_stage_and_nothing_of_the_stage_is_sent() {
    let Some(bench) = Bench::new("all-or-nothing").await else { return };
    let good = bench.config_map("good", "d", json!({"a": "b"}));
    let bad = bench.config_map("BAD_NAME", "d", json!({}));
    let worse = bench.declared("v1", "Service", "worse", "d", json!({"spec": {"ports": [{"port": 0}]}}));
    let earlier = bench.declared("v1", "Namespace", "all-or-nothing-earlier", "d", json!({}));
    let set = [good.clone(), bad, worse, earlier.clone()];
    let error = bench.applier.apply(&work(set), &Stop::default(), |_| {}).await.unwrap_err();
    let ApplyError::Refused { refusals, applied } = &error else { panic!("{error}") };
    let refused: Vec<&str> = refusals.iter().map(|r| r.id.name.as_str()).collect();
    assert_eq!(refused, ["BAD_NAME", "worse"]);
    assert_eq!(applied.iter().map(|o| &o.id).collect::<Vec<_>>(), [&earlier.id], "stages before it stay");
    assert_eq!(bench.live(&good.id).await, None);
    assert!(!error.is_transient());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_can_not_be_changed_is_recreated_only_if_it_is_ours() {
    let Some(bench) = Bench::new("jobs").await else { return };
    let spec = |image: &str| json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}}}});
    let job = |image: &str| bench.declared("batch/v1", "Job", "migrate", image, spec(image));
    let config = || bench.config_map("config", "d", json!({}));
    bench.applier.apply(&work([job("one"), config()]), &Stop::default(), |_| {}).await.unwrap();
    let before = bench.live(&job("one").id).await.unwrap();
    // the workload stage holds two objects, so the job is dry-run first
    let other = bench.declared("batch/v1", "Job", "other", "d", spec("x"));
    let applied = bench.applier.apply(&work([job("two"), other]), &Stop::default(), |_| {}).await.unwrap();
    assert_eq!(applied.objects.iter().map(|o| o.action).collect::<Vec<_>>(), [Action::Recreated, Action::Created]);
    let after = bench.live(&job("two").id).await.unwrap();
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["spec"]["template"]["spec"]["containers"][0]["image"], "two");

    bench.apply_as("someone", &bench.plain("batch/v1", "Job", "foreign", spec("one"))).await.unwrap();
    let foreign = bench.declared("batch/v1", "Job", "foreign", "d", spec("two"));
    let error = bench.applier.apply(&work([foreign.clone()]), &Stop::default(), |_| {}).await.unwrap_err();
    assert!(matches!(&error, ApplyError::Refused { refusals, .. } if refusals[0].error.is_only_immutable()), "{error}");
    assert!(bench.live(&foreign.id).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubectl_applied_before_becomes_ours_so_that_a_field_removed_from_git_goes() {
    let Some(bench) = Bench::new("adoption").await else { return };
    let mut before = bench.plain("v1", "ConfigMap", "config", json!({"data": {"keep": "1", "gone": "2"}}));
    before["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}"});
    let id = object(before.clone()).id;
    let kind = bench.cluster.resolve("", "ConfigMap", None).await.unwrap();
    bench.cluster.create(&kind, &id, &before, "kubectl-client-side-apply").await.unwrap();
    bench.patch_as("hand", &id, json!({"data": {"foreign": "3"}})).await;

    let declared = bench.config_map("config", "d", json!({"keep": "1"}));
    let applied = bench.applier.apply(&work([declared.clone()]), &Stop::default(), |_| {}).await.unwrap();
    assert!(!applied.objects[0].seen.foldable);
    let live = bench.live(&id).await.unwrap();
    assert_eq!(live["data"], json!({"keep": "1", "foreign": "3"}), "what other managers hold stays");
    assert_eq!(
        live["metadata"]["annotations"].as_object().unwrap().len(),
        1,
        "kubectl's note of its last apply is gone"
    );

    let again = bench.applier.apply(&work([declared]), &Stop::default(), |_| {}).await.unwrap();
    assert_eq!(again.objects[0].seen.resource_version, applied.objects[0].seen.resource_version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_attempt_sends_nothing_more() {
    let Some(bench) = Bench::new("stopped").await else { return };
    let stop = Stop::default();
    stop.now.cancel();
    let config = bench.config_map("config", "d", json!({}));
    let (applier, set, owner) = (bench.applier.clone(), work([config.clone()]), bench.owner.clone());
    let ids = [config.id.clone()];
    // in a task of its own, as the engine does it
    let attempt = tokio::spawn(async move {
        let pruned = applier.delete_all(&ids, &owner, &stop.now).await;
        (applier.apply(&set, &stop, |_| {}).await, pruned)
    });
    let (applied, pruned) = attempt.await.unwrap();
    assert!(matches!(applied, Err(ApplyError::Stopped { .. })));
    assert_eq!(pruned.left, std::slice::from_ref(&config.id));
    assert_eq!(bench.live(&config.id).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_carries_the_owners_labels_is_deleted() {
    let Some(bench) = Bench::new("deletion").await else { return };
    let mine = bench.config_map("mine", "d", json!({}));
    let mut kept = (*bench.config_map("kept", "d", json!({}))).clone();
    kept.value["metadata"]["annotations"][PRUNE] = json!("Disabled");
    let mut moved = (*bench.config_map("moved", "d", json!({}))).clone();
    moved.value["metadata"]["labels"] = json!({OWNER_NAME_LABEL: "another", OWNER_NAMESPACE_LABEL: "flux-system"});
    for object in [&*mine, &kept, &moved] {
        bench.apply_as("kustomize-controller", &object.value).await.unwrap();
    }
    let gone = ObjectId::new("", "ConfigMap", bench.namespace.as_str(), "gone");
    let unserved = ObjectId::new("example.org", "Nothing", bench.namespace.as_str(), "a");
    let ids = [mine.id.clone(), kept.id.clone(), moved.id.clone(), gone.clone(), unserved.clone()];
    let pruned = bench.applier.delete_all(&ids, &bench.owner, &CancellationToken::new()).await;
    assert_eq!(pruned.deleted, std::slice::from_ref(&mine.id));
    let mut left = pruned.kept;
    left.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        left,
        [
            (gone, Kept::Absent),
            (kept.id.clone(), Kept::Marked),
            (moved.id.clone(), Kept::NotOurs),
            (unserved, Kept::Absent),
        ]
    );
    eventually("the object is gone", async || bench.live(&mine.id).await.is_none()).await;
    assert!(bench.live(&kept.id).await.is_some() && bench.live(&moved.id).await.is_some());
    let stranger = OwnerKey::new("flux-system", "stranger");
    let pruned = bench.applier.delete_all(&[kept.id], &stranger, &CancellationToken::new()).await;
    assert_eq!(pruned.kept[0].1, Kept::NotOurs);
}
