//! What the story is played on: an API server, a Git repository served over HTTP, and what the daemon is told.
//!
//! In: the sandbox or somebody's cluster. Out: handles to push, announce, declare and watch. It starts no daemon and
//! knows nothing of the story but the Service that admission refuses.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::declare::{MANAGER, apply, remove, text};
use super::platform::Tree;
use super::sight::Sight;
use super::{admission, story};
use crate::api::REQUESTED_AT;
use crate::cli::sandbox::Playground;
use crate::cluster::{ApiKind, Cluster, ClusterOptions};
use crate::config::{self, ClusterChoice, Config};
use crate::manifest::yaml;
use crate::sandbox::git_server::{Fault, Faults, GitServer};
use crate::sandbox::repository::{BRANCH, TestRepository};
use crate::sandbox::{Options, Sandbox, kubelet};

/// The repository's name, and that of its GitRepository.
pub const SOURCE: &str = "platform";

pub struct Stage {
    pub cluster: Cluster,
    /// Where source and applications are declared.
    pub namespace: String,
    git: GitServer,
    repository: TestRepository,
    documents: Vec<Value>,
    /// `None` on somebody's cluster.
    sandbox: Option<Sandbox>,
    server: String,
    kubeconfig: PathBuf,
    folder: Folder,
    /// Ends the controllers and the kubelet.
    _playing: DropGuard,
}

/// The Git server is gone until this is dropped.
pub struct Outage(Faults);

impl Drop for Outage {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl Stage {
    /// Sets up everything but the daemon. Nothing is declared yet.
    pub async fn set(kubeconfig: Option<&Path>, keep: Option<&Path>) -> anyhow::Result<Self> {
        let folder = Folder::make(keep)?;
        let tree = Tree::embedded();
        let bare = folder.path().join("git").join(SOURCE);
        let repository = TestRepository::create(&bare)
            .with_context(|| format!("can't make a repository in `{}`: is the folder new or empty?", bare.display()))?;
        let git = GitServer::start(&folder.path().join("git")).context("can't serve Git over HTTP")?;
        let documents = documents(&tree, &git.url(SOURCE))?;
        let namespace = documents.iter().find_map(|document| text(document, "/metadata/namespace"));
        let namespace = namespace.context("the documents of the example have no namespace")?.to_owned();

        let playing = CancellationToken::new();
        let own = folder.path().join("kubeconfig");
        let (sandbox, cluster) = match kubeconfig {
            Some(kubeconfig) => (None, real_cluster(kubeconfig, &namespace, &playing).await?),
            None => {
                let playground = Playground::start(Options::default(), &own, &playing).await?;
                admission::by_fault(&playground.sandbox);
                (Some(playground.sandbox), playground.cluster)
            }
        };
        let kubeconfig = kubeconfig.map_or(Ok(own), std::path::absolute)?;
        let server = server_of(&kubeconfig)?;
        let stage = Self {
            cluster,
            namespace,
            git,
            repository,
            documents,
            sandbox,
            server,
            kubeconfig,
            folder,
            _playing: playing.drop_guard(),
        };
        stage.install().await?;
        Ok(stage)
    }

    /// What the daemon is told: the same as by the flags of `run`.
    pub fn daemon_config(&self) -> Config {
        Config {
            cluster: ClusterChoice::Kubeconfig { path: self.kubeconfig.clone(), context: None },
            config_dir: None,
            data_dir: self.folder.path().join("cache"),
            metrics_addr: None,
            webhooks: None,
            // nothing of somebody else's is touched
            watch_namespace: Some(self.namespace.clone()),
            runtime_namespace: self.namespace.clone(),
            // it is the only one in its own namespace, and is killed with the demo
            leader_election: None,
            allow_local_sources: false,
            allow_remote_bases: false,
            policies_dir: None,
            default_service_account: None,
            sops_age_secret: None,
            api_concurrency: config::API_CONCURRENCY,
            field_validation: config::FieldValidation::Strict,
            source_role: config::SourceRole::Serve,
            watch_selector: None,
            shards: None,
            otlp_endpoint: None,
            version: config::VERSION.to_owned(),
        }
    }

    /// Declares what to follow, as `kubectl apply --server-side` would.
    pub async fn declare(&self) -> anyhow::Result<()> {
        for document in &self.documents {
            apply(&self.cluster, document).await?;
        }
        Ok(())
    }

    /// Commits and pushes: a commit is written straight into the repository that is served.
    pub fn commit(&self, message: &str, changes: &[(&str, Option<&str>)]) -> anyhow::Result<String> {
        Ok(self.repository.commit(message, changes).context("can't commit")?.to_string())
    }

    /// The newest commit of the branch that is followed.
    pub fn tip(&self) -> anyhow::Result<String> {
        let tip = self.repository.tip(BRANCH).context("can't read the repository")?;
        Ok(tip.map(|tip| tip.to_string()).unwrap_or_default())
    }

    /// Announces a push as a webhook receiver or `flux reconcile source git` does.
    pub async fn announce(&self) -> anyhow::Result<()> {
        let token = k8s_openapi::jiff::Timestamp::now().to_string();
        let patch = json!({ "metadata": { "annotations": { REQUESTED_AT: token } } });
        let kind = ApiKind::git_repository();
        let id = kind.object(&*self.namespace, SOURCE);
        self.cluster.merge_patch(&kind, &id, &patch, None, MANAGER).await?;
        Ok(())
    }

    /// Cuts the Git server off.
    pub fn git_outage(&self) -> Outage {
        let faults = self.git.faults().clone();
        faults.set(Fault::Unreachable);
        Outage(faults)
    }

