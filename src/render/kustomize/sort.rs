//! `sortOptions`: the order in which the result is printed. It is applied in an order of its own.

use std::cmp::Ordering;

use super::file::SortOptions;
use super::resource::{Gvk, Id, Resource};

const FIRST: [&str; 22] = [
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];
const LAST: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Sorts by kinds that come first and last, then by text; `fifo` leaves the order of the files.
pub fn sort(all: &mut [Resource], options: &SortOptions) {
    if options.order != "legacy" {
        return;
    }
    let legacy = options.legacy_sort_options.as_ref();
    let owned = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>();
    let (first, last) = match legacy {
        Some(options) => (options.order_first.clone(), options.order_last.clone()),
        None => (owned(&FIRST), owned(&LAST)),
    };
    let rank = |kind: &str| {
        let at = |kinds: &[String]| kinds.iter().rposition(|known| known == kind);
        match (at(&first), at(&last)) {
            (_, Some(index)) => (2, index),
            (Some(index), None) => (0, index),
            (None, None) => (1, 0),
        }
    };
    all.sort_by_cached_key(|resource| {
        let id = resource.id();
        Key { rank: rank(&id.gvk.kind), gvk: text(&id.gvk), is_core: id.gvk.group.is_empty(), name: name(&id), id }
    });
}

struct Key {
    rank: (u8, usize),
    gvk: String,
    is_core: bool,
    name: String,
    id: Id,
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_gvk =
            if self.id.gvk.kind == "Namespace" && other.id.gvk.kind == "Namespace" && (self.is_core || other.is_core) {
                // that of other groups comes after
                other.gvk.cmp(&self.gvk)
            } else {
                self.gvk.cmp(&other.gvk)
            };
        self.rank.cmp(&other.rank).then(by_gvk).then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}

/// What is missing sorts behind every name.
fn text(gvk: &Gvk) -> String {
    let or = |text: &str, missing: &str| if text.is_empty() { missing.to_owned() } else { text.to_owned() };
    [or(&gvk.group, "~G"), or(&gvk.version, "~V"), or(&gvk.kind, "~K")].join("_")
}

fn name(id: &Id) -> String {
    let namespace = if id.written_namespace.is_empty() { "~X" } else { &id.written_namespace };
    format!("{namespace}|{}", id.name)
}
