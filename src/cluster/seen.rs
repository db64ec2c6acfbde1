//! One object as it was last seen in the cluster: its identity, its marks, a hash of the fields that are ours, and what
//! its health depends on. Values of ConfigMaps and Secrets never come this far.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::api::{
    APPLY_MANAGER, CONFIG, DESIRED, DRIFT, FORCE, OWNER_NAME_LABEL, OWNER_NAMESPACE_LABEL, PART_OF, PRUNE, RECONCILE,
    SSA,
};
use crate::manifest::{ObjectId, Pointer};

use super::discovery::ApiKind;
use super::fields::{EntryHash, FieldTree};
use super::paths::Drift;
use super::reduced::{Reduced, Spec, Status, lenient_number, lenient_struct, text_or_empty};

/// The application that an object says it belongs to: the Kustomization of the two owner labels.
pub type OwnerKey = crate::api::Key;

/// What is known of one live object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub id: ObjectId,
    pub uid: Box<str>,
    pub resource_version: Box<str>,
    /// 0 for kinds without one.
    pub generation: i64,
    pub owner: Option<OwnerKey>,
    /// The annotation `afresh.dev/desired`.
    pub desired: Option<Box<str>>,
    /// The annotation `afresh.dev/config`.
    pub config: Option<Box<str>>,
    pub marks: Marks,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Kept only while deleting: they say what the deletion waits for.
    pub finalizers: Vec<Box<str>>,
    /// The fields that our own Apply entry holds; `None` without such an entry.
    pub entry: Option<EntryHash>,
    /// True if managers that we fold into ours hold fields: see [`crate::apply`].
    pub foldable: bool,
    /// Of a Secret or a ConfigMap, the keys that other managers hold.
    pub keys_of_others: Vec<Box<str>>,
    /// Who has taken the number of replicas through the scale subresource, as an autoscaler and `kubectl scale` do.
    pub scaled: Option<Box<Scaled>>,
    /// `None` for kinds that are watched without their content.
    pub health: Option<Box<Reduced>>,
}

impl Seen {
    /// An object of which nothing else is known, for tests to start from.
    #[cfg(test)]
    pub fn bare(id: ObjectId) -> Self {
        Self {
            id,
            uid: "u".into(),
            resource_version: "1".into(),
            generation: 1,
            owner: None,
            desired: None,
            config: None,
            marks: Marks::default(),
            deleting: false,
            finalizers: Vec::new(),
            entry: None,
            foldable: false,
            keys_of_others: Vec::new(),
            scaled: None,
            health: None,
        }
    }

    /// True if nothing that anyone decides upon is different.
    pub(super) fn is_as(&self, other: &Seen) -> bool {
        self.uid == other.uid
            && self.generation == other.generation
            && self.owner == other.owner
            && self.desired == other.desired
            && self.config == other.config
            && self.keys_of_others == other.keys_of_others
            && self.scaled == other.scaled
            && self.marks == other.marks
            && self.deleting == other.deleting
            && self.finalizers == other.finalizers
            && self.entry == other.entry
            && self.health == other.health
    }
}

/// A field that was set through the scale subresource, and that we hold no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// The manager: `kube-controller-manager` is an autoscaler's.
    pub by: Box<str>,
    /// `/spec/replicas` of built-in kinds.
    pub field: Pointer,
}

/// What the annotation `afresh.dev/drift` of a live object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriftMark {
    Correct,
    Warn,
    Off,
    /// Nothing that is served.
    Unknown,
}

/// Labels or annotations by which a person tells us to keep off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// `prune: disabled`: never deleted by us.
    pub prune_disabled: bool,
    /// `reconcile: disabled`: neither applied nor deleted by us.
    pub reconcile_disabled: bool,
    pub ssa: Ssa,
    /// `force: enabled`.
    pub force: bool,
    /// `app.kubernetes.io/part-of: flux`.
    pub part_of_flux: bool,
    pub drift: Option<DriftMark>,
}

/// How an object is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ssa {
    #[default]
    Override,
    /// Other managers' entries are left alone.
    Merge,
    IfNotPresent,
    /// Neither applied nor deleted.
    Ignore,
}

