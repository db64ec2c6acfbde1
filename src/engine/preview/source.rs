//! The newest tree of a GitRepository, found and fetched as its worker does, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::api::{GitRepository, Key};
use crate::cluster::{ApiKind, Cluster};
use crate::engine::bases::NO_KEY;
use crate::engine::source::read_target;
use crate::manifest::{EntryKind, Tree as _};
use crate::source::credentials::SshKey;
use crate::source::mount::{self, Mount};
use crate::source::{Remotes, Snapshot, SourceError};

/// Includes within includes.
const DEPTH_MAX: usize = 8;

/// A tree and its revision.
pub struct Found {
    pub snapshot: Snapshot,
    pub revision: String,
    pub labels: BTreeMap<String, String>,
    /// `spec.suspend`: a daemon would not have looked.
    pub suspended: bool,
}

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
#[error("GitRepository `{key}`: {message}")]
pub struct SourceUnavailable {
    pub key: Key,
    pub message: String,
}

/// Asks the remote of a GitRepository for its newest revision and fetches it.
pub async fn find(cluster: &Cluster, remotes: &Remotes, key: &Key) -> Result<Found, SourceUnavailable> {
    find_below(cluster, remotes, key, &mut Vec::new()).await
}

/// The key for ssh of a GitRepository, or what helps where there is none.
pub(super) async fn ssh_key(cluster: &Cluster, remotes: &Remotes, key: &Key) -> Result<Arc<SshKey>, String> {
    let object = read(cluster, key).await.map_err(|error| error.to_string())?;
    let target = read_target(cluster, remotes, key, &object).await;
    let target = target.map_err(|refusal| format!("GitRepository `{key}`: {}", refusal.message))?;
    target.ssh_key.ok_or_else(|| NO_KEY.to_owned())
}

async fn read(cluster: &Cluster, key: &Key) -> Result<Arc<GitRepository>, SourceUnavailable> {
    let failed = |message: String| SourceUnavailable { key: key.clone(), message };
    let kind = ApiKind::git_repository();
    let object = cluster.get(&kind, &kind.object(key.namespace.clone(), key.name.clone())).await;
    let object = object.map_err(|error| failed(format!("can't be read: {error}")))?;
    let object = object.ok_or_else(|| failed("does not exist\nhint: create it, or correct the name".to_owned()))?;
    let object = serde_json::from_value(object).map_err(|error| failed(format!("can't be read: {error}")))?;
    Ok(Arc::new(object))
}

async fn find_below(
    cluster: &Cluster,
    remotes: &Remotes,
    key: &Key,
    above: &mut Vec<Key>,
) -> Result<Found, SourceUnavailable> {
    let failed = |message: String| SourceUnavailable { key: key.clone(), message };
    if above.contains(key) || above.len() >= DEPTH_MAX {
        return Err(failed("`spec.include` leads in a circle, or too deep".to_owned()));
    }
    let object = read(cluster, key).await?;
    let target = read_target(cluster, remotes, key, &object).await.map_err(|refusal| failed(refusal.message))?;
    let told = |error: SourceError| {
        let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        failed(format!("{error}{hint}"))
    };
    let revision = target.remote.probe(&target.reference, target.timeout()).await.map_err(told)?;
    let snapshot = target.fetch(revision.clone(), CancellationToken::new()).await.map_err(told)?;
    above.push(key.clone());
    let mut mounts = Vec::new();
    for include in object.spec.include.as_deref().unwrap_or_default() {
        let name = &include.repository.name;
        let names = |path: &str| mount::names(path).map_err(|error| failed(format!("`spec.include`: {error}")));
        let from = names(include.from_path.as_deref().unwrap_or_default())?;
        let at = names(include.to_path.as_deref().filter(|path| !path.is_empty()).unwrap_or(name))?;
        let other = Key::new(&key.namespace, name);
        let found = Box::pin(find_below(cluster, remotes, &other, above)).await?;
        let entry = found.snapshot.entry(&from.join("/")).map_err(|error| failed(error.to_string()))?;
        if entry.is_none_or(|entry| entry.kind != EntryKind::Directory) {
            return Err(failed(format!("`spec.include`: `{other}` has no directory `{}`", from.join("/"))));
        }
        mounts.push(Mount { at, from, snapshot: found.snapshot });
    }
    above.pop();
    mount::check_places(mounts.iter().map(|mount| &mount.at)).map_err(|error| failed(error.to_string()))?;
    let snapshot = if mounts.is_empty() { snapshot } else { snapshot.with_mounts(mounts) };
    let labels = object.metadata.labels.clone().unwrap_or_default();
    Ok(Found { labels, revision: revision.to_string(), snapshot, suspended: object.spec.suspend.unwrap_or(false) })
}
