//! Objects beyond what [`Observed`] keeps, watched while an application asks how they are doing: single ones, whoever
//! applies them, and all that an application has of one kind where their whole content counts.
//!
//! ```text
//!  Observed::follow(owner, what) ─▶ Followed ─▶ a watch of its own ─▶ Look at an object, and the owner's bell
//! ```
//!
//! The watch ends with the [`Followed`]. A kind that is not served yet is asked for again until it is. The content of no
//! Secret is watched.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::api::{OWNER_NAME_LABEL, OWNER_NAMESPACE_LABEL};
use crate::manifest::{GroupKind, ObjectId};

use super::connection::Cluster;
use super::discovery::ApiKind;
use super::error::{ApiError, ErrorClass};
use super::observed::{Observed, Shared, has_health, is_newer};
use super::seen::{OwnerKey, Seen, WireObject};
use super::watch::{Collection, WatchEvent, Watchable, Watcher};

/// Between two questions for a kind that is not served: its definition may be applied at any moment.
const KIND_PAUSE: Duration = Duration::from_millis(500);
const KIND_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Following {
    pub what: What,
    /// With all its content, not only what is known to be about health.
    pub whole: bool,
    /// As which service account, by namespace and name; `None`: as ourselves.
    pub account: Option<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Object(ObjectId),
    /// All objects of a kind that carry the owner's labels, in one namespace if there is one.
    Owned(GroupKind, Option<String>),
}

/// Something that is being followed; dropping it ends that.
pub struct Followed {
    pub following: Following,
    seen: watch::Receiver<Sight>,
    task: AbortHandle,
}

/// What is seen of an object.
#[derive(Clone, Debug)]
pub enum Look {
    /// Nothing is known yet; why the last try to find out failed.
    Unknown(Option<ApiError>),
    /// It can't be looked at before a person does something: a right is missing, or no object can have this name.
    Refused(ApiError),
    /// The API server doesn't serve its kind.
    NoSuchKind(ApiError),
    Absent,
    Seen(Arc<Individual>),
}

/// One object.
#[derive(Clone, Debug)]
pub struct Individual {
    pub seen: Seen,
    /// If it is followed whole.
    object: Option<Value>,
}

impl Individual {
    pub fn object(&self) -> &Value {
        self.object.as_ref().unwrap_or(&Value::Null)
    }

    /// True if something newer of the same object is known.
    pub fn is_older_than(&self, known: &Seen) -> bool {
        is_newer(&known.resource_version, &self.seen.resource_version)
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    pub fn look(&self, id: &ObjectId) -> Look {
        let sight = self.seen.borrow();
        match &sight.state {
            State::Unknown(error) => Look::Unknown(error.clone()),
            State::Refused(error) => Look::Refused(error.clone()),
            State::NoSuchKind(error) => Look::NoSuchKind(error.clone()),
            State::Known => {
                let found = match self.following.what {
                    // of a kind without namespaces it has none, whatever was said
                    What::Object(_) => sight.objects.values().next(),
                    What::Owned(..) => sight.objects.get(id),
                };
                found.map_or(Look::Absent, |individual| Look::Seen(individual.clone()))
            }
        }
    }

    /// Returns once anything is known.
    pub async fn known(&self) {
        let mut seen = self.seen.clone();
        // an error says that the watch is over, which a look tells, too
        let _ = seen.wait_for(|sight| !matches!(sight.state, State::Unknown(_))).await;
    }
}

impl Observed {
    /// Follows something from now on. The owner's bell rings when anything about it changed that anyone decides upon.
    pub fn follow(&self, owner: &OwnerKey, following: Following) -> Followed {
        let (told, seen) = watch::channel(Sight::default());
        let own = self.0.cluster.clone();
        let cluster = match &following.account {
            None => Ok(own.clone()),
            Some((namespace, name)) => own.as_service_account(namespace, name),
        };
        let teller = Teller { owner: owner.clone(), told, observed: Arc::downgrade(&self.0) };
        let (name, what) = (following.name(), following.clone());
        let task = own.tasks().spawn(name, async move {
            match cluster {
                Ok(cluster) => follow(cluster, what, teller).await,
                Err(error) => teller.tell(|sight| sight.lost(error)),
            }
        });
        Followed { following, seen, task }
    }

    /// What to follow of the owner's objects of one kind that live in these namespaces.
    pub fn owned_of<'a>(&self, kind: &GroupKind, namespaces: impl Iterator<Item = &'a str>) -> Vec<Following> {
        let mut places: Vec<Option<String>> =
            if self.0.by_namespace() { namespaces.map(|n| Some(n.to_owned())).collect() } else { vec![None] };
        places.sort();
        places.dedup();
        let owned = |place| Following { what: What::Owned(kind.clone(), place), whole: true, account: None };
        places.into_iter().map(owned).collect()
    }
}

impl Following {
    fn name(&self) -> String {
        match &self.what {
            What::Object(id) => format!("the watch of `{id}`"),
            What::Owned(kind, _) => format!("the watch of an application's `{}`", kind.kind),
        }
    }

