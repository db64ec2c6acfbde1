//! Which happenings an Alert is about. Pure: an Alert compiles to a [`Rule`], or to the reason why it can't be served.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::api::{AlertSpec, EventSeverity, Key};
use crate::report::events::{Severity, Subject};

/// A compiled expression: Go's own engine is bounded by 1000 repetitions, which is about this much.
const EXPRESSION_BYTES_MAX: usize = 1 << 20;
/// Objects and expressions of one Alert: each happening is held against all of them.
const ITEMS_MAX: usize = 256;

/// The kinds that anything is ever reported of.
const REPORTING_KINDS: [&str; 2] = ["GitRepository", "Kustomization"];

/// An Alert, ready to be asked.
#[derive(Debug)]
pub struct Rule {
    pub key: Key,
    pub provider: Key,
    pub suspended: bool,
    pub metadata: BTreeMap<String, String>,
    pub summary: Option<String>,
    severity: EventSeverity,
    sources: Vec<Source>,
    include: Vec<Regex>,
    exclude: Vec<Regex>,
}

#[derive(Debug)]
struct Source {
    kind: String,
    namespace: String,
    /// `None`: all.
    name: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Rule {
    pub fn compile(key: &Key, spec: &AlertSpec) -> Result<Rule, String> {
        for (field, count) in [
            ("spec.eventSources", spec.event_sources.len()),
            ("spec.inclusionList", spec.inclusion_list.len()),
            ("spec.exclusionList", spec.exclusion_list.len()),
        ] {
            if count > ITEMS_MAX {
                return Err(format!("`{field}` has {count} entries, more than {ITEMS_MAX}: split the Alert"));
            }
        }
        let sources = spec.event_sources.iter().map(|source| {
            let labels = source.match_labels.clone().unwrap_or_default();
            if !labels.is_empty() && source.name != "*" {
                return Err(format!(
                    "`spec.eventSources` has `matchLabels` beside the name `{}`: labels need the name `*`",
                    source.name
                ));
            }
            let namespace = source.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| key.namespace.clone());
            let name = (source.name != "*").then(|| source.name.clone());
            Ok(Source { kind: source.kind.clone(), namespace, name, labels })
        });
        Ok(Rule {
            key: key.clone(),
            provider: Key::new(key.namespace.clone(), spec.provider_ref.name.clone()),
            suspended: spec.suspend.unwrap_or(false),
            metadata: spec.event_metadata.clone(),
            summary: spec.summary.clone().filter(|summary| !summary.is_empty()),
            severity: spec.event_severity.unwrap_or_default(),
            sources: sources.collect::<Result<_, _>>()?,
            include: expressions("spec.inclusionList", &spec.inclusion_list)?,
            exclude: expressions("spec.exclusionList", &spec.exclusion_list)?,
        })
    }

    /// True if it is about this object.
    pub fn covers(&self, subject: &Subject) -> bool {
        self.sources.iter().any(|source| {
            source.kind == subject.kind
                && source.namespace == subject.namespace
                && source.name.as_ref().is_none_or(|name| *name == subject.name)
                && source.labels.iter().all(|(key, value)| subject.labels.get(key) == Some(value))
        })
    }

    /// True if a message of this severity is wanted.
    pub fn wants(&self, severity: Severity, message: &str) -> bool {
        let severe = self.severity == EventSeverity::Info || severity == Severity::Warning;
        let included = self.include.is_empty() || self.include.iter().any(|e| e.is_match(message));
        severe && included && !self.excludes(message)
    }

    /// True if the message is one that is never to be sent.
    pub fn excludes(&self, message: &str) -> bool {
        self.exclude.iter().any(|e| e.is_match(message))
    }

