//! `Receiver` of `notification.toolkit.fluxcd.io/v1`: an address of its own at which a forge says that there is something
//! new.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Conditions, GoDuration, Key, LocalReference, carried, is_set};

/// The path of every Receiver begins so.
pub const RECEIVER_PATH: &str = "/hook/";

/// Who sends, how that is proven, and what is to be looked at then.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "notification.toolkit.fluxcd.io",
    version = "v1",
    kind = "Receiver",
    plural = "receivers",
    namespaced,
    status = "ReceiverStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverSpec {
    /// `github`, `gitlab`, `bitbucket`, `generic-hmac` or `generic`.
    #[serde(rename = "type")]
    #[schemars(regex(
        pattern = r"^(generic|generic-hmac|generic-oidc|github|gitlab|bitbucket|harbor|dockerhub|quay|gcr|nexus|acr|cdevents)$"
    ))]
    pub kind: String,
    /// Kept for Flux; a change of the Secret is noticed when it happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<GoDuration>,
    /// Only these events; none given: all. As the forge spells them: `push`, `Push Hook`, `repo:push`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// What is to be looked at.
    pub resources: Vec<ReceiverResource>,
    /// A Secret in the same namespace; its key `token` proves who sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "carried")]
    pub resource_filter: Option<Value>,
    #[serde(default, rename = "oidcProviders", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "carried")]
    pub oidc_providers: Option<Value>,
}

/// One object, or all of a kind with some labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverResource {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// `GitRepository` or `Kustomization`.
    pub kind: String,
    /// `*`: all with the labels of `matchLabels`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Default: that of the Receiver. `*`: all, where the name is `*`, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub namespace: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,

    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "carried")]
    pub filter: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceiverStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
    /// `/hook/<SHA-256 of token, name and namespace>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
}

/// The types that are served.
const SERVED_TYPES: [&str; 5] = ["github", "gitlab", "bitbucket", "generic-hmac", "generic"];
/// The kinds that can be told of something new.
const SERVED_KINDS: [(&str, &str); 2] =
    [("GitRepository", "source.toolkit.fluxcd.io/"), ("Kustomization", "kustomize.toolkit.fluxcd.io/")];

impl ReceiverSpec {
    pub fn suspended(&self) -> bool {
        self.suspend.unwrap_or(false)
    }

    /// What is set and can't be served, in words.
    pub fn unserved(&self) -> Vec<String> {
        let mut unserved = Vec::new();
        if !SERVED_TYPES.contains(&self.kind.as_str()) {
            unserved.push(format!("`spec.type: {}`", self.kind));
        }
        for (field, value) in [("resourceFilter", &self.resource_filter), ("oidcProviders", &self.oidc_providers)] {
            if is_set(value) {
                unserved.push(format!("`spec.{field}`"));
            }
        }
        for (index, resource) in self.resources.iter().enumerate() {
            let place = format!("spec.resources[{index}]");
            let served = SERVED_KINDS.iter().find(|(kind, _)| *kind == resource.kind);
            match (served, resource.api_version.as_deref().unwrap_or_default()) {
                (None, _) => unserved.push(format!("`{place}.kind: {}`", resource.kind)),
                (Some((_, group)), version) if !version.is_empty() && !version.starts_with(group) => {
                    unserved.push(format!("`{place}.apiVersion: {version}`"));
                }
                (Some(_), _) => {}
            }
            if is_set(&resource.filter) {
                unserved.push(format!("`{place}.filter`"));
            }
        }
        unserved
    }

    /// What contradicts itself, in words; the first of it.
    pub fn contradiction(&self) -> Option<String> {
        if self.secret_ref.is_none() {
            return Some("`spec.secretRef` is needed: its Secret holds the `token`".to_owned());
        }
        for (index, resource) in self.resources.iter().enumerate() {
            let place = format!("spec.resources[{index}]");
            let wildcard = resource.name == "*";
            if wildcard && resource.match_labels.is_empty() {
                return Some(format!("`{place}.matchLabels` is needed where the name is `*`"));
            }
            if !wildcard && !resource.match_labels.is_empty() {
                return Some(format!("`{place}.matchLabels` needs the name `*`"));
            }
            if !wildcard && resource.namespace.as_deref() == Some("*") {
                return Some(format!("`{place}.namespace: *` needs the name `*`"));
            }
        }
        None
    }
}

/// The path at which a Receiver listens: whoever knows it knows the token's hash, nothing else.
pub fn receiver_path(token: &[u8], key: &Key) -> String {
    let mut hash = Sha256::new();
    for part in [token, key.name.as_bytes(), key.namespace.as_bytes()] {
        hash.update(part);
    }
    format!("{RECEIVER_PATH}{}", hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(change: Value) -> ReceiverSpec {
        let mut spec = json!({
            "type": "github", "secretRef": { "name": "token" },
            "resources": [{ "kind": "GitRepository", "name": "platform" }],
        });
        json_patch::merge(&mut spec, &change);
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn the_path_is_the_hash_of_token_name_and_namespace() {
        // printf 'secret-tokengithubapps' | sha256sum
        let path = receiver_path(b"secret-token", &Key::new("apps", "github"));
        assert_eq!(path, "/hook/b4d21b95e711325895b4d058b1f19feaf0128e5149f5c95ab2c172ab31ecf0de");
    }

    #[test]
    fn what_is_not_served_is_named() {
        let resource = |more: Value| {
            let mut resource = json!({ "kind": "GitRepository", "name": "platform" });
            json_patch::merge(&mut resource, &more);
            json!({ "resources": [{ "kind": "Kustomization", "name": "app" }, resource] })
        };
        for (change, unserved) in [
            (json!({}), vec![]),
            (json!({ "type": "harbor" }), vec!["`spec.type: harbor`"]),
            (json!({ "resourceFilter": "true" }), vec!["`spec.resourceFilter`"]),
            (json!({ "oidcProviders": [{ "issuerURL": "https://x" }] }), vec!["`spec.oidcProviders`"]),
            (resource(json!({ "filter": "true" })), vec!["`spec.resources[1].filter`"]),
            (resource(json!({ "kind": "HelmRepository" })), vec!["`spec.resources[1].kind: HelmRepository`"]),
            (resource(json!({ "apiVersion": "source.toolkit.fluxcd.io/v1beta2" })), vec![]),
            (resource(json!({ "apiVersion": "v1" })), vec!["`spec.resources[1].apiVersion: v1`"]),
        ] {
            assert_eq!(spec(change.clone()).unserved(), unserved, "{change}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_named() {
        let resource = |more: Value| {
            let mut resource = json!({ "kind": "GitRepository", "name": "platform" });
            json_patch::merge(&mut resource, &more);
            json!({ "resources": [resource] })
        };
        for (change, expected) in [
            (json!({ "secretRef": null }), Some("secretRef")),
            (resource(json!({ "name": "*" })), Some("spec.resources[0].matchLabels")),
            (resource(json!({ "name": "*", "matchLabels": { "team": "a" } })), None),
            (resource(json!({ "matchLabels": { "team": "a" } })), Some("needs the name `*`")),
            (resource(json!({ "namespace": "*" })), Some("spec.resources[0].namespace")),
        ] {
            let said = spec(change.clone()).contradiction();
            assert_eq!(said.is_some(), expected.is_some(), "{change}: {said:?}");
            assert!(expected.is_none_or(|word| said.unwrap().contains(word)), "{change}");
        }
    }
}
