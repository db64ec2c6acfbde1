//! Field ownership of every write that is not an apply: create, replace and patch.
//!
//! In: the live object and the new one. Out: the new object with `managedFields` that give the writer what it
//! changed. Never looks at what was sent: a patch is already carried out.

use std::sync::OnceLock;

use serde_json::Value;

use super::apply::{Writer, blank};
use super::compare::compare;
use super::fields::{FieldSet, Step};
use super::managers::{ManagerId, Managers, Owned, without_entries};
use super::schema::Schema;

/// `new` with its `managedFields`, in place of `live` (or created). The entries that `new` itself brings count: so
/// can they be edited; one single empty entry clears them, no entry at all leaves them as they were.
pub fn update(schema: &Schema, live: Option<&Value>, new: &Value, writer: Writer<'_>) -> Value {
    let of_live = || live.and_then(|live| Managers::of(live).ok()).unwrap_or_default();
    let mut managers = if !writer.subresource.is_empty() {
        of_live()
    } else if Managers::is_reset(new) {
        Managers::default()
    } else {
        Managers::of(new).ok().filter(|managers| !managers.is_empty()).unwrap_or_else(of_live)
    };
    let mut object = without_entries(new);
    match live {
        // Ownership that was cleared comes back with the next apply only.
        Some(_) if managers.is_empty() => {}
        Some(live) => update_managers(schema, &without_entries(live), &object, &mut managers, writer),
        None => {
            let before = if schema.is_custom() { bare(schema) } else { blank(schema, &Value::Null) };
            update_managers(schema, &before, &object, &mut managers, writer);
        }
    }
    managers.write_to(&mut object);
    object
}

fn bare(schema: &Schema) -> Value {
    serde_json::json!({"apiVersion": schema.api_version(), "kind": schema.info().kind})
}

/// Gives the writer what differs between two objects (both without entries) and takes it from everyone else.
pub(super) fn update_managers(schema: &Schema, live: &Value, new: &Value, managers: &mut Managers, writer: Writer<'_>) {
    let comparison = compare(schema.root(), live, new).without_subtrees(&reset_fields(schema, writer.subresource));
    let changed = comparison.modified.clone().union(&comparison.added);
    managers.take_from_all(&changed.clone().union(&comparison.removed));
    let changed = stripped(&changed);
    if changed.is_empty() {
        return;
    }
    let api_version = schema.api_version();
    let id = ManagerId::update(writer.manager, &api_version, writer.subresource);
    let fields = match managers.get(&id) {
        Some(owned) => changed.union(&owned.fields),
        None => changed,
    };
    managers.insert(id, Owned { fields, api_version: api_version.into(), time: Some(writer.now.into()) });
    managers.cap();
}

/// `fields` without what the server itself keeps: identity, versions, entries.
pub(super) fn stripped(fields: &FieldSet) -> FieldSet {
    static STRIPPED: OnceLock<FieldSet> = OnceLock::new();
    fields.difference(STRIPPED.get_or_init(|| {
        let mut set = FieldSet::default();
        for path in [&["apiVersion"][..], &["kind"], &["metadata"]] {
            set.insert(&steps(path));
        }
        for name in [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        ] {
            set.insert(&steps(&["metadata", name]));
        }
        set
    }))
}

/// What a write through this subresource (or none) can't change and so never owns.
pub(super) fn reset_fields(schema: &Schema, subresource: &str) -> FieldSet {
    let info = schema.info();
    let paths: &[&[&str]] = match (subresource, info.kind.as_ref()) {
        ("status", _) if schema.is_custom() => &[&["metadata"], &["spec"]],
        ("status", "CustomResourceDefinition" | "ServiceCIDR") => &[&["metadata"], &["spec"]],
        ("status", "Deployment") => &[&["spec"], &["metadata", "labels"]],
        ("status", "Pod") => &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]],
        ("status", _) => &[&["spec"]],
        ("", _) if info.has_status() => &[&["status"]],
        _ => &[],
    };
    let mut set = FieldSet::default();
    for path in paths {
        set.insert(&steps(path));
    }
    set
}

fn steps(names: &[&str]) -> Vec<Step> {
    names.iter().map(|name| Step::field(name)).collect()
}
