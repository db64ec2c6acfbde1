//! The keys of `spec.decryption`: the age identities of the Secret that it names, read once for each change of it.

use std::sync::Arc;

use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use crate::api::Kustomization;
use crate::engine::references::{Content, Reference};
use crate::render::Keys;

use super::{Application, Failure};

/// What opens encrypted files.
#[derive(Clone)]
pub(super) struct Decryption {
    pub keys: Arc<Keys>,
    /// Of what the Secret holds, so that other keys are another input.
    pub digest: [u8; 32],
}

impl Application {
    /// `None` without `spec.decryption`.
    pub async fn decryption(&self, object: &Kustomization) -> Result<Option<Decryption>, Failure> {
        if object.spec.decryption.is_none() {
            return Ok(None);
        }
        let by_default = self.shared.keys_by_default.as_ref();
        let Some(reference) = Reference::keys(&self.key.namespace, object, by_default) else {
            return Ok(Some(Decryption { keys: Arc::default(), digest: [0; 32] }));
        };
        let asked = match by_default == Some(&reference) {
            true => "--sops-age-secret",
            false => "spec.decryption.secretRef",
        };
        let failed = |why: String| Failure::new("BuildFailed", format!("can't read {reference} of `{asked}`: {why}"));
        let content = self.shared.references.read(&reference).await.map_err(|error| failed(error.to_string()))?;
        let keys = keys(&content).map_err(failed)?;
        Ok(Some(Decryption { keys: Arc::new(keys), digest: digest(&content) }))
    }
}

/// The age identities of a Secret.
pub(in crate::engine) fn keys(content: &Content) -> Result<Keys, String> {
    let Content::Secret(secret) = content else { return Err("it does not exist\nhint: create it".to_owned()) };
    let entries = secret.data.iter().map(|(key, value)| (key.as_str(), value.expose_secret()));
    Keys::of(entries).map_err(|error| error.to_string())
}

fn digest(content: &Content) -> [u8; 32] {
    let mut digest = Sha256::new();
    let Content::Secret(secret) = content else { return [0; 32] };
    for (key, value) in &secret.data {
        for part in [key.as_bytes(), value.expose_secret()] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
    }
    digest.finalize().into()
}
