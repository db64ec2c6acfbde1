//! What a source follows, and how a revision of it is written. Pure.

use std::fmt;

use git2::Oid;

/// Flux's default when `spec.ref` names nothing.
pub const DEFAULT_BRANCH: &str = "master";

/// What of a repository is followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    Branch(String),
    Tag(String),
    /// A pinned commit; the branch only names it in the revision.
    Commit {
        branch: Option<String>,
        sha: Oid,
    },
}

/// How a reference leads to a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The server is asked for the ref of this full name.
    Named(String),
    /// Nobody needs to be asked.
    Pinned(Oid),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("`{name}` is not a valid branch name")]
    Branch { name: String },
    #[error("`{name}` is not a valid tag name")]
    Tag { name: String },
    #[error("`{text}` is not a commit id: 40 hexadecimal digits are needed")]
    Commit { text: String },
}

impl Reference {
    /// From `spec.ref` of a GitRepository: a commit wins over a tag, a tag over a branch. Empty strings count as absent.
    pub fn from_spec(branch: Option<&str>, tag: Option<&str>, commit: Option<&str>) -> Result<Self, ReferenceError> {
        let [branch, tag, commit] = [branch, tag, commit].map(|text| text.filter(|text| !text.is_empty()));
        let branch = branch
            .map(|name| match git2::Reference::is_valid_name(&format!("refs/heads/{name}")) {
                true => Ok(name.to_owned()),
                false => Err(ReferenceError::Branch { name: name.to_owned() }),
            })
            .transpose()?;
        if let Some(text) = commit {
            let sha = parse_id(text).ok_or_else(|| ReferenceError::Commit { text: text.to_owned() })?;
            return Ok(Reference::Commit { branch, sha });
        }
        if let Some(name) = tag {
            return match git2::Reference::is_valid_name(&format!("refs/tags/{name}")) {
                true => Ok(Reference::Tag(name.to_owned())),
                false => Err(ReferenceError::Tag { name: name.to_owned() }),
            };
        }
        Ok(Reference::Branch(branch.unwrap_or_else(|| DEFAULT_BRANCH.to_owned())))
    }

    /// What finding the commit takes.
    pub fn lookup(&self) -> Lookup {
        match self {
            Reference::Branch(name) => Lookup::Named(format!("refs/heads/{name}")),
            Reference::Tag(name) => Lookup::Named(format!("refs/tags/{name}")),
            Reference::Commit { sha, .. } => Lookup::Pinned(*sha),
        }
    }

    pub fn at(&self, commit: Oid) -> Revision {
        let name = match self {
            Reference::Branch(name) | Reference::Tag(name) => Some(name.clone()),
            Reference::Commit { branch, .. } => branch.clone(),
        };
        Revision { name, commit }
    }
}

/// `branch main`, `tag v1`, `commit 0123abcd…`, for messages.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Branch(name) => write!(f, "branch `{name}`"),
            Reference::Tag(name) => write!(f, "tag `{name}`"),
            Reference::Commit { sha, .. } => write!(f, "commit `{sha}`"),
        }
    }
}

/// A commit and the name it was found under; shown as Flux writes it: `main@sha1:…`, or `sha1:…` without a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    pub name: Option<String>,
    pub commit: Oid,
}

impl Revision {
    /// Reads what `Display` writes, for example from a status; `None` if it is something else.
    pub fn parse(text: &str) -> Option<Revision> {
        let (name, commit) = match text.rsplit_once('@') {
            Some((name, commit)) if !name.is_empty() => (Some(name.to_owned()), commit),
            Some(_) => return None,
            None => (None, text),
        };
        Some(Revision { name, commit: parse_id(commit.strip_prefix("sha1:")?)? })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}@sha1:{}", self.commit),
            None => write!(f, "sha1:{}", self.commit),
        }
    }
}

/// A full object id; git2 itself also takes abbreviations and pads them.
pub(super) fn parse_id(text: &str) -> Option<Oid> {
    if text.len() == 40 { Oid::from_str(text).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn commit_wins_over_tag_and_tag_over_branch() {
        let cases = [
            ((None, None, None), "master@sha1:"),
            ((Some("main"), None, None), "main@sha1:"),
            ((Some(""), Some(""), Some("")), "master@sha1:"),
            ((Some("main"), Some("v1"), None), "v1@sha1:"),
            ((Some("release/1.2"), None, None), "release/1.2@sha1:"),
            ((Some("main"), Some("v1"), Some(SHA)), "main@sha1:"),
            ((None, Some("v1"), Some(SHA)), "sha1:"),
        ];
        for ((branch, tag, commit), shown) in cases {
            let reference = Reference::from_spec(branch, tag, commit).unwrap();
            let revision = reference.at(Oid::from_str(SHA).unwrap());
            assert_eq!(revision.to_string(), format!("{shown}{SHA}"));
            assert_eq!(Revision::parse(&revision.to_string()), Some(revision));
        }
    }

    #[test]
    fn names_that_could_break_out_of_a_request_are_refused() {
        for name in ["a b", "a\nwant x", "..", "a..b", "-\u{7f}", "x.lock", "a^", "/a", "a//b"] {
            assert!(Reference::from_spec(Some(name), None, None).is_err(), "{name:?}");
            assert!(Reference::from_spec(None, Some(name), None).is_err(), "{name:?}");
        }
        for sha in ["main", "0123abc", "g123456789abcdef0123456789abcdef01234567"] {
            assert!(Reference::from_spec(None, None, Some(sha)).is_err(), "{sha}");
        }
    }

    #[test]
    fn other_revisions_are_not_taken_for_ours() {
        for text in
            ["", "main/0123", "main@sha256:0123", "main@sha1:0123", "@sha1:0123456789abcdef0123456789abcdef01234567"]
        {
            assert_eq!(Revision::parse(text), None, "{text}");
        }
    }
}
