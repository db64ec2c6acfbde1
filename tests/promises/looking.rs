//! What a person sees before anything is done: `afresh diff` shows what a push then changes, and writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use afresh::api::CONFIRM_PRUNE;
use afresh::apply::comparable;
use afresh::sandbox::repository::TestRepository;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::env::{Cluster, Env};
use crate::support::manifests::{claim, config_map, deployment, job, secret};
use crate::support::scenarios;

scenarios! {
    a_diff_before_a_push_is_what_the_push_then_changes,
    a_diff_of_secrets_tells_what_changes_and_no_value,
    a_diff_of_what_people_applied_before_shows_what_goes_with_it,
    a_diff_names_what_can_not_be_changed_in_place,
    a_diff_follows_the_rules_of_deletion,
    a_diff_of_a_working_copy_needs_no_push,
    a_diff_names_what_it_may_not_read,
    a_diff_says_what_policies_say,
    a_diff_says_which_workloads_would_be_rolled_and_why,
    a_diff_has_bases_in_other_repositories_where_they_are_allowed,
    a_diff_asks_as_the_service_account_where_the_caller_may_act_as_it,
}

/// What a command printed and how it ended.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    /// The objects that something would happen to: `changed ConfigMap/ns/x`.
    fn objects(&self) -> BTreeSet<String> {
        let headings = self.out.lines().filter_map(|line| line.strip_prefix("# "));
        headings.map(|line| line.split(" (").next().unwrap_or_default().replace(": ", " ")).collect()
    }

    fn all(&self) -> String {
        format!("{}\n{}", self.out, self.err)
    }
}

async fn diff(env: &Env, arguments: &[&str]) -> Said {
    let kubeconfig = reader(env, true).await;
    diff_as(env, &kubeconfig, arguments).await
}

async fn diff_as(env: &Env, kubeconfig: &Path, arguments: &[&str]) -> Said {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_afresh"));
    command.arg("diff").args(arguments).args(["--namespace", &env.namespace]).arg("--kubeconfig").arg(kubeconfig);
    command.env_clear().env("HOME", env.folder()).env("TMPDIR", env.folder()).stdin(Stdio::null());
    let output = command.output().await.expect("afresh runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let (out, err) = (text(output.stdout), text(output.stderr));
    println!("$ afresh diff {}\n{out}{err}", arguments.join(" "));
    assert!(!out.contains('\u{1b}') && !err.contains('\u{1b}'), "colours are for terminals");
    Said { code: output.status.code().unwrap_or(-1), out, err }
}

/// A kubeconfig of somebody who may read, and patch for the sake of dry-runs. The sandbox knows no rights.
async fn reader(env: &Env, secrets: bool) -> std::path::PathBuf {
    let Cluster::Real(plane) = &env.cluster else { return env.kubeconfig().to_owned() };
    let name = format!("{}-reader{}", env.namespace, if secrets { "" } else { "-no-secrets" });
    let all = ["configmaps", "services", "persistentvolumeclaims", "namespaces"];
    let mut rules = vec![
        json!({ "apiGroups": [""], "resources": all, "verbs": ["get", "list", "patch", "create"] }),
        json!({ "apiGroups": ["apps", "batch"], "resources": ["*"], "verbs": ["get", "list", "patch", "create"] }),
        json!({ "apiGroups": ["kustomize.toolkit.fluxcd.io", "source.toolkit.fluxcd.io"], "resources": ["*"], "verbs": ["get", "list"] }),
    ];
    if secrets {
        rules.push(json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "patch", "create"] }));
    }
    let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": env.namespace }],
    });
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name, "namespace": env.namespace } });
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [role, binding, account] });
    let file = env.folder().join("reader.json");
    std::fs::write(&file, list.to_string()).unwrap();
    let made = plane.kubectl().unwrap().args(["apply", "-f"]).arg(&file).output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let accounts: Api<ServiceAccount> = Api::namespaced(env.client.clone(), &env.namespace);
    let request: TokenRequest =
        serde_json::from_value(json!({ "spec": { "audiences": [], "expirationSeconds": 3600 } })).unwrap();
    let answer = accounts.create_token_request(&name, &PostParams::default(), &request).await.unwrap();
    plane.kubeconfig_with(&name, &answer.status.unwrap().token).unwrap()
}

