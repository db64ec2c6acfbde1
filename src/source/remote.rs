//! The asynchronous face of sources: which commit is there now, and a snapshot of it.
//!
//! One [`Remote`] per URL and access is shared by all who ask for it. Its probes share requests, whatever the ref; its
//! fetches follow each other, and every wait has a deadline. Work on the object store runs on threads that may block.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::{Certificate, Client, Identity, Url, redirect};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use super::attempt::Attempt;
use super::cache::{Generation, Generations, PACKS_MAX, StoreError};
use super::credentials::{Access, Credentials};
use super::data_dir::DataDir;
use super::error::SourceError;
use super::follower::{Follower, Sight};
use super::git;
use super::git::client::{self, Client as GitClient};
use super::git::fetch::FetchLimits;
use super::git::http::HttpTransport;
use super::git::local::LocalRepository;
use super::git::ssh::SshTransport;
use super::github_app::GitHubApp;
use super::pacing::Failure;
use super::probes::{Probes, Question, Shown};
use super::reference::{Lookup, Reference, Revision};
use super::snapshot::{OpenError, Snapshot};
use super::spacing::{HostPace, ProbeKind, RemotePace};
use super::url::{Location, SourceUrl};

/// A connection that takes longer is not going to be made.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Between two probes in attention the connection is kept; longer silence closes it.
const POOL_IDLE_MAX: Duration = Duration::from_secs(90);

/// How long a remote that nobody holds is kept, with its cache.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);

#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// Repositories on this machine may be named: by `file://` and by absolute paths.
    pub allow_local_sources: bool,
    /// Kustomizations may name directories of other repositories.
    pub allow_remote_bases: bool,
    pub limits: FetchLimits,
    /// The program for `ssh://` URLs.
    pub ssh: PathBuf,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        RemoteOptions {
            allow_local_sources: false,
            allow_remote_bases: false,
            limits: FetchLimits::default(),
            ssh: PathBuf::from("ssh"),
        }
    }
}

/// All remotes of the process. Owns the data folder, the HTTP clients, and what hosts have to bear.
pub struct Remotes {
    data: DataDir,
    options: RemoteOptions,
    /// By the folder of its cache, which tells URL and access apart. Held strongly, so that a source whose worker starts
    /// anew finds its remote as it was; let go some time after the last handle.
    remotes: Mutex<HashMap<PathBuf, Arc<Remote>>>,
    clients: Mutex<HashMap<ClientKind, Client>>,
    hosts: Mutex<HashMap<String, Arc<Mutex<HostPace>>>>,
}

/// Clients without TLS material of their own are shared, and with them connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ClientKind {
    /// No proxy is asked for the machine itself.
    Loopback,
    /// Certificates are needed only if the server redirects to `https`; a minimal container may have none.
    Plain,
    Secure,
}

impl Remotes {
    pub fn new(data: DataDir, options: RemoteOptions) -> Remotes {
        git::isolate();
        Remotes { data, options, remotes: Mutex::default(), clients: Mutex::default(), hosts: Mutex::default() }
    }

    /// Whether what kustomizations name in other repositories is fetched.
    pub fn allows_bases(&self) -> bool {
        self.options.allow_remote_bases
    }

    /// The remote at this URL with this access; the same one for all who ask while it is in use.
    pub fn get(&self, url: &SourceUrl, access: &Access) -> Result<Arc<Remote>, SourceError> {
        let access = access.or_userinfo(url);
        let folder = self.data.remote_folder(url, &access);
        let mut remotes = lock(&self.remotes);
        remotes.retain(|_, remote| !remote.is_forgotten());
        if let Some(remote) = remotes.get(&folder) {
            remote.touch();
            return Ok(Arc::clone(remote));
        }
        let transport = match url.location() {
            Location::Http(base) => {
                let client = self.client(url, base, &access)?;
                let transport = match &access.credentials {
                    Credentials::GitHubApp(key) => {
                        let app = GitHubApp::new(self.client(url, &key.base, &access)?, key.clone());
                        HttpTransport::with_app(client, base.clone(), app)
                    }
                    credentials => HttpTransport::new(client, base.clone(), credentials),
                };
                Transport::remote(client::Transport::Http(transport), access, folder.clone())
            }
            Location::Ssh(address) => {
                let unsupported =
                    |reason: &str| SourceError::Unsupported { url: url.clone(), reason: reason.to_owned() };
                if access.proxy.is_some() {
                    return Err(unsupported("`spec.proxySecretRef` is served for `http` and `https`, not for `ssh`"));
                }
                let Credentials::Ssh(key) = &access.credentials else {
                    return Err(unsupported(
                        "ssh needs a Secret in `spec.secretRef` with `identity` and `known_hosts`",
                    ));
                };
                let (program, private) = (self.options.ssh.clone(), self.data.ssh_folder());
                let transport = SshTransport::new(program, private, address.clone(), key.clone());
                Transport::remote(client::Transport::Ssh(transport), access, folder.clone())
            }
            Location::Local(_) if !self.options.allow_local_sources => {
                let reason = "repositories on this machine need `--allow-local-sources`".to_owned();
                return Err(SourceError::Unsupported { url: url.clone(), reason });
            }
            Location::Local(path) => Transport::Local(Arc::new(LocalRepository::new(url.clone(), path.clone()))),
        };
        let remote = Arc::new(Remote {
            url: url.clone(),
            transport,
            limits: self.options.limits,
            probes: Arc::default(),
            fetching: Arc::default(),
            pace: Mutex::new(RemotePace::new(now())),
            used: Mutex::new(now()),
            received: Arc::default(),
            host: url.host().map(|host| Arc::clone(lock(&self.hosts).entry(host).or_default())),
        });
        remotes.insert(folder, Arc::clone(&remote));
        Ok(remote)
    }

