//! The examples render, and declare what their README says.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use afresh::cli::directory::DirectoryTree;
use afresh::manifest::yaml;
use afresh::render::{AppRef, CommonMetadata, Request, Substitution, render};
use serde_json::Value;

/// Renders the Kustomizations of a file and lists what they declare.
fn declared(root: &Path, cluster: &str) -> String {
    let bytes = std::fs::read(root.join(cluster)).expect("the cluster's file");
    let tree = DirectoryTree::new(root);
    let mut listing = String::new();
    for document in yaml::documents(cluster, &bytes).expect("YAML") {
        if document.value["kind"] != "Kustomization" {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (spec, metadata) = (&document.value["spec"], &document.value["metadata"]);
        let variables: BTreeMap<String, String> =
            ["db_password", "s3_access_key", "s3_secret_key"].map(|name| (name.to_owned(), "a-b".to_owned())).into();
        let labels: BTreeMap<String, String> = spec["commonMetadata"]["labels"]
            .as_object()
            .map(|labels| labels.iter().map(|(key, value)| (key.clone(), text(value))).collect())
            .unwrap_or_default();
        let app = AppRef { name: text(&metadata["name"]), namespace: text(&metadata["namespace"]) };
        let rendered = render(&Request {
            common_metadata: Some(CommonMetadata { labels: &labels, annotations: &BTreeMap::new() }),
            substitution: match &spec["postBuild"] {
                Value::Null => Substitution::Off,
                _ => Substitution::WithVariables(&variables),
            },
            ..Request::of(&tree, spec["path"].as_str().expect("a path"), &app)
        })
        .unwrap_or_else(|failed| panic!("{}", failed.error.render(false)));
        let needs: Vec<String> =
            spec["dependsOn"].as_array().into_iter().flatten().map(|needed| text(&needed["name"])).collect();
        writeln!(listing, "{} ← {}", text(&metadata["name"]), needs.join(", ")).expect("memory");
        for object in &rendered.objects {
            writeln!(listing, "  {} {}  {}", object.api_version(), object.id, object.origin).expect("memory");
        }
    }
    listing
}

#[test]
fn the_platform_renders_in_every_environment() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/platform");
    insta::assert_snapshot!("platform_dev", declared(&root, "clusters/dev/platform.yaml"));
    insta::assert_snapshot!("platform_prod", declared(&root, "clusters/prod/platform.yaml"));
}
