//! What the expressions of `healthCheckExprs` say of an object: for kinds whose health nothing else knows.
//!
//! Every field of the object is a name of its own: `status`, `spec`, `metadata`, `data` … The order is that of Flux:
//! what its controller has not taken up yet is in progress; then `inProgress`, `failed` and `current` are asked; where
//! none is true, or one can't be evaluated, the object is waited for.

use serde_json::Value;

use super::Verdict;
use crate::api::HealthCheckExpression;
use crate::cel::{Budget, Environment, Program, Value as Cel};

/// Steps that all expressions for one look at one object may take together: conditions are a few hundred steps.
const STEPS_MAX: u64 = 200_000;
/// Kinds that one application may have expressions for.
const EXPRESSIONS_MAX: usize = 100;

/// The compiled expressions of one application.
#[derive(Clone, Debug, Default)]
pub struct Expressions(Vec<Expression>);

/// Those for one kind, or for all kinds of a group that have none of their own.
#[derive(Clone, Debug)]
pub struct Expression {
    group: String,
    kind: Option<String>,
    in_progress: Option<Program>,
    failed: Option<Program>,
    current: Program,
}

/// Why the expressions can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    #[error("`spec.healthCheckExprs[{at}].{field}`: {reason}")]
    Invalid { at: usize, field: &'static str, reason: String },
    #[error("`spec.healthCheckExprs[{at}]` is for {what}, as is one before it")]
    Twice { at: usize, what: String },
    #[error(
        "`spec.healthCheckExprs[{at}]` is for Secrets, of which nothing but the metadata is watched\nhint: a Secret that is there counts as healthy"
    )]
    Secret { at: usize },
    #[error("`spec.healthCheckExprs` has {count} entries; at most {EXPRESSIONS_MAX} are served")]
    TooMany { count: usize },
}

impl Expressions {
    pub fn compile(checks: &[HealthCheckExpression]) -> Result<Self, ExpressionError> {
        if checks.len() > EXPRESSIONS_MAX {
            return Err(ExpressionError::TooMany { count: checks.len() });
        }
        let mut expressions: Vec<Expression> = Vec::with_capacity(checks.len());
        for (at, check) in checks.iter().enumerate() {
            let program = |field: &'static str, source: &str| {
                let invalid = |reason: String| ExpressionError::Invalid { at, field, reason };
                Program::compile_open("bool", source).map_err(|error| invalid(error.to_string()))
            };
            let optional = |field, source: &Option<String>| {
                source.as_deref().filter(|source| !source.is_empty()).map(|source| program(field, source)).transpose()
            };
            let group = check.api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
            let kind = check.kind.clone().filter(|kind| !kind.is_empty());
            if group.is_empty() && kind.as_deref() == Some("Secret") {
                return Err(ExpressionError::Secret { at });
            }
            if expressions.iter().any(|known| known.group == group && known.kind == kind) {
                let group = if group.is_empty() { "the core group" } else { &group };
                let what = kind.map_or(format!("all of {group}"), |kind| format!("`{kind}` of {group}"));
                return Err(ExpressionError::Twice { at, what });
            }
            if check.current.trim().is_empty() {
                return Err(ExpressionError::Invalid { at, field: "current", reason: "it is missing".to_owned() });
            }
            expressions.push(Expression {
                in_progress: optional("inProgress", &check.in_progress)?,
                failed: optional("failed", &check.failed)?,
                current: program("current", &check.current)?,
                group,
                kind,
            });
        }
        Ok(Self(expressions))
    }

    /// What judges objects of this kind, if any does.
    pub fn of(&self, group: &str, kind: &str) -> Option<&Expression> {
        if group.is_empty() && kind == "Secret" {
            return None;
        }
        let of_group = |wanted: Option<&str>| self.0.iter().find(|e| e.group == group && e.kind.as_deref() == wanted);
        of_group(Some(kind)).or_else(|| of_group(None))
    }
}

