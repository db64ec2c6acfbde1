//! The cache on disk: a locked data folder, in it one folder per remote, in that one generation of packs.
//!
//! ```text
//!  data/lock                 held by the process
//!  data/key                  for the names below: nobody reads a URL or a credential off them
//!  data/git/<keyed hash of URL, credentials, CA>/<number>/tips
//!                                                        /objects/pack/pack-….{pack,idx}
//! ```
//!
//! Everything may vanish at any time: a generation that fails is replaced by a fresh one, never repaired and never
//! repacked. A replaced generation is deleted when its last reader ends.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use git2::{Indexer, Odb, Oid};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::credentials::Access;
use super::reference::parse_id;
use super::url::SourceUrl;
use crate::manifest::Entry;

/// Beyond so many packs reading gets slow; libgit2 can't merge them, so the newest commit is fetched afresh.
pub const PACKS_MAX: usize = 50;
/// So many of the newest commits are offered to a server as held; more would only lengthen the request.
const TIPS_MAX: usize = 16;
/// Folders of remotes that nobody asked for in this time are removed at start.
const UNUSED_MAX: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Entries of parsed trees kept per generation; about 20 MB.
const CACHED_ENTRIES_MAX: usize = 200_000;

/// The data folder of this process. The lock is held as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    key: [u8; 32],
    /// Locked.
    lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds the lock; its id, if it could be read.
    #[error("the data folder `{}` is in use by another process{}", path.display(), in_words(*pid))]
    InUse { path: PathBuf, pid: Option<u32> },
    #[error("the data folder `{}` can't be written: {source}", path.display())]
    NotWritable { path: PathBuf, source: io::Error },
}

fn in_words(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (id {pid})"))
}

impl DataDir {
    /// Makes the folder if need be and locks it. What crashed processes left behind is removed.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let failed = |source| DataDirError::NotWritable { path: path.to_owned(), source };
        make_dir(path).map_err(failed)?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(DataDirError::InUse { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(failed)?;
        let key = read_or_make_key(&path.join("key")).map_err(failed)?;
        make_dir(&path.join("git")).map_err(failed)?;
        let data = DataDir { path: path.to_owned(), key, lock };
        data.remove_unused();
        Ok(data)
    }

    /// The folder of a remote. Its name is a keyed hash: two remotes that differ in URL, credentials or CA share none.
    pub(super) fn remote_folder(&self, url: &SourceUrl, access: &Access) -> PathBuf {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        let mut field = |bytes: &[u8]| {
            mac.update(&(bytes.len() as u64).to_be_bytes());
            mac.update(bytes);
        };
        field(url.to_string().as_bytes());
        access.fields().for_each(&mut field);
        let name = hex::encode(&mac.finalize().into_bytes()[..16]);
        self.path.join("git").join(name)
    }

    fn remove_unused(&self) {
        for folder in subfolders(&self.path.join("git")) {
            let used = fs::metadata(&folder).and_then(|metadata| metadata.modified());
            let age = used.map(|used| SystemTime::now().duration_since(used).unwrap_or_default());
            if age.is_ok_and(|age| age > UNUSED_MAX) {
                remove(&folder);
            }
        }
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child process that was forked a moment ago.
        let _ = self.lock.unlock();
    }
}

fn read_or_make_key(path: &Path) -> io::Result<[u8; 32]> {
    if let Ok(bytes) = fs::read(path)
        && let Ok(key) = bytes.try_into()
    {
        return Ok(key);
    }
    let key: [u8; 32] = rand::random();
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(&key)?;
    Ok(key)
}

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

    /// What an earlier process left, if it is whole. All other folders are removed.
    fn reopen(&self) -> Result<Arc<Generation>, StoreError> {
        let mut folders: Vec<_> = subfolders(&self.folder).collect();
        folders.sort_by_key(|folder| number(folder));
        let newest = folders.pop().filter(|folder| number(folder).is_some());
        for folder in folders {
            remove(&folder);
        }
        // The time of the last use, for `remove_unused`.
        if let Ok(folder) = File::open(&self.folder) {
            let _ = folder.set_modified(SystemTime::now());
        }
        if let Some(folder) = newest {
            remove_unfinished(&folder.join("objects").join("pack"));
            match Generation::open(folder.clone()) {
                Ok(generation) if !generation.tips().is_empty() => return Ok(Arc::new(generation)),
                _ => remove(&folder),
            }
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

    /// Takes in a pack that an indexer has finished and that brought a commit.
    pub(super) fn adopt(&self, pack: &str, tip: Oid) -> Result<(), StoreError> {
        self.odb.refresh()?;
        let mut state = lock(&self.state);
        state.packs.insert(format!("pack-{pack}.pack"));
        self.odb.read_header(tip)?;
        state.tips.retain(|held| *held != tip);
        state.tips.push(tip);
        let Some(folder) = &self.folder else { return Ok(()) };
        let text: String = state.tips.iter().map(|tip| format!("{tip}\n")).collect();
        let unfinished = folder.join("tips.new");
        fs::write(&unfinished, text)
            .and_then(|()| fs::rename(&unfinished, folder.join("tips")))
            .map_err(|error| StoreError::io(&error))
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

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What remains after a failure is removed at the next start.
fn remove(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
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

fn subfolders(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir())
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
    use crate::source::credentials::from_secret;

    #[test]
    fn a_data_folder_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err();
        assert!(matches!(error, DataDirError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_path_below_a_file_is_not_writable() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = DataDir::open(&folder.path().join("file").join("data")).unwrap_err();
        assert!(matches!(error, DataDirError::NotWritable { .. }), "{error}");
    }

    #[test]
    fn folders_of_remotes_are_private_told_apart_by_access_and_the_same_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let url = SourceUrl::parse("https://example.com/secret-project").unwrap();
        let access = |entries: &[(&str, &str)]| {
            let data = entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
            from_secret(&data).unwrap()
        };
        let accesses = [
            access(&[]),
            access(&[("username", "a"), ("password", "bc")]),
            access(&[("username", "ab"), ("password", "c")]),
            access(&[("bearerToken", "abc")]),
        ];
        let names = || {
            let data = DataDir::open(folder.path()).unwrap();
            accesses.iter().map(|access| data.remote_folder(&url, access)).collect::<Vec<_>>()
        };
        let first = names();
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), accesses.len());
        assert_eq!(first, names());
        assert!(first.iter().all(|path| !path.display().to_string().contains("secret")));

        let elsewhere = tempfile::tempdir().unwrap();
        let other = DataDir::open(elsewhere.path()).unwrap().remote_folder(&url, &accesses[0]);
        assert_ne!(other.file_name(), first[0].file_name(), "the hash is keyed");
    }

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
