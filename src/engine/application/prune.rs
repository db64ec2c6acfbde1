//! Deleting what is no longer declared, after others have said what they took over.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::api::{self, Kustomization};
use crate::apply::Kept;
use crate::config;
use crate::engine::registry::Handover;
use crate::manifest::ObjectId;
use crate::plan::{self, Consent, Inventory};
use crate::report::{Severity, Stage, Verdict};

use super::idle::source_key;
use super::report::{Changes, listed};
use super::{Application, Failure, Prepared, Stop, Work};

impl Application {
    pub fn prunes_before_health(&self, work: &Work) -> bool {
        annotation(work, api::PRUNE_WHEN) == Some("before-health")
    }

    /// Deletes what is stale. Answers what stays owned beyond what is declared.
    pub async fn prune(&self, work: &Work, prepared: &Prepared, changes: &mut Changes) -> Result<Inventory, Stop> {
        let declared: BTreeSet<&ObjectId> = prepared.desired.iter().map(|d| &d.object.id).collect();
        let inventory = self.memory().inventory.clone();
        let stale: Vec<&ObjectId> = inventory.ids().filter(|id| !declared.contains(id)).collect();
        if stale.is_empty() {
            return Ok(Inventory::default());
        }
        if !work.object.spec.prune {
            // Flux forgets them, too: without `prune` what is not declared is nobody's
            return Ok(Inventory::default());
        }
        let started = Instant::now();
        let _pruning = work.trace.stage(Stage::Prune);
        let result = self.prune_stale(work, &inventory, &declared, changes).await;
        self.shared.metrics.stage(Stage::Prune, started.elapsed());
        result
    }

    async fn prune_stale(
        &self,
        work: &Work,
        inventory: &Inventory,
        declared: &BTreeSet<&ObjectId>,
        changes: &mut Changes,
    ) -> Result<Inventory, Stop> {
        self.await_handover(work).await?;
        let consent = Consent::read(annotation(work, api::CONFIRM_PRUNE), &work.revision());
        let owner = |id: &ObjectId| self.shared.registry.owner(&self.key, id);
        let mut plan = plan::prune(inventory, declared, owner, &self.ground(&work.object), &consent);
        for (id, other) in &plan.handed_over {
            tracing::info!(object = %self.key, %id, to = %other, "handed over");
        }
        let going: BTreeSet<ObjectId> = plan.delete.iter().chain(&plan.delete_if_empty).cloned().collect();
        let mut delete = std::mem::take(&mut plan.delete);
        for id in std::mem::take(&mut plan.delete_if_empty) {
            let contents = self
                .contents(&id, &going)
                .await
                .map_err(|error| Failure::new("PruneFailed", format!("can't tell whether {id} is empty: {error}")))?;
            if contents { plan.guarded.push(id) } else { delete.push(id) }
        }
        let mut unagreed = Vec::new();
        for id in std::mem::take(&mut plan.delete_if_agreed) {
            let agreed = self
                .agreed(&id, &work.revision())
                .await
                .map_err(|error| Failure::new("PruneFailed", format!("can't tell whether {id} may go: {error}")))?;
            if agreed { delete.push(id) } else { unagreed.push(id) }
        }
        let deleted = self.shared.applier.delete_all(&delete, &self.key, &work.stop).await;
        for _ in &deleted.deleted {
            changes.count("deleted");
        }
        self.metrics.objects("deleted", deleted.deleted.len());
        if !deleted.deleted.is_empty() {
            let text = format!("deleted {}", listed(&deleted.deleted));
            let revision = work.revision();
            self.event(&work.object, Severity::Normal, Verdict::Detail, "Pruned", text, Some(&revision), None);
        }
        let of_flux = deleted.kept.iter().filter(|(_, why)| *why == Kept::Flux).map(|(id, _)| id);
        let stays: Vec<&ObjectId> = of_flux.chain(&plan.kept).collect();
        if !stays.is_empty() {
            let text = format!(
                "left in place: {} is no longer declared, but it is Flux's own or holds this Kustomization; delete it by hand if nothing needs it",
                listed(&stays)
            );
            let revision = work.revision();
            self.event(&work.object, Severity::Normal, Verdict::Detail, "Kept", text, Some(&revision), None);
        }
        let kept = deleted.failed.iter().map(|(id, _)| id).chain(&deleted.left).chain(&plan.guarded).chain(&unagreed);
        let left: Inventory = kept.map(|id| (id.clone(), version_of(inventory, id))).collect();
        let all: Inventory =
            inventory.iter().filter(|(id, _)| declared.contains(id)).map(|(id, v)| (id.clone(), v.clone())).collect();
        self.memory().inventory = all.union(&left);
        if let Some((id, error)) = deleted.failed.first() {
            self.record_inventory(&all.union(&left)).await;
            return Err(Failure::new("PruneFailed", format!("{id} could not be deleted: {error}")).into());
        }
        if !(plan.guarded.is_empty() && unagreed.is_empty()) {
            self.record_inventory(&all.union(&left)).await;
            let failure = Failure::new("PruneFailed", self.guarded(work, &plan, &unagreed));
            // consent on another object than this one is only seen by looking again
            return Err(if unagreed.is_empty() { failure.until_changed() } else { failure }.into());
        }
        Ok(left)
    }

