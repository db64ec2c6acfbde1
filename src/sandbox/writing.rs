//! Create and update: from a request's object to a stored one.

use std::sync::Arc;

use serde_json::{Value, json};

use super::api::{Answer, Api};
use super::body::check_identity;
use super::change::{self, copy_field, leaves, take_field};
use super::events;
use super::metadata;
use super::refusal::{Cause, Refusal};
use super::request::{Request, Subresource};
use super::resource::{Form, Generation, Resource};
use super::scale;
use super::store::{CommitError, Stored};
use super::typed;
use super::typing::{self, FieldValidation, Writer};
use super::{rules, validation};

/// How often a write is prepared again after another writer was faster: as often as the API server does.
pub const ATTEMPTS: u32 = 5;

impl Api {
    pub(super) fn writer<'a>(request: &'a Request) -> Writer<'a> {
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

    /// Reads an object into its type, and gives the warnings.
    fn check(&self, request: &Request, value: &mut Value) -> Result<Vec<String>, Refusal> {
        let level = FieldValidation::of(request)?;
        let (kind, version) = (&request.resource.kind, &request.resource.version);
        let mut warnings = typing::check(&request.resource, value, level).map_err(|why| {
            Refusal::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
        })?;
        if request.resource.custom.is_none() {
            warnings.extend(typed::warnings(&request.resource.group, kind, value));
        }
        Ok(warnings)
    }

    /// The part of a creation that POST and apply share. `track` notes the field managers.
    pub(super) fn create_prepared(
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
            let scaled = self.update_scale(request, &live, changed)?;
            return scaled.ok_or_else(|| Refusal::modified(&request.resource, &request.name));
        }
        check_identity(request, &mut value)?;
        let warnings = self.check(request, &mut value)?;
        if request.resource.form == Form::EventsGroup {
            events::to_stored(&mut value);
        }
        let version = metadata::field(&value, "resourceVersion").to_owned();
        let unconditional = matches!(version.as_str(), "" | "0");
        for _ in 0..ATTEMPTS {
            let live = match self.find(request) {
                Err(_) if request.resource.created_by_update && request.subresource == Subresource::None => {
                    take_field(&mut value["metadata"], "resourceVersion");
                    let track = |resource: &Resource, value: &mut Value| {
                        typing::track(resource, None, value, Self::writer(request));
                    };
                    match self.create_prepared(request, value.clone(), warnings.clone(), track) {
                        // another writer created it first
                        Err(refusal) if refusal.reason == "AlreadyExists" => continue,
                        other => return other,
                    }
                }
                found => found?,
            };
            if unconditional && request.resource.states_version {
                return Err(Refusal::version_required(&request.resource, &request.name));
            }
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
                None if unconditional => {}
                None => return Err(Refusal::modified(&request.resource, &request.name)),
            }
        }
        Err(Refusal::modified(&request.resource, &request.name))
    }

    /// `None`: another writer was there first.
    pub(super) fn update_scale(
        &self,
        request: &Request,
        live: &Arc<Stored>,
        changed: Value,
    ) -> Result<Option<Answer>, Refusal> {
        let track = |resource: &Resource, live: &Value, new: &mut Value| {
            typing::track(resource, Some(live), new, Self::writer(request));
        };
        let main = Request { subresource: Subresource::None, ..request.clone() };
        let object = self.commit(&main, live, changed, track)?;
        Ok(object.map(|object| Answer::Value { code: 200, value: scale::read(&request.resource, &object.value) }))
    }

    /// A version or uid in the object is a condition.
    pub(super) fn check_precondition(&self, request: &Request, live: &Stored, value: &Value) -> Result<(), Refusal> {
        let version = metadata::field(value, "resourceVersion");
        if !version.is_empty() && version.parse::<u64>().is_err() {
            let why = format!("strconv.ParseUint: parsing {version:?}: invalid syntax");
            return Err(Refusal::internal_plain(why));
        }
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

    /// The part that all changes of an object share. `None` if another writer was faster.
    pub(super) fn commit(
        &self,
        request: &Request,
        live: &Arc<Stored>,
        mut new: Value,
        track: impl FnOnce(&Resource, &Value, &mut Value),
    ) -> Result<Option<Arc<Stored>>, Refusal> {
        let resource = &*request.resource;
        let old = &live.value;
        match request.subresource {
            Subresource::Status if resource.custom.is_some() => new = change::with_status(old, new),
            Subresource::Status => new = change::with_status_and_metadata(old, new),
            Subresource::Finalize => new = change::with_finalizers(old, &new),
            Subresource::None if resource.status && !rules::keeps_status_on_create(resource) => {
                copy_field(old, &mut new, "status");
            }
            _ => {}
        }
        change::keep_metadata(old, &mut new);
        if !resource.namespaced {
            metadata::of(&mut new).remove("namespace");
        }
        if request.subresource == Subresource::None {
            rules::prepare_update(resource, old, &mut new);
        }
        typing::encode(resource, &mut new);
        track(resource, old, &mut new);
        change::bump_generation(request, old, &mut new);
        if let Some(causes) = change::forbidden_finalizers(old, &new) {
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
