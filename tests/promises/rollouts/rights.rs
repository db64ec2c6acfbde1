//! Where the daemon may read no Secrets, `manifests/rollouts` gives it what rollouts need. Only a real API server knows
//! rights.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{in_trouble, out_of_trouble, reader};
use crate::rights::narrow_applier;
use crate::support::control_plane::ControlPlane;
use crate::support::env::Env;
use crate::support::installation::{self, NAMESPACE};
use crate::support::rollouts::Rollouts;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_read_once_the_component_gives_the_right() {
    // of its own: the daemon serves all namespaces
    let Some(plane) = ControlPlane::of_its_own().await else { return };
    let mut env = Env::on_plane("rollout_rights", plane).await;
    installation::apply(plane, &installation::manifests()).await.unwrap();
    narrow_applier(&env.client).await;
    without_secrets(&env).await;
    env.arguments = vec![format!("--runtime-namespace={NAMESPACE}")];
    env.use_kubeconfig(installation::kubeconfig_of(plane, NAMESPACE).await.unwrap());

    env.secret("a", json!({ "value": "0" })).await;
    let rollouts = Rollouts::count(&env).await;
    let revision = env.push("A", &[("app/web.yaml", &reader("web", "a"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    let namespace = std::mem::take(&mut env.namespace);
    env.start();
    env.namespace = namespace;
    env.ready_at("app", &revision).await;
    in_trouble(&env, "UnreadableReference", "`manifests/rollouts` has the rights").await;
    env.secret("a", json!({ "value": "1" })).await;

    let component = installation::manifests().join("rollouts/rbac.yaml");
    let given = plane.kubectl().unwrap().args(["apply", "-f"]).arg(component).output().await.unwrap();
    assert!(given.status.success(), "{}", String::from_utf8_lossy(&given.stderr));
    out_of_trouble(&env).await;
    assert_eq!(rollouts.of(&env, "Deployment", "web").await, 0, "what is read for the first time is a baseline");
    env.secret("a", json!({ "value": "2" })).await;
    rollouts.until(&env, "Deployment", "web", 1).await;
}

/// Gives the daemon's service account rights in all namespaces.
pub(super) async fn give(env: &Env, name: &str, rules: Value) {
    let role = json!({ "metadata": { "name": name }, "rules": rules });
    let binding = json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": "afresh", "namespace": NAMESPACE }],
    });
    let made = PostParams::default();
    let roles: Api<ClusterRole> = Api::all(env.client.clone());
    roles.create(&made, &serde_json::from_value(role).unwrap()).await.unwrap();
    let bindings: Api<ClusterRoleBinding> = Api::all(env.client.clone());
    bindings.create(&made, &serde_json::from_value(binding).unwrap()).await.unwrap();
}

/// Until the API server knows of the daemon's rights what was changed last.
pub(super) async fn until_may_get_secret(env: &Env, name: &str, may: bool) {
    let reviews: Api<SubjectAccessReview> = Api::all(env.client.clone());
    let review = json!({ "spec": {
        "user": format!("system:serviceaccount:{NAMESPACE}:afresh"),
        "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{NAMESPACE}"), "system:authenticated"],
        "resourceAttributes": { "resource": "secrets", "verb": "get", "namespace": env.namespace, "name": name },
    } });
    let review: SubjectAccessReview = serde_json::from_value(review).unwrap();
    env.eventually(&format!("the daemon may get Secret `{name}`: {may}"), async || {
        let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
        answer.status.is_some_and(|status| status.allowed == may).then_some(())
    })
    .await;
}

/// Takes the right to read Secrets and ConfigMaps from the daemon's own role; it keeps that to read its key.
pub(super) async fn without_secrets(env: &Env) {
    let own = json!({
        "metadata": { "name": "key" },
        "rules": [{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }],
    });
    let given = json!({
        "metadata": { "name": "key" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "key" },
        "subjects": [{ "kind": "ServiceAccount", "name": "afresh", "namespace": NAMESPACE }],
    });
    let made = PostParams::default();
    let roles: Api<Role> = Api::namespaced(env.client.clone(), NAMESPACE);
    roles.create(&made, &serde_json::from_value(own).unwrap()).await.unwrap();
    let bindings: Api<RoleBinding> = Api::namespaced(env.client.clone(), NAMESPACE);
    bindings.create(&made, &serde_json::from_value(given).unwrap()).await.unwrap();
    let roles: Api<ClusterRole> = Api::all(env.client.clone());
    let role = json!(roles.get("afresh").await.unwrap());
    let reads_secrets = |rule: &&Value| rule["resources"] == json!(["secrets", "configmaps"]);
    let rules = role["rules"].as_array().unwrap();
    let left: Vec<&Value> = rules.iter().filter(|rule| !reads_secrets(rule)).collect();
    assert_eq!(left.len() + 1, rules.len());
    let patch = Patch::Merge(json!({ "rules": left }));
    roles.patch("afresh", &PatchParams::default(), &patch).await.unwrap();
}
