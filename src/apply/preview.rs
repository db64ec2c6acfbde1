//! What would become of a declared object, by the server's word: nothing is changed.
//!
//! Comes in: an object as it would be sent. Goes out: the object as it is and as it would be. Asked by dry-run with the
//! manager that applies, and with what a first touch takes over, so that the answer is what an apply would do.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::{APPLY_MANAGER, CONFIG, DESIRED};
use crate::cluster::{ApiError, ApiKind, ApplyOptions, Cluster, ErrorClass, FieldValidation, Marks, Ssa};
use crate::manifest::{GroupKind, Object};
use crate::plan::Desired;
use crate::rollout;

use super::applier::{Made, drop_unknown};
use super::outcome::{Dropped, UnknownFields};
use super::recreation::{Replacement, trial};
use super::{adoption, left};

const OPTIONS: ApplyOptions<'_> =
    ApplyOptions { manager: APPLY_MANAGER, force: true, dry_run: true, validation: FieldValidation::Strict };

/// Asks what would become of objects.
#[derive(Clone)]
pub struct Preview {
    /// As whom what is there is read.
    cluster: Cluster,
    /// As whom it would be applied.
    acting: Cluster,
    unknown_fields: UnknownFields,
    /// What the same set makes before it needs it.
    defines: Arc<HashSet<GroupKind>>,
    namespaces: Arc<HashSet<String>>,
    /// What a consent must name.
    revision: Arc<str>,
}

/// One object, as it is and as it would be.
pub struct Outlook {
    /// `None`: there is no such object.
    pub live: Option<Value>,
    pub fate: Fate,
    /// Fields that the server doesn't know and that would be left out.
    pub dropped: Vec<Dropped>,
    pub warnings: Vec<String>,
}

