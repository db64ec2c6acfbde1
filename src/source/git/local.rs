//! Repositories on this machine: a path in, commit ids and a view of the object store out.
//!
//! Nothing is copied: objects never change, so reading beside a writer is safe. Only a commit that was rewritten and
//! then collected away by `git gc` may vanish under a snapshot, weeks later.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use git2::{ErrorCode, Oid, Repository};

use crate::source::cache::Generation;
use crate::source::error::SourceError;
use crate::source::reference::Reference;
use crate::source::url::SourceUrl;

/// One repository: bare, or with a worktree. Its methods block.
pub struct LocalRepository {
    url: SourceUrl,
    path: PathBuf,
    view: Mutex<Option<Arc<Generation>>>,
}

impl LocalRepository {
    pub fn new(url: SourceUrl, path: PathBuf) -> LocalRepository {
        LocalRepository { url, path, view: Mutex::default() }
    }

    pub fn resolve(&self, reference: &Reference, name: &str) -> Result<Oid, SourceError> {
        let repository = self.open()?;
        let found = match repository.find_reference(name) {
            Ok(found) => found,
            Err(error) if error.code() == ErrorCode::NotFound => {
                let empty = repository.references().is_ok_and(|mut all| all.next().is_none());
                return Err(match empty {
                    true => SourceError::EmptyRepository { url: self.url.clone() },
                    false => SourceError::RefNotFound { url: self.url.clone(), reference: reference.clone() },
                });
            }
            Err(error) => return Err(self.store(error.message())),
        };
        match found.peel_to_commit() {
            Ok(commit) => Ok(commit.id()),
            Err(error) if matches!(error.code(), ErrorCode::Peel | ErrorCode::InvalidSpec) => {
                Err(SourceError::NotACommit { url: self.url.clone(), reference: reference.clone() })
            }
            Err(error) => Err(self.store(error.message())),
        }
    }

    /// A view of the repository's objects, with those of its alternates.
    pub fn view(&self) -> Result<Arc<Generation>, SourceError> {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = view.as_ref().filter(|view| view.is_sound()) {
            return Ok(Arc::clone(view));
        }
        let objects = self.open()?.commondir().join("objects");
        let opened = Arc::new(Generation::borrowed(&objects).map_err(|error| self.store(&error.reason))?);
        Ok(Arc::clone(view.insert(opened)))
    }

    fn open(&self) -> Result<Repository, SourceError> {
        Repository::open(&self.path).map_err(|error| match error.code() {
            ErrorCode::NotFound => SourceError::NotFound { url: self.url.clone() },
            _ => self.store(error.message()),
        })
    }

    fn store(&self, reason: &str) -> SourceError {
        SourceError::Store { url: self.url.clone(), reason: reason.to_owned() }
    }
}
