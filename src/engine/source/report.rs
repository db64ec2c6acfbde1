//! What a look at the remote comes to for those who wait for it, in status, Events and metrics. Writes the status only
//! where it differs; what could not be written is written with the next one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::api::{
    Artifact, FINALIZER, GitRepository, GitRepositoryStatus, Key, READY, RECONCILING, STALLED, STATUS_MANAGER, Truth,
    rfc3339,
};
use crate::cluster::{Abandoned, ApiKind};
use crate::config::SourceRole;
use crate::engine::permits::Urgency;
use crate::engine::share::Share;
use crate::report::{Event, Recorded, RecordedFailure, Severity, Subject, Verdict};
use crate::source::{Class, Revision, SourceError};

use super::include::Composed;
use super::target::{Refusal, Target};
use super::worker::{Worker, requested_at};
use super::{Head, KIND};

/// Events of one revision for what policies warn of or note.
const EVENTS_MAX: usize = 10;
/// Conditions that are true while something is wrong.
const FETCH_FAILED: &str = "FetchFailed";
pub(super) const INCLUDE_UNAVAILABLE: &str = "IncludeUnavailable";

impl Worker {
    pub(super) async fn succeed(&mut self, target: &Target, composed: Composed, since: Instant) {
        let Composed { head, included } = composed;
        let head = Arc::new(head.since(self.handle.state().head).await);
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

    pub(super) async fn on_failure(&mut self, object: &Arc<GitRepository>, error: &SourceError, since: Instant) {
        let text = match error.hint() {
            Some(hint) => format!("{error}\nhint: {hint}"),
            None => error.to_string(),
        };
        let reason = match error {
            SourceError::Denied { .. } => "PolicyDenied",
            _ if error.class() == Class::Auth => "AuthenticationFailed",
            _ => "GitOperationFailed",
        };
        self.publish(|state| {
            state.failure = Some(text.as_str().into());
            state.observed_since = Some(since);
        });
        self.metrics.error(error.class().as_str());
        self.metrics.took(since.elapsed());
        self.fail(object, FETCH_FAILED, reason, &text, false).await;
    }

    /// What policies say of a revision that they let through.
    pub(super) fn tell(&self, object: &GitRepository, revision: &Revision, warnings: &[String], notes: &[String]) {
        let warnings = warnings.iter().map(|text| (Severity::Warning, "PolicyWarning", text));
        let notes = notes.iter().map(|text| (Severity::Normal, "PolicyAudit", text));
        for (severity, reason, text) in warnings.chain(notes).take(EVENTS_MAX) {
            if self.role == SourceRole::Observe {
                tracing::warn!(object = %self.key, reason, "{text}");
                continue;
            }
            let (subject, message) = (subject(&self.key, object), text.clone());
            let (verdict, revision) = (Verdict::Detail, Some(revision.to_string()));
            self.shared.events.publish(Event { subject, severity, verdict, reason, message, revision, state: None });
        }
    }

    /// The spec can't be served as it is.
    pub(super) async fn refuse(&mut self, object: &Arc<GitRepository>, refusal: &Refusal) {
        self.publish(|state| {
            state.failure = Some(refusal.message.as_str().into());
            state.observed_since = Some(Instant::now());
        });
        self.fail(object, FETCH_FAILED, refusal.reason, &refusal.message, refusal.stalled).await;
    }

    pub(super) async fn fail(
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
        if self.role == SourceRole::Observe {
            // source-controller says what it sees; what only we see is told by those who apply it
            let state = state_of(&self.status);
            if revision.is_none() && self.told.as_ref() != Some(&state) {
                tracing::warn!(object = %self.key, reason, "{message}");
            }
            self.told = Some(state);
            return;
        }
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
        self.write().await;
    }

    /// Writes the status if it differs. Whoever gives the source up waits for the answer.
    pub(super) async fn write(&mut self) {
        self.unwritten = None;
        let mut writer = self.writer.clone().lock_owned().await;
        if !writer.differs(&self.status) {
            return;
        }
        let _permit = self.shared.statuses.acquire(Urgency::Routine).await;
        let newest = self.goal.borrow().clone();
        let Some(version) =
            version_to_write_at(&self.shared.share, &self.key, newest.as_deref(), self.version.as_deref())
        else {
            return;
        };
        let (cluster, status) = (self.shared.cluster.clone(), self.status.clone());
        let write = async move { writer.write_at(version.as_deref(), &cluster, &status).await };
        let id = ApiKind::git_repository().object(self.key.namespace.as_str(), self.key.name.as_str());
        match self.shared.gate.write(&id, &CancellationToken::new(), write).await {
            Ok(Ok(version)) => self.version = version.or(self.version.take()),
            Ok(Err(error)) if error.is_not_found() => {}
            Ok(Err(error)) => {
                tracing::warn!(object = %self.key, %error, "the status could not be written; it is tried again");
                self.unwritten = Some(Instant::now() + STATUS_RETRY);
            }
            // another replica leads, and says what it sees
            Err(Abandoned) => {}
        }
    }

    /// A source that source-controller has served holds its finalizer, which nobody else would take away.
    pub(super) async fn let_go(&mut self, object: &GitRepository) {
        let finalizers = object.metadata.finalizers.as_deref().unwrap_or_default();
        if self.role == SourceRole::Observe || !finalizers.iter().any(|f| f == FINALIZER) {
            return;
        }
        let kind = ApiKind::git_repository();
        let id = kind.object(self.key.namespace.as_str(), self.key.name.as_str());
        let mut newest = object.metadata.clone();
        loop {
            let rest: Vec<_> = newest.finalizers.iter().flatten().filter(|f| *f != FINALIZER).collect();
            // the list is replaced whole: only as it was read
            let patch = json!({"metadata": {"finalizers": rest, "resourceVersion": newest.resource_version}});
            match self.shared.cluster.merge_patch(&kind, &id, &patch, None, STATUS_MANAGER).await {
                Ok(_) => return,
                Err(error) if error.is_not_found() => return,
                Err(error) => {
                    tracing::warn!(object = %self.key, %error, "the finalizer could not be removed; tried again");
                }
            }
            tokio::time::sleep(RELEASE_RETRY).await;
            match self.goal.borrow().as_ref() {
                Some(object) => newest = object.metadata.clone(),
                None => return,
            }
        }
    }
}

/// The version of the source that a status is written at; the inner `None`: at any. The outer one: not at all.
///
/// Where labels say whose a source is, another instance may see before us that it is its own now: what we write then must
/// not land behind what it writes. So we write at a version that we have seen to be ours, or that we made ourselves.
fn version_to_write_at(
    share: &Share,
    key: &Key,
    newest: Option<&GitRepository>,
    written: Option<&str>,
) -> Option<Option<String>> {
    if !matches!(share, Share::Selected(_)) {
        return Some(None);
    }
    let metadata = &newest?.metadata;
    if !share.has(key, metadata.labels.as_ref()) {
        return None;
    }
    let seen = metadata.resource_version.as_deref();
    let number = |version: Option<&str>| version.and_then(|version| version.parse::<u64>().ok());
    let version = if number(written) > number(seen) { written } else { seen };
    Some(version.map(str::to_owned))
}

/// The pause before a status that could not be written is tried again.
const STATUS_RETRY: Duration = Duration::from_secs(2);
/// The pause before a finalizer that could not be removed is tried again.
const RELEASE_RETRY: Duration = Duration::from_secs(5);

/// Whether more than the time is another one.
fn differs(a: &Artifact, b: &Artifact) -> bool {
    (&a.revision, &a.digest, &a.path) != (&b.revision, &b.digest, &b.path)
}

/// Where Flux's source-controller serves its tarballs, as `flux bootstrap` installs it. It has none of this name: when a
/// cluster is given back, kustomize-controller is told so (404) and asks again soon, whereas any other failure would have
/// it wait for its `retryInterval`.
const FLUX_STORAGE: &str = "http://source-controller.flux-system.svc.cluster.local.";

/// Valid for Flux's schema; there is no tarball behind it.
pub(super) fn artifact(key: &Key, head: &Head, now: Timestamp) -> Artifact {
    let commit = head.revision.rsplit_once("sha1:").map_or("", |(_, commit)| commit);
    let path = format!("gitrepository/{}/{}/{commit}", key.namespace, key.name);
    Artifact {
        digest: Some(format!("sha1:{}", hex::encode(head.snapshot.tree_id().0))),
        last_update_time: rfc3339(now),
        url: format!("{FLUX_STORAGE}/{path}"),
        path,
        revision: head.revision.clone(),
        size: None,
        metadata: None,
    }
}

pub(super) fn subject(key: &Key, object: &GitRepository) -> Subject {
    Subject::new("source.toolkit.fluxcd.io/v1", KIND, key, &object.metadata)
}

pub(super) fn recorded(status: &GitRepositoryStatus) -> Recorded {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LabelSelector;

    #[test]
    fn where_labels_divide_the_work_a_status_is_written_at_the_newest_version_that_is_ours() {
        let share = Share::Selected(LabelSelector::parse("shard=a").unwrap());
        let key = Key::new("flux-system", "platform");
        let source = |shard: &str, version: &str| -> GitRepository {
            serde_json::from_value(json!({
                "metadata": { "name": "platform", "resourceVersion": version, "labels": { "shard": shard } },
                "spec": { "url": "https://git.example.com/platform", "interval": "1m" },
            }))
            .unwrap()
        };
        let at = |newest: &GitRepository, written| version_to_write_at(&share, &key, Some(newest), written);
        let version = |version: &str| Some(Some(version.to_owned()));
        assert_eq!(at(&source("a", "9"), None), version("9"));
        assert_eq!(at(&source("a", "9"), Some("8")), version("9"), "somebody wrote after us");
        assert_eq!(at(&source("a", "9"), Some("10")), version("10"), "the watch is behind our own write");
        assert_eq!(at(&source("b", "11"), Some("10")), None, "it is another's, though we have not been told to stop");
        assert_eq!(version_to_write_at(&share, &key, None, Some("10")), None, "it is gone");
        let alone = version_to_write_at(&Share::All, &key, Some(&source("b", "11")), None);
        assert_eq!(alone, Some(None));
    }
}
