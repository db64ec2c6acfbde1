//! `postBuild`: `${name}` in the text of an object becomes a variable's value, as Flux does it.
//!
//! The object is written as YAML, substituted as text and read again; so a number or a list can come out of a variable.
//! Served: `${v}`, `${v:=d}`, `${v:-d}` (the default if `v` is not given or empty; it may contain `${…}`) and `$$` for
//! a dollar sign. A variable without value and default is an error. No error contains a value.

use std::collections::BTreeMap;

use super::error::RenderError;
use super::objects::{Draft, Text};
use crate::manifest::{SourceError, yaml};

/// An annotation or label with the value `disabled` on objects whose `${…}` is text.
const SUBSTITUTE: &str = "kustomize.toolkit.fluxcd.io/substitute";
/// Defaults within defaults.
const MAX_NESTING: usize = 16;

type Variables = BTreeMap<String, String>;

/// Refuses names that can't be written as `${name}`, as Flux does.
pub(super) fn check_names(variables: &Variables) -> Result<(), RenderError> {
    let valid = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(is_name_character)
    };
    match variables.keys().find(|name| !valid(name)) {
        Some(name) => Err(RenderError::VariableName { name: name.clone() }),
        None => Ok(()),
    }
}

/// Substitutes in an object, unless it says that it doesn't want to.
pub(super) fn apply(draft: &mut Draft, texts: &[Text], variables: &Variables) -> Result<(), SourceError> {
    let disabled = |field| draft.text_at(&["metadata", field, SUBSTITUTE]) == Some("disabled");
    if disabled("annotations") || disabled("labels") {
        return Ok(());
    }
    let written = yaml::write(&draft.value);
    if !written.contains("${") && !written.contains("$$") {
        return Ok(());
    }
    let text = &texts[draft.place.text];
    let substituted = substitute(&written, variables).map_err(|problem| problem.at(draft, text))?;
    // The reader's message may quote a key or an anchor, which may be a value now.
    let read = yaml::single(&text.path, substituted.as_bytes()).map_err(|_| unreadable(draft, text))?;
    if !read.value.is_object() {
        return Err(unreadable(draft, text));
    }
    draft.value = read.value;
    Ok(())
}

fn unreadable(draft: &Draft, text: &Text) -> SourceError {
    let message = format!("{} is no YAML mapping any more after substitution", describe(draft));
    text.error(draft.place, &[], message)
        .with_hint("values are put in as text: one that begins with a special character or contains `: ` or ` #` needs quotes of its own")
}

