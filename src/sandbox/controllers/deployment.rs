//! Deployment → ReplicaSets: the new one grows as the surge allows, the old ones shrink as availability allows.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::cluster::{Cluster, Result, controlled_by, count, template_hash};
use super::conditions::Conditions;
use super::mirror::Key;
use super::pods;

const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
/// The defaults of the API (apps/v1 reference).
const PROGRESS_DEADLINE_SECONDS: i32 = 600;
const HISTORY: usize = 10;

pub(super) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Option<Duration>> {
    let Some(deployment) = cluster.deployments.get(key) else { return Ok(None) };
    let Some(spec) = deployment.spec.as_ref().filter(|_| deployment.metadata.deletion_timestamp.is_none()) else {
        return Ok(None);
    };
    let uid = deployment.uid().unwrap_or_default();
    let sets = || cluster.replica_sets.controlled_by(&key.0, &uid);
    let hash = template_hash(&spec.template);
    let bounds = Bounds::of(spec);

    let mut started = None;
    let (new, old) = split(sets(), &hash);
    let latest = old.iter().map(|set| revision(set)).max().unwrap_or_default();
    match &new {
        None if spec.paused != Some(true) => {
            let size = bounds.new_size(0, total(&old));
            let set = new_set(&deployment, spec, &hash, size, latest + 1);
            started = Some(("NewReplicaSetCreated", format!("Created new replica set \"{}\"", set.name_any())));
            cluster.create(&cluster.replica_sets, &set).await?;
        }
        Some(set) if revision(set) <= latest => {
            started = Some(("FoundNewReplicaSet", format!("Found new replica set \"{}\"", set.name_any())));
            let change = json!({ "metadata": { "annotations": { REVISION: (latest + 1).to_string() } } });
            cluster.merge(&cluster.replica_sets, set.as_ref(), change).await?;
        }
        _ => {}
    }

    let (new, old) = split(sets(), &hash);
    if let Some(new) = &new {
        note_revision(cluster, &deployment, revision(new)).await?;
        if spec.paused != Some(true) {
            roll(cluster, &bounds, new, &old).await?;
            forget_history(cluster, spec, &old).await?;
        }
    }
    let (new, old) = split(sets(), &hash);
    let generation = deployment.metadata.generation;
    // The mirror has the Deployment as the writes above left it; acted upon was the generation from before.
    let Some(deployment) = cluster.deployments.get(key) else { return Ok(None) };
    let mut rollout = Rollout { deployment: &deployment, spec, bounds: &bounds, new, old: &old, wait: None };
    let mut status = rollout.status(started);
    status["observedGeneration"] = json!(generation);
    cluster.write_status(&cluster.deployments, deployment.as_ref(), status).await?;
    Ok(rollout.wait)
}

/// The ReplicaSet of the present template and all others.
fn split(sets: Vec<Arc<ReplicaSet>>, hash: &str) -> (Option<Arc<ReplicaSet>>, Vec<Arc<ReplicaSet>>) {
    let (mut new, old): (Vec<_>, Vec<_>) =
        sets.into_iter().partition(|set| set.labels().get(HASH).is_some_and(|of| of == hash));
    (new.pop(), old)
}

fn revision(set: &ReplicaSet) -> u64 {
    set.annotations().get(REVISION).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn new_set(deployment: &Deployment, spec: &DeploymentSpec, hash: &str, size: usize, revision: u64) -> ReplicaSet {
    let mut template = spec.template.clone();
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().insert(HASH.into(), hash.into());
    let labels = metadata.labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH.into(), hash.into());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels,
            annotations: Some([(REVISION.to_owned(), revision.to_string())].into_iter().collect()),
            owner_references: Some(controlled_by(deployment)),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: i32::try_from(size).ok(),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

async fn note_revision(cluster: &Cluster, deployment: &Deployment, revision: u64) -> Result<()> {
    let revision = revision.to_string();
    if deployment.annotations().get(REVISION) == Some(&revision) {
        return Ok(());
    }
    let change = json!({ "metadata": { "annotations": { REVISION: revision } } });
    cluster.merge(&cluster.deployments, deployment, change).await
}

/// How many replicas there shall be, may be, and must be available.
#[derive(Debug, PartialEq, Eq)]
struct Bounds {
    desired: usize,
    most: usize,
    least_available: usize,
    /// All old Pods go before the first new one comes.
    recreate: bool,
}

impl Bounds {
    fn of(spec: &DeploymentSpec) -> Self {
        let desired = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
        let strategy = spec.strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
            return Self { desired, most: desired, least_available: 0, recreate: true };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = share(rolling.and_then(|rolling| rolling.max_surge.as_ref()), desired, true);
        let mut unavailable = share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), desired, false);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        let least_available = desired.saturating_sub(unavailable);
        Self { desired, most: desired + surge, least_available, recreate: false }
    }

    /// The size of the new set that now has `new` replicas, beside `old` replicas of others.
    fn new_size(&self, new: usize, old: usize) -> usize {
        if new > self.desired || (self.recreate && old == 0) {
            return self.desired;
        }
        if self.recreate {
            return new;
        }
        (new + self.most.saturating_sub(new + old)).min(self.desired)
    }
}

