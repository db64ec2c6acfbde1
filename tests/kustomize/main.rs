//! Trees of kustomize, each with what `kubectl kustomize` made of it (`tests/kustomize/record` asks it anew).

mod corpus;
mod properties;
mod random;

use std::collections::BTreeMap;

use afresh::manifest::MemoryTree;
use afresh::manifest::{normalise, yaml};
use afresh::render::{AppRef, Failed, Rendered, Request, render};
use serde_json::Value;

use corpus::{Answer, Case};

type Objects = BTreeMap<String, Value>;

/// Cases in which Afresh answers otherwise on purpose, and why.
const ON_PURPOSE: &[(&str, &str)] = &[
    ("a file outside of the root of its kustomization", OUTSIDE),
    ("files of a directory above", OUTSIDE),
    ("a key that looks like a boolean", "kubectl writes `n` without quotes, and then takes it for `false`"),
    ("a bad key", BAD_KEY),
    ("a key with a path", BAD_KEY),
    ("variables of files", BAD_KEY),
    ("html in a hash", "kustomize can't hold a control character, a ConfigMap can"),
    ("the same field twice in a kustomization", "one of two lists would be lost without a word"),
    ("a kustomization with two documents", "the second would be lost without a word"),
    ("a directive", LENIENT),
    ("a slash that JSON escapes", LENIENT),
    ("an object without a version", NO_OBJECT),
    ("a name that is a number", NO_OBJECT),
    ("a cluster-scoped object with a namespace", "the API server takes no notice of the namespace: it is left out"),
    ("a field in two spellings", "one of the two would be lost without a word"),
    ("one name in two versions", "both are the same object of the cluster"),
    ("inside YAML with an empty line under a comment", MOVED),
    ("inside YAML with aliases", MOVED),
    (
        "inside YAML with paragraphs that are folded",
        "the writer of YAML would fold them otherwise; it is refused by name",
    ),
    ("structured data within structured data", "kustomize leaves it as it is without a word"),
    ("inside YAML with several documents", "the others would be lost without a word"),
    ("an empty kustomization", "Flux builds nothing of it; whether all that it had goes is asked before it does"),
];
const MOVED: &str = "kustomize moves comments and aliases by rules of its own; it is refused by name";
const OUTSIDE: &str = "Flux builds without kustomize's load restrictor; nothing leaves the repository";
const BAD_KEY: &str = "the API server refuses such a key; here the error has its place";
const LENIENT: &str = "it is YAML or JSON, though kustomize's reader doesn't know it";
const NO_OBJECT: &str = "the API server refuses such an object; here the error has its place";

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
            let theirs = yaml::documents("answer", theirs.as_bytes()).expect("kubectl writes YAML");
            let order: Vec<String> = theirs.iter().map(|document| key(&document.value)).collect();
            if case
                .files
                .iter()
                .any(|(_, content)| matches!(content, corpus::Content::File(text) if text.starts_with(b"sortOptions")))
                && order != printed(case)
            {
                return Some(format!("is in another order than {order:?}"));
            }
            let theirs = objects(theirs);
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

fn rendered(tree: &MemoryTree, directory: &str) -> Result<Rendered, Failed> {
    let app = AppRef { name: "app".into(), namespace: "default".into() };
    render(&Request::of(tree, directory, &app))
}

fn build(case: &Case) -> Result<Objects, String> {
    let rendered = rendered(&case.tree(), &case.directory).map_err(|failed| failed.error.to_string())?;
    Ok(rendered.objects.iter().map(|object| (key(&object.value), object.value.clone())).collect())
}

