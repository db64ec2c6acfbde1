//! The worker's loop: wait for something new, attempt, give way to something newer, wait again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::api::{Key, Kustomization, KustomizationSpec, READY, Truth};
use crate::config;

use super::commits::Commits;
use super::idle::{Goal, Idle, News};
use super::report::{self, Report, without_revision};
use super::{
    Application, Cause, Ended, Failure, KIND, Memory, Retry, Stop, Work, checks, dependencies, drift, identity, jobs,
};
use crate::engine::backoff::Backoff;
use crate::engine::hold::Acquired;
use crate::engine::permits::{Permit, Urgency};
use crate::engine::ready::ReadyExpression;
use crate::engine::registry::{Dependency, Elsewhere, Registry};
use crate::engine::shared::Shared;
use crate::engine::source::{Head, SourceHandle, SourceState};
use crate::manifest::ObjectId;
use crate::plan::Inventory;
use crate::report::{ApplicationMetrics, AttemptTrace, CommitState, Stage};

/// Serves one Kustomization until it is gone or the daemon stops, or until it is asked to `leave` it to others. Nothing
/// is done before others have let go of it.
pub async fn run(key: Key, shared: Arc<Shared>, mut goal: Goal, cancel: CancellationToken, leave: CancellationToken) {
    let mut taken = false;
    if let Some(hold) = &shared.hold {
        let acquired = tokio::select! {
            acquired = Box::pin(hold.acquire(&key, &mut goal)) => acquired,
            () = leave.cancelled() => return,
            () = cancel.cancelled() => return,
        };
        taken = match acquired {
            Acquired::Ours => false,
            Acquired::Taken => true,
            Acquired::Gone => return shared.forget(&key),
        };
        // as others left it
        if let Some(object) = goal.borrow().as_ref() {
            declare(&shared.registry, &key, object);
        }
    }
    let Some(object) = goal.borrow().clone() else { return };
    let (inventory, unreadable) = Inventory::read(object.status.as_ref().and_then(|s| s.inventory.as_ref()));
    if !unreadable.is_empty() {
        tracing::warn!(object = %key, entries = ?unreadable, "the recorded inventory has entries that can't be read; they are left alone");
    }
    let metrics = shared.metrics.application(&key);
    recall(&metrics, &object);
    let commits = Commits::new(object.status.as_ref());
    let recorded = recorded_ready(&object).map(str::to_owned);
    let memory = Memory { recorded, inventory, commits, jobs: jobs::Completed::read(&object), ..Default::default() };
    let app = Arc::new(Application {
        metrics,
        report: Arc::new(tokio::sync::Mutex::new(Report::new(&key, &object, &shared))),
        key,
        shared,
        memory: std::sync::Mutex::new(memory),
        patience: std::sync::Mutex::default(),
        following: std::sync::Mutex::default(),
        drifting: std::sync::Mutex::default(),
        checks: std::sync::Mutex::default(),
    });
    let worker = Worker {
        idle: Idle::new(&app, goal),
        app: app.clone(),
        backoff: Backoff::default(),
        preempted_in_a_row: 0,
        broken: false,
        taken,
        turn: None,
    };
    let left = tokio::select! {
        () = worker.run() => false,
        () = cancel.cancelled() => false,
        () = leave.cancelled() => true,
    };
    if left {
        tokio::select! {
            () = Box::pin(app.leave()) => {}
            () = cancel.cancelled() => {}
        }
    }
}

struct Worker {
    app: Arc<Application>,
    idle: Idle,
    backoff: Backoff,
    preempted_in_a_row: u32,
    /// Another instance may have served it until now, and may have seen more of its source than we have.
    taken: bool,
    /// The last attempt failed, or gave way before it had succeeded.
    broken: bool,
    /// For the next attempt, which the newest revision does not seem to concern.
    turn: Option<Permit>,
}

