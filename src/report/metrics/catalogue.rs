//! Every metric that is exposed: its name, type, labels and meaning. Names are stable; docs/metrics.md is compared with
//! this list by a test, and so are the rules and the dashboard.

/// The type of a metric, in the words of the exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Counter,
    Gauge,
    Histogram,
}

impl Type {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric. Units are last in the name: seconds, bytes, `_total` for counters.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    pub name: &'static str,
    pub r#type: Type,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// Labels of what every kind has.
const OBJECT: &[&str] = &["kind", "namespace", "name"];
/// Labels of what one kind has only.
const NAMED: &[&str] = &["namespace", "name"];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Definition {
    Definition { name, r#type: Type::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Definition {
    Definition { name, r#type: Type::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Definition {
    Definition { name, r#type: Type::Histogram, labels, help }
}

// Of each object; they go with it.
pub const READY: Definition = gauge("afresh_ready", OBJECT, "1 if the object is Ready, 0 if not, -1 while unknown");
pub const SUSPENDED: Definition = gauge("afresh_suspended", OBJECT, "1 if the object is suspended");
pub const CONSECUTIVE_FAILURES: Definition =
    gauge("afresh_consecutive_failures", OBJECT, "Failures since the last success; 0 while it succeeds");
pub const FAILURES: Definition =
    counter("afresh_failures_total", &["kind", "namespace", "name", "reason"], "Failures by the condition's reason");
pub const RECOVERY: Definition = histogram(
    "afresh_time_to_recovery_seconds",
    OBJECT,
    "Time from the first failure to Ready again; no series before the first recovery",
);

// Of each application.
pub const COMMIT_LAG: Definition = gauge(
    "afresh_commit_lag_seconds",
    NAMED,
    "How long a newer revision than the applied one has been visible; 0 while up to date or suspended",
);
pub const ATTEMPT: Definition =
    gauge("afresh_attempt_in_progress_seconds", NAMED, "How long the present attempt has been going on; 0 without one");
pub const DEPENDENCY_WAIT: Definition = gauge(
    "afresh_dependency_wait_seconds",
    NAMED,
    "How long the present attempt has been waiting for `dependsOn`; 0 if it does not",
);
pub const ATTEMPTS: Definition =
    counter("afresh_attempts_total", &["namespace", "name", "result"], "Attempts: applied, failed, preempted");
pub const OBJECTS: Definition = counter(
    "afresh_objects_total",
    &["namespace", "name", "action"],
    "Objects written: created, configured, recreated, deleted",
);
pub const DRIFT: Definition =
    counter("afresh_drift_corrections_total", NAMED, "Objects put back after someone else had changed them");
pub const DRIFT_OBJECTS: Definition = gauge(
    "afresh_drift_objects",
    &["namespace", "name", "state"],
    "Objects that are not as declared because of others: left, fought over, scaled",
);
pub const ROLLOUTS: Definition = counter(
    "afresh_rollouts_total",
    NAMED,
    "Workloads rolled because of what they read; of applications with such workloads",
);
pub const ROLLOUT_LOOPS: Definition = gauge(
    "afresh_rollout_loops",
    NAMED,
    "Workloads that are not rolled any more, since what they read changes with each of their rollouts",
);
pub const ROLLOUT_REFERENCES: Definition = gauge(
    "afresh_rollout_references",
    &["namespace", "name", "state"],
    "Secrets and ConfigMaps that workloads read and that are missing, unreadable, or immutable and recreated under their name",
);

// Of each source.
pub const PROBES: Definition =
    counter("afresh_source_probes_total", &["namespace", "name", "result"], "Looks at the remote: ok, failed");
pub const FETCHES: Definition =
    counter("afresh_source_fetches_total", &["namespace", "name", "result"], "New revisions fetched: ok, failed");
pub const SOURCE_BYTES: Definition = counter(
    "afresh_source_received_bytes_total",
    NAMED,
    "Bytes received from the remote; of a remote that sources share each byte is counted once, for one of them",
);
pub const SOURCE_ERRORS: Definition = counter(
    "afresh_source_errors_total",
    &["namespace", "name", "class"],
    "Failed probes and fetches: auth, not_found, unreachable, transient, permanent",
);

// Of each `Provider` of notifications.
pub const NOTIFICATIONS: Definition = counter(
    "afresh_notifications_total",
    &["namespace", "name", "result"],
    "What became of notifications: sent, retried, refused, superseded by a newer one on the same matter",
);

// What Flux's controllers expose, for dashboards that were made for them.
pub const FLUX_DURATION: Definition =
    histogram("gotk_reconcile_duration_seconds", OBJECT, "Duration of attempts, and of observations of sources");
pub const FLUX_CONDITION: Definition = gauge(
    "gotk_reconcile_condition",
    &["kind", "namespace", "name", "type", "status"],
    "1 for the status that the Ready condition has",
);
pub const FLUX_SUSPEND: Definition = gauge("gotk_suspend_status", OBJECT, "1 if the object is suspended");

// Of the process.
pub const COMMIT_LIVE: Definition = histogram(
    "afresh_commit_live_seconds",
    &[],
    "Time from seeing a revision to an application having it applied and, with `wait`, healthy",
);
pub const STAGES: Definition = histogram(
    "afresh_stage_duration_seconds",
    &["stage"],
    "Duration of stages: probe, fetch, render, apply, health, prune",
);
pub const API_REQUESTS: Definition =
    counter("afresh_api_requests_total", &["verb", "code"], "Requests to the API server; code 0: no answer");
pub const API_DURATION: Definition =
    histogram("afresh_api_request_duration_seconds", &["verb"], "Time to the answer; of a watch, to its opening");
pub const API_CONCURRENCY: Definition = gauge(
    "afresh_api_concurrency_limit",
    &[],
    "Requests to the API server that may be under way at a time; less than --api-concurrency while it asks for less",
);
pub const WATCHES: Definition = gauge(
    "afresh_watches",
    &["resource", "namespace", "state"],
    "1 for the state that the watch of a kind has which applications declare",
);
pub const DRY_RUNS: Definition =
    counter("afresh_dry_runs_total", &["result"], "Dry-runs of objects: accepted, refused, unanswered");
pub const DELIVERIES: Definition =
    counter("afresh_webhook_deliveries_total", &["forge", "result"], "Webhook deliveries by what became of them");
pub const CONNECTIONS: Definition =
    gauge("afresh_webhook_connections", &[], "Connections to the webhook listener that are open");
pub const EVENTS_DROPPED: Definition =
    counter("afresh_events_dropped_total", &[], "Kubernetes Events dropped because their queue was full");
pub const NOTIFICATIONS_DROPPED: Definition = counter(
    "afresh_notifications_dropped_total",
    &[],
    "Notifications given up: refused, too many waiting, too old, or for no provider that is there",
);
pub const LEADER: Definition = gauge("afresh_leader", &[], "1 while this replica may write");
pub const SHARD: Definition = gauge("afresh_shard", &["shard"], "1 while this replica serves the shard");
pub const POLICIES_REFUSED: Definition = gauge(
    "afresh_policies_refused",
    &[],
    "1 while the folder of --policies holds what can't be used, and the last good policies stay in force",
);
pub const BUILD: Definition = gauge("afresh_build_info", &["version"], "1, with the version that runs");

/// Process figures in the names that all Prometheus clients use; on Linux only.
const PROCESS: [Definition; 7] = [
    counter("process_cpu_seconds_total", &[], "Total user and system CPU time spent in seconds."),
    gauge("process_open_fds", &[], "Number of open file descriptors."),
    gauge("process_max_fds", &[], "Maximum number of open file descriptors."),
    gauge("process_virtual_memory_bytes", &[], "Virtual memory size in bytes."),
    gauge("process_resident_memory_bytes", &[], "Resident memory size in bytes."),
    gauge("process_start_time_seconds", &[], "Start time of the process since unix epoch in seconds."),
    gauge("process_threads", &[], "Number of OS threads in the process."),
];

/// All of them, in the order of the documentation.
pub fn all() -> impl Iterator<Item = Definition> {
    let ours = [
        READY,
        SUSPENDED,
        CONSECUTIVE_FAILURES,
        FAILURES,
        RECOVERY,
        COMMIT_LAG,
        ATTEMPT,
        DEPENDENCY_WAIT,
        ATTEMPTS,
        OBJECTS,
        DRIFT,
        DRIFT_OBJECTS,
        ROLLOUTS,
        ROLLOUT_LOOPS,
        ROLLOUT_REFERENCES,
        PROBES,
        FETCHES,
        SOURCE_BYTES,
        SOURCE_ERRORS,
        NOTIFICATIONS,
        FLUX_DURATION,
        FLUX_CONDITION,
        FLUX_SUSPEND,
        COMMIT_LIVE,
        STAGES,
        API_REQUESTS,
        API_DURATION,
        API_CONCURRENCY,
        WATCHES,
        DRY_RUNS,
        DELIVERIES,
        CONNECTIONS,
        EVENTS_DROPPED,
        NOTIFICATIONS_DROPPED,
        LEADER,
        SHARD,
        POLICIES_REFUSED,
        BUILD,
    ];
    ours.into_iter().chain(PROCESS)
}
