//! Create, update and patch: from a request's body to a stored object.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::api::{Answer, Api};
use super::events;
use super::metadata;
use super::protobuf;
use super::refusal::{Cause, Refusal, invalid_text};
use super::request::{Request, Subresource};
use super::resource::{Form, Generation, Resource};
use super::scale;
use super::store::{CommitError, Stored};
use super::typed;
use super::typing::{self, FieldValidation, Writer};
use super::{rules, validation};

/// How often a write is prepared again after another writer was faster: as often as the API server does.
const ATTEMPTS: u32 = 5;

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
            .ok_or_else(|| Refusal::unsupported_media_type(&["application/json", "application/yaml"])),
        _ => Err(Refusal::unsupported_media_type(&["application/json", "application/yaml"])),
    }
}

/// What a request's object says about itself has to agree with the path.
fn check_identity(request: &Request, value: &mut Value) -> Result<(), Refusal> {
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
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if resource.custom.is_some() {
        let expected = resource.api_version();
        return format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        );
    }
    let package = |group: &str| group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core").to_owned();
    let known = super::builtin::resources().iter().any(|r| r.kind == kind && r.api_version() == api_version);
    let why = if known {
        format!("converting ({version}.{kind}) to ({}.{}): unknown conversion", package(&resource.group), resource.kind)
    } else {
        let group = if group.is_empty() { String::new() } else { format!("{group}/") };
        format!(
            "no kind \"{kind}\" is registered for version \"{group}{version}\" in scheme \"pkg/runtime/scheme.go:111\""
        )
    };
    format!("{kind} in version \"{version}\" cannot be handled as a {}: {why}", resource.kind)
}

