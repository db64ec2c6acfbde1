//! Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs and CronJobs.

use serde_json::{Value, json};

use super::forms::{labels, non_negative, number_or_percent};
use super::immutable;
use super::node::Node;
use super::pod::{one_of, template};
use super::schedule;
use super::storage::claim_spec;
use crate::sandbox::typed::cause::Cause;

const MISMATCH: &str = "`selector` does not match template `labels`";
const STATEFUL_SET_FORBIDDEN: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
const STATEFUL_SET_CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
/// The controller appends 11 characters to a CronJob's name.
const CRON_JOB_NAME_MAX: usize = 52;

pub fn deployment(deployment: &Node<'_>, old: Option<&Node<'_>>) -> Vec<Cause> {
    let spec = deployment.get("spec");
    let mut causes: Vec<Cause> = non_negative(&spec.get("replicas")).into_iter().collect();
    causes.extend(selected_template(&spec, "deployment"));
    causes.extend(deployment_strategy(&spec.get("strategy")));
    causes.extend(non_negative(&spec.get("minReadySeconds")));
    causes.extend(non_negative(&spec.get("revisionHistoryLimit")));
    let deadline = spec.get("progressDeadlineSeconds");
    causes.extend(non_negative(&deadline));
    let ready = spec.get("minReadySeconds").int().unwrap_or_default();
    if deadline.int().is_some_and(|seconds| seconds <= ready) {
        causes.push(Cause::invalid(&deadline.path, deadline.value, "must be greater than minReadySeconds"));
    }
    causes.extend(immutable(deployment, old, "spec.selector"));
    causes
}

pub fn replica_set(set: &Node<'_>, old: Option<&Node<'_>>) -> Vec<Cause> {
    let spec = set.get("spec");
    let mut causes: Vec<Cause> = non_negative(&spec.get("replicas")).into_iter().collect();
    causes.extend(non_negative(&spec.get("minReadySeconds")));
    causes.extend(selected_template(&spec, "deployment"));
    causes.extend(immutable(set, old, "spec.selector"));
    causes
}

pub fn daemon_set(set: &Node<'_>, old: Option<&Node<'_>>) -> Vec<Cause> {
    let spec = set.get("spec");
    let mut causes = selected_template(&spec, "daemonset");
    let strategy = spec.get("updateStrategy");
    match strategy.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = strategy.get("rollingUpdate");
            causes.extend(number_or_percent(&rolling.get("maxUnavailable")));
            causes.extend(number_or_percent(&rolling.get("maxSurge")));
        }
        _ => {
            causes.push(Cause::unsupported(&strategy.path, strategy.get("type").value, &["RollingUpdate", "OnDelete"]))
        }
    }
    causes.extend(non_negative(&spec.get("minReadySeconds")));
    causes.extend(non_negative(&spec.get("revisionHistoryLimit")));
    causes.extend(immutable(set, old, "spec.selector"));
    causes
}

pub fn stateful_set(set: &Node<'_>, old: Option<&Node<'_>>) -> Vec<Cause> {
    let spec = set.get("spec");
    let mut causes = Vec::new();
    let management = spec.get("podManagementPolicy");
    if !matches!(management.text(), "OrderedReady" | "Parallel") {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        causes.push(Cause::invalid(&management.path, management.value, detail));
    }
    let strategy = spec.get("updateStrategy");
    match strategy.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = strategy.get("rollingUpdate");
            causes.extend(non_negative(&rolling.get("partition")));
            causes.extend(number_or_percent(&rolling.get("maxUnavailable")));
        }
        _ => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            causes.push(Cause::invalid(&strategy.path, &go_strategy(&strategy), detail));
        }
    }
    for name in ["replicas", "minReadySeconds"] {
        causes.extend(non_negative(&spec.get(name)));
    }
    causes.extend(selected_template(&spec, "statefulset"));
    for claim in spec.get("volumeClaimTemplates").items() {
        causes.extend(claim_spec(&claim.get("spec")));
    }
    if let Some(old) = old {
        let fixed = |spec: &Value| {
            let mut spec = spec.clone();
            if let Some(map) = spec.as_object_mut() {
                map.retain(|name, _| !STATEFUL_SET_CHANGEABLE.contains(&name.as_str()));
            }
            spec
        };
        if fixed(spec.value) != fixed(old.get("spec").value) {
            causes.insert(0, Cause::forbidden(&spec.path, STATEFUL_SET_FORBIDDEN));
        }
    }
    causes
}

