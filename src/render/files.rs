//! What an entry of a directory is, by its kind and its name.

use crate::manifest::{Entry, EntryKind};

/// The names under which kustomize looks for its file.
pub(super) const KUSTOMIZATION_FILES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// The file of kustomize in a directory, if it has one.
pub(super) fn kustomization_file(entries: &[Entry]) -> Option<&str> {
    KUSTOMIZATION_FILES.into_iter().find(|name| entries.iter().any(|entry| entry.name == *name && is_file(entry)))
}

/// A file, or a symlink, which is resolved when it is read.
pub(super) fn is_file(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::File | EntryKind::Symlink)
}

pub(super) fn is_yaml(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}
