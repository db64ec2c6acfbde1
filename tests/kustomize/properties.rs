//! What holds for any tree: kubectl's result, no panic, the same result again, and a read set that misses nothing.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use afresh::manifest::MemoryTree;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestError, TestRunner};
use serde_json::json;

use crate::corpus::{self, Answer, Case, Content};
use crate::random::{self, Choices};
use crate::{build, difference, rendered};

/// Trees that are compared with kubectl, unless AFRESH_KUSTOMIZE_TREES says otherwise.
const LIVE_TREES: u32 = 60;
/// Trees that are only built.
const TREES: u32 = 128;
const CHOICES_MAX: usize = 400;

/// Lines of YAML, some of which go together.
const PIECES: [&str; 22] = [
    "d: e",
    "- f",
    "g:",
    "# h",
    "",
    "i: |",
    "j: >-",
    "k: 'l'",
    "m: {n: o, p: [q]}",
    "r: !!str s",
    "t: &u v",
    "w: *u",
    "---",
    "...",
    "? x",
    ": y",
    "\"z\": \"\\t\"",
    "- - 1",
    "é: ü # ö",
    "\t1",
    "%YAML 1.1",
    "- {",
];

static CASES: LazyLock<Vec<Case>> = LazyLock::new(corpus::cases);

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() }
}

/// The kubectl to compare with.
fn kubectl() -> Option<String> {
    std::env::var("KUBECTL").ok().filter(|program| std::path::Path::new(program).exists())
}

fn text_of(case: &Case) -> String {
    let mut text = format!("=== random @ {}\n", case.directory);
    for (path, content) in &case.files {
        if let Content::File(bytes) = content {
            text.push_str(&format!("--- {path}\n{}", String::from_utf8_lossy(bytes)));
        }
    }
    text
}

