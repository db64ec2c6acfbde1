//! CustomResourceDefinitions: from a definition to the resources it serves, its defaults, its status and its errors.

use std::sync::Arc;

use serde_json::{Value, json};

use super::metadata;
use super::refusal::{Cause, invalid_text};
use super::resource::{CollectionId, Form, Generation, Resource};
use super::typed::Schema;

/// Keeps a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// One version of a custom kind.
#[derive(Debug)]
pub struct CustomVersion {
    pub columns: Vec<Column>,
    /// Where the scale subresource finds its numbers.
    pub scale: Option<ScalePaths>,
}

/// One of `additionalPrinterColumns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn words(value: &Value, path: &str) -> Vec<String> {
    let list = value.pointer(path).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|w| w.as_str().map(str::to_owned)).collect()
}

/// The collection that the objects of a definition are stored in.
pub fn collection(definition: &Value) -> CollectionId {
    CollectionId {
        group: text(definition, "/spec/group").into(),
        plural: text(definition, "/spec/names/plural").into(),
    }
}

/// The resources that a definition serves: one per served version, in the order of preference.
pub fn resources(definition: &Value) -> Vec<Arc<Resource>> {
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    let mut served: Vec<&Value> = versions.into_iter().flatten().filter(|v| v["served"] == true).collect();
    served.sort_by_key(|v| version_rank(text(v, "/name")));
    served.into_iter().filter_map(|version| resource(definition, version).map(Arc::new)).collect()
}

fn resource(definition: &Value, version: &Value) -> Option<Resource> {
    let status = version.pointer("/subresources/status").is_some_and(|s| !s.is_null());
    let scale = version.pointer("/subresources/scale").filter(|s| !s.is_null()).map(|scale| ScalePaths {
        spec_replicas: text(scale, "/specReplicasPath").to_owned(),
        status_replicas: text(scale, "/statusReplicasPath").to_owned(),
        selector: scale["labelSelectorPath"].as_str().map(str::to_owned),
    });
    let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten().map(|column| Column {
        name: text(column, "/name").to_owned(),
        kind: text(column, "/type").to_owned(),
        format: text(column, "/format").to_owned(),
        description: text(column, "/description").to_owned(),
        priority: column["priority"].as_i64().unwrap_or(0),
        path: text(column, "/jsonPath").to_owned(),
    });
    let kind = text(definition, "/spec/names/kind").to_owned();
    let or = |path: &str, default: String| match text(definition, path) {
        "" => default,
        given => given.to_owned(),
    };
    Some(Resource {
        schema: Schema::of_crd(definition, text(version, "/name"))?,
        group: text(definition, "/spec/group").to_owned(),
        version: text(version, "/name").to_owned(),
        plural: text(definition, "/spec/names/plural").to_owned(),
        singular: or("/spec/names/singular", kind.to_lowercase()),
        list_kind: or("/spec/names/listKind", format!("{kind}List")),
        kind,
        namespaced: text(definition, "/spec/scope") == "Namespaced",
        short_names: words(definition, "/spec/names/shortNames"),
        categories: words(definition, "/spec/names/categories"),
        stored: true,
        status,
        scale: scale.is_some(),
        generation: if status { Generation::Spec } else { Generation::All },
        states_version: true,
        created_by_update: false,
        form: Form::Stored,
        collection: collection(definition),
        custom: Some(Arc::new(CustomVersion { columns: columns.collect(), scale })),
    })
}

/// Sorts versions as discovery does: stable before beta before alpha, higher before lower, then the rest by name.
pub fn version_rank(version: &str) -> (u8, i64, i64, String) {
    let parsed = (|| {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: i64 = rest[..digits].parse().ok()?;
        let (rank, minor) = match &rest[digits..] {
            "" => (0, 0),
            tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
                (Some(minor), _) => (1, minor.parse().ok()?),
                (_, Some(minor)) => (2, minor.parse().ok()?),
                _ => return None,
            },
        };
        Some((rank, -major, -minor, String::new()))
    })();
    parsed.unwrap_or((3, 0, 0, version.to_owned()))
}

