//! Secrets and ConfigMaps that specs refer to: watched by name, metadata only, while someone refers to them.
//!
//! A change is known at once and without labels that ask for it. The content is read once for each version that the
//! watch shows, for all who refer to it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::future::select_all;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use secrecy::ExposeSecret as _;

use crate::api::{Kustomization, SubstituteReference};
use crate::cluster::{ApiError, ApiKind, Cluster, Collection, ConfigData, Named, SecretData, WatchEvent, Watcher};
use crate::manifest::DigestKey;
use crate::rollout::{self, Configuration, Reading};

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
        from.iter().map(|named| Self::values(namespace, named)).collect()
    }

    /// What it takes keys from: the Secret of `spec.decryption`.
    pub fn keys(namespace: &str, object: &Kustomization, by_default: Option<&Reference>) -> Option<Reference> {
        match &object.spec.decryption.as_ref()?.secret_ref {
            Some(secret) => Some(Self::secret(namespace, &secret.name)),
            None => by_default.cloned(),
        }
    }

    /// What one entry of `substituteFrom` names.
    pub fn values(namespace: &str, named: &SubstituteReference) -> Reference {
        let kind = if named.kind == "Secret" { Referenced::Secret } else { Referenced::ConfigMap };
        Reference { kind, namespace: namespace.into(), name: named.name.clone() }
    }

    /// What a workload of this namespace reads.
    pub fn configuration(namespace: &str, configuration: &Configuration) -> Reference {
        let kind = match configuration.kind {
            rollout::Kind::Secret => Referenced::Secret,
            rollout::Kind::ConfigMap => Referenced::ConfigMap,
        };
        Reference { kind, namespace: namespace.into(), name: configuration.name.clone() }
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
    seen: watch::Sender<Seen>,
    /// What was read last; held while it is read, so that one reads for all.
    content: tokio::sync::Mutex<Option<Arc<Content>>>,
    /// The digests of what was read last; what was read is dropped.
    digested: tokio::sync::Mutex<Option<Digested>>,
    /// Rung at whatever the watch tells, the first look included.
    bell: watch::Sender<u64>,
    task: AbortHandle,
}

/// What a workload can read of an object, at a version; `None`: there was no such object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digested {
    pub version: Option<String>,
    pub reading: Reading,
}

/// The watch of one object, kept up for as long as this is held.
#[derive(Clone)]
pub(super) struct Held {
    reference: Reference,
    shared: Arc<Shared>,
}

impl Held {
    /// The version that there is now; `None` while that is not known.
    pub fn version(&self) -> Option<Option<String>> {
        let seen = self.shared.seen.borrow();
        if seen.current { seen.version.clone() } else { None }
    }

    /// Changes whenever the watch tells anything.
    pub fn bell(&self) -> watch::Receiver<u64> {
        self.shared.bell.subscribe()
    }
}

/// What is known of the object; written by its watch, and by the first who reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The version last seen, `Some(None)` while there is no such object; `None`: nothing is known yet.
    version: Option<Option<String>>,
    /// The watch is up.
    current: bool,
}

/// What a referenced object holds.
pub(super) enum Content {
    Absent,
    Secret(SecretData),
    ConfigMap(ConfigData),
}

impl Content {
    fn version(&self) -> Option<&str> {
        match self {
            Self::Absent => None,
            Self::Secret(secret) => Some(&secret.resource_version),
            Self::ConfigMap(map) => Some(&map.resource_version),
        }
    }
}

impl Seen {
    /// The watch tells a version. True if whoever referred to the object used another.
    fn tell(&mut self, version: Option<String>) -> bool {
        self.current = true;
        let before = self.version.replace(version);
        before.is_some() && before != self.version
    }

    /// Someone read a version: what the watch shows first is a change if it is another.
    fn read(&mut self, version: Option<&str>) {
        self.version.get_or_insert_with(|| version.map(str::to_owned));
    }

