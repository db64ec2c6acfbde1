//! A real Kubernetes control plane for what only a real API server can show: etcd, kube-apiserver and
//! kube-controller-manager from the folder `KUBEBUILDER_ASSETS` (`tests/tools/build` prints one).
//!
//! ```text
//!  test ── https, 127.0.0.1, admin token ──▶ kube-apiserver ── unix socket ──▶ etcd (no fsync)
//!                                                  ▲
//!                                                  └── kube-controller-manager
//! ```
//! There is neither a scheduler nor a kubelet: a Pod stays Pending until a test writes its status. The controllers
//! that would take Pods and Nodes away because no kubelet reports are off.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;
use tokio::sync::{Mutex, OnceCell};

const SERVERS: [&str; 3] = ["etcd", "kube-apiserver", "kube-controller-manager"];

/// Both servers need a few seconds on an idle machine; two cores that compile at the same time stretch that.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The free port is found before the server binds it, so somebody else may take it in between.
const ATTEMPTS: usize = 3;

/// Group `system:masters`, as the first token of `--token-auth-file`.
const ADMIN_TOKEN: &str = "admin-of-a-throw-away-cluster";
const CONTROLLERS_TOKEN: &str = "controllers-of-a-throw-away-cluster";

/// Three processes and their folder. The fields are never changed after the start, but for a server that is started
/// again.
pub struct ControlPlane {
    url: String,
    ca_pem: String,
    dir: PathBuf,
    kubeconfig: PathBuf,
    port: u16,
    servers: Mutex<Servers>,
}

impl ControlPlane {
    /// Whether `KUBEBUILDER_ASSETS` names a folder that holds all three servers.
    pub fn available() -> bool {
        assets().is_ok()
    }

