//! One scenario's environment and what it asks of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use afresh::api::{
    APPLY_MANAGER, Alert, GitRepository, Kustomization, Provider, READY, REQUESTED_AT, Receiver, STATUS_MANAGER, Truth,
};
use afresh::sandbox::git_server::GitServer;
use afresh::sandbox::kubelet::{self, BEHAVIOUR};
use afresh::sandbox::repository::TestRepository;
use afresh::sandbox::{self, Effect, Match, Sandbox, controllers};

use k8s_openapi::api::core::v1::{Event, Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Config, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::canaries::Canaries;
use super::control_plane::ControlPlane;
use super::daemon::{Daemon, Runner};
use super::installation;
use super::manifests::{deployment_behaving, waits_ten_minutes};
use super::wait::{eventually, watch_until};

/// The GitRepository of every scenario.
pub const SOURCE: &str = "platform";
/// Enough for any machine that doesn't hang; what is promised in seconds is measured by benches.
pub const PATIENCE: Duration = Duration::from_secs(60);

const NOTIFICATION: &str = "notification.toolkit.fluxcd.io/v1beta3";
/// The manager of what the tests write.
const MANAGER: &str = "scenario";

pub struct Env {
    /// Dropped first: it may not outlive its cluster.
    pub daemon: Option<Daemon>,
    pub client: Client,
    pub namespace: String,
    pub repository: TestRepository,
    pub git: GitServer,
    pub cluster: Cluster,
    /// Where the daemon runs from its next start on.
    pub runner: Runner,
    /// More arguments for `afresh run`.
    pub arguments: Vec<String>,
    /// Which version daemons in this process are, if not that of this build.
    pub version: Option<String>,
    /// What nobody may be told.
    pub canaries: Canaries,
    kubeconfig: PathBuf,
    dir: TempDir,
    _kubelet: DropGuard,
}

pub enum Cluster {
    Sandbox(Sandbox),
    Real(&'static ControlPlane),
}

impl Env {
    /// A cluster of its own, in this process.
    pub async fn on_sandbox(scenario: &str) -> Env {
        let sandbox = Sandbox::start(sandbox::Options::default()).await.expect("a sandbox");
        Self::new(scenario, Cluster::Sandbox(sandbox)).await
    }

    /// A namespace of its own on the real control plane of this process; `None` if there is none to be had.
    pub async fn on_real_server(scenario: &str) -> Option<Env> {
        if !ControlPlane::available() {
            println!("skipped: KUBEBUILDER_ASSETS is not set");
            return None;
        }
        let plane = ControlPlane::shared().await;
        let mut env = Self::on_plane(scenario, plane).await;
        // exactly the rights that the manifests give
        env.kubeconfig = installation::shared(plane).await.to_owned();
        Some(env)
    }

    /// As [`Env::on_real_server`], on a control plane that no other scenario uses: this one serves all namespaces, or
    /// changes the daemon's rights.
    pub async fn on_real_server_of_its_own(scenario: &str) -> Option<Env> {
        let plane = ControlPlane::of_its_own().await?;
        let mut env = Self::on_plane(scenario, plane).await;
        installation::apply(plane, &installation::manifests()).await.expect("an installation");
        let kubeconfig = installation::kubeconfig_of(plane, installation::NAMESPACE).await;
        env.kubeconfig = kubeconfig.expect("a token of the service account");
        Some(env)
    }

    /// A namespace of its own on a control plane, where daemons are administrators.
    pub async fn on_plane(scenario: &str, plane: &'static ControlPlane) -> Env {
        Self::new(scenario, Cluster::Real(plane)).await
    }

    async fn new(scenario: &str, cluster: Cluster) -> Env {
        let dir = tempfile::Builder::new().prefix("afresh-scenario-").tempdir().expect("a folder for the scenario");
        let repository = TestRepository::create(&dir.path().join("git").join(SOURCE)).expect("an empty repository");
        let git = GitServer::start(&dir.path().join("git")).expect("a Git server");
        let namespace = namespace_for(scenario);
        let kubeconfig = match &cluster {
            Cluster::Sandbox(sandbox) => {
                let path = dir.path().join("kubeconfig");
                sandbox.write_kubeconfig(&path).expect("a kubeconfig");
                path
            }
            Cluster::Real(plane) => plane.kubeconfig().to_owned(),
        };
        let client = connect(&kubeconfig).await;
        let cancel = CancellationToken::new();
        if let Cluster::Sandbox(_) = &cluster {
            tokio::spawn(controllers::run(client.clone(), cancel.clone()));
        }
        tokio::spawn(kubelet::run(client.clone(), Some(namespace.clone()), cancel.clone()));
        let env = Env {
            daemon: None,
            client,
            namespace,
            repository,
            git,
            cluster,
            runner: Runner::chosen(),
            arguments: Vec::new(),
            version: None,
            canaries: Canaries::default(),
            kubeconfig,
            dir,
            _kubelet: cancel.drop_guard(),
        };
        env.prepare_cluster().await;
        env
    }

    /// Installs the definitions of our kinds, as long as they are not there.
    pub async fn install_definitions(&self) {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for definition in afresh::api::definitions() {
            let name = definition.name_any();
            let params = PatchParams::apply(MANAGER).force();
            definitions.patch(&name, &params, &Patch::Apply(&definition)).await.expect("the definition is accepted");
            let established = |definition: Option<&CustomResourceDefinition>| {
                let status = definition.and_then(|definition| definition.status.as_ref());
                let mut conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
                conditions.any(|condition| condition.type_ == "Established" && condition.status == "True")
            };
            watch_until(&definitions, &name, PATIENCE, established).await.expect("the definition is established");
        }
    }

    /// Installs the definitions and makes the namespace.
    async fn prepare_cluster(&self) {
        self.install_definitions().await;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": self.namespace } });
        let params = PatchParams::apply(MANAGER);
        namespaces.patch(&self.namespace, &params, &Patch::Apply(namespace)).await.expect("the namespace is made");
        // A real server refuses Pods before their service account exists.
        if let Cluster::Real(_) = self.cluster {
            let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
            let made = watch_until(&accounts, "default", PATIENCE, |account| account.is_some()).await;
            made.expect("the service account is made");
        }
    }

    /// Starts the daemon (again) on what it left behind.
    pub fn start(&mut self) {
        let home = self.dir.path().join("home");
        self.daemon = Some(self.start_in(&home, &self.kubeconfig));
    }

    /// Starts another daemon beside it, on folders of its own.
    pub fn start_replica(&self, name: &str, kubeconfig: &Path) -> Daemon {
        self.start_in(&self.dir.path().join(name), kubeconfig)
    }

    fn start_in(&self, home: &Path, kubeconfig: &Path) -> Daemon {
        self.keep_credentials_of(kubeconfig);
        let (version, arguments) = (self.version.as_deref(), &self.arguments);
        let daemon = Daemon::start(self.runner, kubeconfig, &self.namespace, home, arguments, version, &self.canaries);
        daemon.expect("the daemon starts")
    }

    /// From now on daemons are started with this kubeconfig.
    pub fn use_kubeconfig(&mut self, kubeconfig: PathBuf) {
        self.kubeconfig = kubeconfig;
    }

    /// A folder that lasts as long as the scenario.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The kubeconfig that daemons are started with.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The usual beginning: a first commit, the source, one application `app` in the folder of that name, Ready.
    pub async fn begin(&mut self, files: &[(&str, &str)]) -> String {
        let revision = self.push("A", files);
        self.source(|_| {}).await;
        self.kustomization("app", |_| {}).await;
        self.start();
        self.ready_at("app", &revision).await;
        revision
    }

    /// Another beginning: the application `app` waits up to ten minutes for the Deployment `web`, whose Pod doesn't
    /// become ready by itself.
    pub async fn begin_waiting(&mut self) -> String {
        let revision = self.push("A", &[("app/web.yaml", &deployment_behaving("web", "web:1", "never"))]);
        self.source(|_| {}).await;
        self.kustomization("app", waits_ten_minutes).await;
        self.start();
        self.until("app", "it is attempted", |app| {
            app.status.as_ref().and_then(|status| status.last_attempted_revision.as_deref()) == Some(&revision)
        })
        .await;
        self.until_live("Deployment", "web", "it is applied", |_| true).await;
        revision
    }

    /// Commits files to `main`; gives its revision as status shows it.
    pub fn push(&self, message: &str, files: &[(&str, &str)]) -> String {
        let changes: Vec<_> = files.iter().map(|(path, text)| (*path, Some(*text))).collect();
        self.push_changes(message, &changes)
    }

    /// As [`Env::push`]; a path with `None` is removed.
    pub fn push_changes(&self, message: &str, changes: &[(&str, Option<&str>)]) -> String {
        for (path, text) in changes.iter().filter_map(|(path, text)| Some((path, (*text)?))) {
            self.canaries.keep_secrets_of(path, text);
        }
        format!("main@sha1:{}", self.repository.commit(message, changes).expect("a commit"))
    }

    /// Makes or changes the GitRepository; `change` gets its spec.
    pub async fn source(&self, change: impl FnOnce(&mut Value)) {
        let password = self.canaries.plant("the password in the URL of a source");
        let url = self.git.url(SOURCE).replacen("://", &format!("://canary:{password}@"), 1);
        self.source_at(SOURCE, &url, change).await;
    }

    /// Makes or changes a GitRepository of another repository.
    pub async fn source_at(&self, name: &str, url: &str, change: impl FnOnce(&mut Value)) {
        let mut spec = json!({ "url": url, "interval": "10m", "ref": { "branch": "main" } });
        change(&mut spec);
        self.apply::<GitRepository>("source.toolkit.fluxcd.io/v1", "GitRepository", name, spec).await;
    }

    /// Until a source says why it has no newer revision; gives all of what it says.
    pub async fn source_fails(&self, name: &str, text: &str) -> String {
        let (sources, mut said) = (self.sources(), String::new());
        let outcome = watch_until(&sources, name, PATIENCE, |source| {
            let status = source.and_then(|source| source.status.as_ref());
            let failed = status.and_then(|status| status.conditions.get("FetchFailed"));
            said = failed.map(|condition| condition.message.clone()).unwrap_or_default();
            !said.is_empty() && said.contains(text)
        });
        if outcome.await.is_err() {
            self.fail(&format!("GitRepository/{name} fails with `{text}`")).await;
        }
        said
    }

    /// The value of the series of `/metrics` with this name and these labels; `None` if there is none.
    pub async fn measured(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let daemon = self.daemon.as_ref().expect("a daemon");
        let (_, text) = daemon.ask("/metrics").await.expect("metrics are served");
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let is_it = |line: &&str| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label))
        };
        text.lines().find(is_it)?.rsplit_once(' ')?.1.parse().ok()
    }

    /// Whether an Alert, a Provider or a Receiver is served, as the metrics say.
    pub async fn until_served(&self, kind: &str, name: &str, served: Option<bool>) {
        let labels = [("kind", kind), ("name", name), ("namespace", self.namespace.as_str())];
        let wanted = served.map(|served| f64::from(u8::from(served)));
        self.eventually(&format!("afresh_ready of {kind}/{name} is {wanted:?}"), async || {
            (self.measured("afresh_ready", &labels).await == wanted).then_some(())
        })
        .await;
    }

    /// Where the daemon keeps what it has fetched.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("home").join("data")
    }

    /// Whether `/metrics` has a series of this name with these labels.
    pub async fn is_counted(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.measured(name, labels).await.is_some()
    }

    /// Makes or changes a Kustomization of the folder of its name; `change` gets its spec.
    pub async fn kustomization(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut spec = self.kustomization_spec(name);
        change(&mut spec);
        self.apply::<Kustomization>("kustomize.toolkit.fluxcd.io/v1", "Kustomization", name, spec).await;
    }

    /// Makes a Kustomization as [`Env::kustomization`] does, by a POST.
    pub async fn create_kustomization(&self, name: &str) {
        let spec = serde_json::from_value(self.kustomization_spec(name)).expect("a spec");
        let object = Kustomization::new(name, spec);
        self.kustomizations().create(&PostParams::default(), &object).await.expect("it is accepted");
    }

    fn kustomization_spec(&self, name: &str) -> Value {
        json!({
            "interval": "10m",
            "path": format!("./{name}"),
            "prune": true,
            "sourceRef": { "kind": "GitRepository", "name": SOURCE },
            "targetNamespace": self.namespace,
        })
    }

    /// Makes or changes a Secret of texts.
    pub async fn secret(&self, name: &str, mut texts: Value) {
        for (key, value) in texts.as_object().into_iter().flatten().filter(|(key, _)| is_secret(key)) {
            self.canaries.keep(&format!("`{key}` of Secret `{name}`"), value.as_str().unwrap_or_default());
        }
        texts["canary"] = self.canaries.planted(&format!("`canary` of Secret `{name}`")).into();
        let object = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": texts });
        let params = PatchParams::apply(MANAGER).force();
        self.objects("Secret").patch(name, &params, &Patch::Apply(object)).await.expect("the Secret is accepted");
    }

    /// Makes or changes a Provider.
    pub async fn provider(&self, name: &str, spec: Value) {
        self.apply::<Provider>(NOTIFICATION, "Provider", name, spec).await;
    }

    /// Makes or changes an Alert on all Kustomizations and sources here; `change` gets its spec.
    pub async fn alert(&self, name: &str, provider: &str, change: impl FnOnce(&mut Value)) {
        let sources = json!([{ "kind": "Kustomization", "name": "*" }, { "kind": "GitRepository", "name": "*" }]);
        let mut spec = json!({ "providerRef": { "name": provider }, "eventSources": sources });
        change(&mut spec);
        self.apply::<Alert>(NOTIFICATION, "Alert", name, spec).await;
    }

    async fn apply<K>(&self, api_version: &str, kind: &str, name: &str, spec: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let object = json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": name }, "spec": spec });
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await.expect("it is accepted");
    }

    pub fn kustomizations(&self) -> Api<Kustomization> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn sources(&self) -> Api<GitRepository> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Announces the newest commit as `flux reconcile source git` does.
    pub async fn announce(&self) {
        self.announce_source(SOURCE).await;
    }

    pub async fn announce_source(&self, name: &str) {
        let patch = Patch::Merge(requested());
        self.sources().patch(name, &PatchParams::default(), &patch).await.expect("the source is annotated");
    }

    /// Asks for a reconciliation as `flux reconcile kustomization` does; gives the token that will be echoed.
    pub async fn request_now(&self, name: &str) -> String {
        let patch = requested();
        let token = patch["metadata"]["annotations"][REQUESTED_AT].as_str().unwrap_or_default().to_owned();
        let done = self.kustomizations().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        done.expect("the Kustomization is annotated");
        token
    }

    /// Asks for a reconciliation and waits until it was handled.
    pub async fn reconcile(&self, name: &str) {
        let token = self.request_now(name).await;
        self.until(name, "the request is echoed", |found| {
            found.status.as_ref().and_then(|status| status.last_handled_reconcile_at.as_deref()) == Some(&token)
        })
        .await;
    }

    /// Watches a Kustomization until `done`.
    pub async fn until(&self, name: &str, what: &str, mut done: impl FnMut(&Kustomization) -> bool) -> Kustomization {
        let outcome = watch_until(&self.kustomizations(), name, PATIENCE, |found| found.is_some_and(&mut done)).await;
        match outcome {
            Ok(Some(found)) => found,
            Ok(None) => panic!("Kustomization/{name} is gone before: {what}"),
            Err(_) => self.fail(&format!("Kustomization/{name}: {what}")).await,
        }
    }

    /// Until a Kustomization is Ready at a revision.
    pub async fn ready_at(&self, name: &str, revision: &str) -> Kustomization {
        self.until(name, &format!("Ready at {revision}"), |found| is_ready_at(found, revision)).await
    }

    /// Until a Kustomization has failed at a revision with a message that holds `text`.
    pub async fn failed_at(&self, name: &str, revision: &str, text: &str) -> Kustomization {
        let what = format!("Ready=False at {revision} with `{text}`");
        self.until(name, &what, |found| {
            let attempted = found.status.as_ref().and_then(|status| status.last_attempted_revision.as_deref());
            attempted == Some(revision) && truth(found) == Some(Truth::False) && message(found).contains(text)
        })
        .await
    }

    /// Until the source has a revision.
    pub async fn fetched(&self, revision: &str) {
        let sources = self.sources();
        let outcome = watch_until(&sources, SOURCE, PATIENCE, |source| {
            let artifact = source.and_then(|source| source.status.as_ref()?.artifact.as_ref());
            artifact.is_some_and(|artifact| artifact.revision == revision)
        });
        if outcome.await.is_err() {
            self.fail(&format!("the source has {revision}")).await;
        }
    }

    /// The message of `Ready`; empty if there is none.
    pub async fn status_message(&self, name: &str) -> String {
        self.kustomizations().get(name).await.map(|found| message(&found)).unwrap_or_default()
    }

    /// An object of the scenario's namespace as it is; `None` if there is none.
    pub async fn live(&self, kind: &str, name: &str) -> Option<Value> {
        let found = self.objects(kind).get_opt(name).await.expect("the object can be read");
        found.map(|object| serde_json::to_value(object).expect("an object is JSON"))
    }

    /// Watches an object of the scenario's namespace until `done` says yes to what it is.
    pub async fn until_live(&self, kind: &str, name: &str, what: &str, mut done: impl FnMut(&Value) -> bool) -> Value {
        let mut seen = Value::Null;
        let outcome = watch_until(&self.objects(kind), name, PATIENCE, |found| {
            seen = found.map(|object| json!(object)).unwrap_or_default();
            found.is_some() && done(&seen)
        })
        .await;
        if outcome.is_err() {
            self.fail(&format!("{kind}/{name}: {what}; it is {seen:#}")).await;
        }
        seen
    }

    /// Watches until there is no such object.
    pub async fn until_gone(&self, kind: &str, name: &str) {
        if watch_until(&self.objects(kind), name, PATIENCE, |found| found.is_none()).await.is_err() {
            self.fail(&format!("{kind}/{name} is gone")).await;
        }
    }

    /// Looks until `look` has found something.
    pub async fn eventually<T>(&self, what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
        match eventually(PATIENCE, look).await {
            Some(found) => found,
            None => self.fail(what).await,
        }
    }

    pub fn objects(&self, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(kind))
    }

    /// Objects of a kind that lives in no namespace.
    pub fn cluster_objects(&self, kind: &str) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &resource(kind))
    }

    /// Makes Pods of the workload `app` behave otherwise from now on, those that there are; there is one at least.
    pub async fn change_behaviour(&self, app: &str, behaviour: &str) {
        let pods = self.objects("Pod");
        let of_app = ListParams::default().labels(&format!("app={app}"));
        let list = self
            .eventually("there is a Pod", async || {
                let list = pods.list(&of_app).await.expect("Pods can be listed");
                (!list.items.is_empty()).then_some(list)
            })
            .await;
        for pod in list {
            let change = json!({ "metadata": { "annotations": { BEHAVIOUR: behaviour } } });
            pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(change))
                .await
                .expect("a Pod is changed");
        }
    }

    /// From now on admission refuses the ConfigMap `name` with `message`.
    pub async fn refuse(&self, name: &str, message: &str) {
        match &self.cluster {
            Cluster::Sandbox(sandbox) => {
                let writes = Match::writes().on("configmaps").in_namespace(&self.namespace).named(name);
                let webhook = "policy.example.com".to_owned();
                sandbox.faults().always(writes, Effect::Deny { webhook, message: message.to_owned(), code: 403 });
            }
            Cluster::Real(_) => self.refuse_by_policy(name, message).await,
        }
    }

    /// A policy of the API server's own; it takes effect some time after it was made.
    async fn refuse_by_policy(&self, name: &str, message: &str) {
        let policy = format!("{}-{name}", self.namespace);
        let namespace = json!({ "matchLabels": { "kubernetes.io/metadata.name": self.namespace } });
        let rule = json!({
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"],
        });
        let objects = [
            json!({
                "kind": "ValidatingAdmissionPolicy",
                "spec": {
                    "matchConstraints": { "namespaceSelector": namespace, "resourceRules": [rule] },
                    "validations": [{ "expression": format!("object.metadata.name != '{name}'"), "message": message }],
                },
            }),
            json!({
                "kind": "ValidatingAdmissionPolicyBinding",
                "spec": { "policyName": policy, "validationActions": ["Deny"] },
            }),
        ];
        for mut object in objects {
            object["apiVersion"] = "admissionregistration.k8s.io/v1".into();
            object["metadata"] = json!({ "name": policy });
            let kind = object["kind"].as_str().unwrap_or_default();
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind));
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            api.patch(&policy, &PatchParams::apply(MANAGER), &Patch::Apply(&object)).await.expect("a policy is made");
        }
        let probe = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
        let params = PatchParams::apply(MANAGER).dry_run();
        self.eventually("the policy refuses", async || {
            self.objects("ConfigMap").patch(name, &params, &Patch::Apply(&probe)).await.err().map(drop)
        })
        .await;
    }

    /// What the daemon asked of the API server so far, as `<verb> <path>`, oldest first.
    pub async fn requests_of_the_daemon(&self) -> Vec<String> {
        match &self.cluster {
            Cluster::Sandbox(sandbox) => {
                // Without a field manager the first word of the user agent counts.
                let daemon = ["afresh", "afresh-config", APPLY_MANAGER, STATUS_MANAGER];
                let by_daemon = sandbox.requests().find(|entry| daemon.contains(&entry.manager.as_str()));
                let path = |e: &sandbox::Entry| format!("/{}/{}/{}", e.namespace, e.resource, e.name);
                by_daemon.iter().map(|entry| format!("{} {}", entry.verb.as_str(), path(entry))).collect()
            }
            Cluster::Real(plane) => {
                let entries = plane.audit().expect("the audit log can be read");
                let uri = |entry: &Value| entry["requestURI"].as_str().unwrap_or_default().to_owned();
                let by_daemon = entries.iter().filter(|entry| {
                    let agent = entry["userAgent"].as_str().unwrap_or_default();
                    agent.starts_with("afresh") && uri(entry).contains(&self.namespace)
                });
                by_daemon.map(|e| format!("{} {}", e["verb"].as_str().unwrap_or_default(), uri(e))).collect()
            }
        }
    }

    /// The Events about a Kustomization: reason and message, oldest first.
    pub async fn events(&self, name: &str) -> Vec<(String, String)> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let list = events.list(&ListParams::default()).await.expect("events can be listed");
        let mut about: Vec<_> =
            list.items.into_iter().filter(|e| e.involved_object.name.as_deref() == Some(name)).collect();
        about.sort_by_key(|event| event.metadata.creation_timestamp.clone().map(|time| time.0));
        about.into_iter().map(|e| (e.reason.unwrap_or_default(), e.message.unwrap_or_default())).collect()
    }

    fn keep_credentials_of(&self, kubeconfig: &Path) {
        let text = std::fs::read_to_string(kubeconfig).unwrap_or_default();
        for (key, value) in text.lines().filter_map(|line| line.trim().trim_start_matches("- ").split_once(": ")) {
            if matches!(key, "token" | "client-key-data" | "password") {
                self.canaries.keep(&format!("`{key}` of the kubeconfig"), value.trim_matches(['"', '\'']));
            }
        }
    }

    /// What every scenario ends with: the daemon told nobody what is secret, wherever it says something.
    pub async fn assert_nothing_is_told(&self) {
        for (kind, objects) in [
            ("Kustomization", self.told_of::<Kustomization>().await),
            ("GitRepository", self.told_of::<GitRepository>().await),
            ("Receiver", self.told_of::<Receiver>().await),
            ("Alert", self.told_of::<Alert>().await),
            ("Provider", self.told_of::<Provider>().await),
        ] {
            objects.iter().for_each(|text| self.canaries.look(&format!("a {kind}"), text));
        }
        for kind in ["Event", "ConfigMap", "Secret", "Deployment", "Job", "Lease"] {
            for object in self.objects(kind).list(&ListParams::default()).await.into_iter().flatten() {
                let mut text = json!(object);
                if kind != "Event" {
                    text = annotations(&text);
                }
                self.canaries.look(&format!("{kind} `{}`", object.name_any()), &text.to_string());
            }
        }
        if let Some(daemon) = &self.daemon {
            for path in ["/metrics", "/healthz", "/readyz", "/runbook"] {
                let answer = daemon.ask(path).await.map(|(_, text)| text);
                self.canaries.look(path, &answer.unwrap_or_default());
            }
        }
        self.look_at_commands().await;
        let told = self.canaries.told();
        assert!(told.is_empty(), "what is secret was told:\n{}", told.join("\n"));
    }

    /// What `afresh diff`, `afresh get` and `afresh render` print of an application, whether they come to an end or say why not.
    async fn look_at_commands(&self) {
        let list = self.kustomizations().list(&ListParams::default()).await.map(|list| list.items);
        let Some(app) = list.unwrap_or_default().into_iter().next() else { return };
        let mut commands = Vec::new();
        let kubeconfig = self.kubeconfig.display().to_string();
        let looked = format!("ks/{}", app.name_any());
        let diff = ["diff", &looked, "-n", &self.namespace, "--kubeconfig", &kubeconfig, "--allow-local-sources"];
        commands.push(diff.map(str::to_owned).to_vec());
        for of in [&[][..], &["rollouts", "-o", "json"]] {
            let get = [&["get", "-n", &self.namespace, "--kubeconfig", &kubeconfig], of].concat();
            commands.push(get.into_iter().map(str::to_owned).collect());
        }
        let (copy, file) = (self.dir.path().join("looked-at"), self.dir.path().join("looked-at.yaml"));
        if checkout(self.repository.path(), &copy).is_some() {
            let kind = json!({ "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization" });
            let metadata = json!({ "name": app.name_any(), "namespace": self.namespace });
            let object = json!({ "apiVersion": kind["apiVersion"], "kind": kind["kind"], "metadata": metadata, "spec": app.spec });
            std::fs::write(&file, object.to_string()).expect("a file");
            let (copy, file) = (copy.display().to_string(), file.display().to_string());
            let render = ["render", &copy, "--root", &copy, "--kustomization", &file];
            commands.push(render.map(str::to_owned).to_vec());
        }
        let said = commands.into_iter().map(async |arguments| {
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_afresh"));
            command.args(&arguments).env_clear().env("HOME", self.folder()).env("TMPDIR", self.folder());
            command.stdin(std::process::Stdio::null()).kill_on_drop(true);
            let output = tokio::time::timeout(COMMAND_MAX, command.output()).await;
            if let Ok(output) = output {
                let output = output.expect("afresh runs");
                let place = format!("`afresh {}`", arguments[0]);
                self.canaries.look(&place, &String::from_utf8_lossy(&output.stdout));
                self.canaries.look(&place, &String::from_utf8_lossy(&output.stderr));
            }
        });
        futures::future::join_all(said).await;
    }

    /// Status and annotations of the objects of a kind.
    async fn told_of<K>(&self) -> Vec<String>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        let objects: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        // scenarios may end with an API server that is away
        let list = objects.list(&ListParams::default()).await.into_iter().flatten();
        list.map(|object| json!(object)).map(|text| format!("{}{}", annotations(&text), text["status"])).collect()
    }

    /// Ends the test with everything that explains it.
    async fn fail(&self, what: &str) -> ! {
        let all = self.kustomizations().list(&ListParams::default()).await;
        let states: Vec<_> = all.map(|list| list.items).unwrap_or_default();
        let states: Vec<_> = states.iter().map(|one| format!("{}: {:#}", one.name_any(), json!(one.status))).collect();
        let sources = self.sources().list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let sources: Vec<_> =
            sources.iter().map(|one| format!("{}: {:#}", one.name_any(), json!(one.status))).collect();
        panic!("not within {PATIENCE:?}: {what}\n{}\n{}", sources.join("\n"), states.join("\n"));
    }
}

