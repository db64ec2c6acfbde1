//! Carries each application from its source to the cluster.
//!
//! ```text
//!  API watch ──▶ objects ──▶ one worker per GitRepository ──▶ SourceState ─┐
//!                   └──────▶ one worker per Kustomization ◀────────────────┘
//!                                  │        ▲
//!                                  ▼        │ edges: who declares what, who is ready at which revision
//!                               registry ───┘
//! ```
//!
//! There is no shared work queue: each worker waits on cells that hold the newest, so that no slow application stands
//! before another. What costs something takes permits in fair order.

mod application;
mod backoff;
pub mod bases;
mod courtesy;
mod findings;
mod hold;
mod installation;
mod leadership;
mod namespaces;
mod objects;
mod permits;
mod policies;
pub mod preview;
mod ready;
mod references;
mod registry;
mod request;
mod share;
mod shared;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::api::Key;
use crate::apply::{self, Applier, UnknownFields};
use crate::cluster::{Cluster, Died, Fence, Observed, ObservedOptions, Pods, WriteGate};
use crate::config;
use crate::report::{Events, Metrics, Notices, Readiness, Router, Traces};
use crate::source::Remotes;

use courtesy::{Background, Courtesy};
use hold::Hold;
use namespaces::Namespaces;
use permits::Permits;
use references::{Reference, References};
use registry::Registry;
use shared::Shared;

pub use application::refusal;
pub use installation::{InstallationError, reach};
pub use leadership::{
    Election, ElectionError, ElectionOptions, Leadership, Shards, Standing, Term, Vacant, common_identity, flux_leases,
    own_lease, shard_lease,
};
pub use policies::Policies;
pub use request::request;
pub use share::Share;
pub use source::{Hint, Sources};

/// What the engine is built from.
pub struct Settings {
    pub cluster: Cluster,
    /// What the writes of `cluster` pass: whether this replica leads.
    pub fence: Fence,
    pub remotes: Arc<Remotes>,
    /// Where those outside announce what is new.
    pub sources: Sources,
    pub metrics: Metrics,
    pub readiness: Readiness,
    /// Only objects in this namespace are served; `None`: all.
    pub watch_namespace: Option<String>,
    /// Where the installation's Secret lives.
    pub runtime_namespace: String,
    /// As whom objects are written of Kustomizations that name nobody.
    pub default_service_account: Option<String>,
    /// The Secret there whose age identities serve where `spec.decryption` names no other.
    pub sops_age_secret: Option<String>,
    pub field_validation: config::FieldValidation,
    pub source_role: config::SourceRole,
    /// Our part of the work.
    pub share: Share,
    /// The Lease that we serve it under; `None`: nobody else is there.
    pub lease: Option<ServedUnder>,
    pub traces: Traces,
    /// What a revision must pass.
    pub policies: Policies,
}

/// The Lease of an instance.
pub struct ServedUnder {
    pub namespace: String,
    pub name: String,
    /// Who we are in it.
    pub identity: String,
}

/// Why the engine can't start, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Installation(#[from] InstallationError),
    /// A worker died: going on without it would be silence where an application should be.
    #[error("a worker of the engine failed: {0}")]
    Worker(String),
    /// So did a task that watches: what it would tell never comes.
    #[error("{0}\nhint: the daemon ends rather than go on without it; start it again")]
    Task(#[from] Died),
}

/// How the engine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every write that was sent has been answered.
    Quiet,
    /// A write is still under way.
    Writing,
}

/// Runs until cancelled. All that is under way is then given up at the next safe point; writes that were sent are
/// awaited by whoever shuts the runtime down.
pub async fn run(settings: Settings, cancel: CancellationToken) -> Result<Ended, EngineError> {
    let Settings {
        cluster,
        fence,
        remotes,
        sources,
        metrics,
        readiness,
        watch_namespace,
        runtime_namespace,
        default_service_account,
        sops_age_secret,
        field_validation,
        source_role,
        share,
        lease,
        traces,
        policies,
    } = settings;
    installation::check(&cluster).await?;
    let digest_key = installation::key(&cluster, &runtime_namespace).await?;
    let (gate, announced) = (WriteGate::behind(fence), sources.clone());
    let (notices, news) = Notices::new(metrics.clone());
    let (events, send_events) = Events::new(cluster.clone(), metrics.clone(), notices);
    let router = {
        let share = share.clone();
        let ours = move |key: &Key, labels: Option<&BTreeMap<String, String>>| share.has(key, labels);
        Router::new(cluster.clone(), events.clone(), metrics.clone(), watch_namespace.as_deref(), ours)
    };
    let hold = lease.map(|lease| Hold::new(cluster.clone(), &lease.namespace, &lease.name, lease.identity));
    let unknown_fields = match field_validation {
        config::FieldValidation::Strict => UnknownFields::Refuse,
        config::FieldValidation::Warn => UnknownFields::Drop,
    };
    // who serves one namespace may have no rights beyond it; what an application declares elsewhere is watched there
    let options = ObservedOptions { by_namespace: watch_namespace.is_some(), ..ObservedOptions::default() };
    let observed = Observed::new(cluster.clone(), gate.clone(), options);
    let shared = Arc::new(Shared {
        applier: Applier::new(cluster.clone(), gate.clone(), observed.clone()),
        observed,
        pods: Pods::new(cluster.clone()),
        references: References::new(cluster.clone()),
        namespaces: Namespaces::new(cluster.clone(), watch_namespace.is_none()),
        keys_by_default: sops_age_secret.map(|name| Reference::secret(&runtime_namespace, &name)),
        registry: Registry::default(),
        renders: Permits::new(config::RENDERS_MAX),
        untouched: Permits::new(1),
        // applications that write at a time: each sends up to so many objects of a stage at once
        applies: Permits::new((cluster.concurrency_max() / apply::PARALLEL).max(1)),
        statuses: Permits::new(config::STATUS_WRITES_MAX),
        background: Background::new(),
        courtesy: Courtesy::default(),
        sources,
        cluster,
        remotes,
        gate: gate.clone(),
        events,
        metrics,
        digest_key,
        traces,
        unknown_fields,
        default_service_account,
        source_role,
        share,
        hold,
        policies,
        own_user: OnceCell::new(),
    });
    let tasks = shared.cluster.tasks().clone();
    let serve = objects::serve(shared, watch_namespace, readiness, cancel.clone());
    let ended = tokio::select! {
        result = serve => result,
        () = send_events => Ok(()),
        () = router.run(news) => Ok(()),
        died = tasks.died() => Err(died.into()),
        () = cancel.cancelled() => Ok(()),
    };
    // nothing that was sent is left without its answer
    announced.clear();
    let idle = tokio::time::timeout(config::SHUTDOWN_TIMEOUT, gate.idle()).await;
    ended?;
    Ok(if idle.is_ok() { Ended::Quiet } else { Ended::Writing })
}
