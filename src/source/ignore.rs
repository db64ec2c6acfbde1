//! Which files of a repository a source leaves out: the built-in exclusions, `.sourceignore` files, `spec.ignore`. Pure.
//!
//! The syntax is gitignore's, but the meaning is Flux's: every pattern is tried on the file and all its parents, and the
//! last one that matches decides. So `/*` followed by `!/apps/prod` leaves exactly `apps/prod`, which Git itself would
//! not allow. This is why no gitignore library is used. As with Flux, patterns of the user replace the built-in ones
//! except those for Git's own files; a nested `.sourceignore` does so below its own folder only.

use std::sync::Arc;

/// The name of the files that are read in every directory.
pub const IGNORE_FILE: &str = ".sourceignore";
/// A longer file of patterns is refused.
pub const IGNORE_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Always left out.
const VERSION_CONTROL: [&str; 4] = [".git/", ".gitignore", ".gitmodules", ".gitattributes"];
/// Left out unless the user gives patterns: Flux's list.
const DEFAULTS: [&str; 20] = [
    "*.jpg",
    "*.jpeg",
    "*.gif",
    "*.png",
    "*.wmv",
    "*.flv",
    "*.tar.gz",
    "*.zip",
    ".github/",
    ".circleci/",
    ".travis.yml",
    ".gitlab-ci.yml",
    "appveyor.yml",
    ".drone.yml",
    "cloudbuild.yaml",
    "codeship-services.yml",
    "codeship-steps.yml",
    "**/.goreleaser.yml",
    "**/.sops.yaml",
    "**/.flux.yaml",
];

/// The patterns that hold for the entries of one directory, weakest first.
#[derive(Clone, Debug)]
pub struct Rules {
    version_control: Arc<[Pattern]>,
    defaults: Arc<[Pattern]>,
    /// From `.sourceignore` files on the way down: the depth of each file's directory, and its patterns.
    files: Vec<(usize, Arc<[Pattern]>)>,
    spec: Arc<[Pattern]>,
}

/// What is to be done with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Visible,
    /// Left out, with everything below it.
    Hidden,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    elements: Vec<Element>,
    negated: bool,
    directories_only: bool,
    /// Holds a slash that is not at its end: matches from its directory on, not at any depth.
    anchored: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Element {
    /// `**`: any number of directories.
    AnyDepth,
    Literal(String),
    /// `*` followed by plain text.
    Suffix(String),
    Glob(Vec<char>),
}

impl Rules {
    /// The rules at the root of a repository, before its `.sourceignore`.
    pub fn new(spec_ignore: Option<&str>) -> Rules {
        let built_in = |patterns: &[&str]| patterns.iter().filter_map(|line| Pattern::parse(line)).collect();
        Rules {
            version_control: built_in(&VERSION_CONTROL),
            defaults: built_in(&DEFAULTS),
            files: Vec::new(),
            spec: parse(spec_ignore.unwrap_or("")),
        }
    }

    /// The rules below a directory, `depth` names under the root, that has a `.sourceignore` of these patterns.
    pub fn descend(&self, depth: usize, patterns: Arc<[Pattern]>) -> Rules {
        let mut rules = self.clone();
        if !patterns.is_empty() {
            rules.files.push((depth, patterns));
        }
        rules
    }

    /// Decides about a path that was reached through visible directories.
    ///
    /// A directory that is excluded stays visible if a later pattern may include something below it.
    pub fn verdict(&self, path: &[&str], is_directory: bool) -> Verdict {
        let own = !self.spec.is_empty() || !self.files.is_empty();
        let defaults: &[Pattern] = if own { &[] } else { &self.defaults };
        let strongest_first = [(0, &*self.spec)]
            .into_iter()
            .chain(self.files.iter().rev().map(|(depth, patterns)| (*depth, &**patterns)))
            .chain([(0, defaults), (0, &*self.version_control)]);
        // The first match decides.
        let mut included_below = false;
        for (depth, patterns) in strongest_first {
            let Some(path) = path.get(depth..).filter(|path| !path.is_empty()) else { continue };
            for pattern in patterns.iter().rev() {
                if pattern.matches(path, is_directory) {
                    return if pattern.negated || included_below { Verdict::Visible } else { Verdict::Hidden };
                }
                included_below |= is_directory && pattern.negated && pattern.may_match_below(path);
            }
        }
        Verdict::Visible
    }
}

/// Reads the lines of a `.sourceignore` file or of `spec.ignore`.
pub fn parse(text: &str) -> Arc<[Pattern]> {
    text.lines().filter_map(Pattern::parse).collect()
}

