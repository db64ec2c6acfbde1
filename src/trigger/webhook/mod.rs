//! Forges say that there is something new, and the sources that follow it are looked at now.
//!
//! ```text
//!  forge ── POST ──▶ listener (a thread of its own) ──▶ desk ── genuine? whom does it concern? ──▶ announce ──▶ source
//!                                                         ▲                                          └──▶ annotation
//!  GitRepositories, Kustomizations, Receivers, Secrets ─▶ known
//! ```
//!
//! Comes in: deliveries at `/webhook` and at the paths of Receivers, and what watches show of the cluster. Goes out: an
//! answer within milliseconds, and the word to those concerned. What it never does: believe a payload (the remote ref is
//! the truth), ask anybody while a forge waits, keep more than named limits allow.

mod address;
mod announce;
mod cluster;
mod connections;
mod deliveries;
mod desk;
mod journal;
mod known;
mod listener;
mod payload;
mod receivers;
mod secret;
mod signature;

#[cfg(test)]
mod desk_tests;
#[cfg(test)]
mod payload_tests;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::Key;
use crate::cluster::Cluster;
use crate::config::{SourceRole, WebhookSecret};
use crate::engine::{Leadership, Share, Sources};
use crate::report::Metrics;

use announce::{Annotations, Announcer};
use desk::Desk;
use journal::Journal;
use known::Known;
use listener::Listener;
use secret::SecretFile;

pub use desk::WEBHOOK_PATH;
pub use secret::SecretFileError;

/// What the webhooks are served with.
pub struct Settings {
    /// Bound already, so that an address in use is an error of the start.
    pub socket: std::net::TcpListener,
    pub secret: Option<WebhookSecret>,
    /// Not behind a fence: annotations are written by replicas that don't lead.
    pub cluster: Cluster,
    pub sources: Sources,
    pub metrics: Metrics,
    /// Only objects in this namespace are known; `None`: all.
    pub watch_namespace: Option<String>,
    /// Whether this replica leads: only then are statuses written.
    pub leadership: Leadership,
    /// Whether sources that other replicas serve may be annotated.
    pub source_role: SourceRole,
    /// Our part of the work: deliveries are taken for all Receivers, statuses are written for these.
    pub share: Share,
    /// Other instances or replicas may follow the same sources.
    pub shared: bool,
}

/// Why webhooks can't be served, or not any longer.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    #[error("the webhook listener failed: {0}")]
    Listener(#[from] std::io::Error),
    /// Going on without it would be silence where a push should be.
    #[error("a task of the webhooks failed: {0}")]
    Task(String),
}

/// Serves until cancelled.
pub async fn serve(settings: Settings, cancel: CancellationToken) -> Result<(), WebhookError> {
    let Settings { socket, secret, cluster, sources, metrics, watch_namespace, leadership, source_role, share, shared } =
        settings;
    let known = Arc::new(Known::default());
    let annotations = Arc::new(Annotations::default());
    let mut tasks = JoinSet::new();
    match secret {
        Some(WebhookSecret::File(path)) => {
            let (file, token) = SecretFile::open(&path)?;
            known.set_secret(Some(token));
            let known = known.clone();
            tasks.spawn(async move { file.follow(&known).await });
        }
        Some(WebhookSecret::Secret { namespace, name }) => {
            let (cluster, known) = (cluster.clone(), known.clone());
            tasks.spawn(async move { secret::follow(&cluster, Key::new(namespace, name), &known).await });
        }
        None => {}
    }
    let namespace: Option<Arc<str>> = watch_namespace.map(Into::into);
    let context = || (cluster.clone(), namespace.clone(), known.clone());
    let (client, scope, knowledge) = context();
    tasks.spawn(async move { cluster::follow_sources(&client, scope.as_deref(), &knowledge).await });
    let (client, scope, knowledge) = context();
    let by_application = source_role == SourceRole::Observe;
    tasks.spawn(async move {
        cluster::follow_applications(&client, scope.as_deref(), &knowledge, by_application).await;
    });
    let (client, scope, knowledge) = context();
    let (counters, part) = (metrics.clone(), share.clone());
    tasks.spawn(async move {
        receivers::follow(&client, scope.as_deref(), &knowledge, leadership, part, &counters).await;
    });
    let (client, pending) = (cluster.clone(), annotations.clone());
    tasks.spawn(async move { pending.write(&client).await });
    let (journal, notes) = Journal::new();
    let log = journal::write(notes);
    let announcer = Announcer::new(sources, annotations, source_role, shared, known.clone());
    let desk = Desk::new(known, Arc::new(announcer));
    // ends with this future, however it ends
    let stop = cancel.child_token();
    let _stop = stop.clone().drop_guard();
    let listener = listener::spawn(socket, Listener { desk, metrics, journal }, stop)?;
    let lost = |what: String| Err(WebhookError::Task(what));
    tokio::select! {
        // when all end at once, it is because of this
        biased;
        () = cancel.cancelled() => Ok(()),
        ended = listener => match ended {
            Ok(result) => result.map_err(Into::into),
            Err(_) => lost("the listener's thread ended".to_owned()),
        },
        Some(ended) = tasks.join_next() => lost(ended.err().map_or("it ended".to_owned(), |error| error.to_string())),
        () = log => lost("the listener is gone".to_owned()),
    }
}