pub fn job(job: &Node<'_>, old: Option<&Node<'_>>) -> Vec<Cause> {
    let mut causes = generated_selector(job);
    causes.extend(job_spec(&job.get("spec")));
    let Some(before) = old else { return causes };
    causes.extend(immutable(job, old, "spec.completions"));
    causes.extend(immutable(job, old, "spec.selector"));
    if !before.at("spec.suspend").is_true() {
        causes.extend(immutable(job, old, "spec.template"));
    }
    causes.extend(immutable(job, old, "spec.completionMode"));
    causes
}

/// A Job that doesn't choose its Pods by hand selects them by the labels that the server gives them.
fn generated_selector(job: &Node<'_>) -> Vec<Cause> {
    let (selector, own) = (job.at("spec.selector"), job.at("spec.template.metadata.labels"));
    let mut causes = Vec::new();
    if !selector.is_set() {
        return causes;
    }
    let (uid, name) = (job.at("metadata.uid"), job.at("metadata.name"));
    let generated = json!({
        "controller-uid": uid.value,
        "batch.kubernetes.io/controller-uid": uid.value,
        "job-name": name.value,
        "batch.kubernetes.io/job-name": name.value,
    });
    if !job.at("spec.manualSelector").is_true() && !matches(&selector, &Node::root(&generated)) {
        causes.push(Cause::invalid(&selector.path, selector.value, "`selector` not auto-generated"));
    }
    if !matches(&selector, &own) {
        causes.push(Cause::invalid(&own.path, own.value, MISMATCH));
    }
    causes
}

fn job_spec(spec: &Node<'_>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for name in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"] {
        causes.extend(non_negative(&spec.get(name)));
    }
    let mode = spec.get("completionMode");
    if mode.is_set() {
        causes.extend(one_of(&mode, &["Indexed", "NonIndexed"]));
        if mode.text() == "Indexed" && !spec.get("completions").is_set() {
            let path = spec.get("completions").path;
            causes.push(Cause::required(path, "when completion mode is Indexed"));
        }
    }
    let pod = spec.get("template");
    let claims = spec.get("volumeClaimTemplates").items();
    let claims: Vec<&str> = claims.iter().map(|claim| claim.at("metadata.name").text()).collect();
    causes.extend(template(&pod, &claims));
    let policy = pod.at("spec.restartPolicy");
    match policy.text() {
        "OnFailure" | "Never" => {}
        "Always" | "" => causes.push(Cause::required(policy.path, "valid values: \"OnFailure\", \"Never\"")),
        _ => causes.push(Cause::unsupported(&policy.path, policy.value, &["OnFailure", "Never"])),
    }
    causes
}

pub fn cron_job(cron: &Node<'_>, old: Option<&Node<'_>>) -> Vec<Cause> {
    let spec = cron.get("spec");
    let mut causes = Vec::new();
    let name = cron.at("metadata.name");
    if old.is_none() && name.text().len() > CRON_JOB_NAME_MAX {
        let detail = format!("must be no more than {CRON_JOB_NAME_MAX} characters");
        causes.push(Cause::invalid(&name.path, name.value, &detail));
    }
    causes.extend(schedule::schedule(&spec.get("schedule")));
    causes.extend(non_negative(&spec.get("startingDeadlineSeconds")));
    let zone = spec.get("timeZone");
    if zone.is_set() && jiff::tz::TimeZone::get(zone.text()).is_err() {
        causes.push(Cause::invalid(&zone.path, zone.value, &format!("unknown time zone {}", zone.text())));
    }
    causes.extend(one_of(&spec.get("concurrencyPolicy"), &["Allow", "Forbid", "Replace"]));
    causes.extend(job_spec(&spec.at("jobTemplate.spec")));
    for name in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        causes.extend(non_negative(&spec.get(name)));
    }
    causes
}

