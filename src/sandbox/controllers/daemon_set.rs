//! DaemonSet → one Pod on each Node that its node selector admits.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use serde_json::json;

use super::cluster::{Cluster, Result, count, pod_from, suffix, template_hash};
use super::deployment::share;
use super::mirror::Key;
use super::pods::{self, is_active, is_available, is_ready};

const HASH: &str = "controller-revision-hash";

pub(super) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Option<Duration>> {
    let Some(set) = cluster.daemon_sets.get(key) else { return Ok(None) };
    let Some(spec) = set.spec.as_ref().filter(|_| set.metadata.deletion_timestamp.is_none()) else { return Ok(None) };
    let hash = template_hash(&spec.template);
    let uid = set.uid().unwrap_or_default();
    let nodes: Vec<_> = cluster.nodes.all().into_iter().filter(|node| admits(spec, node)).collect();
    let min_ready = pods::min_ready(spec.min_ready_seconds);

    place(cluster, &set, spec, &hash, &nodes).await?;
    let present = cluster.pods.controlled_by(&key.0, &uid);
    update(cluster, spec, &hash, nodes.len(), &present, min_ready).await?;

    let mut now = cluster.pods.controlled_by(&key.0, &uid);
    now.retain(|pod| is_active(pod));
    let available = now.iter().filter(|pod| is_available(pod, min_ready)).count();
    let status = json!({
        "observedGeneration": set.metadata.generation,
        "desiredNumberScheduled": nodes.len(),
        "currentNumberScheduled": now.len().min(nodes.len()),
        "numberMisscheduled": 0,
        "numberReady": now.iter().filter(|pod| is_ready(pod)).count(),
        "numberAvailable": count(available),
        "numberUnavailable": count(nodes.len().saturating_sub(available)),
        "updatedNumberScheduled": count(now.iter().filter(|pod| is_of(pod, &hash)).count()),
    });
    cluster.write_status(&cluster.daemon_sets, set.as_ref(), status).await?;
    Ok(pods::next_available(&now, min_ready))
}

fn admits(spec: &DaemonSetSpec, node: &Node) -> bool {
    let selector = spec.template.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    selector.into_iter().flatten().all(|(key, value)| node.labels().get(key) == Some(value))
}

fn is_of(pod: &Pod, hash: &str) -> bool {
    pod.labels().get(HASH).is_some_and(|of| of == hash)
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Gives each Node its Pod; Pods that ended and Pods on other Nodes go.
async fn place(
    cluster: &Cluster,
    set: &DaemonSet,
    spec: &DaemonSetSpec,
    hash: &str,
    nodes: &[Arc<Node>],
) -> Result<()> {
    let namespace = set.namespace().unwrap_or_default();
    let present = cluster.pods.controlled_by(&namespace, &set.uid().unwrap_or_default());
    for pod in present.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let placed = nodes.iter().any(|node| node_of(pod) == Some(&node.name_any()));
        if !placed || !is_active(pod) {
            cluster.delete(&cluster.pods, pod.as_ref()).await?;
        }
    }
    // A Pod that is being deleted still holds its Node.
    for node in nodes.iter().filter(|node| !present.iter().any(|pod| node_of(pod) == Some(&node.name_any()))) {
        let name = format!("{}-{}", set.name_any(), suffix());
        let mut pod = pod_from(set, &spec.template, name, [(HASH, hash.to_owned())]);
        pod.spec.get_or_insert_default().node_name = Some(node.name_any());
        cluster.create(&cluster.pods, &pod).await?;
    }
    Ok(())
}

/// Deletes Pods of an older template: those that serve nothing at once, the others as far as availability allows.
async fn update(
    cluster: &Cluster,
    spec: &DaemonSetSpec,
    hash: &str,
    wanted: usize,
    present: &[Arc<Pod>],
    min_ready: Duration,
) -> Result<()> {
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return Ok(());
    }
    let limit = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.max_unavailable.as_ref());
    let limit = limit.map_or(1, |limit| share(Some(limit), wanted, true)).max(1);
    let serves = |pod: &Pod| pod.metadata.deletion_timestamp.is_none() && is_available(pod, min_ready);
    let mut unavailable = wanted.saturating_sub(present.iter().filter(|pod| serves(pod)).count());
    for pod in present.iter().filter(|pod| is_active(pod) && !is_of(pod, hash)) {
        if serves(pod) {
            if unavailable >= limit {
                continue;
            }
            unavailable += 1;
        }
        cluster.delete(&cluster.pods, pod.as_ref()).await?;
    }
    Ok(())
}