/// A command that looks at a cluster which is away is not waited for.
const COMMAND_MAX: Duration = Duration::from_secs(20);
/// What is rendered at the end of a scenario: the trees of hostile ones are those of others.
const FILES_MAX: usize = 300;
const FILE_BYTES_MAX: usize = 256 * 1024;

/// Writes the plain files at the tip of `main` below a folder; `None` if there are none, or too many.
fn checkout(repository: &Path, folder: &Path) -> Option<()> {
    let repository = git2::Repository::open(repository).ok()?;
    let tree = repository.find_reference("refs/heads/main").ok()?.peel_to_tree().ok()?;
    let (mut files, mut too_much) = (Vec::new(), false);
    let _ = tree.walk(git2::TreeWalkMode::PreOrder, |above, entry| {
        if entry.filemode() == 0o100_644 {
            files.push((format!("{above}{}", entry.name().unwrap_or_default()), entry.id()));
        }
        too_much = files.len() > FILES_MAX || above.len() > 1_000;
        if too_much { git2::TreeWalkResult::Abort } else { git2::TreeWalkResult::Ok }
    });
    for (path, id) in &files {
        let blob = repository.find_blob(*id).ok().filter(|blob| blob.size() <= FILE_BYTES_MAX)?;
        let inside = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let file = folder.join(path);
        if too_much || !inside || std::fs::create_dir_all(file.parent()?).is_err() {
            return None;
        }
        std::fs::write(file, blob.content()).ok()?;
    }
    (!files.is_empty()).then_some(())
}

