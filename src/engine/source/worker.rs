//! The worker's loop: probe when it may be, fetch beside further probes, publish.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{
    self, Artifact, GitRepository, GitRepositoryStatus, Key, READY, RECONCILING, STALLED, Truth, rfc3339,
};
use crate::cluster::ApiKind;
use crate::config;
use crate::engine::permits::Urgency;
use crate::engine::references::{Reference, Watched};
use crate::engine::shared::Shared;
use crate::report::{Event, Recorded, RecordedFailure, Severity, SourceMetrics, Stage, StatusWriter, Subject, Verdict};
use crate::source::pacing::{Failure, Pacing, ProbeKind};
use crate::source::{self, Class, Remote, Snapshot, SourceError, Sparse};

use super::include::{Composed, Includes, Unavailable};
use super::target::{Refusal, Target};
use super::{Found, Head, Hint, KIND, SourceHandle, SourceState};

/// The cell that the API watch writes: the newest object, `None` once it is gone.
pub type Goal = watch::Receiver<Option<Arc<GitRepository>>>;

/// Serves one GitRepository until it is gone or the daemon stops.
pub async fn run(key: Key, shared: Arc<Shared>, goal: Goal, cancel: CancellationToken) {
    let Some(object) = goal.borrow().clone() else { return };
    let handle = shared.source(&key);
    let _served = handle.serve();
    let status = object.status.clone().unwrap_or_default();
    let metrics = shared.metrics.source(&key);
    if let Some(ready) = status.conditions.get(READY) {
        metrics.recall(ready, true);
    }
    shared.events.known(subject(&key, &object), recorded(&status));
    let worker = Worker {
        metrics,
        writer: StatusWriter::new(ApiKind::git_repository(), key.clone(), &status),
        pacing: Pacing::new(object.spec.interval.0, Instant::now()),
        key,
        shared,
        goal,
        handle,
        status,
        secret: Watched::default(),
        handled: requested_at(&object),
        refused: None,
        hint: None,
    };
    tokio::select! {
        () = worker.run() => {}
        () = cancel.cancelled() => {}
    }
}

pub(super) struct Worker {
    pub(super) key: Key,
    pub(super) shared: Arc<Shared>,
    metrics: SourceMetrics,
    goal: Goal,
    handle: SourceHandle,
    status: GitRepositoryStatus,
    writer: StatusWriter,
    pub(super) pacing: Pacing,
    secret: Watched,
    /// The request (`requestedAt`) that was answered last.
    handled: Option<String>,
    refused: Option<Refused>,
    /// What was said to be there and was not seen yet.
    hint: Option<Hint>,
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A running probe and a running fetch; both may be there at once.
#[derive(Default)]
struct Running {
    own: Option<Own>,
    /// The last look at the repository itself failed: what others bring is news all the same, but no success.
    failed: bool,
    probe: Option<(Instant, Boxed<Result<source::Revision, SourceError>>)>,
    fetch: Option<Fetch>,
}

/// The newest tree of the repository itself.
struct Own {
    snapshot: Snapshot,
    /// When the newest probe began that showed it.
    since: Instant,
    found: Found,
}

struct Fetch {
    revision: source::Revision,
    /// When the newest probe began that showed this revision.
    since: Instant,
    /// When the first one began that did.
    first: Instant,
    begun: Instant,
    result: Boxed<Result<Snapshot, SourceError>>,
    cancel: CancellationToken,
}

/// A commit that can't be taken as it is: fetching it again and again would bring gigabytes of the same.
struct Refused {
    revision: source::Revision,
    error: SourceError,
    at: Instant,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Why the inner loop over one target ended.
enum Changed {
    Gone,
    /// Spec, Secret or suspension.
    Target,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let Some(object) = self.goal.borrow_and_update().clone() else { break };
            if object.metadata.deletion_timestamp.is_some() {
                break;
            }
            self.pacing.set_interval(object.spec.interval.0);
            self.pacing.announce(Instant::now());
            let suspended = object.spec.suspend.unwrap_or(false);
            self.publish(|state| (state.exists, state.suspended) = (true, suspended));
            self.metrics.suspended(suspended);
            let changed = if suspended {
                self.next_target(&object).await
            } else {
                self.watch_secret(&object);
                match self.target(&object).await {
                    Ok((target, includes)) => self.follow(target, includes).await,
                    Err(refusal) => {
                        self.refuse(&object, &refusal).await;
                        self.retry_target(&object, &refusal).await
                    }
                }
            };
            if matches!(changed, Changed::Gone) {
                break;
            }
        }
        self.publish(|state| *state = SourceState::default());
        self.shared.events.forget(KIND, &self.key);
    }

