//! Everything the daemon can be told, validated once, and every limit with its reason.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::api::LabelSelector;

/// Which API server the daemon works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterChoice {
    /// A kubeconfig file and, if named, a context in it.
    Kubeconfig { path: PathBuf, context: Option<String> },
    /// The service account of the Pod that it runs in.
    InCluster,
    /// The embedded API server, with its controllers and its kubelet.
    Sandbox,
}

/// What to do with fields that the API server doesn't know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Refused, whatever the kind.
    Strict,
    /// Dropped from built-in kinds with an event that gives file and line; refused in custom resources, as with Flux.
    #[default]
    Warn,
}

/// Who reports what a GitRepository shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceRole {
    /// We do: status and finalizer are ours.
    #[default]
    Serve,
    /// Flux's source-controller does, for others who need its artifacts. We follow Git by ourselves and write nothing
    /// to the objects.
    Observe,
}

/// Who may write is decided by Leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderElection {
    /// In whole seconds.
    pub lease_duration: Duration,
    /// Where Flux's controllers have their Leases; `None`: they are not asked for.
    pub flux_namespace: Option<String>,
}

/// Where the secret is that webhooks are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookSecret {
    File(PathBuf),
    /// Its key `token`.
    Secret {
        namespace: String,
        name: String,
    },
}

/// Webhooks of forges, and Receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhooks {
    pub addr: SocketAddr,
    /// `None`: only Receivers are served.
    pub secret: Option<WebhookSecret>,
}

/// The daemon's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub cluster: ClusterChoice,
    /// Documents to install into the cluster and to keep watching.
    pub config_dir: Option<PathBuf>,
    /// Policies that revisions must pass, kept watching; `None`: there are none.
    pub policies_dir: Option<PathBuf>,
    /// A cache that may vanish at any time.
    pub data_dir: PathBuf,
    pub metrics_addr: Option<SocketAddr>,
    /// `None`: they are not served.
    pub webhooks: Option<Webhooks>,
    /// Only objects in this namespace are served.
    pub watch_namespace: Option<String>,
    /// Where the installation's own Secret and Lease live.
    pub runtime_namespace: String,
    /// `None`: writes without holding a Lease.
    pub leader_election: Option<LeaderElection>,
    /// Whether `file://` and paths are allowed as sources.
    pub allow_local_sources: bool,
    /// Whether kustomizations may name directories of other repositories.
    pub allow_remote_bases: bool,
    /// As whom objects are written of Kustomizations that don't say; `None`: as the daemon.
    pub default_service_account: Option<String>,
    /// The Secret, in the runtime namespace, whose age identities serve where `spec.decryption` names no other.
    pub sops_age_secret: Option<String>,
    /// Requests to the API server that are under way at a time, at most.
    pub api_concurrency: usize,
    pub field_validation: FieldValidation,
    pub source_role: SourceRole,
    /// Only the objects that these labels select are served; `None`: all.
    pub watch_selector: Option<LabelSelector>,
    /// How many shards the replicas divide among themselves; `None`: one replica serves everything.
    pub shards: Option<u32>,
    /// The collector that traces of attempts go to, by OTLP over HTTP; `None`: there are none.
    pub otlp_endpoint: Option<String>,
    /// What the API server, metrics and traces are told; nothing that is stored depends on it.
    pub version: String,
}

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One request to the API server. A busy server answers an apply within a second; a watch is not bounded by this.
pub const API_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the end of the engine may take, so that a SIGTERM ends the process within 5 s, Leases released.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(3500);
/// A shorter Lease is lost by a busy machine; a second is the unit of `leaseDurationSeconds`.
pub const LEASE_DURATION_MIN: Duration = Duration::from_secs(2);
/// A longer one leaves the cluster unattended for too long when its holder is lost.
pub const LEASE_DURATION_MAX: Duration = Duration::from_secs(600);
/// Each shard that a replica holds has watches of its own, and a replica holds all of them when it is the last one.
pub const SHARDS_MAX: u32 = 16;
/// Bound on one Git operation where `spec.timeout` is not set; Flux's default.
pub const SOURCE_TIMEOUT: Duration = Duration::from_secs(60);
/// Renders at a time: they are bound by the processor, and the smallest machines we serve have two cores.
pub const RENDERS_MAX: usize = 2;
/// Requests to the API server that are under way at a time, unless it asks for less: enough for the 200 changes a second
/// that one of two cores makes at 300 ms each, and a share of the 600 that API Priority and Fairness lets in from all.
pub const API_CONCURRENCY: usize = 64;
/// More connections than that help no API server.
pub const API_CONCURRENCY_MAX: usize = 1024;
/// Status writes at a time, apart from applies: neither starves the other. Where much is changed they stand back for a while.
pub const STATUS_WRITES_MAX: usize = 8;
/// An apply that takes longer is told of while it is under way; of a shorter one only the end is written.
pub const PROGRESS_UNTOLD_MAX: Duration = Duration::from_secs(1);
/// Background status writes a second, for applications that a new revision did not change.
pub const BACKGROUND_STATUS_PER_SECOND: u32 = 20;
/// An apply that was asked to give way may finish its stage in this time.
pub const PREEMPTION_GRACE: Duration = Duration::from_secs(5);
/// After so many preemptions in a row an apply completes: a busy branch must not starve the cluster.
pub const PREEMPTIONS_IN_A_ROW_MAX: u32 = 3;
/// A trigger that no person waits for goes on with the last known revision when the source doesn't answer in this time.
pub const FRESH_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long the watch may take to show what an apply's answer said.
pub const SETTLE_MAX: Duration = Duration::from_secs(5);
/// The same where other instances serve some of them: their statuses come at the pace of the background writer.
pub const HANDOVER_ELSEWHERE_MAX: Duration = Duration::from_secs(120);
/// How long others may take to render a revision before deletions are put off to the next attempt.
pub const HANDOVER_WAIT_MAX: Duration = Duration::from_secs(10);
