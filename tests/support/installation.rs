//! Afresh's rights as `kubectl apply -k manifests` gives them: a kubeconfig with a token of its service account.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::control_plane::ControlPlane;
use super::env::connect;

/// Where manifests/ installs.
pub const NAMESPACE: &str = "afresh-system";

/// The installation on the control plane that all tests share, made by the first of them.
///
/// # Panics
/// When it cannot be made.
pub async fn shared(plane: &ControlPlane) -> &'static Path {
    static SHARED: OnceCell<PathBuf> = OnceCell::const_new();
    let install = async || {
        apply(plane, &manifests()).await?;
        kubeconfig_of(plane, NAMESPACE).await
    };
    SHARED.get_or_init(|| async { install().await.unwrap_or_else(|error| panic!("no installation: {error:#}")) }).await
}

pub fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

/// `kubectl apply -k FOLDER`
pub async fn apply(plane: &ControlPlane, folder: &Path) -> anyhow::Result<()> {
    let output = plane.kubectl()?.args(["apply", "-k"]).arg(folder).output().await?;
    ensure!(output.status.success(), "kubectl apply -k: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// `kubectl apply -k` of an overlay in `folder`; `refer` gets a way to name folders of `manifests` in it.
pub async fn apply_overlay(
    plane: &ControlPlane,
    folder: &Path,
    overlay: impl FnOnce(&dyn Fn(&str) -> String) -> Value,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let (folder, manifests) = (folder.canonicalize()?, manifests().canonicalize()?);
    // kustomize takes no absolute paths
    let up: String = folder.components().skip(1).map(|_| "../").collect();
    let refer = |name: &str| format!("{up}{}/{name}", manifests.strip_prefix("/").unwrap_or(&manifests).display());
    std::fs::write(folder.join("kustomization.yaml"), overlay(&refer).to_string())?;
    apply(plane, &folder).await
}

/// A kubeconfig with a token of the service account `afresh`.
pub async fn kubeconfig_of(plane: &ControlPlane, namespace: &str) -> anyhow::Result<PathBuf> {
    let accounts: Api<ServiceAccount> = Api::namespaced(connect(plane.kubeconfig()).await, namespace);
    let request: TokenRequest =
        serde_json::from_value(json!({ "spec": { "audiences": [], "expirationSeconds": 7200 } }))?;
    let answer = accounts.create_token_request("afresh", &PostParams::default(), &request).await?;
    let token = answer.status.context("no token")?.token;
    plane.kubeconfig_with(&format!("{namespace}-afresh"), &token)
}
