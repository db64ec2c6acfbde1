//! The status of one object: compared with what was last written or read, sent as one merge patch of what changed.
//!
//! A status that says the same is not written: `kubectl get -w` is quiet when nothing happens.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::api::{Key, STATUS_MANAGER};
use crate::cluster::{ApiError, ApiKind, Cluster};

/// The one writer of an object's status; owned by the object's worker.
#[derive(Debug)]
pub struct StatusWriter {
    kind: ApiKind,
    key: Key,
    /// As JSON text: it is kept for long and looked at rarely.
    last: Box<str>,
    /// A write that got no answer: it may have been taken or not.
    doubtful: Option<Box<str>>,
}

impl StatusWriter {
    /// `recorded` is the status that the object carries.
    pub fn new(kind: ApiKind, key: Key, recorded: &impl Serialize) -> Self {
        Self { kind, key, last: text(recorded), doubtful: None }
    }

    /// True if `status` differs from what is recorded.
    pub fn differs(&self, status: &impl Serialize) -> bool {
        self.doubtful.is_some() || text(status) != self.last
    }

    /// Writes what changed; no request if nothing did.
    pub async fn write(&mut self, cluster: &Cluster, status: &impl Serialize) -> Result<(), ApiError> {
        self.write_at(None, cluster, status).await.map(drop)
    }

    /// As [`StatusWriter::write`], if the object is at this version: whoever else may serve it has then written nothing
    /// since. Answers the version that the object has now, if it was written.
    pub async fn write_at(
        &mut self,
        version: Option<&str>,
        cluster: &Cluster,
        status: &impl Serialize,
    ) -> Result<Option<String>, ApiError> {
        let new = text(status);
        let patch = match &self.doubtful {
            None if new == self.last => None,
            None => merge_patch(&value(&self.last), &value(&new)),
            Some(doubtful) => Some(whole_patch(&[&value(&self.last), &value(doubtful)], &value(&new))),
        };
        let Some(patch) = patch else { return Ok(None) };
        self.doubtful = Some(new.clone());
        let mut patch = Map::from_iter([("status".to_owned(), patch)]);
        patch.extend(version.map(|version| ("metadata".to_owned(), json!({ "resourceVersion": version }))));
        let patch = Value::Object(patch);
        let id = self.kind.object(self.key.namespace.as_str(), self.key.name.as_str());
        let written = cluster.merge_patch(&self.kind, &id, &patch, Some("status"), STATUS_MANAGER).await?;
        self.last = new;
        self.doubtful = None;
        Ok(written.pointer("/metadata/resourceVersion").and_then(Value::as_str).map(str::to_owned))
    }
}

fn text(status: &impl Serialize) -> Box<str> {
    serde_json::to_string(status).expect("a status made of plain data serialises").into()
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).expect("what was serialised is JSON")
}

/// The patch that leads to `new` from whichever of `olds` is recorded.
fn whole_patch(olds: &[&Value], new: &Value) -> Value {
    let mut patch = new.clone();
    if let Value::Object(patch) = &mut patch {
        for key in olds.iter().filter_map(|old| old.as_object()).flat_map(Map::keys) {
            patch.entry(key.clone()).or_insert(Value::Null);
        }
    }
    patch
}

/// The RFC 7386 patch that turns `old` into `new`; `None` if they are equal. Lists are replaced whole.
fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return Some(new.clone()) };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) => patch.extend(merge_patch(before, value).map(|change| (key.clone(), change))),
            None => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_write_without_an_answer_everything_is_said_again() {
        let (recorded, doubtful) = (json!({"a": 1, "b": 1}), json!({"a": 2, "c": 1}));
        assert_eq!(whole_patch(&[&recorded, &doubtful], &json!({"a": 1})), json!({"a": 1, "b": null, "c": null}));
    }

    #[test]
    fn a_patch_says_only_what_changed_and_removes_what_is_gone() {
        for (old, new, expected) in [
            (json!({"a": 1}), json!({"a": 1}), None),
            (
                json!({"a": 1, "b": {"c": 1, "d": 2}}),
                json!({"a": 1, "b": {"c": 3, "d": 2}}),
                Some(json!({"b": {"c": 3}})),
            ),
            (json!({"a": 1, "b": [1, 2]}), json!({"b": [2]}), Some(json!({"a": null, "b": [2]}))),
        ] {
            assert_eq!(merge_patch(&old, &new), expected, "{old} → {new}");
        }
    }
}