    /// Follows one remote until the spec or the Secret changes.
    async fn follow(&mut self, target: Target, mut includes: Includes) -> Changed {
        self.publish(|state| state.includes = includes.keys());
        let mut running = Running::default();
        self.pacing.on_probe_abandoned();
        self.refused = None;
        loop {
            let now = Instant::now();
            let due = self.pacing.next(now).map(|when| when.at);
            tokio::select! {
                biased;
                changed = next_target(&mut self.goal, &target.object, &mut self.handled) => match changed {
                    Some(changed) => return changed,
                    None => {
                        // requestedAt: the same target, asked for now
                        self.pacing.announce(Instant::now());
                        continue;
                    }
                },
                _ = self.secret.changed() => return Changed::Target,
                () = self.handle.wake.notified() => {}
                (started, result) = probed(&mut running.probe) => self.on_probe(&target, &includes, &mut running, started, result).await,
                (fetch, result) = fetched(&mut running.fetch) => self.on_fetch(&target, &includes, &mut running, fetch, result).await,
                () = includes.changed() => self.compose(&target, &includes, &mut running).await,
                () = sleep_until(due) => self.probe(&target, &mut running),
            }
            self.take_wishes(&includes);
        }
    }

    fn take_wishes(&mut self, includes: &Includes) {
        let now = Instant::now();
        let mut wishes = self.handle.wishes();
        let (announced, routine) = (std::mem::take(&mut wishes.announced), std::mem::take(&mut wishes.routine));
        let changed = std::mem::take(&mut wishes.state_changed);
        let hint = wishes.hint.take();
        let attention = !wishes.attention.is_empty();
        drop(wishes);
        self.pacing.set_attention(attention, now);
        includes.attention(attention, changed, &self.shared);
        if announced || routine {
            includes.ask(announced, &self.shared);
        }
        if changed {
            self.pacing.state_changed(now);
        }
        if announced {
            self.pacing.announce(now);
        } else if routine {
            self.pacing.request();
        }
        if let Some(hint) = hint {
            // what is known already is no news
            let known = self.is_known(hint);
            self.hint = (!known).then_some(hint);
            if known { self.pacing.seen() } else { self.pacing.expect(now) }
        }
    }

    /// Whether the last look at the remote showed what the hint says.
    fn is_known(&self, hint: Hint) -> bool {
        let Hint::Commit(commit) = hint else { return false };
        let state = self.handle.state();
        state.failure.is_none() && state.head.is_some_and(|head| head.snapshot.revision.commit == commit)
    }

    /// The remote shows this now (`None`: nothing of that name); whether that was waited for.
    fn on_shown(&mut self, commit: Option<git2::Oid>) {
        if self.hint.is_some_and(|hint| hint == commit.map_or(Hint::Gone, Hint::Commit)) {
            self.hint = None;
            self.pacing.seen();
        }
    }

    fn probe(&mut self, target: &Target, running: &mut Running) {
        let now = Instant::now();
        let kind = self.pacing.next(now).map_or(ProbeKind::Unannounced, |when| when.kind);
        // other sources may share the remote or the host
        if let Err(until) = target.remote.permit(kind, now) {
            self.pacing.on_refused(kind, until);
            return;
        }
        self.pacing.on_probe_started(now);
        let (remote, reference) = (target.remote.clone(), target.reference.clone());
        let timeout = timeout(&target.object);
        running.probe = Some((now, Box::pin(async move { remote.probe(&reference, timeout).await })));
    }

