//! A node without containers: it binds every Pod to itself and writes the status that the Pod's behaviour asks for.
//!
//! In: the Pods of a cluster (the sandbox, or a real API server where no scheduler runs), or of one namespace.
//! Out: bindings, Pod statuses and the end of deleted Pods. It runs nothing and never touches another kind, but for
//! the one Node that it announces.
//!
//! A Pod says how it behaves by [`BEHAVIOUR`]; without it by the tag of its first image (`crash`, `missing`); else a
//! Pod of a Job completes and any other is ready. A changed annotation takes effect at once.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::follow::{Change, follow};

/// The annotation that selects a [`Behaviour`].
pub const BEHAVIOUR: &str = "sandbox.afresh.dev/behaviour";
/// Milliseconds from the binding of a Pod to its behaviour; it waits in `ContainerCreating` meanwhile.
pub const DELAY: &str = "sandbox.afresh.dev/delay-ms";
/// The node's name.
pub const NODE: &str = "sandbox";

const MANAGER: &str = "kubelet";
/// The first restart of a crash loop; doubles up to [`LAST_RESTART`]. A real kubelet begins with 10 s: nobody who tries
/// something out wants to wait for that.
const FIRST_RESTART: Duration = Duration::from_millis(250);
const LAST_RESTART: Duration = Duration::from_secs(10);
/// Pause before a failed request is made again.
const RETRY: Duration = Duration::from_millis(100);

/// What becomes of a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Ready,
    CrashLoop,
    ImagePullError,
    ConfigError,
    InitCrashLoop,
    /// Pending for ever.
    Never,
    Complete,
    Fail,
}

impl Behaviour {
    /// The value of the annotation; `None` if there is no such behaviour.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ready" => Self::Ready,
            "crash-loop" => Self::CrashLoop,
            "image-pull-error" => Self::ImagePullError,
            "config-error" => Self::ConfigError,
            "init-crash-loop" => Self::InitCrashLoop,
            "never" => Self::Never,
            "complete" => Self::Complete,
            "fail" => Self::Fail,
            _ => return None,
        })
    }

    fn of(pod: &Pod) -> Self {
        if let Some(asked) = pod.annotations().get(BEHAVIOUR).and_then(|text| Self::parse(text)) {
            return asked;
        }
        let job = pod.owner_references().iter().any(|owner| owner.kind == "Job");
        let image = pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.as_deref()).unwrap_or_default();
        let tag = image.rsplit('/').next().and_then(|name| name.split_once(':')).map_or("", |(_, tag)| tag);
        match (job, tag) {
            (true, tag) if tag.contains("crash") => Self::Fail,
            (false, tag) if tag.contains("crash") => Self::CrashLoop,
            (_, tag) if tag.contains("missing") => Self::ImagePullError,
            (true, _) => Self::Complete,
            (false, _) => Self::Ready,
        }
    }
}

/// Plays the kubelet of one node for all namespaces, or for one, until `cancel`.
pub async fn run(client: Client, namespace: Option<String>, cancel: CancellationToken) {
    let pods = match &namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut kubelet = Kubelet { client: client.clone(), pods: HashMap::new() };
    tokio::select! {
        () = cancel.cancelled() => {}
        _ = async {
            announce_node(client).await;
            follow(&pods, |change| kubelet.take_in(change)).await
        } => {}
    }
}

struct Kubelet {
    client: Client,
    /// By UID; written by `take_in` only. Dropping an entry ends its task.
    pods: HashMap<String, Played>,
}

struct Played {
    role: Role,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Live(Behaviour, Duration),
    End,
}

impl Kubelet {
    fn take_in(&mut self, change: Change<Pod>) {
        match change {
            Change::All(pods) => {
                let there: HashSet<_> = pods.iter().filter_map(ResourceExt::uid).collect();
                self.pods.retain(|uid, _| there.contains(uid));
                pods.into_iter().for_each(|pod| self.see(pod));
            }
            Change::Stored(pod) => self.see(pod),
            Change::Removed(pod) => {
                self.pods.remove(&pod.uid().unwrap_or_default());
            }
        }
    }

    fn see(&mut self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        let delay = pod.annotations().get(DELAY).and_then(|text| text.parse().ok()).unwrap_or_default();
        let role = match pod.metadata.deletion_timestamp {
            Some(_) => Role::End,
            None => Role::Live(Behaviour::of(&pod), Duration::from_millis(delay)),
        };
        if self.pods.get(&uid).is_some_and(|played| played.role == role) {
            return;
        }
        let api = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let task = tokio::spawn(async move {
            while let Err(error) = play(&api, &pod, role).await {
                if matches!(&error, kube::Error::Api(status) if status.code == 404) {
                    return;
                }
                tracing::debug!(pod = pod.name_any(), %error, "a request for a pod failed; again");
                tokio::time::sleep(RETRY).await;
            }
        });
        self.pods.insert(uid, Played { role, _task: AbortOnDropHandle::new(task) });
    }
}

