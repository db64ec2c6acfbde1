//! StatefulSet → Pods with ordinals and their claims.
//!
//! As in Kubernetes, an ordered set waits for each Pod before it goes on, also with an update: a Pod of a broken
//! template that never becomes ready has to be deleted by hand ("forced rollback" in the Kubernetes documentation).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};
use kube::ResourceExt;
use serde_json::json;

use super::cluster::{Cluster, Result, count, pod_from, template_hash};
use super::mirror::Key;
use super::pods::{self, is_available, is_ready, phase};

const REVISION: &str = "controller-revision-hash";

pub(super) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Option<Duration>> {
    let Some(set) = cluster.stateful_sets.get(key) else { return Ok(None) };
    let Some(spec) = set.spec.as_ref().filter(|_| set.metadata.deletion_timestamp.is_none()) else { return Ok(None) };
    let revision = format!("{}-{}", key.1, template_hash(&spec.template));
    let uid = set.uid().unwrap_or_default();

    step(cluster, &set, spec, &revision, &by_ordinal(cluster.pods.controlled_by(&key.0, &uid))).await?;

    let all = cluster.pods.controlled_by(&key.0, &uid);
    let min_ready = pods::min_ready(spec.min_ready_seconds);
    let of_revision = |name: &str| {
        let live = all.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        live.filter(|pod| pod.labels().get(REVISION).is_some_and(|of| of == name)).count()
    };
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
    let ready = all.iter().filter(|pod| is_ready(pod)).count();
    let updated = of_revision(&revision);
    let before = set.status.as_ref().and_then(|status| status.current_revision.clone());
    let current = before.filter(|_| (updated, ready) != (wanted, wanted)).unwrap_or_else(|| revision.clone());
    let status = json!({
        "observedGeneration": set.metadata.generation,
        "replicas": all.len(),
        "readyReplicas": count(ready),
        "availableReplicas": all.iter().filter(|pod| is_available(pod, min_ready)).count(),
        "currentReplicas": count(of_revision(&current)),
        "updatedReplicas": count(updated),
        "currentRevision": current,
        "updateRevision": revision,
        "collisionCount": 0,
    });
    cluster.write_status(&cluster.stateful_sets, set.as_ref(), status).await?;
    Ok(pods::next_available(&all, min_ready))
}

fn by_ordinal(pods: Vec<Arc<Pod>>) -> BTreeMap<usize, Arc<Pod>> {
    let ordinal = |pod: &Pod| pod.name_any().rsplit_once('-')?.1.parse().ok();
    pods.into_iter().filter_map(|pod| Some((ordinal(&pod)?, pod))).collect()
}

/// Creates, deletes or updates Pods as far as the order allows now; the next change of a Pod brings the next step.
async fn step(
    cluster: &Cluster,
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    revision: &str,
    pods: &BTreeMap<usize, Arc<Pod>>,
) -> Result<()> {
    let ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
    let min_ready = pods::min_ready(spec.min_ready_seconds);
    let number = |value: Option<i32>| value.and_then(|value| usize::try_from(value).ok());
    let first = number(spec.ordinals.as_ref().and_then(|ordinals| ordinals.start)).unwrap_or_default();
    let range = first..first + number(spec.replicas).unwrap_or(1);

    for ordinal in range.clone() {
        let settled = match pods.get(&ordinal) {
            None => {
                create(cluster, set, spec, revision, ordinal).await?;
                false
            }
            Some(pod) if pod.metadata.deletion_timestamp.is_some() => false,
            Some(pod) if matches!(phase(pod), "Failed" | "Succeeded") => {
                cluster.delete(&cluster.pods, pod.as_ref()).await?;
                false
            }
            Some(pod) => is_available(pod, min_ready),
        };
        if ordered && !settled {
            return Ok(());
        }
    }
    let surplus: Vec<_> = pods.iter().rev().filter(|(ordinal, _)| !range.contains(ordinal)).collect();
    for (_, pod) in &surplus[..surplus.len().min(if ordered { 1 } else { usize::MAX })] {
        if pod.metadata.deletion_timestamp.is_none() {
            cluster.delete(&cluster.pods, pod.as_ref()).await?;
        }
    }
    if !surplus.is_empty() {
        return Ok(());
    }

    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return Ok(());
    }
    let partition = number(strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition));
    for pod in range.rev().take_while(|ordinal| *ordinal >= partition.unwrap_or_default()).filter_map(|o| pods.get(&o))
    {
        let updated = pod.labels().get(REVISION).is_some_and(|of| of == revision);
        if !updated && pod.metadata.deletion_timestamp.is_none() {
            return cluster.delete(&cluster.pods, pod.as_ref()).await;
        }
        if !is_available(pod, min_ready) {
            return Ok(());
        }
    }
    Ok(())
}

async fn create(
    cluster: &Cluster,
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    revision: &str,
    ordinal: usize,
) -> Result<()> {
    let name = format!("{}-{ordinal}", set.name_any());
    let labels = [
        (REVISION, revision.to_owned()),
        ("statefulset.kubernetes.io/pod-name", name.clone()),
        ("apps.kubernetes.io/pod-index", ordinal.to_string()),
    ];
    let mut pod = pod_from(set, &spec.template, name.clone(), labels);
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name.clone());
    pod_spec.subdomain.clone_from(&spec.service_name);
    let volumes = pod_spec.volumes.get_or_insert_default();
    for template in spec.volume_claim_templates.iter().flatten() {
        let claim = claim(set, spec, template, &name);
        let source = PersistentVolumeClaimVolumeSource { claim_name: claim.name_any(), read_only: None };
        volumes.retain(|volume| volume.name != template.name_any());
        volumes.push(Volume { name: template.name_any(), persistent_volume_claim: Some(source), ..Volume::default() });
        cluster.create(&cluster.claims, &claim).await?;
    }
    cluster.create(&cluster.pods, &pod).await
}

/// Claims outlive their set, so it doesn't own them.
fn claim(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    template: &PersistentVolumeClaim,
    pod: &str,
) -> PersistentVolumeClaim {
    let mut claim = PersistentVolumeClaim { spec: template.spec.clone(), ..PersistentVolumeClaim::default() };
    claim.metadata.name = Some(format!("{}-{pod}", template.name_any()));
    claim.metadata.namespace = set.namespace();
    claim.metadata.labels.clone_from(&spec.selector.match_labels);
    claim
}
