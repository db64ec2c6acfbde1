//! Deletion of what is no longer declared: only what carries the owner's labels, in the opposite order of apply.

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::cluster::{ApiError, ApiKind, Cluster, ErrorClass, OwnerKey, Propagation};
use crate::manifest::ObjectId;
use crate::plan;

use super::applier::{Applier, PARALLEL};
use super::order::{Stage, stage_of};

/// Why an object was left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// There is no such object any more.
    Absent,
    /// Its labels name another owner, or none.
    NotOurs,
    /// A label or annotation keeps us from deleting it.
    Marked,
    /// It is of Flux's own installation.
    Flux,
}

/// What became of each object that was to be deleted.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// The server has accepted the deletion; finalizers may hold an object longer.
    pub deleted: Vec<ObjectId>,
    pub kept: Vec<(ObjectId, Kept)>,
    /// These stay in the inventory.
    pub failed: Vec<(ObjectId, ApiError)>,
    /// Not begun; these stay in the inventory too.
    pub left: Vec<ObjectId>,
}

enum Fate {
    Deleted,
    Kept(Kept),
    Failed(ApiError),
    Left,
}

impl Applier {
    /// Deletes objects in the background, stage by stage from the last, and does not wait until they are gone. Each is
    /// looked at first: labels decide, not the inventory.
    pub async fn delete_all(&self, ids: &[ObjectId], owner: &OwnerKey, cancel: &CancellationToken) -> Pruned {
        let mut pruned = Pruned::default();
        for stage in Stage::ALL.into_iter().rev() {
            let mut stage: Vec<ObjectId> = ids.iter().filter(|id| stage_of(id) == stage).cloned().collect();
            stage.sort();
            stage.dedup();
            let mut fates = futures::stream::iter(stage)
                .map(|id| async move {
                    let fate = self.delete(&id, owner, cancel).await;
                    (id, fate)
                })
                .buffered(PARALLEL);
            while let Some((id, fate)) = fates.next().await {
                match fate {
                    Fate::Deleted => pruned.deleted.push(id),
                    Fate::Kept(why) => pruned.kept.push((id, why)),
                    Fate::Failed(error) => pruned.failed.push((id, error)),
                    Fate::Left => pruned.left.push(id),
                }
            }
        }
        pruned
    }

    async fn delete(&self, id: &ObjectId, owner: &OwnerKey, cancel: &CancellationToken) -> Fate {
        if cancel.is_cancelled() {
            return Fate::Left;
        }
        let (cluster, object, owner) = (self.cluster.clone(), id.clone(), owner.clone());
        let write = async move {
            let (kind, uid) = match standing(&cluster, &object, &owner).await {
                Ok(Standing::Free { kind, uid }) => (kind, uid),
                Ok(Standing::Going) => return Fate::Deleted,
                Ok(Standing::Kept(why)) => return Fate::Kept(why),
                Err(error) => return Fate::Failed(error),
            };
            match cluster.delete(&kind, &object, &uid, Propagation::Background).await {
                Ok(()) => Fate::Deleted,
                Err(error) if error.is_not_found() => Fate::Kept(Kept::Absent),
                Err(error) => Fate::Failed(error),
            }
        };
        self.gate.write(id, cancel, write).await.unwrap_or(Fate::Left)
    }
}

/// What stands between an object and its deletion.
pub enum Standing {
    Free {
        kind: ApiKind,
        uid: Box<str>,
    },
    /// It is on its way out already.
    Going,
    Kept(Kept),
}

/// Whether the owner may delete an object: its labels and annotations say so, as they are now.
pub async fn standing(cluster: &Cluster, object: &ObjectId, owner: &OwnerKey) -> Result<Standing, ApiError> {
    let kind = match cluster.resolve(&object.group, &object.kind, None).await {
        Ok(kind) => kind,
        // with its kind the object is gone
        Err(error) if error.class == ErrorClass::NoSuchKind => return Ok(Standing::Kept(Kept::Absent)),
        Err(error) => return Err(error),
    };
    let live = match cluster.get_seen(&kind, object).await {
        Ok(Some(live)) => live,
        Ok(None) => return Ok(Standing::Kept(Kept::Absent)),
        Err(error) if error.is_not_found() => return Ok(Standing::Kept(Kept::Absent)),
        Err(error) => return Err(error),
    };
    Ok(match () {
        () if live.owner.as_ref() != Some(owner) => Standing::Kept(Kept::NotOurs),
        () if live.marks.keeps_from_deletion() => Standing::Kept(Kept::Marked),
        () if live.marks.part_of_flux && plan::is_of_flux(object) => Standing::Kept(Kept::Flux),
        () if live.deleting => Standing::Going,
        () => Standing::Free { kind, uid: live.uid },
    })
}
