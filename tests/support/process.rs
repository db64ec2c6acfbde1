//! The daemon as a process of its own: the binary under test, an empty environment, folders of its own, its log kept.

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::daemon::{Log, STOPS_WITHIN};

pub struct Process(Child);

impl Process {
    /// `afresh run` with `arguments`.
    pub fn start(arguments: &[OsString], home: &Path, log: &Log) -> anyhow::Result<Process> {
        let tmp = home.join("tmp");
        std::fs::create_dir_all(&tmp)?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_afresh"))
            .arg("run")
            .args(arguments)
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
        keep(child.stdout.take(), log);
        keep(child.stderr.take(), log);
        Ok(Process(child))
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.0.id().context("the daemon has ended already")?;
        let sent = Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        ensure!(sent.success(), "no SIGTERM could be sent");
        let exit = tokio::time::timeout(STOPS_WITHIN, self.0.wait()).await;
        let exit = exit.with_context(|| format!("the daemon did not stop within {STOPS_WITHIN:?}"))?;
        as_result(exit.context("wait for the daemon")?)
    }

    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.0.kill().await.context("kill the daemon")
    }

    pub fn ended(&mut self) -> Option<anyhow::Result<()>> {
        self.0.try_wait().ok().flatten().map(as_result)
    }

    pub fn id(&self) -> Option<u32> {
        self.0.id()
    }

    pub fn cpu_ticks(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()?)).ok()?;
        // The name in parentheses may hold anything; fields 14 and 15 are utime and stime (proc(5)).
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
    }
}

fn as_result(exit: ExitStatus) -> anyhow::Result<()> {
    if !exit.success() {
        bail!("the daemon ended with {exit}");
    }
    Ok(())
}

fn keep(stream: Option<impl AsyncRead + Unpin + Send + 'static>, log: &Log) {
    let Some(stream) = stream else { return };
    let log = log.clone();
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            log.push(line);
        }
    });
}
