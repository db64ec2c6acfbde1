//! Server-side apply.
//!
//! In: the live object (or none), what a manager applies, and who it is. Out: the object as it shall be stored, with
//! its `managedFields`; or the conflicts. What this manager applied before and no longer applies is removed unless
//! someone else owns it. Never defaults and never validates values: [`super::write`] does.

use serde_json::{Value, json};

use super::check;
use super::compare::compare;
use super::encoding;
use super::extract::{field_set, with_named_parents, without};
use super::fields::{FieldSet, Step, display_path, same};
use super::managers::{ManagerId, Managers, Owned, without_entries};
use super::merge::merge;
use super::schema::{Schema, Type};
use super::update::{reset_fields, stripped, update_managers};

/// Owns what an object had before it was first applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who writes, through what, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub manager: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339 in UTC, to the second.
    pub now: &'a str,
}

/// One field that another manager owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// As messages name it: `"kubectl" using v1`.
    pub manager: String,
    pub path: Vec<Step>,
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The configuration doesn't fit the schema.
    #[error("failed to create typed patch object ({object}): {reason}")]
    Configuration { object: String, reason: String },
    /// The configuration has `managedFields`.
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    /// The configuration is of another version or kind than the request.
    #[error("invalid object type: {0}")]
    Version(String),
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
}

/// The object after `config` was applied to `live`.
pub fn apply(
    schema: &Schema,
    live: Option<&Value>,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != schema.api_version() || text("kind") != schema.info().kind.as_ref() {
        let slash = if text("apiVersion").contains('/') { "" } else { "/" };
        return Err(ApplyError::Version(format!("{slash}{}, Kind={}", text("apiVersion"), text("kind"))));
    }
    if config.pointer("/metadata/managedFields").is_some_and(|entries| !entries.is_null()) {
        return Err(ApplyError::ManagedFields);
    }
    let root = schema.root();
    check::fits(root, config)
        .map_err(|reason| ApplyError::Configuration { object: describe(schema, config), reason })?;

    let live = live.map_or_else(|| blank(schema, config), Clone::clone);
    let mut managers = Managers::of(&live).unwrap_or_default();
    let live = without_entries(&live);
    if managers.is_empty() {
        let before = Writer { manager: BEFORE_FIRST_APPLY, ..writer };
        update_managers(schema, &blank(schema, &live), &live, &mut managers, before);
    }

    let applied = match apply_typed(schema, &live, config, &managers, writer, force) {
        Err(ApplyError::Conflicts(conflicts)) if writer.manager == "kubectl" => {
            let migrating = last_applied_fields(schema, &live);
            let rest: Vec<_> = conflicts.into_iter().filter(|conflict| !migrating.has(&conflict.path)).collect();
            if rest.is_empty() {
                apply_typed(schema, &live, config, &managers, writer, true)
            } else {
                Err(ApplyError::Conflicts(rest))
            }
        }
        result => result,
    };
    applied.map(|mut object| {
        // Who goes back to `kubectl apply` without server-side apply finds what was applied last.
        let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
        if let Some(last) =
            annotations.and_then(|all| all.get_mut(LAST_APPLIED)).filter(|_| writer.manager == "kubectl")
        {
            *last = format!("{config}\n").into();
        }
        object
    })
}