    /// The kinds it asks for of which nothing is ever reported here.
    pub fn silent_kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<_> =
            self.sources.iter().map(|s| s.kind.as_str()).filter(|kind| !REPORTING_KINDS.contains(kind)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

fn expressions(field: &str, texts: &[String]) -> Result<Vec<Regex>, String> {
    let compile = |text: &String| {
        RegexBuilder::new(text).size_limit(EXPRESSION_BYTES_MAX).build().map_err(|_| {
            format!("`{field}` has `{text}`, which is no regular expression of Go's syntax, or too large a one")
        })
    };
    texts.iter().map(compile).collect()
}

/// Why an Alert, as the API server has it, can't be served; `None` if it can.
pub fn refusal_of_alert(alert: &Value) -> Option<String> {
    match serde_json::from_value::<AlertSpec>(alert["spec"].clone()) {
        Ok(spec) => Rule::compile(&Key::new("", ""), &spec).err(),
        Err(error) => Some(format!("it can't be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(spec: Value) -> Result<Rule, String> {
        let mut whole =
            json!({ "providerRef": { "name": "chat" }, "eventSources": [{ "kind": "Kustomization", "name": "*" }] });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        Rule::compile(&Key::new("prod", "all"), &serde_json::from_value(whole).unwrap())
    }

    fn subject(kind: &'static str, namespace: &str, name: &str, labels: &[(&str, &str)]) -> Subject {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Subject { kind, namespace: namespace.into(), name: name.into(), labels, ..Subject::default() }
    }

    #[test]
    fn objects_are_chosen_by_kind_namespace_name_and_labels() {
        let web = subject("Kustomization", "prod", "web", &[("team", "shop")]);
        let cases = [
            (json!({ "kind": "Kustomization", "name": "*" }), true),
            (json!({ "kind": "Kustomization", "name": "web" }), true),
            (json!({ "kind": "Kustomization", "name": "db" }), false),
            (json!({ "kind": "GitRepository", "name": "*" }), false),
            (json!({ "kind": "Kustomization", "name": "*", "namespace": "prod" }), true),
            (json!({ "kind": "Kustomization", "name": "*", "namespace": "test" }), false),
            (json!({ "kind": "Kustomization", "name": "*", "matchLabels": { "team": "shop" } }), true),
            (json!({ "kind": "Kustomization", "name": "*", "matchLabels": { "team": "pay" } }), false),
            (json!({ "kind": "Kustomization", "name": "*", "matchLabels": { "team": "shop", "tier": "1" } }), false),
        ];
        for (source, covered) in cases {
            let rule = rule(json!({ "eventSources": [source] })).unwrap();
            assert_eq!(rule.covers(&web), covered, "{source}");
        }
    }

    #[test]
    fn messages_are_chosen_by_severity_and_by_both_lists() {
        use Severity::{Normal, Warning};
        let cases = [
            (json!({}), Normal, "applied", true),
            (json!({ "eventSeverity": "info" }), Normal, "applied", true),
            (json!({ "eventSeverity": "error" }), Normal, "applied", false),
            (json!({ "eventSeverity": "error" }), Warning, "broken", true),
            (json!({ "inclusionList": [".*broken.*"] }), Warning, "it is broken now", true),
            (json!({ "inclusionList": ["^broken$"] }), Warning, "it is broken now", false),
            (json!({ "exclusionList": ["waiting.*socket"] }), Warning, "waiting for the socket", false),
            (json!({ "exclusionList": ["(?i)BROKEN"], "inclusionList": ["broken"] }), Warning, "broken", false),
        ];
        for (spec, severity, message, wanted) in cases {
            assert_eq!(rule(spec.clone()).unwrap().wants(severity, message), wanted, "{spec} {message}");
        }
    }

    #[test]
    fn what_can_not_be_served_is_named() {
        let cases = [
            (json!({ "inclusionList": ["(?=ahead)"] }), "`spec.inclusionList` has `(?=ahead)`"),
            (json!({ "exclusionList": ["a{1000}{1000}"] }), "`spec.exclusionList`"),
            (
                json!({ "eventSources": [{ "kind": "Kustomization", "name": "a", "matchLabels": { "x": "y" } }] }),
                "labels need the name `*`",
            ),
        ];
        for (spec, text) in cases {
            let refusal = rule(spec.clone()).expect_err("it is refused");
            assert!(refusal.contains(text), "{spec}: {refusal}");
        }
        let rule = rule(json!({ "eventSources": [{ "kind": "HelmRelease", "name": "*" }] })).unwrap();
        assert_eq!(rule.silent_kinds(), ["HelmRelease"]);
    }
}
