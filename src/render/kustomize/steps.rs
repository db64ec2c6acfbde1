//! What the fields of a kustomization do to its objects, as steps in kustomize's order.

use super::build::Build;
use super::current::Current;
use super::field_spec::Tables;
use super::file::{Patch as PatchEntry, Replacement};
use super::folded;
use super::merge_keys::Schema;
use super::origin::Origin;
use super::patch::{self, Patch};
use super::resource::Resource;
use super::selector::Selector;
use super::step::{Step, Stopped};
use super::transform::{self, Affix, Namespace};
use crate::manifest::SourceError;
use crate::manifest::yaml::{self, MAX_FILE_BYTES};
use crate::render::error::RenderError;
use crate::render::objects::Place;

/// A step, and who asks for it.
pub struct Planned {
    pub step: Step,
    pub asked: Asked,
    pub origin: Origin,
}

/// Where a step or a generator is written.
#[derive(Clone, Copy)]
pub enum Asked {
    /// A field of the kustomization.
    Field(&'static str),
    /// An entry of one of its lists.
    Entry(&'static str, usize),
    /// An object of a file.
    Object(Place),
}

impl Current {
    /// Whether an entry came from the Kustomization object.
    fn is_brought(&self, asked: Asked) -> bool {
        matches!(asked, Asked::Entry(field, index) if self.file.origins.field(&[field.into(), index.into()]).is_some())
    }
}

impl Build<'_> {
    pub(super) fn failed(&self, current: &Current, asked: Asked, message: impl Into<String>) -> RenderError {
        match asked {
            Asked::Field(field) => current.error(&[field.into()], message),
            Asked::Entry(field, index) => current.at(field, index, message),
            Asked::Object(place) => self.text_at(place).error(place, &[], message).into(),
        }
    }

    /// Where what is made for somebody stands.
    pub(super) fn place_asked(&self, current: &Current, asked: Asked) -> Place {
        match asked {
            Asked::Object(place) => place,
            Asked::Field(field) => current.place(current.line_of(&[field.into()])),
            Asked::Entry(field, index) => current.place(current.line_of(&[field.into(), index.into()])),
        }
    }

    /// Those of the kustomization's own fields.
    pub(super) fn steps(&self, current: &Current, tables: &Tables) -> Result<Vec<Planned>, RenderError> {
        let fields = &current.file.fields;
        let mut steps = Vec::new();
        let mut add = |asked: Asked, step: Step| {
            let origin = current.origin.by_field(current.file_name(), step.kind());
            steps.push(Planned { step, asked, origin });
        };
        let mut merges = Vec::new();
        for (index, text) in fields.patches_strategic_merge.iter().enumerate() {
            let field = "patchesStrategicMerge";
            merges.push(self.patch(current, Asked::Entry(field, index), &merge_entry(text))?);
        }
        if !merges.is_empty() {
            add(Asked::Field("patchesStrategicMerge"), Step::Merge(merges));
        }
        for (index, entry) in fields.patches.iter().enumerate() {
            let asked = Asked::Entry("patches", index);
            if let Some((field, message)) = entry.target.as_ref().and_then(Selector::mistake) {
                let at = ["patches".into(), index.into(), "target".into(), field.into()];
                return Err(current.error(&at, message));
            }
            let patch = self.patch(current, asked, entry)?;
            add(asked, Step::Patch { patch, target: entry.target.clone() });
        }
        if !fields.namespace.is_empty() {
            add(Asked::Field("namespace"), Step::Namespace(Namespace::of(&fields.namespace, &tables.namespace)));
        }
        for (field, side, text, specs) in [
            ("namePrefix", Affix::Prefix, &fields.name_prefix, &tables.name_prefix),
            ("nameSuffix", Affix::Suffix, &fields.name_suffix, &tables.name_suffix),
        ] {
            if !text.is_empty() {
                add(Asked::Field(field), Step::Affix { side, text: text.clone(), specs: specs.clone() });
            }
        }
        for (index, labels) in fields.labels.iter().enumerate() {
            let asked = Asked::Entry("labels", index);
            let specs = transform::label_fields(labels, tables).map_err(|m| self.failed(current, asked, m))?;
            add(asked, Step::Labels { pairs: labels.pairs.clone(), specs });
        }
        if !fields.labels.is_empty() || !fields.common_labels.is_empty() {
            let (pairs, specs) = (fields.common_labels.clone(), tables.common_labels.clone());
            add(Asked::Field("commonLabels"), Step::Labels { pairs, specs });
        }
        if !fields.common_annotations.is_empty() {
            let (pairs, specs) = (fields.common_annotations.clone(), tables.common_annotations.clone());
            add(Asked::Field("commonAnnotations"), Step::Annotations { pairs, specs });
        }
        for (index, entry) in fields.patches_json6902.iter().enumerate() {
            let asked = Asked::Entry("patchesJson6902", index);
            let step = self.json_patch(current, asked, entry)?;
            add(asked, step);
        }
        for (index, replica) in fields.replicas.iter().enumerate() {
            let (replica, specs) = (replica.clone(), tables.replicas.clone());
            add(Asked::Entry("replicas", index), Step::Replicas { replica, specs });
        }
        for (index, image) in fields.images.iter().enumerate() {
            let (image, specs) = (image.clone(), tables.images.clone());
            add(Asked::Entry("images", index), Step::Image { image, specs });
        }
        if !fields.replacements.is_empty() {
            let step = self.replacements(current, &fields.replacements, |index| Asked::Entry("replacements", index))?;
            add(Asked::Field("replacements"), step);
        }
        Ok(steps)
    }

    /// Does what was planned, in order.
    pub(super) fn run(
        &mut self,
        current: &Current,
        steps: &[Planned],
        all: &mut Vec<Resource>,
    ) -> Result<(), RenderError> {
        for Planned { step, asked, origin } in steps {
            if matches!(step, Step::Merge(_) | Step::Patch { .. }) && !all.is_empty() {
                self.schema.patching();
            }
            let schema: &Schema = &self.schema;
            step.apply(all, schema, &self.budget).map_err(|Stopped { entry, message }| {
                let asked = match (*asked, entry) {
                    (Asked::Field(field), Some(index)) => Asked::Entry(field, index),
                    (asked, _) => asked,
                };
                self.stopped_or_else(|| self.failed(current, asked, message))
            })?;
            if self.is_tracked {
                origin.note_change(all);
            }
        }
        Ok(())
    }

    pub(super) fn patch(&self, current: &Current, asked: Asked, entry: &PatchEntry) -> Result<Patch, RenderError> {
        let failed = |message: String| self.failed(current, asked, message);
        let (name, text) = match (entry.patch.trim(), entry.path.as_str()) {
            ("", "") => return Err(failed("a patch needs `patch` or `path`".into())),
            (inline, "") if current.is_brought(asked) => ("patch".to_owned(), inline.to_owned()),
            (inline, "") => (current.file.path.clone(), inline.to_owned()),
            ("", path) => self.beside(current, asked, path)?,
            _ => return Err(failed("`patch` and `path` exclude each other".into())),
        };
        // a patch is merged into what stands elsewhere: its own place is never told
        let read = patch::read(&name, &text, entry.options.as_ref(), current.place(1), &self.budget);
        read.map_err(|message| self.stopped_or_else(|| failed(message)))
    }

    pub(super) fn json_patch(&self, current: &Current, asked: Asked, entry: &PatchEntry) -> Result<Step, RenderError> {
        let Some(target) = entry.target.as_ref().filter(|target| !target.name.is_empty()) else {
            return Err(self.failed(current, asked, "a JSON patch needs a `target` with a name"));
        };
        Ok(Step::Json { patch: self.patch(current, asked, entry)?, target: target.clone() })
    }

    /// Path and text of a file that a kustomization names.
    pub(super) fn beside(&self, current: &Current, asked: Asked, name: &str) -> Result<(String, String), RenderError> {
        let path = current.path_of(name).map_err(|message| self.failed(current, asked, message))?;
        match self.reader.text(&path, MAX_FILE_BYTES)? {
            Some(text) => Ok((path, text)),
            None => {
                let message = format!("there is no file `{path}`{}", self.near(&path)?);
                Err(self.failed(current, asked, message))
            }
        }
    }

    /// All of them, each with the index of the entry that it comes from.
    pub(super) fn replacements(
        &self,
        current: &Current,
        entries: &[Replacement],
        asked: impl Fn(usize) -> Asked,
    ) -> Result<Step, RenderError> {
        let mut all = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let read = self.replacement(current, asked(index), entry)?;
            all.extend(read.into_iter().map(|replacement| (index, replacement)));
        }
        Ok(Step::Replacements(all))
    }

