//! What `kubectl apply -k` installs for a whole cluster, with webhooks: enough, and nothing that isn't needed. Only a
//! real API server knows rights; all other scenarios run there with the same service account.

use std::time::Duration;

use afresh::api::{FINALIZER, READY, REQUESTED_AT, Receiver};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::leadership::said;
use crate::support::control_plane::ControlPlane;
use crate::support::env::{Env, PATIENCE, SOURCE, is_ready_at};
use crate::support::forge::Forge;
use crate::support::installation::{self, NAMESPACE};
use crate::support::manifests::deployment_behaving;
use crate::support::rights::{self, Request, Rules};
use crate::support::wait::watch_until;

const TOKEN: &str = "correct-horse-battery";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_account_needs_each_of_its_rights_and_no_other() {
    // of its own: the daemon serves all namespaces
    let Some(plane) = ControlPlane::of_its_own().await else { return };
    let mut env = Env::on_plane("rights", plane).await;
    let folder = env.folder().join("overlay");
    let overlay = installation::apply_overlay(
        plane,
        &folder,
        |refer| json!({ "resources": [refer(""), refer("shards/rbac"), refer("replicas/rbac")], "components": [refer("webhooks"), refer("impersonation")] }),
    );
    overlay.await.unwrap();
    env.arguments = arguments_of_the_deployment(&env.client).await;
    env.use_kubeconfig(installation::kubeconfig_of(plane, NAMESPACE).await.unwrap());
    let everything = rights::rules_in(&installation::manifests().join("rbac/applier.yaml"), NAMESPACE);
    let narrow = narrow_applier(&env.client).await;

    let begun = plane.audit().unwrap().len();
    exercise(&mut env, plane).await;
    let requests = rights::requests_of(plane, begun, NAMESPACE);
    println!("{} kinds of requests", requests.len());
    let mut own = rights::rules_in(&installation::manifests().join("rbac/daemon.yaml"), NAMESPACE);
    own.extend(rights::rules_in(&installation::manifests().join("webhooks/rbac.yaml"), NAMESPACE));
    own.extend(rights::rules_in(&installation::manifests().join("impersonation/rbac.yaml"), NAMESPACE));
    own.extend(rights::rules_in(&installation::manifests().join("shards/rbac/rbac.yaml"), NAMESPACE));
    own.extend(rights::rules_in(&installation::manifests().join("replicas/rbac/rbac.yaml"), NAMESPACE));
    rights::each_is_needed(plane, &env.client, &own, &narrow, &requests).await;

    make_wide_roles(&env).await;
    let all: Vec<_> = requests.into_iter().chain(trials(&env.namespace)).collect();
    rights::each_is_needed(plane, &env.client, &everything, &own, &all).await;
}

/// What the webhooks component makes of the Deployment, but for addresses that are free on this machine.
async fn arguments_of_the_deployment(client: &Client) -> Vec<String> {
    let installed: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let installed = json!(installed.get("afresh").await.unwrap());
    let container = &installed["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["args"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned());
    let (listens, arguments): (Vec<_>, Vec<_>) = arguments
        .filter(|text| text != "run" && !["--data-dir", "--metrics", "--log"].iter().any(|flag| text.starts_with(flag)))
        .partition(|text| text.starts_with("--webhook-addr"));
    assert_eq!(listens, ["--webhook-addr=0.0.0.0:9292"]);
    assert_eq!(arguments, ["--webhook-secret=afresh-system/webhook"]);
    assert_eq!(container["ports"][1], json!({ "name": "webhooks", "containerPort": 9292, "protocol": "TCP" }));

    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let service = json!(services.get("afresh").await.unwrap());
    assert_eq!(
        (&service["spec"]["ports"][1]["port"], &service["spec"]["ports"][1]["targetPort"]),
        (&json!(9292), &json!("webhooks"))
    );
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), NAMESPACE);
    let policy = json!(policies.get("afresh").await.unwrap());
    assert_eq!(policy["spec"]["ingress"][1]["ports"][0]["port"], "webhooks");

    let own = ["--webhook-addr=127.0.0.1:0".to_owned(), format!("--runtime-namespace={NAMESPACE}")];
    arguments.into_iter().chain(own).collect()
}

