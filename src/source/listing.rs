//! All files of a commit, whether anybody looks at them or not: what is committed is committed, hidden or not.

use std::path::Path;

use git2::{ObjectType, Oid};

use super::error::SourceError;
use super::snapshot::{RawEntry, Snapshot, raw_entries};
use super::url::SourceUrl;

/// One file as Git has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// From the root, with `/`.
    pub path: String,
    /// In bytes; 0 for a submodule.
    pub size: u64,
    /// As Git writes it: `100644`, `100755`, `120000` (a symlink), `160000` (a submodule).
    pub mode: String,
}

/// What a repository is made of at one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub files: Vec<File>,
    pub author: String,
    /// The first line.
    pub message: String,
}

/// Files of one commit; the largest public repositories have some 400,000, those of manifests some thousand.
pub const FILES_MAX: usize = 200_000;
/// A tree that holds itself again and again is deeper than any that people make.
const DEPTH_MAX: usize = 64;

/// Why there is no listing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    #[error("it has more than {FILES_MAX} files, or folders more than {DEPTH_MAX} deep")]
    TooLarge,
    #[error("the object store failed: {0}")]
    Store(String),
    #[error("cancelled")]
    Cancelled,
}

impl ListingError {
    pub fn of(self, url: &SourceUrl) -> SourceError {
        match self {
            Self::TooLarge => SourceError::TooLarge { url: url.clone(), limit: FILES_MAX as u64, unit: "files" },
            Self::Store(reason) => SourceError::Store { url: url.clone(), reason },
            Self::Cancelled => SourceError::Cancelled { url: url.clone() },
        }
    }
}

impl Snapshot {
    /// All files, without regard to ignore rules. `sizes`: whether they are asked for, which costs a look at each file.
    pub fn listing(&self, sizes: bool, cancelled: &dyn Fn() -> bool) -> Result<Listing, ListingError> {
        let odb = self.odb();
        let commit = self.commit();
        let mut files = Vec::new();
        let mut folders: Vec<(String, Oid, usize)> = vec![(String::new(), self.root(), 0)];
        while let Some((folder, id, depth)) = folders.pop() {
            if cancelled() {
                return Err(ListingError::Cancelled);
            }
            if depth > DEPTH_MAX {
                return Err(ListingError::TooLarge);
            }
            let store = |error: git2::Error| ListingError::Store(error.message().to_owned());
            let object = odb.read(id).map_err(store)?;
            let entries = (object.kind() == ObjectType::Tree).then(|| raw_entries(object.data())).flatten();
            let entries = entries.ok_or_else(|| ListingError::Store(format!("tree `{id}` is malformed")))?;
            for RawEntry { mode, name, id } in entries {
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                let id = Oid::from_bytes(&id).map_err(store)?;
                if mode == "40000" {
                    folders.push((path, id, depth + 1));
                    continue;
                }
                if files.len() == FILES_MAX {
                    return Err(ListingError::TooLarge);
                }
                let size = match mode {
                    "160000" => 0,
                    _ if !sizes => 0,
                    _ => odb.read_header(id).map_err(store)?.0 as u64,
                };
                files.push(File { path, size, mode: mode.to_owned() });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Listing { files, author: commit.author.clone(), message: commit.subject.clone() })
    }
}

/// What the working copy around a folder would commit: the files of its index, under the newest commit's author and
/// message. `None`: the folder is in no repository.
pub fn of_working_copy(root: &Path) -> Option<Result<Listing, ListingError>> {
    let repository = git2::Repository::open(root).ok()?;
    let listing = || {
        let store = |error: git2::Error| ListingError::Store(error.message().to_owned());
        let index = repository.index().map_err(store)?;
        if index.len() > FILES_MAX {
            return Err(ListingError::TooLarge);
        }
        let mut files: Vec<File> = index
            .iter()
            .map(|entry| File {
                path: String::from_utf8_lossy(&entry.path).into_owned(),
                size: u64::from(entry.file_size),
                mode: format!("{:o}", entry.mode),
            })
            .collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let head = repository.head().ok().and_then(|head| head.peel_to_commit().ok());
        let (author, message) = head.map_or_else(Default::default, |commit| {
            let author = commit.author();
            let name = String::from_utf8_lossy(author.name_bytes()).into_owned();
            let email = String::from_utf8_lossy(author.email_bytes()).into_owned();
            let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
            (format!("{name} <{email}>"), message.trim_start().lines().next().unwrap_or_default().to_owned())
        });
        Ok(Listing { files, author, message })
    };
    Some(listing())
}
