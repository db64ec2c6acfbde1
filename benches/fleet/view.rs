//! What a watch shows of a kind: of each object the words that are waited for, and when the last of them came.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use afresh::cluster::{ApiKind, Cluster, Collection, WatchEvent, Watcher};
use anyhow::bail;
use serde_json::Value;
use tokio::sync::watch;

use crate::platform::VALUE;
use crate::support::NAMESPACE;

/// A thousand applications on a slow machine, and an old one beside them.
const PATIENCE: Duration = Duration::from_secs(600);

/// The objects of one kind, kept by a task.
pub struct View {
    known: Arc<Mutex<BTreeMap<String, Seen>>>,
    changes: watch::Receiver<u64>,
}

#[derive(Clone)]
pub struct Seen {
    pub text: String,
    /// When it was first so.
    pub at: Instant,
}

impl View {
    /// What the pod templates are to tell.
    pub fn of_deployments(cluster: &Cluster) -> Self {
        Self::new(cluster, ApiKind::new("apps", "v1", "Deployment", "deployments", true), |object| {
            let value = &object["spec"]["template"]["metadata"]["annotations"][VALUE];
            value.as_str().unwrap_or_default().to_owned()
        })
    }

    /// `True` and the revision, or the status of the condition and its message.
    pub fn of_applications(cluster: &Cluster) -> Self {
        Self::new(cluster, ApiKind::kustomization(), |object| {
            let conditions = object["status"]["conditions"].as_array();
            let ready = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == "Ready"));
            let text = |field: &str| ready.and_then(|ready| ready[field].as_str()).unwrap_or_default();
            match text("status") {
                "True" => format!("True {}", object["status"]["lastAppliedRevision"].as_str().unwrap_or_default()),
                status => format!("{status} {}", text("message")),
            }
        })
    }

    fn new(cluster: &Cluster, kind: ApiKind, text: fn(&Value) -> String) -> Self {
        let known = Arc::new(Mutex::new(BTreeMap::new()));
        let (told, changes) = watch::channel(0);
        let collection = Collection { namespace: Some(NAMESPACE.to_owned()), ..Collection::all(kind) };
        let mut watcher: Watcher<Value> = Watcher::new(cluster.clone(), collection);
        let view = Self { known: known.clone(), changes };
        tokio::spawn(async move {
            loop {
                match watcher.next().await {
                    WatchEvent::Listed { items, .. } => {
                        let mut known = lock(&known);
                        known.retain(|name, _| items.iter().any(|item| item["metadata"]["name"] == name.as_str()));
                        items.iter().for_each(|item| note(&mut known, item, text));
                    }
                    WatchEvent::Changed(item) => note(&mut lock(&known), &item, text),
                    WatchEvent::Deleted(item) => {
                        lock(&known).remove(item["metadata"]["name"].as_str().unwrap_or_default());
                    }
                    WatchEvent::Resumed | WatchEvent::Lost { .. } => {}
                }
                if told.send(0).is_err() {
                    return;
                }
            }
        });
        view
    }

    /// The moment at which the last of these became so, after `since`.
    pub async fn until(&mut self, names: &[String], wanted: &str, since: Instant) -> anyhow::Result<Instant> {
        self.until_some(names, names.len(), wanted, since).await
    }

    /// The moment at which `count` of these had become so.
    pub async fn until_some(
        &mut self,
        names: &[String],
        count: usize,
        wanted: &str,
        since: Instant,
    ) -> anyhow::Result<Instant> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            self.changes.borrow_and_update();
            let (mut moments, mut others) = (Vec::new(), Vec::new());
            {
                let known = lock(&self.known);
                for name in names {
                    match known.get(name) {
                        Some(seen) if seen.text == wanted && seen.at > since => moments.push(seen.at),
                        other => others.push((name, other.map(|seen| seen.text.clone()))),
                    }
                }
            }
            moments.sort();
            if let Some(at) = count.checked_sub(1).and_then(|last| moments.get(last)) {
                return Ok(*at);
            }
            if tokio::time::timeout_at(deadline, self.changes.changed()).await.is_err() {
                bail!("{} are not `{wanted}`, for example {:?}", others.len(), others.first());
            }
        }
    }
}

fn note(known: &mut BTreeMap<String, Seen>, item: &Value, text: fn(&Value) -> String) {
    let (name, text) = (item["metadata"]["name"].as_str().unwrap_or_default(), text(item));
    match known.get(name) {
        Some(seen) if seen.text == text => {}
        _ => drop(known.insert(name.to_owned(), Seen { text, at: Instant::now() })),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
