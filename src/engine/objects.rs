//! The objects that people write: watched, kept as cells, each served by a worker of its own.
//!
//! Where several instances share the work, all objects are watched, and those of our share are served. Of the others'
//! applications it is known what their status says; the others' sources are followed as far as ours need them, and
//! nothing is written to them. What leaves our share is let go at once: its worker stops, nothing is deleted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::{GitRepository, Key, Kustomization};
use crate::cluster::{ApiKind, Cluster, Collection, WatchEvent, Watcher};
use crate::config::SourceRole;
use crate::plan::Inventory;
use crate::report::Readiness;

use super::shared::Shared;
use super::{EngineError, Hint, application, source};

/// The cells of one kind: the newest object of each name, `None` once it is gone.
struct Cells<T> {
    watcher: Watcher<Value>,
    kind: ApiKind,
    cells: HashMap<Key, watch::Sender<Option<Arc<T>>>>,
    listed: bool,
    /// Appeared, changed or gone, and not dealt with yet.
    touched: BTreeSet<Key>,
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
        Self { watcher, kind, cells: HashMap::new(), listed: false, touched: BTreeSet::new(), seen: Box::new(seen) }
    }

    /// Waits for the next event and takes it in.
    async fn next(&mut self) {
        match self.watcher.next().await {
            WatchEvent::Listed { items, .. } => {
                self.listed = true;
                let mut missing: BTreeSet<Key> = self.cells.keys().cloned().collect();
                for item in items {
                    let key = Key::of(&item);
                    missing.remove(&key);
                    self.take(key, item);
                }
                for key in missing {
                    self.gone(key);
                }
            }
            WatchEvent::Changed(item) => self.take(Key::of(&item), item),
            WatchEvent::Deleted(item) => self.gone(Key::of(&item)),
            WatchEvent::Resumed => tracing::info!(kind = %self.kind.kind, "the watch is back"),
            WatchEvent::Lost { error, retry_in } => {
                tracing::warn!(kind = %self.kind.kind, %error, retry_in_s = retry_in.as_secs_f32(), "the watch was lost");
            }
        }
    }

    fn take(&mut self, key: Key, mut item: Value) {
        // who wrote which field is most of what an object holds, and nobody here asks
        if let Some(metadata) = item.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let object: T = match serde_json::from_value(item) {
            Ok(object) => object,
            // the schema keeps this from happening where our definitions are installed
            Err(error) => {
                tracing::error!(kind = %self.kind.kind, object = %key, %error, "the object can't be read; it is left as it was");
                return;
            }
        };
        let object = Arc::new(object);
        (self.seen)(&key, &object);
        let object = Some(object);
        match self.cells.get(&key) {
            Some(cell) => drop(cell.send_replace(object)),
            None => drop(self.cells.insert(key.clone(), watch::channel(object).0)),
        }
        self.touched.insert(key);
    }

    fn gone(&mut self, key: Key) {
        if let Some(cell) = self.cells.remove(&key) {
            cell.send_replace(None);
            self.touched.insert(key);
        }
    }

    fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.cells.get(key)?.borrow().clone()
    }

    fn goal(&self, key: &Key) -> Option<watch::Receiver<Option<Arc<T>>>> {
        self.cells.get(key).map(watch::Sender::subscribe)
    }
}

/// Watches and serves until cancelled, or until a worker dies.
pub async fn serve(
    shared: Arc<Shared>,
    namespace: Option<String>,
    readiness: Readiness,
    cancel: CancellationToken,
) -> Result<(), EngineError> {
    let repositories =
        Cells::<GitRepository>::new(&shared.cluster, ApiKind::git_repository(), namespace.as_deref(), |_, _| {});
    let registry = shared.registry.clone();
    let kustomizations = Cells::<Kustomization>::new(
        &shared.cluster,
        ApiKind::kustomization(),
        namespace.as_deref(),
        move |key, object| {
            registry.seen(key, object.clone());
        },
    );
    let mut served = Served {
        shared,
        cancel,
        repositories,
        kustomizations,
        tasks: JoinSet::new(),
        running: HashMap::new(),
        finished: HashMap::new(),
        followed: BTreeSet::new(),
        said: HashMap::new(),
        begun: false,
    };
    loop {
        tokio::select! {
            () = served.repositories.next() => {}
            () = served.kustomizations.next() => {}
            Some(ended) = served.tasks.join_next() => {
                let duty = ended.map_err(|error| EngineError::Worker(error.to_string()))?;
                served.ended(duty);
            }
            () = served.cancel.cancelled() => {
                while served.tasks.join_next().await.is_some() {}
                return Ok(());
            }
        }
        // nobody starts before all are known: who owns what and who depends on whom is then known, too
        if !(served.repositories.listed && served.kustomizations.listed) {
            continue;
        }
        served.distribute();
        if !readiness.is_ready() {
            readiness.set();
            tracing::info!(
                repositories = served.repositories.cells.len(),
                kustomizations = served.kustomizations.cells.len(),
                "serving"
            );
        }
    }
}

