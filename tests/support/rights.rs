//! Rights that manifests give, taken away one at a time: what of that which the daemon asked for would be refused then?
//!
//! ```text
//!  rules ──▶ one user for each right, who has all others ─┐
//!  audit log ──▶ requests of the service account ─────────┴──▶ SubjectAccessReview, dry-run ──▶ what is refused
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use afresh::manifest::yaml;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::env::PATIENCE;
use super::wait::eventually;

const GROUP: &str = "rbac.authorization.k8s.io";

/// A verb on a resource, as rules and requests name it; `*` as in rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub group: String,
    /// With its subresource behind a slash.
    pub resource: String,
    pub verb: String,
    /// Where a rule is about objects of certain names.
    pub name: Option<String>,
}

/// A request that the daemon sent, or one that it would have to.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    group: String,
    resource: String,
    verb: String,
    namespace: String,
    name: String,
    /// Tried by a dry-run of an apply: the authorizer alone does not tell.
    object: Option<Value>,
}

/// Rules of one user: those of ClusterRoles, and those of Roles with their namespace.
pub type Rules = Vec<(Option<String>, Value)>;

/// The rules of one kind of role in a file; a Role's are for `namespace`.
pub fn rules_in(file: &Path, namespace: &str) -> Rules {
    let name = file.to_str().expect("a name");
    let documents = yaml::documents(name, &std::fs::read(file).expect("the file")).expect("YAML");
    let mut rules = Rules::new();
    for document in documents {
        let scope = match document.value["kind"].as_str() {
            Some("ClusterRole") => None,
            Some("Role") => Some(namespace.to_owned()),
            _ => continue,
        };
        let of_role = document.value["rules"].as_array().cloned().unwrap_or_default();
        rules.extend(of_role.into_iter().map(|rule| (scope.clone(), rule)));
    }
    rules
}

impl Request {
    /// Applying this object, as far as a right of this verb on this resource is needed for it.
    pub fn trial(verb: &str, group: &str, resource: &str, namespace: &str, object: Value) -> Request {
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let (group, resource, verb) = (group.to_owned(), resource.to_owned(), verb.to_owned());
        Request { group, resource, verb, namespace: namespace.to_owned(), name, object: Some(object) }
    }

    fn of(group: &str, resource: &str, verb: &str, namespace: &str, name: &str) -> Request {
        let [group, resource, verb, namespace, name] = [group, resource, verb, namespace, name].map(str::to_owned);
        Request { group, resource, verb, namespace, name, object: None }
    }

    fn key(&self) -> [String; 5] {
        [&self.group, &self.resource, &self.verb, &self.namespace, &self.name].map(String::clone)
    }

    fn needs(&self, right: &Right) -> bool {
        let is = |rule: &str, asked: &str| rule == "*" || rule == asked;
        is(&right.group, &self.group)
            && is(&right.resource, &self.resource)
            && is(&right.verb, &self.verb)
            && right.name.as_ref().is_none_or(|name| *name == self.name)
    }

    async fn is_allowed(&self, plane: &ControlPlane, client: &Client, user: &str) -> bool {
        match &self.object {
            None => self.is_authorized(client, user).await,
            Some(object) => self.is_applied(plane, object, user).await,
        }
    }

    async fn is_authorized(&self, client: &Client, user: &str) -> bool {
        let (resource, subresource) = self.resource.split_once('/').unwrap_or((&self.resource, ""));
        let review = json!({
            "spec": {
                "user": user,
                "resourceAttributes": {
                    "group": self.group, "resource": resource, "subresource": subresource,
                    "verb": self.verb, "namespace": self.namespace, "name": self.name,
                },
            },
        });
        let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
        let review = serde_json::from_value(review).expect("a review");
        let answer = reviews.create(&PostParams::default(), &review).await.expect("an answer");
        answer.status.is_some_and(|status| status.allowed)
    }

    async fn is_applied(&self, plane: &ControlPlane, object: &Value, user: &str) -> bool {
        let read = kube::config::Kubeconfig::read_from(plane.kubeconfig()).expect("a kubeconfig");
        let mut config = Config::from_custom_kubeconfig(read, &Default::default()).await.expect("a configuration");
        config.auth_info.impersonate = Some(user.to_owned());
        let api = api(&Client::try_from(config).expect("a client"), object, Some(&self.namespace));
        let params = PatchParams::apply("trial").force().dry_run();
        match api.patch(&self.name, &params, &Patch::Apply(object)).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 403 => false,
            Err(error) => panic!("{user} applies {object}: {error}"),
        }
    }
}

/// What a service account asked for since so many lines of the audit log, each once; none of it was refused.
///
/// # Panics
/// When something was.
pub fn requests_of(plane: &ControlPlane, since: usize, namespace: &str) -> Vec<Request> {
    let user = format!("system:serviceaccount:{namespace}:afresh");
    let mut requests = BTreeMap::new();
    let entries = plane.audit().expect("the audit log").split_off(since);
    for entry in entries.iter().filter(|entry| entry["user"]["username"] == *user) {
        assert_ne!(entry["responseStatus"]["code"], 403, "{entry:#}");
        if let Some(account) = entry["impersonatedUser"]["username"].as_str() {
            let account = account.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
            let (namespace, name) = account.expect("a service account");
            let request = Request::of("", "serviceaccounts", "impersonate", namespace, name);
            requests.insert(request.key(), request);
            continue;
        }
        let text = |field: &str| entry["objectRef"][field].as_str().unwrap_or_default().to_owned();
        let mut resource = text("resource");
        if resource.is_empty() {
            continue;
        }
        if !text("subresource").is_empty() {
            resource = format!("{resource}/{}", text("subresource"));
        }
        let verb = entry["verb"].as_str().unwrap_or_default().to_owned();
        let request = Request::of(&text("apiGroup"), &resource, &verb, &text("namespace"), &text("name"));
        requests.insert(request.key(), request);
    }
    requests.into_values().collect()
}

