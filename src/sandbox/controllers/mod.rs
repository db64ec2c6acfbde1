//! The controllers that turn workloads into Pods in the sandbox, as kube-controller-manager does in a cluster.
//!
//! ```text
//!  watches ─▶ mirrors (one per kind) ─▶ queues (one per controller) ─▶ reconcile ─▶ writes
//!                 ▲                                                        │
//!                 └────────────────── the answers to the writes ───────────┘
//! ```
//!
//! In: Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, claims and Services. Out: Pods, claims and statuses.
//! They look at what is, not at what happened; they never poll. A CronJob's schedule is kept but never runs. Owner
//! references and namespaces are cleaned up by the server itself; statuses of Pods are the kubelet's.

mod cluster;
mod conditions;
mod daemon_set;
mod deployment;
mod job;
mod load_balancer;
mod mirror;
mod pods;
mod queue;
mod replica_set;
mod stateful_set;
mod storage;

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use cluster::Cluster;
use mirror::{Mirror, controller_of, key_of};
use queue::Queue;

/// The kinds that are mirrored; nothing is reconciled before all of them were listed.
const MIRRORS: u32 = 9;

#[derive(Default)]
struct Queues {
    claims: Queue,
    daemon_sets: Queue,
    deployments: Queue,
    jobs: Queue,
    replica_sets: Queue,
    services: Queue,
    stateful_sets: Queue,
}

/// What all tasks share.
struct Controllers {
    cluster: Cluster,
    queues: Queues,
    /// One permit for each kind that is mirrored.
    listed: Semaphore,
}

/// Runs all controllers against the server of `client` until `cancel`.
pub async fn run(client: Client, cancel: CancellationToken) {
    let cluster = Cluster::new(client);
    let shared = Arc::new(Controllers { cluster, queues: Queues::default(), listed: Semaphore::new(0) });
    // Ends its tasks when it is dropped.
    let mut tasks = JoinSet::new();
    shared.mirror(&mut tasks);
    shared.reconcile(&mut tasks);
    cancel.cancelled().await;
}

impl Controllers {
    fn mirror(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        keep(tasks, self, |cluster| &cluster.pods, |all, pod| all.queues.owner_of_pod(pod));
        keep(
            tasks,
            self,
            |cluster| &cluster.replica_sets,
            |all, set| {
                all.queues.replica_sets.add(key_of(set));
                if let Some(owner) = controller_of(set) {
                    all.queues.deployments.add((set.namespace().unwrap_or_default(), owner.name.clone()));
                }
            },
        );
        keep(tasks, self, |cluster| &cluster.deployments, |all, it| all.queues.deployments.add(key_of(it)));
        keep(tasks, self, |cluster| &cluster.stateful_sets, |all, it| all.queues.stateful_sets.add(key_of(it)));
        keep(tasks, self, |cluster| &cluster.daemon_sets, |all, it| all.queues.daemon_sets.add(key_of(it)));
        keep(tasks, self, |cluster| &cluster.jobs, |all, it| all.queues.jobs.add(key_of(it)));
        keep(tasks, self, |cluster| &cluster.claims, |all, it| all.queues.claims.add(key_of(it)));
        keep(tasks, self, |cluster| &cluster.services, |all, it| all.queues.services.add(key_of(it)));
        keep(
            tasks,
            self,
            |cluster| &cluster.nodes,
            |all, _| {
                all.cluster.daemon_sets.all().iter().for_each(|set| all.queues.daemon_sets.add(key_of(set.as_ref())));
            },
        );
    }

    fn reconcile(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        /// A task that reconciles the objects of one queue.
        macro_rules! work {
            ($queue:ident, $module:ident) => {
                let all = self.clone();
                tasks.spawn(async move {
                    all.is_listed().await;
                    let queue = &all.queues.$queue;
                    loop {
                        let key = queue.next().await;
                        let outcome = $module::reconcile(&all.cluster, &key).await;
                        queue.done(stringify!($module), key, outcome);
                    }
                });
            };
        }
        work!(claims, storage);
        work!(daemon_sets, daemon_set);
        work!(deployments, deployment);
        work!(jobs, job);
        work!(replica_sets, replica_set);
        work!(services, load_balancer);
        work!(stateful_sets, stateful_set);
    }

    /// Nothing is reconciled before all mirrors are complete.
    async fn is_listed(&self) {
        if let Ok(permits) = self.listed.acquire_many(MIRRORS).await {
            drop(permits);
        }
    }
}

/// A task that keeps one mirror and fills queues with what its changes concern.
fn keep<K>(
    tasks: &mut JoinSet<()>,
    all: &Arc<Controllers>,
    mirror: impl Fn(&Cluster) -> &Mirror<K> + Send + 'static,
    changed: impl Fn(&Controllers, &K) + Send + Sync + 'static,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let all = all.clone();
    tasks.spawn(async move {
        let client = all.cluster.client.clone();
        mirror(&all.cluster).keep(client, &all.listed, |object| changed(&all, object)).await;
    });
}

impl Queues {
    fn owner_of_pod(&self, pod: &Pod) {
        let Some(owner) = controller_of(pod) else { return };
        let queue = match owner.kind.as_str() {
            "ReplicaSet" => &self.replica_sets,
            "StatefulSet" => &self.stateful_sets,
            "DaemonSet" => &self.daemon_sets,
            "Job" => &self.jobs,
            _ => return,
        };
        queue.add((pod.namespace().unwrap_or_default(), owner.name.clone()));
    }
}
