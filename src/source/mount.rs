//! What of a tree is seen, and which other trees are seen in it: `spec.sparseCheckout` and `spec.include`. Pure.

use std::collections::BTreeSet;

use super::snapshot::Snapshot;

/// Longer paths are refused by file systems, too.
const PATH_BYTES_MAX: usize = 4_096;

/// The names of a directory's path below the root: `./a//b/` is `a`, `b`; the root has none.
pub type Names = Vec<String>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("`{path}` leads out of the repository")]
    Outside { path: String },
    #[error("a path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
}

/// Reads a directory's path as specs write it.
pub fn names(path: &str) -> Result<Names, PathError> {
    if path.len() > PATH_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    let names: Names = path.split('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned).collect();
    if names.iter().any(|name| name == "..") {
        return Err(PathError::Outside { path: path.to_owned() });
    }
    Ok(names)
}

/// The directories of which a tree is seen. Everything if there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse(Vec<Names>);

impl Sparse {
    pub fn parse(paths: &[String]) -> Result<Sparse, PathError> {
        let directories = paths.iter().map(|path| names(path)).collect::<Result<Vec<_>, _>>()?;
        // The root among them is everything.
        Ok(Sparse(if directories.iter().any(Vec::is_empty) { Vec::new() } else { directories }))
    }

    pub fn directories(&self) -> &[Names] {
        &self.0
    }

    /// Whether everything below this directory is seen.
    pub fn holds(&self, directory: &[impl AsRef<str>]) -> bool {
        self.0.is_empty() || self.0.iter().any(|seen| leads_to(seen, directory))
    }

    /// Whether the entry at this path is seen: it is below one of the directories, or leads to one.
    pub fn shows(&self, path: &[impl AsRef<str>], is_directory: bool) -> bool {
        self.holds(path) || (is_directory && self.0.iter().any(|seen| leads_to(path, seen)))
    }
}

/// A part of another tree, seen at a place of this one instead of whatever is there.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Not the root.
    pub at: Names,
    pub from: Names,
    pub snapshot: Snapshot,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    #[error("`spec.include` can't put a repository at the root: set `toPath`")]
    AtRoot,
    #[error("`spec.include` puts two repositories at `{path}`, or one inside of another")]
    Overlap { path: String },
}

/// Refuses places that are the root or that hide each other.
pub fn check_places<'a>(places: impl Iterator<Item = &'a Names>) -> Result<(), MountError> {
    let mut before: BTreeSet<&Names> = BTreeSet::new();
    for at in places {
        if at.is_empty() {
            return Err(MountError::AtRoot);
        }
        if before.iter().any(|other| leads_to(other, at) || leads_to(at, other)) {
            return Err(MountError::Overlap { path: at.join("/") });
        }
        before.insert(at);
    }
    Ok(())
}

/// Whether `path` begins with `start`.
pub(super) fn leads_to(start: &[impl AsRef<str>], path: &[impl AsRef<str>]) -> bool {
    start.len() <= path.len() && start.iter().zip(path).all(|(a, b)| a.as_ref() == b.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_people_write_them() {
        for (path, expected) in [("", ""), ("./", ""), ("/a/b/", "a b"), ("./a//./b", "a b"), ("a b", "a b")] {
            assert_eq!(names(path).unwrap().join(" "), expected, "{path}");
        }
        assert_eq!(names("a/../..").unwrap_err().to_string(), "`a/../..` leads out of the repository");
        assert_eq!(names(&"a/".repeat(3_000)), Err(PathError::TooLong));
    }

    #[test]
    fn a_directory_is_seen_with_what_leads_to_it() {
        let sparse = Sparse::parse(&["./apps/a".to_owned(), "base/".to_owned()]).unwrap();
        let cases = [
            ("", true, true),
            ("apps", true, true),
            ("apps", false, false),
            ("apps/a", true, true),
            ("apps/a/deep/x.yaml", false, true),
            ("apps/ab", true, false),
            ("apps/b", true, false),
            ("readme.md", false, false),
            ("base/x.yaml", false, true),
        ];
        for (path, is_directory, expected) in cases {
            assert_eq!(sparse.shows(&names(path).unwrap(), is_directory), expected, "{path}");
        }
        for everything in [vec![], vec!["a".to_owned(), ".".to_owned()]] {
            assert!(Sparse::parse(&everything).unwrap().shows(&["x"], false));
        }
    }

    #[test]
    fn places_must_not_hide_each_other() {
        let check = |places: &[&str]| {
            let places: Vec<_> = places.iter().map(|place| names(place).unwrap()).collect();
            check_places(places.iter())
        };
        assert_eq!(check(&["a", "b/c", "b/d"]), Ok(()));
        assert_eq!(check(&["."]), Err(MountError::AtRoot));
        for places in [["a", "a"], ["a/b", "a"], ["a", "a/b"]] {
            assert!(matches!(check(&places), Err(MountError::Overlap { .. })), "{places:?}");
        }
    }
}
