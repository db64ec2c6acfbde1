//! A working copy in which trees of other repositories are seen, once a render asked for them and it is allowed.

use bytes::Bytes;
use tempfile::TempDir;

use super::directory::DirectoryTree;
use crate::engine::bases::{BASES_MAX, Bases};
use crate::manifest::{Entry, EntryId, EntryKind, Tree, TreeError};
use crate::render::{Failed, RemoteBase, RenderError, Rendered};
use crate::source::{DataDir, RemoteOptions, Remotes};

pub struct TreeWithBases {
    tree: DirectoryTree,
    bases: Bases,
    is_allowed: bool,
    /// Made when the first is fetched. The folder goes last: the trees are read from it.
    fetching: Option<Fetching>,
}

struct Fetching {
    remotes: Remotes,
    runtime: tokio::runtime::Runtime,
    _folder: TempDir,
}

/// Why nothing is shown.
pub enum Refused {
    Render(Box<Failed>),
    /// Another repository can't be had.
    Fetch(String),
}

impl TreeWithBases {
    pub fn new(tree: DirectoryTree, is_allowed: bool) -> Self {
        Self { tree, bases: Bases::default(), is_allowed, fetching: None }
    }

    /// Renders, and again with what a render lacked.
    pub fn render(&mut self, render: impl Fn(&dyn Tree) -> Result<Rendered, Failed>) -> Result<Rendered, Refused> {
        let mut fetched = 0;
        loop {
            let failed = match render(&*self) {
                Ok(rendered) => return Ok(rendered),
                Err(failed) => failed,
            };
            match &failed.error {
                RenderError::RemoteBase { base, .. } if self.is_allowed && fetched < BASES_MAX => {
                    self.fetch(base).map_err(Refused::Fetch)?;
                    fetched += 1;
                }
                _ => return Err(Refused::Render(Box::new(failed))),
            }
        }
    }

    fn fetch(&mut self, base: &RemoteBase) -> Result<(), String> {
        if self.fetching.is_none() {
            self.fetching = Some(Fetching::new().map_err(|error| format!("can't fetch `{base}`: {error}"))?);
        }
        let Some(fetching) = &self.fetching else { return Ok(()) };
        let commit = fetching.runtime.block_on(self.bases.fetch(&fetching.remotes, base))?;
        tracing::info!(%base, commit, "a remote base is pinned");
        Ok(())
    }
}

impl Fetching {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let remotes = Remotes::new(
            DataDir::open(folder.path())?,
            RemoteOptions { allow_local_sources: true, ..RemoteOptions::default() },
        );
        Ok(Self { remotes, runtime: tokio::runtime::Runtime::new()?, _folder: folder })
    }
}

impl Tree for TreeWithBases {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        let name = || path.rsplit('/').next().unwrap_or(path).to_owned();
        if let Some((snapshot, rest)) = self.bases.at(path) {
            return Ok(snapshot.entry(rest)?.map(|entry| Entry { name: name(), ..entry }));
        }
        if self.bases.is_above(path) {
            // like all directories of a working copy it is equal to no other
            return Ok(Some(Entry { name: name(), kind: EntryKind::Directory, id: EntryId([0; 20]) }));
        }
        self.tree.entry(path)
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError> {
        match self.bases.at(path) {
            Some((snapshot, rest)) => snapshot.list(rest),
            None => self.tree.list(path),
        }
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Bytes>, TreeError> {
        match self.bases.at(path) {
            Some((snapshot, rest)) => snapshot.read(rest, limit),
            None => self.tree.read(path, limit),
        }
    }
}
