//! What `kubectl apply -k` installs: enough, and nothing that isn't needed. Only a real API server knows rights; all
//! other scenarios run there with the same service account.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use afresh::api::FINALIZER;
use afresh::manifest::yaml;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::control_plane::ControlPlane;
use crate::support::env::{Cluster, Env, PATIENCE, SOURCE, is_ready_at};
use crate::support::installation::{self, NAMESPACE};
use crate::support::manifests::{config_map, deployment};
use crate::support::wait::{eventually, watch_until};

/// A verb on a resource, as rules and requests name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    group: String,
    /// With its subresource behind a slash.
    resource: String,
    verb: String,
}

/// A request that the daemon sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    right: Right,
    namespace: String,
    name: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_account_needs_each_of_its_rights_and_no_other() {
    if !ControlPlane::available() {
        println!("skipped: KUBEBUILDER_ASSETS is not set");
        return;
    }
    // of its own: the daemon serves all namespaces
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start().await.unwrap()));
    let mut env = Env::on_plane("rights", plane).await;
    installation::apply(plane, &installation::manifests()).await.unwrap();
    env.use_kubeconfig(installation::kubeconfig_of(plane, NAMESPACE).await.unwrap());
    let applier = narrow_applier(&env.client).await;

    exercise(&mut env).await;
    let requests = requests_of_the_service_account(plane);
    println!("{} kinds of requests", requests.len());

    let (daemon, in_namespace) = rules_of_the_daemon();
    let full = json!({ "cluster": daemon, "namespace": in_namespace });
    let mut users = BTreeMap::new();
    for (scope, at, right) in rights(&full) {
        let mut less = full.clone();
        take_away(&mut less[scope][at], &right);
        let user = format!("without-{}", users.len());
        bind(&env.client, &user, &less, &applier).await;
        users.insert(user, right);
    }
    bind(&env.client, "with-all", &full, &applier).await;
    // the authorizer learns of roles in their order
    eventually(PATIENCE, async || {
        let mut all = true;
        for request in &requests {
            all = all && is_allowed(&env.client, "with-all", request).await;
        }
        all.then_some(())
    })
    .await
    .expect("all rights together suffice for all that was asked");

    for (user, right) in &users {
        let mut refused = None;
        for request in requests.iter().filter(|request| request.right == *right) {
            if !is_allowed(&env.client, user, request).await {
                refused = Some(request);
                break;
            }
        }
        let refused = refused.unwrap_or_else(|| panic!("nothing needs {right:?}"));
        println!("without {right:?}: {}/{} is refused", refused.namespace, refused.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_one_namespace_rights_in_that_namespace_suffice() {
    let Some(mut env) = Env::on_real_server("in-one-namespace").await else { return };
    let Cluster::Real(plane) = env.cluster else { unreachable!() };
    install_in(&env, plane).await;
    env.use_kubeconfig(installation::kubeconfig_of(plane, &env.namespace).await.unwrap());

    let begun = plane.audit().unwrap().len();
    let widening = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "wide" },
        "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["update", "deletecollection"] }],
    });
    let bound = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "wide" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "wide" },
        "subjects": [{ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "somebody" }],
    });
    env.begin(&[
        ("app/settings.yaml", &config_map("settings", "a")),
        ("app/web.yaml", &deployment("web", "web:1")),
        ("app/role.yaml", &widening.to_string()),
        ("app/binding.yaml", &bound.to_string()),
    ])
    .await;
    env.until_live("Deployment", "web", "available", |web| web["status"]["availableReplicas"] == 1).await;
    env.push("B", &[("app/settings.yaml", &config_map("other", "a"))]);
    env.announce().await;
    env.until_gone("ConfigMap", "settings").await;
    assert_eq!(refusals(plane, begun, &env.namespace), Vec::<String>::new());

    let outside = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "outside" } });
    let c = env.push("C", &[("outside/namespace.yaml", &outside.to_string())]);
    env.announce().await;
    env.kustomization("outside", |_| {}).await;
    // `targetNamespace` renames it, as kustomize does
    env.failed_at("outside", &c, &format!("outside/namespace.yaml:1: Namespace/{}", env.namespace)).await;
    let elsewhere = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "there", "namespace": "default" },
    });
    let d = env.push("D", &[("elsewhere/there.yaml", &elsewhere.to_string())]);
    env.announce().await;
    env.kustomization("elsewhere", |spec| spec["targetNamespace"] = Value::Null).await;
    env.failed_at("elsewhere", &d, "ConfigMap/default/there").await;
    // it goes on serving what it may
    env.ready_at("app", &d).await;
}

