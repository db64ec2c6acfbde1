//! What all controllers share: the mirrors they read and the writes they make.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, PodTemplateSpec, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions, Resource};
use kube::{Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::mirror::Mirror;

pub(super) type Result<T, E = kube::Error> = std::result::Result<T, E>;

/// The field manager of the real controllers.
const MANAGER: &str = "kube-controller-manager";
/// What generated names are written in: no vowels and nothing that reads like another letter.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) claims: Mirror<PersistentVolumeClaim>,
    pub(super) daemon_sets: Mirror<DaemonSet>,
    pub(super) deployments: Mirror<Deployment>,
    pub(super) jobs: Mirror<Job>,
    pub(super) nodes: Mirror<Node>,
    pub(super) pods: Mirror<Pod>,
    pub(super) replica_sets: Mirror<ReplicaSet>,
    pub(super) services: Mirror<Service>,
    pub(super) stateful_sets: Mirror<StatefulSet>,
}

/// A kind that controllers write.
pub(super) trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}
impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl Cluster {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            claims: Mirror::default(),
            daemon_sets: Mirror::default(),
            deployments: Mirror::default(),
            jobs: Mirror::default(),
            nodes: Mirror::default(),
            pods: Mirror::default(),
            replica_sets: Mirror::default(),
            services: Mirror::default(),
            stateful_sets: Mirror::default(),
        }
    }

    fn api<K: Kind>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates an object; one of that name that exists already is left alone.
    pub(super) async fn create<K: Kind>(&self, mirror: &Mirror<K>, object: &K) -> Result<()> {
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match self.api(&object.namespace().unwrap_or_default()).create(&params, object).await {
            Ok(created) => mirror.remember(created),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Deletes exactly this object; that it is gone already is fine.
    pub(super) async fn delete<K: Kind>(&self, mirror: &Mirror<K>, object: &K) -> Result<()> {
        let only = Preconditions { uid: object.uid(), resource_version: None };
        let params = DeleteParams::background().preconditions(only);
        match self.api::<K>(&object.namespace().unwrap_or_default()).delete(&object.name_any(), &params).await {
            Ok(answer) => {
                if let Some(deleted) = answer.left() {
                    mirror.remember(deleted);
                }
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Merges `change` into an object.
    pub(super) async fn merge<K: Kind>(&self, mirror: &Mirror<K>, object: &K, change: Value) -> Result<()> {
        let api = self.api(&object.namespace().unwrap_or_default());
        mirror.remember(api.patch(&object.name_any(), &by_controller(), &Patch::Merge(change)).await?);
        Ok(())
    }

    /// Merges `status` into an object's status where it differs from what is there. `null` removes a field.
    pub(super) async fn write_status<K: Kind>(&self, mirror: &Mirror<K>, object: &K, status: Value) -> Result<()> {
        let current = serde_json::to_value(object).map_err(kube::Error::SerdeError)?["status"].take();
        let mut wanted = current.clone();
        json_patch::merge(&mut wanted, &status);
        if wanted == current {
            return Ok(());
        }
        let api = self.api(&object.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({ "status": status }));
        mirror.remember(api.patch_status(&object.name_any(), &by_controller(), &patch).await?);
        Ok(())
    }
}

fn by_controller() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() }
}

/// A count as Kubernetes writes it: absent when zero.
pub(super) fn count(number: usize) -> Value {
    if number == 0 { Value::Null } else { number.into() }
}

/// A reference to the owner that controls what bears it.
pub(super) fn controlled_by<K: Kind>(owner: &K) -> Vec<OwnerReference> {
    owner.controller_owner_ref(&()).into_iter().collect()
}

/// A Pod from a template, with one more label.
pub(super) fn pod_from<K: Kind>(
    owner: &K,
    template: &PodTemplateSpec,
    name: String,
    labels: impl IntoIterator<Item = (&'static str, String)>,
) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    let mut all = from.labels.unwrap_or_default();
    all.extend(labels.into_iter().map(|(key, value)| (key.to_owned(), value)));
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: owner.namespace(),
            labels: Some(all),
            annotations: from.annotations,
            owner_references: Some(controlled_by(owner)),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// A name for a template's content: equal templates get equal names.
pub(super) fn template_hash(template: &PodTemplateSpec) -> String {
    let text = serde_json::to_vec(template).unwrap_or_default();
    spell(&Sha256::digest(text)[..10])
}

/// Five letters that make a name unique, as `generateName` adds.
pub(super) fn suffix() -> String {
    spell(&rand::random::<[u8; 5]>())
}

fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| ALPHABET[usize::from(*byte) % ALPHABET.len()] as char).collect()
}
