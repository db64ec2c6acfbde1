//! The repository that the demo plays with: `examples/platform`, carried in the binary so that it runs from anywhere.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::story::Edit;

/// Path and text of each file.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/platform/", $path)))),*]
    };
}

const FILES: &[(&str, &str)] = files![
    "README.md",
    "clusters/dev/platform.yaml",
    "clusters/prod/platform.yaml",
    "envs/dev/api/afresh.yaml",
    "envs/dev/base/afresh.yaml",
    "envs/dev/database/afresh.yaml",
    "envs/dev/jobs/afresh.yaml",
    "envs/dev/storage/afresh.yaml",
    "envs/dev/values.yaml",
    "envs/prod/api/afresh.yaml",
    "envs/prod/base/afresh.yaml",
    "envs/prod/database/afresh.yaml",
    "envs/prod/jobs/afresh.yaml",
    "envs/prod/storage/afresh.yaml",
    "envs/prod/values.yaml",
    "templates/api/api.yaml",
    "templates/api/public.yaml",
    "templates/api/scaling.yaml",
    "templates/base/namespace.yaml",
    "templates/base/network-policy.yaml",
    "templates/database/credentials.yaml",
    "templates/database/postgres.yaml",
    "templates/database/settings.yaml",
    "templates/jobs/migrate.yaml",
    "templates/jobs/migrations/0001_orders.up.sql",
    "templates/jobs/vacuum.yaml",
    "templates/shared/_macros.j2",
    "templates/storage/gateway.yaml",
    "templates/storage/identities.yaml",
    "values/common.yaml",
];

/// Where the documents of the development cluster are.
const DOCUMENTS: &str = "clusters/dev/platform.yaml";

/// All files of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, String>);

impl Tree {
    /// The example as it is.
    pub fn embedded() -> Self {
        Self(FILES.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    /// The documents that tell the daemon what to follow: path and text.
    pub fn documents(&self) -> Option<(&str, &str)> {
        self.0.get_key_value(DOCUMENTS).map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The tree after some edits.
    ///
    /// # Errors
    /// When there is nothing to edit where an edit says so.
    pub fn edited(&self, edits: &[Edit]) -> anyhow::Result<Self> {
        let mut files = self.0.clone();
        for edit in edits {
            match edit {
                Edit::Replace { path, old, new } => {
                    let text = files.get_mut(*path).with_context(|| format!("there is no `{path}`"))?;
                    anyhow::ensure!(text.contains(&**old), "`{path}` has no `{old}`");
                    *text = text.replacen(&**old, new, 1);
                }
                Edit::Add { path, text } => {
                    files.insert((*path).to_owned(), (*text).to_owned());
                }
                Edit::RemoveFolder { path } => {
                    let before = files.len();
                    files.retain(|file, _| !file.starts_with(path));
                    anyhow::ensure!(files.len() < before, "there is nothing in `{path}`");
                }
            }
        }
        Ok(Self(files))
    }

    /// What leads from this tree to another: a path with `None` is removed.
    pub fn changes_to<'a>(&'a self, other: &'a Self) -> Vec<(&'a str, Option<&'a str>)> {
        let removed = self.0.keys().filter(|path| !other.0.contains_key(*path)).map(|path| (path.as_str(), None));
        let written = other.0.iter().filter(|(path, text)| self.0.get(*path) != Some(*text));
        removed.chain(written.map(|(path, text)| (path.as_str(), Some(text.as_str())))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn collect(folder: &Path, root: &Path, files: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, root, files);
            } else {
                files.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn no_file_of_the_example_is_forgotten() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/platform");
        let mut files = Vec::new();
        collect(&root, &root, &mut files);
        files.sort();
        let carried: Vec<_> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(carried, files);
    }
}
