//! Prometheus metrics. Series of an object go when the object goes.

use std::time::Duration;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::api::Key;

/// The parts of an attempt whose duration is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Probe,
    Fetch,
    Render,
    Apply,
    Health,
    Prune,
}

impl Stage {
    fn label(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Fetch => "fetch",
            Self::Render => "render",
            Self::Apply => "apply",
            Self::Health => "health",
            Self::Prune => "prune",
        }
    }
}

/// All metrics of the process; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    attempts: IntCounterVec,
    failures: IntCounterVec,
    stages: HistogramVec,
    ready: IntGaugeVec,
    requests: IntCounterVec,
    objects: IntCounterVec,
    drift: IntCounterVec,
    probes: IntCounterVec,
    preemptions: IntCounterVec,
    events_dropped: IntCounter,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels).expect("the name and labels are constants");
            registry.register(Box::new(metric.clone())).expect("each name is registered once");
            metric
        };
        let attempts = counters(
            "afresh_attempts_total",
            "Attempts by result (applied, failed, preempted)",
            &["namespace", "name", "result"],
        );
        let failures = counters(
            "afresh_failures_total",
            "Failed attempts by the reason of the condition",
            &["kind", "namespace", "name", "reason"],
        );
        let requests =
            counters("afresh_api_requests_total", "Requests to the Kubernetes API server", &["verb", "code"]);
        let objects = counters(
            "afresh_objects_total",
            "Objects created, configured, recreated or deleted",
            &["namespace", "name", "action"],
        );
        let drift = counters(
            "afresh_drift_corrections_total",
            "Objects put back after someone else changed them",
            &["namespace", "name"],
        );
        let probes =
            counters("afresh_source_probes_total", "Probes of Git servers by result", &["namespace", "name", "result"]);
        let preemptions =
            counters("afresh_preemptions_total", "Attempts that gave way to something newer", &["namespace", "name"]);
        let stages = HistogramVec::new(
            HistogramOpts::new("afresh_stage_duration_seconds", "Duration of the stages of an attempt")
                .buckets(vec![0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0]),
            &["stage"],
        )
        .expect("the name and labels are constants");
        let ready = IntGaugeVec::new(
            Opts::new("afresh_ready", "1 if the object is Ready, 0 if not, -1 while unknown"),
            &["kind", "namespace", "name"],
        )
        .expect("the name and labels are constants");
        let events_dropped =
            IntCounter::new("afresh_events_dropped_total", "Kubernetes Events dropped because their queue was full")
                .expect("the name is a constant");
        registry.register(Box::new(stages.clone())).expect("each name is registered once");
        registry.register(Box::new(ready.clone())).expect("each name is registered once");
        registry.register(Box::new(events_dropped.clone())).expect("each name is registered once");
        Self {
            registry,
            attempts,
            failures,
            stages,
            ready,
            requests,
            objects,
            drift,
            probes,
            preemptions,
            events_dropped,
        }
    }

    pub fn attempt(&self, app: &Key, result: &str) {
        self.attempts.with_label_values(&[&app.namespace, &app.name, result]).inc();
    }

    pub fn failure(&self, kind: &str, key: &Key, reason: &str) {
        self.failures.with_label_values(&[kind, &key.namespace, &key.name, reason]).inc();
    }

    pub fn stage(&self, stage: Stage, duration: Duration) {
        self.stages.with_label_values(&[stage.label()]).observe(duration.as_secs_f64());
    }

    /// `None`: unknown.
    pub fn ready(&self, kind: &str, key: &Key, ready: Option<bool>) {
        self.ready.with_label_values(&[kind, &key.namespace, &key.name]).set(ready.map_or(-1, i64::from));
    }

    /// `code` 0: no answer.
    pub fn request(&self, verb: &str, code: u16) {
        self.requests.with_label_values(&[verb, &code.to_string()]).inc();
    }

    pub fn objects(&self, app: &Key, action: &str, count: usize) {
        self.objects.with_label_values(&[&app.namespace, &app.name, action]).inc_by(count as u64);
    }

    pub fn drift_corrected(&self, app: &Key, count: usize) {
        self.drift.with_label_values(&[&app.namespace, &app.name]).inc_by(count as u64);
    }

    pub fn probe(&self, source: &Key, result: &str) {
        self.probes.with_label_values(&[&source.namespace, &source.name, result]).inc();
    }

    pub fn preemption(&self, app: &Key) {
        self.preemptions.with_label_values(&[&app.namespace, &app.name]).inc();
    }

    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    /// Removes the readiness of an object that is gone.
    pub fn forget(&self, kind: &str, key: &Key) {
        // an error means that there was no such series
        let _ = self.ready.remove_label_values(&[kind, &key.namespace, &key.name]);
    }

    /// The text exposition format.
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out).expect("writing to memory does not fail");
        String::from_utf8(out).expect("the exposition format is UTF-8")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_names_what_happened_and_forgets_objects_that_are_gone() {
        let metrics = Metrics::new();
        let app = Key::new("flux-system", "shop");
        metrics.attempt(&app, "failed");
        metrics.ready("Kustomization", &app, Some(false));
        let text = metrics.text();
        assert!(
            text.contains(r#"afresh_attempts_total{name="shop",namespace="flux-system",result="failed"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"afresh_ready{kind="Kustomization",name="shop",namespace="flux-system"} 0"#), "{text}");
        metrics.forget("Kustomization", &app);
        assert!(!metrics.text().contains("afresh_ready{"));
    }
}
