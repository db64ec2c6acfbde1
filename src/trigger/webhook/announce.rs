//! Who is told, and how: in memory where this process serves a source, else by the annotation that everybody knows.
//!
//! Telling never waits. Annotations are written by a task of their own, each object once for all deliveries that come in
//! meanwhile; what is to be written is bounded by the objects that there are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio::sync::Notify;

use super::known::Known;
use crate::api::{EXPECTED, Key, REQUESTED_AT};
use crate::cluster::{ApiError, ApiKind, Cluster, ErrorClass};
use crate::config::SourceRole;
use crate::engine::{Hint, Sources};

/// The way from a delivery to those who are concerned. Must not wait.
pub trait Announce: Send + Sync {
    /// There is something new; `hint` says what will be seen then.
    fn source(&self, key: &Key, hint: Option<Hint>);
    /// A Kustomization is to be reconciled.
    fn application(&self, key: &Key);
}

/// As Flux's notification-controller signs what it annotates.
const MANAGER: &str = "notification-controller";
/// Annotations at a time: a monorepo has many sources, an API server has others to serve.
const PARALLEL: usize = 4;
/// One object is annotated at most so often, however many deliveries come in.
const SPACING: Duration = Duration::from_secs(1);
/// An API server that does not answer is asked again …
const RETRY: Duration = Duration::from_secs(2);
/// … as long as somebody might still wait.
const GIVE_UP: Duration = Duration::from_secs(60);

/// Tells sources in memory, if their workers are here, and everybody else by annotation.
pub struct Announcer {
    sources: Sources,
    annotations: Arc<Annotations>,
    source_role: SourceRole,
    /// Other instances may follow the same source.
    shared: bool,
    known: Arc<Known>,
}

impl Announcer {
    pub fn new(
        sources: Sources,
        annotations: Arc<Annotations>,
        source_role: SourceRole,
        shared: bool,
        known: Arc<Known>,
    ) -> Self {
        Self { sources, annotations, source_role, shared, known }
    }
}

impl Announce for Announcer {
    fn source(&self, key: &Key, hint: Option<Hint>) {
        let told = self.sources.announce(key, hint);
        if told && !self.shared {
            return;
        }
        match self.source_role {
            // others follow it, or lead: they see the annotation
            SourceRole::Serve => self.annotations.put(Post::Source(key.clone()), hint),
            // nothing is written to a source that is another's; its applications are ours
            SourceRole::Observe => match self.known.follower_of(key) {
                Some(application) => self.annotations.put(Post::Follower(application), hint),
                None => tracing::debug!(object = %key, "nobody follows this source"),
            },
        }
    }

    fn application(&self, key: &Key) {
        self.annotations.put(Post::Application(key.clone()), None);
    }
}

/// Whose annotation says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Post {
    Source(Key),
    Application(Key),
    /// A Kustomization, in place of its source: only that is to be looked at.
    Follower(Key),
}

/// What is still to be annotated.
#[derive(Default)]
pub struct Annotations {
    wanted: Mutex<BTreeMap<Post, Wanted>>,
    wake: Notify,
}

#[derive(Clone, Copy)]
struct Wanted {
    since: Instant,
    not_before: Instant,
    /// Nobody has asked since the last time: kept for the spacing only.
    done: bool,
    /// What was said last of what is to be seen.
    hint: Option<Hint>,
}

impl Annotations {
    fn put(&self, addressee: Post, hint: Option<Hint>) {
        let now = Instant::now();
        let mut wanted = self.wanted();
        let entry = wanted.entry(addressee).or_insert(Wanted { since: now, not_before: now, done: true, hint: None });
        entry.hint = hint.or(entry.hint);
        if entry.done {
            (entry.done, entry.since) = (false, now);
            drop(wanted);
            self.wake.notify_one();
        }
    }