    pub async fn sources(&self) -> Sight {
        Sight::of(&self.cluster, ApiKind::git_repository(), &self.namespace).await
    }

    pub async fn applications(&self) -> Sight {
        Sight::of(&self.cluster, ApiKind::kustomization(), &self.namespace).await
    }

    pub async fn workloads(&self) -> Sight {
        let deployments = ApiKind::new("apps", "v1", "Deployment", "deployments", true);
        Sight::of(&self.cluster, deployments, story::NAMESPACE).await
    }

    /// The Kustomizations that are declared.
    pub fn application_names(&self) -> impl Iterator<Item = &str> {
        let applications = self.documents.iter().filter(|document| document["kind"] == "Kustomization");
        applications.filter_map(|document| text(document, "/metadata/name"))
    }

    pub fn is_sandbox(&self) -> bool {
        self.sandbox.is_some()
    }

    /// The URL of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub fn git_url(&self) -> String {
        self.git.url(SOURCE)
    }

    /// The bare repository that is served.
    pub fn repository(&self) -> &Path {
        self.repository.path()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the daemon's log goes.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("daemon.log")
    }

    /// From now on the folder outlives the demo.
    pub fn keep(&mut self) {
        self.folder.keep();
    }

    /// Takes everything off somebody's cluster again; the daemon, which must still run, deletes what it made.
    pub async fn clear(&self) -> anyhow::Result<()> {
        if self.is_sandbox() {
            return Ok(());
        }
        for document in self.documents.iter().filter(|document| document["kind"] != "Namespace") {
            remove(&self.cluster, document).await?;
        }
        admission::remove_policy(&self.cluster).await
    }

    /// The definitions and the namespace that the documents are in.
    async fn install(&self) -> anyhow::Result<()> {
        crate::cli::crds::install(&self.cluster).await?;
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": self.namespace } });
        apply(&self.cluster, &namespace).await
    }
}

/// Where repository, kubeconfig and log are.
struct Folder {
    path: PathBuf,
    /// Removes it at the end.
    temporary: Option<TempDir>,
}

impl Folder {
    fn make(keep: Option<&Path>) -> anyhow::Result<Self> {
        match keep {
            Some(path) => {
                std::fs::create_dir_all(path).with_context(|| format!("can't make the folder `{}`", path.display()))?;
                // other processes start elsewhere
                Ok(Self { path: std::path::absolute(path)?, temporary: None })
            }
            None => {
                let folder = tempfile::Builder::new().prefix("afresh-demo-").tempdir()?;
                Ok(Self { path: folder.path().to_owned(), temporary: Some(folder) })
            }
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn keep(&mut self) {
        if let Some(folder) = self.temporary.take() {
            self.path = folder.keep();
        }
    }
}

/// The documents of the development cluster, with the source at `url`.
fn documents(tree: &Tree, url: &str) -> anyhow::Result<Vec<Value>> {
    let (path, text) = tree.documents().context("the example has no documents")?;
    let parsed = yaml::documents(path, text.as_bytes()).map_err(|error| anyhow::anyhow!(error.render(false)))?;
    let mut documents: Vec<_> = parsed.into_iter().map(|document| document.value).collect();
    for source in documents.iter_mut().filter(|document| document["kind"] == "GitRepository") {
        source["spec"]["url"] = url.into();
    }
    Ok(documents)
}

/// The demo takes over no application that somebody else has declared.
async fn refuse_a_cluster_in_use(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    cluster.discover().await.context("the cluster does not answer")?;
    for kind in [ApiKind::git_repository(), ApiKind::kustomization()] {
        if cluster.resource(&kind.group, &kind.kind, Some(&kind.version)).is_none() {
            continue;
        }
        let found = Sight::of(cluster, kind, namespace).await;
        if found.objects().next().is_some() {
            bail!(
                "namespace `{namespace}` of this cluster has sources or applications already\n\
                 hint: play the demo on a cluster to throw away, or without --kubeconfig on the sandbox"
            );
        }
    }
    Ok(())
}

/// Somebody's cluster, on which the demo plays the kubelet, and admission refuses a Service.
async fn real_cluster(kubeconfig: &Path, namespace: &str, playing: &CancellationToken) -> anyhow::Result<Cluster> {
    let cluster = Cluster::connect(Some(kubeconfig), None, ClusterOptions::default()).await?;
    refuse_a_cluster_in_use(&cluster, namespace).await?;
    let client = client(kubeconfig).await?;
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(client.clone());
    let nodes = nodes.list(&Default::default()).await?.items;
    if nodes.iter().any(|node| node.metadata.name.as_deref() != Some(kubelet::NODE)) {
        bail!(
            "this cluster has nodes, and the demo plays the kubelet itself: its images crash on demand\n\
             hint: give it a control plane without nodes, or leave --kubeconfig out for the sandbox"
        );
    }
    tokio::spawn(kubelet::run(client, Some(story::NAMESPACE.to_owned()), playing.clone()));
    admission::by_policy(&cluster).await?;
    Ok(cluster)
}

async fn client(kubeconfig: &Path) -> anyhow::Result<kube::Client> {
    let file = kube::config::Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("can't read the kubeconfig `{}`", kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

fn server_of(kubeconfig: &Path) -> anyhow::Result<String> {
    let file = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let current = file.current_context.as_deref();
    let context = file.contexts.iter().find(|context| Some(context.name.as_str()) == current);
    let cluster = context.and_then(|context| context.context.as_ref()).map(|context| context.cluster.as_str());
    let found = file.clusters.iter().find(|entry| Some(entry.name.as_str()) == cluster);
    Ok(found.and_then(|entry| entry.cluster.as_ref()?.server.clone()).unwrap_or_default())
}
