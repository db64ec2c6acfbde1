//! Fields that are left to others: what is sent has their live values, so that nothing of them changes.
//!
//! Comes in: an object as declared, the object as it is, and the places that anybody may write (`spec.ignore`). Goes out:
//! the object as it is sent. As with Flux, a field that another manager applies is left out, one that nobody else applies
//! keeps its live value, and where there is no object yet all is as declared.

use std::sync::Arc;

use serde_json::Value;

use crate::api::{self, APPLY_MANAGER};
use crate::cluster::{ApiError, ApiKind, Cluster, FieldPath, FieldTree};
use crate::manifest::{ObjectId, Pointer};

/// Marks of ours, which hold whatever is left to others.
const OURS: [(&str, &str); 4] = [
    ("labels", api::OWNER_NAME_LABEL),
    ("labels", api::OWNER_NAMESPACE_LABEL),
    ("annotations", api::DESIRED),
    ("annotations", api::CONFIG),
];

/// Gives an object the live values at these places. Answers the version that they are of; `None`: nothing was taken.
pub(super) async fn take(
    cluster: &Cluster,
    kind: &ApiKind,
    id: &ObjectId,
    value: &mut Arc<Value>,
    places: &[Pointer],
) -> Result<Option<String>, ApiError> {
    if places.is_empty() {
        return Ok(None);
    }
    let Some(live) = cluster.get(kind, id).await? else { return Ok(None) };
    let version = live.pointer("/metadata/resourceVersion").and_then(Value::as_str).map(str::to_owned);
    Ok(leave(Arc::make_mut(value), &live, places).then_some(version).flatten())
}

/// True if anything is other than declared.
pub(super) fn leave(value: &mut Value, live: &Value, places: &[Pointer]) -> bool {
    let declared = value.clone();
    let applied = applied_by_others(live);
    let mut gone = Vec::new();
    for place in places {
        let Some(wanted) = place.find(&declared) else { continue };
        let Some(found) = find_live(&declared, live, place) else { continue };
        if wanted == found {
            continue;
        }
        let path = FieldPath::of(place, &declared);
        if applied.iter().any(|fields| fields.holds(&path, &declared)) {
            gone.push(place);
        } else {
            place.put(value, found.clone());
        }
    }
    // the last ones of a list first, so that the others keep their places
    gone.sort_by(|a, b| b.tokens().cmp(a.tokens()));
    gone.iter().for_each(|place| place.remove(value));
    for (map, key) in OURS {
        let mark = Pointer::of_fields(["metadata", map, key]);
        match mark.find(&declared) {
            Some(mine) => mark.put(value, mine.clone()),
            None => mark.remove(value),
        }
    }
    *value != declared
}

/// What other managers have applied.
fn applied_by_others(live: &Value) -> Vec<FieldTree> {
    let entries = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    let is = |entry: &Value, field: &str, text: &str| entry.get(field).and_then(Value::as_str) == Some(text);
    let others = entries.into_iter().flatten().filter(|entry| {
        is(entry, "operation", "Apply") && !is(entry, "manager", APPLY_MANAGER) && entry.get("subresource").is_none()
    });
    others.filter_map(|entry| serde_json::from_value(entry.get("fieldsV1")?.clone()).ok()).collect()
}

/// What the live object has at a place. Items that have names are found by them: others may have put theirs before.
fn find_live<'a>(declared: &Value, live: &'a Value, place: &Pointer) -> Option<&'a Value> {
    let (mut declared, mut live) = (declared, live);
    for token in place.tokens() {
        (declared, live) = match (declared, live) {
            (Value::Object(mine), Value::Object(theirs)) => (mine.get(&**token)?, theirs.get(&**token)?),
            (Value::Array(mine), Value::Array(theirs)) => {
                let index: usize = token.parse().ok()?;
                let item = mine.get(index)?;
                let named = item.get("name").filter(|name| name.is_string());
                let theirs = match named {
                    Some(name) => theirs.iter().find(|theirs| theirs.get("name") == Some(name))?,
                    None => theirs.get(index)?,
                };
                (item, theirs)
            }
            _ => return None,
        };
    }
    Some(live)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn declared() -> Value {
        json!({
            "metadata": {"name": "web", "annotations": {api::DESIRED: "new", "a": "git"}},
            "spec": {"replicas": 2, "paused": true, "containers": [{"name": "main", "image": "git"}, {"name": "side", "image": "git"}]},
        })
    }

    fn live(applied: Value) -> Value {
        json!({
            "metadata": {"name": "web", "resourceVersion": "7", "annotations": {api::DESIRED: "old", "a": "live", "b": "theirs"},
                "managedFields": [
                    {"manager": APPLY_MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                    {"manager": "hand", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                    {"manager": "other", "operation": "Apply", "fieldsV1": applied},
                ]},
            "spec": {"replicas": 5, "containers": [{"name": "injected", "image": "x"}, {"name": "main", "image": "live"}, {"name": "side", "image": "live"}]},
        })
    }

    fn left(places: &[&str], applied: Value) -> Value {
        let mut value = declared();
        let places: Vec<Pointer> = places.iter().map(|text| Pointer::parse(text).unwrap()).collect();
        leave(&mut value, &live(applied), &places);
        value
    }

    #[test]
    fn a_field_keeps_its_live_value_or_goes_if_another_applies_it() {
        assert_eq!(left(&["/spec/replicas"], json!({}))["spec"]["replicas"], 5);
        assert_eq!(left(&["/spec/replicas"], json!({"f:spec": {"f:replicas": {}}}))["spec"].get("replicas"), None);
        // what the live object doesn't have is as declared, what isn't declared is nobody's business
        assert_eq!(left(&["/spec/paused", "/spec/other"], json!({}))["spec"], declared()["spec"]);
        assert_eq!(left(&[], json!({})), declared());
    }

    #[test]
    fn items_of_lists_are_found_by_their_names() {
        let value = left(&["/spec/containers/0/image"], json!({}));
        assert_eq!(
            value["spec"]["containers"],
            json!([{"name": "main", "image": "live"}, {"name": "side", "image": "git"}])
        );
        let both = ["/spec/containers/0", "/spec/containers/1"];
        let applied = json!({"f:spec": {"f:containers": {"k:{\"name\":\"main\"}": {}, "k:{\"name\":\"side\"}": {}}}});
        assert_eq!(left(&both, applied)["spec"]["containers"], json!([]));
    }

    #[test]
    fn our_own_marks_are_never_left_to_others() {
        let value = left(&["/metadata/annotations"], json!({}));
        assert_eq!(value["metadata"]["annotations"], json!({api::DESIRED: "new", "a": "live", "b": "theirs"}));
    }
}
