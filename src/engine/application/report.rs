//! What the Kustomization's status says, and when it is written.
//!
//! Ready turns `Unknown` only when something is really being changed; a retry of what failed says nothing new, and a
//! revision that changes nothing only moves its name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::api::{
    self, Condition, Conditions, HEALTHY, Key, Kustomization, KustomizationStatus, READY, RECONCILING, STALLED, Truth,
};
use crate::cluster::{Abandoned, ApiError, ApiKind, ErrorClass};
use crate::engine::permits::Urgency;
use crate::engine::shared::Shared;
use crate::engine::source::Head;
use crate::plan::Inventory;
use crate::report::{CommitState, Event, Recorded, RecordedFailure, Severity, StatusWriter, Subject, Verdict};

use super::{Application, Failure, KIND, Work, drift};

/// The reason of what waits for another application.
pub(super) const DEPENDENCY_NOT_READY: &str = "DependencyNotReady";

/// The status as it should be, and its writer.
pub(super) struct Report {
    pub status: KustomizationStatus,
    writer: StatusWriter,
    /// Of the write that comes next.
    urgency: Urgency,
}

impl Report {
    pub fn new(key: &Key, object: &Kustomization, shared: &Shared) -> Self {
        let status = object.status.clone().unwrap_or_default();
        let blamed = blamed(&status, &object.source_key());
        let recorded = Recorded { state: state_of(&status), failure: failure_of(&status, blamed) };
        shared.events.known(subject(key, object), recorded);
        let writer = StatusWriter::new(ApiKind::kustomization(), key.clone(), &status);
        Self { status, writer, urgency: Urgency::Routine }
    }
}

impl Application {
    /// Says that a revision is being applied and, with it, what it will own; returns once that is recorded.
    pub async fn progressing(&self, work: &Work, message: &str, inventory: Option<&Inventory>) -> Result<(), ApiError> {
        let mut report = self.report.clone().lock_owned().await;
        report.urgency = work.urgency_of_status();
        let generation = work.object.metadata.generation;
        let revision = work.revision();
        let retry = has_failed(&report.status, &revision, generation);
        let status = &mut report.status;
        if !retry {
            let now = Timestamp::now();
            status.conditions.remove(STALLED);
            status.conditions.set(RECONCILING, Truth::True, "Progressing", message, generation, now);
            status.conditions.set(READY, Truth::Unknown, "Progressing", message, generation, now);
        }
        status.last_attempted_revision = Some(revision);
        if let Some(inventory) = inventory {
            status.inventory = Some(inventory.record());
        }
        self.metrics.ready(if retry { Some(false) } else { None });
        self.commits_became(work, CommitState::Pending, "Progressing", message);
        self.write(report).await
    }

    /// Says what is waited for; Ready stays as it is if it is False already for this revision.
    pub async fn waiting(&self, work: &Work, reason: &'static str, message: &str) {
        self.shared.registry.waiting(&self.key, message);
        let mut report = self.report.clone().lock_owned().await;
        let (generation, now, revision) = (work.object.metadata.generation, Timestamp::now(), work.revision());
        let status = &mut report.status;
        let failing = has_failed(status, &revision, generation);
        status.last_attempted_revision = Some(revision);
        // what waits for others is not ready; what waits for itself is not known yet
        let blocked = reason != "Progressing";
        let truth = if blocked || failing { Truth::False } else { Truth::Unknown };
        status.conditions.remove(STALLED);
        status.conditions.set(RECONCILING, Truth::True, "Progressing", message, generation, now);
        if !failing || blocked {
            status.conditions.set(READY, truth, reason, message, generation, now);
        }
        self.metrics.ready(if truth == Truth::False { Some(false) } else { None });
        // a dependency that is not ready is not a failure of those who wait for it
        let failed = blocked && reason != DEPENDENCY_NOT_READY;
        if failed {
            self.metrics.failed(reason);
        }
        let state = state_of(status);
        self.write_or_log(report).await;
        if failed {
            let (verdict, revision) = (Verdict::Failed { root: None }, work.revision());
            self.event(
                &work.object,
                Severity::Warning,
                verdict,
                reason,
                message.to_owned(),
                Some(&revision),
                Some(state),
            );
        }
    }