const KINDS: [&str; 6] = ["ConfigMap", "Secret", "Deployment", "Job", "PersistentVolumeClaim", "Service"];

/// All objects of an application, as people see them.
async fn declared(env: &Env) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let ours = ListParams::default().labels("kustomize.toolkit.fluxcd.io/name");
    for kind in KINDS {
        for object in env.objects(kind).list(&ours).await.unwrap().items {
            let name = format!("{kind}/{}/{}", env.namespace, object.metadata.name.clone().unwrap());
            found.insert(name, comparable(json!(object)));
        }
    }
    found
}

/// The versions of all that somebody could have written to.
async fn versions(env: &Env) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for kind in KINDS.into_iter().chain(["Event"]) {
        for object in env.objects(kind).list(&ListParams::default()).await.unwrap().items {
            let metadata = object.metadata;
            found.insert(format!("{kind}/{}", metadata.name.unwrap()), metadata.resource_version.unwrap());
        }
    }
    for object in env.kustomizations().list(&ListParams::default()).await.unwrap().items {
        found.insert(format!("ks/{}", object.metadata.name.unwrap()), object.metadata.resource_version.unwrap());
    }
    for object in env.sources().list(&ListParams::default()).await.unwrap().items {
        found.insert(format!("source/{}", object.metadata.name.unwrap()), object.metadata.resource_version.unwrap());
    }
    found
}

