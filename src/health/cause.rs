//! Why a workload's Pods don't run, and for how long that is to be expected.
//!
//! A cause is named as soon as it shows. Whether it makes the workload Failed is a matter of patience: waiting for a
//! database, a registry or a node is normal.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::cluster::{ContainerSeen, Ending, PodSeen};
use crate::manifest::ObjectId;

use super::verdict::Verdict;

/// The most telling thing that is wrong with a workload's Pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub trouble: Trouble,
    pub pod: String,
    /// `None` when it is about the whole Pod.
    pub container: Option<String>,
    pub init: bool,
    /// As Kubernetes names it: `CrashLoopBackOff`, `ImagePullBackOff`, `OOMKilled`, `Unschedulable`, …
    pub reason: String,
    /// What more is known; may be empty. Never a line of the container's log.
    pub message: String,
    pub restarts: u32,
}

/// Sorted by how telling it is, the most telling last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trouble {
    /// The Pod has ended for good and is not restarted; a new one may do better.
    Ended,
    /// No node takes the Pod. A node may come.
    Unschedulable,
    /// The registry does not answer, or refuses without saying that the image is not there.
    Registry,
    /// The registry says that there is no such image, or that we may not have it.
    ImageMissing,
    /// The container ends again and again.
    Crash,
    /// The container can't be made or started.
    Start,
    /// A ConfigMap, a Secret or a key that the container needs does not exist.
    Configuration,
    /// What is written as the image is not the name of one.
    ImageName,
}

impl Trouble {
    /// How long the trouble must have been seen, and how often the container must have been restarted, before the
    /// workload counts as failed; `None`: waiting is all there is to do, until the timeout.
    fn patience(self) -> Option<(Duration, u32)> {
        match self {
            Self::Ended | Self::Unschedulable => None,
            // a registry that is down comes back; five minutes is kubelet's longest pause between two pulls
            Self::Registry => Some((Duration::from_secs(300), 0)),
            // an image may be pushed a moment after the manifest that names it
            Self::ImageMissing | Self::Configuration | Self::Start => Some((Duration::from_secs(60), 0)),
            Self::Crash => Some((Duration::from_secs(60), 3)),
            Self::ImageName => Some((Duration::ZERO, 0)),
        }
    }
}

/// Running this long after a crash, a container counts as up: shorter, and the next crash is what is to be expected.
const SETTLED: Duration = Duration::from_secs(10);

/// The most telling cause among a workload's Pods; `None` if they only need time.
pub fn cause<'a>(pods: impl IntoIterator<Item = &'a PodSeen>, now: Timestamp) -> Option<Cause> {
    let of_pod = |pod: &PodSeen| {
        let of_containers = pod.containers.iter().filter_map(|container| of_container(pod, container, now));
        of_containers.chain(unschedulable(pod)).max_by_key(|cause| (cause.trouble, cause.restarts))
    };
    pods.into_iter()
        .filter(|pod| !pod.deleting)
        .filter_map(of_pod)
        // of equals the first by name, so that the same one is named each time
        .reduce(|a, b| if (b.trouble, b.restarts) > (a.trouble, a.restarts) { b } else { a })
}

fn unschedulable(pod: &PodSeen) -> Option<Cause> {
    let scheduled = pod.scheduled.as_ref().filter(|c| &*c.status == "False" && &*c.reason == "Unschedulable")?;
    Some(Cause {
        trouble: Trouble::Unschedulable,
        pod: pod.name.to_string(),
        container: None,
        init: false,
        reason: scheduled.reason.to_string(),
        message: scheduled.message.to_string(),
        restarts: 0,
    })
}

fn of_container(pod: &PodSeen, container: &ContainerSeen, now: Timestamp) -> Option<Cause> {
    let cause = |trouble, reason: &str, message: String| Cause {
        trouble,
        pod: pod.name.to_string(),
        container: Some(container.name.to_string()),
        init: container.init,
        reason: reason.to_owned(),
        message,
        restarts: container.restarts,
    };
    if let Some((reason, message)) = &container.waiting {
        let trouble = match &**reason {
            "CrashLoopBackOff" => {
                let last = container.ended_before.as_ref().map(words).unwrap_or_default();
                return Some(cause(Trouble::Crash, reason, last));
            }
            "ImagePullBackOff"
            | "ErrImagePull"
            | "RegistryUnavailable"
            | "ImageInspectError"
            | "SignatureValidationFailed" => {
                if is_missing(message) {
                    Trouble::ImageMissing
                } else {
                    Trouble::Registry
                }
            }
            "ErrImageNeverPull" => Trouble::ImageMissing,
            "InvalidImageName" => Trouble::ImageName,
            "CreateContainerConfigError" => Trouble::Configuration,
            "CreateContainerError"
            | "RunContainerError"
            | "PreCreateHookError"
            | "PreStartHookError"
            | "PostStartHookError" => Trouble::Start,
            _ => return crashed_before(container).map(|ending| cause(Trouble::Crash, &ending.reason, words(ending))),
        };
        return Some(cause(trouble, reason, message.to_string()));
    }
    if let Some(ending) = &container.ended {
        // between a crash and the back-off, unless nobody will restart it
        let trouble = if &*pod.phase == "Failed" { Trouble::Ended } else { Trouble::Crash };
        return (ending.exit_code != 0).then(|| cause(trouble, &ending.reason, words(ending)));
    }
    let since = container.running_since?;
    let ending = crashed_before(container)?;
    let young = Duration::try_from(now.duration_since(since)).unwrap_or_default() < SETTLED;
    young.then(|| cause(Trouble::Crash, &ending.reason, words(ending)))
}