/// Fills in what a definition leaves out.
pub fn default(definition: &mut Value) {
    let kind = text(definition, "/spec/names/kind").to_owned();
    let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.entry("conversion").or_insert_with(|| json!({ "strategy": "None" }));
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        names.entry("singular").or_insert_with(|| kind.to_lowercase().into());
        names.entry("listKind").or_insert_with(|| format!("{kind}List").into());
    }
}

/// Marks a stored definition as accepted and established, as the API server's controllers do within moments.
pub fn establish(definition: &mut Value) {
    let names = definition.pointer("/spec/names").cloned().unwrap_or_else(|| json!({}));
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array).cloned().unwrap_or_default();
    let storage: Vec<Value> = versions.iter().filter(|v| v["storage"] == true).map(|v| v["name"].clone()).collect();
    let now = metadata::now();
    let old = definition.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let since = |kind: &str| {
        let found = old.iter().find(|c| c["type"] == kind && c["status"] == "True");
        found.and_then(|c| c["lastTransitionTime"].as_str()).unwrap_or(&now).to_owned()
    };
    let mut stored =
        definition.pointer("/status/storedVersions").and_then(Value::as_array).cloned().unwrap_or_default();
    for version in storage {
        if !stored.contains(&version) {
            stored.push(version);
        }
    }
    definition["status"] = json!({
        "acceptedNames": names,
        "conditions": [
            { "type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found",
              "lastTransitionTime": since("NamesAccepted") },
            { "type": "Established", "status": "True", "reason": "InitialNamesAccepted",
              "message": "the initial names have been accepted", "lastTransitionTime": since("Established") },
        ],
        "storedVersions": stored,
    });
    let finalizers = metadata::of(definition).entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers.as_array_mut()
        && !list.iter().any(|f| f == CLEANUP)
    {
        list.push(CLEANUP.into());
    }
}

/// Errors in a definition itself.
pub fn validate(definition: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let group = text(definition, "/spec/group");
    let plural = text(definition, "/spec/names/plural");
    let expected = format!("{plural}.{group}");
    if metadata::name(definition) != expected {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        causes.push(invalid_text("metadata.name", metadata::name(definition), detail));
    }
    if group.is_empty() {
        causes.push(Cause::required("spec.group", ""));
    } else if !group.contains('.') {
        causes.push(invalid_text("spec.group", group, "should be a domain with at least one dot"));
    }
    match text(definition, "/spec/scope") {
        "Namespaced" | "Cluster" => {}
        "" => causes.push(Cause::required("spec.scope", "")),
        other => causes.push(Cause::unsupported("spec.scope", &other.into(), &["Cluster", "Namespaced"])),
    }
    for field in ["plural", "kind"] {
        if text(definition, &format!("/spec/names/{field}")).is_empty() {
            causes.push(Cause::required(format!("spec.names.{field}"), ""));
        }
    }
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if versions.is_empty() {
        causes.push(Cause::required("spec.versions", ""));
    } else if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &Value::Array(versions.to_vec()), detail));
        causes.push(Cause::invalid("status.storedVersions", &Value::Null, "must have at least one stored version"));
    }
    for (i, version) in versions.iter().enumerate() {
        if version.pointer("/schema/openAPIV3Schema").is_none() {
            causes.push(Cause::required(format!("spec.versions[{i}].schema.openAPIV3Schema"), "schemas are required"));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_discovery_prefers_them() {
        let mut versions = vec!["v1alpha1", "v2", "foo", "v1beta2", "v1", "v10", "v1beta10"];
        versions.sort_by_key(|v| version_rank(v));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn our_own_definitions_are_valid_and_serve_their_kinds() {
        for definition in crate::api::definitions() {
            let mut definition = serde_json::to_value(definition).unwrap();
            assert_eq!(validate(&definition), []);
            default(&mut definition);
            establish(&mut definition);
            let resources = resources(&definition);
            assert_eq!(resources.len(), 1);
            assert!(resources[0].namespaced);
            assert_eq!(definition["status"]["conditions"][1]["type"], "Established");
        }
    }
}
