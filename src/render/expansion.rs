//! The expressions of `postBuild`: `${…}` in a text, as Flux's substitution evaluates them.
//!
//! In: a text and variables. Out: the text with their values. What the expressions give is recorded from Flux's own
//! package in tests/overlay/expressions.json. Evaluated while it is read; bounded in depth and in what it makes.

use std::collections::{BTreeMap, BTreeSet};

use super::glob;
use crate::manifest::yaml;

/// Expressions within expressions.
const MAX_NESTING: usize = 16;

pub(super) type Variables = BTreeMap<String, String>;
/// What was made of variables' values, by the variable: of a secret value it is as secret.
pub(super) type Derived = BTreeSet<(String, String)>;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// No value and no default.
    Undefined {
        name: String,
    },
    /// Not one of the forms. As much of it as says which form it is, and nothing of its argument.
    Form {
        expression: String,
    },
    Unclosed {
        expression: String,
    },
    /// A slice that ends within a character, or before it begins.
    Slice {
        expression: String,
    },
    TooLong,
}

/// Replaces all expressions of a text.
pub(super) fn expand(text: &str, variables: &Variables, derived: &mut Derived) -> Result<String, Problem> {
    let mut expander = Expander { variables, derived, rest: text, made: 0 };
    let mut out = String::with_capacity(text.len());
    loop {
        let Some(offset) = expander.rest.find('$') else {
            out.push_str(expander.rest);
            return Ok(out);
        };
        out.push_str(&expander.rest[..offset]);
        expander.rest = &expander.rest[offset..];
        if expander.rest.starts_with("${") {
            out.push_str(&expander.expression(0)?);
        } else {
            let taken = if expander.rest.starts_with("$$") { 2 } else { 1 };
            out.push('$');
            expander.rest = &expander.rest[taken..];
        }
        if out.len() as u64 > yaml::MAX_FILE_BYTES {
            return Err(Problem::TooLong);
        }
    }
}

struct Expander<'a> {
    variables: &'a Variables,
    derived: &'a mut Derived,
    rest: &'a str,
    /// Bytes that expressions gave.
    made: u64,
}

/// A form of expression with its arguments.
enum Operation {
    Value,
    Length,
    /// `:=`, `:-`, `=`, and `:?` and `:+`, which Flux takes for the same.
    Default(String),
    /// `^`, `^^`, `,`, `,,`.
    Case(String),
    Slice {
        from: String,
        length: Option<String>,
    },
    /// `/`, `//`, `/#`, `/%`; without a replacement, what is found goes.
    Replace {
        how: &'static str,
        from: String,
        to: Option<String>,
    },
    /// `#`, `##`, `%`, `%%`.
    Remove {
        how: &'static str,
        pattern: String,
    },
}

impl<'a> Expander<'a> {
    /// Reads an expression at `${` and gives its value.
    fn expression(&mut self, nesting: usize) -> Result<String, Problem> {
        let start = Start { text: self.rest, name_length: 0 };
        if nesting > MAX_NESTING {
            return Err(start.form(1));
        }
        self.rest = &self.rest[2..];
        if let Some(rest) = self.rest.strip_prefix('#') {
            self.rest = rest;
            let name = self.name();
            if name.is_empty() {
                return Err(start.form(1));
            }
            self.close(&start)?;
            return self.evaluate(name, Operation::Length, &start);
        }
        let name = self.name();
        if name.is_empty() {
            return Err(start.form(1));
        }
        let start = Start { name_length: name.len(), ..start };
        let operation = self.operation(&start, nesting)?;
        self.close(&start)?;
        self.evaluate(name, operation, &start)
    }

    fn name(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name
    }