impl Expression {
    /// Judges a whole object. Its values reach no message, but for the words of its conditions.
    pub fn judge(&self, object: &Value) -> Verdict {
        let number = |pointer| object.pointer(pointer).and_then(Value::as_i64);
        if let (Some(observed), Some(generation)) =
            (number("/status/observedGeneration"), number("/metadata/generation"))
            && observed != generation
        {
            return Verdict::not_taken_up();
        }
        let fields = object.as_object().into_iter().flatten();
        let variables: Vec<(&str, Cel<'_>)> = fields.map(|(name, value)| (name.as_str(), Cel::of(value))).collect();
        let budget = Budget::new(STEPS_MAX);
        let environment = Environment::new(variables, &[], &budget);
        let asked = [
            ("inProgress", self.in_progress.as_ref()),
            ("failed", self.failed.as_ref()),
            ("current", Some(&self.current)),
        ];
        for (name, program) in asked {
            let Some(program) = program else { continue };
            match environment.evaluate(program) {
                Ok(Cel::Bool(false)) => {}
                Ok(Cel::Bool(true)) => return verdict(name, object),
                Ok(other) => return waiting(format!("`{name}` is no boolean but a {}", other.type_name())),
                Err(error) => return waiting(format!("`{name}`: {error}")),
            }
        }
        waiting(format!("not `current` yet{}", words(object)))
    }
}

fn verdict(name: &str, object: &Value) -> Verdict {
    match name {
        "current" => Verdict::Current,
        "failed" => Verdict::Failed { reason: format!("`failed`{}", words(object)) },
        _ => waiting(format!("`{name}`{}", words(object))),
    }
}

fn waiting(reason: String) -> Verdict {
    Verdict::InProgress { reason }
}

/// What the controller says of it, if it says so as others do.
fn words(object: &Value) -> String {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
    let text = |field: &str| ready.and_then(|ready| ready[field].as_str()).filter(|text| !text.is_empty());
    match (text("reason"), text("message")) {
        (Some(reason), Some(message)) => format!(" ({reason}: {message})"),
        (None, Some(one)) | (Some(one), None) => format!(" ({one})"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checks(checks: Value) -> Result<Expressions, ExpressionError> {
        let checks: Vec<HealthCheckExpression> = serde_json::from_value(checks).unwrap();
        Expressions::compile(&checks)
    }

    #[test]
    fn an_object_is_judged_in_the_order_of_flux() {
        let expressions = checks(json!([{
            "apiVersion": "example.org/v1", "kind": "Database",
            "inProgress": "has(status.phase) && status.phase in ['Creating', 'Both']",
            "failed": "status.phase == 'Broken' || status.phase == 'Both'",
            "current": "status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')",
        }]))
        .unwrap();
        let ready = |status: &str| json!([{"type": "Ready", "status": status, "reason": "R", "message": "M"}]);
        for (object, expected) in [
            (json!({"status": {"phase": "Creating", "conditions": ready("True")}}), "waits: `inProgress` (R: M)"),
            (json!({"status": {"phase": "Both"}}), "waits: `inProgress`"),
            (json!({"status": {"phase": "Broken", "conditions": ready("True")}}), "failed: `failed` (R: M)"),
            (json!({"status": {"phase": "Up", "conditions": ready("True")}}), "current"),
            (json!({"status": {"phase": "Up", "conditions": ready("False")}}), "waits: not `current` yet (R: M)"),
            // what isn't there yet is waited for, as in Flux
            (json!({"status": {"phase": "Up"}}), "waits: `current`: no such key: conditions"),
            (json!({"status": {}}), "waits: `failed`: no such key: phase"),
            (json!({"spec": {}}), "waits: `inProgress`: `status` is not known"),
            (
                json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 1, "phase": "Broken"}}),
                "waits: its controller has not taken up the newest change yet",
            ),
            // some controllers write a text there
            (
                json!({"metadata": {"generation": 2}, "status": {"observedGeneration": "1", "phase": "Broken"}}),
                "failed: `failed`",
            ),
        ] {
            let expression = expressions.of("example.org", "Database").unwrap();
            assert_eq!(expression.judge(&object).spelled(), expected, "{object}");
        }
    }

    #[test]
    fn an_expression_for_a_kind_wins_over_one_for_its_group() {
        let expressions = checks(json!([
            {"apiVersion": "example.org/v1", "current": "spec.all"},
            {"apiVersion": "example.org/v1", "kind": "Database", "current": "spec.database"},
            {"apiVersion": "v1", "current": "true"},
        ]))
        .unwrap();
        let object = json!({"spec": {"all": true, "database": false}});
        let judged = |kind| expressions.of("example.org", kind).unwrap().judge(&object).is_current();
        assert_eq!((judged("Database"), judged("Cache")), (false, true));
        assert!(expressions.of("other.org", "Database").is_none());
        assert!(expressions.of("", "ConfigMap").is_some());
        assert!(expressions.of("", "Secret").is_none(), "no Secret is watched with its data");
    }

    #[test]
    fn expressions_that_are_none_are_refused_with_their_place() {
        let database = |field: &str, source: &str| {
            let mut check = json!({"apiVersion": "example.org/v1", "kind": "Database", "current": "true"});
            check[field] = source.into();
            check
        };
        for (given, said) in [
            (json!([database("current", "status.")]), "`spec.healthCheckExprs[0].current`: "),
            (json!([database("failed", "status.phase.isIP()")]), "`isIP` is"),
            (json!([database("inProgress", "'text'")]), "it must be of type bool, but is of type string"),
            (json!([database("current", " ")]), "it is missing"),
            (json!([database("failed", "true"), database("failed", "false")]), "[1]` is for `Database` of example.org"),
            (json!([{"apiVersion": "v1", "kind": "Secret", "current": "has(data.key)"}]), "is for Secrets"),
        ] {
            let message = checks(given).expect_err("it is refused").to_string();
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn an_expression_that_never_ends_is_waited_for() {
        let items: Vec<u32> = (0..200).collect();
        let all = "spec.items.all(a, spec.items.all(b, spec.items.all(c, a + b + c >= 0)))";
        let expressions = checks(json!([{"apiVersion": "example.org/v1", "current": all}])).unwrap();
        let object = json!({"spec": {"items": items}});
        let verdict = expressions.of("example.org", "List").unwrap().judge(&object);
        assert_eq!(verdict.spelled(), "waits: `current`: the evaluation takes too long");
    }
}
