//! Trees of other repositories that kustomizations name: fetched when a render asks for them, and seen in it from then
//! on.
//!
//! A revision is pinned: a full commit id, or a tag, which is looked up once and stays what it was as long as this
//! memory lasts. Over HTTP nobody's credentials are used; over ssh the key of whoever renders, with the host keys that
//! belong to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::manifest::{Entry, EntryId, EntryKind, Tree, TreeError};
use crate::render::{Pin, RemoteBase};
use crate::source::credentials::{Access, Credentials, SshKey};
use crate::source::reference::Fields;
use crate::source::url::Location;
use crate::source::{Class, Mount, Reference, Remotes, Snapshot, SourceError, SourceUrl};

/// Revisions of other repositories in one render: more is a mistake, and each is a fetch and a render anew.
pub const BASES_MAX: usize = 32;

/// What to do about a base that is named by ssh, where the source is not.
pub const NO_KEY: &str = "it is fetched with the key of the application's GitRepository: give that one an `ssh://` URL and a \
                          Secret with `identity` and `known_hosts`, name the base by `https://`, or copy it into the repository";

/// The fetched trees by the places where they are seen.
#[derive(Clone, Debug, Default)]
pub struct Bases(BTreeMap<String, Snapshot>);

impl Bases {
    /// The tree with the others in it.
    pub fn in_tree(&self, tree: &Snapshot) -> Snapshot {
        let names = |place: &str| place.split('/').map(str::to_owned).collect::<Vec<_>>();
        let mounts = self.0.iter().map(|(place, snapshot)| Mount {
            at: names(place),
            from: Vec::new(),
            snapshot: snapshot.clone(),
        });
        if self.0.is_empty() { tree.clone() } else { tree.with_more_mounts(mounts) }
    }

    /// The tree that a path leads into, and the rest of the path.
    fn at<'a>(&self, path: &'a str) -> Option<(&Snapshot, &'a str)> {
        self.0.iter().find_map(|(place, snapshot)| {
            let rest = path.strip_prefix(place.as_str())?;
            let rest = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
            Some((snapshot, rest))
        })
    }

    /// Whether a path leads to one of them.
    fn is_above(&self, path: &str) -> bool {
        self.0.keys().any(|place| place.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    }

    /// Fetches one that a render asked for; gives the commit. The error says what to do. `key`: the one for ssh, or what
    /// helps where there is none.
    pub async fn fetch(
        &mut self,
        remotes: &Remotes,
        base: &RemoteBase,
        key: Result<&SshKey, &str>,
    ) -> Result<String, String> {
        // those of kustomizations that changed meanwhile are let go
        if self.0.len() >= 2 * BASES_MAX {
            self.0.clear();
        }
        let snapshot = fetch(remotes, base, key).await.map_err(|why| format!("remote base `{base}`: {why}"))?;
        let commit = snapshot.revision.commit.to_string();
        self.0.insert(base.mount(), snapshot);
        Ok(commit)
    }
}

/// A tree that need not be a snapshot, with the others in it.
#[derive(Clone)]
pub struct TreeWithBases {
    pub tree: Arc<dyn Tree>,
    pub bases: Bases,
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

async fn fetch(remotes: &Remotes, base: &RemoteBase, key: Result<&SshKey, &str>) -> Result<Snapshot, String> {
    let url = SourceUrl::parse(&base.url).map_err(|error| error.to_string())?;
    let access = match (url.location(), key) {
        (Location::Ssh(_), Ok(key)) => Access { credentials: Credentials::Ssh(key.clone()), ..Access::default() },
        (Location::Ssh(_), Err(advice)) => return Err(format!("there is no key for ssh here\nhint: {advice}")),
        (Location::Http(_) | Location::Local(_), _) => Access::default(),
    };
    let remote = remotes.get(&url, &access).map_err(|error| error.to_string())?;
    let fields = match &base.pin {
        Pin::Commit(id) => Fields { commit: Some(id), ..Fields::default() },
        Pin::Tag(name) => Fields { tag: Some(name), ..Fields::default() },
    };
    let reference = Reference::from_spec(fields).map_err(|error| error.to_string())?;
    let told =
        |error: SourceError| hint(base, &error).map_or_else(|| error.to_string(), |h| format!("{error}\nhint: {h}"));
    let revision = remote.probe(&reference, base.timeout).await.map_err(told)?;
    let fetched = remote.snapshot(&reference, &revision, None, base.timeout, CancellationToken::new()).await;
    fetched.map_err(told)
}

/// What a person can do, where the hints for sources don't say it.
fn hint(base: &RemoteBase, error: &SourceError) -> Option<&'static str> {
    match (error, &base.pin) {
        (SourceError::RefNotFound { .. }, Pin::Tag(_)) => {
            Some("`ref` must be a tag or a full commit id: a branch would change by itself")
        }
        (SourceError::Unauthorized { .. } | SourceError::NotFound { .. }, _) if !base.url.starts_with("ssh:") => {
            Some("it is asked for without credentials: what isn't public is named by `ssh://`, or copied")
        }
        _ if error.class() == Class::Auth => error.hint(),
        _ => None,
    }
}
