//! The daemon as the command line starts it: what it listens on, what outlives a term of leadership, and the engine that
//! serves meanwhile. Comes in: a validated configuration. Never reads flags or the environment.

mod terms;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::sandbox::Playground;
use crate::cluster::{Cluster, ClusterOptions, Fence, RequestFacts, RequestObserver};
use crate::config::{self, ClusterChoice, Config, Webhooks};
use crate::engine::{
    self, Election, ElectionOptions, Ended, Leadership, Policies, ServedUnder, Settings, Share, Sources,
};
use crate::report::{Metrics, Readiness, Traces};
use crate::sandbox;
use crate::source::{DataDir, RemoteOptions, Remotes};
use crate::trigger::webhook::{self, WebhookError};
use crate::trigger::{Folder, PolicyFolder};

/// The daemon, until cancelled. The demo and the tests call it, too: there is no other way in.
pub async fn run(config: Config, cancel: CancellationToken) -> anyhow::Result<()> {
    let data_dir = DataDir::open(&config.data_dir)?;
    let policies = config.policies_dir.as_deref().map(PolicyFolder::open).transpose()?;
    let traces = config.otlp_endpoint.as_deref().map(|endpoint| Traces::to(endpoint, &config.version));
    let traces = traces.transpose()?.unwrap_or_default();
    let listener = match config.metrics_addr {
        Some(addr) => Some(TcpListener::bind(addr).await.with_context(|| {
            format!("can't listen on {addr} for metrics: choose another address with --metrics-addr, or `none`")
        })?),
        None => None,
    };
    let webhook_socket = match &config.webhooks {
        Some(Webhooks { addr, .. }) => Some(TcpListener::bind(addr).await.with_context(|| {
            format!("can't listen on {addr} for webhooks: choose another address with --webhook-addr, or `none`")
        })?),
        None => None,
    };
    let (metrics, readiness) = (Metrics::of(&config.version), Readiness::default());
    let observer = Arc::new(Observer(metrics.clone()));
    let version = config.version.clone();
    let concurrency = config.api_concurrency;
    let options = ClusterOptions { request_timeout: config::API_REQUEST_TIMEOUT, concurrency, observer, version };
    // lives as long as the daemon
    let _playground;
    let cluster = match &config.cluster {
        ClusterChoice::Kubeconfig { path, context } => {
            Cluster::connect(Some(path), context.as_deref(), options).await?
        }
        ClusterChoice::InCluster => Cluster::connect(None, None, options).await?,
        ClusterChoice::Sandbox => {
            let kubeconfig = config.data_dir.join("sandbox.kubeconfig");
            let playground = Playground::start(sandbox::Options::default(), &kubeconfig, &cancel).await?;
            tracing::info!("the sandbox is up: kubectl --kubeconfig {} get ks -A", kubeconfig.display());
            super::crds::install(&playground.cluster).await?;
            let cluster = Cluster::connect(Some(&kubeconfig), None, options).await?;
            _playground = playground;
            cluster
        }
    };
    if let Some(listener) = listener {
        tracing::info!(address = %listener.local_addr()?, "serving /metrics, /healthz and /readyz");
        let (metrics, readiness, cancel) = (metrics.clone(), readiness.clone(), cancel.clone());
        tokio::spawn(async move {
            if let Err(error) = crate::report::serve(listener, metrics, readiness, cancel.clone()).await {
                tracing::error!(%error, "the metrics listener failed: stopping");
                cancel.cancel();
            }
        });
    }
    let in_force = policies.as_ref().map(PolicyFolder::policies).unwrap_or_default();
    if let Some(folder) = policies {
        tracing::info!(policies = in_force.current().len(), "what they deny is not applied");
        cluster.tasks().spawn("the watch of the folder of --policies", folder.follow(metrics.clone(), cancel.clone()));
    }
    let daemon = Daemon {
        sources: Sources::default(),
        policies: in_force,
        remotes: Arc::new(Remotes::new(
            data_dir,
            RemoteOptions {
                allow_local_sources: config.allow_local_sources,
                allow_remote_bases: config.allow_remote_bases,
                ..Default::default()
            },
        )),
        cluster,
        config,
        metrics,
        traces: traces.clone(),
        readiness,
    };
    let result = daemon.run(webhook_socket, cancel).await;
    tokio::task::spawn_blocking(|| traces.shut_down()).await?;
    result
}

/// Webhooks are served in and out of office; their failure ends the work.
async fn beside<T>(
    webhooks: impl Future<Output = Result<(), WebhookError>>,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        Err(error) = webhooks => Err(error.into()),
        result = work => result,
    }
}

/// What one engine serves.
struct Part {
    share: Share,
    sources: Sources,
    /// The folder of `--config` is applied by this one.
    folder: bool,
}

/// What outlives a term of leadership.
struct Daemon {
    config: Config,
    cluster: Cluster,
    remotes: Arc<Remotes>,
    sources: Sources,
    policies: Policies,
    metrics: Metrics,
    traces: Traces,
    readiness: Readiness,
}