#[test]
fn random_trees_are_built_as_kubectl_builds_them() {
    let Some(kubectl) = kubectl() else {
        eprintln!("skipped: random_trees_are_built_as_kubectl_builds_them: KUBECTL names no kubectl to compare with");
        return;
    };
    let trees = std::env::var("AFRESH_KUSTOMIZE_TREES").ok().and_then(|count| count.parse().ok());
    let mut runner = TestRunner::new(config(trees.unwrap_or(LIVE_TREES)));
    let built = Cell::new(0);
    let outcome = runner.run(&proptest::collection::vec(any::<u8>(), 0..CHOICES_MAX), |bytes| {
        let case = random::tree(&mut Choices::new(&bytes));
        let folder = tempfile::tempdir().expect("a folder");
        case.write(folder.path()).expect("the tree is written");
        let answer = match corpus::ask(&kubectl, &folder.path().join(&case.directory)).expect("kubectl runs") {
            Ok(text) => Answer::Built(text),
            Err(said) => Answer::Refused(said),
        };
        match difference(&case, &answer) {
            Some(problem) => Err(TestCaseError::fail(format!("{problem}\n{}", text_of(&case)))),
            None => {
                built.set(built.get() + u32::from(matches!(answer, Answer::Built(_))));
                Ok(())
            }
        }
    });
    match outcome {
        Ok(()) => println!("{} trees were built, and are equal", built.get()),
        Err(TestError::Fail(reason, _)) => panic!("{reason}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

proptest! {
    #![proptest_config(config(TREES))]

    #[test]
    fn a_random_tree_is_built_the_same_again(bytes in proptest::collection::vec(any::<u8>(), 0..CHOICES_MAX)) {
        let case = random::tree(&mut Choices::new(&bytes));
        prop_assert_eq!(build(&case), build(&case));
    }

    #[test]
    fn no_bytes_end_in_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), place in 0..4_usize) {
        let file = |index: usize, text: &str| if index == place { bytes.clone() } else { text.as_bytes().to_vec() };
        let tree = MemoryTree::new()
            .with("kustomization.yaml", file(0, "resources: [r.yaml]\npatches: [{path: p.yaml}]\nconfigurations: [c.yaml]\n"))
            .with("r.yaml", file(1, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"))
            .with("p.yaml", file(2, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\n"))
            .with("c.yaml", file(3, "images: []\n"));
        let _ = rendered(&tree, "");
    }

    #[test]
    fn no_text_that_a_replacement_leads_into_ends_in_a_panic(
        pieces in proptest::collection::vec((0..PIECES.len(), 0..4_usize), 0..24), value in "[ -~\\n]{0,12}",
    ) {
        let lines: Vec<String> =
            pieces.iter().map(|(piece, depth)| format!("{}{}", "  ".repeat(*depth), PIECES[*piece])).collect();
        let map = |text: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"text": text}}).to_string()
        };
        let replacements = json!({"resources": ["r.yaml"], "replacements": [{
            "sourceValue": value, "targets": [{"select": {"kind": "ConfigMap"}, "fieldPaths": ["data.text.a.b", "data.text.a.c"]}]}]});
        let text = format!("a:\n  b: 1\n  c: x\n{}", lines.join("\n"));
        let tree = MemoryTree::new().with("kustomization.yaml", replacements.to_string()).with("r.yaml", map(&text));
        if let Ok(built) = rendered(&tree, "") {
            let text = built.objects[0].value["data"]["text"].as_str().unwrap_or_default().to_owned();
            // the same again: what was written is laid out as it would be
            let tree = MemoryTree::new().with("kustomization.yaml", replacements.to_string()).with("r.yaml", map(&text));
            if let Ok(again) = rendered(&tree, "") {
                prop_assert_eq!(again.objects[0].value["data"]["text"].as_str(), Some(&*text));
            }
        }
    }

    #[test]
    fn no_damage_to_a_tree_ends_in_a_panic(
        case in any::<prop::sample::Index>(),
        file in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0..5_u8, any::<u8>()), 1..8),
    ) {
        let case = &CASES[case.index(CASES.len())];
        let (path, Content::File(bytes)) = &case.files[file.index(case.files.len())] else { return Ok(()) };
        let mut bytes = bytes.clone();
        for (at, kind, byte) in damage {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => {
                    bytes.remove(at);
                }
                2 => bytes.insert(at, b"-:{}[]&*!|>'\"\n #%@,?$"[usize::from(byte) % 21]),
                3 => bytes.truncate(at),
                _ => {
                    let again = bytes[at..].to_vec();
                    bytes.extend(again);
                }
            }
        }
        let _ = rendered(&case.tree().with(path, bytes), &case.directory);
    }
}

/// Each case of the corpus, changed file by file: as long as the read set tells of no change, there is none.
#[test]
fn an_edit_outside_of_the_read_set_changes_nothing() {
    let (mut outside, mut inside) = (0, 0);
    for case in CASES.iter() {
        let tree = case.tree();
        let before = rendered(&tree, &case.directory);
        let read_set = match &before {
            Ok(rendered) => &rendered.read_set,
            Err(failed) => &failed.read_set,
        };
        let said = |result: &Result<afresh::render::Rendered, afresh::render::Failed>| match result {
            Ok(rendered) => Ok(rendered.digest),
            Err(failed) => Err(failed.error.to_string()),
        };
        let mut edits: Vec<MemoryTree> = Vec::new();
        for path in tree.paths() {
            edits.push(tree.clone().with(path, "edited: 1\n"));
            edits.push(tree.clone().with(&format!("{path}.more"), "added: 1\n"));
            let mut without = tree.clone();
            without.remove(path);
            edits.push(without);
        }
        edits.push(tree.clone().with("elsewhere/new.yaml", "added: 1\n"));
        let directory = |path: &str| path.rsplit_once('/').map_or(String::new(), |(at, _)| format!("{at}/"));
        for directory in tree.paths().map(directory).collect::<BTreeSet<String>>() {
            for name in ["kustomization.yml", "afresh.yaml", ".sourceignore", "beside.yaml"] {
                edits.push(tree.clone().with(&format!("{directory}{name}"), "added: 1\n"));
            }
        }
        for edited in edits {
            if read_set.unchanged(&edited).expect("a tree in memory") {
                outside += 1;
                let after = rendered(&edited, &case.directory);
                assert_eq!(said(&after), said(&before), "{}: an edit that the read set misses", case.name);
            } else {
                inside += 1;
            }
        }
    }
    assert!(outside > 50 && inside > 500, "{outside} edits were outside, {inside} inside");
}

