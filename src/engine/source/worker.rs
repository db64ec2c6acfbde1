//! The worker's loop: a look at the remote when it may be, whatever is asked for meanwhile taken in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use crate::api::{self, GitRepository, GitRepositoryStatus, Key, READY};
use crate::cluster::ApiKind;
use crate::config::SourceRole;
use crate::engine::references::{Reference, Watched};
use crate::engine::shared::Shared;
use crate::policy::PolicySet;
use crate::report::{SourceMetrics, StatusWriter};
use crate::source::pacing::Pacing;

use super::include::Includes;
use super::observation::{Refused, Running, fetched, probed, recovered};
use super::report::{recorded, subject};
use super::target::{Refusal, Target};
use super::{Hint, KIND, SourceHandle, SourceState};

/// The cell that the API watch writes: the newest object, `None` once it is gone.
pub type Goal = watch::Receiver<Option<Arc<GitRepository>>>;

/// Serves one GitRepository until it is gone or the daemon stops, or until it is asked to `leave` it to others.
pub async fn run(
    key: Key,
    shared: Arc<Shared>,
    goal: Goal,
    role: SourceRole,
    cancel: CancellationToken,
    leave: CancellationToken,
) {
    let Some(object) = goal.borrow().clone() else { return };
    let handle = shared.source(&key);
    let _served = handle.serve();
    let status = object.status.clone().unwrap_or_default();
    let metrics = shared.metrics.source(&key);
    if let Some(ready) = status.conditions.get(READY) {
        metrics.recall(ready, true);
    }
    if role == SourceRole::Serve {
        shared.events.known(subject(&key, &object), recorded(&status));
    }
    let of = key.clone();
    let mut worker = Worker {
        metrics,
        writer: Arc::new(Mutex::new(StatusWriter::new(ApiKind::git_repository(), key.clone(), &status))),
        unwritten: None,
        version: None,
        pacing: Pacing::new(object.spec.interval.0, Instant::now()),
        key,
        goal,
        handle,
        status,
        told: None,
        secret: Watched::default(),
        policies: shared.policies.subscribe(),
        handled: requested_at(&object),
        refused: None,
        hint: None,
        role,
        shared: shared.clone(),
    };
    // nobody was there to look for it
    if requested_at(&object) != worker.status.last_handled_reconcile_at {
        worker.expect_what_is_said(&object);
    }
    tokio::select! {
        () = worker.run() => {}
        () = cancel.cancelled() => {}
        // what was seen of it stays known to our applications that follow it
        () = leave.cancelled() => shared.events.forget(KIND, &of),
    }
}

pub(super) struct Worker {
    pub(super) key: Key,
    pub(super) role: SourceRole,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: SourceMetrics,
    pub(super) goal: Goal,
    pub(super) handle: SourceHandle,
    pub(super) status: GitRepositoryStatus,
    pub(super) writer: Arc<Mutex<StatusWriter>>,
    /// When a status that could not be written is tried again.
    pub(super) unwritten: Option<Instant>,
    /// The version of the object that our last status made.
    pub(super) version: Option<String>,
    pub(super) pacing: Pacing,
    /// What was logged last of a source that others report on.
    pub(super) told: Option<String>,
    secret: Watched,
    pub(super) policies: watch::Receiver<Arc<PolicySet>>,
    /// The request (`requestedAt`) that was answered last.
    handled: Option<String>,
    pub(super) refused: Option<Refused>,
    /// What was said to be there and was not seen yet.
    pub(super) hint: Option<Hint>,
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
                self.let_go(&object).await;
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
        self.publish(|state| {
            state.includes = includes.keys();
            state.ssh_key = target.ssh_key.clone();
        });
        let mut running = Running::default();
        let rules = self.policies.borrow_and_update().clone();
        let mut follower = target.remote.follow(&target.reference);
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
                        let newest = self.goal.borrow().clone();
                        if let Some(newest) = newest {
                            self.expect_what_is_said(&newest);
                        }
                        continue;
                    }
                },
                _ = self.secret.changed() => return Changed::Target,
                () = other_rules(&mut self.policies, &rules) => return Changed::Target,
                () = self.handle.wake.notified() => {}
                sight = probed(&mut running.probe) => self.on_probe(&target, &includes, &mut running, sight).await,
                fetch = fetched(&mut running.fetch) => self.on_fetch(&target, &includes, &mut running, fetch).await,
                fetch = recovered(&mut running.recovery) => self.on_recovered(&target, &includes, &mut running, fetch).await,
                () = includes.changed() => self.compose(&target, &includes, &mut running).await,
                sight = follower.news() => self.on_news(&target, &includes, &mut running, sight).await,
                () = sleep_until(due) => self.probe(&target, &follower, &mut running),
                () = sleep_until(self.unwritten) => self.write().await,
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
            self.pacing.request(now);
        }
        if let Some(hint) = hint {
            self.expect(hint);
        }
    }

    /// What the newest request says is looked for, too.
    fn expect_what_is_said(&mut self, object: &GitRepository) {
        if let Some(hint) = Hint::of(object) {
            self.expect(hint);
        }
    }

    fn expect(&mut self, hint: Hint) {
        // what is known already is no news
        let known = self.is_known(hint);
        self.hint = (!known).then_some(hint);
        if known { self.pacing.seen() } else { self.pacing.expect(Instant::now()) }
    }

    /// Whether the last look at the remote showed what the hint says.
    fn is_known(&self, hint: Hint) -> bool {
        let Hint::Commit(commit) = hint else { return false };
        let state = self.handle.state();
        state.failure.is_none() && state.head.is_some_and(|head| head.snapshot.revision.commit == commit)
    }

    pub(super) fn publish(&self, change: impl FnOnce(&mut SourceState)) {
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
        let pause = tokio::time::sleep(object.spec.interval.0.min(REFUSED_RETRY_MAX));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                changed = next_target(&mut self.goal, object, &mut self.handled) => return changed.unwrap_or(Changed::Target),
                _ = self.secret.changed() => return Changed::Target,
                () = &mut pause, if !refusal.stalled => return Changed::Target,
                () = sleep_until(self.unwritten) => self.write().await,
            }
        }
    }

    fn watch_secret(&mut self, object: &GitRepository) {
        let named = [&object.spec.secret_ref, &object.spec.proxy_secret_ref];
        let named = named.into_iter().flatten().map(|r| Reference::secret(&self.key.namespace, &r.name));
        self.secret = self.shared.references.watch(named.collect(), std::mem::take(&mut self.secret));
    }
}

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

pub(super) fn requested_at(object: &GitRepository) -> Option<String> {
    object.metadata.annotations.as_ref()?.get(api::REQUESTED_AT).cloned()
}

/// Returns when other rules than these are in force for repositories, or none any more.
async fn other_rules(policies: &mut watch::Receiver<Arc<PolicySet>>, rules: &Arc<PolicySet>) {
    loop {
        {
            let newest = policies.borrow_and_update();
            if !Arc::ptr_eq(&newest, rules) && (rules.has_repository_rules() || newest.has_repository_rules()) {
                return;
            }
        }
        if policies.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
