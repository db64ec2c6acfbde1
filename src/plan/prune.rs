//! What to delete, what another application has taken over, and what waits for a person.

use std::collections::BTreeSet;

use crate::api::Key;
use crate::manifest::ObjectId;

use super::flux::Ground;
use super::inventory::Inventory;

/// What a person has agreed to, by the annotation `afresh.dev/confirm-prune` on the Kustomization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    given: bool,
}

impl Consent {
    /// The annotation names the revision that is being applied: as a whole (`main@sha1:…`) or by its commit.
    pub fn read(annotation: Option<&str>, revision: &str) -> Self {
        let commit = revision.rsplit_once("sha1:").map_or(revision, |(_, commit)| commit);
        let given = annotation.is_some_and(|a| a == revision || a == commit || a.strip_prefix("sha1:") == Some(commit));
        Self { given }
    }

    pub fn given(&self) -> bool {
        self.given
    }
}

/// The outcome: every stale object is in exactly one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prune {
    pub delete: Vec<ObjectId>,
    /// Declared by another application at the newest revision: leaves the inventory, stays in the cluster.
    pub handed_over: Vec<(ObjectId, Key)>,
    /// Deleted only if found without contents, or with consent (Namespaces).
    pub delete_if_empty: Vec<ObjectId>,
    /// Deleted only if a person agreed on the object itself: with a definition all objects of its kind go, whoever made
    /// them (CustomResourceDefinitions).
    pub delete_if_agreed: Vec<ObjectId>,
    /// Never deleted, since the application stands on it: leaves the inventory, stays in the cluster.
    pub kept: Vec<ObjectId>,
    /// Waits for consent.
    pub guarded: Vec<ObjectId>,
    /// The render came out empty after it had objects: everything is guarded.
    pub emptied: bool,
}

/// Sorts what the inventory has and `declared` hasn't. `owner` tells which other application declares an object.
pub fn prune(
    inventory: &Inventory,
    declared: &BTreeSet<&ObjectId>,
    owner: impl Fn(&ObjectId) -> Option<Key>,
    ground: &Ground,
    consent: &Consent,
) -> Prune {
    let mut prune = Prune { emptied: declared.is_empty() && !inventory.is_empty(), ..Default::default() };
    for id in inventory.ids().filter(|id| !declared.contains(id)) {
        if let Some(other) = owner(id) {
            prune.handed_over.push((id.clone(), other));
        } else if ground.holds(id) {
            prune.kept.push(id.clone());
        } else if is_definition(id) {
            prune.delete_if_agreed.push(id.clone());
        } else if consent.given {
            prune.delete.push(id.clone());
        } else if prune.emptied {
            prune.guarded.push(id.clone());
        } else {
            match (id.group.as_str(), id.kind.as_str()) {
                ("", "PersistentVolumeClaim") => prune.guarded.push(id.clone()),
                ("", "Namespace") => prune.delete_if_empty.push(id.clone()),
                _ => prune.delete.push(id.clone()),
            }
        }
    }
    prune.emptied &= !prune.guarded.is_empty();
    prune
}

/// Whether an object is a CustomResourceDefinition.
pub fn is_definition(id: &ObjectId) -> bool {
    (id.group.as_str(), id.kind.as_str()) == ("apiextensions.k8s.io", "CustomResourceDefinition")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground() -> Ground {
        Ground { application: Key::new("own", "app"), source: Key::new("own", "source") }
    }

    fn id(kind: &str, name: &str) -> ObjectId {
        let group = if kind == "CustomResourceDefinition" { "apiextensions.k8s.io" } else { "" };
        ObjectId::new(group, kind, if kind == "Namespace" { "" } else { "n" }, name)
    }

    fn inventory(ids: &[ObjectId]) -> Inventory {
        ids.iter().map(|id| (id.clone(), "v1".to_owned())).collect()
    }

    const REVISION: &str = "main@sha1:1234567890123456789012345678901234567890";

    #[test]
    fn what_another_application_declares_is_handed_over_and_the_rest_deleted() {
        let (kept, moved, gone) = (id("ConfigMap", "kept"), id("ConfigMap", "moved"), id("ConfigMap", "gone"));
        let all = inventory(&[kept.clone(), moved.clone(), gone.clone()]);
        let other = |i: &ObjectId| (*i == moved).then(|| Key::new("n", "other"));
        let plan = prune(&all, &[&kept].into(), other, &ground(), &Consent::read(None, REVISION));
        assert_eq!(plan.delete, [gone]);
        assert_eq!(plan.handed_over, [(moved.clone(), Key::new("n", "other"))]);
        assert!(plan.guarded.is_empty() && !plan.emptied);
    }

    #[test]
    fn volumes_wait_for_consent_namespaces_for_emptiness_and_definitions_for_consent_on_themselves() {
        let (volume, namespace, crd, kept) = (
            id("PersistentVolumeClaim", "v"),
            id("Namespace", "n"),
            id("CustomResourceDefinition", "c"),
            id("ConfigMap", "k"),
        );
        let all = inventory(&[volume.clone(), namespace.clone(), crd.clone(), kept.clone()]);
        let plan = prune(&all, &[&kept].into(), |_| None, &ground(), &Consent::read(None, REVISION));
        assert_eq!(plan.guarded, std::slice::from_ref(&volume));
        assert_eq!(plan.delete_if_empty, std::slice::from_ref(&namespace));
        assert_eq!(plan.delete_if_agreed, std::slice::from_ref(&crd));
        for annotation in
            [REVISION, "1234567890123456789012345678901234567890", "sha1:1234567890123456789012345678901234567890"]
        {
            let plan = prune(&all, &[&kept].into(), |_| None, &ground(), &Consent::read(Some(annotation), REVISION));
            assert_eq!(plan.delete.len(), 2, "{annotation}");
            assert_eq!(plan.delete_if_agreed.len(), 1, "{annotation}");
        }
        let plan = prune(&all, &[&kept].into(), |_| None, &ground(), &Consent::read(Some("main@sha1:old"), REVISION));
        assert_eq!(plan.guarded, [volume]);
    }

    #[test]
    fn what_the_application_stands_on_is_kept_whoever_agreed() {
        let (own, other) = (id("Namespace", "own"), id("Namespace", "other"));
        let all = inventory(&[own.clone(), other.clone()]);
        let plan = prune(&all, &BTreeSet::new(), |_| None, &ground(), &Consent::read(Some(REVISION), REVISION));
        assert_eq!((plan.kept, plan.delete), (vec![own], vec![other]));
    }

    #[test]
    fn an_application_that_comes_out_empty_deletes_nothing_without_consent() {
        let all = inventory(&[id("ConfigMap", "a"), id("Namespace", "n")]);
        let plan = prune(&all, &BTreeSet::new(), |_| None, &ground(), &Consent::read(None, REVISION));
        assert!(plan.emptied && plan.delete.is_empty() && plan.delete_if_empty.is_empty());
        assert_eq!(plan.guarded.len(), 2);
    }

    #[test]
    fn everything_handed_over_is_not_a_mass_deletion() {
        let all = inventory(&[id("ConfigMap", "a")]);
        let plan =
            prune(&all, &BTreeSet::new(), |_| Some(Key::new("n", "other")), &ground(), &Consent::read(None, REVISION));
        assert!(!plan.emptied && plan.guarded.is_empty());
    }
}
