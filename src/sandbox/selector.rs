//! Label and field selectors, as queries carry them.

use serde_json::Value;

use super::refusal::Refusal;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

/// All requirements on labels must hold; none at all selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            requirements.push(Self::requirement(part).ok_or_else(|| Refusal::bad_request(parse_error(part)))?);
        }
        Ok(Self(requirements))
    }

    fn requirement(part: &str) -> Option<Requirement> {
        let key = |text: &str| -> Option<String> {
            let text = text.trim();
            (!text.is_empty() && !text.contains([' ', '(', ')', '!', '='])).then(|| text.to_owned())
        };
        if let Some(rest) = part.strip_prefix('!') {
            return Some(Requirement::Absent(key(rest)?));
        }
        if let Some((left, list)) = part.split_once('(') {
            let list = list.strip_suffix(')')?;
            let values = list.split(',').map(|v| v.trim().to_owned()).collect();
            let (name, word) = left.trim_end().rsplit_once(char::is_whitespace)?;
            return match word {
                "in" => Some(Requirement::In(key(name)?, values)),
                "notin" => Some(Requirement::NotIn(key(name)?, values)),
                _ => None,
            };
        }
        if let Some((name, value)) = part.split_once("!=") {
            return Some(Requirement::NotIn(key(name)?, vec![value.trim().to_owned()]));
        }
        if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            return Some(Requirement::In(key(name)?, vec![value.trim().to_owned()]));
        }
        if let Some((name, value)) = part.split_once('>') {
            return Some(Requirement::Greater(key(name)?, value.trim().parse().ok()?));
        }
        if let Some((name, value)) = part.split_once('<') {
            return Some(Requirement::Less(key(name)?, value.trim().parse().ok()?));
        }
        Some(Requirement::Exists(key(part)?))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if the labels of `object` meet all requirements.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|m| m.get("labels"));
        let label = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
        let number = |key: &str| label(key).and_then(|v| v.parse::<i64>().ok());
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Requirement::NotIn(key, values) => label(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
            Requirement::Greater(key, bound) => number(key).is_some_and(|v| v > *bound),
            Requirement::Less(key, bound) => number(key).is_some_and(|v| v < *bound),
        })
    }
}

/// What is wrong with a requirement, as the API server's parser says it.
fn parse_error(part: &str) -> String {
    let operators = "in, notin, =, ==, !=, gt, lt";
    let mut words = part.split_whitespace();
    match (words.next().unwrap_or_default(), words.next()) {
        (first, _) if first.starts_with('=') => "found '=', expected: !, identifier, or 'end of string'".into(),
        (_, Some("in" | "notin")) => {
            format!("unable to parse requirement: found '{}' expected: '('", words.next().unwrap_or_default())
        }
        (_, Some(word)) => format!("unable to parse requirement: found '{word}', expected: {operators}"),
        _ => "unable to parse requirement: found '(', expected: identifier".into(),
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Requirements on fields of the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(String, String, bool)>);

impl FieldSelector {
    pub fn parse(text: &str, group: &str, plural: &str) -> Result<Self, Refusal> {
        let mut requirements = Vec::new();
        for part in text.split(',').filter(|p| !p.trim().is_empty()) {
            let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (path, value, true)
            } else {
                return Err(Refusal::bad_request(format!("invalid selector: '{part}'; can't understand '{part}'")));
            };
            let path = path.trim();
            if !matches!(path, "metadata.name" | "metadata.namespace") {
                let fields = supported(group, plural);
                if fields.is_empty() {
                    return Err(Refusal::bad_request(format!(
                        "\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )));
                }
                if !fields.contains(&path) {
                    return Err(Refusal::bad_request(format!("field label not supported: {path}")));
                }
            }
            requirements.push((path.to_owned(), value.trim().to_owned(), equal));
        }
        Ok(Self(requirements))
    }

    /// The one name that is selected, if the selector asks for one.
    pub fn name(&self) -> Option<&str> {
        self.0.iter().find(|(path, _, equal)| *equal && path == "metadata.name").map(|(_, value, _)| value.as_str())
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, value, equal)| (field(object, path) == *value) == *equal)
    }
}

/// Fields that can be selected by besides name and namespace, per kind.
fn supported(group: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "namespaces") => &["status.phase"],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "events") | ("events.k8s.io", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "reason",
            "reportingComponent",
            "reportingController",
            "source",
            "type",
        ],
        ("batch", "jobs") => &["status.successful"],
        ("apps", "replicasets") | ("", "replicationcontrollers") => &["status.replicas"],
        _ => &[],
    }
}

/// The text of a field; absent ones are empty.
fn field(object: &Value, path: &str) -> String {
    let path = match path {
        "reportingController" => "reportingComponent",
        "source" => "source.component",
        other => other,
    };
    // events are stored in the core group's form
    let mut steps = path.split('.').map(|s| if s == "regarding" { "involvedObject" } else { s });
    match steps.try_fold(object, |value, step| value.get(step)) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_select_as_kubectl_documents() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front", "n": "5"}}});
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web, api)", true),
            ("app notin (web,api),tier", false),
            ("app,tier", true),
            ("!app", false),
            ("!other", true),
            ("n>4", true),
            ("n<5", false),
            ("app in (api),tier=front", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&object), expected, "{text}");
        }
        for text in ["app=(web)", "a b", "app within (x)", "=x"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn field_selectors_select_by_the_fields_that_kubernetes_allows() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        for (text, expected) in [
            ("metadata.name=a", true),
            ("status.phase!=Running", false),
            ("spec.nodeName=n,status.phase=Running", true),
            ("spec.nodeName=", false),
        ] {
            assert_eq!(FieldSelector::parse(text, "", "pods").unwrap().matches(&pod), expected, "{text}");
        }
        assert!(FieldSelector::parse("spec.replicas=1", "apps", "deployments").is_err());
    }
}
