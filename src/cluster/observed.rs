//! What is seen of the objects that we own: one shared watch per kind (watched.rs), one store.
//!
//! ```text
//!  watch of each kind in use ──▶ store by id, by owner ──▶ bells, one per owner
//!                          ▲                ▲
//!       events of an object that is         └── answers to our own writes
//!       being written to wait here
//! ```
//!
//! Restricted to objects with our owner label. No values are kept: a digest of what was sent, a hash of which fields are
//! ours, and the few fields that health depends on.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::manifest::{GroupKind, ObjectId, Pointer};

use super::connection::Cluster;
use super::fields::EntryHash;
use super::gate::WriteGate;
use super::objects::Answer;
use super::paths::Drift;
use super::seen::{Managed, OwnerKey, Seen, WireObject};
use super::watch::Watchable;
use super::watched::{KindWatch, Watching};

/// How our objects are watched.
#[derive(Clone, Debug)]
pub struct ObservedOptions {
    /// One watch for each namespace that is asked for, since no more is allowed; else one for all of a kind.
    pub by_namespace: bool,
    /// How long to wait for the first list of a kind.
    pub list_timeout: Duration,
}

impl Default for ObservedOptions {
    fn default() -> Self {
        Self { by_namespace: false, list_timeout: Duration::from_secs(30) }
    }
}

/// How a declared object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// As it was declared, and nobody took a field of ours since.
    Held,
    Absent,
    /// Being deleted: it can't be brought back before it is gone.
    Deleting,
    /// Something else was sent last, or nothing.
    Outdated,
    /// A field that we sent was changed or taken by someone.
    Drifted,
    /// Sent by an earlier process, and which fields are ours does not show that all is well. One apply or dry run tells.
    Undecided,
}

/// The store. Clones share it; the watches end with the last clone.
#[derive(Clone)]
pub struct Observed(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub cluster: Cluster,
    pub(super) gate: WriteGate,
    pub(super) options: ObservedOptions,
    store: Mutex<Store>,
}

/// Written by the watches (`listed`, `see`, `gone`) and by answers (`note`).
#[derive(Default)]
pub(super) struct Store {
    objects: HashMap<ObjectId, Slot>,
    owners: HashMap<OwnerKey, Owner>,
    pub(super) kinds: HashMap<Watching, KindWatch>,
    /// The newest event of each object that is being written to.
    held_back: HashMap<ObjectId, Told>,
}

struct Slot {
    seen: Arc<Seen>,
    /// Our entry's hash when we last knew that the object is as declared.
    expected: Option<EntryHash>,
    /// Who holds which fields, kept only while our entry is not as expected.
    managed: Option<Box<Managed>>,
}

struct Owner {
    objects: BTreeSet<ObjectId>,
    bell: watch::Sender<u64>,
}

pub(super) enum Told {
    Changed(Box<Seen>, Box<Managed>),
    Deleted(ObjectId),
}

impl Drop for Shared {
    fn drop(&mut self) {
        for kind in self.store.get_mut().unwrap_or_else(PoisonError::into_inner).kinds.values() {
            kind.task.abort();
        }
    }
}

impl Observed {
    pub fn new(cluster: Cluster, gate: WriteGate, options: ObservedOptions) -> Self {
        let shared = Arc::new(Shared { cluster, gate, options, store: Mutex::default() });
        let weak = Arc::downgrade(&shared);
        shared.gate.on_answer(move |id| {
            if let Some(shared) = weak.upgrade() {
                shared.release(id);
            }
        });
        Self(shared)
    }

    pub fn get(&self, id: &ObjectId) -> Option<Arc<Seen>> {
        self.0.store().objects.get(id).map(|slot| slot.seen.clone())
    }

    /// All objects that carry this owner's labels, in order.
    pub fn owned(&self, owner: &OwnerKey) -> Vec<Arc<Seen>> {
        let store = self.0.store();
        let Some(owner) = store.owners.get(owner) else { return Vec::new() };
        owner.objects.iter().filter_map(|id| store.objects.get(id)).map(|slot| slot.seen.clone()).collect()
    }

