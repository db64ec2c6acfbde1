//! Nouns that all stages share: which object is meant, where it was written, what a tree of files is.
//!
//! Pure data: no Kubernetes client, no async runtime, no clock, no file system.

mod digest;
mod identity;
mod memory_tree;
mod normalise;
mod object;
mod packed;
mod pointer;
mod redaction;
pub(crate) mod regular;
mod source_error;
mod tree;
pub mod yaml;

pub use digest::DigestKey;
pub use identity::{GroupKind, Identity, ObjectId};
pub use memory_tree::MemoryTree;
pub use normalise::normalise;
pub use object::{Object, Origin};
pub use packed::Packed;
pub use pointer::{Pointer, PointerError};
pub use redaction::{REDACTED_BYTES_MIN, Redaction};
pub use source_error::{SECRET_TEXT_MARK, SourceError};
pub use tree::{Entry, EntryId, EntryKind, Tree, TreeError, changed_paths};
