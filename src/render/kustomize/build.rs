//! From a directory to its objects: what a kustomization names, in the order in which kustomize takes it.

use std::sync::Arc;

use super::field_spec::Tables;
use super::file::{File, GeneratorOptions, Patch as PatchEntry, Replacement};
use super::generate::{self, Failure, Kind};
use super::node;
use super::patch::{self, Patch};
use super::resource::{Resource, append};
use super::{names, replace, transform};
use crate::manifest::yaml::{self, MAX_FILE_BYTES, PathSegment};
use crate::manifest::{EntryKind, SourceError};
use crate::render::error::RenderError;
use crate::render::files::{KUSTOMIZATION_FILES, is_file, kustomization_file};
use crate::render::objects::{Draft, Place, Text};
use crate::render::reader::Reader;
use crate::render::settings::{self, Mode, SETTINGS_FILE};
use crate::render::{MAX_OBJECTS, Request, check_cancelled, path, template};

/// Directories that lead to one another.
const DEPTH_MAX: usize = 32;
/// Objects of this annotation are for those who read the repository.
const LOCAL_CONFIG: &str = "config.kubernetes.io/local-config";

/// Builds a directory; `namespace` stands in for that of its kustomization. Its texts are added to `texts`.
pub fn build(
    request: &Request<'_>,
    reader: &Reader<'_>,
    directory: &str,
    namespace: Option<&str>,
    texts: &mut Vec<Text>,
) -> Result<Vec<Draft>, RenderError> {
    let mut build = Build { request, reader, namespace, texts, above: Vec::new() };
    let mut built = build.directory(directory, None, Wanted::Kustomization)?;
    build.finish(&mut built)
}

struct Build<'a> {
    request: &'a Request<'a>,
    reader: &'a Reader<'a>,
    /// Instead of the namespace of the first kustomization: Flux's `targetNamespace`.
    namespace: Option<&'a str>,
    texts: &'a mut Vec<Text>,
    /// The directories that led here, the root first.
    above: Vec<String>,
}

/// What a directory came to, or what a component goes on from.
struct Built {
    resources: Vec<Resource>,
    tables: Arc<Tables>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Kustomization,
    Component,
}

/// The file at work, and its index among the texts.
struct Current {
    file: File,
    text: usize,
    directory: String,
}

impl Current {
    fn error(&self, at: &[PathSegment], message: impl Into<String>) -> RenderError {
        self.file.error(at, message).into()
    }

    /// An entry of one of its lists.
    fn at(&self, field: &str, index: usize, message: impl Into<String>) -> RenderError {
        self.error(&[field.into(), index.into()], message)
    }

    fn place(&self, line: u32) -> Place {
        Place { text: self.text, document: 0, item: None, line }
    }
}