/// What a worker does; at most one does it for one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Duty {
    Source(Key),
    Application(Key),
    /// Takes our mark off an application that is not of our share any more.
    Release(Key),
}

/// A worker, and how it is told that its object left our share.
struct Running {
    leave: CancellationToken,
    /// Of a source.
    role: SourceRole,
}

/// All cells, and the workers that serve them.
struct Served {
    shared: Arc<Shared>,
    cancel: CancellationToken,
    repositories: Cells<GitRepository>,
    kustomizations: Cells<Kustomization>,
    tasks: JoinSet<Duty>,
    running: HashMap<Duty, Running>,
    /// Objects on their way out whose worker has done its part, by uid: they get no other.
    finished: HashMap<Duty, Option<String>>,
    /// The sources that are needed here.
    followed: BTreeSet<Key>,
    /// What was said of their sources on Kustomizations, where nothing is written to sources.
    said: HashMap<Key, String>,
    /// All objects were distributed once: what is said from then on is new.
    begun: bool,
}

impl Served {
    /// Sees to it that each object of our share has its worker, and no other object has one.
    fn distribute(&mut self) {
        if self.repositories.touched.is_empty() && self.kustomizations.touched.is_empty() {
            return;
        }
        let applications = std::mem::take(&mut self.kustomizations.touched);
        if self.shared.source_role == SourceRole::Observe {
            self.hear(&applications);
        }
        // what others have is theirs
        for key in applications.iter().filter(|key| !self.has(key)) {
            self.introduce(key);
        }
        for key in applications.iter().filter(|key| self.has(key)) {
            self.introduce(key);
        }
        let mut sources = std::mem::take(&mut self.repositories.touched);
        sources.extend(self.follow());
        for key in sources {
            self.assign_source(key);
        }
        for key in applications {
            self.assign_application(key);
        }
    }

    /// A replica that a webhook came to has told of a source by one of the applications that follow it.
    fn hear(&mut self, applications: &BTreeSet<Key>) {
        for key in applications {
            let Some(object) = self.kustomizations.get(key) else {
                self.said.remove(key);
                continue;
            };
            let Some((text, hint)) = Hint::of_source_of(&object) else { continue };
            let new = self.said.get(key).is_none_or(|said| said != text);
            self.said.insert(key.clone(), text.to_owned());
            let source = self.shared.source(&object.source_key());
            // who begins to follow a source looks at it in any case
            if new && self.begun && source.is_served() {
                match hint {
                    Some(hint) => source.hint(hint),
                    None => source.ask(true),
                }
            }
        }
        self.begun = true;
    }

    /// Says of an application what others have to know of it before anyone works.
    fn introduce(&self, key: &Key) {
        let registry = &self.shared.registry;
        let duty = Duty::Application(key.clone());
        let Some(object) = self.kustomizations.get(key) else {
            // a worker says so itself
            if !self.running.contains_key(&duty) {
                registry.remove(key);
            }
            return;
        };
        let ours = self.is_ours(key, &object.metadata);
        if ours && (self.running.contains_key(&duty) || self.is_finished(&duty, &object.metadata)) {
            return;
        }
        let (inventory, _) = Inventory::read(object.status.as_ref().and_then(|s| s.inventory.as_ref()));
        if !ours {
            application::declare_of_others(registry, key, &object, inventory.ids().cloned().collect());
            return;
        }
        registry.adopt(key, inventory.ids().cloned());
        application::declare(registry, key, &object);
        // who was Ready stays so for its dependents: a restart is no news
        if let Some(revision) = application::recorded_ready(&object) {
            registry.ready(key, revision);
        }
    }

    /// Whether there is such an application in our share.
    fn has(&self, key: &Key) -> bool {
        self.kustomizations.get(key).is_some_and(|object| self.is_ours(key, &object.metadata))
    }

    fn is_ours(&self, key: &Key, metadata: &ObjectMeta) -> bool {
        self.shared.share.has(key, metadata.labels.as_ref())
    }

