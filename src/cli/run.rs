//! `afresh run`: the daemon.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use clap::Parser as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::connect::ClusterArgs;
use super::logging::{self, LogFormat};
use super::sandbox::Playground;
use crate::api::{GoDuration, LabelSelector, service_account};
use crate::cluster::{Cluster, ClusterOptions, Fence, RequestFacts, RequestObserver};
use crate::config::{
    self, ClusterChoice, Config, FieldValidation, LeaderElection, SourceRole, WebhookSecret, Webhooks,
};
use crate::engine::{
    self, Election, ElectionOptions, Ended, Leadership, Policies, ServedUnder, Settings, Shards, Share, Sources,
    Standing, Term, Vacant,
};
use crate::report::{Metrics, Readiness, Traces};
use crate::sandbox;
use crate::source::{DataDir, RemoteOptions, Remotes};
use crate::trigger::webhook::{self, WebhookError};
use crate::trigger::{Folder, PolicyFolder};

#[derive(clap::Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Work on the embedded API server instead of a cluster
    #[arg(long, conflicts_with_all = ["context"])]
    sandbox: bool,
    /// Install the definitions and apply the documents in this folder, and keep watching it
    #[arg(long, value_name = "DIR", env = "AFRESH_CONFIG")]
    config: Option<PathBuf>,
    /// Refuse what these policies deny, and keep watching the folder: ValidatingAdmissionPolicies, their bindings and parameters
    #[arg(long, value_name = "DIR", env = "AFRESH_POLICIES")]
    policies: Option<PathBuf>,
    /// Where fetched repositories are kept; may vanish at any time
    #[arg(long, value_name = "DIR", env = "AFRESH_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Address of /metrics, /healthz, /readyz and /runbook; `none` serves nothing
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", env = "AFRESH_METRICS_ADDR")]
    metrics_addr: String,
    /// Address of /webhook and of Receivers; `none` serves nothing
    #[arg(long, value_name = "ADDR", default_value = "none", env = "AFRESH_WEBHOOK_ADDR")]
    webhook_addr: String,
    /// File with the secret that forges sign their webhooks with
    #[arg(long, value_name = "FILE", env = "AFRESH_WEBHOOK_SECRET_FILE", conflicts_with = "webhook_secret")]
    webhook_secret_file: Option<PathBuf>,
    /// Secret with that secret in its key `token`
    #[arg(long, value_name = "NAMESPACE/NAME", env = "AFRESH_WEBHOOK_SECRET")]
    webhook_secret: Option<String>,
    /// Serve only the objects in this namespace
    #[arg(long, value_name = "NAMESPACE", env = "AFRESH_WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
    /// Serve only the objects with these labels, as Flux's controllers do, for example `sharding.fluxcd.io/key=shard1`: other instances serve the rest
    #[arg(long, value_name = "SELECTOR", env = "AFRESH_WATCH_LABEL_SELECTOR")]
    watch_label_selector: Option<String>,
    /// Where the installation's own Secret and Lease live; default: the namespace that is served, else `afresh-system`
    #[arg(long, value_name = "NAMESPACE", env = "RUNTIME_NAMESPACE")]
    runtime_namespace: Option<String>,
    /// Write without holding a Lease: for a single replica, where no Flux runs (implied by --sandbox)
    #[arg(long, env = "AFRESH_NO_LEADER_ELECTION")]
    no_leader_election: bool,
    /// How long a Lease lasts after its last renewal: a leader that is lost is replaced after this time
    #[arg(long, value_name = "DURATION", default_value = "35s", env = "AFRESH_LEADER_ELECT_LEASE_DURATION")]
    leader_elect_lease_duration: String,
    /// Divide the work among all replicas, in this many shards: each is served by one replica at a time, and taken over by the others when that is lost
    #[arg(long, value_name = "N", env = "AFRESH_SHARDS", conflicts_with_all = ["watch_label_selector", "no_leader_election", "sandbox"])]
    shards: Option<u32>,
    /// Where Flux's controllers have their Leases, which are held as well, so that the two never fight; `none`: they are not asked for; default: the namespace that is served, else `flux-system`
    #[arg(long, value_name = "NAMESPACE", env = "AFRESH_FLUX_NAMESPACE")]
    flux_namespace: Option<String>,
    /// Allow sources that are paths on this machine (implied by --sandbox and --config)
    #[arg(long)]
    allow_local_sources: bool,
    /// Fetch what kustomizations name in other Git repositories (`https://host/org/repo//path?ref=<commit or tag>`): over HTTP without credentials, over ssh with the key of the GitRepository
    #[arg(long)]
    allow_remote_bases: bool,
    /// Apply as this service account of each Kustomization's namespace where `spec.serviceAccountName` names none; default: as Afresh's own
    #[arg(long, value_name = "NAME")]
    default_service_account: Option<String>,
    /// Secret of age identities (in the runtime namespace) for Kustomizations whose `spec.decryption` names none
    #[arg(long, value_name = "NAME", env = "AFRESH_SOPS_AGE_SECRET")]
    sops_age_secret: Option<String>,
    /// Requests to the API server that may be under way at a time; fewer while it answers 429, asks for a pause or doesn't answer in time
    #[arg(long, value_name = "N", default_value_t = DEFAULT_API_CONCURRENCY, value_parser = clap::value_parser!(u16).range(1..=API_CONCURRENCY_MAX), env = "AFRESH_API_CONCURRENCY")]
    api_concurrency: u16,
    /// What to do with fields that the API server doesn't know
    #[arg(long, value_enum, default_value = "warn")]
    field_validation: Validation,
    /// Who reports on GitRepositories
    #[arg(long, value_enum, default_value = "serve", env = "AFRESH_SOURCES")]
    sources: SourcesChoice,
    /// Send a trace of each attempt to this collector, by OTLP over HTTP: http://host:4318
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    /// How logs are written
    #[arg(long, value_enum, default_value = "human", env = "AFRESH_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Validation {
    /// Drop them from built-in kinds with an event; refuse them in custom resources
    Warn,
    /// Refuse them
    Strict,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum SourcesChoice {
    /// Afresh: nothing else needs Flux's source-controller
    Serve,
    /// Flux's source-controller, which goes on running for Helm or Terraform: Afresh follows Git by itself, writes nothing to GitRepositories and holds the Lease of kustomize-controller alone
    Observe,
}