#[test]
fn ten_megabytes_are_a_value_and_what_is_beyond_the_limit_an_error() {
    let tree = |length: usize| {
        MemoryTree::new()
            .with("kustomization.yaml", "configMapGenerator: [{name: a, files: [large.txt]}]\n")
            .with("large.txt", "x".repeat(length))
    };
    let built = rendered(&tree(10 << 20), "").expect("it is built");
    assert_eq!(built.objects[0].value["data"]["large.txt"].as_str().map(str::len), Some(10 << 20));
    let literal = format!("configMapGenerator:\n- name: a\n  literals: [k={}]\n", "x".repeat(10 << 20));
    let built = rendered(&MemoryTree::new().with("kustomization.yaml", literal), "").expect("it is built");
    assert_eq!(built.objects[0].value["data"]["k"].as_str().map(str::len), Some(10 << 20));
    let literal = format!("configMapGenerator:\n- name: a\n  literals: [k={}]\n", "x".repeat(17 << 20));
    let refused = rendered(&MemoryTree::new().with("kustomization.yaml", literal), "").err();
    let refused = refused.expect("it is refused").error.to_string();
    assert!(refused.contains("kustomization.yaml") && refused.contains("16777216"), "{refused}");
}

#[test]
fn bombs_of_aliases_and_depth_are_errors_in_time() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", ")));
    }
    let deep = format!("a: {}{}\n", "[".repeat(5000), "]".repeat(5000));
    for text in [laughs, deep] {
        for place in ["kustomization.yaml", "r.yaml", "p.yaml"] {
            let tree = MemoryTree::new()
                .with("kustomization.yaml", "resources: [r.yaml]\npatches: [{path: p.yaml}]\n")
                .with("r.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
                .with("p.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
                .with(place, format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\n{text}"));
            let result = catch_unwind(AssertUnwindSafe(|| rendered(&tree, "").is_err()));
            assert!(matches!(result, Ok(true)), "{place}");
        }
    }
}

/// A repository of yours: AFRESH_KUSTOMIZE_REPOSITORY names a folder; every kustomization in it is compared.
#[test]
#[ignore = "compares a repository that AFRESH_KUSTOMIZE_REPOSITORY names"]
fn a_repository_is_built_as_kubectl_builds_it() {
    let root = std::env::var("AFRESH_KUSTOMIZE_REPOSITORY").expect("AFRESH_KUSTOMIZE_REPOSITORY names a folder");
    let kubectl = kubectl().expect("KUBECTL names the program");
    let mut files = Vec::new();
    read(std::path::Path::new(&root), "", &mut files);
    let directories: Vec<String> = files
        .iter()
        .filter_map(|(path, _)| match path.rsplit_once('/').unwrap_or(("", path)) {
            (directory, "kustomization.yaml" | "kustomization.yml" | "Kustomization") => Some(directory.to_owned()),
            _ => None,
        })
        .collect();
    let mut case = Case { name: root.clone(), group: "repository".into(), directory: String::new(), files };
    let mut wrong = Vec::new();
    for directory in directories {
        let answer = corpus::ask(&kubectl, &std::path::Path::new(&root).join(&directory)).expect("kubectl runs");
        let (verdict, answer) = match answer {
            Ok(text) => ("built", Answer::Built(text)),
            Err(said) => ("refused", Answer::Refused(said)),
        };
        case.directory.clone_from(&directory);
        match difference(&case, &answer) {
            Some(problem) => wrong.push(format!("{directory}: {problem}")),
            None => println!("{directory}: {verdict} by both"),
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn read(folder: &std::path::Path, prefix: &str, files: &mut Vec<(String, Content)>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        match entry.file_type().expect("a type") {
            kind if kind.is_dir() => read(&entry.path(), &path, files),
            kind if kind.is_file() => {
                files.push((path, Content::File(std::fs::read(entry.path()).expect("a file"))));
            }
            _ => {}
        }
    }
}