fn apply_typed(
    schema: &Schema,
    live: &Value,
    config: &Value,
    before: &Managers,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let root = schema.root();
    let mut managers = before.clone();
    let id = ManagerId::apply(writer.manager, writer.subresource);
    let reset = reset_fields(schema, writer.subresource);
    let applied = field_set(root, config).without_subtrees(&reset);
    let last = managers.remove(&id);
    let last_time = last.as_ref().and_then(|last| last.time.clone());

    let merged = merge(root, live, config);
    let mut object = match &last {
        Some(last) => pruned(root, merged, &last.fields, &managers.all_fields().union(&applied)),
        None => merged,
    };

    let comparison = compare(root, live, &object).without_subtrees(&reset);
    let changed = comparison.modified.clone().union(&comparison.added);
    let conflicts: Vec<Conflict> = managers
        .iter()
        .flat_map(|(id, owned)| {
            let manager = id.describe(owned);
            let paths = owned.fields.intersection(&changed).paths();
            paths.into_iter().map(move |path| Conflict { manager: manager.clone(), path })
        })
        .collect();
    if !conflicts.is_empty() && !force {
        return Err(ApplyError::Conflicts(conflicts));
    }
    managers.take_from_all(&changed.union(&comparison.removed));

    if !schema.is_custom() {
        encoding::canonical(root, &mut object);
    }
    let applied = stripped(&applied);
    let mut owned = Owned { fields: applied, api_version: schema.api_version().into(), time: last_time };
    managers.insert(id.clone(), owned.clone());
    if managers != *before || !same(live, &object) {
        owned.time = Some(writer.now.into());
        managers.insert(id, owned);
    }
    managers.write_to(&mut object);
    Ok(object)
}

/// `merged` without what the manager applied last and nobody owns now.
fn pruned(root: Type<'_>, merged: Value, last: &FieldSet, owned: &FieldSet) -> Value {
    if last.is_empty() {
        return merged;
    }
    let named = |set: &FieldSet| with_named_parents(Some(root), set);
    let last = named(last);
    let all = named(&field_set(root, &merged));
    let bare = without(root, &merged, &last);
    // First back comes what others own (or the configuration has), then what nobody owned but lay below a removed
    // part and was never this manager's.
    let kept = named(&field_set(root, &bare)).union(&named(owned));
    let kept = without(root, &merged, &all.difference(&kept));
    let kept = named(&field_set(root, &kept));
    without(root, &merged, &all.difference(&kept).intersection(&last))
}

/// An object of this kind with nothing but its identity.
pub(super) fn blank(schema: &Schema, object: &Value) -> Value {
    let mut blank = if schema.is_custom() { json!({}) } else { schema.root().zero() };
    blank["apiVersion"] = json!(schema.api_version());
    blank["kind"] = json!(schema.info().kind);
    for name in ["name", "namespace"] {
        if let Some(value) = object.pointer(&format!("/metadata/{name}")) {
            blank["metadata"][name] = value.clone();
        }
    }
    blank
}

/// `namespace/name; group/version, Kind=Kind`.
pub(super) fn describe(schema: &Schema, object: &Value) -> String {
    let text = |path| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    format!("{}/{}; {}", text("/metadata/namespace"), text("/metadata/name"), schema.display_kind())
}

