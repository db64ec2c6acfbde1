//! The end of a Kustomization: its objects go as its deletion policy says, then its finalizer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::{DeletionPolicy, FINALIZER, Kustomization, STATUS_MANAGER};
use crate::cluster::{ApiError, ApiKind, ErrorClass};
use crate::manifest::ObjectId;
use crate::plan::{Ground, is_definition};
use crate::report::{Severity, Verdict};

use super::report::listed;
use super::{Application, Failure, KIND};

impl Application {
    pub(super) fn id(&self) -> ObjectId {
        ObjectId::new("kustomize.toolkit.fluxcd.io", KIND, self.key.namespace.clone(), self.key.name.clone())
    }

    /// Sees to it that deleting the object cleans up first.
    pub async fn ensure_finalizer(&self, object: &Kustomization) -> Result<(), Failure> {
        let finalizers = object.metadata.finalizers.clone().unwrap_or_default();
        if finalizers.iter().any(|f| f == FINALIZER) {
            return Ok(());
        }
        let mut with = finalizers;
        with.push(FINALIZER.into());
        self.set_finalizers(object, &with)
            .await
            .map_err(|error| Failure::new("ReconciliationFailed", format!("the finalizer could not be set: {error}")))
    }

    /// True once nothing is left to do.
    pub async fn finalize(&self, object: &Kustomization) -> bool {
        let finalizers = object.metadata.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            return true;
        }
        if let Err(message) = self.delete_objects(object).await {
            tracing::warn!(object = %self.key, "{message}");
            let verdict = Verdict::Failed { root: None };
            self.event(object, Severity::Warning, verdict, "PruneFailed", message.clone(), None, Some(message));
            return false;
        }
        let rest: Vec<_> = finalizers.into_iter().filter(|f| f != FINALIZER).collect();
        match self.set_finalizers(object, &rest).await {
            Ok(()) => true,
            Err(error) if error.is_not_found() => true,
            Err(error) => {
                tracing::warn!(object = %self.key, %error, "the finalizer could not be removed; tried again");
                false
            }
        }
    }

    async fn delete_objects(&self, object: &Kustomization) -> Result<(), String> {
        let policy = object.spec.deletion_policy.unwrap_or_default();
        let delete = match policy {
            DeletionPolicy::MirrorPrune => object.spec.prune,
            DeletionPolicy::Delete | DeletionPolicy::WaitForTermination => true,
            DeletionPolicy::Orphan => false,
        };
        // a suspended object leaves its workloads as they are
        if !delete || object.spec.suspended() {
            return Ok(());
        }
        let identity = self.identity(&object.spec).map_err(|failure| failure.message)?;
        let gone = identity.is_gone(&self.shared.cluster).await;
        if gone.map_err(|error| format!("can't tell whether the service account is there: {error}"))? {
            let account = identity.account.map(|account| account.to_string()).unwrap_or_default();
            let text = format!("its objects are left in place: their ServiceAccount `{account}` is gone");
            self.event(object, Severity::Warning, Verdict::Detail, "Kept", text, None, None);
            return Ok(());
        }
        let ground = self.ground(object);
        // whoever asks for deletion in so many words means definitions, too
        let all = policy != DeletionPolicy::MirrorPrune;
        let (ids, kept): (Vec<ObjectId>, Vec<ObjectId>) = {
            let memory = self.memory();
            let own = memory.inventory.ids().filter(|id| self.shared.registry.owner(&self.key, id).is_none());
            own.cloned().partition(|id| (all || !is_definition(id)) && !holds(&ground, id))
        };
        if !kept.is_empty() {
            let text = format!(
                "left in place: {}; with a definition all objects of its kind would go, whoever made them: delete it by hand, or set `deletionPolicy: Delete` before",
                listed(&kept)
            );
            self.event(object, Severity::Normal, Verdict::Detail, "Kept", text, None, None);
        }
        let deleted = identity.applier.delete_all(&ids, &self.key, &CancellationToken::new()).await;
        if let Some((id, error)) = deleted.failed.first() {
            let hint = identity.hint(error).map(|hint| format!("\n{hint}")).unwrap_or_default();
            return Err(format!("{id} could not be deleted: {error}{hint}"));
        }
        if policy == DeletionPolicy::WaitForTermination {
            self.await_termination(&deleted.deleted, object.spec.health_timeout()).await?;
        }
        if !deleted.deleted.is_empty() {
            let text = format!("deleted {}", listed(&deleted.deleted));
            self.event(object, Severity::Normal, Verdict::Detail, "Pruned", text, None, None);
        }
        Ok(())
    }

    /// Flux releases the finalizer at the timeout, too: what hangs is then for a person to find, by name.
    async fn await_termination(&self, ids: &[ObjectId], timeout: Duration) -> Result<(), String> {
        let mut changes = self.shared.observed.subscribe(&self.key);
        let deadline = Instant::now() + timeout;
        loop {
            changes.borrow_and_update();
            let left: Vec<_> = ids.iter().filter(|id| self.shared.observed.get(id).is_some()).collect();
            if left.is_empty() {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline.into(), changes.changed()).await.is_err() {
                tracing::warn!(object = %self.key, "gave up waiting for the end of {}", listed(&left));
                return Ok(());
            }
        }
    }

    async fn set_finalizers(&self, object: &Kustomization, finalizers: &[String]) -> Result<(), ApiError> {
        let mut metadata = json!({"finalizers": finalizers});
        // the list is replaced whole: only as it was read
        if let Some(version) = &object.metadata.resource_version {
            metadata["resourceVersion"] = json!(version);
        }
        self.patch_object(json!({"metadata": metadata})).await
    }

    /// Changes the Kustomization itself; whoever lets go of it knows when that has been answered.
    pub(super) async fn patch_object(&self, patch: Value) -> Result<(), ApiError> {
        let (cluster, id) = (self.shared.cluster.clone(), self.id());
        let write = async move {
            cluster.merge_patch(&ApiKind::kustomization(), &id, &patch, None, STATUS_MANAGER).await.map(drop)
        };
        let written = self.shared.gate.write(&self.id(), &CancellationToken::new(), write).await;
        written.unwrap_or_else(|abandoned| Err(ApiError::new(ErrorClass::NotLeading, abandoned.to_string())))
    }
}

/// What stays even when the application goes: its namespace and the definitions of its own kind, on which others stand.
/// Itself and its source go, if it declares them.
fn holds(ground: &Ground, id: &ObjectId) -> bool {
    matches!(id.kind.as_str(), "Namespace" | "CustomResourceDefinition") && ground.holds(id)
}
