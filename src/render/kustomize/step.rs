//! One of kustomize's builtin transformers with its configuration, whether a field of a kustomization or a file asks
//! for it.

use super::field_spec::FieldSpec;
use super::file::{Image, Replacement, Replica};
use super::merge_keys::Schema;
use super::patch::Patch;
use super::replace;
use super::resource::Resource;
use super::selector::Selector;
use super::transform::{self, Affix, Namespace, Pairs};

pub enum Step {
    /// Patches without targets, as one.
    Merge(Vec<Patch>),
    Patch {
        patch: Patch,
        target: Option<Selector>,
    },
    /// `patchesJson6902`: what it changes keeps its names.
    Json {
        patch: Patch,
        target: Selector,
    },
    Namespace(Namespace),
    Affix {
        side: Affix,
        text: String,
        specs: Vec<FieldSpec>,
    },
    Labels {
        pairs: Pairs,
        specs: Vec<FieldSpec>,
    },
    Annotations {
        pairs: Pairs,
        specs: Vec<FieldSpec>,
    },
    Replicas {
        replica: Replica,
        specs: Vec<FieldSpec>,
    },
    Image {
        image: Image,
        specs: Vec<FieldSpec>,
    },
    /// Each with the entry that it is from.
    Replacements(Vec<(usize, Replacement)>),
}

/// Why a step could not be done.
pub struct Stopped {
    /// Of those that it does as one, the one that failed.
    pub entry: Option<usize>,
    pub message: String,
}

impl From<String> for Stopped {
    fn from(message: String) -> Self {
        Self { entry: None, message }
    }
}

impl Step {
    /// As kustomize calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Merge(_) => "PatchStrategicMergeTransformer",
            Self::Patch { .. } => "PatchTransformer",
            Self::Json { .. } => "PatchJson6902Transformer",
            Self::Namespace(_) => "NamespaceTransformer",
            Self::Affix { side: Affix::Prefix, .. } => "PrefixTransformer",
            Self::Affix { side: Affix::Suffix, .. } => "SuffixTransformer",
            Self::Labels { .. } => "LabelTransformer",
            Self::Annotations { .. } => "AnnotationsTransformer",
            Self::Replicas { .. } => "ReplicaCountTransformer",
            Self::Image { .. } => "ImageTagTransformer",
            Self::Replacements(_) => "ReplacementTransformer",
        }
    }

    pub fn apply(&self, all: &mut Vec<Resource>, schema: &Schema) -> Result<(), Stopped> {
        match self {
            Self::Merge(patches) => {
                for (index, patch) in patches.iter().enumerate() {
                    let stopped = |message| Stopped { entry: Some(index), message };
                    patch.apply(all, None, schema).map_err(stopped)?;
                }
            }
            Self::Patch { patch, target } => {
                patch.apply(all, target.as_ref(), schema)?;
                check_unique(all)?;
            }
            Self::Json { patch, target } => patch.apply(all, Some(target), schema)?,
            Self::Namespace(namespace) => transform::namespace(all, namespace)?,
            Self::Affix { side, text, specs } => transform::affix(all, *side, text, specs)?,
            Self::Labels { pairs, specs } | Self::Annotations { pairs, specs } => {
                transform::entries(all, pairs, specs)?;
            }
            Self::Replicas { replica, specs } => transform::replicas(all, replica, specs)?,
            Self::Image { image, specs } => transform::image(all, image, specs)?,
            Self::Replacements(list) => {
                for (entry, replacement) in list {
                    let stopped = |message| Stopped { entry: Some(*entry), message };
                    replace::apply(all, replacement).map_err(stopped)?;
                }
            }
        }
        Ok(())
    }
}

fn check_unique(all: &[Resource]) -> Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    match all
        .iter()
        .map(|resource| (resource.id().to_string(), resource.gvk().group))
        .find(|id| !seen.insert(id.clone()))
    {
        Some((id, _)) => Err(format!("after this patch two objects are `{id}`")),
        None => Ok(()),
    }
}
