//! Why a rendering failed.

use super::kustomize::RemoteBase;
use super::read_set::ReadSet;
use crate::manifest::{Redaction, SourceError, TreeError};

/// A failed rendering and what it had read: it fails in the same way until that changes.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    #[source]
    pub error: RenderError,
    pub read_set: ReadSet,
}

#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A file, a template or an object is wrong; the error says where.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// `spec.path` names a directory that the revision doesn't have.
    #[error("path `{path}` not found: {}", near(.parent, .names))]
    PathNotFound { path: String, parent: String, names: Vec<String> },
    /// `spec.path` names a file.
    #[error("path `{path}` is not a directory")]
    NotADirectory { path: String },
    /// `spec.path` is absolute or climbs.
    #[error("path `{path}` leaves the repository")]
    PathEscapes { path: String },
    /// A symlink leads out of the tree.
    #[error("symlink `{path}` leads out of the repository, to `{target}`")]
    SymlinkEscapes { path: String, target: String },
    /// Symlinks lead to each other.
    #[error("symlink `{path}` leads through more than {limit} others")]
    SymlinkLoop { path: String, limit: usize },
    /// A path leads into a submodule, which isn't fetched.
    #[error("`{path}` is a submodule, and submodules are not fetched")]
    Submodule { path: String },
    /// Templates are rendered, not built; a kustomization can name their directory as a resource.
    #[error("`{path}`: a kustomization among templates is not built")]
    KustomizationAmongTemplates { path: String },
    #[error("directories are nested deeper than {limit} levels at `{path}`")]
    TooDeep { path: String, limit: usize },
    #[error("more than {limit} files are read")]
    TooManyFiles { limit: usize },
    #[error("more than {limit} directories are read, the last is `{path}`")]
    TooManyDirectories { path: String, limit: usize },
    #[error("more than {limit} bytes are read")]
    TooManyBytes { limit: u64 },
    /// Copies of patches and values multiply.
    #[error("a kustomization makes more than {limit} bytes")]
    TooMuchMade { limit: usize },
    #[error("more than {limit} objects are declared")]
    TooManyObjects { limit: usize },
    /// A variable's name can't be written as `${name}`.
    #[error(
        "variable `{name}` can't be substituted: names consist of letters, digits and `_` and don't begin with a digit"
    )]
    VariableName { name: String },
    /// A kustomization names a directory of another repository whose tree is not there: it has to be fetched, or refused.
    #[error("{error}")]
    RemoteBase { base: Box<RemoteBase>, error: Box<SourceError> },
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The tree can't be read: not the author's fault, and it may pass.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl RenderError {
    /// Whether the same input would fail in the same way: false if the object store or a cancellation is the cause.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Cancelled | Self::Tree(TreeError::Store { .. }))
    }

    /// Takes values out of all that is said and shown.
    #[must_use]
    pub fn redacted(self, values: &Redaction) -> Self {
        match self {
            Self::Source(error) => Self::Source(error.redacted(values)),
            Self::RemoteBase { base, error } => Self::RemoteBase { base, error: Box::new(error.redacted(values)) },
            // these name paths and limits
            other => other,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Source(error) => error.hint(),
            Self::RemoteBase { error, .. } => error.hint(),
            Self::PathEscapes { .. } => Some("give a path relative to the root of the repository, without `..`"),
            Self::KustomizationAmongTemplates { .. } => {
                Some("put the kustomization into a directory of its own and name this one in its `resources`")
            }
            Self::SymlinkEscapes { .. } => {
                Some("replace the symlink by the file, or point it to a file of the repository")
            }
            _ => None,
        }
    }

    /// The report as rustc prints it, with a final line break.
    pub fn render(&self, color: bool) -> String {
        match self {
            Self::Source(error) => error.render(color),
            Self::RemoteBase { error, .. } => error.render(color),
            _ => {
                let mut report = format!("error: {self}\n");
                if let Some(hint) = self.hint() {
                    report.push_str(&format!("  = hint: {hint}\n"));
                }
                report
            }
        }
    }
}

/// Names shown of a directory that lacks the wanted one.
const NAMES_MAX: usize = 10;

fn near(parent: &str, names: &[String]) -> String {
    let place = if parent.is_empty() { "the repository".to_owned() } else { format!("`{parent}`") };
    if names.is_empty() {
        return format!("{place} is empty");
    }
    let shown: Vec<String> = names.iter().take(NAMES_MAX).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > NAMES_MAX { ", …" } else { "" };
    format!("{place} has {}{more}", shown.join(", "))
}
