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

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afresh::api::REQUESTED_AT;
use afresh::cluster::{
    ApiKind, ApplyOptions, Cluster, ClusterOptions, Collection, FieldValidation, NoObserver, WatchEvent, Watcher,
};
use afresh::manifest::ObjectId;
use afresh::sandbox::git_server::GitServer;
use afresh::sandbox::repository::TestRepository;
use anyhow::{Context as _, bail};
use control_plane::ControlPlane;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

const ANNOUNCED_ROUNDS: usize = 50;
const UNANNOUNCED_ROUNDS: usize = 6;
/// An announced probe a second after a burst of five is the daemon's limit; a round announces twice.
const ROUND: Duration = Duration::from_millis(2100);
/// How long an idle daemon is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(15);
/// Nothing that works takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

const NAMESPACE: &str = "bench";
const APPLICATION: &str = "app";
const SOURCE: &str = "platform";
const MANAGER: &str = "bench";
const FILE: &str = "app/settings.yaml";
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
    settings: Watcher<Value>,
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
        let options = ClusterOptions { request_timeout: PATIENCE, observer: Arc::new(NoObserver) };
        let cluster = Cluster::connect(Some(kubeconfig), None, options).await?;
        install(&cluster, &git.url(SOURCE)).await?;
        let daemon = Daemon::start(kubeconfig, folder.path())?;
        let mut bench = Self {
            application: watcher(&cluster, ApiKind::kustomization(), APPLICATION),
            settings: watcher(&cluster, ApiKind::config_map(), "settings"),
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
        self.announce().await?;
        until(&mut self.application, |object| ready(object).0 == "False").await.context("B is not reported")?;

        self.repository.commit("C", &[(FILE, Some(&settings(value)))])?;
        let pushed = Instant::now();
        if announced {
            self.announce().await?;
        }
        let live = self.is_live(value).await?;
        until(&mut self.application, |object| ready(object).0 == "True").await.context("C is not Ready")?;
        pace.await;
        Ok((live - pushed).as_secs_f64() * 1000.0)
    }

    async fn announce(&self) -> anyhow::Result<()> {
        let token = k8s_openapi::jiff::Timestamp::now().to_string();
        let patch = json!({ "metadata": { "annotations": { REQUESTED_AT: token } } });
        let kind = ApiKind::git_repository();
        self.cluster.merge_patch(&kind, &kind.object(NAMESPACE, SOURCE), &patch, None, MANAGER).await?;
        Ok(())
    }

    /// The moment at which the watch shows a value.
    async fn is_live(&mut self, value: usize) -> anyhow::Result<Instant> {
        let value = value.to_string();
        until(&mut self.settings, |object| object["data"]["value"] == value.as_str())
            .await
            .with_context(|| format!("value {value} is not live; the daemon's log: {}", self.daemon.log.display()))
    }
}

fn settings(value: usize) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: settings, namespace: {NAMESPACE} }}\n\
         data: {{ value: \"{value}\" }}\n"
    )
}

/// The definitions, the namespace, the source and the application.
async fn install(cluster: &Cluster, url: &str) -> anyhow::Result<()> {
    let definitions = afresh::api::definitions();
    for definition in &definitions {
        apply(cluster, &serde_json::to_value(definition)?).await?;
    }
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    apply(cluster, &namespace).await?;
    let source = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
        "metadata": { "name": SOURCE, "namespace": NAMESPACE },
        "spec": { "url": url, "interval": "10m", "ref": { "branch": "main" } },
    });
    let application = json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": { "name": APPLICATION, "namespace": NAMESPACE },
        "spec": {
            "interval": "10m", "path": "./app", "prune": true,
            "sourceRef": { "kind": "GitRepository", "name": SOURCE },
        },
    });
    for object in [source, application] {
        // a definition serves some time after it was accepted
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = apply(cluster, &object).await {
            if Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            cluster.discover().await?;
        }
    }
    Ok(())
}

