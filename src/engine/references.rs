//! Secrets and ConfigMaps that specs refer to: watched by name, metadata only, while someone refers to them.
//!
//! A change is known at once and without labels that ask for it; the content is read by whoever uses it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::future::select_all;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::api::Kustomization;
use crate::cluster::{ApiKind, Cluster, Collection, WatchEvent, Watcher};

/// One referenced object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Reference {
    pub kind: Referenced,
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Referenced {
    Secret,
    ConfigMap,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} `{}/{}`", self.kind, self.namespace, self.name)
    }
}

impl Reference {
    /// What a Kustomization takes values from.
    pub fn of(namespace: &str, object: &Kustomization) -> Vec<Reference> {
        let from = object.spec.post_build.as_ref().map(|p| p.substitute_from.as_slice()).unwrap_or_default();
        from.iter()
            .map(|r| Reference {
                kind: if r.kind == "Secret" { Referenced::Secret } else { Referenced::ConfigMap },
                namespace: namespace.to_owned(),
                name: r.name.clone(),
            })
            .collect()
    }

    pub fn secret(namespace: &str, name: &str) -> Reference {
        Reference { kind: Referenced::Secret, namespace: namespace.into(), name: name.into() }
    }
}

/// One watch for each referenced object, shared by all who refer to it.
#[derive(Clone)]
pub(super) struct References {
    cluster: Cluster,
    watches: Arc<Mutex<HashMap<Reference, Weak<Shared>>>>,
}

/// A running watch; it ends with the last one who holds it.
struct Shared {
    /// The resource version last seen; `None` while there is no such object.
    version: watch::Receiver<Option<String>>,
    task: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What one worker refers to.
#[derive(Default)]
pub(super) struct Watched(Vec<(Reference, Arc<Shared>, watch::Receiver<Option<String>>)>);

impl Watched {
    /// Returns when one of them changed, appeared or vanished.
    pub async fn changed(&mut self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let changes = self.0.iter_mut().map(|(_, _, version)| Box::pin(version.changed()));
        let _ = select_all(changes).await;
    }
}

impl References {
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, watches: Arc::default() }
    }

    /// Watches `wanted`, keeping what `before` has of it.
    pub fn watch(&self, wanted: Vec<Reference>, mut before: Watched) -> Watched {
        let mut watched = Vec::with_capacity(wanted.len());
        for reference in wanted {
            if let Some(at) = before.0.iter().position(|(r, ..)| *r == reference) {
                watched.push(before.0.swap_remove(at));
                continue;
            }
            let shared = self.shared(&reference);
            let version = shared.version.clone();
            watched.push((reference, shared, version));
        }
        Watched(watched)
    }

    fn shared(&self, reference: &Reference) -> Arc<Shared> {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|_, watch| watch.strong_count() > 0);
        if let Some(shared) = watches.get(reference).and_then(Weak::upgrade) {
            return shared;
        }
        let (sender, version) = watch::channel(None);
        let following = follow(self.cluster.clone(), reference.clone(), sender);
        let task = self.cluster.tasks().spawn(format!("the watch of {reference}"), following);
        let shared = Arc::new(Shared { version, task });
        watches.insert(reference.clone(), Arc::downgrade(&shared));
        shared
    }
}

async fn follow(cluster: Cluster, reference: Reference, version: watch::Sender<Option<String>>) {
    let kind = match reference.kind {
        Referenced::Secret => ApiKind::secret(),
        Referenced::ConfigMap => ApiKind::config_map(),
    };
    let collection = Collection {
        namespace: Some(reference.namespace.clone()),
        fields: Some(format!("metadata.name={}", reference.name)),
        metadata_only: true,
        ..Collection::all(kind)
    };
    let mut watcher = Watcher::<Value>::new(cluster, collection);
    let mut first = true;
    loop {
        let seen = match watcher.next().await {
            WatchEvent::Listed { items, .. } => items.first().map(of),
            WatchEvent::Changed(item) => Some(of(&item)),
            WatchEvent::Deleted(_) => None,
            WatchEvent::Resumed => continue,
            WatchEvent::Lost { error, .. } => {
                tracing::debug!(?reference, %error, "a watch was lost");
                continue;
            }
        };
        if first {
            // who refers to it reads it anyway: the first look is no change
            first = false;
            version.send_if_modified(|v| {
                *v = seen;
                false
            });
        } else {
            version.send_if_modified(|v| std::mem::replace(v, seen.clone()) != seen);
        }
    }
}

fn of(item: &Value) -> String {
    item.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default().to_owned()
}