    /// A bell that rings whenever an object of this owner (before or after the change) changed in a way that anyone
    /// decides upon.
    pub fn subscribe(&self, owner: &OwnerKey) -> watch::Receiver<u64> {
        self.0.store().owner(owner).bell.subscribe()
    }

    /// How a declared object stands: `digest` is what its `afresh.dev/desired` annotation must say.
    pub fn holding(&self, id: &ObjectId, digest: &str, declared: impl FnOnce() -> Value) -> Holding {
        self.holding_but_for(id, digest, declared, &[])
    }

    /// As [`Observed::holding`]; what is at the places of `free` may be anybody's, and so may be what was scaled.
    pub fn holding_but_for(
        &self,
        id: &ObjectId,
        digest: &str,
        declared: impl FnOnce() -> Value,
        free: &[Pointer],
    ) -> Holding {
        let mut store = self.0.store();
        let Some(slot) = store.objects.get_mut(id) else { return Holding::Absent };
        if slot.seen.deleting {
            return Holding::Deleting;
        }
        if slot.seen.desired.as_deref() != Some(digest) {
            return Holding::Outdated;
        }
        if slot.is_as_expected() {
            return Holding::Held;
        }
        let of_others = if slot.expected.is_some() { Holding::Drifted } else { Holding::Undecided };
        let Some(managed) = &slot.managed else { return of_others };
        let declared = declared();
        if managed.covers(&declared) {
            if slot.expected.is_none() {
                slot.expected = slot.seen.entry;
                slot.managed = None;
                return Holding::Held;
            }
            return of_others;
        }
        let free = slot.free(free);
        // what is expected stays: another set of places decides anew
        if !free.is_empty() && managed.drift(&declared, &free).fields.is_empty() { Holding::Held } else { of_others }
    }

    /// Which fields of a declared object others have taken, and who; but for what is at the places of `free` and what was
    /// scaled.
    pub fn drift(&self, id: &ObjectId, declared: &Value, free: &[Pointer]) -> Drift {
        let store = self.0.store();
        let slot = store.objects.get(id).filter(|slot| !slot.is_as_expected());
        let drift = slot.and_then(|slot| Some(slot.managed.as_ref()?.drift(declared, &slot.free(free))));
        drift.unwrap_or_default()
    }

    /// From now on the object is as declared while the hash of our entry is this one; nothing is, with `None`.
    pub fn expect(&self, id: &ObjectId, entry: Option<EntryHash>) {
        if let Some(slot) = self.0.store().objects.get_mut(id) {
            slot.expected = entry.or(Some(EntryHash::NONE));
            slot.settle();
        }
    }

    /// Takes in the answer to a write of ours, so that nothing older is believed afterwards.
    pub fn note(&self, answer: &Answer) {
        let mut seen = answer.seen.clone();
        let mut store = self.0.store();
        let Some(kind) = store.watch_of(&seen.id) else { return };
        if !kind.content {
            seen.health = None;
        }
        let (id, entry) = (seen.id.clone(), seen.entry);
        store.see(seen, None);
        if let Some(slot) = store.objects.get_mut(&id) {
            slot.expected = entry;
            slot.settle();
        }
    }
}

impl Slot {
    /// Our entry has the fields that it had when the object was last known to be as declared.
    fn is_as_expected(&self) -> bool {
        self.expected.is_some() && self.seen.entry == self.expected
    }

    /// Who holds what is of no use while our entry is as expected.
    fn settle(&mut self) {
        if self.is_as_expected() {
            self.managed = None;
        }
    }

    /// These places and the one that was scaled.
    fn free(&self, free: &[Pointer]) -> Vec<Pointer> {
        free.iter().chain(self.seen.scaled.as_ref().map(|scaled| &scaled.field)).cloned().collect()
    }
}

impl Shared {
    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether each namespace is watched by itself, since no more is allowed.
    pub fn by_namespace(&self) -> bool {
        self.options.by_namespace
    }

