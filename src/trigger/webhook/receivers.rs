//! Flux's Receivers: each watched together with its Secret, its path made known to the listener, its status written.
//!
//! ```text
//!  Receivers ──▶ one task each ── token of its Secret ──▶ path, or why there is none ──▶ Known (the listener)
//!                                                                                 └────▶ status, if this replica leads
//! ```
//! Whether a Receiver takes deliveries is decided here, from its spec and its Secret, not from the status that somebody
//! wrote: replicas that don't lead take them, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::known::{Hook, HookKind, Known, Token};
use super::secret::SecretToken;
use crate::api::{
    FINALIZER, Key, READY, RECONCILING, REQUESTED_AT, Receiver, ReceiverStatus, STALLED, STATUS_MANAGER, Truth,
    receiver_path,
};
use crate::cluster::{ApiError, ApiKind, Cluster, Collection, WatchEvent, Watcher};
use crate::engine::{Leadership, Share};
use crate::report::{Metrics, ObjectMetrics, StatusWriter};

const KIND: &str = "Receiver";

/// How long until a status that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

type Goal = watch::Receiver<Option<Arc<Receiver>>>;

/// Serves all Receivers (of a namespace). Ends only if one of its tasks dies.
pub async fn follow(
    cluster: &Cluster,
    namespace: Option<&str>,
    known: &Arc<Known>,
    leadership: Leadership,
    share: Share,
    metrics: &Metrics,
) {
    let collection = Collection { namespace: namespace.map(str::to_owned), ..Collection::all(kind()) };
    let mut watcher = Watcher::<Value>::new(cluster.clone(), collection);
    let mut cells: HashMap<Key, watch::Sender<Option<Arc<Receiver>>>> = HashMap::new();
    let mut workers = JoinSet::new();
    let mut absent = false;
    loop {
        let event = tokio::select! {
            event = watcher.next() => event,
            Some(ended) = workers.join_next() => {
                let ended: Result<(), tokio::task::JoinError> = ended;
                match ended {
                    Ok(()) => continue,
                    Err(error) => return tracing::error!(%error, "a task of a Receiver died"),
                }
            }
        };
        let (changed, gone) = match event {
            WatchEvent::Listed { items, .. } => {
                let mut gone: Vec<Key> = cells.keys().cloned().collect();
                gone.retain(|key| !items.iter().any(|item| Key::of(item) == *key));
                (items, gone)
            }
            WatchEvent::Changed(item) => (vec![item], Vec::new()),
            WatchEvent::Deleted(item) => (Vec::new(), vec![Key::of(&item)]),
            WatchEvent::Resumed => continue,
            WatchEvent::Lost { error, .. } => {
                if !std::mem::replace(&mut absent, true) {
                    tracing::warn!(%error, "Receivers can't be watched; they are served as last seen");
                }
                continue;
            }
        };
        absent = false;
        for key in gone {
            if let Some(cell) = cells.remove(&key) {
                cell.send_replace(None);
            }
        }
        for item in changed {
            let key = Key::of(&item);
            let object = match serde_json::from_value(item) {
                Ok(object) => Some(Arc::new(object)),
                Err(error) => {
                    tracing::error!(receiver = %key, %error, "the Receiver can't be read; it is left as it was");
                    continue;
                }
            };
            if let Some(cell) = cells.get(&key) {
                cell.send_replace(object);
                continue;
            }
            let (cell, goal) = watch::channel(object);
            cells.insert(key.clone(), cell);
            let (cluster, known, leadership) = (cluster.clone(), known.clone(), leadership.clone());
            let (metrics, share) = (metrics.object(KIND, &key), share.clone());
            workers.spawn(async move { serve(key, cluster, &known, leadership, share, metrics, goal).await });
        }
    }
}

