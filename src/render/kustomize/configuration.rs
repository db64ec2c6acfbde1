//! What a kustomization says about kinds and fields: `openapi`, `configurations`, `crds`, `vars`.

use std::sync::Arc;

use super::build::{Build, Built};
use super::crds;
use super::current::Current;
use super::field_spec::Tables;
use super::folded;
use super::steps::Asked;
use super::vars::{Var, declare};
use crate::manifest::SourceError;
use crate::manifest::yaml;
use crate::render::error::RenderError;

impl Build<'_> {
    /// The first schema that is named is that of the whole build, as in kustomize.
    pub(super) fn openapi(&mut self, current: &Current) -> Result<(), RenderError> {
        let Some(openapi) = &current.file.fields.openapi else { return Ok(()) };
        let asked = Asked::Field("openapi");
        let text = match &openapi.path {
            Some(path) => Some(self.beside(current, asked, path)?.1),
            None => None,
        };
        let chosen = self.schema.choose(openapi.version.as_deref(), text.as_deref());
        chosen.map_err(|message| self.failed(current, asked, message))
    }

    pub(super) fn configurations(&mut self, current: &Current, built: &mut Built) -> Result<(), RenderError> {
        for (index, name) in current.file.fields.configurations.iter().enumerate() {
            let (path, text) = self.beside(current, Asked::Entry("configurations", index), name)?;
            let document = yaml::single(&path, text.as_bytes())?;
            let tables: Tables = folded::read(document.value)
                .map_err(|error| SourceError::new(&path, &text, document.line, 1, error.to_string()))?;
            let merged = Arc::make_mut(&mut built.tables).merge(&tables);
            merged.map_err(|message| current.at("configurations", index, message))?;
        }
        Ok(())
    }

    pub(super) fn crds(&mut self, current: &Current, built: &mut Built) -> Result<(), RenderError> {
        for (index, name) in current.file.fields.crds.iter().enumerate() {
            let asked = Asked::Entry("crds", index);
            let (path, text) = self.beside(current, asked, name)?;
            let failed = |message: String| self.failed(current, asked, format!("`{path}`: {message}"));
            let tables = crds::tables(&text).map_err(failed)?;
            Arc::make_mut(&mut built.tables).merge(&tables).map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn vars(&self, current: &Current, built: &mut Built) -> Result<(), RenderError> {
        for (index, var) in current.file.fields.vars.iter().enumerate() {
            let failed = |message: String| current.at("vars", index, message);
            if var.name.is_empty() {
                return Err(failed("a variable needs a `name`".into()));
            }
            var.bind(&mut built.resources).map_err(failed)?;
            declare(&mut built.vars, Var { declared: (current.text, index), ..var.clone() }).map_err(failed)?;
        }
        Ok(())
    }
}
