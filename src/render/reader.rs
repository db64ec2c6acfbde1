//! Reads a tree and records what it saw. Symlinks are resolved here, inside the tree only.

use std::cell::{Cell, RefCell};

use bytes::Bytes;

use super::decryption::{self, Format, Keys};
use super::error::RenderError;
use super::read_set::{ReadSet, Seen, digest, root};
use super::{MAX_BYTES, MAX_DIRECTORIES, MAX_FILES, path};
use crate::manifest::yaml;
use crate::manifest::{Entry, EntryKind, Tree, TreeError};

/// Symlinks followed for one path: as many as Linux follows.
const MAX_SYMLINKS: usize = 40;
/// A symlink's target.
const MAX_TARGET_BYTES: u64 = 4096;
/// Which files a source leaves out may depend on these files, in each directory on the way up.
const IGNORE_FILE: &str = ".sourceignore";

pub(super) struct Reader<'a> {
    tree: &'a dyn Tree,
    /// `None`: what is encrypted stays so.
    keys: Option<&'a Keys>,
    /// What was decrypted.
    secrets: RefCell<Vec<String>>,
    seen: RefCell<ReadSet>,
    files: Cell<usize>,
    directories: Cell<usize>,
    bytes: Cell<u64>,
}

/// What a path leads to, symlinks resolved.
pub(super) struct Resolved {
    /// Without symlinks.
    pub path: String,
    pub kind: EntryKind,
}

impl<'a> Reader<'a> {
    pub(super) fn new(tree: &'a dyn Tree, keys: Option<&'a Keys>) -> Self {
        let (files, directories, bytes) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Self { tree, keys, secrets: RefCell::default(), seen: RefCell::default(), files, directories, bytes }
    }

    pub(super) fn into_read_set(self) -> ReadSet {
        self.seen.into_inner()
    }

    pub(super) fn add_secrets(&self, values: Vec<String>) {
        self.secrets.borrow_mut().extend(values);
    }

    /// Adds what is made of what was decrypted.
    pub(super) fn add_secrets_made(&self, make: impl Fn(&str) -> Option<String>) {
        let mut secrets = self.secrets.borrow_mut();
        let made: Vec<_> = secrets.iter().filter_map(|value| make(value)).collect();
        secrets.extend(made);
    }

    pub(super) fn take_secrets(&self) -> Vec<String> {
        self.secrets.take()
    }

    /// Follows a path from the root; `None` if there is nothing.
    pub(super) fn resolve(&self, wanted: &str) -> Result<Option<Resolved>, RenderError> {
        let mut current = String::new();
        let mut rest: Vec<String> = parts(wanted);
        let mut links = 0;
        // `..` only comes from a symlink's target.
        let mut last_link = None;
        self.enter("", root(self.tree)?)?;
        let mut kind = EntryKind::Directory;
        while let Some(name) = rest.pop() {
            if kind != EntryKind::Directory {
                return Ok(None);
            }
            if name == ".." {
                if current.is_empty() {
                    let (path, target) = last_link.unwrap_or_else(|| (wanted.to_owned(), name));
                    return Err(RenderError::SymlinkEscapes { path, target });
                }
                current = path::split(&current).0.to_owned();
                continue;
            }
            let next = path::child(&current, &name);
            let entry = self.tree.entry(&next)?;
            let seen = Seen::of(entry.as_ref());
            let Some(entry) = entry else {
                self.note(&next, seen);
                return Ok(None);
            };
            match entry.kind {
                EntryKind::Symlink => {
                    self.note(&next, seen);
                    links += 1;
                    if links > MAX_SYMLINKS {
                        return Err(RenderError::SymlinkLoop { path: wanted.to_owned(), limit: MAX_SYMLINKS });
                    }
                    let content = self.tree.read(&next, MAX_TARGET_BYTES)?.unwrap_or_default();
                    let target = String::from_utf8_lossy(&content).into_owned();
                    if target.starts_with('/') {
                        return Err(RenderError::SymlinkEscapes { path: next, target });
                    }
                    rest.extend(parts(&target));
                    last_link = Some((next, target));
                    continue;
                }
                EntryKind::Submodule if !rest.is_empty() => {
                    self.note(&next, seen);
                    return Err(RenderError::Submodule { path: next });
                }
                EntryKind::Directory => self.enter(&next, seen)?,
                _ => self.note(&next, seen),
            }
            kind = entry.kind;
            current = next;
        }
        Ok(Some(Resolved { path: current, kind }))
    }

