//! The verdict on one object, by what its kind must show.
//!
//! The rules are those of kstatus (`sigs.k8s.io/cli-utils`, README "Status computation"), which `flux` and its users
//! know, with one difference: a failed Job and an exceeded progress deadline are failures, a crash loop is a matter for
//! [`super::cause`].

use crate::cluster::{Reduced, Seen, SeenCondition};

/// How an object is doing. Reasons are for people: they name what is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As declared, and doing what it is there for.
    Current,
    InProgress {
        reason: String,
    },
    /// It will not get better by waiting alone. Not final: a later state may be Current.
    Failed {
        reason: String,
    },
    /// Being deleted.
    Terminating {
        reason: String,
    },
}

impl Verdict {
    pub fn is_current(&self) -> bool {
        *self == Self::Current
    }

    /// As the tables of tests write it.
    #[cfg(test)]
    pub(super) fn spelled(&self) -> String {
        match self {
            Self::Current => "current".into(),
            Self::InProgress { reason } => format!("waits: {reason}"),
            Self::Failed { reason } => format!("failed: {reason}"),
            Self::Terminating { reason } => format!("ends: {reason}"),
        }
    }

    pub(super) fn not_taken_up() -> Self {
        Self::waiting("its controller has not taken up the newest change yet")
    }

    fn waiting(reason: impl Into<String>) -> Self {
        Self::InProgress { reason: reason.into() }
    }

    fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into() }
    }

    /// What a person is told; empty when current.
    pub fn reason(&self) -> &str {
        match self {
            Self::Current => "",
            Self::InProgress { reason } | Self::Failed { reason } | Self::Terminating { reason } => reason,
        }
    }
}

/// What is to be said of an object that is on its way out.
pub fn ending(seen: &Seen) -> Option<Verdict> {
    let reason = match (seen.deleting, seen.finalizers.as_slice()) {
        (false, _) => return None,
        (true, []) => "being deleted".to_owned(),
        (true, waiting) => format!("being deleted, waiting for {}", waiting.join(", ")),
    };
    Some(Verdict::Terminating { reason })
}

/// Judges an object as it was seen last.
pub fn assess(seen: &Seen) -> Verdict {
    if let Some(ending) = ending(seen) {
        return ending;
    }
    // a kind of which only the metadata is watched is there or not
    let Some(object) = seen.health.as_deref() else { return Verdict::Current };
    if let Some(observed) = object.status.observed_generation
        && observed != seen.generation
    {
        return Verdict::not_taken_up();
    }
    let rule = match (seen.id.group.as_str(), seen.id.kind.as_str()) {
        ("apps", "Deployment") => deployment,
        ("apps", "StatefulSet") => stateful_set,
        ("apps", "DaemonSet") => daemon_set,
        ("apps", "ReplicaSet") => replica_set,
        ("batch", "Job") => job,
        ("batch", "CronJob") | ("networking.k8s.io", "Ingress") | ("policy", "PodDisruptionBudget") => current,
        ("autoscaling", "HorizontalPodAutoscaler") => current,
        ("", "Pod") => pod,
        ("", "Service") => service,
        ("", "PersistentVolumeClaim") => claim,
        ("", "PersistentVolume") => volume,
        ("", "Namespace") => namespace,
        ("", "Node") => generic,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition,
        _ => generic,
    };
    rule(object, seen.generation)
}

fn current(_: &Reduced, _: i64) -> Verdict {
    Verdict::Current
}

/// Conditions as the controllers of custom resources write them.
fn generic(object: &Reduced, _: i64) -> Verdict {
    if let Some(stalled) = is(object, "Stalled", "True") {
        return Verdict::failed(words(stalled, "stalled"));
    }
    if let Some(reconciling) = is(object, "Reconciling", "True") {
        return Verdict::waiting(words(reconciling, "reconciling"));
    }
    match object.status.condition("Ready") {
        Some(ready) if &*ready.status != "True" => Verdict::waiting(words(ready, "not ready")),
        _ => Verdict::Current,
    }
}