impl Marks {
    /// The marks of a declared object.
    pub fn of(object: &Value) -> Self {
        let mut marks = Self::default();
        for map in ["labels", "annotations"] {
            let Some(map) = object.get("metadata").and_then(|m| m.get(map)).and_then(Value::as_object) else {
                continue;
            };
            for (key, value) in map {
                if let Some(value) = value.as_str() {
                    marks.read(key, value);
                }
            }
        }
        marks
    }

    /// True if a declared object says how it is to be applied.
    pub fn are_in(object: &Value) -> bool {
        let maps = ["labels", "annotations"].into_iter().filter_map(|map| object.get("metadata")?.get(map));
        maps.into_iter().any(|map| [RECONCILE, SSA].iter().any(|key| map.get(*key).is_some()))
    }

    /// True if we must neither apply nor delete the object.
    pub fn leaves_alone(&self) -> bool {
        self.reconcile_disabled || self.ssa == Ssa::Ignore
    }

    /// True if we must not delete the object.
    pub fn keeps_from_deletion(&self) -> bool {
        self.prune_disabled || self.leaves_alone()
    }

    /// Values are compared without regard to case, as Flux does.
    fn read(&mut self, key: &str, value: &str) {
        let is = |word: &str| value.eq_ignore_ascii_case(word);
        match key {
            PRUNE => self.prune_disabled |= is("disabled"),
            RECONCILE => self.reconcile_disabled |= is("disabled"),
            FORCE => self.force |= is("enabled"),
            PART_OF => self.part_of_flux |= value == "flux",
            DRIFT => {
                self.drift = Some(match () {
                    () if is("correct") => DriftMark::Correct,
                    () if is("warn") => DriftMark::Warn,
                    () if is("off") => DriftMark::Off,
                    () => DriftMark::Unknown,
                });
            }
            SSA if is("merge") => self.ssa = Ssa::Merge,
            SSA if is("ifnotpresent") => self.ssa = Ssa::IfNotPresent,
            SSA if is("ignore") => self.ssa = Ssa::Ignore,
            _ => {}
        }
    }
}

/// Managers whose fields become ours at the first touch: what people used before, under the names that those tools
/// give themselves. `kubectl-rollout` is not among them: a restart that someone asked for stays.
const FOLDED_MANAGERS: [&str; 4] =
    ["kubectl-client-side-apply", "kubectl-create", "kubectl-replace", "before-first-apply"];

/// True if an entry of `managedFields` is folded into ours.
pub(crate) fn is_folded(manager: &str, operation: &str, subresource: &str) -> bool {
    subresource.is_empty()
        && (FOLDED_MANAGERS.contains(&manager) || (manager == APPLY_MANAGER && operation == "Update"))
}

/// An object as it comes over the wire, content included or not.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct WireObject {
    pub metadata: WireMeta,
    #[serde(deserialize_with = "lenient_struct")]
    spec: Option<Spec>,
    #[serde(deserialize_with = "lenient_struct")]
    status: Option<Status>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct WireMeta {
    #[serde(deserialize_with = "text_or_empty")]
    pub name: Box<str>,
    #[serde(deserialize_with = "text_or_empty")]
    pub namespace: Box<str>,
    #[serde(deserialize_with = "text_or_empty")]
    pub uid: Box<str>,
    #[serde(deserialize_with = "text_or_empty")]
    pub resource_version: Box<str>,
    #[serde(deserialize_with = "lenient_number")]
    pub generation: Option<i64>,
    #[serde(deserialize_with = "text_or_empty")]
    pub deletion_timestamp: Box<str>,
    finalizers: Option<Vec<Box<str>>>,
    labels: Option<Picked>,
    annotations: Option<Picked>,
    managed_fields: Option<Managed>,
}