/// The writes of `afresh diff` that were no dry-runs.
fn writes_of_a_look(env: &Env, since: Instant) -> Vec<String> {
    match &env.cluster {
        // the daemon has other managers for all but what it applies, and has stopped
        Cluster::Sandbox(sandbox) => {
            let wet = sandbox.requests().find(|entry| {
                let look = entry.manager == afresh::api::APPLY_MANAGER || entry.manager.starts_with("afresh");
                let reads = ["get", "list", "watch"].contains(&entry.verb.as_str());
                look && !reads && !entry.dry_run && entry.at > since
            });
            wet.iter().map(|entry| format!("{} {}/{}", entry.verb.as_str(), entry.resource, entry.name)).collect()
        }
        Cluster::Real(plane) => {
            let entries = plane.audit().expect("the audit log can be read");
            let text = |entry: &Value, pointer: &str| {
                entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let reader = format!("system:serviceaccount:{}:", env.namespace);
            let wet = entries.iter().filter(|entry| {
                text(entry, "/user/username").starts_with(&reader)
                    && !["get", "list", "watch"].contains(&text(entry, "/verb").as_str())
                    && !text(entry, "/requestURI").contains("dryRun=All")
            });
            wet.map(|entry| format!("{} {}", text(entry, "/verb"), text(entry, "/requestURI"))).collect()
        }
    }
}

async fn stop(env: &mut Env) {
    env.daemon.take().expect("a daemon").stop().await.expect("it stops");
}

async fn a_diff_before_a_push_is_what_the_push_then_changes(env: &mut Env) {
    env.begin(&[
        ("app/same.yaml", &config_map("same", "a")),
        ("app/settings.yaml", &config_map("settings", "a")),
        ("app/web.yaml", &deployment("web", "web:1")),
        ("app/token.yaml", &secret("token", "first")),
        ("app/gone.yaml", &config_map("gone", "a")),
    ])
    .await;
    stop(env).await;
    let nothing = diff(env, &["ks/app"]).await;
    assert_eq!((nothing.code, nothing.out.as_str()), (0, ""), "{}", nothing.err);
    assert!(nothing.err.contains("nothing would change, 5 as declared"), "{}", nothing.err);

    let b = env.push_changes(
        "B",
        &[
            ("app/settings.yaml", Some(&config_map("settings", "b"))),
            ("app/web.yaml", Some(&deployment("web", "web:2"))),
            ("app/token.yaml", Some(&secret("token", "second"))),
            ("app/new.yaml", Some(&config_map("new", "b"))),
            ("app/gone.yaml", None),
        ],
    );
    let (before, were, since) = (declared(env).await, versions(env).await, Instant::now());
    let said = diff(env, &["ks/app"]).await;
    assert_eq!(said.code, 1, "{}", said.err);
    assert_eq!(versions(env).await, were, "nothing was written");
    assert_eq!(writes_of_a_look(env, since), Vec::<String>::new());
    assert!(said.err.contains(&b), "the revision is named: {}", said.err);
    for line in ["-  value: a", "+  value: b", "-      - image: web:1", "+      - image: web:2"] {
        assert!(said.out.lines().any(|shown| shown == line), "{line}");
    }
    let noise = ["managedFields", "resourceVersion", "afresh.dev/desired", "\nstatus:", "generation"];
    assert!(noise.iter().all(|word| !said.out.contains(word)), "{}", said.out);

    env.start();
    env.ready_at("app", &b).await;
    env.until_gone("ConfigMap", "gone").await;
    let after = declared(env).await;
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let happened = names.into_iter().filter_map(|name| match (before.get(name), after.get(name)) {
        (None, Some(_)) => Some(format!("created {name}")),
        (Some(_), None) => Some(format!("deleted {name}")),
        (Some(a), Some(b)) if a != b => Some(format!("changed {name}")),
        _ => None,
    });
    assert_eq!(said.objects(), happened.collect());
    let nothing = diff(env, &["ks/app"]).await;
    assert_eq!((nothing.code, nothing.out.as_str()), (0, ""), "{}", nothing.err);
}

async fn a_diff_of_secrets_tells_what_changes_and_no_value(env: &mut Env) {
    let canaries = ["first-canary-of-many", "later-canary", "password-canary-1", "password-canary-22"];
    let both = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{ name: token }}\nstringData: {{ same: as-it-is-canary, value: {value} }}\n"
        )
    };
    let config =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: url }\ndata: { url: 'postgres://u:${PASSWORD}@db' }\n";
    env.secret("values", json!({ "PASSWORD": canaries[2] })).await;
    let a = env.push("A", &[("app/token.yaml", &both(canaries[0])), ("app/url.yaml", config)]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| {
        spec["postBuild"] = json!({ "substituteFrom": [{ "kind": "Secret", "name": "values" }] });
    })
    .await;
    env.start();
    env.ready_at("app", &a).await;
    stop(env).await;
    env.push("B", &[("app/token.yaml", &both(canaries[1]))]);
    env.secret("values", json!({ "PASSWORD": canaries[3] })).await;
    let said = diff(env, &["ks/app"]).await;
    assert_eq!(said.code, 1, "{}", said.err);
    for line in [
        "   same: '***'",
        "-  value: '*** (before)'",
        "+  value: '*** (after)'",
        "-  url: '*** (before)'",
        "+  url: '*** (after)'",
    ] {
        assert!(said.out.lines().any(|shown| shown == line), "{line} in {}", said.out);
    }
    use base64::Engine as _;
    for canary in canaries.into_iter().chain(["as-it-is-canary"]) {
        let encoded = base64::engine::general_purpose::STANDARD.encode(canary);
        assert!(!said.all().contains(canary) && !said.all().contains(&encoded), "{canary} is shown");
    }
}

