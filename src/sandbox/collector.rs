//! What follows deletions: dependents of owners that are gone, the contents of namespaces and definitions that are
//! going, and the finalizers that stand for this work.
//!
//! One task; it sleeps until a write leaves it something to do, and does everything that can be done by then.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::builtin;
use super::definition::{self, CLEANUP};
use super::metadata;
use super::removal::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER, Options};
use super::request::{Request, Subresource, Verb};
use super::resource::Resource;
use super::rules::CLAIM_PROTECTION;
use super::store::{Stored, Touched};

/// Runs until `shutdown`.
pub async fn run(api: Arc<Api>, shutdown: CancellationToken) {
    let mut due = api.store.due();
    loop {
        due.borrow_and_update();
        // what a round changes wakes the next one
        api.collect();
        tokio::select! {
            changed = due.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

impl Api {
    /// One round: everything that can be done now.
    fn collect(&self) {
        for uid in self.store.missing_owners() {
            for dependent in self.store.dependents(&uid) {
                self.collect_dependent(&dependent);
            }
        }
        for touched in self.store.terminating() {
            self.finish(&touched);
        }
    }

    fn load(&self, touched: &Touched) -> Option<(Arc<Resource>, Arc<Stored>)> {
        Some((self.registry.of_collection(&touched.collection)?, self.store.get(&touched.collection, &touched.key)?))
    }

    /// An object goes with the last of its owners; until then it loses its references to those that are gone.
    fn collect_dependent(&self, touched: &Touched) {
        let Some((resource, object)) = self.load(touched) else { return };
        if metadata::is_terminating(&object.value) {
            return;
        }
        let references = metadata::owner_references(&object.value);
        let there = |reference: &&Value| reference["uid"].as_str().is_some_and(|uid| self.store.has_uid(uid));
        let kept: Vec<Value> = references.iter().filter(there).cloned().collect();
        if kept.is_empty() {
            let options = Options::background().with_uid(object.uid());
            self.delete_internal(&resource, &touched.key.namespace, &touched.key.name, &options);
        } else if kept.len() < references.len() {
            self.edit(&resource, &object, |metadata| {
                metadata.insert("ownerReferences".into(), kept.into());
            });
        }
    }

    /// Does what a terminating object waits for, as far as that is this server's.
    fn finish(&self, touched: &Touched) {
        let Some((resource, object)) = self.load(touched) else { return };
        if resource.is("", "namespaces") {
            self.empty_namespace(&resource, &object);
        }
        for finalizer in metadata::finalizers(&object.value) {
            let done = match finalizer {
                FOREGROUND_FINALIZER => self.delete_dependents(&object),
                ORPHAN_FINALIZER => self.orphan_dependents(&object),
                CLEANUP if resource.is("apiextensions.k8s.io", "customresourcedefinitions") => {
                    self.delete_instances(&object)
                }
                CLAIM_PROTECTION if resource.is("", "persistentvolumeclaims") => self.is_unused(&object),
                _ => false,
            };
            if done {
                self.edit(&resource, &object, |metadata| {
                    if let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
                        list.retain(|f| f != finalizer);
                    }
                });
                // the object changed; its other finalizers come in the next round
                return;
            }
        }
    }

    /// True once no dependent blocks the owner's deletion.
    fn delete_dependents(&self, owner: &Stored) -> bool {
        let mut done = true;
        for dependent in self.store.dependents(owner.uid()) {
            let Some((resource, object)) = self.load(&dependent) else { continue };
            let mut references = metadata::owner_references(&object.value).iter();
            done &= !references.any(|r| r["uid"] == owner.uid() && r["blockOwnerDeletion"] == true);
            if !metadata::is_terminating(&object.value) {
                let options = Options::background().with_uid(object.uid());
                self.delete_internal(&resource, &dependent.key.namespace, &dependent.key.name, &options);
            }
        }
        done
    }

    /// True once no dependent refers to the owner.
    fn orphan_dependents(&self, owner: &Stored) -> bool {
        for dependent in self.store.dependents(owner.uid()) {
            let Some((resource, object)) = self.load(&dependent) else { continue };
            self.edit(&resource, &object, |metadata| {
                if let Some(list) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) {
                    list.retain(|r| r["uid"] != owner.uid());
                }
            });
        }
        self.store.dependents(owner.uid()).is_empty()
    }

    /// True if no Pod that still runs mounts the claim.
    fn is_unused(&self, claim: &Stored) -> bool {
        let key = claim.key();
        let (pods, _) = self.store.list(&builtin::resource("", "pods").collection, &key.namespace);
        !pods.iter().any(|pod| {
            let ended =
                matches!(pod.value.pointer("/status/phase").and_then(Value::as_str), Some("Succeeded" | "Failed"));
            let volumes = pod.value.pointer("/spec/volumes").and_then(Value::as_array);
            let mut claims =
                volumes.into_iter().flatten().filter_map(|v| v.pointer("/persistentVolumeClaim/claimName"));
            !ended && claims.any(|name| *name == *key.name)
        })
    }

    /// True once no object of the definition's kind is left.
    fn delete_instances(&self, definition: &Stored) -> bool {
        let collection = definition::collection(&definition.value);
        let (objects, _) = self.store.list(&collection, "");
        if let Some(resource) = self.registry.of_collection(&collection) {
            for object in objects.iter().filter(|o| !metadata::is_terminating(&o.value)) {
                let key = object.key();
                self.delete_internal(&resource, &key.namespace, &key.name, &Options::background());
            }
        }
        self.store.list(&collection, "").0.is_empty()
    }

    /// Deletes what is in a namespace and lets it go once it is empty.
    fn empty_namespace(&self, resource: &Arc<Resource>, namespace: &Stored) {
        let name = metadata::name(&namespace.value);
        let held = namespace.value.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
        if !held {
            return;
        }
        for touched in self.store.contents(name) {
            let Some((resource, object)) = self.load(&touched) else { continue };
            if !metadata::is_terminating(&object.value) {
                self.delete_internal(&resource, name, &touched.key.name, &Options::background());
            }
        }
        if !self.store.contents(name).is_empty() {
            return;
        }
        let mut value = namespace.value.clone();
        value["spec"]["finalizers"] = json!([]);
        let request = internal_update(resource, namespace, Subresource::Finalize);
        if let Err(refusal) = self.update(&request, value) {
            tracing::debug!(name, message = refusal.message, "a namespace was not finalized");
        }
    }

    /// Changes the metadata of an object unless another writer was faster: then the next round sees it.
    fn edit(
        &self,
        resource: &Arc<Resource>,
        object: &Stored,
        change: impl FnOnce(&mut serde_json::Map<String, Value>),
    ) {
        let mut value = object.value.clone();
        value["apiVersion"] = resource.api_version().into();
        value["kind"] = resource.kind.clone().into();
        change(metadata::of(&mut value));
        let request = internal_update(resource, object, Subresource::None);
        if let Err(refusal) = self.update(&request, value)
            && !matches!(refusal.code, 404 | 409)
        {
            tracing::debug!(kind = resource.kind, message = refusal.message, "an object's metadata was not changed");
        }
    }
}

fn internal_update(resource: &Arc<Resource>, object: &Stored, subresource: Subresource) -> Request {
    let key = object.key();
    Request { verb: Verb::Update, name: key.name, subresource, ..Request::internal(resource, &key.namespace) }
}
