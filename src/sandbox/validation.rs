//! What the API server refuses although its form is right: by the rules of built-in kinds, or by a definition.

use serde_json::Value;

use super::definition;
use super::refusal::Cause;
use super::resource::Resource;
use super::typed;

/// Errors in an object that is about to be created, or to take the place of `old`.
pub fn validate(resource: &Resource, old: Option<&Value>, value: &Value) -> Vec<Cause> {
    if resource.custom.is_some() {
        return resource.schema.invalid_values(value);
    }
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        return definition::validate(value);
    }
    let mut causes = typed::invalid(&resource.group, &resource.kind, old, value);
    if resource.group == "rbac.authorization.k8s.io" {
        causes.extend(rbac(value));
    }
    causes
}

fn rbac(value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if value.get("roleRef").is_some_and(|r| r["name"].as_str().unwrap_or_default().is_empty()) {
        causes.push(Cause::required("roleRef.name", ""));
    }
    for (i, rule) in value["rules"].as_array().into_iter().flatten().enumerate() {
        let empty = |field: &str| rule[field].as_array().is_none_or(Vec::is_empty);
        if empty("verbs") {
            causes.push(Cause::required(format!("rules[{i}].verbs"), "verbs must contain at least one value"));
        }
        if empty("nonResourceURLs") && empty("apiGroups") {
            let detail = "resource rules must supply at least one api group";
            causes.push(Cause::required(format!("rules[{i}].apiGroups"), detail));
        }
        if empty("nonResourceURLs") && empty("resources") {
            let detail = "resource rules must supply at least one resource";
            causes.push(Cause::required(format!("rules[{i}].resources"), detail));
        }
    }
    causes
}
