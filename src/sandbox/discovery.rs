//! What clients ask before anything else: which groups, versions and resources are served, aggregated or one by one.

use serde_json::{Value, json};

use super::openapi;
use super::registry::Registry;
use super::resource::{Resource, subresource_kind, subresource_verbs};

/// The Kubernetes version whose behaviour is followed.
pub const VERSION: &str = "v1.36.3";

const AGGREGATED: &str = "as=APIGroupDiscoveryList";

pub fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": format!("{VERSION}+afresh-sandbox"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// A discovery document and its content type; `None` if the path names none.
pub fn document(registry: &Registry, path: &str, accept: &str) -> Option<(&'static str, Value)> {
    const JSON: &str = "application/json";
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let aggregated = accept.split(',').any(|clause| clause.contains(AGGREGATED) && clause.contains("v=v2"))
        && !accept.starts_with("application/json,");
    match parts.as_slice() {
        ["api"] if aggregated => Some((AGGREGATED_TYPE, aggregate(registry, true))),
        ["apis"] if aggregated => Some((AGGREGATED_TYPE, aggregate(registry, false))),
        ["api"] => Some((JSON, json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }))),
        ["apis"] => Some((JSON, groups(registry))),
        ["api", "v1"] => Some((JSON, resource_list(registry, "", "v1")?)),
        ["apis", group] => Some((JSON, one_group(registry, group)?)),
        ["apis", group, version] => Some((JSON, resource_list(registry, group, version)?)),
        ["openapi", "v3"] => Some((JSON, openapi::index(registry))),
        ["openapi", "v3", "api", "v1"] => Some((JSON, openapi::document(registry, "", "v1")?)),
        ["openapi", "v3", "apis", group, version] => Some((JSON, openapi::document(registry, group, version)?)),
        _ => None,
    }
}

const AGGREGATED_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn group_entry(name: &str, versions: &[String]) -> Value {
    let entry = |version: &String| json!({ "groupVersion": group_version(name, version), "version": version });
    json!({
        "name": name,
        "versions": versions.iter().map(entry).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(entry),
    })
}

fn groups(registry: &Registry) -> Value {
    let groups = registry.groups();
    let named = groups.iter().filter(|(name, _)| !name.is_empty());
    let list: Vec<Value> = named
        .map(|(name, versions)| group_entry(name, &versions.iter().map(|(v, _)| v.clone()).collect::<Vec<_>>()))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": list })
}

fn one_group(registry: &Registry, group: &str) -> Option<Value> {
    let groups = registry.groups();
    let (name, versions) = groups.iter().find(|(name, _)| name == group && !name.is_empty())?;
    let mut entry = group_entry(name, &versions.iter().map(|(v, _)| v.clone()).collect::<Vec<_>>());
    entry["kind"] = "APIGroup".into();
    entry["apiVersion"] = "v1".into();
    Some(entry)
}

fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let groups = registry.groups();
    let (_, versions) = groups.into_iter().find(|(name, _)| name == group)?;
    let (_, resources) = versions.into_iter().find(|(name, _)| name == version)?;
    let mut list = Vec::new();
    for resource in &resources {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs(),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = resource.short_names.clone().into();
        }
        if !resource.categories.is_empty() {
            entry["categories"] = resource.categories.clone().into();
        }
        list.push(entry);
        for subresource in resource.subresources() {
            let mut entry = json!({
                "name": format!("{}/{subresource}", resource.plural),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": subresource_verbs(subresource),
            });
            if let Some((group, version, kind)) = subresource_kind(subresource) {
                if !group.is_empty() {
                    entry["group"] = group.into();
                    entry["version"] = version.into();
                }
                entry["kind"] = kind.into();
            }
            list.push(entry);
        }
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(group, version),
        "resources": list,
    }))
}

fn aggregate(registry: &Registry, core: bool) -> Value {
    let mut items = Vec::new();
    for (group, versions) in registry.groups() {
        if group.is_empty() != core {
            continue;
        }
        let versions: Vec<Value> = versions
            .iter()
            .map(|(version, resources)| {
                let resources: Vec<Value> = resources.iter().map(|r| aggregate_resource(r)).collect();
                json!({ "version": version, "resources": resources, "freshness": "Current" })
            })
            .collect();
        let metadata = if core {
            json!({ "creationTimestamp": null })
        } else {
            json!({ "name": group, "creationTimestamp": null })
        };
        items.push(json!({ "metadata": metadata, "versions": versions }));
    }
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items })
}

fn aggregate_resource(resource: &Resource) -> Value {
    // empty means "that of the document"; only custom kinds repeat it
    let kind = match resource.custom {
        Some(_) => json!({ "group": resource.group, "version": resource.version, "kind": resource.kind }),
        None => json!({ "group": "", "version": "", "kind": resource.kind }),
    };
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs(),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = resource.short_names.clone().into();
    }
    if !resource.categories.is_empty() {
        entry["categories"] = resource.categories.clone().into();
    }
    let subresources: Vec<Value> = resource
        .subresources()
        .map(|name| {
            let kind = subresource_kind(name).map_or_else(
                || kind.clone(),
                |(group, version, kind)| {
                    let version = if group.is_empty() { "" } else { version };
                    json!({ "group": group, "version": version, "kind": kind })
                },
            );
            json!({ "subresource": name, "responseKind": kind, "verbs": subresource_verbs(name) })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregated_and_plain_discovery_name_the_same_resources() {
        let registry = Registry::new();
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let (kind, all) = document(&registry, "/apis", accept).unwrap();
        assert_eq!(kind, AGGREGATED_TYPE);
        for item in all["items"].as_array().unwrap() {
            let group = item["metadata"]["name"].as_str().unwrap();
            for version in item["versions"].as_array().unwrap() {
                let path = format!("/apis/{group}/{}", version["version"].as_str().unwrap());
                let (_, list) = document(&registry, &path, "application/json").unwrap();
                let plain =
                    list["resources"].as_array().unwrap().iter().filter(|r| !r["name"].as_str().unwrap().contains('/'));
                assert_eq!(plain.count(), version["resources"].as_array().unwrap().len(), "{path}");
            }
        }
    }
}
