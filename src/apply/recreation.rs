//! Deleting an object to create it anew, where the server says that it can't be changed in place.
//!
//! Comes in: the object, the server's refusal, and who has asked for it. An object is deleted only after the server has
//! taken its replacement in a dry run under another name, only if it is ours, and if it may hold data only with a
//! person's consent on the object itself. What depends on the name can't be tried beforehand.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::api::CONFIRM_RECREATE;
use crate::cluster::{ApiError, ApiKind, Cluster, ErrorClass, OwnerKey, Propagation, Seen};
use crate::manifest::{Identity, Object, ObjectId};
use crate::plan::{Consent, Recreation};

use super::applier::{Failure, submit};
use super::outcome::UnknownFields;

/// Kubernetes removes most objects at once in background deletion, unless someone's finalizer holds them.
const GONE_WITHIN: Duration = Duration::from_secs(60);
const GONE_PAUSE: Duration = Duration::from_millis(250);
/// Of a name, so that with what is put behind it is no longer than the shortest that a kind allows (52, CronJobs).
const NAME_KEPT: usize = 40;
/// Of the uid, so that the other name is nobody's.
const UID_KEPT: usize = 8;

/// An object that was refused because it can't be changed in place, and how it would be applied.
pub(super) struct Replacement<'a> {
    pub cluster: &'a Cluster,
    pub kind: &'a ApiKind,
    pub object: &'a Object,
    /// Without the fields that the server doesn't know.
    pub value: &'a Value,
    pub unknown_fields: UnknownFields,
    /// The object or its application asks for it.
    pub forced: bool,
    /// What a consent must name.
    pub revision: &'a str,
}

/// In the server's refusal of a Secret or a ConfigMap that is sealed by `immutable: true`.
const SEALED: &str = "when `immutable` is set";

/// A Service that names its address or its port: a dry run takes one that is another's, too.
fn asks_for_what_may_be_taken(value: &Value) -> bool {
    let spec = |field: &str| value.get("spec").and_then(|spec| spec.get(field));
    let address = spec("clusterIP").and_then(Value::as_str).is_some_and(|address| !matches!(address, "" | "None"));
    let ports = spec("ports").and_then(Value::as_array).into_iter().flatten();
    let port = ports.filter_map(|port| port.get("nodePort")).chain(spec("healthCheckNodePort"));
    value.get("kind").and_then(Value::as_str) == Some("Service") && (address || port.count() > 0)
}

impl Replacement<'_> {
    /// The object that stands in the way, if it may be deleted and the server would take its replacement; `None` if
    /// it has gone. Else why not.
    pub async fn rehearse(&self, refused: ApiError) -> Result<Option<Seen>, ApiError> {
        let id = &self.object.id;
        let Some(live) = self.cluster.get_seen(self.kind, id).await? else { return Ok(None) };
        if live.owner.is_none() || live.owner != owner_of(self.value) || live.marks.keeps_from_deletion() {
            return Err(refused);
        }
        if refused.message.contains(SEALED) {
            let message = format!(
                "{refused}; it is not deleted to be created anew, because nodes keep what they have read of an immutable object under its name\nhint: declare the new content under a new name, as kustomize's generators do"
            );
            return Err(ApiError { class: ErrorClass::Other, code: 0, message });
        }
        let recreation = Recreation::of(id, self.forced || live.marks.force);
        if recreation == Recreation::Never {
            return Err(refused);
        }
        if recreation == Recreation::WithConsent && !self.has_consent().await? {
            return Err(self.unconfirmed(&refused));
        }
        if asks_for_what_may_be_taken(self.value) {
            let message = format!(
                "{refused}; it is not deleted to be created anew: whether the address or port that it asks for is free can't be tried\nhint: leave `clusterIP` and `nodePort` to the server, or delete the Service yourself"
            );
            return Err(ApiError { class: ErrorClass::Other, code: 0, message });
        }
        let (trial_id, trial) = trial(id, self.value, &live.uid);
        let mut trial = Arc::new(trial);
        let (cluster, kind) = (self.cluster, self.kind);
        match submit(cluster, kind, &trial_id, &mut trial, &mut Vec::new(), self.unknown_fields, true).await {
            Ok(_) => Ok(Some(live)),
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                let message = format!(
                    "{refused}; it is not deleted to be created anew, because the server would not take the new one: {error}"
                );
                Err(ApiError { class: ErrorClass::Other, code: 0, message })
            }
        }
    }

    async fn has_consent(&self) -> Result<bool, ApiError> {
        let metadata = self.cluster.get_metadata(self.kind, &self.object.id).await?;
        let annotation = metadata.as_ref().and_then(|m| m.get("annotations")?.get(CONFIRM_RECREATE)?.as_str());
        Ok(Consent::read(annotation, self.revision).given())
    }

    fn unconfirmed(&self, refused: &ApiError) -> ApiError {
        let Identity { group, kind, namespace, name } = &*self.object.id;
        let resource =
            if group.is_empty() { self.kind.plural.to_string() } else { format!("{}.{group}", self.kind.plural) };
        let within = if namespace.is_empty() { String::new() } else { format!(" -n {namespace}") };
        let message = format!(
            "{refused}; creating a {kind} anew may lose data: waiting for consent\nhint: kubectl annotate --overwrite {resource}/{name}{within} {CONFIRM_RECREATE}='{}'",
            self.revision
        );
        ApiError { class: ErrorClass::Other, code: 0, message }
    }

    /// Deletes the object that stands in the way, and waits until it is gone.
    pub async fn delete(&self, live: &Seen, stop: &CancellationToken) -> Result<(), Failure> {
        let id = &self.object.id;
        match self.cluster.delete(self.kind, id, &live.uid, Propagation::Background).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let deadline = Instant::now() + GONE_WITHIN;
        loop {
            match self.cluster.get_seen(self.kind, id).await? {
                Some(still) if still.uid == live.uid => {
                    if Instant::now() >= deadline {
                        let message = format!(
                            "deleted to be recreated, but not gone within {} s: waiting for {}",
                            GONE_WITHIN.as_secs(),
                            still.finalizers.join(", ")
                        );
                        return Err(ApiError::new(ErrorClass::Timeout, message).into());
                    }
                }
                _ => return Ok(()),
            }
            tokio::select! {
                () = tokio::time::sleep(GONE_PAUSE) => {}
                () = stop.cancelled() => return Err(Failure::Stopped),
            }
        }
    }
}

