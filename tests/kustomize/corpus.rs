//! The files of cases and answers.
//!
//! ```text
//! === name of the case          (or: === name of the case @ directory that is built)
//! --- path/of/a/file.yaml
//! its text
//! --- path/of/a/file [escaped]  (line breaks don't count, `\n`, `\r`, `\t`, `\\`, `\xff` and `\u{feff}` do)
//! --- path/of/a/symlink -> its target
//! ```
//! An answer is what kubectl wrote to its standard output, or `error: ` and what it said.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use afresh::manifest::MemoryTree;

pub struct Case {
    pub name: String,
    /// The file of cases it is in, without its ending.
    pub group: String,
    pub directory: String,
    pub files: Vec<(String, Content)>,
}

pub enum Content {
    File(Vec<u8>),
    Symlink(String),
}

impl Case {
    pub fn tree(&self) -> MemoryTree {
        self.files.iter().fold(MemoryTree::new(), |tree, (path, content)| match content {
            Content::File(bytes) => tree.with(path, bytes.clone()),
            Content::Symlink(target) => tree.with_symlink(path, target),
        })
    }

    /// Writes its files below a folder.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        for (path, content) in &self.files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a file is in a folder"))?;
            match content {
                Content::File(bytes) => fs::write(path, bytes)?,
                Content::Symlink(target) => std::os::unix::fs::symlink(target, path)?,
            }
        }
        Ok(())
    }
}

/// What kubectl makes of a directory.
pub fn ask(kubectl: &str, directory: &Path) -> std::io::Result<Result<String, String>> {
    let output = Command::new(kubectl).arg("kustomize").arg(directory).output()?;
    if output.status.success() {
        return Ok(Ok(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().filter(|line| !line.starts_with("# Warning")).map(str::trim).collect::<Vec<_>>().join(" ");
    // a line of a log begins with the time and the process
    let said = said.split_once("err=").map_or(said.as_str(), |(_, said)| said);
    // nor does the trace of a panic belong to the answer
    Ok(Err(said.split(" goroutine ").next().unwrap_or(said).trim().to_owned()))
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

fn file(title: &str, body: String) -> (String, Content) {
    if let Some((path, target)) = title.split_once(" -> ") {
        return (path.into(), Content::Symlink(target.into()));
    }
    match title.strip_suffix(" [escaped]") {
        Some(path) => (path.into(), Content::File(unescaped(&body))),
        None => (title.into(), Content::File(body.into_bytes())),
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = text.replace('\n', "");
    let mut parts = text.split('\\');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    while let Some(part) = parts.next() {
        let rest = match part.chars().next() {
            // two backslashes: between them is nothing
            None => {
                bytes.push(b'\\');
                parts.next().unwrap_or_default()
            }
            Some('x') => {
                bytes.push(u8::from_str_radix(&part[1..3], 16).expect("two hexadecimal digits"));
                &part[3..]
            }
            Some('u') => {
                let (code, rest) = part[1..].split_once('}').expect("a brace");
                let code = u32::from_str_radix(code.trim_start_matches('{'), 16).ok().and_then(char::from_u32);
                bytes.extend(code.expect("a character").to_string().bytes());
                rest
            }
            Some(c) => {
                bytes.push(match c {
                    'n' => b'\n',
                    'r' => b'\r',
                    't' => b'\t',
                    '0' => 0,
                    other => panic!("an escape `{other}` is not known"),
                });
                &part[1..]
            }
        };
        bytes.extend(rest.bytes());
    }
    bytes
}

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (group, text) in texts("cases") {
        for (title, body) in sections(&text, "=== ") {
            let (name, directory) = title.split_once(" @ ").unwrap_or((&title, "."));
            assert!(!cases.iter().any(|case| case.name == name), "two cases are called `{name}`");
            let files = sections(&body, "--- ").into_iter().map(|(title, body)| file(&title, body)).collect();
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
        case.write(dir.path())?;
        let text = groups.entry(case.group.clone()).or_default();
        text.push_str(&format!("=== {}\n", case.name));
        match ask(kubectl, &dir.path().join(&case.directory))? {
            Ok(built) => text.push_str(&built),
            Err(said) => {
                let said = said.replace(&*dir.path().to_string_lossy(), "TREE");
                text.push_str(&format!("error: {said}\n"));
            }
        }
    }
    fs::create_dir_all(folder("answers"))?;
    for (group, text) in groups {
        fs::write(folder("answers").join(group).with_extension("txt"), text)?;
    }
    Ok(())
}
