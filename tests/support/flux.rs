//! A cluster that Flux has served: the small platform in `tests/flux/platform` as `flux bootstrap` lays it out, and what
//! Flux's own controllers made of it in a cluster, recorded in `tests/flux/cluster.json` (`tests/flux/record` does that).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Where Flux lives, with its source and its Kustomizations.
pub const NAMESPACE: &str = "flux-system";
/// Where the platform's applications live.
pub const SHOP: &str = "shop";
/// The file that holds Flux itself.
pub const COMPONENTS: &str = "clusters/prod/flux-system/gotk-components.yaml";
/// The file that takes it in.
pub const KUSTOMIZATION: &str = "clusters/prod/flux-system/kustomization.yaml";
/// What stands for the repository's address in the platform and in what is recorded.
pub const URL: &str = "@URL@";
/// What stands for the commit in what is recorded.
pub const COMMIT: &str = "@COMMIT@";

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/flux")
}

/// The files of the platform, in a repository at this address.
pub fn platform(url: &str) -> Vec<(String, String)> {
    let root = folder().join("platform");
    let (mut files, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the platform") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).expect("below it").to_string_lossy().into_owned();
            files.push((name, std::fs::read_to_string(&path).expect("text").replace(URL, url)));
        }
    }
    files.sort();
    files
}

/// A file of the platform.
pub fn file(path: &str) -> String {
    std::fs::read_to_string(folder().join("platform").join(path)).expect("a file of the platform")
}

/// `gotk-components.yaml` taken out of the kustomization.
pub fn without_components() -> String {
    let whole = file(KUSTOMIZATION);
    let less = whole.replace("  - gotk-components.yaml\n", "");
    assert_ne!(whole, less);
    less
}

pub fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// Objects of this kind, in this namespace unless it is empty.
pub fn objects(client: &Client, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
    // the one plural that isn't made by the rule
    let mut resource = resource(api_version, kind);
    if kind == "NetworkPolicy" {
        resource.plural = "networkpolicies".into();
    }
    match namespace {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn api_of(client: &Client, object: &Value) -> Api<DynamicObject> {
    objects(client, text(object, "/apiVersion"), text(object, "/kind"), text(object, "/metadata/namespace"))
}

/// Puts what is recorded into a cluster: its objects with their managed fields, finalizers and status, as Flux left them
/// at `commit`. Only where the definitions of Flux's kinds are there, they are replaced.
pub async fn replay(client: &Client, url: &str, commit: &str) {
    let recorded = std::fs::read_to_string(folder().join("cluster.json")).expect("what is recorded");
    let recorded = recorded.replace(URL, url).replace(COMMIT, commit);
    let recorded: Vec<Value> = serde_json::from_str(&recorded).expect("a list of objects");
    for object in &recorded {
        restore(client, object).await;
    }
}

async fn restore(client: &Client, object: &Value) {
    let (api, name) = (api_of(client, object), text(object, "/metadata/name"));
    let what = format!("{}/{name}", text(object, "/kind"));
    let mut bare = object.clone();
    let status = bare.as_object_mut().and_then(|object| object.remove("status"));
    let metadata = bare["metadata"].as_object_mut().expect("metadata");
    let managed = metadata.remove("managedFields").expect("managed fields");
    let typed = || serde_json::from_value::<DynamicObject>(bare.clone()).expect("an object");
    let made = crate::support::wait::eventually(crate::support::env::PATIENCE, async || {
        match api.get_opt(name).await.expect("it can be read") {
            Some(there) => {
                let mut typed = typed();
                typed.metadata.resource_version = there.metadata.resource_version;
                api.replace(name, &PostParams::default(), &typed).await.ok()
            }
            // a definition that was just made takes a moment to be served, as a namespace does
            None => api.create(&PostParams::default(), &typed()).await.ok(),
        }
    });
    assert!(made.await.is_some(), "{what} can be made: {:?}", api.create(&PostParams::default(), &typed()).await);
    if let Some(status) = status {
        let patch = Patch::Merge(json!({ "status": status }));
        let params = PatchParams { field_manager: Some("gotk-kustomize-controller".into()), ..Default::default() };
        api.patch_status(name, &params, &patch).await.unwrap_or_else(|error| panic!("the status of {what}: {error}"));
    }
    // nothing but this entry is ever changed by the patch, so that what is written is what stays
    let patch = Patch::Merge(json!({ "metadata": { "managedFields": managed } }));
    api.patch(name, &PatchParams::default(), &patch).await.expect("managed fields are set");
}

/// What there is of Flux and of the platform: each object's uid, and what it declares but for its metadata and status.
/// (A Deployment's generation says less: an annotation raises it, too.) What is restarted or recreated has another uid;
/// what is duplicated or orphaned is one more, or less.
pub type Fingerprint = BTreeMap<String, (String, Value)>;

pub async fn fingerprint(client: &Client) -> Fingerprint {
    const KINDS: [(&str, &str); 13] = [
        ("v1", "Namespace"),
        ("v1", "ConfigMap"),
        ("v1", "Pod"),
        ("v1", "Service"),
        ("v1", "ServiceAccount"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("apps/v1", "Deployment"),
        ("apps/v1", "ReplicaSet"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole"),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
        ("kustomize.toolkit.fluxcd.io/v1", "Kustomization"),
        ("source.toolkit.fluxcd.io/v1", "GitRepository"),
    ];
    let mut found = BTreeMap::new();
    for (api_version, kind) in KINDS {
        let list = objects(client, api_version, kind, "").list(&ListParams::default()).await.expect("a list");
        for mut object in list {
            let metadata = object.metadata;
            let labelled = || metadata.labels.iter().flatten().any(|(key, _)| key == afresh::api::OWNER_NAME_LABEL);
            let ours = metadata.namespace.as_deref().map_or_else(labelled, |place| [NAMESPACE, SHOP].contains(&place));
            if !ours {
                continue;
            }
            if let Some(content) = object.data.as_object_mut() {
                content.remove("status");
            }
            let name =
                format!("{kind}/{}/{}", metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
            found.insert(name, (metadata.uid.unwrap_or_default(), object.data));
        }
    }
    found
}

/// What differs between two fingerprints, in words.
pub fn differences(before: &Fingerprint, after: &Fingerprint) -> Vec<String> {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let told = |name: &String| match (before.get(name), after.get(name)) {
        (Some(_), None) => Some(format!("{name} is gone")),
        (None, Some(_)) => Some(format!("{name} is new")),
        (Some((uid, _)), Some((other, _))) if uid != other => Some(format!("{name} was recreated")),
        (Some((_, a)), Some((_, b))) if a != b => Some(format!("{name} changed")),
        _ => None,
    };
    names.into_iter().filter_map(told).collect()
}
