//! Deleting what is no longer declared, after others have said what they took over.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;

use crate::api::{self, Kustomization};
use crate::apply::Kept;
use crate::cluster::ApiKind;
use crate::config;
use crate::engine::registry::Handover;
use crate::manifest::ObjectId;
use crate::plan::{self, Consent, Inventory};
use crate::report::{Severity, Stage, Verdict};
use crate::rollout;

use super::report::{Changes, listed};
use super::{Application, Failure, Prepared, Stop, Work};

impl Application {
    pub fn prunes_before_health(&self, work: &Work) -> bool {
        work.object.annotation(api::PRUNE_WHEN) == Some("before-health")
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
        let result = self.prune_stale(work, prepared, &inventory, &declared, changes).await;
        self.shared.metrics.stage(Stage::Prune, started.elapsed());
        result
    }

    async fn prune_stale(
        &self,
        work: &Work,
        prepared: &Prepared,
        inventory: &Inventory,
        declared: &BTreeSet<&ObjectId>,
        changes: &mut Changes,
    ) -> Result<Inventory, Stop> {
        self.await_handover(work).await?;
        let consent = Consent::read(work.object.annotation(api::CONFIRM_PRUNE), &work.revision());
        let owner = |id: &ObjectId| self.shared.registry.owner(&self.key, id);
        let mut plan = plan::prune(inventory, declared, owner, &self.ground(&work.object), &consent);
        for (id, other) in &plan.handed_over {
            tracing::info!(object = %self.key, %id, to = %other, "handed over");
        }
        let going: BTreeSet<ObjectId> = plan.delete.iter().chain(&plan.delete_if_empty).cloned().collect();
        let mut delete = std::mem::take(&mut plan.delete);
        for id in std::mem::take(&mut plan.delete_if_empty) {
            let contents = self
                .contents(work, &id, &going)
                .await
                .map_err(|error| Failure::new("PruneFailed", format!("can't tell whether {id} is empty: {error}")))?;
            if contents { plan.guarded.push(id) } else { delete.push(id) }
        }
        let mut unagreed = Vec::new();
        for id in std::mem::take(&mut plan.delete_if_agreed) {
            let agreed = self
                .agreed(work, &id)
                .await
                .map_err(|error| Failure::new("PruneFailed", format!("can't tell whether {id} may go: {error}")))?;
            if agreed { delete.push(id) } else { unagreed.push(id) }
        }
        let needed = self.needed_by_history(prepared, &delete).await;
        delete.retain(|id| !needed.contains(id));
        let deleted = work.identity.applier.delete_all(&delete, &self.key, &work.stop).await;
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
        let kept = deleted
            .failed
            .iter()
            .map(|(id, _)| id)
            .chain(&deleted.left)
            .chain(&plan.guarded)
            .chain(&unagreed)
            .chain(&needed);
        let left: Inventory = kept.map(|id| (id.clone(), version_of(inventory, id))).collect();
        let all: Inventory =
            inventory.iter().filter(|(id, _)| declared.contains(id)).map(|(id, v)| (id.clone(), v.clone())).collect();
        self.memory().inventory = all.union(&left);
        if let Some((id, error)) = deleted.failed.first() {
            self.record_inventory(&all.union(&left)).await;
            let hint = work.identity.hint(error).map(|hint| format!("\n{hint}")).unwrap_or_default();
            return Err(Failure::new("PruneFailed", format!("{id} could not be deleted: {error}{hint}")).into());
        }
        if !(plan.guarded.is_empty() && unagreed.is_empty()) {
            self.record_inventory(&all.union(&left)).await;
            let failure = Failure::new("PruneFailed", self.guarded(work, &plan, &unagreed));
            // consent on another object than this one is only seen by looking again
            return Err(if unagreed.is_empty() { failure.until_changed() } else { failure }.into());
        }
        Ok(left)
    }

    /// What of `stale` is configuration with a hash in its name that the history of a declared workload needs: Pods of
    /// the revision before are still running, or would be started by `kubectl rollout undo`.
    async fn needed_by_history(&self, prepared: &Prepared, stale: &[ObjectId]) -> BTreeSet<ObjectId> {
        let mut hashed: BTreeSet<&ObjectId> = stale.iter().filter(|id| has_hashed_name(id)).collect();
        let namespaces: BTreeSet<&str> = hashed.iter().map(|id| id.namespace.as_str()).collect();
        let workloads = prepared.desired.iter().filter(|d| rollout::is_workload(&d.object.id));
        let owners: BTreeSet<Box<str>> =
            workloads.filter_map(|d| Some(self.shared.observed.get(&d.object.id)?.uid.clone())).collect();
        let mut needed = BTreeSet::new();
        for namespace in namespaces {
            for kind in [ApiKind::replica_set(), ApiKind::controller_revision()] {
                let revisions = match self.shared.cluster.list(&kind, Some(namespace)).await {
                    Ok(revisions) => revisions,
                    Err(error) => {
                        tracing::warn!(object = %self.key, %error, "what revisions of workloads need is not known: it is deleted another time");
                        needed.extend(hashed.iter().filter(|id| id.namespace == namespace).map(|id| (*id).clone()));
                        continue;
                    }
                };
                for revision in revisions.iter().filter(|revision| is_owned_by(revision, &owners)) {
                    let of_set = revision.pointer("/spec/template/spec");
                    let Some(pods) = of_set.or_else(|| revision.pointer("/data/spec/template/spec")) else { continue };
                    for configuration in rollout::references(pods).into_keys() {
                        let id = ObjectId::new("", configuration.kind.as_str(), namespace, configuration.name);
                        needed.extend(hashed.take(&id).cloned());
                    }
                }
            }
        }
        needed
    }

