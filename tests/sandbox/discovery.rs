//! Discovery says of each served resource what a real API server says (`tests/tools/discovery`, recorded).

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Cluster, cluster};

/// Subresources that the sandbox serves.
const SUBRESOURCES: [&str; 4] = ["binding", "eviction", "scale", "status"];

fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/discovery").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// The entries of an aggregated document by group, version and resource, with the subresources that count.
fn entries(document: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for group in list(document, "items") {
        let name = group["metadata"]["name"].as_str().unwrap_or_default();
        for version in list(group, "versions") {
            for resource in list(version, "resources") {
                let mut resource = resource.clone();
                let mut kept: Vec<Value> = list(&resource, "subresources").to_vec();
                kept.retain(|s| SUBRESOURCES.iter().any(|name| s["subresource"] == *name));
                resource["subresources"] = kept.into();
                let id = format!(
                    "{name}/{}/{}",
                    version["version"].as_str().unwrap(),
                    resource["resource"].as_str().unwrap()
                );
                found.push((id, resource));
            }
        }
    }
    found
}

async fn aggregated(c: &Cluster, path: &str) -> Value {
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    c.send_as("GET", path, "", accept, &Value::Null).await.body
}

#[tokio::test]
async fn aggregated_discovery_describes_resources_as_a_real_api_server_does() {
    let c = cluster().await;
    for (path, file) in [("/api", "api.aggregated.json"), ("/apis", "apis.aggregated.json")] {
        let real = entries(&recorded(file));
        for (id, resource) in entries(&aggregated(&c, path).await) {
            let expected = real.iter().find(|(other, _)| *other == id).map(|(_, r)| r);
            assert_eq!(Some(&resource), expected, "{id}");
        }
    }
}

#[tokio::test]
async fn resource_lists_describe_resources_as_a_real_api_server_does() {
    let c = cluster().await;
    for (path, file) in [("/api/v1", "api_v1.json"), ("/apis/apps/v1", "apis_apps_v1.json")] {
        let real = recorded(file);
        for resource in list(&c.get(path).await.body, "resources") {
            let mut expected =
                list(&real, "resources").iter().find(|r| r["name"] == resource["name"]).cloned().unwrap();
            // a hash of the storage version: nothing that a client needs
            expected.as_object_mut().unwrap().remove("storageVersionHash");
            assert_eq!(*resource, expected);
        }
    }
}

#[tokio::test]
async fn groups_come_in_the_order_in_which_clients_look_names_up() {
    let c = cluster().await;
    let names =
        |document: &Value| -> Vec<Value> { list(document, "groups").iter().map(|g| g["name"].clone()).collect() };
    let mut real = names(&recorded("apis.json"));
    let served = names(&c.get("/apis").await.body);
    real.retain(|name| served.contains(name));
    assert_eq!(json!(served), json!(real));
}
