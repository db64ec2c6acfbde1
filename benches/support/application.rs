//! One application of one ConfigMap on a cluster, and the moment at which a watch shows what it declares.

use std::path::Path;
use std::time::{Duration, Instant};

use afresh::api::REQUESTED_AT;
use afresh::cluster::{
    ApiKind, ApplyOptions, Cluster, ClusterOptions, Collection, FieldValidation, WatchEvent, Watcher,
};
use afresh::manifest::ObjectId;
use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::{NAMESPACE, PATIENCE};

pub const SOURCE: &str = "platform";
pub const APPLICATION: &str = "app";
const MANAGER: &str = "bench";
/// Nothing is looked at for that reason while it is measured.
const INTERVAL: &str = "1h";
/// Where the ConfigMap is declared.
pub const FILE: &str = "app/settings.yaml";

pub async fn connect(kubeconfig: &Path) -> anyhow::Result<Cluster> {
    let options = ClusterOptions { request_timeout: PATIENCE, ..Default::default() };
    Ok(Cluster::connect(Some(kubeconfig), None, options).await?)
}

pub fn settings(value: usize) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: settings, namespace: {NAMESPACE} }}\n\
         data: {{ value: \"{value}\" }}\n"
    )
}

/// The definitions, the namespace, the source and the application.
pub async fn install(cluster: &Cluster, url: &str) -> anyhow::Result<()> {
    prepare(cluster).await?;
    apply(cluster, &source(SOURCE, url)).await?;
    apply(cluster, &application(APPLICATION, SOURCE)).await
}

/// The definitions and the namespace; returns when they serve.
pub async fn prepare(cluster: &Cluster) -> anyhow::Result<()> {
    for definition in &afresh::api::definitions() {
        apply(cluster, &serde_json::to_value(definition)?).await?;
    }
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    apply(cluster, &namespace).await?;
    let deadline = Instant::now() + PATIENCE;
    for kind in [ApiKind::git_repository(), ApiKind::kustomization()] {
        while let Err(error) = cluster.list(&kind, Some(NAMESPACE)).await {
            ensure!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    cluster.discover().await?;
    Ok(())
}

pub fn source(name: &str, url: &str) -> Value {
    json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": { "url": url, "interval": INTERVAL, "ref": { "branch": "main" } },
    })
}

/// One of the folder that is called as it is.
pub fn application(name: &str, source: &str) -> Value {
    json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "interval": INTERVAL, "path": format!("./{name}"), "prune": true,
            "sourceRef": { "kind": "GitRepository", "name": source },
        },
    })
}

pub async fn apply(cluster: &Cluster, object: &Value) -> anyhow::Result<()> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("/apiVersion").rsplit_once('/').unwrap_or(("", text("/apiVersion")));
    let id = ObjectId::new(group, text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
    let options = ApplyOptions { manager: MANAGER, force: true, dry_run: false, validation: FieldValidation::Strict };
    let kind = cluster.resolve(group, &id.kind, Some(version)).await?;
    cluster.apply(&kind, &id, object, options).await?;
    Ok(())
}

/// Has a source looked at now.
pub async fn announce(cluster: &Cluster, source: &str) -> anyhow::Result<()> {
    let token = k8s_openapi::jiff::Timestamp::now().to_string();
    let patch = json!({ "metadata": { "annotations": { REQUESTED_AT: token } } });
    let kind = ApiKind::git_repository();
    cluster.merge_patch(&kind, &kind.object(NAMESPACE, source), &patch, None, MANAGER).await?;
    Ok(())
}

/// What the ConfigMap holds, as a watch shows it.
pub struct Settings(Watcher<Value>);

impl Settings {
    pub fn watch(cluster: &Cluster) -> Self {
        Self(watcher(cluster, ApiKind::config_map(), "settings"))
    }

    /// The moment at which the watch shows a value.
    pub async fn is_live(&mut self, value: usize) -> anyhow::Result<Instant> {
        let text = value.to_string();
        let live = until(&mut self.0, |object| object["data"]["value"] == text.as_str()).await;
        live.with_context(|| format!("value {value} is not live"))
    }
}

pub fn watcher(cluster: &Cluster, kind: ApiKind, name: &str) -> Watcher<Value> {
    let collection = Collection {
        namespace: Some(NAMESPACE.to_owned()),
        fields: Some(format!("metadata.name={name}")),
        ..Collection::all(kind)
    };
    Watcher::new(cluster.clone(), collection)
}

/// The moment at which the object is seen to pass the test.
pub async fn until(watcher: &mut Watcher<Value>, test: impl Fn(&Value) -> bool) -> anyhow::Result<Instant> {
    let mut last = Value::Null;
    let seen = tokio::time::timeout(PATIENCE, async {
        loop {
            let object = match watcher.next().await {
                WatchEvent::Listed { mut items, .. } => items.pop(),
                WatchEvent::Changed(object) => Some(object),
                _ => None,
            };
            last = object.unwrap_or_default();
            if test(&last) {
                return Instant::now();
            }
        }
    });
    match seen.await {
        Ok(at) => Ok(at),
        Err(_) => bail!("it is not seen within {} s; last seen: {last:#}", PATIENCE.as_secs()),
    }
}