fn deployment(object: &Reduced, generation: i64) -> Verdict {
    let (spec, status) = (&object.spec, &object.status);
    if status.observed_generation.is_none() && generation > 0 {
        return Verdict::waiting("no controller has taken it up yet");
    }
    if let Some(progressing) = status.condition("Progressing")
        && &*progressing.reason == "ProgressDeadlineExceeded"
    {
        return Verdict::failed(words(progressing, "no progress within the deadline"));
    }
    if let Some(failure) = is(object, "ReplicaFailure", "True") {
        return Verdict::waiting(words(failure, "pods can't be created"));
    }
    let wanted = spec.replicas.unwrap_or(1);
    let updated = status.updated_replicas.unwrap_or(0);
    let total = status.replicas.unwrap_or(0);
    let available = status.available_replicas.unwrap_or(0);
    if updated < wanted {
        if spec.paused == Some(true) {
            return Verdict::waiting(format!("paused with {updated} of {wanted} replicas updated"));
        }
        return Verdict::waiting(format!("{updated} of {wanted} replicas updated"));
    }
    if total > updated {
        return Verdict::waiting(format!("{} old replicas still to end", total - updated));
    }
    if available < wanted {
        return Verdict::waiting(format!("{available} of {wanted} replicas available"));
    }
    Verdict::Current
}

fn stateful_set(object: &Reduced, generation: i64) -> Verdict {
    let (spec, status) = (&object.spec, &object.status);
    if status.observed_generation.is_none() && generation > 0 {
        return Verdict::waiting("no controller has taken it up yet");
    }
    let strategy = spec.update_strategy.as_deref();
    let wanted = spec.replicas.unwrap_or(1);
    let ready = status.ready_replicas.unwrap_or(0);
    let total = status.replicas.unwrap_or(0);
    let updated = status.updated_replicas.unwrap_or(0);
    if strategy.and_then(|s| s.kind.as_deref()) == Some("OnDelete") {
        // pods are replaced when someone deletes them; until then the old ones are what is wanted
        return if ready < wanted {
            Verdict::waiting(format!("{ready} of {wanted} replicas ready"))
        } else {
            Verdict::Current
        };
    }
    if total < wanted {
        return Verdict::waiting(format!("{total} of {wanted} replicas created"));
    }
    if total > wanted {
        return Verdict::waiting(format!("{} replicas still to end", total - wanted));
    }
    if ready < wanted {
        return Verdict::waiting(format!("{ready} of {wanted} replicas ready"));
    }
    let partition = strategy.and_then(|s| s.rolling_update.as_deref()).and_then(|r| r.partition).unwrap_or(0);
    let to_update = (wanted - partition).max(0);
    if partition > 0 {
        if updated < to_update {
            return Verdict::waiting(format!("{updated} of {to_update} replicas above the partition updated"));
        }
    } else if status.current_revision != status.update_revision && updated < wanted {
        return Verdict::waiting(format!("{updated} of {wanted} replicas updated"));
    }
    Verdict::Current
}

fn daemon_set(object: &Reduced, generation: i64) -> Verdict {
    let (spec, status) = (&object.spec, &object.status);
    if status.observed_generation.is_none() && generation > 0 {
        return Verdict::waiting("no controller has taken it up yet");
    }
    let Some(wanted) = status.desired_number_scheduled else {
        return Verdict::waiting("no controller has counted its nodes yet");
    };
    let on_delete = spec.update_strategy.as_deref().and_then(|s| s.kind.as_deref()) == Some("OnDelete");
    let counts = [
        (status.current_number_scheduled, "scheduled", false),
        (status.updated_number_scheduled, "updated", on_delete),
        (status.number_available, "available", false),
        (status.number_ready, "ready", false),
    ];
    for (count, what, skipped) in counts {
        let count = count.unwrap_or(0);
        if count < wanted && !skipped {
            return Verdict::waiting(format!("{count} of {wanted} pods {what}"));
        }
    }
    Verdict::Current
}

