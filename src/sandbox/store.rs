//! The objects, their versions and the recent changes, in memory.
//!
//! One counter numbers all writes. A write states the version it replaces, so a caller prepares a new object without
//! holding the lock and loses nothing to another writer. Objects are shared and never changed; their JSON is made
//! once, when it is first asked for. The store knows nothing of kinds, requests or rules.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::metadata;
use super::resource::CollectionId;

/// Changes kept per collection for watches that resume. A watcher that is further behind is told to list again.
const CHANGES_MAX: usize = 8192;

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// An object at one version.
#[derive(Debug)]
pub struct Stored {
    pub value: Value,
    pub version: u64,
    body: OnceLock<Bytes>,
    metadata: OnceLock<Bytes>,
}

impl Stored {
    /// An object as an answer to a dry run has it: not stored, but at a version.
    pub fn at(mut value: Value, version: u64) -> Arc<Self> {
        metadata::of(&mut value).insert("resourceVersion".into(), version.to_string().into());
        Arc::new(Self { value, version, body: OnceLock::new(), metadata: OnceLock::new() })
    }

    /// An object that was not stored and has no version.
    pub fn unversioned(mut value: Value) -> Arc<Self> {
        metadata::of(&mut value).remove("resourceVersion");
        Arc::new(Self { value, version: 0, body: OnceLock::new(), metadata: OnceLock::new() })
    }

    /// The object as JSON text without `kind` and `apiVersion`: they depend on how it is asked for.
    pub fn body(&self) -> &Bytes {
        self.body.get_or_init(|| Bytes::from(metadata::json_without_type(&self.value)))
    }

    /// The object reduced to its metadata, as JSON text.
    pub fn metadata_json(&self) -> &Bytes {
        self.metadata.get_or_init(|| Bytes::from(metadata::partial(&self.value).to_string()))
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(metadata::namespace(&self.value), metadata::name(&self.value))
    }

    pub fn uid(&self) -> &str {
        metadata::uid(&self.value)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

/// One write, as watches see it.
#[derive(Debug)]
pub struct Change {
    pub version: u64,
    pub kind: ChangeKind,
    /// The object after the write; a deleted object carries the version of its deletion.
    pub object: Arc<Stored>,
    /// The object before the write.
    pub previous: Option<Arc<Stored>>,
}

/// Why a write was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// Another writer was there first.
    Changed,
    /// There is an object where none was expected.
    Exists,
    /// There is no such object.
    Missing,
}

/// What a watcher gets to see next.
pub enum Changes {
    /// Changes after the version asked for, oldest first, and the version up to which this is complete.
    Some(Vec<Arc<Change>>, u64),
    /// Changes after that version are no longer kept; the oldest kept one is given.
    TooOld(u64),
}

/// An object whose owner was deleted, or whose namespace or definition is going: work for the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    pub collection: CollectionId,
    pub key: ObjectKey,
}

#[derive(Debug)]
struct Collection {
    objects: BTreeMap<ObjectKey, Arc<Stored>>,
    changes: VecDeque<Arc<Change>>,
    /// Changes up to this version are not kept.
    dropped: u64,
    /// Carries the version of the newest change.
    signal: watch::Sender<u64>,
}

impl Collection {
    fn new(dropped: u64, version: u64) -> Self {
        Self { objects: BTreeMap::new(), changes: VecDeque::new(), dropped, signal: watch::Sender::new(version) }
    }
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    collections: HashMap<CollectionId, Collection>,
    /// Every object by uid.
    uids: HashMap<String, Touched>,
    /// Owner's uid → objects that refer to it.
    dependents: HashMap<String, BTreeSet<(CollectionId, ObjectKey)>>,
    /// Owners' uids in `dependents` that no object has.
    dangling: BTreeSet<String>,
    /// Objects that are marked for deletion and still there.
    terminating: BTreeSet<(CollectionId, ObjectKey)>,
    /// Collections that were forgotten, and the version at which.
    forgotten: HashMap<CollectionId, u64>,
}

/// Owned by the server; written by requests and by the collector.
#[derive(Debug)]
pub struct Store {
    state: Mutex<State>,
    /// Carries the version of the newest write that leaves the collector something to do.
    due: watch::Sender<u64>,
}