const DEFAULT_API_CONCURRENCY: u16 = config::API_CONCURRENCY as u16;
const API_CONCURRENCY_MAX: i64 = config::API_CONCURRENCY_MAX as i64;

/// On Linux, macOS and the BSDs.
const SIGXFSZ: i32 = 25;

pub fn run(args: RunArgs) -> anyhow::Result<()> {
    logging::install(args.log_format);
    let config = resolve(args)?;
    // renders and Git work run on blocking threads; two workers are enough for what only waits
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // with a handler, a write beyond a limit on file sizes fails as on a full disk instead of ending the process
        let _beyond_the_limit = signal(SignalKind::from_raw(SIGXFSZ))?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            stop.cancel();
        });
        daemon(config, cancel).await
    });
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    result
}

/// What the daemon is told by the arguments of `afresh run`.
pub fn config(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Config> {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: RunArgs,
    }
    let line = std::iter::once("afresh run".into()).chain(arguments);
    resolve(Line::try_parse_from(line)?.args)
}

fn resolve(args: RunArgs) -> anyhow::Result<Config> {
    let kubeconfig = args.cluster.kubeconfig().filter(|_| !args.sandbox);
    let cluster = match kubeconfig {
        _ if args.sandbox => ClusterChoice::Sandbox,
        Some(path) => ClusterChoice::Kubeconfig { path, context: args.cluster.context.clone() },
        None => ClusterChoice::InCluster,
    };
    let webhooks = webhooks(&args)?;
    let data_dir = match args.data_dir {
        Some(dir) => dir,
        None => default_data_dir().context("no folder for the cache: give --data-dir, or set HOME")?,
    };
    let metrics_addr = match args.metrics_addr.as_str() {
        "none" => None,
        text => Some(text.parse::<SocketAddr>().with_context(|| {
            format!("`{text}` is not an address for --metrics-addr: try 127.0.0.1:8080, or `none`")
        })?),
    };
    let runtime_namespace = args.runtime_namespace.or_else(|| args.watch_namespace.clone());
    let flux_namespace = args.flux_namespace.or_else(|| args.watch_namespace.clone());
    let leader_election = LeaderElection {
        lease_duration: lease_duration(&args.leader_elect_lease_duration)?,
        flux_namespace: match flux_namespace.as_deref() {
            Some("none") => None,
            Some(namespace) => Some(namespace.to_owned()),
            None => Some("flux-system".to_owned()),
        },
    };
    let watch_selector = args.watch_label_selector.as_deref().filter(|text| !text.is_empty());
    let watch_selector = watch_selector.map(|text| {
        LabelSelector::parse(text).map_err(|error| {
            anyhow!(
                "`{text}` is not a label selector for --watch-label-selector: {error}\nhint: try `sharding.fluxcd.io/key=shard1`, or `!sharding.fluxcd.io/key`"
            )
        })
    });
    if let Some(shards) = args.shards {
        let max = config::SHARDS_MAX;
        ensure!(
            (2..=max).contains(&shards),
            "--shards is {shards}: it is at least 2 and at most {max}; as many as there are replicas is a good number"
        );
    }
    let default_service_account = args.default_service_account.filter(|name| !name.is_empty());
    if let Some(name) = default_service_account.as_deref().filter(|name| !service_account::is_name(name)) {
        anyhow::bail!("--default-service-account is `{name}`, which no service account can be called");
    }
    Ok(Config {
        allow_remote_bases: args.allow_remote_bases,
        allow_local_sources: args.allow_local_sources || args.sandbox || args.config.is_some(),
        cluster,
        config_dir: args.config,
        policies_dir: args.policies,
        data_dir,
        metrics_addr,
        webhooks,
        watch_namespace: args.watch_namespace,
        runtime_namespace: runtime_namespace.unwrap_or_else(|| "afresh-system".to_owned()),
        leader_election: (!args.no_leader_election && !args.sandbox).then_some(leader_election),
        default_service_account,
        sops_age_secret: args.sops_age_secret.filter(|name| !name.is_empty()),
        api_concurrency: usize::from(args.api_concurrency),
        field_validation: match args.field_validation {
            Validation::Warn => FieldValidation::Warn,
            Validation::Strict => FieldValidation::Strict,
        },
        source_role: match args.sources {
            SourcesChoice::Serve => SourceRole::Serve,
            SourcesChoice::Observe => SourceRole::Observe,
        },
        watch_selector: watch_selector.transpose()?,
        shards: args.shards,
        otlp_endpoint: args.otlp_endpoint.filter(|endpoint| !endpoint.is_empty()),
        version: config::VERSION.to_owned(),
    })
}

