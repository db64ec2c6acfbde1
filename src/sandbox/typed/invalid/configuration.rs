//! ConfigMaps, Secrets, role bindings.

use serde_json::{Value, json};

use super::node::Node;
use crate::sandbox::typed::cause::Cause;
use crate::sandbox::typed::names::config_key;

const IMMUTABLE_SET: &str = "field is immutable when `immutable` is set";

fn keys(map: &Node<'_>) -> Vec<Cause> {
    map.entries()
        .iter()
        .flat_map(|entry| {
            let key = Value::from(entry.name());
            let cause = |fault: String| Cause::invalid(&entry.path, &key, &fault);
            config_key(entry.name()).into_iter().map(cause).collect::<Vec<_>>()
        })
        .collect()
}

/// Causes for each of `fields` that changed in an object that must not.
fn frozen(new: &Node<'_>, old: Option<&Node<'_>>, fields: &[&str]) -> Vec<Cause> {
    let Some(old) = old.filter(|old| old.get("immutable").is_true()) else { return Vec::new() };
    let mut causes = Vec::new();
    if !new.get("immutable").is_true() {
        causes.push(Cause::forbidden("immutable", IMMUTABLE_SET));
    }
    for field in fields {
        let (new, old) = (new.get(field), old.get(field));
        if new.value != old.value && !(new.is_empty() && old.is_empty()) {
            causes.push(Cause::forbidden(*field, IMMUTABLE_SET));
        }
    }
    causes
}

pub fn config_map(map: &Node<'_>, old: Option<&Node<'_>>) -> Vec<Cause> {
    let (data, binary) = (map.get("data"), map.get("binaryData"));
    let mut causes = frozen(map, old, &["data", "binaryData"]);
    causes.extend(keys(&data));
    for entry in data.entries().iter().filter(|entry| binary.value.get(entry.name()).is_some()) {
        causes.push(Cause::invalid(&entry.path, &json!(entry.name()), "duplicate of key present in binaryData"));
    }
    causes.extend(keys(&binary));
    causes
}

pub fn secret(secret: &Node<'_>, old: Option<&Node<'_>>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(cause) = super::immutable(secret, old, "type") {
        causes.push(cause);
    }
    causes.extend(frozen(secret, old, &["data"]));
    let data = secret.get("data");
    causes.extend(keys(&data));
    let required = |names: &[&str]| -> Vec<Cause> {
        let missing = names.iter().filter(|name| !data.entry(name).is_set());
        missing.map(|name| Cause::required(data.entry(name).path, "")).collect()
    };
    match secret.get("type").text() {
        "kubernetes.io/tls" => causes.extend(required(&["tls.crt", "tls.key"])),
        "kubernetes.io/dockerconfigjson" => causes.extend(required(&[".dockerconfigjson"])),
        "kubernetes.io/dockercfg" => causes.extend(required(&[".dockercfg"])),
        "kubernetes.io/ssh-auth" => causes.extend(required(&["ssh-privatekey"])),
        // One of the two is enough.
        "kubernetes.io/basic-auth" => {
            let missing = required(&["username", "password"]);
            if missing.len() == 2 {
                causes.extend(missing);
            }
        }
        "kubernetes.io/service-account-token" => {
            let name = secret.at("metadata.annotations").entry("kubernetes.io/service-account.name");
            if name.text().is_empty() {
                causes.push(Cause::required(name.path, ""));
            }
        }
        _ => {}
    }
    causes
}

pub fn role_binding(binding: &Node<'_>, old: Option<&Node<'_>>) -> Vec<Cause> {
    let Some(old) = old else { return Vec::new() };
    let role = binding.get("roleRef");
    if role.value == old.get("roleRef").value {
        return Vec::new();
    }
    let value = json!({
        "APIGroup": role.get("apiGroup").value,
        "Kind": role.get("kind").value,
        "Name": role.get("name").value,
    });
    vec![Cause::invalid(role.path, &value, "cannot change roleRef")]
}