impl Worker {
    async fn run(mut self) {
        let mut cause = Cause::Start;
        let mut since = Instant::now();
        while let Some(object) = self.idle.object() {
            let app = self.app.clone();
            if object.metadata.deletion_timestamp.is_some() {
                self.turn = None;
                if Box::pin(app.finalize(&object)).await {
                    break;
                }
                let pause = self.backoff.next(object.spec.retry_interval_max());
                (cause, since) = self.wait(Some(pause)).await;
                continue;
            }
            declare(&app.shared.registry, &app.key, &object);
            app.shared.registry.seen_first(&app.key, &object);
            self.idle.follow(&self.app, &object);
            let source_key = object.source_key();
            let source = app.shared.source(&source_key);
            app.metrics.follows(&source_key);
            app.metrics.suspended(object.spec.suspended());
            let ended = match Box::pin(self.preflight(&object)).await {
                // its state is large, and a worker waits most of the time
                Ok(true) => Box::pin(self.attempt(object.clone(), source.clone(), cause, since)).await,
                // suspended: nothing is done, nothing is said
                Ok(false) => {
                    source.attention(&self.app.key, false, false);
                    // what it offers now is no news
                    self.idle.observed(&source.state());
                    (cause, since) = self.wait(None).await;
                    continue;
                }
                Err(failure) => {
                    self.idle.observed(&source.state());
                    Ended::Failed(failure)
                }
            };
            self.broken = !matches!(ended, Ended::Applied);
            (cause, since) = match ended {
                Ended::Applied => {
                    self.backoff.reset();
                    self.preempted_in_a_row = 0;
                    self.app.metrics.attempt_ended("applied");
                    source.attention(&self.app.key, false, true);
                    self.wait(None).await
                }
                Ended::Failed(failure) => {
                    self.preempted_in_a_row = 0;
                    self.app.metrics.attempt_ended("failed");
                    self.app.metrics.failed(failure.reason);
                    if failure.unreadable {
                        source.unreadable();
                    }
                    let changed = Box::pin(self.app.failed(&object, &failure)).await;
                    // what waits for a person needs no quicker look
                    source.attention(&self.app.key, !failure.stalled, changed);
                    let pause = match failure.retry {
                        Retry::Backoff => Some(self.backoff.next(object.spec.retry_interval_max())),
                        Retry::OnChange => None,
                    };
                    self.wait(pause).await
                }
                Ended::Preempted => {
                    self.preempted_in_a_row += 1;
                    self.app.metrics.attempt_ended("preempted");
                    self.next_news().await
                }
            };
        }
        self.app.shared.forget(&self.app.key);
    }

    /// Waits for something new, at most `pause`; something new starts the back-off over.
    async fn wait(&mut self, pause: Option<Duration>) -> (Cause, Instant) {
        self.turn = None;
        let retry = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let news = tokio::select! {
            () = self.app.keep_writing() => return (Cause::Retry, Instant::now()),
            () = retry => return (Cause::Retry, Instant::now()),
            news = self.idle.next(&self.app) => news,
        };
        let news = self.stand_back(news).await;
        if news.cause != Cause::Cluster {
            self.backoff.reset();
        }
        (news.cause, news.at)
    }

    /// The news that an attempt was preempted for; they are there already.
    async fn next_news(&mut self) -> (Cause, Instant) {
        self.backoff.reset();
        let News { cause, at } = self.idle.returned().unwrap_or(News::of(Cause::Retry));
        (cause, at)
    }

    /// What can be said without looking at the source. False: there is nothing to be done.
    async fn preflight(&self, object: &Arc<Kustomization>) -> Result<bool, Failure> {
        if object.spec.suspended() {
            return Ok(false);
        }
        let unserved = object.spec.unserved();
        if !unserved.is_empty() {
            self.app.stalled(object, &unserved).await;
            return Ok(false);
        }
        validate(&object.spec)?;
        self.app.set_drift_mode(drift::mode_of(object)?);
        self.app.ensure_finalizer(object).await?;
        Ok(true)
    }

