//! Reading and preparing `metadata`: the fields the server owns, names and their rules.

use jiff::Timestamp;
use rand::RngExt as _;
use serde_json::{Map, Value, json};

use super::refusal::{Cause, invalid_text};
use super::typed::names;

/// Longest DNS label: a namespace, a Service.
const LABEL_MAX: usize = 63;
/// Longest `generateName` that leaves room for the suffix.
const GENERATED_BASE_MAX: usize = LABEL_MAX - SUFFIX_LENGTH;
const SUFFIX_LENGTH: usize = 5;
/// Letters and digits of generated names: no vowels, nothing that looks like something else.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// All annotations of an object together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

pub fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get("metadata").and_then(|m| m.get(name)).and_then(Value::as_str).unwrap_or_default()
}

pub fn name(value: &Value) -> &str {
    field(value, "name")
}

pub fn namespace(value: &Value) -> &str {
    field(value, "namespace")
}

pub fn uid(value: &Value) -> &str {
    field(value, "uid")
}

pub fn finalizers(value: &Value) -> Vec<&str> {
    let list = value.get("metadata").and_then(|m| m.get("finalizers")).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

pub fn is_terminating(value: &Value) -> bool {
    value.get("metadata").and_then(|m| m.get("deletionTimestamp")).is_some_and(|t| !t.is_null())
}

pub fn owner_references(value: &Value) -> &[Value] {
    let list = value.get("metadata").and_then(|m| m.get("ownerReferences")).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

pub fn owner_uids(value: &Value) -> impl Iterator<Item = &str> {
    owner_references(value).iter().filter_map(|r| r.get("uid").and_then(Value::as_str))
}

/// `metadata` as a map, made if it is not there.
pub fn of(value: &mut Value) -> &mut Map<String, Value> {
    let object = as_map(value);
    as_map(object.entry("metadata").or_insert_with(|| json!({})))
}

/// The value as a map; what is no map becomes an empty one.
pub fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made a map just before"),
    }
}

/// The object as JSON text without `kind` and `apiVersion`.
pub fn json_without_type(value: &Value) -> String {
    struct Rest<'a>(&'a Map<String, Value>);
    impl serde::Serialize for Rest<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().filter(|(key, _)| !matches!(key.as_str(), "kind" | "apiVersion")))
        }
    }
    let empty = Map::new();
    let map = value.as_object().unwrap_or(&empty);
    serde_json::to_string(&Rest(map)).expect("JSON without foreign types always serialises")
}

