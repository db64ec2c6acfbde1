//! What sets things off besides the cluster's own watches and the sources' probes: documents in a folder, policies in
//! another, and webhooks.

mod changes;
mod folder;
mod policies;
pub mod webhook;

pub use folder::{Folder, FolderError};
pub use policies::{PolicyFolder, PolicyFolderError, read as read_policies};