/// What would become of an object. Values are in the form of [`comparable`].
pub enum Fate {
    /// It would be this: created, changed, or as it is.
    Applied(Value),
    /// It can't be changed in place: deleted, and created as this.
    Recreated { becomes: Value, why: ApiError },
    /// The server can't be asked before something else of the same set is there; this is what would be sent.
    Unasked { declared: Value, why: &'static str },
    /// It, or what is declared, asks to be left alone.
    Left(&'static str),
    /// The server would say no.
    Refused(ApiError),
    /// It can't be told what is there.
    Unreadable(ApiError),
}

impl Preview {
    pub fn new(
        cluster: Cluster,
        acting: Cluster,
        unknown_fields: UnknownFields,
        declared: &[Arc<Object>],
        revision: &str,
    ) -> Self {
        let made = Made::of_objects(declared);
        let (defines, namespaces) = (Arc::new(made.kinds), Arc::new(made.namespaces));
        Self { cluster, acting, unknown_fields, defines, namespaces, revision: revision.into() }
    }

    /// `forced`: its application asks for objects to be created anew where they can't be changed.
    pub async fn outlook(&self, desired: &Desired, forced: bool) -> Outlook {
        let object = &desired.object.unpacked();
        let id = &object.id;
        let bare = |fate| Outlook { live: None, fate, dropped: Vec::new(), warnings: Vec::new() };
        let declared = || comparable(object.value.clone());
        let kind = match self.cluster.resolve(&id.group, &id.kind, Some(&object.version)).await {
            Ok(kind) => kind,
            Err(error) if error.class == ErrorClass::NoSuchKind && self.defines.contains(&id.group_kind()) => {
                let why = "its definition is not in the cluster yet";
                return bare(Fate::Unasked { declared: declared(), why });
            }
            Err(error) => return bare(Fate::Refused(error)),
        };
        let live = match self.cluster.get(&kind, id).await {
            Ok(live) => live,
            Err(error) => return bare(Fate::Unreadable(error)),
        };
        let mut outlook = bare(Fate::Left(""));
        outlook.fate = match live.as_ref().and_then(|live| leave(object, live)) {
            Some(why) => Fate::Left(why),
            None => self.fate(&kind, desired, forced, live.as_ref(), &mut outlook).await,
        };
        outlook.live = live.map(comparable);
        outlook
    }

    async fn fate(
        &self,
        kind: &ApiKind,
        desired: &Desired,
        forced: bool,
        live: Option<&Value>,
        outlook: &mut Outlook,
    ) -> Fate {
        let (object, forced) = (&desired.object.unpacked(), forced || desired.forced);
        let id = &object.id;
        let mut value = Arc::new(object.value.clone());
        if let Some(live) = live {
            left::leave(Arc::make_mut(&mut value), live, &desired.ignored);
        }
        if live.is_some_and(|live| live.pointer("/metadata/deletionTimestamp").is_some()) {
            let why = "the one that is there is being deleted";
            return Fate::Unasked { declared: comparable(object.value.clone()), why };
        }
        let answer = loop {
            match self.acting.would_apply(kind, id, &value, OPTIONS).await {
                Ok(would) => break Ok(would),
                Err(error) => {
                    if let Err(error) = drop_unknown(error, id, &mut value, &mut outlook.dropped, self.unknown_fields) {
                        break Err(error);
                    }
                }
            }
        };
        let would = match answer {
            Ok(would) => would,
            Err(error) if error.class == ErrorClass::NamespaceMissing && self.namespaces.contains(&id.namespace) => {
                let why = "its namespace is not in the cluster yet";
                return Fate::Unasked { declared: comparable((*value).clone()), why };
            }
            Err(why) if why.is_only_immutable() => {
                let (cluster, unknown_fields, revision) = (&self.acting, self.unknown_fields, &*self.revision);
                let value = &*value;
                let replacement = Replacement { cluster, kind, object, value, unknown_fields, forced, revision };
                return match replacement.rehearse(why.clone()).await {
                    Ok(Some(seen)) => Fate::Recreated { becomes: self.anew(kind, object, value, &seen.uid).await, why },
                    Ok(None) => Fate::Unasked { declared: comparable(value.clone()), why: "it has gone just now" },
                    Err(error) => Fate::Refused(error),
                };
            }
            Err(error) => return Fate::Refused(error),
        };
        outlook.warnings.extend(would.warnings);
        let merges = Marks::of(&object.value).ssa == Ssa::Merge || Marks::of(&would.object).ssa == Ssa::Merge;
        match live.filter(|_| !merges && adoption::is_foldable(&would.object)) {
            None => Fate::Applied(comparable(would.object)),
            Some(live) => match self.folded(kind, object, live, would.object).await {
                Ok(folded) => Fate::Applied(comparable(folded)),
                Err(error) => Fate::Refused(error),
            },
        }
    }

    /// What is left once the fields of earlier tools are taken over and those that are not declared have gone. The
    /// server fills in its defaults anew.
    async fn folded(&self, kind: &ApiKind, object: &Object, live: &Value, mut would: Value) -> Result<Value, ApiError> {
        adoption::without_folded(&mut would);
        for field in ["managedFields", "resourceVersion", "generation"] {
            if let Some(before) = live.pointer(&format!("/metadata/{field}")) {
                would["metadata"][field] = before.clone();
            }
        }
        let mut patch = json!([{"op": "test", "path": "/metadata/resourceVersion",
            "value": live.pointer("/metadata/resourceVersion")}]);
        let changes = serde_json::to_value(json_patch::diff(live, &would)).unwrap_or_default();
        if let (Value::Array(patch), Value::Array(changes)) = (&mut patch, changes) {
            patch.extend(changes);
        }
        Ok(self.acting.would_json_patch(kind, &object.id, &patch, APPLY_MANAGER).await?.object)
    }

    /// What an object would be if there were none of its name: asked under another name. As declared where that can't
    /// be asked.
    async fn anew(&self, kind: &ApiKind, object: &Object, value: &Value, uid: &str) -> Value {
        let (id, trial) = trial(&object.id, value, uid);
        let Ok(would) = self.acting.would_apply(kind, &id, &trial, OPTIONS).await else {
            return comparable(value.clone());
        };
        let mut made = would.object;
        let text = |value: &Value, pointer: &str| {
            value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let renamed = [
            (id.name.clone(), object.id.name.clone()),
            (text(&made, "/metadata/uid"), uid.to_owned()),
            (text(&trial, "/spec/names/plural"), text(value, "/spec/names/plural")),
        ];
        rename(&mut made, &renamed);
        comparable(made)
    }
}

/// Names that the server puts into what it makes: labels and selectors of Jobs hold their name and uid.
fn rename(value: &mut Value, names: &[(String, String)]) {
    match value {
        Value::String(text) => {
            if let Some((_, to)) = names.iter().find(|(from, _)| !from.is_empty() && from == text) {
                text.clone_from(to);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        Value::Object(fields) => fields.values_mut().for_each(|field| rename(field, names)),
        _ => {}
    }
}

/// Why an object that is there is left alone, if it is.
fn leave(object: &Object, live: &Value) -> Option<&'static str> {
    let (wanted, is) = (Marks::of(&object.value), Marks::of(live));
    match () {
        () if wanted.leaves_alone() => Some("its manifest says so"),
        () if is.leaves_alone() => Some("the object in the cluster says so"),
        () if wanted.ssa == Ssa::IfNotPresent => Some("`IfNotPresent`, and it is there"),
        () => None,
    }
}

/// An object without what the server alone writes and without our digest and hashes: what two objects are compared by.
pub fn comparable(mut object: Value) -> Value {
    rollout::remove_hash(&mut object);
    let Some(fields) = object.as_object_mut() else { return object };
    fields.remove("status");
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        for field in ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"] {
            metadata.remove(field);
        }
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove(DESIRED);
            annotations.remove(CONFIG);
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CONFIG_HASH;

    #[test]
    fn objects_are_compared_by_what_people_and_controllers_declare() {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}, "status": {"x": 1},
            "metadata": {"name": "a", "uid": "u", "resourceVersion": "7", "generation": 2, "creationTimestamp": "t",
                "managedFields": [{}], "annotations": {DESIRED: "v1.a.b"}, "labels": {"l": "m"}},
        });
        let expected = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
            "metadata": {"name": "a", "labels": {"l": "m"}}});
        assert_eq!(comparable(object), expected);
        let workload = |metadata: Value, template: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template": template}});
        let followed = workload(
            json!({"name": "a", "annotations": {CONFIG: "{}"}}),
            json!({"metadata": {"annotations": {CONFIG_HASH: "v1.a.b"}, "labels": {"l": "m"}}}),
        );
        let expected = workload(json!({"name": "a"}), json!({"metadata": {"labels": {"l": "m"}}}));
        assert_eq!(comparable(followed), expected);
    }

    #[test]
    fn what_was_asked_under_another_name_gets_its_own_again() {
        let mut made = json!({"metadata": {"name": "other", "uid": "new"}, "labels": {"job-name": "other"}, "a": ["new", "otherwise"]});
        rename(
            &mut made,
            &[("other".into(), "mine".into()), ("new".into(), "old".into()), (String::new(), "x".into())],
        );
        assert_eq!(
            made,
            json!({"metadata": {"name": "mine", "uid": "old"}, "labels": {"job-name": "mine"}, "a": ["old", "otherwise"]})
        );
    }
}
