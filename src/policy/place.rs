//! Where in an object a finding is: policies don't say it, but most messages quote what they are about.

use serde_json::Value;

use crate::manifest::yaml::PathSegment;

use super::{Finding, Subject};

/// Shorter values ("1", "no") stand in any sentence.
const QUOTED_BYTES_MIN: usize = 3;
/// What a message quotes of them is what it is about.
const TELLING: [&str; 2] = ["image", "name"];

/// The place of the first value that the message quotes as a word of its own; empty: the object as a whole.
pub fn place(subject: &Subject<'_>, finding: &Finding) -> Vec<PathSegment> {
    // nothing of a Secret is looked for in a text
    if subject.is_secret() {
        return Vec::new();
    }
    let apart = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '`' | '\'' | '"' | '(' | ')');
    let words = finding.message.split(apart).map(|word| word.trim_end_matches(['.', ':']));
    let words: Vec<&str> = words.filter(|word| word.len() >= QUOTED_BYTES_MIN).collect();
    let mut found = Found::default();
    let Some(fields) = subject.object.as_object() else { return Vec::new() };
    for (key, value) in fields.iter().filter(|(key, _)| !["apiVersion", "kind", "metadata"].contains(&key.as_str())) {
        let mut path = vec![PathSegment::Key(key.clone())];
        search(value, &words, &mut path, &mut found);
    }
    found.telling.or(found.any).unwrap_or_default()
}

#[derive(Default)]
struct Found {
    telling: Option<Vec<PathSegment>>,
    any: Option<Vec<PathSegment>>,
}

fn search(value: &Value, words: &[&str], path: &mut Vec<PathSegment>, found: &mut Found) {
    if found.telling.is_some() {
        return;
    }
    match value {
        Value::String(text) if words.contains(&text.as_str()) => {
            let is_telling = matches!(path.last(), Some(PathSegment::Key(key)) if TELLING.contains(&key.as_str()));
            let place = if is_telling { &mut found.telling } else { &mut found.any };
            place.get_or_insert_with(|| path.clone());
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(at, item)| {
            path.push(PathSegment::Index(at));
            search(item, words, path, found);
            path.pop();
        }),
        Value::Object(fields) => fields.iter().for_each(|(key, field)| {
            path.push(PathSegment::Key(key.clone()));
            search(field, words, path, found);
            path.pop();
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Action;
    use serde_json::json;

    #[test]
    fn a_finding_is_at_the_value_that_it_quotes() {
        let object = json!({
            "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": 9, "selector": {"matchLabels": {"app": "web"}}, "strategy": {"type": "Recreate"},
                "template": {"spec": {"containers": [{"image": "a:1", "name": "proxy"}, {"image": "r.io/b:latest", "name": "web"}]}}},
        });
        let container = |at: usize, field: &str| {
            let key = |text: &str| PathSegment::Key(text.to_owned());
            vec![key("spec"), key("template"), key("spec"), key("containers"), PathSegment::Index(at), key(field)]
        };
        for (message, expected) in [
            ("mutable image tags: r.io/b:latest", container(1, "image")),
            ("no probe: web, proxy", container(0, "name")),
            ("no probe: `web`.", container(1, "name")),
            (
                "not by Recreate",
                vec![
                    PathSegment::Key("spec".into()),
                    PathSegment::Key("strategy".into()),
                    PathSegment::Key("type".into()),
                ],
            ),
            ("too many", vec![]),
        ] {
            let subject = Subject {
                group: "apps",
                version: "v1",
                kind: "Deployment",
                resource: "deployments",
                namespaced: true,
                object: &object,
                old_object: None,
                namespace_object: None,
                user: None,
            };
            let finding = Finding {
                policy: "p".into(),
                binding: "p".into(),
                action: Action::Deny,
                message: message.into(),
                reason: "Invalid".into(),
            };
            assert_eq!(place(&subject, &finding), expected, "{message}");
        }
    }
}
