//! The files in `manifests/monitoring` and the documentation, read.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn monitoring(file: &str) -> PathBuf {
    root().join("manifests/monitoring").join(file)
}

pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn yaml(path: &Path) -> Value {
    serde_yaml::from_str(&text(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The alerting rules of `rules.yaml`.
pub fn rules() -> Vec<Value> {
    let file = yaml(&monitoring("rules.yaml"));
    let groups = file["groups"].as_array().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).cloned().collect()
}

pub fn dashboard() -> Value {
    serde_json::from_str(&text(&monitoring("dashboard.json"))).expect("the dashboard is JSON")
}

/// Every query of the dashboard with the title of its panel, as Prometheus gets it: Grafana fills in its variables.
pub fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let annotations = dashboard["annotations"]["list"].as_array().expect("annotations").iter();
    let of_panels = panels.flat_map(|panel| {
        let title = panel["title"].as_str().unwrap_or_default();
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(move |target| (title.to_owned(), filled_in(target["expr"].as_str().unwrap_or_default())))
    });
    let of_annotations = annotations.map(|one| {
        let name = one["name"].as_str().unwrap_or_default();
        (name.to_owned(), filled_in(one["expr"].as_str().unwrap_or_default()))
    });
    of_panels.chain(of_annotations).collect()
}

fn filled_in(expr: &str) -> String {
    let variables = [
        ("$__rate_interval", "2m"),
        ("$__interval", "30s"),
        ("$__range", "6h"),
        ("$namespace", ".*"),
        ("$application", ".*"),
    ];
    variables.iter().fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value))
}
