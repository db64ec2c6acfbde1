//! One of kustomize's builtin transformers with its configuration, whether a field of a kustomization or a file asks
//! for it.

use super::budget::{Budget, NODE_BYTES};
use super::field_spec::FieldSpec;
use super::file::{Image, Replacement, Replica};
use super::merge_keys::Schema;
use super::patch::Patch;
use super::resource::{Resource, twin};
use super::selector::Selector;
use super::transform::{self, Affix, Namespace, Pairs};
use super::{replace, value_add};

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
    ValueAdd(value_add::ValueAdd),
    Hash,
    /// Two that go by one name.
    Both(Box<[Step; 2]>),
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
            Self::ValueAdd(_) => "ValueAddTransformer",
            Self::Hash => "HashTransformer",
            Self::Both(_) => "PrefixSuffixTransformer",
        }
    }

    pub fn apply(&self, all: &mut Vec<Resource>, schema: &Schema, budget: &Budget<'_>) -> Result<(), Stopped> {
        match self {
            Self::Merge(patches) => {
                for (index, patch) in patches.iter().enumerate() {
                    let stopped = |message| Stopped { entry: Some(index), message };
                    patch.apply(all, None, schema, budget).map_err(stopped)?;
                }
            }
            Self::Patch { patch, target } => {
                let is_another = patch.apply(all, target.as_ref(), schema, budget)?;
                if is_another && let Some(id) = twin(all) {
                    return Err(format!("after this patch two objects are `{id}`").into());
                }
            }
            Self::Json { patch, target } => {
                patch.apply(all, Some(target), schema, budget)?;
            }
            Self::Namespace(namespace) => transform::namespace(all, namespace, budget)?,
            Self::Affix { side, text, specs } => {
                in_parts(all, budget, text.len(), |part| transform::affix(part, *side, text, specs))?;
            }
            Self::Labels { pairs, specs } | Self::Annotations { pairs, specs } => {
                let weight: usize = pairs.iter().map(|(key, value)| key.len() + value.0.len() + NODE_BYTES).sum();
                in_parts(all, budget, weight, |part| transform::entries(part, pairs, specs))?;
            }
            Self::Replicas { replica, specs } => {
                budget.go_on()?;
                transform::replicas(all, replica, specs)?;
            }
            Self::Image { image, specs } => {
                in_parts(all, budget, 0, |part| transform::image(part, image, specs))?;
            }
            Self::Replacements(list) => {
                for (entry, replacement) in list {
                    let stopped = |message| Stopped { entry: Some(*entry), message };
                    replace::apply(all, replacement, budget).map_err(stopped)?;
                }
            }
            Self::ValueAdd(value_add) => {
                budget.go_on()?;
                value_add.apply(all, budget)?;
                all.iter_mut().for_each(Resource::settle);
            }
            Self::Hash => {
                all.iter_mut().try_for_each(|resource| budget.go_on().and_then(|()| transform::add_hash(resource)))?;
            }
            Self::Both(steps) => steps.iter().try_for_each(|step| step.apply(all, schema, budget))?,
        }
        Ok(())
    }
}

/// Objects between two questions whether to go on.
const PART: usize = 64;

/// Does to some objects after the other what is done to each by itself; `weight` is what each gets.
fn in_parts(
    all: &mut [Resource],
    budget: &Budget<'_>,
    weight: usize,
    mut transform: impl FnMut(&mut [Resource]) -> Result<(), String>,
) -> Result<(), String> {
    for part in all.chunks_mut(PART) {
        budget.spend(weight.saturating_mul(part.len()))?;
        transform(part)?;
    }
    Ok(())
}
