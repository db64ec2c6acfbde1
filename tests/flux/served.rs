//! A control plane of its own on which Flux's own controllers serve the platform, as after `flux bootstrap`.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use afresh::api::{Kustomization, READY};
use anyhow::{Context as _, ensure};
use kube::api::Api;
use serde_json::Value;
use tokio::process::Command;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::controllers::{Controllers, KUSTOMIZE, SOURCE};
use crate::document::{Step, is_as_said};
use crate::support::control_plane::ControlPlane;
use crate::support::env::{Env, PATIENCE, is_ready_at, truth};
use crate::support::flux::{self, COMPONENTS, NAMESPACE};
use crate::support::installation;
use crate::support::wait::{eventually, watch_until};

/// Its controllers look at what waits for others each half a minute.
pub const PATIENCE_WITH_FLUX: Duration = Duration::from_secs(180);
pub const KUSTOMIZATIONS: [&str; 3] = ["flux-system", "infrastructure", "apps"];

pub struct Served {
    /// Dropped first: what it says lies in the environment's folder.
    pub flux: Controllers,
    /// Its namespace is Flux's.
    pub env: Env,
    pub plane: &'static ControlPlane,
    revision: String,
    _kubelet: DropGuard,
}

impl Served {
    /// # Panics
    /// When it can't be made, with what Flux says.
    pub async fn by_flux(scenario: &str) -> Served {
        let plane = ControlPlane::start().await.unwrap_or_else(|error| panic!("no control plane: {error:#}"));
        // it lives as long as the process: the watchdog ends it
        let plane: &'static ControlPlane = Box::leak(Box::new(plane));
        let mut env = Env::on_plane(scenario, plane).await;
        env.namespace = NAMESPACE.into();
        let cancel = CancellationToken::new();
        tokio::spawn(afresh::sandbox::kubelet::run(env.client.clone(), None, cancel.clone()));
        let files = flux::platform(&env.git.url(crate::support::env::SOURCE));
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let revision = env.push("the platform", &files);
        let flux = Controllers::new(plane.kubeconfig(), &env.folder().join("flux")).expect("a folder for Flux");
        let mut served = Served { env, flux, plane, revision, _kubelet: cancel.drop_guard() };
        served.bootstrap().await.unwrap_or_else(|error| panic!("no bootstrap: {error:#}"));
        served.start_flux();
        served.ready_by_flux(&served.revision.clone()).await;
        for name in ["source-controller", "kustomize-controller"] {
            served.env.until_live("Deployment", name, "it runs", |it| it["status"]["availableReplicas"] == 1).await;
        }
        served
    }

    /// What `flux bootstrap` applies by itself, as the manager that it uses.
    async fn bootstrap(&self) -> anyhow::Result<()> {
        let sync = flux::file("clusters/prod/flux-system/gotk-sync.yaml").replace(flux::URL, &self.url());
        for (name, text) in [("components", flux::file(COMPONENTS)), ("sync", sync)] {
            let file = self.env.folder().join(format!("{name}.yaml"));
            std::fs::write(&file, text)?;
            let mut kubectl = self.plane.kubectl()?;
            kubectl.args(["apply", "--server-side", "--force-conflicts", "--field-manager=flux", "-f"]).arg(&file);
            let output = kubectl.output().await.context("start kubectl")?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let mut kubectl = self.plane.kubectl()?;
            let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
            ensure!(kubectl.args(wait).output().await?.status.success(), "the definitions are not established");
        }
        Ok(())
    }

    pub fn start_flux(&mut self) {
        for name in [SOURCE, KUSTOMIZE] {
            self.flux.start(name).unwrap_or_else(|error| panic!("{name} does not start: {error:#}"));
        }
    }

    pub async fn stop_flux(&mut self) {
        for name in [SOURCE, KUSTOMIZE] {
            self.flux.stop(name).await.unwrap_or_else(|error| panic!("{name} does not stop: {error:#}"));
        }
    }

    pub fn url(&self) -> String {
        self.env.git.url(crate::support::env::SOURCE)
    }

    /// The commit of the platform as Flux has applied it first.
    pub fn commit(&self) -> String {
        self.revision.rsplit(':').next().unwrap_or_default().to_owned()
    }

    /// Until Flux says of all Kustomizations that they are Ready at this revision.
    pub async fn ready_by_flux(&self, revision: &str) {
        let kustomizations: Api<Kustomization> = Api::namespaced(self.env.client.clone(), NAMESPACE);
        for name in KUSTOMIZATIONS {
            let done = watch_until(&kustomizations, name, PATIENCE_WITH_FLUX, |found| {
                found.is_some_and(|found| is_ready_at(found, revision))
            });
            if let Err(seen) = done.await {
                let status = seen.last.and_then(|found| found.status);
                panic!("{name} is not Ready at {revision}: {:#}", serde_json::json!(status));
            }
        }
    }

