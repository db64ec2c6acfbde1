//! `spec.include`: the newest heads of other sources in, one head with parts of their trees in it out.
//!
//! The sources are followed by edge. One that fails but has a revision is seen at that revision, as its own
//! applications see it.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::select_all;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::api::{Artifact, GitRepositorySpec, Key};
use crate::engine::shared::Shared;
use crate::manifest::{EntryKind, Tree as _, TreeError};
use crate::source::mount::{self, Names};
use crate::source::{Mount, Snapshot};

use super::report::artifact;
use super::{Found, Head, SourceHandle, SourceState};

/// Nobody writes more by hand, and each is looked up on every path.
const INCLUDES_MAX: usize = 32;

/// The sources that one source includes.
pub(super) struct Includes {
    /// Who includes them.
    owner: Key,
    list: Vec<Include>,
    states: Vec<watch::Receiver<SourceState>>,
    /// What was seen of each the last time.
    seen: Vec<Seen>,
}

#[derive(Clone)]
struct Include {
    source: SourceHandle,
    from: Names,
    at: Names,
}

/// What of an included source matters to who includes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    exists: bool,
    identity: Option<String>,
    includes: Vec<Key>,
    failed: bool,
}

/// Why there is no tree with all of them, with a reason as Flux names it.
pub(super) struct Unavailable {
    pub reason: &'static str,
    pub message: String,
}

/// A head, and what its status says of the sources in it.
pub(super) struct Composed {
    pub head: Head,
    pub included: Vec<Artifact>,
}

impl Includes {
    pub fn of(owner: &Key, spec: &GitRepositorySpec, shared: &Shared) -> Result<Includes, String> {
        let written = spec.include.as_deref().unwrap_or_default();
        if written.len() > INCLUDES_MAX {
            return Err(format!("`spec.include` names more than {INCLUDES_MAX} repositories"));
        }
        let mut list = Vec::with_capacity(written.len());
        for include in written {
            let name = &include.repository.name;
            let names = |path: &str| mount::names(path).map_err(|error| format!("`spec.include`: {error}"));
            let from = names(include.from_path.as_deref().unwrap_or_default())?;
            let at = names(include.to_path.as_deref().filter(|path| !path.is_empty()).unwrap_or(name))?;
            list.push(Include { source: shared.source(&Key::new(&owner.namespace, name)), from, at });
        }
        mount::check_places(list.iter().map(|include| &include.at)).map_err(|error| error.to_string())?;
        let states = list.iter().map(|include| include.source.subscribe()).collect();
        let seen = vec![Seen::default(); list.len()];
        Ok(Includes { owner: owner.clone(), list, states, seen })
    }

    pub fn keys(&self) -> Vec<Key> {
        self.list.iter().map(|include| include.source.key.clone()).collect()
    }

    /// Returns when one of them is not what it was.
    pub async fn changed(&mut self) {
        if self.list.is_empty() {
            return std::future::pending().await;
        }
        loop {
            let mut changed = false;
            for (state, seen) in self.states.iter_mut().zip(&mut self.seen) {
                let now = Seen::of(&state.borrow_and_update());
                changed |= std::mem::replace(seen, now.clone()) != now;
            }
            if changed {
                return;
            }
            let changes = self.states.iter_mut().map(|state| Box::pin(state.changed()));
            // The senders live in the handles that we hold.
            let _ = select_all(changes).await;
        }
    }

    /// Somebody who looks at the whole fails or waits: what is in it may be what has to be repaired.
    pub fn attention(&self, needed: bool, changed: bool, shared: &Shared) {
        let needed = needed && self.circle(shared).is_none();
        for include in &self.list {
            include.source.attention(&self.voice(), needed, needed && changed);
        }
    }

    /// Passes a wish on. In a circle it would never come to rest.
    pub fn ask(&self, announced: bool, shared: &Shared) {
        if self.circle(shared).is_none() {
            self.list.iter().for_each(|include| include.source.ask(announced));
        }
    }

    /// A tree can't be read any more, and whose it is isn't known.
    pub fn unreadable(&self) {
        for include in &self.list {
            include.source.unreadable();
        }
    }

    fn circle(&self, shared: &Shared) -> Option<Vec<Key>> {
        if self.list.is_empty() {
            return None;
        }
        circle(&self.owner, &|key| shared.source(key).state().includes)
    }

    /// A name among the applications of a source that none of them can have.
    fn voice(&self) -> Key {
        Key::new(&self.owner.namespace, format!("GitRepository/{}", self.owner.name))
    }

    /// The repository's own tree with the others in it.
    pub async fn compose(
        &self,
        own: &Snapshot,
        found: Found,
        view: &str,
        shared: &Shared,
    ) -> Result<Composed, Unavailable> {
        if self.list.is_empty() {
            let revision = own.revision.to_string();
            let identity = identity(&revision, view);
            let head = Head {
                snapshot: Arc::new(own.clone()),
                revision,
                identity,
                view: view.to_owned(),
                found,
                changed: None,
            };
            return Ok(Composed { head, included: Vec::new() });
        }
        if let Some(circle) = self.circle(shared) {
            let names: Vec<_> = circle.iter().map(|key| format!("`{key}`")).collect();
            let message = format!("`spec.include` leads in a circle: {}", names.join(" → "));
            return Err(Unavailable { reason: "IncludeCycle", message });
        }
        let mut heads = Vec::with_capacity(self.list.len());
        for include in &self.list {
            heads.push(head_of(&include.source)?);
        }
        let list = self.list.clone();
        let (own, view) = (own.clone(), view.to_owned());
        let composed = tokio::task::spawn_blocking(move || compose(&own, found, &view, &list, &heads)).await;
        composed.unwrap_or_else(|_| {
            let message = "the thread that reads included trees died".to_owned();
            Err(Unavailable { reason: "CopyFailure", message })
        })
    }
}

