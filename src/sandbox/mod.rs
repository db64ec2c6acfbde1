//! The embedded Kubernetes API server, and a Git server with its repositories: all that trying Afresh needs.

pub mod controllers;
mod follow;
pub mod git_server;
pub mod kubelet;
pub mod repository;
pub mod typed;
