//! The fields of a Kustomization object, written into the kustomization at the root.
//!
//! In: an [`Overlay`] and the file, or none. Out: the file as Flux's controller would have written it, which knows what
//! came from the object, so that errors name the object's field.

use super::file::{File, Image, Kustomization, Metadata, Patch};
use super::selector::Selector;
use crate::api;
use crate::manifest::SourceError;
use crate::manifest::yaml::PathSegment;
use crate::render::files::KUSTOMIZATION_FILES;
use crate::render::{Overlay, path};

/// Where entries of a field of the file came from the object.
#[derive(Clone, Copy, Debug)]
struct Brought {
    /// In the file.
    field: &'static str,
    /// In the object.
    named: &'static str,
    /// The first entry that came from the object; the whole field if 0.
    first: usize,
}

/// What of a file came from the object.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<Brought>);

impl Origins {
    /// The field of the object that an entry of the file came from.
    pub fn field(&self, path: &[PathSegment]) -> Option<String> {
        let (PathSegment::Key(field), rest) = path.split_first()? else { return None };
        let brought = self.0.iter().find(|brought| brought.field == field.as_str())?;
        let mut name = format!("spec.{}", brought.named);
        for (depth, segment) in rest.iter().enumerate() {
            match segment {
                PathSegment::Index(index) if depth == 0 => {
                    name.push_str(&format!("[{}]", index.checked_sub(brought.first)?));
                }
                PathSegment::Index(index) => name.push_str(&format!("[{index}]")),
                PathSegment::Key(key) => name.push_str(&format!(".{key}")),
            }
        }
        (!rest.is_empty() || brought.first == 0).then_some(name)
    }
}

/// A component of the object that is not a path of this repository.
const REMOTE: [&str; 8] = ["git::", "gh:", "ssh://", "https://", "http://", "git@", "github.com:", "github.com/"];

/// Writes the fields of the object into a file. `exists` tells whether there is something at a component's path.
pub fn merge<E: From<SourceError>>(
    overlay: &Overlay<'_>,
    file: &mut File,
    exists: impl Fn(&str) -> Result<bool, E>,
) -> Result<(), E> {
    let mut brought = Vec::new();
    let fields = &mut file.fields;
    for (field, named, text, slot) in [
        ("namespace", "targetNamespace", overlay.target_namespace, &mut fields.namespace),
        ("namePrefix", "namePrefix", overlay.name_prefix, &mut fields.name_prefix),
        ("nameSuffix", "nameSuffix", overlay.name_suffix, &mut fields.name_suffix),
    ] {
        if let Some(text) = text {
            text.clone_into(slot);
            brought.push(Brought { field, named, first: 0 });
        }
    }
    brought.push(Brought { field: "patches", named: "patches", first: fields.patches.len() });
    fields.patches.extend(overlay.patches.iter().map(patch));
    brought.push(Brought { field: "components", named: "components", first: fields.components.len() });
    for (index, component) in overlay.components.iter().enumerate() {
        let lower = component.to_ascii_lowercase();
        if component.starts_with('/') || lower.starts_with("file:/") || REMOTE.iter().any(|at| lower.starts_with(at)) {
            let message = format!("`{component}` is not a path relative to `spec.path`");
            return Err(SourceError::whole_file(&format!("spec.components[{index}]"), message).into());
        }
        // what is left out keeps its place, so that the entries behind it are counted as written
        let left_out = overlay.ignore_missing_components && !exists(component)?;
        fields.components.push(if left_out { String::new() } else { component.clone() });
    }
    brought.push(Brought { field: "images", named: "images", first: fields.images.len() });
    for image in overlay.images {
        merge_image(&mut fields.images, image);
    }
    if !overlay.build_metadata.is_empty() {
        fields.build_metadata = overlay.build_metadata.iter().copied().map(metadata).collect();
        brought.push(Brought { field: "buildMetadata", named: "buildMetadata", first: 0 });
    }
    file.origins = Origins(brought);
    Ok(())
}

fn patch(patch: &api::Patch) -> Patch {
    Patch { patch: patch.patch.clone(), target: patch.target.as_ref().map(Selector::from), ..Patch::default() }
}

fn metadata(wanted: api::BuildMetadata) -> Metadata {
    match wanted {
        api::BuildMetadata::OriginAnnotations => Metadata::OriginAnnotations,
        api::BuildMetadata::TransformerAnnotations => Metadata::TransformerAnnotations,
    }
}

/// Changes the first entry of that name field by field; tag and digest are one.
fn merge_image(images: &mut Vec<Image>, image: &api::Image) {
    let Some(known) = images.iter_mut().find(|known| known.name == image.name) else {
        images.push(Image {
            name: image.name.clone(),
            new_name: image.new_name.clone(),
            new_tag: image.new_tag.clone(),
            digest: image.digest.clone(),
            ..Image::default()
        });
        return;
    };
    if !image.new_name.is_empty() {
        known.new_name.clone_from(&image.new_name);
    }
    if !image.new_tag.is_empty() || !image.digest.is_empty() {
        known.new_tag.clone_from(&image.new_tag);
        known.digest.clone_from(&image.digest);
    }
}

/// The file that a directory without one is given.
pub fn generated(directory: &str) -> File {
    File {
        path: path::child(directory, KUSTOMIZATION_FILES[0]),
        text: String::new(),
        folded: None,
        fields: Kustomization { kind: "Kustomization".into(), ..Kustomization::default() },
        is_empty: false,
        origins: Origins::default(),
    }
}
