//! What became of each object.

use std::fmt;

use crate::cluster::{ApiError, Seen};
use crate::manifest::{ObjectId, Origin};

/// What to do about fields that the server doesn't know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// Leave them out of built-in kinds and say so; custom resources are refused.
    #[default]
    Drop,
    Refuse,
}

/// A field that was left out because the server doesn't know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// As the server spells it: `.spec.template.spec.containers[name="web"].imag`.
    pub path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The server had it so already.
    Unchanged,
    Created,
    Configured,
    /// Deleted and created anew, because it could not be changed in place.
    Recreated,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "unchanged",
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Recreated => "recreated",
        })
    }
}

/// One object that the server has taken.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub id: ObjectId,
    pub origin: Origin,
    pub action: Action,
    /// The object as the server answered it.
    pub seen: Seen,
    pub dropped: Vec<Dropped>,
    /// What the server warned about.
    pub warnings: Vec<String>,
}

/// One object that the server has not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{id} ({origin}): {error}{}", error.hint().map(|h| format!("\nhint: {h}")).unwrap_or_default())]
pub struct Refusal {
    pub id: ObjectId,
    pub origin: Origin,
    pub error: ApiError,
}

/// All was sent.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub objects: Vec<Outcome>,
    /// What is there without being ours, and asks to be left alone.
    pub left: Vec<ObjectId>,
}

/// Why not all was sent. What was sent stays.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApplyError {
    /// The server said no to at least one object, or gave no answer. The stages after it were not begun.
    #[error("{}", Self::lines(refusals))]
    Refused { refusals: Vec<Refusal>, applied: Vec<Outcome> },
    /// It was stopped from outside.
    #[error("stopped before all was applied")]
    Stopped { applied: Vec<Outcome> },
}

impl ApplyError {
    /// What was sent before it ended.
    pub fn applied(&self) -> &[Outcome] {
        match self {
            Self::Refused { applied, .. } | Self::Stopped { applied } => applied,
        }
    }

    /// True if the same work may succeed in a moment without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { refusals, .. } => refusals.iter().all(|r| r.error.is_transient()),
            Self::Stopped { .. } => true,
        }
    }

    fn lines(refusals: &[Refusal]) -> String {
        refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("\n")
    }
}

/// How far the work is: told after each object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Stages done.
    pub stages: usize,
    /// Objects that the server has taken.
    pub objects: usize,
}
