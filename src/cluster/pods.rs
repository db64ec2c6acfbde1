//! Pods and ReplicaSets of a namespace, watched only while someone asks why a workload is not healthy.
//!
//! They carry no label of ours; they are found by their owner references: Deployment ← ReplicaSet ← Pod, and
//! StatefulSet, DaemonSet, Job ← Pod.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::connection::Cluster;
use super::discovery::ApiKind;
use super::reduced::{SeenCondition, lenient_list, lenient_struct, lenient_text, text_or_empty};
use super::seen::Seen;
use super::watch::{Collection, WatchEvent, Watchable, Watcher};

/// What is kept of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSeen {
    pub name: Box<str>,
    pub uid: Box<str>,
    resource_version: Box<str>,
    /// The uid of the controlling ReplicaSet, StatefulSet, DaemonSet or Job.
    controller: Option<Box<str>>,
    /// The label `controller-revision-hash`.
    revision: Option<Box<str>>,
    pub deleting: bool,
    pub created: Option<Timestamp>,
    pub phase: Box<str>,
    /// The condition `PodScheduled`.
    pub scheduled: Option<SeenCondition>,
    /// Init containers first, in order.
    pub containers: Vec<ContainerSeen>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSeen {
    pub name: Box<str>,
    pub init: bool,
    pub ready: bool,
    pub restarts: u32,
    /// Reason and message while it waits.
    pub waiting: Option<(Box<str>, Box<str>)>,
    pub running_since: Option<Timestamp>,
    /// How it ended, if it has ended.
    pub ended: Option<Ending>,
    /// How it ended the time before.
    pub ended_before: Option<Ending>,
}

/// How a container ended. Its message is left out: it may be the end of its log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Ending {
    #[serde(deserialize_with = "text_or_empty")]
    pub reason: Box<str>,
    pub exit_code: i32,
    pub signal: i32,
}

/// Pods of namespaces, each watched while a [`PodWatch`] of it lives.
#[derive(Clone)]
pub struct Pods {
    cluster: Cluster,
    namespaces: Arc<Mutex<HashMap<String, Weak<Namespace>>>>,
}

/// Keeps one namespace watched. Clones share the watches.
#[derive(Clone)]
pub struct PodWatch(Arc<Namespace>);

struct Namespace {
    contents: Arc<Contents>,
    tasks: [AbortHandle; 2],
}

/// Written by the two watches.
struct Contents {
    state: Mutex<State>,
    bell: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    pods: HashMap<Box<str>, Arc<PodSeen>>,
    replica_sets: HashMap<Box<str>, ReplicaSet>,
    pods_listed: bool,
    replica_sets_listed: bool,
}

struct ReplicaSet {
    uid: Box<str>,
    controller: Box<str>,
    /// `deployment.kubernetes.io/revision`: the newest is the one that is being rolled out.
    revision: u64,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Pods {
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, namespaces: Arc::default() }
    }

    /// Watches the namespace for as long as the answer or a clone of it lives.
    pub fn watch(&self, namespace: &str) -> PodWatch {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = namespaces.get(namespace).and_then(Weak::upgrade) {
            return PodWatch(watched);
        }
        let contents = Arc::new(Contents { state: Mutex::default(), bell: watch::Sender::new(0) });
        let collection = |group: &str, kind: &str, plural: &str, metadata_only| Collection {
            namespace: Some(namespace.to_owned()),
            metadata_only,
            ..Collection::all(ApiKind::new(group, "v1", kind, plural, true))
        };
        let pods = Watcher::new(self.cluster.clone(), collection("", "Pod", "pods", false));
        let sets = Watcher::new(self.cluster.clone(), collection("apps", "ReplicaSet", "replicasets", true));
        let tasks = self.cluster.tasks();
        let tasks = [
            tasks.spawn(format!("the watch of `pods` in `{namespace}`"), follow_pods(pods, contents.clone())),
            tasks.spawn(
                format!("the watch of `replicasets.apps` in `{namespace}`"),
                follow_replica_sets(sets, contents.clone()),
            ),
        ];
        let watched = Arc::new(Namespace { contents, tasks });
        namespaces.retain(|_, other| other.strong_count() > 0);
        namespaces.insert(namespace.to_owned(), Arc::downgrade(&watched));
        PodWatch(watched)
    }
}

impl PodWatch {
    /// Waits until all Pods of the namespace are known; false if they were not within the time.
    pub async fn listed(&self, within: Duration) -> bool {
        let mut bell = self.changes();
        let listed = async {
            loop {
                {
                    let state = self.0.contents.state();
                    if state.pods_listed && state.replica_sets_listed {
                        return true;
                    }
                }
                if bell.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(within, listed).await.unwrap_or(false)
    }

    /// A bell that rings whenever a Pod or a ReplicaSet of the namespace changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.contents.bell.subscribe()
    }

    /// The Pods of a workload in order of their names: of a Deployment those of its newest ReplicaSet, of a StatefulSet
    /// those of its newest revision if there are any.
    pub fn of(&self, workload: &Seen) -> Vec<Arc<PodSeen>> {
        self.0.contents.state().of(workload)
    }
}

impl Contents {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.bell.send_modify(|n| *n += 1);
    }
}

