//! What is promised in speed and memory, measured from outside: `cargo bench --bench recovery`.
//!
//! ```text
//!  this process ── commit ──▶ bare repository ◀── Git over HTTP ── `afresh run`, a process of its own
//!       │                                                              │
//!       └── annotate (announced rows), watch ──▶ API server ◀── apply ─┘
//! ```
//!
//! A round: commit B breaks the application and is seen to be reported; commit C repairs it. The clock starts after
//! C is in the repository, before the annotation is sent (without an announcement: right after the commit), and stops
//! when a watch shows the new value. Rounds are paced so that announcements stay within the daemon's burst: what is
//! measured is one push of a person, not a queue of them.
//!
//! The API server is the sandbox as a process of its own and, with `KUBEBUILDER_ASSETS` set, a real control plane.

#[path = "../tests/support/control_plane.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod control_plane;
#[expect(dead_code, reason = "the other measurements use more of it")]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use afresh::cluster::{ApiKind, Cluster, Watcher};
use afresh::sandbox::git_server::GitServer;
use afresh::sandbox::repository::TestRepository;
use anyhow::Context as _;
use control_plane::ControlPlane;
use serde_json::Value;

use support::application::{APPLICATION, FILE, SOURCE, Settings, announce, connect, install, settings, until, watcher};
use support::process::{Daemon, SandboxProcess};
use support::table::{Table, median, worst};

const ANNOUNCED_ROUNDS: usize = 50;
const UNANNOUNCED_ROUNDS: usize = 6;
/// An announced probe a second after a burst of five is the daemon's limit; a round announces twice.
const ROUND: Duration = Duration::from_millis(2100);
/// How long an idle daemon is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(15);
const BROKEN: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: settings\n";

fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // `cargo bench` passes flags of a harness that this is not
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(all())
}

async fn all() -> anyhow::Result<()> {
    let mut table = Table::default();
    let folder = tempfile::tempdir()?;
    let sandbox = SandboxProcess::start(folder.path()).await?;
    on(&mut table, "sandbox", &sandbox.kubeconfig, [60.0, 300.0]).await?;
    drop(sandbox);
    if ControlPlane::available() {
        let plane = ControlPlane::start().await?;
        on(&mut table, "real server", plane.kubeconfig(), [150.0, 500.0]).await?;
    } else {
        println!("KUBEBUILDER_ASSETS is not set: nothing is measured on a real control plane");
    }
    table.print();
    Ok(())
}

/// All rows on one API server.
async fn on(table: &mut Table, server: &str, kubeconfig: &Path, [median_ms, worst_ms]: [f64; 2]) -> anyhow::Result<()> {
    let mut bench = Bench::begin(kubeconfig).await?;
    tokio::time::sleep(SETTLE).await;
    let resident = bench.daemon.resident_mib()?;
    table.row(format!("{server}: idle, resident memory"), resident, 30.0, "MiB");

    let mut announced = Vec::new();
    for _ in 0..ANNOUNCED_ROUNDS {
        announced.push(bench.round(true).await?);
    }
    table.row(
        format!("{server}: announced fix, median of {ANNOUNCED_ROUNDS}"),
        median(&mut announced),
        median_ms,
        "ms",
    );
    table.row(format!("{server}: announced fix, worst of {ANNOUNCED_ROUNDS}"), worst(&announced), worst_ms, "ms");

    let mut unannounced = Vec::new();
    for _ in 0..UNANNOUNCED_ROUNDS {
        unannounced.push(bench.round(false).await?);
    }
    // the probe every 5 s, and then as above
    let bar = 5000.0 + worst_ms;
    table.row(
        format!("{server}: unannounced fix, median of {UNANNOUNCED_ROUNDS}"),
        median(&mut unannounced),
        bar,
        "ms",
    );
    table.row(format!("{server}: unannounced fix, worst of {UNANNOUNCED_ROUNDS}"), worst(&unannounced), bar, "ms");
    table.row(format!("{server}: resident memory after these"), bench.daemon.resident_mib()?, 30.0, "MiB");
    Ok(())
}

/// One daemon with one application on one API server.
struct Bench {
    daemon: Daemon,
    cluster: Cluster,
    repository: TestRepository,
    _git: GitServer,
    application: Watcher<Value>,
    settings: Settings,
    rounds: usize,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// Starts all and waits until the first commit is live.
    async fn begin(kubeconfig: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let repository = TestRepository::create(&folder.path().join("git").join(SOURCE))?;
        let git = GitServer::start(&folder.path().join("git"))?;
        repository.commit("A", &[(FILE, Some(&settings(0)))])?;
        let cluster = connect(kubeconfig).await?;
        install(&cluster, &git.url(SOURCE)).await?;
        let daemon = Daemon::start(kubeconfig, folder.path(), &["--metrics-addr", "127.0.0.1:0"])?;
        let mut bench = Self {
            application: watcher(&cluster, ApiKind::kustomization(), APPLICATION),
            settings: Settings::watch(&cluster),
            daemon,
            cluster,
            repository,
            _git: git,
            rounds: 0,
            _folder: folder,
        };
        bench.is_live(0).await.context("the first commit does not go live")?;
        Ok(bench)
    }

    /// B breaks, C repairs: the milliseconds until C is live.
    async fn round(&mut self, announced: bool) -> anyhow::Result<f64> {
        let pace = tokio::time::sleep(ROUND);
        self.rounds += 1;
        let value = self.rounds;
        self.repository.commit("B", &[(FILE, Some(BROKEN))])?;
        announce(&self.cluster, SOURCE).await?;
        until(&mut self.application, |object| ready(object).0 == "False").await.context("B is not reported")?;

        self.repository.commit("C", &[(FILE, Some(&settings(value)))])?;
        let pushed = Instant::now();
        if announced {
            announce(&self.cluster, SOURCE).await?;
        }
        let live = self.is_live(value).await?;
        until(&mut self.application, |object| ready(object).0 == "True").await.context("C is not Ready")?;
        pace.await;
        Ok((live - pushed).as_secs_f64() * 1000.0)
    }

    async fn is_live(&mut self, value: usize) -> anyhow::Result<Instant> {
        let live = self.settings.is_live(value).await;
        live.with_context(|| format!("the daemon's log: {}", self.daemon.log.display()))
    }
}

/// Status and message of the Ready condition.
fn ready(object: &Value) -> (&str, &str) {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == "Ready"));
    let text = |field: &str| ready.and_then(|ready| ready[field].as_str()).unwrap_or_default();
    (text("status"), text("message"))
}
