//! The API server's state and the way of a request through it, without HTTP.
//!
//! ```text
//!  request ─ faults ─ read:   store → answer
//!                   └ write:  decode → check → default → track fields → kind's rules → validate → store → answer
//! ```
//!
//! A write is prepared on the version that was read and stored only if that version is still there; else it is
//! prepared again.

use std::sync::Arc;

use serde_json::{Value, json};

use super::addresses::Addresses;
use super::faults::Faults;
use super::journal::Journal;
use super::metadata;
use super::refusal::Refusal;
use super::registry::Registry;
use super::request::Request;
use super::resource::{CollectionId, Resource};
use super::store::{ObjectKey, Store, Stored};
use super::{builtin, definition};

/// Everything that requests share.
#[derive(Debug)]
pub struct Api {
    pub store: Store,
    pub registry: Registry,
    pub faults: Faults,
    pub journal: Journal,
    pub addresses: Addresses,
}

/// What a request results in.
#[derive(Debug)]
pub enum Answer {
    Object {
        code: u16,
        object: Arc<Stored>,
        warnings: Vec<String>,
    },
    /// A `Scale`, a `Status` of success, or the like.
    Value {
        code: u16,
        value: Value,
    },
    List(List),
}

/// Part of a collection.
#[derive(Debug)]
pub struct List {
    pub objects: Vec<Arc<Stored>>,
    pub version: u64,
    pub continue_token: Option<String>,
    pub remaining: Option<usize>,
}

impl Answer {
    pub fn ok(object: Arc<Stored>) -> Self {
        Answer::Object { code: 200, object, warnings: Vec::new() }
    }
}

impl Api {
    /// An empty cluster: the namespaces that every cluster has, and nothing else.
    pub fn new() -> Self {
        let api = Self {
            store: Store::new(),
            registry: Registry::new(),
            faults: Faults::new(),
            journal: Journal::default(),
            addresses: Addresses::new(),
        };
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            api.plant("", "namespaces", json!({ "metadata": { "name": name } }));
        }
        let service = json!({
            "metadata": { "name": "kubernetes", "namespace": "default",
                "labels": { "component": "apiserver", "provider": "kubernetes" } },
            "spec": { "type": "ClusterIP", "clusterIP": Addresses::first(), "clusterIPs": [Addresses::first()],
                "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443 }] },
        });
        api.plant("", "services", service);
        api
    }

    /// Creates an object of our own; one that cannot be created is left out.
    pub fn plant(&self, group: &str, plural: &str, mut value: Value) {
        let resource = builtin::resource(group, plural);
        value["apiVersion"] = resource.api_version().into();
        value["kind"] = resource.kind.clone().into();
        let request = Request::internal(&resource, metadata::namespace(&value));
        if let Err(refusal) = self.create(&request, value) {
            tracing::debug!(kind = resource.kind, message = refusal.message, "an initial object was not created");
        }
    }

    pub fn key(request: &Request) -> ObjectKey {
        ObjectKey::new(request.namespace.clone(), request.name.clone())
    }

    /// The object that a request names.
    pub fn find(&self, request: &Request) -> Result<Arc<Stored>, Refusal> {
        let key = Self::key(request);
        let found = self.store.get(&request.resource.collection, &key);
        found.ok_or_else(|| Refusal::not_found(&request.resource, &request.name))
    }

    /// Does what has to follow when an object was stored.
    pub fn stored(&self, resource: &Resource, object: &Stored) {
        if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
            self.registry.define(&object.value);
        }
        if resource.is("", "namespaces") && !metadata::is_terminating(&object.value) {
            let name = metadata::name(&object.value);
            let accounts = builtin::resource("", "serviceaccounts");
            let key = ObjectKey::new(name, "default");
            if self.store.get(&accounts.collection, &key).is_none() {
                self.plant("", "serviceaccounts", json!({ "metadata": { "name": "default", "namespace": name } }));
            }
        }
    }

    /// Does what has to follow when an object is gone.
    pub fn removed(&self, collection: &CollectionId, object: &Stored) {
        if *collection.group == *"apiextensions.k8s.io" {
            self.registry.withdraw(&object.value);
            self.store.forget(&definition::collection(&object.value));
        }
        if *collection.plural == *"services" && collection.group.is_empty() {
            self.addresses.release(&object.value);
        }
    }
}
