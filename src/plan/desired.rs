//! From rendered objects to what is sent: namespace settled, owner labels and digest set, special wishes read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::{self, Key};
use crate::manifest::{DigestKey, Object, ObjectId, Origin, Packed, Pointer};
use crate::rollout::{self, Wish};

use super::drift::DriftMode;
use super::ignore::IgnoreRules;

/// Whether a kind lives in namespaces.
pub trait Scopes {
    /// `None`: the kind is not known.
    fn namespaced(&self, group: &str, kind: &str) -> Option<bool>;
}

/// How an object asks to be applied (`kustomize.toolkit.fluxcd.io/ssa` and `…/reconcile`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Forced server-side apply; fields that kubectl set are taken over.
    Override,
    /// As `Override`, but fields of kubectl stay kubectl's.
    Merge,
    /// Applied only where there is no such object.
    IfNotPresent,
    /// Neither applied nor deleted.
    Ignore,
}

/// One object as it is sent.
#[derive(Clone, Debug)]
pub struct Desired {
    /// With its namespace settled, its owner labels and its digest.
    pub object: Arc<Packed>,
    /// The annotation's value.
    pub digest: String,
    pub handling: Handling,
    /// It asks to be created anew where it can't be changed in place (`kustomize.toolkit.fluxcd.io/force`).
    pub forced: bool,
    /// What it asks to be done when others change it (`afresh.dev/drift`).
    pub drift: Option<DriftMode>,
    /// Places that are left to others (`spec.ignore`).
    pub ignored: Arc<[Pointer]>,
}

impl Desired {
    /// The same object with a change of ours, and the digest that it has then.
    pub fn changed(&self, key: &DigestKey, change: impl FnOnce(&mut Value)) -> Desired {
        let mut object = self.object.unpacked();
        change(&mut object.value);
        let digest = stamp(&mut object.value, key);
        Desired { object: Arc::new(object.into()), digest, ..self.clone() }
    }

    /// The same object without a field: the digest stays that of all of it.
    pub fn without(&self, field: &Pointer) -> Desired {
        let mut object = self.object.unpacked();
        field.remove(&mut object.value);
        Desired { object: Arc::new(object.into()), ..self.clone() }
    }
}

/// Sets the annotation `afresh.dev/desired` to the digest of all else, which is answered.
fn stamp(value: &mut Value, key: &DigestKey) -> String {
    section_of(section(value, "metadata"), "annotations").remove(api::DESIRED);
    let digest = key.digest(value);
    section_of(section(value, "metadata"), "annotations").insert(api::DESIRED.into(), json!(digest));
    digest
}

/// Why a rendered object can't be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A namespaced kind without `metadata.namespace` and no `spec.targetNamespace`.
    #[error(
        "{origin}: {id} has no namespace\nhint: set `metadata.namespace` there, or `spec.targetNamespace` on the Kustomization"
    )]
    NamespaceMissing { id: ObjectId, origin: Origin },
    /// Neither the cluster nor a definition among the objects knows the kind.
    #[error(
        "{origin}: the cluster has no kind `{kind}` in `{api_version}`\nhint: is its CustomResourceDefinition installed? If another Kustomization brings it, name that one in `spec.dependsOn`"
    )]
    KindUnknown { kind: String, api_version: String, origin: Origin },
    /// An annotation asks for something we don't do.
    #[error("{origin}: {id} asks for `{key}: {value}`, which is not served\nhint: {hint}")]
    WishUnserved { id: ObjectId, key: &'static str, value: String, hint: &'static str, origin: Origin },
}

/// Whose objects they are.
#[derive(Clone, Copy)]
pub struct Application<'a> {
    pub key: &'a Key,
    pub ignore: &'a IgnoreRules,
}