    /// An HTTP client for requests to `base`, on behalf of the source at `url`.
    fn client(&self, url: &SourceUrl, base: &Url, access: &Access) -> Result<Client, SourceError> {
        let tls = &access.tls;
        let kind = match base.host_str() {
            Some("127.0.0.1" | "localhost" | "[::1]") if base.scheme() == "http" => ClientKind::Loopback,
            _ if base.scheme() == "http" => ClientKind::Plain,
            _ => ClientKind::Secure,
        };
        if tls.ca_pem.is_some() || tls.client_cert_pem.is_some() || access.proxy.is_some() {
            return build_client(kind, access, url);
        }
        let mut clients = lock(&self.clients);
        if let Some(client) = clients.get(&kind) {
            return Ok(client.clone());
        }
        let client = build_client(kind, access, url)?;
        clients.insert(kind, client.clone());
        Ok(client)
    }
}

fn has_system_certificates() -> bool {
    Client::builder().no_proxy().build().is_ok()
}

fn build_client(kind: ClientKind, access: &Access, url: &SourceUrl) -> Result<Client, SourceError> {
    let unsupported = |reason: &str| SourceError::Unsupported { url: url.clone(), reason: reason.to_owned() };
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_MAX)
        .pool_idle_timeout(POOL_IDLE_MAX);
    let tls = &access.tls;
    builder = match kind {
        ClientKind::Loopback if access.proxy.is_some() && has_system_certificates() => builder,
        ClientKind::Loopback => builder.no_proxy().tls_certs_only([]),
        ClientKind::Plain if !has_system_certificates() => builder.tls_certs_only([]),
        ClientKind::Plain | ClientKind::Secure => builder,
    };
    if let Some(pem) = &tls.ca_pem {
        let certificates = Certificate::from_pem_bundle(pem.expose_secret())
            .map_err(|_| unsupported("the CA certificate of its Secret is not usable"))?;
        builder = builder.tls_certs_only(certificates);
    }
    if let (Some(certificate), Some(key)) = (&tls.client_cert_pem, &tls.client_key_pem) {
        let identity = Identity::from_pem(&[certificate.expose_secret(), b"\n", key.expose_secret()].concat())
            .map_err(|_| unsupported("the client certificate of its Secret is not usable"))?;
        builder = builder.identity(identity);
    }
    if let Some(proxy) = &access.proxy {
        // Instead of the system's.
        builder = builder.proxy(proxy.build().map_err(|_| unsupported("the proxy of its Secret is not usable"))?);
    }
    builder.build().map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        unsupported(&format!("no HTTP client can be made for it{cause}"))
    })
}

/// One remote, shared by all sources with its URL and access.
pub struct Remote {
    url: SourceUrl,
    transport: Transport,
    limits: FetchLimits,
    probes: Arc<Probes>,
    /// Held while something is fetched.
    fetching: Arc<tokio::sync::Mutex<()>>,
    pace: Mutex<RemotePace>,
    host: Option<Arc<Mutex<HostPace>>>,
    /// The last time that anything was asked of it.
    used: Mutex<Instant>,
    received: Arc<AtomicU64>,
}

enum Transport {
    Remote { client: Box<GitClient>, generations: Arc<Generations> },
    Local(Arc<LocalRepository>),
}

impl Transport {
    fn remote(transport: client::Transport, access: Access, folder: PathBuf) -> Transport {
        let client = Box::new(GitClient::new(transport, access));
        Transport::Remote { client, generations: Arc::new(Generations::new(folder)) }
    }
}

