//! Repositories on this machine: a path in, commit ids and a view of the object store out.
//!
//! Nothing is copied: objects never change, so reading beside a writer is safe. Only a commit that was rewritten and
//! then collected away by `git gc` may vanish under a snapshot, weeks later.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use git2::{ErrorCode, Repository};

use crate::source::cache::Generation;
use crate::source::error::SourceError;
use crate::source::probes::Shown;
use crate::source::reference::{Lookup, Reference, Revision, Selection};
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

    /// What each of the references names now.
    pub fn resolve(&self, references: Vec<Reference>) -> Shown {
        let of = |reference: Reference| {
            let revision = match reference.lookup() {
                Lookup::Listed(name) => self.find(&reference, &name),
                Lookup::Pinned(commit) => Ok(reference.at(commit)),
            };
            (reference, revision)
        };
        references.into_iter().map(of).collect()
    }

    /// `name` is the full name of the ref, or what such names begin with.
    fn find(&self, reference: &Reference, name: &str) -> Result<Revision, SourceError> {
        let repository = self.open()?;
        let mut selection = Selection::of(reference);
        match reference {
            Reference::Semver(_) => {
                let tags = repository.references_glob(&format!("{name}*"));
                for tag in tags.map_err(|error| self.store(error.message()))?.flatten() {
                    if let (Ok(name), Ok(commit)) = (tag.name(), tag.peel_to_commit()) {
                        selection.offer(name, commit.id());
                    }
                }
            }
            _ => match repository.find_reference(name) {
                Ok(found) => match found.peel_to_commit() {
                    Ok(commit) => selection.offer(name, commit.id()),
                    Err(error) if matches!(error.code(), ErrorCode::Peel | ErrorCode::InvalidSpec) => {
                        return Err(SourceError::NotACommit { url: self.url.clone(), reference: reference.clone() });
                    }
                    Err(error) => return Err(self.store(error.message())),
                },
                Err(error) if error.code() == ErrorCode::NotFound => {}
                Err(error) => return Err(self.store(error.message())),
            },
        }
        selection.finish().ok_or_else(|| {
            let empty = repository.references().is_ok_and(|mut all| all.next().is_none());
            match empty {
                true => SourceError::EmptyRepository { url: self.url.clone() },
                false => SourceError::RefNotFound { url: self.url.clone(), reference: reference.clone() },
            }
        })
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
