//! Where the pod template of a workload is.

use serde_json::{Map, Value};

use crate::api;
use crate::manifest::ObjectId;

/// True for the kinds whose Pods can be rolled by changing their template. Jobs are not among them: their template
/// can't be changed.
pub fn is_workload(id: &ObjectId) -> bool {
    template_path(id).is_some()
}

/// The pod template's path. The template of a CronJob is for its next run; changing it starts none.
fn template_path(id: &ObjectId) -> Option<&'static [&'static str]> {
    match (id.group.as_str(), id.kind.as_str()) {
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

pub(super) fn template<'a>(id: &ObjectId, workload: &'a Value) -> Option<&'a Value> {
    template_path(id)?.iter().try_fold(workload, |value, key| value.get(key))
}

/// The specification of the workload's Pods.
pub fn pod_spec<'a>(id: &ObjectId, workload: &'a Value) -> Option<&'a Value> {
    template(id, workload)?.get("spec")
}

/// The pod template as declared, as text: the same for the same template.
pub fn template_text(id: &ObjectId, workload: &Value) -> String {
    template(id, workload).map(Value::to_string).unwrap_or_default()
}

/// What the pod template's annotation says.
pub fn template_hash<'a>(id: &ObjectId, workload: &'a Value) -> Option<&'a str> {
    template(id, workload)?.get("metadata")?.get("annotations")?.get(api::CONFIG_HASH)?.as_str()
}

/// Sets or removes the pod template's annotation. A workload without a template, which the API server refuses anyway,
/// stays as it is.
pub fn set_hash(id: &ObjectId, workload: &mut Value, hash: Option<&str>) {
    let Some(path) = template_path(id) else { return };
    let Some(template) = path.iter().try_fold(workload, |value, key| value.get_mut(key)) else { return };
    let Some(mut at) = template.as_object_mut() else { return };
    match hash {
        Some(hash) => {
            for key in ["metadata", "annotations"] {
                let below = at.entry(key).or_insert_with(|| Value::Object(Map::new()));
                if !below.is_object() {
                    *below = Value::Object(Map::new());
                }
                let Some(map) = below.as_object_mut() else { return };
                at = map;
            }
            at.insert(api::CONFIG_HASH.into(), hash.into());
        }
        None => {
            let annotations = at.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"));
            if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
                annotations.remove(api::CONFIG_HASH);
            }
        }
    }
}

/// Removes what is there of the pod template's annotation, and what is empty without it.
pub fn remove_hash(workload: &mut Value) {
    let text = |field: &str| workload.get(field).and_then(Value::as_str).unwrap_or_default();
    let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
    let id = ObjectId::new(group, text("kind"), "", "");
    if template_hash(&id, workload).is_none() {
        return;
    }
    set_hash(&id, workload, None);
    let Some(path) = template_path(&id) else { return };
    let template = path.iter().try_fold(workload, |value, key| value.get_mut(key));
    let Some(Value::Object(metadata)) = template.and_then(|template| template.get_mut("metadata")) else { return };
    if metadata.get("annotations").and_then(Value::as_object).is_some_and(Map::is_empty) {
        metadata.remove("annotations");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_goes_into_the_pod_template_and_out_of_it_again() {
        let cases = [
            ("apps", "Deployment", json!({"spec": {"template": {"spec": {}}}}), "/spec/template"),
            ("apps", "StatefulSet", json!({"spec": {"template": {"metadata": null}}}), "/spec/template"),
            (
                "batch",
                "CronJob",
                json!({"spec": {"jobTemplate": {"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}}}}),
                "/spec/jobTemplate/spec/template",
            ),
        ];
        for (group, kind, mut workload, pointer) in cases {
            let id = ObjectId::new(group, kind, "n", "a");
            set_hash(&id, &mut workload, Some("h"));
            let path = format!("{pointer}/metadata/annotations/afresh.dev~1config-hash");
            assert_eq!(workload.pointer(&path), Some(&json!("h")), "{kind}");
            assert_eq!(template_hash(&id, &workload), Some("h"));
            set_hash(&id, &mut workload, None);
            assert_eq!(template_hash(&id, &workload), None, "{kind}");
        }
        let job = ObjectId::new("batch", "Job", "n", "a");
        let mut value = json!({"spec": {"template": {"spec": {}}}});
        set_hash(&job, &mut value, Some("h"));
        assert_eq!(value, json!({"spec": {"template": {"spec": {}}}}), "Jobs are never touched");
        assert!(!is_workload(&job));
    }
}
