//! What namespaces ask for by annotation, for the workloads in them: watched, metadata only, from the first question on.
//!
//! Who serves one namespace has no right to look at it, and asks nothing: what it asks for counts for nothing there.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::api;
use crate::cluster::{ApiKind, Cluster, Collection, ErrorClass, WatchEvent, Watcher};
use crate::rollout::Wish;

/// How long the first list may take; without it a namespace asks for nothing until it is there.
const LIST_MAX: Duration = Duration::from_secs(5);

/// Clones share the watch.
#[derive(Clone)]
pub(super) struct Namespaces(Arc<Inner>);

struct Inner {
    cluster: Cluster,
    /// False where one namespace is served.
    watched: bool,
    wishes: OnceLock<watch::Sender<Option<Wishes>>>,
}

type Wishes = BTreeMap<String, Wish>;

impl Namespaces {
    pub fn new(cluster: Cluster, watched: bool) -> Self {
        Self(Arc::new(Inner { cluster, watched, wishes: OnceLock::new() }))
    }

    /// Returns once it is known what namespaces ask for, or won't be known in time.
    pub async fn known(&self) {
        let mut wishes = self.changes();
        let _ = tokio::time::timeout(LIST_MAX, wishes.wait_for(Option::is_some)).await;
    }

    pub fn wish(&self, namespace: &str) -> Option<Wish> {
        self.sender().borrow().as_ref().and_then(|wishes| wishes.get(namespace).copied())
    }

    pub fn changes(&self) -> watch::Receiver<Option<Wishes>> {
        self.sender().subscribe()
    }

    fn sender(&self) -> &watch::Sender<Option<Wishes>> {
        self.0.wishes.get_or_init(|| {
            if !self.0.watched {
                return watch::Sender::new(Some(Wishes::new()));
            }
            let wishes = watch::Sender::new(None);
            let following = follow(self.0.cluster.clone(), wishes.clone());
            self.0.cluster.tasks().spawn("the watch of namespaces", following);
            wishes
        })
    }
}

async fn follow(cluster: Cluster, wishes: watch::Sender<Option<Wishes>>) {
    let collection = Collection { metadata_only: true, ..Collection::all(ApiKind::namespace()) };
    let mut watcher = Watcher::<Value>::new(cluster, collection);
    loop {
        match watcher.next().await {
            WatchEvent::Listed { items, .. } => {
                let all: Wishes = items.iter().filter_map(wish_of).collect();
                wishes.send_if_modified(|known| known.replace(all.clone()).is_none_or(|before| before != all));
            }
            WatchEvent::Changed(item) => {
                let (name, wish) = (name_of(&item), wish_of(&item));
                wishes.send_if_modified(|known| {
                    let known = known.get_or_insert_default();
                    let before = known.remove(&name);
                    let now = wish.map(|(name, wish)| {
                        known.insert(name, wish);
                        wish
                    });
                    before != now
                });
            }
            WatchEvent::Deleted(item) => {
                let name = name_of(&item);
                wishes.send_if_modified(|known| known.as_mut().is_some_and(|known| known.remove(&name).is_some()));
            }
            WatchEvent::Resumed => {}
            WatchEvent::Lost { error, .. } if error.class == ErrorClass::Forbidden => {
                tracing::info!(%error, "what namespaces ask for is not known: `afresh.dev/rollout` on a Namespace counts for nothing");
                wishes.send_if_modified(|known| {
                    known.get_or_insert_default();
                    true
                });
                // rights are given at an installation: the next start asks again
                return;
            }
            WatchEvent::Lost { error, .. } => tracing::debug!(%error, "the watch of namespaces is down"),
        }
    }
}

fn name_of(item: &Value) -> String {
    item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn wish_of(item: &Value) -> Option<(String, Wish)> {
    let text = item.get("metadata")?.get("annotations")?.get(api::ROLLOUT)?.as_str()?;
    let wish = Wish::parse(text);
    if wish.is_none() {
        tracing::warn!(
            namespace = name_of(item),
            value = text,
            "`{}` is {} on a Namespace; this counts for nothing",
            api::ROLLOUT,
            Wish::VALUES
        );
    }
    Some((name_of(item), wish?))
}
