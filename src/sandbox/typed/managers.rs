//! Who owns which fields of an object: `metadata.managedFields` as a table.
//!
//! In: an object's entries. Out: the table, and the entries again in the order in which the API server writes them.
//! Never decides about ownership: [`super::apply`] and [`super::update`] do.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::fields::FieldSet;

/// More `Update` managers than this are folded into one, oldest first, as the API server does.
const UPDATE_MANAGERS_MAX: usize = 10;
/// The name of the fold.
const OLD_MANAGER: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

/// What tells entries apart. An `Apply` entry is one whatever its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManagerId {
    pub manager: Box<str>,
    pub operation: Operation,
    /// Empty for `Apply`.
    pub api_version: Box<str>,
    pub subresource: Box<str>,
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    pub fields: FieldSet,
    pub api_version: Box<str>,
    /// RFC 3339 in UTC.
    pub time: Option<Box<str>>,
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers(BTreeMap<ManagerId, Owned>);

/// Why entries were not understood.
#[derive(Debug, thiserror::Error)]
#[error("invalid managedFields entry: {0}")]
pub struct ManagersError(String);

impl ManagerId {
    pub fn apply(manager: &str, subresource: &str) -> Self {
        Self {
            manager: manager.into(),
            operation: Operation::Apply,
            api_version: "".into(),
            subresource: subresource.into(),
        }
    }

    pub fn update(manager: &str, api_version: &str, subresource: &str) -> Self {
        Self {
            manager: manager.into(),
            operation: Operation::Update,
            api_version: api_version.into(),
            subresource: subresource.into(),
        }
    }

    /// As conflict messages name it: `"kubectl" with subresource "status" using v1`.
    pub fn describe(&self, owned: &Owned) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", owned.api_version));
        }
        text
    }
}

impl Managers {
    /// The entries of an object. Absent ones are none.
    pub fn of(object: &Value) -> Result<Self, ManagersError> {
        let mut managers = Self::default();
        for entry in object.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                other => return Err(ManagersError(format!("unknown operation `{other}`"))),
            };
            if text("fieldsType") != "FieldsV1" {
                return Err(ManagersError(format!("unknown fieldsType `{}`", text("fieldsType"))));
            }
            let fields = match entry.get("fieldsV1") {
                Some(fields) => FieldSet::parse(fields).map_err(|error| ManagersError(error.to_string()))?,
                None => FieldSet::default(),
            };
            let id = ManagerId {
                manager: text("manager").into(),
                operation,
                api_version: if operation == Operation::Apply { "" } else { text("apiVersion") }.into(),
                subresource: text("subresource").into(),
            };
            let time = entry.get("time").and_then(Value::as_str).map(Into::into);
            managers.0.insert(id, Owned { fields, api_version: text("apiVersion").into(), time });
        }
        Ok(managers)
    }

    /// Whether these entries ask to forget all ownership: an empty list or a single empty entry.
    pub fn is_reset(object: &Value) -> bool {
        match object.pointer("/metadata/managedFields").and_then(Value::as_array).map(Vec::as_slice) {
            Some([]) => true,
            Some([entry]) => entry.as_object().is_some_and(Map::is_empty),
            _ => false,
        }
    }

    /// Puts the table into an object in place of its entries.
    pub fn write_to(&self, object: &mut Value) {
        let Some(root) = object.as_object_mut() else { return };
        let metadata = root.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        let Some(metadata) = metadata.as_object_mut() else { return };
        if self.0.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".into(), self.to_value());
        }
    }

    fn to_value(&self) -> Value {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by(|(a, owned_a), (b, owned_b)| {
            let key = |id: &'_ ManagerId, owned: &'_ Owned| {
                (
                    id.operation,
                    owned.time.clone(),
                    id.manager.clone(),
                    owned.api_version.clone(),
                    id.subresource.clone(),
                )
            };
            key(a, owned_a).cmp(&key(b, owned_b))
        });
        entries
            .into_iter()
            .map(|(id, owned)| {
                let mut entry = json!({
                    "manager": id.manager,
                    "operation": if id.operation == Operation::Apply { "Apply" } else { "Update" },
                    "apiVersion": owned.api_version,
                    "fieldsType": "FieldsV1",
                    "fieldsV1": owned.fields.to_value(),
                });
                if let Some(time) = &owned.time {
                    entry["time"] = json!(time);
                }
                if !id.subresource.is_empty() {
                    entry["subresource"] = json!(id.subresource);
                }
                entry
            })
            .collect()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, id: &ManagerId) -> Option<&Owned> {
        self.0.get(id)
    }

    pub fn insert(&mut self, id: ManagerId, owned: Owned) {
        if owned.fields.is_empty() {
            self.0.remove(&id);
        } else {
            self.0.insert(id, owned);
        }
    }

    pub fn remove(&mut self, id: &ManagerId) -> Option<Owned> {
        self.0.remove(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&ManagerId, &Owned)> {
        self.0.iter()
    }

    /// Takes fields from every manager; those left without any vanish.
    pub fn take_from_all(&mut self, fields: &FieldSet) {
        for owned in self.0.values_mut() {
            owned.fields = owned.fields.difference(fields);
        }
        self.0.retain(|_, owned| !owned.fields.is_empty());
    }

    /// Everything that anyone owns.
    pub fn all_fields(&self) -> FieldSet {
        self.0.values().fold(FieldSet::default(), |all, owned| all.union(&owned.fields))
    }

    /// Folds the oldest `Update` entries together when there are too many.
    pub fn cap(&mut self) {
        let mut updates: Vec<_> = self
            .0
            .iter()
            .filter(|(id, _)| id.operation == Operation::Update)
            .map(|(id, owned)| (owned.time.clone(), id.clone()))
            .collect();
        let Some(excess) = updates.len().checked_sub(UPDATE_MANAGERS_MAX).filter(|excess| *excess > 0) else { return };
        updates.sort();
        // One place is needed for the fold itself.
        for (_, id) in updates.into_iter().take(excess + 1) {
            let Some(owned) = self.0.remove(&id) else { continue };
            let fold = ManagerId::update(OLD_MANAGER, &owned.api_version, "");
            match self.0.get_mut(&fold) {
                Some(old) => {
                    old.fields = std::mem::take(&mut old.fields).union(&owned.fields);
                    old.time = owned.time.max(old.time.take());
                }
                None => {
                    self.0.insert(fold, owned);
                }
            }
        }
    }
}

