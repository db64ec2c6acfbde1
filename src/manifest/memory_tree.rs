//! A tree of files in memory, for tests and for trying things.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::tree::{Entry, EntryId, EntryKind, Tree, TreeError};

/// Files and symlinks by path. Ids are made from content, as Git's are: equal subtrees have equal ids.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    files: BTreeMap<String, (EntryKind, Bytes)>,
}

impl MemoryTree {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a file.
    #[must_use]
    pub fn with(mut self, path: &str, content: impl Into<Bytes>) -> Self {
        self.insert(path, content);
        self
    }

    /// Adds or replaces a symlink.
    #[must_use]
    pub fn with_symlink(mut self, path: &str, target: &str) -> Self {
        self.files.insert(path.to_owned(), (EntryKind::Symlink, Bytes::copy_from_slice(target.as_bytes())));
        self
    }

    /// Adds or replaces a submodule.
    #[must_use]
    pub fn with_submodule(mut self, path: &str) -> Self {
        self.files.insert(path.to_owned(), (EntryKind::Submodule, Bytes::new()));
        self
    }

    pub fn insert(&mut self, path: &str, content: impl Into<Bytes>) {
        self.files.insert(path.to_owned(), (EntryKind::File, content.into()));
    }

    /// Removes what is at a path, directories with all that is in them.
    pub fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.files.retain(|file, _| file != path && !file.starts_with(&below));
    }

    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Entries of a directory; none if there isn't one.
    fn children(&self, directory: &str) -> Vec<Entry> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let mut entries: Vec<Entry> = Vec::new();
        let below = self.files.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        for (path, (kind, content)) in below {
            let rest = &path[prefix.len()..];
            match rest.split_once('/') {
                None => entries.push(Entry { name: rest.to_owned(), kind: *kind, id: id(*kind, content) }),
                Some((name, _)) if entries.iter().any(|entry| entry.name == name) => {}
                Some((name, _)) => {
                    let id = self.directory_id(&format!("{prefix}{name}"));
                    entries.push(Entry { name: name.to_owned(), kind: EntryKind::Directory, id });
                }
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }

    fn directory_id(&self, directory: &str) -> EntryId {
        let mut listing = Vec::new();
        for entry in self.children(directory) {
            listing.extend_from_slice(format!("{:?} {}\0", entry.kind, entry.name).as_bytes());
            listing.extend_from_slice(&entry.id.0);
        }
        id(EntryKind::Directory, &listing)
    }
}

impl<P: AsRef<str>, C: Into<Bytes>> FromIterator<(P, C)> for MemoryTree {
    fn from_iter<T: IntoIterator<Item = (P, C)>>(files: T) -> Self {
        let mut tree = Self::new();
        for (path, content) in files {
            tree.insert(path.as_ref(), content);
        }
        tree
    }
}

impl Tree for MemoryTree {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        if let Some((kind, content)) = self.files.get(path) {
            return Ok(Some(Entry { name, kind: *kind, id: id(*kind, content) }));
        }
        let is_directory = path.is_empty() || !self.children(path).is_empty();
        Ok(is_directory.then(|| Entry { name, kind: EntryKind::Directory, id: self.directory_id(path) }))
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError> {
        let entries = self.children(path);
        Ok((path.is_empty() || !entries.is_empty()).then_some(entries))
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Bytes>, TreeError> {
        match self.files.get(path) {
            Some((EntryKind::File | EntryKind::Symlink, content)) if content.len() as u64 > limit => {
                Err(TreeError::TooLarge { path: path.to_owned(), size: content.len() as u64, limit })
            }
            Some((EntryKind::File | EntryKind::Symlink, content)) => Ok(Some(content.clone())),
            _ => Ok(None),
        }
    }
}

fn id(kind: EntryKind, content: &[u8]) -> EntryId {
    let mut hash = Sha256::new();
    hash.update(format!("{kind:?} "));
    hash.update(content);
    let digest = hash.finalize();
    let mut id = [0; 20];
    id.copy_from_slice(&digest[..20]);
    EntryId(id)
}
