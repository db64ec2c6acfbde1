//! The first touch of an object that other tools have managed: their fields become ours, so that a field removed from
//! Git goes.
//!
//! Comes in: the object's metadata. Goes out: one JSON patch, or nothing to do.

use serde_json::{Value, json};

use crate::api::{APPLY_MANAGER, LAST_APPLIED};
use crate::cluster::{FieldTree, is_folded};

/// The patch that hands the fields of folded managers to our Apply entry, and takes kubectl's note of its last apply
/// away. It names the version that it was made for: an object that has changed since refuses it with a conflict.
pub(super) fn fold(metadata: &Value) -> Option<Value> {
    let entries = metadata.get("managedFields")?.as_array()?;
    let folded = |entry: &Value| is_folded_entry(entry);
    let ours = |entry: &Value| author(entry) == (APPLY_MANAGER, "Apply", "");
    if !entries.iter().any(folded) {
        return None;
    }
    let fields = |entry: &Value| -> Option<FieldTree> { serde_json::from_value(entry.get("fieldsV1")?.clone()).ok() };
    let mut united: Option<FieldTree> = None;
    // ours first: its API version is the one that the fields are written in
    for entry in entries.iter().filter(|e| ours(e)).chain(entries.iter().filter(|e| folded(e))) {
        let more = fields(entry)?;
        match &mut united {
            Some(united) => united.unite(&more),
            None => united = Some(more),
        }
    }
    let base = entries.iter().find(|e| ours(e)).or_else(|| entries.iter().find(|e| folded(e)))?;
    let mut merged = json!({
        "manager": APPLY_MANAGER,
        "operation": "Apply",
        "apiVersion": base.get("apiVersion")?,
        "fieldsType": "FieldsV1",
        "fieldsV1": united?,
    });
    if let Some(time) = base.get("time") {
        merged["time"] = time.clone();
    }
    let mut kept: Vec<Value> = vec![merged];
    kept.extend(entries.iter().filter(|e| !ours(e) && !folded(e)).cloned());
    let mut patch = vec![
        json!({"op": "replace", "path": "/metadata/managedFields", "value": kept}),
        json!({"op": "replace", "path": "/metadata/resourceVersion", "value": metadata.get("resourceVersion")?}),
    ];
    if metadata.get("annotations").and_then(|a| a.get(LAST_APPLIED)).is_some() {
        let path = format!("/metadata/annotations/{}", LAST_APPLIED.replace('/', "~1"));
        patch.push(json!({"op": "remove", "path": path}));
    }
    Some(Value::Array(patch))
}

/// Whether there is anything to take over.
pub(super) fn is_foldable(object: &Value) -> bool {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries.into_iter().flatten().any(is_folded_entry)
}

fn is_folded_entry(entry: &Value) -> bool {
    let (manager, operation, subresource) = author(entry);
    is_folded(manager, operation, subresource)
}

/// Who an entry of `managedFields` is of: manager, operation, subresource.
fn author(entry: &Value) -> (&str, &str, &str) {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
    (text("manager"), text("operation"), text("subresource"))
}

/// What applying again does after [`fold`]: the fields of folded managers that neither we declare nor anybody else holds
/// go. `object` is as a dry run of the apply answered it.
pub(super) fn without_folded(object: &mut Value) {
    let Some(entries) = object.pointer("/metadata/managedFields").and_then(Value::as_array).cloned() else { return };
    let (mut folded, mut kept): (Vec<FieldTree>, Vec<FieldTree>) = (Vec::new(), Vec::new());
    for entry in &entries {
        let Some(fields) = entry.get("fieldsV1").and_then(|fields| serde_json::from_value(fields.clone()).ok()) else {
            continue;
        };
        let list = if is_folded_entry(entry) { &mut folded } else { &mut kept };
        list.push(fields);
    }
    let kept: Vec<&FieldTree> = kept.iter().collect();
    for gone in &folded {
        gone.take_out(object, &kept);
    }
    if let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": "t", "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    #[test]
    fn fields_of_earlier_tools_become_ours_and_other_managers_keep_theirs() {
        let other = entry("kubectl-rollout", "Update", json!({"f:spec": {"f:x": {}}}));
        let metadata = json!({
            "resourceVersion": "7",
            "annotations": {LAST_APPLIED: "{}", "a": "b"},
            "managedFields": [
                entry(APPLY_MANAGER, "Apply", json!({"f:data": {"f:a": {}}})),
                entry("kubectl-client-side-apply", "Update", json!({"f:data": {".": {}, "f:b": {}}})),
                other,
            ],
        });
        let patch = fold(&metadata).unwrap();
        assert_eq!(
            patch,
            json!([
                {"op": "replace", "path": "/metadata/managedFields", "value": [
                    entry(APPLY_MANAGER, "Apply", json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}})), other,
                ]},
                {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
                {"op": "remove", "path": "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration"},
            ])
        );
    }

    #[test]
    fn what_only_earlier_tools_set_goes_with_their_entry() {
        let mut object = json!({
            "metadata": {"annotations": {LAST_APPLIED: "{}", "a": "b"}, "managedFields": [
                entry(APPLY_MANAGER, "Apply", json!({"f:data": {"f:a": {}}})),
                entry("kubectl-client-side-apply", "Update", json!({"f:data": {".": {}, "f:a": {}, "f:b": {}, "f:c": {}}})),
                entry("kubectl-edit", "Update", json!({"f:data": {"f:c": {}}})),
            ]},
            "data": {"a": "1", "b": "2", "c": "3"},
        });
        without_folded(&mut object);
        assert_eq!(object["data"], json!({"a": "1", "c": "3"}));
        assert_eq!(object["metadata"]["annotations"], json!({"a": "b"}));
    }

    #[test]
    fn an_object_that_only_we_and_controllers_manage_is_left_alone() {
        let metadata = json!({"resourceVersion": "7", "managedFields": [
            entry(APPLY_MANAGER, "Apply", json!({})),
            entry("kube-controller-manager", "Update", json!({})),
        ]});
        assert_eq!(fold(&metadata), None);
        assert_eq!(fold(&json!({})), None);
    }
}