    fn assign_application(&mut self, key: Key) {
        let duty = Duty::Application(key.clone());
        let (Some(object), Some(goal)) = (self.kustomizations.get(&key), self.kustomizations.goal(&key)) else {
            self.finished.remove(&duty);
            return;
        };
        if self.is_ours(&key, &object.metadata) {
            if !self.running.contains_key(&duty) && !self.is_finished(&duty, &object.metadata) {
                let leave = self.begin(duty.clone(), SourceRole::Serve);
                let (shared, cancel) = (self.shared.clone(), self.cancel.clone());
                self.tasks.spawn(async move {
                    application::run(key, shared, goal, cancel, leave).await;
                    duty
                });
            }
            return;
        }
        if let Some(running) = self.running.get(&duty) {
            if !running.leave.is_cancelled() {
                tracing::info!(object = %key, "not of our share any more: letting go");
            }
            return running.leave.cancel();
        }
        let duty = Duty::Release(key.clone());
        let marked = self.shared.hold.as_ref().is_some_and(|hold| hold.has_marked(&object));
        if marked && !self.running.contains_key(&duty) {
            self.begin(duty.clone(), SourceRole::Serve);
            let (shared, cancel, mut goal) = (self.shared.clone(), self.cancel.clone(), goal);
            self.tasks.spawn(async move {
                if let Some(hold) = &shared.hold {
                    tokio::select! {
                        () = hold.release(&key, &mut goal) => {}
                        () = cancel.cancelled() => {}
                    }
                }
                duty
            });
        }
    }

    /// What is asked of us for a source: to serve it, to follow it without writing to it, or nothing.
    fn role_for(&self, key: &Key) -> Option<SourceRole> {
        let object = self.repositories.get(key)?;
        if self.is_ours(key, &object.metadata) {
            return Some(self.shared.source_role);
        }
        self.followed.contains(key).then_some(SourceRole::Observe)
    }

    fn assign_source(&mut self, key: Key) {
        let (wanted, duty) = (self.role_for(&key), Duty::Source(key.clone()));
        if !self.repositories.cells.contains_key(&key) {
            self.finished.remove(&duty);
        }
        match (self.running.get(&duty), wanted) {
            (Some(running), Some(role)) if running.role == role => {}
            // one that is gone ends its worker by itself
            (Some(_), None) if self.repositories.get(&key).is_none() => {}
            // who follows next begins when this one has ended
            (Some(running), _) => running.leave.cancel(),
            (None, Some(role)) => {
                let Some(goal) = self.repositories.goal(&key) else { return };
                if self.repositories.get(&key).is_none_or(|object| self.is_finished(&duty, &object.metadata)) {
                    return;
                }
                let leave = self.begin(duty.clone(), role);
                let (shared, cancel) = (self.shared.clone(), self.cancel.clone());
                shared.source(&key).state.send_modify(|state| state.exists = true);
                self.tasks.spawn(async move {
                    source::run(key, shared, goal, role, cancel, leave).await;
                    duty
                });
            }
            // what was seen of it gets old from here on
            (None, None) => drop(self.shared.source(&key).state.send_replace(source::SourceState::default())),
        }
    }

    /// Finds out anew which sources are needed here; answers those of which that changed.
    fn follow(&mut self) -> Vec<Key> {
        if !self.shared.share.is_partial() {
            return Vec::new();
        }
        let mut needed = BTreeSet::new();
        let mut open: Vec<Key> = Vec::new();
        for key in self.kustomizations.cells.keys() {
            if let Some(object) = self.kustomizations.get(key).filter(|object| self.is_ours(key, &object.metadata)) {
                open.push(object.source_key());
            }
        }
        for key in self.repositories.cells.keys() {
            open.extend(self.repositories.get(key).filter(|o| self.is_ours(key, &o.metadata)).map(|_| key.clone()));
        }
        while let Some(key) = open.pop() {
            let Some(object) = self.repositories.get(&key).filter(|_| !needed.contains(&key)) else { continue };
            let includes = object.spec.include.iter().flatten();
            open.extend(includes.map(|include| Key::new(&*key.namespace, &*include.repository.name)));
            needed.insert(key);
        }
        let changed = needed.symmetric_difference(&self.followed).cloned().collect();
        self.followed = needed;
        changed
    }

    fn begin(&mut self, duty: Duty, role: SourceRole) -> CancellationToken {
        let leave = CancellationToken::new();
        self.running.insert(duty, Running { leave: leave.clone(), role });
        leave
    }

    fn is_finished(&self, duty: &Duty, metadata: &ObjectMeta) -> bool {
        self.finished.get(duty).is_some_and(|uid| *uid == metadata.uid)
    }

    /// A worker has ended: the object may have come back meanwhile, or there is more to do about it.
    fn ended(&mut self, duty: Duty) {
        let left = self.running.remove(&duty).is_some_and(|running| running.leave.is_cancelled());
        let metadata = match &duty {
            Duty::Source(key) => self.repositories.get(key).map(|object| object.metadata.clone()),
            Duty::Application(key) | Duty::Release(key) => {
                self.kustomizations.get(key).map(|object| object.metadata.clone())
            }
        };
        match metadata {
            Some(metadata) if !left && metadata.deletion_timestamp.is_some() => {
                self.finished.insert(duty.clone(), metadata.uid);
            }
            _ => drop(self.finished.remove(&duty)),
        }
        match duty {
            Duty::Source(key) => self.repositories.touched.insert(key),
            Duty::Application(key) | Duty::Release(key) => self.kustomizations.touched.insert(key),
        };
    }
}
