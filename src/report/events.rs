//! Kubernetes Events: one for each change of state, never repeated for the same state.
//!
//! They go through a bounded queue to a task of their own. A full queue drops the event and counts it: an Event is a
//! courtesy, the status is the record.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;

use crate::api::Key;
use crate::cluster::{Cluster, EventNote};

use super::metrics::Metrics;

/// `Normal` or `Warning`, as `kubectl get events` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Normal,
    Warning,
}

/// Something that happened to one of our objects.
#[derive(Clone, Debug)]
pub struct Event {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub key: Key,
    pub uid: String,
    pub severity: Severity,
    pub reason: &'static str,
    pub message: String,
    /// The same state twice in a row is one event; `None`: each counts.
    pub state: Option<String>,
}

/// The name under which events are reported: Flux's, which people and tools filter by.
const COMPONENT: &str = "kustomize-controller";

fn note(event: &Event) -> EventNote<'_> {
    EventNote {
        api_version: event.api_version,
        kind: event.kind,
        namespace: &event.key.namespace,
        name: &event.key.name,
        uid: &event.uid,
        warning: event.severity == Severity::Warning,
        reason: event.reason,
        message: &event.message,
        component: if event.kind == "GitRepository" { "source-controller" } else { COMPONENT },
        annotations: BTreeMap::new(),
        at: Timestamp::now(),
    }
}

/// One event for each application of the largest installation that we serve, at once.
const QUEUE_MAX: usize = 1000;

/// The way in; cheap to clone.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Event>,
    last: Arc<Mutex<HashMap<(&'static str, Key), String>>>,
    metrics: Metrics,
}

impl Events {
    /// The way in and the task that sends.
    pub fn new(cluster: Cluster, metrics: Metrics) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, mut incoming) = mpsc::channel::<Event>(QUEUE_MAX);
        let send = async move {
            while let Some(event) = incoming.recv().await {
                let (kind, key) = (event.kind, event.key.clone());
                if let Err(error) = cluster.create_event(&note(&event)).await {
                    tracing::debug!(%kind, object = %key, %error, "an event could not be recorded");
                }
            }
        };
        (Self { queue, last: Arc::default(), metrics }, send)
    }

    pub fn publish(&self, event: Event) {
        if let Some(state) = &event.state {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = last.entry((event.kind, event.key.clone())).or_default();
            if slot == state {
                return;
            }
            slot.clone_from(state);
        }
        match event.severity {
            Severity::Normal => {
                tracing::info!(kind = event.kind, object = %event.key, reason = event.reason, "{}", event.message)
            }
            Severity::Warning => {
                tracing::warn!(kind = event.kind, object = %event.key, reason = event.reason, "{}", event.message)
            }
        }
        if self.queue.try_send(event).is_err() {
            self.metrics.event_dropped();
        }
    }

    /// The state that an object was found in at start: no event for what was said before.
    pub fn known(&self, kind: &'static str, key: &Key, state: String) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert((kind, key.clone()), state);
    }

    pub fn forget(&self, kind: &'static str, key: &Key) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(&(kind, key.clone()));
    }
}
