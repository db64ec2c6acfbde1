//! What one spec and its Secrets come to: a remote, what is followed there, how the tree is seen. Or a refusal that says
//! what has to change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use crate::api::{GitRepository, Key, LocalReference};
use crate::cluster::Cluster;
use crate::config;
use crate::source::credentials::{self, Access, Credentials, CredentialsError, SshKey};
use crate::source::pacing::{ATTENTION_PERIOD, ATTENTION_PERIOD_SSH};
use crate::source::url::Location;
use crate::source::{self, Remote, Remotes, Snapshot, SourceError, SourceUrl, Sparse, proxy};

use super::include::Includes;
use super::worker::Worker;

/// The one provider that is not `generic`.
const PROVIDER_GITHUB: &str = "github";

/// What one spec (and Secret) comes to.
pub(in crate::engine) struct Target {
    pub object: Arc<GitRepository>,
    pub remote: Arc<Remote>,
    /// `None` where it isn't reached over ssh.
    pub ssh_key: Option<Arc<SshKey>>,
    pub reference: source::Reference,
    pub ignore: Option<String>,
    pub sparse: Sparse,
    /// What hides parts of the repository's own tree; empty if nothing but the defaults does.
    pub view: String,
}

/// A spec or Secret that can't be used.
pub(in crate::engine) struct Refusal {
    pub reason: &'static str,
    pub message: String,
    /// Only another spec helps.
    pub stalled: bool,
}

impl Refusal {
    pub fn stalled(reason: &'static str, message: String) -> Self {
        Self { reason, message, stalled: true }
    }
}

impl Worker {
    pub(super) async fn target(&mut self, object: &Arc<GitRepository>) -> Result<(Target, Includes), Refusal> {
        let target = read(&self.shared.cluster, &self.shared.remotes, &self.key, object).await?;
        self.pacing.set_attention_period(match target.remote.url().location() {
            Location::Ssh(_) => ATTENTION_PERIOD_SSH,
            Location::Http(_) | Location::Local(_) => ATTENTION_PERIOD,
        });
        let includes = Includes::of(&self.key, &object.spec, &self.shared)
            .map_err(|e| Refusal::stalled("InvalidInclude", e.to_string()))?;
        Ok((target, includes))
    }
}

/// Reads a spec and the Secrets that it names.
pub(in crate::engine) async fn read(
    cluster: &Cluster,
    remotes: &Remotes,
    key: &Key,
    object: &Arc<GitRepository>,
) -> Result<Target, Refusal> {
    let spec = &object.spec;
    let unserved = spec.unserved();
    if !unserved.is_empty() {
        let named: Vec<_> = unserved.iter().map(|f| format!("`{f}`")).collect();
        return Err(Refusal::stalled(
            "UnservedField",
            format!("not served by this version of Afresh: {}", named.join(", ")),
        ));
    }
    let url = SourceUrl::parse(&spec.url).map_err(|e| Refusal::stalled("URLInvalid", e.to_string()))?;
    let written = spec.reference.clone().unwrap_or_default();
    let reference = source::Reference::from_spec(source::reference::Fields {
        branch: written.branch.as_deref(),
        tag: written.tag.as_deref(),
        semver: written.semver.as_deref(),
        name: written.name.as_deref(),
        commit: written.commit.as_deref(),
    })
    .map_err(|e| Refusal::stalled("URLInvalid", e.to_string()))?;
    let access = Secrets { cluster, key }.access(object, &url).await?;
    let remote = remotes.get(&url, &access).map_err(|e| Refusal::stalled("URLInvalid", e.to_string()))?;
    let ssh_key = match access.credentials {
        Credentials::Ssh(key) => Some(Arc::new(key)),
        _ => None,
    };
    let directories = spec.sparse_checkout.as_deref().unwrap_or_default();
    let sparse = Sparse::parse(directories)
        .map_err(|e| Refusal::stalled("InvalidSparseCheckout", format!("`spec.sparseCheckout`: {e}")))?;
    let view = match (&spec.ignore, sparse.directories()) {
        (None, []) => String::new(),
        (ignore, directories) => serde_json::json!([ignore, directories]).to_string(),
    };
    let ignore = spec.ignore.clone();
    Ok(Target { object: object.clone(), remote, ssh_key, reference, ignore, sparse, view })
}

impl Target {
    pub fn timeout(&self) -> Duration {
        self.object.spec.timeout.map_or(config::SOURCE_TIMEOUT, |timeout| timeout.0)
    }

