//! An error in a file that a person wrote: what is wrong, where, and the lines around it.
//!
//! In: a text, a position and a message. Out: one line for conditions and logs (`Display`), or a report as rustc
//! prints it. Lines of a text that declares a Secret are shown without their values.

use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::Redaction;

/// Lines shown before the one an error is in.
const LINES_BEFORE: usize = 2;
/// Longer lines are cut: a minified file is one line of megabytes.
const LINE_CHARS_MAX: usize = 160;
/// How much of a long line stays in front of the column an error is at.
const LINE_CHARS_BEFORE: usize = 60;

/// A text with this line was encrypted: excerpts of it show no values.
pub const SECRET_TEXT_MARK: &str = "# in the clear here, encrypted in the repository";

/// What is wrong in a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    /// Relative to the root of the repository.
    pub path: String,
    /// From 1; 0 if the error is about the whole file.
    pub line: u32,
    /// From 1, in characters; 0 if the error is about the whole file.
    pub column: u32,
    /// Without a position, and without a value of the file.
    pub message: String,
    /// In a box, so that results with this error stay small.
    details: Box<Details>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Details {
    hint: Option<String>,
    note: Option<String>,
    excerpt: Option<Excerpt>,
    related: Vec<Related>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Related {
    path: String,
    label: String,
    excerpt: Excerpt,
}

/// Some lines of a file with a mark in the last of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    first_line: usize,
    text: String,
    /// Bytes of `text`.
    mark: Range<usize>,
    /// Marks of other places that are among these lines.
    labels: Vec<(Range<usize>, String)>,
}

impl SourceError {
    /// An error at a position (from 1) of a text; keeps the lines around it.
    pub fn new(path: &str, text: &str, line: u32, column: u32, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            column,
            message: message.into(),
            details: Box::new(Details { excerpt: Excerpt::of(text, line, column, LINES_BEFORE), ..Details::default() }),
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&str> {
        self.details.hint.as_deref()
    }

    /// An error about a file as a whole.
    pub fn whole_file(path: &str, message: impl Into<String>) -> Self {
        Self::new(path, "", 0, 0, message)
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.details.hint = Some(hint.into());
        self
    }

    /// Adds what is said below the excerpt.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.details.note = Some(note.into());
        self
    }

    /// Adds another place in the same file.
    #[must_use]
    pub fn with_related(self, text: &str, line: u32, column: u32, label: &str) -> Self {
        let path = self.path.clone();
        self.with_related_in(&path, text, line, column, label)
    }

    /// Adds a place in another file.
    #[must_use]
    pub fn with_related_in(mut self, path: &str, text: &str, line: u32, column: u32, label: &str) -> Self {
        let Some(excerpt) = Excerpt::of(text, line, column, 0) else { return self };
        let shown = self.details.excerpt.as_mut().filter(|_| path == self.path);
        if shown.is_none_or(|shown| !shown.absorb(&excerpt, label)) {
            self.details.related.push(Related { path: path.to_owned(), label: label.to_owned(), excerpt });
        }
        self
    }

    /// Takes values out of all that is said and shown.
    #[must_use]
    pub fn redacted(mut self, values: &Redaction) -> Self {
        values.apply(&mut self.message);
        let Details { hint, note, excerpt, related } = &mut *self.details;
        hint.iter_mut().chain(note).for_each(|text| values.apply(text));
        let related = related.iter_mut().map(|related| &mut related.excerpt);
        excerpt.iter_mut().chain(related).for_each(|excerpt| values.blank(&mut excerpt.text));
        self
    }

