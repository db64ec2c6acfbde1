//! What a Kustomization object adds to the kustomization at its path, as Flux's controller writes it into that file.
//!
//! In: the fields of the object. They act at the root only, after the entries of the kustomization there; where there
//! is none, on everything below the path. Errors name the object's field: `spec.patches[1]`.

use crate::api::{BuildMetadata, Image, KustomizationSpec, Patch};

/// The fields; none are set by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overlay<'a> {
    /// Stands in for `namespace`.
    pub target_namespace: Option<&'a str>,
    /// Stands in for `namePrefix`.
    pub name_prefix: Option<&'a str>,
    /// Stands in for `nameSuffix`.
    pub name_suffix: Option<&'a str>,
    /// Come after `patches`.
    pub patches: &'a [Patch],
    /// Change the entries of `images` that have their name; the others come after them.
    pub images: &'a [Image],
    /// Come after `components`. Relative to the path.
    pub components: &'a [String],
    pub ignore_missing_components: bool,
    /// Stands in for `buildMetadata`.
    pub build_metadata: &'a [BuildMetadata],
}

impl Overlay<'_> {
    pub fn is_empty(&self) -> bool {
        self.target_namespace.is_none()
            && self.name_prefix.is_none()
            && self.name_suffix.is_none()
            && self.patches.is_empty()
            && self.images.is_empty()
            && self.components.is_empty()
            && self.build_metadata.is_empty()
    }
}

impl<'a> From<&'a KustomizationSpec> for Overlay<'a> {
    fn from(spec: &'a KustomizationSpec) -> Self {
        Self {
            target_namespace: spec.target_namespace.as_deref(),
            name_prefix: spec.name_prefix.as_deref(),
            name_suffix: spec.name_suffix.as_deref(),
            patches: &spec.patches,
            images: &spec.images,
            components: &spec.components,
            ignore_missing_components: spec.ignore_missing_components.unwrap_or(false),
            build_metadata: &spec.build_metadata,
        }
    }
}