    /// Reads what follows the name, up to the closing brace.
    fn operation(&mut self, start: &Start<'_>, nesting: usize) -> Result<Operation, Problem> {
        if self.rest.starts_with('}') {
            return Ok(Operation::Value);
        }
        if self.takes(&[":=", ":-", ":?", ":+", "="]).is_some() {
            return self.default(start, nesting).map(Operation::Default);
        }
        if self.takes(&[":"]).is_some() {
            let from = self.word(start, nesting, false, |c| c == ':' || c == '}')?;
            let mut length = None;
            if self.rest.starts_with(':') {
                self.rest = self.rest.trim_start_matches(':');
                length = Some(self.word(start, nesting, false, |c| c == '}')?);
            }
            return Ok(Operation::Slice { from, length });
        }
        if self.rest.starts_with([',', '^']) {
            let length = self.rest.chars().take(2).take_while(|c| [',', '^'].contains(c)).count();
            let (how, rest) = self.rest.split_at(length);
            self.rest = rest;
            return Ok(Operation::Case(how.to_owned()));
        }
        if let Some(how) = self.takes(&["//", "/#", "/%", "/"]) {
            let from = self.word(start, nesting, true, |c| c == '/')?;
            if !self.rest.starts_with('/') {
                return Err(start.form(2));
            }
            self.rest = self.rest.trim_start_matches('/');
            let to =
                if self.rest.starts_with('}') { None } else { Some(self.word(start, nesting, true, |c| c == '}')?) };
            return Ok(Operation::Replace { how, from, to });
        }
        if let Some(how) = self.takes(&["##", "#", "%%", "%"]) {
            let pattern = self.word(start, nesting, false, |c| c == '}')?;
            return Ok(Operation::Remove { how, pattern });
        }
        let is_unclosed = self.rest.chars().next().is_none_or(char::is_whitespace);
        Err(if is_unclosed { start.unclosed() } else { start.form(1) })
    }

    /// Takes the first of some marks that is next.
    fn takes(&mut self, marks: &[&'static str]) -> Option<&'static str> {
        let mark = marks.iter().find(|mark| self.rest.starts_with(**mark))?;
        self.rest = &self.rest[mark.len()..];
        Some(mark)
    }

    /// One argument: an expression, or text up to where it ends or an expression begins.
    fn word(
        &mut self,
        start: &Start<'_>,
        nesting: usize,
        has_escapes: bool,
        ends: impl Fn(char) -> bool,
    ) -> Result<String, Problem> {
        if self.rest.starts_with("${") {
            return self.expression(nesting + 1);
        }
        let mut word = String::new();
        while let Some(c) = self.rest.chars().next() {
            let is_escape = has_escapes && ["$$", "\\/", "\\\\"].iter().any(|escape| self.rest.starts_with(escape));
            if is_escape {
                word.push_str(&self.rest[1..2]);
                self.rest = &self.rest[2..];
            } else if ends(c) || self.rest.starts_with("${") {
                break;
            } else {
                word.push(c);
                self.rest = &self.rest[c.len_utf8()..];
            }
        }
        match (word.is_empty(), self.rest.is_empty()) {
            (false, _) => Ok(word),
            (true, true) => Err(start.unclosed()),
            (true, false) => Err(start.form(2)),
        }
    }

    /// Text and expressions up to the brace.
    fn default(&mut self, start: &Start<'_>, nesting: usize) -> Result<String, Problem> {
        let mut default = String::new();
        while !self.rest.starts_with('}') {
            default.push_str(&self.word(start, nesting, false, |c| c == '}')?);
        }
        Ok(default)
    }

    fn close(&mut self, start: &Start<'_>) -> Result<(), Problem> {
        self.rest = self.rest.strip_prefix('}').ok_or_else(|| start.unclosed())?;
        Ok(())
    }

    fn evaluate(&mut self, name: &str, operation: Operation, start: &Start<'_>) -> Result<String, Problem> {
        let value = self.variables.get(name).map(|value| value.replace('\n', ""));
        let result = match (&operation, value) {
            (Operation::Default(default), value) => {
                value.filter(|value| !value.is_empty()).unwrap_or_else(|| default.clone())
            }
            (_, None) => return Err(Problem::Undefined { name: name.to_owned() }),
            (Operation::Value, Some(value)) => value,
            (operation, Some(value)) => {
                let result = operation.result(&value, start)?;
                if !result.is_empty() && result != value {
                    self.derived.insert((name.to_owned(), result.clone()));
                }
                result
            }
        };
        self.made += result.len() as u64;
        if self.made > 2 * yaml::MAX_FILE_BYTES { Err(Problem::TooLong) } else { Ok(result) }
    }
}

impl Operation {
    /// What it makes of a value.
    fn result(&self, value: &str, start: &Start<'_>) -> Result<String, Problem> {
        Ok(match self {
            Self::Value | Self::Default(_) => value.to_owned(),
            Self::Length => value.len().to_string(),
            Self::Case(how) => case(how, value),
            Self::Slice { from, length } => {
                slice(value, from, length.as_deref()).ok_or_else(|| start.slice())?.to_owned()
            }
            Self::Replace { how, from, to } => replace(how, value, from, to.as_deref())?,
            Self::Remove { how, pattern } => remove(how, value, pattern).map_err(|_| Problem::TooLong)?,
        })
    }
}

fn case(how: &str, value: &str) -> String {
    let mut chars = value.chars();
    match how {
        "^^" => chars.map(upper).collect(),
        ",," => chars.map(lower).collect(),
        "^" => chars.next().map(upper).into_iter().chain(chars).collect(),
        "," => chars.next().map(lower).into_iter().chain(chars).collect(),
        _ => value.to_owned(),
    }
}

/// Go maps a character to one character, or leaves it.
fn upper(c: char) -> char {
    let mut mapped = c.to_uppercase();
    mapped.next().filter(|_| mapped.next().is_none()).unwrap_or(c)
}

fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

/// A part of a text by bytes, counted from its end if negative. What is no number leaves the text as it is. `None` if it
/// would end before it begins, or within a character.
fn slice<'a>(value: &'a str, from: &str, length: Option<&str>) -> Option<&'a str> {
    let Ok(from) = from.parse::<i64>() else { return Some(value) };
    let size = i64::try_from(value.len()).ok()?;
    let from = if from < 0 { (size + from).max(0) } else { from };
    let length = match length.map(str::parse::<i64>) {
        None => i64::MAX,
        Some(Ok(length)) => length,
        Some(Err(_)) => return Some(value),
    };
    let end = from.saturating_add(length);
    match () {
        () if end >= size && from >= size => Some(""),
        () if end >= size => value.get(usize::try_from(from).ok()?..),
        () => value.get(usize::try_from(from).ok()?..usize::try_from(end).ok()?),
    }
}

