//! What the entries of `resources` and `bases` come to: the objects of files, of lists in them, of templates and of other
//! kustomizations, each with its place. Never changes any of them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::build::{Build, Built, Item, Wanted};
use super::current::Current;
use super::node::{self, Node};
use super::origin::Origin;
use super::resource::{Names, Resource};
use super::vars::declare;
use crate::manifest::EntryKind;
use crate::manifest::yaml::MAX_FILE_BYTES;
use crate::render::error::RenderError;
use crate::render::files::is_file;
use crate::render::objects::Place;
use crate::render::settings::{self, Mode, SETTINGS_FILE};
use crate::render::{MAX_OBJECTS, template};

impl Build<'_> {
    pub(super) fn resources(&mut self, current: &Current, built: &mut Built) -> Result<(), RenderError> {
        let fields = &current.file.fields;
        let mut names = Names::of(&built.resources);
        for (field, list) in [("resources", &fields.resources), ("bases", &fields.bases)] {
            for (index, name) in list.iter().enumerate() {
                for resource in self.resource(current, field, index, name, built)? {
                    self.add(&mut names, &mut built.resources, resource)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn item(
        &mut self,
        current: &Current,
        item: &Item,
        built: &mut Built,
    ) -> Result<Vec<Resource>, RenderError> {
        let below = |path: &str| path.strip_prefix(&current.directory).unwrap_or(path).trim_matches('/').to_owned();
        match item {
            Item::Text(index) => {
                let origin = current.origin.join(&below(&self.texts[*index].path));
                self.documents(*index, &origin)
            }
            Item::Directory(base) => self.base(current, "resources", 0, base, current.origin.join(&below(base)), built),
        }
    }

    /// What one entry of `resources` or `bases` names.
    pub(super) fn resource(
        &mut self,
        current: &Current,
        field: &str,
        index: usize,
        name: &str,
        built: &mut Built,
    ) -> Result<Vec<Resource>, RenderError> {
        let (target, origin) = self.target(current, field, index, name)?;
        match self.reader.resolve(&target)? {
            Some(found) if found.kind == EntryKind::Directory => {
                self.check_circle(current, field, index, &found.path)?;
                self.base(current, field, index, &found.path, origin, built)
            }
            Some(found) if found.kind == EntryKind::Submodule => Err(RenderError::Submodule { path: found.path }),
            Some(_) => self.file(&target, &origin),
            None => {
                let message = format!("there is no file or directory `{target}`{}", self.near(&target)?);
                Err(current.at(field, index, message))
            }
        }
    }

    /// A directory among the resources: another kustomization, or a folder of templates.
    fn base(
        &mut self,
        current: &Current,
        field: &str,
        index: usize,
        directory: &str,
        origin: Origin,
        built: &mut Built,
    ) -> Result<Vec<Resource>, RenderError> {
        let entries = self.reader.list(directory)?;
        if entries.iter().any(|entry| entry.name == SETTINGS_FILE && is_file(entry)) {
            let settings = settings::read(self.reader, directory)?;
            if settings.mode == Mode::Template {
                let mut resources = Vec::new();
                for text in template::render(self.request, self.reader, &settings)? {
                    let origin = Origin { path: text.path.to_string(), ..origin.clone() };
                    self.texts.push(text);
                    resources.extend(self.documents(self.texts.len() - 1, &origin)?);
                }
                return Ok(resources);
            }
        }
        let base = self.open_named(current, field, index, directory, origin)?;
        let base = self.directory(&base, None, Wanted::Kustomization)?;
        for var in base.vars {
            declare(&mut built.vars, var).map_err(|message| current.at(field, index, message))?;
        }
        if base.tables != built.tables {
            let merged = Arc::make_mut(&mut built.tables).merge(&base.tables);
            merged.map_err(|message| current.at(field, index, message))?;
        }
        Ok(base.resources)
    }

    fn file(&mut self, path: &str, origin: &Origin) -> Result<Vec<Resource>, RenderError> {
        let content = self.reader.text(path, MAX_FILE_BYTES)?.unwrap_or_default();
        let index = self.text(path, content);
        self.documents(index, origin)
    }

    fn documents(&mut self, index: usize, origin: &Origin) -> Result<Vec<Resource>, RenderError> {
        let text = &self.texts[index];
        let noted = |error| RenderError::from(text.noted(error));
        let mut resources = Vec::new();
        for document in node::documents(&text.path, text.content.as_bytes(), &self.budget).map_err(noted)? {
            let place = Place { text: index, document: document.index, item: None, line: document.line };
            let mut left = VecDeque::from([(document.node, place)]);
            while let Some((mut node, place)) = left.pop_front() {
                // any kind that is called a list and has items is one
                let is_list = node.text_at(&["kind"]).is_some_and(|kind| kind.ends_with("List"));
                let items = if is_list { node.remove("items") } else { None };
                match items {
                    Some(Node::List(items)) => {
                        let place = |item| Place { item: place.item.or(Some(item)), ..place };
                        let items = items.into_iter().enumerate().filter(|(_, node)| !node.is_null());
                        left.extend(items.map(|(item, node)| (node, place(item))));
                    }
                    Some(items) if items.is_null() => {}
                    Some(_) => {
                        return Err(text.error(place, &["items".into()], "the items of a list are a list").into());
                    }
                    None => {
                        crate::render::objects::check(&node.head(), place, text)?;
                        resources.push(Resource::new(node, place));
                    }
                }
            }
        }
        for resource in &mut resources {
            self.schema.met(resource);
            if self.is_tracked {
                origin.note(resource);
            }
        }
        Ok(resources)
    }

    pub(super) fn add(
        &self,
        names: &mut Names,
        all: &mut Vec<Resource>,
        resource: Resource,
    ) -> Result<(), RenderError> {
        if all.len() == MAX_OBJECTS {
            return Err(RenderError::TooManyObjects { limit: MAX_OBJECTS });
        }
        let (id, place) = (resource.id(), resource.place);
        names.append(all, resource).map_err(|first| {
            let first = all[first].place;
            let (text, before) = (&self.texts[place.text], &self.texts[first.text]);
            let message = format!("`{id}` is declared twice, first in {}:{}", before.path, first.line);
            let error = text.error(place, &[], message);
            error.with_related_in(&before.path, &before.content, first.line, 1, "first declared here").into()
        })
    }
}