    /// Says that the cluster holds the revision, and answers which head that is: a newer one may be adopted a moment
    /// later.
    pub async fn applied(&self, work: &Work, inventory: &Inventory, changes: &Changes) -> Arc<Head> {
        let mut report = self.report.clone().lock_owned().await;
        report.urgency = work.urgency_of_status();
        let (generation, now, head) = (work.object.metadata.generation, Timestamp::now(), work.head());
        let revision = head.revision.clone();
        let before = report.status.clone();
        let status = &mut report.status;
        let message = format!("Applied revision: {revision}");
        status.conditions.remove(RECONCILING);
        status.conditions.remove(STALLED);
        if work.object.spec.checks_health() {
            status.conditions.set(HEALTHY, Truth::True, "Succeeded", "Health check passed", generation, now);
        } else {
            status.conditions.remove(HEALTHY);
        }
        status.conditions.set(READY, Truth::True, "ReconciliationSucceeded", &message, generation, now);
        status.observed_generation = generation;
        status.last_applied_revision = Some(revision.clone());
        status.last_attempted_revision = Some(revision.clone());
        status.inventory = Some(inventory.record());
        echo(status, &work.object);
        let only_the_revision_moved = !changes.any()
            && before.conditions.is_true(READY)
            && before.inventory == status.inventory
            && before.last_handled_reconcile_at == status.last_handled_reconcile_at
            && before.observed_generation == status.observed_generation;
        self.metrics.ready(Some(true));
        self.metrics.applied(&revision);
        // dependents use what the engine knows, not the status
        self.shared.registry.ready(&self.key, &head.identity);
        if only_the_revision_moved {
            // `keep_writing` does, when it is its turn
            return head;
        }
        let only_drift = changes.counts.is_empty() && !changes.corrected.is_empty();
        let state = (!only_drift).then(|| state_of(&report.status));
        if report.urgency == Urgency::Routine {
            self.shared.courtesy.stand_back(&self.shared.applies).await;
        }
        self.write_or_log(report).await;
        let recovered =
            before.conditions.get(READY).is_some_and(|c| c.status == Truth::False && c.reason != DEPENDENCY_NOT_READY);
        let first = if recovered { "recovered: " } else { "" };
        if !changes.corrected.is_empty() {
            let text = format!("corrected drift at revision {revision}: {}", drift::corrected(&changes.corrected));
            // what others changed is a note; that it was repaired with it is more
            let verdict = if only_drift && recovered { Verdict::Ready { changed: true } } else { Verdict::Note };
            self.event(&work.object, Severity::Normal, verdict, "DriftCorrected", text, Some(&revision), None);
        }
        let was_ready = before.conditions.is_true(READY);
        if !only_drift && (changes.any() || !was_ready) {
            let text = format!("{first}applied revision {revision}{}", changes.in_words());
            let (verdict, reason) = (Verdict::Ready { changed: changes.any() }, "ReconciliationSucceeded");
            self.event(&work.object, Severity::Normal, verdict, reason, text, Some(&revision), state);
        }
        head
    }