    fn group_kind(&self) -> (&str, &str) {
        match &self.what {
            What::Object(id) => (&id.group, &id.kind),
            What::Owned(kind, _) => (&kind.group, &kind.kind),
        }
    }

    /// Whether it is what an object of this owner is seen in.
    pub fn shows(&self, id: &ObjectId) -> bool {
        match &self.what {
            What::Object(object) => object == id,
            What::Owned(kind, place) => {
                kind.group == id.group && kind.kind == id.kind && place.as_ref().is_none_or(|n| *n == id.namespace)
            }
        }
    }

    fn collection(&self, kind: &ApiKind, owner: &OwnerKey) -> Result<Collection, ApiError> {
        let refused = |why: &str| Err(ApiError::new(ErrorClass::BadRequest, why.to_owned()));
        if !kind.watchable {
            return refused("objects of this kind can't be watched");
        }
        let secret = kind.group.is_empty() && &*kind.kind == "Secret";
        let whole = self.whole && !secret;
        let metadata_only = !whole && !has_health(&kind.group, &kind.kind);
        let collection = Collection { metadata_only, ..Collection::all(kind.clone()) };
        match &self.what {
            What::Object(id) if kind.namespaced && id.namespace.is_empty() => {
                refused("it lives in a namespace, and none is named")
            }
            What::Object(id) => Ok(Collection {
                namespace: kind.namespaced.then(|| id.namespace.clone()),
                fields: Some(format!("metadata.name={}", id.name)),
                ..collection
            }),
            What::Owned(_, place) => Ok(Collection {
                namespace: place.clone().filter(|place| kind.namespaced && !place.is_empty()),
                labels: Some(format!("{OWNER_NAME_LABEL}={},{OWNER_NAMESPACE_LABEL}={}", owner.name, owner.namespace)),
                ..collection
            }),
        }
    }
}

/// All that is seen; written by the watch.
#[derive(Debug, Default)]
struct Sight {
    state: State,
    objects: HashMap<ObjectId, Arc<Individual>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Unknown(Option<ApiError>),
    Refused(ApiError),
    NoSuchKind(ApiError),
    Known,
}

impl Default for State {
    fn default() -> Self {
        Self::Unknown(None)
    }
}

impl Sight {
    fn turn(&mut self, state: State) -> bool {
        let changed = self.state != state;
        if state != State::Known {
            self.objects.clear();
        }
        self.state = state;
        changed
    }

    fn see(&mut self, new: Individual) -> bool {
        let same =
            self.objects.get(&new.seen.id).is_some_and(|old| old.seen.is_as(&new.seen) && old.object == new.object);
        self.objects.insert(new.seen.id.clone(), Arc::new(new));
        !same
    }

    fn list(&mut self, items: Vec<Individual>) -> bool {
        let mut changed = self.turn(State::Known);
        let before = self.objects.len();
        self.objects.retain(|id, _| items.iter().any(|item| item.seen.id == *id));
        changed |= self.objects.len() != before;
        for item in items {
            changed |= self.see(item);
        }
        changed
    }

    /// The connection is down: what was seen still counts, unless it may not be looked at any more.
    fn lost(&mut self, error: ApiError) -> bool {
        match error.class {
            ErrorClass::Forbidden | ErrorClass::BadRequest => self.turn(State::Refused(error)),
            ErrorClass::NoSuchKind | ErrorClass::NotFound => self.turn(State::NoSuchKind(error)),
            _ if matches!(self.state, State::Unknown(_)) => self.turn(State::Unknown(Some(error))),
            _ => false,
        }
    }
}

/// Where the watch puts what it sees.
struct Teller {
    owner: OwnerKey,
    told: watch::Sender<Sight>,
    observed: Weak<Shared>,
}

impl Teller {
    /// `change` says whether anybody is to hear of it.
    fn tell(&self, change: impl FnOnce(&mut Sight) -> bool) {
        if self.told.send_if_modified(change)
            && let Some(observed) = self.observed.upgrade()
        {
            observed.ring(&self.owner);
        }
    }
}

