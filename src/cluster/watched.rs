//! One watch for each kind that applications declare: begun with its first user, ended with its last.
//!
//! Comes in: who needs which kinds. Goes out: what is seen, into the store of [`Observed`]; how each watch is doing, to
//! those who wait for its first list, to the metrics, and to its users where it may not be watched any more. What this
//! never does: decide what is needed; applications say so.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::api::OWNER_NAME_LABEL;
use crate::manifest::GroupKind;

use super::connection::Cluster;
use super::discovery::ApiKind;
use super::error::{ApiError, ErrorClass};
use super::observed::{Observed, Shared, Told, has_health};
use super::seen::{OwnerKey, WireObject};
use super::watch::{Collection, WatchEvent, Watcher};

/// Why it can't be known what is in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    #[error(
        "can't watch `{resource}`: {message}\nhint: grant `list` and `watch` to Afresh's service account; an installation for one namespace applies nothing that lies outside of it"
    )]
    Forbidden { resource: String, message: String },
    #[error("can't watch `{resource}`: the API server does not serve it")]
    NotServed { resource: String },
    /// The first list is still not in; the attempts go on.
    #[error("no list of `{resource}` within {seconds} s{}", last.as_ref().map(|e| format!(": {e}")).unwrap_or_default())]
    TimedOut { resource: String, seconds: u64, last: Option<ApiError> },
}

impl WatchError {
    /// Whether it is objects of this kind that can't be watched.
    pub fn is_about(&self, kind: &ApiKind) -> bool {
        let (Self::Forbidden { resource, .. } | Self::NotServed { resource } | Self::TimedOut { resource, .. }) = self;
        *resource == kind.resource()
    }
}

/// The state of one kind's watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// The first list is not in yet.
    Starting,
    Current,
    /// The connection is down; what is known may be outdated.
    Lost(ApiError),
    /// It was told often enough in a row that we may not: what was known is worth nothing any more.
    Refused(ApiError),
}

impl WatchState {
    /// As the metric calls it.
    fn label(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Current => "current",
            Self::Refused(_) => "forbidden",
            Self::Lost(error) if error.class == ErrorClass::Forbidden => "forbidden",
            Self::Lost(error) if error.is_not_found() => "unserved",
            Self::Lost(_) => "lost",
        }
    }
}

/// What one watch is of: a kind, and the namespace if it is restricted to one.
pub(super) type Watching = (GroupKind, Option<String>);

pub(super) struct KindWatch {
    pub content: bool,
    /// The plural, with the group behind a dot.
    pub resource: String,
    /// Who asked for it and has not let go of it yet.
    pub users: HashSet<OwnerKey>,
    /// The first list is in, and what the connection is doing.
    pub state: watch::Sender<(bool, WatchState)>,
    pub task: AbortHandle,
}

impl Observed {
    /// Watches these kinds for an owner from now on, and returns once everything of them is known.
    ///
    /// Fails at once where the server says no, else after the timeout; the watches go on in any case.
    pub async fn ensure_watched(&self, owner: &OwnerKey, kinds: &[ApiKind]) -> Result<(), WatchError> {
        self.ensure_watched_in(owner, kinds.iter().map(|kind| (kind, ""))).await
    }

    /// As [`Observed::ensure_watched`]; where watches are by namespace, these are enough.
    pub async fn ensure_watched_in(
        &self,
        owner: &OwnerKey,
        wanted: impl Iterator<Item = (&ApiKind, &str)> + Send,
    ) -> Result<(), WatchError> {
        let mut waiting = Vec::new();
        for (kind, namespace) in wanted.filter(|(kind, _)| kind.watchable) {
            waiting.push((kind.resource(), self.0.start(owner, kind, namespace)));
        }
        let deadline = tokio::time::Instant::now() + self.0.options.list_timeout;
        for (resource, mut state) in waiting {
            let known = state.wait_for(|(listed, state)| {
                *listed
                    || matches!(state, WatchState::Refused(_))
                    || matches!(state, WatchState::Lost(e) if e.class == ErrorClass::Forbidden || e.is_not_found())
            });
            let known = tokio::time::timeout_at(deadline, known).await.map(|state| state.map(|s| s.clone()));
            match known {
                Ok(Ok((_, WatchState::Refused(e)))) => {
                    return Err(WatchError::Forbidden { resource, message: e.message });
                }
                Ok(Ok((true, _))) => {}
                Ok(Ok((false, WatchState::Lost(e)))) if e.is_not_found() => {
                    return Err(WatchError::NotServed { resource });
                }
                Ok(Ok((false, WatchState::Lost(e)))) => {
                    return Err(WatchError::Forbidden { resource, message: e.message });
                }
                _ => {
                    let last = match &state.borrow().1 {
                        WatchState::Lost(error) => Some(error.clone()),
                        _ => None,
                    };
                    let seconds = self.0.options.list_timeout.as_secs();
                    return Err(WatchError::TimedOut { resource, seconds, last });
                }
            }
        }
        Ok(())
    }

