//! What only a real API server can show of the port to Kubernetes and of apply. Needs `KUBEBUILDER_ASSETS`
//! (`tests/tools/build` prints it); without it each test says so and passes.

#[path = "../support/control_plane.rs"]
#[expect(dead_code, reason = "shared with other test binaries, which use the rest")]
mod control_plane;

mod applying;
mod knowing;
mod refusals;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use afresh::api::{APPLY_MANAGER, DESIRED, OWNER_NAME_LABEL, OWNER_NAMESPACE_LABEL};
use afresh::apply::{Applier, Work, stage_of};
use afresh::cluster::{
    Answer, ApiError, ApplyOptions, Cluster, ClusterOptions, FieldValidation, Observed, ObservedOptions, OwnerKey,
    WriteGate,
};
use afresh::manifest::{Object, ObjectId, Origin};
use control_plane::ControlPlane;
use serde_json::{Value, json};

/// One test's view of the shared server: its own namespace and its own owner.
struct Bench {
    cluster: Cluster,
    observed: Observed,
    applier: Applier,
    namespace: String,
    owner: OwnerKey,
}

impl Bench {
    /// `None` where there are no servers to start.
    async fn new(name: &str) -> Option<Bench> {
        if !ControlPlane::available() {
            eprintln!("skipped: KUBEBUILDER_ASSETS names no servers");
            return None;
        }
        let server = ControlPlane::shared().await;
        let cluster = Cluster::connect(Some(server.kubeconfig()), None, ClusterOptions::default()).await.unwrap();
        let gate = WriteGate::default();
        let observed = Observed::new(cluster.clone(), gate.clone(), ObservedOptions::default());
        let applier = Applier::new(cluster.clone(), gate, observed.clone());
        let bench =
            Bench { cluster, observed, applier, namespace: name.to_owned(), owner: OwnerKey::new("flux-system", name) };
        bench.apply_as(APPLY_MANAGER, &bench.plain("v1", "Namespace", name, json!({}))).await.unwrap();
        Some(bench)
    }

    /// An object without labels; cluster-scoped kinds get no namespace.
    fn plain(&self, api_version: &str, kind: &str, name: &str, more: Value) -> Value {
        let mut object =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": self.namespace}});
        if matches!(kind, "Namespace" | "CustomResourceDefinition" | "ClusterRole") {
            object["metadata"].as_object_mut().unwrap().remove("namespace");
        }
        let parts = object.as_object_mut().unwrap();
        parts.extend(more.as_object().unwrap().clone());
        object
    }

    /// An object as the plan would hand it over: with owner labels and a digest.
    fn declared(&self, api_version: &str, kind: &str, name: &str, digest: &str, more: Value) -> Arc<Object> {
        let mut value = self.plain(api_version, kind, name, more);
        value["metadata"]["labels"] =
            json!({OWNER_NAME_LABEL: self.owner.name, OWNER_NAMESPACE_LABEL: self.owner.namespace});
        value["metadata"]["annotations"] = json!({DESIRED: digest});
        Arc::new(object(value))
    }

    fn config_map(&self, name: &str, digest: &str, data: Value) -> Arc<Object> {
        self.declared("v1", "ConfigMap", name, digest, json!({"data": data}))
    }

    async fn apply_as(&self, manager: &str, value: &Value) -> Result<Answer, ApiError> {
        let object = object(value.clone());
        let kind = self.cluster.resolve(&object.id.group, &object.id.kind, Some(&object.version)).await?;
        let options = ApplyOptions { manager, force: true, dry_run: false, validation: FieldValidation::Strict };
        self.cluster.apply(&kind, &object.id, value, options).await
    }

    /// What a person or a controller does with `kubectl patch`.
    async fn patch_as(&self, manager: &str, id: &ObjectId, patch: Value) {
        let kind = self.cluster.resolve(&id.group, &id.kind, None).await.unwrap();
        self.cluster.merge_patch(&kind, id, &patch, None, manager).await.unwrap();
    }

    async fn live(&self, id: &ObjectId) -> Option<Value> {
        let kind = self.cluster.resolve(&id.group, &id.kind, None).await.unwrap();
        self.cluster.get(&kind, id).await.unwrap()
    }

    async fn watch(&self, kinds: &[(&str, &str)]) {
        let mut found = Vec::new();
        for (group, kind) in kinds {
            found.push(self.cluster.resolve(group, kind, None).await.unwrap());
        }
        self.observed.ensure_watched(&self.owner, &found).await.unwrap();
    }
}

fn object(value: Value) -> Object {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let api_version = text("/apiVersion");
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
    Object {
        id: ObjectId::new(group, text("/kind"), text("/metadata/namespace"), text("/metadata/name")),
        version: version.to_owned(),
        origin: Origin { path: "app.yaml".into(), line: 1 },
        value,
    }
}

/// All objects, in the order in which they are applied.
fn work(objects: impl IntoIterator<Item = Arc<Object>>) -> Work {
    let mut stages = BTreeMap::<_, Vec<Arc<Object>>>::new();
    for object in objects {
        stages.entry(stage_of(&object.id)).or_default().push(object);
    }
    Work { stages: stages.into_values().collect(), ..Work::default() }
}

/// Waits until `condition` holds: as long as a slow machine may need, no longer than it takes.
async fn eventually<F: AsyncFn() -> bool>(what: &str, condition: F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "never happened: {what}");
}
