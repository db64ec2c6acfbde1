//! ReplicaSet → Pods.

use std::time::Duration;

use futures::future::try_join_all;
use kube::ResourceExt;
use serde_json::json;

use super::cluster::{Cluster, Result, count, pod_from, suffix};
use super::mirror::Key;
use super::pods::{self, is_active, is_available, is_ready};

/// Pods that are created or deleted at a time.
const BURST: usize = 100;

pub(super) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Option<Duration>> {
    let Some(set) = cluster.replica_sets.get(key) else { return Ok(None) };
    let Some(spec) = set.spec.as_ref().filter(|_| set.metadata.deletion_timestamp.is_none()) else { return Ok(None) };
    let Some(template) = &spec.template else { return Ok(None) };
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
    let uid = set.uid().unwrap_or_default();

    let mut active = cluster.pods.controlled_by(&key.0, &uid);
    active.retain(|pod| is_active(pod));
    let missing = wanted.saturating_sub(active.len()).min(BURST);
    try_join_all((0..missing).map(async |_| {
        let pod = pod_from(set.as_ref(), template, format!("{}-{}", key.1, suffix()), []);
        cluster.create(&cluster.pods, &pod).await
    }))
    .await?;
    let surplus = active.len().saturating_sub(wanted).min(BURST);
    if surplus > 0 {
        pods::sort_for_deletion(&mut active);
        try_join_all(active.drain(..surplus).map(async |pod| cluster.delete(&cluster.pods, pod.as_ref()).await))
            .await?;
    }

    let mut now = cluster.pods.controlled_by(&key.0, &uid);
    now.retain(|pod| is_active(pod));
    let min_ready = pods::min_ready(spec.min_ready_seconds);
    let status = json!({
        "observedGeneration": set.metadata.generation,
        "replicas": now.len(),
        "fullyLabeledReplicas": count(now.len()),
        "readyReplicas": count(now.iter().filter(|pod| is_ready(pod)).count()),
        "availableReplicas": count(now.iter().filter(|pod| is_available(pod, min_ready)).count()),
    });
    cluster.write_status(&cluster.replica_sets, set.as_ref(), status).await?;
    Ok(pods::next_available(&now, min_ready))
}