fn deployment_strategy(strategy: &Node<'_>) -> Vec<Cause> {
    let rolling = strategy.get("rollingUpdate");
    let mut causes = Vec::new();
    match strategy.get("type").text() {
        "Recreate" if rolling.is_set() => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            causes.push(Cause::forbidden(&rolling.path, detail));
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            causes.extend(number_or_percent(&unavailable));
            causes.extend(number_or_percent(&surge));
            let is_zero = |node: &Node<'_>| node.int() == Some(0) || node.text() == "0%";
            if is_zero(&unavailable) && is_zero(&surge) {
                causes.push(Cause::invalid(&unavailable.path, unavailable.value, "may not be 0 when `maxSurge` is 0"));
            }
        }
        _ => causes.push(Cause::unsupported(&strategy.path, &go_strategy(strategy), &["Recreate", "RollingUpdate"])),
    }
    causes
}

/// A strategy as the server prints its own type.
fn go_strategy(strategy: &Node<'_>) -> Value {
    json!({"Type": strategy.get("type").value, "RollingUpdate": strategy.get("rollingUpdate").value})
}

/// A selector and the template that it must match.
fn selected_template(spec: &Node<'_>, kind: &str) -> Vec<Cause> {
    let (selector, pod) = (spec.get("selector"), spec.get("template"));
    let mut causes = Vec::new();
    let everything = selector.get("matchLabels").is_empty() && selector.get("matchExpressions").is_empty();
    if !selector.is_set() {
        causes.push(Cause::required(&selector.path, ""));
    } else if everything {
        causes.push(Cause::invalid(&selector.path, selector.value, &format!("empty selector is invalid for {kind}")));
    }
    causes.extend(labels(&selector.get("matchLabels")));
    for expression in selector.get("matchExpressions").items() {
        causes.extend(requirement(&expression));
    }
    let own = pod.at("metadata.labels");
    if !selector.is_set() || (!everything && !matches(&selector, &own)) {
        causes.push(Cause::invalid(&own.path, own.value, MISMATCH));
    }
    let claims = spec.get("volumeClaimTemplates").items();
    let claims: Vec<&str> = claims.iter().map(|claim| claim.at("metadata.name").text()).collect();
    causes.extend(template(&pod, &claims));
    let policy = pod.at("spec.restartPolicy");
    if policy.is_set() && policy.text() != "Always" {
        causes.push(Cause::unsupported(&policy.path, policy.value, &["Always"]));
    }
    causes
}

fn requirement(expression: &Node<'_>) -> Option<Cause> {
    let (operator, values) = (expression.get("operator"), expression.get("values"));
    match operator.text() {
        "In" | "NotIn" if values.is_empty() => {
            Some(Cause::required(values.path, "must be specified when `operator` is 'In' or 'NotIn'"))
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            Some(Cause::forbidden(values.path, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => None,
        _ => Some(Cause::invalid(operator.path, operator.value, "not a valid selector operator")),
    }
}

fn matches(selector: &Node<'_>, labels: &Node<'_>) -> bool {
    let label = |key: &str| labels.value.get(key).and_then(Value::as_str);
    let equal = selector.get("matchLabels").entries().iter().all(|wanted| label(wanted.name()) == Some(wanted.text()));
    equal
        && selector.get("matchExpressions").items().iter().all(|expression| {
            let value = label(expression.get("key").text());
            let listed = value.is_some_and(|value| expression.get("values").items().iter().any(|v| v.text() == value));
            match expression.get("operator").text() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