    /// The owner has objects of these kinds only (a namespace is given where watches are by namespace): what nobody else
    /// asked for is not watched any more.
    pub fn keep_watched(&self, owner: &OwnerKey, needed: impl Fn(&GroupKind, Option<&str>) -> bool) {
        let mut store = self.0.store();
        let mut ended = Vec::new();
        store.kinds.retain(|(kind, namespace), watch| {
            if !watch.users.contains(owner) || needed(kind, namespace.as_deref()) {
                return true;
            }
            watch.users.remove(owner);
            if watch.users.is_empty() {
                watch.task.abort();
                self.0.cluster.observer().watch_ended(&watch.resource, namespace.as_deref());
                ended.push((kind.clone(), namespace.clone()));
            }
            !watch.users.is_empty()
        });
        for (kind, namespace) in ended {
            store.forget(&kind, namespace.as_deref());
        }
    }

    /// Whether anything of what the owner has may not be watched any more.
    pub fn is_blind(&self, owner: &OwnerKey) -> bool {
        let store = self.0.store();
        let refused = |watch: &KindWatch| matches!(watch.state.borrow().1, WatchState::Refused(_));
        store.kinds.values().any(|watch| watch.users.contains(owner) && refused(watch))
    }

    /// Whether everything that the owner asked for is known.
    pub fn sees_all(&self, owner: &OwnerKey) -> bool {
        let store = self.0.store();
        let known = |watch: &KindWatch| matches!(*watch.state.borrow(), (true, WatchState::Current));
        store.kinds.values().filter(|watch| watch.users.contains(owner)).all(known)
    }
}

impl Shared {
    /// The state of the kind's watch, which is begun if there is none.
    fn start(
        self: &Arc<Self>,
        owner: &OwnerKey,
        kind: &ApiKind,
        namespace: &str,
    ) -> watch::Receiver<(bool, WatchState)> {
        let restricted = self.options.by_namespace && kind.namespaced && !namespace.is_empty();
        let namespace = restricted.then(|| namespace.to_owned());
        let key = (GroupKind { group: kind.group.to_string(), kind: kind.kind.to_string() }, namespace.clone());
        let mut store = self.store();
        if let Some(watch) = store.kinds.get_mut(&key) {
            watch.users.insert(owner.clone());
            return watch.state.subscribe();
        }
        let content = has_health(&kind.group, &kind.kind);
        let (state, receiver) = watch::channel((false, WatchState::Starting));
        let following = follow(Arc::downgrade(self), kind.clone(), namespace, content, state.clone());
        let task = self.cluster.tasks().spawn(format!("the watch of `{}`", kind.resource()), following);
        let (resource, users) = (kind.resource(), HashSet::from([owner.clone()]));
        self.cluster.observer().watch(&resource, key.1.as_deref(), WatchState::Starting.label());
        store.kinds.insert(key, KindWatch { content, resource, users, state, task });
        receiver
    }

    /// The state of a watch; who asked for it hears when it may not be watched any more, and when it is all known (again).
    fn turn(
        &self,
        kind: &GroupKind,
        namespace: Option<&str>,
        state: &watch::Sender<(bool, WatchState)>,
        now: WatchState,
    ) {
        let (is_refused, is_current, label) =
            (matches!(now, WatchState::Refused(_)), now == WatchState::Current, now.label());
        let before = std::cell::Cell::new(None);
        state.send_if_modified(|(listed, state)| {
            let changed = *state != now;
            let was_current = *state == WatchState::Current;
            // a connection that was down for a moment concerns nobody
            let missed = !*listed || matches!(state.label(), "forbidden" | "unserved");
            before.set(Some((state.label(), matches!(state, WatchState::Refused(_)), missed && !was_current)));
            *listed |= is_current;
            *state = now;
            changed
        });
        let Some((before, was_refused, missed)) = before.into_inner() else { return };
        if before == label && was_refused == is_refused {
            return;
        }
        let mut store = self.store();
        let Some(watch) = store.kinds.get(&(kind.clone(), namespace.map(str::to_owned))) else { return };
        self.cluster.observer().watch(&watch.resource, namespace, label);
        if was_refused != is_refused || (missed && is_current) {
            let users: Vec<OwnerKey> = watch.users.iter().cloned().collect();
            users.iter().for_each(|user| store.ring(Some(user)));
        }
    }
}

