//! Trees of kustomize, each with what `kubectl kustomize` made of it (`tests/kustomize/record` asks it anew).

mod corpus;

use std::collections::BTreeMap;

use afresh::manifest::{MemoryTree, normalise, yaml};
use afresh::render::{AppRef, Request, Substitution, render};
use serde_json::Value;

use corpus::{Answer, Case};

type Objects = BTreeMap<String, Value>;

/// Cases in which Afresh answers otherwise on purpose, and why.
const ON_PURPOSE: [(&str, &str); 3] = [
    (
        "a file outside of the root of its kustomization",
        "Flux builds without kustomize's load restrictor; nothing leaves the repository",
    ),
    ("a key that looks like a boolean", "kubectl writes `n` without quotes, and then takes it for `false`"),
    ("a bad key", "the API server refuses such a key; here the error has its place"),
];

#[test]
fn every_tree_is_built_as_kubectl_builds_it() {
    let mut wrong = Vec::new();
    let cases = corpus::cases();
    let answers = corpus::answers();
    for case in &cases {
        let Some(answer) = answers.get(&case.name) else {
            wrong.push(format!("{}: has no recorded answer: run tests/kustomize/record", case.name));
            continue;
        };
        if let Some(problem) = difference(case, answer) {
            if !ON_PURPOSE.iter().any(|(name, _)| *name == case.name) {
                wrong.push(format!("{}: {problem}", case.name));
            }
        } else if let Some((_, reason)) = ON_PURPOSE.iter().find(|(name, _)| *name == case.name) {
            wrong.push(format!("{}: no longer differs, though `{reason}`", case.name));
        }
    }
    let known: Vec<&String> = answers.keys().filter(|name| !cases.iter().any(|case| case.name == **name)).collect();
    assert!(known.is_empty(), "answers without a case: {known:?}");
    assert!(wrong.is_empty(), "{} of {} differ:\n\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
}

fn difference(case: &Case, answer: &Answer) -> Option<String> {
    match (build(case), answer) {
        (Ok(ours), Answer::Built(theirs)) => {
            let theirs = objects(yaml::documents("answer", theirs.as_bytes()).expect("kubectl writes YAML"));
            (ours != theirs).then(|| compare(&ours, &theirs))
        }
        (Err(_), Answer::Refused(_)) => None,
        (Ok(_), Answer::Refused(theirs)) => Some(format!("is built, but kubectl refuses it: {theirs}")),
        (Err(ours), Answer::Built(_)) => Some(format!("is refused: {ours}")),
    }
}

fn compare(ours: &Objects, theirs: &Objects) -> String {
    let mut lines = Vec::new();
    for (id, value) in ours {
        match theirs.get(id) {
            None => lines.push(format!("{id} is ours alone")),
            Some(other) if other != value => lines.push(format!("{id}\n  ours:   {value}\n  theirs: {other}")),
            Some(_) => {}
        }
    }
    lines.extend(theirs.keys().filter(|id| !ours.contains_key(*id)).map(|id| format!("{id} is missing")));
    lines.join("\n")
}

fn build(case: &Case) -> Result<Objects, String> {
    let tree = case.files.iter().fold(MemoryTree::new(), |tree, (path, text)| tree.with(path, text.clone()));
    let app = AppRef { name: "app".into(), namespace: "default".into() };
    let request = Request {
        tree: &tree,
        path: &case.directory,
        app: &app,
        target_namespace: None,
        common_metadata: None,
        substitution: Substitution::Off,
        cancelled: &|| false,
    };
    let rendered = render(&request).map_err(|failed| failed.error.to_string())?;
    Ok(rendered.objects.iter().map(|object| (key(&object.value), object.value.clone())).collect())
}

fn objects(documents: Vec<yaml::Document>) -> Objects {
    let values = documents.into_iter().map(|document| document.value).filter(|value| !value.is_null());
    values
        .map(|mut value| {
            normalise(&mut value);
            (key(&value), value)
        })
        .collect()
}

fn key(value: &Value) -> String {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!(
        "{} {}/{}",
        text("/apiVersion"),
        text("/kind"),
        [text("/metadata/namespace"), text("/metadata/name")].join("/")
    )
}

/// Asks kubectl for all answers anew.
#[test]
#[ignore = "rewrites the recorded answers; run tests/kustomize/record"]
fn record() {
    let kubectl = std::env::var("KUBECTL").expect("KUBECTL names the program");
    corpus::record(&kubectl).expect("kubectl can be asked");
}
