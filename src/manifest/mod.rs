//! Nouns that all stages share: which object is meant, where it was written, what a tree of files is.
//!
//! Pure data: no Kubernetes client, no async runtime, no clock, no file system.

mod identity;
mod object;
mod tree;

pub use identity::{GroupKind, ObjectId};
pub use object::{Object, Origin};
pub use tree::{Entry, EntryId, EntryKind, Tree, TreeError};