impl Store {
    pub fn new() -> Self {
        Self { state: Mutex::new(State { version: 1, ..State::default() }), due: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // nothing panics while the lock is held; if it did, the maps would still be whole
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn version(&self) -> u64 {
        self.lock().version
    }

    pub fn get(&self, collection: &CollectionId, key: &ObjectKey) -> Option<Arc<Stored>> {
        self.lock().collections.get(collection)?.objects.get(key).cloned()
    }

    /// The objects of a collection in the order of their keys, and the version at which this holds. An empty
    /// namespace means all.
    pub fn list(&self, collection: &CollectionId, namespace: &str) -> (Vec<Arc<Stored>>, u64) {
        let state = self.lock();
        let Some(found) = state.collections.get(collection) else { return (Vec::new(), state.version) };
        let objects = if namespace.is_empty() {
            found.objects.values().cloned().collect()
        } else {
            let from = ObjectKey::new(namespace, "");
            let inside = found.objects.range(from..).take_while(|(key, _)| key.namespace == namespace);
            inside.map(|(_, object)| Arc::clone(object)).collect()
        };
        (objects, state.version)
    }

    /// Stores a new object. A value that was not stored is given back.
    pub fn create(&self, collection: &CollectionId, value: Value) -> Result<Arc<Stored>, (CommitError, Value)> {
        self.write(collection, value, None)
    }

    /// Replaces an object that is still at version `expected`. A value that was not stored is given back.
    pub fn replace(
        &self,
        collection: &CollectionId,
        value: Value,
        expected: u64,
    ) -> Result<Arc<Stored>, (CommitError, Value)> {
        self.write(collection, value, Some(expected))
    }

    fn write(
        &self,
        collection: &CollectionId,
        value: Value,
        expected: Option<u64>,
    ) -> Result<Arc<Stored>, (CommitError, Value)> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let key = ObjectKey::new(metadata::namespace(&value), metadata::name(&value));
        let version = state.version + 1;
        let entry = state.collection(collection);
        let previous = entry.objects.get(&key).cloned();
        match (&previous, expected) {
            (Some(_), None) => return Err((CommitError::Exists, value)),
            (None, Some(_)) => return Err((CommitError::Missing, value)),
            (Some(found), Some(expected)) if found.version != expected => return Err((CommitError::Changed, value)),
            _ => {}
        }
        let object = Stored::at(value, version);
        entry.objects.insert(key, Arc::clone(&object));
        let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        state.record(collection, Change { version, kind, object: Arc::clone(&object), previous });
        self.signal_due(guard);
        Ok(object)
    }

    /// Removes an object that is still at version `expected`; gives it back as deleted.
    pub fn remove(
        &self,
        collection: &CollectionId,
        key: &ObjectKey,
        expected: u64,
    ) -> Result<Arc<Stored>, CommitError> {
        self.take(collection, key, expected, None)
    }

    /// As [`Store::remove`], with `last` as the state in which watchers see the object go.
    pub fn remove_as(
        &self,
        collection: &CollectionId,
        key: &ObjectKey,
        expected: u64,
        last: Value,
    ) -> Result<Arc<Stored>, CommitError> {
        self.take(collection, key, expected, Some(last))
    }

    fn take(
        &self,
        collection: &CollectionId,
        key: &ObjectKey,
        expected: u64,
        last: Option<Value>,
    ) -> Result<Arc<Stored>, CommitError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let entry = state.collections.get_mut(collection).ok_or(CommitError::Missing)?;
        let found = entry.objects.get(key).ok_or(CommitError::Missing)?;
        if found.version != expected {
            return Err(CommitError::Changed);
        }
        let previous = entry.objects.remove(key).ok_or(CommitError::Missing)?;
        let version = state.version + 1;
        let object = Stored::at(last.unwrap_or_else(|| previous.value.clone()), version);
        let change =
            Change { version, kind: ChangeKind::Deleted, object: Arc::clone(&object), previous: Some(previous) };
        state.record(collection, change);
        self.signal_due(guard);
        Ok(object)
    }

