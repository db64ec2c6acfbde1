//! The daemon as a process of its own: the binary under test, an empty environment, folders of its own, its log kept.

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::daemon::{Log, STOPS_WITHIN};
use super::in_process::EVERYTHING;

pub struct Process(Child);

impl Process {
    /// `afresh run` with `arguments`.
    pub fn start(arguments: &[OsString], home: &Path, log: &Log) -> anyhow::Result<Process> {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_afresh")), arguments, home, log)
    }

    /// The same under what manifests/base/deployment.yaml asks of the kubelet, as far as tools of any Linux can do it:
    /// nobody's user, no capabilities and no way to new ones, and all file systems read-only but for `home`. (What the
    /// seccomp profile leaves is shown with the image: tests/tools/image.)
    pub fn start_confined(arguments: &[OsString], home: &Path, log: &Log) -> anyhow::Result<Process> {
        let mut command = Command::new("/usr/bin/unshare");
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", CONFINE, "confine"]);
        command.arg(home).arg(env!("CARGO_BIN_EXE_afresh"));
        Self::spawn(command, arguments, home, log)
    }

    fn spawn(mut command: Command, arguments: &[OsString], home: &Path, log: &Log) -> anyhow::Result<Process> {
        let tmp = home.join("tmp");
        std::fs::create_dir_all(&tmp)?;
        let mut child = command
            .arg("run")
            .args(arguments)
            .env_clear()
            .env("HOME", home)
            .env("TMPDIR", &tmp)
            .env("RUST_BACKTRACE", "1")
            .env("AFRESH_LOG", EVERYTHING)
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

/// HOME PROGRAM ARGUMENT…: the program may lie where the user can't go.
const CONFINE: &str = r#"
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
home=$1 program=$2
shift 2
touch "$home/afresh"
chown -R 65532:65532 "$home"
mount --bind "$home" "$home"
mount --bind "$program" "$home/afresh"
cut -d ' ' -f 5 /proc/self/mountinfo | while read -r place; do
  case $place in
    "$home") ;;
    *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;;
  esac
done
if touch /tmp/.writable 2>/dev/null; then echo 'the root is not read-only' >&2; exit 1; fi
cd "$home"
exec setpriv --reuid=65532 --regid=65532 --clear-groups --no-new-privs \
  --bounding-set=-all --inh-caps=-all --ambient-caps=-all "$home/afresh" "$@"
"#;

/// Whether this machine lets a process be confined: root, mount namespaces, and the tools for them.
pub async fn can_confine() -> bool {
    let script = "mount --bind /tmp /tmp && setpriv --reuid=65532 --regid=65532 --clear-groups --no-new-privs true";
    let mut probe = Command::new("/usr/bin/unshare");
    probe.args(["--mount", "--propagation", "private", "/bin/sh", "-c", script]);
    probe.stdout(Stdio::null()).stderr(Stdio::null()).status().await.is_ok_and(|status| status.success())
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