/// Objects as field ownership sees them: without their entries.
pub(super) fn without_entries(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// Whether two objects differ in nothing but the times of their `managedFields` entries and their resource version.
pub fn same_but_times(a: &Value, b: &Value) -> bool {
    fn bare(object: &Value) -> Value {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
            for entry in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(entry) = entry.as_object_mut() {
                    entry.remove("time");
                }
            }
            if let Some(entries) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) {
                entries.sort_by_key(Value::to_string);
            }
        }
        object
    }
    super::fields::same(&bare(a), &bare(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(second: usize, field: &str) -> Owned {
        let fields = FieldSet::parse(&json!({ format!("f:{field}"): {} })).expect("a set");
        Owned { fields, api_version: "v1".into(), time: Some(format!("2026-01-01T00:00:{second:02}Z").into()) }
    }

    #[test]
    fn the_oldest_of_too_many_update_managers_become_one() {
        let mut managers = Managers::default();
        managers.insert(ManagerId::apply("applier", ""), owned(0, "z"));
        for i in 1..=11 {
            managers.insert(ManagerId::update(&format!("m{i}"), "v1", ""), owned(i, &format!("k{i}")));
            managers.cap();
        }
        let updates: Vec<_> = managers.iter().filter(|(id, _)| id.operation == Operation::Update).collect();
        assert_eq!(updates.len(), UPDATE_MANAGERS_MAX);
        let old = managers.get(&ManagerId::update(OLD_MANAGER, "v1", "")).expect("folded");
        assert_eq!(old.fields.to_value(), json!({"f:k1": {}, "f:k2": {}}));
        assert_eq!(old.time.as_deref(), Some("2026-01-01T00:00:02Z"));
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        let mut managers = Managers::default();
        managers.insert(ManagerId::apply("a", "status"), owned(2, "x"));
        managers.insert(ManagerId::update("b", "v1", ""), owned(1, "y"));
        let mut object = json!({"metadata": {"name": "o"}});
        managers.write_to(&mut object);
        let names: Vec<_> = object["metadata"]["managedFields"]
            .as_array()
            .expect("entries")
            .iter()
            .map(|e| e["manager"].clone())
            .collect();
        assert_eq!(names, ["a", "b"], "appliers come first");
        assert_eq!(Managers::of(&object).expect("readable"), managers);
    }

    #[test]
    fn an_unreadable_entry_is_refused() {
        for entry in [
            json!({"manager": "a", "operation": "Delete", "fieldsType": "FieldsV1"}),
            json!({"manager": "a", "operation": "Apply", "fieldsType": "FieldsV2"}),
            json!({"manager": "a", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"x": {}}}),
        ] {
            assert!(Managers::of(&json!({"metadata": {"managedFields": [entry]}})).is_err());
        }
    }
}
