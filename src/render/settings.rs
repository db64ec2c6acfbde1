//! `afresh.yaml`: how the directory that it is in is rendered.
//!
//! ```yaml
//! render: template               # or plain: every YAML file in this directory and below
//! templates: ../../templates     # a directory or a file, or a list of them; default: this directory
//! values:                        # later files win: mappings are merged, all else is replaced, null removes a key
//! - ../../values/common.yaml
//! - values.yaml
//! environment: prod              # text for templates
//! ```

use serde_json::Value;

use super::error::RenderError;
use super::objects::describe;
use super::reader::Reader;
use super::{path, yaml};
use crate::manifest::SourceError;
use crate::manifest::yaml::PathSegment;

/// The file's name. It is never a manifest.
pub const SETTINGS_FILE: &str = "afresh.yaml";

/// Larger than anyone writes by hand.
const MAX_SETTINGS_BYTES: u64 = 64 << 10;
const KEYS: [&str; 4] = ["render", "templates", "values", "environment"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Template,
}

pub(super) struct Settings {
    pub mode: Mode,
    /// Inside the tree; the directory itself by default.
    pub templates: Vec<Reference>,
    pub values: Vec<Reference>,
    pub environment: Option<String>,
    path: String,
    content: String,
}

/// A path that the settings name.
pub(super) struct Reference {
    /// From the root of the tree.
    pub path: String,
    at: Vec<PathSegment>,
}

impl Settings {
    /// An error at a path that the settings name.
    pub(super) fn error(&self, reference: &Reference, message: impl Into<String>) -> SourceError {
        error_at(&self.path, &self.content, &reference.at, message)
    }
}

pub(super) fn read(reader: &Reader<'_>, directory: &str) -> Result<Settings, RenderError> {
    let file = path::child(directory, SETTINGS_FILE);
    let content = reader.text(&file, MAX_SETTINGS_BYTES)?.unwrap_or_default();
    Ok(parse(directory, file, content)?)
}

fn parse(directory: &str, file: String, content: String) -> Result<Settings, SourceError> {
    let value = yaml::single(&file, content.as_bytes())?.value;
    let error = |at: &[PathSegment], message: String| error_at(&file, &content, at, message);
    let Value::Object(map) = value else {
        return Err(error(&[], format!("`{SETTINGS_FILE}` must be a mapping, not {}", describe(&value)))
            .with_hint("it begins with `render: template` or `render: plain`"));
    };
    if let Some(key) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(error(&[key.as_str().into()], format!("unknown key `{key}`"))
            .with_hint(format!("the keys are {}", KEYS.map(|key| format!("`{key}`")).join(", "))));
    }
    let mode = match map.get("render") {
        Some(Value::String(mode)) if mode == "template" => Mode::Template,
        Some(Value::String(mode)) if mode == "plain" => Mode::Plain,
        Some(_) => return Err(error(&["render".into()], "`render` must be `template` or `plain`".to_owned())),
        None => return Err(error(&[], "`render` is missing: `template` or `plain`".to_owned())),
    };
    if mode == Mode::Plain
        && let Some(key) = map.keys().find(|key| *key != "render")
    {
        return Err(error(&[key.as_str().into()], format!("`{key}` needs `render: template`")));
    }
    let references = |key: &str| -> Result<Vec<Reference>, SourceError> {
        let at = PathSegment::from(key);
        let texts: Vec<(Vec<PathSegment>, &Value)> = match map.get(key) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => {
                items.iter().enumerate().map(|(index, item)| (vec![at.clone(), index.into()], item)).collect()
            }
            Some(single) => vec![(vec![at], single)],
        };
        texts
            .into_iter()
            .map(|(at, value)| {
                let text = value.as_str().filter(|text| !text.is_empty());
                let text = text.ok_or_else(|| error(&at, format!("`{key}` takes a path or a list of paths")))?;
                let path = path::join(directory, text)
                    .map_err(|_| error(&at, format!("the path `{text}` leaves the repository")))?;
                Ok(Reference { path, at })
            })
            .collect()
    };
    let mut templates = references("templates")?;
    if templates.is_empty() {
        templates.push(Reference { path: directory.to_owned(), at: Vec::new() });
    }
    let values = references("values")?;
    let environment = match map.get("environment") {
        None | Some(Value::Null) => None,
        Some(Value::String(environment)) => Some(environment.clone()),
        Some(other) => {
            let message = format!("`environment` must be text, not {}", describe(other));
            return Err(error(&["environment".into()], message));
        }
    };
    Ok(Settings { mode, templates, values, environment, path: file, content })
}

fn error_at(file: &str, content: &str, at: &[PathSegment], message: impl Into<String>) -> SourceError {
    let (line, column) = yaml::locate(content, 0, at).unwrap_or((1, 1));
    SourceError::new(file, content, line, column, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_in(directory: &str, content: &str) -> Result<Settings, String> {
        parse(directory, path::child(directory, SETTINGS_FILE), content.to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_are_relative_to_the_directory() {
        let content = "render: template\ntemplates: ../../templates\nvalues: [../../values/common.yaml, values.yaml]\nenvironment: prod\n";
        let settings = parse_in("envs/prod", content).expect("settings");
        let paths = |references: &[Reference]| references.iter().map(|r| r.path.clone()).collect::<Vec<_>>();
        assert_eq!(settings.mode, Mode::Template);
        assert_eq!(paths(&settings.templates), ["templates"]);
        assert_eq!(paths(&settings.values), ["values/common.yaml", "envs/prod/values.yaml"]);
        assert_eq!(settings.environment.as_deref(), Some("prod"));
        let settings = parse_in("envs/prod", "render: template\n").expect("settings");
        assert_eq!(paths(&settings.templates), ["envs/prod"]);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (content, wanted) in [
            ("", "a/afresh.yaml:1:1: `afresh.yaml` must be a mapping, not null"),
            ("values: x\n", "a/afresh.yaml:1:1: `render` is missing: `template` or `plain`"),
            ("render: helm\n", "a/afresh.yaml:1:1: `render` must be `template` or `plain`"),
            ("render: template\nvalue: x.yaml\n", "a/afresh.yaml:2:1: unknown key `value`"),
            ("render: plain\nvalues: x.yaml\n", "a/afresh.yaml:2:1: `values` needs `render: template`"),
            ("render: template\nvalues:\n- x\n- 1\n", "a/afresh.yaml:4:3: `values` takes a path or a list of paths"),
            ("render: template\ntemplates: ../../x\n", "a/afresh.yaml:2:1: the path `../../x` leaves the repository"),
            ("render: template\nvalues: /etc/x\n", "a/afresh.yaml:2:1: the path `/etc/x` leaves the repository"),
            ("render: template\nenvironment: [a]\n", "a/afresh.yaml:2:1: `environment` must be text, not a list"),
        ] {
            assert_eq!(parse_in("a", content).err().as_deref(), Some(wanted));
        }
    }
}
