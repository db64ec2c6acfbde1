//! The generations of one remote's cache: packs in a folder, opened as an object store that many may read.
//!
//! ```text
//!  <folder of the remote>/<number>/tips                              commits that are held
//!                                 /objects/pack/pack-….{pack,idx}
//! ```
//!
//! Everything may vanish at any time: a generation that fails is replaced by a fresh one, never repaired and never
//! repacked. A replaced generation is deleted when its last reader ends.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use git2::{Indexer, Odb, Oid};

use super::data_dir::{make_dir, remove, subfolders};
use super::reference::parse_id;
use crate::manifest::Entry;

/// Beyond so many packs reading gets slow; libgit2 can't merge them, so the newest commit is fetched afresh.
pub const PACKS_MAX: usize = 50;
/// So many of the newest commits are offered to a server as held; more would only lengthen the request.
const TIPS_MAX: usize = 16;
/// Entries of parsed trees kept per generation; about 20 MB.
const CACHED_ENTRIES_MAX: usize = 200_000;

/// The generations of one remote: the current one, and the way to the next.
#[derive(Debug)]
pub(super) struct Generations {
    folder: PathBuf,
    current: Mutex<Option<Arc<Generation>>>,
    /// The highest number in use: one that is being deleted must not be given away again.
    newest: AtomicU64,
}

impl Generations {
    pub fn new(folder: PathBuf) -> Generations {
        Generations { folder, current: Mutex::default(), newest: AtomicU64::new(0) }
    }

    /// The generation to read from and to fetch into; after a failure another one than before.
    pub fn current(&self) -> Result<Arc<Generation>, StoreError> {
        let mut current = lock(&self.current);
        if let Some(generation) = current.as_ref() {
            if generation.is_sound() {
                return Ok(Arc::clone(generation));
            }
            generation.doomed.store(true, Ordering::Relaxed);
        }
        let generation = match current.take() {
            Some(_) => self.fresh()?,
            None => self.reopen()?,
        };
        generation.doomed.store(false, Ordering::Relaxed);
        *current = Some(Arc::clone(&generation));
        Ok(generation)
    }

    /// An empty generation beside the current one. It is deleted again unless it becomes the current one.
    pub fn fresh(&self) -> Result<Arc<Generation>, StoreError> {
        let on_disk = subfolders(&self.folder).filter_map(|folder| number(&folder)).max().unwrap_or(0);
        self.newest.fetch_max(on_disk, Ordering::Relaxed);
        let number = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        let folder = self.folder.join(number.to_string());
        make_dir(&folder.join("objects").join("pack")).map_err(|error| StoreError::io(&error))?;
        let generation = Generation::open(folder)?;
        generation.doomed.store(true, Ordering::Relaxed);
        Ok(Arc::new(generation))
    }

    /// Makes a generation the current one; the one before goes when its readers end.
    pub fn swap(&self, next: Arc<Generation>) {
        next.doomed.store(false, Ordering::Relaxed);
        if let Some(before) = lock(&self.current).replace(next) {
            before.doomed.store(true, Ordering::Relaxed);
        }
    }

    /// Gives the cache up: it is deleted when its readers end.
    pub fn abandon(&self) {
        if let Some(current) = lock(&self.current).take() {
            current.doomed.store(true, Ordering::Relaxed);
        }
    }

    /// What an earlier process left: the newest that is whole, since it may have been killed while it filled the next one.
    /// All other folders are removed.
    fn reopen(&self) -> Result<Arc<Generation>, StoreError> {
        let mut folders: Vec<_> = subfolders(&self.folder).collect();
        folders.sort_by_key(|folder| number(folder));
        // The time of the last use, for `remove_unused`.
        if let Ok(folder) = File::open(&self.folder) {
            let _ = folder.set_modified(SystemTime::now());
        }
        let mut whole = None;
        for folder in folders.into_iter().rev() {
            if whole.is_none() && number(&folder).is_some() {
                remove_unfinished(&folder.join("objects").join("pack"));
                whole = Generation::open(folder.clone()).ok().filter(|generation| !generation.tips().is_empty());
                if whole.is_some() {
                    continue;
                }
            }
            remove(&folder);
        }
        if let Some(generation) = whole {
            return Ok(Arc::new(generation));
        }
        self.fresh()
    }
}

/// An object store that only grows, or the store of a repository on this machine. Readers share one view of it.
///
/// libgit2 serialises reads of one store by a lock of its own; parsed trees are kept here, so that few reads remain.
pub struct Generation {
    /// `None` for a repository that is not ours.
    folder: Option<PathBuf>,
    objects: PathBuf,
    odb: Odb<'static>,
    state: Mutex<State>,
    trees: Mutex<Trees>,
    /// A read failed: something is missing or corrupted.
    suspect: AtomicBool,
    /// To be deleted when the last reader ends.
    doomed: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Commits that are held with everything below them, oldest first.
    tips: Vec<Oid>,
    packs: BTreeSet<String>,
}

#[derive(Default)]
struct Trees {
    parsed: HashMap<Oid, Arc<[Entry]>>,
    entries: usize,
}

/// The object store failed. The reason is libgit2's or the system's.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct StoreError {
    pub reason: String,
}

impl StoreError {
    fn io(error: &io::Error) -> StoreError {
        StoreError { reason: error.to_string() }
    }

    pub(super) fn new(reason: impl Into<String>) -> StoreError {
        StoreError { reason: reason.into() }
    }
}

impl From<git2::Error> for StoreError {
    fn from(error: git2::Error) -> Self {
        StoreError { reason: error.message().to_owned() }
    }
}

