//! What a source follows, which of a server's refs that is, and how a revision of it is written. Pure.

use std::collections::HashMap;
use std::fmt;

use git2::Oid;
use semver::Version;

use super::version::{self, RangeError, VersionRange};

/// Flux's default when `spec.ref` names nothing.
pub const DEFAULT_BRANCH: &str = "master";

/// What of a repository is followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    Branch(String),
    Tag(String),
    /// The tag with the highest version in the range.
    Semver(VersionRange),
    /// A ref by its full name, such as `refs/pull/1/head`.
    Name(String),
    /// A pinned commit; the branch only names it in the revision.
    Commit {
        branch: Option<String>,
        sha: Oid,
    },
}

/// How a reference leads to a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The server is asked for refs whose full names begin so; [`Selection`] says which one is meant.
    Listed(String),
    /// Nobody needs to be asked.
    Pinned(Oid),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("`{name}` is not a valid branch name")]
    Branch { name: String },
    #[error("`{name}` is not a valid tag name")]
    Tag { name: String },
    #[error("`spec.ref.semver`: {0}")]
    Semver(#[from] RangeError),
    #[error("`{name}` is not the full name of a ref: it looks like `refs/heads/main` or `refs/pull/1/head`")]
    Name { name: String },
    #[error("`{text}` is not a commit id: 40 hexadecimal digits are needed")]
    Commit { text: String },
}

/// `spec.ref` of a GitRepository as it is written. Empty strings count as absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a> {
    pub branch: Option<&'a str>,
    pub tag: Option<&'a str>,
    pub semver: Option<&'a str>,
    pub name: Option<&'a str>,
    pub commit: Option<&'a str>,
}

/// Some writers of refs add it to say "what the tag leads to", which is what is always meant here.
const PEELED_SUFFIX: &str = "^{}";
const TAGS: &str = "refs/tags/";

impl Reference {
    /// From `spec.ref`: a commit wins over a name, a name over a tag, a tag over a range, a range over a branch.
    ///
    /// This is what Flux does; its reference says that a range wins over a tag.
    pub fn from_spec(fields: Fields<'_>) -> Result<Self, ReferenceError> {
        let given = |text: Option<&'_ str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let branch = given(fields.branch);
        if let Some(name) = branch.as_ref().filter(|name| !is_ref(&format!("refs/heads/{name}"))) {
            return Err(ReferenceError::Branch { name: name.clone() });
        }
        if let Some(text) = given(fields.commit) {
            let sha = parse_id(&text).ok_or(ReferenceError::Commit { text })?;
            return Ok(Reference::Commit { branch, sha });
        }
        if let Some(name) = given(fields.name) {
            let valid = is_ref(name.strip_suffix(PEELED_SUFFIX).unwrap_or(&name));
            return if valid { Ok(Reference::Name(name)) } else { Err(ReferenceError::Name { name }) };
        }
        if let Some(name) = given(fields.tag) {
            let valid = is_ref(&format!("{TAGS}{name}"));
            return if valid { Ok(Reference::Tag(name)) } else { Err(ReferenceError::Tag { name }) };
        }
        if let Some(text) = given(fields.semver) {
            return Ok(Reference::Semver(VersionRange::parse(&text)?));
        }
        Ok(Reference::Branch(branch.unwrap_or_else(|| DEFAULT_BRANCH.to_owned())))
    }

    /// What finding the commit takes.
    pub fn lookup(&self) -> Lookup {
        match self {
            Reference::Branch(name) => Lookup::Listed(format!("refs/heads/{name}")),
            Reference::Tag(name) => Lookup::Listed(format!("{TAGS}{name}")),
            Reference::Semver(_) => Lookup::Listed(TAGS.to_owned()),
            Reference::Name(name) => Lookup::Listed(name.strip_suffix(PEELED_SUFFIX).unwrap_or(name).to_owned()),
            Reference::Commit { sha, .. } => Lookup::Pinned(*sha),
        }
    }

