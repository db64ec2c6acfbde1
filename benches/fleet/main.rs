//! Many applications from one repository, measured from outside:
//! `cargo bench --bench fleet -- --apps 1000 --cluster real`.
//!
//! ```text
//!  this process ── commit, announce ──▶ repository ◀── Git over HTTP ── `afresh run`, a process of its own
//!       │  │                                                               │
//!       │  └── the same writes, bare ──▶ API server ◀───────── apply ──────┘
//!       └────────── one watch of both ──────┘
//! ```
//!
//! With `--ballast-mib 1024` the repository holds so much besides, in 100,000 files that no application reads.
//!
//! An application is a Deployment without Pods, a ServiceAccount, a Service and an Ingress. The limit of a row is what a
//! client that does nothing but send the same writes needs in the same run, seen by the same watch; where a single one is
//! changed, git fetches the commit first.

#[path = "../../tests/support/control_plane.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod control_plane;

mod ballast;
mod cost;
mod git;
mod platform;
mod rows;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the other measurements use more of it")]
mod support;
mod view;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use afresh::cluster::{ApiKind, Cluster};
use afresh::sandbox::git_server::GitServer;
use afresh::sandbox::repository::TestRepository;
use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use control_plane::ControlPlane;
use serde_json::json;

use cost::{Memory, Used};
use platform::{BARE, FLEET, REPAIRED, VALUE, name};
use rows::{Row, Rows};
use support::NAMESPACE;
use support::application::{announce, application, apply, connect, prepare, source};
use support::process::{Daemon, SandboxProcess};
use support::table::median;
use view::View;

/// Announcements of a source that are looked at once: a burst of five, then one a second.
const PACE: Duration = Duration::from_millis(1200);
const SINGLE_ROUNDS: usize = 5;
/// The first of them wakes the machine.
const BARE_ROUNDS: usize = 3;
/// No value of all of them is as high.
const SINGLE: usize = 1_000_000;
const DRIFTED: usize = 100;
/// Resident and anonymous, of 1,000 applications; with a repository of 1 GiB the pages of its file come and go.
const MEMORY_MIB_MAX: [Option<f64>; 2] = [Some(96.0), Some(64.0)];
const MEMORY_WITH_BALLAST_MIB_MAX: [Option<f64>; 2] = [None, Some(128.0)];
/// A push of more than so many objects stays a pack (`receive.unpackLimit`).
const UNPACKED_MAX: usize = 100;
/// What is left over from the row before is done by then.
const SETTLE: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Args {
    /// How many applications there are.
    #[arg(long, default_value_t = 100)]
    apps: usize,
    #[arg(long, value_enum, default_value = "sandbox")]
    cluster: Server,
    /// What the repository holds besides, which no application reads.
    #[arg(long, default_value_t = 0)]
    ballast_mib: usize,
    /// In how many files that is.
    #[arg(long, default_value_t = 100_000)]
    ballast_files: usize,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    /// `cargo bench` says so.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Server {
    /// `afresh sandbox`.
    Sandbox,
    /// kube-apiserver and etcd, from `KUBEBUILDER_ASSETS`.
    Real,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(all(&args))
}

async fn all(args: &Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let rows = match args.cluster {
        Server::Sandbox => {
            let sandbox = SandboxProcess::start(folder.path()).await?;
            Fleet::begin(args, &sandbox.kubeconfig).await?.measure().await?
        }
        Server::Real => {
            let plane = ControlPlane::start().await?;
            Fleet::begin(args, plane.kubeconfig()).await?.measure().await?
        }
    };
    match args.output {
        Output::Text => rows.print(),
        Output::Json => println!("{:#}", rows.json(args.apps, args.ballast_mib)),
    }
    Ok(())
}

/// A daemon, its applications, and what is seen of them.
struct Fleet {
    apps: Vec<String>,
    bare: Vec<String>,
    cluster: Cluster,
    kubeconfig: PathBuf,
    folder: tempfile::TempDir,
    fleet: TestRepository,
    repaired: TestRepository,
    git: GitServer,
    deployments: View,
    applications: View,
    daemon: Daemon,
    metrics: String,
    memory: Memory,
    /// Of all applications, as committed last; and of the one that is changed alone.
    value: usize,
    single: usize,
    memory_bars: [Option<f64>; 2],
    rows: Rows,
}

