//! The second stage: a tree of files and the settings of an application become Kubernetes objects.
//!
//! ```text
//!  Tree ──reader──► files ──► plain: every YAML below the path
//!            │                kustomize: a kustomization file and what it names
//!            │                template: afresh.yaml + values + templates
//!            ▼                    │
//!        ReadSet                  ▼
//!                    objects ──► overlay of the spec ──► decryption ──► substitution ──► common metadata ──► Rendered
//! ```
//!
//! In: a [`Request`]. Out: [`Rendered`], or [`Failed`]; both carry the [`ReadSet`], which tells whether another
//! revision would render the same. Pure and synchronous: no Kubernetes client, no async runtime, no clock, no
//! randomness, no file system; nothing outside the tree is read. No error contains a substituted value or a line of a
//! Secret.

mod decryption;
mod discovery;
mod error;
mod expansion;
mod files;
mod filters;
mod glob;
mod guard;
mod kustomize;
mod objects;
mod overlay;
mod path;
mod read_set;
mod reader;
mod rendered;
mod scope;
mod settings;
mod substitution;
mod template;
mod transform;
mod values;

use std::collections::{BTreeMap, BTreeSet};

pub use decryption::{KeyError, Keys};
pub use error::{Failed, RenderError};
pub use kustomize::{Matcher, Pin, RemoteBase, Selector};
pub use overlay::Overlay;
pub use read_set::ReadSet;
pub use rendered::{Outline, Rendered};
pub use scope::is_cluster_scoped;
pub use settings::SETTINGS_FILE;

use crate::manifest::{Redaction, Tree, yaml};
use discovery::Found;
use objects::Draft;
use reader::Reader;

/// Objects of one application: more is a mistake, and the inventory of an application is one Kubernetes object.
pub const MAX_OBJECTS: usize = 20_000;
/// Files that one application may read.
pub const MAX_FILES: usize = 20_000;
/// Directories that one application may read. A few small trees that hold each other again and again make billions.
pub const MAX_DIRECTORIES: usize = 20_000;
/// Bytes that one application may read.
pub const MAX_BYTES: u64 = 128 << 20;

/// The application that is rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRef {
    pub name: String,
    pub namespace: String,
}

/// Everything that a rendering depends on.
pub struct Request<'a> {
    pub tree: &'a dyn Tree,
    /// `spec.path`: relative to the root of the tree, with or without `./`.
    pub path: &'a str,
    pub app: &'a AppRef,
    /// What the Kustomization adds to the kustomization at its path.
    pub overlay: Overlay<'a>,
    /// `spec.commonMetadata`.
    pub common_metadata: Option<CommonMetadata<'a>>,
    pub substitution: Substitution<'a>,
    /// `spec.decryption`: what opens encrypted files. `None`: encrypted Secrets are refused.
    pub decryption: Option<&'a Keys>,
    /// Asked between files and templates; true ends the rendering with [`RenderError::Cancelled`].
    pub cancelled: &'a dyn Fn() -> bool,
}

impl<'a> Request<'a> {
    /// A folder as it is: nothing of a Kustomization comes upon it, and nobody cancels.
    pub fn of(tree: &'a dyn Tree, path: &'a str, app: &'a AppRef) -> Self {
        Self {
            tree,
            path,
            app,
            overlay: Overlay::default(),
            common_metadata: None,
            substitution: Substitution::Off,
            decryption: None,
            cancelled: &|| false,
        }
    }
}

/// Labels and annotations that are set on every object, over what the files say.
#[derive(Clone, Copy, Debug)]
pub struct CommonMetadata<'a> {
    pub labels: &'a BTreeMap<String, String>,
    pub annotations: &'a BTreeMap<String, String>,
}

/// `spec.postBuild`.
#[derive(Clone, Copy)]
pub enum Substitution<'a> {
    /// There is no `postBuild`: `${…}` in manifests is text.
    Off,
    /// Substitute if there is at least one variable, as Flux does by default. The variables are those of
    /// `substituteFrom` in order, then `substitute`.
    WithVariables(&'a BTreeMap<String, String>),
    /// `substituteStrategy: Always`.
    Always(&'a BTreeMap<String, String>),
}

/// Renders an application.
pub fn render(request: &Request<'_>) -> Result<Rendered, Failed> {
    let reader = Reader::new(request.tree, request.decryption);
    match render_with(request, &reader) {
        Ok(mut rendered) => {
            rendered.secrets = reader.take_secrets();
            rendered.read_set = reader.into_read_set();
            Ok(rendered)
        }
        Err(error) => {
            let secrets = reader.take_secrets();
            let error = error.redacted(&Redaction::of(secrets.iter().map(String::as_str)));
            Err(Failed { error, read_set: reader.into_read_set() })
        }
    }
}

fn render_with(request: &Request<'_>, reader: &Reader<'_>) -> Result<Rendered, RenderError> {
    let Found { texts, mut drafts } = discovery::read(request, reader)?;
    reader.add_secrets(decryption::secrets(&mut drafts, &texts, request.decryption)?);
    let derived = substitute(request, &texts, &mut drafts)?;
    if let Some(variables) = variables(request) {
        reader.add_secrets_made(|value| substitution::applied(value, variables));
    }
    if let Some(metadata) = &request.common_metadata {
        for draft in &mut drafts {
            check_cancelled(request)?;
            transform::set_common_metadata(&mut draft.value, metadata);
        }
    }
    let mut rendered = rendered::finish(request, texts, drafts)?;
    rendered.derived = derived;
    Ok(rendered)
}

/// What is substituted, if anything is.
fn variables<'a>(request: &Request<'a>) -> Option<&'a BTreeMap<String, String>> {
    match request.substitution {
        Substitution::Off => None,
        Substitution::WithVariables(variables) => Some(variables).filter(|variables| !variables.is_empty()),
        Substitution::Always(variables) => Some(variables),
    }
}

fn substitute(
    request: &Request<'_>,
    texts: &[objects::Text],
    drafts: &mut [Draft],
) -> Result<BTreeSet<(String, String)>, RenderError> {
    let mut derived = BTreeSet::new();
    let Some(variables) = variables(request) else { return Ok(derived) };
    substitution::check_names(variables)?;
    for draft in drafts {
        check_cancelled(request)?;
        substitution::apply(draft, texts, variables, &mut derived)?;
    }
    Ok(derived)
}

fn check_cancelled(request: &Request<'_>) -> Result<(), RenderError> {
    if (request.cancelled)() { Err(RenderError::Cancelled) } else { Ok(()) }
}

#[cfg(test)]
mod overlay_tests;
#[cfg(test)]
mod read_set_tests;
#[cfg(test)]
mod template_tests;
#[cfg(test)]
mod tests;
