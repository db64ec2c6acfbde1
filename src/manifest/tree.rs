//! A read-only tree of files, as rendering sees it. A Git snapshot is one; tests make them in memory.

use std::collections::BTreeMap;

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

/// The paths at which two trees differ, sorted: files, or directories that only one of them has. `None` if there are more
/// than `max`. Costs as much as what differs: subtrees with the same id are the same.
pub fn changed_paths(before: &dyn Tree, after: &dyn Tree, max: usize) -> Result<Option<Vec<String>>, TreeError> {
    let mut changed = Vec::new();
    let mut open = vec![String::new()];
    while let Some(directory) = open.pop() {
        let [old, new] = [before.list(&directory)?, after.list(&directory)?].map(Option::unwrap_or_default);
        let mut rest: BTreeMap<&str, &Entry> = old.iter().map(|entry| (entry.name.as_str(), entry)).collect();
        let at = |name: &str| if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
        for entry in &new {
            match rest.remove(entry.name.as_str()) {
                Some(old) if (old.kind, old.id) == (entry.kind, entry.id) => {}
                Some(old) if (old.kind, entry.kind) == (EntryKind::Directory, EntryKind::Directory) => {
                    open.push(at(&entry.name));
                }
                _ => changed.push(at(&entry.name)),
            }
        }
        changed.extend(rest.into_keys().map(at));
        // each open directory has a change below it
        if changed.len() + open.len() > max {
            return Ok(None);
        }
    }
    changed.sort_unstable();
    Ok(Some(changed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::MemoryTree;

    #[test]
    fn what_changed_between_two_trees_is_named_by_its_path() {
        let tree = |files: &[(&str, &'static str)]| {
            files.iter().fold(MemoryTree::new(), |tree, (path, text)| tree.with(path, *text))
        };
        let before = tree(&[("a/x", "1"), ("a/y", "1"), ("b/z", "1"), ("gone/deep/f", "1"), ("kind", "1")]);
        let after = tree(&[("a/x", "2"), ("a/y", "1"), ("b/z", "1"), ("new/f", "1"), ("kind/f", "1")]);
        let changed = |max| changed_paths(&before, &after, max).unwrap();
        assert_eq!(changed(10).unwrap(), ["a/x", "gone", "kind", "new"]);
        assert_eq!(changed(3), None);
        assert_eq!(changed_paths(&before, &before, 0).unwrap().unwrap(), Vec::<String>::new());
    }
}
