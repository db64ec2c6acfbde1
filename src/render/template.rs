//! Templates (minijinja) to the text of manifests.
//!
//! In: the files of the templates' directories and the merged values. Out: one text for each template. Templates see
//! `values`, `environment` and `app.{name, namespace}`, and nothing of the revision. An undefined value is an error.
//! Bounded in steps, output, recursion and the texts that filters make.
//!
//! Templates are the files `*.yaml`, `*.yml` and `*.j2`; those with a name, or in a directory, that begins with `_` and
//! all other files are there to be included. A line with nothing but a block (`{% … %}`) leaves no line behind; so
//! what it includes is indented by `{% filter indent(4, first=true) %}…{% endfilter %}`, or by `{%+ include … %}` if it
//! is one line.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value, context};

use super::error::RenderError;
use super::files::{is_file, is_yaml, kustomization_file};
use super::filters::Meter;
use super::guard::Guarded;
use super::objects::Text;
use super::reader::Reader;
use super::settings::{SETTINGS_FILE, Settings};
use super::{AppRef, Request, check_cancelled, filters, guard, path, values};
use crate::manifest::{EntryKind, SourceError, TreeError};

/// A template, or a file that is included.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;
/// Steps of the engine for one template: a thousand objects need less than half of it.
const FUEL: u64 = 1_000_000;
/// What one template renders.
const MAX_OUTPUT_BYTES: usize = 8 << 20;
/// What all templates of an application render.
const MAX_TOTAL_OUTPUT_BYTES: usize = 64 << 20;
/// An include costs 10, a macro call 4.
const MAX_RECURSION: usize = 200;
const MAX_DIRECTORY_DEPTH: usize = 32;

/// A file of a templates' directory.
struct Source {
    /// From the root of the tree.
    path: String,
    content: String,
    guarded: Guarded,
    /// Whether it is rendered by itself.
    is_template: bool,
}

/// By their names: paths from the directory of templates that they are in.
type Sources = BTreeMap<String, Source>;

pub(super) fn render(
    request: &Request<'_>,
    reader: &Reader<'_>,
    settings: &Settings,
) -> Result<Vec<Text>, RenderError> {
    let values = values::read(reader, settings)?;
    let sources = Arc::new(gather(request, reader, settings)?);
    let output = Arc::new(Output::default());
    let meter = Arc::new(Meter::default());
    let environment = environment(&sources, &output, &meter);
    let context = context_of(&values, settings.environment.as_deref(), request.app);
    let mut texts = Vec::new();
    let mut total = 0;
    for (name, source) in sources.iter().filter(|(_, source)| source.is_template) {
        check_cancelled(request)?;
        output.reset();
        meter.reset();
        let mut sink = Sink { content: Vec::new(), output: Arc::clone(&output) };
        let rendered = environment.get_template(name).and_then(|t| t.render_captured_to(context.clone(), &mut sink));
        if let Err(error) = rendered {
            return Err(explain(&error, source, &sources).into());
        }
        total += sink.content.len();
        if total > MAX_TOTAL_OUTPUT_BYTES {
            let message = format!("the templates render more than {MAX_TOTAL_OUTPUT_BYTES} bytes");
            return Err(SourceError::whole_file(&source.path, message).into());
        }
        let content = String::from_utf8_lossy(&sink.content).into_owned();
        texts.push(Text { path: source.path.as_str().into(), content, is_rendered: true });
    }
    Ok(texts)
}

fn environment(sources: &Arc<Sources>, output: &Arc<Output>, meter: &Arc<Meter>) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_RECURSION);
    // For positions. What the engine prints in this mode may hold values; it is never printed.
    environment.set_debug(true);
    environment.set_syntax(syntax());
    filters::add_to(&mut environment, meter);
    let loaded = Arc::clone(sources);
    environment.set_loader(move |name| Ok(loaded.get(name).map(|source| source.guarded.text.clone())));
    let written = Arc::clone(output);
    environment.set_formatter(move |out, _, value| {
        if value.is_undefined() {
            return Err(Error::from(ErrorKind::UndefinedError));
        }
        let text = filters::text_of(value)?;
        if !written.has_room_for(text.len()) {
            return Err(Error::from(ErrorKind::WriteFailure));
        }
        out.write_str(&text).map_err(|_| Error::from(ErrorKind::WriteFailure))
    });
    environment
}

/// Lines with nothing but a block vanish.
fn syntax() -> SyntaxConfig {
    let mut builder = SyntaxConfig::builder();
    // Only delimiters can be wrong, and they are the usual ones.
    builder.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build().unwrap_or_default()
}

fn context_of(values: &serde_json::Value, environment: Option<&str>, app: &AppRef) -> Value {
    let app = context! { name => app.name.as_str(), namespace => app.namespace.as_str() };
    let values = filters::from_json(values);
    match environment {
        Some(environment) => context! { values, environment, app },
        None => context! { values, app },
    }
}

/// Reads the files of all directories of templates.
fn gather(request: &Request<'_>, reader: &Reader<'_>, settings: &Settings) -> Result<Sources, RenderError> {
    let mut hidden = HashSet::new();
    for reference in &settings.values {
        hidden.extend(reader.resolve(&reference.path)?.map(|resolved| resolved.path));
    }
    let mut gathering = Gathering { request, reader, hidden, sources: Sources::new(), twice: None };
    for reference in &settings.templates {
        match reader.resolve(&reference.path)? {
            Some(root) if root.kind == EntryKind::Directory => gathering.directory(&root.path, "", 0)?,
            Some(file) if file.kind == EntryKind::File => {
                let content = reader.text(&file.path, MAX_TEMPLATE_BYTES);
                gathering.file(&file.path, path::split(&reference.path).1.to_owned(), content)?;
            }
            _ => {
                return Err(settings
                    .error(reference, format!("there are no templates at `{}`", reference.path))
                    .into());
            }
        }
        if let Some((name, first)) = gathering.twice {
            let message = format!("there are two templates `{name}`, the first is `{first}`");
            return Err(settings.error(reference, message).into());
        }
    }
    Ok(gathering.sources)
}

