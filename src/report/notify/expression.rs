//! `commitStatusExpr` of a Provider: an expression in CEL that makes the name under which a commit's status is set. Pure.
//!
//! ```text
//!  text ── compile ──▶ Expression ── event, alert, provider (JSON) ──▶ a text
//! ```
//!
//! Whoever may write a Provider writes expressions: each takes a bounded number of steps.

use serde_json::Value as Json;

use crate::cel::{Budget, Declared, Environment, Program, Type, Value};

/// Longer than any name that somebody would read.
const EXPRESSION_BYTES_MAX: usize = 2048;
/// Enough to go through the annotations of an object, of which there are 256 KiB at most, some times.
const STEPS_MAX: u64 = 50_000;

/// What an expression can read, as with Flux.
const VARIABLES: [&str; 3] = ["alert", "event", "provider"];

#[derive(Debug)]
pub struct Expression(Program);

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
        let declared = Declared { names: &VARIABLES, records: &[], composed: &[] };
        let program = Program::compile(text, &declared).map_err(|error| error.to_string())?;
        match program.kind {
            Type::Any | Type::Of("string") => Ok(Self(program)),
            other => Err(no_text(other.name())),
        }
    }

    /// An error says in words why there is no text.
    pub fn evaluate(&self, variables: &Variables) -> Result<String, String> {
        let Variables { alert, event, provider } = variables;
        let values = VARIABLES.into_iter().zip([alert, event, provider].map(Value::of)).collect();
        let budget = Budget::new(STEPS_MAX);
        match Environment::new(values, &[], &budget).evaluate(&self.0) {
            Ok(Value::Text(text)) if text.as_str().is_empty() => Err("it comes to an empty text".into()),
            Ok(Value::Text(text)) => Ok(text.as_str().to_owned()),
            Ok(other) => Err(no_text(other.type_name())),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn no_text(kind: &str) -> String {
    format!("it comes to `{kind}`, not to a text")
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
        Expression::compile(text)?.evaluate(&variables)
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
            ("event.metadata.map(key, key + '=' + event.metadata[key]).join(',')".to_owned(), "cluster=one"),
            ("['a', 'b'].exists(x, x == 'b') ? 'has b' : 'has none'".to_owned(), "has b"),
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
        let joins = format!("'{letters}'.split('').join('{letters}').split('').join('{letters}')");
        let items = format!("[{}]", vec!["1"; 60].join(","));
        let loops = format!("{items}.all(a, {items}.all(b, {items}.all(c, a + b + c > 0))) ? 'a' : 'b'");
        let cases = [
            ("event.", "(at 1:"),
            (&long, "longer than 2048 bytes"),
            ("kustomization.metadata.name", "`kustomization` is not declared; there is `alert`, `event`, `provider`"),
            ("event.metadata.missing", "missing"),
            ("1 + 1", "not to a text"),
            ("event.metadata", "it comes to `map`, not to a text"),
            ("''", "an empty text"),
            ("event.involvedObject.kind.shout()", "`shout` is no function"),
            (&grows, "takes too long"),
            (&joins, "takes too long"),
            (&loops, "takes too long"),
        ];
        for (text, expected) in cases {
            let said = evaluate(text).expect_err(text);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}
