//! The result of a rendering.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::error::RenderError;
use super::objects::{self, Draft, Place, Text};
use super::read_set::ReadSet;
use super::scope;
use super::{Request, check_cancelled};
use crate::manifest::yaml::PathSegment;
use crate::manifest::{Object, ObjectId, Origin, Redaction, SourceError, normalise};

/// What an application declares at a revision.
pub struct Rendered {
    /// In the order of the files, [normalised](crate::manifest::normalise); no identity twice.
    pub objects: Vec<Arc<Object>>,
    /// Over identities and values, whatever files and order they were written in.
    pub digest: [u8; 32],
    pub read_set: ReadSet,
    /// What substitution made of values, by the name of the variable: of a secret value it is as secret.
    pub derived: BTreeSet<(String, String)>,
    /// Values that were decrypted, which nobody may quote.
    pub secrets: Vec<String>,
    sites: Sites,
}

/// What stays of a [`Rendered`] when its objects have gone their way.
pub struct Outline {
    /// Of the objects as rendered, in the order of the files.
    pub ids: Vec<ObjectId>,
    pub digest: [u8; 32],
    pub read_set: ReadSet,
    /// Values that were decrypted, which nobody may quote.
    secrets: Vec<String>,
    /// What the declared Secrets hold, as far as nobody may quote it.
    declared: Vec<String>,
    sites: Sites,
}

/// Where each object stands.
struct Sites {
    places: Vec<Place>,
    texts: Vec<Text>,
}

impl Sites {
    fn error_at(
        &self,
        index: usize,
        path: &[PathSegment],
        message: impl Into<String>,
        secrets: &[String],
    ) -> SourceError {
        let error = match self.places.get(index) {
            Some(place) => self.texts[place.text].error(*place, path, message),
            None => SourceError::whole_file("", message),
        };
        // a template may have put them into any object
        error.redacted(&Redaction::of(secrets.iter().map(String::as_str)))
    }
}

impl From<Rendered> for Outline {
    fn from(rendered: Rendered) -> Self {
        let (ids, declared) = (rendered.objects.iter().map(|object| object.id.clone()).collect(), rendered.declared());
        let Rendered { digest, read_set, secrets, sites, .. } = rendered;
        Self { ids, digest, read_set, secrets, declared, sites }
    }
}

impl Outline {
    /// As [`Rendered::error_at`].
    pub fn error_at(&self, index: usize, path: &[PathSegment], message: impl Into<String>) -> SourceError {
        self.sites.error_at(index, path, message, &self.secrets)
    }

    /// As [`Rendered::redaction`].
    pub fn redaction<'a>(&self, more: impl IntoIterator<Item = &'a str>) -> Redaction {
        redaction(&self.secrets, &self.declared, more)
    }
}

fn redaction<'a>(secrets: &[String], declared: &[String], more: impl IntoIterator<Item = &'a str>) -> Redaction {
    let more: Vec<&str> = more.into_iter().collect();
    Redaction::of(secrets.iter().chain(declared).map(String::as_str).chain(more))
}

/// Shorter values of declared Secrets, user names for example, are words of any message.
const DECLARED_BYTES_MIN: usize = 8;

impl Rendered {
    /// An error at a value of `objects[index]`, with line, column and excerpt: an unknown field, a policy's finding.
    /// Falls back to the nearest parent that is in the text. The message must not contain a Secret's value.
    pub fn error_at(&self, index: usize, path: &[PathSegment], message: impl Into<String>) -> SourceError {
        self.sites.error_at(index, path, message, &self.secrets)
    }