struct Gathering<'a> {
    request: &'a Request<'a>,
    reader: &'a Reader<'a>,
    /// Files of values.
    hidden: HashSet<String>,
    sources: Sources,
    /// A name that two directories have, and the path of its first file.
    twice: Option<(String, String)>,
}

impl Gathering<'_> {
    fn directory(&mut self, directory: &str, prefix: &str, depth: usize) -> Result<(), RenderError> {
        check_cancelled(self.request)?;
        if depth > MAX_DIRECTORY_DEPTH {
            return Err(RenderError::TooDeep { path: directory.to_owned(), limit: MAX_DIRECTORY_DEPTH });
        }
        let entries = self.reader.list(directory)?;
        if let Some(name) = kustomization_file(&entries) {
            return Err(RenderError::KustomizationAmongTemplates { path: path::child(directory, name) });
        }
        for entry in entries {
            let path = path::child(directory, &entry.name);
            let name = path::child(prefix, &entry.name);
            match entry.kind {
                EntryKind::Directory => self.directory(&path, &name, depth + 1)?,
                _ if !is_file(&entry) || entry.name == SETTINGS_FILE || self.hidden.contains(&path) => {}
                _ => self.file(&path, name, self.reader.listed(&path, &entry, MAX_TEMPLATE_BYTES))?,
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &str,
        name: String,
        content: Result<Option<String>, RenderError>,
    ) -> Result<(), RenderError> {
        let is_template = is_template(&name);
        let content = match content {
            Ok(Some(content)) => content,
            Ok(None) => return Ok(()),
            // Whatever else lies around can't be included.
            Err(RenderError::Source(_) | RenderError::Tree(TreeError::TooLarge { .. })) if !is_template => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let guarded = guard::guard(&content, &syntax());
        let source = Source { path: path.to_owned(), content, guarded, is_template };
        if let Some(first) = self.sources.insert(name.clone(), source) {
            self.twice = Some((name, first.path));
        }
        Ok(())
    }
}

fn is_template(name: &str) -> bool {
    (is_yaml(name) || name.ends_with(".j2")) && !name.split('/').any(|part| part.starts_with('_'))
}

/// An error of the engine as one with a place.
fn explain(error: &Error, rendered: &Source, sources: &Sources) -> SourceError {
    // The innermost error is the cause; those around it are the includes on the way.
    let mut cause = error;
    while let Some(inner) = std::error::Error::source(cause).and_then(|source| source.downcast_ref::<Error>()) {
        cause = inner;
    }
    let source = cause.name().and_then(|name| sources.get(name)).unwrap_or(rendered);
    let (message, hint) = describe(cause);
    let (line, column) = match (cause.range(), cause.line()) {
        (Some(range), _) if range.start <= source.guarded.text.len() => {
            position(&source.content, source.guarded.original(range.start))
        }
        (_, Some(line)) => (line as u32, 1),
        _ => (0, 0),
    };
    let error = SourceError::new(&source.path, &source.content, line, column, message);
    let error = if source.path == rendered.path {
        error
    } else {
        error.with_note(format!("while `{}` was rendered", rendered.path))
    };
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn describe(error: &Error) -> (String, Option<&'static str>) {
    let detail = || error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.kind() {
        ErrorKind::UndefinedError => (
            detail(),
            Some(
                "give it in a values file, or a default as in `{{ values.x | default(\"y\") }}`; `environment` is set in `afresh.yaml`",
            ),
        ),
        ErrorKind::TemplateNotFound => {
            (detail(), Some("files are included by their path from the directory of templates"))
        }
        ErrorKind::SyntaxError => (format!("syntax error: {}", detail()), None),
        ErrorKind::OutOfFuel => (format!("the template takes more than {FUEL} steps"), None),
        ErrorKind::WriteFailure => (format!("the template renders more than {MAX_OUTPUT_BYTES} bytes"), None),
        _ => (detail(), None),
    }
}

fn position(text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() as u32 + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) as u32 + 1;
    (line, column)
}

/// How much a template has rendered so far.
#[derive(Default)]
struct Output {
    /// By expressions. Blocks that are captured don't pass the sink.
    expressions: AtomicUsize,
    /// What has passed the sink.
    sunk: AtomicUsize,
}

impl Output {
    fn reset(&self) {
        self.expressions.store(0, Ordering::Relaxed);
        self.sunk.store(0, Ordering::Relaxed);
    }

    /// Asked by each expression, which has a place in the template; the sink has none.
    fn has_room_for(&self, length: usize) -> bool {
        let expressions = self.expressions.fetch_add(length, Ordering::Relaxed) + length;
        expressions.max(self.sunk.load(Ordering::Relaxed) + length) <= MAX_OUTPUT_BYTES
    }
}

/// Takes what a template renders, up to its limit.
struct Sink {
    content: Vec<u8>,
    output: Arc<Output>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.content.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::other("too long"));
        }
        self.content.extend_from_slice(bytes);
        self.output.sunk.store(self.content.len(), Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