impl Generation {
    fn open(folder: PathBuf) -> Result<Generation, StoreError> {
        let objects = folder.join("objects");
        let odb = open_store(&objects)?;
        let packs: BTreeSet<_> = files(&objects.join("pack")).filter(|name| name.ends_with(".pack")).collect();
        let text = fs::read_to_string(folder.join("tips")).unwrap_or_default();
        let tips: Vec<_> = text.lines().filter_map(parse_id).filter(|tip| odb.exists(*tip)).collect();
        let state = Mutex::new(State { tips, packs });
        Ok(Generation {
            folder: Some(folder),
            objects,
            odb,
            state,
            trees: Mutex::default(),
            suspect: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
        })
    }

    /// A view of somebody else's object store, which is never written to.
    pub(super) fn borrowed(objects: &Path) -> Result<Generation, StoreError> {
        Ok(Generation {
            folder: None,
            objects: objects.to_owned(),
            odb: open_store(objects)?,
            state: Mutex::default(),
            trees: Mutex::default(),
            suspect: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
        })
    }

    pub fn odb(&self) -> &Odb<'static> {
        &self.odb
    }

    /// The newest commits that are held with everything below them.
    pub fn tips(&self) -> Vec<Oid> {
        let state = lock(&self.state);
        state.tips[state.tips.len().saturating_sub(TIPS_MAX)..].to_vec()
    }

    pub fn pack_count(&self) -> usize {
        lock(&self.state).packs.len()
    }

    /// Writes a pack into this generation; bases of deltas may be objects that are held.
    pub(super) fn indexer(&self) -> Result<Indexer<'static>, git2::Error> {
        // Connectivity can't be checked: the parents of a shallow commit are missing on purpose.
        Indexer::new(Some(&self.odb), &self.objects.join("pack"), 0o400, false)
    }

    /// Takes in a pack that an indexer has finished and that brought a commit; false if it didn't bring it.
    pub(super) fn adopt(&self, pack: &str, tip: Oid) -> Result<bool, StoreError> {
        self.odb.refresh()?;
        let mut state = lock(&self.state);
        state.packs.insert(format!("pack-{pack}.pack"));
        if !self.odb.exists(tip) {
            // the pack goes at once, and the view that knows it with this generation
            for file in ["idx", "pack"] {
                let _ = fs::remove_file(self.objects.join("pack").join(format!("pack-{pack}.{file}")));
            }
            self.mark_suspect();
            return Ok(false);
        }
        state.tips.retain(|held| *held != tip);
        state.tips.push(tip);
        let Some(folder) = &self.folder else { return Ok(true) };
        let text: String = state.tips.iter().map(|tip| format!("{tip}\n")).collect();
        let unfinished = folder.join("tips.new");
        fs::write(&unfinished, text)
            .and_then(|()| fs::rename(&unfinished, folder.join("tips")))
            .map_err(|error| StoreError::io(&error))?;
        Ok(true)
    }

    /// No read has failed, and every pack is still there. Reads alone would not tell: libgit2 keeps files open.
    pub fn is_sound(&self) -> bool {
        let packs = self.objects.join("pack");
        !self.suspect.load(Ordering::Relaxed)
            && self.objects.is_dir()
            && lock(&self.state).packs.iter().all(|pack| packs.join(pack).is_file())
    }

    pub(super) fn mark_suspect(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    pub(super) fn cached_tree(&self, id: Oid) -> Option<Arc<[Entry]>> {
        lock(&self.trees).parsed.get(&id).cloned()
    }

    pub(super) fn cache_tree(&self, id: Oid, entries: &Arc<[Entry]>) {
        let mut trees = lock(&self.trees);
        if trees.entries + entries.len() > CACHED_ENTRIES_MAX {
            *trees = Trees::default();
        }
        if trees.parsed.insert(id, Arc::clone(entries)).is_none() {
            trees.entries += entries.len();
        }
    }
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Generation({})", self.objects.display())
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.as_ref().filter(|_| *self.doomed.get_mut()) {
            remove(folder);
            // The remote's folder goes with its last generation.
            let _ = folder.parent().map(fs::remove_dir);
        }
    }
}

/// A store of its own instead of a repository's: it can be shared by threads and needs neither refs nor configuration.
fn open_store(objects: &Path) -> Result<Odb<'static>, StoreError> {
    let path = objects.to_str().ok_or_else(|| StoreError::new("its path is not UTF-8"))?;
    let odb = Odb::new()?;
    odb.add_disk_alternate(path)?;
    Ok(odb)
}

/// Half a pack, from a process that was killed.
fn remove_unfinished(packs: &Path) {
    let names: BTreeSet<_> = files(packs).collect();
    for name in &names {
        let partner = match name.rsplit_once('.') {
            Some((stem, "pack")) => Some(format!("{stem}.idx")),
            Some((stem, "idx")) => Some(format!("{stem}.pack")),
            _ => None,
        };
        if !partner.is_some_and(|partner| names.contains(&partner)) {
            let _ = fs::remove_file(packs.join(name));
        }
    }
}

fn files(path: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn number(folder: &Path) -> Option<u64> {
    folder.file_name()?.to_str()?.parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let generations = Generations::new(folder.path().to_owned());
        for number in ["1", "2"] {
            make_dir(&folder.path().join(number).join("objects/pack")).unwrap();
        }
        fs::write(folder.path().join("2/objects/pack/pack_git2_half"), "PACK").unwrap();
        let current = generations.current().unwrap();
        assert_eq!(current.tips(), []);
        let left: Vec<_> = subfolders(folder.path()).collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(files(&left[0].join("objects/pack")).count(), 0);
    }
}