    async fn on_probe(
        &mut self,
        target: &Target,
        includes: &Includes,
        running: &mut Running,
        started: Instant,
        result: Result<source::Revision, SourceError>,
    ) {
        let now = Instant::now();
        self.shared.metrics.stage(Stage::Probe, now - started);
        self.metrics.received(target.remote.take_received());
        self.pacing.on_probe_ended(result.as_ref().map(|_| ()).map_err(Failure::from), now);
        let found = match result {
            Ok(found) => found,
            Err(error) => {
                self.metrics.probed("failed");
                running.failed = true;
                if matches!(error, SourceError::RefNotFound { .. } | SourceError::EmptyRepository { .. }) {
                    self.on_shown(None);
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

    fn fetch(&self, target: &Target, revision: source::Revision, since: Instant) -> Fetch {
        let cancel = CancellationToken::new();
        let (remote, reference, ignore) = (target.remote.clone(), target.reference.clone(), target.ignore.clone());
        let (timeout, token) = (timeout(&target.object), cancel.clone());
        let (wanted, sparse) = (revision.clone(), target.sparse.clone());
        let result = Box::pin(async move {
            let snapshot = remote.snapshot(&reference, &wanted, ignore.as_deref(), timeout, token).await?;
            if sparse.directories().is_empty() { Ok(snapshot) } else { sparsely(&remote, snapshot, sparse).await }
        });
        Fetch { revision, since, first: since, begun: Instant::now(), result, cancel }
    }

    async fn on_fetch(
        &mut self,
        target: &Target,
        includes: &Includes,
        running: &mut Running,
        fetch: Fetch,
        result: Result<Snapshot, SourceError>,
    ) {
        let (since, revision) = (fetch.since, fetch.revision.clone());
        let found = Found { probed_at: fetch.first, seen_at: fetch.begun, fetched_at: Instant::now() };
        self.shared.metrics.stage(Stage::Fetch, fetch.begun.elapsed());
        self.metrics.fetched(if result.is_ok() { "ok" } else { "failed" });
        self.metrics.received(target.remote.take_received());
        drop(fetch);
        match result {
            Ok(snapshot) => {
                self.pacing.state_changed(Instant::now());
                running.own = Some(Own { snapshot, since, found });
                self.compose(target, includes, running).await;
            }
            Err(error) => {
                running.failed = true;
                let now = Instant::now();
                let mut failure = Failure::from(&error);
                if matches!(error, SourceError::TooLarge { .. } | SourceError::NotACommit { .. }) {
                    failure.class = Class::Commit;
                    self.refused = Some(Refused { revision, error: error.clone(), at: now });
                    self.pacing.state_changed(now);
                }
                self.pacing.on_probe_ended(Err(failure), now);
                self.on_failure(&target.object, &error, since).await;
            }
        }
    }

    /// Publishes the repository's own tree with the others in it.
    async fn compose(&mut self, target: &Target, includes: &Includes, running: &mut Running) {
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

    async fn succeed(&mut self, target: &Target, composed: Composed, since: Instant) {
        let Composed { head, included } = composed;
        let head = Arc::new(head);
        // first those who wait for it, then the record
        self.publish(|state| {
            state.failure = None;
            state.observed_since = Some(since);
            state.head = Some(head.clone());
        });
        self.metrics.head(&head.revision);
        self.metrics.ready(Some(true));
        self.metrics.succeeded();
        self.metrics.took(since.elapsed());
        let (generation, now) = (target.object.metadata.generation, Timestamp::now());
        let status = &mut self.status;
        let message = format!("stored artifact for revision '{}'", head.revision);
        status.conditions.remove(RECONCILING);
        status.conditions.remove(STALLED);
        status.conditions.remove(FETCH_FAILED);
        status.conditions.remove(INCLUDE_UNAVAILABLE);
        status.conditions.set(READY, Truth::True, "Succeeded", &message, generation, now);
        status.conditions.set("ArtifactInStorage", Truth::True, "Succeeded", &message, generation, now);
        let newest = artifact(&self.key, &head, now);
        if status.artifact.as_ref().is_none_or(|a| differs(a, &newest)) {
            status.artifact = Some(newest);
        }
        let before = status.included_artifacts.take().unwrap_or_default();
        let same = before.len() == included.len() && before.iter().zip(&included).all(|(a, b)| !differs(a, b));
        let included = if same { before } else { included };
        status.included_artifacts = Some(included).filter(|included| !included.is_empty());
        status.observed_include.clone_from(&target.object.spec.include);
        status.observed_sparse_checkout.clone_from(&target.object.spec.sparse_checkout);
        status.observed_generation = generation;
        status.observed_ignore.clone_from(&target.ignore);
        self.report(&target.object, "NewArtifact", message, Some(head.revision.clone())).await;
    }

    async fn on_failure(&mut self, object: &Arc<GitRepository>, error: &SourceError, since: Instant) {
        let text = match error.hint() {
            Some(hint) => format!("{error}\nhint: {hint}"),
            None => error.to_string(),
        };
        let reason = if error.class() == Class::Auth { "AuthenticationFailed" } else { "GitOperationFailed" };
        self.publish(|state| {
            state.failure = Some(text.as_str().into());
            state.observed_since = Some(since);
        });
        self.metrics.error(error.class().as_str());
        self.metrics.took(since.elapsed());
        self.fail(object, FETCH_FAILED, reason, &text, false).await;
    }

    /// The spec can't be served as it is.
    async fn refuse(&mut self, object: &Arc<GitRepository>, refusal: &Refusal) {
        self.publish(|state| {
            state.failure = Some(refusal.message.as_str().into());
            state.observed_since = Some(Instant::now());
        });
        self.fail(object, FETCH_FAILED, refusal.reason, &refusal.message, refusal.stalled).await;
    }

    async fn fail(
        &mut self,
        object: &Arc<GitRepository>,
        condition: &'static str,
        reason: &'static str,
        message: &str,
        stalled: bool,
    ) {
        self.metrics.ready(Some(false));
        self.metrics.failed(reason);
        let (generation, now) = (object.metadata.generation, Timestamp::now());
        let conditions = &mut self.status.conditions;
        if stalled {
            conditions.remove(RECONCILING);
            conditions.set(STALLED, Truth::True, reason, message, generation, now);
            self.status.observed_generation = generation;
        } else {
            conditions.remove(STALLED);
            conditions.set(RECONCILING, Truth::True, "ProgressingWithRetry", "looking again", generation, now);
        }
        let conditions = &mut self.status.conditions;
        for other in [FETCH_FAILED, INCLUDE_UNAVAILABLE].into_iter().filter(|other| *other != condition) {
            conditions.remove(other);
        }
        conditions.set(condition, Truth::True, reason, message, generation, now);
        conditions.set(READY, Truth::False, reason, message, generation, now);
        self.report(object, reason, message.to_owned(), None).await;
    }

    /// `revision`: what was found; `None`: a failure.
    async fn report(
        &mut self,
        object: &Arc<GitRepository>,
        reason: &'static str,
        message: String,
        revision: Option<String>,
    ) {
        let newest = self.goal.borrow().clone();
        let asked = requested_at(newest.as_ref().unwrap_or(object));
        if asked.is_some() {
            self.status.last_handled_reconcile_at = asked;
        }
        let (severity, verdict) = match revision {
            Some(_) => (Severity::Normal, Verdict::Ready { changed: true }),
            None => (Severity::Warning, Verdict::Failed { root: None }),
        };
        let (subject, state) = (subject(&self.key, object), Some(state_of(&self.status)));
        self.shared.events.publish(Event { subject, severity, verdict, reason, message, revision, state });
        if !self.writer.differs(&self.status) {
            return;
        }
        let _permit = self.shared.statuses.acquire(Urgency::Routine).await;
        if let Err(error) = self.writer.write(&self.shared.cluster, &self.status).await
            && !error.is_not_found()
        {
            tracing::warn!(object = %self.key, %error, "the status could not be written; it is written with the next one");
        }
    }

    fn publish(&self, change: impl FnOnce(&mut SourceState)) {
        self.handle.state.send_modify(change);
    }

    async fn next_target(&mut self, object: &Arc<GitRepository>) -> Changed {
        loop {
            if let Some(changed) = next_target(&mut self.goal, object, &mut self.handled).await {
                return changed;
            }
        }
    }

    /// Waits for something that may help against a refusal.
    async fn retry_target(&mut self, object: &Arc<GitRepository>, refusal: &Refusal) -> Changed {
        let pause = object.spec.interval.0.min(REFUSED_RETRY_MAX);
        tokio::select! {
            changed = next_target(&mut self.goal, object, &mut self.handled) => changed.unwrap_or(Changed::Target),
            _ = self.secret.changed() => Changed::Target,
            () = tokio::time::sleep(pause), if !refusal.stalled => Changed::Target,
        }
    }

    fn watch_secret(&mut self, object: &GitRepository) {
        let named = [&object.spec.secret_ref, &object.spec.proxy_secret_ref];
        let named = named.into_iter().flatten().map(|r| Reference::secret(&self.key.namespace, &r.name));
        self.secret = self.shared.references.watch(named.collect(), std::mem::take(&mut self.secret));
    }
}

/// Conditions that are true while something is wrong.
const FETCH_FAILED: &str = "FetchFailed";
const INCLUDE_UNAVAILABLE: &str = "IncludeUnavailable";

/// How long a refusal that may pass by itself is left alone at most.
const REFUSED_RETRY_MAX: Duration = Duration::from_secs(60);

/// Waits for a change of the object. `None`: the same target was asked for anew (`requestedAt`).
async fn next_target(goal: &mut Goal, object: &Arc<GitRepository>, handled: &mut Option<String>) -> Option<Changed> {
    loop {
        let Some(newest) = goal.borrow_and_update().clone() else { return Some(Changed::Gone) };
        if newest.metadata.deletion_timestamp.is_some()
            || newest.metadata.uid != object.metadata.uid
            || newest.spec != object.spec
        {
            return Some(Changed::Target);
        }
        let asked = requested_at(&newest);
        if asked != *handled {
            *handled = asked;
            return None;
        }
        if goal.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn requested_at(object: &GitRepository) -> Option<String> {
    object.metadata.annotations.as_ref()?.get(api::REQUESTED_AT).cloned()
}

async fn probed(
    probe: &mut Option<(Instant, Boxed<Result<source::Revision, SourceError>>)>,
) -> (Instant, Result<source::Revision, SourceError>) {
    let Some((started, running)) = probe else { return std::future::pending().await };
    let result = running.await;
    let started = *started;
    *probe = None;
    (started, result)
}

async fn fetched(fetch: &mut Option<Fetch>) -> (Fetch, Result<Snapshot, SourceError>) {
    let Some(running) = fetch else { return std::future::pending().await };
    let result = (&mut running.result).await;
    match fetch.take() {
        Some(done) => (done, result),
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn timeout(object: &GitRepository) -> Duration {
    object.spec.timeout.map_or(config::SOURCE_TIMEOUT, |t| t.0)
}

async fn sparsely(remote: &Remote, snapshot: Snapshot, sparse: Sparse) -> Result<Snapshot, SourceError> {
    let (url, revision) = (remote.url().clone(), snapshot.revision.clone());
    let store = |reason: String| SourceError::Store { url: url.clone(), reason };
    match tokio::task::spawn_blocking(move || snapshot.with_sparse(sparse)).await {
        Ok(Ok(Ok(snapshot))) => Ok(snapshot),
        Ok(Ok(Err(missing))) => Err(SourceError::NoDirectory { url, revision, paths: missing.join("`, `") }),
        Ok(Err(error)) => Err(store(error.to_string())),
        Err(_) => Err(store("the thread that reads objects died".to_owned())),
    }
}

/// Whether more than the time is another one.
fn differs(a: &Artifact, b: &Artifact) -> bool {
    (&a.revision, &a.digest, &a.path) != (&b.revision, &b.digest, &b.path)
}

/// Valid for Flux's schema; there is no tarball behind it.
pub(super) fn artifact(key: &Key, head: &Head, now: Timestamp) -> Artifact {
    let commit = head.revision.rsplit_once("sha1:").map_or("", |(_, commit)| commit);
    let path = format!("gitrepository/{}/{}/{commit}", key.namespace, key.name);
    Artifact {
        digest: Some(format!("sha1:{}", hex::encode(head.snapshot.tree_id().0))),
        last_update_time: rfc3339(now),
        url: format!("afresh:///{path}"),
        path,
        revision: head.revision.clone(),
        size: None,
        metadata: None,
    }
}

fn subject(key: &Key, object: &GitRepository) -> Subject {
    Subject::new("source.toolkit.fluxcd.io/v1", KIND, key, &object.metadata)
}

fn recorded(status: &GitRepositoryStatus) -> Recorded {
    let failed = status.conditions.get(READY).filter(|ready| ready.status == Truth::False);
    let failure = failed.map(|ready| RecordedFailure {
        reason: ready.reason.clone(),
        message: ready.message.clone(),
        revision: None,
        root: None,
    });
    Recorded { state: state_of(status), failure }
}

fn state_of(status: &GitRepositoryStatus) -> String {
    let Some(ready) = status.conditions.get(READY) else { return String::new() };
    format!("{}/{}/{}", ready.status.as_str(), ready.reason, ready.message)
}