impl Remote {
    pub fn url(&self) -> &SourceUrl {
        &self.url
    }

    /// Bytes received since this was asked last, by whichever source.
    pub fn take_received(&self) -> u64 {
        self.received.swap(0, Ordering::Relaxed)
    }

    fn touch(&self) {
        *lock(&self.used) = now();
    }

    /// Nobody has held it for a while. Then its cache goes, too: with the next credentials there will be another one.
    fn is_forgotten(self: &Arc<Self>) -> bool {
        let forgotten =
            Arc::strong_count(self) == 1 && now().saturating_duration_since(*lock(&self.used)) > FORGOTTEN_AFTER;
        if let (true, Transport::Remote { generations, .. }) = (forgotten, &self.transport) {
            generations.abandon();
        }
        forgotten
    }

    /// Takes the leave for one probe now, or says when to ask again.
    pub fn permit(&self, kind: ProbeKind, now: Instant) -> Result<(), Instant> {
        let mut host = self.host.as_ref().map(|host| lock(host));
        lock(&self.pace).take(kind, host.as_deref_mut(), now)
    }

    /// Follows what a reference names.
    pub fn follow(self: &Arc<Self>, reference: &Reference) -> Follower {
        Follower::new(Arc::clone(self), reference.clone(), &self.probes)
    }

    /// Asks which revision the reference names now, whatever the pace: one small request, none for a pinned commit.
    ///
    /// The answer is never older than the call: a caller joins a request only before it is sent. The work of a joined
    /// request goes on if some of its callers leave; the longest `timeout` of those who joined counts.
    pub async fn probe(self: &Arc<Self>, reference: &Reference, timeout: Duration) -> Result<Revision, SourceError> {
        match self.look(reference, now(), timeout, || Ok(())) {
            Ok(look) => look.await.revision,
            Err(_) => Err(Attempt::new(&self.url, timeout, CancellationToken::new()).timeout("waiting for its turn")),
        }
    }

