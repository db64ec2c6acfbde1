//! The embedded Kubernetes API server.

pub mod controllers;
mod follow;
pub mod kubelet;
