//! What somebody says that a source shows now, or will show soon; also as an annotation, in which a replica that doesn't
//! lead tells the one that does. The remote's word is the truth: a hint only says what to look for, and for how long.

use git2::Oid;

use crate::api::{EXPECTED, GitRepository, REQUESTED_AT};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The newest commit is this one.
    Commit(Oid),
    /// What the source follows is there no more.
    Gone,
}

const GONE: &str = "gone";
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
}