/// Follows until aborted, in the version that the server prefers.
async fn follow(cluster: Cluster, following: Following, teller: Teller) {
    let (group, kind) = following.group_kind();
    let mut pause = KIND_PAUSE;
    loop {
        match cluster.resolve(group, kind, None).await {
            Ok(kind) => match following.collection(&kind, &teller.owner) {
                Ok(collection) => {
                    pause = KIND_PAUSE;
                    watch_it(&cluster, &kind, collection, following.whole, &teller).await;
                }
                Err(error) => {
                    teller.tell(|sight| sight.lost(error));
                    return;
                }
            },
            Err(error) => teller.tell(|sight| sight.lost(error)),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(KIND_PAUSE_MAX);
    }
}

/// Watches until the kind is not served any more.
async fn watch_it(cluster: &Cluster, kind: &ApiKind, collection: Collection, whole: bool, teller: &Teller) {
    let content = !collection.metadata_only;
    let read = |object: WholeObject| object.into_individual(kind, content, whole);
    let mut watcher = Watcher::<WholeObject>::new(cluster.clone(), collection);
    loop {
        match watcher.next().await {
            WatchEvent::Listed { items, .. } => {
                let items = items.into_iter().map(read).collect();
                teller.tell(|sight| sight.list(items));
            }
            WatchEvent::Changed(object) => {
                let new = read(object);
                teller.tell(|sight| sight.see(new));
            }
            WatchEvent::Deleted(object) => {
                let id = read(object).seen.id;
                teller.tell(|sight| sight.objects.remove(&id).is_some());
            }
            WatchEvent::Resumed => {}
            WatchEvent::Lost { error, .. } => {
                let gone = error.is_not_found();
                teller.tell(|sight| sight.lost(error));
                if gone {
                    // another version of it may be served now; what is known of the kind is outdated
                    let _ = cluster.refresh_group(&kind.group).await;
                    return;
                }
            }
        }
    }
}

/// An object as it comes over the wire, and what is kept of all of them.
#[derive(Deserialize)]
#[serde(transparent)]
struct WholeObject(Value);

impl Watchable for WholeObject {
    fn resource_version(&self) -> &str {
        self.0.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default()
    }
}

impl WholeObject {
    fn into_individual(self, kind: &ApiKind, content: bool, whole: bool) -> Individual {
        let Self(mut object) = self;
        // what can't be read is as good as absent: each field is lenient
        let wire = WireObject::deserialize(&object).unwrap_or_default();
        let (seen, _) = wire.into_seen(kind, content);
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            // they change with every touch and say nothing about health
            for field in ["managedFields", "resourceVersion"] {
                metadata.remove(field);
            }
        }
        Individual { seen, object: whole.then_some(object) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind(namespaced: bool, watchable: bool) -> ApiKind {
        ApiKind { watchable, ..ApiKind::new("example.org", "v1", "Database", "databases", namespaced) }
    }

    #[test]
    fn only_what_is_asked_about_is_watched_and_only_where_it_can_be() {
        let owner = OwnerKey::new("flux-system", "app");
        let object = |namespace: &str| What::Object(ObjectId::new("example.org", "Database", namespace, "main"));
        let owned = |place: Option<&str>| What::Owned(GroupKind::default(), place.map(str::to_owned));
        let labels = "kustomize.toolkit.fluxcd.io/name=app,kustomize.toolkit.fluxcd.io/namespace=flux-system";
        let spell = |kind: &ApiKind, what: What, whole: bool| {
            Following { what, whole, account: None }.collection(kind, &owner).map_or_else(
                |error| error.message,
                |c| {
                    let content = if c.metadata_only { "metadata" } else { "content" };
                    format!("{:?} {} {content}", c.namespace, c.fields.or(c.labels).unwrap_or_default())
                },
            )
        };
        for (kind, what, whole, expected) in [
            (kind(true, true), object("shop"), false, r#"Some("shop") metadata.name=main content"#.to_owned()),
            (kind(true, true), object(""), false, "it lives in a namespace, and none is named".to_owned()),
            // as in Flux, a namespace that there can't be is not minded
            (kind(false, true), object("shop"), false, "None metadata.name=main content".to_owned()),
            (kind(true, false), object("shop"), false, "objects of this kind can't be watched".to_owned()),
            (kind(true, true), owned(None), true, format!("None {labels} content")),
            (kind(true, true), owned(Some("shop")), true, format!(r#"Some("shop") {labels} content"#)),
            (ApiKind::config_map(), object("shop"), false, r#"Some("shop") metadata.name=main metadata"#.to_owned()),
            (ApiKind::config_map(), object("shop"), true, r#"Some("shop") metadata.name=main content"#.to_owned()),
            // never that of a Secret
            (ApiKind::secret(), object("shop"), true, r#"Some("shop") metadata.name=main metadata"#.to_owned()),
        ] {
            assert_eq!(spell(&kind, what, whole), expected);
        }
    }

    #[test]
    fn news_are_what_anyone_decides_upon() {
        let individual = |version: u32, phase: &str| {
            let object = json!({
                "metadata": {"name": "main", "namespace": "shop", "uid": "u", "resourceVersion": version.to_string(),
                    "managedFields": [{"manager": format!("{version}")}]},
                "data": {"phase": phase},
            });
            WholeObject(object).into_individual(&kind(true, true), true, true)
        };
        let mut sight = Sight::default();
        assert!(sight.list(vec![individual(5, "a")]));
        assert!(!sight.see(individual(6, "a")), "nothing but the version changed");
        let known = sight.objects.values().next().unwrap();
        assert!(!known.is_older_than(&individual(6, "a").seen) && known.is_older_than(&individual(7, "a").seen));
        assert!(sight.see(individual(7, "b")));
        assert!(!sight.list(vec![individual(8, "b")]));
        assert!(!sight.lost(ApiError::new(ErrorClass::Unreachable, "down")), "what was seen still counts");
        assert!(sight.lost(ApiError::new(ErrorClass::Forbidden, "no")), "but not what may not be seen any more");
        assert!(sight.list(vec![individual(9, "b")]));
        assert!(sight.list(Vec::new()), "it is gone");
    }
}
