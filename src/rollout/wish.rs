//! Who asked for rollouts: the workload, its namespace or its Kustomization by `afresh.dev/rollout`, or the workload by
//! the annotations of Reloader, so that Reloader can be removed.

use serde_json::Value;

use crate::api;
use crate::manifest::ObjectId;

use super::reference::{Configuration, Kind, References, Wanted, references};
use super::template::{pod_spec, template};

/// The values of `afresh.dev/rollout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `on-config-change`.
    OnChange,
    /// `never`: whatever is asked for further up.
    Never,
}

impl Wish {
    pub const VALUES: &str = "`on-config-change` or `never`";

    /// `None`: no such wish is known.
    pub fn parse(value: &str) -> Option<Self> {
        match value {
            "on-config-change" => Some(Self::OnChange),
            "never" => Some(Self::Never),
            _ => None,
        }
    }
}

/// What is asked for further up than the workload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    pub by_kustomization: Option<Wish>,
    pub by_namespace: Option<Wish>,
}

const AUTO: &str = "reloader.stakater.com/auto";
const AUTO_OF: [(&str, Kind); 2] =
    [("secret.reloader.stakater.com/auto", Kind::Secret), ("configmap.reloader.stakater.com/auto", Kind::ConfigMap)];
const NAMES: [(&str, Kind); 2] = [
    ("secret.reloader.stakater.com/reload", Kind::Secret),
    ("configmap.reloader.stakater.com/reload", Kind::ConfigMap),
];
const EXCLUDED: [(&str, Kind); 2] = [
    ("secrets.exclude.reloader.stakater.com/reload", Kind::Secret),
    ("configmaps.exclude.reloader.stakater.com/reload", Kind::ConfigMap),
];

/// What of the workload's configuration is followed; `None`: nobody asked for it. The nearest wish counts: the
/// workload's, then its namespace's, then the Kustomization's.
pub fn followed(id: &ObjectId, workload: &Value, above: Asked) -> Option<References> {
    let spec = pod_spec(id, workload)?;
    let own = annotation(workload, api::ROLLOUT).and_then(Wish::parse);
    if own == Some(Wish::Never) {
        return None;
    }
    // Reloader looks at the workload first and then at its template
    let places = [Some(workload), template(id, workload)];
    let asked = |key: &str| places.iter().flatten().find_map(|place| annotation(place, key));
    let is = |key: &str, value: &str| asked(key).is_some_and(|text| text.eq_ignore_ascii_case(value));
    let above = above.by_namespace.or(above.by_kustomization) == Some(Wish::OnChange) && !is(AUTO, "false");
    let all = own == Some(Wish::OnChange) || is(AUTO, "true") || above;
    let all_of = |kind: Kind| all || AUTO_OF.iter().any(|(key, of)| *of == kind && is(key, "true"));
    let mut found = References::new();
    if all_of(Kind::Secret) || all_of(Kind::ConfigMap) {
        found = references(spec);
        found.retain(|configuration, _| all_of(configuration.kind));
        for (key, kind) in EXCLUDED {
            for name in names(asked(key)) {
                found.remove(&Configuration::new(kind, name));
            }
        }
    }
    let mut named = false;
    let read = references(spec);
    for (key, kind) in NAMES {
        for name in names(asked(key)) {
            named = true;
            let configuration = Configuration::new(kind, name);
            // as a whole, but required only if the Pods require it
            let wanted = read.get(&configuration).cloned().unwrap_or_default();
            found.insert(configuration, Wanted { whole: true, ..wanted });
        }
    }
    let asked_for = named || all_of(Kind::Secret) || all_of(Kind::ConfigMap);
    asked_for.then_some(found)
}

fn annotation<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

fn names(list: Option<&str>) -> impl Iterator<Item = &str> {
    list.into_iter().flat_map(|list| list.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    fn told(annotations: &[(&str, &str)], on_template: bool, above: Asked) -> Option<Vec<String>> {
        let annotations: Map<_, _> = annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let (own, template) =
            if on_template { (json!({}), json!(annotations)) } else { (json!(annotations), json!({})) };
        let workload = json!({
            "metadata": {"annotations": own},
            "spec": {"template": {
                "metadata": {"annotations": template},
                "spec": {"containers": [{
                    "envFrom": [{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "c"}}],
                    "env": [{"valueFrom": {"secretKeyRef": {"name": "t", "key": "k"}}}],
                }]},
            }},
        });
        let found = followed(&ObjectId::new("apps", "Deployment", "n", "a"), &workload, above)?;
        Some(found.iter().map(|(c, wanted)| format!("{c}{}", if wanted.whole { "" } else { " by key" })).collect())
    }

    #[test]
    fn whoever_is_nearest_decides_and_reloaders_annotations_mean_what_they_meant() {
        let all = || Some(vec!["configmap/c".to_owned(), "secret/s".to_owned(), "secret/t by key".to_owned()]);
        let some = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        let (none, yes, no) = (None, Some(Wish::OnChange), Some(Wish::Never));
        let above = |by_namespace, by_kustomization| Asked { by_kustomization, by_namespace };
        type Case<'a> = (&'a [(&'a str, &'a str)], Asked, Option<Vec<String>>);
        let cases: [Case<'_>; 18] = [
            (&[], above(none, none), None),
            (&[("afresh.dev/rollout", "on-config-change")], above(none, none), all()),
            (&[], above(none, yes), all()),
            (&[], above(yes, none), all()),
            (&[], above(no, yes), None),
            (&[], above(yes, no), all()),
            (&[("afresh.dev/rollout", "never")], above(yes, yes), None),
            (&[("afresh.dev/rollout", "never"), (AUTO, "true")], above(none, none), None),
            (&[("afresh.dev/rollout", "on-config-change")], above(no, no), all()),
            (&[(AUTO, "true")], above(none, none), all()),
            (&[(AUTO, "false")], above(yes, yes), None),
            (
                &[("secret.reloader.stakater.com/auto", "true")],
                above(none, none),
                some(&["secret/s", "secret/t by key"]),
            ),
            (&[("configmap.reloader.stakater.com/auto", "true")], above(none, none), some(&["configmap/c"])),
            (
                &[("secret.reloader.stakater.com/reload", "t, other ,")],
                above(none, none),
                some(&["secret/other", "secret/t"]),
            ),
            (&[("configmap.reloader.stakater.com/reload", "c")], above(none, none), some(&["configmap/c"])),
            (
                &[(AUTO, "true"), ("configmap.reloader.stakater.com/reload", "x")],
                above(none, none),
                some(&["configmap/c", "configmap/x", "secret/s", "secret/t by key"]),
            ),
            (
                &[(AUTO, "true"), ("secrets.exclude.reloader.stakater.com/reload", "s")],
                above(none, none),
                some(&["configmap/c", "secret/t by key"]),
            ),
            (&[("reloader.stakater.com/search", "true")], above(none, none), None),
        ];
        for (annotations, above, expected) in cases {
            assert_eq!(told(annotations, false, above), expected, "{annotations:?} {above:?}");
        }
        assert_eq!(told(&[(AUTO, "true")], true, Asked::default()), all(), "Reloader reads the template's, too");
    }

    #[test]
    fn a_wish_of_another_word_is_known_to_nobody() {
        assert_eq!(Wish::parse("on-config-change"), Some(Wish::OnChange));
        assert_eq!(Wish::parse("always"), None);
    }
}