/// An overlay for the scenario's namespace, as the manifest tells to make one.
async fn install_in(env: &Env, plane: &ControlPlane) {
    let overlay = env.folder().join("overlay");
    std::fs::create_dir_all(&overlay).unwrap();
    // kustomize takes no absolute paths
    let overlay = overlay.canonicalize().unwrap();
    let up: String = overlay.components().skip(1).map(|_| "../").collect();
    let namespaced = installation::manifests().join("namespaced").canonicalize().unwrap();
    let base = format!("{up}{}", namespaced.strip_prefix("/").unwrap().display());
    let kustomization = json!({ "namespace": env.namespace, "resources": [base] });
    std::fs::write(overlay.join("kustomization.yaml"), kustomization.to_string()).unwrap();
    installation::apply(plane, &overlay).await.unwrap();
}

/// Makes the daemon do once whatever it does.
async fn exercise(env: &mut Env) {
    let namespace = env.namespace.clone();
    for (kind, name, data) in [("Secret", "git", "stringData"), ("ConfigMap", "values", "data")] {
        let object = json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name }, data: { "username": "u", "password": "p" } });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        env.objects(kind).create(&PostParams::default(), &object).await.unwrap();
    }
    let service = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name }, "spec": { "ports": [{ "port": 80 }] },
        })
        .to_string()
    };
    env.push("A", &[("app/web.yaml", &deployment("web", "web:1")), ("app/service.yaml", &service("a"))]);
    env.source(|spec| spec["secretRef"] = json!({ "name": "git" })).await;
    env.kustomization("app", |spec| {
        spec["wait"] = json!(true);
        spec["postBuild"] = json!({ "substituteFrom": [{ "kind": "ConfigMap", "name": "values" }] });
    })
    .await;
    env.arguments.extend(["--runtime-namespace".into(), NAMESPACE.into()]);
    // it serves all namespaces
    env.namespace.clear();
    env.start();
    env.namespace = namespace;
    env.until("app", "it is Ready", |app| app.status.as_ref().is_some_and(|s| s.conditions.is_true("Ready"))).await;
    let b = env.push("B", &[("app/service.yaml", &service("b"))]);
    env.announce().await;
    let app = env.until("app", "it is Ready at B", |app| is_ready_at(app, &b)).await;
    assert!(app.metadata.finalizers.is_some());
    env.until_gone("Service", "a").await;
    // one that Flux's source-controller has served holds its finalizer
    env.source_at("old", &env.git.url(SOURCE), |_| {}).await;
    let held = json!({ "metadata": { "finalizers": [FINALIZER] } });
    env.sources().patch("old", &PatchParams::default(), &Patch::Merge(held)).await.unwrap();
    env.sources().delete("old", &DeleteParams::default()).await.unwrap();
    watch_until(&env.sources(), "old", PATIENCE, |source| source.is_none()).await.expect("it is let go");
    // Leases are renewed, Events are sent
    env.eventually("an event is recorded", async || (!env.events("app").await.is_empty()).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    env.daemon.take().unwrap().stop().await.unwrap();
}

/// Narrows what may be applied as the manifest tells to: the shipped role goes, another with the label comes.
async fn narrow_applier(client: &Client) -> Value {
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let verbs = json!(["get", "list", "watch", "create", "patch", "delete"]);
    let rules = json!([
        { "apiGroups": [""], "resources": ["services"], "verbs": verbs },
        { "apiGroups": ["apps"], "resources": ["deployments"], "verbs": verbs },
    ]);
    let narrow = json!({
        "metadata": { "name": "narrow", "labels": { "afresh.dev/aggregate-to-applier": "true" } }, "rules": rules,
    });
    roles.create(&PostParams::default(), &serde_json::from_value(narrow).unwrap()).await.unwrap();
    roles.delete("afresh-applies-everything", &DeleteParams::default()).await.unwrap();
    let narrowed = |role: Option<&ClusterRole>| {
        role.is_some_and(|role| json!(role.rules).as_array().is_some_and(|r| r.len() == 2))
    };
    watch_until(&roles, "afresh-applier", PATIENCE, narrowed).await.expect("the roles are summed up");
    rules
}

/// The rules of the ClusterRole and of the Role `afresh`.
fn rules_of_the_daemon() -> (Value, Value) {
    let file = installation::manifests().join("rbac/daemon.yaml");
    let documents = yaml::documents("daemon.yaml", &std::fs::read(file).unwrap()).unwrap();
    let rules =
        |kind: &str| documents.iter().find(|document| document.value["kind"] == kind).unwrap().value["rules"].clone();
    (rules("ClusterRole"), rules("Role"))
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Each right that the rules give, with the place of its rule.
fn rights(rules: &Value) -> Vec<(&'static str, usize, Right)> {
    let mut rights = Vec::new();
    for scope in ["cluster", "namespace"] {
        for (at, rule) in rules[scope].as_array().unwrap().iter().enumerate() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        rights.push((scope, at, Right { group: group.clone(), resource: resource.clone(), verb }));
                    }
                }
            }
        }
    }
    rights
}