fn replica_set(object: &Reduced, generation: i64) -> Verdict {
    let status = &object.status;
    if status.observed_generation.is_none() && generation > 0 {
        return Verdict::waiting("no controller has taken it up yet");
    }
    if let Some(failure) = is(object, "ReplicaFailure", "True") {
        return Verdict::waiting(words(failure, "pods can't be created"));
    }
    let wanted = object.spec.replicas.unwrap_or(1);
    let counts = [
        (status.fully_labeled_replicas, "labelled"),
        (status.available_replicas, "available"),
        (status.ready_replicas, "ready"),
    ];
    for (count, what) in counts {
        let count = count.unwrap_or(0);
        if count < wanted {
            return Verdict::waiting(format!("{count} of {wanted} replicas {what}"));
        }
    }
    if status.replicas.unwrap_or(0) > wanted {
        return Verdict::waiting(format!("{} replicas still to end", status.replicas.unwrap_or(0) - wanted));
    }
    Verdict::Current
}

/// A Job counts when it is complete; a suspended one waits for a person and is waited for by nobody.
fn job(object: &Reduced, _: i64) -> Verdict {
    let status = &object.status;
    if is(object, "Complete", "True").is_some() {
        return Verdict::Current;
    }
    for kind in ["Failed", "FailureTarget"] {
        if let Some(failed) = is(object, kind, "True") {
            return Verdict::failed(words(failed, "the job failed"));
        }
    }
    if object.spec.suspend == Some(true) || is(object, "Suspended", "True").is_some() {
        return Verdict::Current;
    }
    if status.start_time.is_none() {
        return Verdict::waiting("not started yet");
    }
    let (active, succeeded) = (status.active.unwrap_or(0), status.succeeded.unwrap_or(0));
    let failed = status.failed.unwrap_or(0);
    let tries = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    Verdict::waiting(format!("running: {active} active, {succeeded} succeeded{tries}"))
}

fn pod(object: &Reduced, _: i64) -> Verdict {
    match object.status.phase.as_deref() {
        Some("Succeeded") => Verdict::Current,
        Some("Failed") => Verdict::failed("the pod failed"),
        Some("Running") if is(object, "Ready", "True").is_some() => Verdict::Current,
        Some("Running") => {
            Verdict::waiting(object.status.condition("Ready").map_or("not ready".to_owned(), |c| words(c, "not ready")))
        }
        _ => match is(object, "PodScheduled", "False") {
            Some(scheduled) => Verdict::waiting(words(scheduled, "not scheduled")),
            None => Verdict::waiting("not running yet"),
        },
    }
}

fn service(object: &Reduced, _: i64) -> Verdict {
    let addresses = object.status.load_balancer.as_ref().map_or(0, |l| l.ingress);
    if object.spec.kind.as_deref() == Some("LoadBalancer") && addresses == 0 {
        return Verdict::waiting("no address from the load balancer yet");
    }
    Verdict::Current
}

fn claim(object: &Reduced, _: i64) -> Verdict {
    match object.status.phase.as_deref() {
        Some("Bound") => Verdict::Current,
        Some("Lost") => Verdict::failed("the volume is lost"),
        phase => Verdict::waiting(format!("not bound yet ({})", phase.unwrap_or("Pending"))),
    }
}

fn volume(object: &Reduced, _: i64) -> Verdict {
    match object.status.phase.as_deref() {
        Some("Failed") => Verdict::failed("reclaiming the volume failed"),
        Some("Pending") | None => Verdict::waiting("not available yet"),
        Some(_) => Verdict::Current,
    }
}

fn namespace(object: &Reduced, _: i64) -> Verdict {
    match object.status.phase.as_deref() {
        Some("Active") => Verdict::Current,
        phase => Verdict::waiting(format!("not active yet ({})", phase.unwrap_or("new"))),
    }
}

fn definition(object: &Reduced, _: i64) -> Verdict {
    if let Some(refused) = is(object, "NamesAccepted", "False") {
        return Verdict::failed(words(refused, "its names are taken"));
    }
    match object.status.condition("Established") {
        Some(established) if &*established.status == "True" => Verdict::Current,
        Some(established) => Verdict::waiting(words(established, "not established yet")),
        None => Verdict::waiting("not established yet"),
    }
}

fn is<'a>(object: &'a Reduced, kind: &str, status: &str) -> Option<&'a SeenCondition> {
    object.status.condition(kind).filter(|c| &*c.status == status)
}