async fn a_diff_of_what_people_applied_before_shows_what_goes_with_it(env: &mut Env) {
    // as `kubectl apply` made them, with all their defaults in its name
    let by_hand = PostParams { field_manager: Some("kubectl-client-side-apply".into()), ..PostParams::default() };
    let mut settings: Value = serde_json::from_str(&config_map("settings", "a")).unwrap();
    settings["data"]["left"] = json!("over");
    settings["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/last-applied-configuration": "{}" });
    let web: Value = serde_json::from_str(&deployment("web", "web:1")).unwrap();
    for (kind, object) in [("ConfigMap", settings), ("Deployment", web)] {
        env.objects(kind).create(&by_hand, &serde_json::from_value(object).unwrap()).await.unwrap();
    }
    env.push(
        "A",
        &[("app/settings.yaml", &config_map("settings", "a")), ("app/web.yaml", &deployment("web", "web:1"))],
    );
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    let said = diff(env, &["ks/app"]).await;
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.out.contains("-  left: over\n"), "{}", said.out);
    assert!(said.out.contains("last-applied-configuration"), "kubectl's note goes: {}", said.out);
    // of the Deployment nothing changes but whose it is
    let of_web = said.out.split("# changed: Deployment").nth(1).unwrap();
    let changes = of_web
        .lines()
        .filter(|line| line.starts_with(['-', '+']) && !line.starts_with("---") && !line.starts_with("+++"));
    assert!(
        changes.clone().count() > 0
            && changes.clone().all(|line| line.contains("labels:") || line.contains("kustomize.toolkit.fluxcd.io/")),
        "{of_web}"
    );

    let revision = format!("main@sha1:{}", env.repository.tip("main").unwrap().unwrap());
    env.start();
    env.ready_at("app", &revision).await;
    let live = env.live("ConfigMap", "settings").await.unwrap();
    assert_eq!(live["data"], json!({ "value": "a" }));
    let nothing = diff(env, &["ks/app"]).await;
    assert_eq!((nothing.code, nothing.out.as_str()), (0, ""), "{}", nothing.err);
}

async fn a_diff_names_what_can_not_be_changed_in_place(env: &mut Env) {
    let fixed = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: fixed }}\nimmutable: true\ndata: {{ value: {value} }}\n"
        )
    };
    let migrate = job("migrate", "migrate:1", 3600);
    let web = deployment("web", "web:1");
    env.begin(&[("app/migrate.yaml", &migrate), ("app/fixed.yaml", &fixed("a")), ("app/web.yaml", &web)]).await;
    env.until_live("Job", "migrate", "it is there", |_| true).await;
    stop(env).await;
    env.push("B", &[("app/migrate.yaml", &job("migrate", "migrate:2", 3600))]);
    let said = diff(env, &["ks/app"]).await;
    assert_eq!(said.code, 1, "{}", said.err);
    assert_eq!(said.objects(), BTreeSet::from([format!("deleted and created anew Job/{}/migrate", env.namespace)]));
    let lines: Vec<_> = said.out.lines().filter(|l| l.starts_with(['-', '+']) && l.contains("image")).collect();
    assert_eq!(lines, ["-      - image: migrate:1", "+      - image: migrate:2"]);

    env.push("C", &[("app/fixed.yaml", &fixed("b"))]);
    let said = diff(env, &["ks/app"]).await;
    assert_eq!(said.code, 2, "the attempt would fail: {}", said.err);
    assert!(said.err.contains("app/fixed.yaml:1") && said.err.contains("under a new name"), "{}", said.err);

    let forced = fixed("b")
        .replace("{ name: fixed }", "{ name: fixed, annotations: { kustomize.toolkit.fluxcd.io/force: enabled } }");
    env.push("D", &[("app/fixed.yaml", &forced)]);
    let said = diff(env, &["ks/app"]).await;
    assert_eq!(said.code, 2, "what is immutable is not made anew by force: {}", said.err);
    assert!(said.err.contains("app/fixed.yaml:1") && said.err.contains("under a new name"), "{}", said.err);

    let mut web: Value = serde_json::from_str(&deployment("web", "web:1")).unwrap();
    web["metadata"]["annotations"] = json!({ "kustomize.toolkit.fluxcd.io/force": "enabled" });
    for labels in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
        web.pointer_mut(labels).unwrap()["tier"] = "front".into();
    }
    env.push("E", &[("app/fixed.yaml", &fixed("a")), ("app/web.yaml", &web.to_string())]);
    let said = diff(env, &["ks/app"]).await;
    assert_eq!(said.code, 1, "{}", said.err);
    let anew = ["Deployment", "Job"].map(|kind| format!("deleted and created anew {kind}/{}", env.namespace));
    let anew = [format!("{}/web", anew[0]), format!("{}/migrate", anew[1])];
    assert_eq!(said.objects(), BTreeSet::from(anew));
    assert!(said.out.contains("+      tier: front\n"), "{}", said.out);
}

