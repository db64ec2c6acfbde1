//! How this server uses the types of kinds: checking, defaulting, field management and patches of a request's object.

use serde_json::Value;

use super::refusal::{Cause, Refusal};
use super::request::Request;
use super::resource::{Form, Resource};
use super::typed::{self, ApplyError, Schema};
use super::{builtin, metadata};

/// What the `fieldValidation` parameter asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    pub fn of(request: &Request) -> Result<Self, Refusal> {
        match request.query.get("fieldValidation") {
            "" | "Warn" => Ok(Self::Warn),
            "Strict" => Ok(Self::Strict),
            "Ignore" => Ok(Self::Ignore),
            other => {
                let cause = Cause::unsupported("fieldValidation", &other.into(), &["", "Ignore", "Strict", "Warn"]);
                Err(Refusal::invalid_options(request.verb.options_kind(), &cause))
            }
        }
    }
}

/// Who writes, and by which way.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub manager: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
}

impl<'a> Writer<'a> {
    fn at(self, now: &'a str) -> typed::Writer<'a> {
        typed::Writer { manager: self.manager, subresource: self.subresource, now }
    }
}

/// The schema of the form that objects are stored in.
fn stored_schema(resource: &Resource) -> Schema {
    match resource.form {
        Form::Stored => resource.schema.clone(),
        Form::EventsGroup => builtin::resource("", "events").schema.clone(),
    }
}

/// Reads an object into its type: drops unknown fields, or refuses them if that is asked for. Gives the warnings, or
/// what is wrong.
pub fn check(resource: &Resource, value: &mut Value, level: FieldValidation) -> Result<Vec<String>, String> {
    let unknown = typed::decode(&resource.schema, value)?;
    let warnings: Vec<String> = unknown.into_iter().map(|path| format!("unknown field \"{path}\"")).collect();
    match level {
        FieldValidation::Strict if !warnings.is_empty() => {
            Err(format!("strict decoding error: {}", warnings.join(", ")))
        }
        FieldValidation::Ignore => Ok(Vec::new()),
        _ => Ok(warnings),
    }
}

/// Fills in the defaults that a definition states.
pub fn default(resource: &Resource, value: &mut Value) {
    resource.schema.fill_defaults(value);
}

/// Brings an object of a built-in kind into the form in which the API server writes it.
pub fn encode(resource: &Resource, value: &mut Value) {
    if resource.custom.is_none() {
        typed::canonical(stored_schema(resource).root(), value);
    }
}

/// Notes in `metadata.managedFields` what a create, update or patch changed.
pub fn track(resource: &Resource, live: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let now = metadata::now();
    *new = typed::update(&stored_schema(resource), live, new, writer.at(&now));
}

/// Server-side apply: the object that results from applying `patch` to `live`.
pub fn apply(
    resource: &Resource,
    live: Option<&Value>,
    patch: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, Refusal> {
    let now = metadata::now();
    let schema = stored_schema(resource);
    let applied = typed::apply(&schema, live, patch, writer.at(&now), force).map_err(|error| match &error {
        ApplyError::Conflicts(conflicts) => {
            let cause = |c: &typed::Conflict| Cause {
                field: typed::display_path(&c.path),
                reason: "FieldManagerConflict",
                message: format!("conflict with {}", c.manager),
            };
            Refusal::apply_conflict(error.to_string(), &conflicts.iter().map(cause).collect::<Vec<_>>())
        }
        ApplyError::Configuration { .. } => Refusal::internal_plain(error.to_string()),
        ApplyError::ManagedFields | ApplyError::Version { .. } => Refusal::bad_request(error.to_string()),
    });
    let mut object = applied?;
    if resource.custom.is_none() {
        let refuse = |why: String| Refusal::internal_plain(unconvertible(resource, patch, &why));
        typed::decode(&schema, &mut object).map_err(refuse)?;
    }
    Ok(object)
}

/// Values that only show to be wrong when the merged object is read into its type.
fn unconvertible(resource: &Resource, patch: &Value, why: &str) -> String {
    let api_version = resource.api_version();
    let slash = if resource.group.is_empty() { "/" } else { "" };
    let kind = format!("{slash}{api_version}, Kind={}", resource.kind);
    let (namespace, name) = (metadata::namespace(patch), metadata::name(patch));
    let why = if why.contains("base64") { format!("error decoding from json: {why}") } else { why.to_owned() };
    format!(
        "failed to convert new object ({namespace}/{name}; {kind}) to proper version: unable to convert unstructured \
         object to {kind}: {why}"
    )
}

/// A strategic merge patch of a built-in kind.
pub fn strategic_merge(resource: &Resource, live: &Value, patch: &Value) -> Result<Value, Refusal> {
    typed::strategic_merge(&resource.schema, live, patch)
        .map_err(|error| Refusal::unprocessable_patch(&error.to_string()))
}
