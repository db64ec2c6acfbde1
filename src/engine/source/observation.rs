//! One look at the remote: a probe, and the fetch of what it showed; both may be under way at once. Comes in: a target and
//! the sources it includes. Goes out: a tree that is published, or a failure that is. Never decides when to look: the
//! pacing does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::report::Stage;
use crate::source::pacing::Failure;
use crate::source::{self, Class, Follower, Sight, Snapshot, SourceError};

use super::include::{Includes, Unavailable};
use super::policy::{self, Passed};
use super::report::INCLUDE_UNAVAILABLE;
use super::target::Target;
use super::worker::Worker;
use super::{Found, Hint};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A running probe and a running fetch; both may be there at once.
#[derive(Default)]
pub(super) struct Running {
    own: Option<Own>,
    /// The last look at the repository itself failed: what others bring is news all the same, but no success.
    failed: bool,
    pub(super) probe: Option<Boxed<Sight>>,
    pub(super) fetch: Option<Fetch>,
    pub(super) recovery: Option<Recovery>,
}

/// The last good revision, fetched after a start since the newest can't be taken and nothing else is held.
pub(super) struct Recovery {
    fetch: Option<Fetch>,
    /// Why the newest can't be taken, and when the probe began that showed it: told once the other is offered, so that
    /// nobody takes the source for empty meanwhile.
    error: SourceError,
    since: Instant,
}

/// The newest tree of the repository itself.
struct Own {
    snapshot: Snapshot,
    /// When the newest probe began that showed it.
    since: Instant,
    found: Found,
}

pub(super) struct Fetch {
    revision: source::Revision,
    /// When the newest probe began that showed this revision.
    since: Instant,
    /// When the first one began that did.
    first: Instant,
    begun: Instant,
    result: Boxed<Result<Passed, SourceError>>,
    cancel: CancellationToken,
}

/// What came of one.
pub(super) struct Fetched {
    revision: source::Revision,
    since: Instant,
    found: Found,
    result: Result<Passed, SourceError>,
}

/// A commit that can't be taken as it is: fetching it again and again would bring gigabytes of the same.
pub(super) struct Refused {
    revision: source::Revision,
    error: SourceError,
    at: Instant,
}

