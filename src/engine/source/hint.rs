//! What somebody says that a source shows now, or will show soon; also as an annotation, in which a replica that doesn't
//! lead tells the one that does. The remote's word is the truth: a hint only says what to look for, and for how long.

use git2::Oid;

use crate::api::{EXPECTED, GitRepository, Kustomization, REQUESTED_AT};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The newest commit is this one.
    Commit(Oid),
    /// What the source follows is there no more.
    Gone,
}

const GONE: &str = "gone";
/// There is something, and it is not known what.
const NEWS: &str = "news";
/// A SHA-1 in hexadecimal digits, unabridged.
const COMMIT_DIGITS: usize = 40;

impl Hint {
    /// The value of the annotation [`EXPECTED`] beside a request (`requestedAt`) with this token, to which alone it belongs.
    pub fn beside(self, token: &str) -> String {
        match self {
            Self::Commit(commit) => format!("{token} {commit}"),
            Self::Gone => format!("{token} {GONE}"),
        }
    }

    /// The value of the annotation [`EXPECTED`] on a Kustomization, whose source is to be looked at without a request to
    /// it.
    pub fn alone(hint: Option<Self>, token: &str) -> String {
        hint.map_or_else(|| format!("{token} {NEWS}"), |hint| hint.beside(token))
    }

    /// What is said of the source of a Kustomization: the value, which differs each time, and what it means. `None`
    /// within: that there is something new.
    pub(in crate::engine) fn of_source_of(object: &Kustomization) -> Option<(&str, Option<Self>)> {
        let text = object.annotation(EXPECTED)?;
        let (token, said) = text.split_once(' ')?;
        if said == NEWS {
            return Some((text, None));
        }
        Self::parse(text, token).map(|hint| (text, Some(hint)))
    }

    /// What the newest request says; `None` where it says nothing, or nothing that could be meant.
    pub(super) fn of(object: &GitRepository) -> Option<Self> {
        let annotation = |name| object.metadata.annotations.as_ref()?.get(name);
        Self::parse(annotation(EXPECTED)?, annotation(REQUESTED_AT)?)
    }

    fn parse(text: &str, token: &str) -> Option<Self> {
        let said = text.strip_prefix(token)?.strip_prefix(' ')?;
        if said == GONE {
            return Some(Self::Gone);
        }
        let digits = said.len() == COMMIT_DIGITS && said.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let commit = Oid::from_str(said).ok().filter(|commit| digits && !commit.is_zero())?;
        Some(Self::Commit(commit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_taken_only_with_the_request_that_it_came_with() {
        let digits = "0123456789abcdef0123456789abcdef01234567";
        let commit = Hint::Commit(Oid::from_str(digits).unwrap());
        for hint in [commit, Hint::Gone] {
            assert_eq!(Hint::parse(&hint.beside("2026-01-01T00:00:00Z"), "2026-01-01T00:00:00Z"), Some(hint));
            assert_eq!(Hint::parse(&hint.beside("2026-01-01T00:00:00Z"), "2026-01-01T00:00:01Z"), None);
        }
        let zero = "0".repeat(40);
        for nonsense in [
            "",
            "t",
            "t ",
            "t gone ",
            "t going",
            &format!("t{digits}"),
            &format!("t  {digits}"),
            &format!("t {}", &digits[1..]),
            &format!("t {digits}0"),
            &format!("t {}", digits.to_uppercase()),
            &format!("t {zero}"),
            &format!("t {}", "x".repeat(100_000)),
        ] {
            assert_eq!(Hint::parse(nonsense, "t"), None, "{nonsense:.60}");
        }
    }

    #[test]
    fn what_is_said_of_the_source_of_an_application_needs_no_request() {
        let digits = "0123456789abcdef0123456789abcdef01234567";
        let spec = serde_json::json!({
            "interval": "1m", "prune": true, "sourceRef": { "kind": "GitRepository", "name": "platform" },
        });
        let mut object = Kustomization::new("app", serde_json::from_value(spec).unwrap());
        assert_eq!(Hint::of_source_of(&object), None);
        let commit = Hint::Commit(Oid::from_str(digits).unwrap());
        for said in [None, Some(commit), Some(Hint::Gone)] {
            let text = Hint::alone(said, "2026-01-01T00:00:00Z");
            object.metadata.annotations = Some([(EXPECTED.to_owned(), text.clone())].into());
            assert_eq!(Hint::of_source_of(&object), Some((text.as_str(), said)));
        }
        for nonsense in ["", "news", "t ", "t newses", "t 0123"] {
            object.metadata.annotations = Some([(EXPECTED.to_owned(), nonsense.to_owned())].into());
            assert_eq!(Hint::of_source_of(&object), None, "{nonsense}");
        }
    }
}