    /// Something that this owner decides upon has changed.
    pub fn ring(&self, owner: &OwnerKey) {
        self.store().ring(Some(owner));
    }

    fn release(&self, id: &ObjectId) {
        let mut store = self.store();
        // a newer write may have begun already
        if self.gate.in_flight(id) {
            return;
        }
        match store.held_back.remove(id) {
            Some(Told::Changed(seen, managed)) => store.see(*seen, Some(managed)),
            Some(Told::Deleted(id)) => store.remove(&id),
            None => {}
        }
    }

    pub(super) fn take(&self, told: Told) {
        let id = match &told {
            Told::Changed(seen, _) => &seen.id,
            Told::Deleted(id) => id,
        };
        let mut store = self.store();
        // the watch was ended while this was on its way
        if store.watch_of(id).is_none() {
            return;
        }
        if self.gate.in_flight(id) {
            store.held_back.insert(id.clone(), told);
            return;
        }
        match told {
            Told::Changed(seen, managed) => store.see(*seen, Some(managed)),
            Told::Deleted(id) => store.remove(&id),
        }
    }

    /// All that there is of a kind; no version: the kind itself is gone.
    pub(super) fn listed(
        &self,
        kind: &GroupKind,
        namespace: Option<&str>,
        items: Vec<(Seen, Box<Managed>)>,
        version: &str,
    ) {
        let mut store = self.store();
        if !store.kinds.contains_key(&(kind.clone(), namespace.map(str::to_owned))) {
            return;
        }
        let present: HashSet<&ObjectId> = items.iter().map(|(seen, _)| &seen.id).collect();
        let gone: Vec<ObjectId> = store
            .objects
            .iter()
            .filter(|(id, slot)| {
                id.kind == kind.kind
                    && id.group == kind.group
                    && namespace.is_none_or(|namespace| id.namespace == namespace)
                    && !present.contains(id)
                    // what we wrote after the list was read; where the kind is gone, there was none
                    && (version.is_empty() || !is_newer(&slot.seen.resource_version, version))
                    && !self.gate.in_flight(id)
            })
            .map(|(id, _)| id.clone())
            .collect();
        drop(present);
        for id in gone {
            store.remove(&id);
        }
        for (seen, managed) in items {
            if self.gate.in_flight(&seen.id) {
                store.held_back.insert(seen.id.clone(), Told::Changed(Box::new(seen), managed));
            } else {
                store.see(seen, Some(managed));
            }
        }
    }
}

impl Store {
    fn watch_of(&self, id: &ObjectId) -> Option<&KindWatch> {
        let everywhere = self.kinds.get(&(id.group_kind(), None));
        everywhere.or_else(|| self.kinds.get(&(id.group_kind(), Some(id.namespace.clone()))))
    }

    /// Nothing of this kind is watched any more, in this namespace if one is given.
    pub(super) fn forget(&mut self, kind: &GroupKind, namespace: Option<&str>) {
        let of_it = |id: &ObjectId| {
            id.kind == kind.kind
                && id.group == kind.group
                && namespace.is_none_or(|namespace| id.namespace == namespace)
        };
        self.held_back.retain(|id, _| !of_it(id));
        let gone: Vec<ObjectId> = self.objects.keys().filter(|id| of_it(id)).cloned().collect();
        for id in gone {
            self.remove(&id);
        }
    }

    fn owner(&mut self, key: &OwnerKey) -> &mut Owner {
        self.owners
            .entry(key.clone())
            .or_insert_with(|| Owner { objects: BTreeSet::new(), bell: watch::Sender::new(0) })
    }

    pub(super) fn ring(&mut self, owner: Option<&OwnerKey>) {
        if let Some(owner) = owner.and_then(|key| self.owners.get(key)) {
            owner.bell.send_modify(|n| *n += 1);
        }
    }

