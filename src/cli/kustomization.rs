//! A Kustomization in a file, and the working copy that its path leads into: for commands that look at what is not in
//! the cluster yet.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::directory::repository_root;
use crate::api::{Kustomization, service_account};
use crate::manifest::{SourceError, yaml};

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("can't read `{}`: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    /// The file is wrong, at a place.
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("`{file}` holds no Kustomization of `{GROUP}`{}", also(names))]
    Absent { file: String, names: Vec<String> },
    #[error("`{file}` holds {} Kustomizations: {}\nhint: choose one with `--name`", names.len(), quoted(names))]
    Ambiguous { file: String, names: Vec<String> },
    #[error("`{file}` holds no Kustomization `{name}`, but {}", quoted(names))]
    NoSuchName { file: String, name: String, names: Vec<String> },
    #[error("`{file}`: not served by this version of Afresh: {}", quoted(fields))]
    Unserved { file: String, fields: Vec<String> },
    #[error(
        "`spec.path` is `{path}`, which is neither below `{}` nor that folder itself\nhint: give the root of the repository, or name it with `--root`", folder.display()
    )]
    Elsewhere { path: String, folder: PathBuf },
    #[error("`{}` is not below `{}`", folder.display(), root.display())]
    NotBelow { folder: PathBuf, root: PathBuf },
}

const GROUP: &str = "kustomize.toolkit.fluxcd.io";

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn also(kinds: &[String]) -> String {
    if kinds.is_empty() { String::new() } else { format!(", but {}", kinds.join(", ")) }
}

impl InputError {
    /// The report as rustc prints it, with a final line break.
    pub fn render(&self, color: bool) -> String {
        match self {
            Self::Source(error) => error.render(color),
            _ => format!("error: {self}\n"),
        }
    }
}

/// Reads the Kustomization of a file: the one of this name, else the only one.
pub fn read(file: &Path, name: Option<&str>, namespace: &str) -> Result<Kustomization, InputError> {
    let shown = file.display().to_string();
    let unreadable = |error: io::Error| InputError::Unreadable { path: file.to_owned(), reason: error.to_string() };
    let size = file.metadata().map_err(unreadable)?.len();
    if size > yaml::MAX_FILE_BYTES {
        let reason = format!("it is larger than {} bytes", yaml::MAX_FILE_BYTES);
        return Err(InputError::Unreadable { path: file.to_owned(), reason });
    }
    let content = std::fs::read(file).map_err(unreadable)?;
    let documents = yaml::documents(&shown, &content)?;
    let text =
        |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_one = |value: &Value| {
        text(value, "/kind") == "Kustomization"
            && text(value, "/apiVersion").split_once('/').is_some_and(|(g, _)| g == GROUP)
    };
    let (found, others): (Vec<_>, Vec<_>) = documents
        .into_iter()
        .filter(|document| !document.value.is_null())
        .partition(|document| is_one(&document.value));
    let names: Vec<String> = found.iter().map(|document| text(&document.value, "/metadata/name")).collect();
    if found.is_empty() {
        let kinds =
            others.iter().take(5).map(|d| format!("`{} {}`", text(&d.value, "/apiVersion"), text(&d.value, "/kind")));
        return Err(InputError::Absent { file: shown, names: kinds.collect() });
    }
    let mut chosen =
        found.into_iter().filter(|document| name.is_none_or(|name| text(&document.value, "/metadata/name") == name));
    let document = match (chosen.next(), chosen.next(), name) {
        (Some(document), None, _) => document,
        (None, _, name) => {
            return Err(InputError::NoSuchName { file: shown, name: name.unwrap_or_default().into(), names });
        }
        (Some(_), Some(_), _) => return Err(InputError::Ambiguous { file: shown, names }),
    };
    let decoded = serde_json::from_value::<Kustomization>(document.value);
    let mut object = decoded.map_err(|error| {
        let source = String::from_utf8_lossy(&content);
        SourceError::new(
            &shown,
            &source,
            document.line,
            1,
            format!("this is no Kustomization that can be served: {error}"),
        )
    })?;
    object.metadata.namespace.get_or_insert_with(|| namespace.to_owned());
    let fields: Vec<_> = object.spec.unserved().into_iter().map(str::to_owned).collect();
    if !fields.is_empty() {
        return Err(InputError::Unserved { file: shown, fields });
    }
    Ok(object)
}

