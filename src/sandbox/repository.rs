//! Git repositories for tests and the demo: commits are written straight into a bare repository, without a worktree,
//! an index, a git program or anybody's configuration.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use git2::build::TreeUpdateBuilder;
use git2::{Commit, Error, FileMode, ObjectType, Oid, Repository, RepositoryInitOptions, Signature, Time};

/// The branch that [`TestRepository::commit`] writes.
pub const BRANCH: &str = "main";

/// Commit times start here and grow by a second each, so that equal histories have equal ids.
const FIRST_COMMIT_SECONDS: i64 = 1_750_000_000;

/// A bare repository under construction. Its methods may be called from any thread, one at a time each.
pub struct TestRepository {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    repository: Repository,
    commits: i64,
}

impl TestRepository {
    /// Makes an empty bare repository at `path`, which must not hold one yet.
    pub fn create(path: &Path) -> Result<TestRepository, Error> {
        crate::source::git::isolate();
        let mut options = RepositoryInitOptions::new();
        options.bare(true).no_reinit(true).external_template(false).initial_head(BRANCH);
        let repository = Repository::init_opts(path, &options)?;
        Ok(TestRepository { path: path.to_owned(), state: Mutex::new(State { repository, commits: 0 }) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Commits changes to `main`: a path with `None` is removed. Paths are relative, with `/`.
    pub fn commit(&self, message: &str, changes: &[(&str, Option<&str>)]) -> Result<Oid, Error> {
        self.commit_to(BRANCH, message, changes)
    }

    /// As [`TestRepository::commit`], on another branch; a branch that does not exist starts without history.
    pub fn commit_to(&self, branch: &str, message: &str, changes: &[(&str, Option<&str>)]) -> Result<Oid, Error> {
        let changes: Vec<_> = changes.iter().map(|(path, content)| (*path, content.map(str::as_bytes))).collect();
        self.with(|state| {
            let parent = state.tip(branch)?;
            state.write(branch, message, parent, &changes, FileMode::Blob)
        })
    }

    /// As [`TestRepository::commit`], for content that is not text.
    pub fn commit_bytes(&self, message: &str, changes: &[(&str, &[u8])]) -> Result<Oid, Error> {
        let changes: Vec<_> = changes.iter().map(|(path, content)| (*path, Some(*content))).collect();
        self.with(|state| {
            let parent = state.tip(BRANCH)?;
            state.write(BRANCH, message, parent, &changes, FileMode::Blob)
        })
    }

    /// Commits symbolic links to `main`: path and target.
    pub fn commit_symlinks(&self, message: &str, links: &[(&str, &str)]) -> Result<Oid, Error> {
        let changes: Vec<_> = links.iter().map(|(path, target)| (*path, Some(target.as_bytes()))).collect();
        self.with(|state| {
            let parent = state.tip(BRANCH)?;
            state.write(BRANCH, message, parent, &changes, FileMode::Link)
        })
    }

    /// Replaces the history of `main` by one commit without parents that holds these files alone.
    pub fn force_push(&self, message: &str, files: &[(&str, &str)]) -> Result<Oid, Error> {
        let changes: Vec<_> = files.iter().map(|(path, content)| (*path, Some(content.as_bytes()))).collect();
        self.with(|state| state.write(BRANCH, message, None, &changes, FileMode::Blob))
    }

    /// Makes `branch` point to a commit that exists, as a push of it would.
    pub fn set_branch(&self, branch: &str, commit: Oid) -> Result<(), Error> {
        self.with(|state| state.repository.reference(&head(branch), commit, true, "").map(drop))
    }

    pub fn delete_branch(&self, branch: &str) -> Result<(), Error> {
        self.with(|state| state.repository.find_reference(&head(branch))?.delete())
    }

    /// A tag: with a message it is annotated. Gives the commit's id back when it is light, the tag object's otherwise.
    pub fn tag(&self, name: &str, commit: Oid, message: Option<&str>) -> Result<Oid, Error> {
        self.with(|state| {
            let target = state.repository.find_object(commit, None)?;
            match message {
                Some(message) => {
                    let tagger = state.signature()?;
                    state.repository.tag(name, &target, &tagger, message, true)
                }
                None => state.repository.tag_lightweight(name, &target, true),
            }
        })
    }

    /// The tip of a branch; `None` if there is no such branch.
    pub fn tip(&self, branch: &str) -> Result<Option<Oid>, Error> {
        self.with(|state| Ok(state.tip(branch)?.map(|commit| commit.id())))
    }

    fn with<T>(&self, work: impl FnOnce(&State) -> Result<T, Error>) -> Result<T, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.commits += 1;
        work(&state)
    }
}

impl State {
    fn tip(&self, branch: &str) -> Result<Option<Commit<'_>>, Error> {
        match self.repository.find_reference(&head(branch)) {
            Ok(reference) => reference.peel_to_commit().map(Some),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(
        &self,
        branch: &str,
        message: &str,
        parent: Option<Commit<'_>>,
        changes: &[(&str, Option<&[u8]>)],
        mode: FileMode,
    ) -> Result<Oid, Error> {
        let repository = &self.repository;
        let baseline = match &parent {
            Some(parent) => parent.tree()?,
            None => repository.find_tree(repository.treebuilder(None)?.write()?)?,
        };
        let mut update = TreeUpdateBuilder::new();
        for (path, content) in changes {
            match content {
                Some(content) => {
                    let blob = repository.odb()?.write(ObjectType::Blob, content)?;
                    update.upsert(*path, blob, mode);
                }
                None => {
                    update.remove(*path);
                }
            }
        }
        let tree = repository.find_tree(update.create_updated(repository, &baseline)?)?;
        let signature = self.signature()?;
        let parents: Vec<_> = parent.iter().collect();
        // The ref is written last and by hand: a commit without parents may replace a history.
        let commit = repository.commit(None, &signature, &signature, message, &tree, &parents)?;
        repository.reference(&head(branch), commit, true, message)?;
        Ok(commit)
    }

    fn signature(&self) -> Result<Signature<'static>, Error> {
        Signature::new("Afresh", "afresh@example.com", &Time::new(FIRST_COMMIT_SECONDS + self.commits, 0))
    }
}

fn head(branch: &str) -> String {
    format!("refs/heads/{branch}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_change_and_remove_files() {
        let folder = tempfile::tempdir().unwrap();
        let repository = TestRepository::create(&folder.path().join("a.git")).unwrap();
        assert_eq!(repository.tip(BRANCH).unwrap(), None);
        let first = repository.commit("first", &[("a/b.yaml", Some("1")), ("c.yaml", Some("2"))]).unwrap();
        let second = repository.commit("second", &[("a/b.yaml", None), ("c.yaml", Some("3"))]).unwrap();
        assert_eq!(repository.tip(BRANCH).unwrap(), Some(second));

        let git = Repository::open_bare(repository.path()).unwrap();
        let commit = git.find_commit(second).unwrap();
        assert_eq!(commit.parent_id(0).unwrap(), first);
        let tree = commit.tree().unwrap();
        assert!(tree.get_path(Path::new("a")).is_err());
        let blob = tree.get_path(Path::new("c.yaml")).unwrap().to_object(&git).unwrap();
        assert_eq!(blob.as_blob().unwrap().content(), b"3");

        let forced = repository.force_push("anew", &[("d.yaml", "4")]).unwrap();
        assert_eq!(git.find_commit(forced).unwrap().parent_count(), 0);
        repository.delete_branch(BRANCH).unwrap();
        assert_eq!(repository.tip(BRANCH).unwrap(), None);
    }
}