/// A number or a percentage of `of`; a quarter if it isn't said.
pub(super) fn share(value: Option<&IntOrString>, of: usize, round_up: bool) -> usize {
    let percent = match value {
        Some(IntOrString::Int(number)) => return usize::try_from(*number).unwrap_or_default(),
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().unwrap_or(25),
        None => 25,
    };
    if round_up { (of * percent).div_ceil(100) } else { of * percent / 100 }
}

fn replicas(set: &ReplicaSet) -> usize {
    set.spec.as_ref().and_then(|spec| spec.replicas).and_then(|number| number.try_into().ok()).unwrap_or_default()
}

fn total(sets: &[Arc<ReplicaSet>]) -> usize {
    sets.iter().map(|set| replicas(set)).sum()
}

/// Pods that exist, are ready, and are available.
fn counts(set: &ReplicaSet) -> [usize; 3] {
    let Some(status) = &set.status else { return [0; 3] };
    [Some(status.replicas), status.ready_replicas, status.available_replicas]
        .map(|number| number.and_then(|number| number.try_into().ok()).unwrap_or_default())
}

fn available(set: &ReplicaSet) -> usize {
    counts(set)[2].min(replicas(set))
}

async fn roll(cluster: &Cluster, bounds: &Bounds, new: &ReplicaSet, old: &[Arc<ReplicaSet>]) -> Result<()> {
    let sets = &cluster.replica_sets;
    let resize =
        async |set: &ReplicaSet, size: usize| cluster.merge(sets, set, json!({ "spec": { "replicas": size } })).await;

    let old_pods = if bounds.recreate { old.iter().map(|set| counts(set)[0]).sum() } else { total(old) };
    let size = bounds.new_size(replicas(new), old_pods);
    if size != replicas(new) {
        resize(new, size).await?;
    }
    if bounds.recreate {
        for set in old.iter().filter(|set| replicas(set) > 0) {
            resize(set, 0).await?;
        }
        return Ok(());
    }

    // What the new set hasn't available yet counts as unavailable: no availability is given up for it.
    let new_unavailable = size - available(new).min(size);
    let mut may_go = (size + total(old)).saturating_sub(bounds.least_available + new_unavailable);
    let mut available_left = available(new) + old.iter().map(|set| available(set)).sum::<usize>();
    for set in old {
        let (have, healthy) = (replicas(set), available(set));
        // Unhealthy replicas go first, healthy ones as far as enough stay available.
        let unhealthy = (have - healthy).min(may_go);
        may_go -= unhealthy;
        let surplus = healthy.min(may_go).min(available_left.saturating_sub(bounds.least_available));
        may_go -= surplus;
        available_left -= surplus;
        if unhealthy + surplus > 0 {
            resize(set, have - unhealthy - surplus).await?;
        }
    }
    Ok(())
}

async fn forget_history(cluster: &Cluster, spec: &DeploymentSpec, old: &[Arc<ReplicaSet>]) -> Result<()> {
    let keep = spec.revision_history_limit.and_then(|limit| limit.try_into().ok()).unwrap_or(HISTORY);
    let mut empty: Vec<_> = old.iter().filter(|set| replicas(set) == 0 && counts(set)[0] == 0).collect();
    empty.sort_by_key(|set| revision(set));
    for set in &empty[..empty.len().saturating_sub(keep)] {
        cluster.delete(&cluster.replica_sets, set.as_ref()).await?;
    }
    Ok(())
}

/// A Deployment and its sets, as they are after the controller's writes.
struct Rollout<'a> {
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    bounds: &'a Bounds,
    new: Option<Arc<ReplicaSet>>,
    old: &'a [Arc<ReplicaSet>],
    /// When to look whether the deadline of progress has passed.
    wait: Option<Duration>,
}

