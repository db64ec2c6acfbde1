//! From a directory to its objects: what a kustomization names, in the order in which kustomize takes it.

use std::collections::HashMap;
use std::sync::Arc;

use super::budget::{Budget, MADE_BYTES_MAX};
use super::current::{Current, NAME_FILES};
use super::field_spec::Tables;
use super::file::{Generator, GeneratorOptions};
use super::generate::{self, Failure, Kind};
use super::merge_keys::Schema;
use super::origin::{self, Origin};
use super::resource::{Names, Resource};
use super::steps::Asked;
use super::vars::{Problem, Var};
use super::{names, sort, spec, transform, vars};
use crate::manifest::yaml::{MAX_FILE_BYTES, PathSegment};
use crate::manifest::{EntryKind, SourceError};
use crate::render::error::RenderError;
use crate::render::objects::{Draft, Place, Text};
use crate::render::reader::{Reader, Resolved};
use crate::render::{MAX_OBJECTS, Request, check_cancelled, path};

/// Directories that lead to one another.
const DEPTH_MAX: usize = 32;
/// Objects of this annotation are for those who read the repository.
const LOCAL_CONFIG: &str = "config.kubernetes.io/local-config";

/// Builds a directory with what the Kustomization object adds to it. Its texts are added to `texts`.
pub fn build(
    request: &Request<'_>,
    reader: &Reader<'_>,
    directory: &str,
    texts: &mut Vec<Text>,
) -> Result<Vec<Draft>, RenderError> {
    let mut build = Build::new(request, reader, texts);
    let drafts = build.root(directory);
    build.stopped_or(drafts)
}

/// What a directory without a kustomization holds.
pub enum Item {
    /// The index of a text of manifests.
    Text(usize),
    /// A directory that has a kustomization.
    Directory(String),
}

/// Builds a directory without a kustomization as if it had one that names all of `items`.
pub fn build_generated(
    request: &Request<'_>,
    reader: &Reader<'_>,
    directory: &str,
    items: &[Item],
    texts: &mut Vec<Text>,
) -> Result<Vec<Draft>, RenderError> {
    let mut build = Build::new(request, reader, texts);
    let drafts = build.generated_root(directory, items);
    build.stopped_or(drafts)
}

pub(super) struct Build<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) reader: &'a Reader<'a>,
    pub(super) texts: &'a mut Vec<Text>,
    /// Files among the texts, by path.
    text_of: HashMap<String, usize>,
    /// The directories that led here, the root first.
    pub(super) above: Vec<String>,
    /// How lists merge.
    pub(super) schema: Schema,
    /// Whether the root wants to know what made and changed each object.
    pub(super) is_tracked: bool,
    pub(super) budget: Budget<'a>,
}

/// What a directory came to, or what a component goes on from.
pub(super) struct Built {
    pub(super) resources: Vec<Resource>,
    pub(super) tables: Arc<Tables>,
    /// No name twice.
    pub(super) vars: Vec<Var>,
}

