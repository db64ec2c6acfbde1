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
pub(in crate::engine) struct Substitutions {
    pub variables: BTreeMap<String, String>,
    /// Those that came from Secrets: they are taken out of whatever the API server quotes.
    pub secrets: Arc<BTreeMap<String, String>>,
}

impl Application {
    /// `None` without `postBuild`.
    pub async fn substitutions(&self, object: &Kustomization) -> Result<Option<Substitutions>, Failure> {
        let mut contents = Vec::new();
        for reference in Reference::of(&self.key.namespace, object) {
            let content = self.shared.references.read(&reference).await;
            contents.push(content.map_err(|error| Failure::new("BuildFailed", unread(&reference, error)))?);
        }
        substitutions(&self.key.namespace, object, &contents).map_err(|message| Failure::new("BuildFailed", message))
    }
}

/// The variables of an application in this namespace; `None` without `postBuild`. `contents` are those of
/// `substituteFrom`, in order.
pub(in crate::engine) fn substitutions(
    namespace: &str,
    object: &Kustomization,
    contents: &[Arc<Content>],
) -> Result<Option<Substitutions>, String> {
    let Some(post_build) = &object.spec.post_build else { return Ok(None) };
    let (mut variables, mut secrets) = (BTreeMap::new(), BTreeMap::new());
    for (named, content) in post_build.substitute_from.iter().zip(contents) {
        let reference = Reference::values(namespace, named);
        for (key, value) in texts(content, &reference, named)? {
            if matches!(**content, Content::Secret(_)) {
                secrets.insert(key.clone(), value.clone());
            }
            variables.insert(key, value);
        }
    }
    variables.extend(post_build.substitute.clone());
    Ok(Some(Substitutions { variables, secrets: Arc::new(secrets) }))
}

/// The values without newlines: they would tear the YAML that they are put into. Flux strips them, too.
fn texts(
    content: &Content,
    reference: &Reference,
    named: &SubstituteReference,
) -> Result<Vec<(String, String)>, String> {
    match content {
        Content::Secret(secret) => secret
            .data
            .iter()
            .map(|(key, value)| match std::str::from_utf8(value.expose_secret()) {
                Ok(text) => Ok((key.clone(), text.replace('\n', ""))),
                Err(_) => Err(unread(reference, format!("key `{key}` is not UTF-8 text"))),
            })
            .collect(),
        Content::ConfigMap(map) => Ok(map.data.iter().map(|(k, v)| (k.clone(), v.replace('\n', ""))).collect()),
        Content::Absent if named.optional == Some(true) => Ok(Vec::new()),
        Content::Absent => Err(unread(reference, "it does not exist\nhint: create it, or set `optional: true`")),
    }
}

pub(in crate::engine) fn unread(reference: &Reference, why: impl Display) -> String {
    format!("can't read {reference} of `spec.postBuild.substituteFrom`: {why}")
}
