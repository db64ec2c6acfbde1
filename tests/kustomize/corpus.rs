//! The files of cases and answers.
//!
//! ```text
//! === name of the case          (or: === name of the case @ directory that is built)
//! --- path/of/a/file.yaml
//! its text
//! ```
//! An answer is what kubectl wrote to its standard output, or `error: ` and what it said.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Case {
    pub name: String,
    /// The file of cases it is in, without its ending.
    pub group: String,
    pub directory: String,
    pub files: Vec<(String, String)>,
}

pub enum Answer {
    Built(String),
    Refused(String),
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kustomize").join(name)
}

/// Name and text of every `.txt` file of a folder, sorted.
fn texts(name: &str) -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder(name)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "txt"));
    files.sort();
    let read = |path: PathBuf| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        (stem, fs::read_to_string(&path).expect("a readable file"))
    };
    files.into_iter().map(read).collect()
}

/// Splits at lines that begin with a mark; gives what follows the mark, and the lines below.
fn sections(text: &str, mark: &str) -> Vec<(String, String)> {
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in text.split_inclusive('\n') {
        match line.strip_prefix(mark) {
            Some(title) => sections.push((title.trim().to_owned(), String::new())),
            None => {
                if let Some((_, body)) = sections.last_mut() {
                    body.push_str(line);
                }
            }
        }
    }
    sections
}

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (group, text) in texts("cases") {
        for (title, body) in sections(&text, "=== ") {
            let (name, directory) = title.split_once(" @ ").unwrap_or((&title, "."));
            assert!(!cases.iter().any(|case| case.name == name), "two cases are called `{name}`");
            let files = sections(&body, "--- ");
            cases.push(Case { name: name.into(), group: group.clone(), directory: directory.into(), files });
        }
    }
    cases
}

pub fn answers() -> BTreeMap<String, Answer> {
    let mut answers = BTreeMap::new();
    for (_, text) in texts("answers") {
        for (name, body) in sections(&text, "=== ") {
            let answer = match body.strip_prefix("error: ") {
                Some(message) => Answer::Refused(message.trim().to_owned()),
                None => Answer::Built(body),
            };
            answers.insert(name, answer);
        }
    }
    answers
}

/// Writes every case to a folder of its own, builds it with kubectl, and keeps what it says.
pub fn record(kubectl: &str) -> std::io::Result<()> {
    let mut groups: BTreeMap<String, String> = BTreeMap::new();
    for case in cases() {
        let dir = tempfile::tempdir()?;
        for (path, text) in &case.files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a file is in a folder"))?;
            fs::write(path, text)?;
        }
        let output = Command::new(kubectl).arg("kustomize").arg(dir.path().join(&case.directory)).output()?;
        let text = groups.entry(case.group.clone()).or_default();
        text.push_str(&format!("=== {}\n", case.name));
        if output.status.success() {
            text.push_str(&String::from_utf8_lossy(&output.stdout));
        } else {
            let said = String::from_utf8_lossy(&output.stderr).replace(&*dir.path().to_string_lossy(), "TREE");
            let last = said.lines().filter(|line| !line.starts_with("# Warning")).collect::<Vec<_>>().join(" ");
            text.push_str(&format!("error: {}\n", last.trim_start_matches("error: ")));
        }
    }
    fs::create_dir_all(folder("answers"))?;
    for (group, text) in groups {
        fs::write(folder("answers").join(group).with_extension("txt"), text)?;
    }
    Ok(())
}