    /// Whether a person has agreed on the definition itself that it goes with this revision. One that is Flux's own is
    /// left alone whatever it says, and one that is gone needs no consent.
    async fn agreed(&self, id: &ObjectId, revision: &str) -> Result<bool, crate::cluster::ApiError> {
        let kind = self.shared.cluster.resolve(&id.group, &id.kind, None).await?;
        let Some(metadata) = self.shared.cluster.get_metadata(&kind, id).await? else { return Ok(true) };
        let consent = metadata["annotations"][api::CONFIRM_PRUNE].as_str();
        Ok(metadata["labels"][api::PART_OF] == "flux" || Consent::read(consent, revision).given())
    }

    /// What the application may never delete.
    pub(super) fn ground(&self, object: &Kustomization) -> plan::Ground {
        plan::Ground { application: self.key.clone(), source: source_key(object) }
    }

    fn guarded(&self, work: &Work, plan: &plan::Prune, unagreed: &[ObjectId]) -> String {
        let mut parts = Vec::new();
        if !plan.guarded.is_empty() {
            parts.push(self.guarded_by_us(work, plan));
        }
        if !unagreed.is_empty() {
            let names: Vec<_> = unagreed.iter().map(|id| id.name.as_str()).collect();
            parts.push(format!(
                "deleting {} deletes every object of its kind, whoever made it: waiting for consent on the definition itself\nhint: kubectl annotate --overwrite crd {} {}='{}'",
                listed(unagreed),
                names.join(" "),
                api::CONFIRM_PRUNE,
                work.revision()
            ));
        }
        parts.join("\n")
    }

    fn guarded_by_us(&self, work: &Work, plan: &plan::Prune) -> String {
        let why = if plan.emptied {
            format!("the render came out empty, which would delete all {} objects", plan.guarded.len())
        } else {
            format!("deleting {} loses data", listed(&plan.guarded))
        };
        let api::Key { namespace, name } = &self.key;
        format!(
            "{why}: waiting for consent\nhint: kubectl annotate --overwrite kustomization/{name} -n {namespace} {}='{}'",
            api::CONFIRM_PRUNE,
            work.revision()
        )
    }

    /// Waits until the other applications of the source have said what they declare at this revision.
    async fn await_handover(&self, work: &Work) -> Result<(), Failure> {
        let mut changes = self.shared.registry.subscribe();
        let wait = async {
            loop {
                changes.borrow_and_update();
                match self.shared.registry.handover(&self.key, &work.identity()) {
                    Handover::Pending => {}
                    other => return other,
                }
                if changes.changed().await.is_err() {
                    return Handover::Settled;
                }
            }
        };
        let put_off = |why: String| Failure::new("PruneFailed", format!("deletions are put off: {why}"));
        match tokio::time::timeout(config::HANDOVER_WAIT_MAX, wait).await {
            Ok(Handover::Settled | Handover::Pending) => Ok(()),
            Ok(Handover::Unknown(others)) => Err(put_off(format!(
                "{} could not be rendered and may declare what this revision has no more",
                listed(&others)
            ))),
            Err(_) => Err(put_off("not all Kustomizations of this source have rendered this revision yet".into())),
        }
    }

    /// Whether a Namespace holds anything but what goes along with it.
    async fn contents(&self, id: &ObjectId, going: &BTreeSet<ObjectId>) -> Result<bool, crate::cluster::ApiError> {
        self.shared.cluster.has_contents(id, &|inside| going.contains(inside)).await
    }
}

pub(super) fn annotation<'a>(work: &'a Work, key: &str) -> Option<&'a str> {
    work.object.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn version_of(inventory: &Inventory, id: &ObjectId) -> String {
    inventory.iter().find(|(other, _)| *other == id).map(|(_, v)| v.clone()).unwrap_or_default()
}