    /// The report as rustc prints it, with a final line break.
    pub fn render(&self, color: bool) -> String {
        let title = Level::ERROR.primary_title(printable(&self.message));
        let mut group = match &self.details.excerpt {
            Some(excerpt) => title.element(excerpt.snippet(&self.path, None, AnnotationKind::Primary)),
            None => title.element(annotate_snippets::Origin::path(self.path.as_str())),
        };
        for related in &self.details.related {
            group =
                group.element(related.excerpt.snippet(&related.path, Some(&related.label), AnnotationKind::Context));
        }
        if let Some(note) = &self.details.note {
            group = group.element(Level::NOTE.message(printable(note)));
        }
        if let Some(hint) = &self.details.hint {
            group = group.element(Level::HELP.with_name(Some("hint")).message(printable(hint)));
        }
        let report: &[Group<'_>] = &[group];
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.decor_style(DecorStyle::Ascii).render(report) + "\n"
    }
}

/// `path:line:column: message`
impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.path, printable(&self.message))
        } else {
            write!(f, "{}:{}:{}: {}", self.path, self.line, self.column, printable(&self.message))
        }
    }
}

impl std::error::Error for SourceError {}

impl Excerpt {
    fn of(text: &str, line: u32, column: u32, lines_before: usize) -> Option<Self> {
        let last = (line as usize).checked_sub(1)?;
        // What is missing at the end of a text is said to be in the line after the last.
        let (last, column) = match text.lines().count() {
            0 => return None,
            count if last == count => (last - 1, u32::MAX),
            _ => (last, column),
        };
        let first = last.saturating_sub(lines_before);
        let lines: Vec<&str> = text.lines().skip(first).take(last - first + 1).collect();
        if lines.len() != last - first + 1 {
            return None;
        }
        let secret = declares_a_secret(text);
        let mut shown = String::new();
        let mut mark = 0..0;
        for (index, source) in lines.iter().enumerate() {
            let is_marked = first + index == last;
            let wanted = if is_marked { (column as usize).saturating_sub(1) } else { 0 };
            let (mut line, at) = show(source, wanted, secret);
            if is_marked && at == line.chars().count() {
                line.push(' ');
            }
            if is_marked {
                let start = line.char_indices().nth(at).map_or(line.len(), |(offset, _)| offset);
                let word = line[start..].find(|c: char| c.is_whitespace() || c == ':').unwrap_or(line.len() - start);
                let one = line[start..].chars().next().map_or(1, char::len_utf8);
                mark = shown.len() + start..shown.len() + start + word.max(one);
            }
            shown.push_str(&line);
            shown.push('\n');
        }
        Some(Self { first_line: first + 1, text: shown, mark, labels: Vec::new() })
    }

    /// Marks another place here, if its line is among these.
    fn absorb(&mut self, other: &Excerpt, label: &str) -> bool {
        let Some(skipped) = other.first_line.checked_sub(self.first_line) else { return false };
        let offset: usize = self.text.split_inclusive('\n').take(skipped).map(str::len).sum();
        if other.text.is_empty() || !self.text[offset..].starts_with(&other.text) {
            return false;
        }
        self.labels.push((offset + other.mark.start..offset + other.mark.end, label.to_owned()));
        true
    }

    fn snippet<'a>(
        &'a self,
        path: &'a str,
        label: Option<&'a str>,
        kind: AnnotationKind,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        Snippet::source(self.text.as_str())
            .line_start(self.first_line)
            .path(path)
            .fold(false)
            .annotation(kind.span(self.mark.clone()).label(label))
            .annotations(
                self.labels
                    .iter()
                    .map(|(mark, label)| AnnotationKind::Context.span(mark.clone()).label(label.as_str())),
            )
    }
}

/// A line as it is shown, and where the column (from 0) went.
fn show(source: &str, column: usize, secret: bool) -> (String, usize) {
    let mut line = printable(source.trim_end());
    if secret {
        line = without_values(&line);
    }
    let length = line.chars().count();
    let column = column.min(length);
    if length <= LINE_CHARS_MAX {
        return (line, column);
    }
    let from = column.saturating_sub(LINE_CHARS_BEFORE);
    let cut: String = line.chars().skip(from).take(LINE_CHARS_MAX).collect();
    if from == 0 { (cut + "…", column) } else { (format!("…{cut}…"), column - from + 1) }
}

