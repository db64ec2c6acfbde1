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

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use cluster::Cluster;
use mirror::{controller_of, key_of};
use queue::Queue;

/// The kinds that are mirrored; nothing is reconciled before all of them were listed.
const MIRRORS: u32 = 9;

#[derive(Default)]
struct Queues {
    claims: Arc<Queue>,
    daemon_sets: Arc<Queue>,
    deployments: Arc<Queue>,
    jobs: Arc<Queue>,
    replica_sets: Arc<Queue>,
    services: Arc<Queue>,
    stateful_sets: Arc<Queue>,
}

/// Runs all controllers against the server of `client` until `cancel`.
pub async fn run(client: Client, cancel: CancellationToken) {
    let cluster = Cluster::new(client.clone());
    let queues = Queues::default();
    let listed = Semaphore::new(0);
    let keep = || {
        let (cluster, queues, client) = (&cluster, &queues, || client.clone());
        futures::future::join5(
            cluster.pods.keep(client(), &listed, |pod| queues.owner_of_pod(pod)),
            cluster.replica_sets.keep(client(), &listed, |set| {
                queues.replica_sets.add(key_of(set));
                queues.deployments.add_owner(set);
            }),
            futures::future::join3(
                cluster.deployments.keep(client(), &listed, |object| queues.deployments.add(key_of(object))),
                cluster.stateful_sets.keep(client(), &listed, |object| queues.stateful_sets.add(key_of(object))),
                cluster.daemon_sets.keep(client(), &listed, |object| queues.daemon_sets.add(key_of(object))),
            ),
            futures::future::join3(
                cluster.jobs.keep(client(), &listed, |object| queues.jobs.add(key_of(object))),
                cluster.claims.keep(client(), &listed, |object| queues.claims.add(key_of(object))),
                cluster.services.keep(client(), &listed, |object| queues.services.add(key_of(object))),
            ),
            cluster.nodes.keep(client(), &listed, |_| {
                cluster.daemon_sets.all().iter().for_each(|set| queues.daemon_sets.add(key_of(set.as_ref())));
            }),
        )
    };
    let work = async || {
        let _ = listed.acquire_many(MIRRORS).await;
        tokio::join!(
            queues.deployments.work("deployment", async |key| deployment::reconcile(&cluster, key).await),
            queues.replica_sets.work("replicaset", async |key| replica_set::reconcile(&cluster, key).await),
            queues.stateful_sets.work("statefulset", async |key| stateful_set::reconcile(&cluster, key).await),
            queues.daemon_sets.work("daemonset", async |key| daemon_set::reconcile(&cluster, key).await),
            queues.jobs.work("job", async |key| job::reconcile(&cluster, key).await),
            queues.claims.work("claim", async |key| storage::reconcile(&cluster, key).await),
            queues.services.work("service", async |key| load_balancer::reconcile(&cluster, key).await),
        )
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        _ = keep() => {}
        _ = work() => {}
    }
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

impl Queue {
    /// Adds the controller of an object whose controller is of this queue's kind.
    fn add_owner(&self, object: &impl Resource) {
        if let Some(owner) = controller_of(object) {
            self.add((object.namespace().unwrap_or_default(), owner.name.clone()));
        }
    }
}