fn describe(draft: &Draft) -> String {
    match draft.namespace() {
        "" => format!("{}/{}", draft.kind(), draft.name()),
        namespace => format!("{}/{namespace}/{}", draft.kind(), draft.name()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Undefined { name: String },
    Form { expression: String },
    Unclosed { expression: String },
    TooLong,
}

impl Problem {
    /// Where the variable stands in the text that the object came from.
    fn at(self, draft: &Draft, text: &Text) -> SourceError {
        let object = describe(draft);
        let (needle, message, hint) = match self {
            Self::Undefined { name } => (
                format!("${{{name}"),
                format!("variable `{name}` has no value, in {object}"),
                Some(format!(
                    "give it in `postBuild`, give a default as in `${{{name}:=default}}`, or write `$${{{name}}}` for the text itself"
                )),
            ),
            Self::Form { expression } => (
                expression.clone(),
                format!("the form of substitution `{expression}…` comes with a later version, in {object}"),
                Some("served are `${v}`, `${v:=default}`, `${v:-default}` and `$${v}` for the text itself".to_owned()),
            ),
            Self::Unclosed { expression } => {
                (expression.clone(), format!("`{expression}` lacks its closing brace, in {object}"), None)
            }
            Self::TooLong => (
                String::new(),
                format!("{object} is longer than {} bytes after substitution", yaml::MAX_FILE_BYTES),
                None,
            ),
        };
        let error = match find(text, draft.place.line, &needle) {
            Some((line, column)) => text.noted(SourceError::new(&text.path, &text.content, line, column, message)),
            None => text.error(draft.place, &[], message),
        };
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// The line and column (from 1) of the first occurrence at or after a line.
fn find(text: &Text, from: u32, needle: &str) -> Option<(u32, u32)> {
    if needle.is_empty() {
        return None;
    }
    let lines = text.content.lines().enumerate().skip(from as usize - 1);
    lines
        .filter_map(|(index, line)| line.find(needle).map(|offset| (index, line[..offset].chars().count())))
        .map(|(line, column)| (line as u32 + 1, column as u32 + 1))
        .next()
}

fn substitute(text: &str, variables: &Variables) -> Result<String, Problem> {
    let mut expander = Expander { variables, rest: text };
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
    rest: &'a str,
}

impl Expander<'_> {
    /// Reads an expression at `${` and gives its value.
    fn expression(&mut self, nesting: usize) -> Result<String, Problem> {
        let start = self.rest;
        let name_length = start[2..].find(|c| !is_name_character(c)).unwrap_or(start.len() - 2);
        let name = &start[2..2 + name_length];
        let after = &start[2 + name_length..];
        // As much as says which form it is, and nothing of its argument.
        let form = |length: usize| {
            let end = start.len().min(2 + name_length + length);
            (0..=end).rev().find_map(|end| start.get(..end)).unwrap_or("${").to_owned()
        };
        if name.is_empty() || nesting > MAX_NESTING {
            return Err(Problem::Form { expression: form(1) });
        }
        let value = self.variables.get(name).map(|value| value.replace('\n', ""));
        if let Some(rest) = after.strip_prefix('}') {
            self.rest = rest;
            return value.ok_or_else(|| Problem::Undefined { name: name.to_owned() });
        }
        let Some(rest) = after.strip_prefix(":=").or_else(|| after.strip_prefix(":-")) else {
            let unclosed = after.chars().next().is_none_or(char::is_whitespace);
            return Err(if unclosed {
                Problem::Unclosed { expression: form(0) }
            } else {
                Problem::Form { expression: form(2) }
            });
        };
        self.rest = rest;
        let value = value.filter(|value| !value.is_empty());
        let default = self.default(nesting, value.is_none(), form(0))?;
        Ok(value.unwrap_or(default))
    }

    /// Reads a default up to its brace. Variables in a default that isn't needed may be undefined.
    fn default(&mut self, nesting: usize, needed: bool, expression: String) -> Result<String, Problem> {
        let mut out = String::new();
        loop {
            let Some(offset) = self.rest.find(['$', '}']) else { return Err(Problem::Unclosed { expression }) };
            out.push_str(&self.rest[..offset]);
            self.rest = &self.rest[offset..];
            if let Some(rest) = self.rest.strip_prefix('}') {
                self.rest = rest;
                return Ok(out);
            }
            if self.rest.starts_with("${") {
                match self.expression(nesting + 1) {
                    Ok(value) => out.push_str(&value),
                    Err(Problem::Undefined { .. }) if !needed => {}
                    Err(problem) => return Err(problem),
                }
            } else {
                out.push('$');
                self.rest = &self.rest[1..];
            }
        }
    }
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        [("a", "1"), ("empty", ""), ("lines", "x\ny\n"), ("_b2", "two")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn the_served_forms_give_what_flux_gives() {
        for (text, wanted) in [
            ("${a}", "1"),
            ("x${a}y${_b2}z", "x1ytwoz"),
            ("$${a}", "${a}"),
            ("$$$${a}", "$${a}"),
            ("$$${a}", "$1"),
            ("$a $ $$", "$a $ $"),
            ("${a:=d}${a:-d}", "11"),
            ("${none:=d}${none:-e f}", "de f"),
            ("${empty}", ""),
            ("${empty:=d}", "d"),
            ("${none:=}", ""),
            ("${none:=${a}}", "1"),
            ("${none:=x${other:-y}$z}", "xy$z"),
            ("${a:=${none}}", "1"),
            ("${lines}", "xy"),
            ("{a}", "{a}"),
        ] {
            assert_eq!(substitute(text, &variables()), Ok(wanted.to_owned()), "{text}");
        }
    }

    #[test]
    fn other_forms_and_undefined_variables_are_refused_by_name() {
        let undefined = |name: &str| Problem::Undefined { name: name.to_owned() };
        let form = |expression: &str| Problem::Form { expression: expression.to_owned() };
        let unclosed = |expression: &str| Problem::Unclosed { expression: expression.to_owned() };
        for (text, wanted) in [
            ("${none}", undefined("none")),
            ("${none:=${nope}}", undefined("nope")),
            ("${a^^}", form("${a^^")),
            ("${a:0:1}", form("${a:0")),
            ("${a:?oops}", form("${a:?")),
            ("${a=d}", form("${a=d")),
            ("${a/x/y}", form("${a/x")),
            ("${#a}", form("${#")),
            ("${}", form("${}")),
            ("${a b}", unclosed("${a")),
            ("${aé}", form("${aé")),
            ("${a", unclosed("${a")),
            ("${a:=d", unclosed("${a")),
        ] {
            assert_eq!(substitute(text, &variables()), Err(wanted), "{text}");
        }
        let bomb = "${v}".repeat(100_000);
        let large = Variables::from([("v".to_owned(), "x".repeat(1 << 20))]);
        assert_eq!(substitute(&bomb, &large), Err(Problem::TooLong));
        assert!(check_names(&variables()).is_ok());
        for name in ["1a", "", "a-b", "é"] {
            assert!(check_names(&Variables::from([(name.to_owned(), String::new())])).is_err(), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[${}:=a\\-é ]{0,40}") {
            let _ = substitute(&text, &variables());
        }
    }
}