fn replace(how: &str, value: &str, from: &str, to: Option<&str>) -> Result<String, Problem> {
    match (how, to) {
        ("/", to) => Ok(value.replacen(from, to.unwrap_or_default(), 1)),
        ("//", to) => {
            let to = to.unwrap_or_default();
            let count = value.matches(from).count();
            if (count.saturating_mul(to.len()) + value.len()) as u64 > yaml::MAX_FILE_BYTES {
                return Err(Problem::TooLong);
            }
            Ok(value.replace(from, to))
        }
        ("/#", Some(to)) if value.starts_with(from) => Ok(value.replacen(from, to, 1)),
        ("/%", Some(to)) => Ok(value.strip_suffix(from).map_or(value.to_owned(), |rest| format!("{rest}{to}"))),
        // Flux leaves the value as it is where nothing is to stand at its beginning or end
        _ => Ok(value.to_owned()),
    }
}

/// Takes what a pattern matches off the beginning, or off the end: then text and pattern are read backwards, as Flux
/// does.
fn remove(how: &str, value: &str, pattern: &str) -> Result<String, glob::TooLong> {
    let reversed = |text: &str| text.chars().rev().collect::<String>();
    match how {
        "#" | "##" => {
            let found = glob::prefixes(pattern, value)?;
            let length = found.map_or(0, |found| if how == "#" { found.shortest } else { found.longest });
            Ok(value[length..].to_owned())
        }
        _ => {
            let how = if how == "%" { "#" } else { "##" };
            Ok(reversed(&remove(how, &reversed(value), &reversed(pattern))?))
        }
    }
}

/// Where an expression begins.
struct Start<'a> {
    text: &'a str,
    name_length: usize,
}

