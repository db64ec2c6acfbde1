//! Job → Pods until enough of them succeeded or too many failed; then, if it says so, its own deletion.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::cluster::{Cluster, Result, count, pod_from, suffix};
use super::conditions::{Conditions, now};
use super::mirror::Key;
use super::pods::{self, is_active, is_ready, phase};

/// Failed Pods that a Job outlives, if it doesn't say (batch/v1 reference).
const BACKOFF_LIMIT: usize = 6;
/// Pause before a failed Pod is replaced; doubles up to [`LAST_RETRY`]. Kubernetes begins with 10 s: too long for
/// something that is tried out.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(60);

pub(super) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Option<Duration>> {
    let Some(job) = cluster.jobs.get(key) else { return Ok(None) };
    let Some(spec) = job.spec.as_ref().filter(|_| job.metadata.deletion_timestamp.is_none()) else { return Ok(None) };
    if is_finished(&job) {
        return expire(cluster, &job, spec).await;
    }
    let uid = job.uid().unwrap_or_default();
    let before = Tally::of(&job, &cluster.pods.controlled_by(&key.0, &uid));
    let verdict = before.verdict(&job, spec);

    let mut wait = None;
    if verdict == Verdict::Running {
        wait = run_pods(cluster, &job, spec, &before).await?;
    } else {
        for pod in &before.active {
            cluster.delete(&cluster.pods, pod.as_ref()).await?;
        }
    }

    let tally = Tally::of(&job, &cluster.pods.controlled_by(&key.0, &uid));
    cluster.write_status(&cluster.jobs, job.as_ref(), status(&job, &tally, verdict)).await?;
    if matches!(verdict, Verdict::Complete | Verdict::Failed { .. }) {
        wait = spec.ttl_seconds_after_finished.map(|seconds| pods::min_ready(Some(seconds)));
    }
    Ok(wait)
}

fn is_finished(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| matches!(&*condition.type_, "Complete" | "Failed") && condition.status == "True")
}

/// Deletes a finished Job after its time to live.
async fn expire(cluster: &Cluster, job: &Job, spec: &JobSpec) -> Result<Option<Duration>> {
    let Some(seconds) = spec.ttl_seconds_after_finished else { return Ok(None) };
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ended = conditions.filter(|condition| matches!(&*condition.type_, "Complete" | "Failed"));
    let Some(ended) = ended.filter_map(|condition| condition.last_transition_time.as_ref()).next() else {
        return Ok(None);
    };
    let left = pods::min_ready(Some(seconds)).checked_sub(pods::age(&ended.0)).filter(|left| !left.is_zero());
    if left.is_none() {
        cluster.delete(&cluster.jobs, job).await?;
    }
    Ok(left)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Running,
    Suspended,
    Complete,
    Failed { reason: &'static str, message: &'static str },
}

struct Tally {
    active: Vec<Arc<Pod>>,
    succeeded: usize,
    /// Failed Pods, and restarts where a Pod restarts by itself.
    failures: usize,
    failed: usize,
    /// Since the latest failure.
    failed_since: Option<Duration>,
}

impl Tally {
    fn of(job: &Job, pods: &[Arc<Pod>]) -> Self {
        let ended = |as_phase: &str| pods.iter().filter(|pod| phase(pod) == as_phase).count();
        let active: Vec<_> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        let status = job.status.clone().unwrap_or_default();
        // A Pod that was counted once stays counted when it is removed.
        let counted = |number: Option<i32>| number.and_then(|number| usize::try_from(number).ok()).unwrap_or_default();
        let failed = ended("Failed").max(counted(status.failed));
        let failed_at = pods.iter().filter(|pod| phase(pod) == "Failed").filter_map(|pod| {
            let finished = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?;
            Some(pods::age(&finished.terminated.as_ref()?.finished_at.as_ref()?.0))
        });
        Self {
            failed,
            failures: failed + active.iter().map(|pod| pods::restarts(pod)).sum::<usize>(),
            succeeded: ended("Succeeded").max(counted(status.succeeded)),
            failed_since: failed_at.min(),
            active,
        }
    }