impl Daemon {
    /// Serves until cancelled: whenever this replica leads, or at once where nobody is asked.
    async fn run(&self, webhook_socket: Option<TcpListener>, cancel: CancellationToken) -> anyhow::Result<()> {
        engine::reach(&self.cluster).await?;
        let part = Part { share: self.share(), sources: self.sources.clone(), folder: true };
        let Some(mut options) = self.election_options()? else {
            self.metrics.leader(true);
            let webhooks = self.webhooks(webhook_socket, Leadership::always(), &cancel)?;
            return beside(webhooks, self.serve(&part, self.cluster.clone(), Fence::default(), cancel)).await.map(drop);
        };
        let metrics = self.metrics.clone();
        let office = Arc::new(move |leads| metrics.leader(leads));
        let elect = |options| Election::new(self.cluster.clone(), options, office.clone(), self.readiness.clone());
        if let Some(shards) = self.config.shards {
            options.identity = engine::common_identity(shards);
            let (election, _) = elect(options);
            let (first, leadership) = Leadership::told();
            let webhooks = self.webhooks(webhook_socket, leadership, &cancel)?;
            return beside(webhooks, self.lead_together(election, shards, &first, cancel)).await;
        }
        let (election, leadership) = elect(options);
        let webhooks = self.webhooks(webhook_socket, leadership, &cancel)?;
        beside(webhooks, self.lead(election, &part, cancel)).await
    }

    fn election_options(&self) -> anyhow::Result<Option<ElectionOptions>> {
        let Some(election) = &self.config.leader_election else { return Ok(None) };
        let selector = self.config.watch_selector.as_ref();
        Ok(Some(ElectionOptions {
            identity: identity(&self.config.data_dir)?,
            namespace: self.config.runtime_namespace.clone(),
            lease: engine::own_lease(selector),
            flux_namespace: election.flux_namespace.clone(),
            flux_leases: engine::flux_leases(self.config.source_role, selector),
            duration: election.lease_duration,
        }))
    }

    /// Our part of the work.
    fn share(&self) -> Share {
        self.config.watch_selector.clone().map_or(Share::All, Share::Selected)
    }

    /// Serves webhooks until cancelled, if that is wanted.
    fn webhooks(
        &self,
        socket: Option<TcpListener>,
        leadership: Leadership,
        cancel: &CancellationToken,
    ) -> anyhow::Result<impl Future<Output = Result<(), WebhookError>> + use<>> {
        let secret = self.config.webhooks.as_ref().and_then(|webhooks| webhooks.secret.clone());
        let settings = match socket {
            Some(socket) => {
                tracing::info!(address = %socket.local_addr()?, "serving webhooks");
                Some(webhook::Settings {
                    socket: socket.into_std()?,
                    secret,
                    cluster: self.cluster.clone(),
                    sources: self.sources.clone(),
                    metrics: self.metrics.clone(),
                    watch_namespace: self.config.watch_namespace.clone(),
                    leadership,
                    source_role: self.config.source_role,
                    share: self.share(),
                    shared: self.share().is_partial() || self.config.shards.is_some(),
                })
            }
            None => None,
        };
        let cancel = cancel.clone();
        Ok(async move {
            match settings {
                Some(settings) => webhook::serve(settings, cancel).await,
                None => Ok(()),
            }
        })
    }

    /// Serves until cancelled; every write passes the fence of `cluster`, if it has one.
    async fn serve(
        &self,
        part: &Part,
        cluster: Cluster,
        fence: Fence,
        cancel: CancellationToken,
    ) -> anyhow::Result<Ended> {
        if let Some(folder) = self.config.config_dir.as_ref().filter(|_| part.folder) {
            super::crds::install(&cluster).await?;
            let folder = Folder::open(folder, cluster.clone()).await?;
            cluster.tasks().spawn("the watch of the folder of --config", folder.follow(cancel.clone()));
        }
        let lease = self.election_options()?.map(|options| ServedUnder {
            namespace: options.namespace,
            name: options.lease,
            identity: self.config.shards.map_or(options.identity, engine::common_identity),
        });
        let settings = Settings {
            cluster,
            fence,
            share: part.share.clone(),
            lease,
            remotes: self.remotes.clone(),
            sources: part.sources.clone(),
            metrics: self.metrics.clone(),
            readiness: self.readiness.clone(),
            watch_namespace: self.config.watch_namespace.clone(),
            runtime_namespace: self.config.runtime_namespace.clone(),
            default_service_account: self.config.default_service_account.clone(),
            sops_age_secret: self.config.sops_age_secret.clone(),
            field_validation: self.config.field_validation,
            source_role: self.config.source_role,
            traces: self.traces.clone(),
            policies: self.policies.clone(),
        };
        Ok(engine::run(settings, cancel).await?)
    }
}

/// Who we are in a Lease: this machine (in a Pod: its name) and something random, kept in the data dir. A process that
/// comes back on the same data dir, which is locked, takes its own Lease up again without waiting for its end.
fn identity(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("identity");
    if let Ok(known) = std::fs::read_to_string(&path)
        && !known.is_empty()
        && known.len() <= IDENTITY_BYTES_MAX
    {
        return Ok(known);
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "afresh" } else { host.trim() };
    let identity = format!("{host}_{:016x}", rand::random::<u64>());
    std::fs::write(&path, &identity).with_context(|| format!("can't write `{}`", path.display()))?;
    Ok(identity)
}

/// A host's name has at most 253 bytes.
const IDENTITY_BYTES_MAX: usize = 300;

/// Requests to the API server, as metrics.
struct Observer(Metrics);

impl RequestObserver for Observer {
    fn finished(&self, request: RequestFacts<'_>) {
        self.0.request(request.verb, request.code, request.duration);
    }

    fn concurrency(&self, limit: usize) {
        self.0.api_concurrency(limit);
    }

    fn watch(&self, resource: &str, namespace: Option<&str>, state: &'static str) {
        self.0.watch(resource, namespace.unwrap_or_default(), Some(state));
    }

    fn watch_ended(&self, resource: &str, namespace: Option<&str>) {
        self.0.watch(resource, namespace.unwrap_or_default(), None);
    }
}
