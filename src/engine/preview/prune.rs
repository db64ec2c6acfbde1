//! What would be deleted: the plan of an attempt, with the questions that it asks of the cluster.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::api::{self, Key};
use crate::apply::{Kept, Standing, comparable, standing};
use crate::cluster::ApiError;
use crate::manifest::ObjectId;
use crate::plan::{self, Inventory};

use super::neighbours::Neighbours;
use super::{Question, consent};

/// What would become of objects that are no longer declared. Each is in one list.
#[derive(Default)]
pub struct Deletions {
    /// With the version of their kind and what would go.
    pub deleted: Vec<(ObjectId, String, Value)>,
    pub handed_over: Vec<(ObjectId, Key)>,
    pub kept: Vec<(ObjectId, Kept)>,
    /// Wait for a person's consent.
    pub guarded: Vec<ObjectId>,
    /// Definitions: they wait for consent on themselves.
    pub unagreed: Vec<ObjectId>,
    /// The application stands on them.
    pub grounded: Vec<ObjectId>,
    /// Everything is guarded, since nothing is declared any more.
    pub emptied: bool,
    /// `prune: false`: nobody's from then on.
    pub forgotten: Vec<ObjectId>,
    /// Not decided, since these applications could not be rendered.
    pub put_off: Option<(Vec<ObjectId>, Vec<Key>)>,
    pub unreadable: Vec<(ObjectId, ApiError)>,
}

pub(super) async fn look(
    question: &Question<'_>,
    key: &Key,
    declared: &BTreeSet<ObjectId>,
    inventory: &Inventory,
    neighbours: &Neighbours,
) -> Deletions {
    let mut deletions = Deletions::default();
    let stale: Vec<ObjectId> = inventory.ids().filter(|id| !declared.contains(id)).cloned().collect();
    if stale.is_empty() {
        return deletions;
    }
    if !question.object.spec.prune {
        deletions.forgotten = stale;
        return deletions;
    }
    if !neighbours.unknown.is_empty() {
        deletions.put_off = Some((stale, neighbours.unknown.clone()));
        return deletions;
    }
    let ids: BTreeSet<&ObjectId> = declared.iter().collect();
    let owner = |id: &ObjectId| neighbours.owners.get(id).cloned();
    let ground = plan::Ground { application: key.clone(), source: question.object.source_key() };
    let mut plan = plan::prune(inventory, &ids, owner, &ground, &consent(question));
    let going: BTreeSet<ObjectId> = plan.delete.iter().chain(&plan.delete_if_empty).cloned().collect();
    for id in std::mem::take(&mut plan.delete_if_agreed) {
        match agreed(question, &id).await {
            Ok(true) => plan.delete.push(id),
            Ok(false) => deletions.unagreed.push(id),
            Err(error) => deletions.unreadable.push((id, error)),
        }
    }
    deletions.grounded = std::mem::take(&mut plan.kept);
    let mut delete = std::mem::take(&mut plan.delete);
    for id in std::mem::take(&mut plan.delete_if_empty) {
        match question.cluster.has_contents(&id, &|inside| going.contains(inside)).await {
            Ok(true) => plan.guarded.push(id),
            Ok(false) => delete.push(id),
            Err(error) => deletions.unreadable.push((id, error)),
        }
    }
    let versions: BTreeMap<&ObjectId, &String> = inventory.iter().collect();
    for id in delete {
        match fate(question, &id, key).await {
            Ok(Ok(value)) => {
                let version = versions.get(&id).map(|version| (*version).clone()).unwrap_or_default();
                deletions.deleted.push((id, version, value));
            }
            // what is gone already changes nothing
            Ok(Err(Kept::Absent)) => {}
            Ok(Err(why)) => deletions.kept.push((id, why)),
            Err(error) => deletions.unreadable.push((id, error)),
        }
    }
    (deletions.handed_over, deletions.guarded, deletions.emptied) = (plan.handed_over, plan.guarded, plan.emptied);
    deletions
}

/// Whether a person has agreed on the definition itself that it goes.
async fn agreed(question: &Question<'_>, id: &ObjectId) -> Result<bool, ApiError> {
    let kind = question.cluster.resolve(&id.group, &id.kind, None).await?;
    let Some(metadata) = question.cluster.get_metadata(&kind, id).await? else { return Ok(true) };
    let consent = metadata["annotations"][api::CONFIRM_PRUNE].as_str();
    Ok(metadata["labels"][api::PART_OF] == "flux" || plan::Consent::read(consent, question.revision).given())
}

/// What would be deleted, or why it stays.
async fn fate(question: &Question<'_>, id: &ObjectId, owner: &Key) -> Result<Result<Value, Kept>, ApiError> {
    match standing(question.cluster, id, owner).await? {
        Standing::Kept(why) => Ok(Err(why)),
        Standing::Going => Ok(Err(Kept::Absent)),
        Standing::Free { kind, .. } => {
            let live = question.cluster.get(&kind, id).await?;
            Ok(live.map(comparable).ok_or(Kept::Absent))
        }
    }
}
