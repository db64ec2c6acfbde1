//! Patch: JSON patch, JSON merge patch, strategic merge patch, server-side apply.
//!
//! In: a request's body and its media type. Out: the stored object, prepared again on a newer version where another
//! writer was faster.

use bytes::Bytes;
use serde_json::Value;

use super::api::{Answer, Api};
use super::body::{check_applied, check_identity, check_patched, decode};
use super::change::retain;
use super::events;
use super::metadata;
use super::refusal::{Cause, Refusal};
use super::request::{Request, Subresource};
use super::resource::{Form, Resource};
use super::rules;
use super::scale;
use super::typing::{self, FieldValidation};
use super::writing::ATTEMPTS;

/// What a PATCH carries.
enum Patch {
    Apply(Value),
    Merge(Value),
    Json(json_patch::Patch),
    Strategic(Value),
}

/// The patches that custom kinds take; built-in kinds take strategic merge patches too.
const CUSTOM_PATCH_TYPES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

impl Api {
    /// Carries out a PATCH of any type.
    pub fn patch(&self, request: &Request, body: &Bytes) -> Result<Answer, Refusal> {
        let patch = read_patch(request, body)?;
        if let Patch::Apply(patch) = patch {
            return self.apply(request, patch);
        }
        for _ in 0..ATTEMPTS {
            let live = self.find(request)?;
            let resource = &*request.resource;
            let mut seen = if request.subresource == Subresource::Scale {
                scale::read(resource, &live.value)
            } else {
                let mut seen = live.value.clone();
                if resource.form == Form::EventsGroup {
                    events::from_stored(&mut seen);
                }
                seen["apiVersion"] = resource.api_version().into();
                seen["kind"] = resource.kind.clone().into();
                seen
            };
            let patched = match &patch {
                Patch::Merge(patch) => {
                    json_patch::merge(&mut seen, patch);
                    seen
                }
                Patch::Json(patch) => {
                    json_patch::patch(&mut seen, patch).map_err(|_| Refusal::patch_failed())?;
                    seen
                }
                Patch::Strategic(patch) => typing::strategic_merge(resource, &seen, patch)?,
                Patch::Apply(_) => return Err(Refusal::internal("an apply was taken for another patch")),
            };
            if request.subresource == Subresource::Scale {
                match self.update_scale(request, &live, scale::write(resource, &live.value, &patched)?)? {
                    Some(answer) => return Ok(answer),
                    None => continue,
                }
            }
            let mut patched = patched;
            check_patched(request, &live, &patched)?;
            check_identity(request, &mut patched)?;
            self.check_precondition(request, &live, &patched)?;
            let level = FieldValidation::of(request)?;
            let warnings =
                typing::check(resource, &mut patched, level).map_err(|why| Refusal::patched_into(&why, &patched))?;
            if resource.form == Form::EventsGroup {
                events::to_stored(&mut patched);
            }
            typing::default(resource, &mut patched);
            rules::default(resource, &mut patched);
            let track = |resource: &Resource, live: &Value, new: &mut Value| {
                typing::track(resource, Some(live), new, Self::writer(request));
            };
            if let Some(object) = self.commit(request, &live, patched, track)? {
                return Ok(Answer::Object { code: 200, object, warnings });
            }
        }
        Err(Refusal::modified(&request.resource, &request.name))
    }

    /// Server-side apply.
    fn apply(&self, request: &Request, mut patch: Value) -> Result<Answer, Refusal> {
        let resource = &*request.resource;
        let force = request.query.flag("force");
        if request.query.get("fieldManager").is_empty() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(Refusal::invalid_options("PatchOptions", &cause));
        }
        check_applied(request, &patch)?;
        FieldValidation::of(request)?;
        match request.subresource {
            Subresource::Status => retain(&mut patch, |field| field == "status"),
            _ if resource.status => retain(&mut patch, |field| field != "status"),
            _ => {}
        }
        for _ in 0..ATTEMPTS {
            let Some(live) = self.store.get(&resource.collection, &Self::key(request)) else {
                if request.subresource != Subresource::None {
                    return Err(Refusal::not_found(resource, &request.name));
                }
                if !metadata::uid(&patch).is_empty() {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {}, and no existing object was found",
                        metadata::uid(&patch)
                    );
                    return Err(Refusal::conflict(resource, &request.name, why));
                }
                let mut value = typing::apply(resource, None, &patch, Self::writer(request), force)?;
                check_identity(request, &mut value)?;
                match self.create_prepared(request, value, Vec::new(), |_, _| {}) {
                    // another writer created it first
                    Err(refusal) if refusal.reason == "AlreadyExists" => continue,
                    other => return other,
                }
            };
            self.check_precondition(request, &live, &patch)?;
            let mut new = typing::apply(resource, Some(&live.value), &patch, Self::writer(request), force)?;
            typing::default(resource, &mut new);
            rules::default(resource, &mut new);
            if let Some(object) = self.commit(request, &live, new, |_, _, _| {})? {
                return Ok(Answer::ok(object));
            }
        }
        Err(Refusal::modified(resource, &request.name))
    }
}

fn read_patch(request: &Request, body: &Bytes) -> Result<Patch, Refusal> {
    let value = || decode(&request.content_type, body);
    let applied = request.content_type == "application/apply-patch+yaml";
    if !applied && request.query.flag("force") {
        let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
        return Err(Refusal::invalid_options("PatchOptions", &cause));
    }
    match request.content_type.as_str() {
        "application/apply-patch+yaml" if request.subresource != Subresource::Scale => Ok(Patch::Apply(value()?)),
        "application/merge-patch+json" => Ok(Patch::Merge(value()?)),
        "application/strategic-merge-patch+json" if request.resource.custom.is_none() => Ok(Patch::Strategic(value()?)),
        "application/strategic-merge-patch+json" => Err(Refusal::unsupported_media_type(&CUSTOM_PATCH_TYPES)),
        "application/json-patch+json" => {
            let patch = serde_json::from_value(value()?);
            Ok(Patch::Json(patch.map_err(|e| Refusal::bad_request(format!("error decoding patch: {e}")))?))
        }
        _ => Err(Refusal::unknown_media_type()),
    }
}