    /// An answer that began after `since`; a new one needs `leave`.
    pub(super) fn look(
        self: &Arc<Self>,
        reference: &Reference,
        since: Instant,
        timeout: Duration,
        leave: impl FnOnce() -> Result<(), Instant>,
    ) -> Result<BoxFuture<'static, Sight>, Instant> {
        self.touch();
        let now = now();
        let answer = match reference.lookup() {
            Lookup::Pinned(commit) => Err(reference.at(commit)),
            Lookup::Listed(_) => {
                let question = Question { reference, since, timeout };
                let remote = Arc::clone(self);
                Ok(self.probes.ask(&question, leave, |references, timeout| {
                    async move { remote.list(references, timeout).await }.boxed()
                })?)
            }
        };
        let (remote, reference) = (Arc::clone(self), reference.clone());
        let sight = async move {
            let answer = match answer {
                Err(pinned) => return Sight { began: now, revision: Ok(pinned) },
                Ok(answer) => answer.await,
            };
            let revision = answer.of(&reference).unwrap_or_else(|| {
                let url = remote.url.clone();
                Err(SourceError::RefNotFound { url, reference })
            });
            Sight { began: answer.began, revision }
        };
        Ok(sight.boxed())
    }

    /// One request for all of them.
    async fn list(self: Arc<Self>, references: Vec<Reference>, timeout: Duration) -> Result<Shown, SourceError> {
        let attempt = Attempt::new(&self.url, timeout, CancellationToken::new()).counting(&self.received);
        let shown = match &self.transport {
            Transport::Remote { client, .. } => client.resolve(&references, &attempt).await,
            Transport::Local(repository) => {
                let repository = Arc::clone(repository);
                blocking(&attempt, "reading its refs", move || Ok(repository.resolve(references))).await
            }
        };
        if let Err(error) = &shown
            && let Some(pause) = Failure::from(error).retry_after
        {
            lock(&self.pace).silence(pause, now());
        }
        shown
    }

    /// Opens a commit that is held; `None` if it is not. Never asks the server.
    pub async fn held(
        &self,
        reference: &Reference,
        revision: &Revision,
        spec_ignore: Option<&str>,
        timeout: Duration,
    ) -> Result<Option<Snapshot>, SourceError> {
        self.touch();
        let attempt = Attempt::new(&self.url, timeout, CancellationToken::new());
        let (reference, revision) = (reference.clone(), revision.clone());
        self.open(&Opener { reference, revision, spec_ignore: spec_ignore.map(str::to_owned) }, &attempt).await
    }

    /// Makes the commit present and opens it. Asks the server only if the commit is not held.
    pub async fn snapshot(
        &self,
        reference: &Reference,
        revision: &Revision,
        spec_ignore: Option<&str>,
        timeout: Duration,
        cancel: CancellationToken,
    ) -> Result<Snapshot, SourceError> {
        self.touch();
        let attempt = Attempt::new(&self.url, timeout, cancel).counting(&self.received);
        let (reference, revision) = (reference.clone(), revision.clone());
        let commit = revision.commit;
        let opener = Opener { reference, revision, spec_ignore: spec_ignore.map(str::to_owned) };
        if let Some(snapshot) = self.open(&opener, &attempt).await? {
            return Ok(snapshot);
        }
        let Transport::Remote { client, generations } = &self.transport else {
            return Err(opener.not_found(&self.url));
        };
        let _fetching = attempt.run("waiting for another fetch", self.fetching.lock()).await?;
        // The fetch before may have brought it.
        if let Some(snapshot) = self.open(&opener, &attempt).await? {
            return Ok(snapshot);
        }
        let store = |error: StoreError| attempt.store(error.reason);
        let current = generations.current().map_err(store)?;
        let crowded = current.pack_count() >= PACKS_MAX;
        if !crowded {
            match client.fetch(commit, &current, self.limits, &attempt).await {
                Ok(()) => {
                    if let Some(snapshot) = self.open(&opener, &attempt).await? {
                        return Ok(snapshot);
                    }
                }
                // A store that fails is given up, not repaired; the next one starts empty.
                Err(SourceError::Store { reason, .. }) if !current.tips().is_empty() => {
                    tracing::warn!(url = %self.url, reason, "the cache of a source failed and is fetched anew");
                }
                Err(SourceError::CommitNotFound { .. }) => return Err(opener.not_found(&self.url)),
                Err(error) => return Err(error),
            }
        }
        let fresh = generations.fresh().map_err(store)?;
        match client.fetch(commit, &fresh, self.limits, &attempt).await {
            Ok(()) => {}
            Err(SourceError::CommitNotFound { .. }) => return Err(opener.not_found(&self.url)),
            Err(error) => return Err(error),
        }
        generations.swap(fresh);
        match self.open(&opener, &attempt).await? {
            Some(snapshot) => Ok(snapshot),
            None => Err(attempt.store("what was just fetched can't be read")),
        }
    }

    /// Opens the commit if it is held and can be read.
    async fn open(&self, opener: &Opener, attempt: &Attempt) -> Result<Option<Snapshot>, SourceError> {
        let (opener, url) = (opener.clone(), self.url.clone());
        let failed = |url, error: StoreError| SourceError::Store { url, reason: error.reason };
        match &self.transport {
            Transport::Remote { generations, .. } => {
                let generations = Arc::clone(generations);
                let work = move || {
                    let generation = generations.current().map_err(|error| failed(url.clone(), error))?;
                    match opener.open(&generation) {
                        Ok(snapshot) => Ok(Some(snapshot)),
                        // After a failure the generation is suspect, and a fetch goes to a new one.
                        Err(OpenError::NotHeld | OpenError::Store(_)) => Ok(None),
                        Err(OpenError::NotACommit) => Err(opener.not_a_commit(&url)),
                    }
                };
                blocking(attempt, "reading its objects", work).await
            }
            Transport::Local(repository) => {
                let repository = Arc::clone(repository);
                let work = move || match opener.open(&repository.view()?) {
                    Ok(snapshot) => Ok(Some(snapshot)),
                    Err(OpenError::NotHeld) => Ok(None),
                    Err(OpenError::NotACommit) => Err(opener.not_a_commit(&url)),
                    Err(OpenError::Store(error)) => Err(failed(url, error)),
                };
                blocking(attempt, "reading its objects", work).await
            }
        }
    }
}

#[derive(Clone)]
struct Opener {
    reference: Reference,
    revision: Revision,
    spec_ignore: Option<String>,
}

impl Opener {
    fn open(&self, generation: &Arc<Generation>) -> Result<Snapshot, OpenError> {
        Snapshot::open(generation, self.revision.clone(), self.spec_ignore.as_deref())
    }

    fn not_a_commit(&self, url: &SourceUrl) -> SourceError {
        SourceError::NotACommit { url: url.clone(), reference: self.reference.clone() }
    }

    fn not_found(&self, url: &SourceUrl) -> SourceError {
        let pinned = matches!(self.reference, Reference::Commit { .. });
        SourceError::CommitNotFound { url: url.clone(), commit: self.revision.commit, pinned }
    }
}

async fn blocking<T: Send + 'static>(
    attempt: &Attempt,
    doing: &'static str,
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    attempt
        .run(doing, tokio::task::spawn_blocking(work))
        .await?
        .unwrap_or_else(|_| Err(attempt.store("the thread that reads objects died")))
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
