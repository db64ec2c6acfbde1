//! Afresh follows Git, renders what it finds, checks it, applies it to Kubernetes and keeps it so.
//!
//! ```text
//!  trigger    poll · signed webhook · watch · file change · requestedAt annotation
//!     │
//!  source     newest revision → Snapshot     an immutable tree, read straight from Git's object store
//!  render     Snapshot + values → Rendered   pure; records every path it read
//!  rollout    configuration hashes into pod templates
//!  policy     Rendered → Verdict             refuses before the cluster is touched
//!  plan       desired × inventory × observed → Plan
//!  apply      Plan → Applied                 the only stage that writes declared objects
//!  health     Applied → Health               watch-driven, holds no worker
//!  report     status · events · metrics · notifications · traces
//! ```
//!
//! [`engine`] carries each application along this way. Each stage consumes the type of the one before it, so none
//! can be skipped.
//!
//! What is deliberately absent:
//! - `manifest`, `cel`, `render`, `rollout`, `policy` and `plan` know no Kubernetes client, no async runtime, no clock and no
//!   file system (`tests/house` checks their imports);
//! - nothing outside `cli` prints, reads the environment or `HOME`;
//! - nothing but `apply` writes the objects that Git declares. What else is written is Afresh's own: status and Events by
//!   `report`, finalizers, marks, Leases and the key by `engine`, by `trigger` the documents of a folder and the annotation
//!   that asks for a reconciliation (the sandbox and the demo are a cluster, not a client).

pub mod api;
pub mod apply;
pub mod cel;
pub mod cluster;
pub mod config;
pub mod engine;
pub mod health;
pub mod manifest;
pub mod plan;
pub mod policy;
pub mod render;
pub mod report;
pub mod rollout;
pub mod sandbox;
pub mod source;
pub mod trigger;

pub mod cli;