impl WireObject {
    /// The object and who holds which of its fields, which only a look at what has drifted needs. `full` says whether the
    /// content was asked for.
    pub fn into_seen(self, kind: &ApiKind, full: bool) -> (Seen, Box<Managed>) {
        let WireObject { metadata, spec, status } = self;
        let labels = metadata.labels.unwrap_or_default();
        let annotations = metadata.annotations.unwrap_or_default();
        let owner = match (labels.owner_namespace, labels.owner_name) {
            (Some(namespace), Some(name)) => Some(OwnerKey::new(namespace, name)),
            _ => None,
        };
        let marks = Marks {
            prune_disabled: labels.marks.prune_disabled || annotations.marks.prune_disabled,
            reconcile_disabled: labels.marks.reconcile_disabled || annotations.marks.reconcile_disabled,
            force: labels.marks.force || annotations.marks.force,
            part_of_flux: labels.marks.part_of_flux,
            drift: annotations.marks.drift,
            ssa: if annotations.marks.ssa == Ssa::Override { labels.marks.ssa } else { annotations.marks.ssa },
        };
        let mut managed = metadata.managed_fields.unwrap_or_default();
        let deleting = !metadata.deletion_timestamp.is_empty();
        let seen = Seen {
            id: kind.object(metadata.namespace, metadata.name),
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation.unwrap_or_default(),
            owner,
            desired: annotations.desired,
            config: annotations.config,
            marks,
            deleting,
            finalizers: if deleting { metadata.finalizers.unwrap_or_default() } else { Vec::new() },
            entry: managed.ours.as_ref().map(FieldTree::hash),
            foldable: managed.foldable,
            keys_of_others: std::mem::take(&mut managed.keys_of_others),
            scaled: managed.scaled().map(Box::new),
            health: full
                .then(|| Box::new(Reduced { spec: spec.unwrap_or_default(), status: status.unwrap_or_default() })),
        };
        (seen, Box::new(managed))
    }
}

/// The labels and annotations that we read; the others are dropped while decoding.
#[derive(Debug, Default)]
struct Picked {
    owner_name: Option<Box<str>>,
    owner_namespace: Option<Box<str>>,
    desired: Option<Box<str>>,
    config: Option<Box<str>>,
    marks: Marks,
}

/// A key that we know, without an allocation.
struct Known(Option<&'static str>);

const KNOWN: [&str; 10] =
    [OWNER_NAME_LABEL, OWNER_NAMESPACE_LABEL, DESIRED, CONFIG, PRUNE, RECONCILE, SSA, FORCE, PART_OF, DRIFT];

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;
        impl Visitor<'_> for Key {
            type Value = Known;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E>(self, key: &str) -> Result<Known, E> {
                Ok(Known(KNOWN.into_iter().find(|known| *known == key)))
            }
        }
        deserializer.deserialize_str(Key)
    }
}

impl<'de> Deserialize<'de> for Picked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Picked;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels or annotations")
            }
            fn visit_unit<E>(self) -> Result<Picked, E> {
                Ok(Picked::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Picked, A::Error> {
                let mut picked = Picked::default();
                while let Some(Known(key)) = map.next_key()? {
                    let Some(key) = key else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let value = map.next_value::<Box<str>>()?;
                    match key {
                        OWNER_NAME_LABEL => picked.owner_name = Some(value),
                        OWNER_NAMESPACE_LABEL => picked.owner_namespace = Some(value),
                        DESIRED => picked.desired = Some(value),
                        CONFIG => picked.config = Some(value),
                        key => picked.marks.read(key, &value),
                    }
                }
                Ok(picked)
            }
        }
        deserializer.deserialize_any(Map)
    }
}

/// What is kept of `managedFields`.
#[derive(Debug, Default)]
pub(super) struct Managed {
    /// Our own Apply entry.
    ours: Option<FieldTree>,
    others: Vec<Entry>,
    foldable: bool,
    keys_of_others: Vec<Box<str>>,
}

/// The fields of another manager, but for those of the status.
#[derive(Debug)]
struct Entry {
    manager: Box<str>,
    /// Through the scale subresource.
    scale: bool,
    fields: FieldTree,
}

