//! Which objects a policy and a binding are for, as an API server's admission decides it.

use serde_json::{Map, Value};

use super::Subject;
use super::definition::{LabelSelector, MatchPolicy, MatchResources, Operator, ResourceRule};

/// The label that every Namespace has.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

impl MatchResources {
    pub(super) fn matches(&self, subject: &Subject<'_>) -> bool {
        let rules = |rules: &[ResourceRule]| rules.iter().any(|rule| rule.matches(subject, self.match_policy));
        self.namespace_selector.as_ref().is_none_or(|selector| selects_namespace(selector, subject))
            && self.object_selector.as_ref().is_none_or(|selector| {
                let old = subject.old_object.is_some_and(|old| selector.selects(labels(old)));
                selector.selects(labels(subject.object)) || old
            })
            && !rules(&self.exclude_resource_rules)
            && (self.resource_rules.is_empty() || rules(&self.resource_rules))
    }
}

impl MatchResources {
    /// Whether it may be for a subject, whatever is done with it and whatever labels say.
    pub(super) fn concerns(&self, subject: &Subject<'_>) -> bool {
        self.resource_rules.is_empty() || self.resource_rules.iter().any(|rule| rule.is_of(subject, self.match_policy))
    }

    /// Whether labels of Namespaces matter, other than the one that every Namespace has.
    pub(super) fn asks_for_namespaces(&self) -> bool {
        self.namespace_selector.as_ref().is_some_and(|selector| {
            let asked = selector.match_expressions.iter().map(|requirement| &requirement.key);
            selector.match_labels.keys().chain(asked).any(|key| key != NAMESPACE_NAME)
        })
    }
}

impl ResourceRule {
    fn matches(&self, subject: &Subject<'_>, policy: MatchPolicy) -> bool {
        self.is_of(subject, policy)
            && self.operations.iter().any(|one| one == "*" || one == subject.operation())
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == subject.name()))
    }

    fn is_of(&self, subject: &Subject<'_>, policy: MatchPolicy) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        // what is meant for everything in a cluster is not meant for repositories
        let group = match subject.is_repository() {
            true => self.api_groups.iter().any(|group| group == subject.group),
            false => any(&self.api_groups, subject.group),
        };
        let scope = match self.scope.as_deref() {
            None | Some("*") => true,
            Some("Namespaced") => subject.namespaced,
            Some(_) => !subject.namespaced,
        };
        // `*/*` are all resources and their subresources
        let resource = self.resources.iter().any(|one| one == "*" || one == "*/*" || one == subject.resource);
        scope && resource && group && (policy == MatchPolicy::Equivalent || any(&self.api_versions, subject.version))
    }
}

impl LabelSelector {
    pub(super) fn selects(&self, labels: Option<&Map<String, Value>>) -> bool {
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        self.match_labels.iter().all(|(key, value)| label(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| {
                let found = label(&requirement.key);
                let listed = found.is_some_and(|found| requirement.values.iter().any(|value| value == found));
                match requirement.operator {
                    Operator::In => listed,
                    Operator::NotIn => !listed,
                    Operator::Exists => found.is_some(),
                    Operator::DoesNotExist => found.is_none(),
                }
            })
    }
}

pub(super) fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.get("labels")?.as_object()
}

/// Objects outside of namespaces always match, but for Namespaces, which are matched by their own labels.
fn selects_namespace(selector: &LabelSelector, subject: &Subject<'_>) -> bool {
    let is_namespace = subject.group.is_empty() && subject.kind == "Namespace";
    let (name, known) = match (is_namespace, subject.namespaced) {
        (true, _) => (subject.name(), Some(subject.object)),
        (_, true) => (subject.namespace(), subject.namespace_object),
        _ => return true,
    };
    let mut all = known.and_then(labels).cloned().unwrap_or_default();
    all.insert(NAMESPACE_NAME.to_owned(), name.into());
    selector.selects(Some(&all))
}
