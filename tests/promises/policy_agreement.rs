//! The shipped policies, applied to a real API server as they are: it says of each example what we say.

use std::path::{Path, PathBuf};

use afresh::manifest::yaml;
use serde_json::{Value, json};

use crate::support::control_plane::ControlPlane;
use crate::support::env::Env;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What is said of one example.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    denied: bool,
    /// The messages; an API server stops at the first denial.
    messages: Vec<String>,
}

async fn kubectl(plane: &ControlPlane, arguments: &[&str]) -> (bool, String) {
    let output = plane.kubectl().unwrap().args(arguments).output().await.unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

/// Ours, by `afresh check`.
async fn ours(env: &Env, example: &Path, policies: &Path) -> Said {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_afresh"));
    command.arg("check").arg(example).arg("--policies").arg(policies).args(["-o", "json"]);
    command.env_clear().env("HOME", env.folder());
    let output = command.output().await.unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let message = |finding: &Value| finding["message"].as_str().unwrap().split_once(": ").unwrap().1.to_owned();
    let findings = printed["findings"].as_array().unwrap();
    Said { denied: output.status.code() == Some(1), messages: findings.iter().map(message).collect() }
}

/// The server's, asked by dry-run.
async fn theirs(plane: &ControlPlane, name: &str, namespace: &str, example: &Path) -> Said {
    let files = example.display().to_string();
    let (taken, text) = kubectl(plane, &["create", "--dry-run=server", "-n", namespace, "-f", &files]).await;
    let denial = format!("ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: ");
    let warning = format!("Warning: Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{name}': ");
    let after = |line: &str, start: &str| line.split_once(start).map(|(_, message)| message.to_owned());
    let messages: Vec<String> =
        text.lines().filter_map(|line| after(line, &denial).or_else(|| after(line, &warning))).collect();
    assert!(taken || !messages.is_empty(), "{name}: refused for another reason: {text}");
    Said { denied: !taken, messages }
}

/// Of each expression that is said the same of here and there: what is said, and the expression.
fn expressions() -> Vec<(&'static str, &'static str)> {
    let of_policies = include_str!("../../src/policy/agreement.txt");
    let lines = include_str!("../../src/cel/agreement.txt").lines().chain(of_policies.lines());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| line.split_once(": ").unwrap()).collect()
}

/// Policies that one object is for: an API server cuts what it warns of beyond 4 KiB.
const POLICIES_AT_ONCE: usize = 2;

/// A policy of these expressions for one ConfigMap of a namespace, and a binding that warns.
fn policy_of(name: &str, namespace: &str, subject: &str, expressions: &[&str]) -> Vec<Value> {
    let rule = json!({
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"],
        "resourceNames": [subject],
    });
    let validations: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(at, text)| json!({ "expression": text, "message": format!("[{at}]") }))
        .collect();
    let of = |kind: &str, spec: Value| json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    let selector = json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } });
    vec![
        of(
            "ValidatingAdmissionPolicy",
            json!({ "matchConstraints": { "resourceRules": [rule] }, "validations": validations, "failurePolicy": "Fail" }),
        ),
        of(
            "ValidatingAdmissionPolicyBinding",
            json!({ "policyName": name, "validationActions": ["Warn"], "matchResources": { "namespaceSelector": selector } }),
        ),
    ]
}

