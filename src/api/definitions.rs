//! The CustomResourceDefinitions, generated from the types beside this file.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use super::{Alert, GitRepository, Kustomization, Provider, Receiver};

/// All definitions that Afresh installs.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut all = vec![GitRepository::crd(), Kustomization::crd(), Receiver::crd(), Alert::crd(), Provider::crd()];
    for definition in &mut all {
        let labels = definition.metadata.labels.get_or_insert_default();
        labels.insert("app.kubernetes.io/part-of".into(), "afresh".into());
    }
    all
}

/// The definitions as one YAML stream, for `kubectl apply --server-side -f -`.
pub fn definitions_yaml() -> String {
    let mut out = String::new();
    for definition in definitions() {
        out.push_str("---\n");
        out.push_str(&serde_yaml::to_string(&definition).expect("a definition made of plain data serialises"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_carry_every_field_of_flux_and_the_columns_its_users_know() {
        let all = serde_json::to_value(definitions()).unwrap();
        let version = |i: usize| all[i]["spec"]["versions"][0].clone();
        let columns = |i: usize| -> Vec<String> {
            version(i)["additionalPrinterColumns"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c["name"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(columns(0), ["URL", "Age", "Ready", "Status"]);
        assert_eq!(columns(1), ["Age", "Ready", "Status"]);
        assert_eq!(columns(2), ["Age", "Ready", "Status"]);
        let spec = &version(1)["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        for field in [
            "commonMetadata",
            "components",
            "decryption",
            "deletionPolicy",
            "dependsOn",
            "force",
            "healthCheckExprs",
            "healthChecks",
            "ignoreMissingComponents",
            "images",
            "interval",
            "kubeConfig",
            "namePrefix",
            "nameSuffix",
            "patches",
            "path",
            "postBuild",
            "prune",
            "retryInterval",
            "serviceAccountName",
            "sourceRef",
            "suspend",
            "targetNamespace",
            "timeout",
            "wait",
            "buildMetadata",
            "ignore",
        ] {
            assert!(spec.get(field).is_some(), "{field}");
        }
        assert_eq!(spec["kubeConfig"]["x-kubernetes-preserve-unknown-fields"], true);
    }
}
