//! Delete: mark, wait for finalizers, remove.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::api::{Answer, Api};
use super::body::decode;
use super::change::leaves;
use super::metadata;
use super::refusal::{Cause, Refusal};
use super::request::{Request, Subresource, Verb};
use super::resource::Resource;
use super::store::{CommitError, Stored};
use super::writing;

/// How dependents of a deleted object are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The dependents are deleted afterwards.
    Background,
    /// The object goes after its dependents.
    Foreground,
    /// The dependents stay.
    Orphan,
}

pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";
pub const ORPHAN_FINALIZER: &str = "orphan";

/// Seconds that a running Pod has to end, unless it says otherwise.
const POD_GRACE_SECONDS: i64 = 30;

/// What a deletion asks for, from the body or the query.
#[derive(Clone, Debug, Default)]
pub struct Options {
    propagation: Option<Propagation>,
    grace_seconds: Option<i64>,
    uid: Option<String>,
    version: Option<String>,
    dry_run: bool,
}

impl Options {
    pub fn read(request: &Request, body: &Bytes) -> Result<Self, Refusal> {
        let value = if body.is_empty() { json!({}) } else { decode(&request.content_type, body)? };
        Self::of(request, &value)
    }

    /// From a `DeleteOptions` object.
    pub fn of(request: &Request, value: &Value) -> Result<Self, Refusal> {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let policy = text("/propagationPolicy").unwrap_or_else(|| request.query.get("propagationPolicy").to_owned());
        let propagation = match policy.as_str() {
            "" => match value["orphanDependents"].as_bool() {
                Some(true) => Some(Propagation::Orphan),
                Some(false) => Some(Propagation::Background),
                None => None,
            },
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            "Orphan" => Some(Propagation::Orphan),
            other => {
                let allowed = ["Foreground", "Background", "Orphan", "nil"];
                let cause = Cause::unsupported("propagationPolicy", &other.into(), &allowed);
                return Err(Refusal::invalid_options("DeleteOptions", &cause));
            }
        };
        Ok(Self {
            propagation,
            grace_seconds: value["gracePeriodSeconds"]
                .as_i64()
                .or_else(|| request.query.get("gracePeriodSeconds").parse().ok()),
            uid: text("/preconditions/uid"),
            version: text("/preconditions/resourceVersion"),
            dry_run: request.dry_run || value["dryRun"].as_array().is_some_and(|d| d.iter().any(|d| d == "All")),
        })
    }

    pub fn background() -> Self {
        Self { propagation: Some(Propagation::Background), ..Self::default() }
    }

    pub fn with_uid(mut self, uid: &str) -> Self {
        self.uid = Some(uid.to_owned());
        self
    }
}

impl Api {
    /// Deletes the object that a request names.
    pub fn delete(&self, request: &Request, options: &Options) -> Result<Answer, Refusal> {
        loop {
            let live = self.find(request)?;
            check(request, &live, options)?;
            writing::admit(request)?;
            if let Some(answer) = self.delete_version(request, &live, options)? {
                return Ok(answer);
            }
        }
    }

    /// Deletes the objects that a list would give.
    pub fn delete_collection(&self, request: &Request, options: &Options) -> Result<Answer, Refusal> {
        let list = self.select(request)?;
        for object in &list.objects {
            let key = object.key();
            let one = Request { verb: Verb::Delete, namespace: key.namespace, name: key.name, ..request.clone() };
            match self.delete(&one, options) {
                Err(refusal) if refusal.code != 404 => return Err(refusal),
                _ => {}
            }
        }
        Ok(Answer::List(list))
    }

    /// One attempt on one version; `None` if another writer was faster.
    fn delete_version(
        &self,
        request: &Request,
        live: &Arc<Stored>,
        options: &Options,
    ) -> Result<Option<Answer>, Refusal> {
        let resource = &*request.resource;
        let marked = mark(resource, &live.value, options);
        if leaves(&marked) {
            if options.dry_run {
                return Ok(Some(success(resource, live)));
            }
            // a Pod's last state says that it was deleted
            let removed = if resource.is("", "pods") {
                self.store.remove_as(&resource.collection, &live.key(), live.version, marked)
            } else {
                self.store.remove(&resource.collection, &live.key(), live.version)
            };
            return match removed {
                Ok(object) => {
                    self.removed(&resource.collection, &object);
                    Ok(Some(success(resource, &object)))
                }
                Err(CommitError::Missing) => Err(Refusal::not_found(resource, &request.name)),
                Err(_) => Ok(None),
            };
        }
        if options.dry_run || marked == live.value {
            return Ok(Some(Answer::ok(Arc::clone(live))));
        }
        match self.store.replace(&resource.collection, marked, live.version) {
            Ok(object) => Ok(Some(Answer::ok(object))),
            Err((CommitError::Missing, _)) => Err(Refusal::not_found(resource, &request.name)),
            Err(_) => Ok(None),
        }
    }

