//! Declares documents as `kubectl apply --server-side` and `kubectl delete` would.

use anyhow::Context as _;
use serde_json::Value;

use super::sight::Sight;
use crate::cluster::{ApiKind, ApplyOptions, Cluster, FieldValidation, Propagation};
use crate::manifest::ObjectId;

/// The field manager of what the demo declares and annotates.
pub const MANAGER: &str = "afresh-demo";

pub fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

/// The identity of a document, and the kind as the server knows it.
async fn identify(cluster: &Cluster, document: &Value) -> anyhow::Result<(ApiKind, ObjectId)> {
    let version = text(document, "/apiVersion").unwrap_or_default();
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let kind = text(document, "/kind").unwrap_or_default();
    let name = text(document, "/metadata/name").unwrap_or_default();
    let namespace = text(document, "/metadata/namespace").unwrap_or_default();
    let id = ObjectId::new(group, kind, namespace, name);
    Ok((cluster.resolve(group, kind, Some(version)).await?, id))
}

pub async fn apply(cluster: &Cluster, document: &Value) -> anyhow::Result<()> {
    let (kind, id) = identify(cluster, document).await?;
    let options = ApplyOptions { manager: MANAGER, force: true, dry_run: false, validation: FieldValidation::Strict };
    cluster.apply(&kind, &id, document, options).await.with_context(|| format!("can't apply {id}"))?;
    Ok(())
}

/// Deletes an object and waits until it is gone; one that does not exist is gone.
pub async fn remove(cluster: &Cluster, document: &Value) -> anyhow::Result<()> {
    let (kind, id) = identify(cluster, document).await?;
    let Some(object) = cluster.get(&kind, &id).await? else { return Ok(()) };
    let uid = text(&object, "/metadata/uid").unwrap_or_default();
    cluster.delete(&kind, &id, uid, Propagation::Background).await?;
    if !id.namespace.is_empty() {
        let mut sight = Sight::of(cluster, kind, &id.namespace).await;
        sight.until_gone(&id.name).await?;
    }
    Ok(())
}
