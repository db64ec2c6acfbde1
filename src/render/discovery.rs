//! Which files of a tree an application is made of, and what they hold.

use super::error::RenderError;
use super::files::{is_file, is_yaml, kustomization_file};
use super::objects::{self, Draft, Text};
use super::reader::Reader;
use super::settings::{self, Mode, SETTINGS_FILE};
use super::{MAX_OBJECTS, Request, check_cancelled, kustomize, path, template};
use crate::manifest::yaml::MAX_FILE_BYTES;
use crate::manifest::{Entry, EntryKind, SourceError};

/// Directories below the path of an application.
const MAX_DIRECTORY_DEPTH: usize = 64;

/// What the path of an application holds, in a stable order.
#[derive(Default)]
pub(super) struct Found {
    pub texts: Vec<Text>,
    pub drafts: Vec<Draft>,
    /// The target namespace is written already: kustomize has its own way.
    pub in_target_namespace: bool,
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
    Walk { request, reader, found: &mut found }.directory(&directory, 0)?;
    Ok(found)
}

struct Walk<'a> {
    request: &'a Request<'a>,
    reader: &'a Reader<'a>,
    found: &'a mut Found,
}

impl Walk<'_> {
    /// A directory as its settings say, or every YAML file in it and below, as Flux generates a kustomization.
    /// Symlinks to directories aren't followed, as in Flux.
    fn directory(&mut self, directory: &str, depth: usize) -> Result<(), RenderError> {
        check_cancelled(self.request)?;
        if depth > MAX_DIRECTORY_DEPTH {
            return Err(RenderError::TooDeep { path: directory.to_owned(), limit: MAX_DIRECTORY_DEPTH });
        }
        let entries = self.reader.list(directory)?;
        if entries.iter().any(|entry| entry.name == SETTINGS_FILE && is_file(entry)) {
            let settings = settings::read(self.reader, directory)?;
            if settings.mode == Mode::Template {
                for text in template::render(self.request, self.reader, &settings)? {
                    self.text(text)?;
                }
                return Ok(());
            }
        } else if kustomization_file(&entries).is_some() {
            // below the path, it is one of the resources of the kustomization that Flux would generate
            let namespace = self.request.target_namespace.filter(|_| depth == 0);
            self.found.in_target_namespace = depth == 0;
            let drafts = kustomize::build(self.request, self.reader, directory, namespace, &mut self.found.texts)?;
            self.found.drafts.extend(drafts);
            return Ok(());
        }
        for entry in entries {
            let path = path::child(directory, &entry.name);
            match entry.kind {
                EntryKind::Directory => self.directory(&path, depth + 1)?,
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
            Some(content) => self.text(Text { path: path.into(), content, is_rendered: false })?,
            None if self.reader.resolve(&path)?.is_none() => {
                return Err(SourceError::whole_file(&path, "this symlink leads to nothing").into());
            }
            // A directory with such a name holds no manifests by itself.
            None => {}
        }
        Ok(())
    }

    fn text(&mut self, text: Text) -> Result<(), RenderError> {
        check_cancelled(self.request)?;
        objects::read(self.found.texts.len(), &text, &mut self.found.drafts)?;
        self.found.texts.push(text);
        if self.found.drafts.len() > MAX_OBJECTS {
            return Err(RenderError::TooManyObjects { limit: MAX_OBJECTS });
        }
        Ok(())
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
