//! The Service that admission refuses: by a rule of the sandbox, or by a ValidatingAdmissionPolicy on a real server.

use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};

use super::declare::{self, MANAGER};
use super::story;
use crate::cluster::{ApplyOptions, Cluster, FieldValidation};
use crate::manifest::ObjectId;
use crate::sandbox::{Effect, Match, Sandbox};

const POLICY: &str = "services-stay-inside.demo.afresh.dev";
const REASON: &str = "Services of type NodePort are not allowed here";
/// A policy takes effect some time after it was made; the API server doesn't say when.
const EFFECT_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(250);

/// Every write of that Service is denied as a webhook would.
pub fn by_fault(sandbox: &Sandbox) {
    let writes = Match::writes().on("services").in_namespace(story::NAMESPACE).named(story::REFUSED_SERVICE);
    let effect = Effect::Deny { webhook: POLICY.to_owned(), message: REASON.to_owned(), code: 403 };
    sandbox.faults().always(writes, effect);
}

/// Makes the policy and waits until it refuses.
pub async fn by_policy(cluster: &Cluster) -> anyhow::Result<()> {
    for object in policy() {
        declare::apply(cluster, &object).await?;
    }
    let deadline = tokio::time::Instant::now() + EFFECT_MAX;
    while is_admitted(cluster).await? {
        if tokio::time::Instant::now() > deadline {
            bail!("the ValidatingAdmissionPolicy `{POLICY}` has no effect");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

pub async fn remove_policy(cluster: &Cluster) -> anyhow::Result<()> {
    for object in policy() {
        declare::remove(cluster, &object).await?;
    }
    Ok(())
}

async fn is_admitted(cluster: &Cluster) -> anyhow::Result<bool> {
    // a namespace that is there from the beginning
    let id = ObjectId::new("", "Service", "default", story::REFUSED_SERVICE);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": id.name, "namespace": id.namespace },
        "spec": { "type": "NodePort", "ports": [{ "port": 80 }] },
    });
    let kind = cluster.resolve("", "Service", Some("v1")).await?;
    let options = ApplyOptions { manager: MANAGER, force: true, dry_run: true, validation: FieldValidation::Strict };
    Ok(cluster.apply(&kind, &id, &service, options).await.is_ok())
}

fn policy() -> [Value; 2] {
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": POLICY },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": { "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["services"], "resourceNames": [story::REFUSED_SERVICE],
                }] },
                "validations": [{ "expression": "object.spec.type != 'NodePort'", "message": REASON }],
            },
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": POLICY },
            "spec": { "policyName": POLICY, "validationActions": ["Deny"] },
        }),
    ]
}
