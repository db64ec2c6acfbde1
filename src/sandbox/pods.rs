//! What is asked of a Pod beside itself: to be bound to a Node, to be evicted; and what the sandbox cannot do, since
//! nothing runs in its Pods.

use serde_json::{Value, json};

use super::api::{Answer, Api};
use super::body::check_subresource;
use super::metadata;
use super::refusal::{Cause, Refusal};
use super::removal::Options;
use super::request::{Request, Subresource};
use super::resource::Resource;
use super::writing::{ATTEMPTS, admit};

/// Why a subresource that a real cluster has is not served; `None` if there is none of this name.
pub fn unserved(resource: &Resource, name: &str) -> Option<&'static str> {
    let plural = if resource.group.is_empty() { resource.plural.as_str() } else { "" };
    Some(match (plural, name) {
        ("pods", "log") => "the sandbox runs no containers: there are no logs",
        ("pods", "exec" | "attach") => "the sandbox runs no containers: there is nothing to execute in or to attach to",
        ("pods", "portforward") => "the sandbox runs no containers: there is no port to forward to",
        ("pods", "ephemeralcontainers") => "the sandbox runs no containers: there is nothing to debug in",
        ("pods", "resize") => "the sandbox runs no containers: none can be resized in place",
        ("pods" | "services" | "nodes", "proxy") => "the sandbox runs no containers: there is nothing to proxy to",
        ("serviceaccounts", "token") => {
            "the sandbox issues no tokens: it asks nobody who they are; use the kubeconfig that it wrote"
        }
        _ => return None,
    })
}

impl Api {
    /// Gives a Pod its Node.
    pub fn bind(&self, request: &Request, binding: &Value) -> Result<Answer, Refusal> {
        check_subresource(request, binding)?;
        check_target(binding)?;
        for _ in 0..ATTEMPTS {
            let live = self.find(request)?;
            let conflict = |why: String| Refusal::conflict_at(&request.resource, "binding", &request.name, &why);
            let name = &request.name;
            let uid = metadata::uid(binding);
            if !uid.is_empty() && uid != live.uid() {
                let why =
                    format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", live.uid());
                return Err(conflict(why));
            }
            if metadata::is_terminating(&live.value) {
                return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
            }
            if let Some(node) = live.value.pointer("/spec/nodeName").and_then(Value::as_str).filter(|n| !n.is_empty()) {
                return Err(conflict(format!("pod {name} is already assigned to node {node:?}")));
            }
            admit(request)?;
            if request.dry_run {
                return Ok(done());
            }
            let bound = bound(&live.value, binding);
            match self.store.replace(&request.resource.collection, bound, live.version) {
                Ok(object) => {
                    self.stored(&request.resource, &object);
                    return Ok(done());
                }
                Err(_) => continue,
            }
        }
        Err(Refusal::modified(&request.resource, &request.name))
    }

    /// Deletes a Pod. Disruption budgets have no controller here, and are not asked.
    pub fn evict(&self, request: &Request, eviction: &Value) -> Result<Answer, Refusal> {
        check_subresource(request, eviction)?;
        let options = Options::of(request, &eviction["deleteOptions"])?;
        let main = Request { subresource: Subresource::None, ..request.clone() };
        self.delete(&main, &options).map(|_| done())
    }
}

/// The answer of a subresource that only does something.
fn done() -> Answer {
    let value = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    Answer::Value { code: 201, value }
}

fn check_target(binding: &Value) -> Result<(), Refusal> {
    let of = |field: &str| binding.pointer(&format!("/target/{field}")).and_then(Value::as_str).unwrap_or_default();
    let mut causes = Vec::new();
    if !matches!(of("kind"), "" | "Node") {
        causes.push(Cause::unsupported("target.kind", &of("kind").into(), &["Node", "<empty>"]));
    }
    if of("name").is_empty() {
        causes.push(Cause::required("target.name", ""));
    }
    let texts: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    match texts.as_slice() {
        [] => Ok(()),
        [one] => Err(Refusal::internal_plain(one)),
        many => Err(Refusal::internal_plain(format!("[{}]", many.join(", ")))),
    }
}

fn bound(pod: &Value, binding: &Value) -> Value {
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for (key, value) in binding.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten() {
        pod["metadata"]["annotations"][key] = value.clone();
    }
    let conditions = metadata::as_map(&mut pod["status"]).entry("conditions").or_insert_with(|| json!([]));
    if let Some(list) = conditions.as_array_mut() {
        list.retain(|condition| condition["type"] != "PodScheduled");
        list.push(json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": metadata::now() }));
    }
    pod
}