fn owner_of(value: &Value) -> Option<OwnerKey> {
    let label = |key: &str| value.get("metadata")?.get("labels")?.get(key)?.as_str();
    Some(OwnerKey::new(label(crate::api::OWNER_NAMESPACE_LABEL)?, label(crate::api::OWNER_NAME_LABEL)?))
}

/// The object under a name that nobody has. The name of a CustomResourceDefinition follows from its plural.
pub(super) fn trial(id: &ObjectId, value: &Value, uid: &str) -> (ObjectId, Value) {
    let renamed = |name: &str| {
        let kept: String = name.chars().take(NAME_KEPT).collect();
        let mark: String = uid.chars().take(UID_KEPT).collect();
        format!("{}-{mark}", kept.trim_end_matches(['-', '.']))
    };
    let mut value = value.clone();
    let name = match (id.group.as_str(), id.kind.as_str(), value.pointer_mut("/spec/names/plural")) {
        ("apiextensions.k8s.io", "CustomResourceDefinition", Some(plural)) => {
            let new = renamed(plural.as_str().unwrap_or_default());
            *plural = Value::String(new.clone());
            let group = value.pointer("/spec/group").and_then(Value::as_str).unwrap_or_default();
            format!("{new}.{group}")
        }
        _ => renamed(&id.name),
    };
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("name".into(), Value::String(name.clone()));
    }
    (ObjectId::new(&*id.group, &*id.kind, &*id.namespace, name), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_replacement_is_tried_under_a_short_name_that_nobody_has() {
        let uid = "01234567-89ab";
        for (name, wanted) in [
            ("web", "web-01234567"),
            ("a-name-that-is-as-long-as-a-name-can-b-.-rest", "a-name-that-is-as-long-as-a-name-can-b-01234567"),
        ] {
            let id = ObjectId::new("apps", "Deployment", "shop", name);
            let (other, value) = trial(&id, &json!({"metadata": {"name": name}}), uid);
            assert_eq!((other.name.as_str(), value["metadata"]["name"].as_str()), (wanted, Some(wanted)));
            assert!(other.name.len() <= 52);
        }
        let id = ObjectId::new("apiextensions.k8s.io", "CustomResourceDefinition", "", "widgets.x.io");
        let definition =
            json!({"metadata": {"name": "widgets.x.io"}, "spec": {"group": "x.io", "names": {"plural": "widgets"}}});
        let (other, value) = trial(&id, &definition, uid);
        assert_eq!(other.name, "widgets-01234567.x.io");
        assert_eq!(value["spec"]["names"]["plural"], "widgets-01234567");
    }
}
