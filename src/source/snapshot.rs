//! One revision of a repository as a tree of files, read straight from the object store.
//!
//! Nothing is walked or copied up front: a path costs the trees on its way, a file its blob. Ignore rules are applied on
//! the way down. A snapshot keeps its generation of the cache alive, so it stays readable whatever happens to the cache.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use git2::{ObjectType, Oid};
use sha2::{Digest, Sha256};

use super::cache::{Generation, StoreError};
use super::ignore::{self, IGNORE_FILE, IGNORE_FILE_BYTES_MAX, Pattern, Rules, Verdict};
use super::mount::{Mount, Sparse, leads_to};
use super::reference::{Revision, parse_id};
use crate::manifest::{Entry, EntryId, EntryKind, Tree, TreeError};

/// A directory of 100,000 files takes 4 MB.
const TREE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Commits are a few hundred bytes; signatures and long messages make some kilobytes.
const COMMIT_BYTES_MAX: usize = 1024 * 1024;
/// Of a commit's subject and author, what a report shows.
const SHOWN_CHARS_MAX: usize = 200;

#[derive(Clone, Debug)]
pub struct Snapshot {
    pub revision: Revision,
    inner: Arc<Inner>,
    rules: Arc<Rules>,
    sparse: Arc<Sparse>,
    /// Places that don't hide each other.
    mounts: Arc<[Mount]>,
}

/// What a path leads to, as far as other trees are seen in this one.
enum Place<'a> {
    /// Nothing but this tree.
    Own,
    /// A directory on the way to other trees.
    OnTheWay,
    /// Another tree, and the path in it.
    Mounted(&'a Mount, String),
}

#[derive(Debug)]
struct Inner {
    generation: Arc<Generation>,
    commit: CommitInfo,
    /// The patterns of `.sourceignore` files by their content.
    patterns: Mutex<HashMap<EntryId, Arc<[Pattern]>>>,
}

/// The entries of a directory, and the rules that hold for them.
struct Directory {
    entries: Arc<[Entry]>,
    rules: Arc<Rules>,
}

/// What a commit says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    tree: Oid,
    /// The first line of the message.
    pub subject: String,
    /// Name and address, as in `Jane Doe <jane@example.com>`.
    pub author: String,
    /// When it was committed, in seconds since 1970.
    pub committed: i64,
}

/// Why a commit could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    NotHeld,
    NotACommit,
    Store(StoreError),
}

impl Snapshot {
    /// Opens a commit that the generation holds.
    pub(super) fn open(
        generation: &Arc<Generation>,
        revision: Revision,
        spec_ignore: Option<&str>,
    ) -> Result<Snapshot, OpenError> {
        let failed = |error: StoreError| {
            generation.mark_suspect();
            OpenError::Store(error)
        };
        let odb = generation.odb();
        let size = match odb.read_header(revision.commit) {
            Ok((size, _)) => size,
            Err(error) if error.code() == git2::ErrorCode::NotFound => return Err(OpenError::NotHeld),
            Err(error) => return Err(failed(error.into())),
        };
        if size > COMMIT_BYTES_MAX {
            return Err(failed(StoreError::new("the commit object is too large")));
        }
        // Headers may lie, an object that was read whole has the hash that it should have.
        let object = odb.read(revision.commit).map_err(|error| failed(error.into()))?;
        if object.kind() != ObjectType::Commit {
            return Err(OpenError::NotACommit);
        }
        let commit = CommitInfo::parse(object.data())
            .ok_or_else(|| OpenError::Store(StoreError::new("the commit object is malformed")))?;
        let inner = Inner { generation: Arc::clone(generation), commit, patterns: Mutex::default() };
        let rules = Arc::new(Rules::new(spec_ignore));
        let (sparse, mounts) = (Arc::default(), Arc::new([]) as Arc<[Mount]>);
        let snapshot = Snapshot { revision, inner: Arc::new(inner), rules, sparse, mounts };
        // The root must be there; the rest is found out when it is read.
        snapshot.inner.tree(snapshot.inner.commit.tree).map_err(OpenError::Store)?;
        Ok(snapshot)
    }

    /// The same revision under another `spec.ignore`.
    pub fn with_ignore(&self, spec_ignore: Option<&str>) -> Snapshot {
        Snapshot { rules: Arc::new(Rules::new(spec_ignore)), ..self.clone() }
    }

    /// The same content found under another name.
    pub fn with_revision(&self, revision: Revision) -> Snapshot {
        Snapshot { revision, ..self.clone() }
    }