    async fn attempt(
        &mut self,
        object: Arc<Kustomization>,
        source: SourceHandle,
        cause: Cause,
        since: Instant,
    ) -> Ended {
        let app = self.app.clone();
        let _measured = app.metrics.attempt();
        let began = Instant::now();
        let turn = self.turn.take();
        let head = match self.head(&source, cause, since).await {
            Ok(Some(head)) => head,
            Ok(None) => return Ended::Preempted,
            Err(failure) => {
                let trace = app.shared.traces.attempt(&app.key, cause.label(), began);
                trace.was(Stage::Probe, began, Instant::now());
                trace.ended("failed", None, Some((failure.reason, &failure.message)));
                return Ended::Failed(failure);
            }
        };
        let identity = match app.identity(&object.spec) {
            Ok(identity) => identity,
            Err(failure) => return Ended::Failed(failure),
        };
        let trace = app.trace(cause, began, &head);
        let urgency = match cause {
            Cause::Object | Cause::Revision if self.broken => Urgency::Repair,
            Cause::Revision if turn.is_some() => Urgency::Routine,
            Cause::Object | Cause::Revision => Urgency::Announced,
            _ => Urgency::Routine,
        };
        let identity = if urgency == Urgency::Repair { identity.urgently() } else { identity };
        let work = Work {
            object,
            identity,
            source,
            head: std::sync::Mutex::new(head),
            rendered: std::sync::Mutex::default(),
            urgency,
            turn: std::sync::Mutex::new(turn),
            yield_soon: CancellationToken::new(),
            stop: CancellationToken::new(),
            applying: AtomicBool::new(false),
            claiming: AtomicBool::new(false),
            trace,
            asked: cause == Cause::Object,
            unyielding: self.preempted_in_a_row >= config::PREEMPTIONS_IN_A_ROW_MAX,
        };
        let result = self.carry(&app, &work).await;
        // whatever is still queued for this attempt is void now
        work.stop.cancel();
        match result {
            Some(Ok(head)) => {
                // what was adopted too late to be reported is still to be answered
                self.idle.taken_up(&head.identity);
                let message = format!("applied revision {}", head.revision);
                app.commits_became(&work, CommitState::Success, "ReconciliationSucceeded", &message);
                work.trace.ended("applied", Some(&head.revision), None);
                Ended::Applied
            }
            Some(Err(failure)) => {
                app.commits_became(&work, CommitState::Failure, failure.reason, &failure.message);
                work.trace.ended("failed", Some(&work.revision()), Some((failure.reason, &failure.message)));
                Ended::Failed(failure.at(work.revision()))
            }
            None => {
                work.trace.ended("preempted", Some(&work.revision()), None);
                Ended::Preempted
            }
        }
    }

    /// Runs the attempt, and beside it whatever news come in. `None`: preempted.
    async fn carry(&mut self, app: &Arc<Application>, work: &Work) -> Option<Result<Arc<Head>, Failure>> {
        let attempt = app.attempt(work);
        tokio::pin!(attempt);
        loop {
            let news = tokio::select! {
                biased;
                result = &mut attempt => return finished(result),
                news = self.idle.next_while_busy(app) => news,
            };
            if news.cause == Cause::Revision {
                let Some(head) = work.source.state().head.filter(|head| head.identity != work.identity()) else {
                    continue;
                };
                // the attempt goes on while the newer revision is rendered beside it
                let same = tokio::select! {
                    biased;
                    result = &mut attempt => {
                        self.idle.put_back(news);
                        return finished(result);
                    }
                    same = Box::pin(app.renders_the_same(work, &head)) => same,
                };
                if same && !work.claiming.load(Ordering::Acquire) {
                    tracing::debug!(object = %app.key, revision = %head.revision, "a newer revision renders the same: going on under it");
                    self.idle.taken_up(&head.identity);
                    work.adopt(head);
                    continue;
                }
            }
            tracing::info!(object = %app.key, revision = %work.revision(), because = ?news.cause, "giving way to something newer");
            self.idle.put_back(news);
            work.yield_soon.cancel();
            if work.is_applying() {
                let grace = if work.unyielding { config::API_REQUEST_TIMEOUT } else { config::PREEMPTION_GRACE };
                if let Ok(result) = tokio::time::timeout(grace, &mut attempt).await {
                    return finished(result);
                }
            }
            return None;
        }
    }