    /// Writes what is wanted. Never ends.
    pub async fn write(&self, cluster: &Cluster) {
        loop {
            let (due, next) = self.due(Instant::now());
            if due.is_empty() {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = sleep_until(next) => {}
                }
                continue;
            }
            futures::stream::iter(due).for_each_concurrent(PARALLEL, |(a, hint)| self.annotate(cluster, a, hint)).await;
        }
    }

    /// Takes out what may be written now, and tells when there will be more.
    fn due(&self, now: Instant) -> (Vec<(Post, Option<Hint>)>, Option<Instant>) {
        let mut wanted = self.wanted();
        wanted.retain(|_, w| !(w.done && w.not_before <= now));
        let mut due = Vec::new();
        for (addressee, entry) in wanted.iter_mut().filter(|(_, w)| !w.done && w.not_before <= now) {
            (entry.done, entry.not_before) = (true, now + SPACING);
            due.push((addressee.clone(), entry.hint.take()));
        }
        let next = wanted.values().filter(|w| !w.done).map(|w| w.not_before).min();
        (due, next)
    }

    async fn annotate(&self, cluster: &Cluster, addressee: Post, hint: Option<Hint>) {
        let since = Instant::now();
        let Err(error) = annotate(cluster, &addressee, hint).await else { return };
        if error.is_not_found() {
            return;
        }
        let lasting = matches!(error.class, ErrorClass::Forbidden | ErrorClass::Denied | ErrorClass::BadRequest);
        let mut wanted = self.wanted();
        let entry = wanted.entry(addressee.clone()).or_insert(Wanted { since, not_before: since, done: true, hint });
        if entry.done {
            entry.since = entry.since.min(since);
        }
        entry.hint = entry.hint.or(hint);
        let again = !lasting && entry.since.elapsed() < GIVE_UP;
        (entry.done, entry.not_before) = (!again, Instant::now() + RETRY);
        drop(wanted);
        let (Post::Source(key) | Post::Application(key) | Post::Follower(key)) = &addressee;
        tracing::warn!(object = %key, %error, again, "a webhook could not be passed on by annotation");
    }

    fn wanted(&self) -> MutexGuard<'_, BTreeMap<Post, Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn annotate(cluster: &Cluster, addressee: &Post, hint: Option<Hint>) -> Result<(), ApiError> {
    let (kind, key) = match addressee {
        Post::Source(key) => (ApiKind::git_repository(), key),
        Post::Application(key) | Post::Follower(key) => (ApiKind::kustomization(), key),
    };
    let id = kind.object(key.namespace.as_str(), key.name.as_str());
    let token = Timestamp::now().to_string();
    let annotations = match (addressee, hint) {
        // who sees it looks at the source, and does nothing else
        (Post::Follower(_), hint) => json!({ EXPECTED: Hint::alone(hint, &token) }),
        (_, None) => json!({ REQUESTED_AT: token }),
        (_, Some(hint)) => json!({ EXPECTED: hint.beside(&token), REQUESTED_AT: token }),
    };
    let patch = json!({ "metadata": { "annotations": annotations } });
    cluster.merge_patch(&kind, &id, &patch, None, MANAGER).await.map(drop)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_deliveries_for_one_object_are_one_annotation_a_second() {
        let annotations = Annotations::default();
        let source = Post::Source(Key::new("n", "a"));
        let hint = |digit: &str| Some(Hint::Commit(git2::Oid::from_str(&digit.repeat(40)).unwrap()));
        for _ in 0..1000 {
            annotations.put(source.clone(), hint("a"));
        }
        let now = Instant::now();
        assert_eq!(annotations.due(now).0, vec![(source.clone(), hint("a"))]);
        annotations.put(source.clone(), hint("b"));
        annotations.put(source.clone(), hint("c"));
        // somebody who knows no commit
        annotations.put(source.clone(), None);
        let application = Post::Application(Key::new("n", "a"));
        annotations.put(application.clone(), None);
        let now = Instant::now();
        assert_eq!(annotations.due(now).0, [(application, None)]);
        let (due, next) = annotations.due(now + SPACING);
        assert_eq!((due, next), (vec![(source, hint("c"))], None));
        assert_eq!(annotations.due(now + 3 * SPACING).0, []);
        assert!(annotations.wanted().is_empty(), "what is done is forgotten");
    }
}
