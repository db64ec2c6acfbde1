//! Workloads come to life: the kubelet and the sandbox's controllers, beside the real controllers.

#[allow(dead_code, reason = "each test binary uses its part of the environment")]
#[path = "../support/mod.rs"]
mod support;

use afresh::sandbox::kubelet::BEHAVIOUR;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use support::env::Env;
use support::manifests::{deployment, job};
use support::scenarios;

scenarios! {
    a_deployment_rolls_from_a_crash_loop_to_an_image_that_works,
    a_pod_becomes_ready_when_its_behaviour_changes,
    a_job_completes_and_one_that_fails_says_so,
    a_finished_job_is_removed_after_its_time_to_live,
    a_stateful_set_starts_its_pods_in_order_and_updates_them,
    a_daemon_set_has_a_pod_on_the_node,
    deleting_a_deployment_removes_its_pods,
}

async fn apply(env: &Env, manifest: &str) {
    let object: Value = serde_json::from_str(manifest).unwrap();
    let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
    let params = PatchParams::apply("test").force();
    env.objects(kind).patch(name, &params, &Patch::Apply(&object)).await.unwrap();
}

fn is_rolled_out(deployment: &Value) -> bool {
    let status = &deployment["status"];
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"]
            .iter()
            .all(|field| status[field] == deployment["spec"]["replicas"])
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// The Pods whose label `app` is `name`.
async fn pods(env: &Env, name: &str) -> Vec<Value> {
    let pods = env.objects("Pod").list(&Default::default()).await.unwrap();
    let pods = pods.items.into_iter().map(|pod| serde_json::to_value(pod).unwrap());
    pods.filter(|pod| pod["metadata"]["labels"]["app"] == name).collect()
}

async fn a_deployment_rolls_from_a_crash_loop_to_an_image_that_works(env: &mut Env) {
    apply(env, &deployment("web", "web:1")).await;
    env.until_live("Deployment", "web", "rolled out", is_rolled_out).await;

    apply(env, &deployment("web", "web:2-crash")).await;
    env.eventually("a container restarts", async || {
        let pods = pods(env, "web").await;
        let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        pods.iter().find(|pod| restarts(pod) > Some(1)).cloned()
    })
    .await;
    let stuck = env.live("Deployment", "web").await.unwrap();
    assert_eq!(stuck["status"]["unavailableReplicas"], 1, "{stuck:#}");
    assert_eq!(stuck["status"]["availableReplicas"], 1, "the old Pod serves on: {stuck:#}");

    apply(env, &deployment("web", "web:3")).await;
    env.until_live("Deployment", "web", "rolled out", is_rolled_out).await;
    let images: Vec<_> = pods(env, "web").await;
    assert!(images.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "web:3"), "{images:#?}");
}

async fn a_pod_becomes_ready_when_its_behaviour_changes(env: &mut Env) {
    let mut web: Value = serde_json::from_str(&deployment("web", "web:1")).unwrap();
    web["spec"]["template"]["metadata"]["annotations"] = json!({ BEHAVIOUR: "image-pull-error" });
    web["spec"]["progressDeadlineSeconds"] = json!(1);
    apply(env, &web.to_string()).await;
    let stuck = env
        .until_live("Deployment", "web", "it makes no progress", |web| {
            condition(web, "Progressing")["reason"] == "ProgressDeadlineExceeded"
        })
        .await;
    assert_eq!(condition(&stuck, "Available")["status"], "False");

    // the first failed pull is told as ErrImagePull
    let pod = env
        .eventually("the kubelet waits before it pulls again", async || {
            let reason = "/status/containerStatuses/0/state/waiting/reason";
            pods(env, "web")
                .await
                .into_iter()
                .find(|pod| pod.pointer(reason).is_some_and(|reason| reason == "ImagePullBackOff"))
        })
        .await;
    let heal = json!({ "metadata": { "annotations": { BEHAVIOUR: "ready" } } });
    let name = pod["metadata"]["name"].as_str().unwrap();
    env.objects("Pod").patch(name, &PatchParams::default(), &Patch::Merge(heal)).await.unwrap();
    let healed = env.until_live("Deployment", "web", "rolled out", is_rolled_out).await;
    assert_eq!(condition(&healed, "Available")["status"], "True");
}

async fn a_job_completes_and_one_that_fails_says_so(env: &mut Env) {
    apply(env, &job("good", "migrate:1", 600)).await;
    let good = env.until_live("Job", "good", "complete", |job| condition(job, "Complete")["status"] == "True").await;
    assert_eq!(good["status"]["succeeded"], 1);

    let mut bad: Value = serde_json::from_str(&job("bad", "migrate:crash", 600)).unwrap();
    bad["spec"]["backoffLimit"] = json!(0);
    apply(env, &bad.to_string()).await;
    let bad = env.until_live("Job", "bad", "failed", |job| condition(job, "Failed")["status"] == "True").await;
    assert_eq!(condition(&bad, "Failed")["reason"], "BackoffLimitExceeded");
}

async fn a_finished_job_is_removed_after_its_time_to_live(env: &mut Env) {
    apply(env, &job("once", "migrate:1", 0)).await;
    env.until_gone("Job", "once").await;
}

async fn a_stateful_set_starts_its_pods_in_order_and_updates_them(env: &mut Env) {
    let set = |image: &str| {
        let mut set: Value = serde_json::from_str(&deployment("db", image)).unwrap();
        set["kind"] = "StatefulSet".into();
        set["spec"]["serviceName"] = "db".into();
        set["spec"]["replicas"] = 2.into();
        set.to_string()
    };
    let is_updated = |set: &Value| {
        let status = &set["status"];
        status["observedGeneration"] == set["metadata"]["generation"]
            && status["readyReplicas"] == 2
            && status["updatedReplicas"] == 2
            && status["currentRevision"] == status["updateRevision"]
    };
    apply(env, &set("db:1")).await;
    let first = env.until_live("StatefulSet", "db", "ready", is_updated).await;
    apply(env, &set("db:2")).await;
    let second = env.until_live("StatefulSet", "db", "updated", is_updated).await;
    assert_ne!(first["status"]["currentRevision"], second["status"]["currentRevision"]);
    for name in ["db-0", "db-1"] {
        assert_eq!(env.live("Pod", name).await.unwrap()["spec"]["containers"][0]["image"], "db:2");
    }
}

async fn a_daemon_set_has_a_pod_on_the_node(env: &mut Env) {
    let mut set: Value = serde_json::from_str(&deployment("agent", "agent:1")).unwrap();
    set["kind"] = "DaemonSet".into();
    set["spec"].as_object_mut().unwrap().remove("replicas");
    apply(env, &set.to_string()).await;
    env.until_live("DaemonSet", "agent", "ready", |set| {
        let status = &set["status"];
        status["desiredNumberScheduled"] == 1 && status["numberReady"] == 1 && status["numberAvailable"] == 1
    })
    .await;
}

async fn deleting_a_deployment_removes_its_pods(env: &mut Env) {
    apply(env, &deployment("web", "web:1")).await;
    env.until_live("Deployment", "web", "rolled out", is_rolled_out).await;
    env.objects("Deployment").delete("web", &DeleteParams::background()).await.unwrap();
    env.eventually("no pods are left", async || pods(env, "web").await.is_empty().then_some(())).await;
}