/// CEL with what Kubernetes adds to it, by the values: the same tables are evaluated by our own in `src/cel/tests.rs` and
/// `src/policy/tests.rs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_evaluates_each_expression_as_we_do() {
    let Some(env) = Env::on_real_server("expressions_agree").await else { return };
    let plane = ControlPlane::shared().await;
    let written = async |file: &str, items: Vec<Value>| {
        let path = env.folder().join(file);
        std::fs::write(&path, json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()).unwrap();
        path.display().to_string()
    };
    let mut wrong = Vec::new();
    let mut evaluated = Vec::new();
    for (expected, expression) in expressions() {
        let name = format!("{}-one", env.namespace);
        let policy = policy_of(&name, &env.namespace, "subject", &[expression]).remove(0);
        let file = written("one.json", vec![policy]).await;
        let (taken, text) = kubectl(plane, &["create", "--dry-run=server", "-f", &file]).await;
        match (taken, expected) {
            (false, "refused") => {}
            (true, "true" | "error") => evaluated.push((expected, expression)),
            _ => wrong.push(format!("{expected}: {expression}\n  compiles: {taken} {text}")),
        }
    }
    // an API server bounds what a policy may cost as a whole
    let subject = |at: usize| format!("subject-{}", at / POLICIES_AT_ONCE);
    let mut objects = Vec::new();
    for (at, some) in evaluated.chunks(5).enumerate() {
        let some: Vec<&str> = some.iter().map(|(_, expression)| *expression).collect();
        objects.extend(policy_of(&format!("{}-{at}", env.namespace), &env.namespace, &subject(at), &some));
    }
    let at_once: Vec<_> = evaluated.chunks(5 * POLICIES_AT_ONCE).collect();
    for at in 0..at_once.len() {
        let name = format!("{}-last-{at}", env.namespace);
        objects.extend(policy_of(&name, &env.namespace, &format!("subject-{at}"), &["object.data.ip == ''"]));
    }
    let file = written("policies.json", objects).await;
    let (taken, text) = kubectl(plane, &["apply", "--server-side", "-f", &file]).await;
    assert!(taken, "{text}");
    let mut warnings = String::new();
    for (at, some) in at_once.into_iter().enumerate() {
        let data = json!({ "duration": "2h45m", "time": "2024-07-01T12:00:00Z", "ip": "10.1.2.3" });
        let metadata = json!({ "name": format!("subject-{at}") });
        let subject = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data });
        let file = env.folder().join("subject.json");
        std::fs::write(&file, subject.to_string()).unwrap();
        let arguments = ["create", "--dry-run=server", "-n", &env.namespace, "-f", &file.display().to_string()];
        // what was made last is in force last
        let errors = some.iter().filter(|(expected, _)| *expected == "error").count();
        let said = env.eventually("all are in force", async || {
            let (_, text) = kubectl(plane, &arguments).await;
            let all = text.contains(&format!("-last-{at}'")) && text.matches("Warning: ").count() > errors;
            all.then_some(text)
        });
        warnings.push_str(&said.await);
    }
    for (at, (expected, expression)) in evaluated.iter().enumerate() {
        let policy = format!("'{}-{}'", env.namespace, at / 5);
        let said = warnings.lines().filter(|line| line.contains(&policy));
        // what has no value is told by its expression, what is false by its message
        let failed = said.clone().any(|line| line.contains(expression));
        let false_here = said.clone().any(|line| line.ends_with(&format!("[{}]", at % 5)));
        let said = if failed {
            "error"
        } else if false_here {
            "false"
        } else {
            "true"
        };
        if said != *expected {
            wrong.push(format!("{expected}: {expression}\n  is {said} there"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{warnings}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_says_the_same_of_each_example_of_the_shipped_policies() {
    let Some(env) = Env::on_real_server("policies_agree").await else { return };
    let plane = ControlPlane::shared().await;
    let mut names = Vec::new();
    let mut objects = Vec::new();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(Path::new(ROOT).join("policies")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
        let text = std::fs::read(file).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let namespace = format!("{}-{name}", env.namespace);
        let folder = env.folder().join(&name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("policy.yaml"), &text).unwrap();
        let mut of_repositories = false;
        for mut document in yaml::documents(&name, &text).unwrap() {
            of_repositories |= document.value.pointer("/spec/matchConstraints/resourceRules/0/apiGroups/0")
                == Some(&json!("afresh.dev"));
            if document.value["kind"] == "ValidatingAdmissionPolicyBinding" {
                // other scenarios share the server
                document.value["spec"]["matchResources"]["namespaceSelector"] =
                    json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } });
            }
            objects.push(document.value);
        }
        objects.push(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }));
        // the server takes the policy, and has no repositories
        if !of_repositories {
            names.push((name, namespace, folder));
        }
    }
    let list = env.folder().join("policies.json");
    std::fs::write(&list, json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()).unwrap();
    let (taken, text) = kubectl(plane, &["apply", "--server-side", "-f", &list.display().to_string()]).await;
    assert!(taken, "{text}");

    for (name, namespace, folder) in &names {
        let example = |kind: &str| Path::new(ROOT).join(format!("policies/examples/{name}/{kind}"));
        let (passes, fails) = (example("passes"), example("fails"));
        let expected = ours(&env, &fails, folder).await;
        // what was applied a moment ago is in force a moment later
        let server = env
            .eventually(&format!("`{name}` is in force"), async || {
                let said = theirs(plane, name, namespace, &fails).await;
                (!said.messages.is_empty()).then_some(said)
            })
            .await;
        assert_eq!(server.denied, expected.denied, "{name}: {server:?} {expected:?}");
        if server.denied {
            let known = server.messages.iter().all(|message| expected.messages.contains(message));
            assert!(known, "{name}: {server:?} {expected:?}");
        } else {
            assert_eq!(server, expected, "{name}");
        }
        let nothing = Said { denied: false, messages: Vec::new() };
        assert_eq!(theirs(plane, name, namespace, &passes).await, nothing, "{name}");
        assert_eq!(ours(&env, &passes, folder).await, nothing, "{name}");
    }
}
