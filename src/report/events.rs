//! What happens to our objects: each change of state once, never repeated for the same state.
//!
//! ```text
//!  workers ── Event ──▶ Events ─┬─ queue ──▶ Kubernetes Events
//!                               └─ queue ──▶ notifications (src/report/notify)
//! ```
//!
//! Both queues are bounded and have a task of their own. A full one drops and counts: nobody who reports ever waits. An
//! Event is a courtesy, the status is the record.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;

use crate::api::{EVENT_METADATA_PREFIX, Key};
use crate::cluster::{Cluster, EventNote};

use super::metrics::Metrics;
use super::notify::{CommitState, Happened, News, Notices};

/// `Normal` or `Warning`, as `kubectl get events` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Normal,
    Warning,
}

/// What an event says of its object, for whoever is notified of changes of state only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not as it should be. `root`: the source whose failure is the reason.
    Failed { root: Option<Key> },
    /// It is as it should be. `changed`: something was done for it.
    Ready { changed: bool },
    /// Something worth a message that changes no state.
    Note,
    /// A detail: an Event, and no notification.
    Detail,
}

/// Whom an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    /// What its annotations `event.toolkit.fluxcd.io/…` add to notifications.
    pub metadata: BTreeMap<String, String>,
}

impl Subject {
    pub fn new(api_version: &'static str, kind: &'static str, key: &Key, metadata: &ObjectMeta) -> Self {
        let annotations = metadata.annotations.iter().flatten();
        let added = annotations.filter_map(|(key, value)| {
            Some((key.strip_prefix(EVENT_METADATA_PREFIX)?.to_owned(), value.clone())) //
        });
        Self {
            api_version,
            kind,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: metadata.uid.clone().unwrap_or_default(),
            labels: metadata.labels.clone().unwrap_or_default(),
            metadata: added.collect(),
        }
    }

    pub fn key(&self) -> Key {
        Key::new(self.namespace.clone(), self.name.clone())
    }

    /// The name under which it is reported on: Flux's, which people and tools filter by.
    pub fn reporter(&self) -> &'static str {
        match self.kind {
            "GitRepository" => "source-controller",
            "Alert" | "Provider" => "notification-controller",
            _ => "kustomize-controller",
        }
    }
}

/// Something that happened to one of our objects.
#[derive(Clone, Debug)]
pub struct Event {
    pub subject: Subject,
    pub severity: Severity,
    pub verdict: Verdict,
    pub reason: &'static str,
    pub message: String,
    /// What it happened at.
    pub revision: Option<String>,
    /// The same state twice in a row is one event; `None`: each counts.
    pub state: Option<String>,
}

/// What an object's status says when the daemon starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// As [`Event::state`].
    pub state: String,
    /// The failure that it records: reason and message, the revision, and the source that is to blame for it.
    pub failure: Option<RecordedFailure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedFailure {
    pub reason: String,
    pub message: String,
    pub revision: Option<String>,
    pub root: Option<Key>,
}

fn note(event: &Event) -> EventNote<'_> {
    EventNote {
        api_version: event.subject.api_version,
        kind: event.subject.kind,
        namespace: &event.subject.namespace,
        name: &event.subject.name,
        uid: &event.subject.uid,
        warning: event.severity == Severity::Warning,
        reason: event.reason,
        message: &event.message,
        component: event.subject.reporter(),
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
    notices: Notices,
    metrics: Metrics,
}

impl Events {
    /// The way in and the task that sends.
    pub fn new(cluster: Cluster, metrics: Metrics, notices: Notices) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, mut incoming) = mpsc::channel::<Event>(QUEUE_MAX);
        let send = async move {
            while let Some(event) = incoming.recv().await {
                let subject = &event.subject;
                if let Err(error) = cluster.create_event(&note(&event)).await {
                    tracing::debug!(kind = subject.kind, object = %subject.key(), %error, "an event could not be recorded");
                }
            }
        };
        (Self { queue, last: Arc::default(), notices, metrics }, send)
    }

    pub fn publish(&self, event: Event) {
        let (kind, key) = (event.subject.kind, event.subject.key());
        if let Some(state) = &event.state {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = last.entry((kind, key.clone())).or_default();
            if slot == state {
                return;
            }
            slot.clone_from(state);
        }
        match event.severity {
            Severity::Normal => tracing::info!(kind, object = %key, reason = event.reason, "{}", event.message),
            Severity::Warning => tracing::warn!(kind, object = %key, reason = event.reason, "{}", event.message),
        }
        if event.verdict != Verdict::Detail {
            self.notices.tell(News::Happened(Box::new(Happened::from(&event))));
        }
        if self.queue.try_send(event).is_err() {
            self.metrics.event_dropped();
        }
    }

    /// How a commit fares, for the forge that it came from. No Kubernetes Event.
    pub fn commit(&self, subject: Subject, revision: String, state: CommitState, reason: &str, message: String) {
        self.notices.tell(News::commit(subject, revision, state, reason, message));
    }

    /// The state that an object was found in at start: no event for what was said before.
    pub fn known(&self, subject: Subject, recorded: Recorded) {
        let Recorded { state, failure } = recorded;
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert((subject.kind, subject.key()), state);
        self.notices.tell(News::Known { subject: Box::new(subject), failure: failure.map(Box::new) });
    }

    pub fn forget(&self, kind: &'static str, key: &Key) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(&(kind, key.clone()));
        self.notices.tell(News::Forgotten { kind, key: key.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ClusterOptions;

    #[tokio::test]
    async fn a_full_queue_drops_and_counts_and_nobody_waits() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let nobody = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let cluster = Cluster::from_client(kube::Client::try_from(nobody).unwrap(), ClusterOptions::default());
        let metrics = Metrics::new();
        let (notices, _news) = Notices::new(metrics.clone());
        // nothing is sent: the task that sends does not run
        let (events, _send) = Events::new(cluster, metrics.clone(), notices);
        for number in 0..QUEUE_MAX + 3 {
            events.publish(Event {
                subject: Subject { kind: "Kustomization", name: "web".into(), ..Subject::default() },
                severity: Severity::Normal,
                verdict: Verdict::Detail,
                reason: "Progressing",
                message: String::new(),
                revision: None,
                state: Some(number.to_string()),
            });
        }
        let text = metrics.text();
        assert!(text.lines().any(|line| line == "afresh_events_dropped_total 3"), "{text}");
    }
}