/// Prepares all objects of an application, or names everything that is wrong with them.
pub fn desired(
    objects: &[Arc<Object>],
    app: &Application,
    scopes: &dyn Scopes,
    key: &DigestKey,
) -> Result<Vec<Desired>, Vec<PlanError>> {
    let defined = scopes_defined(objects);
    let (mut good, mut bad) = (Vec::with_capacity(objects.len()), Vec::new());
    for object in objects {
        let group_kind = (object.id.group.as_str(), object.id.kind.as_str());
        let namespaced = defined.get(&group_kind).copied().or_else(|| scopes.namespaced(group_kind.0, group_kind.1));
        match prepare(object, namespaced, app, key) {
            Ok(desired) => good.push(desired),
            Err(error) => bad.push(*error),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

fn prepare(
    object: &Object,
    namespaced: Option<bool>,
    app: &Application,
    key: &DigestKey,
) -> Result<Desired, Box<PlanError>> {
    let (mut id, origin) = (object.id.clone(), object.origin.clone());
    let mut value = object.value.clone();
    // rendering can't know that a custom kind is cluster-scoped; the API server takes no notice of a namespace there
    if namespaced == Some(false) && !id.namespace.is_empty() {
        id = id.without_namespace();
        section(&mut value, "metadata").remove("namespace");
    }
    match (namespaced, id.namespace.is_empty()) {
        (None, _) => {
            let api_version = object.api_version();
            return Err(Box::new(PlanError::KindUnknown { kind: id.kind.clone(), api_version, origin }));
        }
        (Some(true), true) => return Err(Box::new(PlanError::NamespaceMissing { id, origin })),
        _ => {}
    }
    let handling = handling(object)?;
    let drift = object.annotation(api::DRIFT).and_then(DriftMode::parse);
    let metadata = section(&mut value, "metadata");
    let labels = section_of(metadata, "labels");
    labels.insert(api::OWNER_NAME_LABEL.into(), json!(app.key.name));
    labels.insert(api::OWNER_NAMESPACE_LABEL.into(), json!(app.key.namespace));
    // ours alone: what Git says of them would be a claim about the cluster
    section_of(metadata, "annotations").remove(api::CONFIG);
    rollout::set_hash(&id, &mut value, None);
    let digest = stamp(&mut value, key);
    let forced = wish(object, api::FORCE).as_deref() == Some("enabled");
    let object = Object { id, version: object.version.clone(), value, origin };
    let ignored = app.ignore.of(&object).into();
    Ok(Desired { object: Arc::new(object.into()), digest, handling, forced, drift, ignored })
}

/// Scopes of the kinds that definitions among the objects bring along.
fn scopes_defined(objects: &[Arc<Object>]) -> BTreeMap<(&str, &str), bool> {
    let definitions =
        objects.iter().filter(|o| o.id.kind == "CustomResourceDefinition" && o.id.group == "apiextensions.k8s.io");
    definitions
        .filter_map(|o| {
            let spec = o.value.get("spec")?;
            let kind = spec.pointer("/names/kind")?.as_str()?;
            Some(((spec.get("group")?.as_str()?, kind), spec.get("scope")?.as_str()? == "Namespaced"))
        })
        .collect()
}

/// A label or annotation; Flux looks in both, and compares without case.
fn wish(object: &Object, key: &str) -> Option<String> {
    object.annotation(key).or_else(|| object.label(key)).map(str::to_ascii_lowercase)
}

fn handling(object: &Object) -> Result<Handling, Box<PlanError>> {
    let unserved = |key, value, hint| {
        Err(Box::new(PlanError::WishUnserved {
            id: object.id.clone(),
            key,
            value,
            hint,
            origin: object.origin.clone(),
        }))
    };
    if let Some(value) = object.annotation(api::ROLLOUT).filter(|value| Wish::parse(value).is_none()) {
        return unserved(api::ROLLOUT, value.into(), "use `on-config-change` or `never`");
    }
    if let Some(value) = object.annotation(api::DRIFT).filter(|value| DriftMode::parse(value).is_none()) {
        return unserved(api::DRIFT, value.into(), "use `correct`, `warn` or `off`");
    }
    if wish(object, api::RECONCILE).as_deref() == Some("disabled") {
        return Ok(Handling::Ignore);
    }
    match wish(object, api::SSA).as_deref() {
        None | Some("override") => Ok(Handling::Override),
        Some("merge") => Ok(Handling::Merge),
        Some("ifnotpresent") => Ok(Handling::IfNotPresent),
        Some("ignore") => Ok(Handling::Ignore),
        Some(other) => unserved(api::SSA, other.into(), "use `Override`, `Merge`, `IfNotPresent` or `Ignore`"),
    }
}

/// The map at `key`, made where there is none: rendering has seen to it that `metadata` is a map.
fn section<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    section_of(value.as_object_mut().expect("a rendered object is a map"), key)
}

fn section_of<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut().expect("it was just made a map")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Builtin;
    impl Scopes for Builtin {
        fn namespaced(&self, _: &str, kind: &str) -> Option<bool> {
            match kind {
                "ConfigMap" => Some(true),
                "Namespace" | "CustomResourceDefinition" => Some(false),
                _ => None,
            }
        }
    }

    fn object(value: Value) -> Arc<Object> {
        let api_version = value["apiVersion"].as_str().unwrap();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let text = |p: &str| value.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
        Arc::new(Object {
            id: ObjectId::new(group, text("/kind"), text("/metadata/namespace"), text("/metadata/name")),
            version: version.into(),
            origin: Origin { path: "a.yaml".into(), line: 3 },
            value,
        })
    }

    fn plan(objects: &[Value]) -> Result<Vec<Desired>, Vec<PlanError>> {
        let objects: Vec<_> = objects.iter().cloned().map(object).collect();
        let (key, ignore) = (Key::new("flux-system", "shop"), IgnoreRules::default());
        let app = Application { key: &key, ignore: &ignore };
        desired(&objects, &app, &Builtin, &DigestKey::new([7; 32]))
    }

    #[test]
    fn an_object_is_sent_with_its_owner_and_the_digest_of_all_else() {
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}, "data": {"k": "v"}});
        let sent = plan(&[config]).unwrap().remove(0);
        let metadata = &sent.object.value()["metadata"];
        assert_eq!(metadata["labels"][api::OWNER_NAME_LABEL], "shop");
        assert_eq!(metadata["labels"][api::OWNER_NAMESPACE_LABEL], "flux-system");
        assert_eq!(metadata["annotations"][api::DESIRED], sent.digest);
    }

    #[test]
    fn scope_errors_name_the_file_and_every_wrong_object() {
        let errors = plan(&[
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}),
            json!({"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"name": "c"}}),
        ])
        .unwrap_err();
        let first_lines: Vec<_> = errors.iter().map(|e| e.to_string().lines().next().unwrap().to_owned()).collect();
        assert_eq!(
            first_lines,
            ["a.yaml:3: ConfigMap/a has no namespace", "a.yaml:3: the cluster has no kind `Widget` in `x.io/v1`",]
        );
    }

    #[test]
    fn a_definition_among_the_objects_tells_the_scope_of_its_kind() {
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.x.io"},
            "spec": {"group": "x.io", "scope": "Namespaced", "names": {"kind": "Widget"}}});
        let widget = json!({"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"name": "c", "namespace": "n"}});
        assert_eq!(plan(&[definition, widget]).unwrap().len(), 2);
    }

    #[test]
    fn an_object_of_a_cluster_scoped_kind_leaves_its_namespace() {
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.x.io"},
            "spec": {"group": "x.io", "scope": "Cluster", "names": {"kind": "Widget"}}});
        let widget = json!({"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"name": "c", "namespace": "any"}});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "b", "namespace": "n"}});
        let planned = plan(&[definition, widget, namespace]).unwrap();
        assert_eq!(planned[1].object.id, ObjectId::new("x.io", "Widget", "", "c"));
        assert_eq!(planned[2].object.id, ObjectId::new("", "Namespace", "", "b"));
        assert!(planned[1..].iter().all(|d| d.object.value()["metadata"].get("namespace").is_none()));
    }

    #[test]
    fn wishes_are_read_from_labels_and_annotations_and_unknown_ones_are_refused_by_name() {
        let with = |key: &str, value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n", "annotations": {key: value}}});
        for (key, value, expected) in [
            (api::SSA, "Merge", Handling::Merge),
            (api::SSA, "IfNotPresent", Handling::IfNotPresent),
            (api::SSA, "ignore", Handling::Ignore),
            (api::RECONCILE, "disabled", Handling::Ignore),
            (api::RECONCILE, "enabled", Handling::Override),
        ] {
            assert_eq!(plan(&[with(key, value)]).unwrap()[0].handling, expected, "{key}: {value}");
        }
        assert!(
            plan(&[with(api::SSA, "Sometimes")]).unwrap_err()[0]
                .to_string()
                .contains("`kustomize.toolkit.fluxcd.io/ssa: sometimes`")
        );
        for (value, forced) in [("Enabled", true), ("enabled", true), ("disabled", false)] {
            assert_eq!(plan(&[with(api::FORCE, value)]).unwrap()[0].forced, forced, "{value}");
        }
        assert!(
            plan(&[with(api::ROLLOUT, "always")]).unwrap_err()[0].to_string().contains("`afresh.dev/rollout: always`")
        );
        assert!(plan(&[with(api::ROLLOUT, "never")]).is_ok());
        assert_eq!(plan(&[with(api::DRIFT, "warn")]).unwrap()[0].drift, Some(DriftMode::Warn));
        assert_eq!(
            plan(&[with(api::DRIFT, "sometimes")]).unwrap_err()[0].to_string(),
            "a.yaml:3: ConfigMap/n/a asks for `afresh.dev/drift: sometimes`, which is not served\nhint: use `correct`, `warn` or `off`"
        );
    }
}