impl Start<'_> {
    /// `${`, the name and so many characters after it.
    fn shown(&self, more: usize) -> String {
        let (named, rest) = self.text.split_at(2 + self.name_length);
        named.chars().chain(rest.chars().take(more).take_while(|c| !c.is_alphanumeric())).collect()
    }

    fn form(&self, more: usize) -> Problem {
        Problem::Form { expression: self.shown(more) }
    }

    fn unclosed(&self) -> Problem {
        Problem::Unclosed { expression: self.shown(0) }
    }

    fn slice(&self) -> Problem {
        Problem::Slice { expression: self.shown(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Recorded {
        variables: Variables,
        answers: Vec<Answer>,
    }

    #[derive(serde::Deserialize)]
    struct Answer {
        text: String,
        gives: Option<String>,
    }

    /// Flux cuts by bytes, here it is by characters: what it leaves of one is never what someone wants.
    const CUT: char = '\u{fffd}';

    #[test]
    fn expressions_give_what_flux_gives() {
        let recorded: Recorded =
            serde_json::from_str(include_str!("../../tests/overlay/expressions.json")).expect("a recording");
        let mut wrong = Vec::new();
        for Answer { text, gives } in &recorded.answers {
            let ours = expand(text, &recorded.variables, &mut Derived::new());
            if gives.as_ref().is_some_and(|gives| gives.contains(CUT)) {
                continue;
            }
            if ours.as_ref().ok() != gives.as_ref() {
                wrong.push(format!("{text}\n  ours:   {ours:?}\n  theirs: {gives:?}"));
            }
        }
        let all = recorded.answers.len();
        assert!(all > 1000 && wrong.is_empty(), "{} of {all} differ:\n{}", wrong.len(), wrong.join("\n"));
    }

    #[test]
    fn mistakes_are_named_without_their_arguments() {
        let variables: Variables = [("a", "1"), ("ä", "1"), ("uni", "ä")].map(|(k, v)| (k.into(), v.into())).into();
        let form = |expression: &str| Problem::Form { expression: expression.into() };
        let unclosed = |expression: &str| Problem::Unclosed { expression: expression.into() };
        let slice = |expression: &str| Problem::Slice { expression: expression.into() };
        let deep = "${n:=".repeat(MAX_NESTING + 2);
        for (text, problem) in [
            ("${none}", Problem::Undefined { name: "none".into() }),
            ("${#none}", Problem::Undefined { name: "none".into() }),
            ("${a:=${none}}", Problem::Undefined { name: "none".into() }),
            ("${a-secret}", form("${a-")),
            ("${a?secret}", form("${a?")),
            ("${}", form("${}")),
            ("${ a}", form("${ ")),
            ("${#}", form("${#")),
            ("${a:}", form("${a:}")),
            ("${a#}", form("${a#}")),
            ("${a/x}", form("${a/")),
            ("${a", unclosed("${a")),
            ("${a b}", unclosed("${a")),
            ("${a:=secret", unclosed("${a")),
            ("${a^^b}", unclosed("${a")),
            ("${a:0:-1}", slice("${a:")),
            ("${uni:1}", slice("${uni:")),
            (&deep, form("${")),
        ] {
            assert_eq!(expand(text, &variables, &mut Derived::new()), Err(problem), "{text}");
        }
    }

    #[test]
    fn what_is_made_of_a_value_is_told_with_its_variable() {
        let variables: Variables = [("secret", "Passw0rd"), ("plain", "x")].map(|(k, v)| (k.into(), v.into())).into();
        let mut derived = Derived::new();
        let text = "${secret} ${secret^^} ${plain:-${secret:0:4}} ${none:=${secret//0/o}} ${plain:0:9}";
        assert!(expand(text, &variables, &mut derived).is_ok());
        let found: Vec<_> = derived.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [("secret", "PASSW0RD"), ("secret", "Pass"), ("secret", "Password")]);
    }

    #[test]
    fn what_grows_without_end_is_refused() {
        let variables: Variables =
            [("many", "a".repeat(1 << 16)), ("long", "b".repeat(1 << 16))].map(|(k, v)| (k.to_owned(), v)).into();
        assert_eq!(expand("${many//a/${long}}", &variables, &mut Derived::new()), Err(Problem::TooLong));
        let text = "${none:=${long}${long}${long}${long}}".repeat(100);
        assert_eq!(expand(&text, &variables, &mut Derived::new()), Err(Problem::TooLong));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[${}:=a\\-é #%/^,?*\\[\\]\\\\0-9]{0,40}") {
            let variables = Variables::from([("a".to_owned(), "aé-9".to_owned())]);
            let _ = expand(&text, &variables, &mut Derived::new());
        }
    }
}