async fn a_diff_follows_the_rules_of_deletion(env: &mut Env) {
    let kept = config_map("kept", "a").replacen(
        "\"name\": \"kept\"",
        "\"annotations\": { \"kustomize.toolkit.fluxcd.io/prune\": \"disabled\" }, \"name\": \"kept\"",
        1,
    );
    env.kustomization("second", |_| {}).await;
    env.push("second", &[("second/other.yaml", &config_map("other", "a"))]);
    env.begin(&[
        ("app/stays.yaml", &config_map("stays", "a")),
        ("app/data.yaml", &claim("data")),
        ("app/moves.yaml", &config_map("moves", "a")),
        ("app/goes.yaml", &config_map("goes", "a")),
        ("app/kept.yaml", &kept),
    ])
    .await;
    stop(env).await;
    let changes = [
        ("app/data.yaml", None),
        ("app/moves.yaml", None),
        ("app/goes.yaml", None),
        ("app/kept.yaml", None),
        ("second/moves.yaml", Some(config_map("moves", "a"))),
    ];
    let changes: Vec<_> = changes.iter().map(|(path, text)| (*path, text.as_deref())).collect();
    let b = env.push_changes("B", &changes);
    let said = diff(env, &["ks/app"]).await;
    let in_namespace = |kind: &str, name: &str| format!("{kind}/{}/{name}", env.namespace);
    assert_eq!(said.code, 1, "{}", said.err);
    assert_eq!(said.objects(), BTreeSet::from([format!("deleted {}", in_namespace("ConfigMap", "goes"))]));
    for text in [
        format!("{} is handed over to Kustomization `{}/second`", in_namespace("ConfigMap", "moves"), env.namespace),
        format!("{} is no longer declared and stays", in_namespace("ConfigMap", "kept")),
        format!("{} would not be deleted without consent", in_namespace("PersistentVolumeClaim", "data")),
        format!("{CONFIRM_PRUNE}='{b}'"),
    ] {
        assert!(said.err.contains(&text), "{text} in {}", said.err);
    }
    let consent = json!({ "metadata": { "annotations": { CONFIRM_PRUNE: b } } });
    env.kustomizations().patch("app", &PatchParams::default(), &Patch::Merge(consent)).await.unwrap();
    let said = diff(env, &["ks/app"]).await;
    assert!(
        said.objects().contains(&format!("deleted {}", in_namespace("PersistentVolumeClaim", "data"))),
        "{}",
        said.all()
    );
}