    /// Fetches a revision, seen as the spec says.
    pub fn fetch(
        &self,
        revision: source::Revision,
        cancel: CancellationToken,
    ) -> impl Future<Output = Result<Snapshot, SourceError>> + Send + use<> {
        let (remote, reference, ignore) = (self.remote.clone(), self.reference.clone(), self.ignore.clone());
        let (timeout, sparse) = (self.timeout(), self.sparse.clone());
        async move {
            let snapshot = remote.snapshot(&reference, &revision, ignore.as_deref(), timeout, cancel).await?;
            if sparse.directories().is_empty() { Ok(snapshot) } else { sparsely(&remote, snapshot, sparse).await }
        }
    }

    /// A revision that was fetched once, seen as the spec says, if it is still there. Asks nobody.
    pub async fn held(&self, revision: &source::Revision) -> Result<Option<Snapshot>, SourceError> {
        let held = self.remote.held(&self.reference, revision, self.ignore.as_deref(), self.timeout()).await?;
        match held {
            Some(snapshot) if !self.sparse.directories().is_empty() => {
                sparsely(&self.remote, snapshot, self.sparse.clone()).await.map(Some)
            }
            held => Ok(held),
        }
    }
}

async fn sparsely(remote: &Remote, snapshot: Snapshot, sparse: Sparse) -> Result<Snapshot, SourceError> {
    let (url, revision) = (remote.url().clone(), snapshot.revision.clone());
    let store = |reason: String| SourceError::Store { url: url.clone(), reason };
    match tokio::task::spawn_blocking(move || snapshot.with_sparse(sparse)).await {
        Ok(Ok(Ok(snapshot))) => Ok(snapshot),
        Ok(Ok(Err(missing))) => Err(SourceError::NoDirectory { url, revision, paths: missing.join("`, `") }),
        Ok(Err(error)) => Err(store(error.to_string())),
        Err(_) => Err(store("the thread that reads objects died".to_owned())),
    }
}

/// The Secrets beside one GitRepository.
struct Secrets<'a> {
    cluster: &'a Cluster,
    key: &'a Key,
}

impl Secrets<'_> {
    async fn access(&self, object: &GitRepository, url: &SourceUrl) -> Result<Access, Refusal> {
        let spec = &object.spec;
        let github = spec.provider.as_deref() == Some(PROVIDER_GITHUB);
        if github && !matches!(url.location(), Location::Http(_)) {
            let message = "`spec.provider: github` needs a URL that begins with `https://`";
            return Err(Refusal::stalled("InvalidProviderConfiguration", message.to_owned()));
        }
        let mut access = match &spec.secret_ref {
            Some(reference) => {
                let data = self.secret_data("spec.secretRef", reference).await?;
                credentials::from_secret(&data, credentials::Use::of(url, github))
                    .map_err(|e| self.unusable(reference, &e))?
            }
            None if github => {
                let message = "`spec.provider: github` needs the App's keys in a Secret, named by `spec.secretRef`";
                return Err(Refusal::stalled("InvalidProviderConfiguration", message.to_owned()));
            }
            None => Access::default(),
        };
        if let Some(reference) = &spec.proxy_secret_ref {
            let data = self.secret_data("spec.proxySecretRef", reference).await?;
            access.proxy = Some(proxy::from_secret(&data).map_err(|e| self.unusable(reference, &e))?);
        }
        Ok(access.or_userinfo(url))
    }

    fn unusable(&self, reference: &LocalReference, error: &CredentialsError) -> Refusal {
        let message = format!("Secret `{}/{}`: {error}", self.key.namespace, reference.name);
        Refusal { reason: "AuthenticationFailed", message, stalled: false }
    }

    async fn secret_data(&self, field: &str, reference: &LocalReference) -> Result<BTreeMap<String, Vec<u8>>, Refusal> {
        let name = format!("{}/{}", self.key.namespace, reference.name);
        let failed = |what: String| Refusal { reason: "AuthenticationFailed", message: what, stalled: false };
        let secret = self
            .cluster
            .get_secret(&self.key.namespace, &reference.name)
            .await
            .map_err(|e| failed(format!("can't read Secret `{name}`: {e}")))?
            .ok_or_else(|| failed(format!("Secret `{name}` of `{field}` does not exist")))?;
        Ok(secret.data.iter().map(|(key, value)| (key.clone(), value.expose_secret().to_vec())).collect())
    }
}
