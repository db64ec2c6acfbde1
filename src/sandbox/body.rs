//! What the body of a write says: read by its media type, and what it says about itself against the request's path.
//!
//! In: bytes and a request. Out: a JSON object that is of the request's kind, namespace and name, or the refusal in the
//! API server's words. Knows nothing of what is stored.

use bytes::Bytes;
use serde_json::Value;

use super::metadata;
use super::protobuf;
use super::refusal::{Refusal, invalid_text};
use super::request::Request;
use super::resource::{Resource, subresource_kind};
use super::store::Stored;

const OBJECT_TYPES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// Reads a body as JSON, or as YAML where its type says so.
pub fn decode(content_type: &str, body: &Bytes) -> Result<Value, Refusal> {
    match content_type {
        ""
        | "application/json"
        | "application/merge-patch+json"
        | "application/json-patch+json"
        | "application/strategic-merge-patch+json" => serde_json::from_slice(body).map_err(|e| {
            Refusal::bad_request(format!("the object provided is unrecognized (must be of type JSON): {e}"))
        }),
        "application/yaml" | "application/apply-patch+yaml" => {
            // JSON is YAML, and what most clients send
            if let Ok(value) = serde_json::from_slice(body) {
                return Ok(value);
            }
            let text = std::str::from_utf8(body).map_err(|_| Refusal::bad_request("error decoding YAML: not UTF-8"))?;
            serde_yaml::from_str(text).map_err(|e| Refusal::bad_request(format!("error decoding YAML: {e}")))
        }
        "application/vnd.kubernetes.protobuf" => protobuf::read(body)
            .ok_or_else(|| Refusal::bad_request("the protocol buffers hold no built-in kind that is known: send JSON")),
        _ => Err(Refusal::unsupported_media_type(&OBJECT_TYPES)),
    }
}

/// What a request's object says about itself has to agree with the path.
pub fn check_identity(request: &Request, value: &mut Value) -> Result<(), Refusal> {
    let resource = &request.resource;
    let Some(object) = value.as_object_mut() else {
        return Err(Refusal::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; it is no object",
            resource.kind
        )));
    };
    let expected = resource.api_version();
    object.entry("kind").or_insert_with(|| resource.kind.clone().into());
    object.entry("apiVersion").or_insert_with(|| expected.clone().into());
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if kind != resource.kind || api_version != expected {
        return Err(Refusal::bad_request(wrong_kind(resource, &api_version, &kind)));
    }
    check_names(request, value)?;
    let metadata = metadata::of(value);
    if resource.namespaced {
        metadata.insert("namespace".into(), request.namespace.clone().into());
    }
    if !request.name.is_empty() {
        metadata.insert("name".into(), request.name.clone().into());
    }
    Ok(())
}

fn wrong_kind(resource: &Resource, api_version: &str, kind: &str) -> String {
    if resource.custom.is_some() {
        let expected = resource.api_version();
        return format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        );
    }
    unconvertible(&resource.group, &resource.kind, api_version, kind)
}

/// Why an object is not of the built-in kind that is expected.
fn unconvertible(expected_group: &str, expected: &str, api_version: &str, kind: &str) -> String {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let package = |group: &str| group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core").to_owned();
    let known = super::builtin::resources().iter().any(|r| r.kind == kind && r.api_version() == api_version);
    let why = if known {
        format!("converting ({version}.{kind}) to ({}.{expected}): unknown conversion", package(expected_group))
    } else {
        let group = if group.is_empty() { String::new() } else { format!("{group}/") };
        format!(
            "no kind \"{kind}\" is registered for version \"{group}{version}\" in scheme \"pkg/runtime/scheme.go:111\""
        )
    };
    format!("{kind} in version \"{version}\" cannot be handled as a {expected}: {why}")
}

/// What is sent to a subresource is of that one's kind, and about the object that the path names.
pub fn check_subresource(request: &Request, value: &Value) -> Result<(), Refusal> {
    let Some((group, version, kind)) = subresource_kind(request.subresource.as_str()) else { return Ok(()) };
    let expected = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let text = |key: &str, default: &str| value.get(key).and_then(Value::as_str).unwrap_or(default).to_owned();
    let (given_version, given) = (text("apiVersion", &expected), text("kind", kind));
    if given != kind || given_version != expected {
        return Err(Refusal::bad_request(unconvertible(group, kind, &given_version, &given)));
    }
    if metadata::name(value) != request.name {
        return Err(Refusal::bad_request(format!("name in URL does not match name in {kind} object")));
    }
    Ok(())
}

/// Namespace and name, where the object states them, are those of the path; of a namespace no notice is taken where the
/// path has none.
fn check_names(request: &Request, value: &Value) -> Result<(), Refusal> {
    let given = metadata::namespace(value);
    if !given.is_empty() && !request.namespace.is_empty() && given != request.namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Refusal::bad_request(message));
    }
    let given = metadata::name(value);
    if !request.name.is_empty() && !given.is_empty() && given != request.name {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            request.name
        )));
    }
    Ok(())
}

/// A patch may change neither the kind nor the identity.
pub fn check_patched(request: &Request, live: &Stored, patched: &Value) -> Result<(), Refusal> {
    let resource = &request.resource;
    let text = |key: &str| patched.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("kind") != resource.kind || text("apiVersion") != resource.api_version() {
        let why = wrong_kind(resource, text("apiVersion"), text("kind"));
        let why = why.split_once(&format!(" as a {}: ", resource.kind)).map_or(why.as_str(), |(_, why)| why);
        return Err(Refusal::patched_into(why, patched));
    }
    let uid = metadata::uid(patched);
    if !uid.is_empty() && uid != live.uid() {
        let cause = invalid_text("metadata.uid", uid, "field is immutable");
        return Err(Refusal::invalid(resource, &request.name, &[cause.clone(), cause]));
    }
    Ok(())
}

/// An applied configuration names what it is about; the rest is taken from the path afterwards.
pub fn check_applied(request: &Request, patch: &Value) -> Result<(), Refusal> {
    let resource = &request.resource;
    let text = |key: &str| patch.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version != resource.api_version() || kind != resource.kind {
        let slash = if api_version.contains('/') { "" } else { "/" };
        return Err(Refusal::bad_request(format!("invalid object type: {slash}{api_version}, Kind={kind}")));
    }
    check_names(request, patch)?;
    if metadata::name(patch).is_empty() && metadata::uid(patch).is_empty() {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            request.name
        )));
    }
    Ok(())
}
