//! A read-only tree of files, as rendering sees it. A Git snapshot is one; tests make them in memory.

use bytes::Bytes;

/// The identity of an entry's content: a Git object id. Equal ids mean equal bytes (or equal subtrees).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub [u8; 20]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    File,
    Directory,
    /// The target is the content; resolved by the reader, inside the tree only.
    Symlink,
    /// A submodule: never followed.
    Submodule,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
    pub id: EntryId,
}

/// Why a tree could not be read. Absence is not an error: it is `None`.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("`{path}` is {size} bytes long, over the limit of {limit}")]
    TooLarge { path: String, size: u64, limit: u64 },
    #[error("the object store can't read `{path}`: {reason}")]
    Store { path: String, reason: String },
}

/// A tree of files at one revision. Paths are relative to its root, with `/`, without `.` and `..`; the root is `""`.
///
/// Implementations don't follow symlinks: `entry` of a symlink is the symlink itself.
pub trait Tree: Send + Sync {
    /// The entry at `path`; `None` if there is none (or an ignore rule hides it).
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError>;
    /// The entries of a directory sorted by name; `None` if there is no directory at `path`.
    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError>;
    /// The content of a file (or the target of a symlink), at most `limit` bytes.
    fn read(&self, path: &str, limit: u64) -> Result<Option<Bytes>, TreeError>;
}
