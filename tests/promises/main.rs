//! The promises, each as scenarios on the sandbox and on a real control plane.

#[allow(dead_code, reason = "each test binary uses its part of the environment")]
#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod among_replicas;
mod bad_input;
mod confinement;
mod decryption;
mod dependencies;
mod drift;
mod drift_fights;
mod drift_ignored;
mod drift_left;
mod drift_scaled;
mod dying;
mod endpoints;
mod fairness;
mod faults;
mod frugality;
mod guards;
mod health_checks;
mod installation;
mod kustomize;
mod late_writes;
mod leadership;
mod looking;
mod metrics;
mod migration;
mod notifications;
mod ownership;
mod policies;
mod policy_agreement;
mod preemption;
mod quiet;
mod recovery;
mod recreation;
mod remote_bases;
mod rights;
mod rollouts;
mod secrecy;
mod shards;
mod shared_remote;
mod sources;
mod takeover;
mod traces;
mod truth;
mod webhook;
