//! The OpenAPI documents describe types as a real API server's do (`openapi/*.json`, made by `record`).

use serde_json::{Map, Value, json};

use crate::support::{Cluster, cluster};

/// Free-form values: the real server has a type without fields for each place they come from.
const FREE_FORM: [&str; 2] =
    ["io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "io.k8s.apimachinery.pkg.runtime.RawExtension"];

fn schemas(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap()
}

/// A schema without words, and without what says the same in two ways.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let reference = map.get("allOf").map_or(&value["$ref"], |all| &all[0]["$ref"]);
            if FREE_FORM.iter().any(|name| reference.as_str().is_some_and(|r| r.ends_with(name))) {
                return json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
            }
            let mut out = Map::new();
            for (key, entry) in map {
                match key.as_str() {
                    "description" if entry.is_string() => {}
                    // an empty value says nothing; the table has the values of fields, not those of items
                    "default" if matches!(entry, Value::Bool(false)) || *entry == "" || *entry == 0 => {}
                    "items" | "additionalProperties" => {
                        let mut item = normal(entry);
                        for word in ["enum", "format"] {
                            item.as_object_mut().and_then(|item| item.remove(word));
                        }
                        out.insert(key.clone(), item);
                    }
                    "x-kubernetes-unions" | "x-kubernetes-group-version-kind" => {}
                    // entries are owned one by one unless it says otherwise
                    "x-kubernetes-map-type" if *entry == "granular" => {}
                    "required" if entry.is_array() => {
                        let mut names: Vec<&str> = entry.as_array().unwrap().iter().filter_map(Value::as_str).collect();
                        names.sort_unstable();
                        out.insert(key.clone(), names.into());
                    }
                    _ => {
                        out.insert(key.clone(), normal(entry));
                    }
                }
            }
            if out.get("type").is_some_and(|kind| kind == "array") {
                out.entry("x-kubernetes-list-type").or_insert_with(|| "atomic".into());
            }
            out.into()
        }
        Value::Array(items) => items.iter().map(normal).collect(),
        other => other.clone(),
    }
}

async fn differences(c: &Cluster, path: &str, recorded: &str, differences: &mut Vec<String>) {
    let real = schemas(recorded);
    let document = c.get(&format!("/openapi/v3/{path}")).await.body;
    let ours = document["components"]["schemas"].as_object().unwrap();
    assert!(ours.len() > 5, "{path}: {}", ours.len());
    for (name, schema) in ours {
        let Some(expected) = real.get(name) else {
            differences.push(format!("{path}: {name} is not the real server's"));
            continue;
        };
        let (schema, expected) = (normal(schema), normal(expected));
        let parts = |schema: &Value| {
            let mut parts = schema["properties"].as_object().cloned().unwrap_or_default();
            let mut rest = schema.clone();
            rest.as_object_mut().unwrap().remove("properties");
            parts.insert("(itself)".into(), rest);
            parts
        };
        let (schema, expected) = (parts(&schema), parts(&expected));
        for field in schema.keys().chain(expected.keys().filter(|field| !schema.contains_key(*field))) {
            if schema.get(field) != expected.get(field) {
                let show = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
                let (ours, real) = (show(schema.get(field)), show(expected.get(field)));
                differences.push(format!("{name}.{field}\n  real    {real}\n  sandbox {ours}"));
            }
        }
    }
}

#[tokio::test]
async fn types_are_described_as_by_a_real_server() {
    let c = cluster().await;
    let mut found = Vec::new();
    for (path, recorded) in [
        ("api/v1", include_str!("openapi/api_v1.json")),
        ("apis/apps/v1", include_str!("openapi/apis_apps_v1.json")),
        ("apis/coordination.k8s.io/v1", include_str!("openapi/apis_coordination.k8s.io_v1.json")),
    ] {
        differences(&c, path, recorded, &mut found).await;
    }
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{} differences\n{}", found.len(), found.join("\n"));
}

#[tokio::test]
async fn the_index_names_a_document_and_a_hash_for_each_group_version() {
    let c = cluster().await;
    let index = c.get("/openapi/v3").await.body;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let (path, hash) = url.split_once("?hash=").unwrap();
    assert_eq!((path, hash.len()), ("/openapi/v3/apis/apps/v1", 64));
    let document = c.get(url).await;
    assert_eq!(document.code, 200);
    let patch = &document.body["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let replicas =
        &document.body["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["replicas"];
    assert!(replicas["description"].as_str().is_some_and(|text| text.contains("Number of desired pods")));
    assert_eq!(c.get("/openapi/v3/apis/nonsense/v1").await.code, 404);
}