    /// Deletes an object on the server's own account.
    pub fn delete_internal(&self, resource: &Arc<Resource>, namespace: &str, name: &str, options: &Options) {
        let request = Request {
            verb: Verb::Delete,
            name: name.to_owned(),
            subresource: Subresource::None,
            ..Request::internal(resource, namespace)
        };
        if let Err(refusal) = self.delete(&request, options)
            && refusal.code != 404
        {
            tracing::debug!(kind = resource.kind, name, message = refusal.message, "an object was not deleted");
        }
    }
}

fn check(request: &Request, live: &Stored, options: &Options) -> Result<(), Refusal> {
    let resource = &request.resource;
    let conflict = |what: &str, wanted: &str, is: &str, done: &str| {
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({is}). The object might have \
             been {done}"
        );
        Err(Refusal::precondition(resource, &request.name, why))
    };
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != live.uid()) {
        return conflict("UID", uid, live.uid(), "deleted and then recreated");
    }
    let version = live.version.to_string();
    if let Some(wanted) = options.version.as_deref().filter(|v| *v != version) {
        return conflict("ResourceVersion", wanted, &version, "modified");
    }
    if request.resource.is("", "namespaces")
        && matches!(request.name.as_str(), "default" | "kube-system" | "kube-public")
    {
        return Err(Refusal::forbidden(&request.resource, &request.name, "this namespace may not be deleted"));
    }
    Ok(())
}

/// The object as it is once its deletion was asked for.
fn mark(resource: &Resource, live: &Value, options: &Options) -> Value {
    let mut value = live.clone();
    value["apiVersion"] = resource.api_version().into();
    value["kind"] = resource.kind.clone().into();
    let mut finalizers: Vec<String> = metadata::finalizers(live).into_iter().map(str::to_owned).collect();
    if let Some(propagation) = options.propagation {
        finalizers.retain(|f| f != FOREGROUND_FINALIZER && f != ORPHAN_FINALIZER);
        match propagation {
            Propagation::Foreground => finalizers.push(FOREGROUND_FINALIZER.into()),
            Propagation::Orphan => finalizers.push(ORPHAN_FINALIZER.into()),
            Propagation::Background => {}
        }
    }
    let grace = grace_seconds(resource, live, options);
    let terminating = metadata::is_terminating(live);
    let metadata = metadata::of(&mut value);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), finalizers.into());
    }
    let before = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64);
    if !terminating {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
        metadata.insert("deletionTimestamp".into(), at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
        metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
        if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
            metadata.insert("generation".into(), (generation + 1).into());
        }
    } else if before.is_some_and(|before| grace < before) {
        metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    }
    if resource.is("", "namespaces") {
        value["status"]["phase"] = "Terminating".into();
    }
    value
}

/// Only a Pod on a node takes its time to end.
fn grace_seconds(resource: &Resource, live: &Value, options: &Options) -> i64 {
    if !resource.is("", "pods") {
        return 0;
    }
    let scheduled = live.pointer("/spec/nodeName").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
    let ended = matches!(live.pointer("/status/phase").and_then(Value::as_str), Some("Succeeded" | "Failed"));
    if !scheduled || ended {
        return 0;
    }
    let own = || live.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    options.grace_seconds.or_else(own).unwrap_or(POD_GRACE_SECONDS).max(0)
}

/// Some kinds are given back when they are gone, the others answer with a `Status`.
fn success(resource: &Resource, object: &Arc<Stored>) -> Answer {
    let gives_object = resource.group.is_empty()
        && matches!(
            resource.plural.as_str(),
            "pods"
                | "services"
                | "serviceaccounts"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "podtemplates"
                | "resourcequotas"
        );
    if gives_object {
        return Answer::ok(Arc::clone(object));
    }
    let mut details = json!({ "name": metadata::name(&object.value), "kind": resource.plural, "uid": object.uid() });
    if !resource.group.is_empty() {
        details["group"] = resource.group.clone().into();
    }
    let value =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
    Answer::Value { code: 200, value }
}