async fn a_diff_of_a_working_copy_needs_no_push(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    stop(env).await;
    let copy = env.folder().join("copy");
    std::fs::create_dir_all(copy.join("app")).unwrap();
    std::fs::create_dir(copy.join(".git")).unwrap();
    let shown = format!("{}", copy.display());
    let folder = format!("{shown}/app");
    std::fs::write(copy.join("app/settings.yaml"), config_map("settings", "a")).unwrap();
    assert_eq!(diff(env, &[&folder]).await.code, 0, "found by its path");
    std::fs::write(copy.join("app/settings.yaml"), config_map("settings", "edited")).unwrap();
    for arguments in
        [vec![folder.as_str()], vec![&shown, "--kustomization", "ks/app"], vec![&folder, "--kustomization", "ks/app"]]
    {
        let said = diff(env, &arguments).await;
        assert_eq!(said.code, 1, "{}", said.err);
        assert!(said.out.contains("+  value: edited\n"), "{}", said.out);
    }
    // one that the cluster doesn't have yet, with a namespace that it makes itself
    let made = format!("{}-made", env.namespace);
    let file = env.folder().join("new.yaml");
    let kustomization = json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": { "name": "new", "namespace": env.namespace },
        "spec": { "interval": "10m", "prune": true, "path": "new", "sourceRef": { "kind": "GitRepository", "name": "platform" } },
    });
    std::fs::write(&file, kustomization.to_string()).unwrap();
    std::fs::create_dir(copy.join("new")).unwrap();
    let inside = config_map("inside", "a").replacen(
        "\"name\": \"inside\"",
        &format!("\"name\": \"inside\", \"namespace\": \"{made}\""),
        1,
    );
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": made } });
    std::fs::write(copy.join("new/all.yaml"), format!("{namespace}\n---\n{inside}")).unwrap();
    let said = diff(env, &[&shown, "--kustomization", &file.display().to_string()]).await;
    assert_eq!(said.code, 1, "{}", said.err);
    assert_eq!(
        said.objects(),
        BTreeSet::from([format!("created Namespace/{made}"), format!("created ConfigMap/{made}/inside")])
    );
    assert!(said.out.contains("its namespace is not in the cluster yet"), "{}", said.out);
    assert!(said.err.contains("in the cluster yet: it owns nothing"), "{}", said.err);

    std::fs::write(copy.join("app/settings.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x\n").unwrap();
    let said = diff(env, &[&folder]).await;
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    assert!(said.err.contains("app/settings.yaml:"), "{}", said.err);
}

async fn a_diff_says_what_policies_say(env: &mut Env) {
    env.begin(&[("app/one.yaml", &config_map("one", "good"))]).await;
    stop(env).await;
    let folder = env.folder().join("policies");
    std::fs::create_dir_all(&folder).unwrap();
    let policies = folder.display().to_string();
    let rule = |group: &str, resource: &str| json!({ "apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": [resource] });
    let write = |name: &str, actions: Value, rule: Value, expression: &str, message: &str| {
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": name },
            "spec": { "matchConstraints": { "resourceRules": [rule] }, "validations": [{ "expression": expression, "messageExpression": message }] },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": name }, "spec": { "policyName": name, "validationActions": actions },
        });
        std::fs::write(folder.join(format!("{name}.yaml")), format!("{policy}\n---\n{binding}\n")).unwrap();
    };
    let was = "'it was ' + (oldObject == null ? 'not there' : oldObject.data.value)";
    write("values", json!(["Deny"]), rule("", "configmaps"), "object.data.value != 'bad'", was);
    write("notes", json!(["Warn"]), rule("", "configmaps"), "object.data.value != 'good'", "'this is warned of'");
    let files = rule("afresh.dev", "snapshots");
    write("files", json!(["Deny"]), files, "!object.spec.files.exists(f, f.path.endsWith('.env'))", "'an .env'");

    let said = diff(env, &["ks/app", "--policies", &policies]).await;
    assert_eq!(said.code, 0, "a warning denies nothing");
    assert!(said.err.contains("warning: app/one.yaml:"), "{}", said.err);
    assert!(said.err.contains("this is warned of (policy `notes`, binding `notes`)"), "{}", said.err);
    env.push("B", &[("app/one.yaml", &config_map("one", "bad")), ("app/.env", "A=b\n")]);
    let said = diff(env, &["ks/app", "--policies", &policies]).await;
    assert_eq!(said.code, 2);
    assert!(said.err.contains("error: app/one.yaml:"), "{}", said.err);
    assert!(said.err.contains("it was good (policy `values`, binding `values`)"), "{}", said.err);
    assert!(said.err.contains("error: an .env (policy `files`, binding `files`)"), "{}", said.err);
    assert!(said.err.contains("2 denied by policies"), "{}", said.err);
    assert_eq!(diff(env, &["ks/app"]).await.code, 1, "nobody asked for policies");
    std::fs::write(folder.join("broken.yaml"), "kind: ValidatingAdmissionPolicy").unwrap();
    let said = diff(env, &["ks/app", "--policies", &policies]).await;
    assert!(said.code == 2 && said.out.is_empty() && said.err.contains("broken.yaml"), "{}", said.all());
}

