//! The daemon as a process of its own: the binary under test, an empty environment, folders of its own, its log kept.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

/// The promise is 5 s; a machine that compiles beside the test gets some more.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// What is printed of the log when a test fails.
const TAIL_LINES: usize = 60;

pub struct Daemon {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Starts `afresh run` on a cluster for one namespace. `home` outlives restarts: the data dir is in it.
    pub fn start(kubeconfig: &Path, namespace: &str, home: &Path, more: &[String]) -> anyhow::Result<Daemon> {
        let data: PathBuf = home.join("data");
        let tmp = home.join("tmp");
        std::fs::create_dir_all(&tmp)?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_afresh"))
            .arg("run")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--data-dir")
            .arg(data)
            .args(["--watch-namespace", namespace, "--metrics-addr", "127.0.0.1:0", "--log-format", "json"])
            .args(more)
            .env_clear()
            .env("HOME", home)
            .env("TMPDIR", &tmp)
            .env("RUST_BACKTRACE", "1")
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the daemon")?;
        let log = Arc::default();
        keep(child.stdout.take(), &log);
        keep(child.stderr.take(), &log);
        Ok(Daemon { child, log })
    }

    /// SIGTERM, and the exit it leads to.
    pub async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let id = self.child.id().context("the daemon has ended already")?;
        let sent = Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        ensure!(sent.success(), "no SIGTERM could be sent");
        let exit = tokio::time::timeout(STOPS_WITHIN, self.child.wait()).await;
        exit.with_context(|| format!("the daemon did not stop within {STOPS_WITHIN:?}\n{}", self.log_tail()))?
            .context("wait for the daemon")
    }

    /// SIGKILL: what a lost machine looks like.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("kill the daemon")
    }

    /// How it ended, if it has.
    pub fn exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Processor time used so far, in hundredths of a second; `None` where there is no `/proc`.
    pub fn cpu_ticks(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()?)).ok()?;
        // The name in parentheses may hold anything; fields 14 and 15 are utime and stime (proc(5)).
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
    }

    /// Every line so far, of both streams.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        log[log.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

fn keep(stream: Option<impl AsyncRead + Unpin + Send + 'static>, log: &Arc<Mutex<Vec<String>>>) {
    let Some(stream) = stream else { return };
    let log = log.clone();
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
}
