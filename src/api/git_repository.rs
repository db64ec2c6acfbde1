//! `GitRepository` of `source.toolkit.fluxcd.io/v1`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Conditions, GoDuration, carried, is_set};

/// Which repository to follow, at which reference, how often.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "source.toolkit.fluxcd.io",
    version = "v1",
    kind = "GitRepository",
    plural = "gitrepositories",
    shortname = "gitrepo",
    namespaced,
    status = "GitRepositoryStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"URL","type":"string","jsonPath":".spec.url"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct GitRepositorySpec {
    /// `http(s)://…`, `ssh://…`, `file://…` or an absolute path.
    #[schemars(regex(pattern = r"^(http|https|ssh|file)://.*$|^/.*$"))]
    pub url: String,
    /// How often to look for a new revision when nothing announces one.
    pub interval: GoDuration,
    /// Bound on one network operation; default 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<RefSpec>,
    /// A Secret in the same namespace: `username`/`password`, `bearerToken`, `ca.crt`, `tls.crt`/`tls.key`; for ssh
    /// `identity`, `known_hosts` and the identity's `password`; for `provider: github` the keys of the App.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
    /// Patterns in gitignore's syntax; they replace the built-in ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// `generic` (the default) or `github`, for the keys of a GitHub App; others are refused by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// A Secret in the same namespace: `address`, `username`, `password` of a proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_secret_ref: Option<LocalReference>,
    /// Parts of other GitRepositories of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<IncludeSpec>>,
    /// The directories that are seen; default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse_checkout: Option<Vec<String>>,

    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "carried")]
    pub service_account_name: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "carried")]
    pub verify: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "carried")]
    pub recurse_submodules: Option<Value>,
}

/// A part of another GitRepository, seen in this one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncludeSpec {
    pub repository: LocalReference,
    /// The directory that is taken; default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_path: Option<String>,
    /// Where it is seen; default: the name of the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_path: Option<String>,
}

/// What to follow; Flux's precedence: commit, name, tag, semver, branch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semver: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// A name in the same namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LocalReference {
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GitRepositoryStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_ignore: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,

    /// Of the sources in `spec.include`, in its order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub included_artifacts: Option<Vec<Artifact>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_include: Option<Vec<IncludeSpec>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "carried")]
    pub observed_recurse_submodules: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_sparse_checkout: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "carried")]
    pub source_verification_mode: Option<Value>,
}

/// What the source stands at. Afresh serves no tarball: `url` and `path` name the revision, they can't be fetched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$"))]
    pub digest: Option<String>,
    #[schemars(extend("format" = "date-time"))]
    pub last_update_time: String,
    pub path: String,
    pub revision: String,
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<std::collections::BTreeMap<String, String>>,
}

impl GitRepositorySpec {
    /// Fields that are set to more than their default and that we don't serve.
    pub fn unserved(&self) -> Vec<&'static str> {
        let provider = self.provider.as_deref().unwrap_or_default();
        [
            ("spec.provider: azure", provider == "azure"),
            ("spec.provider: aws", provider == "aws"),
            ("spec.provider: gcp", provider == "gcp"),
            ("spec.provider", !["", "generic", "github", "azure", "aws", "gcp"].contains(&provider)),
            ("spec.serviceAccountName", is_set(&self.service_account_name)),
            ("spec.verify", is_set(&self.verify)),
            ("spec.recurseSubmodules", is_set(&self.recurse_submodules)),
        ]
        .into_iter()
        .filter_map(|(field, set)| set.then_some(field))
        .collect()
    }
}