/// Leaves the other resources and verbs of a rule.
fn take_away(rule: &mut Value, right: &Right) {
    let (mut others, mut same) = (rule.clone(), rule.clone());
    let without = |list: &Value, gone: &str| json!(texts(list).into_iter().filter(|t| t != gone).collect::<Vec<_>>());
    others["resources"] = without(&rule["resources"], &right.resource);
    same["resources"] = json!([right.resource]);
    same["verbs"] = without(&rule["verbs"], &right.verb);
    *rule = json!([others, same]);
}

/// Gives a user these rights.
async fn bind(client: &Client, user: &str, rules: &Value, applier: &Value) {
    let flat = |rules: &Value| -> Vec<Value> {
        let rules = rules.as_array().into_iter().flatten();
        let rules = rules.flat_map(|rule| rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]));
        rules.filter(|rule| rule["resources"] != json!([]) && rule["verbs"] != json!([])).collect()
    };
    let mut of_cluster = flat(&rules["cluster"]);
    of_cluster.extend(flat(applier));
    let group = "rbac.authorization.k8s.io";
    let subjects = json!([{ "kind": "User", "apiGroup": group, "name": user }]);
    for (prefix, namespace, rules) in [("Cluster", None, of_cluster), ("", Some(NAMESPACE), flat(&rules["namespace"]))]
    {
        let role = json!({ "kind": format!("{prefix}Role"), "rules": rules });
        let role_ref = json!({ "apiGroup": group, "kind": format!("{prefix}Role"), "name": user });
        let binding = json!({ "kind": format!("{prefix}RoleBinding"), "roleRef": role_ref, "subjects": subjects });
        for mut object in [role, binding] {
            object["apiVersion"] = format!("{group}/v1").into();
            object["metadata"] = json!({ "name": user });
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", &kind));
            let api: Api<DynamicObject> = match namespace {
                None => Api::all_with(client.clone(), &resource),
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            };
            api.patch(user, &PatchParams::apply("scenario").force(), &Patch::Apply(object)).await.unwrap();
        }
    }
}

async fn is_allowed(client: &Client, user: &str, request: &Request) -> bool {
    let (resource, subresource) = request.right.resource.split_once('/').unwrap_or((&request.right.resource, ""));
    let review = json!({
        "spec": {
            "user": user,
            "resourceAttributes": {
                "group": request.right.group, "resource": resource, "subresource": subresource,
                "verb": request.right.verb, "namespace": request.namespace, "name": request.name,
            },
        },
    });
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let review = serde_json::from_value(review).unwrap();
    let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
    answer.status.is_some_and(|status| status.allowed)
}

/// What the service account asked for, each once; none of it was refused.
fn requests_of_the_service_account(plane: &ControlPlane) -> BTreeSet<Request> {
    let user = format!("system:serviceaccount:{NAMESPACE}:afresh");
    let mut requests = BTreeSet::new();
    for entry in plane.audit().unwrap().iter().filter(|entry| entry["user"]["username"] == *user) {
        assert_ne!(entry["responseStatus"]["code"], 403, "{entry:#}");
        let text = |field: &str| entry["objectRef"][field].as_str().unwrap_or_default().to_owned();
        let mut resource = text("resource");
        if resource.is_empty() {
            continue;
        }
        if !text("subresource").is_empty() {
            resource = format!("{resource}/{}", text("subresource"));
        }
        let verb = entry["verb"].as_str().unwrap_or_default().to_owned();
        let right = Right { group: text("apiGroup"), resource, verb };
        requests.insert(Request { right, namespace: text("namespace"), name: text("name") });
    }
    requests
}

/// What was refused to the service account of one namespace.
fn refusals(plane: &ControlPlane, since: usize, namespace: &str) -> Vec<String> {
    let user = format!("system:serviceaccount:{namespace}:afresh");
    let entries = plane.audit().unwrap().split_off(since);
    let refused = |entry: &&Value| entry["user"]["username"] == *user && entry["responseStatus"]["code"] == 403;
    entries.iter().filter(refused).map(|entry| format!("{} {}", entry["verb"], entry["requestURI"])).collect()
}

#[test]
fn the_definitions_in_the_manifests_are_those_of_the_program() {
    let path = installation::manifests().join("crds/afresh.yaml");
    let shipped = std::fs::read_to_string(&path).unwrap();
    assert!(
        shipped == afresh::api::definitions_yaml(),
        "{} is outdated: cargo run -- crds > manifests/crds/afresh.yaml",
        Path::new("manifests/crds/afresh.yaml").display()
    );
}