fn crashed_before(container: &ContainerSeen) -> Option<&Ending> {
    container.ended_before.as_ref().filter(|ending| ending.exit_code != 0)
}

/// What registries say when waiting does not help.
fn is_missing(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["not found", "manifest unknown", "does not exist", "unauthorized", "denied", "forbidden"]
        .iter()
        .any(|words| message.contains(words))
}

fn words(ending: &Ending) -> String {
    match (&*ending.reason, ending.exit_code) {
        ("OOMKilled", _) => "out of memory (OOMKilled)".to_owned(),
        ("" | "Error" | "Completed", code) => format!("exit code {code}"),
        (reason, code) => format!("{reason}, exit code {code}"),
    }
}

/// `container web of pod api-7c is in CrashLoopBackOff (3 restarts): exit code 1`.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.container {
            Some(container) => {
                let init = if self.init { "init " } else { "" };
                write!(f, "{init}container {container} of pod {} ", self.pod)?;
            }
            None => write!(f, "pod {} ", self.pod)?,
        }
        match (self.trouble, self.reason.as_str()) {
            (Trouble::Unschedulable, _) => f.write_str("can't be scheduled")?,
            (Trouble::Ended, _) => f.write_str("ended")?,
            (Trouble::Crash, reason) if reason != "CrashLoopBackOff" => f.write_str("keeps ending")?,
            (_, reason) => write!(f, "is in {reason}")?,
        }
        if self.restarts > 0 {
            write!(f, " ({} restart{})", self.restarts, if self.restarts == 1 { "" } else { "s" })?;
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// Remembers since when each workload is in which trouble. One for each application, kept across its attempts.
#[derive(Debug, Default)]
pub struct Patience {
    since: HashMap<(ObjectId, Trouble), (i64, Timestamp)>,
}

/// A verdict in the light of the Pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// When the verdict changes by the mere passing of time.
    pub look_again: Option<Timestamp>,
}

