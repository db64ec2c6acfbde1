//! `commitStatusExpr` of a Provider: an expression in CEL that makes the name under which a commit's status is set. Pure.
//!
//! ```text
//!  text ── compile ──▶ Expression ── event, alert, provider (JSON) ──▶ a text
//! ```
//!
//! Whoever may write a Provider writes expressions, and the evaluator has no fuel: what could make much of little (macros
//! that loop) is refused, and what is made is bounded.

use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::common::ast::{EntryExpr, Expr};
use kube_cel::cel::extractors::{Arguments, This};
use kube_cel::cel::{Context, ExecutionError, IdedExpr, Program, Value, to_value};
use serde_json::Value as Json;

/// Longer than any name that somebody would read.
const EXPRESSION_BYTES_MAX: usize = 2048;
/// What a single step may make: as much as the annotations of an object, which expressions can read, hold at most.
const STEP_BYTES_MAX: usize = 256 * 1024;

/// What an expression can read, as with Flux.
const VARIABLES: [&str; 3] = ["alert", "event", "provider"];

pub struct Expression(Program);

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expression")
    }
}

/// The values of [`VARIABLES`].
pub struct Variables {
    pub alert: Json,
    pub event: Json,
    pub provider: Json,
}

impl Expression {
    /// An error says in words why it can't be served.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(format!("it is longer than {EXPRESSION_BYTES_MAX} bytes"));
        }
        let program = Program::compile(text).map_err(|errors| match errors.errors.first() {
            Some(error) => format!("column {}: {}", error.pos.1, error.msg),
            None => "it is no expression in CEL".to_owned(),
        })?;
        if loops(program.expression()) {
            return Err("`all`, `exists`, `exists_one`, `map` and `filter` are not served here".into());
        }
        let references = program.references();
        if let Some(name) = references.variables().into_iter().find(|name| !VARIABLES.contains(name)) {
            return Err(format!("there is no `{name}`; there are `{}`", VARIABLES.join("`, `")));
        }
        drop(references);
        Ok(Self(program))
    }

    /// An error says in words why there is no text.
    pub fn evaluate(&self, variables: Variables) -> Result<String, String> {
        let mut context = Context::default().with_all();
        context.add_function("replace", replace);
        context.add_function("join", join);
        let Variables { alert, event, provider } = variables;
        for (name, value) in VARIABLES.into_iter().zip([alert, event, provider]) {
            context.add_variable_from_value(name, to_value(value).map_err(|error| error.to_string())?);
        }
        match self.0.execute(&context) {
            Ok(Value::String(text)) if text.is_empty() => Err("it comes to an empty text".into()),
            Ok(Value::String(text)) => Ok(text.as_ref().clone()),
            Ok(other) => Err(format!("it comes to `{}`, not to a text", other.type_of())),
            Err(error) => Err(error.to_string()),
        }
    }
}

// In place of those that know no bound: each use of one could make a thousand letters of each.

/// `text.replace(old, new)`, and with a third argument at most so many times.
fn replace(This(text): This<Arc<String>>, Arguments(arguments): Arguments) -> Result<Value, ExecutionError> {
    let (old, new) = (word(&arguments, 0, "replace")?, word(&arguments, 1, "replace")?);
    let times = match arguments.get(2) {
        Some(Value::Int(times)) => usize::try_from(*times).unwrap_or(0),
        _ => usize::MAX,
    };
    let found = text.matches(old.as_str()).take(times).count();
    bounded("replace", found.saturating_mul(new.len()).saturating_add(text.len()))?;
    Ok(Value::String(Arc::new(text.replacen(old.as_str(), &new, times))))
}

/// `list.join()`, `list.join(separator)`.
fn join(This(list): This<Arc<Vec<Value>>>, Arguments(arguments): Arguments) -> Result<Value, ExecutionError> {
    let separator = if arguments.is_empty() { Arc::default() } else { word(&arguments, 0, "join")? };
    let words = (0..list.len()).map(|index| word(&list, index, "join")).collect::<Result<Vec<_>, _>>()?;
    bounded("join", words.iter().map(|word| word.len().saturating_add(separator.len())).sum())?;
    let words: Vec<&str> = words.iter().map(|word| word.as_str()).collect();
    Ok(Value::String(Arc::new(words.join(&separator))))
}

