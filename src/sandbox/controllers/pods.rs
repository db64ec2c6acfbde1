//! What controllers ask of a Pod.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Neither ended nor being deleted.
pub(super) fn is_active(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase(pod), "Succeeded" | "Failed")
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|ready| ready.status == "True")
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == "Ready")
}

/// Ready, and for as long as `minReadySeconds` says.
pub(super) fn is_available(pod: &Pod, min_ready: Duration) -> bool {
    is_ready(pod) && time_to_available(pod, min_ready).is_none()
}

/// How long a ready Pod has to wait until it is available.
fn time_to_available(pod: &Pod, min_ready: Duration) -> Option<Duration> {
    let since = &ready_condition(pod)?.last_transition_time.as_ref()?.0;
    min_ready.checked_sub(age(since)).filter(|left| !left.is_zero())
}

/// When the next of these Pods becomes available by waiting.
pub(super) fn next_available(pods: &[Arc<Pod>], min_ready: Duration) -> Option<Duration> {
    pods.iter().filter(|pod| is_ready(pod)).filter_map(|pod| time_to_available(pod, min_ready)).min()
}

pub(super) fn min_ready(seconds: Option<i32>) -> Duration {
    Duration::from_secs(seconds.and_then(|seconds| seconds.try_into().ok()).unwrap_or_default())
}

/// The restarts of all containers of a Pod.
pub(super) fn restarts(pod: &Pod) -> usize {
    let Some(status) = &pod.status else { return 0 };
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.filter_map(|container| usize::try_from(container.restart_count).ok()).sum()
}

/// The order in which surplus Pods go: those that serve nothing first, then the youngest.
pub(super) fn sort_for_deletion(pods: &mut [Arc<Pod>]) {
    pods.sort_by_key(|pod| (is_ready(pod), phase(pod) == "Running", std::cmp::Reverse(pod.creation_timestamp())));
}

/// Time that has passed; zero for a time in the future.
pub(super) fn age(since: &Timestamp) -> Duration {
    Timestamp::now().duration_since(*since).try_into().unwrap_or_default()
}