async fn a_diff_says_which_workloads_would_be_rolled_and_why(env: &mut Env) {
    let reading = |name: &str, spec: Value| {
        let mut web: Value = serde_json::from_str(&deployment(name, "web:1")).unwrap();
        web["metadata"]["annotations"] = json!({ "afresh.dev/rollout": "on-config-change" });
        web["spec"]["template"]["spec"]["containers"][0]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        web.to_string()
    };
    let all = reading(
        "all",
        json!({ "envFrom": [{ "secretRef": { "name": "keys" } }, { "configMapRef": { "name": "settings" } }] }),
    );
    let one = reading(
        "one",
        json!({ "env": [{ "name": "USER", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "user" } } }] }),
    );
    let keys = |user: &str, password: &str| {
        let data = json!({ "user": user, "password": password });
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys" }, "stringData": data }).to_string()
    };
    let deaf = deployment("deaf", "web:1");
    let files = [
        ("app/all.yaml", all.as_str()),
        ("app/one.yaml", &one),
        ("app/deaf.yaml", &deaf),
        ("app/keys.yaml", &keys("somebody-a", "canary-of-diffs-1")),
        ("app/settings.yaml", &config_map("settings", "a")),
    ];
    env.begin(&files).await;
    let recorded = |found: &Value| found.pointer("/metadata/annotations/afresh.dev~1config").is_some();
    for name in ["all", "one"] {
        env.until_live("Deployment", name, "it is followed", recorded).await;
    }
    stop(env).await;
    assert_eq!(diff(env, &["ks/app"]).await.code, 0);

    env.push("B", &[("app/keys.yaml", &keys("somebody-a", "canary-of-diffs-2"))]);
    let said = diff(env, &["ks/app"]).await;
    let rolled = |said: &Said| {
        said.out.lines().filter(|line| line.starts_with("# rolled")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rolled(&said), [format!("# rolled: Deployment/{}/all because of secret/keys: password", env.namespace)]);
    assert!(said.err.contains("1 changed, 1 rolled"), "{}", said.err);
    assert!(!said.all().contains("canary-of-diffs"), "{}", said.all());

    env.push(
        "C",
        &[
            ("app/keys.yaml", &keys("somebody-b", "canary-of-diffs-2")),
            ("app/settings.yaml", &config_map("settings", "b")),
        ],
    );
    let said = diff(env, &["ks/app"]).await;
    let all = format!(
        "# rolled: Deployment/{}/all because of configmap/settings: value; secret/keys: password, user",
        env.namespace
    );
    let one = format!("# rolled: Deployment/{}/one because of secret/keys: user", env.namespace);
    assert_eq!(rolled(&said), [all, one]);

    // what the Pods can't start without is about to go: they are left as they are
    env.push_changes("D", &[("app/keys.yaml", None)]);
    let said = diff(env, &["ks/app"]).await;
    assert_eq!(rolled(&said), [""; 0]);
}

async fn a_diff_names_what_it_may_not_read(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a")), ("app/token.yaml", &secret("token", "first"))])
        .await;
    stop(env).await;
    env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    if let Cluster::Sandbox(sandbox) = &env.cluster {
        let reads = afresh::sandbox::Match::any().on("secrets").in_namespace(&env.namespace);
        sandbox.faults().always(reads, afresh::sandbox::Effect::Forbid);
    }
    let kubeconfig = reader(env, false).await;
    let said = diff_as(env, &kubeconfig, &["ks/app"]).await;
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(
        said.err.contains(&format!("app/token.yaml:1: Secret/{}/token can't be read", env.namespace)),
        "{}",
        said.err
    );
    assert!(said.out.contains("+  value: b\n"), "what can be read is shown: {}", said.out);
}