impl Fleet {
    /// Declares all, and starts the daemon; the first row.
    async fn begin(args: &Args, kubeconfig: &Path) -> anyhow::Result<Self> {
        let count = args.apps;
        let folder = tempfile::tempdir()?;
        let repositories = folder.path().join("git");
        let fleet = TestRepository::create(&repositories.join(FLEET))?;
        let repaired = TestRepository::create(&repositories.join(REPAIRED))?;
        let git = GitServer::start(&repositories)?;
        let apps: Vec<String> = (0..count).map(|index| name("app", index)).collect();
        let bare: Vec<String> = (0..count).map(|index| name(BARE, index)).collect();
        let files: Vec<_> = apps.iter().flat_map(|app| platform::files(app, 0, false)).collect();
        ballast::add(&fleet, args.ballast_mib, args.ballast_files)?;
        let revision = commit(&fleet, "all", &files)?;
        commit(&repaired, "one", &platform::files(REPAIRED, 0, false))?;

        let cluster = connect(kubeconfig).await?;
        prepare(&cluster).await?;
        let (mut deployments, mut applications) = (View::of_deployments(&cluster), View::of_applications(&cluster));
        let began = Instant::now();
        let all = bare.iter().flat_map(|name| platform::objects(name, 0)).collect();
        platform::apply_all(&cluster, all).await?;
        let limit = deployments.until(&bare, "0", began).await? - began;
        let mut declared = vec![source(FLEET, &git.url(FLEET))];
        declared.extend(apps.iter().map(|app| application(app, FLEET)));
        platform::apply_all(&cluster, declared).await?;

        let began = Instant::now();
        let (daemon, metrics) = start(kubeconfig, folder.path()).await?;
        let memory = Memory::of(&daemon)?;
        let live = deployments.until(&apps, "0", began).await? - began;
        let ready = applications.until(&apps, &at(&revision), began).await? - began;
        let mut fleet = Self {
            apps,
            bare,
            cluster,
            kubeconfig: kubeconfig.to_owned(),
            folder,
            fleet,
            repaired,
            git,
            deployments,
            applications,
            daemon,
            metrics,
            memory,
            value: 0,
            single: SINGLE,
            memory_bars: if args.ballast_mib == 0 { MEMORY_MIB_MAX } else { MEMORY_WITH_BALLAST_MIB_MAX },
            rows: Rows::default(),
        };
        let nothing = Used::default();
        fleet.row(Row::new("install: live", live).limit(limit), &nothing).await?;
        fleet.row(Row::new("install: Ready", ready).limit(limit), &nothing).await?;
        Ok(fleet)
    }

    async fn measure(mut self) -> anyhow::Result<Rows> {
        self.change_all().await.context("change all")?;
        self.change_one().await.context("change one")?;
        self.change_nothing().await.context("a revision that changes nothing")?;
        self.steady_minute().await.context("steady minute")?;
        self.restart(true).await.context("restart, warm")?;
        self.restart(false).await.context("restart, empty")?;
        self.drift().await.context("drift")?;
        self.fix_under_load().await.context("fix under load")?;
        self.rows.add_peak(self.memory_bars);
        Ok(self.rows)
    }

    async fn change_all(&mut self) -> anyhow::Result<()> {
        let before = self.begin_row().await?;
        let (began, revision) = self.push_to_all().await?;
        let value = self.value.to_string();
        let live = self.deployments.until(&self.apps, &value, began).await? - began;
        let ready = self.applications.until(&self.apps, &at(&revision), began).await? - began;
        let used = Used::read(&self.daemon, &self.metrics).await?;
        // the same writes, bare, while the daemon has nothing to do
        let began = Instant::now();
        let deployments = self.bare.iter().map(|name| platform::deployment(name, self.value)).collect();
        let answered = platform::apply_all(&self.cluster, deployments).await?;
        let seen = self.deployments.until(&self.bare, &value, began).await? - began;
        self.add(Row::new("change all: live", live).limit(seen).bar_ratio(1.8), &before, &used);
        self.add(Row::new("change all: Ready", ready).limit(answered).bar_ratio(3.5), &before, &used);
        Ok(())
    }

