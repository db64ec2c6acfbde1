//! Events are served in two groups and stored once, in the core group's form.

use serde_json::{Map, Value};

/// Field of `events.k8s.io` → field of the core group.
const FIELDS: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.to_owned(), value);
    }
}

/// From the form of `events.k8s.io` to the stored one.
pub fn to_stored(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        for (group, core) in FIELDS {
            rename(map, group, core);
        }
        map.insert("apiVersion".into(), "v1".into());
    }
}

/// From the stored form to the one of `events.k8s.io`.
pub fn from_stored(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        for (group, core) in FIELDS {
            rename(map, core, group);
        }
        // of these two this group writes no empty ones
        for field in ["reportingController", "reportingInstance"] {
            if map.get(field).is_some_and(|value| *value == "") {
                map.remove(field);
            }
        }
        map.insert("apiVersion".into(), "events.k8s.io/v1".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_reads_the_same_in_both_groups() {
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "hello", "reason": "R",
            "regarding": {"kind": "Pod", "name": "a"}, "reportingController": "afresh"});
        let mut stored = event.clone();
        to_stored(&mut stored);
        assert_eq!(stored["message"], "hello");
        assert_eq!(stored["involvedObject"]["name"], "a");
        from_stored(&mut stored);
        assert_eq!(stored, event);
    }
}
