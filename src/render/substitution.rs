//! `postBuild`: `${name}` in the text of an object becomes a variable's value, as Flux does it.
//!
//! The object is written as YAML, substituted as text and read again; so a number or a list can come out of a variable.
//! A variable without value and default is an error. No error contains a value.

use super::error::RenderError;
use super::expansion::{Derived, Problem, Variables, expand};
use super::objects::{Draft, Text};
use crate::manifest::{SECRET_TEXT_MARK, SourceError, yaml};

/// An annotation or label with the value `disabled` on objects whose `${…}` is text.
const SUBSTITUTE: &str = "kustomize.toolkit.fluxcd.io/substitute";

/// Refuses names that can't be written as `${name}`, as Flux does.
pub(super) fn check_names(variables: &Variables) -> Result<(), RenderError> {
    let valid = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match variables.keys().find(|name| !valid(name)) {
        Some(name) => Err(RenderError::VariableName { name: name.clone() }),
        None => Ok(()),
    }
}

/// What becomes of a value when it is substituted in; `None` if nothing does.
pub(super) fn applied(value: &str, variables: &Variables) -> Option<String> {
    expand(value, variables, &mut Derived::default()).ok().filter(|made| made != value)
}

/// Substitutes in an object, unless it says that it doesn't want to. `derived` is told what was made of values.
pub(super) fn apply(
    draft: &mut Draft,
    texts: &[Text],
    variables: &Variables,
    derived: &mut Derived,
) -> Result<(), SourceError> {
    let disabled = |field| draft.text_at(&["metadata", field, SUBSTITUTE]) == Some("disabled");
    if disabled("annotations") || disabled("labels") {
        return Ok(());
    }
    let written = yaml::write(&draft.value);
    if !written.contains("${") && !written.contains("$$") {
        return Ok(());
    }
    let text = &texts[draft.place.text];
    let substituted = expand(&written, variables, derived).map_err(|problem| problem.at(draft, text))?;
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

impl Problem {
    /// Where the variable stands in the text that the object came from.
    fn at(self, draft: &Draft, text: &Text) -> SourceError {
        let object = describe(draft);
        let is_secret = draft.kind() == "Secret" || text.content.contains(SECRET_TEXT_MARK);
        let needle_is_value = !matches!(self, Self::Undefined { .. });
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
                format!("`{expression}…` is no form of substitution, in {object}"),
                Some(format!(
                    "write `${expression}…` for the text itself; the forms are `${{v}}`, `${{v:=default}}`, `${{#v}}`, `${{v:1:2}}`, `${{v/a/b}}`, `${{v#a}}`, `${{v%a}}`, `${{v^}}` and `${{v,}}`"
                )),
            ),
            Self::Slice { expression } => (
                expression.clone(),
                format!("the slice `{expression}…` ends before it begins or within a character, in {object}"),
                Some("positions and lengths are counted in bytes, and a length is not negative".to_owned()),
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
        // the name of a variable is one; any other text may be part of a password
        let (message, hint) = match (is_secret && needle_is_value, needle.is_empty()) {
            (true, false) => (
                format!("`$` and a brace stand in {object}, and are no form of substitution"),
                Some("write `$${` for the text itself".to_owned()),
            ),
            _ => (message, hint),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_flux_takes() {
        let named = |name: &str| check_names(&Variables::from([(name.to_owned(), String::new())]));
        for name in ["a", "_", "A1_b"] {
            assert!(named(name).is_ok(), "{name}");
        }
        for name in ["1a", "", "a-b", "é", "a.b"] {
            assert!(named(name).is_err(), "{name}");
        }
    }
}
