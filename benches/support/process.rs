//! `afresh` as processes of their own, each with an empty environment and its log in a file.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::{NAMESPACE, PATIENCE};

/// `afresh sandbox`
pub struct SandboxProcess {
    pub kubeconfig: PathBuf,
    _child: Child,
}

impl SandboxProcess {
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let kubeconfig = folder.join("kubeconfig");
        let child = afresh(folder, "sandbox.log")?
            .args(["sandbox", "--listen", "127.0.0.1:0", "--kubeconfig-out"])
            .arg(&kubeconfig)
            .spawn()
            .context("start the sandbox")?;
        until_some("the sandbox writes a kubeconfig", || kubeconfig.exists().then_some(())).await?;
        Ok(Self { kubeconfig, _child: child })
    }
}

/// `afresh run`
pub struct Daemon {
    child: Child,
    pub log: PathBuf,
}

impl Daemon {
    /// Its cache and its log are in `folder`.
    pub fn start(kubeconfig: &Path, folder: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let child = afresh(folder, "daemon.log")?
            .args(["run", "--watch-namespace", NAMESPACE, "--kubeconfig"])
            .arg(kubeconfig)
            .arg("--data-dir")
            .arg(folder.join("cache"))
            .args(arguments)
            .spawn()
            .context("start the daemon")?;
        Ok(Self { child, log: folder.join("daemon.log") })
    }

    /// Where it serves, once it says so in its log (`--log-format json`).
    pub async fn address_in_log(&self, what: &str) -> anyhow::Result<String> {
        let address = || {
            let log = std::fs::read_to_string(&self.log).ok()?;
            let line: Value = serde_json::from_str(log.lines().find(|line| line.contains(what))?).ok()?;
            line["fields"]["address"].as_str().or(line["address"].as_str()).map(str::to_owned)
        };
        until_some(&format!("the daemon says {what}"), address).await
    }

    /// SIGTERM, and its end.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let id = self.child.id().context("the daemon has ended")?;
        let sent = Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        ensure!(sent.success(), "no SIGTERM could be sent");
        tokio::time::timeout(PATIENCE, self.child.wait()).await.context("the daemon does not end")??;
        Ok(())
    }

    fn proc_file(&self, name: &str) -> anyhow::Result<PathBuf> {
        let id = self.child.id().context("the daemon has ended")?;
        Ok(PathBuf::from(format!("/proc/{id}/{name}")))
    }

    /// Where the kernel says what memory it has.
    pub fn status_file(&self) -> anyhow::Result<PathBuf> {
        self.proc_file("status")
    }

    /// Processor time, user and system.
    pub fn cpu_s(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(self.proc_file("stat")?)?;
        // the name before may hold anything; the state is the third field, the times are the 14th and the 15th
        let fields = stat.rsplit(')').next().context("no name")?.split_whitespace().skip(11).take(2);
        let ticks = fields.map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// What the kernel counts as resident.
    pub fn resident_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(self.status_file()?)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib / 1024.0)
    }
}

/// `getconf CLK_TCK`, on every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

pub async fn until_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

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