/// What is printed, in order.
fn printed(case: &Case) -> Vec<String> {
    let rendered = rendered(&case.tree(), &case.directory).expect("it was built before");
    rendered.objects.iter().map(|object| key(&object.value)).collect()
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

/// What a person is told of trees that can't be built: the place, what is missed there, and what is there instead.
const TOLD: [(&str, &str); 32] = [
    ("a missing resource", "kustomization.yaml:1:13: there is no file or directory `nothing.yaml`"),
    ("a circle", "b/kustomization.yaml:1:13: a circle: `a` is, or contains, `a`, which led here"),
    ("a component that includes its parent", "app/one/kustomization.yaml:3:13: a circle: `app` is, or contains, `app`"),
    ("a directory without a kustomization", "app/kustomization.yaml:1:13: `base` has no kustomization file"),
    (
        "two kustomization files",
        "app/kustomization.yaml:1:1: beside it there is a kustomization called `kustomization.yml`",
    ),
    ("an absolute path", "kustomization.yaml:1:13: `/etc/hosts` leads out of the repository"),
    ("a mistake in a field of another case", "kustomization.yaml:5:3: a literal is not `key=value`"),
    ("a mistake at a selector of another case", "kustomization.yaml:6:5: `(` is not a regular expression"),
    ("a schema by URL", "kustomization.yaml:2:1: `https://nowhere.invalid/schema.json` is not in this repository"),
    ("a patch by URL", "kustomization.yaml:2:11: `https://nowhere.invalid/p.yaml` is not in this repository"),
    (
        "a source of a generator by URL",
        "kustomization.yaml:2:3: `https://nowhere.invalid/k.txt` is not in this repository",
    ),
    ("charts in another case", "kustomization.yaml:1:1: `helmCharts` is not served"),
    ("an unknown field", "kustomization.yaml:1:1: a kustomization has no field `resourcess`"),
    (
        "a component by the old version",
        "one/kustomization.yaml:1:1: the API version of a Component is `kustomize.config",
    ),
    ("a patch that matches too much", "kustomization.yaml:3:3: more than one object is, or was, `ConfigMap/c`"),
    ("a missing patch", "kustomization.yaml:2:11: there is no file `patch.yaml`, but `patches.yaml`"),
    ("several documents with a target", "kustomization.yaml:2:11: a patch with a `target` can hold one document only"),
    ("operations in brackets that are no JSON", "kustomization.yaml:3:3: operations that begin with `[` must be JSON"),
    ("an index beyond the list", "kustomization.yaml:2:11: `T/d`: operation 1 at `/spec/l/5`: there is no item 5"),
    ("a test that fails", "kustomization.yaml:2:11: `T/d`: operation 1 at `/spec/a`: the value is another"),
    ("a name change that collides", "kustomization.yaml:3:3: after this patch two objects are `ConfigMap/new`"),
    ("a bad label selector", "kustomization.yaml:2:21: `a b` is not a label selector: "),
    ("an expression of a select that is bad", "kustomization.yaml:3:3: `(` is not a regular expression"),
    ("no such source", "kustomization.yaml:3:3: the source `T//nothing` selects nothing"),
    ("a source that matches two", "kustomization.yaml:3:3: the source `ConfigMap//` selects more than one object"),
    ("an index beyond a list", "kustomization.yaml:3:3: `T/a`, `spec.l.2`: there is no item 2, but 1"),
    ("two objects meet in a namespace", "kustomization.yaml:1:1: in namespace `new` two objects are `ConfigMap/new/c`"),
    (
        "replicas of what is not there",
        "kustomization.yaml:1:12: there is no `nothing` among the kinds that have replicas",
    ),
    ("the same key twice", "kustomization.yaml:1:22: key `y` is given twice"),
    ("an object twice in a file", "c.yaml:5:1: `ConfigMap/c` is declared twice"),
    ("an anchor of another document", "t.yaml:7:29: there is no anchor `l`"),
    ("keys of many kinds", "t.yaml:8:3: the key `1` is an integer, not text: put quotes around it"),
];

#[test]
fn a_tree_that_is_refused_is_told_with_place_and_words() {
    let cases = corpus::cases();
    for (name, wanted) in TOLD {
        let case = cases.iter().find(|case| case.name == name).expect(name);
        let said = build(case).expect_err(name);
        assert!(said.starts_with(wanted), "{name}\n  said:   {said}\n  wanted: {wanted}");
    }
    let has_place = |said: &str| {
        let mut numbers = said.splitn(4, ':').skip(1).take(2).map(str::parse::<u32>);
        matches!((numbers.next(), numbers.next()), (Some(Ok(_)), Some(Ok(_))))
    };
    let refused: Vec<String> = cases.iter().filter_map(|case| build(case).err()).collect();
    let without: Vec<&String> = refused.iter().filter(|said| !has_place(said)).collect();
    assert!(without.is_empty(), "errors without file, line and column: {without:#?}");
}

/// Asks kubectl for all answers anew.
#[test]
#[ignore = "rewrites the recorded answers; run tests/kustomize/record"]
fn record() {
    let kubectl = std::env::var("KUBECTL").expect("KUBECTL names the program");
    corpus::record(&kubectl).expect("kubectl can be asked");
}