    /// Until a Kustomization is `Stalled` with a message that holds `text`.
    pub async fn stalled(&self, name: &str, text: &str) {
        let kustomizations = self.env.kustomizations();
        let done = watch_until(&kustomizations, name, PATIENCE, |found| {
            let Some(found) = found else { return false };
            let status = found.status.as_ref();
            let stalled = status.is_some_and(|status| status.conditions.is_true("Stalled"));
            let message = status.and_then(|status| status.conditions.get(READY)).map(|ready| ready.message.as_str());
            stalled && truth(found).is_some() && message.is_some_and(|message| message.contains(text))
        });
        assert!(done.await.is_ok(), "{name} is not Stalled with `{text}`");
    }
}

/// What people type, as [`Served::types`] runs it.
impl Served {
    /// Runs a command in a working copy of the platform, as an administrator with `kubectl`, `afresh` and `git`, until
    /// it prints what the page says; then has the processes run that the cluster's Deployments ask for. What only looks
    /// is typed again until it sees that, since things take their time.
    pub async fn types(&mut self, step: &Step) {
        let looks = ["kubectl -n flux-system get "].iter().any(|look| step.command.starts_with(look));
        let patience = if looks { PATIENCE_WITH_FLUX } else { Duration::ZERO };
        let mut printed = Vec::new();
        let done = eventually(patience, async || {
            printed = self.run(&step.command).await;
            is_as_said(&step.prints, &printed).then_some(())
        })
        .await;
        assert!(done.is_some(), "$ {}\n{}\nis not\n{}", step.command, printed.join("\n"), step.prints.join("\n"));
        self.obey().await;
    }

    async fn run(&self, command: &str) -> Vec<String> {
        let (home, copy) = (self.env.folder().join("person"), self.env.folder().join("person/platform"));
        if !copy.exists() {
            self.check_out(&home).await;
        }
        let output = self.shell(&home).args(["-c", command]).current_dir(&copy).output().await.expect("sh runs");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            text.push_str(&format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
        text.lines().map(str::to_owned).collect()
    }

    fn shell(&self, home: &Path) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell.env_clear().env("HOME", home).env("PATH", format!("{}:{path}", home.join("bin").display()));
        shell.env("KUBECONFIG", self.plane.kubeconfig()).stdin(Stdio::null()).kill_on_drop(true);
        shell
    }

    /// A person's place: programs, who they are, and a clone beside the manifests.
    async fn check_out(&self, home: &Path) {
        let bin = home.join("bin");
        std::fs::create_dir_all(&bin).expect("a folder");
        let kubectl = Path::new(&std::env::var_os("KUBEBUILDER_ASSETS").expect("it is set")).join("kubectl");
        symlink(kubectl, bin.join("kubectl")).expect("a link");
        symlink(env!("CARGO_BIN_EXE_afresh"), bin.join("afresh")).expect("a link");
        let who = "[user]\nname = Somebody\nemail = somebody@example.com\n[push]\ndefault = current\n";
        std::fs::write(home.join(".gitconfig"), who).expect("a file");
        let clone = format!("git clone --quiet '{}' platform", self.env.repository.path().display());
        let done = self.shell(home).args(["-c", &clone]).current_dir(home).status().await.expect("sh runs");
        assert!(done.success(), "{clone}");
        symlink(installation::manifests(), home.join("platform/manifests")).expect("a link");
        std::fs::write(home.join("platform/.git/info/exclude"), "manifests\n").expect("a file");
    }

    /// Has the processes run that the Deployments ask for, as a node would.
    async fn obey(&mut self) {
        for name in [SOURCE, KUSTOMIZE] {
            let wanted = self.deployment(NAMESPACE, name).await.is_some_and(|it| it["spec"]["replicas"] == 1);
            match (wanted, self.flux.runs(name)) {
                (true, false) => self.flux.start(name).expect("it starts"),
                (false, true) => self.flux.stop(name).await.expect("it stops"),
                _ => {}
            }
        }
        let afresh = self.deployment(installation::NAMESPACE, "afresh").await;
        let wanted = afresh.filter(|it| it["spec"]["replicas"] == 1);
        match (wanted, self.env.daemon.is_some()) {
            (Some(deployment), false) => {
                let kubeconfig = installation::kubeconfig_of(self.plane, installation::NAMESPACE).await;
                self.env.use_kubeconfig(kubeconfig.expect("a token"));
                let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].clone();
                let arguments = arguments.as_array().into_iter().flatten().filter_map(Value::as_str);
                // the others are about a container's own place
                self.env.arguments = arguments.filter(|it| it.starts_with("--sources")).map(str::to_owned).collect();
                self.start_afresh();
            }
            (None, true) => self.env.daemon.take().expect("it runs").stop().await.expect("it stops"),
            _ => {}
        }
    }

    /// Starts the daemon for all namespaces.
    pub fn start_afresh(&mut self) {
        self.env.arguments.extend(["--runtime-namespace".into(), installation::NAMESPACE.into()]);
        self.env.namespace.clear();
        self.env.start();
        self.env.namespace = NAMESPACE.into();
    }

    async fn deployment(&self, namespace: &str, name: &str) -> Option<Value> {
        let found = flux::objects(&self.env.client, "apps/v1", "Deployment", namespace).get_opt(name).await;
        found.expect("it can be read").map(|found| serde_json::json!(found))
    }
}