    fn verdict(&self, job: &Job, spec: &JobSpec) -> Verdict {
        let number = |value: Option<i32>, default| value.and_then(|value| value.try_into().ok()).unwrap_or(default);
        let started = job.status.as_ref().and_then(|status| status.start_time.as_ref());
        let deadline =
            spec.active_deadline_seconds.and_then(|seconds| seconds.try_into().ok()).map(Duration::from_secs);
        if spec.suspend == Some(true) {
            Verdict::Suspended
        } else if self.succeeded >= number(spec.completions, 1) {
            Verdict::Complete
        } else if self.failures > number(spec.backoff_limit, BACKOFF_LIMIT) {
            Verdict::Failed { reason: "BackoffLimitExceeded", message: "Job has reached the specified backoff limit" }
        } else if started.zip(deadline).is_some_and(|(started, deadline)| pods::age(&started.0) >= deadline) {
            Verdict::Failed { reason: "DeadlineExceeded", message: "Job was active longer than specified deadline" }
        } else {
            Verdict::Running
        }
    }
}

async fn run_pods(cluster: &Cluster, job: &Job, spec: &JobSpec, tally: &Tally) -> Result<Option<Duration>> {
    let number = |value: Option<i32>| value.and_then(|value| usize::try_from(value).ok()).unwrap_or(1);
    let left = number(spec.completions).saturating_sub(tally.succeeded);
    let missing = number(spec.parallelism).min(left).saturating_sub(tally.active.len());
    let deadline = spec.active_deadline_seconds.and_then(|seconds| seconds.try_into().ok()).map(Duration::from_secs);
    if missing == 0 {
        return Ok(deadline);
    }
    if let Some(since) = tally.failed_since {
        let doublings = u32::try_from(tally.failed.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
        let pause = FIRST_RETRY.saturating_mul(1 << doublings).min(LAST_RETRY);
        if let Some(rest) = pause.checked_sub(since).filter(|rest| !rest.is_zero()) {
            return Ok(Some(rest));
        }
    }
    let name = job.name_any();
    let uid = job.uid().unwrap_or_default();
    let labels = [
        ("batch.kubernetes.io/job-name", name.clone()),
        ("batch.kubernetes.io/controller-uid", uid.clone()),
        ("job-name", name.clone()),
        ("controller-uid", uid),
    ];
    try_join_all((0..missing).map(async |_| {
        let pod = pod_from(job, &spec.template, format!("{name}-{}", suffix()), labels.clone());
        cluster.create(&cluster.pods, &pod).await
    }))
    .await?;
    Ok(deadline)
}

fn status(job: &Job, tally: &Tally, verdict: Verdict) -> Value {
    let before = job.status.as_ref();
    let mut conditions = Conditions::of(before.and_then(|status| status.conditions.as_ref()));
    let mut status = json!({
        "active": count(tally.active.len()),
        "ready": tally.active.iter().filter(|pod| is_ready(pod)).count(),
        "succeeded": count(tally.succeeded),
        "failed": count(tally.failed),
        "terminating": 0,
        "uncountedTerminatedPods": {},
    });
    if before.is_none_or(|status| status.start_time.is_none()) && verdict != Verdict::Suspended {
        status["startTime"] = now();
    }
    match verdict {
        Verdict::Running => {
            if conditions.get("Suspended").is_some() {
                conditions.set("Suspended", false, "JobResumed", "Job resumed");
            }
        }
        Verdict::Suspended => conditions.set("Suspended", true, "JobSuspended", "Job suspended"),
        Verdict::Complete => {
            let message = "Reached expected number of succeeded pods";
            conditions.set("SuccessCriteriaMet", true, "CompletionsReached", message);
            conditions.set("Complete", true, "CompletionsReached", message);
            status["completionTime"] = now();
        }
        Verdict::Failed { reason, message } => {
            conditions.set("FailureTarget", true, reason, message);
            conditions.set("Failed", true, reason, message);
        }
    }
    status["conditions"] = conditions.into_value();
    status
}