    fn see(&mut self, mut seen: Seen, managed: Option<Box<Managed>>) {
        self.share_names(&mut seen);
        let mut slot = Slot { seen: Arc::new(seen), expected: None, managed };
        let seen = slot.seen.clone();
        if let Some(old) = self.objects.get(&seen.id) {
            let same = old.seen.uid == seen.uid;
            if same && !is_newer(&seen.resource_version, &old.seen.resource_version) {
                return;
            }
            if same && old.expected.is_some() {
                slot.expected = old.expected;
                slot.settle();
            }
            if same && old.seen.is_as(&seen) {
                self.objects.insert(seen.id.clone(), slot);
                return;
            }
        }
        let before = self.objects.insert(seen.id.clone(), slot).and_then(|old| old.seen.owner.clone());
        if before != seen.owner {
            if let Some(owner) = before.as_ref().and_then(|key| self.owners.get_mut(key)) {
                owner.objects.remove(&seen.id);
            }
            self.ring(before.as_ref());
        }
        if let Some(key) = &seen.owner {
            self.owner(key).objects.insert(seen.id.clone());
        }
        self.ring(seen.owner.as_ref());
    }

    /// What an object and its owner are called is kept once, whoever tells of it.
    fn share_names(&self, seen: &mut Seen) {
        if let Some((id, _)) = self.objects.get_key_value(&seen.id) {
            seen.id = id.clone();
        }
        if let Some(owner) = &mut seen.owner
            && let Some((key, _)) = self.owners.get_key_value(owner)
        {
            *owner = key.clone();
        }
    }

    fn remove(&mut self, id: &ObjectId) {
        let Some(old) = self.objects.remove(id) else { return };
        if let Some(key) = &old.seen.owner {
            if let Some(owner) = self.owners.get_mut(key) {
                owner.objects.remove(id);
            }
            self.ring(Some(key));
        }
    }
}

/// Resource versions are numbers that grow (KEP-5504); where they are not, the latest word counts.
pub(super) fn is_newer(a: &str, b: &str) -> bool {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a > b,
        _ => a != b,
    }
}