/// Whether the lines of a text may hold a Secret's values.
fn declares_a_secret(text: &str) -> bool {
    text.match_indices("kind").any(|(offset, word)| {
        let rest = text[offset + word.len()..].trim_start_matches(['"', '\'']).trim_start();
        rest.strip_prefix(':').is_some_and(|rest| rest.trim_start_matches([' ', '\t', '"', '\'']).starts_with("Secret"))
    }) || text.contains("stringData")
        || text.contains(SECRET_TEXT_MARK)
}

/// Keeps indentation, a key and template expressions; hides the rest.
fn without_values(line: &str) -> String {
    const KEEP: [&str; 2] = ["apiVersion:", "kind:"];
    let trimmed = line.trim_start();
    if trimmed.is_empty()
        || trimmed.starts_with('#') && trimmed.len() == 1
        || KEEP.iter().any(|k| trimmed.starts_with(k))
    {
        return line.to_owned();
    }
    let is_expression = |s: &str| {
        let s = s.trim().trim_matches(['"', '\'']);
        (s.starts_with("{{") && s.ends_with("}}") || s.starts_with("{%") && s.ends_with("%}"))
            && s.matches("{{").count() + s.matches("{%").count() == 1
    };
    if is_expression(trimmed) {
        return line.to_owned();
    }
    match line.split_once(": ") {
        Some((key, value)) if is_key(key) && is_expression(value) => line.to_owned(),
        Some((key, _)) if is_key(key) => format!("{key}: …"),
        None if line.strip_suffix(':').is_some_and(is_key) => line.to_owned(),
        _ => format!("{}…", &line[..line.len() - trimmed.len()]),
    }
}

fn is_key(text: &str) -> bool {
    let text = text.trim_start().trim_start_matches("- ").trim();
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '"' | '\''))
}

/// Control characters of a file must not reach a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  name: api\n";

    #[test]
    fn a_report_shows_the_line_its_neighbours_and_the_related_place() {
        let error = SourceError::new("apps/web.yaml", DEPLOYMENT, 5, 3, "key `name` is given twice, first in line 4")
            .with_related(DEPLOYMENT, 4, 3, "first given here")
            .with_related_in("apps/api.yaml", DEPLOYMENT, 2, 1, "and here")
            .with_hint("remove one");
        assert_eq!(error.to_string(), "apps/web.yaml:5:3: key `name` is given twice, first in line 4");
        insta::assert_snapshot!(error.render(false), @r"
        error: key `name` is given twice, first in line 4
         --> apps/web.yaml:5:3
          |
        3 | metadata:
        4 |   name: web
          |   ---- first given here
        5 |   name: api
          |   ^^^^
          |
         ::: apps/api.yaml:2:1
          |
        2 | kind: Deployment
          | ---- and here
          |
          = hint: remove one
        ");
    }

    #[test]
    fn an_error_about_a_whole_file_names_it() {
        let error = SourceError::whole_file("big.yaml", "too large");
        assert_eq!(error.to_string(), "big.yaml: too large");
        assert_eq!(error.render(false), "error: too large\n--> big.yaml\n");
    }

    #[test]
    fn the_lines_of_a_secret_are_shown_without_their_values() {
        let text = "kind: Secret\nstringData:\n  user: admin\n  password: hunter2 hunter3\n  pem: |\n    hunter4\n  t: '{{ values.x }}'\n";
        for line in 1..=7 {
            let report = SourceError::new("s.yaml", text, line, 13, "wrong").render(false);
            assert!(!report.contains("hunter") && !report.contains("admin"), "{report}");
        }
        assert!(SourceError::new("s.yaml", text, 7, 6, "wrong").render(false).contains("t: '{{ values.x }}'"));
        assert!(declares_a_secret("{\"apiVersion\":\"v1\",\"kind\":\"Secret\"}"));
        assert!(!declares_a_secret(DEPLOYMENT));
    }

    #[test]
    fn long_lines_are_cut_around_the_column() {
        let text = format!("a: {}X{}\n", "x".repeat(1000), "y".repeat(1000));
        let report = SourceError::new("a.yaml", &text, 1, 1004, "wrong").render(false);
        assert!(report.contains("xxXyy") && report.len() < 800, "{report}");
    }
}