    /// In rounds that begin with a machine at rest and awake, however many there are: git and a bare client go first.
    async fn change_one(&mut self) -> anyhow::Result<()> {
        let mut before = self.begin_row().await?;
        let copy = git::Copy::of(self.git.url(FLEET), self.folder.path().join("copy")).await?;
        let (mut took, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..SINGLE_ROUNDS {
            for _ in 0..BARE_ROUNDS {
                limits.push(self.bare_one(&copy).await?.as_secs_f64());
            }
            before = Used::read(&self.daemon, &self.metrics).await?;
            self.single += 1;
            let (one, value) = ([self.one()], self.single.to_string());
            let revision = commit(&self.fleet, "one", &platform::files(&one[0], self.single, true))?;
            let began = Instant::now();
            announce(&self.cluster, FLEET).await?;
            took.push((self.deployments.until(&one, &value, began).await? - began).as_secs_f64());
            self.applications.until(&self.apps, &at(&revision), began).await?;
            tokio::time::sleep(PACE).await;
        }
        let used = Used::read(&self.daemon, &self.metrics).await?;
        let total: u64 = used.requests_since(&before).values().sum();
        // each of the others has the revision written to its status once
        let own = total.saturating_sub(self.apps.len() as u64 - 1) as f64;
        let [took, limit] = [took, limits].map(|mut rounds| Duration::from_secs_f64(median(&mut rounds)));
        let row = Row::new("change one: live (median)", took).limit(limit).bar_seconds(0.5);
        self.add(row.own_requests(own, 6.0), &before, &used);
        Ok(())
    }

    /// A commit that nobody hears of, fetched by git; and a write of the size of what one application changes.
    async fn bare_one(&mut self, copy: &git::Copy) -> anyhow::Result<Duration> {
        self.single += 1;
        let (bare, value) = ([self.bare[self.bare.len() / 2].clone()], self.single.to_string());
        commit(&self.fleet, "elsewhere", &[("elsewhere.yaml".to_owned(), format!("value: {value}\n"))])?;
        let fetched = copy.fetch().await?;
        let began = Instant::now();
        apply(&self.cluster, &platform::deployment(&bare[0], self.single)).await?;
        Ok(fetched + (self.deployments.until(&bare, &value, began).await? - began))
    }

    /// The one that is changed alone.
    fn one(&self) -> String {
        self.apps[self.apps.len() / 2].clone()
    }

    async fn change_nothing(&mut self) -> anyhow::Result<()> {
        let before = self.begin_row().await?;
        let revision = commit(&self.fleet, "nothing", &[("README.md".to_owned(), "# Fleet\n".to_owned())])?;
        let began = Instant::now();
        announce(&self.cluster, FLEET).await?;
        let ready = self.applications.until(&self.apps, &at(&revision), began).await? - began;
        self.row(Row::new("a revision that changes nothing: Ready", ready), &before).await
    }

    async fn steady_minute(&mut self) -> anyhow::Result<()> {
        let before = self.begin_row().await?;
        let minute = Duration::from_secs(60);
        tokio::time::sleep(minute).await;
        let used = Used::read(&self.daemon, &self.metrics).await?;
        let requests: u64 = used.requests_since(&before).values().sum();
        self.add(Row::new("steady minute", minute).own_requests(requests as f64, 0.0), &before, &used);
        Ok(())
    }

    /// Until each application was looked at anew.
    async fn restart(&mut self, warm: bool) -> anyhow::Result<()> {
        tokio::time::sleep(SETTLE).await;
        self.daemon.stop().await?;
        if !warm {
            std::fs::remove_dir_all(self.folder.path().join("cache"))?;
        }
        let began = Instant::now();
        (self.daemon, self.metrics) = start(&self.kubeconfig, self.folder.path()).await?;
        self.memory = Memory::of(&self.daemon)?;
        let looked_at = loop {
            if attempts(&self.metrics).await? >= self.apps.len() {
                break began.elapsed();
            }
            anyhow::ensure!(began.elapsed() < Duration::from_secs(120), "not all were looked at again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        tokio::time::sleep(SETTLE).await;
        let used = Used::read(&self.daemon, &self.metrics).await?;
        let requests = used.requests_since(&Used::default());
        let writes: u64 = requests.iter().filter(|(verb, _)| !READS.contains(&verb.as_str())).map(|(_, n)| n).sum();
        let (what, bar) = if warm { ("restart, warm data dir", 5.0) } else { ("restart, empty data dir", 10.0) };
        let row = Row::new(what, looked_at).bar_seconds(bar).own_writes(writes as f64, 0.0);
        self.add(row, &Used::default(), &used);
        Ok(())
    }

    async fn drift(&mut self) -> anyhow::Result<()> {
        let before = self.begin_row().await?;
        let apps: Vec<_> = self.apps.iter().take(DRIFTED).cloned().collect();
        let kind = ApiKind::new("apps", "v1", "Deployment", "deployments", true);
        let patch = json!({ "spec": { "template": { "metadata": { "annotations": { VALUE: "drift" } } } } });
        // the one that was changed alone has a value of its own
        let apps: Vec<_> = apps.into_iter().filter(|app| *app != self.one()).collect();
        let began = Instant::now();
        for app in &apps {
            self.cluster.merge_patch(&kind, &kind.object(NAMESPACE, app), &patch, None, "somebody").await?;
        }
        let limit = began.elapsed();
        let back = self.deployments.until(&apps, &self.value.to_string(), began).await? - began;
        self.row(Row::new(&format!("drift of {}: corrected", apps.len()), back).limit(limit), &before).await
    }

    /// B of one application, then a commit that touches all others, then C while they roll out.
    async fn fix_under_load(&mut self) -> anyhow::Result<()> {
        let one = [REPAIRED.to_owned()];
        let url = self.git.url(REPAIRED);
        apply(&self.cluster, &source(REPAIRED, &url)).await?;
        apply(&self.cluster, &application(REPAIRED, REPAIRED)).await?;
        self.deployments.until(&one, "0", self.rows.began).await?;
        let broken = [(format!("{REPAIRED}/deployment.yaml"), "kind: Deployment\nmetadata: {\n".to_owned())];
        commit(&self.repaired, "B", &broken)?;
        announce(&self.cluster, REPAIRED).await?;
        tokio::time::sleep(SETTLE).await;

        let before = self.begin_row().await?;
        let (began, _) = self.push_to_all().await?;
        let value = self.value.to_string();
        self.deployments.until_some(&self.apps, (self.apps.len() / 10).max(1), &value, began).await?;
        commit(&self.repaired, "C", &platform::files(REPAIRED, 7, true))?;
        let began_fix = Instant::now();
        announce(&self.cluster, REPAIRED).await?;
        let fixed = self.deployments.until(&one, "7", began_fix).await?;
        let last = self.deployments.until(&self.apps, &value, began).await?;
        let what = if fixed < last { "fix under load" } else { "fix under load (after the load)" };
        self.row(Row::new(what, fixed - began_fix).bar_seconds(2.0), &before).await
    }

    /// The next value for all, committed and announced.
    async fn push_to_all(&mut self) -> anyhow::Result<(Instant, String)> {
        self.value += 100;
        let files: Vec<_> = self.apps.iter().flat_map(|app| platform::files(app, self.value, true)).collect();
        let revision = commit(&self.fleet, "all", &files)?;
        let began = Instant::now();
        announce(&self.cluster, FLEET).await?;
        Ok((began, revision))
    }

    async fn begin_row(&mut self) -> anyhow::Result<Used> {
        tokio::time::sleep(SETTLE).await;
        self.memory.forget();
        Used::read(&self.daemon, &self.metrics).await
    }

    async fn row(&mut self, row: Row, before: &Used) -> anyhow::Result<()> {
        let used = Used::read(&self.daemon, &self.metrics).await?;
        self.add(row, before, &used);
        Ok(())
    }

    fn add(&mut self, row: Row, before: &Used, used: &Used) {
        let row = row.used(used.requests_since(before), used.cpu_s_since(before), self.memory.peaks());
        self.rows.add(row);
    }
}

/// Verbs that change nothing.
const READS: [&str; 4] = ["discover", "get", "list", "watch"];

/// A daemon, and where it serves its metrics.
async fn start(kubeconfig: &Path, folder: &Path) -> anyhow::Result<(Daemon, String)> {
    let arguments = ["--metrics-addr", "127.0.0.1:0", "--no-leader-election", "--log-format", "json"];
    let daemon = Daemon::start(kubeconfig, folder, &arguments)?;
    let address = daemon.address_in_log("serving /metrics").await?;
    Ok((daemon, address))
}

/// How many applications have ended an attempt since the daemon began.
async fn attempts(metrics: &str) -> anyhow::Result<usize> {
    let text = reqwest::get(format!("http://{metrics}/metrics")).await?.text().await?;
    let ended = |line: &&str| {
        line.starts_with("afresh_attempts_total{") && line.contains("result=\"applied\"") && !line.ends_with(" 0")
    };
    Ok(text.lines().filter(ended).count())
}

fn commit(repository: &TestRepository, message: &str, files: &[(String, String)]) -> anyhow::Result<String> {
    let changes: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
    let commit = repository.commit(message, &changes)?;
    if files.len() > UNPACKED_MAX {
        git::pack(repository.path())?;
    }
    Ok(format!("main@sha1:{commit}"))
}

fn at(revision: &str) -> String {
    format!("True {revision}")
}
