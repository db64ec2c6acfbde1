//! The other applications of the cluster: which of them declare what this one no longer does, or does as well.
//!
//! A daemon has rendered them all at the same revision. Here those of the same source are rendered, and only if
//! something depends on it; of those of other sources the inventory is taken at its word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{Key, Kustomization};
use crate::cluster::ApiKind;
use crate::engine::application::Scopes;
use crate::manifest::ObjectId;
use crate::plan::Inventory;

use super::{PreviewError, Question, declared};

/// What others declare of what matters here.
#[derive(Default)]
pub(super) struct Neighbours {
    /// Of the stale objects: who declares them at this revision.
    pub owners: BTreeMap<ObjectId, Key>,
    /// Declared here and by another, who had them first.
    pub contested: Vec<(ObjectId, Key)>,
    /// Those that could not be rendered: what they declare is not known.
    pub unknown: Vec<Key>,
}

pub(super) async fn look(
    question: &Question<'_>,
    key: &Key,
    declared_here: &BTreeSet<ObjectId>,
    inventory: &Inventory,
    unseen: &mut Vec<String>,
) -> Result<Neighbours, PreviewError> {
    let mut neighbours = Neighbours::default();
    let stale: BTreeSet<&ObjectId> = inventory.ids().filter(|id| !declared_here.contains(id)).collect();
    let matters = |id: &ObjectId| stale.contains(id) || (declared_here.contains(id) && !inventory.contains(id));
    if stale.is_empty() && declared_here.iter().all(|id| inventory.contains(id)) {
        return Ok(neighbours);
    }
    let source = question.object.source_key();
    for other in applications(question, key, unseen).await? {
        let other_key = other.key();
        if other_key == *key || other.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let (recorded, _) = Inventory::read(other.status.as_ref().and_then(|status| status.inventory.as_ref()));
        let recorded = recorded.scoped(&Scopes(question.cluster));
        let shares_source = other.source_key() == source && !other.spec.suspended();
        let shares_objects = recorded.ids().any(matters);
        if !(shares_objects || (shares_source && !stale.is_empty())) {
            continue;
        }
        let declares: BTreeSet<ObjectId> = if shares_source {
            match Box::pin(declared(question, &other, &question.tree)).await {
                Ok(declared) => declared.desired.iter().map(|d| d.object.id.clone()).collect(),
                Err(_) => {
                    neighbours.unknown.push(other_key);
                    continue;
                }
            }
        } else {
            recorded.ids().cloned().collect()
        };
        for id in declares.iter().filter(|id| matters(id)) {
            if stale.contains(id) {
                neighbours.owners.insert(id.clone(), other_key.clone());
            } else if recorded.contains(id) {
                neighbours.contested.push((id.clone(), other_key.clone()));
            }
        }
    }
    Ok(neighbours)
}

/// All Kustomizations that can be seen.
async fn applications(
    question: &Question<'_>,
    key: &Key,
    unseen: &mut Vec<String>,
) -> Result<Vec<Arc<Kustomization>>, PreviewError> {
    let kind = ApiKind::kustomization();
    let list = match question.cluster.list(&kind, None).await {
        Ok(list) => list,
        Err(error) if error.code == 403 => {
            unseen.push(format!(
                "Kustomizations of other namespaces than `{}`: {error}; whether they declare any of these objects is not known",
                key.namespace
            ));
            question.cluster.list(&kind, Some(&key.namespace)).await.map_err(PreviewError::Cluster)?
        }
        Err(error) => return Err(PreviewError::Cluster(error)),
    };
    // one that can't be read is none that the daemon serves
    Ok(list.into_iter().filter_map(|object| serde_json::from_value(object).ok()).map(Arc::new).collect())
}
