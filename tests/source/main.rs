//! The source stage against a real Git server, with what goes wrong between them.

mod cache;
mod protocol;
mod support;
mod tls;
mod tree;