    /// The content of a file; `None` if there is none.
    pub(super) fn file(&self, wanted: &str, limit: u64) -> Result<Option<Bytes>, RenderError> {
        let Some(resolved) = self.resolve(wanted)?.filter(|resolved| resolved.kind == EntryKind::File) else {
            return Ok(None);
        };
        self.content(&resolved.path, limit)
    }

    fn content(&self, path: &str, limit: u64) -> Result<Option<Bytes>, RenderError> {
        let Some(content) = self.tree.read(path, limit)? else { return Ok(None) };
        self.files.set(self.files.get() + 1);
        self.bytes.set(self.bytes.get() + content.len() as u64);
        if self.files.get() > MAX_FILES {
            return Err(RenderError::TooManyFiles { limit: MAX_FILES });
        }
        if self.bytes.get() > MAX_BYTES {
            return Err(RenderError::TooManyBytes { limit: MAX_BYTES });
        }
        Ok(Some(content))
    }

    /// The text of a file, without a byte order mark and in the clear; `None` if there is no file.
    pub(super) fn text(&self, wanted: &str, limit: u64) -> Result<Option<String>, RenderError> {
        let Some(content) = self.file(wanted, limit)? else { return Ok(None) };
        self.clear(wanted, &content).map(Some)
    }

    fn clear(&self, path: &str, content: &[u8]) -> Result<String, RenderError> {
        let text = yaml::text(path, content)?;
        match self.keys.map(|keys| decryption::manifest(path, text, keys)).transpose()?.flatten() {
            Some(clear) => {
                self.secrets.borrow_mut().extend(clear.values);
                Ok(clear.content)
            }
            None => Ok(text.to_owned()),
        }
    }

    /// What a file that becomes a value of a Secret holds, in the clear.
    pub(super) fn decrypted(&self, path: &str, content: Vec<u8>, format: Format) -> Result<Vec<u8>, RenderError> {
        match self.keys.map(|keys| decryption::file(path, &content, format, keys)).transpose()?.flatten() {
            Some(clear) => {
                self.secrets.borrow_mut().extend(clear.values);
                Ok(clear.content)
            }
            None => Ok(content),
        }
    }

    /// The text of an entry that was listed: of a file without another look-up, of a symlink what it leads to.
    pub(super) fn listed(&self, path: &str, entry: &Entry, limit: u64) -> Result<Option<String>, RenderError> {
        if entry.kind != EntryKind::File {
            return self.text(path, limit);
        }
        self.note(path, Seen::of(Some(entry)));
        let Some(content) = self.content(path, limit)? else { return Ok(None) };
        self.clear(path, &content).map(Some)
    }

    /// The entries of a directory by name, which must be given without symlinks.
    pub(super) fn list(&self, directory: &str) -> Result<Vec<Entry>, RenderError> {
        self.directories.set(self.directories.get() + 1);
        if self.directories.get() > MAX_DIRECTORIES {
            return Err(RenderError::TooManyDirectories { path: directory.to_owned(), limit: MAX_DIRECTORIES });
        }
        let entries = self.tree.list(directory)?.unwrap_or_default();
        let id = match root_or_entry(self.tree, directory)? {
            Seen::Directory { id, .. } => id,
            other => {
                self.note(directory, other);
                return Ok(Vec::new());
            }
        };
        self.enter(directory, Seen::Directory { id, listing: Some(digest(&entries)) })?;
        Ok(entries)
    }

    /// Records a directory on the way, and the file in it that may hide others.
    fn enter(&self, directory: &str, seen: Seen) -> Result<(), TreeError> {
        let ignore = path::child(directory, IGNORE_FILE);
        if !self.seen.borrow().contains(&ignore) {
            let entry = self.tree.entry(&ignore)?;
            self.note(&ignore, Seen::of(entry.as_ref()));
        }
        self.note(directory, seen);
        Ok(())
    }

    fn note(&self, path: &str, seen: Seen) {
        self.seen.borrow_mut().note(path, seen);
    }
}

fn root_or_entry(tree: &dyn Tree, path: &str) -> Result<Seen, TreeError> {
    if path.is_empty() { root(tree) } else { Ok(Seen::of(tree.entry(path)?.as_ref())) }
}

/// The names of a path, last first.
fn parts(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}