impl Managed {
    /// True if there is an entry of ours, and every leaf of the declared object is in it.
    pub fn covers(&self, declared: &Value) -> bool {
        self.ours.as_ref().is_some_and(|ours| ours.covers(declared))
    }

    /// What others have taken of a declared object, but for what is at the places of `free`.
    pub fn drift(&self, declared: &Value, free: &[Pointer]) -> Drift {
        let fields = self.ours.as_ref().unwrap_or(&FieldTree::default()).missing(declared, free);
        let mut writers: Vec<Box<str>> = Vec::new();
        for entry in &self.others {
            if !writers.contains(&entry.manager) && fields.iter().any(|path| entry.fields.holds(path, declared)) {
                writers.push(entry.manager.clone());
            }
        }
        Drift { fields, writers }
    }

    fn scaled(&self) -> Option<Scaled> {
        let ours = self.ours.as_ref()?;
        let entry = self.others.iter().find(|entry| entry.scale)?;
        let names = entry.fields.only_field()?;
        let held = names.iter().try_fold(ours, |tree, name| tree.child(&format!("f:{name}"))).is_some();
        (!held).then(|| Scaled { by: entry.manager.clone(), field: Pointer::of_fields(names) })
    }
}

/// An object has at most 1 MiB, of which managed fields are a part; more keys than this are nobody's configuration.
const KEYS_OF_OTHERS_MAX: usize = 1000;

#[derive(serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct WireEntry {
    manager: Box<str>,
    operation: Box<str>,
    subresource: Box<str>,
    #[serde(rename = "fieldsV1")]
    fields: FieldTree,
}