/// Follows one kind until aborted or the store is gone.
async fn follow(
    shared: Weak<Shared>,
    kind: ApiKind,
    namespace: Option<String>,
    content: bool,
    state: watch::Sender<(bool, WatchState)>,
) {
    let key = GroupKind { group: kind.group.to_string(), kind: kind.kind.to_string() };
    let mut kind = kind;
    let mut refusals = 0;
    'kind: loop {
        let mut watcher = {
            let Some(shared) = shared.upgrade() else { return };
            let collection = Collection {
                labels: Some(OWNER_NAME_LABEL.to_owned()),
                metadata_only: !content,
                namespace: namespace.clone(),
                ..Collection::all(kind.clone())
            };
            Watcher::<WireObject>::new(shared.cluster.clone(), collection)
        };
        loop {
            let event = watcher.next().await;
            let Some(shared) = shared.upgrade() else { return };
            refusals = match &event {
                WatchEvent::Lost { error, .. } if error.class == ErrorClass::Forbidden => refusals + 1,
                _ => 0,
            };
            match event {
                WatchEvent::Listed { items, resource_version } => {
                    let items = items.into_iter().map(|o| o.into_seen(&kind, content)).collect();
                    shared.listed(&key, namespace.as_deref(), items, &resource_version);
                    shared.turn(&key, namespace.as_deref(), &state, WatchState::Current);
                }
                WatchEvent::Changed(object) => {
                    let (seen, managed) = object.into_seen(&kind, content);
                    if key.kind == "CustomResourceDefinition" {
                        refresh_kinds_of(&shared.cluster, &seen.id.name);
                    }
                    shared.take(Told::Changed(Box::new(seen), managed));
                    shared.turn(&key, namespace.as_deref(), &state, WatchState::Current);
                }
                WatchEvent::Deleted(object) => {
                    let (seen, _) = object.into_seen(&kind, content);
                    shared.take(Told::Deleted(seen.id));
                    shared.turn(&key, namespace.as_deref(), &state, WatchState::Current);
                }
                WatchEvent::Resumed => shared.turn(&key, namespace.as_deref(), &state, WatchState::Current),
                WatchEvent::Lost { error, .. } => {
                    let gone = error.is_not_found();
                    tracing::debug!(resource = kind.resource(), %error, "the watch is down");
                    // one alone may be a server that has not read its rules yet
                    let now = if refusals >= REFUSALS { WatchState::Refused(error) } else { WatchState::Lost(error) };
                    shared.turn(&key, namespace.as_deref(), &state, now);
                    if gone {
                        // no kind, no objects; or another version of it is served now
                        shared.listed(&key, namespace.as_deref(), Vec::new(), "");
                        let cluster = shared.cluster.clone();
                        drop(shared);
                        if let Ok(now) = cluster.rediscover(&kind.group, &kind.kind).await
                            && now.version != kind.version
                        {
                            kind = now;
                            continue 'kind;
                        }
                    }
                }
            }
        }
    }
}

/// So often in a row the server has to say that we may not watch before it is believed: when it starts, it may not have
/// read its roles yet. With the pauses between that is six seconds.
const REFUSALS: u32 = 3;

/// A definition changed: what is known of its group's kinds may be outdated. Its name is `<plural>.<group>`.
fn refresh_kinds_of(cluster: &Cluster, definition: &str) {
    if let Some((_, group)) = definition.split_once('.') {
        let (asked, group) = (cluster.clone(), group.to_owned());
        cluster.tasks().spawn(format!("discovery of `{group}`"), async move {
            if let Err(error) = asked.refresh_group(&group).await {
                tracing::debug!(group, %error, "the kinds of a group could not be asked for");
            }
        });
    }
}
