//! What must be there before anything is served: the definitions, and the installation's key.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::api::STATUS_MANAGER;
use crate::cluster::{ApiError, ApiKind, Cluster, ErrorClass};
use crate::manifest::DigestKey;

/// The Secret that holds the key for digests.
const KEY_SECRET: &str = "afresh-installation";
const KEY_FIELD: &str = "digest-key";
/// An API server that was just started may take this long to answer.
const START_WAIT_MAX: Duration = Duration::from_secs(10);
const START_WAIT_STEP: Duration = Duration::from_millis(250);

/// Why the daemon can't start on this cluster.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    #[error("the API server does not answer: {0}\nhint: is the cluster up, and is this its kubeconfig?")]
    Unreachable(ApiError),
    #[error(
        "the cluster has no kind `{0}`\nhint: install the definitions: afresh crds | kubectl apply --server-side -f -"
    )]
    DefinitionMissing(String),
    #[error(
        "the installation's key in Secret `{namespace}/{name}` can't be read or made: {source}\nhint: the daemon needs to get and create Secrets in its own namespace (--runtime-namespace)"
    )]
    Key { namespace: String, name: &'static str, source: ApiError },
    #[error(
        "Secret `{namespace}/{name}` holds no usable key\nhint: delete it; a new one is made, and nothing is rolled because of that"
    )]
    KeyUnusable { namespace: String, name: &'static str },
}

/// Sees to it that the cluster answers.
pub async fn reach(cluster: &Cluster) -> Result<(), InstallationError> {
    patiently(cluster, || Ok(())).await
}

/// Sees to it that the cluster answers and knows our kinds.
pub async fn check(cluster: &Cluster) -> Result<(), InstallationError> {
    let known = || {
        let missing = [ApiKind::git_repository(), ApiKind::kustomization()]
            .into_iter()
            .find(|kind| cluster.resource(&kind.group, &kind.kind, Some(&kind.version)).is_none());
        missing.map_or(Ok(()), |kind| Err(InstallationError::DefinitionMissing(kind.resource())))
    };
    patiently(cluster, known).await
}

/// Asks what the cluster serves until it answers and `known` is content, or for as long as a start may take.
async fn patiently(
    cluster: &Cluster,
    known: impl Fn() -> Result<(), InstallationError>,
) -> Result<(), InstallationError> {
    let deadline = tokio::time::Instant::now() + START_WAIT_MAX;
    loop {
        let error = match cluster.discover().await {
            Ok(()) => match known() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            Err(error) => InstallationError::Unreachable(error),
        };
        let final_word = matches!(&error, InstallationError::Unreachable(e) if e.class == ErrorClass::Forbidden);
        if final_word || tokio::time::Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(START_WAIT_STEP).await;
    }
}

/// The installation's key, made at the first start.
pub async fn key(cluster: &Cluster, namespace: &str) -> Result<DigestKey, InstallationError> {
    let failed = |source| InstallationError::Key { namespace: namespace.into(), name: KEY_SECRET, source };
    // a second round finds what another replica made in the meantime
    for _ in 0..2 {
        if let Some(secret) = cluster.get_secret(namespace, KEY_SECRET).await.map_err(failed)? {
            let key = secret.data.get(KEY_FIELD).and_then(|k| <[u8; 32]>::try_from(k.expose_secret()).ok());
            return key
                .map(DigestKey::new)
                .ok_or(InstallationError::KeyUnusable { namespace: namespace.into(), name: KEY_SECRET });
        }
        match make(cluster, namespace).await {
            Ok(key) => return Ok(DigestKey::new(key)),
            Err(error) if error.class == ErrorClass::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(ApiError::new(ErrorClass::Conflict, "it appears and vanishes")))
}

async fn make(cluster: &Cluster, namespace: &str) -> Result<[u8; 32], ApiError> {
    let key: [u8; 32] = rand::random();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": KEY_SECRET, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "afresh"}},
        "data": {KEY_FIELD: BASE64.encode(key)},
    });
    let kind = ApiKind::secret();
    let id = kind.object(namespace, KEY_SECRET);
    match cluster.create(&kind, &id, &secret, STATUS_MANAGER).await {
        Ok(_) => Ok(key),
        Err(error) if error.class == ErrorClass::NamespaceMissing => {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            let kind = ApiKind::namespace();
            match cluster.create(&kind, &kind.object("", namespace), &object, STATUS_MANAGER).await {
                Err(error) if error.class != ErrorClass::AlreadyExists => return Err(error),
                _ => {}
            }
            let kind = ApiKind::secret();
            cluster.create(&kind, &id, &secret, STATUS_MANAGER).await.map(|_| key)
        }
        Err(error) => Err(error),
    }
}
