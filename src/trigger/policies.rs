//! `--policies DIR`: policies in a watched folder, compiled together whenever one of its files changes.
//!
//! Comes in: a folder. Goes out: the set that is in force. What doesn't compile ends the start; later it keeps the last
//! good set, and says so until it is mended: a mistake never lets everything pass.

use std::path::{Path, PathBuf};

use notify::RecursiveMode;
use tokio_util::sync::CancellationToken;

use super::changes::Changes;
use crate::engine::Policies;
use crate::manifest::yaml;
use crate::policy::{Document, PolicySet};
use crate::report::Metrics;

/// Files of one folder: more is a mistake.
const FILES_MAX: usize = 1_000;
/// `kubectl apply -k` reads it, and nobody else.
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Why a folder of policies can't be used: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policies in `{}` can't be used:\n{}", folder.display(), errors.join("\n"))]
pub struct PolicyFolderError {
    pub folder: PathBuf,
    pub errors: Vec<String>,
}

/// A watched folder of policies.
pub struct PolicyFolder {
    path: PathBuf,
    policies: Policies,
    changes: Changes,
}

impl PolicyFolder {
    /// Compiles what is in a folder, and begins to watch it.
    pub fn open(path: &Path) -> Result<Self, PolicyFolderError> {
        let failed = |error: notify::Error| PolicyFolderError {
            folder: path.to_owned(),
            errors: vec![format!("it can't be watched: {error}")],
        };
        let changes = Changes::watch(path, RecursiveMode::NonRecursive).map_err(failed)?;
        let policies = Policies::new(read(path)?);
        Ok(Self { path: path.to_owned(), policies, changes })
    }

    /// Those in force; they change as the folder does.
    pub fn policies(&self) -> Policies {
        self.policies.clone()
    }

    /// Takes in what changes until cancelled.
    pub async fn follow(mut self, metrics: Metrics, cancel: CancellationToken) {
        let mut said: Option<PolicyFolderError> = None;
        loop {
            tokio::select! {
                () = self.changes.next(said.is_some()) => {}
                () = cancel.cancelled() => return,
            }
            let path = self.path.clone();
            let result = tokio::task::spawn_blocking(move || read(&path)).await;
            let result = result.unwrap_or_else(|error| {
                Err(PolicyFolderError { folder: self.path.clone(), errors: vec![error.to_string()] })
            });
            metrics.policies_refused(result.is_err());
            match result {
                Ok(set) => {
                    let count = set.len();
                    if self.policies.replace(set) {
                        tracing::info!(policies = count, folder = %self.path.display(), "other policies are in force");
                    } else if said.is_some() {
                        tracing::info!(policies = count, "the policies are what they were");
                    }
                    said = None;
                }
                Err(error) => {
                    if said.as_ref() != Some(&error) {
                        tracing::error!("{error}\nthe last good policies stay in force");
                    }
                    said = Some(error);
                }
            }
        }
    }
}

/// Compiles the YAML files of a folder, not those of its subfolders.
pub fn read(folder: &Path) -> Result<PolicySet, PolicyFolderError> {
    let failed = |errors: Vec<String>| PolicyFolderError { folder: folder.to_owned(), errors };
    let unreadable =
        |path: &Path, error: &dyn std::fmt::Display| failed(vec![format!("can't read `{}`: {error}", path.display())]);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_yaml && !name.starts_with('.') && !KUSTOMIZATIONS.contains(&name.as_str()) && path.is_file() {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(failed(vec![format!("it has more than {FILES_MAX} YAML files")]));
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(failed(vec!["it has no YAML files".to_owned()]));
    }
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for file in files {
        let shown = file.display().to_string();
        let size = file.metadata().map_err(|error| unreadable(&file, &error))?.len();
        if size > yaml::MAX_FILE_BYTES {
            errors.push(format!("`{shown}` is larger than {} bytes", yaml::MAX_FILE_BYTES));
            continue;
        }
        let content = std::fs::read(&file).map_err(|error| unreadable(&file, &error))?;
        match yaml::documents(&shown, &content) {
            Ok(read) => documents.extend(
                read.into_iter().filter(|document| !document.value.is_null()).map(|document| Document {
                    path: shown.clone(),
                    line: document.line,
                    value: document.value,
                }),
            ),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if !errors.is_empty() {
        return Err(failed(errors));
    }
    PolicySet::compile(documents).map_err(|errors| failed(errors.iter().map(ToString::to_string).collect()))
}
