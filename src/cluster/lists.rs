//! Lists that are asked for once: for people, and to tell whether something is empty before it is deleted.

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::connection::{Call, Cluster, JSON};
use super::discovery::{ApiKind, segment};
use super::error::{ApiError, ErrorClass};
use super::objects::METADATA_LIST;
use crate::manifest::ObjectId;

/// Objects looked at in one kind to tell whether a Namespace is empty: more than what Kubernetes puts there itself.
const CONTENTS_LOOKED_AT: usize = 500;

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Value>,
}

impl Cluster {
    /// All objects of a kind, whole.
    pub async fn list(&self, kind: &ApiKind, namespace: Option<&str>) -> Result<Vec<Value>, ApiError> {
        self.list_as(kind, namespace, "", JSON).await
    }

    /// Whether a Namespace or a CustomResourceDefinition holds anything but what `ignored` says, what Kubernetes puts
    /// into every namespace, and what belongs to other objects.
    pub async fn has_contents(
        &self,
        id: &ObjectId,
        ignored: &(dyn Fn(&ObjectId) -> bool + Sync),
    ) -> Result<bool, ApiError> {
        let (kinds, namespace) = if id.kind == "Namespace" {
            (self.namespaced_kinds(), Some(id.name.as_str()))
        } else {
            (self.kinds_of_definition(&id.name), None)
        };
        for kind in kinds {
            let query = format!("limit={CONTENTS_LOOKED_AT}");
            let items = match self.list_as(&kind, namespace, &query, METADATA_LIST).await {
                Ok(items) => items,
                // a kind that went away in the meantime holds nothing
                Err(error) if error.is_not_found() || error.code == 405 => continue,
                Err(error) => return Err(error),
            };
            let inside = items.iter().filter(|item| !is_ambient(&kind, item)).map(|item| identity(&kind, item));
            if inside.into_iter().any(|inside| !ignored(&inside)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn list_as(
        &self,
        kind: &ApiKind,
        namespace: Option<&str>,
        query: &str,
        accept: &'static str,
    ) -> Result<Vec<Value>, ApiError> {
        let path = format!("{}?{query}", kind.collection(namespace.map(segment).as_deref()));
        let call = Call { verb: "list", resource: kind.resource(), method: Method::GET, path, accept, body: None };
        let reply = self.call(call).await?;
        let list: List = serde_json::from_slice(&reply.body)
            .map_err(|e| ApiError::new(ErrorClass::Other, format!("a list can't be read (column {})", e.column())))?;
        Ok(list.items)
    }
}

fn identity(kind: &ApiKind, item: &Value) -> ObjectId {
    let text = |pointer| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    kind.object(text("/metadata/namespace"), text("/metadata/name"))
}

/// What Kubernetes puts into every namespace by itself, and what goes with its owner.
fn is_ambient(kind: &ApiKind, item: &Value) -> bool {
    let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let owned = item.pointer("/metadata/ownerReferences").and_then(Value::as_array).is_some_and(|o| !o.is_empty());
    owned
        || matches!(
            (&*kind.kind, name),
            ("Event" | "Endpoints" | "EndpointSlice" | "Lease" | "PodMetrics", _)
                | ("ServiceAccount", "default")
                | ("ConfigMap", "kube-root-ca.crt")
        )
}
