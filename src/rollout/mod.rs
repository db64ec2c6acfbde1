//! Which configuration a workload reads, and when a change of it has to roll the workload.
//!
//! ```text
//!  workload as declared ──▶ references ─┐
//!  Secrets, ConfigMaps ───▶ digests ────┼──▶ decision: the pod template's annotation and the record beside it
//!  workload as it is live ─▶ record ────┘
//! ```
//!
//! The live workload carries all the state there is: the record, an annotation of its metadata, which rolls nothing,
//! says what its Pods have read; the hash, an annotation of its pod template, changes when that has changed. So a change
//! is noticed whoever makes it and whenever, and what is seen for the first time is a baseline.
//!
//! Pure: no Kubernetes client, no async runtime, no clock, no file system. No value gets past the digests.

mod decision;
mod digest;
mod record;
mod reference;
mod template;
mod wish;

#[cfg(test)]
mod decision_tests;

pub use decision::{Cause, Decision, LOOP_ROLLS_MAX, LOOP_WINDOW_S, Live, Reading, Situation, decide};
pub use digest::{Digests, content_digests, declared_digests, is_left_out};
pub use record::{Entry, Record, Rolled};
pub use reference::{Configuration, Kind, References, Wanted, references};
pub use template::{is_workload, pod_spec, remove_hash, set_hash, template_hash, template_text};
pub use wish::{Asked, Wish, followed};
