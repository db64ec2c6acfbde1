//! What is secret in two objects that are compared: equal values look equal, changed ones changed, and nothing tells how
//! long they are or what they were.

use serde_json::Value;

use crate::api::LAST_APPLIED;
use crate::manifest::REDACTED_BYTES_MIN;

/// In place of a value.
const MASKED: &str = "***";
const BEFORE: &str = "*** (before)";
const AFTER: &str = "*** (after)";

/// The values of Secrets that went into manifests.
pub struct Secrets(Vec<String>);

impl Secrets {
    pub fn new(values: impl Iterator<Item = String>) -> Self {
        Self(values.filter(|value| value.len() >= REDACTED_BYTES_MIN).collect())
    }

    fn are_in(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.0.iter().any(|secret| text.contains(secret.as_str())),
            Value::Number(number) => self.0.contains(&number.to_string()),
            Value::Array(items) => items.iter().any(|item| self.are_in(item)),
            Value::Object(fields) => fields.values().any(|field| self.are_in(field)),
            Value::Null | Value::Bool(_) => false,
        }
    }

    /// A text without them: the last line of defence, for names and messages.
    pub fn out_of(&self, text: String) -> String {
        self.0.iter().fold(text, |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), MASKED) } else { text }
        })
    }

    /// Masks what came from Secrets by substitution, on both sides: the older value is not known.
    pub fn mask(&self, live: Option<&mut Value>, would: Option<&mut Value>) {
        if self.0.is_empty() {
            return;
        }
        match (live, would) {
            (Some(Value::Object(live)), Some(Value::Object(would))) => {
                for (name, field) in would.iter_mut() {
                    self.mask(live.get_mut(name), Some(field));
                }
                for (_, field) in live.iter_mut().filter(|(name, _)| !would.contains_key(*name)) {
                    self.mask(Some(field), None);
                }
            }
            (Some(Value::Array(live)), Some(Value::Array(would))) => self.mask_items(live, would),
            (live, would) => {
                let found = [&live, &would].into_iter().flatten().any(|value| self.are_in(value));
                if found {
                    mask_pair(live, would);
                }
            }
        }
    }

    /// Items are matched by their names; where they have none, all of a list is masked that has a secret in it.
    fn mask_items(&self, live: &mut [Value], would: &mut [Value]) {
        let named = |items: &[Value]| items.iter().all(|item| item.get("name").is_some_and(Value::is_string));
        if named(live) && named(would) {
            for item in would.iter_mut() {
                let same = live.iter_mut().find(|other| other["name"] == item["name"]);
                self.mask(same, Some(item));
            }
            for item in live.iter_mut().filter(|item| !would.iter().any(|other| other["name"] == item["name"])) {
                self.mask(Some(item), None);
            }
        } else if live.iter().chain(would.iter()).any(|item| self.are_in(item)) {
            for at in 0..live.len().max(would.len()) {
                mask_pair(live.get_mut(at), would.get_mut(at));
            }
        }
    }
}

/// Masks the data of a Secret.
pub fn mask_secret(mut live: Option<&mut Value>, mut would: Option<&mut Value>) {
    for field in ["data", "stringData"] {
        let live = live.as_deref_mut().and_then(|object| object.get_mut(field));
        let would = would.as_deref_mut().and_then(|object| object.get_mut(field));
        match (live, would) {
            (Some(Value::Object(live)), Some(Value::Object(would))) => {
                for (key, value) in would.iter_mut() {
                    mask_pair(live.get_mut(key), Some(value));
                }
                for (_, value) in live.iter_mut().filter(|(key, _)| !would.contains_key(*key)) {
                    mask_pair(Some(value), None);
                }
            }
            (live, would) => [live, would].into_iter().flatten().for_each(|data| match data {
                Value::Object(data) => data.values_mut().for_each(|value| *value = MASKED.into()),
                other => *other = MASKED.into(),
            }),
        }
    }
    // a value under a mistyped name, or in the wrong place, is no less secret
    let shown = |field: &str, value: &Value| match field {
        "apiVersion" | "kind" | "metadata" | "type" | "data" | "stringData" => true,
        _ => value.is_boolean() || value.is_null(),
    };
    for object in [live.as_deref_mut(), would.as_deref_mut()].into_iter().flatten() {
        let fields = object.as_object_mut().into_iter().flatten();
        fields.filter(|(field, value)| !shown(field, value)).for_each(|(_, value)| *value = MASKED.into());
    }
    for object in [live, would].into_iter().flatten() {
        // kubectl keeps the whole object in there
        if let Some(noted) = object.pointer_mut("/metadata/annotations").and_then(|all| all.get_mut(LAST_APPLIED)) {
            *noted = MASKED.into();
        }
    }
}

