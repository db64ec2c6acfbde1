//! The sandbox: an embedded Kubernetes API server, for trying Afresh without a cluster, for tests and for faults on
//! demand; and what belongs to a cluster: controllers, a kubelet, a Git server with its repositories.
//!
//! ```text
//!  server ─▶ request ─▶ faults ─▶ api ─┬─ reading, watching ◀─┐
//!    ▲                                 └─ writing, removal ──▶ store ◀─▶ collector
//!    └───────────── answer, table ◀───────────┘
//! ```
//!
//! It serves what the daemon, its tests and kubectl send, with the API server's words; it keeps everything in memory,
//! authenticates by at most one token, authorizes everything, and runs no webhooks. It is not a place to run
//! production on.

mod addresses;
mod answer;
mod api;
mod body;
mod builtin;
mod change;
mod collector;
pub mod controllers;
mod definition;
mod discovery;
mod events;
mod faults;
mod follow;
pub mod git_server;
mod journal;
mod kubeconfig;
pub mod kubelet;
mod metadata;
mod openapi;
mod patching;
mod pods;
mod protobuf;
mod reading;
mod refusal;
mod registry;
mod removal;
pub mod repository;
mod request;
mod resource;
mod rules;
mod scale;
mod selector;
mod server;
mod store;
mod table;
pub mod typed;
mod typing;
mod validation;
mod watching;
mod writing;

pub use faults::{Effect, Faults, Match, Rule, RuleId};
pub use journal::{Entry, Journal};
pub use request::{Subresource, Verb};
pub use server::{Options, Sandbox, SandboxError};
