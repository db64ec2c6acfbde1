//! What comes in: what happened to an object, how a commit fares, who is known and who is gone; and its bounded queue.

use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;

use crate::api::Key;
use crate::report::events::{Event, RecordedFailure, Severity, Subject, Verdict};
use crate::report::metrics::Metrics;

/// What one object's reports can amount to: an application and its source, each known and with some news, in the
/// largest installation that we serve, while the Alerts are still being listed.
const QUEUE_MAX: usize = 4096;

/// The longest message that is sent, in bytes: chats show less, and receivers of Flux's events accept more.
const MESSAGE_BYTES_MAX: usize = 4096;

#[derive(Debug)]
pub enum News {
    Happened(Box<Happened>),
    Commit(Box<Commit>),
    /// How an object was found at start.
    Known {
        subject: Box<Subject>,
        failure: Option<Box<RecordedFailure>>,
    },
    /// The object is gone.
    Forgotten {
        kind: &'static str,
        key: Key,
    },
}

/// An event on its way to whom it may concern.
#[derive(Clone, Debug)]
pub struct Happened {
    pub subject: Subject,
    pub at: Timestamp,
    pub severity: Severity,
    pub verdict: Verdict,
    pub reason: String,
    pub message: String,
    pub revision: Option<String>,
}

/// How a commit fares in one application.
#[derive(Clone, Debug)]
pub struct Commit {
    pub subject: Subject,
    pub at: Timestamp,
    pub revision: String,
    pub state: CommitState,
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommitState {
    /// It is being applied, or waits for its health.
    Pending,
    Success,
    Failure,
    /// A newer one took its place before it came to anything.
    Superseded,
}

impl From<&Event> for Happened {
    fn from(event: &Event) -> Self {
        Self {
            subject: event.subject.clone(),
            at: Timestamp::now(),
            severity: event.severity,
            verdict: event.verdict.clone(),
            reason: event.reason.to_owned(),
            message: shortened(&event.message),
            revision: event.revision.clone(),
        }
    }
}

impl News {
    pub fn commit(subject: Subject, revision: String, state: CommitState, reason: &str, message: String) -> Self {
        let (reason, message) = (reason.to_owned(), shortened(&message));
        Self::Commit(Box::new(Commit { subject, at: Timestamp::now(), revision, state, reason, message }))
    }
}

fn shortened(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    let end = (0..=MESSAGE_BYTES_MAX).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
    format!("{}…", &message[..end])
}

/// The way in; cheap to clone.
#[derive(Clone)]
pub struct Notices {
    queue: mpsc::Sender<News>,
    metrics: Metrics,
}

impl Notices {
    /// The way in, and what the router takes from.
    pub fn new(metrics: Metrics) -> (Self, mpsc::Receiver<News>) {
        let (queue, incoming) = mpsc::channel(QUEUE_MAX);
        (Self { queue, metrics }, incoming)
    }

    /// Never waits.
    pub fn tell(&self, news: News) {
        if self.queue.try_send(news).is_err() {
            self.metrics.notification_dropped();
        }
    }
}
