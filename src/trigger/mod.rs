//! What sets things off besides the cluster's own watches and the sources' probes: documents in a folder.

mod folder;

pub use folder::{Folder, FolderError};