impl Build<'_> {
    /// `onto`: what a component goes on from.
    fn directory(&mut self, directory: &str, onto: Option<Built>, wanted: Wanted) -> Result<Built, RenderError> {
        check_cancelled(self.request)?;
        if self.above.len() >= DEPTH_MAX {
            return Err(RenderError::TooDeep { path: directory.to_owned(), limit: DEPTH_MAX });
        }
        let current = self.open(directory)?;
        if current.file.is_component() != (wanted == Wanted::Component) {
            let message = match wanted {
                Wanted::Kustomization => "a Component can't be a resource: name it in `components`",
                Wanted::Component => "a Kustomization can't be a component: its kind must be Component",
            };
            return Err(current.error(&["kind".into()], message));
        }
        self.above.push(directory.to_owned());
        let mut built = onto.unwrap_or_else(|| Built { resources: Vec::new(), tables: Tables::defaults() });
        self.resources(&current, &mut built)?;
        self.configurations(&current, &mut built)?;
        self.generators(&current, &mut built)?;
        for (index, name) in current.file.fields.components.iter().enumerate() {
            let target = self.place_of(&current, "components", index, name)?;
            if self.reader.resolve(&target)?.is_none_or(|found| found.kind != EntryKind::Directory) {
                return Err(current.at("components", index, format!("there is no directory `{target}`")));
            }
            self.check_circle(&current, "components", index, &target)?;
            built = self.directory(&target, Some(built), Wanted::Component)?;
        }
        self.transform(&current, &mut built)?;
        self.above.pop();
        if built.resources.len() > MAX_OBJECTS {
            return Err(RenderError::TooManyObjects { limit: MAX_OBJECTS });
        }
        Ok(built)
    }

    fn open(&mut self, directory: &str) -> Result<Current, RenderError> {
        let entries = self.reader.list(directory)?;
        let names: Vec<&str> = entries.iter().filter(|e| is_file(e)).map(|e| e.name.as_str()).collect();
        let Some(name) = kustomization_file(&entries) else {
            let message = "there is no kustomization file in this directory";
            let error = SourceError::whole_file(directory, message);
            return Err(error.with_hint("name its files one by one, or give it a kustomization.yaml").into());
        };
        if KUSTOMIZATION_FILES.iter().filter(|name| names.contains(name)).count() > 1 {
            return Err(SourceError::whole_file(directory, "there is more than one kustomization file").into());
        }
        let path = path::child(directory, name);
        let text = self.reader.text(&path, MAX_FILE_BYTES)?.unwrap_or_default();
        let file = File::read(&path, text)?;
        let text = self.text(&path, file.text.clone());
        Ok(Current { file, text, directory: directory.to_owned() })
    }

    fn text(&mut self, path: &str, content: String) -> usize {
        if let Some(index) = self.texts.iter().position(|text| !text.is_rendered && *text.path == *path) {
            return index;
        }
        self.texts.push(Text { path: path.into(), content, is_rendered: false });
        self.texts.len() - 1
    }

    /// Where a name in a kustomization leads; it may not lead out of the repository.
    fn place_of(&self, current: &Current, field: &str, index: usize, name: &str) -> Result<String, RenderError> {
        path::join(&current.directory, name)
            .map_err(|_| current.at(field, index, format!("`{name}` leads out of the repository")))
    }

    fn check_circle(&self, current: &Current, field: &str, index: usize, target: &str) -> Result<(), RenderError> {
        let contains =
            |outer: &str, inner: &str| outer.is_empty() || inner == outer || inner.starts_with(&format!("{outer}/"));
        match self.above.iter().find(|visited| contains(target, visited)) {
            Some(visited) => {
                let message = format!("a circle: `{target}` is, or contains, `{visited}`, which led here");
                Err(current.at(field, index, message))
            }
            None => Ok(()),
        }
    }

    fn resources(&mut self, current: &Current, built: &mut Built) -> Result<(), RenderError> {
        let fields = &current.file.fields;
        for (field, names) in [("resources", &fields.resources), ("bases", &fields.bases)] {
            for (index, name) in names.iter().enumerate() {
                for resource in self.resource(current, field, index, name, built)? {
                    self.add(&mut built.resources, resource)?;
                }
            }
        }
        Ok(())
    }

    /// What one entry of `resources` or `bases` names.
    fn resource(
        &mut self,
        current: &Current,
        field: &str,
        index: usize,
        name: &str,
        built: &mut Built,
    ) -> Result<Vec<Resource>, RenderError> {
        if is_remote(name) {
            let error =
                current.file.error(&[field.into(), index.into()], format!("`{name}` is not in this repository"));
            return Err(error.with_hint("remote bases are not fetched: copy it into the repository").into());
        }
        let target = self.place_of(current, field, index, name)?;
        match self.reader.resolve(&target)? {
            Some(found) if found.kind == EntryKind::Directory => {
                self.check_circle(current, field, index, &target)?;
                self.base(&target, built)
            }
            Some(found) if found.kind == EntryKind::Submodule => Err(RenderError::Submodule { path: found.path }),
            Some(_) => self.file(&target),
            None => {
                let message = format!("there is no file or directory `{target}`{}", self.near(&target)?);
                Err(current.at(field, index, message))
            }
        }
    }

    /// The names that a missing one may have been meant for.
    fn near(&self, target: &str) -> Result<String, RenderError> {
        let (parent, name) = path::split(target);
        let stem = name.split('.').next().unwrap_or(name);
        let entries = self.reader.list(parent)?;
        let near: Vec<&str> = entries
            .iter()
            .map(|e| e.name.as_str())
            .filter(|other| other.contains(stem) || stem.contains(other.split('.').next().unwrap_or(other)))
            .collect();
        Ok(if near.is_empty() { String::new() } else { format!(", but `{}`", near.join("`, `")) })
    }

    /// A directory among the resources: another kustomization, or a folder of templates.
    fn base(&mut self, directory: &str, built: &mut Built) -> Result<Vec<Resource>, RenderError> {
        let entries = self.reader.list(directory)?;
        if entries.iter().any(|entry| entry.name == SETTINGS_FILE && is_file(entry)) {
            let settings = settings::read(self.reader, directory)?;
            if settings.mode == Mode::Template {
                let mut resources = Vec::new();
                for text in template::render(self.request, self.reader, &settings)? {
                    self.texts.push(text);
                    resources.extend(self.documents(self.texts.len() - 1)?);
                }
                return Ok(resources);
            }
        }
        let base = self.directory(directory, None, Wanted::Kustomization)?;
        if base.tables != built.tables {
            let merged = Arc::make_mut(&mut built.tables).merge(&base.tables);
            merged.map_err(|message| SourceError::whole_file(directory, message))?;
        }
        Ok(base.resources)
    }

    fn file(&mut self, path: &str) -> Result<Vec<Resource>, RenderError> {
        let content = self.reader.text(path, MAX_FILE_BYTES)?.unwrap_or_default();
        let index = self.text(path, content);
        self.documents(index)
    }

    fn documents(&self, index: usize) -> Result<Vec<Resource>, RenderError> {
        let text = &self.texts[index];
        let noted = |error| RenderError::from(text.noted(error));
        let mut resources = Vec::new();
        for document in node::documents(&text.path, text.content.as_bytes()).map_err(noted)? {
            let place = Place { text: index, document: document.index, item: None, line: document.line };
            let is_list = document.node.text_at(&["kind"]).is_some_and(|kind| kind.ends_with("List"))
                && document.node.text_at(&["metadata", "name"]).is_none();
            match document.node.get("items") {
                Some(node::Node::List(items)) if is_list => {
                    for (item, node) in items.iter().enumerate() {
                        let place = Place { item: Some(item), ..place };
                        resources.push(Resource::new(node.clone(), place));
                    }
                }
                Some(node) if is_list && node.is_null() => {}
                _ => resources.push(Resource::new(document.node, place)),
            }
        }
        for resource in &resources {
            let value = resource.value().map_err(|message| noted(text.error(resource.place, &[], message)))?;
            crate::render::objects::check(&value, resource.place, text)?;
        }
        Ok(resources)
    }

    fn add(&self, all: &mut Vec<Resource>, resource: Resource) -> Result<(), RenderError> {
        let (id, place) = (resource.id(), resource.place);
        append(all, resource).map_err(|first| {
            let (text, before) = (&self.texts[place.text], &self.texts[all[first].place.text]);
            let error = text.error(place, &[], format!("`{id}` is declared twice"));
            error.with_related_in(&before.path, &before.content, all[first].place.line, 1, "first declared here").into()
        })
    }

    fn configurations(&mut self, current: &Current, built: &mut Built) -> Result<(), RenderError> {
        for (index, name) in current.file.fields.configurations.iter().enumerate() {
            let path = self.place_of(current, "configurations", index, name)?;
            let text = self.reader.text(&path, MAX_FILE_BYTES)?;
            let text = text.ok_or_else(|| current.at("configurations", index, format!("there is no file `{path}`")))?;
            let document = yaml::single(&path, text.as_bytes())?;
            let tables: Tables = serde_json::from_value(document.value)
                .map_err(|error| SourceError::new(&path, &text, document.line, 1, error.to_string()))?;
            let merged = Arc::make_mut(&mut built.tables).merge(&tables);
            merged.map_err(|message| current.at("configurations", index, message))?;
        }
        Ok(())
    }

    fn generators(&mut self, current: &Current, built: &mut Built) -> Result<(), RenderError> {
        let fields = &current.file.fields;
        for (kind, field, generators) in [
            (Kind::ConfigMap, "configMapGenerator", &fields.config_map_generator),
            (Kind::Secret, "secretGenerator", &fields.secret_generator),
        ] {
            let lines = yaml::item_lines(&current.file.text, 0, field);
            for (index, generator) in generators.iter().enumerate() {
                let options = GeneratorOptions::merged(generator.options.as_ref(), fields.generator_options.as_ref());
                let mut load = |name: &str| -> Result<Vec<u8>, Failure> {
                    let path = path::join(&current.directory, name)
                        .map_err(|_| format!("`{name}` leads out of the repository"))?;
                    let content = self.reader.file(&path, MAX_FILE_BYTES).map_err(Failure::Render)?;
                    Ok(content.ok_or_else(|| format!("there is no file `{path}`"))?.to_vec())
                };
                let place = current.place(lines.get(index).copied().unwrap_or(1));
                let made =
                    generate::resource(kind, generator, &options, place, &mut load).map_err(
                        |failure| match failure {
                            Failure::Said(message) => current.at(field, index, message),
                            Failure::Render(error) => error,
                        },
                    )?;
                generate::absorb(&mut built.resources, made).map_err(|message| current.at(field, index, message))?;
            }
        }
        Ok(())
    }

    fn transform(&mut self, current: &Current, built: &mut Built) -> Result<(), RenderError> {
        let fields = &current.file.fields;
        let tables = built.tables.clone();
        let all = &mut built.resources;
        let whole = |field: &str, message: String| current.error(&[field.into()], message);

        for (index, text) in fields.patches_strategic_merge.iter().enumerate() {
            let field = "patchesStrategicMerge";
            let entry = if text.contains('\n') || text.trim_start().starts_with('{') {
                PatchEntry { patch: text.clone(), ..PatchEntry::default() }
            } else {
                PatchEntry { path: text.clone(), ..PatchEntry::default() }
            };
            self.patch(current, field, index, &entry)?.apply(all, None).map_err(|m| current.at(field, index, m))?;
        }
        for (index, entry) in fields.patches.iter().enumerate() {
            let patch = self.patch(current, "patches", index, entry)?;
            patch.apply(all, entry.target.as_ref()).map_err(|message| current.at("patches", index, message))?;
            self.check_unique(current, "patches", index, all)?;
        }
        let namespace = self.namespace.filter(|_| self.above.len() == 1);
        let namespace = namespace.unwrap_or(&fields.namespace);
        if !namespace.is_empty() {
            transform::namespace(all, namespace, &tables).map_err(|message| whole("namespace", message))?;
        }
        for (field, side, text) in [
            ("namePrefix", transform::Affix::Prefix, &fields.name_prefix),
            ("nameSuffix", transform::Affix::Suffix, &fields.name_suffix),
        ] {
            if !text.is_empty() {
                transform::affix(all, side, text, &tables).map_err(|message| whole(field, message))?;
            }
        }
        for (index, labels) in fields.labels.iter().enumerate() {
            transform::label_fields(labels, &tables)
                .and_then(|specs| transform::entries(all, labels.pairs.iter(), &specs))
                .map_err(|message| current.at("labels", index, message))?;
        }
        transform::entries(all, fields.common_labels.iter(), &tables.common_labels)
            .map_err(|message| whole("commonLabels", message))?;
        transform::entries(all, fields.common_annotations.iter(), &tables.common_annotations)
            .map_err(|message| whole("commonAnnotations", message))?;
        for (index, entry) in fields.patches_json6902.iter().enumerate() {
            let field = "patchesJson6902";
            if entry.target.as_ref().is_none_or(|target| target.name.is_empty()) {
                return Err(current.at(field, index, "a JSON patch needs a `target` with a name"));
            }
            let patch = self.patch(current, field, index, entry)?;
            patch.apply(all, entry.target.as_ref()).map_err(|message| current.at(field, index, message))?;
        }
        for (index, replica) in fields.replicas.iter().enumerate() {
            transform::replicas(all, replica, &tables).map_err(|message| current.at("replicas", index, message))?;
        }
        for (index, image) in fields.images.iter().enumerate() {
            transform::image(all, image, &tables).map_err(|message| current.at("images", index, message))?;
        }
        for (index, entry) in fields.replacements.iter().enumerate() {
            for replacement in self.replacements(current, index, entry)? {
                replace::apply(all, &replacement).map_err(|message| current.at("replacements", index, message))?;
            }
        }
        Ok(())
    }

    fn check_unique(&self, current: &Current, field: &str, index: usize, all: &[Resource]) -> Result<(), RenderError> {
        let mut seen = std::collections::HashSet::new();
        match all
            .iter()
            .map(|resource| resource.id().to_string() + &resource.gvk().group)
            .find(|id| !seen.insert(id.clone()))
        {
            Some(id) => Err(current.at(field, index, format!("after this patch two objects are `{id}`"))),
            None => Ok(()),
        }
    }

    fn patch(&self, current: &Current, field: &str, index: usize, entry: &PatchEntry) -> Result<Patch, RenderError> {
        let (name, text) = match (entry.patch.trim(), entry.path.as_str()) {
            ("", "") => return Err(current.at(field, index, "a patch needs `patch` or `path`")),
            (inline, "") => (current.file.path.clone(), inline.to_owned()),
            ("", path) => {
                let path = self.place_of(current, field, index, path)?;
                let Some(text) = self.reader.text(&path, MAX_FILE_BYTES)? else {
                    let message = format!("there is no file `{path}`{}", self.near(&path)?);
                    return Err(current.at(field, index, message));
                };
                (path, text)
            }
            _ => return Err(current.at(field, index, "`patch` and `path` exclude each other")),
        };
        // a patch is merged into what stands elsewhere: its own place is never told
        let patch = patch::read(&name, &text, entry.options.as_ref(), current.place(1));
        patch.map_err(|message| current.at(field, index, message))
    }

    /// An entry of `replacements`: itself, or what its file holds.
    fn replacements(
        &self,
        current: &Current,
        index: usize,
        entry: &Replacement,
    ) -> Result<Vec<Replacement>, RenderError> {
        if entry.path.is_empty() {
            return Ok(vec![entry.clone()]);
        }
        if entry.source.is_some() || !entry.targets.is_empty() {
            return Err(current.at("replacements", index, "`path` excludes `source` and `targets`"));
        }
        let path = self.place_of(current, "replacements", index, &entry.path)?;
        let text = self.reader.text(&path, MAX_FILE_BYTES)?;
        let text = text.ok_or_else(|| current.at("replacements", index, format!("there is no file `{path}`")))?;
        let document = yaml::single(&path, text.as_bytes())?;
        let read = match document.value {
            list @ serde_json::Value::Array(_) => serde_json::from_value(list),
            one => serde_json::from_value(one).map(|one| vec![one]),
        };
        read.map_err(|error| SourceError::new(&path, &text, document.line, 1, error.to_string()).into())
    }

    /// The last steps, once for all: hashes, references, and what stays in the repository.
    fn finish(&mut self, built: &mut Built) -> Result<Vec<Draft>, RenderError> {
        let all = &mut built.resources;
        let failed = |texts: &[Text], place: Place, message: String| -> RenderError {
            texts[place.text].error(place, &[], message).into()
        };
        for resource in all.iter_mut().filter(|resource| resource.needs_hash) {
            let hash = generate::hash(resource).map_err(|message| failed(self.texts, resource.place, message))?;
            resource.remember_id();
            let name = format!("{}-{hash}", resource.name());
            resource.set_name(&name);
        }
        names::fix(all, &built.tables).map_err(|(index, message)| failed(self.texts, all[index].place, message))?;
        let mut drafts = Vec::with_capacity(all.len());
        for resource in all.iter() {
            let value = resource.value().map_err(|message| failed(self.texts, resource.place, message))?;
            let local = resource.node.text_at(&["metadata", "annotations", LOCAL_CONFIG]);
            if local.is_none_or(|local| local == "false") {
                drafts.push(Draft { value, place: resource.place });
            }
        }
        Ok(drafts)
    }
}

/// An address rather than a path.
fn is_remote(name: &str) -> bool {
    name.contains("://") || name.starts_with("git@") || name.contains("?ref=") || name.starts_with("github.com/")
}
