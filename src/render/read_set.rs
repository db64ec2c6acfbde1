//! What a rendering read, and whether another revision has the same.

use std::collections::{BTreeMap, HashSet};

use sha2::{Digest, Sha256};

use super::files::KUSTOMIZATION_FILES;
use super::path;
use crate::manifest::{Entry, EntryId, EntryKind, Tree, TreeError};

/// The paths that a rendering looked at, each with what it saw there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSet {
    /// Every directory on the way to a path is in it as well.
    seen: BTreeMap<String, Seen>,
}

/// What was at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Absent,
    /// With its names and kinds if they were asked for. The id only tells that nothing below changed.
    Directory {
        id: EntryId,
        listing: Option<[u8; 32]>,
    },
    File(EntryId),
    Symlink(EntryId),
    Submodule,
}

impl Seen {
    pub(super) fn of(entry: Option<&Entry>) -> Self {
        match entry {
            None => Self::Absent,
            Some(Entry { kind: EntryKind::Directory, id, .. }) => Self::Directory { id: *id, listing: None },
            Some(Entry { kind: EntryKind::File, id, .. }) => Self::File(*id),
            Some(Entry { kind: EntryKind::Symlink, id, .. }) => Self::Symlink(*id),
            Some(Entry { kind: EntryKind::Submodule, .. }) => Self::Submodule,
        }
    }
}

impl ReadSet {
    /// Whether a rendering that read this would read the same in another tree. Costs a look-up for each path that isn't
    /// below an unchanged directory.
    pub fn unchanged(&self, tree: &dyn Tree) -> Result<bool, TreeError> {
        // Directories with the same id as before: nothing below them can differ.
        let mut same: HashSet<&str> = HashSet::new();
        for (path, before) in &self.seen {
            if !path.is_empty() && same.contains(path::split(path).0) {
                if matches!(before, Seen::Directory { .. }) {
                    same.insert(path);
                }
                continue;
            }
            let now = if path.is_empty() { root(tree)? } else { Seen::of(tree.entry(path)?.as_ref()) };
            match (before, now) {
                (Seen::Directory { id, .. }, Seen::Directory { id: now, .. }) if *id == now && now != UNKNOWN => {
                    same.insert(path);
                }
                (Seen::Directory { listing, .. }, Seen::Directory { .. }) => {
                    if let Some(listing) = listing {
                        match tree.list(path)? {
                            Some(entries) if digest(&entries) == *listing => {}
                            _ => return Ok(false),
                        }
                    }
                }
                (before, now) if *before == now => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Whether a change at one of these paths may count. Asks no tree, and so takes what is new or gone in a directory that
    /// was listed for something that counts.
    pub fn may_hold(&self, changed: &[String]) -> bool {
        let listed =
            |path: &str| matches!(self.seen.get(path::split(path).0), Some(Seen::Directory { listing: Some(_), .. }));
        let below = |path: &str| {
            let directory = format!("{path}/");
            self.seen.range(directory.clone()..).next().is_some_and(|(found, _)| found.starts_with(&directory))
        };
        changed.iter().any(|path| self.seen.contains_key(path) || listed(path) || below(path))
    }

    /// The number of paths.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// The kustomization that was read in a directory.
    pub fn kustomization_in(&self, directory: &str) -> Option<String> {
        let at = |name: &&str| if directory.is_empty() { (*name).to_owned() } else { format!("{directory}/{name}") };
        let read = |path: &String| matches!(self.seen.get(path), Some(Seen::File(_) | Seen::Symlink(_)));
        KUSTOMIZATION_FILES.iter().map(at).find(read)
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        self.seen.contains_key(path)
    }

    pub(super) fn note(&mut self, path: &str, seen: Seen) {
        match self.seen.get_mut(path) {
            None => {
                self.seen.insert(path.to_owned(), seen);
            }
            // What was read of a directory is kept when it is passed once more.
            Some(Seen::Directory { listing, .. }) => {
                if let Seen::Directory { listing: Some(new), .. } = seen {
                    *listing = Some(new);
                }
            }
            Some(_) => {}
        }
    }
}

/// The id of a root that a tree doesn't tell; equal to none.
const UNKNOWN: EntryId = EntryId([0; 20]);

/// The root as an entry.
pub(super) fn root(tree: &dyn Tree) -> Result<Seen, TreeError> {
    Ok(match tree.entry("")? {
        Some(Entry { kind: EntryKind::Directory, id, .. }) => Seen::Directory { id, listing: None },
        _ => Seen::Directory { id: UNKNOWN, listing: None },
    })
}

/// A digest of the names and kinds in a directory.
pub(super) fn digest(entries: &[Entry]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for entry in entries {
        let kind = match entry.kind {
            EntryKind::File => b'f',
            EntryKind::Directory => b'd',
            EntryKind::Symlink => b'l',
            EntryKind::Submodule => b's',
        };
        hash.update([kind]);
        hash.update(entry.name.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}