    /// Where a revision does not seem to concern the application: waits for a turn, for a while, so that those whom it does
    /// find the processor free. Answers what came up last.
    async fn stand_back(&mut self, mut news: News) -> News {
        let turns = self.app.shared.untouched.clone();
        while news.cause == Cause::Revision && !self.broken && self.idle.is_untouched(&self.app) {
            news = tokio::select! {
                biased;
                newer = self.idle.newer() => newer,
                turn = turns.acquire(Urgency::Routine) => {
                    self.turn = Some(turn);
                    break;
                }
                () = tokio::time::sleep(STAND_BACK_MAX) => break,
            };
        }
        news
    }

    /// The revision to work on, observed no earlier than the trigger. `None`: something newer came up meanwhile.
    async fn head(
        &mut self,
        source: &SourceHandle,
        cause: Cause,
        since: Instant,
    ) -> Result<Option<Arc<Head>>, Failure> {
        let announced = matches!(cause, Cause::Object | Cause::Values | Cause::Configuration);
        let answered = |s: &SourceState| s.head.is_some() || s.failure.is_some() || !s.exists;
        let mut states = source.subscribe();
        let taken = self.taken;
        let observation = async {
            if taken {
                // what the one before us has applied must not be undone by what was seen here earlier
                source.fresh(since, true).await;
            } else if !matches!(cause, Cause::Start | Cause::Revision) {
                // a server that does not answer must not hold back what does not depend on it
                let _ = tokio::time::timeout(config::FRESH_WAIT_MAX, source.fresh(since, announced)).await;
            }
            // a source that has not been asked yet is not a failure
            let _ = states.wait_for(answered).await;
        };
        tokio::select! {
            biased;
            () = observation => {}
            news = self.idle.object_changed() => {
                self.idle.put_back(news);
                return Ok(None);
            }
        }
        let state = source.state();
        self.idle.observed(&state);
        match state.head {
            Some(head) if !taken || state.failure.is_none() => {
                self.taken = false;
                return Ok(Some(head));
            }
            _ => {}
        }
        let failure = match &state.failure {
            Some(failure) => Failure::new("ArtifactFailed", format!("{}{failure}", without_revision(&source.key)))
                .blaming(source.key.clone()),
            None => {
                let message = format!(
                    "GitRepository `{}` does not exist\nhint: create it, or correct `spec.sourceRef`",
                    source.key
                );
                Failure::new("ArtifactFailed", message)
            }
        };
        Err(failure.until_changed())
    }
}

/// Whoever has the turn may wait for something: a thousand turns take a tenth of this.
const STAND_BACK_MAX: Duration = Duration::from_secs(2);

/// What can be said of a spec without looking at anything.
fn validate(spec: &KustomizationSpec) -> Result<(), Failure> {
    checks::validate(spec)?;
    dependencies::validate(spec)?;
    drift::validate(spec)?;
    identity::validate(spec)
}

/// Why a spec with nothing but fields that are served is refused all the same.
pub fn refusal(spec: &KustomizationSpec) -> Option<String> {
    validate(spec).err().map(|failure| failure.message)
}

impl Application {
    /// The worker was stopped: returns once all that it wrote has been answered.
    async fn leave(&self) {
        for source in self.shared.sources.all() {
            source.attention(&self.key, false, false);
        }
        self.shared.events.forget(KIND, &self.key);
        self.shared.observed.keep_watched(&self.key, |_, _| false);
        let mut ids: Vec<_> = self.memory().inventory.ids().cloned().collect();
        ids.push(self.id());
        self.shared.gate.quiet(&ids).await;
        drop(self.report.lock().await);
    }

