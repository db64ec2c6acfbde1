//! What the controllers know of one kind: a copy kept by a watch, and ahead of it by the answers to our own writes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, Resource};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::super::follow::{Change, follow};

/// Namespace and name.
pub(super) type Key = (String, String);

pub(super) fn key_of(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The owner that controls an object.
pub(super) fn controller_of(object: &impl ResourceExt) -> Option<&OwnerReference> {
    object.owner_references().iter().find(|owner| owner.controller == Some(true))
}

/// Written by [`Mirror::keep`] and by whoever gets an answer to a write; read by all controllers.
pub(super) struct Mirror<K> {
    known: Mutex<Known<K>>,
}

struct Known<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// The newest version that the watch delivered.
    seen: u64,
}

impl<K> Default for Mirror<K> {
    fn default() -> Self {
        Self { known: Mutex::new(Known { objects: BTreeMap::new(), seen: 0 }) }
    }
}

impl<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug> Mirror<K> {
    /// Follows the kind for ever. `changed` sees each object that came, changed or went; `listed` gets one permit once
    /// the mirror is complete.
    pub(super) async fn keep(&self, client: Client, listed: &Semaphore, changed: impl Fn(&K)) {
        let mut first = true;
        follow(&Api::all(client), |change| match change {
            Change::All(list) => {
                let new: BTreeMap<Key, Arc<K>> =
                    list.into_iter().map(|object| (key_of(&object), Arc::new(object))).collect();
                let seen = new.values().map(|object| version(object.as_ref())).max().unwrap_or_default();
                let old = std::mem::replace(&mut *self.lock(), Known { objects: new.clone(), seen });
                old.objects.values().chain(new.values()).for_each(|object| changed(object));
                if std::mem::take(&mut first) {
                    listed.add_permits(1);
                }
            }
            Change::Stored(object) => {
                let object = Arc::new(object);
                self.lock().store(object.clone());
                changed(&object);
            }
            Change::Removed(object) => {
                self.lock().remove(&object);
                changed(&object);
            }
        })
        .await;
    }

    /// Takes in the answer to a write, unless something newer is known.
    pub(super) fn remember(&self, object: K) {
        let mut known = self.lock();
        // The watch is ahead of the answer, and what it doesn't know has been deleted since.
        let gone = version(&object) <= known.seen && !known.objects.contains_key(&key_of(&object));
        if !gone {
            let seen = known.seen;
            known.store(Arc::new(object));
            known.seen = seen;
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.lock().objects.get(key).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<K>> {
        self.lock().objects.values().cloned().collect()
    }

    /// The objects in `namespace` that the owner with `uid` controls, sorted by name.
    pub(super) fn controlled_by(&self, namespace: &str, uid: &str) -> Vec<Arc<K>> {
        let known = self.lock();
        known
            .objects
            .range((namespace.to_owned(), String::new())..)
            .take_while(|((of, _), _)| of == namespace)
            .filter(|(_, object)| controller_of(object.as_ref()).is_some_and(|owner| owner.uid == uid))
            .map(|(_, object)| object.clone())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known<K>> {
        // Every critical section leaves the map whole, even after a panic elsewhere.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Resource<DynamicType = ()>> Known<K> {
    fn store(&mut self, object: Arc<K>) {
        let version = version(object.as_ref());
        self.seen = self.seen.max(version);
        let key = key_of(object.as_ref());
        if self.objects.get(&key).is_none_or(|known| self::version(known.as_ref()) <= version) {
            self.objects.insert(key, object);
        }
    }

    fn remove(&mut self, object: &K) {
        self.seen = self.seen.max(version(object));
        let key = key_of(object);
        // A younger object of the same name is known from the answer to its creation.
        if self.objects.get(&key).is_some_and(|known| known.uid() == object.uid()) {
            self.objects.remove(&key);
        }
    }
}

/// Resource versions of one server can be compared as numbers (KEP-5504).
fn version(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, version: u64) -> Pod {
        let metadata = json!({ "name": "p", "namespace": "n", "uid": uid, "resourceVersion": version.to_string() });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    fn version_in(mirror: &Mirror<Pod>) -> Option<u64> {
        mirror.get(&("n".into(), "p".into())).map(|pod| version(pod.as_ref()))
    }

    #[test]
    fn an_answer_is_known_before_the_watch_delivers_it() {
        let mirror = Mirror::default();
        mirror.remember(pod("a", 5));
        assert_eq!(version_in(&mirror), Some(5));
        mirror.lock().store(Arc::new(pod("a", 4)));
        assert_eq!(version_in(&mirror), Some(5), "an older state of the watch replaces a newer answer");
    }

    #[test]
    fn a_late_answer_does_not_bring_back_what_was_deleted() {
        let mirror = Mirror::default();
        mirror.lock().store(Arc::new(pod("a", 5)));
        mirror.lock().remove(&pod("a", 6));
        mirror.remember(pod("a", 5));
        assert_eq!(version_in(&mirror), None);
        mirror.remember(pod("b", 7));
        mirror.lock().remove(&pod("a", 6));
        assert_eq!(version_in(&mirror), Some(7), "the end of the older object removes the younger");
    }
}
