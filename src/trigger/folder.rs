//! `--config DIR`: documents in a watched folder are applied as the field manager `afresh-config`.
//!
//! The Kubernetes API stays the only store: a document that vanishes from the folder deletes nothing, and a broken edit
//! keeps the last good one and says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use notify::RecursiveMode;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::changes::Changes;
use crate::cluster::{ApplyOptions, Cluster, FieldValidation};
use crate::manifest::{ObjectId, yaml};

/// The field manager of what comes from the folder.
const MANAGER: &str = "afresh-config";
/// One file of the folder: it holds a handful of objects.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
const FILES_MAX: usize = 1000;

/// Why a folder can't be used at all.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("can't read the folder `{}`: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("can't watch the folder `{}`: {source}", path.display())]
    Watch { path: PathBuf, source: notify::Error },
    #[error("the folder `{}` has more than {FILES_MAX} YAML files", path.display())]
    TooMany { path: PathBuf },
    /// At start, nothing is kept from before: a broken document is an error.
    #[error("{0}")]
    Document(String),
}

/// A watched folder of documents.
pub struct Folder {
    path: PathBuf,
    cluster: Cluster,
    /// What was applied last, by object.
    applied: BTreeMap<ObjectId, Value>,
    changes: Changes,
}

impl Folder {
    /// Opens a folder and applies what is in it. Errors in a document at start are errors of the start.
    pub async fn open(path: &Path, cluster: Cluster) -> Result<Self, FolderError> {
        let changes = Changes::watch(path, RecursiveMode::Recursive)
            .map_err(|source| FolderError::Watch { path: path.to_owned(), source })?;
        let mut folder = Self { path: path.to_owned(), cluster, applied: BTreeMap::new(), changes };
        let documents = folder.read().map_err(|e| match e {
            Broken::Folder(error) => error,
            Broken::Document(text) => FolderError::Document(text),
        })?;
        if let Err(text) = folder.apply(documents).await {
            return Err(FolderError::Document(text));
        }
        Ok(folder)
    }

    /// Applies what changes until cancelled.
    pub async fn follow(mut self, cancel: CancellationToken) {
        let mut again = false;
        loop {
            tokio::select! {
                () = self.changes.next(again) => {}
                () = cancel.cancelled() => return,
            }
            again = match self.read() {
                Ok(documents) => match self.apply(documents).await {
                    Ok(()) => false,
                    Err(text) => {
                        tracing::error!("{text}\nthe last good version stays in force");
                        true
                    }
                },
                Err(Broken::Document(text)) => {
                    tracing::error!("{text}\nthe last good version stays in force");
                    false
                }
                Err(Broken::Folder(error)) => {
                    tracing::error!("{error}\nwhat was applied stays in force");
                    true
                }
            };
        }
    }

    /// All documents of the folder, or the first thing that is wrong with them.
    fn read(&self) -> Result<Vec<(ObjectId, String, Value)>, Broken> {
        let mut files = Vec::new();
        collect(&self.path, &mut files).map_err(|source| FolderError::Read { path: self.path.clone(), source })?;
        if files.len() > FILES_MAX {
            return Err(FolderError::TooMany { path: self.path.clone() }.into());
        }
        files.sort();
        let mut objects = Vec::new();
        for file in files {
            let name = file.display().to_string();
            let read = |source| FolderError::Read { path: file.clone(), source };
            let size = std::fs::metadata(&file).map_err(read)?.len();
            if size > FILE_BYTES_MAX {
                return Err(Broken::Document(format!("{name}: {size} bytes, over the limit of {FILE_BYTES_MAX}")));
            }
            let bytes = std::fs::read(&file).map_err(read)?;
            for document in yaml::documents(&name, &bytes).map_err(|e| Broken::Document(e.render(false)))? {
                objects.extend(object(&name, document.line, document.value)?);
            }
        }
        Ok(objects)
    }

    /// Applies what differs from what was applied last.
    async fn apply(&mut self, documents: Vec<(ObjectId, String, Value)>) -> Result<(), String> {
        for (id, version, value) in documents {
            if self.applied.get(&id) == Some(&value) {
                continue;
            }
            let kind =
                self.cluster.resolve(&id.group, &id.kind, Some(&version)).await.map_err(|e| format!("{id}: {e}"))?;
            let options =
                ApplyOptions { manager: MANAGER, force: true, dry_run: false, validation: FieldValidation::Strict };
            self.cluster.apply(&kind, &id, &value, options).await.map_err(|e| format!("{id}: {e}"))?;
            tracing::info!(%id, "applied from the configuration folder");
            self.applied.insert(id, value);
        }
        Ok(())
    }
}

/// What stops a reading.
enum Broken {
    Folder(FolderError),
    Document(String),
}

impl From<FolderError> for Broken {
    fn from(error: FolderError) -> Self {
        Self::Folder(error)
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if hidden || files.len() > FILES_MAX {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            files.push(path);
        }
    }
    Ok(())
}

fn object(file: &str, line: u32, value: Value) -> Result<Option<(ObjectId, String, Value)>, Broken> {
    if value.is_null() {
        return Ok(None);
    }
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    for (field, given) in [("apiVersion", &api_version), ("kind", &kind), ("metadata.name", &name)] {
        if given.is_empty() {
            return Err(Broken::Document(format!("{file}:{line}: the document has no `{field}`")));
        }
    }
    let (group, version) = api_version.split_once('/').map_or(("", api_version.as_str()), |(g, v)| (g, v));
    let namespace = text("/metadata/namespace");
    Ok(Some((ObjectId::new(group, kind, namespace, name), version.to_owned(), value)))
}
