//! Which resources are served now: the built-in ones and those of the CustomResourceDefinitions.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::Value;

use super::builtin;
use super::definition;
use super::resource::{CollectionId, Resource};

/// Built-in groups in the order of discovery: a name that two groups have means the first one's.
const GROUPS: [&str; 18] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
];

#[derive(Debug, Default)]
struct Served {
    /// By group, version and plural.
    resources: BTreeMap<(String, String, String), Arc<Resource>>,
    /// Groups in the order of discovery: built-in ones first, then custom ones as they came.
    groups: Vec<String>,
}

/// A version of a group and its resources.
pub type GroupVersion = (String, Vec<Arc<Resource>>);

/// Written when a definition is stored or goes; read by every request.
#[derive(Debug)]
pub struct Registry {
    served: RwLock<Served>,
}

impl Registry {
    pub fn new() -> Self {
        let mut served = Served::default();
        for resource in builtin::resources() {
            served.add(Arc::clone(resource));
        }
        Self { served: RwLock::new(served) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Served> {
        self.served.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Served> {
        self.served.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.read().resources.get(&key).cloned()
    }

    pub fn serves(&self, group: &str, version: &str) -> bool {
        let from = (group.to_owned(), version.to_owned(), String::new());
        let served = self.read();
        served.resources.range(from..).next().is_some_and(|((g, v, _), _)| g == group && v == version)
    }

    pub fn has_group(&self, group: &str) -> bool {
        self.read().groups.iter().any(|served| served == group)
    }

    /// Any served version of the objects in a collection.
    pub fn of_collection(&self, collection: &CollectionId) -> Option<Arc<Resource>> {
        let served = self.read();
        let mut found =
            served.resources.values().filter(|r| r.collection == *collection && *r.group == *collection.group);
        found.next().cloned()
    }

    /// Serves what a definition says now, and nothing that it said before.
    pub fn define(&self, definition: &Value) {
        let collection = definition::collection(definition);
        let mut served = self.write();
        served.resources.retain(|_, r| r.custom.is_none() || r.collection != collection);
        for resource in definition::resources(definition) {
            served.add(resource);
        }
        served.tidy();
    }

    pub fn withdraw(&self, definition: &Value) {
        let collection = definition::collection(definition);
        let mut served = self.write();
        served.resources.retain(|_, r| r.custom.is_none() || r.collection != collection);
        served.tidy();
    }

    /// The groups, each with its versions in the order of preference and their resources by plural.
    pub fn groups(&self) -> Vec<(String, Vec<GroupVersion>)> {
        let served = self.read();
        let of_group = |group: &String| {
            let mut versions: BTreeMap<_, (String, Vec<Arc<Resource>>)> = BTreeMap::new();
            for resource in served.resources.values().filter(|r| r.group == *group) {
                let rank = definition::version_rank(&resource.version);
                versions.entry(rank).or_insert_with(|| (resource.version.clone(), Vec::new())).1.push(resource.clone());
            }
            (group.clone(), versions.into_values().collect())
        };
        served.groups.iter().map(of_group).collect()
    }
}

impl Served {
    fn add(&mut self, resource: Arc<Resource>) {
        if !self.groups.contains(&resource.group) {
            self.groups.push(resource.group.clone());
            // a stable sort: custom groups stay as they came
            self.groups.sort_by_key(|group| GROUPS.iter().position(|g| g == group).unwrap_or(GROUPS.len()));
        }
        let key = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
        self.resources.insert(key, resource);
    }

    fn tidy(&mut self) {
        let resources = &self.resources;
        self.groups.retain(|group| resources.values().any(|r| r.group == *group));
    }
}
