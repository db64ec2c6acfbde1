//! A folder on disk as a tree, for commands that look at a working copy. The daemon never reads a working copy.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::manifest::{Entry, EntryId, EntryKind, Tree, TreeError};
use crate::source::ignore::{self, IGNORE_FILE, IGNORE_FILE_BYTES_MAX, Rules, Verdict};

/// The files below a folder, without what a source would leave out.
///
/// A file's id is made from its size and time of change, a directory's is equal to no other: its entries are compared.
pub struct DirectoryTree {
    root: PathBuf,
    rules: Mutex<HashMap<String, Arc<Rules>>>,
}

impl DirectoryTree {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), rules: Mutex::default() }
    }

    fn on_disk(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    /// The ignore rules for the entries of a directory.
    fn rules(&self, directory: &str) -> Result<Arc<Rules>, TreeError> {
        let known = |map: &HashMap<String, Arc<Rules>>| map.get(directory).cloned();
        if let Some(rules) = known(&self.rules.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(rules);
        }
        let (above, depth) = match directory.rsplit_once('/') {
            _ if directory.is_empty() => (Arc::new(Rules::new(None)), 0),
            Some((parent, _)) => (self.rules(parent)?, directory.split('/').count()),
            None => (self.rules("")?, 1),
        };
        let file = if directory.is_empty() { IGNORE_FILE.to_owned() } else { format!("{directory}/{IGNORE_FILE}") };
        let rules = match self.read(&file, IGNORE_FILE_BYTES_MAX)? {
            Some(content) => Arc::new(above.descend(depth, ignore::parse(&String::from_utf8_lossy(&content)))),
            None => above,
        };
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.to_owned(), Arc::clone(&rules));
        Ok(rules)
    }

    fn is_visible(&self, path: &str, kind: EntryKind) -> Result<bool, TreeError> {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let names: Vec<&str> = path.split('/').collect();
        Ok(self.rules(directory)?.verdict(&names, kind == EntryKind::Directory) == Verdict::Visible)
    }
}

impl Tree for DirectoryTree {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        let metadata = match fs::symlink_metadata(self.on_disk(path)) {
            Ok(metadata) => metadata,
            Err(error) => return absent(path, &error).map(|()| None),
        };
        let Some(kind) = kind(&metadata) else { return Ok(None) };
        if !path.is_empty() && !self.is_visible(path, kind)? {
            return Ok(None);
        }
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Some(Entry { name, kind, id: id(&metadata) }))
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError> {
        let listing = match fs::read_dir(self.on_disk(path)) {
            Ok(listing) => listing,
            Err(error) => return absent(path, &error).map(|()| None),
        };
        let mut entries = Vec::new();
        for item in listing {
            let item = item.map_err(|error| store(path, &error))?;
            // What isn't text can't be named in a repository's YAML.
            let Ok(name) = item.file_name().into_string() else { continue };
            let child = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let metadata = item.metadata().map_err(|error| store(&child, &error))?;
            let Some(kind) = kind(&metadata) else { continue };
            if self.is_visible(&child, kind)? {
                entries.push(Entry { name, kind, id: id(&metadata) });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(entries))
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Bytes>, TreeError> {
        let file = self.on_disk(path);
        let metadata = match fs::symlink_metadata(&file) {
            Ok(metadata) => metadata,
            Err(error) => return absent(path, &error).map(|()| None),
        };
        if metadata.is_symlink() {
            let target = fs::read_link(&file).map_err(|error| store(path, &error))?;
            return Ok(Some(Bytes::from(target.to_string_lossy().into_owned())));
        }
        if !metadata.is_file() {
            return Ok(None);
        }
        if metadata.len() > limit {
            return Err(TreeError::TooLarge { path: path.to_owned(), size: metadata.len(), limit });
        }
        let mut content = Vec::new();
        let opened = fs::File::open(&file).map_err(|error| store(path, &error))?;
        opened.take(limit).read_to_end(&mut content).map_err(|error| store(path, &error))?;
        Ok(Some(content.into()))
    }
}

/// The folder that the nearest Git repository around a path begins at.
pub fn repository_root(path: &Path) -> Option<&Path> {
    path.ancestors().find(|folder| folder.join(".git").exists())
}

fn kind(metadata: &fs::Metadata) -> Option<EntryKind> {
    if metadata.is_symlink() {
        Some(EntryKind::Symlink)
    } else if metadata.is_dir() {
        Some(EntryKind::Directory)
    } else {
        metadata.is_file().then_some(EntryKind::File)
    }
}

fn id(metadata: &fs::Metadata) -> EntryId {
    static DIRECTORIES: AtomicU64 = AtomicU64::new(1);
    let mut hash = Sha256::new();
    if metadata.is_dir() {
        hash.update(b"directory");
        hash.update(DIRECTORIES.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    } else {
        let changed =
            metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        hash.update(metadata.len().to_le_bytes());
        hash.update(changed.as_nanos().to_le_bytes());
    }
    let digest = hash.finalize();
    let mut id = [0; 20];
    id.copy_from_slice(&digest[..20]);
    EntryId(id)
}

fn absent(path: &str, error: &io::Error) -> Result<(), TreeError> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(()),
        _ => Err(store(path, error)),
    }
}

fn store(path: &str, error: &io::Error) -> TreeError {
    TreeError::Store { path: path.to_owned(), reason: error.to_string() }
}