/// Makes the daemon do once whatever it does.
async fn exercise(env: &mut Env, plane: &ControlPlane) {
    let namespace = env.namespace.clone();
    // Flux is installed, and stopped
    let flux = json!({ "metadata": { "name": "flux-system" } });
    let namespaces: Api<Namespace> = Api::all(env.client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(flux).unwrap()).await.unwrap();
    let webhook = json!({ "metadata": { "name": "webhook" }, "stringData": { "token": TOKEN } });
    let secrets: Api<Secret> = Api::namespaced(env.client.clone(), NAMESPACE);
    secrets.create(&PostParams::default(), &serde_json::from_value(webhook).unwrap()).await.unwrap();
    for (kind, name, data) in [("Secret", "git", "stringData"), ("ConfigMap", "values", "data")] {
        let object = json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name }, data: { "username": "u", "password": "p" } });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        env.objects(kind).create(&PostParams::default(), &object).await.unwrap();
    }
    let web = deployment_behaving("web", "web:1", "never");
    env.push("A", &[("app/web.yaml", &web), ("app/service.yaml", &service("a"))]);
    env.source(|spec| spec["secretRef"] = json!({ "name": "git" })).await;
    env.kustomization("app", |spec| {
        spec["wait"] = json!(true);
        spec["postBuild"] = json!({ "substituteFrom": [{ "kind": "ConfigMap", "name": "values" }] });
    })
    .await;
    // it serves all namespaces
    env.namespace.clear();
    env.start();
    let standby = env.start_replica("standby", env.kubeconfig());
    env.namespace = namespace;
    // what is ready at once needs no watch of its Pods
    let user = format!("system:serviceaccount:{NAMESPACE}:afresh");
    let watches = |entry: &Value, kind: &str| {
        entry["verb"] == "watch" && entry["objectRef"]["resource"] == kind && entry["user"]["username"] == *user
    };
    env.eventually("Pods and ReplicaSets are watched", async || {
        let audit = plane.audit().unwrap();
        ["pods", "replicasets"].iter().all(|kind| audit.iter().any(|entry| watches(entry, kind))).then_some(())
    })
    .await;
    env.change_behaviour("web", "ready").await;
    env.until("app", "it is Ready", |app| app.status.as_ref().is_some_and(|s| s.conditions.is_true(READY))).await;
    let app = env.kustomizations().get("app").await.unwrap();
    assert!(app.metadata.finalizers.is_some());

    // who leads is decided by who was first
    let leader = env.daemon.take().unwrap();
    // what the metric means begins with a 1, too
    let leads = leader.ask("/metrics").await.unwrap().1.lines().any(|line| line == "afresh_leader 1");
    let (leader, standby) = if leads { (leader, standby) } else { (standby, leader) };
    env.daemon = Some(leader);
    let leader = env.daemon.as_ref().unwrap();
    let forge = Forge::new(TOKEN, &env.git.url(SOURCE));
    for daemon in [leader, &standby] {
        env.eventually("webhooks are taken", async || {
            (forge.deliver(daemon, "/webhook", "ping", "{}").await.0 == 200).then_some(())
        })
        .await;
    }
    let b = env.push("B", &[("app/service.yaml", &service("b"))]);
    assert_eq!(forge.announce(leader, &b).await.0, 202);
    env.until("app", "it is Ready at B", |app| is_ready_at(app, &b)).await;
    env.until_gone("Service", "a").await;
    let source = env.sources().get(SOURCE).await.unwrap();
    assert!(source.metadata.annotations.is_none_or(|all| !all.contains_key(REQUESTED_AT)), "who leads tells nobody");
    let c = env.push("C", &[("app/service.yaml", &service("c"))]);
    assert_eq!(forge.announce(&standby, &c).await.0, 202);
    env.until("app", "it is Ready at C", |app| is_ready_at(app, &c)).await;
    let source = env.sources().get(SOURCE).await.unwrap();
    assert!(source.metadata.annotations.is_some_and(|all| all.contains_key(REQUESTED_AT)), "who stands by does");
    // one that Flux's source-controller has served holds its finalizer
    env.source_at("old", &env.git.url(SOURCE), |_| {}).await;
    let held = json!({ "metadata": { "finalizers": [FINALIZER] } });
    env.sources().patch("old", &PatchParams::default(), &Patch::Merge(held)).await.unwrap();
    env.sources().delete("old", &DeleteParams::default()).await.unwrap();
    watch_until(&env.sources(), "old", PATIENCE, |source| source.is_none()).await.expect("it is let go");
    receive(env).await;
    act_as_another(env).await;

    // Leases are renewed, Events are sent
    env.eventually("an event is recorded", async || (!env.events("app").await.is_empty()).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    standby.stop().await.unwrap();
    env.daemon.take().unwrap().stop().await.unwrap();
    share(env).await;
}