/// The object reduced to its metadata.
pub fn partial(value: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": value.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// Now, to the second, as the API server writes times.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A random version 4 UUID.
pub fn new_uid() -> String {
    let mut b: [u8; 16] = rand::rng().random();
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex = hex::encode(b);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A name made from `metadata.generateName`.
pub fn generated_name(base: &str) -> String {
    let mut rng = rand::rng();
    let mut name: String = base.chars().take(GENERATED_BASE_MAX).collect();
    for _ in 0..SUFFIX_LENGTH {
        name.push(char::from(SUFFIX_ALPHABET[rng.random_range(0..SUFFIX_ALPHABET.len())]));
    }
    name
}

/// What is wrong with an RBAC name: anything that fits into a path.
fn path_segment_errors(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text == "." || text == ".." {
        errors.push(format!("may not be '{text}'"));
    }
    for bad in ["/", "%"] {
        if text.contains(bad) {
            errors.push(format!("may not contain '{bad}'"));
        }
    }
    errors
}

/// The rule for the name of an object. Lengths of names count characters.
fn name_errors(group: &str, plural: &str, name: &str) -> Vec<String> {
    let in_characters = |errors: Vec<String>| errors.into_iter().map(|e| e.replace(" bytes", " characters")).collect();
    match (group, plural) {
        ("", "namespaces" | "services") if name.contains('.') && names::subdomain(name).is_empty() => {
            vec!["must not contain dots".to_owned()]
        }
        ("", "namespaces" | "services") => in_characters(names::label(name)),
        ("rbac.authorization.k8s.io", _) => path_segment_errors(name),
        _ => in_characters(names::subdomain(name)),
    }
}

/// Errors in the metadata of an object that is about to be stored.
pub fn validate(group: &str, plural: &str, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = name(value);
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    }
    for error in name_errors(group, plural, name) {
        if !name.is_empty() {
            causes.push(invalid_text("metadata.name", name, error));
        }
    }
    let base = field(value, "generateName");
    if !base.is_empty() {
        // a dash at the end is followed by the suffix
        let masked = base.strip_suffix('-').map_or_else(|| base.to_owned(), |b| format!("{b}a"));
        let errors = name_errors(group, plural, &masked);
        causes.extend(errors.into_iter().map(|e| invalid_text("metadata.generateName", base, e)));
    }
    let Some(metadata) = value.get("metadata") else { return causes };
    let map = |key: &str| metadata.get(key).and_then(Value::as_object).into_iter().flatten();
    for (key, value) in map("labels") {
        causes.extend(names::qualified(key).iter().map(|e| invalid_text("metadata.labels", key, e)));
        let text = value.as_str().unwrap_or_default();
        causes.extend(names::label_value(text).iter().map(|e| invalid_text("metadata.labels", text, e)));
    }
    let mut total = 0;
    for (key, value) in map("annotations") {
        let lower = key.to_lowercase();
        causes.extend(names::qualified(&lower).iter().map(|e| invalid_text("metadata.annotations", key, e)));
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > ANNOTATIONS_BYTES_MAX {
        causes.push(Cause::too_long("metadata.annotations", ANNOTATIONS_BYTES_MAX as u64));
    }
    causes.extend(owner_errors(value));
    for (i, finalizer) in finalizers(value).into_iter().enumerate() {
        let errors = names::qualified(finalizer);
        causes.extend(errors.iter().map(|e| invalid_text("metadata.finalizers", finalizer, e)));
        // of custom resources the API server only warns: Flux's own finalizer has no `/`
        let built_in = !group.contains('.') || group.ends_with(".k8s.io");
        if built_in && !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(invalid_text(format!("metadata.finalizers[{i}]"), finalizer, detail));
        }
    }
    causes
}

/// Finalizers that need no domain: the API server's own, and those of definitions and namespaces.
const STANDARD_FINALIZERS: [&str; 4] =
    ["foregroundDeletion", "orphan", "kubernetes", "customresourcecleanup.apiextensions.k8s.io"];

/// An owner reference as JSON with its fields in the order in which they are declared.
fn in_declared_order(reference: &Value) -> String {
    let fields = ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];
    let there = fields.iter().filter_map(|field| Some(format!("\"{field}\":{}", reference.get(field)?)));
    format!("{{{}}}", there.collect::<Vec<_>>().join(","))
}

fn owner_errors(value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut controllers = Vec::new();
    for reference in owner_references(value) {
        let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default();
        for key in ["apiVersion", "kind", "name", "uid"] {
            if text(key).is_empty() {
                let detail = if key == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                causes.push(invalid_text(format!("metadata.ownerReferences.{key}"), "", detail));
            }
        }
        if reference["controller"] == true {
            controllers.push(format!("{}/{}", text("kind"), text("name")));
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let all: Vec<String> = owner_references(value).iter().map(in_declared_order).collect();
        causes.push(Cause {
            field: "metadata.ownerReferences".to_owned(),
            reason: "FieldValueInvalid",
            message: format!(
                "Invalid value: [{}]: Only one reference can have Controller set to true. Found \"true\" in references \
                 for {first} and {second}",
                all.join(",")
            ),
        });
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_by_the_rule_of_their_kind() {
        for (group, plural, name, good) in [
            ("", "configmaps", "a.b-c", true),
            ("", "configmaps", "A", false),
            ("", "configmaps", "-a", false),
            ("", "namespaces", "a.b", false),
            ("", "services", "1a", true),
            ("", "services", "a.b", false),
            ("", "services", "a1", true),
            ("rbac.authorization.k8s.io", "clusterroles", "system:a", true),
            ("rbac.authorization.k8s.io", "clusterroles", "a/b", false),
            ("apps", "deployments", "", true),
        ] {
            let errors = if name.is_empty() { Vec::new() } else { name_errors(group, plural, name) };
            assert_eq!(errors.is_empty(), good, "{plural} {name}");
        }
        assert_eq!(validate("", "configmaps", &json!({"metadata": {}})).len(), 1);
    }

    #[test]
    fn generated_names_keep_their_base_and_differ() {
        let (a, b) = (generated_name("web-"), generated_name("web-"));
        assert!(a.starts_with("web-") && a.len() == 9);
        assert_ne!(a, b);
        assert_eq!(new_uid().len(), 36);
    }
}