    /// The trace of an attempt: it begins with the look at the source that found its revision, or that was made for it.
    fn trace(&self, cause: Cause, began: Instant, head: &Head) -> AttemptTrace {
        let now = Instant::now();
        let found = head.found;
        let new = self.memory().traced.replace(found.probed_at) != Some(found.probed_at);
        let news = new && matches!(cause, Cause::Start | Cause::Revision);
        let trace =
            self.shared.traces.attempt(&self.key, cause.label(), if news { found.probed_at.min(began) } else { began });
        if news {
            trace.was(Stage::Probe, found.probed_at, found.seen_at);
            trace.was(Stage::Fetch, found.seen_at, found.fetched_at);
        } else {
            trace.was(Stage::Probe, began, now);
        }
        trace
    }
}

/// `None`: it gave way.
fn finished(result: Result<Arc<Head>, Stop>) -> Option<Result<Arc<Head>, Failure>> {
    match result {
        Ok(head) => Some(Ok(head)),
        Err(Stop::Failed(failure)) => Some(Err(failure)),
        Err(Stop::Yielded) => None,
    }
}

/// What the status recorded before the daemon started: a restart neither ends a failure nor begins one.
fn recall(metrics: &ApplicationMetrics, object: &Kustomization) {
    let Some(status) = &object.status else { return };
    if let Some(revision) = &status.last_applied_revision {
        metrics.was_applied(revision);
    }
    if let Some(ready) = status.conditions.get(READY) {
        metrics.recall(ready, ready.reason != report::DEPENDENCY_NOT_READY);
    }
}

/// Says who an application is, so that others can wait for it.
pub fn declare(registry: &Registry, key: &Key, object: &Kustomization) {
    let namespace = |given: &Option<String>| given.clone().unwrap_or_else(|| key.namespace.clone());
    let depends_on = object.spec.depends_on.iter().map(|d| Dependency {
        key: Key::new(namespace(&d.namespace), d.name.clone()),
        // one that is none was refused, and its application waits for nobody
        ready: d.expression().and_then(|source| ReadyExpression::compile(source).ok()).map(Arc::new),
    });
    registry.declare(key, object.source_key(), depends_on.collect(), object.spec.suspended());
}

/// Says what is known of an application that another instance serves: what its status records.
pub fn declare_of_others(registry: &Registry, key: &Key, object: &Arc<Kustomization>, owned: BTreeSet<ObjectId>) {
    declare(registry, key, object);
    let status = object.status.as_ref();
    let ready = status.and_then(|status| status.conditions.get(READY));
    let rendered = status.and_then(|status| status.last_attempted_revision.clone());
    let known = Elsewhere {
        // a revision that came to nothing earlier than this may declare anything
        rendered_ok: ready
            .is_none_or(|ready| ready.status != Truth::False || AFTER_RENDERING.contains(&ready.reason.as_str())),
        rendered,
        owned,
        ready_at: recorded_ready(object).map(str::to_owned),
        failing: ready.is_some_and(|ready| ready.status == Truth::False),
        message: ready.filter(|ready| ready.status != Truth::True).map(|ready| ready.message.clone()),
    };
    registry.elsewhere(key, known);
}

/// Reasons of failures that come after what a revision declares was recorded.
const AFTER_RENDERING: [&str; 5] =
    [report::DEPENDENCY_NOT_READY, "HealthCheckFailed", "PruneFailed", "ReconciliationFailed", "Progressing"];

/// The revision that the status records as Ready, if it speaks of the spec as it is.
pub fn recorded_ready(object: &Kustomization) -> Option<&str> {
    let status = object.status.as_ref()?;
    let current = status.observed_generation == object.metadata.generation;
    status.last_applied_revision.as_deref().filter(|_| current && status.conditions.is_true(READY))
}
