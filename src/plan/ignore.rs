//! `spec.ignore`: fields that are left to others, by pointer and by object.
//!
//! Comes in: the rules of a Kustomization. Goes out: the places of each declared object that anybody may write. What is
//! wrong with a rule is named; nothing is skipped.

use crate::api::IgnoreRule;
use crate::manifest::{Object, Pointer};
use crate::render::{Matcher, Selector};

/// The rules, ready to be asked.
#[derive(Default)]
pub struct IgnoreRules(Vec<(Vec<Pointer>, Option<Matcher>)>);

/// Rules of one Kustomization, and pointers of one rule: each object is held against all of them.
const RULES_MAX: usize = 100;
const PATHS_MAX: usize = 100;

/// Places that say which object it is, and whose.
const IDENTITY: [&str; 5] = ["/apiVersion", "/kind", "/metadata", "/metadata/name", "/metadata/namespace"];

/// Why rules can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    #[error("`spec.ignore` has {count} rules; at most {RULES_MAX} are served")]
    TooManyRules { count: usize },
    #[error("`spec.ignore[{rule}].paths` has {count} entries; a rule has from 1 to {PATHS_MAX}")]
    Paths { rule: usize, count: usize },
    #[error(
        "`spec.ignore[{rule}].paths[{path}]` is `{text}`, which is no JSON pointer: {why}\nhint: write it as `/spec/replicas`; `/` in a name is `~1`, `~` is `~0`"
    )]
    Pointer { rule: usize, path: usize, text: String, why: String },
    #[error(
        "`spec.ignore[{rule}].paths[{path}]` is `{text}`, by which objects are told apart; it can't be left to others"
    )]
    Identity { rule: usize, path: usize, text: String },
    #[error("`spec.ignore[{rule}].target.{field}`: {why}")]
    Target { rule: usize, field: &'static str, why: String },
}

impl IgnoreRules {
    pub fn compile(rules: &[IgnoreRule]) -> Result<Self, IgnoreError> {
        if rules.len() > RULES_MAX {
            return Err(IgnoreError::TooManyRules { count: rules.len() });
        }
        rules.iter().enumerate().map(|(at, rule)| compiled(at, rule)).collect::<Result<_, _>>().map(Self)
    }

    /// The places of an object that are left to others, in the order of the rules.
    pub fn of(&self, object: &Object) -> Vec<Pointer> {
        let meant = self.0.iter().filter(|(_, target)| target.as_ref().is_none_or(|target| target.object(object)));
        meant.flat_map(|(pointers, _)| pointers).cloned().collect()
    }
}

fn compiled(rule: usize, written: &IgnoreRule) -> Result<(Vec<Pointer>, Option<Matcher>), IgnoreError> {
    let count = written.paths.len();
    if count == 0 || count > PATHS_MAX {
        return Err(IgnoreError::Paths { rule, count });
    }
    let mut pointers = Vec::with_capacity(count);
    for (path, text) in written.paths.iter().enumerate() {
        if IDENTITY.contains(&text.as_str()) {
            return Err(IgnoreError::Identity { rule, path, text: text.clone() });
        }
        let pointer = Pointer::parse(text).map_err(|why| IgnoreError::Pointer {
            rule,
            path,
            text: text.clone(),
            why: why.to_string(),
        })?;
        pointers.push(pointer);
    }
    let Some(target) = &written.target else { return Ok((pointers, None)) };
    let selector = Selector::from(target);
    if let Some((field, why)) = selector.mistake() {
        return Err(IgnoreError::Target { rule, field, why });
    }
    let matcher = selector.compile().map_err(|why| IgnoreError::Target { rule, field: "", why })?;
    Ok((pointers, Some(matcher)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PatchTarget;
    use crate::manifest::{ObjectId, Origin};
    use serde_json::json;

    fn rule(paths: &[&str], target: Option<PatchTarget>) -> IgnoreRule {
        IgnoreRule { paths: paths.iter().map(ToString::to_string).collect(), target, before_dry_run: None }
    }

    fn object(group: &str, kind: &str, name: &str) -> Object {
        Object {
            id: ObjectId::new(group, kind, "shop", name),
            version: "v1".into(),
            origin: Origin { path: "a.yaml".into(), line: 1 },
            value: json!({"metadata": {"name": name, "labels": {"app": name}, "annotations": {"team": "a"}}}),
        }
    }

    #[test]
    fn a_rule_that_can_not_be_used_is_named() {
        let kind = |kind: &str| Some(PatchTarget { kind: kind.into(), ..PatchTarget::default() });
        for (rules, expected) in [
            (vec![rule(&[], None)], "`spec.ignore[0].paths` has 0 entries; a rule has from 1 to 100"),
            (
                vec![rule(&["/spec/a"], None), rule(&["/spec/b", "spec.replicas"], None)],
                "`spec.ignore[1].paths[1]` is `spec.replicas`, which is no JSON pointer: it doesn't begin with `/`",
            ),
            (
                vec![rule(&["/metadata/name"], None)],
                "`spec.ignore[0].paths[0]` is `/metadata/name`, by which objects are told apart; it can't be left to others",
            ),
            (
                vec![rule(&["/spec/a"], kind("De(ployment"))],
                "`spec.ignore[0].target.kind`: `De(ployment` is not a regular expression",
            ),
            (vec![rule(&["/spec/a"], None); 101], "`spec.ignore` has 101 rules; at most 100 are served"),
        ] {
            let error = IgnoreRules::compile(&rules).err().expect(expected).to_string();
            assert_eq!(error.lines().next(), Some(expected));
        }
    }

    #[test]
    fn a_rule_is_for_the_objects_that_its_target_means() {
        let target = |change: fn(&mut PatchTarget)| {
            let mut target = PatchTarget::default();
            change(&mut target);
            rule(&["/spec/replicas"], Some(target))
        };
        let web = object("apps", "Deployment", "web");
        for (rule, meant) in [
            (rule(&["/spec/replicas"], None), true),
            (target(|t| t.kind = "Deployment|StatefulSet".into()), true),
            (target(|t| t.kind = "Deploy".into()), false),
            (target(|t| t.group = "apps".into()), true),
            (target(|t| t.version = "v2".into()), false),
            (target(|t| t.name = "w.*".into()), true),
            (target(|t| t.namespace = "other".into()), false),
            (target(|t| t.label_selector = "app in (web, api)".into()), true),
            (target(|t| t.label_selector = "app!=web".into()), false),
            (target(|t| t.annotation_selector = "team=a".into()), true),
        ] {
            let rules = IgnoreRules::compile(std::slice::from_ref(&rule)).ok().unwrap();
            assert_eq!(!rules.of(&web).is_empty(), meant, "{rule:?}");
        }
    }
}
