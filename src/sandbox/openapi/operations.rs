//! The paths of an OpenAPI document: which operations a resource has, with the parameters and bodies they take.

use serde_json::{Map, Value, json};

use crate::sandbox::resource::{Resource, subresource_verbs};

/// Adds the paths of a resource. `schema` is the name of its type among the components.
pub fn describe(resource: &Resource, schema: &str, paths: &mut Map<String, Value>) {
    let scope = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
    let base = format!("/{}/{scope}{}", super::path(&resource.group, &resource.version), resource.plural);
    let verbs = resource.verbs();
    let of = |methods: &[(&str, &str)]| -> Map<String, Value> {
        let served = methods.iter().filter(|(_, action)| {
            let verb = match *action {
                "post" => "create",
                "put" => "update",
                action => action,
            };
            verbs.contains(&verb)
        });
        served.map(|(method, action)| ((*method).to_owned(), operation(resource, schema, action))).collect()
    };
    let collection = [("get", "list"), ("post", "post"), ("delete", "deletecollection")];
    let object = [("get", "get"), ("put", "put"), ("patch", "patch"), ("delete", "delete")];
    paths.insert(base.clone(), of(&collection).into());
    if resource.stored {
        paths.insert(format!("{base}/{{name}}"), of(&object).into());
    }
    for name in resource.subresources() {
        let operations = if subresource_verbs(name) == ["create"] { of(&collection[1..2]) } else { of(&object[..3]) };
        paths.insert(format!("{base}/{{name}}/{name}"), operations.into());
    }
}

fn operation(resource: &Resource, schema: &str, action: &str) -> Value {
    let parameter = |name: &str| {
        let kind = if name == "force" { "boolean" } else { "string" };
        json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
    };
    let parameters: &[&str] = match action {
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        "post" | "put" => &["dryRun", "fieldManager", "fieldValidation"],
        "delete" => &["dryRun", "gracePeriodSeconds", "propagationPolicy"],
        "list" | "deletecollection" => &["continue", "fieldSelector", "labelSelector", "limit", "resourceVersion"],
        _ => &[],
    };
    let own = json!({ "schema": { "$ref": format!("#/components/schemas/{schema}") } });
    let mut operation = json!({
        "parameters": parameters.iter().copied().map(parameter).collect::<Vec<_>>(),
        "responses": { "200": { "description": "OK" } },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            { "group": resource.group, "version": resource.version, "kind": resource.kind },
    });
    if matches!(action, "get" | "post" | "put" | "patch") {
        operation["responses"]["200"]["content"] = json!({ "application/json": own });
    }
    match action {
        "post" | "put" => operation["requestBody"] = json!({ "content": { "*/*": own }, "required": true }),
        "patch" => {
            let mut types =
                vec!["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
            if resource.custom.is_none() {
                types.push("application/strategic-merge-patch+json");
            }
            let content: Map<String, Value> =
                types.into_iter().map(|name| (name.to_owned(), json!({ "schema": { "type": "object" } }))).collect();
            operation["requestBody"] = json!({ "content": content, "required": true });
        }
        _ => {}
    }
    operation
}
