//! The source stage against a real Git server, with what goes wrong between them.

mod access;
mod cache;
mod hostile;
mod protocol;
mod ssh;
mod support;
mod tls;
mod tree;