impl Pattern {
    fn parse(line: &str) -> Option<Pattern> {
        if line.starts_with('#') || line.trim().is_empty() {
            return None;
        }
        let (negated, line) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
        let line = if line.ends_with("\\ ") { line } else { line.trim_end_matches(' ') };
        let (directories_only, line) = line.strip_suffix('/').map_or((false, line), |rest| (true, rest));
        let anchored = line.contains('/');
        let elements: Vec<_> = line.split('/').filter(|element| !element.is_empty()).map(Element::parse).collect();
        (!elements.is_empty()).then_some(Pattern { elements, negated, directories_only, anchored })
    }

    /// Whether this path or one of its parents is meant.
    fn matches(&self, path: &[&str], is_directory: bool) -> bool {
        let reaches = |consumed: usize| !self.directories_only || is_directory || consumed < path.len();
        if self.anchored {
            anchored_match(&self.elements, path, 0).is_some_and(reaches)
        } else {
            let meant = |name: &&str| self.elements.first().is_some_and(|element| element.matches(name));
            path.iter().position(meant).is_some_and(|index| reaches(index + 1))
        }
    }

    /// Whether something below this directory could be meant.
    fn may_match_below(&self, directory: &[&str]) -> bool {
        !self.anchored || prefix_match(&self.elements, directory)
    }
}

/// How many names the elements use up, at least one; the names after them are below what is meant.
fn anchored_match(elements: &[Element], path: &[&str], consumed: usize) -> Option<usize> {
    match elements.split_first() {
        None => (consumed > 0).then_some(consumed),
        // At the end `**` means everything below.
        Some((Element::AnyDepth, [])) => (consumed > 0 || !path.is_empty()).then(|| consumed.max(1)),
        Some((Element::AnyDepth, rest)) => {
            (0..path.len()).find_map(|skipped| anchored_match(rest, &path[skipped..], consumed + skipped))
        }
        Some((element, rest)) => {
            let (name, below) = path.split_first()?;
            element.matches(name).then(|| anchored_match(rest, below, consumed + 1)).flatten()
        }
    }
}

/// Whether the directory is on a way that the elements describe.
fn prefix_match(elements: &[Element], directory: &[&str]) -> bool {
    match (elements.split_first(), directory.split_first()) {
        (_, None) | (Some((Element::AnyDepth, _)), _) => true,
        (None, Some(_)) => false,
        (Some((element, rest)), Some((name, below))) => element.matches(name) && prefix_match(rest, below),
    }
}

impl Element {
    fn parse(text: &str) -> Element {
        let special = |text: &str| text.contains(['*', '?', '[', '\\']);
        match text.strip_prefix('*') {
            Some("*") => Element::AnyDepth,
            Some(rest) if !special(rest) => Element::Suffix(rest.to_owned()),
            _ if special(text) => Element::Glob(text.chars().collect()),
            _ => Element::Literal(text.to_owned()),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Element::AnyDepth => true,
            Element::Literal(text) => name == text,
            Element::Suffix(text) => name.ends_with(text.as_str()),
            Element::Glob(pattern) => glob(pattern, &name.chars().collect::<Vec<_>>()),
        }
    }
}