    /// Whether a person has agreed on the definition itself that it goes with this revision. One that is Flux's own is
    /// left alone whatever it says, and one that is gone needs no consent.
    async fn agreed(&self, work: &Work, id: &ObjectId) -> Result<bool, crate::cluster::ApiError> {
        let kind = work.identity.cluster.resolve(&id.group, &id.kind, None).await?;
        let Some(metadata) = work.identity.cluster.get_metadata(&kind, id).await? else { return Ok(true) };
        let consent = metadata["annotations"][api::CONFIRM_PRUNE].as_str();
        Ok(metadata["labels"][api::PART_OF] == "flux" || Consent::read(consent, &work.revision()).given())
    }

    /// What the application may never delete.
    pub(super) fn ground(&self, object: &Kustomization) -> plan::Ground {
        plan::Ground { application: self.key.clone(), source: object.source_key() }
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
        let api::NamespacedName { namespace, name } = &*self.key;
        format!(
            "{why}: waiting for consent\nhint: kubectl annotate --overwrite kustomization/{name} -n {namespace} {}='{}'",
            api::CONFIRM_PRUNE,
            work.revision()
        )
    }

    /// Waits until the other applications of the source have said what they declare at this revision.
    async fn await_handover(&self, work: &Work) -> Result<(), Failure> {
        let mut changes = self.shared.registry.subscribe();
        let put_off = |why: String| Err(Failure::new("PruneFailed", format!("deletions are put off: {why}")));
        let began = tokio::time::Instant::now();
        loop {
            changes.borrow_and_update();
            let (waiting, elsewhere) = match self.shared.registry.handover(&self.key, &work.identity()) {
                Handover::Settled => return Ok(()),
                Handover::Unknown(others) => {
                    return put_off(format!(
                        "{} could not be rendered and may declare what this revision has no more",
                        listed(&others)
                    ));
                }
                Handover::Pending { waiting, elsewhere } => (waiting, elsewhere),
            };
            let patience = if elsewhere { config::HANDOVER_ELSEWHERE_MAX } else { config::HANDOVER_WAIT_MAX };
            match tokio::time::timeout_at(began + patience, changes.changed()).await {
                Ok(Ok(())) => {}
                // the registry lives as long as we do
                Ok(Err(_)) => return Ok(()),
                Err(_) => {
                    let others = listed(&waiting);
                    return put_off(format!(
                        "not all Kustomizations of this source have rendered this revision yet: {others}"
                    ));
                }
            }
        }
    }

    /// Whether a Namespace holds anything but what goes along with it.
    async fn contents(
        &self,
        work: &Work,
        id: &ObjectId,
        going: &BTreeSet<ObjectId>,
    ) -> Result<bool, crate::cluster::ApiError> {
        work.identity.cluster.has_contents(id, &|inside| going.contains(inside)).await
    }
}

/// Whether a Secret or a ConfigMap has the hash of its content at the end of its name, as kustomize's generators write
/// it: ten letters and digits without vowels, and without those digits that look like letters.
fn has_hashed_name(id: &ObjectId) -> bool {
    const ALPHABET: &str = "2456789bcdfghkmt";
    let is_configuration = id.group.is_empty() && matches!(id.kind.as_str(), "ConfigMap" | "Secret");
    is_configuration
        && id.name.rsplit_once('-').is_some_and(|(name, hash)| {
            !name.is_empty() && hash.len() == 10 && hash.chars().all(|c| ALPHABET.contains(c))
        })
}

fn is_owned_by(object: &Value, owners: &BTreeSet<Box<str>>) -> bool {
    let references = object.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
    references.filter_map(|owner| owner.get("uid")?.as_str()).any(|uid| owners.contains(uid))
}

fn version_of(inventory: &Inventory, id: &ObjectId) -> String {
    inventory.iter().find(|(other, _)| *other == id).map(|(_, v)| v.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_at_the_end_of_a_name_is_told_from_a_word() {
        for (kind, name, expected) in [
            ("ConfigMap", "settings-2fgh4tkd6c", true),
            ("Secret", "db-credentials-b7mk2c8f5t", true),
            ("ConfigMap", "settings", false),
            ("ConfigMap", "settings-production", false),
            ("ConfigMap", "settings-2fgh4tkd6", false),
            ("ConfigMap", "-2fgh4tkd6c", false),
            ("Service", "web-2fgh4tkd6c", false),
        ] {
            assert_eq!(has_hashed_name(&ObjectId::new("", kind, "n", name)), expected, "{kind}/{name}");
        }
    }
}