    /// The same revision with some directories only; the inner `Err` has those that it lacks.
    pub fn with_sparse(&self, sparse: Sparse) -> Result<Result<Snapshot, Vec<String>>, TreeError> {
        let mut missing = Vec::new();
        for directory in sparse.directories() {
            let path = directory.join("/");
            if !self.own_entry(&path)?.is_some_and(|entry| entry.kind == EntryKind::Directory) {
                missing.push(path);
            }
        }
        let snapshot = Snapshot { sparse: Arc::new(sparse), ..self.clone() };
        Ok(if missing.is_empty() { Ok(snapshot) } else { Err(missing) })
    }

    /// The same revision with parts of other trees in it, at places that don't hide each other.
    pub fn with_mounts(&self, mounts: Vec<Mount>) -> Snapshot {
        Snapshot { mounts: mounts.into(), ..self.clone() }
    }

    /// The same with further trees in it.
    pub fn with_more_mounts(&self, more: impl Iterator<Item = Mount>) -> Snapshot {
        self.with_mounts(self.mounts.iter().cloned().chain(more).collect())
    }

    /// The id of the root: equal ids mean equal content (before ignore rules), that of other trees included.
    pub fn tree_id(&self) -> EntryId {
        let own = entry_id(self.inner.commit.tree);
        if self.mounts.is_empty() {
            return own;
        }
        // A mount that can't be read has no id here; reading it tells.
        self.id_on_the_way(&[], Some(own)).unwrap_or(own)
    }

    fn place(&self, names: &[&str]) -> Place<'_> {
        for mount in &*self.mounts {
            if leads_to(&mount.at, names) {
                let rest = names[mount.at.len()..].iter().copied();
                let path: Vec<_> = mount.from.iter().map(String::as_str).chain(rest).collect();
                return Place::Mounted(mount, path.join("/"));
            }
            if leads_to(names, &mount.at) {
                return Place::OnTheWay;
            }
        }
        Place::Own
    }

    /// The id of a directory with other trees in it.
    fn id_on_the_way(&self, names: &[&str], own: Option<EntryId>) -> Result<EntryId, TreeError> {
        let mut hash = Sha256::new();
        hash.update(own.map_or([0; 20], |id| id.0));
        for mount in self.mounts.iter().filter(|mount| leads_to(names, &mount.at)) {
            let at = mount.at[names.len()..].join("/");
            let id = mount.snapshot.entry(&mount.from.join("/"))?.map_or([0; 20], |entry| entry.id.0);
            hash.update((at.len() as u64).to_be_bytes());
            hash.update(at);
            hash.update(id);
        }
        let mut id = [0; 20];
        id.copy_from_slice(&hash.finalize()[..20]);
        Ok(EntryId(id))
    }

    pub fn commit(&self) -> &CommitInfo {
        &self.inner.commit
    }

    pub(super) fn odb(&self) -> &git2::Odb<'static> {
        self.inner.generation.odb()
    }

    /// The tree of the commit itself.
    pub(super) fn root(&self) -> Oid {
        self.inner.commit.tree
    }

    /// The rules at the entries of a directory that is `depth` names under the root.
    fn rules_in(&self, entries: &[Entry], names: &[&str], above: &Arc<Rules>) -> Result<Arc<Rules>, TreeError> {
        // What is not seen rules nothing.
        if !self.sparse.holds(names) {
            return Ok(Arc::clone(above));
        }
        let depth = names.len();
        let Some(file) = find(entries, IGNORE_FILE).filter(|entry| entry.kind == EntryKind::File) else {
            return Ok(Arc::clone(above));
        };
        let known = self.inner.patterns.lock().unwrap_or_else(PoisonError::into_inner).get(&file.id).cloned();
        let patterns = match known {
            Some(patterns) => patterns,
            None => {
                let bytes = self.inner.blob(IGNORE_FILE, file.id, IGNORE_FILE_BYTES_MAX)?;
                let patterns = ignore::parse(&String::from_utf8_lossy(&bytes));
                let mut known = self.inner.patterns.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(file.id, Arc::clone(&patterns));
                patterns
            }
        };
        Ok(Arc::new(above.descend(depth, patterns)))
    }

    /// Goes down to a directory.
    fn directory(&self, names: &[&str]) -> Result<Option<Directory>, TreeError> {
        let tree = |id| {
            let path = || names.join("/");
            self.inner.tree(id).map_err(|error| TreeError::Store { path: path(), reason: error.reason })
        };
        let mut entries = tree(self.inner.commit.tree)?;
        let mut rules = self.rules_in(&entries, &[], &self.rules)?;
        for (index, name) in names.iter().enumerate() {
            let Some(entry) = find(&entries, name).filter(|entry| entry.kind == EntryKind::Directory) else {
                return Ok(None);
            };
            let path = &names[..=index];
            if rules.verdict(path, true) == Verdict::Hidden || !self.sparse.shows(path, true) {
                return Ok(None);
            }
            let below = tree(Oid::from_bytes(&entry.id.0).unwrap_or(Oid::ZERO_SHA1))?;
            rules = self.rules_in(&below, path, &rules)?;
            entries = below;
        }
        Ok(Some(Directory { entries, rules }))
    }
}