/// Namespace and name, where the object states them, are those of the path.
fn check_names(request: &Request, value: &Value) -> Result<(), Refusal> {
    let given = metadata::namespace(value);
    if !given.is_empty() && given != request.namespace {
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
fn check_patched(request: &Request, live: &Stored, patched: &Value) -> Result<(), Refusal> {
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
fn check_applied(request: &Request, patch: &Value) -> Result<(), Refusal> {
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

/// A field's presence in `metadata` is what the server says, not what the client says.
fn keep(metadata: &mut Map<String, Value>, live: &Value, field: &str) {
    match live.get("metadata").and_then(|m| m.get(field)) {
        Some(value) => metadata.insert(field.to_owned(), value.clone()),
        None => metadata.remove(field),
    };
}

fn take_field(value: &mut Value, field: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(field);
    }
}

fn copy_field(from: &Value, to: &mut Value, field: &str) {
    match from.get(field) {
        Some(value) => to[field] = value.clone(),
        None => take_field(to, field),
    }
}

impl Api {
    fn writer<'a>(request: &'a Request) -> Writer<'a> {
        Writer { manager: &request.manager, subresource: request.subresource.as_str() }
    }

    /// Creates an object from a decoded body.
    pub fn create(&self, request: &Request, mut value: Value) -> Result<Answer, Refusal> {
        let resource = &*request.resource;
        check_identity(request, &mut value)?;
        if !metadata::field(&value, "resourceVersion").is_empty() {
            return Err(Refusal::internal_plain("resourceVersion should not be set on objects to be created"));
        }
        let warnings = self.check(request, &mut value)?;
        if !resource.stored {
            return Ok(Answer::Value { code: 201, value: reviewed(value) });
        }
        if resource.form == Form::EventsGroup {
            events::to_stored(&mut value);
        }
        let track = |resource: &Resource, value: &mut Value| {
            typing::track(resource, None, value, Self::writer(request));
        };
        self.create_prepared(request, value, warnings.clone(), track).map_err(|r| r.with_warnings(&warnings))
    }

    fn check(&self, request: &Request, value: &mut Value) -> Result<Vec<String>, Refusal> {
        let level = FieldValidation::of(request)?;
        let (kind, version) = (&request.resource.kind, &request.resource.version);
        typing::check(&request.resource, value, level).map_err(|why| {
            Refusal::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
        })
    }

    /// The part of a creation that POST and apply share. `track` notes the field managers.
    fn create_prepared(
        &self,
        request: &Request,
        mut value: Value,
        warnings: Vec<String>,
        track: impl FnOnce(&Resource, &mut Value),
    ) -> Result<Answer, Refusal> {
        let resource = &*request.resource;
        if resource.status && !rules::keeps_status_on_create(resource) {
            take_field(&mut value, "status");
        }
        typing::default(resource, &mut value);
        rules::default(resource, &mut value);
        typing::encode(resource, &mut value);
        let metadata = metadata::of(&mut value);
        for field in
            ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "uid", "creationTimestamp"]
        {
            metadata.remove(field);
        }
        let base = metadata.get("generateName").and_then(Value::as_str).unwrap_or_default().to_owned();
        let named = metadata.get("name").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
        if !base.is_empty() && !named {
            metadata.insert("name".into(), metadata::generated_name(&base).into());
        }
        if !resource.namespaced {
            metadata.remove("namespace");
        }
        track(resource, &mut value);
        let metadata = metadata::of(&mut value);
        metadata.insert("uid".into(), metadata::new_uid().into());
        metadata.insert("creationTimestamp".into(), metadata::now().into());
        if resource.generation != Generation::None {
            metadata.insert("generation".into(), 1.into());
        }
        if resource.namespaced {
            self.check_namespace(resource, metadata::name(&value), &request.namespace)?;
        }
        rules::prepare_create(resource, &mut value);
        let name = metadata::name(&value).to_owned();
        let mut causes = metadata::validate(&resource.group, &resource.plural, &value);
        causes.extend(validation::validate(resource, None, &value));
        if !causes.is_empty() {
            return Err(Refusal::invalid(resource, &name, &causes));
        }
        admit(request)?;
        let key = super::store::ObjectKey::new(metadata::namespace(&value), name.clone());
        if self.store.get(&resource.collection, &key).is_some() {
            return Err(Refusal::already_exists(resource, &name));
        }
        rules::allocate(&self.addresses, resource, &mut value, None)
            .map_err(|causes| Refusal::invalid(resource, &name, &causes))?;
        if request.dry_run {
            rules::give_back(&self.addresses, resource, &value);
            return Ok(Answer::Object { code: 201, object: Stored::unversioned(value), warnings });
        }
        match self.store.create(&resource.collection, value) {
            Ok(object) => {
                self.stored(resource, &object);
                Ok(Answer::Object { code: 201, object, warnings })
            }
            Err((_, value)) => {
                rules::give_back(&self.addresses, resource, &value);
                Err(Refusal::already_exists(resource, &name))
            }
        }
    }

    /// Objects are created only in a namespace that exists and stays.
    fn check_namespace(&self, resource: &Resource, name: &str, namespace: &str) -> Result<(), Refusal> {
        let namespaces = super::builtin::resource("", "namespaces");
        let key = super::store::ObjectKey::new("", namespace);
        let Some(found) = self.store.get(&namespaces.collection, &key) else {
            return Err(Refusal::not_found(&namespaces, namespace));
        };
        if metadata::is_terminating(&found.value) {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            return Err(Refusal::forbidden(resource, name, why).with_causes(&[namespace_terminating(namespace)]));
        }
        Ok(())
    }

    /// Replaces an object, its status or its scale.
    pub fn update(&self, request: &Request, mut value: Value) -> Result<Answer, Refusal> {
        if request.subresource == Subresource::Scale {
            let live = self.find(request)?;
            let changed = scale::write(&request.resource, &live.value, &value)?;
            let version = metadata::field(&value, "resourceVersion").to_owned();
            if !version.is_empty() && version != live.version.to_string() {
                return Err(Refusal::modified(&request.resource, &request.name));
            }
            return self.update_scale(request, &live, changed);
        }
        check_identity(request, &mut value)?;
        let warnings = self.check(request, &mut value)?;
        if request.resource.form == Form::EventsGroup {
            events::to_stored(&mut value);
        }
        let version = metadata::field(&value, "resourceVersion").to_owned();
        if version.is_empty() && request.resource.custom.is_some() {
            return Err(Refusal::version_required(&request.resource, &request.name));
        }
        for _ in 0..ATTEMPTS {
            let live = self.find(request)?;
            self.check_precondition(request, &live, &value)?;
            let mut new = value.clone();
            if request.subresource == Subresource::None {
                typing::default(&request.resource, &mut new);
                rules::default(&request.resource, &mut new);
            }
            let tracked = |resource: &Resource, live: &Value, new: &mut Value| {
                typing::track(resource, Some(live), new, Self::writer(request));
            };
            match self.commit(request, &live, new, tracked)? {
                Some(object) => return Ok(Answer::Object { code: 200, object, warnings }),
                None if version.is_empty() => {}
                None => return Err(Refusal::modified(&request.resource, &request.name)),
            }
        }
        Err(Refusal::modified(&request.resource, &request.name))
    }

    fn update_scale(&self, request: &Request, live: &Arc<Stored>, changed: Value) -> Result<Answer, Refusal> {
        let track = |resource: &Resource, live: &Value, new: &mut Value| {
            typing::track(resource, Some(live), new, Self::writer(request));
        };
        let main = Request { subresource: Subresource::None, ..request.clone() };
        match self.commit(&main, live, changed, track)? {
            Some(object) => Ok(Answer::Value { code: 200, value: scale::read(&request.resource, &object.value) }),
            None => Err(Refusal::modified(&request.resource, &request.name)),
        }
    }

    /// A version or uid in the object is a condition.
    fn check_precondition(&self, request: &Request, live: &Stored, value: &Value) -> Result<(), Refusal> {
        let version = metadata::field(value, "resourceVersion");
        if !version.is_empty() && version != "0" && version != live.version.to_string() {
            return Err(Refusal::modified(&request.resource, &request.name));
        }
        let uid = metadata::uid(value);
        if !uid.is_empty() && uid != live.uid() {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", live.uid());
            return Err(Refusal::conflict(&request.resource, &request.name, why));
        }
        Ok(())
    }

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
                return self.update_scale(request, &live, scale::write(resource, &live.value, &patched)?);
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

    /// The part that all changes of an object share. `None` if another writer was faster.
    fn commit(
        &self,
        request: &Request,
        live: &Arc<Stored>,
        mut new: Value,
        track: impl FnOnce(&Resource, &Value, &mut Value),
    ) -> Result<Option<Arc<Stored>>, Refusal> {
        let resource = &*request.resource;
        let old = &live.value;
        match request.subresource {
            Subresource::Status if resource.custom.is_some() => new = with_status(old, new),
            Subresource::Status => new = with_status_and_metadata(old, new),
            Subresource::Finalize => new = with_finalizers(old, &new),
            Subresource::None if resource.status && !rules::keeps_status_on_create(resource) => {
                copy_field(old, &mut new, "status");
            }
            _ => {}
        }
        let metadata = metadata::of(&mut new);
        for field in [
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "resourceVersion",
            "generateName",
        ] {
            keep(metadata, old, field);
        }
        metadata.remove("selfLink");
        if !resource.namespaced {
            metadata.remove("namespace");
        }
        if request.subresource == Subresource::None {
            rules::prepare_update(resource, old, &mut new);
        }
        typing::encode(resource, &mut new);
        track(resource, old, &mut new);
        bump_generation(request, old, &mut new);
        if let Some(causes) = forbidden_finalizers(old, &new) {
            return Err(Refusal::invalid(resource, &request.name, &causes));
        }
        let mut causes = metadata::validate(&resource.group, &resource.plural, &new);
        if request.subresource == Subresource::None || resource.custom.is_some() {
            causes.extend(validation::validate(resource, Some(old), &new));
        }
        if !causes.is_empty() {
            return Err(Refusal::invalid(resource, &request.name, &causes));
        }
        admit(request)?;
        if typed::same_but_times(old, &new) {
            return Ok(Some(Arc::clone(live)));
        }
        let leaves = leaves(&new);
        if !request.dry_run {
            rules::allocate(&self.addresses, resource, &mut new, Some(old))
                .map_err(|causes| Refusal::invalid(resource, &request.name, &causes))?;
        }
        if request.dry_run {
            return Ok(Some(Stored::at(new, live.version)));
        }
        if leaves {
            return match self.store.remove_as(&resource.collection, &live.key(), live.version, new) {
                Ok(object) => {
                    self.removed(&resource.collection, &object);
                    Ok(Some(object))
                }
                Err(CommitError::Missing) => Err(Refusal::not_found(resource, &request.name)),
                Err(_) => Ok(None),
            };
        }
        match self.store.replace(&resource.collection, new, live.version) {
            Ok(object) => {
                self.stored(resource, &object);
                Ok(Some(object))
            }
            Err((error, new)) => {
                rules::give_back_new(&self.addresses, resource, old, &new);
                if error == CommitError::Missing { Err(Refusal::not_found(resource, &request.name)) } else { Ok(None) }
            }
        }
    }
}