impl Patience {
    /// Judges a workload whose own verdict and whose Pods' cause are known. The clock of a trouble starts when it is
    /// first told, and anew with each generation of the workload.
    pub fn judge(
        &mut self,
        id: &ObjectId,
        generation: i64,
        verdict: Verdict,
        cause: Option<&Cause>,
        now: Timestamp,
    ) -> Judgement {
        let Some(cause) = cause else {
            self.since.retain(|(known, _), _| known != id);
            return Judgement { verdict, look_again: None };
        };
        if matches!(verdict, Verdict::Failed { .. } | Verdict::Terminating { .. }) {
            let verdict = match verdict {
                Verdict::Failed { reason } => Verdict::Failed { reason: format!("{reason}; {cause}") },
                other => other,
            };
            return Judgement { verdict, look_again: None };
        }
        // a container that crashed a moment ago may be ready now and gone again in a second
        let up = verdict.is_current() && cause.trouble != Trouble::Crash;
        if up {
            return Judgement { verdict, look_again: None };
        }
        let entry = self.since.entry((id.clone(), cause.trouble)).or_insert((generation, now));
        if entry.0 != generation {
            *entry = (generation, now);
        }
        let since = entry.1;
        let waiting = Verdict::InProgress { reason: cause.to_string() };
        match cause.trouble.patience() {
            None => Judgement { verdict: waiting, look_again: None },
            Some((time, restarts)) => {
                let end = since.saturating_add(time).unwrap_or(Timestamp::MAX);
                if now >= end && cause.restarts >= restarts {
                    return Judgement { verdict: Verdict::Failed { reason: cause.to_string() }, look_again: None };
                }
                let look_again = if now < end { Some(end) } else { None };
                let settled = verdict.is_current().then(|| now.saturating_add(SETTLED).unwrap_or(Timestamp::MAX));
                Judgement { verdict: waiting, look_again: look_again.into_iter().chain(settled).min() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(name: &str, status: Value) -> PodSeen {
        PodSeen::from_json(&json!({"metadata": {"name": name, "uid": name}, "status": status}))
    }

    fn container(state: Value, last: Value, restarts: u32) -> Value {
        json!({"containerStatuses": [{"name": "web", "ready": false, "restartCount": restarts, "state": state, "lastState": last}]})
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({"waiting": {"reason": reason, "message": message}})
    }

    fn ended(reason: &str, code: i32) -> Value {
        json!({"terminated": {"reason": reason, "exitCode": code, "message": "password=hunter2"}})
    }

    #[test]
    fn the_cause_is_named_with_its_container_and_pod() {
        let running = |second: i64| json!({"running": {"startedAt": at(second).to_string()}});
        let crash = "container web of pod api-7c is in CrashLoopBackOff (3 restarts): exit code 1";
        let cases = [
            (container(waiting("CrashLoopBackOff", "back-off 40s"), ended("Error", 1), 3), Some(crash)),
            (
                container(waiting("CrashLoopBackOff", ""), ended("OOMKilled", 137), 1),
                Some("container web of pod api-7c is in CrashLoopBackOff (1 restart): out of memory (OOMKilled)"),
            ),
            (
                container(ended("Error", 2), Value::Null, 0),
                Some("container web of pod api-7c keeps ending: exit code 2"),
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [{"name": "web", "state": ended("Error", 2)}]}),
                Some("container web of pod api-7c ended: exit code 2"),
            ),
            (
                container(running(95), ended("Error", 2), 4),
                Some("container web of pod api-7c keeps ending (4 restarts): exit code 2"),
            ),
            (container(running(80), ended("Error", 2), 4), None),
            (container(running(99), Value::Null, 0), None),
            (container(waiting("ContainerCreating", ""), Value::Null, 0), None),
            (
                container(waiting("ErrImagePull", "img: not found"), Value::Null, 0),
                Some("container web of pod api-7c is in ErrImagePull: img: not found"),
            ),
            (
                container(waiting("CreateContainerConfigError", "configmap \"a\" not found"), Value::Null, 0),
                Some("container web of pod api-7c is in CreateContainerConfigError: configmap \"a\" not found"),
            ),
            (
                json!({"initContainerStatuses": [{"name": "migrate", "restartCount": 2, "state": waiting("CrashLoopBackOff", ""), "lastState": ended("Error", 1)}],
                    "containerStatuses": [{"name": "web", "restartCount": 0, "state": waiting("PodInitializing", "")}]}),
                Some("init container migrate of pod api-7c is in CrashLoopBackOff (2 restarts): exit code 1"),
            ),
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}),
                Some("pod api-7c can't be scheduled: 0/3 nodes"),
            ),
            (json!({}), None),
        ];
        for (status, expected) in cases {
            let found = cause([&pod("api-7c", status.clone())], at(100));
            assert_eq!(found.map(|c| c.to_string()).as_deref(), expected, "{status}");
        }
    }

    #[test]
    fn the_most_telling_pod_is_named() {
        let pods = [
            pod(
                "a",
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "full"}]}),
            ),
            pod("b", container(waiting("CrashLoopBackOff", ""), ended("Error", 1), 2)),
            pod("c", container(waiting("CrashLoopBackOff", ""), ended("Error", 1), 5)),
        ];
        assert_eq!(cause(&pods, at(0)).unwrap().pod, "c");
    }

    #[test]
    fn a_crash_loop_fails_at_three_restarts_and_a_minute_and_is_named_at_once() {
        let id = ObjectId::new("apps", "Deployment", "shop", "web");
        let wait = || Verdict::InProgress { reason: "0 of 1 replicas available".into() };
        let crash = |restarts| {
            cause([&pod("p", container(waiting("CrashLoopBackOff", ""), ended("Error", 1), restarts))], at(0))
        };
        let mut patience = Patience::default();
        for (second, restarts, failed, look_again) in
            [(0, 1, false, Some(60)), (40, 3, false, Some(60)), (60, 2, false, None), (70, 3, true, None)]
        {
            let judged = patience.judge(&id, 1, wait(), crash(restarts).as_ref(), at(second));
            assert_eq!(matches!(judged.verdict, Verdict::Failed { .. }), failed, "at {second} s");
            assert!(judged.verdict.reason().contains("CrashLoopBackOff"));
            assert_eq!(judged.look_again, look_again.map(at), "at {second} s");
        }
        let newer = patience.judge(&id, 2, wait(), crash(9).as_ref(), at(80));
        assert_eq!(newer.look_again, Some(at(140)), "a new generation gets its own minute");
        let calm = patience.judge(&id, 2, Verdict::Current, None, at(90));
        assert_eq!(calm, Judgement { verdict: Verdict::Current, look_again: None });
    }

    #[test]
    fn waiting_for_a_registry_takes_longer_than_for_an_image_that_is_not_there() {
        let id = ObjectId::new("apps", "Deployment", "shop", "web");
        for (message, seconds) in [("manifest unknown", Some(60)), ("dial tcp: i/o timeout", Some(300))] {
            let pull = cause([&pod("p", container(waiting("ImagePullBackOff", message), Value::Null, 0))], at(0));
            let wait = Verdict::InProgress { reason: String::new() };
            let judged = Patience::default().judge(&id, 1, wait, pull.as_ref(), at(0));
            assert_eq!(judged.look_again, seconds.map(at), "{message}");
        }
    }
}
