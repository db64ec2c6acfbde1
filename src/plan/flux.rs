//! Flux's own installation in the cluster and in Git, as `flux bootstrap` puts it there.
//!
//! Comes in: identities and what is declared. Goes out: what of it is Flux's own, and what an application may never
//! delete because it stands on it. Flux's label decides (`app.kubernetes.io/part-of: flux`), not names.

use crate::api::{Key, PART_OF};
use crate::manifest::ObjectId;

use super::desired::Desired;

/// Kinds that an installation of Flux consists of: what else carries its label is people's own.
const KINDS: [(&str, &str); 9] = [
    ("", "Namespace"),
    ("", "ResourceQuota"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apps", "Deployment"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
];

/// Whether an object that carries Flux's label belongs to its installation.
pub fn is_of_flux(id: &ObjectId) -> bool {
    KINDS.contains(&(id.group.as_str(), id.kind.as_str()))
}

/// Flux's controllers among what is declared.
pub fn controllers(desired: &[Desired]) -> Vec<&Desired> {
    let is_one = |desired: &&Desired| {
        let id = &desired.object.id;
        id.group == "apps" && id.kind == "Deployment" && desired.object.value()["metadata"]["labels"][PART_OF] == "flux"
    };
    desired.iter().filter(is_one).collect()
}

/// What an application stands on: deleting it would end the application in the middle of its own work, and others too.
#[derive(Clone, Debug)]
pub struct Ground {
    pub application: Key,
    pub source: Key,
}

impl Ground {
    /// Whether the application must never delete this.
    pub fn holds(&self, id: &ObjectId) -> bool {
        let is = |key: &Key| id.namespace == key.namespace && id.name == key.name;
        match (id.group.as_str(), id.kind.as_str()) {
            ("", "Namespace") => id.name == self.application.namespace || id.name == self.source.namespace,
            ("kustomize.toolkit.fluxcd.io", "Kustomization") => is(&self.application),
            ("source.toolkit.fluxcd.io", "GitRepository") => is(&self.source),
            // with the definition all objects of its kind go, of all applications
            ("apiextensions.k8s.io", "CustomResourceDefinition") => id.name.ends_with(".toolkit.fluxcd.io"),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_never_deletes_what_it_stands_on() {
        let ground =
            Ground { application: Key::new("flux-system", "flux-system"), source: Key::new("sources", "platform") };
        let crd = |name: &str| ObjectId::new("apiextensions.k8s.io", "CustomResourceDefinition", "", name);
        let namespace = |name: &str| ObjectId::new("", "Namespace", "", name);
        let ks = |namespace: &str, name: &str| {
            ObjectId::new("kustomize.toolkit.fluxcd.io", "Kustomization", namespace, name)
        };
        let source =
            |namespace: &str, name: &str| ObjectId::new("source.toolkit.fluxcd.io", "GitRepository", namespace, name);
        let cases = [
            (namespace("flux-system"), true),
            (namespace("sources"), true),
            (namespace("apps"), false),
            (ks("flux-system", "flux-system"), true),
            (ks("flux-system", "apps"), false),
            (ks("apps", "flux-system"), false),
            (source("sources", "platform"), true),
            (source("flux-system", "platform"), false),
            (crd("kustomizations.kustomize.toolkit.fluxcd.io"), true),
            (crd("helmreleases.helm.toolkit.fluxcd.io"), true),
            (crd("widgets.example.com"), false),
            (ObjectId::new("", "ConfigMap", "flux-system", "flux-system"), false),
        ];
        for (id, held) in cases {
            assert_eq!(ground.holds(&id), held, "{id}");
        }
    }
}
