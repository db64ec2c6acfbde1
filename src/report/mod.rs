//! What people and machines learn: status, events, metrics, notifications, traces.
//!
//! Never delays a reconciliation: events and notifications go through bounded queues, metrics are
//! counters in memory, traces are sent by a thread of their own.

mod events;
mod http;
pub mod metrics;
mod notify;
mod runbook;
mod status;
mod traces;

pub use events::{Event, Events, Recorded, RecordedFailure, Severity, Subject, Verdict};
pub use http::{Readiness, serve};
pub use metrics::{ApplicationMetrics, Delivery, Metrics, ObjectMetrics, SourceMetrics, Stage};
pub use notify::{CommitState, Notices, Router, refusal_of_alert, refusal_of_provider};
pub use status::StatusWriter;
pub use traces::{AttemptTrace, Traces, TracesError};
