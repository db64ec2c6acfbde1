//! From texts to object drafts: documents, lists, and what every object must have.

use std::sync::Arc;

use serde_json::Value;

use crate::manifest::SourceError;
use crate::manifest::yaml::{self, PathSegment};

/// Manifests of this annotation are for tools that read the repository, not for the cluster (kustomize's rule).
const LOCAL_CONFIG: &str = "config.kubernetes.io/local-config";

/// A text that holds manifests.
pub(super) struct Text {
    /// The file it was read from, or the template it was rendered from.
    pub path: Arc<str>,
    pub content: String,
    pub is_rendered: bool,
}

/// Where an object stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Index of the text.
    pub text: usize,
    pub document: usize,
    /// Its index, if it is an item of a list.
    pub item: Option<usize>,
    pub line: u32,
}

/// An object on its way.
pub(super) struct Draft {
    pub value: Value,
    pub place: Place,
}

impl Draft {
    pub(super) fn text_at(&self, path: &[&str]) -> Option<&str> {
        path.iter().try_fold(&self.value, |value, key| value.get(key)).and_then(Value::as_str)
    }

    pub(super) fn kind(&self) -> &str {
        self.text_at(&["kind"]).unwrap_or_default()
    }

    pub(super) fn group(&self) -> &str {
        self.text_at(&["apiVersion"]).and_then(|v| v.split_once('/')).map_or("", |(group, _)| group)
    }

    pub(super) fn name(&self) -> &str {
        self.text_at(&["metadata", "name"]).unwrap_or_default()
    }

    pub(super) fn namespace(&self) -> &str {
        self.text_at(&["metadata", "namespace"]).unwrap_or_default()
    }
}

impl Text {
    /// An error at a value of an object.
    pub(super) fn error(&self, place: Place, path: &[PathSegment], message: impl Into<String>) -> SourceError {
        let mut full = Vec::new();
        if let Some(item) = place.item {
            full.extend([PathSegment::from("items"), PathSegment::Index(item)]);
        }
        full.extend_from_slice(path);
        let (line, column) = yaml::locate(&self.content, place.document, &full).unwrap_or((place.line, 1));
        self.noted(SourceError::new(&self.path, &self.content, line, column, message))
    }

    /// Says that the excerpt isn't of the file itself, if it isn't.
    pub(super) fn noted(&self, error: SourceError) -> SourceError {
        if self.is_rendered {
            error.with_note("the excerpt is of the text that the template rendered, not of the template")
        } else {
            error
        }
    }
}

/// Reads the objects of a text; what it says of one that was left because it is `cancelled` is not for anybody.
pub(super) fn read(
    index: usize,
    text: &Text,
    cancelled: &dyn Fn() -> bool,
    drafts: &mut Vec<Draft>,
) -> Result<(), SourceError> {
    let documents = yaml::documents_while(&text.path, text.content.as_bytes(), &|| !cancelled());
    let documents = documents.map_err(|error| text.noted(error))?;
    for document in documents {
        let place = Place { text: index, document: document.index, item: None, line: document.line };
        match document.value {
            Value::Null => {}
            value if is_list(&value) => expand(value, place, text, drafts)?,
            value => push(value, place, text, drafts)?,
        }
    }
    Ok(())
}

fn is_list(value: &Value) -> bool {
    value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"))
        && value.get("items").is_some_and(|items| items.is_array() || items.is_null())
        && value.get("metadata").and_then(|metadata| metadata.get("name")).is_none()
}

fn expand(mut list: Value, place: Place, text: &Text, drafts: &mut Vec<Draft>) -> Result<(), SourceError> {
    let Some(Value::Array(items)) = list.get_mut("items").map(Value::take) else { return Ok(()) };
    let lines = yaml::item_lines(&text.content, place.document, "items");
    for (item, value) in items.into_iter().enumerate() {
        let line = lines.get(item).copied().unwrap_or(place.line);
        push(value, Place { item: Some(item), line, ..place }, text, drafts)?;
    }
    Ok(())
}

fn push(value: Value, place: Place, text: &Text, drafts: &mut Vec<Draft>) -> Result<(), SourceError> {
    check(&value, place, text)?;
    let local = value
        .get("metadata")
        .and_then(|metadata| metadata.get("annotations"))
        .and_then(|annotations| annotations.get(LOCAL_CONFIG))
        .is_some_and(|local| local.as_str() != Some("false"));
    if !local {
        drafts.push(Draft { value, place });
    }
    Ok(())
}

/// Checks that an object says what it is.
pub(super) fn check(value: &Value, place: Place, text: &Text) -> Result<(), SourceError> {
    const HINT: &str = "every YAML file below the path must hold Kubernetes objects";
    if !value.is_object() {
        return Err(text.error(place, &[], format!("{} is not a Kubernetes object", describe(value))).with_hint(HINT));
    }
    for path in [&["apiVersion"][..], &["kind"], &["metadata", "name"]] {
        let found = path.iter().try_fold(value, |value, key| value.get(key));
        let field = path.join(".");
        let problem = match found {
            Some(Value::String(text)) if !text.is_empty() => continue,
            None | Some(Value::Null) => format!("the object has no `{field}`"),
            Some(Value::String(_)) => format!("`{field}` is empty"),
            Some(other) => format!("`{field}` must be a string, not {}", describe(other)),
        };
        let steps: Vec<PathSegment> = path.iter().map(|key| PathSegment::from(*key)).collect();
        let error = text.error(place, &steps, problem);
        return Err(if found.is_none() && path.len() == 1 { error.with_hint(HINT) } else { error });
    }
    for path in [&["metadata", "namespace"][..], &["metadata", "labels"], &["metadata", "annotations"]] {
        let wanted = if path[1] == "namespace" { "a string" } else { "a mapping" };
        match path.iter().try_fold(value, |value, key| value.get(key)) {
            None | Some(Value::Null) => {}
            Some(Value::String(_)) if path[1] == "namespace" => {}
            Some(Value::Object(_)) if path[1] != "namespace" => {}
            Some(other) => {
                let steps: Vec<PathSegment> = path.iter().map(|key| PathSegment::from(*key)).collect();
                let problem = format!("`{}` must be {wanted}, not {}", path.join("."), describe(other));
                return Err(text.error(place, &steps, problem));
            }
        }
    }
    if value.get("apiVersion").and_then(Value::as_str).is_some_and(|version| version.matches('/').count() > 1) {
        return Err(text.error(place, &["apiVersion".into()], "`apiVersion` is neither `version` nor `group/version`"));
    }
    Ok(())
}

pub(super) fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
