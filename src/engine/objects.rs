//! The objects that people write: watched, kept as cells, each served by a worker of its own.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{GitRepository, Key, Kustomization};
use crate::cluster::{ApiKind, Cluster, Collection, WatchEvent, Watcher};
use crate::plan::Inventory;
use crate::report::Readiness;

use super::shared::Shared;
use super::{EngineError, application, source};

/// The cells of one kind: the newest object of each name, `None` once it is gone.
struct Cells<T> {
    watcher: Watcher<Value>,
    kind: ApiKind,
    cells: HashMap<Key, watch::Sender<Option<Arc<T>>>>,
    listed: bool,
    /// Is told of each object that is taken in.
    seen: Witness<T>,
}

type Witness<T> = Box<dyn Fn(&Key, &Arc<T>) + Send + Sync>;

impl<T: DeserializeOwned> Cells<T> {
    fn new(
        cluster: &Cluster,
        kind: ApiKind,
        namespace: Option<&str>,
        seen: impl Fn(&Key, &Arc<T>) + Send + Sync + 'static,
    ) -> Self {
        let collection = Collection { namespace: namespace.map(str::to_owned), ..Collection::all(kind.clone()) };
        let watcher = Watcher::new(cluster.clone(), collection);
        Self { watcher, kind, cells: HashMap::new(), listed: false, seen: Box::new(seen) }
    }

    /// Waits for the next event and takes it in. Answers the names that need a worker.
    async fn next(&mut self) -> Vec<Key> {
        match self.watcher.next().await {
            WatchEvent::Listed { items, .. } => {
                self.listed = true;
                let mut missing: Vec<Key> = self.cells.keys().cloned().collect();
                let mut new = Vec::new();
                for item in items {
                    let key = key_of(&item);
                    missing.retain(|k| *k != key);
                    new.extend(self.take(key, item));
                }
                for key in missing {
                    self.gone(&key);
                }
                new
            }
            WatchEvent::Changed(item) => self.take(key_of(&item), item).into_iter().collect(),
            WatchEvent::Deleted(item) => {
                self.gone(&key_of(&item));
                Vec::new()
            }
            WatchEvent::Resumed => {
                tracing::info!(kind = %self.kind.kind, "the watch is back");
                Vec::new()
            }
            WatchEvent::Lost { error, retry_in } => {
                tracing::warn!(kind = %self.kind.kind, %error, retry_in_s = retry_in.as_secs_f32(), "the watch was lost");
                Vec::new()
            }
        }
    }

    fn take(&mut self, key: Key, item: Value) -> Option<Key> {
        let object: T = match serde_json::from_value(item) {
            Ok(object) => object,
            // the schema keeps this from happening where our definitions are installed
            Err(error) => {
                tracing::error!(kind = %self.kind.kind, object = %key, %error, "the object can't be read; it is left as it was");
                return None;
            }
        };
        let object = Arc::new(object);
        (self.seen)(&key, &object);
        let object = Some(object);
        match self.cells.get(&key) {
            Some(cell) => {
                cell.send_replace(object);
                None
            }
            None => {
                self.cells.insert(key.clone(), watch::channel(object).0);
                Some(key)
            }
        }
    }

    fn gone(&mut self, key: &Key) {
        if let Some(cell) = self.cells.remove(key) {
            cell.send_replace(None);
        }
    }

    fn goal(&self, key: &Key) -> Option<watch::Receiver<Option<Arc<T>>>> {
        self.cells.get(key).map(watch::Sender::subscribe)
    }
}

fn key_of(item: &Value) -> Key {
    let text = |pointer| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    Key { namespace: text("/metadata/namespace"), name: text("/metadata/name") }
}

/// Watches and serves until cancelled, or until a worker dies.
pub async fn serve(
    shared: Arc<Shared>,
    namespace: Option<String>,
    readiness: Readiness,
    cancel: CancellationToken,
) -> Result<(), EngineError> {
    let mut repositories =
        Cells::<GitRepository>::new(&shared.cluster, ApiKind::git_repository(), namespace.as_deref(), |_, _| {});
    let registry = shared.registry.clone();
    let mut kustomizations = Cells::<Kustomization>::new(
        &shared.cluster,
        ApiKind::kustomization(),
        namespace.as_deref(),
        move |key, object| {
            registry.seen(key, object.clone());
        },
    );
    let mut workers = JoinSet::new();
    let (mut new_repositories, mut new_kustomizations) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            new = repositories.next() => new_repositories.extend(new),
            new = kustomizations.next() => new_kustomizations.extend(new),
            Some(ended) = workers.join_next() => {
                let ended: Result<(), tokio::task::JoinError> = ended;
                if let Err(error) = ended {
                    return Err(EngineError::Worker(error.to_string()));
                }
            }
            () = cancel.cancelled() => {
                while workers.join_next().await.is_some() {}
                return Ok(());
            }
        }
        // nobody starts before all are known: who owns what and who depends on whom is then known, too
        if !(repositories.listed && kustomizations.listed) {
            continue;
        }
        for key in new_repositories.drain(..) {
            if let Some(goal) = repositories.goal(&key) {
                shared.source(&key).state.send_modify(|state| state.exists = true);
                workers.spawn(source::run(key, shared.clone(), goal, cancel.clone()));
            }
        }
        for key in &new_kustomizations {
            if let Some(object) = kustomizations.goal(key).and_then(|goal| goal.borrow().clone()) {
                let (inventory, _) = Inventory::read(object.status.as_ref().and_then(|s| s.inventory.as_ref()));
                shared.registry.adopt(key, inventory.ids().cloned());
                application::declare(&shared.registry, key, &object);
                // who was Ready stays so for its dependents: a restart is no news
                if let Some(revision) = application::recorded_ready(&object) {
                    shared.registry.ready(key, revision);
                }
            }
        }
        for key in new_kustomizations.drain(..) {
            if let Some(goal) = kustomizations.goal(&key) {
                workers.spawn(application::run(key, shared.clone(), goal, cancel.clone()));
            }
        }
        if !readiness.is_ready() {
            readiness.set();
            tracing::info!(
                repositories = repositories.cells.len(),
                kustomizations = kustomizations.cells.len(),
                "serving"
            );
        }
    }
}