fn mask_pair(live: Option<&mut Value>, would: Option<&mut Value>) {
    match (live, would) {
        (Some(live), Some(would)) if live == would => (*live, *would) = (MASKED.into(), MASKED.into()),
        (Some(live), Some(would)) => (*live, *would) = (BEFORE.into(), AFTER.into()),
        (live, would) => [live, would].into_iter().flatten().for_each(|value| *value = MASKED.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_changed_key_of_a_secret_is_shown_as_changed_and_nothing_else_of_it() {
        let mut live = json!({"data": {"same": "eA==", "changed": "YQ==", "gone": "Yg=="},
            "metadata": {"annotations": {LAST_APPLIED: "{\"data\": {}}"}}});
        let mut would = json!({"data": {"same": "eA==", "changed": "YWJjZGVm", "new": "Yw=="}});
        mask_secret(Some(&mut live), Some(&mut would));
        assert_eq!(live["data"], json!({"same": "***", "changed": "*** (before)", "gone": "***"}));
        assert_eq!(would["data"], json!({"same": "***", "changed": "*** (after)", "new": "***"}));
        assert_eq!(live["metadata"]["annotations"][LAST_APPLIED], "***");
        let mut alone = json!({"stringData": {"a": "b"}, "data": "not a map"});
        mask_secret(None, Some(&mut alone));
        assert_eq!(alone, json!({"stringData": {"a": "***"}, "data": "***"}));
        let mut mistyped = json!({"stringDate": {"a": "b"}, "immutable": "c", "type": "Opaque"});
        mask_secret(None, Some(&mut mistyped));
        assert_eq!(mistyped, json!({"stringDate": "***", "immutable": "***", "type": "Opaque"}));
    }

    #[test]
    fn a_value_that_came_from_a_secret_is_masked_wherever_it_stands_and_so_is_the_older_one() {
        let secrets = Secrets::new(["hunter2".to_owned(), "8443".to_owned(), "no".to_owned()].into_iter());
        let cases = [
            (json!({"a": "x-old"}), json!({"a": "x-hunter2"}), json!({"a": BEFORE}), json!({"a": AFTER})),
            (json!({"a": "hunter2"}), json!({"a": "hunter2"}), json!({"a": "***"}), json!({"a": "***"})),
            (json!({"a": 8443, "b": "no"}), json!({"b": "no"}), json!({"a": "***", "b": "no"}), json!({"b": "no"})),
            (
                json!({"env": [{"name": "P", "value": "old"}, {"name": "Q", "value": "q"}]}),
                json!({"env": [{"name": "N", "value": "n"}, {"name": "P", "value": "hunter2"}]}),
                json!({"env": [{"name": "P", "value": BEFORE}, {"name": "Q", "value": "q"}]}),
                json!({"env": [{"name": "N", "value": "n"}, {"name": "P", "value": AFTER}]}),
            ),
            (
                json!({"args": ["--old", "-v"]}),
                json!({"args": ["-v", "--p=hunter2", "-x"]}),
                json!({"args": [BEFORE, BEFORE]}),
                json!({"args": [AFTER, AFTER, "***"]}),
            ),
        ];
        for (mut live, mut would, live_masked, would_masked) in cases {
            secrets.mask(Some(&mut live), Some(&mut would));
            assert_eq!((live, would), (live_masked, would_masked));
        }
        assert_eq!(secrets.out_of("at hunter2: no".to_owned()), "at ***: no");
    }
}