impl Built {
    pub(super) fn empty() -> Self {
        Self { resources: Vec::new(), tables: Tables::defaults(), vars: Vec::new() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What is built may be any of them.
    Either,
    Kustomization,
    Component,
}

impl<'a> Build<'a> {
    fn new(request: &'a Request<'a>, reader: &'a Reader<'a>, texts: &'a mut Vec<Text>) -> Self {
        Self {
            request,
            reader,
            texts,
            text_of: HashMap::new(),
            above: Vec::new(),
            schema: Schema::default(),
            is_tracked: false,
            budget: Budget::new(request.cancelled, MADE_BYTES_MAX),
        }
    }
}

impl Build<'_> {
    fn root(&mut self, directory: &str) -> Result<Vec<Draft>, RenderError> {
        let root = self.open(directory, Origin::default())?;
        let mut root = root.ok_or_else(|| {
            let message = "there is no kustomization file in this directory";
            SourceError::whole_file(directory, message).with_hint(NAME_FILES)
        })?;
        check_order(&root)?;
        self.overlay(&mut root)?;
        let mut built = self.directory(&root, None, Wanted::Either)?;
        self.finish(&root, &mut built)
    }

    fn generated_root(&mut self, directory: &str, items: &[Item]) -> Result<Vec<Draft>, RenderError> {
        let file = spec::generated(directory);
        let text = self.text(&file.path, String::new());
        let mut root = Current { file, text, directory: directory.to_owned(), origin: Origin::default() };
        self.overlay(&mut root)?;
        let mut built = self.assemble(&root, Built::empty(), items)?;
        self.finish(&root, &mut built)
    }

    /// What stopped a build says more than where it was stopped.
    fn stopped_or<T>(&self, result: Result<T, RenderError>) -> Result<T, RenderError> {
        result.map_err(|error| self.budget.stopped().unwrap_or(error))
    }

    /// What stopped a build, or the error, whose place is looked for only then.
    pub(super) fn stopped_or_else(&self, error: impl FnOnce() -> RenderError) -> RenderError {
        self.budget.stopped().unwrap_or_else(error)
    }

    /// Writes what the Kustomization object adds into the kustomization at the root.
    fn overlay(&mut self, root: &mut Current) -> Result<(), RenderError> {
        let directory = &root.directory;
        // a path that leads out is an error of its own later
        let exists = |component: &str| match path::join(directory, component) {
            Ok(target) => Ok(self.reader.resolve(&target)?.is_some()),
            Err(_) => Ok::<_, RenderError>(true),
        };
        spec::merge(&self.request.overlay, &mut root.file, exists)?;
        self.is_tracked = !root.file.fields.build_metadata.is_empty();
        Ok(())
    }

    /// `onto`: what a component goes on from.
    pub(super) fn directory(
        &mut self,
        current: &Current,
        onto: Option<Built>,
        wanted: Wanted,
    ) -> Result<Built, RenderError> {
        check_cancelled(self.request)?;
        if self.above.len() >= DEPTH_MAX {
            return Err(RenderError::TooDeep { path: current.directory.clone(), limit: DEPTH_MAX });
        }
        let misplaced = match (wanted, current.file.is_component()) {
            (Wanted::Kustomization, true) => Some("a Component can't be a resource: name it in `components`"),
            (Wanted::Component, false) => Some("a Kustomization can't be a component: its kind must be Component"),
            _ => None,
        };
        if let Some(message) = misplaced {
            return Err(current.error(&["kind".into()], message));
        }
        self.assemble(current, onto.unwrap_or_else(Built::empty), &[])
    }

    /// What a kustomization makes of itself, and of what it goes on from. `items` are resources besides those it names.
    fn assemble(&mut self, current: &Current, mut built: Built, items: &[Item]) -> Result<Built, RenderError> {
        self.above.push(current.directory.clone());
        self.openapi(current)?;
        let mut names = Names::default();
        for item in items {
            check_cancelled(self.request)?;
            for resource in self.item(current, item, &mut built)? {
                self.add(&mut names, &mut built.resources, resource)?;
            }
        }
        self.resources(current, &mut built)?;
        self.configurations(current, &mut built)?;
        self.crds(current, &mut built)?;
        self.generators(current, &mut built)?;
        self.external_generators(current, &mut built)?;
        for (index, name) in current.file.fields.components.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let (target, origin) = self.target(current, "components", index, name)?;
            let found = self.reader.resolve(&target)?.filter(|found| found.kind == EntryKind::Directory);
            let Some(Resolved { path: target, .. }) = found else {
                let message = format!("there is no directory `{target}`{}", self.near(&target)?);
                return Err(current.at("components", index, message));
            };
            self.check_circle(current, "components", index, &target)?;
            let component = self.open_named(current, "components", index, &target, origin)?;
            built = self.directory(&component, Some(built), Wanted::Component)?;
        }
        let mut steps = self.steps(current, &built.tables)?;
        steps.extend(self.transformers(current)?);
        self.run(current, &steps, &mut built.resources)?;
        self.validate(current, &built.resources)?;
        self.vars(current, &mut built)?;
        self.above.pop();
        if built.resources.len() > MAX_OBJECTS {
            return Err(RenderError::TooManyObjects { limit: MAX_OBJECTS });
        }
        Ok(built)
    }

    pub(super) fn text_at(&self, place: Place) -> &Text {
        &self.texts[place.text]
    }

    pub(super) fn text(&mut self, path: &str, content: String) -> usize {
        if let Some(index) = self.text_of.get(path) {
            return *index;
        }
        self.texts.push(Text { path: path.into(), content, is_rendered: false });
        let index = self.texts.len() - 1;
        self.text_of.insert(path.to_owned(), index);
        index
    }