fn webhooks(args: &RunArgs) -> anyhow::Result<Option<Webhooks>> {
    let secret = match (&args.webhook_secret_file, &args.webhook_secret) {
        (Some(path), _) => Some(WebhookSecret::File(path.clone())),
        (None, Some(text)) => {
            let (namespace, name) = text
                .split_once('/')
                .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains('/'))
                .with_context(|| {
                    format!("`{text}` is not a Secret for --webhook-secret: try `afresh-system/webhook`")
                })?;
            Some(WebhookSecret::Secret { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        (None, None) => None,
    };
    if args.webhook_addr == "none" {
        ensure!(
            secret.is_none(),
            "a webhook secret is given, but no address: give --webhook-addr, for example 0.0.0.0:9292"
        );
        return Ok(None);
    }
    let addr = args.webhook_addr.parse().with_context(|| {
        format!("`{}` is not an address for --webhook-addr: try 0.0.0.0:9292, or `none`", args.webhook_addr)
    })?;
    Ok(Some(Webhooks { addr, secret }))
}

fn lease_duration(text: &str) -> anyhow::Result<Duration> {
    let given = GoDuration::parse(text).map(|duration| duration.0);
    let allowed = config::LEASE_DURATION_MIN..=config::LEASE_DURATION_MAX;
    given.filter(|given| allowed.contains(given) && given.subsec_nanos() == 0).with_context(|| {
        let (min, max) = (allowed.start().as_secs(), allowed.end().as_secs());
        format!(
            "`{text}` is not a duration for --leader-elect-lease-duration: whole seconds from {min}s to {max}s, as in `35s`"
        )
    })
}

fn default_data_dir() -> Option<PathBuf> {
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cache")))?;
    Some(cache.join("afresh"))
}

/// The daemon, until cancelled. The demo and the tests call it, too: there is no other way in.
pub async fn daemon(config: Config, cancel: CancellationToken) -> anyhow::Result<()> {
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

/// Cancelled when a term is lost, or with `cancel`, or when it is dropped.
fn stopped_by(lost: &CancellationToken, cancel: &CancellationToken) -> Stopped {
    let stop = cancel.child_token();
    let (lost, end) = (lost.clone(), stop.clone());
    let task = tokio::spawn(async move {
        lost.cancelled().await;
        end.cancel();
    });
    Stopped { stop, task }
}

struct Stopped {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl std::ops::Deref for Stopped {
    type Target = CancellationToken;

    fn deref(&self) -> &CancellationToken {
        &self.stop
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.task.abort();
    }
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

    /// Serves whenever this replica leads, until cancelled.
    async fn lead(&self, mut election: Election, part: &Part, cancel: CancellationToken) -> anyhow::Result<()> {
        loop {
            let Some(term) = election.win(&cancel).await? else {
                election.release().await;
                return Ok(());
            };
            self.serve_term(&mut election, term, part, None, &cancel).await?;
            if cancel.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Serves until the term is over or cancelled, and gives up its Leases. `outer`: what writes have to pass besides.
    async fn serve_term(
        &self,
        election: &mut Election,
        term: Term,
        part: &Part,
        outer: Option<&Fence>,
        cancel: &CancellationToken,
    ) -> anyhow::Result<()> {
        let stop = stopped_by(&term.lost, cancel);
        let fence = outer.map_or(term.fence.clone(), |outer| term.fence.clone().within(outer));
        let result = self.serve(part, self.cluster.behind(fence.clone()), fence.clone(), (*stop).clone()).await;
        // nothing could be written any more, or we were told to end
        let lost = term.lost.is_cancelled() || (outer.is_some() && fence.admit().is_err());
        // a write that is still under way must not meet a successor: the Leases then run out by themselves
        let quiet = result.as_ref().is_ok_and(|ended| *ended == Ended::Quiet);
        election.end(term, quiet && !lost).await?;
        match result {
            // what failed because of that is no reason to end
            Err(error) if lost => tracing::warn!("the work of this term ended: {error:#}"),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        Ok(())
    }

    /// Serves our part of the shards whenever the replicas together hold the Leases, until cancelled. `first` is told
    /// whether the first shard is ours.
    async fn lead_together(
        &self,
        mut election: Election,
        shards: u32,
        first: &watch::Sender<Standing>,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        let own = self.election_options()?.context("shards need Leases")?;
        let replicas = Shards::new(self.cluster.clone(), own.clone(), shards, self.readiness.clone());
        loop {
            let Some(term) = election.win(&cancel).await? else { return Ok(()) };
            let stop = stopped_by(&term.lost, &cancel);
            let serve = self.server_of_shards(&own, shards, first, &term.fence);
            let result = replicas.share(&stop, serve).await;
            let lost = term.lost.is_cancelled();
            // the others go on, and hold in common what we leave
            let alone = cancel.is_cancelled() && replicas.leave().await;
            election.end(term, alone && result.is_ok() && !lost).await?;
            result?;
            if cancel.is_cancelled() {
                return Ok(());
            }
        }
    }

    fn server_of_shards<'a>(
        &'a self,
        own: &ElectionOptions,
        shards: u32,
        first: &'a watch::Sender<Standing>,
        outer: &Fence,
    ) -> impl Fn(u32, Vacant, CancellationToken) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>> + use<'a>
    {
        let (own, outer) = (own.clone(), outer.clone());
        move |index, vacant, end| {
            let share = Share::Shard { index, of: shards };
            Box::pin(self.serve_shard(own.clone(), share, vacant, first, outer.clone(), end))
        }
    }

    /// Takes a shard and serves it until it is lost or `end` is cancelled.
    async fn serve_shard(
        &self,
        own: ElectionOptions,
        share: Share,
        vacant: Vacant,
        first: &watch::Sender<Standing>,
        outer: Fence,
        end: CancellationToken,
    ) -> anyhow::Result<()> {
        let shard = share.shard().unwrap_or_default();
        let patience = own.duration / 7;
        let options =
            ElectionOptions { lease: engine::shard_lease(shard), flux_namespace: None, flux_leases: Vec::new(), ..own };
        let metrics = self.metrics.clone();
        let office = Arc::new(move |serves| metrics.shard(shard, serves));
        let mut election = Election::of_shard(self.cluster.clone(), options, vacant, office, self.readiness.clone());
        let term = match tokio::time::timeout(patience, election.win(&end)).await {
            Ok(won) => won?,
            // another replica was quicker
            Err(_) => None,
        };
        let Some(term) = term else {
            election.release().await;
            return Ok(());
        };
        if shard == 0 {
            first.send_replace(Standing::Leading);
        }
        let branch = self.sources.branch();
        let part = Part { share, sources: branch.sources.clone(), folder: shard == 0 };
        let result = self.serve_term(&mut election, term, &part, Some(&outer), &end).await;
        if shard == 0 {
            first.send_replace(Standing::Starting);
        }
        result
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
