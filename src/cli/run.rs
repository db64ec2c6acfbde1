//! `afresh run`: the daemon.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::connect::ClusterArgs;
use super::logging::{self, LogFormat};
use super::sandbox::Playground;
use crate::cluster::{Cluster, ClusterOptions, RequestFacts, RequestObserver};
use crate::config::{self, ClusterChoice, Config, FieldValidation};
use crate::engine::{self, Settings, Sources};
use crate::report::{Metrics, Readiness};
use crate::sandbox;
use crate::source::{DataDir, RemoteOptions, Remotes};
use crate::trigger::Folder;

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
    /// Where fetched repositories are kept; may vanish at any time
    #[arg(long, value_name = "DIR", env = "AFRESH_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Address of /metrics, /healthz and /readyz; `none` serves nothing
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", env = "AFRESH_METRICS_ADDR")]
    metrics_addr: String,
    /// Serve only the objects in this namespace
    #[arg(long, value_name = "NAMESPACE", env = "AFRESH_WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
    /// Where the installation's own Secret lives
    #[arg(long, value_name = "NAMESPACE", default_value = "afresh-system", env = "RUNTIME_NAMESPACE")]
    runtime_namespace: String,
    /// Allow sources that are paths on this machine (implied by --sandbox and --config)
    #[arg(long)]
    allow_local_sources: bool,
    /// What to do with fields that the API server doesn't know
    #[arg(long, value_enum, default_value = "warn")]
    field_validation: Validation,
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

pub fn run(args: RunArgs) -> anyhow::Result<()> {
    logging::install(args.log_format);
    let config = resolve(args)?;
    // renders and Git work run on blocking threads; two workers are enough for what only waits
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
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
    Ok(Config {
        allow_local_sources: args.allow_local_sources || args.sandbox || args.config.is_some(),
        cluster,
        config_dir: args.config,
        data_dir,
        metrics_addr,
        watch_namespace: args.watch_namespace,
        runtime_namespace: args.runtime_namespace,
        field_validation: match args.field_validation {
            Validation::Warn => FieldValidation::Warn,
            Validation::Strict => FieldValidation::Strict,
        },
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
    let listener = match config.metrics_addr {
        Some(addr) => Some(TcpListener::bind(addr).await.with_context(|| {
            format!("can't listen on {addr} for metrics: choose another address with --metrics-addr, or `none`")
        })?),
        None => None,
    };
    let (metrics, readiness) = (Metrics::new(), Readiness::default());
    let observer = Arc::new(Observer(metrics.clone()));
    let options = ClusterOptions { request_timeout: config::API_REQUEST_TIMEOUT, observer };
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
    if let Some(folder) = &config.config_dir {
        super::crds::install(&cluster).await?;
        let folder = Folder::open(folder, cluster.clone()).await?;
        cluster.tasks().spawn("the watch of the folder of --config", folder.follow(cancel.clone()));
    }
    let sources = Sources::default();
    let settings = Settings {
        cluster,
        remotes: Remotes::new(
            data_dir,
            RemoteOptions { allow_local_sources: config.allow_local_sources, ..Default::default() },
        ),
        sources,
        metrics,
        readiness,
        watch_namespace: config.watch_namespace,
        runtime_namespace: config.runtime_namespace,
        field_validation: config.field_validation,
    };
    Ok(engine::run(settings, cancel).await?)
}

/// Requests to the API server, as metrics.
struct Observer(Metrics);

impl RequestObserver for Observer {
    fn finished(&self, request: RequestFacts<'_>) {
        self.0.request(request.verb, request.code, request.duration);
    }
}