/// Takes each right of `rules` away in turn and looks for a request that is refused then. `beside`: rules that stay.
///
/// # Panics
/// When all rights together don't suffice, or when nothing needs one of them.
pub async fn each_is_needed(plane: &ControlPlane, client: &Client, rules: &Rules, beside: &Rules, all: &[Request]) {
    let with = |rules: Rules| -> Rules { rules.into_iter().chain(beside.iter().cloned()).collect() };
    let mut users = Vec::new();
    for (at, right) in rights(rules) {
        let user = format!("without-{}", users.len());
        bind(client, &user, &with(without(rules, at, &right))).await;
        users.push((user, right));
    }
    // bound last: the authorizer learns of roles in their order
    bind(client, "with-all", &with(rules.clone())).await;
    eventually(PATIENCE, async || {
        let mut allowed = true;
        for request in all {
            allowed = allowed && request.is_allowed(plane, client, "with-all").await;
        }
        allowed.then_some(())
    })
    .await
    .expect("all rights together suffice for all that was asked");

    let mut idle = BTreeSet::new();
    for (user, right) in &users {
        let mut refused = None;
        for request in all.iter().filter(|request| request.needs(right)) {
            if !request.is_allowed(plane, client, user).await {
                refused = Some(request);
                break;
            }
        }
        match refused {
            Some(request) => println!("without {right:?}: {}/{} is refused", request.namespace, request.name),
            None => _ = idle.insert(right),
        }
    }
    assert!(idle.is_empty(), "nothing needs {idle:#?}");
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

/// Each right that the rules give, with the place of its rule.
fn rights(rules: &Rules) -> Vec<(usize, Right)> {
    let mut rights = Vec::new();
    for (at, (_, rule)) in rules.iter().enumerate() {
        let mut names: Vec<_> = texts(&rule["resourceNames"]).into_iter().map(Some).collect();
        if names.is_empty() {
            names.push(None);
        }
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    for name in &names {
                        let (group, resource, verb) = (group.clone(), resource.clone(), verb.clone());
                        rights.push((at, Right { group, resource, verb, name: name.clone() }));
                    }
                }
            }
        }
    }
    rights
}

/// All rights but one.
fn without(rules: &Rules, at: usize, right: &Right) -> Rules {
    let mut less = rules.clone();
    let (scope, rule) = less.remove(at);
    let rest = |field: &str, gone: &str| -> Value { texts(&rule[field]).into_iter().filter(|t| t != gone).collect() };
    let (mut others, mut verbs) = (rule.clone(), rule.clone());
    others["resources"] = rest("resources", &right.resource);
    verbs["resources"] = json!([right.resource]);
    verbs["verbs"] = rest("verbs", &right.verb);
    let mut parts = vec![others, verbs.clone()];
    if let Some(name) = &right.name {
        let mut names = verbs;
        names["verbs"] = json!([right.verb]);
        names["resourceNames"] = rest("resourceNames", name);
        // none would mean all
        if names["resourceNames"] != json!([]) {
            parts.push(names);
        }
    }
    let given = parts.into_iter().filter(|part| part["resources"] != json!([]) && part["verbs"] != json!([]));
    less.extend(given.map(|part| (scope.clone(), part)));
    less
}

/// Gives a user these rights.
async fn bind(client: &Client, user: &str, rules: &Rules) {
    let mut by_scope: BTreeMap<Option<&str>, Vec<&Value>> = BTreeMap::new();
    for (scope, rule) in rules {
        by_scope.entry(scope.as_deref()).or_default().push(rule);
    }
    let subjects = json!([{ "kind": "User", "apiGroup": GROUP, "name": user }]);
    for (namespace, rules) in by_scope {
        let prefix = if namespace.is_none() { "Cluster" } else { "" };
        let role = json!({ "kind": format!("{prefix}Role"), "rules": rules });
        let role_ref = json!({ "apiGroup": GROUP, "kind": format!("{prefix}Role"), "name": user });
        let binding = json!({ "kind": format!("{prefix}RoleBinding"), "roleRef": role_ref, "subjects": subjects });
        for mut object in [role, binding] {
            object["apiVersion"] = format!("{GROUP}/v1").into();
            object["metadata"] = json!({ "name": user });
            let params = PatchParams::apply("scenario").force();
            let done = api(client, &object, namespace).patch(user, &params, &Patch::Apply(&object)).await;
            done.expect("the role is accepted");
        }
    }
}

fn api(client: &Client, object: &Value, namespace: Option<&str>) -> Api<DynamicObject> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
    match namespace.filter(|_| !text("kind").starts_with("Cluster")) {
        None => Api::all_with(client.clone(), &resource),
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}
