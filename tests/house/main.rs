//! What is deliberately absent stays absent: the imports of each stage, and who prints.

use std::fs;
use std::path::{Path, PathBuf};

/// Words that a folder must not use, with the reason.
const ABSENT: &[(&[&str], &[&str], &str)] = &[
    (
        &["cel", "manifest", "render", "plan", "policy", "rollout"],
        &["kube::", "tokio", "std::fs", "std::env", "Instant::now", "SystemTime", "Timestamp::now", "reqwest"],
        "pure stages know no Kubernetes client, no async runtime, no clock, no file system",
    ),
    (
        &[
            "api", "apply", "cel", "cluster", "config", "engine", "health", "manifest", "plan", "policy", "render",
            "report", "rollout", "sandbox", "source", "trigger",
        ],
        &["println!", "print!(", "eprint!(", "dbg!"],
        "only the command line prints",
    ),
    (
        &[
            "api", "apply", "cel", "cluster", "config", "engine", "health", "manifest", "plan", "policy", "render",
            "report", "rollout", "source", "trigger",
        ],
        &["env::var", "home_dir"],
        "only the command line reads the environment",
    ),
    (
        &[
            "api", "apply", "cel", "cluster", "config", "health", "manifest", "plan", "policy", "render", "report",
            "rollout", "source",
        ],
        &["crate::engine", "crate::cli", "crate::sandbox"],
        "the arrows point one way: stages know neither the engine nor the command line nor the sandbox",
    ),
];

#[test]
fn no_module_uses_what_it_deliberately_lacks() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for (folders, words, why) in ABSENT {
        for file in folders.iter().flat_map(|folder| rust_files(&source.join(folder))) {
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in code(&text) {
                for word in words.iter().filter(|word| line.contains(**word)) {
                    let place = file.strip_prefix(&source).unwrap().display();
                    found.push(format!("src/{place}:{number}: `{word}`: {why}"));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let forbidden = ["utils", "helpers", "common", "misc", "manager"];
    for file in rust_files(&source) {
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(!forbidden.contains(&stem.as_str()), "{} has a name that says nothing", file.display());
    }
}

#[test]
fn the_image_is_given_all_that_the_program_is_compiled_from() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let containerfile = fs::read_to_string(root.join("Containerfile")).unwrap();
    let copies =
        containerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--"));
    let copied: Vec<PathBuf> = copies
        .flat_map(|line| {
            let mut words: Vec<PathBuf> = line.split(' ').map(PathBuf::from).collect();
            let to = words.pop().unwrap();
            for from in &words {
                let there = to == Path::new(".") || *from == to || from.parent() == Some(to.as_path());
                assert!(there, "`COPY {line}` puts `{}` elsewhere", from.display());
            }
            words
        })
        .collect();
    let is_copied = |path: &Path| copied.iter().any(|copied| path.starts_with(copied));
    let mut missing = Vec::new();
    for file in rust_files(&root.join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in code(&text) {
            let relative = ["include_str!(\"", "include_bytes!(\""].iter().find_map(|call| line.split_once(call));
            let relative = relative.map(|(_, rest)| file.parent().unwrap().join(rest.split('"').next().unwrap()));
            let absolute = line.split_once("concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/");
            let absolute = absolute.map(|(_, rest)| root.join(rest.split('"').next().unwrap()));
            for path in [relative, absolute].into_iter().flatten() {
                let path = path.canonicalize().unwrap();
                let path = path.strip_prefix(root.canonicalize().unwrap()).unwrap();
                if !is_copied(path) {
                    missing.push(format!("{}:{number}: {}", file.display(), path.display()));
                }
            }
        }
    }
    // cargo looks for each target that the manifest names
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for (section, folder) in [("[[bench]]", "benches"), ("[[test]]", "tests"), ("[[example]]", "examples")] {
        if manifest.contains(section) && !is_copied(Path::new(folder)) {
            missing.push(format!("Cargo.toml: {section}"));
        }
    }
    for file in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "src/main.rs"] {
        if !is_copied(Path::new(file)) {
            missing.push(file.to_owned());
        }
    }
    assert!(missing.is_empty(), "the Containerfile does not copy: {missing:#?}");
}

/// Numbered lines without comments, up to the tests of the file.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let lines = lines.take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            files.push(path);
        }
    }
    files
}
