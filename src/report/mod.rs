//! What people and machines learn: status, events, metrics.
//!
//! Never delays a reconciliation: events go through a bounded queue, metrics are counters in memory.

mod events;
mod http;
pub mod metrics;
mod status;

pub use events::{Event, Events, Severity};
pub use http::{Readiness, serve};
pub use metrics::{ApplicationMetrics, Delivery, Metrics, ObjectMetrics, SourceMetrics, Stage};
pub use status::StatusWriter;