async fn play(api: &Api<Pod>, pod: &Pod, role: Role) -> Result<(), kube::Error> {
    let Role::Live(behaviour, delay) = role else {
        return api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.map(drop);
    };
    bind(api, pod).await?;
    if !delay.is_zero() {
        write(api, pod, "Pending", &State::creating(), &State::creating()).await?;
        tokio::time::sleep(delay).await;
    }
    let done = State::Terminated { exit_code: 0, reason: "Completed" };
    let failed = State::Terminated { exit_code: 1, reason: "Error" };
    match behaviour {
        Behaviour::Ready => write(api, pod, "Running", &done, &State::Running).await,
        Behaviour::Complete => write(api, pod, "Succeeded", &done, &done).await,
        Behaviour::Fail => write(api, pod, "Failed", &done, &failed).await,
        Behaviour::Never => write(api, pod, "Pending", &State::creating(), &State::creating()).await,
        Behaviour::ConfigError => {
            let state = State::waiting("CreateContainerConfigError", "configmap \"settings\" not found");
            write(api, pod, "Pending", &done, &state).await
        }
        Behaviour::ImagePullError => {
            for reason in ["ErrImagePull", "ImagePullBackOff"] {
                let state = State::waiting(reason, "the registry has no such image");
                write(api, pod, "Pending", &done, &state).await?;
            }
            Ok(())
        }
        Behaviour::CrashLoop | Behaviour::InitCrashLoop => {
            let mut pause = FIRST_RESTART;
            for restarts in 1.. {
                let state = State::CrashLoop { restarts, pause };
                if behaviour == Behaviour::CrashLoop {
                    write(api, pod, "Running", &done, &state).await?;
                } else {
                    write(api, pod, "Pending", &state, &State::waiting("PodInitializing", "")).await?;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_RESTART);
            }
            Ok(())
        }
    }
}

async fn bind(api: &Api<Pod>, pod: &Pod) -> Result<(), kube::Error> {
    if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
        return Ok(());
    }
    let name = pod.name_any();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name },
        "target": { "apiVersion": "v1", "kind": "Node", "name": NODE },
    });
    match api.create_subresource::<_, Status>("binding", &name, &PostParams::default(), &binding).await {
        // Bound by an earlier try, or by someone else; or gone.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map(drop),
    }
}

/// The state of all containers of a Pod (or of all its init containers).
enum State {
    Running,
    Waiting { reason: &'static str, message: &'static str },
    Terminated { exit_code: i32, reason: &'static str },
    CrashLoop { restarts: i32, pause: Duration },
}

impl State {
    fn waiting(reason: &'static str, message: &'static str) -> Self {
        Self::Waiting { reason, message }
    }

    fn creating() -> Self {
        Self::waiting("ContainerCreating", "")
    }

    fn is_done(&self) -> bool {
        matches!(self, Self::Terminated { exit_code: 0, .. })
    }

    fn of(&self, container: &Container) -> Value {
        let ended = |code, reason| {
            let now = now();
            json!({ "terminated": { "exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now } })
        };
        let (state, last, restarts) = match self {
            Self::Running => (json!({ "running": { "startedAt": now() } }), json!({}), 0),
            Self::Waiting { reason, message } => {
                (json!({ "waiting": { "reason": reason, "message": message } }), json!({}), 0)
            }
            Self::Terminated { exit_code, reason } => (ended(*exit_code, *reason), json!({}), 0),
            Self::CrashLoop { restarts, pause } => {
                let message = format!("back-off {pause:?} restarting failed container={}", container.name);
                let state = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": message } });
                (state, ended(1, "Error"), *restarts)
            }
        };
        json!({
            "name": container.name,
            "image": container.image,
            "imageID": "",
            "ready": matches!(self, Self::Running),
            "started": matches!(self, Self::Running),
            "restartCount": restarts,
            "state": state,
            "lastState": last,
        })
    }
}

async fn write(api: &Api<Pod>, pod: &Pod, phase: &str, init: &State, main: &State) -> Result<(), kube::Error> {
    let status = json!({ "status": status(pod, phase, init, main) });
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    api.patch_status(&pod.name_any(), &params, &Patch::Merge(status)).await.map(drop)
}

fn status(pod: &Pod, phase: &str, init: &State, main: &State) -> Value {
    let now = now();
    let Some(spec) = &pod.spec else { return json!({ "phase": phase }) };
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let initialized = inits.is_empty() || init.is_done();
    let ready = initialized && matches!(main, State::Running);
    let condition = |name: &str, holds: bool, reason: &str| {
        let mut condition = json!({
            "type": name, "status": if holds { "True" } else { "False" }, "lastTransitionTime": now,
        });
        if !holds {
            condition["reason"] = reason.into();
        }
        condition
    };
    let unready = if main.is_done() { "PodCompleted" } else { "ContainersNotReady" };
    // Documentation addresses (RFC 5737) for the node, the usual Pod network for Pods.
    let [a, b] = address(&pod.uid().unwrap_or_default());
    let ip = format!("10.244.{a}.{b}");
    json!({
        "phase": phase,
        "startTime": pod.metadata.creation_timestamp.clone().map_or(now.clone(), |time| json!(time)),
        "hostIP": "192.0.2.1",
        "hostIPs": [{ "ip": "192.0.2.1" }],
        "podIP": ip,
        "podIPs": [{ "ip": ip }],
        "conditions": [
            condition("PodReadyToStartContainers", true, ""),
            condition("Initialized", initialized, "ContainersNotInitialized"),
            condition("Ready", ready, unready),
            condition("ContainersReady", ready, unready),
            condition("PodScheduled", true, ""),
        ],
        "initContainerStatuses": inits.iter().map(|container| init.of(container)).collect::<Vec<_>>(),
        "containerStatuses": spec.containers.iter().map(|container| main.of(container)).collect::<Vec<_>>(),
    })
}

/// Creates the Node and makes it ready; tries until it succeeds.
async fn announce_node(client: Client) {
    let nodes: Api<Node> = Api::all(client);
    let labels = json!({ "kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux" });
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE, "labels": labels } });
    let room = json!({ "cpu": "64", "memory": "256Gi", "pods": "5000" });
    let status = json!({ "status": {
        "capacity": room,
        "allocatable": room,
        "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }, { "type": "Hostname", "address": NODE }],
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "message": "no containers run on this node", "lastTransitionTime": now(), "lastHeartbeatTime": now(),
        }],
    }});
    let announce = async || {
        let node: Node = serde_json::from_value(node.clone()).map_err(kube::Error::SerdeError)?;
        match nodes.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => drop(other?),
        }
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        nodes.patch_status(NODE, &params, &Patch::Merge(status.clone())).await?;
        // Admission taints every new Node as not ready, and the controller that would see it ready may be absent.
        nodes.patch(NODE, &params, &Patch::Merge(json!({ "spec": { "taints": null } }))).await
    };
    while let Err(error) = announce().await {
        tracing::debug!(%error, "the node can't be announced yet");
        tokio::time::sleep(RETRY).await;
    }
}

