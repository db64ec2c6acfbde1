//! Which files of a tree an application is made of, and what they hold.

use super::error::RenderError;
use super::files::{is_file, is_yaml, kustomization_file};
use super::kustomize::{self, Item};
use super::objects::{self, Draft, Text};
use super::reader::Reader;
use super::settings::{self, Mode, SETTINGS_FILE};
use super::{MAX_OBJECTS, Request, check_cancelled, path, template};
use crate::manifest::yaml::MAX_FILE_BYTES;
use crate::manifest::{Entry, EntryKind, SourceError};

/// Directories below the path of an application.
const MAX_DIRECTORY_DEPTH: usize = 64;

/// What the path of an application holds, in a stable order, with what the Kustomization object adds to it.
#[derive(Default)]
pub(super) struct Found {
    pub texts: Vec<Text>,
    pub drafts: Vec<Draft>,
}

pub(super) fn read(request: &Request<'_>, reader: &Reader<'_>) -> Result<Found, RenderError> {
    let wanted = path::clean(request.path).map_err(|_| RenderError::PathEscapes { path: request.path.to_owned() })?;
    let directory = match reader.resolve(&wanted)? {
        Some(resolved) if resolved.kind == EntryKind::Directory => resolved.path,
        Some(resolved) if resolved.kind == EntryKind::Submodule => {
            return Err(RenderError::Submodule { path: resolved.path });
        }
        Some(_) => return Err(RenderError::NotADirectory { path: wanted }),
        None => return Err(not_found(reader, wanted)?),
    };
    let mut found = Found::default();
    let entries = reader.list(&directory)?;
    let has_settings = entries.iter().any(|entry| entry.name == SETTINGS_FILE && is_file(entry));
    if !has_settings && kustomization_file(&entries).is_some() {
        found.drafts = kustomize::build(request, reader, &directory, &mut found.texts)?;
        return Ok(found);
    }
    let mut walk = Walk { request, reader, texts: Vec::new(), items: Vec::new() };
    walk.directory(&directory, entries, 0)?;
    let Walk { texts, items, .. } = walk;
    found.texts = texts;
    let only_texts = items.iter().all(|item| matches!(item, Item::Text(_)));
    if !only_texts || !request.overlay.is_empty() {
        found.drafts = kustomize::build_generated(request, reader, &directory, &items, &mut found.texts)?;
        return Ok(found);
    }
    // nothing is left to kustomize: what it names is what comes out
    for (index, text) in found.texts.iter().enumerate() {
        check_cancelled(request)?;
        let read = objects::read(index, text, request.cancelled, &mut found.drafts);
        check_cancelled(request)?;
        read?;
        if found.drafts.len() > MAX_OBJECTS {
            return Err(RenderError::TooManyObjects { limit: MAX_OBJECTS });
        }
    }
    Ok(found)
}

/// Gathers what the kustomization that Flux generates would name.
struct Walk<'a> {
    request: &'a Request<'a>,
    reader: &'a Reader<'a>,
    texts: Vec<Text>,
    items: Vec<Item>,
}

impl Walk<'_> {
    /// A directory as its settings say, or every YAML file in it and below, as Flux generates a kustomization.
    /// Symlinks to directories aren't followed, as in Flux.
    fn directory(&mut self, directory: &str, entries: Vec<Entry>, depth: usize) -> Result<(), RenderError> {
        check_cancelled(self.request)?;
        if depth > MAX_DIRECTORY_DEPTH {
            return Err(RenderError::TooDeep { path: directory.to_owned(), limit: MAX_DIRECTORY_DEPTH });
        }
        if entries.iter().any(|entry| entry.name == SETTINGS_FILE && is_file(entry)) {
            let settings = settings::read(self.reader, directory)?;
            if settings.mode == Mode::Template {
                template::render(self.request, self.reader, &settings)?.into_iter().for_each(|text| self.text(text));
                return Ok(());
            }
        } else if depth > 0 && kustomization_file(&entries).is_some() {
            self.items.push(Item::Directory(directory.to_owned()));
            return Ok(());
        }
        for entry in entries {
            let path = path::child(directory, &entry.name);
            match entry.kind {
                EntryKind::Directory => self.directory(&path, self.reader.list(&path)?, depth + 1)?,
                _ if is_file(&entry) && is_yaml(&entry.name) && entry.name != SETTINGS_FILE => {
                    self.file(path, &entry)?
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, path: String, entry: &Entry) -> Result<(), RenderError> {
        check_cancelled(self.request)?;
        match self.reader.listed(&path, entry, MAX_FILE_BYTES)? {
            Some(content) => self.text(Text { path: path.into(), content, is_rendered: false }),
            None if self.reader.resolve(&path)?.is_none() => {
                return Err(SourceError::whole_file(&path, "this symlink leads to nothing").into());
            }
            // A directory with such a name holds no manifests by itself.
            None => {}
        }
        Ok(())
    }

    fn text(&mut self, text: Text) {
        self.items.push(Item::Text(self.texts.len()));
        self.texts.push(text);
    }
}

fn not_found(reader: &Reader<'_>, wanted: String) -> Result<RenderError, RenderError> {
    let mut parent = wanted.as_str();
    loop {
        parent = path::split(parent).0;
        if let Some(resolved) = reader.resolve(parent)?.filter(|resolved| resolved.kind == EntryKind::Directory) {
            let entries = reader.list(&resolved.path)?;
            let names = entries.into_iter().filter(|e| e.kind == EntryKind::Directory).map(|e| e.name).collect();
            let parent = parent.to_owned();
            return Ok(RenderError::PathNotFound { path: wanted, parent, names });
        }
        if parent.is_empty() {
            return Ok(RenderError::PathNotFound { path: wanted, parent: String::new(), names: Vec::new() });
        }
    }
}