/// The sandbox authorizes everything: so say its reviews.
fn reviewed(mut review: Value) -> Value {
    review["status"] = if review["kind"] == "SelfSubjectRulesReview" {
        json!({ "incomplete": false, "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
            "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }] })
    } else {
        json!({ "allowed": true, "reason": "the sandbox authorizes everything" })
    };
    review
}

fn namespace_terminating(namespace: &str) -> Cause {
    Cause {
        field: "metadata.namespace".to_owned(),
        reason: "NamespaceTerminating",
        message: format!("namespace {namespace} is being terminated"),
    }
}

/// Admission: only what a fault rule denies is refused.
pub fn admit(request: &Request) -> Result<(), Refusal> {
    request.denial.as_ref().map_or(Ok(()), |denial| Err(denial.clone()))
}

/// True if a changed object has nothing left that keeps it.
pub fn leaves(value: &Value) -> bool {
    let kept_by_spec = value["kind"] == "Namespace"
        && value.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
    let immediate = value.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0;
    metadata::is_terminating(value) && immediate && !kept_by_spec && metadata::finalizers(value).is_empty()
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

fn retain(value: &mut Value, keep: impl Fn(&str) -> bool) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata") || keep(field));
    }
}

/// The live object with the status and the metadata of the new one: so built-in kinds take it, but for labels.
fn with_status_and_metadata(old: &Value, mut new: Value) -> Value {
    let mut result = old.clone();
    copy_field(&new, &mut result, "status");
    result["metadata"] = new["metadata"].take();
    match old.pointer("/metadata/labels") {
        Some(labels) => result["metadata"]["labels"] = labels.clone(),
        None => take_field(&mut result["metadata"], "labels"),
    }
    result
}

/// The live object with the status of the new one: so custom kinds take it.
fn with_status(old: &Value, mut new: Value) -> Value {
    let managed = new.pointer_mut("/metadata/managedFields").map(Value::take);
    let status = new.get_mut("status").map(Value::take);
    let mut result = old.clone();
    match status {
        Some(status) => result["status"] = status,
        None => take_field(&mut result, "status"),
    }
    if let Some(managed) = managed {
        metadata::of(&mut result).insert("managedFields".into(), managed);
    }
    result
}

fn with_finalizers(old: &Value, new: &Value) -> Value {
    let mut result = old.clone();
    result["spec"]["finalizers"] = new.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
    result
}

/// `metadata.generation` counts the changes of what is asked for.
fn bump_generation(request: &Request, old: &Value, new: &mut Value) {
    let resource = &*request.resource;
    let differs = |without: &[&str]| {
        let empty = Map::new();
        let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
        let counts = |field: &String| {
            !matches!(field.as_str(), "apiVersion" | "kind" | "metadata") && !without.contains(&field.as_str())
        };
        old.keys().chain(new.keys()).filter(|f| counts(f)).any(|f| old.get(f) != new.get(f))
    };
    let annotations = || old.pointer("/metadata/annotations") != new.pointer("/metadata/annotations");
    let bump = match (resource.generation, request.subresource) {
        (Generation::None, _) | (_, Subresource::Status) => false,
        (Generation::Spec, _) => differs(&["status"]),
        (Generation::SpecAndAnnotations, _) => differs(&["status"]) || annotations(),
        (Generation::All, _) => differs(&[]),
    };
    if bump {
        let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        metadata::of(new).insert("generation".into(), (generation + 1).into());
    }
}

fn forbidden_finalizers(old: &Value, new: &Value) -> Option<Vec<Cause>> {
    if !metadata::is_terminating(old) {
        return None;
    }
    let before = metadata::finalizers(old);
    let added: Vec<&str> = metadata::finalizers(new).into_iter().filter(|f| !before.contains(f)).collect();
    (!added.is_empty()).then(|| {
        let list = added.iter().map(|f| format!("\"{f}\"")).collect::<Vec<_>>().join(", ");
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
        );
        let cause = Cause::forbidden("metadata.finalizers", &detail);
        // the API server looks twice
        vec![cause.clone(), cause]
    })
}
