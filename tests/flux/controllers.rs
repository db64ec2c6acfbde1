//! Flux's own controllers as processes: source-controller and kustomize-controller of one release, on loopback, from the
//! folder `AFRESH_FLUX` (`tests/tools/flux/build` prints one).

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::process::{Child, Command};

use crate::support::flux::NAMESPACE;

pub const SOURCE: &str = "source-controller";
pub const KUSTOMIZE: &str = "kustomize-controller";
/// They give their Leases up before they end.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// Those that run.
pub struct Controllers {
    kubeconfig: PathBuf,
    /// What they say and keep.
    folder: PathBuf,
    /// Where source-controller serves its artifacts: the Service's address in a cluster.
    storage: SocketAddr,
    running: BTreeMap<String, Child>,
}

impl Controllers {
    pub fn new(kubeconfig: &Path, folder: &Path) -> anyhow::Result<Controllers> {
        std::fs::create_dir_all(folder)?;
        // where their Leases are: tests/tools/flux/build has them read it here
        std::fs::write(folder.join("namespace"), NAMESPACE)?;
        // found before it is bound: on a loopback of our own that is enough
        let storage = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Ok(Controllers { kubeconfig: kubeconfig.into(), folder: folder.into(), storage, running: BTreeMap::new() })
    }

    pub fn runs(&self, name: &str) -> bool {
        self.running.contains_key(name)
    }

    pub fn start(&mut self, name: &str) -> anyhow::Result<()> {
        let arguments = match name {
            SOURCE => {
                let storage = self.folder.join("storage");
                std::fs::create_dir_all(&storage)?;
                vec![
                    format!("--storage-path={}", storage.display()),
                    format!("--storage-addr={}", self.storage),
                    format!("--storage-adv-addr={}", self.storage),
                ]
            }
            // half a minute by default: nobody wants to wait for that
            _ => vec!["--requeue-dependency=3s".to_owned()],
        };
        let child = self.spawn(name, &arguments)?;
        self.running.insert(name.to_owned(), child);
        Ok(())
    }

    /// SIGTERM, as `kubectl scale --replicas=0` sends it, and its end.
    pub async fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        let mut child = self.running.remove(name).with_context(|| format!("{name} does not run"))?;
        let id = child.id().with_context(|| format!("{name} has ended already"))?;
        let sent = Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        ensure!(sent.success(), "no SIGTERM could be sent");
        let ended = tokio::time::timeout(STOPS_WITHIN, child.wait()).await;
        ended.with_context(|| format!("{name} did not stop"))??;
        Ok(())
    }

    fn spawn(&self, name: &str, more: &[String]) -> anyhow::Result<Child> {
        let temporary = self.folder.join(format!("{name}.tmp"));
        std::fs::create_dir_all(&temporary)?;
        let log = File::options().create(true).append(true).open(self.folder.join(format!("{name}.log")))?;
        Command::new(home()?.join(name))
            .args(["--enable-leader-election", "--metrics-addr=0", "--health-addr=127.0.0.1:0", "--log-level=info"])
            .args(more)
            .env_clear()
            .env("KUBECONFIG", &self.kubeconfig)
            .env("RUNTIME_NAMESPACE", NAMESPACE)
            // what resolves the Service's name for kustomize-controller
            .env("SOURCE_CONTROLLER_LOCALHOST", self.storage.to_string())
            .env("HOME", &temporary)
            .env("TMPDIR", &temporary)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}"))
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in [SOURCE, KUSTOMIZE] {
                let log = std::fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                eprintln!("--- {name}\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
        }
    }
}

/// The folder of the programs.
pub fn home() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("AFRESH_FLUX").context("AFRESH_FLUX is not set: see tests/tools/README.md")?;
    Ok(std::path::absolute(home)?)
}
