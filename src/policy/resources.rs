//! Plurals and scopes of kinds, by which rules name them, where no API server is asked.

use std::collections::BTreeMap;

use crate::manifest::Object;
use crate::render::is_cluster_scoped;

/// What the definitions of one set of objects say of the kinds that they bring.
#[derive(Debug, Default)]
pub struct Resources(BTreeMap<(String, String), (String, bool)>);

impl Resources {
    pub fn of<'a>(objects: impl Iterator<Item = &'a Object>) -> Self {
        let of = |object: &Object| {
            if object.id.group != "apiextensions.k8s.io" || object.id.kind != "CustomResourceDefinition" {
                return None;
            }
            let spec = object.value.get("spec")?;
            let names = spec.get("names")?;
            let text = |value: Option<&serde_json::Value>| Some(value?.as_str()?.to_owned());
            let key = (text(spec.get("group"))?, text(names.get("kind"))?);
            Some((key, (text(names.get("plural"))?, text(spec.get("scope"))? == "Namespaced")))
        };
        Self(objects.filter_map(of).collect())
    }

    /// The plural of a kind, and whether it lives in namespaces.
    pub fn find(&self, group: &str, kind: &str) -> (String, bool) {
        let known = self.0.get(&(group.to_owned(), kind.to_owned())).cloned();
        known.unwrap_or_else(|| (plural(kind), !is_cluster_scoped(group, kind)))
    }
}

/// As apimachinery guesses it; right for all built-in kinds.
fn plural(kind: &str) -> String {
    let singular = kind.to_ascii_lowercase();
    match singular.as_bytes() {
        _ if singular == "endpoints" => singular,
        [.., b's'] => format!("{singular}es"),
        [.., b'y'] => format!("{}ies", &singular[..singular.len() - 1]),
        _ => format!("{singular}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_are_those_of_the_built_in_kinds() {
        for (kind, expected) in [
            ("Deployment", "deployments"),
            ("Ingress", "ingresses"),
            ("NetworkPolicy", "networkpolicies"),
            ("Endpoints", "endpoints"),
            ("StorageClass", "storageclasses"),
        ] {
            assert_eq!(plural(kind), expected);
        }
    }
}
