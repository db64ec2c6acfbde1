//! `readyExpr` of a dependency: an expression in CEL that says when the other application is ready, in place of the rule.
//!
//! Comes in: both Kustomizations as they are, as `self` and `dep`. Goes out: whether it is so, in a bounded number of steps.

use serde_json::Value;

use crate::api::Kustomization;
use crate::cel::{Budget, CompileError, Declared, Environment, Program, Value as Cel};

/// Steps of one evaluation: a condition is found in a few hundred.
const STEPS_MAX: u64 = 200_000;

#[derive(Clone, Debug)]
pub(super) struct ReadyExpression {
    source: String,
    program: Program,
}

impl PartialEq for ReadyExpression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl ReadyExpression {
    pub fn compile(source: &str) -> Result<Self, CompileError> {
        let declared = Declared { names: &["self", "dep"], records: &[], composed: &[] };
        let program = Program::compile_as("bool", source, &declared)?;
        Ok(Self { source: source.to_owned(), program })
    }

    /// An error says in words why it can't be told.
    pub fn holds(&self, own: &Kustomization, dependency: &Kustomization) -> Result<bool, String> {
        let whole = |object: &Kustomization| serde_json::to_value(object).map_err(|error| error.to_string());
        let (own, dependency): (Value, Value) = (whole(own)?, whole(dependency)?);
        let budget = Budget::new(STEPS_MAX);
        let variables = vec![("self", Cel::of(&own)), ("dep", Cel::of(&dependency))];
        match Environment::new(variables, &[], &budget).evaluate(&self.program) {
            Ok(Cel::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("it comes to `{}`, not to a boolean", other.type_name())),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn app(name: &str, version: &str, ready: Option<&str>) -> Kustomization {
        let conditions = ready.map(|status| {
            json!([{"type": "Ready", "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        });
        let mut object = json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "metadata": {"name": name, "labels": {"app/version": version}},
            "spec": {"interval": "1m", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "s"}},
        });
        if let Some(conditions) = conditions {
            object["status"] = json!({ "conditions": conditions });
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn both_applications_are_read_as_they_are() {
        let ready = "dep.status.conditions.filter(e, e.type == 'Ready').all(e, e.status == 'True')";
        let same = "dep.metadata.labels['app/version'] == self.metadata.labels['app/version']";
        let both = format!("{ready} && {same}");
        for (source, version, status, expected) in [
            (ready, "1", Some("True"), "true"),
            (ready, "1", Some("False"), "false"),
            (ready, "1", None, "no such key: status"),
            (&both, "1", Some("True"), "true"),
            (&both, "2", Some("True"), "false"),
            ("dep.kind == 'Kustomization' && dep.spec.interval == '1m0s'", "1", None, "true"),
        ] {
            let expression = ReadyExpression::compile(source).unwrap();
            let told = expression.holds(&app("own", "1", None), &app("dep", version, status));
            assert_eq!(told.map_or_else(|why| why, |holds| holds.to_string()), expected, "{source}");
        }
    }

    #[test]
    fn what_is_no_boolean_is_refused_before_it_is_asked() {
        for (source, said) in [
            ("dep.", "(at 1:"),
            ("dep.metadata.name", "it must be of type bool"),
            ("other.status.ready == true", "`other` is not declared; there is `self`, `dep`"),
        ] {
            let message = ReadyExpression::compile(source).expect_err("it is refused").to_string();
            assert!(message.contains(said), "{message}");
        }
    }
}