    fn generators(&mut self, current: &Current, built: &mut Built) -> Result<(), RenderError> {
        let fields = &current.file.fields;
        for (kind, field, generators) in [
            (Kind::ConfigMap, "configMapGenerator", &fields.config_map_generator),
            (Kind::Secret, "secretGenerator", &fields.secret_generator),
        ] {
            for (index, generator) in generators.iter().enumerate() {
                let options = GeneratorOptions::merged(generator.options.as_ref(), fields.generator_options.as_ref());
                let mut made = self.generated(current, Asked::Entry(field, index), kind, generator, &options)?;
                if self.is_tracked {
                    let kind = format!("{}Generator", kind.name());
                    current.origin.by_field(current.file_name(), &kind).note_unless_known(&mut made);
                }
                generate::absorb(&mut built.resources, made).map_err(|message| current.at(field, index, message))?;
            }
        }
        Ok(())
    }

    pub(super) fn generated(
        &self,
        current: &Current,
        asked: Asked,
        kind: Kind,
        generator: &Generator,
        options: &GeneratorOptions,
    ) -> Result<Resource, RenderError> {
        let mut load = |name: &str, format| -> Result<Vec<u8>, Failure> {
            let path = current.path_of(name)?;
            let content = self.reader.file(&path, MAX_FILE_BYTES).map_err(Failure::Render)?;
            let content = content.ok_or_else(|| format!("there is no file `{path}`"))?.to_vec();
            match kind {
                Kind::ConfigMap => Ok(content),
                Kind::Secret => self.reader.decrypted(&path, content, format).map_err(Failure::Render),
            }
        };
        let place = self.place_asked(current, asked);
        generate::resource(kind, generator, options, place, &mut load).map_err(|failure| match failure {
            Failure::Said(message) => self.failed(current, asked, message),
            Failure::Render(error) => error,
        })
    }

    /// The last steps, once for all: hashes, references, and what stays in the repository.
    fn finish(&self, root: &Current, built: &mut Built) -> Result<Vec<Draft>, RenderError> {
        let all = &mut built.resources;
        let failed = |place: Place, message: String| {
            self.stopped_or_else(|| self.texts[place.text].error(place, &[], message).into())
        };
        for resource in all.iter_mut() {
            let hashed = self.budget.go_on().and_then(|()| transform::add_hash(resource));
            hashed.map_err(|message| failed(resource.place, message))?;
        }
        if let Some(options) = &root.file.fields.sort_options {
            sort::sort(all, options);
        }
        let fixed = names::fix(all, &built.tables, &self.budget);
        fixed.map_err(|(index, message)| failed(all[index].place, message))?;
        built.vars.sort_by(|a, b| a.name.cmp(&b.name));
        vars::resolve(all, &built.vars, &built.tables.var_reference).map_err(|problem| match problem {
            Problem::Resource(index, message) => failed(all[index].place, message),
            Problem::Var(index, message) => {
                let (text, index) = built.vars[index].declared;
                let place = Place { text, document: 0, item: None, line: 1 };
                self.texts[text].error(place, &["vars".into(), index.into()], message).into()
            }
        })?;
        origin::finish(&root.file.fields, all);
        let mut drafts = Vec::with_capacity(all.len());
        for resource in all.iter() {
            let written = self.budget.go_on().and_then(|()| resource.written());
            let value = written.map_err(|message| failed(resource.place, message))?;
            let local = resource.node.text_at(&["metadata", "annotations", LOCAL_CONFIG]);
            if local.is_none_or(|local| local == "false") {
                drafts.push(Draft { value, place: resource.place });
            }
        }
        Ok(drafts)
    }
}

/// Objects are applied in an order of their own, but what the root asks for must make sense.
fn check_order(current: &Current) -> Result<(), RenderError> {
    let Some(options) = &current.file.fields.sort_options else { return Ok(()) };
    let path = |field: &str| [PathSegment::from("sortOptions"), field.into()];
    match options.order.as_str() {
        "legacy" => Ok(()),
        "fifo" if options.legacy_sort_options.is_some() => {
            Err(current.error(&path("legacySortOptions"), "`legacySortOptions` go with the order `legacy`"))
        }
        "fifo" => Ok(()),
        other => Err(current.error(&path("order"), format!("order `{other}` is neither `fifo` nor `legacy`"))),
    }
}
