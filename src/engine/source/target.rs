//! What one spec and its Secrets come to: a remote, what is followed there, how the tree is seen. Or a refusal that says
//! what has to change.

use std::collections::BTreeMap;
use std::sync::Arc;

use secrecy::ExposeSecret as _;

use crate::api::{GitRepository, LocalReference};
use crate::source::credentials::{self, Access, CredentialsError};
use crate::source::pacing::{ATTENTION_PERIOD, ATTENTION_PERIOD_SSH};
use crate::source::url::Location;
use crate::source::{self, Remote, SourceUrl, Sparse, proxy};

use super::include::Includes;
use super::worker::Worker;

/// The one provider that is not `generic`.
const PROVIDER_GITHUB: &str = "github";

/// What one spec (and Secret) comes to.
pub(super) struct Target {
    pub object: Arc<GitRepository>,
    pub remote: Arc<Remote>,
    pub reference: source::Reference,
    pub ignore: Option<String>,
    pub sparse: Sparse,
    /// What hides parts of the repository's own tree; empty if nothing but the defaults does.
    pub view: String,
}

/// A spec or Secret that can't be used.
pub(super) struct Refusal {
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
    /// Reads the Secrets that the spec names.
    pub(super) async fn target(&mut self, object: &Arc<GitRepository>) -> Result<(Target, Includes), Refusal> {
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
        self.pacing.set_attention_period(match url.location() {
            Location::Ssh(_) => ATTENTION_PERIOD_SSH,
            Location::Http(_) | Location::Local(_) => ATTENTION_PERIOD,
        });
        let access = self.access(object, &url).await?;
        let remote =
            self.shared.remotes.get(&url, &access).map_err(|e| Refusal::stalled("URLInvalid", e.to_string()))?;
        let directories = spec.sparse_checkout.as_deref().unwrap_or_default();
        let sparse = Sparse::parse(directories)
            .map_err(|e| Refusal::stalled("InvalidSparseCheckout", format!("`spec.sparseCheckout`: {e}")))?;
        let includes =
            Includes::of(&self.key, spec, &self.shared).map_err(|e| Refusal::stalled("InvalidInclude", e))?;
        let view = match (&spec.ignore, sparse.directories()) {
            (None, []) => String::new(),
            (ignore, directories) => serde_json::json!([ignore, directories]).to_string(),
        };
        let ignore = spec.ignore.clone();
        Ok((Target { object: object.clone(), remote, reference, ignore, sparse, view }, includes))
    }

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
            .shared
            .cluster
            .get_secret(&self.key.namespace, &reference.name)
            .await
            .map_err(|e| failed(format!("can't read Secret `{name}`: {e}")))?
            .ok_or_else(|| failed(format!("Secret `{name}` of `{field}` does not exist")))?;
        Ok(secret.data.iter().map(|(key, value)| (key.clone(), value.expose_secret().to_vec())).collect())
    }
}
