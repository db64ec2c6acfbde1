//! From a forge's webhook to the cluster, measured from outside: `cargo bench --bench webhook`.
//!
//! ```text
//!  this process ── commit ──▶ bare repository ◀── Git over HTTP ── `afresh run`, a process of its own
//!       ├── signed POST ───────────────────────────────────────────▶  │
//!       └── watch ──▶ API server (the sandbox, a process of its own) ◀── apply
//! ```
//!
//! A round: a commit is made, then the clock starts with the first byte of the webhook and stops when a watch shows the
//! change. Then a flood: 1,000 signed webhooks a second for ten seconds, each about another commit, while the memory of
//! the daemon is read. Rounds are paced so that they stay within the daemon's announced probes: what is measured is one
//! push of a person, not a queue of them.

#[expect(dead_code, reason = "the other measurements use more of it")]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use afresh::sandbox::git_server::GitServer;
use afresh::sandbox::repository::TestRepository;
use anyhow::{Context as _, ensure};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use support::PATIENCE;
use support::application::{FILE, SOURCE, Settings, connect, install, settings};
use support::process::{Daemon, SandboxProcess};
use support::table::{Table, median, worst};

const ROUNDS: usize = 50;
/// An announced probe a second is the daemon's limit.
const ROUND: Duration = Duration::from_millis(1100);
const PER_SECOND: usize = 1000;
const SECONDS: usize = 10;
/// Connections that the flood comes over.
const SENDERS: usize = 20;

const SECRET: &str = "correct-horse-battery";

fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // `cargo bench` passes flags of a harness that this is not
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(all())
}

async fn all() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut bench = Bench::begin(folder.path()).await?;
    let mut table = Table::default();

    let (mut live, mut answered) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (answer_ms, live_ms) = bench.round().await?;
        answered.push(answer_ms);
        live.push(live_ms);
    }
    table.row(format!("webhook to live, median of {ROUNDS}"), median(&mut live), 100.0, "ms");
    table.row(format!("webhook to live, worst of {ROUNDS}"), worst(&live), 500.0, "ms");
    table.row(format!("answer 202, median of {ROUNDS}"), median(&mut answered), 50.0, "ms");
    table.row(format!("answer 202, worst of {ROUNDS}"), worst(&answered), 50.0, "ms");

    // what is remembered of deliveries is filled once
    bench.flood(5).await?;
    let before = bench.daemon.resident_mib()?;
    let mut latencies = bench.flood(SECONDS).await?;
    let after = bench.daemon.resident_mib()?;
    let total = PER_SECOND * SECONDS;
    table.row(
        format!("{PER_SECOND} a second for {SECONDS} s: not answered 202"),
        (total - latencies.len()) as f64,
        0.0,
        "",
    );
    table.row("  answer 202, median".to_owned(), median(&mut latencies), 50.0, "ms");
    let nearly = latencies[latencies.len() * 999 / 1000];
    table.row("  answer 202, 99.9 of 100".to_owned(), nearly, 50.0, "ms");
    table.row("  answer 202, worst".to_owned(), worst(&latencies), 50.0, "ms");
    table.row("  resident memory, growth".to_owned(), after - before, 2.0, "MiB");
    let (_, live_ms) = bench.round().await?;
    table.row("  webhook to live, right after it".to_owned(), live_ms, 1500.0, "ms");
    table.row("  resident memory".to_owned(), bench.daemon.resident_mib()?, 60.0, "MiB");
    table.print();
    Ok(())
}

/// One daemon with one application on a sandbox.
struct Bench {
    daemon: Daemon,
    address: String,
    url: String,
    repository: TestRepository,
    settings: Settings,
    rounds: usize,
    floods: usize,
    _git: GitServer,
    _sandbox: SandboxProcess,
}