impl Tree for Snapshot {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        if self.mounts.is_empty() {
            return self.own_entry(path);
        }
        let Some(names) = names(path) else { return Ok(None) };
        let name = names.last().map_or(String::new(), |name| (*name).to_owned());
        match self.place(&names) {
            Place::Own => self.own_entry(path),
            Place::Mounted(mount, path) => Ok(mount.snapshot.entry(&path)?.map(|entry| Entry { name, ..entry })),
            Place::OnTheWay => {
                let own = self.own_entry(path)?.filter(|entry| entry.kind == EntryKind::Directory);
                let id = self.id_on_the_way(&names, own.map(|entry| entry.id))?;
                Ok(Some(Entry { name, kind: EntryKind::Directory, id }))
            }
        }
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError> {
        if self.mounts.is_empty() {
            return self.own_list(path);
        }
        let Some(names) = names(path) else { return Ok(None) };
        match self.place(&names) {
            Place::Own => self.own_list(path),
            Place::Mounted(mount, path) => mount.snapshot.list(&path),
            Place::OnTheWay => {
                let own = self.own_list(path)?.unwrap_or_default();
                let mut entries: BTreeMap<_, _> = own.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
                for mount in self.mounts.iter().filter(|mount| leads_to(&names, &mount.at)) {
                    let name = &mount.at[names.len()];
                    let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                    if let Some(entry) = self.entry(&path)? {
                        entries.insert(name.clone(), entry);
                    }
                }
                Ok(Some(entries.into_values().collect()))
            }
        }
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Bytes>, TreeError> {
        if self.mounts.is_empty() {
            return self.own_read(path, limit);
        }
        let Some(names) = names(path) else { return Ok(None) };
        match self.place(&names) {
            Place::Own => self.own_read(path, limit),
            Place::Mounted(mount, path) => mount.snapshot.read(&path, limit),
            Place::OnTheWay => Ok(None),
        }
    }
}

/// Without other trees.
impl Snapshot {
    fn own_entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        if path.is_empty() {
            let id = entry_id(self.inner.commit.tree);
            return Ok(Some(Entry { name: String::new(), kind: EntryKind::Directory, id }));
        }
        let Some(names) = names(path) else { return Ok(None) };
        let Some((name, parents)) = names.split_last() else { return Ok(None) };
        let Some(Directory { entries, rules }) = self.directory(parents)? else { return Ok(None) };
        let Some(entry) = find(&entries, name) else { return Ok(None) };
        if !self.sparse.shows(&names, entry.kind == EntryKind::Directory) {
            return Ok(None);
        }
        // A file of ignore rules that hides itself is found all the same: who remembers what was read depends on it.
        let visible =
            *name == IGNORE_FILE || rules.verdict(&names, entry.kind == EntryKind::Directory) == Verdict::Visible;
        Ok(visible.then(|| entry.clone()))
    }

    fn own_list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError> {
        let Some(mut names) = names(path) else { return Ok(None) };
        let Some(Directory { entries, rules }) = self.directory(&names)? else { return Ok(None) };
        let mut visible = Vec::with_capacity(entries.len());
        for entry in &*entries {
            names.push(&entry.name);
            let is_directory = entry.kind == EntryKind::Directory;
            if rules.verdict(&names, is_directory) == Verdict::Visible && self.sparse.shows(&names, is_directory) {
                visible.push(entry.clone());
            }
            names.pop();
        }
        Ok(Some(visible))
    }

    fn own_read(&self, path: &str, limit: u64) -> Result<Option<Bytes>, TreeError> {
        match self.own_entry(path)? {
            Some(Entry { kind: EntryKind::File | EntryKind::Symlink, id, .. }) => {
                self.inner.blob(path, id, limit).map(Some)
            }
            _ => Ok(None),
        }
    }
}

impl Inner {
    /// The entries of a tree object, sorted by name.
    fn tree(&self, id: Oid) -> Result<Arc<[Entry]>, StoreError> {
        if let Some(entries) = self.generation.cached_tree(id) {
            return Ok(entries);
        }
        let entries: Arc<[Entry]> = self.read_tree(id).inspect_err(|_| self.generation.mark_suspect())?.into();
        self.generation.cache_tree(id, &entries);
        Ok(entries)
    }

