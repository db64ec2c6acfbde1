//! How the server says no, and which class that becomes.

use afresh::api::APPLY_MANAGER;
use afresh::cluster::{ErrorClass, Propagation};
use serde_json::json;

use crate::{Bench, object};

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_of_a_real_server_has_its_class() {
    let Some(bench) = Bench::new("refusals").await else { return };
    let pod = |more| json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [more]}}});
    let deployment = |spec| bench.plain("apps/v1", "Deployment", "web", json!({"spec": spec}));
    let unknown = |path: &str| ErrorClass::UnknownField { paths: vec![path.to_owned()] };

    let cases = [
        (deployment(json!({"foo": 1})), unknown(".spec.foo")),
        (
            deployment(pod(json!({"name": "web", "image": "i", "ports": [{"containerPort": 80, "zork": 1}]}))),
            unknown(".spec.template.spec.containers[name=\"web\"].ports[containerPort=80,protocol=\"TCP\"].zork"),
        ),
        (deployment(json!({"replicas": "3"})), ErrorClass::BadRequest),
        (bench.plain("example.org/v1", "Nothing", "a", json!({})), ErrorClass::NoSuchKind),
        (bench.plain("apps/v9", "Deployment", "a", json!({})), ErrorClass::NoSuchKind),
    ];
    for (value, class) in cases {
        let error = bench.apply_as(APPLY_MANAGER, &value).await.unwrap_err();
        assert_eq!(error.class, class, "{error}");
        assert!(!error.is_transient(), "{error}");
    }

    let mut elsewhere = bench.plain("v1", "ConfigMap", "a", json!({}));
    elsewhere["metadata"]["namespace"] = json!("not-there");
    assert_eq!(bench.apply_as(APPLY_MANAGER, &elsewhere).await.unwrap_err().class, ErrorClass::NamespaceMissing);

    let invalid = bench.apply_as(APPLY_MANAGER, &deployment(pod(json!({"image": "i"})))).await.unwrap_err();
    let ErrorClass::Invalid { causes } = &invalid.class else { panic!("{invalid:?}") };
    assert!(causes.iter().any(|c| c.field == "spec.template.spec.containers[0].name"), "{causes:?}");

    let job = |image: &str| {
        let spec =
            json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}}});
        bench.plain("batch/v1", "Job", "job", json!({"spec": spec}))
    };
    bench.apply_as(APPLY_MANAGER, &job("a")).await.unwrap();
    let immutable = bench.apply_as(APPLY_MANAGER, &job("b")).await.unwrap_err();
    assert!(immutable.is_only_immutable());
    assert_eq!(immutable.message, "Job.batch \"job\" is invalid: spec.template: field is immutable");

    let kept = object(job("a")).id;
    let kind = bench.cluster.resolve("batch", "Job", None).await.unwrap();
    let other = bench.cluster.delete(&kind, &kept, "another-uid", Propagation::Background).await.unwrap_err();
    assert_eq!(other.class, ErrorClass::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_of_a_secret_comes_back_in_a_refusal() {
    let Some(bench) = Bench::new("secret-refusals").await else { return };
    for data in [
        json!({"data": {"a": 1_234_567}}),
        json!({"data": {"a": "hunter2!"}}),
        json!({"stringData": {"a": {"password": "hunter2"}}}),
        json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "aHVudGVyMg=="}}),
    ] {
        let error = bench.apply_as(APPLY_MANAGER, &bench.plain("v1", "Secret", "s", data)).await.unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(["hunter2", "1234567", "aHVudGVy"].iter().all(|value| !told.contains(value)), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_aggregated_api_does_not_break_discovery() {
    let Some(bench) = Bench::new("dead-api").await else { return };
    let mut dead = bench.plain(
        "apiregistration.k8s.io/v1",
        "APIService",
        "v1.dead.example.org",
        json!({"spec": {"group": "dead.example.org", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
            "insecureSkipTLSVerify": true, "service": {"name": "nobody", "namespace": "default"}}}),
    );
    dead["metadata"].as_object_mut().unwrap().remove("namespace");
    bench.apply_as(APPLY_MANAGER, &dead).await.unwrap();
    bench.cluster.discover().await.unwrap();
    let deployment = bench.cluster.resource("apps", "Deployment", None).unwrap();
    assert_eq!((&*deployment.plural, &*deployment.version, deployment.namespaced), ("deployments", "v1", true));
    assert!(!bench.cluster.resource("authorization.k8s.io", "SubjectAccessReview", None).unwrap().watchable);
    let error = bench.cluster.resolve("dead.example.org", "Thing", Some("v1")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unreachable, "absence can't be told from silence");
    let id = object(dead).id;
    let kind = bench.cluster.resolve(&id.group, &id.kind, None).await.unwrap();
    let uid = bench.cluster.get_seen(&kind, &id).await.unwrap().unwrap().uid;
    bench.cluster.delete(&kind, &id, &uid, Propagation::Background).await.unwrap();
}