    /// True if what was read at `version` is what there is.
    fn holds(&self, version: Option<&str>) -> bool {
        self.current && self.version.as_ref().is_some_and(|seen| seen.as_deref() == version)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What one worker refers to.
#[derive(Default)]
pub(super) struct Watched(Vec<(Reference, Arc<Shared>, watch::Receiver<Seen>)>);

impl Watched {
    /// Returns when one of them changed, appeared or vanished.
    pub async fn changed(&mut self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let changes = self.0.iter_mut().map(|(_, _, seen)| Box::pin(seen.changed()));
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
            let seen = shared.seen.subscribe();
            watched.push((reference, shared, seen));
        }
        Watched(watched)
    }

    /// What an object holds; asked of the API server only if the watch can't say that it is as it was read last.
    pub async fn read(&self, reference: &Reference) -> Result<Arc<Content>, ApiError> {
        let shared = self.shared(reference);
        let mut content = shared.content.lock().await;
        if let Some(content) = content.as_ref().filter(|content| shared.seen.borrow().holds(content.version())) {
            return Ok(content.clone());
        }
        let Reference { kind, namespace, name } = reference;
        let read = match kind {
            Referenced::Secret => {
                self.cluster.get_secret(namespace, name).await?.map_or(Content::Absent, Content::Secret)
            }
            Referenced::ConfigMap => {
                self.cluster.get_config_map(namespace, name).await?.map_or(Content::Absent, Content::ConfigMap)
            }
        };
        let read = Arc::new(read);
        shared.seen.send_if_modified(|seen| {
            seen.read(read.version());
            false
        });
        *content = Some(read.clone());
        Ok(read)
    }

    /// Keeps the watch of an object up.
    pub fn hold(&self, reference: &Reference) -> Held {
        Held { reference: reference.clone(), shared: self.shared(reference) }
    }

    /// The digests of what an object holds, which are kept; the bytes are dropped. Asked of the API server only if the
    /// watch can't say that it is as it was read last.
    pub async fn digests(&self, held: &Held, key: &DigestKey) -> Result<Digested, ApiError> {
        let Held { reference, shared } = held;
        let mut digested = shared.digested.lock().await;
        if let Some(digested) = digested.as_ref().filter(|d| shared.seen.borrow().holds(d.version.as_deref())) {
            return Ok(digested.clone());
        }
        let (api, kind) = match reference.kind {
            Referenced::Secret => (ApiKind::secret(), rollout::Kind::Secret),
            Referenced::ConfigMap => (ApiKind::config_map(), rollout::Kind::ConfigMap),
        };
        let configuration = Configuration::new(kind, reference.name.clone());
        let read = match self.cluster.get_content(&api, &reference.namespace, &reference.name).await? {
            None => Digested { version: None, reading: Reading::Absent },
            Some(content) => {
                let annotation = |name: &str| content.annotations.get(name).map(String::as_str);
                let reading = if rollout::is_left_out(kind, &content.kind, annotation) {
                    Reading::LeftOut
                } else {
                    let bytes = content.data.iter().map(|(name, bytes)| (name.as_str(), bytes.expose_secret()));
                    let digests = rollout::content_digests(key, &reference.namespace, &configuration, bytes);
                    Reading::Content { digests, live: true, sealed: content.immutable }
                };
                Digested { version: Some(content.resource_version), reading }
            }
        };
        shared.seen.send_if_modified(|seen| {
            seen.read(read.version.as_deref());
            false
        });
        *digested = Some(read.clone());
        Ok(read)
    }

    fn shared(&self, reference: &Reference) -> Arc<Shared> {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|_, watch| watch.strong_count() > 0);
        if let Some(shared) = watches.get(reference).and_then(Weak::upgrade) {
            return shared;
        }
        let seen = watch::Sender::new(Seen::default());
        let bell = watch::Sender::new(0);
        let following = follow(self.cluster.clone(), reference.clone(), seen.clone(), bell.clone());
        let task = self.cluster.tasks().spawn(format!("the watch of {reference}"), following);
        let (content, digested) = (tokio::sync::Mutex::default(), tokio::sync::Mutex::default());
        let shared = Arc::new(Shared { seen, content, digested, bell, task });
        watches.insert(reference.clone(), Arc::downgrade(&shared));
        shared
    }
}

async fn follow(cluster: Cluster, reference: Reference, seen: watch::Sender<Seen>, bell: watch::Sender<u64>) {
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
    let mut watcher = Watcher::<Named>::new(cluster, collection);
    loop {
        let change = match watcher.next().await {
            WatchEvent::Listed { mut items, .. } => Some(items.pop().map(|item| item.resource_version)),
            WatchEvent::Changed(item) => Some(Some(item.resource_version)),
            WatchEvent::Deleted(_) => Some(None),
            WatchEvent::Resumed => None,
            WatchEvent::Lost { error, .. } => {
                tracing::debug!(?reference, %error, "a watch was lost");
                seen.send_if_modified(|seen| {
                    seen.current = false;
                    false
                });
                continue;
            }
        };
        seen.send_if_modified(|seen| match change {
            Some(version) => seen.tell(version),
            None => {
                seen.current = true;
                false
            }
        });
        bell.send_modify(|n| *n += 1);
    }
}

/// What a watch tells, said by a test.
#[cfg(test)]
pub(super) struct Teller(Arc<Shared>);

#[cfg(test)]
impl Teller {
    pub fn tell(&self, version: Option<String>) {
        self.0.seen.send_modify(|seen| {
            seen.tell(version);
        });
    }
}

#[cfg(test)]
impl Held {
    /// Without a cluster; within a runtime.
    pub fn told_by_hand(reference: &Reference) -> (Held, Teller) {
        let shared = Arc::new(Shared {
            seen: watch::Sender::new(Seen::default()),
            content: tokio::sync::Mutex::default(),
            digested: tokio::sync::Mutex::default(),
            bell: watch::Sender::new(0),
            task: tokio::spawn(std::future::pending::<()>()).abort_handle(),
        });
        (Held { reference: reference.clone(), shared: shared.clone() }, Teller(shared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u32) -> Option<String> {
        Some(number.to_string())
    }

    #[test]
    fn a_version_is_news_only_to_those_who_used_another() {
        let mut seen = Seen::default();
        assert!(!seen.holds(Some("5")), "nothing is known yet");
        assert!(!seen.tell(version(5)), "the first look is no news");
        assert!(seen.holds(Some("5")));
        assert!(!seen.tell(version(5)), "listed anew, as it was");
        assert!(seen.tell(version(6)));
        assert!(!seen.holds(Some("5")));
        assert!(seen.tell(None), "it is gone");
        assert!(seen.holds(None));
    }

    #[test]
    fn what_changed_between_the_first_read_and_the_first_look_is_news() {
        let mut seen = Seen::default();
        seen.read(Some("5"));
        assert!(!seen.holds(Some("5")), "the watch is not up");
        assert!(seen.tell(version(6)));
        seen.read(Some("7"));
        assert!(!seen.holds(Some("7")), "read before the watch shows it");
        assert!(seen.tell(version(7)));
        assert!(seen.holds(Some("7")));
    }

    #[test]
    fn while_the_watch_is_down_nothing_is_taken_for_current() {
        let mut seen = Seen::default();
        seen.tell(version(5));
        seen.current = false;
        assert!(!seen.holds(Some("5")));
        assert!(!seen.tell(version(5)));
        assert!(seen.holds(Some("5")));
    }
}
