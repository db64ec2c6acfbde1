//! Versions of tags and ranges of them: text in, "is it in the range" out. Pure.
//!
//! Ranges are written as Flux takes them (the syntax of the Go library Masterminds/semver, v3.4): comparisons joined by
//! spaces or commas, alternatives by `||`, wildcards, hyphens, `~` and `^`. Pre-releases are in a range only if one of
//! the comparisons they meet in names a pre-release, as in `>=1.0.0-0`.

use std::fmt;

use semver::{BuildMetadata, Prerelease, Version};

/// Longer ranges are a mistake: the longest ones in use have a handful of comparisons.
const RANGE_BYTES_MAX: usize = 256;

/// Alternatives; a version is in the range if it is in one of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VersionRange {
    text: String,
    alternatives: Vec<Alternative>,
}

/// Comparisons that must all hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Alternative {
    comparisons: Vec<Comparison>,
    /// One of them names a pre-release.
    with_prereleases: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Comparison {
    operator: Operator,
    /// What is wild or missing is zero here.
    version: Version,
    wild: Wild,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Tilde,
    Caret,
}

/// The first part of a version that is a wildcard or not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wild {
    None,
    Patch,
    Minor,
    Major,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("the version range is longer than {RANGE_BYTES_MAX} bytes")]
    TooLong,
    #[error("`{text}` is not a version range: an alternative is empty")]
    Empty { text: String },
    #[error("`{text}` is not a version range: `{part}` is not understood")]
    Part { text: String, part: String },
}

/// The version that a tag names, if it names one: three numbers, with or without a leading `v`.
pub fn of_tag(name: &str) -> Option<Version> {
    Version::parse(name.strip_prefix('v').unwrap_or(name)).ok()
}

impl VersionRange {
    pub fn parse(text: &str) -> Result<VersionRange, RangeError> {
        if text.len() > RANGE_BYTES_MAX {
            return Err(RangeError::TooLong);
        }
        let alternatives = text.split("||").map(|part| alternative(part, text)).collect::<Result<_, _>>()?;
        Ok(VersionRange { text: text.to_owned(), alternatives })
    }

    pub fn contains(&self, version: &Version) -> bool {
        self.alternatives.iter().any(|alternative| alternative.holds(version))
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Alternative {
    fn holds(&self, version: &Version) -> bool {
        self.comparisons.iter().all(|comparison| {
            // An exact exclusion says nothing of pre-releases.
            let exclusion = comparison.operator == Operator::NotEqual && comparison.wild == Wild::None;
            (version.pre.is_empty() || self.with_prereleases || exclusion) && comparison.holds(version)
        })
    }
}

impl Comparison {
    fn holds(&self, version: &Version) -> bool {
        let (wanted, order) = (&self.version, version.cmp_precedence(&self.version));
        let pair = |version: &Version| (version.major, version.minor);
        match (self.operator, self.wild) {
            (Operator::Equal, Wild::None) => order.is_eq(),
            (Operator::Equal | Operator::Tilde, Wild::Major) => order.is_ge(),
            (Operator::Equal | Operator::Tilde, Wild::Minor) => order.is_ge() && version.major == wanted.major,
            (Operator::Equal | Operator::Tilde, Wild::Patch) => order.is_ge() && pair(version) == pair(wanted),
            // A special case of the Go library: everything.
            (Operator::Tilde, Wild::None) if (wanted.major, wanted.minor, wanted.patch) == (0, 0, 0) => order.is_ge(),
            (Operator::Tilde, Wild::None) => order.is_ge() && pair(version) == pair(wanted),
            (Operator::NotEqual, Wild::None) => order.is_ne(),
            (Operator::NotEqual, Wild::Patch) => pair(version) != pair(wanted),
            (Operator::NotEqual, Wild::Minor) => version.major != wanted.major,
            (Operator::NotEqual, Wild::Major) => false,
            (Operator::Greater, Wild::Minor) => version.major > wanted.major,
            (Operator::Greater, Wild::Patch) => pair(version) > pair(wanted),
            (Operator::Greater, _) => order.is_gt(),
            (Operator::GreaterOrEqual, _) => order.is_ge(),
            (Operator::Less, _) => order.is_lt(),
            (Operator::LessOrEqual, Wild::None) => order.is_le(),
            (Operator::LessOrEqual, Wild::Minor) => version.major <= wanted.major,
            (Operator::LessOrEqual, Wild::Patch) => pair(version) <= pair(wanted),
            (Operator::LessOrEqual, Wild::Major) => true,
            (Operator::Caret, Wild::Major) => order.is_ge(),
            (Operator::Caret, Wild::Minor) => order.is_ge() && version.major == wanted.major,
            (Operator::Caret, _) if wanted.major > 0 => order.is_ge() && version.major == wanted.major,
            (Operator::Caret, Wild::Patch) => order.is_ge() && pair(version) == pair(wanted),
            (Operator::Caret, Wild::None) if wanted.minor > 0 => order.is_ge() && pair(version) == pair(wanted),
            (Operator::Caret, Wild::None) => {
                order.is_ge() && pair(version) == pair(wanted) && version.patch == wanted.patch
            }
        }
    }
}

fn alternative(part: &str, text: &str) -> Result<Alternative, RangeError> {
    let refused = |part: &str| RangeError::Part { text: text.to_owned(), part: part.to_owned() };
    let mut comparisons = Vec::new();
    let mut rest = part.trim();
    while !rest.is_empty() {
        let after_operator = rest.trim_start_matches(['=', '!', '<', '>', '~', '^']);
        let sign = &rest[..rest.len() - after_operator.len()];
        let operator = operator(sign).ok_or_else(|| refused(rest))?;
        let (word, after) = word(after_operator.trim_start());
        let (version, wild) = pattern(word).ok_or_else(|| refused(rest))?;
        // `1.2 - 1.4`: from the one to the other, both included.
        match after
            .trim_start()
            .strip_prefix("- ")
            .filter(|_| sign.is_empty() && after.starts_with(char::is_whitespace))
        {
            Some(upper) => {
                let (word, after) = self::word(upper.trim_start());
                let (to, to_wild) = pattern(word).ok_or_else(|| refused(rest))?;
                comparisons.push(Comparison { operator: Operator::GreaterOrEqual, version, wild });
                comparisons.push(Comparison { operator: Operator::LessOrEqual, version: to, wild: to_wild });
                rest = after;
            }
            None => {
                comparisons.push(Comparison { operator, version, wild });
                rest = after;
            }
        }
        let next = rest.trim_start();
        rest = match next.strip_prefix(',').map(str::trim_start) {
            Some("") => return Err(refused(part)),
            Some(next) => next,
            None => next,
        };
    }
    if comparisons.is_empty() {
        return Err(RangeError::Empty { text: text.to_owned() });
    }
    let with_prereleases = comparisons.iter().any(|comparison| !comparison.version.pre.is_empty());
    Ok(Alternative { comparisons, with_prereleases })
}

/// The text up to a space or comma, and what follows.
fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|character: char| character.is_whitespace() || character == ',').unwrap_or(text.len()))
}