/// Instances that share the work, one after the other, have Leases of their own.
async fn share(env: &mut Env) {
    let (namespace, arguments) = (std::mem::take(&mut env.namespace), env.arguments.clone());
    for (name, selector) in [("rest", "!sharding.fluxcd.io/key"), ("shard1", "sharding.fluxcd.io/key=shard1")] {
        env.arguments = arguments.clone();
        env.arguments.extend(["--watch-label-selector".to_owned(), selector.to_owned()]);
        let daemon = env.start_replica(name, env.kubeconfig());
        said(&daemon, "\"leading\"").await;
        daemon.stop().await.unwrap();
    }
    // replicas that divide the work, too
    env.arguments = arguments.clone();
    env.arguments.extend(["--shards".to_owned(), "3".to_owned()]);
    let replicas = ["r0", "r1", "r2"].map(|name| env.start_replica(name, env.kubeconfig()));
    for replica in &replicas {
        said(replica, "afresh-shard-").await;
    }
    for replica in replicas {
        replica.stop().await.unwrap();
    }
    (env.namespace, env.arguments) = (namespace, arguments);
}

/// A Kustomization that is applied, and deleted again, as a service account.
async fn act_as_another(env: &Env) {
    let group = "rbac.authorization.k8s.io";
    let verbs = json!(["get", "list", "watch", "create", "patch", "delete"]);
    let objects = [
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "team" } }),
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": { "name": "team" },
            "rules": [{ "apiGroups": [""], "resources": ["services"], "verbs": verbs }],
        }),
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": { "name": "team" },
            "roleRef": { "apiGroup": group, "kind": "Role", "name": "team" },
            "subjects": [{ "kind": "ServiceAccount", "name": "team", "namespace": env.namespace }],
        }),
    ];
    for object in objects {
        let kind = object["kind"].as_str().unwrap().to_owned();
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        env.objects(&kind).create(&PostParams::default(), &object).await.unwrap();
    }
    let revision = env.push("D", &[("team/service.yaml", &service("of-the-team"))]);
    env.announce().await;
    env.kustomization("team", |spec| spec["serviceAccountName"] = json!("team")).await;
    env.until("team", "it is Ready", |app| is_ready_at(app, &revision)).await;
    env.kustomizations().delete("team", &DeleteParams::default()).await.unwrap();
    env.until_gone("Service", "of-the-team").await;
    watch_until(&env.kustomizations(), "team", PATIENCE, |found| found.is_none()).await.expect("it is let go");
}

fn service(name: &str) -> String {
    let spec = json!({ "ports": [{ "port": 80 }] });
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec }).to_string()
}