    /// What nobody may quote: what was decrypted, what the declared Secrets hold (a kustomization may have put it into
    /// another object), and `more`.
    pub fn redaction<'a>(&self, more: impl IntoIterator<Item = &'a str>) -> Redaction {
        redaction(&self.secrets, &self.declared(), more)
    }

    /// What the declared Secrets hold.
    fn declared(&self) -> Vec<String> {
        let secrets = self.objects.iter().filter(|object| object.id.kind == "Secret" && object.id.group.is_empty());
        let values = secrets.filter_map(|secret| secret.value["data"].as_object()).flat_map(|data| data.values());
        let decoded = values.filter_map(|value| STANDARD.decode(value.as_str()?.replace('\n', "")).ok());
        decoded
            .filter(|bytes| bytes.len() >= DECLARED_BYTES_MIN)
            .filter_map(|bytes| String::from_utf8(bytes).ok())
            .collect()
    }

    /// What is secret of a render whose variables had these values from Secrets: they, what substitution made of them,
    /// and what was decrypted.
    pub fn secrets_with<'a>(&'a self, values: &'a BTreeMap<String, String>) -> impl Iterator<Item = &'a String> {
        let derived = self.derived.iter().filter(|(name, _)| values.contains_key(name)).map(|(_, value)| value);
        values.values().chain(derived).chain(&self.secrets)
    }

    /// The index of an object.
    pub fn position(&self, id: &ObjectId) -> Option<usize> {
        self.objects.iter().position(|object| object.id == *id)
    }
}

/// Without values, which may be secret.
impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendered")
            .field("objects", &self.objects.iter().map(|object| &object.id).collect::<Vec<_>>())
            .field("digest", &hex::encode(self.digest))
            .finish_non_exhaustive()
    }
}

/// Checks the objects as a set and makes the result; its read set is the caller's to fill in.
pub(super) fn finish(request: &Request<'_>, texts: Vec<Text>, drafts: Vec<Draft>) -> Result<Rendered, RenderError> {
    let cluster_scoped = scope::defined_here(&drafts);
    let mut first_of: HashMap<ObjectId, Place> = HashMap::with_capacity(drafts.len());
    let mut objects = Vec::with_capacity(drafts.len());
    let mut places = Vec::with_capacity(drafts.len());
    for mut draft in drafts {
        check_cancelled(request)?;
        let place = draft.place;
        let text = &texts[place.text];
        objects::check(&draft.value, place, text)?;
        let mut id = ObjectId::new(draft.group(), draft.kind(), draft.namespace(), draft.name());
        if !id.namespace.is_empty()
            && (scope::is_cluster_scoped(&id.group, &id.kind)
                || cluster_scoped.contains(&(id.group.clone(), id.kind.clone())))
        {
            // the API server takes no notice of it
            id = id.without_namespace();
            scope::free(&mut draft.value);
        }
        if let Some(first) = first_of.insert(id.clone(), place) {
            return Err(twice(&id, (&texts[first.text], first), (text, place)).into());
        }
        let version = draft.text_at(&["apiVersion"]).map_or("", |v| v.rsplit('/').next().unwrap_or(v)).to_owned();
        let origin = Origin { path: text.path.clone(), line: place.line };
        let mut value = draft.value;
        normalise(&mut value);
        objects.push(Arc::new(Object { id, version, value, origin }));
        places.push(place);
    }
    let digest = digest(request, &objects)?;
    let (derived, secrets) = (BTreeSet::new(), Vec::new());
    Ok(Rendered { objects, digest, read_set: ReadSet::default(), derived, secrets, sites: Sites { places, texts } })
}

fn twice(id: &ObjectId, first: (&Text, Place), second: (&Text, Place)) -> SourceError {
    let (first_text, first) = first;
    let (second_text, second) = second;
    let message = format!("{id} is declared twice, first in {}:{}", first_text.path, first.line);
    let error = SourceError::new(&second_text.path, &second_text.content, second.line, 1, message);
    second_text.noted(error.with_related_in(
        &first_text.path,
        &first_text.content,
        first.line,
        1,
        "first declared here",
    ))
}

fn digest(request: &Request<'_>, objects: &[Arc<Object>]) -> Result<[u8; 32], RenderError> {
    let mut sorted: Vec<&Arc<Object>> = objects.iter().collect();
    sorted.sort_by(|a, b| a.id.cmp(&b.id));
    let mut hash = Sha256::new();
    for object in sorted {
        check_cancelled(request)?;
        let value = canonical(&object.value);
        hash.update((value.len() as u64).to_le_bytes());
        hash.update(value);
    }
    Ok(hash.finalize().into())
}

/// The value as JSON with sorted keys; it contains the identity.
fn canonical(value: &Value) -> Vec<u8> {
    // A value can always be written: its keys are text and its sink is memory.
    serde_json::to_vec(value).unwrap_or_default()
}
