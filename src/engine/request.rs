//! What a Kustomization asks the renderer for: the same for an attempt of the daemon and for a person who only looks.

use std::collections::BTreeMap;

use crate::api::{KustomizationSpec, SubstituteStrategy};
use crate::manifest::Tree;
use crate::render::{AppRef, CommonMetadata, Keys, Overlay, Request, Substitution};

/// Puts what the renderer reads of a spec beside the tree. `variables`: those of `postBuild`; `keys`:
/// those of `decryption`; `None` without it.
pub fn request<'a>(
    spec: &'a KustomizationSpec,
    app: &'a AppRef,
    tree: &'a dyn Tree,
    variables: Option<&'a BTreeMap<String, String>>,
    keys: Option<&'a Keys>,
    cancelled: &'a dyn Fn() -> bool,
) -> Request<'a> {
    let common = spec.common_metadata.as_ref();
    let strategy = spec.post_build.as_ref().and_then(|post_build| post_build.substitute_strategy).unwrap_or_default();
    Request {
        tree,
        path: spec.path.as_deref().unwrap_or(""),
        app,
        overlay: Overlay::from(spec),
        common_metadata: common.map(|c| CommonMetadata { labels: &c.labels, annotations: &c.annotations }),
        substitution: variables.map_or(Substitution::Off, |variables| match strategy {
            SubstituteStrategy::WithVariables => Substitution::WithVariables(variables),
            SubstituteStrategy::Always => Substitution::Always(variables),
        }),
        decryption: keys,
        cancelled,
    }
}