    /// Forgets a collection: its kind is no longer served. Its objects must be gone.
    pub fn forget(&self, collection: &CollectionId) {
        let mut state = self.lock();
        let version = state.version;
        state.collections.remove(collection);
        state.forgotten.insert(collection.clone(), version);
    }

    /// Changes of a collection after `version`.
    pub fn changes(&self, collection: &CollectionId, version: u64) -> Changes {
        let state = self.lock();
        let Some(found) = state.collections.get(collection) else {
            return Changes::Some(Vec::new(), state.version);
        };
        if version > state.version {
            return Changes::TooOld(state.version);
        }
        if version < found.dropped {
            let oldest = found.changes.front().map_or(state.version, |c| c.version);
            return Changes::TooOld(oldest);
        }
        let from = found.changes.partition_point(|change| change.version <= version);
        Changes::Some(found.changes.range(from..).cloned().collect(), state.version)
    }

    /// A signal that changes with every write to the collection.
    pub fn signal(&self, collection: &CollectionId) -> watch::Receiver<u64> {
        let mut state = self.lock();
        state.collection(collection).signal.subscribe()
    }

    /// A signal that changes with every write that leaves dependents without an owner or objects on their way out.
    pub fn due(&self) -> watch::Receiver<u64> {
        self.due.subscribe()
    }

    fn signal_due(&self, state: MutexGuard<'_, State>) {
        let version = (!state.dangling.is_empty() || !state.terminating.is_empty()).then_some(state.version);
        drop(state);
        if let Some(version) = version {
            self.due.send_replace(version);
        }
    }

    pub fn has_uid(&self, uid: &str) -> bool {
        self.lock().uids.contains_key(uid)
    }

    /// Objects that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<Touched> {
        let state = self.lock();
        let found = state.dependents.get(uid).into_iter().flatten();
        found.map(|(collection, key)| Touched { collection: collection.clone(), key: key.clone() }).collect()
    }

    /// Uids that objects name as owners and that no object has.
    pub fn missing_owners(&self) -> Vec<String> {
        self.lock().dangling.iter().cloned().collect()
    }

    /// Objects that are marked for deletion and still there.
    pub fn terminating(&self) -> Vec<Touched> {
        let state = self.lock();
        let touched = |(collection, key): &(CollectionId, ObjectKey)| Touched {
            collection: collection.clone(),
            key: key.clone(),
        };
        state.terminating.iter().map(touched).collect()
    }

    /// Everything stored in a namespace.
    pub fn contents(&self, namespace: &str) -> Vec<Touched> {
        let state = self.lock();
        let from = ObjectKey::new(namespace, "");
        let mut found = Vec::new();
        for (id, collection) in &state.collections {
            let inside = collection.objects.range(from.clone()..).take_while(|(key, _)| key.namespace == namespace);
            found.extend(inside.map(|(key, _)| Touched { collection: id.clone(), key: key.clone() }));
        }
        found
    }
}

impl State {
    fn collection(&mut self, id: &CollectionId) -> &mut Collection {
        let forgotten = self.forgotten.get(id).copied().unwrap_or(0);
        let version = self.version;
        self.collections.entry(id.clone()).or_insert_with(|| Collection::new(forgotten, version))
    }

    fn record(&mut self, id: &CollectionId, change: Change) {
        self.version = change.version;
        let entry = (id.clone(), change.object.key());
        if let Some(previous) = &change.previous {
            for owner in metadata::owner_uids(&previous.value) {
                if let Some(set) = self.dependents.get_mut(owner) {
                    set.remove(&entry);
                    if set.is_empty() {
                        self.dependents.remove(owner);
                        self.dangling.remove(owner);
                    }
                }
            }
            self.uids.remove(previous.uid());
        }
        if change.kind == ChangeKind::Deleted {
            self.terminating.remove(&entry);
            let uid = change.object.uid();
            if self.dependents.contains_key(uid) {
                self.dangling.insert(uid.to_owned());
            }
        } else {
            self.uids.insert(change.object.uid().to_owned(), Touched { collection: id.clone(), key: entry.1.clone() });
            for owner in metadata::owner_uids(&change.object.value) {
                self.dependents.entry(owner.to_owned()).or_default().insert(entry.clone());
                if !self.uids.contains_key(owner) {
                    self.dangling.insert(owner.to_owned());
                }
            }
            if metadata::is_terminating(&change.object.value) {
                self.terminating.insert(entry);
            }
        }
        let Some(collection) = self.collections.get_mut(id) else { return };
        let version = change.version;
        collection.changes.push_back(Arc::new(change));
        if collection.changes.len() > CHANGES_MAX
            && let Some(oldest) = collection.changes.pop_front()
        {
            collection.dropped = oldest.version;
        }
        collection.signal.send_replace(version);
    }
}