    fn read_tree(&self, id: Oid) -> Result<Vec<Entry>, StoreError> {
        let odb = self.generation.odb();
        let (size, kind) = odb.read_header(id)?;
        if kind != ObjectType::Tree || size > TREE_BYTES_MAX {
            return Err(StoreError::new(format!("object `{id}` is not a tree of at most {TREE_BYTES_MAX} bytes")));
        }
        let object = odb.read(id)?;
        let mut entries =
            parse_tree(object.data()).ok_or_else(|| StoreError::new(format!("tree `{id}` is malformed")))?;
        // Git sorts directories as if their names ended in a slash.
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The content of a blob. Its size is asked for first: a small pack can hold a huge blob.
    fn blob(&self, path: &str, id: EntryId, limit: u64) -> Result<Bytes, TreeError> {
        let failed = |error: git2::Error| {
            self.generation.mark_suspect();
            TreeError::Store { path: path.to_owned(), reason: error.message().to_owned() }
        };
        let id = Oid::from_bytes(&id.0).map_err(failed)?;
        let odb = self.generation.odb();
        let (size, _) = odb.read_header(id).map_err(failed)?;
        if size as u64 > limit {
            return Err(TreeError::TooLarge { path: path.to_owned(), size: size as u64, limit });
        }
        Ok(Bytes::copy_from_slice(odb.read(id).map_err(failed)?.data()))
    }
}

impl CommitInfo {
    /// Reads a commit object: headers, an empty line, the message.
    fn parse(data: &[u8]) -> Option<CommitInfo> {
        let text = String::from_utf8_lossy(data);
        let (headers, message) = text.split_once("\n\n").unwrap_or((&text, ""));
        let header = |name: &str| headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let author = header("author").unwrap_or_default();
        let author = author.rfind('>').map_or(author, |end| &author[..=end]);
        let committed = header("committer").and_then(|line| line.rsplit(' ').nth(1)?.parse().ok());
        let subject = message.trim_start().lines().next().unwrap_or_default();
        Some(CommitInfo {
            tree: parse_id(header("tree")?)?,
            subject: shown(subject),
            author: shown(author),
            committed: committed.unwrap_or_default(),
        })
    }
}

fn shown(text: &str) -> String {
    text.trim().chars().filter(|character| !character.is_control()).take(SHOWN_CHARS_MAX).collect()
}

/// One entry of a tree object.
pub(super) struct RawEntry<'a> {
    /// In octal, as it is written there.
    pub mode: &'a str,
    /// A name that is not UTF-8 is shown, and found, by its replacement.
    pub name: String,
    pub id: [u8; 20],
}

fn parse_tree(data: &[u8]) -> Option<Vec<Entry>> {
    let entry = |RawEntry { mode, name, id }: RawEntry<'_>| {
        let kind = match mode {
            "40000" => EntryKind::Directory,
            "120000" => EntryKind::Symlink,
            "160000" => EntryKind::Submodule,
            _ => EntryKind::File,
        };
        Entry { name, kind, id: EntryId(id) }
    };
    Some(raw_entries(data)?.into_iter().map(entry).collect())
}

/// The entries of a tree object: mode, space, name, NUL, 20 bytes of id, each.
pub(super) fn raw_entries(mut data: &[u8]) -> Option<Vec<RawEntry<'_>>> {
    let mut entries = Vec::new();
    while !data.is_empty() {
        let space = data.iter().position(|byte| *byte == b' ')?;
        let mode = std::str::from_utf8(&data[..space]).ok()?;
        let rest = &data[space + 1..];
        let end = rest.iter().position(|byte| *byte == 0)?;
        let id = rest.get(end + 1..end + 21)?.try_into().ok()?;
        let name = String::from_utf8_lossy(&rest[..end]).into_owned();
        entries.push(RawEntry { mode, name, id });
        data = &rest[end + 21..];
    }
    Some(entries)
}

fn find<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok().map(|index| &entries[index])
}

/// The names of a path; `None` if it is not in the form that [`Tree`] asks for.
fn names(path: &str) -> Option<Vec<&str>> {
    if path.is_empty() {
        return Some(Vec::new());
    }
    let names: Vec<_> = path.split('/').collect();
    (!names.iter().any(|name| matches!(*name, "" | "." | ".."))).then_some(names)
}

fn entry_id(oid: Oid) -> EntryId {
    let mut id = [0; 20];
    id.copy_from_slice(oid.as_bytes());
    EntryId(id)
}