    /// Says why not. True if that was not said before.
    pub async fn failed(&self, object: &Kustomization, failure: &Failure) -> bool {
        self.shared.registry.waiting(&self.key, &failure.message);
        let mut report = self.report.clone().lock_owned().await;
        let (generation, now) = (object.metadata.generation, Timestamp::now());
        let status = &mut report.status;
        let said = state_of(status);
        if failure.stalled {
            status.conditions.remove(RECONCILING);
            status.conditions.set(STALLED, Truth::True, failure.reason, &failure.message, generation, now);
            status.observed_generation = generation;
        } else {
            let message = "the next attempt begins with a new look at the source";
            status.conditions.remove(STALLED);
            status.conditions.set(RECONCILING, Truth::True, "ProgressingWithRetry", message, generation, now);
        }
        if failure.reason == "HealthCheckFailed" {
            status.conditions.set(HEALTHY, Truth::False, "HealthCheckFailed", &failure.message, generation, now);
        }
        status.conditions.set(READY, Truth::False, failure.reason, &failure.message, generation, now);
        if let Some(revision) = &failure.revision {
            status.last_attempted_revision = Some(revision.clone());
        }
        echo(status, object);
        self.metrics.ready(Some(false));
        let state = state_of(status);
        self.write_or_log(report).await;
        let changed = said != state;
        let verdict = Verdict::Failed { root: failure.blames.clone() };
        let (message, revision) = (failure.message.clone(), failure.revision.as_deref());
        self.event(object, Severity::Warning, verdict, failure.reason, message, revision, Some(state));
        changed
    }

    /// Says which fields are not served; nothing else is done until the spec changes.
    pub async fn stalled(&self, object: &Kustomization, fields: &[&str]) {
        let mut report = self.report.clone().lock_owned().await;
        let (generation, now) = (object.metadata.generation, Timestamp::now());
        let named: Vec<_> = fields.iter().map(|f| format!("`{f}`")).collect();
        let message = format!("not served by this version of Afresh: {}", named.join(", "));
        let status = &mut report.status;
        status.conditions.remove(RECONCILING);
        status.conditions.set(STALLED, Truth::True, "UnservedField", &message, generation, now);
        status.conditions.set(READY, Truth::False, "UnservedField", &message, generation, now);
        status.observed_generation = generation;
        echo(status, object);
        self.shared.registry.waiting(&self.key, &message);
        self.metrics.ready(Some(false));
        self.metrics.failed("UnservedField");
        let state = state_of(status);
        self.write_or_log(report).await;
        let verdict = Verdict::Failed { root: None };
        self.event(object, Severity::Warning, verdict, "UnservedField", message, None, Some(state));
    }

    /// Records what is owned without saying anything else.
    pub async fn record_inventory(&self, inventory: &Inventory) {
        let mut report = self.report.clone().lock_owned().await;
        report.status.inventory = Some(inventory.record());
        self.write_or_log(report).await;
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one event, named at each of the six callers")]
    pub fn event(
        &self,
        object: &Kustomization,
        severity: Severity,
        verdict: Verdict,
        reason: &'static str,
        message: String,
        revision: Option<&str>,
        state: Option<String>,
    ) {
        let (subject, revision) = (subject(&self.key, object), revision.map(str::to_owned));
        self.shared.events.publish(Event { subject, severity, verdict, reason, message, revision, state });
    }

    /// Writes through the gate, which goes on without us: an attempt that is given up half way leaves no doubt about what
    /// was written, and whoever writes next, or gives up what we serve, waits for it.
    async fn write(&self, mut report: OwnedMutexGuard<Report>) -> Result<(), ApiError> {
        let urgency = std::mem::replace(&mut report.urgency, Urgency::Routine);
        let permit = self.shared.statuses.acquire(urgency).await;
        let cluster = &self.shared.cluster;
        let cluster = if urgency == Urgency::Repair { cluster.urgently() } else { cluster.clone() };
        let write = async move {
            let _permit = permit;
            let Report { status, writer, .. } = &mut *report;
            writer.write(&cluster, status).await
        };
        let given_up = |error: Abandoned| Err(ApiError::new(ErrorClass::NotLeading, error.to_string()));
        self.shared.gate.write(&self.id(), &CancellationToken::new(), write).await.unwrap_or_else(given_up)
    }

    pub(super) async fn write_or_log(&self, report: OwnedMutexGuard<Report>) {
        if let Err(error) = self.write(report).await
            && !error.is_not_found()
        {
            tracing::warn!(object = %self.key, %error, "the status could not be written; it is tried again");
        }
    }

    /// Writes what nobody waits for, in its turn, and again and again what could not be written; returns only to be
    /// dropped.
    pub async fn keep_writing(&self) {
        while self.has_more_to_say().await {
            self.shared.background.turn(&self.shared.applies).await;
            let report = self.report.clone().lock_owned().await;
            Box::pin(self.write_or_log(report)).await;
            if self.has_more_to_say().await {
                tokio::time::sleep(STATUS_RETRY).await;
            }
        }
        std::future::pending().await
    }

    async fn has_more_to_say(&self) -> bool {
        let report = self.report.lock().await;
        report.writer.differs(&report.status)
    }
}

/// The pause before a status that could not be written is tried again.
const STATUS_RETRY: Duration = Duration::from_secs(5);

/// What an attempt did, for people.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Counts by what was done: created, configured, recreated, deleted.
    pub counts: BTreeMap<&'static str, usize>,
    /// Objects that others had changed, and what of each; they are in no count.
    pub corrected: Vec<String>,
}