/// The `continue` token of a list: where the next part starts, and the version the list began at.
pub fn continue_token(version: u64, after: &ObjectKey) -> String {
    use base64::Engine as _;
    let plain = json!({ "rv": version, "namespace": after.namespace, "name": after.name }).to_string();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(plain)
}

/// Reads a `continue` token; `None` if it is not one of ours.
pub fn read_continue_token(token: &str) -> Option<(u64, ObjectKey)> {
    use base64::Engine as _;
    let plain = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).ok()?;
    let value: Value = serde_json::from_slice(&plain).ok()?;
    let key = ObjectKey::new(value["namespace"].as_str()?, value["name"].as_str()?);
    Some((value["rv"].as_u64()?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_maps() -> CollectionId {
        CollectionId { group: "".into(), plural: "configmaps".into() }
    }

    fn object(name: &str, owner: Option<&str>) -> Value {
        let mut value = json!({"metadata": {"namespace": "a", "name": name, "uid": format!("uid-{name}")}});
        if let Some(owner) = owner {
            value["metadata"]["ownerReferences"] = json!([{ "uid": owner }]);
        }
        value
    }

    #[test]
    fn a_write_against_an_older_version_is_refused() {
        let store = Store::new();
        let first = store.create(&config_maps(), object("x", None)).unwrap();
        assert_eq!(store.create(&config_maps(), object("x", None)).unwrap_err().0, CommitError::Exists);
        let second = store.replace(&config_maps(), object("x", None), first.version).unwrap();
        assert!(second.version > first.version);
        let again = store.replace(&config_maps(), object("x", None), first.version);
        assert_eq!(again.unwrap_err().0, CommitError::Changed);
        assert_eq!(store.remove(&config_maps(), &first.key(), first.version).unwrap_err(), CommitError::Changed);
    }

    #[test]
    fn changes_come_in_order_and_only_after_the_version_asked_for() {
        let store = Store::new();
        let first = store.create(&config_maps(), object("x", None)).unwrap();
        store.create(&config_maps(), object("y", None)).unwrap();
        store.remove(&config_maps(), &first.key(), first.version).unwrap();
        let Changes::Some(changes, version) = store.changes(&config_maps(), first.version) else {
            panic!("nothing was dropped");
        };
        assert_eq!(changes.iter().map(|c| c.kind).collect::<Vec<_>>(), [ChangeKind::Added, ChangeKind::Deleted]);
        assert_eq!(version, store.version());
    }

    #[test]
    fn a_watcher_that_is_too_far_behind_is_told_so() {
        let store = Store::new();
        let start = store.create(&config_maps(), object("x", None)).unwrap();
        let mut version = start.version;
        for _ in 0..=CHANGES_MAX {
            version = store.replace(&config_maps(), object("x", None), version).unwrap().version;
        }
        assert!(matches!(store.changes(&config_maps(), start.version), Changes::TooOld(_)));
        assert!(matches!(store.changes(&config_maps(), version - 1), Changes::Some(changes, _) if changes.len() == 1));
    }

    #[test]
    fn dependents_follow_the_owner_references() {
        let store = Store::new();
        let child = store.create(&config_maps(), object("child", Some("uid-x"))).unwrap();
        assert_eq!(store.missing_owners(), ["uid-x"]);
        assert_eq!(store.dependents("uid-x")[0].key, child.key());
        store.replace(&config_maps(), object("child", None), child.version).unwrap();
        assert!(store.dependents("uid-x").is_empty());
    }

    #[test]
    fn a_continue_token_reads_back() {
        let key = ObjectKey::new("a", "b");
        assert_eq!(read_continue_token(&continue_token(7, &key)), Some((7, key)));
        assert_eq!(read_continue_token("nonsense"), None);
    }
}