/// A Receiver that Flux has served, and that goes again.
async fn receive(env: &Env) {
    let token = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "receiver" }, "stringData": { "token": "t" } });
    let token: DynamicObject = serde_json::from_value(token).unwrap();
    env.objects("Secret").create(&PostParams::default(), &token).await.unwrap();
    let receiver = json!({
        "apiVersion": "notification.toolkit.fluxcd.io/v1", "kind": "Receiver",
        "metadata": { "name": "github", "finalizers": [FINALIZER] },
        "spec": {
            "type": "github", "secretRef": { "name": "receiver" },
            "resources": [{ "kind": "GitRepository", "name": SOURCE }],
        },
    });
    let receivers: Api<Receiver> = Api::namespaced(env.client.clone(), &env.namespace);
    let params = PatchParams::apply("scenario");
    receivers.patch("github", &params, &Patch::Apply(receiver)).await.unwrap();
    let ready = |found: Option<&Receiver>| {
        found.is_some_and(|found| found.status.as_ref().is_some_and(|status| status.conditions.is_true(READY)))
    };
    let found = watch_until(&receivers, "github", PATIENCE, ready).await.expect("it is Ready").unwrap();
    let path = found.status.and_then(|status| status.webhook_path).expect("a path");
    let forge = Forge::new("t", &env.git.url(SOURCE));
    let daemon = env.daemon.as_ref().unwrap();
    assert_eq!(forge.deliver(daemon, &path, "push", &forge.push("main", None)).await.0, 200);
    receivers.delete("github", &DeleteParams::default()).await.unwrap();
    watch_until(&receivers, "github", PATIENCE, |found| found.is_none()).await.expect("it is let go of");
}

/// Roles that allow more than the daemon may do itself, for bindings to refer to.
const WIDE: [(&str, &str); 2] = [("Role", "roles"), ("ClusterRole", "clusterroles")];

fn wide_rules() -> Value {
    json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["update", "deletecollection"] }])
}

async fn make_wide_roles(env: &Env) {
    for (kind, _) in WIDE {
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": "wide" },
            "rules": wide_rules(),
        });
        let api = if kind == "Role" { env.objects(kind) } else { env.cluster_objects(kind) };
        api.create(&PostParams::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
    }
}

/// What only admission refuses: what is not there yet, and roles that allow more than the one who applies them may.
fn trials(namespace: &str) -> Vec<Request> {
    let group = "rbac.authorization.k8s.io";
    let rules = wide_rules();
    let mut trials =
        vec![Request::trial("create", "", "services", namespace, serde_json::from_str(&service("trial")).unwrap())];
    for (kind, resource) in WIDE {
        let of = |kind: String, name: &str| json!({ "apiVersion": format!("{group}/v1"), "kind": kind, "metadata": { "name": name } });
        let mut role = of(kind.to_owned(), "trial");
        role["rules"] = rules.clone();
        let mut binding = of(format!("{kind}Binding"), "trial");
        binding["roleRef"] = json!({ "apiGroup": group, "kind": kind, "name": "wide" });
        binding["subjects"] = json!([{ "kind": "User", "apiGroup": group, "name": "somebody" }]);
        trials.push(Request::trial("escalate", group, resource, namespace, role));
        trials.push(Request::trial("bind", group, resource, namespace, binding));
    }
    trials
}

/// Narrows what may be applied as the manifest tells to: the shipped role goes, another with the label comes.
pub async fn narrow_applier(client: &Client) -> Rules {
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let verbs = json!(["get", "list", "watch", "create", "patch", "delete"]);
    let rules = [
        json!({ "apiGroups": [""], "resources": ["services"], "verbs": verbs }),
        json!({ "apiGroups": ["apps"], "resources": ["deployments"], "verbs": verbs }),
    ];
    let narrow = json!({
        "metadata": { "name": "narrow", "labels": { "afresh.dev/aggregate-to-applier": "true" } }, "rules": rules,
    });
    roles.create(&PostParams::default(), &serde_json::from_value(narrow).unwrap()).await.unwrap();
    roles.delete("afresh-applies-everything", &DeleteParams::default()).await.unwrap();
    let narrowed = |role: Option<&ClusterRole>| {
        role.is_some_and(|role| json!(role.rules).as_array().is_some_and(|r: &Vec<Value>| r.len() == 2))
    };
    watch_until(&roles, "afresh-applier", PATIENCE, narrowed).await.expect("the roles are summed up");
    rules.into_iter().map(|rule| (None, rule)).collect()
}
