//! Trees and the spec of a Kustomization, each with what Flux's own packages made of them (`tests/overlay/record` asks them
//! anew).
//!
//! ```text
//! === name of the case
//! --- spec
//! the spec of the Kustomization, as far as it matters
//! --- path/of/a/file.yaml
//! its text
//! ```
//! An answer is the objects before `commonMetadata`, or `error: ` and what was said.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use afresh::api::{KustomizationSpec, SubstituteStrategy};
use afresh::manifest::{MemoryTree, normalise, yaml};
use afresh::render::{AppRef, Overlay, Request, Substitution, render};
use serde_json::{Value, json};

type Objects = BTreeMap<String, Value>;

/// Cases in which Afresh answers otherwise on purpose, and why.
const ON_PURPOSE: [(&str, &str); 2] =
    [("a kustomization without resources", UNASKED), ("an empty kustomization with what the spec adds", UNASKED)];
const UNASKED: &str =
    "Flux asks for annotations of the origin there, so that kustomize does not take the file for an empty one";

#[test]
fn every_tree_is_built_as_flux_builds_it() {
    let answers: BTreeMap<String, String> = sections(&read("answers/spec.txt"), "=== ").into_iter().collect();
    let cases = sections(&read("cases/spec.txt"), "=== ");
    let mut wrong = Vec::new();
    for (name, body) in &cases {
        let answer = answers.get(name).unwrap_or_else(|| panic!("{name} has no answer: run tests/overlay/record"));
        let problem = difference(build(body), answer);
        let reason = ON_PURPOSE.iter().find(|(case, _)| case == name).map(|(_, reason)| *reason);
        match (problem, reason) {
            (Some(problem), None) => wrong.push(format!("{name}: {problem}")),
            (None, Some(reason)) => wrong.push(format!("{name}: no longer differs, though `{reason}`")),
            _ => {}
        }
    }
    assert_eq!(cases.len(), answers.len(), "cases and answers are of one recording");
    assert!(wrong.is_empty(), "{} of {} differ:\n\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
}

fn difference(ours: Result<Objects, String>, answer: &str) -> Option<String> {
    let theirs = match answer.strip_prefix("error: ") {
        None => Ok(yaml::documents("answer", answer.as_bytes()).expect("they write YAML")),
        Some(said) => Err(said),
    };
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            let theirs = theirs.into_iter().map(|document| document.value).filter(|value| !value.is_null());
            let theirs = keyed(theirs.map(|mut value| {
                normalise(&mut value);
                value
            }));
            (ours != theirs).then(|| format!("\n  ours:   {ours:?}\n  theirs: {theirs:?}"))
        }
        (Err(_), Err(_)) => None,
        (Ok(_), Err(theirs)) => Some(format!("is built, but Flux refuses it: {theirs}")),
        (Err(ours), Ok(_)) => Some(format!("is refused: {ours}")),
    }
}

fn build(body: &str) -> Result<Objects, String> {
    let mut spec = json!({ "interval": "1m", "prune": true, "sourceRef": { "kind": "GitRepository", "name": "app" } });
    let mut tree = MemoryTree::new();
    for (path, text) in sections(body, "--- ") {
        if path == "spec" {
            let given = yaml::single("spec", text.as_bytes()).expect("the spec is YAML").value;
            for (field, value) in given.as_object().into_iter().flatten() {
                spec[field] = value.clone();
            }
        } else {
            tree = tree.with(&path, text);
        }
    }
    let spec: KustomizationSpec = serde_json::from_value(spec).expect("a spec");
    let variables = spec.post_build.as_ref().map(|post_build| &post_build.substitute);
    let strategy = spec.post_build.as_ref().and_then(|post_build| post_build.substitute_strategy).unwrap_or_default();
    let app = AppRef { name: "app".into(), namespace: "default".into() };
    let request = Request {
        overlay: Overlay::from(&spec),
        substitution: variables.map_or(Substitution::Off, |variables| match strategy {
            SubstituteStrategy::WithVariables => Substitution::WithVariables(variables),
            SubstituteStrategy::Always => Substitution::Always(variables),
        }),
        ..Request::of(&tree, spec.path.as_deref().unwrap_or(""), &app)
    };
    let rendered = render(&request).map_err(|failed| failed.error.to_string())?;
    Ok(keyed(rendered.objects.iter().map(|object| object.value.clone())))
}

fn keyed(values: impl Iterator<Item = Value>) -> Objects {
    let text = |value: &Value, pointer| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let key = |value: &Value| {
        ["/apiVersion", "/kind", "/metadata/namespace", "/metadata/name"].map(|pointer| text(value, pointer)).join(" ")
    };
    values.map(|value| (key(&value), value)).collect()
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/overlay").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Splits at lines that begin with a mark; gives what follows the mark, and the lines below.
fn sections(text: &str, mark: &str) -> Vec<(String, String)> {
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in text.split_inclusive('\n') {
        match (line.strip_prefix(mark), sections.last_mut()) {
            (Some(title), _) => sections.push((title.trim().to_owned(), String::new())),
            (None, Some((_, body))) => body.push_str(line),
            (None, None) => {}
        }
    }
    sections
}