impl Watchable for WireObject {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// Whether a kind has a health to judge. Of the others only the metadata is watched: no Secret's data ever comes in.
pub(super) fn has_health(group: &str, kind: &str) -> bool {
    match group {
        "" => !matches!(
            kind,
            "ConfigMap"
                | "Secret"
                | "ServiceAccount"
                | "Endpoints"
                | "LimitRange"
                | "ResourceQuota"
                | "PodTemplate"
                | "Event"
        ),
        "rbac.authorization.k8s.io" | "admissionregistration.k8s.io" | "discovery.k8s.io" | "coordination.k8s.io" => {
            false
        }
        "networking.k8s.io" => !matches!(kind, "NetworkPolicy" | "IngressClass"),
        "apps" => kind != "ControllerRevision",
        "storage.k8s.io" | "scheduling.k8s.io" | "node.k8s.io" => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Marks;
    use crate::cluster::watched::WatchState;

    fn seen(name: &str, version: u64, owner: &str) -> Seen {
        Seen {
            id: ObjectId::new("", "ConfigMap", "shop", name),
            uid: "u".into(),
            resource_version: version.to_string().into(),
            generation: 0,
            owner: Some(OwnerKey::new("flux-system", owner)),
            config: None,
            keys_of_others: Vec::new(),
            scaled: None,
            desired: Some("d".into()),
            marks: Marks::default(),
            deleting: false,
            finalizers: Vec::new(),
            entry: None,
            foldable: false,
            health: None,
        }
    }

    #[test]
    fn an_owner_is_told_of_what_it_gains_and_loses_and_of_nothing_else() {
        let mut store = Store::default();
        let key = |name| OwnerKey::new("flux-system", name);
        let a = store.owner(&key("a")).bell.subscribe();
        let b = store.owner(&key("b")).bell.subscribe();
        let rung = |a: &watch::Receiver<u64>, b: &watch::Receiver<u64>| (*a.borrow(), *b.borrow());
        store.see(seen("x", 1, "a"), None);
        assert_eq!(rung(&a, &b), (1, 0));
        store.see(seen("x", 2, "a"), None);
        assert_eq!(rung(&a, &b), (1, 0), "nothing but the version changed");
        store.see(seen("x", 3, "b"), None);
        assert_eq!(rung(&a, &b), (2, 1), "it changed hands");
        store.see(seen("x", 2, "a"), None);
        assert_eq!(rung(&a, &b), (2, 1), "what is older than what is known is not believed");
        store.remove(&seen("x", 3, "b").id);
        assert_eq!(rung(&a, &b), (2, 2));
        assert!(store.owners[&key("b")].objects.is_empty());
    }

    fn watched(users: &[&str]) -> KindWatch {
        KindWatch {
            content: false,
            resource: "configmaps".into(),
            users: users.iter().map(|name| OwnerKey::new("flux-system", *name)).collect(),
            state: watch::Sender::new((true, WatchState::Current)),
            task: tokio::spawn(std::future::pending::<()>()).abort_handle(),
        }
    }

    async fn observed() -> Observed {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        let cluster = Cluster::from_client(client, crate::cluster::ClusterOptions::default());
        Observed::new(cluster, WriteGate::default(), ObservedOptions::default())
    }

    #[tokio::test]
    async fn a_watch_ends_with_its_last_user_and_what_it_showed_with_it() {
        let observed = observed().await;
        let kind = GroupKind { group: String::new(), kind: "ConfigMap".into() };
        observed.0.store().kinds.insert((kind.clone(), None), watched(&["a", "b"]));
        observed.0.take(Told::Changed(Box::new(seen("x", 1, "a")), Box::default()));
        let (a, b) = (OwnerKey::new("flux-system", "a"), OwnerKey::new("flux-system", "b"));
        let id = seen("x", 1, "a").id;
        observed.keep_watched(&a, |_, _| true);
        observed.keep_watched(&a, |_, _| false);
        assert!(observed.get(&id).is_some(), "the other one needs it");
        observed.keep_watched(&OwnerKey::new("flux-system", "c"), |_, _| false);
        observed.keep_watched(&b, |_, _| false);
        assert!(observed.get(&id).is_none() && observed.0.store().kinds.is_empty());
        // what the watch had on its way when it was ended
        observed.0.take(Told::Changed(Box::new(seen("x", 2, "a")), Box::default()));
        observed.0.listed(&kind, None, vec![(seen("x", 3, "a"), Box::default())], "3");
        assert!(observed.get(&id).is_none());
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_kind_that_is_gone_and_whoever_had_it_hears_of_it() {
        let observed = observed().await;
        let kind = GroupKind { group: String::new(), kind: "ConfigMap".into() };
        observed.0.store().kinds.insert((kind.clone(), None), watched(&["a"]));
        let mut bell = observed.subscribe(&OwnerKey::new("flux-system", "a"));
        observed.0.listed(&kind, None, vec![(seen("x", 7, "a"), Box::default())], "5");
        // a list that was read before our own write knows nothing of it
        observed.0.listed(&kind, None, Vec::new(), "6");
        assert!(observed.get(&seen("x", 7, "a").id).is_some());
        bell.mark_unchanged();
        observed.0.listed(&kind, None, Vec::new(), "");
        assert!(observed.get(&seen("x", 7, "a").id).is_none() && bell.has_changed().unwrap());
    }

    #[test]
    fn only_metadata_of_kinds_without_health_is_watched() {
        for (group, kind, content) in [
            ("", "Secret", false),
            ("", "ConfigMap", false),
            ("", "Service", true),
            ("apps", "Deployment", true),
            ("rbac.authorization.k8s.io", "Role", false),
            ("networking.k8s.io", "Ingress", true),
            ("networking.k8s.io", "NetworkPolicy", false),
            ("example.org", "Anything", true),
        ] {
            assert_eq!(has_health(group, kind), content, "{group}/{kind}");
        }
    }
}
