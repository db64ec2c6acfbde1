//! Lists that are asked for once: for people, and to tell whether something is empty before it is deleted.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::connection::{Call, Cluster, JSON};
use super::discovery::{ApiKind, segment};
use super::error::{ApiError, ErrorClass};
use super::objects::{METADATA_LIST, PAGE};
use crate::manifest::ObjectId;

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMetadata,
    /// `null` in a list of metadata that is empty.
    items: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
struct ListMetadata {
    /// Where the next page begins; empty on the last one.
    #[serde(default, rename = "continue")]
    more: String,
}

/// Where the contents of a Namespace or of a CustomResourceDefinition are.
enum Places {
    /// All objects of these kinds, in this namespace if one is given.
    In(Vec<ApiKind>, Option<String>),
    /// It does not exist, or has never been able to hold anything.
    Nowhere,
    /// There may be objects that the API server doesn't show.
    Unknown,
}

impl Cluster {
    /// All objects of a kind, whole. A server that asks for a moment, as it does while a definition changes, gets it.
    pub async fn list(&self, kind: &ApiKind, namespace: Option<&str>) -> Result<Vec<Value>, ApiError> {
        Ok(patiently(|| self.list_as(kind, namespace, "", JSON)).await?.items.unwrap_or_default())
    }

    /// Whether a Namespace or a CustomResourceDefinition holds anything but what `ignored` says and what Kubernetes puts
    /// into every namespace. What can't be looked at counts as contents.
    pub async fn has_contents(
        &self,
        id: &ObjectId,
        ignored: &(dyn Fn(&ObjectId) -> bool + Sync),
    ) -> Result<bool, ApiError> {
        let places = if id.kind == "Namespace" {
            // kinds that others have brought since may have objects in it
            self.discover().await?;
            Places::In(self.namespaced_kinds(), Some(id.name.clone()))
        } else {
            self.places_of_definition(id).await?
        };
        let (kinds, namespace) = match places {
            Places::In(kinds, namespace) => (kinds, namespace),
            Places::Nowhere => return Ok(false),
            Places::Unknown => return Ok(true),
        };
        for kind in kinds.iter().filter(|kind| !is_ambient_kind(kind)) {
            match self.holds_other(kind, namespace.as_deref(), ignored).await {
                Ok(false) => {}
                // a kind that went away in the meantime holds nothing
                Err(error) if error.is_not_found() || error.code == 405 => {}
                other => return other,
            }
        }
        Ok(false)
    }

    /// Asks the definition itself: what discovery knows may be older than the definition.
    async fn places_of_definition(&self, id: &ObjectId) -> Result<Places, ApiError> {
        let definitions = self.resolve(&id.group, &id.kind, None).await?;
        let Some(definition) = self.get(&definitions, id).await? else { return Ok(Places::Nowhere) };
        let text = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let each = |pointer: &str| definition.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        // once true it stays so, and before nothing could be stored
        if !each("/status/conditions").any(|c| c["type"] == "Established" && c["status"] == "True") {
            return Ok(Places::Nowhere);
        }
        let version = each("/spec/versions").find(|v| v["served"] == true).and_then(|v| v["name"].as_str());
        let Some(version) = version else { return Ok(Places::Unknown) };
        let namespaced = text("/spec/scope") == "Namespaced";
        let (group, kind, plural) = (text("/spec/group"), text("/spec/names/kind"), text("/spec/names/plural"));
        Ok(Places::In(vec![ApiKind::new(group, version, kind, plural, namespaced)], None))
    }

    async fn holds_other(
        &self,
        kind: &ApiKind,
        namespace: Option<&str>,
        ignored: &(dyn Fn(&ObjectId) -> bool + Sync),
    ) -> Result<bool, ApiError> {
        let mut more = String::new();
        loop {
            let query = format!("limit={PAGE}&continue={}", segment(&more));
            let list = self.list_as(kind, namespace, &query, METADATA_LIST).await?;
            // what has an owner beside it goes with that, which is looked at as well
            let by_itself = |item: &&Value| namespace.is_none() || !self.has_owner_beside_it(item);
            let items = list.items.unwrap_or_default();
            let mut inside = items.iter().filter(by_itself).map(|item| identity(kind, item));
            if inside.any(|inside| !is_ambient(&inside) && !ignored(&inside)) {
                return Ok(true);
            }
            more = list.metadata.more;
            if more.is_empty() {
                return Ok(false);
            }
        }
    }