fn word(values: &[Value], index: usize, function: &str) -> Result<Arc<String>, ExecutionError> {
    match values.get(index) {
        Some(Value::String(text)) => Ok(text.clone()),
        _ => Err(ExecutionError::function_error(function, "a text is expected")),
    }
}

fn bounded(function: &str, bytes: usize) -> Result<(), ExecutionError> {
    if bytes <= STEP_BYTES_MAX {
        return Ok(());
    }
    Err(ExecutionError::function_error(function, format!("it would make more than {STEP_BYTES_MAX} bytes")))
}

fn loops(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::Comprehension(_) => true,
        Expr::Call(call) => call.target.iter().any(|target| loops(target)) || call.args.iter().any(loops),
        Expr::List(list) => list.elements.iter().any(loops),
        Expr::Map(map) => map.entries.iter().any(|entry| entry_loops(&entry.expr)),
        Expr::Struct(object) => object.entries.iter().any(|entry| entry_loops(&entry.expr)),
        Expr::Select(select) => loops(&select.operand),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => false,
    }
}

fn entry_loops(entry: &EntryExpr) -> bool {
    match entry {
        EntryExpr::StructField(field) => loops(&field.value),
        EntryExpr::MapEntry(entry) => loops(&entry.key) || loops(&entry.value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn evaluate(text: &str) -> Result<String, String> {
        let variables = Variables {
            alert: json!({ "metadata": { "name": "status" } }),
            event: json!({
                "involvedObject": { "kind": "Kustomization", "name": "Web" },
                "metadata": { "cluster": "one" },
            }),
            provider: json!({ "metadata": { "uid": "0c9c2e41-d2f9" }, "spec": { "type": "github" } }),
        };
        Expression::compile(text)?.evaluate(variables)
    }

    #[test]
    fn expressions_as_flux_documents_them_make_a_name() {
        let object = "event.involvedObject.kind + '/' + event.involvedObject.name";
        let cases = [
            (format!("{object} + '/' + event.metadata.cluster"), "Kustomization/Web/one"),
            (format!("({object} + '/' + alert.metadata.name).lowerAscii()"), "kustomization/web/status"),
            (format!("{object} + '/' + provider.metadata.uid.split('-')[0]"), "Kustomization/Web/0c9c2e41"),
            ("has(event.metadata.region) ? event.metadata.region : provider.spec.type".to_owned(), "github"),
            ("event.involvedObject.name.replace('W', 'w')".to_owned(), "web"),
            ("'a-b-c'.replace('-', '+', 1).split('+').join('/')".to_owned(), "a/b-c"),
        ];
        for (text, expected) in cases {
            assert_eq!(evaluate(&text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_makes_no_name_is_told_in_words() {
        let long = format!("'{}'", "x".repeat(EXPRESSION_BYTES_MAX));
        let letters = "x".repeat(600);
        let grows = format!("'{letters}'.replace('x', '{letters}').replace('x', '{letters}')");
        let joins = format!("'{letters}'.split('').join('{letters}')");
        let cases = [
            ("event.", "column "),
            (&long, "longer than 2048 bytes"),
            ("kustomization.metadata.name", "there is no `kustomization`; there are `alert`, `event`, `provider`"),
            ("[1, 2].map(x, x + 1)[0] == 2 ? 'a' : 'b'", "`map`"),
            ("string({'a': [1].exists(x, x > 0)})", "`exists`"),
            ("event.metadata.missing", "missing"),
            ("1 + 1", "not to a text"),
            ("''", "an empty text"),
            ("event.involvedObject.kind.shout()", "shout"),
            (&grows, "more than 262144 bytes"),
            (&joins, "more than 262144 bytes"),
        ];
        for (text, expected) in cases {
            let said = evaluate(text).expect_err(text);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}