    /// Whether a ref of this full name is one that this reference follows.
    pub fn is_led_by(&self, name: &str) -> bool {
        match self {
            Reference::Commit { .. } => false,
            Reference::Semver(range) => {
                name.strip_prefix(TAGS).and_then(version::of_tag).is_some_and(|version| range.contains(&version))
            }
            Reference::Branch(_) | Reference::Tag(_) | Reference::Name(_) => {
                self.lookup() == Lookup::Listed(name.to_owned())
            }
        }
    }

    /// The name that a revision has if this reference led to it; a range's is that of the tag.
    pub fn at(&self, commit: Oid) -> Revision {
        let name = match self {
            Reference::Branch(name) | Reference::Tag(name) | Reference::Name(name) => Some(name.clone()),
            Reference::Commit { branch, .. } => branch.clone(),
            Reference::Semver(_) => None,
        };
        Revision { name, commit }
    }
}

fn is_ref(name: &str) -> bool {
    git2::Reference::is_valid_name(name)
}

/// Takes refs in any order and keeps the one that a reference means.
pub(super) struct Selection<'a> {
    reference: &'a Reference,
    wanted: String,
    found: Option<Revision>,
    newest: Option<Version>,
}

impl<'a> Selection<'a> {
    pub fn of(reference: &'a Reference) -> Selection<'a> {
        let wanted = match reference.lookup() {
            Lookup::Listed(wanted) => wanted,
            Lookup::Pinned(_) => String::new(),
        };
        Selection { reference, wanted, found: None, newest: None }
    }

    /// One ref, with the commit that it leads to (through an annotated tag, if it is one).
    pub fn offer(&mut self, name: &str, commit: Oid) {
        let Reference::Semver(range) = self.reference else {
            // A prefix matches more than the name.
            if name == self.wanted {
                self.found = Some(self.reference.at(commit));
            }
            return;
        };
        let Some(tag) = name.strip_prefix(&self.wanted) else { return };
        let Some(version) = version::of_tag(tag).filter(|version| range.contains(version)) else { return };
        // Of equal versions, that differ in build metadata or a `v`, the choice must not depend on the order.
        let before = self.newest.as_ref().zip(self.found.as_ref().and_then(|found| found.name.as_deref()));
        if before.is_none_or(|(newest, name)| (newest, name) < (&version, tag)) {
            self.found = Some(Revision { name: Some(tag.to_owned()), commit });
            self.newest = Some(version);
        }
    }

    pub fn finish(self) -> Option<Revision> {
        self.found
    }
}

/// [`Selection`]s of many references from one list: what a ref of that name means is looked up, not searched for.
pub(super) struct Selections<'a> {
    all: Vec<(&'a Reference, Selection<'a>)>,
    /// Places in `all` by the name that is wanted …
    named: HashMap<String, Vec<usize>>,
    /// … and of those that want more than a name.
    ranges: Vec<usize>,
}

impl<'a> Selections<'a> {
    pub fn of(references: &'a [Reference]) -> Selections<'a> {
        let all: Vec<_> = references.iter().map(|reference| (reference, Selection::of(reference))).collect();
        let (mut named, mut ranges) = (HashMap::<_, Vec<_>>::new(), Vec::new());
        for (place, (reference, selection)) in all.iter().enumerate() {
            match reference {
                Reference::Semver(_) => ranges.push(place),
                _ => named.entry(selection.wanted.clone()).or_default().push(place),
            }
        }
        Selections { all, named, ranges }
    }

    /// What the full names of the refs begin with that are to be offered.
    pub fn prefixes(&self) -> Vec<&str> {
        let tags = (!self.ranges.is_empty()).then_some(TAGS);
        self.named.keys().map(String::as_str).chain(tags).collect()
    }

    pub fn offer(&mut self, name: &str, commit: Oid) {
        for place in self.named.get(name).into_iter().flatten().chain(&self.ranges) {
            self.all[*place].1.offer(name, commit);
        }
    }

    pub fn finish(self) -> Vec<(&'a Reference, Option<Revision>)> {
        self.all.into_iter().map(|(reference, selection)| (reference, selection.finish())).collect()
    }
}

/// `branch main`, `tag v1`, `commit 0123abcd…`, for messages.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Branch(name) => write!(f, "branch `{name}`"),
            Reference::Tag(name) => write!(f, "tag `{name}`"),
            Reference::Semver(range) => write!(f, "tag with a version in `{range}`"),
            Reference::Name(name) => write!(f, "ref `{name}`"),
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

