//! `Provider` of `notification.toolkit.fluxcd.io/v1beta3`: where notifications go.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{GoDuration, LocalReference, carried, is_set};

/// An endpoint that notifications are sent to.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "notification.toolkit.fluxcd.io",
    version = "v1beta3",
    kind = "Provider",
    plural = "providers",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSpec {
    /// `generic`, `generic-hmac`, `slack`, `alertmanager`, `github`, `gitlab` or `gitea`; others are refused by name.
    #[serde(rename = "type")]
    pub kind: String,
    /// A URL; for commit status the repository's, by https or ssh. The Secret's `address` goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub address: Option<String>,
    /// The channel of a `slack` provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub channel: Option<String>,
    /// Under which name a `slack` provider posts; the user of an `alertmanager` behind basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub username: Option<String>,
    /// Bound on one request; default 15s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// A Secret with `address`, `token`, `username`, `password`, `headers` (YAML) and `proxy`, each if need be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
    /// A Secret with `ca.crt` (or `caFile`), and `tls.crt` with `tls.key` (or `certFile`, `keyFile`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_secret_ref: Option<LocalReference>,
    /// The URL of a proxy; `proxySecretRef` goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^(http|https)://.*$"))]
    pub proxy: Option<String>,
    /// A Secret with the proxy's `address`, and `username` with `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_secret_ref: Option<LocalReference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Not used since v1beta3, by Flux either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<GoDuration>,

    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "carried")]
    pub service_account_name: Option<Value>,
    /// An expression in CEL that makes the name of a commit's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_status_expr: Option<String>,
}

impl ProviderSpec {
    /// Fields that are set and that we don't serve.
    pub fn unserved(&self) -> Vec<&'static str> {
        if is_set(&self.service_account_name) { vec!["spec.serviceAccountName"] } else { Vec::new() }
    }
}