impl Drop for Includes {
    fn drop(&mut self) {
        for include in &self.list {
            include.source.attention(&self.voice(), false, false);
        }
    }
}

impl Seen {
    fn of(state: &SourceState) -> Seen {
        Seen {
            exists: state.exists,
            identity: state.head.as_ref().map(|head| head.identity.clone()),
            includes: state.includes.clone(),
            failed: state.failure.is_some(),
        }
    }
}

fn head_of(source: &SourceHandle) -> Result<Arc<Head>, Unavailable> {
    let (state, key) = (source.state(), &source.key);
    if !state.exists {
        let message =
            format!("GitRepository `{key}` of `spec.include` does not exist\nhint: create it, or correct the name");
        return Err(Unavailable { reason: "NotFound", message });
    }
    state.head.ok_or_else(|| {
        let why = state.failure.as_deref().map_or(String::new(), |failure| format!(": {failure}"));
        Unavailable {
            reason: "NoArtifact",
            message: format!("GitRepository `{key}` of `spec.include` has no revision{why}"),
        }
    })
}

fn compose(
    own: &Snapshot,
    found: Found,
    view: &str,
    list: &[Include],
    heads: &[Arc<Head>],
) -> Result<Composed, Unavailable> {
    let revision = own.revision.to_string();
    let (mut mounts, mut views, mut identities, mut included) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (include, head) in list.iter().zip(heads) {
        let (key, from) = (&include.source.key, include.from.join("/"));
        let found = head.snapshot.entry(&from).map_err(|error| unreadable(&include.source, &error))?;
        if found.is_none_or(|entry| entry.kind != EntryKind::Directory) {
            let message =
                format!("GitRepository `{key}` of `spec.include` has no directory `{from}` at {}", head.revision);
            return Err(Unavailable { reason: "CopyFailure", message });
        }
        let at = include.at.join("/");
        views.push(json!([at, from, head.view]));
        identities.push(json!([at, from, head.identity]));
        included.push(artifact(key, head, k8s_openapi::jiff::Timestamp::now()));
        let (at, from, snapshot) = (include.at.clone(), include.from.clone(), Snapshot::clone(&head.snapshot));
        mounts.push(Mount { at, from, snapshot });
    }
    let identity = identity(&revision, &json!([view, identities]).to_string());
    let view = json!([view, views]).to_string();
    let head = Head { snapshot: Arc::new(own.with_mounts(mounts)), revision, identity, view, found, changed: None };
    Ok(Composed { head, included })
}

fn unreadable(source: &SourceHandle, error: &TreeError) -> Unavailable {
    source.unreadable();
    Unavailable { reason: "CopyFailure", message: format!("GitRepository `{}` of `spec.include`: {error}", source.key) }
}

/// What follows the revision in an identity that is more than that.
pub(in crate::engine) const CONTENT: &str = " (content ";

/// The revision alone where nothing but the commit says what is seen.
fn identity(revision: &str, content: &str) -> String {
    if content.is_empty() {
        return revision.to_owned();
    }
    let digest = hex::encode(&Sha256::digest(content)[..4]);
    format!("{revision}{CONTENT}{digest})")
}

/// The members of a circle that `start` is in, from it back to it.
fn circle(start: &Key, includes: &dyn Fn(&Key) -> Vec<Key>) -> Option<Vec<Key>> {
    let mut seen = BTreeSet::new();
    let mut ways: Vec<Vec<Key>> = vec![vec![start.clone()]];
    while let Some(way) = ways.pop() {
        let Some(last) = way.last() else { continue };
        for next in includes(last) {
            let mut longer = way.clone();
            longer.push(next.clone());
            if next == *start {
                return Some(longer);
            }
            if seen.insert(next) {
                ways.push(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_named_from_its_start_back_to_it() {
        let key = |name: &str| Key::new("n", name);
        let includes = |at: &Key| -> Vec<Key> {
            let names: &[&str] = match at.name.as_str() {
                "a" => &["x", "b"],
                "b" => &["c"],
                "c" => &["b", "a"],
                "outside" => &["a"],
                "self" => &["self"],
                _ => &[],
            };
            names.iter().map(|name| key(name)).collect()
        };
        let found =
            |start: &str| circle(&key(start), &includes).map(|keys| keys.iter().map(|key| key.name.clone()).collect());
        assert_eq!(found("a"), Some(["a", "b", "c", "a"].map(String::from).to_vec()));
        assert_eq!(found("self"), Some(["self", "self"].map(String::from).to_vec()));
        assert_eq!(found("outside"), None, "who only includes members is in no circle");
        assert_eq!(found("x"), None);
    }

    #[test]
    fn the_identity_is_the_revision_where_nothing_else_counts() {
        assert_eq!(identity("main@sha1:0", ""), "main@sha1:0");
        assert_ne!(identity("main@sha1:0", "a"), identity("main@sha1:0", "b"));
    }
}