impl Rollout<'_> {
    /// `started` is the reason and the message of a rollout that began just now.
    fn status(&mut self, started: Option<(&str, String)>) -> Value {
        let all = self.old.iter().chain(&self.new);
        let [existing, ready, available] =
            all.clone().map(|set| counts(set)).fold([0; 3], |a, b| [a[0] + b[0], a[1] + b[1], a[2] + b[2]]);
        let wanted: usize = all.map(|set| replicas(set)).sum();
        let updated = self.new.as_ref().map_or(0, |set| counts(set)[0]);

        let mut conditions =
            Conditions::of(self.deployment.status.as_ref().and_then(|status| status.conditions.as_ref()));
        if available >= self.bounds.least_available {
            let message = "Deployment has minimum availability.";
            conditions.set("Available", true, "MinimumReplicasAvailable", message);
        } else {
            let message = "Deployment does not have minimum availability.";
            conditions.set("Available", false, "MinimumReplicasUnavailable", message);
        }
        self.note_progress(&mut conditions, [existing, updated, ready, available], started);
        json!({
            "replicas": count(existing),
            "updatedReplicas": count(updated),
            "readyReplicas": count(ready),
            "availableReplicas": count(available),
            "unavailableReplicas": count(wanted.saturating_sub(available)),
            "conditions": conditions.into_value(),
        })
    }

    fn note_progress(
        &mut self,
        conditions: &mut Conditions,
        [existing, updated, ready, available]: [usize; 4],
        started: Option<(&str, String)>,
    ) {
        let name = self.new.as_ref().map_or_else(|| self.deployment.name_any(), |set| set.name_any());
        if let Some((reason, message)) = started {
            conditions.progress(reason, &message);
            self.wait = Some(deadline(self.spec));
            return;
        }
        let complete = self.new.is_some() && [updated, existing, available] == [self.bounds.desired; 3];
        let progressing = conditions.get("Progressing").cloned().unwrap_or_default();
        // A rollout that was complete stays so when Pods fail later: only a new one begins again.
        if progressing["reason"] == "NewReplicaSetAvailable" {
            return;
        }
        if complete {
            return conditions
                .progress("NewReplicaSetAvailable", &format!("ReplicaSet \"{name}\" has successfully progressed."));
        }
        let before = self.deployment.status.clone().unwrap_or_default();
        let [old_existing, old_updated, old_ready, old_available] =
            [before.replicas, before.updated_replicas, before.ready_replicas, before.available_replicas]
                .map(|number| number.and_then(|number| usize::try_from(number).ok()).unwrap_or_default());
        let shrunk = old_existing.saturating_sub(old_updated) > existing - updated;
        if updated > old_updated || ready > old_ready || available > old_available || shrunk {
            conditions.progress("ReplicaSetUpdated", &format!("ReplicaSet \"{name}\" is progressing."));
            self.wait = Some(deadline(self.spec));
            return;
        }
        let since: Option<Timestamp> = progressing["lastUpdateTime"].as_str().and_then(|time| time.parse().ok());
        let passed = since.map(|since| pods::age(&since)).unwrap_or_default();
        self.wait = deadline(self.spec).checked_sub(passed).filter(|left| !left.is_zero());
        if self.wait.is_none() {
            let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
            conditions.set("Progressing", false, "ProgressDeadlineExceeded", &message);
        }
    }
}

fn deadline(spec: &DeploymentSpec) -> Duration {
    pods::min_ready(Some(spec.progress_deadline_seconds.unwrap_or(PROGRESS_DEADLINE_SECONDS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(replicas: i32, strategy: serde_json::Value) -> DeploymentSpec {
        serde_json::from_value(json!({
            "replicas": replicas, "strategy": strategy, "selector": {}, "template": {},
        }))
        .unwrap()
    }

    #[test]
    fn a_rolling_update_keeps_within_its_surge_and_availability() {
        let rolling = |surge, unavailable| json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } });
        for (replicas, strategy, most, least_available) in [
            (1, json!({}), 2, 1),
            (4, json!({}), 5, 3),
            (3, rolling(json!("50%"), json!("50%")), 5, 2),
            (3, rolling(json!(0), json!(0)), 3, 2),
            (2, rolling(json!(2), json!(0)), 4, 2),
        ] {
            let bounds = Bounds::of(&spec(replicas, strategy));
            assert_eq!((bounds.most, bounds.least_available), (most, least_available), "{bounds:?}");
        }
    }

    #[test]
    fn the_new_set_grows_into_the_room_that_the_old_ones_leave() {
        let rolling = Bounds { desired: 4, most: 5, least_available: 3, recreate: false };
        let recreate = Bounds { desired: 4, most: 4, least_available: 0, recreate: true };
        for (bounds, new, old, size) in [
            (&rolling, 0, 0, 4),
            (&rolling, 0, 4, 1),
            (&rolling, 1, 3, 2),
            (&rolling, 6, 0, 4),
            (&recreate, 0, 4, 0),
            (&recreate, 0, 0, 4),
        ] {
            assert_eq!(bounds.new_size(new, old), size, "{bounds:?} new {new} old {old}");
        }
    }
}