/// Serves one Receiver until it is gone.
async fn serve(
    key: Key,
    cluster: Cluster,
    known: &Known,
    mut leadership: Leadership,
    share: Share,
    metrics: ObjectMetrics,
    mut goal: Goal,
) {
    let mut troubled = None;
    let mut status = goal.borrow().as_ref().and_then(|object| object.status.clone()).unwrap_or_default();
    let mut writer = StatusWriter::new(kind(), key.clone(), &status);
    let mut secret: Option<SecretToken> = None;
    let mut token: Option<Result<Token, String>> = None;
    loop {
        let Some(object) = goal.borrow_and_update().clone() else { break };
        let wanted = object.spec.secret_ref.as_ref().map(|r| Key::new(key.namespace.as_str(), r.name.as_str()));
        if secret.as_ref().map(SecretToken::secret) != wanted.as_ref() {
            (secret, token) = (wanted.map(|wanted| SecretToken::new(&cluster, wanted)), None);
        }
        let mut again = false;
        let reports = leadership.leads() && share.has(&key, object.metadata.labels.as_ref());
        if object.metadata.deletion_timestamp.is_some() {
            known.set_hook(&key, None);
            if reports
                && let Err(error) = release(&cluster, &key, &object).await
                && !error.is_not_found()
            {
                tracing::warn!(receiver = %key, %error, "the finalizer could not be removed");
                again = true;
            }
        // nothing is said before the Secret was looked for
        } else if token.is_some() || secret.is_none() {
            let verdict = judge(&key, &object, token.as_ref());
            let path = verdict.path.clone();
            known.set_hook(&key, verdict.hook.map(|hook| (path.clone().unwrap_or_default(), hook)));
            let suspended = object.spec.suspended();
            metrics.suspended(suspended);
            if !suspended {
                let trouble = verdict.trouble.as_ref().map(|trouble| trouble.reason);
                metrics.ready(Some(trouble.is_none()));
                match trouble {
                    None => metrics.succeeded(),
                    Some(reason) if troubled != trouble => metrics.failed(reason),
                    Some(_) => {}
                }
                troubled = trouble;
                report(&mut status, &object, path, &verdict.trouble);
            }
            if reports
                && !suspended
                && writer.differs(&status)
                && let Err(error) = writer.write(&cluster, &status).await
                && !error.is_not_found()
            {
                tracing::warn!(receiver = %key, %error, "the status could not be written; it is tried again");
                again = true;
            }
        }
        let next_token = async {
            match &mut secret {
                Some(secret) => secret.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = goal.changed() => if changed.is_err() { break },
            new = next_token => token = Some(new),
            _ = leadership.changed() => {}
            () = tokio::time::sleep(RETRY), if again => {}
        }
    }
    known.set_hook(&key, None);
}

/// What a Receiver comes to.
struct Verdict {
    /// Known as soon as there is a token.
    path: Option<String>,
    hook: Option<Hook>,
    trouble: Option<Trouble>,
}

struct Trouble {
    reason: &'static str,
    message: String,
    /// Only another spec helps.
    stalled: bool,
}

fn judge(key: &Key, object: &Receiver, token: Option<&Result<Token, String>>) -> Verdict {
    let spec = &object.spec;
    let unserved = spec.unserved();
    let stalled = |reason, message| Some(Trouble { reason, message, stalled: true });
    let trouble = if !unserved.is_empty() {
        stalled("UnservedField", format!("not served by this version of Afresh: {}", unserved.join(", ")))
    } else if let Some(contradiction) = spec.contradiction() {
        stalled("InvalidSpec", contradiction)
    } else if let Some(Err(error)) = token {
        Some(Trouble { reason: "TokenNotFound", message: error.clone(), stalled: false })
    } else {
        None
    };
    let Some(Ok(token)) = token else { return Verdict { path: None, hook: None, trouble } };
    let closed = if spec.suspended() {
        Some("it is suspended".to_owned())
    } else {
        trouble.as_ref().map(|trouble| trouble.message.clone())
    };
    let hook = Hook {
        key: key.clone(),
        // of another kind it is closed
        kind: HookKind::of(&spec.kind).unwrap_or(HookKind::Generic),
        token: token.clone(),
        events: spec.events.clone(),
        resources: spec.resources.clone(),
        closed,
    };
    Verdict { path: Some(receiver_path(token.expose_secret(), key)), hook: Some(hook), trouble }
}

fn report(status: &mut ReceiverStatus, object: &Receiver, path: Option<String>, trouble: &Option<Trouble>) {
    let (generation, now) = (object.metadata.generation, Timestamp::now());
    let conditions = &mut status.conditions;
    match trouble {
        None => {
            let message = format!("Receiver initialized for path: {}", path.as_deref().unwrap_or_default());
            conditions.remove(RECONCILING);
            conditions.remove(STALLED);
            conditions.set(READY, Truth::True, "Succeeded", &message, generation, now);
        }
        Some(Trouble { reason, message, stalled: true }) => {
            conditions.remove(RECONCILING);
            conditions.set(STALLED, Truth::True, reason, message, generation, now);
            conditions.set(READY, Truth::False, reason, message, generation, now);
        }
        Some(Trouble { reason, message, stalled: false }) => {
            conditions.remove(STALLED);
            conditions.set(RECONCILING, Truth::True, "ProgressingWithRetry", "waiting for the token", generation, now);
            conditions.set(READY, Truth::False, reason, message, generation, now);
        }
    }
    if trouble.as_ref().is_none_or(|trouble| trouble.stalled) {
        status.observed_generation = generation;
    }
    status.webhook_path = path;
    let asked = object.metadata.annotations.as_ref().and_then(|annotations| annotations.get(REQUESTED_AT));
    if let Some(asked) = asked {
        status.last_handled_reconcile_at = Some(asked.clone());
    }
}

/// Flux's controller holds its Receivers; with it gone, nobody else lets go of them.
async fn release(cluster: &Cluster, key: &Key, object: &Receiver) -> Result<(), ApiError> {
    let held = object.metadata.finalizers.as_deref().unwrap_or_default();
    if !held.iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(());
    }
    let left: Vec<_> = held.iter().filter(|finalizer| *finalizer != FINALIZER).collect();
    // the version is a test: somebody may have added one
    let patch = json!({ "metadata": { "finalizers": left, "resourceVersion": object.metadata.resource_version } });
    let kind = kind();
    let id = kind.object(key.namespace.as_str(), key.name.as_str());
    cluster.merge_patch(&kind, &id, &patch, None, STATUS_MANAGER).await.map(drop)
}

fn kind() -> ApiKind {
    ApiKind::new("notification.toolkit.fluxcd.io", "v1", KIND, "receivers", true)
}
