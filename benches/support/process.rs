//! `afresh` as processes of their own, each with an empty environment and its log in a file.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
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

    /// What the kernel counts as resident.
    pub fn resident_mib(&self) -> anyhow::Result<f64> {
        let id = self.child.id().context("the daemon has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib / 1024.0)
    }
}

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
