//! Prometheus metrics: what happened goes in, the exposition format comes out. Never waits, and asks nobody.
//!
//! ```text
//!  worker ── ObjectMetrics (its record; ends with it) ──┐
//!  everyone ── Metrics (counters of the process) ───────┴──▶ text, at each scrape
//! ```
//! An object costs its worker one small record; what is as large as the cluster (names of objects that applications
//! declare, Pods, messages) is never a label.

mod catalogue;
mod delivery;
mod exposition;
mod object;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::api::Key;
use crate::config;

pub use catalogue::{Definition, Type};
pub use delivery::Delivery;
pub use object::{ApplicationMetrics, HeldUp, ObjectMetrics, SourceMetrics, Span};

use exposition::Exposition;
use object::Objects;

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
    pub(super) fn label(self) -> &'static str {
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

/// The states of a watch.
const WATCH_STATES: [&str; 5] = ["starting", "current", "lost", "forbidden", "unserved"];
/// Seconds of one stage: from a memoised render to a health check's timeout.
const STAGE_BOUNDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];
/// Seconds of one API request: up to its timeout.
const REQUEST_BOUNDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// Seconds from a revision's being seen to its being live: what is promised is a second.
const LIVE_BOUNDS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];

/// All metrics of the process; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    objects: Objects,
    live: prometheus::Histogram,
    stages: HistogramVec,
    requests: IntCounterVec,
    request_durations: HistogramVec,
    api_concurrency: IntGauge,
    watches: IntGaugeVec,
    dry_runs: IntCounterVec,
    deliveries: IntCounterVec,
    connections: IntGauge,
    events_dropped: IntCounter,
    notifications_dropped: IntCounter,
    leader: IntGauge,
    shards: IntGaugeVec,
    policies_refused: IntGauge,
}

impl Metrics {
    pub fn new() -> Self {
        Self::of(config::VERSION)
    }

    /// The metrics of the daemon in this version.
    pub fn of(version: &str) -> Self {
        let registry = Registry::new();
        let new = Self {
            objects: Objects::default(),
            live: histograms(&registry, &catalogue::COMMIT_LIVE, LIVE_BOUNDS).with_label_values::<&str>(&[]),
            stages: histograms(&registry, &catalogue::STAGES, STAGE_BOUNDS),
            requests: counters(&registry, &catalogue::API_REQUESTS),
            request_durations: histograms(&registry, &catalogue::API_DURATION, REQUEST_BOUNDS),
            api_concurrency: gauges(&registry, &catalogue::API_CONCURRENCY).with_label_values::<&str>(&[]),
            watches: gauges(&registry, &catalogue::WATCHES),
            dry_runs: counters(&registry, &catalogue::DRY_RUNS),
            deliveries: counters(&registry, &catalogue::DELIVERIES),
            connections: gauges(&registry, &catalogue::CONNECTIONS).with_label_values::<&str>(&[]),
            events_dropped: counters(&registry, &catalogue::EVENTS_DROPPED).with_label_values::<&str>(&[]),
            notifications_dropped: counters(&registry, &catalogue::NOTIFICATIONS_DROPPED)
                .with_label_values::<&str>(&[]),
            leader: gauges(&registry, &catalogue::LEADER).with_label_values::<&str>(&[]),
            shards: gauges(&registry, &catalogue::SHARD),
            policies_refused: gauges(&registry, &catalogue::POLICIES_REFUSED).with_label_values::<&str>(&[]),
            registry,
        };
        gauges(&new.registry, &catalogue::BUILD).with_label_values(&[version]).set(1);
        // from 0 on, so that the first one is an increase
        for (forge, result) in Delivery::FORGES.iter().flat_map(|f| Delivery::ALERTED.map(|result| (f, result))) {
            new.deliveries.with_label_values(&[*forge, result.label()]);
        }
        #[cfg(target_os = "linux")]
        new.registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("each name is registered once");
        new
    }

    /// Every metric that is exposed.
    pub fn catalogue() -> impl Iterator<Item = Definition> {
        catalogue::all()
    }

    /// The record of an application. Its series end when it is dropped.
    pub fn application(&self, key: &Key) -> ApplicationMetrics {
        self.objects.application(key, self.live.clone())
    }

    /// The record of a source.
    pub fn source(&self, key: &Key) -> SourceMetrics {
        self.objects.source(key)
    }

    /// The record of an object of any other kind.
    pub fn object(&self, kind: &'static str, key: &Key) -> ObjectMetrics {
        self.objects.object(kind, key)
    }

    pub fn stage(&self, stage: Stage, duration: Duration) {
        self.stages.with_label_values(&[stage.label()]).observe(duration.as_secs_f64());
    }

    /// `code` 0: no answer.
    pub fn request(&self, verb: &str, code: u16, duration: Duration) {
        self.requests.with_label_values(&[verb, &code.to_string()]).inc();
        self.request_durations.with_label_values(&[verb]).observe(duration.as_secs_f64());
        if verb == "dry-run" {
            let result = match code {
                0 => "unanswered",
                200..300 => "accepted",
                _ => "refused",
            };
            self.dry_runs.with_label_values(&[result]).inc();
        }
    }

    /// Requests to the API server that may be under way at a time.
    pub fn api_concurrency(&self, limit: usize) {
        self.api_concurrency.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// The state of the watch of a kind; `None`: it is not watched any more.
    pub fn watch(&self, resource: &str, namespace: &str, state: Option<&str>) {
        for other in WATCH_STATES.iter().filter(|other| Some(**other) != state) {
            // there was none of that state
            let _ = self.watches.remove_label_values(&[resource, namespace, other]);
        }
        if let Some(state) = state {
            self.watches.with_label_values(&[resource, namespace, state]).set(1);
        }
    }

    /// What became of a webhook delivery.
    pub fn delivery(&self, forge: &'static str, result: Delivery) {
        self.deliveries.with_label_values(&[forge, result.label()]).inc();
    }

    /// Connections to the webhook listener that are open.
    pub fn webhook_connections(&self, open: usize) {
        self.connections.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    pub fn notification_dropped(&self) {
        self.notifications_dropped.inc();
    }

    /// Whether this replica may write.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Whether this replica serves a shard.
    pub fn shard(&self, shard: u32, serves: bool) {
        self.shards.with_label_values(&[shard.to_string()]).set(i64::from(serves));
    }

    pub fn policies_refused(&self, refused: bool) {
        self.policies_refused.set(i64::from(refused));
    }

    /// The text exposition format.
    pub fn text(&self) -> String {
        self.text_at(Instant::now())
    }

    fn text_at(&self, now: Instant) -> String {
        let mut out = Exposition::default();
        self.objects.write(&mut out, now);
        let mut process = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut process).expect("writing to memory does not fail");
        out.into_text() + &String::from_utf8_lossy(&process)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn counters(registry: &Registry, definition: &Definition) -> IntCounterVec {
    let new = IntCounterVec::new(Opts::new(definition.name, definition.help), definition.labels);
    register(registry, new.expect("the name and labels are constants"))
}

fn gauges(registry: &Registry, definition: &Definition) -> IntGaugeVec {
    let new = IntGaugeVec::new(Opts::new(definition.name, definition.help), definition.labels);
    register(registry, new.expect("the name and labels are constants"))
}

fn histograms(registry: &Registry, definition: &Definition, bounds: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(definition.name, definition.help).buckets(bounds.to_vec());
    register(registry, HistogramVec::new(options, definition.labels).expect("the name and labels are constants"))
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("each name is registered once");
    collector
}