impl<'de> Deserialize<'de> for Managed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Managed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("managed fields")
            }
            fn visit_unit<E>(self) -> Result<Managed, E> {
                Ok(Managed::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Managed, A::Error> {
                let mut managed = Managed::default();
                while let Some(entry) = seq.next_element::<WireEntry>()? {
                    let folded = is_folded(&entry.manager, &entry.operation, &entry.subresource);
                    managed.foldable |= folded;
                    if &*entry.manager == APPLY_MANAGER && &*entry.operation == "Apply" && entry.subresource.is_empty()
                    {
                        managed.ours = Some(entry.fields);
                        continue;
                    }
                    if !folded {
                        let keys = ["data", "binaryData"].into_iter().flat_map(|field| entry.fields.names_in(field));
                        let room = KEYS_OF_OTHERS_MAX.saturating_sub(managed.keys_of_others.len());
                        managed.keys_of_others.extend(keys.take(room).map(Box::from));
                    }
                    if !entry.fields.is_empty() && &*entry.subresource != "status" {
                        let scale = &*entry.subresource == "scale";
                        managed.others.push(Entry { manager: entry.manager, scale, fields: entry.fields });
                    }
                }
                Ok(managed)
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment() -> ApiKind {
        ApiKind::new("apps", "v1", "Deployment", "deployments", true)
    }

    fn wire() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 3,
                "labels": {"app": "web", OWNER_NAME_LABEL: "app", OWNER_NAMESPACE_LABEL: "flux-system", PRUNE: "Disabled"},
                "annotations": {DESIRED: "v1.k.h", "big": "x", SSA: "Merge"},
                "managedFields": [
                    {"manager": "kubectl-rollout", "operation": "Update", "fieldsV1": {"f:spec": {}}},
                    {"manager": APPLY_MANAGER, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                    {"manager": APPLY_MANAGER, "operation": "Apply", "fieldsV1": {"f:status": {}}, "subresource": "status"},
                ],
            },
            "spec": {"replicas": 2, "template": {"spec": {}}},
            "status": {"readyReplicas": 1},
        })
    }

    #[test]
    fn an_object_is_reduced_while_it_is_decoded() {
        let object: WireObject = serde_json::from_str(&wire().to_string()).unwrap();
        let (seen, fields) = object.into_seen(&deployment(), true);
        assert_eq!(seen.id, ObjectId::new("apps", "Deployment", "shop", "web"));
        assert_eq!(seen.owner, Some(OwnerKey::new("flux-system", "app")));
        assert_eq!((seen.desired.as_deref(), seen.generation), (Some("v1.k.h"), 3));
        assert_eq!(seen.marks, Marks { prune_disabled: true, ssa: Ssa::Merge, ..Marks::default() });
        assert!(!seen.foldable, "restarts that people asked for are left alone");
        let health = seen.health.unwrap();
        assert_eq!((health.spec.replicas, health.status.ready_replicas), (Some(2), Some(1)));
        assert_eq!(seen.entry, fields.ours.as_ref().map(FieldTree::hash));
        assert!(fields.covers(&json!({"spec": {"replicas": 2}})));
    }

    #[test]
    fn replicas_set_through_the_scale_subresource_are_the_scalers() {
        let scale = |fields: Value| json!({"manager": "kubectl", "operation": "Update", "subresource": "scale", "fieldsV1": fields});
        let ours = |fields: Value| json!({"manager": APPLY_MANAGER, "operation": "Apply", "fieldsV1": fields});
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        let both = json!({"f:spec": {"f:replicas": {}, "f:paused": {}}});
        for (entries, expected) in [
            (vec![scale(replicas.clone()), ours(json!({"f:spec": {"f:paused": {}}}))], Some("/spec/replicas")),
            (vec![scale(json!({"f:spec": {"f:size": {}}})), ours(both.clone())], Some("/spec/size")),
            // the same number: both hold it
            (vec![scale(replicas.clone()), ours(both.clone())], None),
            (vec![scale(both.clone()), ours(json!({"f:metadata": {"f:labels": {}}}))], None),
            (vec![scale(replicas.clone())], None),
            (vec![ours(both)], None),
        ] {
            let mut object = wire();
            object["metadata"]["managedFields"] = json!(entries);
            let object: WireObject = serde_json::from_value(object).unwrap();
            let scaled = object.into_seen(&deployment(), true).0.scaled;
            assert_eq!(scaled.as_ref().map(|scaled| scaled.field.to_string()).as_deref(), expected, "{entries:?}");
            assert!(scaled.is_none_or(|scaled| &*scaled.by == "kubectl"));
        }
    }

    #[test]
    fn who_took_a_field_is_told_and_who_has_others_is_not() {
        let mut object = wire();
        object["metadata"]["managedFields"] = json!([
            {"manager": APPLY_MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {"f:paused": {}}}},
            {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "someone", "operation": "Update", "fieldsV1": {"f:metadata": {"f:annotations": {}}}},
            {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        ]);
        let object: WireObject = serde_json::from_value(object).unwrap();
        let managed = object.into_seen(&deployment(), true).1;
        let declared = json!({"spec": {"replicas": 2, "paused": true, "x": "gone"}});
        assert_eq!(managed.drift(&declared, &[]).to_string(), "spec.replicas, spec.x, written by kubectl-edit");
        let free = [Pointer::parse("/spec/replicas").unwrap()];
        assert_eq!(managed.drift(&declared, &free).to_string(), "spec.x");
    }

    #[test]
    fn what_people_used_before_is_folded() {
        for (manager, operation, subresource, folded) in [
            ("kubectl-client-side-apply", "Update", "", true),
            ("before-first-apply", "Apply", "", true),
            (APPLY_MANAGER, "Update", "", true),
            (APPLY_MANAGER, "Apply", "", false),
            ("kubectl-create", "Update", "status", false),
            ("kubectl-rollout", "Update", "", false),
            ("kubectl-edit", "Update", "", false),
        ] {
            assert_eq!(is_folded(manager, operation, subresource), folded, "{manager} {operation}");
        }
    }

    #[test]
    fn marks_are_read_from_labels_and_annotations_whatever_their_case() {
        let object = json!({"metadata": {"labels": {RECONCILE: "DISABLED"}, "annotations": {FORCE: "Enabled", SSA: "IfNotPresent"}}});
        let expected = Marks { reconcile_disabled: true, force: true, ssa: Ssa::IfNotPresent, ..Marks::default() };
        assert_eq!(Marks::of(&object), expected);
        assert!(Marks::of(&object).keeps_from_deletion());
    }
}