impl Bench {
    /// Starts all and waits until the first commit is live and webhooks are taken.
    async fn begin(folder: &Path) -> anyhow::Result<Self> {
        let sandbox = SandboxProcess::start(folder).await?;
        let repository = TestRepository::create(&folder.join("git").join(SOURCE))?;
        let git = GitServer::start(&folder.join("git"))?;
        repository.commit("A", &[(FILE, Some(&settings(0)))])?;
        let cluster = connect(&sandbox.kubeconfig).await?;
        install(&cluster, &git.url(SOURCE)).await?;
        let secret = folder.join("secret");
        std::fs::write(&secret, SECRET)?;
        let secret = secret.to_str().context("a path in UTF-8")?;
        let daemon = Daemon::start(
            &sandbox.kubeconfig,
            folder,
            &[
                ["--metrics-addr", "none", "--no-leader-election", "--log-format", "json"].as_slice(),
                &["--webhook-addr", "127.0.0.1:0", "--webhook-secret-file", secret],
            ]
            .concat(),
        )?;
        let address = daemon.address_in_log("serving webhooks").await?;
        let settings = Settings::watch(&cluster);
        let url = git.url(SOURCE);
        let mut bench =
            Self { daemon, address, url, repository, settings, rounds: 0, floods: 0, _git: git, _sandbox: sandbox };
        bench.settings.is_live(0).await.context("the first commit does not go live")?;
        let deadline = Instant::now() + PATIENCE;
        while !send(&mut bench.connect().await?, &request("ping", "{}")).await?.contains(" 200 ") {
            ensure!(Instant::now() < deadline, "webhooks are not taken");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(bench)
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// One push: the milliseconds until the answer, and until it is live.
    async fn round(&mut self) -> anyhow::Result<(f64, f64)> {
        let pace = tokio::time::sleep(ROUND);
        self.rounds += 1;
        let commit = self.repository.commit("B", &[(FILE, Some(&settings(self.rounds)))])?;
        let request = request("push", &push(&self.url, &commit.to_string()));
        let mut stream = self.connect().await?;
        let begun = Instant::now();
        let answer = send(&mut stream, &request).await?;
        let answered = begun.elapsed();
        ensure!(answer.contains(" 202 "), "it answers {answer}");
        let live = self.settings.is_live(self.rounds).await? - begun;
        pace.await;
        Ok((answered.as_secs_f64() * 1000.0, live.as_secs_f64() * 1000.0))
    }

    /// So many seconds of webhooks at a fixed rate: the milliseconds until each 202.
    async fn flood(&mut self, seconds: usize) -> anyhow::Result<Vec<f64>> {
        let tip = self.repository.tip("main")?.context("a commit")?.to_string();
        let each = PER_SECOND * seconds / SENDERS;
        let mut senders = Vec::new();
        for sender in 0..SENDERS {
            self.floods += 1;
            // of the commit that is live already, told in ever other words: nothing is a replay
            let flood = self.floods;
            let requests = (0..each).map(|n| {
                request("push", &push(&self.url, &tip).replacen('{', &format!("{{\"n\": \"{flood}-{n}\","), 1))
            });
            let requests: Vec<String> = requests.collect();
            let mut stream = self.connect().await?;
            senders.push(tokio::spawn(async move {
                let step = Duration::from_secs(1) * u32::try_from(SENDERS)? / u32::try_from(PER_SECOND)?;
                let start = Instant::now() + step * u32::try_from(sender)? / u32::try_from(SENDERS)?;
                let mut latencies = Vec::with_capacity(each);
                for (n, request) in requests.iter().enumerate() {
                    let due = start + step * u32::try_from(n)?;
                    tokio::time::sleep_until(due.into()).await;
                    let begun = Instant::now();
                    if send(&mut stream, request).await?.contains(" 202 ") {
                        latencies.push(begun.elapsed().as_secs_f64() * 1000.0);
                    }
                }
                anyhow::Ok(latencies)
            }));
        }
        let mut latencies = Vec::new();
        for sender in senders {
            latencies.extend(sender.await??);
        }
        Ok(latencies)
    }
}

/// What GitHub says of a push, as far as anybody reads it.
fn push(url: &str, commit: &str) -> String {
    json!({
        "ref": "refs/heads/main", "after": commit, "head_commit": { "id": commit },
        "repository": { "full_name": "org/platform", "clone_url": url, "html_url": url },
    })
    .to_string()
}

/// A signed request as GitHub sends it.
fn request(event: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body.as_bytes());
    let code = hex::encode(mac.finalize().into_bytes());
    format!(
        "POST /webhook HTTP/1.1\r\nhost: afresh\r\nuser-agent: GitHub-Hookshot/1\r\ncontent-type: application/json\r\n\
         x-github-event: {event}\r\nx-hub-signature-256: sha256={code}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request on a connection that is kept; the first line of the answer.
async fn send(stream: &mut TcpStream, request: &str) -> anyhow::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 2048];
        let count = stream.read(&mut piece).await?;
        ensure!(count > 0, "the connection ended");
        answer.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Ok(head.lines().next().unwrap_or_default().to_owned());
            }
        }
    }
}
