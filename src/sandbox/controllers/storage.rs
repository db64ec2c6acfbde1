//! PersistentVolumeClaim → Bound: there is room for all of them.

use std::time::Duration;

use kube::ResourceExt;
use serde_json::json;

use super::cluster::{Cluster, Result};
use super::mirror::Key;

pub(super) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Option<Duration>> {
    let Some(claim) = cluster.claims.get(key) else { return Ok(None) };
    let Some(spec) = claim.spec.as_ref().filter(|_| claim.metadata.deletion_timestamp.is_none()) else {
        return Ok(None);
    };
    if spec.volume_name.is_none() {
        let volume = format!("pvc-{}", claim.uid().unwrap_or_default());
        cluster.merge(&cluster.claims, claim.as_ref(), json!({ "spec": { "volumeName": volume } })).await?;
    }
    let size = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let status = json!({ "phase": "Bound", "accessModes": spec.access_modes, "capacity": size });
    cluster.write_status(&cluster.claims, claim.as_ref(), status).await?;
    Ok(None)
}