    /// An entry of `replacements`: itself, or what its file holds.
    fn replacement(
        &self,
        current: &Current,
        asked: Asked,
        entry: &Replacement,
    ) -> Result<Vec<Replacement>, RenderError> {
        if entry.path.is_empty() {
            return Ok(vec![entry.clone()]);
        }
        if entry.source.is_some() || !entry.targets.is_empty() {
            return Err(self.failed(current, asked, "`path` excludes `source` and `targets`"));
        }
        let (path, text) = self.beside(current, asked, &entry.path)?;
        let document = yaml::single(&path, text.as_bytes())?;
        let read = match document.value {
            list @ serde_json::Value::Array(_) => folded::read(list),
            one => folded::read(one).map(|one| vec![one]),
        };
        read.map_err(|error| SourceError::new(&path, &text, document.line, 1, error.to_string()).into())
    }
}

/// Whether an entry of a list is what it would name: no file is called so.
pub(super) fn is_in_place(entry: &str) -> bool {
    entry.contains('\n') || entry.trim_start().starts_with('{')
}

/// An entry of `patchesStrategicMerge`: a patch, or the name of a file.
pub(super) fn merge_entry(text: &str) -> PatchEntry {
    if is_in_place(text) {
        PatchEntry { patch: text.into(), ..PatchEntry::default() }
    } else {
        PatchEntry { path: text.into(), ..PatchEntry::default() }
    }
}