impl Fetch {
    fn ended(&self, result: Result<Passed, SourceError>) -> Fetched {
        let found = Found { probed_at: self.first, seen_at: self.begun, fetched_at: Instant::now() };
        Fetched { revision: self.revision.clone(), since: self.since, found, result }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Worker {
    /// The remote shows this now (`None`: nothing of that name); whether that was waited for.
    fn on_shown(&mut self, commit: Option<git2::Oid>) {
        if self.hint.is_some_and(|hint| hint == commit.map_or(Hint::Gone, Hint::Commit)) {
            self.hint = None;
            self.pacing.seen();
        }
    }

    pub(super) fn probe(&mut self, target: &Target, follower: &Follower, running: &mut Running) {
        let now = Instant::now();
        let Some(when) = self.pacing.next(now) else { return };
        // other sources may share the remote or the host
        match follower.look(when, target.timeout()) {
            Ok(look) => {
                self.pacing.on_probe_started(now);
                running.probe = Some(look);
            }
            Err(until) => self.pacing.on_refused(when.kind, until),
        }
    }

    /// Another source of the same remote had it looked at. Its failures are told by those who wait for the answer.
    pub(super) async fn on_news(&mut self, target: &Target, includes: &Includes, running: &mut Running, sight: Sight) {
        if sight.revision.is_ok() && self.pacing.is_news(sight.began) {
            self.on_probe(target, includes, running, sight).await;
        }
    }

    pub(super) async fn on_probe(&mut self, target: &Target, includes: &Includes, running: &mut Running, sight: Sight) {
        let Sight { began: started, revision: result } = sight;
        let now = Instant::now();
        self.shared.metrics.stage(Stage::Probe, now.saturating_duration_since(started));
        self.metrics.received(target.remote.take_received());
        self.pacing.on_answered(started);
        self.pacing.on_probe_ended(result.as_ref().map(|_| ()).map_err(Failure::from), now);
        let found = match result {
            Ok(found) => found,
            Err(error) => {
                self.metrics.probed("failed");
                running.failed = true;
                if matches!(error, SourceError::RefNotFound { .. } | SourceError::EmptyRepository { .. }) {
                    self.on_shown(None);
                }
                if running.own.is_none() && matches!(error.class(), Class::Unreachable | Class::Transient) {
                    self.recall(target, includes, running, started).await;
                }
                return self.on_failure(&target.object, &error, started).await;
            }
        };
        self.metrics.probed("ok");
        running.failed = false;
        self.on_shown(Some(found.commit));
        let interval = target.object.spec.interval.0;
        if let Some(Refused { error, .. }) =
            self.refused.as_ref().filter(|refused| refused.revision == found && refused.at.elapsed() < interval)
        {
            let error = error.clone();
            running.failed = true;
            self.pacing.on_probe_ended(Err(Failure { class: Class::Commit, retry_after: None }), now);
            if let Some(recovery) = &mut running.recovery {
                recovery.since = started;
                return;
            }
            return self.on_failure(&target.object, &error, started).await;
        }
        self.refused = None;
        let readable = !std::mem::take(&mut self.handle.wishes().unreadable);
        if !readable {
            includes.unreadable();
        }
        if let Some(own) = running.own.as_mut().filter(|own| readable && own.snapshot.revision == found) {
            own.since = started;
            running.fetch = None;
            self.compose(target, includes, running).await;
            return;
        }
        match &mut running.fetch {
            Some(fetch) if fetch.revision == found => fetch.since = started,
            // what was being fetched is no longer the newest
            _ => running.fetch = Some(self.fetch(target, found, started)),
        }
    }

    /// The server can't be asked, and was not since the start: what it showed last, as the status says, is published from
    /// the cache. Whoever is served by it is not held up, and nothing is said to be seen that was not.
    async fn recall(&mut self, target: &Target, includes: &Includes, running: &mut Running, began: Instant) {
        let object = &target.object;
        // another spec may follow something else
        let shown = object.status.as_ref().filter(|status| status.observed_generation == object.metadata.generation);
        let recorded = shown.and_then(|status| status.artifact.as_ref());
        let Some(revision) = recorded.and_then(|artifact| source::Revision::parse(&artifact.revision)) else { return };
        let (url, policies) = (target.remote.url().clone(), self.policies.borrow().clone());
        let repository = policy::Repository { key: self.key.clone(), object: object.clone(), url };
        let passed = match target.held(&revision).await {
            Ok(Some(snapshot)) => policy::judge(policies, repository, snapshot, CancellationToken::new()).await,
            Ok(None) => return,
            Err(error) => Err(error),
        };
        match passed {
            Ok(Passed { snapshot, .. }) => {
                tracing::info!(source = %self.key, %revision, "the server can't be asked: going on with what it showed last");
                let found = Found { probed_at: began, seen_at: began, fetched_at: Instant::now() };
                running.own = Some(Own { snapshot, since: began, found });
                self.compose(target, includes, running).await;
            }
            Err(error) => tracing::debug!(source = %self.key, %error, "what was fetched before can't be used"),
        }
    }

    fn fetch(&self, target: &Target, revision: source::Revision, since: Instant) -> Fetch {
        let cancel = CancellationToken::new();
        let (fetched, policies) = (target.fetch(revision.clone(), cancel.clone()), self.policies.borrow().clone());
        let (key, object, url) = (self.key.clone(), target.object.clone(), target.remote.url().clone());
        let stop = cancel.clone();
        let result = Box::pin(async move {
            let snapshot = fetched.await?;
            policy::judge(policies, policy::Repository { key, object, url }, snapshot, stop).await
        });
        Fetch { revision, since, first: since, begun: Instant::now(), result, cancel }
    }

    pub(super) async fn on_fetch(
        &mut self,
        target: &Target,
        includes: &Includes,
        running: &mut Running,
        fetched: Fetched,
    ) {
        let Fetched { revision, since, found, result } = fetched;
        self.shared.metrics.stage(Stage::Fetch, found.seen_at.elapsed());
        self.metrics.fetched(if result.is_ok() { "ok" } else { "failed" });
        self.metrics.received(target.remote.take_received());
        match result {
            Ok(Passed { snapshot, warnings, notes }) => {
                self.tell(&target.object, &snapshot.revision, &warnings, &notes);
                self.pacing.state_changed(Instant::now());
                running.own = Some(Own { snapshot, since, found });
                self.compose(target, includes, running).await;
            }
            Err(error) => {
                running.failed = true;
                let now = Instant::now();
                let mut failure = Failure::from(&error);
                if matches!(
                    error,
                    SourceError::TooLarge { .. } | SourceError::NotACommit { .. } | SourceError::Denied { .. }
                ) {
                    failure.class = Class::Commit;
                    self.refused = Some(Refused { revision: revision.clone(), error: error.clone(), at: now });
                    self.pacing.state_changed(now);
                    self.recover(target, running, &revision, &error, since);
                }
                self.pacing.on_probe_ended(Err(failure), now);
                if running.recovery.is_none() {
                    self.on_failure(&target.object, &error, since).await;
                }
            }
        }
    }

    /// Begins to fetch the revision that was offered before the daemon started, if nothing is offered now.
    fn recover(
        &self,
        target: &Target,
        running: &mut Running,
        newest: &source::Revision,
        error: &SourceError,
        since: Instant,
    ) {
        if let Some(recovery) = &mut running.recovery {
            (recovery.error, recovery.since) = (error.clone(), since);
            return;
        }
        if running.own.is_some() || self.handle.state().head.is_some() {
            return;
        }
        let recorded = self.status.artifact.as_ref().and_then(|artifact| source::Revision::parse(&artifact.revision));
        let Some(last_good) = recorded.filter(|recorded| recorded.commit != newest.commit) else { return };
        tracing::info!(object = %self.key, revision = %last_good, "the newest revision can't be taken: the last good one is fetched");
        let fetch = Some(self.fetch(target, last_good, since));
        running.recovery = Some(Recovery { fetch, error: error.clone(), since });
    }

    /// Offers the last good revision, as it would still be offered if the daemon had not been started anew.
    pub(super) async fn on_recovered(
        &mut self,
        target: &Target,
        includes: &Includes,
        running: &mut Running,
        fetched: Fetched,
    ) {
        let Fetched { since, found, result, .. } = fetched;
        self.metrics.received(target.remote.take_received());
        let Some(Recovery { error, since: seen, .. }) = running.recovery.take() else { return };
        if running.own.is_some() {
            // something newer came up, and is offered
            return;
        }
        match result {
            Ok(Passed { snapshot, .. }) => {
                running.own = Some(Own { snapshot, since, found });
                self.compose(target, includes, running).await;
            }
            Err(why) => {
                tracing::warn!(object = %self.key, error = %why, "the last good revision can't be had any more")
            }
        }
        if running.failed {
            self.on_failure(&target.object, &error, seen).await;
        }
    }

    /// Publishes the repository's own tree with the others in it.
    pub(super) async fn compose(&mut self, target: &Target, includes: &Includes, running: &mut Running) {
        let Some(own) = &running.own else { return };
        match includes.compose(&own.snapshot, own.found, &target.view, &self.shared).await {
            Ok(composed) if running.failed => self.publish(|state| state.head = Some(Arc::new(composed.head))),
            Ok(composed) => self.succeed(target, composed, own.since).await,
            Err(_) if running.failed => {}
            Err(Unavailable { reason, message }) => {
                self.publish(|state| {
                    state.failure = Some(message.as_str().into());
                    state.observed_since = Some(own.since);
                });
                self.metrics.took(own.since.elapsed());
                self.fail(&target.object, INCLUDE_UNAVAILABLE, reason, &message, false).await;
            }
        }
    }
}

pub(super) async fn probed(probe: &mut Option<Boxed<Sight>>) -> Sight {
    let Some(running) = probe else { return std::future::pending().await };
    let sight = running.await;
    *probe = None;
    sight
}

/// The last good revision is there, or can't be had.
pub(super) async fn recovered(recovery: &mut Option<Recovery>) -> Fetched {
    match recovery {
        Some(recovery) => fetched(&mut recovery.fetch).await,
        None => std::future::pending().await,
    }
}

pub(super) async fn fetched(fetch: &mut Option<Fetch>) -> Fetched {
    let Some(running) = fetch else { return std::future::pending().await };
    let result = (&mut running.result).await;
    let fetched = running.ended(result);
    *fetch = None;
    fetched
}