/// An object's annotations, but for the one in which kubectl keeps the object.
fn annotations(object: &Value) -> Value {
    let mut annotations = object["metadata"]["annotations"].clone();
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    annotations
}

/// Names and addresses stand beside secrets.
fn is_secret(key: &str) -> bool {
    !matches!(key, "username" | "known_hosts" | "identity.pub" | "ca.crt" | "tls.crt" | "channel")
}

/// The log of the daemon explains most failures; whatever it told of secrets is one.
impl Drop for Env {
    fn drop(&mut self) {
        // ends the daemons of this process first: they may say something in the end
        let told = self.canaries.told();
        if !std::thread::panicking() {
            assert!(told.is_empty(), "what is secret was told:\n{}", told.join("\n"));
        }
        if std::thread::panicking()
            && let Some(daemon) = &self.daemon
        {
            eprintln!("--- the daemon's log in {}\n{}", self.namespace, daemon.log_tail());
        }
    }
}

pub fn is_ready_at(found: &Kustomization, revision: &str) -> bool {
    let Some(status) = &found.status else { return false };
    status.last_applied_revision.as_deref() == Some(revision)
        && status.observed_generation == found.metadata.generation
        && truth(found) == Some(Truth::True)
}

pub fn truth(found: &Kustomization) -> Option<Truth> {
    Some(found.status.as_ref()?.conditions.get(READY)?.status)
}