/// Fields that `kubectl apply` without server-side apply has set and that nobody changed since: `kubectl` may take
/// them over without a conflict.
fn last_applied_fields(schema: &Schema, live: &Value) -> FieldSet {
    let config = live
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(LAST_APPLIED))
        .and_then(Value::as_str)
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
        .filter(|config| config.get("apiVersion").and_then(Value::as_str) == Some(&schema.api_version()))
        .filter(|config| check::fits(schema.root(), config).is_ok());
    let Some(config) = config else { return FieldSet::default() };
    let changes = compare(schema.root(), &config, live);
    field_set(schema.root(), &config)
        .difference(&changes.modified)
        .difference(&changes.added)
        .difference(&changes.removed)
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [conflict] = conflicts {
        let Conflict { manager, path } = conflict;
        return format!("Apply failed with 1 conflict: conflict with {manager}: {}", display_path(path));
    }
    let mut lines = Vec::new();
    let mut last = None;
    for Conflict { manager, path } in conflicts {
        if last != Some(manager) {
            lines.push(format!("conflicts with {manager}:"));
            last = Some(manager);
        }
        lines.push(format!("- {}", display_path(path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sandbox::typed::update::update;

    fn config_map() -> Schema {
        Schema::builtin("", "v1", "ConfigMap").expect("built in")
    }

    fn data(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}, "data": data})
    }

    fn by(manager: &str) -> Writer<'_> {
        Writer { manager, subresource: "", now: "2026-01-01T00:00:00Z" }
    }

    fn stored(live: Option<&Value>, config: Value, manager: &str) -> Value {
        let mut object = apply(&config_map(), live, &config, by(manager), false).expect("applies");
        object["metadata"]["uid"] = json!("u");
        object
    }

    #[test]
    fn a_field_that_is_no_longer_applied_goes_unless_another_manager_owns_it() {
        let live = stored(None, data(json!({"a": "1", "b": "2", "c": "3"})), "one");
        let live = stored(Some(&live), data(json!({"b": "2"})), "two");
        let live = stored(Some(&live), data(json!({"a": "1"})), "one");
        assert_eq!(live["data"], json!({"a": "1", "b": "2"}));
    }

    #[test]
    fn a_conflict_names_manager_version_and_field() {
        let live = data(json!({"a": "1", "b": "2"}));
        let mut live = update(&config_map(), None, &live, by("kubectl-create"));
        live["metadata"]["uid"] = json!("u");
        let clash = |config| apply(&config_map(), Some(&live), &data(config), by("me"), false).expect_err("a conflict");
        assert_eq!(
            clash(json!({"a": "2"})).to_string(),
            r#"Apply failed with 1 conflict: conflict with "kubectl-create" using v1: .data.a"#
        );
        assert_eq!(
            clash(json!({"a": "2", "b": "3"})).to_string(),
            "Apply failed with 2 conflicts: conflicts with \"kubectl-create\" using v1:\n- .data.a\n- .data.b"
        );
        let forced = apply(&config_map(), Some(&live), &data(json!({"a": "2"})), by("me"), true).expect("forced");
        let managers = Managers::of(&forced).expect("readable");
        let kept = managers.get(&ManagerId::update("kubectl-create", "v1", "")).expect("kept");
        assert_eq!(kept.fields.to_value(), json!({"f:data": {".": {}, "f:b": {}}}));
    }

    #[test]
    fn applying_the_same_again_changes_nothing_not_even_the_time() {
        let live = stored(None, data(json!({"a": "1"})), "one");
        let later = Writer { now: "2026-02-02T00:00:00Z", ..by("one") };
        let again = apply(&config_map(), Some(&live), &data(json!({"a": "1"})), later, false).expect("applies");
        assert_eq!(again, live);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        let name = prop_oneof![
            Just("name"),
            Just("containers"),
            Just("template"),
            Just("spec"),
            Just("env"),
            Just("ports"),
            Just("$patch"),
            Just("selector")
        ];
        leaf.prop_recursive(5, 40, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(name.clone().prop_map(String::from), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_makes_it_panic(spec in any_json(), metadata in any_json()) {
            let schema = Schema::builtin("apps", "v1", "Deployment").expect("built in");
            let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec});
            let live = update(&schema, None, &object, by("a"));
            let _ = apply(&schema, Some(&live), &object, by("b"), true);
            let _ = apply(&schema, None, &object, by("b"), false);
            let _ = crate::sandbox::typed::strategic_merge(&schema, &live, &object);
            let _ = crate::sandbox::typed::invalid("apps", "Deployment", Some(&live), &object);
            let _ = crate::sandbox::typed::decode(&schema, &mut object.clone());
        }

        #[test]
        fn whoever_applies_last_by_force_finds_what_was_applied(
            writes in prop::collection::vec(("[a-c]", prop::collection::btree_map("[x-z]", "[0-9]", 1..3)), 1..8)
        ) {
            let mut live = None;
            for (manager, fields) in writes {
                let config = data(json!(fields));
                let mut object =
                    apply(&config_map(), live.as_ref(), &config, by(&manager), true).expect("forced");
                for (name, value) in &fields {
                    prop_assert_eq!(&object["data"][name], value);
                }
                let owners = Managers::of(&object).expect("readable").all_fields();
                let held = field_set(config_map().root(), &object);
                prop_assert!(owners.difference(&held).is_empty(), "nobody owns what is not there");
                object["metadata"]["uid"] = json!("u");
                let again = apply(&config_map(), Some(&object), &config, by(&manager), false).expect("no conflict");
                prop_assert_eq!(&again, &object);
                live = Some(object);
            }
        }
    }
}