impl State {
    fn of(&self, workload: &Seen) -> Vec<Arc<PodSeen>> {
        let mut found: Vec<Arc<PodSeen>> = match workload.id.kind.as_str() {
            "Pod" => self.pods.values().filter(|pod| pod.uid == workload.uid).cloned().collect(),
            "Deployment" => {
                let sets = || self.replica_sets.values().filter(|set| set.controller == workload.uid);
                let newest = sets().map(|set| set.revision).max();
                let newest: Vec<&str> =
                    sets().filter(|set| Some(set.revision) == newest).map(|set| &*set.uid).collect();
                self.controlled_by(|uid| newest.contains(&uid))
            }
            _ => self.controlled_by(|uid| uid == &*workload.uid),
        };
        let revision = workload.health.as_ref().and_then(|h| h.status.update_revision.as_deref());
        if found.iter().any(|pod| revision.is_some() && pod.revision.as_deref() == revision) {
            found.retain(|pod| pod.revision.as_deref() == revision);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    fn controlled_by(&self, is: impl Fn(&str) -> bool) -> Vec<Arc<PodSeen>> {
        self.pods.values().filter(|pod| pod.controller.as_deref().is_some_and(&is)).cloned().collect()
    }
}

async fn follow_pods(mut watcher: Watcher<WirePod>, contents: Arc<Contents>) {
    loop {
        match watcher.next().await {
            WatchEvent::Listed { items, .. } => contents.change(|state| {
                state.pods = items.into_iter().map(reduced).collect();
                state.pods_listed = true;
            }),
            WatchEvent::Changed(pod) => contents.change(|state| {
                let (name, pod) = reduced(pod);
                state.pods.insert(name, pod);
            }),
            WatchEvent::Deleted(pod) => contents.change(|state| {
                state.pods.remove(&pod.metadata.name);
            }),
            WatchEvent::Resumed => {}
            WatchEvent::Lost { error, .. } => tracing::debug!(%error, "the watch of pods is down"),
        }
    }
}

fn reduced(pod: WirePod) -> (Box<str>, Arc<PodSeen>) {
    (pod.metadata.name.clone(), Arc::new(pod.into_seen()))
}

async fn follow_replica_sets(mut watcher: Watcher<WireReplicaSet>, contents: Arc<Contents>) {
    loop {
        match watcher.next().await {
            WatchEvent::Listed { items, .. } => contents.change(|state| {
                state.replica_sets =
                    items.into_iter().filter_map(|set| Some((set.metadata.name.clone(), set.into_seen()?))).collect();
                state.replica_sets_listed = true;
            }),
            WatchEvent::Changed(set) => contents.change(|state| {
                let name = set.metadata.name.clone();
                match set.into_seen() {
                    Some(set) => state.replica_sets.insert(name, set),
                    None => state.replica_sets.remove(&name),
                };
            }),
            WatchEvent::Deleted(set) => contents.change(|state| {
                state.replica_sets.remove(&set.metadata.name);
            }),
            WatchEvent::Resumed => {}
            WatchEvent::Lost { error, .. } => tracing::debug!(%error, "the watch of replica sets is down"),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WirePod {
    metadata: OwnedMeta,
    status: WirePodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireReplicaSet {
    metadata: OwnedMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OwnedMeta {
    name: Box<str>,
    uid: Box<str>,
    resource_version: Box<str>,
    deletion_timestamp: Option<Box<str>>,
    creation_timestamp: Option<Timestamp>,
    owner_references: Vec<OwnerReference>,
    labels: Option<Labels>,
    annotations: Option<Annotations>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OwnerReference {
    uid: Box<str>,
    controller: bool,
}

#[derive(Default, Deserialize)]
struct Labels {
    #[serde(default, rename = "controller-revision-hash")]
    revision: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(default, rename = "deployment.kubernetes.io/revision")]
    revision: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WirePodStatus {
    #[serde(deserialize_with = "text_or_empty")]
    phase: Box<str>,
    #[serde(deserialize_with = "lenient_list")]
    conditions: Vec<SeenCondition>,
    #[serde(deserialize_with = "lenient_list")]
    init_container_statuses: Vec<WireContainer>,
    #[serde(deserialize_with = "lenient_list")]
    container_statuses: Vec<WireContainer>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireContainer {
    #[serde(deserialize_with = "text_or_empty")]
    name: Box<str>,
    ready: bool,
    restart_count: u32,
    #[serde(deserialize_with = "lenient_struct")]
    state: Option<WireState>,
    #[serde(deserialize_with = "lenient_struct")]
    last_state: Option<WireState>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireState {
    #[serde(deserialize_with = "lenient_struct")]
    waiting: Option<Waiting>,
    #[serde(deserialize_with = "lenient_struct")]
    running: Option<RunningState>,
    #[serde(deserialize_with = "lenient_struct")]
    terminated: Option<Ending>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Waiting {
    #[serde(deserialize_with = "text_or_empty")]
    reason: Box<str>,
    #[serde(deserialize_with = "text_or_empty")]
    message: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RunningState {
    #[serde(deserialize_with = "lenient_text")]
    started_at: Option<Box<str>>,
}

impl OwnedMeta {
    fn controller(&self) -> Option<Box<str>> {
        self.owner_references.iter().find(|owner| owner.controller).map(|owner| owner.uid.clone())
    }
}

impl WirePod {
    fn into_seen(self) -> PodSeen {
        let WirePod { metadata, status } = self;
        let containers = status.init_container_statuses.into_iter().map(|c| c.into_seen(true));
        PodSeen {
            controller: metadata.controller(),
            revision: metadata.labels.and_then(|l| l.revision),
            name: metadata.name,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            deleting: metadata.deletion_timestamp.is_some(),
            created: metadata.creation_timestamp,
            phase: status.phase,
            scheduled: status.conditions.into_iter().find(|c| &*c.kind == "PodScheduled"),
            containers: containers.chain(status.container_statuses.into_iter().map(|c| c.into_seen(false))).collect(),
        }
    }
}

impl WireContainer {
    fn into_seen(self, init: bool) -> ContainerSeen {
        let state = self.state.unwrap_or_default();
        ContainerSeen {
            name: self.name,
            init,
            ready: self.ready,
            restarts: self.restart_count,
            waiting: state.waiting.map(|w| (w.reason, w.message)),
            running_since: state.running.and_then(|r| r.started_at).and_then(|at| at.parse().ok()),
            ended: state.terminated,
            ended_before: self.last_state.and_then(|s| s.terminated),
        }
    }
}

impl WireReplicaSet {
    /// `None` if nothing controls it.
    fn into_seen(self) -> Option<ReplicaSet> {
        let controller = self.metadata.controller()?;
        let revision = self.metadata.annotations.and_then(|a| a.revision).and_then(|r| r.parse().ok()).unwrap_or(0);
        Some(ReplicaSet { uid: self.metadata.uid, controller, revision })
    }
}

impl Watchable for WirePod {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl Watchable for WireReplicaSet {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

#[cfg(test)]
impl PodSeen {
    /// A Pod as the API server would tell it.
    pub fn from_json(pod: &serde_json::Value) -> Self {
        serde_json::from_value::<WirePod>(pod.clone()).unwrap().into_seen()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Reduced;
    use crate::manifest::ObjectId;
    use serde_json::{Value, json};

    fn workload(kind: &str, uid: &str) -> Seen {
        let id = ObjectId::new("apps", kind, "shop", "web");
        Seen { uid: uid.into(), health: Some(Box::default()), ..Seen::bare(id) }
    }

    fn state(pods: &[(&str, &str, &str)], sets: &[(&str, &str, &str)]) -> State {
        let owner = |uid: &str| json!([{"uid": uid, "controller": true, "kind": "x"}]);
        let mut state = State::default();
        for (name, controller, revision) in pods {
            let pod = json!({"metadata": {"name": name, "uid": name, "ownerReferences": owner(controller), "labels": {"controller-revision-hash": revision}}});
            let (name, pod) = reduced(serde_json::from_value(pod).unwrap());
            state.pods.insert(name, pod);
        }
        for (name, controller, revision) in sets {
            let set: Value = json!({"metadata": {"name": name, "uid": name, "ownerReferences": owner(controller), "annotations": {"deployment.kubernetes.io/revision": revision}}});
            let set: WireReplicaSet = serde_json::from_value(set).unwrap();
            state.replica_sets.insert((*name).into(), set.into_seen().unwrap());
        }
        state
    }

    #[test]
    fn pods_are_found_by_their_owners_and_only_the_newest_revision_counts() {
        let state = state(
            &[
                ("old-1", "old", ""),
                ("new-2", "new", ""),
                ("new-1", "new", ""),
                ("db-0", "db", "a"),
                ("db-1", "db", "b"),
                ("job-1", "job", ""),
            ],
            &[("old", "web", "9"), ("new", "web", "10"), ("other", "foreign", "11")],
        );
        let names = |workload: &Seen| state.of(workload).iter().map(|pod| pod.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&workload("Deployment", "web")), ["new-1", "new-2"]);
        assert_eq!(names(&workload("Job", "job")), ["job-1"]);
        assert_eq!(names(&workload("StatefulSet", "db")), ["db-0", "db-1"]);
        let mut rolling = workload("StatefulSet", "db");
        let mut health = Reduced::default();
        health.status.update_revision = Some("b".into());
        rolling.health = Some(Box::new(health));
        assert_eq!(names(&rolling), ["db-1"]);
    }
}