    /// Returns once `/readyz` is ok, the namespace `default` has its service account and its CA bundle: from then on
    /// every controller that a test relies on runs. A few seconds, about half a gigabyte of memory.
    pub async fn start() -> anyhow::Result<ControlPlane> {
        let assets = assets()?;
        // The first test to come installs the provider; whether it was us doesn't matter.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut attempt = 1;
        loop {
            match Self::start_once(&assets).await {
                Err(error) if attempt < ATTEMPTS && format!("{error:#}").contains("address already in use") => {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// The control plane that all tests of this process share, started by the first of them. The tests keep apart by
    /// namespaces of their own.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn shared() -> &'static ControlPlane {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async { Self::start().await.unwrap_or_else(|error| panic!("no control plane: {error:#}")) })
            .await
    }

    /// One that no other test uses; as the shared one it ends with the process. `None` where there are no servers to start:
    /// whoever reads the output is told.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn of_its_own() -> Option<&'static ControlPlane> {
        if !Self::available() {
            println!("skipped: KUBEBUILDER_ASSETS is not set");
            return None;
        }
        let plane = Self::start().await.unwrap_or_else(|error| panic!("no control plane: {error:#}"));
        Some(Box::leak(Box::new(plane)))
    }

    /// Ends the API server as SIGKILL does, lets `meanwhile` happen, and starts it again; returns once it is ready.
    pub async fn restart_api_server(&self, meanwhile: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut servers = self.servers.lock().await;
        servers.end("kube-apiserver")?;
        meanwhile.await;
        let flags = apiserver_flags(&self.dir, &self.dir.join("etcd.sock"), self.port);
        servers.spawn(&assets()?.join("kube-apiserver"), &flags)?;
        let api = Api::new(&self.ca_pem, &self.url)?;
        let deadline = Instant::now() + READY_WITHIN;
        servers.until(deadline, "the API server is ready again", async || api.answers("/readyz").await).await
    }

    /// A kubeconfig file with a token of group `system:masters`.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `https://127.0.0.1:<port>`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A kubeconfig file with another token.
    pub fn kubeconfig_with(&self, name: &str, token: &str) -> anyhow::Result<PathBuf> {
        write_kubeconfig(&self.dir, name, token, &self.url, &self.ca_pem)
    }

    /// `kubectl` as the cluster's administrator.
    pub fn kubectl(&self) -> anyhow::Result<tokio::process::Command> {
        let mut command = tokio::process::Command::new(assets()?.join("kubectl"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// The bearer token of the kubeconfig.
    pub fn token(&self) -> &str {
        ADMIN_TOKEN
    }

    /// The certificate authority of the serving certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The requests that were answered so far, oldest first, without the servers' own: one `audit.k8s.io/v1` Event
    /// each, with `verb`, `requestURI`, `userAgent`, `user`, `responseStatus`, without bodies. A watch shows up with
    /// stage `ResponseStarted` when it begins. This is how a test shows that somebody was quiet.
    pub fn audit(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let text = fs::read_to_string(self.dir.join("audit.log"))?;
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    async fn start_once(assets: &Path) -> anyhow::Result<ControlPlane> {
        // Removed by the watchdog: a TempDir in a static is never dropped.
        let dir = tempfile::Builder::new().prefix("afresh-control-plane-").tempdir()?.keep();
        let mut servers = Servers::watched(&dir)?;
        let port = free_port()?;
        let url = format!("https://127.0.0.1:{port}");
        let ca_pem = write_credentials(&dir)?;
        let kubeconfig = write_kubeconfig(&dir, "admin", ADMIN_TOKEN, &url, &ca_pem)?;
        let controllers = write_kubeconfig(&dir, "controllers", CONTROLLERS_TOKEN, &url, &ca_pem)?;
        let deadline = Instant::now() + READY_WITHIN;
        let api = Api::new(&ca_pem, &url)?;

        let socket = dir.join("etcd.sock");
        servers.spawn(&assets.join("etcd"), &etcd_flags(&dir, &socket))?;
        servers
            .until(deadline, "etcd listens", async || std::os::unix::net::UnixStream::connect(&socket).is_ok())
            .await?;
        servers.spawn(&assets.join("kube-apiserver"), &apiserver_flags(&dir, &socket, port))?;
        servers.until(deadline, "the API server is ready", async || api.answers("/readyz").await).await?;
        servers.spawn(&assets.join("kube-controller-manager"), &controller_manager_flags(&dir, &controllers))?;
        for object in ["serviceaccounts/default", "configmaps/kube-root-ca.crt"] {
            let path = format!("/api/v1/namespaces/default/{object}");
            let what = format!("the controllers have made {object}");
            servers.until(deadline, &what, async || api.answers(&path).await).await?;
        }
        Ok(ControlPlane { url, ca_pem, dir, kubeconfig, port, servers: Mutex::new(servers) })
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.servers.get_mut().stop();
    }
}

/// Asks with the controllers' token, so that the audit log begins with the test's own requests.
struct Api {
    client: reqwest::Client,
    url: String,
}

impl Api {
    fn new(ca_pem: &str, url: &str) -> anyhow::Result<Api> {
        let client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(ca_pem.as_bytes())?])
            // A proxy from the environment cannot reach our loopback address.
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()?;
        Ok(Api { client, url: url.to_owned() })
    }

    async fn answers(&self, path: &str) -> bool {
        let request = self.client.get(format!("{}{path}", self.url)).bearer_auth(CONTROLLERS_TOKEN);
        request.send().await.is_ok_and(|response| response.status().is_success())
    }
}

/// The children, and the process that ends them when we can't. A test process ends without dropping its statics, by a
/// panic or by a signal; what always happens then is that its end of a pipe closes. The watchdog is a shell that
/// collects process ids from that pipe and kills them at its end.
struct Servers {
    dir: PathBuf,
    children: Vec<(String, Child)>,
    watchdog: Child,
    pipe: Option<ChildStdin>,
}

/// At the end of the pipe the servers die at once: nothing of theirs is worth an orderly shutdown. The second `rm` is
/// for a file that a dying etcd created during the first.
const WATCHDOG: &str = r#"
    pids=
    while read -r pid; do pids="$pids $pid"; done
    [ -z "$pids" ] || kill -9 $pids
    rm -rf -- "$1" || { sleep 0.3; rm -rf -- "$1"; }
"#;

impl Servers {
    fn watched(dir: &Path) -> anyhow::Result<Servers> {
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own, so that Ctrl-C or a kill of the test's group leaves it to do its work.
            .process_group(0)
            .spawn()
            .context("start the watchdog `sh`")?;
        let pipe = watchdog.stdin.take();
        Ok(Servers { dir: dir.to_owned(), children: Vec::new(), watchdog, pipe })
    }

    fn spawn(&mut self, program: &Path, flags: &[String]) -> anyhow::Result<()> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = File::create(self.log(&name))?;
        let child = Command::new(program)
            .args(flags)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let id = child.id();
        self.children.push((name, child));
        let pipe = self.pipe.as_mut().context("the watchdog is gone")?;
        writeln!(pipe, "{id}").context("tell the watchdog")
    }

    /// Ends one of them at once.
    fn end(&mut self, name: &str) -> anyhow::Result<()> {
        let at = self.children.iter().position(|(child, _)| child == name).context("there is no such server")?;
        let (_, mut child) = self.children.remove(at);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Polls `done`; a server that ends in the meantime is the error, with the end of its log.
    async fn until(&mut self, deadline: Instant, what: &str, done: impl AsyncFn() -> bool) -> anyhow::Result<()> {
        while !done().await {
            for (name, child) in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    let log = tail(&self.dir.join(format!("{name}.log")));
                    bail!("{name} ended with {status} before {what}:\n{log}");
                }
            }
            if Instant::now() > deadline {
                let logs: Vec<String> =
                    self.children.iter().map(|(name, _)| format!("--- {name}\n{}", tail(&self.log(name)))).collect();
                bail!("not in time: {what}\n{}", logs.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// The watchdog kills before we reap, so no process id can have been given to somebody else by then.
    fn stop(&mut self) {
        if self.pipe.take().is_none() {
            return;
        }
        let _ = self.watchdog.wait();
        for (_, child) in &mut self.children {
            let _ = child.wait();
        }
        // The watchdog's own attempt met processes that were still dying.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop();
    }
}

fn assets() -> anyhow::Result<PathBuf> {
    let dir = std::env::var_os("KUBEBUILDER_ASSETS")
        .context("KUBEBUILDER_ASSETS is not set; `tests/tools/build` prints a folder for it")?;
    // The servers start in a folder of their own.
    let dir = std::path::absolute(dir)?;
    for name in SERVERS {
        ensure!(dir.join(name).is_file(), "KUBEBUILDER_ASSETS={} has no {name}", dir.display());
    }
    Ok(dir)
}

fn etcd_flags(dir: &Path, socket: &Path) -> Vec<String> {
    // Nobody joins this cluster, so what it advertises is only there because etcd insists on host and port.
    let nobody = "http://127.0.0.1:0";
    vec![
        format!("--data-dir={}", dir.join("etcd").display()),
        format!("--listen-client-urls=unix://{}", socket.display()),
        format!("--advertise-client-urls={nobody}"),
        format!("--listen-peer-urls={nobody}"),
        format!("--initial-advertise-peer-urls={nobody}"),
        format!("--initial-cluster=default={nobody}"),
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn apiserver_flags(dir: &Path, socket: &Path, port: u16) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    vec![
        format!("--etcd-servers=unix://{}", socket.display()),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        // Endpoints may not hold a loopback address, so the service `kubernetes` goes without.
        "--advertise-address=127.0.0.1".into(),
        "--endpoint-reconciler-type=none".into(),
        format!("--cert-dir={}", file("certs")),
        format!("--tls-cert-file={}", file("serving.crt")),
        format!("--tls-private-key-file={}", file("serving.key")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", file("accounts.pub")),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        "--service-cluster-ip-range=10.0.0.0/24".into(),
        "--allow-privileged=true".into(),
        format!("--audit-policy-file={}", file("audit.json")),
        format!("--audit-log-path={}", file("audit.log")),
    ]
}

fn controller_manager_flags(dir: &Path, kubeconfig: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        // Serves nothing: no second port to find.
        "--secure-port=0".into(),
        "--leader-elect=false".into(),
        format!("--service-account-private-key-file={}", file("accounts.key")),
        format!("--root-ca-file={}", file("ca.crt")),
        // Those who act on the silence of kubelets would delete what tests put in place of real Nodes and Pods.
        "--controllers=*,-node-lifecycle-controller,-taint-eviction-controller,-node-ipam-controller,\
         -node-route-controller,-pod-garbage-collector-controller,-cloud-node-lifecycle-controller"
            .into(),
        // A test must not wait for the controllers' own throttle.
        "--kube-api-qps=2000".into(),
        "--kube-api-burst=2000".into(),
    ]
}

/// Keys, certificates, tokens and the audit policy. Returns the certificate authority.
fn write_credentials(dir: &Path) -> anyhow::Result<String> {
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).with_context(|| format!("write {name}"));

    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "afresh-tests-ca");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);
    write("ca.crt", &ca_pem)?;

    let names = ["127.0.0.1", "localhost", "kubernetes.default.svc", "10.0.0.1"];
    let mut serving = CertificateParams::new(names.map(String::from))?;
    serving.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let serving_key = KeyPair::generate()?;
    write("serving.crt", &serving.signed_by(&serving_key, &issuer)?.pem())?;
    write("serving.key", &serving_key.serialize_pem())?;

    let accounts = KeyPair::generate()?;
    write("accounts.key", &accounts.serialize_pem())?;
    write("accounts.pub", &accounts.public_key_pem())?;

    // The controllers get a name of their own, so that the audit log can leave them out.
    write(
        "tokens.csv",
        &format!(
            "{ADMIN_TOKEN},admin,admin,system:masters\n\
             {CONTROLLERS_TOKEN},controllers,controllers,system:masters\n"
        ),
    )?;
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "users": ["controllers", "system:apiserver", "system:anonymous"]},
            {"level": "Metadata"},
        ],
    });
    write("audit.json", &policy.to_string())?;
    Ok(ca_pem)
}

fn write_kubeconfig(dir: &Path, user: &str, token: &str, url: &str, ca_pem: &str) -> anyhow::Result<PathBuf> {
    let ca = base64::engine::general_purpose::STANDARD.encode(ca_pem);
    // JSON is YAML.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": "default"}}],
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority-data": ca}}],
        "users": [{"name": user, "user": {"token": token}}],
    });
    let path = dir.join(format!("{user}.kubeconfig"));
    fs::write(&path, config.to_string())?;
    Ok(path)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The last lines of a log, for an error message.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut last = VecDeque::with_capacity(21);
    for line in text.lines() {
        if last.len() == 20 {
            last.pop_front();
        }
        last.push_back(line);
    }
    last.make_contiguous().join("\n")
}
