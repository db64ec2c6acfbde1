//! `afresh run`: its flags and environment, and the configuration that they come to.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::allocator;
use super::connect::ClusterArgs;
use super::daemon;
use super::logging::{self, LogFormat};
use crate::api::{GoDuration, LabelSelector, service_account};
use crate::config::{
    self, ClusterChoice, Config, FieldValidation, LeaderElection, SourceRole, WebhookSecret, Webhooks,
};

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
    allocator::prefer_little_memory();
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
        daemon::run(config, cancel).await
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
