//! Single objects, whoever applies them: each is watched by its name while an application asks how it is doing.
//!
//! ```text
//!  Observed::follow(owner, object) ─▶ Followed ─▶ a watch of that one name ─▶ Look, and the owner's bell
//! ```
//!
//! The watch ends with the [`Followed`]. A kind that is not served yet is asked for again until it is.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::manifest::ObjectId;

use super::connection::Cluster;
use super::discovery::ApiKind;
use super::error::{ApiError, ErrorClass};
use super::observed::{Observed, Shared, has_health};
use super::seen::{OwnerKey, Seen, WireObject};
use super::watch::{Collection, WatchEvent, Watcher};

/// Between two questions for a kind that is not served: its definition may be applied at any moment.
const KIND_PAUSE: Duration = Duration::from_millis(500);
const KIND_PAUSE_MAX: Duration = Duration::from_secs(5);

/// An object that is being followed; dropping it ends that.
pub struct Followed {
    pub id: ObjectId,
    look: watch::Receiver<Look>,
    task: AbortHandle,
}

/// What is seen of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing is known yet; why the last try to find out failed.
    Unknown(Option<ApiError>),
    /// It can't be looked at before a person does something: a right is missing, or no object can have this name.
    Refused(ApiError),
    /// The API server doesn't serve its kind.
    NoSuchKind(ApiError),
    Absent,
    Seen(Arc<Seen>),
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    pub fn look(&self) -> Look {
        self.look.borrow().clone()
    }

    /// Returns once anything is known.
    pub async fn known(&self) {
        let mut look = self.look.clone();
        // an error says that the watch is over, which a look tells, too
        let _ = look.wait_for(|look| !matches!(look, Look::Unknown(_))).await;
    }
}

impl Observed {
    /// Follows one object from now on. The owner's bell rings when something about it changed that anyone decides upon.
    pub fn follow(&self, owner: &OwnerKey, id: ObjectId) -> Followed {
        let (told, look) = watch::channel(Look::Unknown(None));
        let cluster = self.0.cluster.clone();
        let name = format!("the watch of `{id}`");
        let sight = Sight { owner: owner.clone(), told, observed: Arc::downgrade(&self.0) };
        let task = cluster.tasks().spawn(name, follow(cluster.clone(), id.clone(), sight));
        Followed { id, look, task }
    }
}

/// Where the watch puts what it sees.
struct Sight {
    owner: OwnerKey,
    told: watch::Sender<Look>,
    observed: Weak<Shared>,
}

impl Sight {
    fn tell(&self, new: Look) {
        let changed = self.told.send_if_modified(|look| {
            let same = match (&*look, &new) {
                (Look::Seen(old), Look::Seen(new)) => old.is_as(new),
                (old, new) => old == new,
            };
            *look = new;
            !same
        });
        if changed && let Some(observed) = self.observed.upgrade() {
            observed.ring(&self.owner);
        }
    }

    /// The connection is down: what was seen still counts, unless it may not be looked at any more.
    fn lost(&self, error: ApiError) {
        match error.class {
            ErrorClass::Forbidden | ErrorClass::BadRequest => self.tell(Look::Refused(error)),
            ErrorClass::NoSuchKind | ErrorClass::NotFound => self.tell(Look::NoSuchKind(error)),
            _ if matches!(*self.told.borrow(), Look::Unknown(_)) => self.tell(Look::Unknown(Some(error))),
            _ => {}
        }
    }
}

/// Follows one object until aborted, in the version that the server prefers.
async fn follow(cluster: Cluster, id: ObjectId, sight: Sight) {
    let mut pause = KIND_PAUSE;
    loop {
        match cluster.resolve(&id.group, &id.kind, None).await {
            Ok(kind) => match collection(&kind, &id) {
                Ok(collection) => {
                    pause = KIND_PAUSE;
                    watch_one(&cluster, &kind, collection, &sight).await;
                }
                Err(error) => {
                    sight.tell(Look::Refused(error));
                    return;
                }
            },
            Err(error) => sight.lost(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(KIND_PAUSE_MAX);
    }
}

/// The collection of this one object.
fn collection(kind: &ApiKind, id: &ObjectId) -> Result<Collection, ApiError> {
    let refused = |why: &str| Err(ApiError::new(ErrorClass::BadRequest, why.to_owned()));
    if !kind.watchable {
        return refused("objects of this kind can't be watched");
    }
    if kind.namespaced && id.namespace.is_empty() {
        return refused("it lives in a namespace, and none is named");
    }
    Ok(Collection {
        namespace: kind.namespaced.then(|| id.namespace.clone()),
        fields: Some(format!("metadata.name={}", id.name)),
        metadata_only: !has_health(&kind.group, &kind.kind),
        ..Collection::all(kind.clone())
    })
}

/// Watches until the kind is not served any more.
async fn watch_one(cluster: &Cluster, kind: &ApiKind, collection: Collection, sight: &Sight) {
    let content = !collection.metadata_only;
    let seen = |object: WireObject| Look::Seen(Arc::new(object.into_seen(kind, content).0));
    let mut watcher = Watcher::<WireObject>::new(cluster.clone(), collection);
    loop {
        match watcher.next().await {
            WatchEvent::Listed { mut items, .. } => sight.tell(items.pop().map_or(Look::Absent, seen)),
            WatchEvent::Changed(object) => sight.tell(seen(object)),
            WatchEvent::Deleted(_) => sight.tell(Look::Absent),
            WatchEvent::Resumed => {}
            WatchEvent::Lost { error, .. } => {
                let gone = error.is_not_found();
                sight.lost(error);
                if gone {
                    // another version of it may be served now; what is known of the kind is outdated
                    let _ = cluster.refresh_group(&kind.group).await;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_is_watched_by_its_name_and_only_where_it_can_be() {
        let kind = |plural, namespaced, watchable| ApiKind {
            watchable,
            ..ApiKind::new("example.org", "v1", "Database", plural, namespaced)
        };
        let id = |namespace: &str| ObjectId::new("example.org", "Database", namespace, "main");
        let spell = |kind: &ApiKind, id: &ObjectId| match collection(kind, id) {
            Ok(c) => format!("{:?} {:?} {}", c.namespace, c.fields.unwrap_or_default(), c.metadata_only),
            Err(error) => error.message,
        };
        for (kind, namespace, expected) in [
            (kind("databases", true, true), "shop", r#"Some("shop") "metadata.name=main" false"#),
            (kind("databases", true, true), "", "it lives in a namespace, and none is named"),
            // as in Flux, a namespace that there can't be is not minded
            (kind("databases", false, true), "shop", r#"None "metadata.name=main" false"#),
            (kind("databases", true, false), "shop", "objects of this kind can't be watched"),
            (ApiKind::secret(), "shop", r#"Some("shop") "metadata.name=main" true"#),
        ] {
            assert_eq!(spell(&kind, &id(namespace)), expected);
        }
    }
}
