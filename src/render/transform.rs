//! `targetNamespace` and `commonMetadata`, as kustomize's namespace transformer and Flux set them.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::CommonMetadata;
use super::objects::Draft;
use super::scope;

/// Puts every namespaced object into a namespace, and with them what refers to them:
/// - Namespace objects are renamed;
/// - ServiceAccounts in role bindings: `default`, and those that are among the objects;
/// - Services of webhooks that are among the objects, of APIServices and of conversion webhooks.
pub(super) fn set_namespace(drafts: &mut [Draft], namespace: &str) {
    let cluster_scoped = scope::defined_here(drafts);
    let accounts = names(drafts, "ServiceAccount");
    let services = names(drafts, "Service");
    for draft in drafts {
        let (group, kind) = (draft.group().to_owned(), draft.kind().to_owned());
        let value = &mut draft.value;
        if group.is_empty() && kind == "Namespace" {
            set(value, &["metadata"], "name", namespace);
        } else if !scope::is_cluster_scoped(&group, &kind) && !cluster_scoped.contains(&(group, kind.clone())) {
            set(value, &["metadata"], "namespace", namespace);
        }
        match kind.as_str() {
            "RoleBinding" | "ClusterRoleBinding" => {
                for subject in items(value, "subjects") {
                    let is_account = text(subject, "kind") == "ServiceAccount";
                    if is_account && (text(subject, "name") == "default" || refers_to(subject, &accounts)) {
                        set(subject, &[], "namespace", namespace);
                    }
                }
            }
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => {
                for webhook in items(value, "webhooks") {
                    let service = webhook.pointer_mut("/clientConfig/service");
                    if let Some(service) = service.filter(|service| refers_to(service, &services)) {
                        set(service, &[], "namespace", namespace);
                    }
                }
            }
            "APIService" => set(value, &["spec", "service"], "namespace", namespace),
            "CustomResourceDefinition" => {
                set(value, &["spec", "conversion", "webhook", "clientConfig", "service"], "namespace", namespace);
            }
            _ => {}
        }
    }
}

/// Sets labels and annotations over what the object has.
pub(super) fn set_common_metadata(value: &mut Value, metadata: &CommonMetadata<'_>) {
    for (field, entries) in [("labels", metadata.labels), ("annotations", metadata.annotations)] {
        if entries.is_empty() {
            continue;
        }
        let Some(object) = value.get_mut("metadata").and_then(Value::as_object_mut) else { continue };
        let map = object.entry(field).or_insert_with(|| Value::Object(Map::new()));
        if map.is_null() {
            *map = Value::Object(Map::new());
        }
        if let Some(map) = map.as_object_mut() {
            map.extend(entries.iter().map(|(key, entry)| (key.clone(), Value::String(entry.clone()))));
        }
    }
}

/// Namespace and name of the core objects of a kind.
fn names(drafts: &[Draft], kind: &str) -> HashSet<(String, String)> {
    drafts
        .iter()
        .filter(|draft| draft.group().is_empty() && draft.kind() == kind)
        .map(|draft| (draft.namespace().to_owned(), draft.name().to_owned()))
        .collect()
}

fn refers_to(reference: &Value, names: &HashSet<(String, String)>) -> bool {
    let name = text(reference, "name").to_owned();
    let namespace = text(reference, "namespace").to_owned();
    // An object without a namespace is meant whatever namespace the reference guesses.
    names.contains(&(namespace, name.clone())) || names.contains(&(String::new(), name))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Sets a text in the mapping at `path`, if there is one.
fn set(value: &mut Value, path: &[&str], key: &str, text: &str) {
    let target = path.iter().try_fold(value, |value, key| value.get_mut(*key));
    if let Some(map) = target.and_then(Value::as_object_mut) {
        map.insert(key.to_owned(), Value::String(text.to_owned()));
    }
}
