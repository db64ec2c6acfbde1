//! One worker for each GitRepository: probes its remote when it may, fetches what is new, publishes the newest revision.
//!
//! ```text
//!  object, Secrets ─▶ goal ─┐
//!  applications ──▶ wishes ─┼──▶ worker ──▶ SourceState (watch) ──▶ applications, sources that include it
//!  pacing (time) ───────────┤       └─────▶ status, events, metrics
//!  included sources ────────┘
//! ```
//!
//! A probe never waits for a fetch: while revision B is being fetched, the next probe may find C, and B is given up.

mod hint;
mod include;
mod observation;
mod policy;
mod report;
mod sources;
mod target;
mod worker;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::api::Key;
use crate::manifest::changed_paths;
use crate::source::Snapshot;
use crate::source::credentials::SshKey;

pub use hint::Hint;
pub(super) use include::CONTENT;
pub use sources::Sources;
pub(super) use target::read as read_target;
pub(super) use worker::run;

pub(super) const KIND: &str = "GitRepository";

/// A revision and its tree.
#[derive(Clone)]
pub struct Head {
    pub snapshot: Arc<Snapshot>,
    /// As Flux writes it: `main@sha1:…`.
    pub revision: String,
    /// Differs whenever the content may: the revision alone, unless rules or included sources have a say, too.
    pub identity: String,
    /// How the trees are seen: what hides parts of them, and where other trees are.
    pub view: String,
    pub found: Found,
    /// What differs from the head before.
    pub changed: Option<Arc<Changed>>,
}

/// The paths at which a head differs from the one before it: a hint about who has work to do.
pub struct Changed {
    /// The identity of the head before.
    pub since: String,
    pub paths: Vec<String>,
}

/// A head that changes more paths than this is everybody's.
const CHANGED_MAX: usize = 256;
/// So long at most a head waits to be compared: the order is not worth more.
const COMPARE_MAX: Duration = Duration::from_millis(250);

/// When a revision was first looked for and found, and was there.
#[derive(Clone, Copy)]
pub struct Found {
    pub probed_at: Instant,
    pub seen_at: Instant,
    pub fetched_at: Instant,
}

/// What is known of a source.
#[derive(Clone, Default)]
pub struct SourceState {
    /// There is such an object, and it is served.
    pub exists: bool,
    pub suspended: bool,
    /// The sources that `spec.include` names.
    pub includes: Vec<Key>,
    /// What it is reached with over ssh: its applications' bases in other repositories are fetched with it.
    pub ssh_key: Option<Arc<SshKey>>,
    /// The newest revision seen; stays when later probes fail.
    pub head: Option<Arc<Head>>,
    /// Why the last probe or fetch failed, or why the object can't be served.
    pub failure: Option<Arc<str>>,
    /// When the last finished observation began: `head` or `failure` is no older than that.
    pub observed_since: Option<Instant>,
}

/// What is wanted of a source.
#[derive(Default)]
pub(super) struct Wishes {
    /// Somebody who is known to wait.
    pub announced: bool,
    /// What was said last of what is to be seen; a newer word replaces an older one.
    pub hint: Option<Hint>,
    /// A retry: as soon as the spacing allows.
    pub routine: bool,
    /// The tree of the head could not be read: it is opened anew, from a fresh fetch if need be.
    pub unreadable: bool,
    /// Applications that fail or wait: the reason to look often.
    pub attention: HashSet<Key>,
    /// The state of one of them changed: look often for a while again.
    pub state_changed: bool,
}

/// The face of a source's worker; applications hold it even while the object does not exist yet.
#[derive(Clone)]
pub struct SourceHandle {
    pub key: Key,
    pub(super) state: watch::Sender<SourceState>,
    pub(super) wishes: Arc<Mutex<Wishes>>,
    pub(super) wake: Arc<Notify>,
    /// Its workers: one, or none; two while a source is replaced by another of its name.
    workers: Arc<AtomicUsize>,
}

/// As long as it lives, the source is served here; whatever ends its worker ends that.
pub(super) struct Served(Arc<AtomicUsize>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Head {
    /// Finds out what differs from the head before.
    pub(super) async fn since(self, before: Option<Arc<Head>>) -> Self {
        let Some(before) = before else { return self };
        if before.identity == self.identity {
            return Self { changed: before.changed.clone(), ..self };
        }
        let (since, snapshot) = (before.identity.clone(), self.snapshot.clone());
        let compare = move || changed_paths(&*before.snapshot, &*snapshot, CHANGED_MAX);
        let compared = tokio::time::timeout(COMPARE_MAX, tokio::task::spawn_blocking(compare)).await;
        // without an answer everybody looks at once
        let Ok(Ok(Ok(Some(paths)))) = compared else { return self };
        Self { changed: Some(Arc::new(Changed { since, paths })), ..self }
    }
}

impl SourceHandle {
    pub(super) fn new(key: Key) -> Self {
        Self {
            key,
            state: watch::channel(SourceState::default()).0,
            wishes: Arc::default(),
            wake: Arc::default(),
            workers: Arc::default(),
        }
    }

    pub(super) fn serve(&self) -> Served {
        self.workers.fetch_add(1, Ordering::Relaxed);
        Served(self.workers.clone())
    }

    pub(super) fn is_served(&self) -> bool {
        self.workers.load(Ordering::Relaxed) > 0
    }

    pub fn subscribe(&self) -> watch::Receiver<SourceState> {
        self.state.subscribe()
    }

    pub fn state(&self) -> SourceState {
        self.state.borrow().clone()
    }

    /// The state of an observation that began at `since` or later. Never returns while the server does not answer: the
    /// caller sets a bound where it has something better to do.
    pub async fn fresh(&self, since: Instant, announced: bool) -> SourceState {
        let mut states = self.subscribe();
        let fresh = |s: &SourceState| s.observed_since.is_some_and(|at| at >= since);
        if fresh(&states.borrow()) {
            return self.state();
        }
        self.ask(announced);
        // the sender lives in this handle
        states.wait_for(|s| !s.exists || s.suspended || fresh(s)).await.map(|s| s.clone()).unwrap_or_default()
    }

    /// Asks for a probe.
    pub fn ask(&self, announced: bool) {
        let mut wishes = self.wishes();
        if announced {
            wishes.announced = true
        } else {
            wishes.routine = true
        }
        drop(wishes);
        self.wake.notify_one();
    }

    /// Somebody knows what is to be seen now.
    pub fn hint(&self, hint: Hint) {
        self.wishes().hint = Some(hint);
        self.wake.notify_one();
    }

    /// The tree of the head can't be read any more: the cache vanished or is corrupted.
    pub fn unreadable(&self) {
        self.wishes().unreadable = true;
        self.ask(true);
    }

    /// An application fails or waits (`true`), or is settled. `changed`: its state is not what it was.
    pub fn attention(&self, app: &Key, needed: bool, changed: bool) {
        let mut wishes = self.wishes();
        let different = if needed { wishes.attention.insert(app.clone()) } else { wishes.attention.remove(app) };
        wishes.state_changed |= needed && changed;
        drop(wishes);
        if different || changed {
            self.wake.notify_one();
        }
    }

    pub(super) fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