/// A condition in words: its message, else its reason.
fn words(condition: &SeenCondition, otherwise: &str) -> String {
    match (&*condition.reason, &*condition.message) {
        ("", "") => otherwise.to_owned(),
        (reason, "") => format!("{otherwise} ({reason})"),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ObjectId;
    use serde_json::{Value, json};

    fn seen(group: &str, kind: &str, generation: i64, object: &Value) -> Seen {
        let part = |name: &str| object.get(name).cloned().unwrap_or_else(|| json!({}));
        let health = Reduced {
            spec: serde_json::from_value(part("spec")).unwrap(),
            status: serde_json::from_value(part("status")).unwrap(),
        };
        let id = ObjectId::new(group, kind, "shop", "web");
        Seen { generation, health: Some(Box::new(health)), ..Seen::bare(id) }
    }

    #[test]
    fn each_kind_must_show_what_it_is_there_for() {
        let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message});
        let deploy = |spec: Value, status: Value| ("apps", "Deployment", json!({"spec": spec, "status": status}));
        let sts = |spec: Value, status: Value| ("apps", "StatefulSet", json!({"spec": spec, "status": status}));
        let done = json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3});
        let cases = [
            (deploy(json!({"replicas": 3}), done.clone()), "current"),
            (deploy(json!({"replicas": 0}), json!({"observedGeneration": 2})), "current"),
            (deploy(json!({}), json!({})), "waits: no controller has taken it up yet"),
            (
                deploy(json!({"replicas": 3}), json!({"observedGeneration": 1})),
                "waits: its controller has not taken up the newest change yet",
            ),
            (
                deploy(json!({"replicas": 3}), json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1})),
                "waits: 1 of 3 replicas updated",
            ),
            (
                deploy(json!({"replicas": 3, "paused": true}), json!({"observedGeneration": 2, "updatedReplicas": 1})),
                "waits: paused with 1 of 3 replicas updated",
            ),
            (
                deploy(
                    json!({"replicas": 1}),
                    json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 2}),
                ),
                "waits: 1 old replicas still to end",
            ),
            (
                deploy(
                    json!({"replicas": 2}),
                    json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}),
                ),
                "waits: 1 of 2 replicas available",
            ),
            (
                deploy(
                    json!({"replicas": 3}),
                    json!({"observedGeneration": 2, "conditions": [condition("Progressing", "False", "ProgressDeadlineExceeded", "too slow")]}),
                ),
                "failed: ProgressDeadlineExceeded: too slow",
            ),
            (
                sts(
                    json!({"replicas": 3}),
                    json!({"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 3, "currentRevision": "a", "updateRevision": "a"}),
                ),
                "current",
            ),
            (
                sts(
                    json!({"replicas": 3}),
                    json!({"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"}),
                ),
                "waits: 1 of 3 replicas updated",
            ),
            (
                sts(
                    json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}}),
                    json!({"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"}),
                ),
                "current",
            ),
            (
                sts(
                    json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 1}}}),
                    json!({"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 1}),
                ),
                "waits: 1 of 2 replicas above the partition updated",
            ),
            (
                sts(
                    json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}}),
                    json!({"observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "currentRevision": "a", "updateRevision": "b"}),
                ),
                "current",
            ),
            (
                sts(json!({"replicas": 2}), json!({"observedGeneration": 2, "replicas": 1})),
                "waits: 1 of 2 replicas created",
            ),
            (
                (
                    "apps",
                    "DaemonSet",
                    json!({"status": {"observedGeneration": 2, "desiredNumberScheduled": 2, "currentNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1}}),
                ),
                "waits: 1 of 2 pods available",
            ),
            (
                ("apps", "DaemonSet", json!({"status": {"observedGeneration": 2, "desiredNumberScheduled": 0}})),
                "current",
            ),
            (
                (
                    "apps",
                    "ReplicaSet",
                    json!({"spec": {"replicas": 1}, "status": {"observedGeneration": 2, "replicas": 1, "fullyLabeledReplicas": 1}}),
                ),
                "waits: 0 of 1 replicas available",
            ),
            (("batch", "Job", json!({"status": {"conditions": [condition("Complete", "True", "", "")]}})), "current"),
            (
                (
                    "batch",
                    "Job",
                    json!({"status": {"conditions": [condition("Failed", "True", "BackoffLimitExceeded", "too often")]}}),
                ),
                "failed: BackoffLimitExceeded: too often",
            ),
            (("batch", "Job", json!({"spec": {"suspend": true}})), "current"),
            (("batch", "Job", json!({})), "waits: not started yet"),
            (
                ("batch", "Job", json!({"status": {"startTime": "t", "active": 1, "failed": 2}})),
                "waits: running: 1 active, 0 succeeded, 2 failed",
            ),
            (("batch", "CronJob", json!({})), "current"),
            (
                (
                    "",
                    "Pod",
                    json!({"status": {"phase": "Running", "conditions": [condition("Ready", "True", "", "")]}}),
                ),
                "current",
            ),
            (
                (
                    "",
                    "Pod",
                    json!({"status": {"phase": "Pending", "conditions": [condition("PodScheduled", "False", "Unschedulable", "no node")]}}),
                ),
                "waits: Unschedulable: no node",
            ),
            (
                ("", "Service", json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {}}})),
                "waits: no address from the load balancer yet",
            ),
            (
                (
                    "",
                    "Service",
                    json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{}]}}}),
                ),
                "current",
            ),
            (("", "Service", json!({"spec": {"type": "ClusterIP"}})), "current"),
            (("", "PersistentVolumeClaim", json!({"status": {"phase": "Pending"}})), "waits: not bound yet (Pending)"),
            (("", "PersistentVolumeClaim", json!({"status": {"phase": "Bound"}})), "current"),
            (("", "PersistentVolume", json!({"status": {"phase": "Released"}})), "current"),
            (("", "Namespace", json!({"status": {"phase": "Active"}})), "current"),
            (("apiextensions.k8s.io", "CustomResourceDefinition", json!({})), "waits: not established yet"),
            (
                (
                    "apiextensions.k8s.io",
                    "CustomResourceDefinition",
                    json!({"status": {"conditions": [condition("Established", "True", "", "")]}}),
                ),
                "current",
            ),
            (
                (
                    "policy",
                    "PodDisruptionBudget",
                    json!({"status": {"observedGeneration": 2, "conditions": [condition("DisruptionAllowed", "False", "", "")]}}),
                ),
                "current",
            ),
            (
                (
                    "autoscaling",
                    "HorizontalPodAutoscaler",
                    json!({"status": {"conditions": [condition("ScalingActive", "False", "", "")]}}),
                ),
                "current",
            ),
            (("example.org", "Database", json!({})), "current"),
            (
                ("example.org", "Database", json!({"status": {"observedGeneration": 1}})),
                "waits: its controller has not taken up the newest change yet",
            ),
            (
                (
                    "example.org",
                    "Database",
                    json!({"status": {"conditions": [condition("Ready", "Unknown", "Creating", "")]}}),
                ),
                "waits: not ready (Creating)",
            ),
            (
                (
                    "example.org",
                    "Database",
                    json!({"status": {"conditions": [condition("Ready", "False", "R", "M"), condition("Stalled", "True", "Bad", "no")]}}),
                ),
                "failed: Bad: no",
            ),
            (
                (
                    "example.org",
                    "Database",
                    json!({"status": {"conditions": [condition("Ready", "True", "", ""), condition("Reconciling", "True", "", "busy")]}}),
                ),
                "waits: busy",
            ),
        ];
        for ((group, kind, object), expected) in cases {
            assert_eq!(assess(&seen(group, kind, 2, &object)).spelled(), expected, "{kind} {object}");
        }
    }

    #[test]
    fn what_is_being_deleted_says_what_it_waits_for() {
        let mut object = seen("", "ConfigMap", 0, &json!({}));
        object.health = None;
        assert_eq!(assess(&object), Verdict::Current);
        object.deleting = true;
        object.finalizers = vec!["a/b".into()];
        assert_eq!(assess(&object).spelled(), "ends: being deleted, waiting for a/b");
    }
}