impl Changes {
    pub fn any(&self) -> bool {
        !self.counts.is_empty() || !self.corrected.is_empty()
    }

    pub fn count(&mut self, action: &'static str) {
        *self.counts.entry(action).or_default() += 1;
    }

    fn in_words(&self) -> String {
        let words: Vec<_> = self.counts.iter().map(|(action, count)| format!("{count} {action}")).collect();
        if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) }
    }
}

/// At most five names, and how many more.
pub(super) fn listed<T: ToString>(items: &[T]) -> String {
    const NAMES_MAX: usize = 5;
    let names: Vec<_> = items.iter().take(NAMES_MAX).map(T::to_string).collect();
    let more = items.len().saturating_sub(NAMES_MAX);
    if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }
}

/// True if an attempt at this revision has failed. What waited for another application has not.
fn has_failed(status: &KustomizationStatus, revision: &str, generation: Option<i64>) -> bool {
    let failed = |c: &Condition| {
        c.status == Truth::False && c.observed_generation == generation && c.reason != DEPENDENCY_NOT_READY
    };
    status.last_attempted_revision.as_deref() == Some(revision) && status.conditions.get(READY).is_some_and(failed)
}

fn echo(status: &mut KustomizationStatus, object: &Kustomization) {
    let asked = object.metadata.annotations.as_ref().and_then(|a| a.get(api::REQUESTED_AT));
    if let Some(asked) = asked {
        status.last_handled_reconcile_at = Some(asked.clone());
    }
}

pub(super) fn subject(key: &Key, object: &Kustomization) -> Subject {
    Subject::new("kustomize.toolkit.fluxcd.io/v1", KIND, key, &object.metadata)
}

/// The words by which an application says that its source has nothing to apply: they blame the source.
pub(super) fn without_revision(source: &Key) -> String {
    format!("GitRepository `{source}` has no revision: ")
}

/// The source that a recorded failure blames.
fn blamed(status: &KustomizationStatus, source: &Key) -> Option<Key> {
    let message = &status.conditions.get(READY)?.message;
    message.starts_with(&without_revision(source)).then(|| source.clone())
}

fn failure_of(status: &KustomizationStatus, root: Option<Key>) -> Option<RecordedFailure> {
    let ready = status.conditions.get(READY)?;
    let failed = ready.status == Truth::False && ready.reason != DEPENDENCY_NOT_READY;
    let revision = if root.is_none() { status.last_attempted_revision.clone() } else { None };
    failed.then(|| RecordedFailure { reason: ready.reason.clone(), message: ready.message.clone(), revision, root })
}

/// What a person would call the same state: the verdict, its reason, and the text or the revision.
fn state_of(status: &KustomizationStatus) -> String {
    let Some(ready) = Conditions::get(&status.conditions, READY) else { return String::new() };
    format!("{}/{}/{}", ready.status.as_str(), ready.reason, ready.message)
}