/// The folder that `spec.path` begins at, if `folder` is that one or the one that `spec.path` leads to.
pub fn root_of(folder: &Path, root: Option<&Path>, path: &str) -> Result<PathBuf, InputError> {
    let folder = absolute(folder)?;
    let relative = Path::new(path.trim_start_matches('/'));
    if let Some(root) = root {
        let root = absolute(root)?;
        return if folder.starts_with(&root) { Ok(root) } else { Err(InputError::NotBelow { folder, root }) };
    }
    if folder.join(relative).is_dir() {
        return Ok(folder);
    }
    let around =
        repository_root(&folder).filter(|root| root.join(relative).canonicalize().is_ok_and(|to| to == folder));
    around.map(Path::to_owned).ok_or_else(|| InputError::Elsewhere { path: path.to_owned(), folder: folder.clone() })
}

pub fn absolute(path: &Path) -> Result<PathBuf, InputError> {
    path.canonicalize().map_err(|error| InputError::Unreadable { path: path.to_owned(), reason: error.to_string() })
}

/// `NAME=VALUE`
pub fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What a service account can be called.
pub fn account_name(text: &str) -> Result<String, String> {
    if service_account::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("no service account can be called that".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str, more: &str) -> String {
        format!(
            "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {{name: {name}}}\nspec:\n  interval: 10m\n  prune: true\n  path: ./apps/{name}\n  sourceRef: {{kind: GitRepository, name: platform}}\n{more}---\n"
        )
    }

    #[test]
    fn one_document_is_chosen_by_name_or_because_it_is_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ks.yaml");
        let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n---\n";
        let read_of = |content: &str, name: Option<&str>| {
            std::fs::write(&file, content).unwrap();
            let shown = file.display().to_string();
            match read(&file, name, "flux-system") {
                Ok(object) => format!("{}/{}", object.metadata.namespace.unwrap(), object.metadata.name.unwrap()),
                Err(error) => error.to_string().replace(&shown, "FILE"),
            }
        };
        let (a, b) = (document("a", ""), document("b", ""));
        for (content, name, expected) in [
            (format!("{other}{a}"), None, "flux-system/a"),
            (format!("{a}{b}"), Some("b"), "flux-system/b"),
            (format!("{a}{b}"), None, "`FILE` holds 2 Kustomizations: `a`, `b`\nhint: choose one with `--name`"),
            (format!("{a}{b}"), Some("c"), "`FILE` holds no Kustomization `c`, but `a`, `b`"),
            (
                other.to_owned(),
                None,
                "`FILE` holds no Kustomization of `kustomize.toolkit.fluxcd.io`, but `v1 ConfigMap`",
            ),
            (
                document("a", "  kubeConfig: {secretRef: {name: x}}\n"),
                None,
                "`FILE`: not served by this version of Afresh: `spec.kubeConfig`",
            ),
            (
                a.replace("  prune: true\n", ""),
                None,
                "FILE:1:1: this is no Kustomization that can be served: missing field `prune`",
            ),
        ] {
            assert_eq!(read_of(&content, name), expected);
        }
    }

    #[test]
    fn the_root_is_the_folder_or_the_repository_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for path in [".git", "apps/shop", "apps/other"] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        assert_eq!(root_of(&root, None, "./apps/shop").unwrap(), root);
        assert_eq!(root_of(&root.join("apps/shop"), None, "./apps/shop").unwrap(), root);
        assert_eq!(root_of(&root.join("apps/shop"), None, "./").unwrap(), root.join("apps/shop"));
        assert_eq!(root_of(&root.join("apps/shop"), Some(&root), "apps/shop").unwrap(), root);
        for (folder, given) in [("apps/other", None), ("apps", Some(root.join("apps/shop")))] {
            assert!(root_of(&root.join(folder), given.as_deref(), "./apps/shop").is_err(), "{folder}");
        }
    }
}