    fn fields<'a>(entries: &[(&str, &'a str)]) -> Fields<'a> {
        let field = |wanted| entries.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
        Fields {
            branch: field("branch"),
            tag: field("tag"),
            semver: field("semver"),
            name: field("name"),
            commit: field("commit"),
        }
    }

    #[test]
    fn the_most_exact_reference_wins() {
        let pull = "refs/pull/1/head";
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[], "master@sha1:"),
            (&[("branch", "main")], "main@sha1:"),
            (&[("branch", ""), ("tag", ""), ("semver", ""), ("name", ""), ("commit", "")], "master@sha1:"),
            (&[("branch", "main"), ("tag", "v1")], "v1@sha1:"),
            (&[("branch", "release/1.2")], "release/1.2@sha1:"),
            (&[("semver", ">=1.0"), ("tag", "v1")], "v1@sha1:"),
            (&[("semver", ">=1.0"), ("tag", "v1"), ("name", pull)], "refs/pull/1/head@sha1:"),
            (&[("name", "refs/tags/v1^{}")], "refs/tags/v1^{}@sha1:"),
            (&[("branch", "main"), ("tag", "v1"), ("name", pull), ("commit", SHA)], "main@sha1:"),
            (&[("tag", "v1"), ("commit", SHA)], "sha1:"),
        ];
        for (entries, shown) in cases {
            let reference = Reference::from_spec(fields(entries)).unwrap();
            let revision = reference.at(Oid::from_str(SHA).unwrap());
            assert_eq!(revision.to_string(), format!("{shown}{SHA}"));
            assert_eq!(Revision::parse(&revision.to_string()), Some(revision));
        }
        let range = Reference::from_spec(fields(&[("branch", "main"), ("semver", ">=1.0")])).unwrap();
        assert_eq!(range.to_string(), "tag with a version in `>=1.0`");
    }

    #[test]
    fn the_highest_version_is_chosen_whatever_the_order() {
        let id = |digit: usize| Oid::from_str(&digit.to_string().repeat(40)).unwrap();
        let names = [
            "refs/tags/v1.10.0",
            "refs/tags/1.9.0",
            "refs/tags/v2.0.0-rc.1",
            "refs/tags/latest",
            "refs/heads/v1.11.0",
            "refs/tags/v1.10.0+b",
        ];
        let choose = |range: &str, reversed: bool| {
            let reference = Reference::from_spec(fields(&[("semver", range)])).unwrap();
            let mut selection = Selection::of(&reference);
            let mut all: Vec<_> = names.iter().enumerate().collect();
            if reversed {
                all.reverse();
            }
            all.into_iter().for_each(|(index, name)| selection.offer(name, id(index)));
            selection.finish().map(|revision| (revision.name.unwrap_or_default(), revision.commit))
        };
        let cases = [
            (">=1.0.0", Some(("v1.10.0+b", 5))),
            (">=1.0.0-0", Some(("v2.0.0-rc.1", 2))),
            ("1.9.x", Some(("1.9.0", 1))),
            (">=3", None),
        ];
        for (range, expected) in cases {
            let expected = expected.map(|(name, index)| (name.to_owned(), id(index)));
            assert_eq!(choose(range, false), expected, "{range}");
            assert_eq!(choose(range, true), expected, "{range}, in the other order");
        }
    }

    #[test]
    fn names_that_could_break_out_of_a_request_are_refused() {
        for name in ["a b", "a\nwant x", "..", "a..b", "-\u{7f}", "x.lock", "a^", "/a", "a//b"] {
            for field in ["branch", "tag", "name", "semver"] {
                assert!(Reference::from_spec(fields(&[(field, name)])).is_err(), "{field} {name:?}");
            }
        }
        for name in ["main", "refs/heads/main^{}^{}", "heads/main\n"] {
            assert!(Reference::from_spec(fields(&[("name", name)])).is_err(), "{name:?}");
        }
        for sha in ["main", "0123abc", "g123456789abcdef0123456789abcdef01234567"] {
            assert!(Reference::from_spec(fields(&[("commit", sha)])).is_err(), "{sha}");
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