pub fn message(found: &Kustomization) -> String {
    let ready = found.status.as_ref().and_then(|status| status.conditions.get(READY));
    ready.map(|ready| ready.message.clone()).unwrap_or_default()
}

/// How the API server addresses a kind that scenarios use.
fn resource(kind: &str) -> ApiResource {
    let (group, version) = match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ControllerRevision" => ("apps", "v1"),
        "Job" | "CronJob" => ("batch", "v1"),
        "Ingress" => ("networking.k8s.io", "v1"),
        "Lease" => ("coordination.k8s.io", "v1"),
        "Role" | "RoleBinding" | "ClusterRole" => ("rbac.authorization.k8s.io", "v1"),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1"),
        _ => ("", "v1"),
    };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// A new token each time.
fn requested() -> Value {
    static TOKEN: AtomicU32 = AtomicU32::new(0);
    let token = format!("request-{}", TOKEN.fetch_add(1, Ordering::Relaxed));
    json!({ "metadata": { "annotations": { REQUESTED_AT: token } } })
}

pub async fn connect(kubeconfig: &Path) -> Client {
    // The first test to come installs the provider; whether it was us doesn't matter.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let read = kube::config::Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(read, &Default::default()).await.expect("a configuration");
    Client::try_from(config).expect("a client")
}

/// A name of at most 63 letters that tells which scenario it is of.
fn namespace_for(scenario: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let name: String = scenario.replace('_', "-").chars().take(50).collect();
    format!("t{}-{}", NUMBER.fetch_add(1, Ordering::Relaxed), name.trim_matches('-'))
}
