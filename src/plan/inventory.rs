//! Which objects an application owns: Flux's inventory, grown before anything is created.

use std::collections::BTreeMap;

use crate::api::{self, InventoryEntry};
use crate::manifest::ObjectId;

use super::desired::Scopes;

/// What an inventory may take in the status, in bytes of JSON: etcd stores at most 1.5 MiB with an object, and spec,
/// conditions and others' fields need their part.
pub const INVENTORY_BYTES_MAX: usize = 1024 * 1024;

/// What would have to be recorded is more than can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{objects} objects are too many for one Kustomization: the list of them would take {kib} KiB of its status, which holds {max} KiB; nothing was applied\nhint: split the folder, and give each part a Kustomization of its own",
    kib = .bytes / 1024, max = INVENTORY_BYTES_MAX / 1024
)]
pub struct TooLarge {
    pub objects: usize,
    pub bytes: usize,
}

/// The owned objects with the version each was last applied in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory(BTreeMap<ObjectId, String>);

impl Inventory {
    /// Reads what the status records; entries that are no ids of Flux's are reported, not dropped in silence.
    pub fn read(recorded: Option<&api::Inventory>) -> (Self, Vec<String>) {
        let (mut inventory, mut unreadable) = (Self::default(), Vec::new());
        for entry in recorded.map(|r| r.entries.as_slice()).unwrap_or_default() {
            match ObjectId::from_inventory_id(&entry.id) {
                Some(id) => drop(inventory.0.insert(id, entry.v.clone())),
                None => unreadable.push(entry.id.clone()),
            }
        }
        (inventory, unreadable)
    }

    /// The same with the identities that the cluster has: Flux records the namespace that a file gives an object of a
    /// cluster-scoped kind, of which the API server takes no notice.
    #[must_use]
    pub fn scoped(mut self, scopes: &dyn Scopes) -> Self {
        let is_wrong =
            |id: &&ObjectId| !id.namespace.is_empty() && scopes.namespaced(&id.group, &id.kind) == Some(false);
        let wrong: Vec<ObjectId> = self.ids().filter(is_wrong).cloned().collect();
        for id in wrong {
            if let Some(version) = self.0.remove(&id) {
                self.0.insert(id.without_namespace(), version);
            }
        }
        self
    }

    pub fn record(&self) -> api::Inventory {
        let entries = self.0.iter().map(|(id, v)| InventoryEntry { id: id.inventory_id(), v: v.clone() }).collect();
        api::Inventory { entries }
    }

    /// Whether it can be recorded.
    pub fn check_size(&self) -> Result<(), TooLarge> {
        // `{"id":"","v":""},`
        const ENTRY: usize = 17;
        let bytes = self.0.iter().map(|(id, v)| id.inventory_id().len() + v.len() + ENTRY).sum();
        if bytes > INVENTORY_BYTES_MAX { Err(TooLarge { objects: self.0.len(), bytes }) } else { Ok(()) }
    }

    pub fn insert(&mut self, id: ObjectId, version: String) {
        self.0.insert(id, version);
    }

    pub fn contains(&self, id: &ObjectId) -> bool {
        self.0.contains_key(id)
    }

    pub fn ids(&self) -> impl Iterator<Item = &ObjectId> {
        self.0.keys()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&ObjectId, &String)> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of both: what is recorded before anything is created, and what stays recorded after a failure.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.0.clone();
        all.extend(other.0.iter().map(|(id, v)| (id.clone(), v.clone())));
        Self(all)
    }
}

impl FromIterator<(ObjectId, String)> for Inventory {
    fn from_iter<T: IntoIterator<Item = (ObjectId, String)>>(entries: T) -> Self {
        Self(entries.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_recorded_is_told_by_its_size() {
        let of = |count: usize| -> Inventory {
            let id = |n: usize| ObjectId::new("", "ConfigMap", "shop", format!("settings-{n:05}"));
            (0..count).map(|n| (id(n), "v1".to_owned())).collect()
        };
        let bytes = |inventory: &Inventory| serde_json::to_string(&inventory.record().entries).unwrap().len();
        let few = of(100);
        assert_eq!(few.check_size(), Ok(()));
        let many = of(30_000);
        let error = many.check_size().unwrap_err();
        assert_eq!((error.objects, error.bytes), (30_000, bytes(&many) - 1), "as it is written, but for the brackets");
        assert!(error.to_string().contains("30000 objects are too many"), "{error}");
    }

    #[test]
    fn what_has_no_namespace_in_the_cluster_is_known_without_the_one_that_flux_recorded() {
        struct Known;
        impl Scopes for Known {
            fn namespaced(&self, _: &str, kind: &str) -> Option<bool> {
                (kind != "Unknown").then_some(kind == "ConfigMap")
            }
        }
        let recorded: Inventory = ["ConfigMap", "ClusterRole", "Unknown"]
            .map(|kind| (ObjectId::new("", kind, "n", "a"), "v1".to_owned()))
            .into_iter()
            .collect();
        let ids: Vec<String> = recorded.scoped(&Known).ids().map(ToString::to_string).collect();
        assert_eq!(ids, ["ClusterRole/a", "ConfigMap/n/a", "Unknown/n/a"]);
    }

    #[test]
    fn an_inventory_reads_back_and_names_what_it_cant_read() {
        let inventory: Inventory =
            [(ObjectId::new("apps", "Deployment", "n", "a"), "v1".to_owned())].into_iter().collect();
        let mut recorded = inventory.record();
        assert_eq!(Inventory::read(Some(&recorded)), (inventory, vec![]));
        recorded.entries.push(InventoryEntry { id: "junk".into(), v: "v1".into() });
        assert_eq!(Inventory::read(Some(&recorded)).1, ["junk"]);
    }
}