fn now() -> Value {
    json!(Time(Timestamp::now()))
}

/// Two bytes that differ from Pod to Pod; collisions do no harm.
fn address(uid: &str) -> [u8; 2] {
    uid.bytes().fold(0u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotation: Option<&str>, image: &str, owner: Option<&str>) -> Pod {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "uid": "u" },
            "spec": { "containers": [{ "name": "c", "image": image }] },
        }))
        .unwrap();
        pod.metadata.annotations =
            annotation.map(|behaviour| [(BEHAVIOUR.to_owned(), behaviour.to_owned())].into_iter().collect());
        pod.metadata.owner_references = owner.map(|kind| {
            vec![serde_json::from_value(json!({ "apiVersion": "v1", "kind": kind, "name": "o", "uid": "o" })).unwrap()]
        });
        pod
    }

    #[test]
    fn a_pod_behaves_as_its_annotation_its_image_or_its_owner_says() {
        for (annotation, image, owner, behaviour) in [
            (None, "registry.example:5000/web:1.2", None, Behaviour::Ready),
            (None, "registry.example:5000/crash", None, Behaviour::Ready),
            (None, "web:1-crash", None, Behaviour::CrashLoop),
            (None, "web:crash", Some("Job"), Behaviour::Fail),
            (None, "web:missing", None, Behaviour::ImagePullError),
            (None, "web:1", Some("Job"), Behaviour::Complete),
            (None, "web:1", Some("ReplicaSet"), Behaviour::Ready),
            (Some("never"), "web:1", Some("Job"), Behaviour::Never),
            (Some("ready"), "web:crash", None, Behaviour::Ready),
            (Some("unheard of"), "web:crash", None, Behaviour::CrashLoop),
        ] {
            assert_eq!(Behaviour::of(&pod(annotation, image, owner)), behaviour, "{annotation:?} {image} {owner:?}");
        }
    }

    #[test]
    fn a_status_reads_as_a_real_pods() {
        let pod = pod(None, "web:1", None);
        let done = State::Terminated { exit_code: 0, reason: "Completed" };
        let read = |value: Value| serde_json::from_value::<k8s_openapi::api::core::v1::PodStatus>(value).unwrap();
        let ready = |status: &k8s_openapi::api::core::v1::PodStatus| {
            let conditions = status.conditions.as_ref().unwrap();
            conditions.iter().find(|condition| condition.type_ == "Ready").unwrap().status.clone()
        };

        let running = read(status(&pod, "Running", &done, &State::Running));
        assert_eq!(ready(&running), "True");

        let state = State::CrashLoop { restarts: 3, pause: FIRST_RESTART };
        let crashing = read(status(&pod, "Running", &done, &state));
        assert_eq!(ready(&crashing), "False");
        let container = &crashing.container_statuses.unwrap()[0];
        assert_eq!(container.restart_count, 3);
        let waiting = container.state.as_ref().unwrap().waiting.as_ref().unwrap();
        assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
        assert_eq!(container.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
    }
}