fn operator(sign: &str) -> Option<Operator> {
    Some(match sign {
        "" | "=" => Operator::Equal,
        "!=" => Operator::NotEqual,
        ">" => Operator::Greater,
        ">=" | "=>" => Operator::GreaterOrEqual,
        "<" => Operator::Less,
        "<=" | "=<" => Operator::LessOrEqual,
        "~" | "~>" => Operator::Tilde,
        "^" => Operator::Caret,
        _ => return None,
    })
}

/// A version whose last parts may be wild or missing.
fn pattern(word: &str) -> Option<(Version, Wild)> {
    let word = word.strip_prefix('v').unwrap_or(word);
    let (word, build) = word.split_once('+').map_or((word, ""), |(word, build)| (word, build));
    let (numbers, prerelease) = word.split_once('-').map_or((word, ""), |(numbers, prerelease)| (numbers, prerelease));
    let parts: Vec<_> = numbers.split('.').collect();
    let is_wild = |part: &str| matches!(part, "x" | "X" | "*");
    // A leading zero is no number of a version.
    let is_number = |part: &str| part == "0" || (!part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit()));
    if parts.len() > 3 || !parts.iter().all(|part| !part.is_empty() && (is_wild(part) || is_number(part))) {
        return None;
    }
    let mut version = Version::new(0, 0, 0);
    version.pre = Prerelease::new(prerelease).ok()?;
    version.build = BuildMetadata::new(build).ok()?;
    let places = [Wild::Major, Wild::Minor, Wild::Patch];
    for (index, place) in places.into_iter().enumerate() {
        let Some(part) = parts.get(index).filter(|part| !is_wild(part)) else { return Some((version, place)) };
        let number = part.parse().ok()?;
        match place {
            Wild::Major => version.major = number,
            Wild::Minor => version.minor = number,
            _ => version.patch = number,
        }
    }
    Some((version, Wild::None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_flux_finds_in_them() {
        let cases: &[(&str, &str, &str)] = &[
            // range, versions in it, versions outside
            ("1.2.3", "1.2.3 1.2.3+build", "1.2.4 1.2.3-rc.1"),
            ("=v1.2.3", "1.2.3", "1.2.2"),
            ("!=1.2.3", "1.2.4 1.2.4-rc.1", "1.2.3"),
            ("!=1.x", "2.0.0", "1.9.9 2.0.0-rc.1"),
            ("!=1.2.x", "1.3.0", "1.2.9"),
            ("*", "0.0.1 9.9.9", "1.0.0-rc.1"),
            ("x.x", "0.0.1 9.9.9", "1.0.0-rc.1"),
            ("*-0", "1.0.0-rc.1 1.0.0", ""),
            ("1", "1.0.0 1.9.9", "0.9.9 2.0.0"),
            ("1.2", "1.2.0 1.2.9", "1.3.0"),
            ("1.2.*", "1.2.0 1.2.9", "1.3.0"),
            (">1.2.3", "1.2.4", "1.2.3"),
            (">11", "12.0.0", "11.1.0"),
            (">11.1", "11.2.0", "11.1.9"),
            (">=1.0.0 <2.0.0", "1.0.0 1.9.9", "2.0.0 2.0.0-rc.1 1.5.0-rc.1"),
            (">= 1.0.0, < 2.0.0", "1.0.0 1.9.9", "2.0.0"),
            (">=1.0.0-0 <2.0.0", "1.0.0-rc.1 1.5.0-rc.1 2.0.0-rc.1", "2.0.0"),
            (">=1.2.3-beta.2", "1.2.3-beta.10 1.2.3 1.3.0-alpha", "1.2.3-beta.1"),
            ("=>1.0.0 =<1.1.0", "1.0.0 1.1.0", "1.1.1"),
            ("<=1.2", "1.2.9 0.1.0", "1.3.0"),
            ("<=1", "1.9.9", "2.0.0"),
            ("<1.2", "1.1.9", "1.2.0"),
            ("~1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"),
            ("~>1.2", "1.2.0 1.2.9", "1.3.0"),
            ("~1", "1.0.0 1.9.9", "2.0.0"),
            ("~0.0.0", "0.0.0 3.0.0", ""),
            ("^1.2.3", "1.2.3 1.9.9", "2.0.0 1.2.2"),
            ("^1", "1.0.0 1.9.9", "2.0.0"),
            ("^0.2.3", "0.2.3 0.2.9", "0.3.0"),
            ("^0.2", "0.2.0 0.2.9", "0.3.0"),
            ("^0.0.3", "0.0.3", "0.0.4"),
            ("^0.0", "0.0.0 0.0.9", "0.1.0"),
            ("^0", "0.0.0 0.9.9", "1.0.0"),
            ("^*", "1.2.3", "1.2.3-rc.1"),
            ("1.2 - 1.4.5", "1.2.0 1.4.5", "1.1.9 1.4.6"),
            ("1.2 - 1.4 || 2.x", "1.4.9 2.3.4", "1.5.0 3.0.0"),
            ("~1.2 || ^3.4.5-rc.1", "1.2.7 3.4.5-rc.2 3.9.0", "1.2.7-rc.1 3.4.5-alpha"),
        ];
        for (text, inside, outside) in cases {
            let range = VersionRange::parse(text).unwrap_or_else(|error| panic!("{error}"));
            for (versions, expected) in [(inside, true), (outside, false)] {
                for version in versions.split_whitespace() {
                    assert_eq!(range.contains(&Version::parse(version).unwrap()), expected, "{version} in {text}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_range_is_refused_with_its_part() {
        let cases = [
            ("", "`` is not a version range: an alternative is empty"),
            ("1.0 ||", "`1.0 ||` is not a version range: an alternative is empty"),
            ("latest", "`latest` is not a version range: `latest` is not understood"),
            (">=1.0 beta", "`>=1.0 beta` is not a version range: `beta` is not understood"),
            ("1.02.3", "`1.02.3` is not a version range: `1.02.3` is not understood"),
            ("1.2.3.4", "`1.2.3.4` is not a version range: `1.2.3.4` is not understood"),
            (">>1", "`>>1` is not a version range: `>>1` is not understood"),
            (">=1.0,", "`>=1.0,` is not a version range: `>=1.0,` is not understood"),
            (">1<2", "`>1<2` is not a version range: `>1<2` is not understood"),
        ];
        for (text, message) in cases {
            assert_eq!(VersionRange::parse(text).unwrap_err().to_string(), message);
        }
        assert_eq!(VersionRange::parse(&"1 ".repeat(200)), Err(RangeError::TooLong));
    }

    #[test]
    fn tags_name_versions_with_three_numbers() {
        for (tag, version) in [("v1.2.3", Some("1.2.3")), ("1.2.3-rc.1+b", Some("1.2.3-rc.1+b"))] {
            assert_eq!(of_tag(tag).map(|version| version.to_string()).as_deref(), version);
        }
        for tag in ["1.2", "v1", "release-1.2.3", "app/v1.2.3", "1.2.3.4", "vv1.2.3", ""] {
            assert_eq!(of_tag(tag), None, "{tag}");
        }
    }
}
