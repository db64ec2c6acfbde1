//! The variables of `spec.postBuild`: those of the Secrets and ConfigMaps that it names, later ones winning, and inline
//! ones last. What they hold is read once for each change of theirs, not for each render.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use secrecy::ExposeSecret as _;

use crate::api::{Kustomization, SubstituteReference};
use crate::engine::references::{Content, Reference};

use super::{Application, Failure};

/// The variables of `postBuild`.
pub(super) struct Substitutions {
    pub variables: BTreeMap<String, String>,
    /// Those that came from Secrets: they are taken out of whatever the API server quotes.
    pub secrets: Arc<BTreeMap<String, String>>,
}

impl Application {
    /// `None` without `postBuild`.
    pub async fn substitutions(&self, object: &Kustomization) -> Result<Option<Substitutions>, Failure> {
        let Some(post_build) = &object.spec.post_build else { return Ok(None) };
        let (mut variables, mut secrets) = (BTreeMap::new(), BTreeMap::new());
        for named in &post_build.substitute_from {
            let reference = Reference::values(&self.key.namespace, named);
            let content = self.shared.references.read(&reference).await.map_err(|error| failed(&reference, error))?;
            for (key, value) in texts(&content, &reference, named)? {
                if matches!(*content, Content::Secret(_)) {
                    secrets.insert(key.clone(), value.clone());
                }
                variables.insert(key, value);
            }
        }
        variables.extend(post_build.substitute.clone());
        Ok(Some(Substitutions { variables, secrets: Arc::new(secrets) }))
    }
}

/// The values without newlines: they would tear the YAML that they are put into. Flux strips them, too.
fn texts(
    content: &Content,
    reference: &Reference,
    named: &SubstituteReference,
) -> Result<Vec<(String, String)>, Failure> {
    match content {
        Content::Secret(secret) => secret
            .data
            .iter()
            .map(|(key, value)| match std::str::from_utf8(value.expose_secret()) {
                Ok(text) => Ok((key.clone(), text.replace('\n', ""))),
                Err(_) => Err(failed(reference, format!("key `{key}` is not UTF-8 text"))),
            })
            .collect(),
        Content::ConfigMap(map) => Ok(map.data.iter().map(|(k, v)| (k.clone(), v.replace('\n', ""))).collect()),
        Content::Absent if named.optional == Some(true) => Ok(Vec::new()),
        Content::Absent => Err(failed(reference, "it does not exist\nhint: create it, or set `optional: true`")),
    }
}

fn failed(reference: &Reference, why: impl Display) -> Failure {
    Failure::new("BuildFailed", format!("can't read {reference} of `spec.postBuild.substituteFrom`: {why}"))
}
