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
                let cause = Cause::not_supported("fieldValidation", &other.into(), &["", "Ignore", "Strict", "Warn"]);
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

/// Checks the fields of an object against its type and drops unknown ones. Gives the warnings.
pub fn check(_: &Resource, _: &mut Value, _: FieldValidation) -> Result<Vec<String>, Refusal> {
    Ok(Vec::new())
}

/// Fills in the defaults that are part of the type.
pub fn default(_: &Resource, _: &mut Value) {}

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
    typed::apply(&stored_schema(resource), live, patch, writer.at(&now), force).map_err(|error| match &error {
        ApplyError::Conflicts(conflicts) => {
            let cause = |c: &typed::Conflict| {
                Cause::manager_conflict(typed::display_path(&c.path), format!("conflict with {}", c.manager))
            };
            Refusal::apply_conflict(error.to_string(), &conflicts.iter().map(cause).collect::<Vec<_>>())
        }
        ApplyError::Configuration { .. } => Refusal::internal_plain(error.to_string()),
        ApplyError::ManagedFields | ApplyError::Version { .. } => Refusal::bad_request(error.to_string()),
    })
}

/// A strategic merge patch.
pub fn strategic_merge(_: &Resource, live: &Value, patch: &Value) -> Result<Value, Refusal> {
    let mut merged = live.clone();
    json_patch::merge(&mut merged, patch);
    Ok(merged)
}
