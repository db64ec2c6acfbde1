//! Leases (`coordination.k8s.io/v1`): read, created, replaced at the version that was read.

use http::Method;
use serde_json::{Value, json};

use super::connection::Cluster;
use super::discovery::ApiKind;
use super::error::ApiError;

/// A Lease as it was read or written.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// The whole object: what others put into it is kept.
    object: Value,
}

/// What a Lease says of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Empty: nobody holds it.
    pub holder: String,
    pub duration_s: u64,
    pub acquired: Option<String>,
    /// When it was renewed last, by the holder's clock: compared, never subtracted.
    pub renewed: Option<String>,
    pub transitions: i64,
}

impl From<Value> for Lease {
    fn from(object: Value) -> Self {
        Self { object }
    }
}

impl Lease {
    pub fn tenure(&self) -> Tenure {
        let spec = &self.object["spec"];
        let text = |field: &str| spec[field].as_str().map(str::to_owned);
        Tenure {
            holder: text("holderIdentity").unwrap_or_default(),
            duration_s: spec["leaseDurationSeconds"].as_u64().unwrap_or_default(),
            acquired: text("acquireTime"),
            renewed: text("renewTime"),
            transitions: spec["leaseTransitions"].as_i64().unwrap_or_default(),
        }
    }

    fn with(mut self, tenure: &Tenure) -> Value {
        let spec = &mut self.object["spec"];
        if !spec.is_object() {
            *spec = json!({});
        }
        if let (Some(spec), Value::Object(new)) = (spec.as_object_mut(), tenure.spec()) {
            spec.extend(new);
        }
        self.object
    }
}

impl Tenure {
    fn spec(&self) -> Value {
        json!({
            "holderIdentity": self.holder,
            "leaseDurationSeconds": self.duration_s,
            "acquireTime": self.acquired,
            "renewTime": self.renewed,
            "leaseTransitions": self.transitions,
        })
    }
}

impl Cluster {
    /// `None` if there is no such Lease.
    pub async fn get_lease(&self, namespace: &str, name: &str) -> Result<Option<Lease>, ApiError> {
        let kind = ApiKind::lease();
        Ok(self.get(&kind, &kind.object(namespace, name)).await?.map(|object| Lease { object }))
    }

    /// Fails with `AlreadyExists` where somebody else was quicker.
    pub async fn create_lease(&self, namespace: &str, name: &str, tenure: &Tenure) -> Result<Lease, ApiError> {
        let object = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": namespace},
            "spec": tenure.spec(),
        });
        let kind = ApiKind::lease();
        let object = self.create(&kind, &kind.object(namespace, name), &object, LEASE_MANAGER).await?;
        Ok(Lease { object })
    }

    /// Writes the tenure into the Lease; fails with `Conflict` if it is not as it was read.
    pub async fn replace_lease(&self, lease: &Lease, tenure: &Tenure) -> Result<Lease, ApiError> {
        let text = |pointer| lease.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = ApiKind::lease();
        let id = kind.object(text("/metadata/namespace"), text("/metadata/name"));
        let object = lease.clone().with(tenure);
        let object = self.send_object("update", Method::PUT, &kind, &id, &object, LEASE_MANAGER).await?;
        Ok(Lease { object })
    }
}

/// The field manager of Leases.
const LEASE_MANAGER: &str = "afresh";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_written_with_what_others_put_into_it() {
        let lease = Lease {
            object: json!({
                "metadata": {"name": "a", "labels": {"x": "y"}, "resourceVersion": "7"},
                "spec": {"holderIdentity": "old", "strategy": "OldestEmulationVersion", "leaseTransitions": 3},
            }),
        };
        assert_eq!(lease.tenure().holder, "old");
        assert_eq!(lease.tenure().transitions, 3);
        let tenure = Tenure { holder: "new".into(), duration_s: 35, acquired: None, renewed: None, transitions: 4 };
        let written = lease.with(&tenure);
        assert_eq!(written["metadata"]["resourceVersion"], "7");
        assert_eq!(written["metadata"]["labels"]["x"], "y");
        assert_eq!(written["spec"]["strategy"], "OldestEmulationVersion");
        assert_eq!(written["spec"]["holderIdentity"], "new");
    }
}