async fn a_diff_asks_as_the_service_account_where_the_caller_may_act_as_it(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    stop(env).await;
    // an account without any right
    let account = serde_json::from_value(json!({ "metadata": { "name": "nobody" } })).expect("an account");
    let accounts: Api<ServiceAccount> = Api::namespaced(env.client.clone(), &env.namespace);
    accounts.create(&PostParams::default(), &account).await.expect("it is created");
    env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    // the daemon may be told of the account as well
    asks_as_nobody(env, &["ks/app", "--default-service-account", "nobody"]).await;
    env.kustomization("app", |spec| spec["serviceAccountName"] = "nobody".into()).await;
    asks_as_nobody(env, &["ks/app"]).await;
    asks_as_nobody(env, &["ks/app", "--default-service-account", "other"]).await;
}

async fn asks_as_nobody(env: &Env, arguments: &[&str]) {
    let admin = match &env.cluster {
        Cluster::Sandbox(_) => env.kubeconfig(),
        Cluster::Real(plane) => plane.kubeconfig(),
    };
    let user = format!("system:serviceaccount:{}:nobody", env.namespace);
    let asked = || match &env.cluster {
        Cluster::Sandbox(sandbox) => sandbox.requests().find(|e| e.impersonated == user && e.dry_run).len(),
        Cluster::Real(_) => 0,
    };
    let before = asked();
    let as_admin = diff_as(env, admin, arguments).await;
    match &env.cluster {
        // which knows no rights, but notes who asked
        Cluster::Sandbox(_) => {
            assert_eq!(as_admin.code, 1, "{}", as_admin.err);
            assert!(asked() > before, "nothing was asked as {user}");
        }
        Cluster::Real(_) => {
            assert_eq!(as_admin.code, 2, "{}", as_admin.err);
            assert!(as_admin.err.contains("would be refused") && as_admin.err.contains("nobody"), "{}", as_admin.err);
            let as_reader = diff(env, arguments).await;
            assert_eq!(as_reader.code, 1, "{}", as_reader.err);
            let note = format!("is asked as you and not as ServiceAccount `{}/nobody`", env.namespace);
            assert!(as_reader.err.contains(&note), "{}", as_reader.err);
        }
    }
}

async fn a_diff_has_bases_in_other_repositories_where_they_are_allowed(env: &mut Env) {
    let other = TestRepository::create(&env.repository.path().with_file_name("other")).unwrap();
    let map = config_map("settings", "far");
    other
        .commit("one", &[("maps/map.yaml", Some(&*map)), ("maps/kustomization.yaml", Some("resources: [map.yaml]\n"))])
        .unwrap();
    let pin = other.tip("main").unwrap().unwrap();
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    stop(env).await;
    let base = format!("resources: ['{}//maps?ref={pin}']\n", env.git.url("other"));
    env.push("B", &[("app/kustomization.yaml", &base)]);
    let refused = diff(env, &["ks/app"]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("give --allow-remote-bases"), "{}", refused.err);
    let said = diff(env, &["ks/app", "--allow-remote-bases"]).await;
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.out.contains("-  value: a\n+  value: far\n"), "{}", said.out);

    let by_ssh = "resources: ['git@git.example.com:org/base.git//maps?ref=v1']\n";
    env.push("C", &[("app/kustomization.yaml", by_ssh)]);
    let said = diff(env, &["ks/app", "--allow-remote-bases"]).await;
    assert_eq!(said.code, 2);
    assert!(said.err.contains("hint: it is fetched with the key of the application's GitRepository"), "{}", said.err);
}