/// Shell patterns inside one name: `*`, `?`, `[a-z]`, `[!a-z]`, `\x`. Linear in memory, at worst quadratic in time.
fn glob(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match one(&pattern[p..], name[n]) {
            One::Star => {
                p += 1;
                star = Some((p, n));
            }
            One::Matched(length) => {
                p += length;
                n += 1;
            }
            One::Not => match star {
                Some((after, from)) => {
                    p = after;
                    n = from + 1;
                    star = Some((after, n));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|character| *character == '*')
}

enum One {
    Star,
    /// The length of the pattern's part that took the character.
    Matched(usize),
    Not,
}

fn one(pattern: &[char], character: char) -> One {
    let matched = |yes: bool, length: usize| if yes { One::Matched(length) } else { One::Not };
    match pattern {
        [] => One::Not,
        ['*', ..] => One::Star,
        ['?', ..] => One::Matched(1),
        ['\\', escaped, ..] => matched(*escaped == character, 2),
        ['[', class @ ..] => match class_match(class, character) {
            Some((yes, length)) => matched(yes, length + 1),
            // Without its closing bracket the class matches nothing, as in Go.
            None => One::Not,
        },
        [plain, ..] => matched(*plain == character, 1),
    }
}

/// Whether the character is in the class that follows a `[`, and how long the class is with its `]`.
fn class_match(class: &[char], character: char) -> Option<(bool, usize)> {
    let inverted = matches!(class.first(), Some('!' | '^'));
    let mut index = usize::from(inverted);
    let mut found = false;
    let mut first = true;
    loop {
        match class.get(index)? {
            ']' if !first => return Some((found != inverted, index + 1)),
            _ => {
                let (low, next) = class_character(class, index)?;
                let (high, next) = match (class.get(next), class.get(next + 1)) {
                    (Some('-'), Some(end)) if *end != ']' => class_character(class, next + 1)?,
                    _ => (low, next),
                };
                found |= (low..=high).contains(&character);
                index = next;
            }
        }
        first = false;
    }
}

fn class_character(class: &[char], index: usize) -> Option<(char, usize)> {
    match class.get(index)? {
        '\\' => Some((*class.get(index + 1)?, index + 2)),
        plain => Some((*plain, index + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visible(rules: &Rules, path: &str) -> bool {
        let (path, is_directory) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
        rules.verdict(&path.split('/').collect::<Vec<_>>(), is_directory) == Verdict::Visible
    }

    #[test]
    fn the_built_in_exclusions_are_those_of_flux() {
        let rules = Rules::new(None);
        for hidden in [
            ".gitignore",
            "a/.gitmodules",
            "logo.png",
            "a/b/c.tar.gz",
            ".github/",
            ".github/workflows/ci.yaml",
            "a/.travis.yml",
            ".sops.yaml",
            "a/.flux.yaml",
        ] {
            assert!(!visible(&rules, hidden), "{hidden}");
        }
        for shown in ["apps/", "apps/web.yaml", "github/x.yaml", "png", "my.gitignore.yaml", "sops.yaml"] {
            assert!(visible(&rules, shown), "{shown}");
        }
    }

    #[test]
    fn own_patterns_replace_the_defaults_but_not_those_for_git_itself() {
        let rules = Rules::new(Some("# nothing of the tests\ntests/\n"));
        let cases = [("logo.png", true), (".github/x.yaml", true), (".gitignore", false), ("a/tests/b.yaml", false)];
        for (path, expected) in cases {
            assert_eq!(visible(&rules, path), expected, "{path}");
        }
        assert!(!visible(&Rules::new(Some("# only a comment\n\n")), "logo.png"));
    }

    #[test]
    fn what_is_excluded_can_be_included_again_below() {
        let rules = Rules::new(Some("/*\n!/apps/prod\n"));
        let cases = [
            ("apps/", true),
            ("apps/prod/", true),
            ("apps/prod/web.yaml", true),
            ("apps/test/", false),
            ("apps/test/web.yaml", false),
            ("apps/readme.md", false),
            ("docs/", false),
            ("top.yaml", false),
        ];
        for (path, expected) in cases {
            assert_eq!(visible(&rules, path), expected, "{path}");
        }
    }

    #[test]
    fn patterns_mean_what_they_mean_in_gitignore() {
        let cases = [
            ("a", "a", true),
            ("a", "x/a", true),
            ("a", "x/a/y", true),
            ("a/", "a", false),
            ("a/", "a/", true),
            ("a/", "a/x", true),
            ("/a", "x/a", false),
            ("/a", "a/x", true),
            ("x/a", "x/a", true),
            ("x/a", "y/x/a", false),
            ("**/a", "a", true),
            ("**/a", "x/y/a", true),
            ("x/**", "x/y", true),
            ("x/**/a", "x/a", true),
            ("x/**/a", "x/y/z/a", true),
            ("x/**/a", "y/a", false),
            ("x/**/a/**/b", "x/a/c/a/b", true),
            ("*.yaml", "x/a.yaml", true),
            ("*.yaml", "a.yml", false),
            ("a?c", "abc", true),
            ("a[b-d]c", "acc", true),
            ("a[!b-d]c", "acc", false),
            ("a[^b-d]c", "axc", true),
            ("[]]", "]", true),
            ("a[", "a[", false),
            ("\\#a", "#a", true),
            ("\\!a", "!a", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("trailing   ", "trailing", true),
            ("*", "anything", true),
        ];
        for (pattern, path, expected) in cases {
            let pattern = Pattern::parse(pattern).unwrap();
            let (path, is_directory) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
            assert_eq!(
                pattern.matches(&path.split('/').collect::<Vec<_>>(), is_directory),
                expected,
                "{pattern:?} {path}"
            );
        }
    }

    #[test]
    fn a_nested_file_speaks_for_its_own_folder_and_over_its_parents() {
        let root = Rules::new(None).descend(0, parse("*.txt"));
        let nested = root.descend(1, parse("!keep.txt\n/top.yaml"));
        assert!(!visible(&root, "apps/keep.txt"));
        assert!(visible(&nested, "apps/keep.txt"));
        assert!(!visible(&nested, "apps/top.yaml"));
        assert!(visible(&nested, "apps/sub/top.yaml"));
        assert!(!visible(&Rules::new(Some("*.txt")).descend(1, parse("!keep.txt")), "apps/keep.txt"), "the spec wins");
    }
}
