//! Service of type LoadBalancer → an address.

use std::time::Duration;

use kube::ResourceExt;
use serde_json::json;

use super::cluster::{Cluster, Result};
use super::mirror::Key;

pub(super) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Option<Duration>> {
    let Some(service) = cluster.services.get(key) else { return Ok(None) };
    let Some(spec) = service.spec.as_ref().filter(|_| service.metadata.deletion_timestamp.is_none()) else {
        return Ok(None);
    };
    if spec.type_.as_deref() == Some("LoadBalancer") {
        // A documentation address (RFC 5737): nothing listens there.
        let host = service.uid().unwrap_or_default().bytes().fold(0u8, |sum, byte| sum.wrapping_mul(31) ^ byte);
        let status = json!({ "loadBalancer": { "ingress": [{ "ip": format!("203.0.113.{host}") }] } });
        cluster.write_status(&cluster.services, service.as_ref(), status).await?;
    }
    Ok(None)
}