async fn apply(cluster: &Cluster, object: &Value) -> anyhow::Result<()> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("/apiVersion").rsplit_once('/').unwrap_or(("", text("/apiVersion")));
    let id = ObjectId::new(group, text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
    let kind = cluster.resolve(group, &id.kind, Some(version)).await?;
    let options = ApplyOptions { manager: MANAGER, force: true, dry_run: false, validation: FieldValidation::Strict };
    cluster.apply(&kind, &id, object, options).await?;
    Ok(())
}

fn watcher(cluster: &Cluster, kind: ApiKind, name: &str) -> Watcher<Value> {
    let collection = Collection {
        namespace: Some(NAMESPACE.to_owned()),
        fields: Some(format!("metadata.name={name}")),
        ..Collection::all(kind)
    };
    Watcher::new(cluster.clone(), collection)
}

/// The moment at which the object is seen to pass the test.
async fn until(watcher: &mut Watcher<Value>, test: impl Fn(&Value) -> bool) -> anyhow::Result<Instant> {
    let mut last = Value::Null;
    let seen = tokio::time::timeout(PATIENCE, async {
        loop {
            let object = match watcher.next().await {
                WatchEvent::Listed { mut items, .. } => items.pop(),
                WatchEvent::Changed(object) => Some(object),
                _ => None,
            };
            last = object.unwrap_or_default();
            if test(&last) {
                return Instant::now();
            }
        }
    });
    match seen.await {
        Ok(at) => Ok(at),
        Err(_) => bail!("it is not seen within {} s; last seen: {last:#}", PATIENCE.as_secs()),
    }
}

/// Status and message of the Ready condition.
fn ready(object: &Value) -> (&str, &str) {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == "Ready"));
    let text = |field: &str| ready.and_then(|ready| ready[field].as_str()).unwrap_or_default();
    (text("status"), text("message"))
}

/// `afresh sandbox` as a process of its own.
struct SandboxProcess {
    kubeconfig: std::path::PathBuf,
    _child: Child,
}

impl SandboxProcess {
    async fn start(folder: &Path) -> anyhow::Result<Self> {
        let kubeconfig = folder.join("kubeconfig");
        let child = afresh(folder, "sandbox.log")?
            .args(["sandbox", "--listen", "127.0.0.1:0", "--kubeconfig-out"])
            .arg(&kubeconfig)
            .spawn()
            .context("start the sandbox")?;
        let deadline = Instant::now() + PATIENCE;
        while !kubeconfig.exists() {
            anyhow::ensure!(Instant::now() < deadline, "the sandbox writes no kubeconfig");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { kubeconfig, _child: child })
    }
}

/// `afresh run` as a process of its own.
struct Daemon {
    child: Child,
    log: std::path::PathBuf,
}

impl Daemon {
    fn start(kubeconfig: &Path, folder: &Path) -> anyhow::Result<Self> {
        let child = afresh(folder, "daemon.log")?
            .args(["run", "--metrics-addr", "127.0.0.1:0", "--watch-namespace", NAMESPACE, "--kubeconfig"])
            .arg(kubeconfig)
            .arg("--data-dir")
            .arg(folder.join("cache"))
            .spawn()
            .context("start the daemon")?;
        Ok(Self { child, log: folder.join("daemon.log") })
    }

    /// What the kernel counts as resident.
    fn resident_mib(&self) -> anyhow::Result<f64> {
        let id = self.child.id().context("the daemon has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib / 1024.0)
    }
}

/// The binary of this build, with an empty environment and its log in a file.
fn afresh(folder: &Path, log: &str) -> anyhow::Result<Command> {
    let log = std::fs::File::create(folder.join(log))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_afresh"));
    command
        .env_clear()
        .env("HOME", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true);
    Ok(command)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

/// What was measured, and what was promised.
#[derive(Default)]
struct Table(Vec<String>);

impl Table {
    fn row(&mut self, what: String, measured: f64, bar: f64, unit: &str) {
        let verdict = if measured <= bar { "met" } else { "MISSED" };
        let row = format!("{what:<46} {measured:>9.1} {unit:<4} {bar:>9.1} {unit:<4} {verdict}");
        println!("{row}");
        self.0.push(row);
    }

    fn print(&self) {
        println!("\n{:<46} {:>14} {:>14} verdict", "", "measured", "bar");
        for row in &self.0 {
            println!("{row}");
        }
    }
}