    /// Whether an object belongs to another one of the same namespace.
    fn has_owner_beside_it(&self, item: &Value) -> bool {
        let owners = item.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
        let mut kinds = owners.filter_map(|owner| {
            let version = owner["apiVersion"].as_str()?;
            self.resource(version.split_once('/').map_or("", |(group, _)| group), owner["kind"].as_str()?, None)
        });
        kinds.any(|kind| kind.namespaced)
    }

    async fn list_as(
        &self,
        kind: &ApiKind,
        namespace: Option<&str>,
        query: &str,
        accept: &'static str,
    ) -> Result<List, ApiError> {
        let path = format!("{}?{query}", kind.collection(namespace.map(segment).as_deref()));
        let call = Call { verb: "list", resource: kind.resource(), method: Method::GET, path, accept, body: None };
        let reply = self.call(call).await?;
        serde_json::from_slice(&reply.body)
            .map_err(|e| ApiError::new(ErrorClass::Other, format!("a list can't be read (column {})", e.column())))
    }
}

/// Asks again when the server says when, as long as somebody who waits for the answer would.
async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        match &answer {
            Err(ApiError { class: ErrorClass::Throttled { retry_after: Some(pause) }, .. })
                if Instant::now() + *pause <= until =>
            {
                tokio::time::sleep(*pause).await;
            }
            _ => return answer,
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(15);

fn identity(kind: &ApiKind, item: &Value) -> ObjectId {
    let text = |pointer| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    kind.object(text("/metadata/namespace"), text("/metadata/name"))
}

/// Kubernetes makes these by itself; nobody misses them.
fn is_ambient_kind(kind: &ApiKind) -> bool {
    matches!(
        (&*kind.group, &*kind.kind),
        ("" | "events.k8s.io", "Event")
            | ("", "Endpoints")
            | ("discovery.k8s.io", "EndpointSlice")
            | ("coordination.k8s.io", "Lease")
            | ("metrics.k8s.io", "PodMetrics")
    )
}

/// Kubernetes puts these into every namespace by itself.
fn is_ambient(id: &ObjectId) -> bool {
    let is = |kind: &str, name: &str| id.group.is_empty() && id.kind == kind && id.name == name;
    is("ServiceAccount", "default") || is("ConfigMap", "kube-root-ca.crt")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_asks_for_a_moment_is_asked_again() {
        let throttled = |pause| {
            let retry_after = Some(Duration::from_secs(pause));
            Err(ApiError::new(ErrorClass::Throttled { retry_after }, "storage is (re)initializing"))
        };
        // the pause it asks for, how often it does so, how often it is asked
        for (pause, refusals, asked) in [(1, 0, 1), (1, 3, 4), (1, u32::MAX, 16), (60, u32::MAX, 1)] {
            let calls = Cell::new(0);
            let answer = patiently(|| {
                calls.set(calls.get() + 1);
                std::future::ready(if calls.get() > refusals { Ok("a list") } else { throttled(pause) })
            });
            assert_eq!((answer.await.is_ok(), calls.get()), (refusals < u32::MAX, asked));
        }
    }

    #[test]
    fn an_empty_list_of_metadata_is_null_on_a_real_server() {
        let texts = [
            r#"{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"7"},"items":null}"#,
            r#"{"kind":"WidgetList","metadata":{"continue":"next"},"items":[]}"#,
        ];
        let lists = texts.map(|text| serde_json::from_str::<List>(text).unwrap());
        assert!(lists.iter().all(|list| list.items.as_ref().is_none_or(Vec::is_empty)));
        assert_eq!(lists.map(|list| list.metadata.more), ["", "next"]);
    }
}
