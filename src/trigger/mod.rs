//! What sets things off besides the cluster's own watches and the sources' probes: documents in a folder, and webhooks.

mod folder;
pub mod webhook;

pub use folder::{Folder, FolderError};
