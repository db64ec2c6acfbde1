//! Notifications: what `Alert` and `Provider` objects ask for.
//!
//! ```text
//!  Events ── news (bounded) ──▶ router ── rules (alert) ─┬─▶ mailbox ──▶ delivery ──▶ endpoint     one of each
//!                                 │   standing: what was │
//!            Alerts, Providers ───┘   said of whom       └─▶ mailbox ──▶ delivery ──▶ endpoint     for each Provider
//! ```
//!
//! Who reports never waits: news go through a bounded queue, each provider has a mailbox of its own in which the newest
//! state of an object replaces an older one that is not delivered yet, and whatever is dropped is counted. An endpoint
//! that hangs holds up nobody but itself. No credential and no address from a Secret is in an error or a log.

mod alert;
mod delivery;
mod endpoint;
mod expression;
mod forge;
mod format;
mod mailbox;
mod news;
mod pages;
mod router;
mod standing;

pub use alert::refusal_of_alert;
pub use endpoint::refusal_of_provider;
pub use news::{CommitState, Happened, News, Notices};
pub use router::Router;
