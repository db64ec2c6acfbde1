//! The kustomization at work, and where the names in it lead: a file or a directory of the repository, or one of another
//! repository. Comes in: a name as it is written. Goes out: a path in the tree, with what is told of where it came from. No
//! name leads out of the repository, and none leads back to a directory that led here.

use super::build::Build;
use super::file::File;
use super::origin::Origin;
use super::remote::{self, RemoteBase};
use crate::manifest::SourceError;
use crate::manifest::yaml::{MAX_FILE_BYTES, PathSegment};
use crate::render::error::RenderError;
use crate::render::files::{KUSTOMIZATION_FILES, is_file, kustomization_file};
use crate::render::objects::Place;
use crate::render::path;

/// What to do about a directory without a kustomization.
pub(super) const NAME_FILES: &str = "name its files one by one, or give it a kustomization.yaml";
/// What to do about a base in another repository.
const VENDOR: &str = "copy it into the repository, for example with `git subtree add`; or pin a directory of a Git \
                      repository (`https://host/org/repo//path?ref=<commit or tag>`, also by `ssh://`) and give \
                      --allow-remote-bases";

/// The file at work, and its index among the texts.
pub(super) struct Current {
    pub(super) file: File,
    pub(super) text: usize,
    pub(super) directory: String,
    pub(super) origin: Origin,
}

impl Current {
    pub(super) fn error(&self, at: &[PathSegment], message: impl Into<String>) -> RenderError {
        self.file.error(at, message).into()
    }

    /// An entry of one of its lists.
    pub(super) fn at(&self, field: &str, index: usize, message: impl Into<String>) -> RenderError {
        self.error(&[field.into(), index.into()], message)
    }

    pub(super) fn place(&self, line: u32) -> Place {
        Place { text: self.text, document: 0, item: None, line }
    }

    /// Where one of its fields stands.
    pub(super) fn line_of(&self, at: &[PathSegment]) -> u32 {
        self.file.locate(at).map_or(1, |(line, _)| line)
    }

    /// Where a name in it leads. What came from another repository leads nowhere out of that.
    pub(super) fn path_of(&self, name: &str) -> Result<String, String> {
        if ["https://", "http://"].iter().any(|scheme| name.starts_with(scheme)) {
            return Err(format!(
                "`{name}` is not in this repository, and files are not fetched: copy it into the repository"
            ));
        }
        let path = path::join(&self.directory, name).ok();
        let stays = path.filter(|path| remote::mount_of(path) == remote::mount_of(&self.directory));
        stays.ok_or_else(|| format!("`{name}` leads out of the repository"))
    }

    pub(super) fn file_name(&self) -> &str {
        path::split(&self.file.path).1
    }
}

impl Build<'_> {
    /// The kustomization of a directory, if it has one.
    pub(super) fn open(&mut self, directory: &str, origin: Origin) -> Result<Option<Current>, RenderError> {
        let entries = self.reader.list(directory)?;
        let names: Vec<&str> = entries.iter().filter(|e| is_file(e)).map(|e| e.name.as_str()).collect();
        let Some(name) = kustomization_file(&entries) else { return Ok(None) };
        let path = path::child(directory, name);
        let text = self.reader.text(&path, MAX_FILE_BYTES)?.unwrap_or_default();
        if let Some(other) = KUSTOMIZATION_FILES.iter().find(|other| **other != name && names.contains(*other)) {
            let message = format!("beside it there is a kustomization called `{other}`");
            return Err(SourceError::new(&path, &text, 1, 1, message).into());
        }
        let file = File::read(&path, text, &self.budget)?;
        let text = self.text(&path, file.text.clone());
        Ok(Some(Current { file, text, directory: directory.to_owned(), origin }))
    }

    /// The kustomization of a directory that an entry of a list names.
    pub(super) fn open_named(
        &mut self,
        current: &Current,
        field: &str,
        index: usize,
        directory: &str,
        origin: Origin,
    ) -> Result<Current, RenderError> {
        let named = self.open(directory, origin)?.ok_or_else(|| {
            let message = format!("`{directory}` has no kustomization file");
            current.file.error(&[field.into(), index.into()], message).with_hint(NAME_FILES)
        })?;
        match named.file.is_empty {
            true => {
                Err(SourceError::new(&named.file.path, &named.file.text, 1, 1, "the kustomization is empty").into())
            }
            false => Ok(named),
        }
    }

    /// Where a name in a kustomization leads; it may not lead out of the repository.
    pub(super) fn place_of(
        &self,
        current: &Current,
        field: &str,
        index: usize,
        name: &str,
    ) -> Result<String, RenderError> {
        current.path_of(name).map_err(|message| current.at(field, index, message))
    }

    /// Where a file or a directory is, also one of another repository, and what is told of where it came from.
    pub(super) fn target(
        &self,
        current: &Current,
        field: &str,
        index: usize,
        name: &str,
    ) -> Result<(String, Origin), RenderError> {
        let base = match RemoteBase::parse(name) {
            None => return Ok((self.place_of(current, field, index, name)?, current.origin.join(name))),
            Some(Ok(base)) => base,
            Some(Err(why)) => {
                let message = format!("`{name}` is not in this repository: {why}");
                return Err(current.file.error(&[field.into(), index.into()], message).with_hint(VENDOR).into());
            }
        };
        let mount = base.mount();
        if self.reader.resolve(&mount)?.is_none() {
            let message = format!("`{name}` is not in this repository");
            let error = current.file.error(&[field.into(), index.into()], message).with_hint(VENDOR);
            return Err(RenderError::RemoteBase { base: Box::new(base), error: Box::new(error) });
        }
        let origin = Origin {
            path: base.path.clone(),
            repo: base.url.clone(),
            reference: base.pin.text().to_owned(),
            ..Origin::default()
        };
        Ok((if base.path.is_empty() { mount } else { format!("{mount}/{}", base.path) }, origin))
    }

    pub(super) fn check_circle(
        &self,
        current: &Current,
        field: &str,
        index: usize,
        target: &str,
    ) -> Result<(), RenderError> {
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

    /// The names that a missing one may have been meant for.
    pub(super) fn near(&self, target: &str) -> Result<String, RenderError> {
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
}
