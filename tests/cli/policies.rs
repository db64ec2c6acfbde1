//! `afresh check`, and the policies that are shipped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{afresh, failure};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The names of the shipped policies.
fn shipped() -> Vec<String> {
    let files = std::fs::read_dir(Path::new(ROOT).join("policies")).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

/// Commits all that is in a folder.
fn commit(folder: &Path) {
    let repository = git2::Repository::init(folder).unwrap();
    let mut index = repository.index().unwrap();
    index.add_all(["*"], git2::IndexAddOption::FORCE, None).unwrap();
    index.write().unwrap();
    let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
    let who = git2::Signature::now("Jane Doe", "jane@example.com").unwrap();
    repository.commit(Some("HEAD"), &who, &who, "A commit", &tree, &[]).unwrap();
}

/// Exit code and findings.
fn check(home: &Path, arguments: &[&str]) -> (i32, Vec<Value>) {
    let output = afresh(home).arg("check").args(arguments).args(["-o", "json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"));
    (output.status.code().unwrap(), printed["findings"].as_array().unwrap().clone())
}

#[test]
fn each_shipped_policy_says_its_purpose_and_judges_its_examples() {
    let names = shipped();
    assert!(names.len() >= 11, "{names:?}");
    for name in names {
        let home = TempDir::new().unwrap();
        let file = Path::new(ROOT).join(format!("policies/{name}.yaml"));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# ") && text.lines().next().unwrap().len() > 60, "{name}: what it is for");
        std::fs::create_dir(home.path().join("policies")).unwrap();
        std::fs::write(home.path().join("policies/policy.yaml"), &text).unwrap();
        for (example, fails) in [("passes", false), ("fails", true)] {
            let folder = home.path().join(example);
            copy(&Path::new(ROOT).join(format!("policies/examples/{name}/{example}")), &folder);
            commit(&folder);
            let (code, findings) = check(home.path(), &[example, "--policies", "policies"]);
            assert_eq!(!findings.is_empty(), fails, "{name}: {example}: {findings:?}");
            assert!(findings.iter().all(|finding| finding["policy"] == *name), "{findings:?}");
            let denies = findings.iter().any(|finding| finding["severity"] == "error");
            assert_eq!(code, i32::from(denies), "{name}: {example}");
            for finding in findings {
                let path = finding["path"].as_str().unwrap();
                assert!(folder.join(path).is_file(), "{name}: a place in the source: {finding}");
            }
        }
    }
}

#[test]
fn all_shipped_policies_are_read_together() {
    let home = TempDir::new().unwrap();
    std::fs::create_dir(home.path().join("app")).unwrap();
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
    std::fs::write(home.path().join("app/map.yaml"), map.to_string()).unwrap();
    let policies = Path::new(ROOT).join("policies");
    let (code, findings) = check(home.path(), &["app", "--policies", &policies.to_string_lossy()]);
    assert_eq!((code, findings), (0, Vec::new()));
}

/// A working copy with a kustomization whose patch makes what is denied, and a template that does.
fn findings_in_sources() -> (TempDir, PathBuf) {
    let home = TempDir::new().unwrap();
    let write = |path: &str, text: &str| {
        let path = home.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let web =
        std::fs::read_to_string(Path::new(ROOT).join("policies/examples/no-mutable-tags/fails/web.yaml")).unwrap();
    write("copy/apps/shop/web.yaml", &format!("# the shop\n{web}"));
    write("copy/apps/shop/kustomization.yaml", "namespace: shop\nresources: [web.yaml]\n");
    write("copy/.env", "A=b\n");
    for name in ["no-mutable-tags", "no-secret-files", "probes"] {
        let text = std::fs::read_to_string(Path::new(ROOT).join(format!("policies/{name}.yaml"))).unwrap();
        write(&format!("policies/{name}.yaml"), &text);
    }
    commit(&home.path().join("copy"));
    let folder = home.path().to_owned();
    (home, folder)
}

#[test]
fn findings_are_printed_for_people_and_for_machines() {
    let (_home, folder) = findings_in_sources();
    let printed = |output: &str| {
        let output =
            afresh(&folder).args(["check", "copy/apps/shop", "--policies", "policies", "-o", output]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    insta::assert_snapshot!(printed("text"));
    insta::assert_snapshot!(printed("json"));
    insta::assert_snapshot!(printed("github"));
    let sarif: Value = serde_json::from_str(&printed("sarif")).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    let rules: BTreeSet<&str> = sarif["runs"][0]["tool"]["driver"]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["id"].as_str().unwrap())
        .collect();
    assert_eq!(rules, BTreeSet::from(["no-mutable-tags", "no-secret-files", "probes"]));
    for result in results {
        assert!(rules.contains(result["ruleId"].as_str().unwrap()), "{result}");
        let place = &result["locations"][0]["physicalLocation"];
        assert!(
            place["artifactLocation"]["uri"].is_string() && place["region"]["startLine"].as_u64() >= Some(1),
            "{result}"
        );
    }
}

#[test]
fn what_is_not_denied_ends_with_0_and_what_does_not_render_with_1() {
    let (_home, folder) = findings_in_sources();
    let run = |arguments: &[&str]| {
        let output = afresh(&folder).arg("check").args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&["copy/apps/shop"]).0, 0, "without policies it is only rendered");
    std::fs::write(folder.join("copy/apps/shop/kustomization.yaml"), "resources: [nothing.yaml]\n").unwrap();
    let (code, text) = run(&["copy/apps/shop", "--policies", "policies"]);
    assert!(code == 1 && text.contains("nothing.yaml"), "{code}: {text}");
    assert_eq!(run(&["nowhere"]).0, 2);
    assert_eq!(run(&["copy", "--policies", "nowhere"]).0, 2);
}

#[test]
fn a_policy_that_can_not_be_used_is_named_with_its_place_and_neither_checks_nor_starts() {
    let home = TempDir::new().unwrap();
    std::fs::create_dir_all(home.path().join("policies")).unwrap();
    std::fs::create_dir_all(home.path().join("app")).unwrap();
    let good = std::fs::read_to_string(Path::new(ROOT).join("policies/probes.yaml")).unwrap();
    let binding = "kind: ValidatingAdmissionPolicyBinding";
    for (from, to, said) in [
        ("variables.lacking == []", "variables.lacking + 1", "validations[0].expression"),
        ("variables.lacking == []", "variables.lacking", "it must be of type bool"),
        ("variables.lacking == []", "variables.absent == []", "absent"),
        ("variables.lacking == []", "object.metadata.name.", "validations[0].expression"),
        ("variables.lacking == []", "authorizer.group('').resource('pods').check('get').allowed()", "authorizer"),
        ("failurePolicy: Fail", "failurePolicy: Sometimes", "Sometimes"),
        ("failurePolicy: Fail", "failsafe: true", "failsafe"),
        (binding, "kind: Binding", "Binding"),
        ("policyName: probes", "policyName: absent", "absent"),
        ("[Deny]", "[Denied]", "Denied"),
        ("metadata:\n  name: probes\nspec", "metadata: {name: [\nspec", "policy.yaml"),
    ] {
        assert!(good.contains(from), "{from}");
        std::fs::write(home.path().join("policies/policy.yaml"), good.replacen(from, to, 1)).unwrap();
        let (code, text) = failure(afresh(home.path()).args(["check", "app", "--policies", "policies"]));
        assert!(code == 2 && text.contains(said) && text.contains("policies/policy.yaml:"), "{to}: {code}: {text}");
        let run = ["run", "--sandbox", "--data-dir", "data", "--metrics-addr", "none", "--policies", "policies"];
        let (code, text) = failure(afresh(home.path()).args(run));
        assert!(code == 1 && text.contains(said) && text.contains("policies/policy.yaml:"), "{to}: {code}: {text}");
    }
    std::fs::remove_file(home.path().join("policies/policy.yaml")).unwrap();
    let (code, text) = failure(afresh(home.path()).args(["check", "app", "--policies", "policies"]));
    assert!(code == 2 && text.contains("it has no YAML files"), "{text}");
}

/// What the jobs of `examples/ci` run, found in them.
fn job(file: &str) -> String {
    let text = std::fs::read_to_string(Path::new(ROOT).join("examples/ci").join(file)).unwrap();
    let read = afresh::manifest::yaml::documents(file, text.as_bytes()).unwrap().remove(0).value;
    let steps = read.pointer("/jobs/check/steps").and_then(Value::as_array);
    let run = steps.and_then(|steps| steps.iter().find_map(|step| step["run"].as_str()));
    run.or_else(|| read.pointer("/check/script/0")?.as_str()).unwrap().to_owned()
}

/// Runs a script beside `afresh`; gives how it ended and all that it said.
fn shell(home: &Path, folder: &Path, script: &str) -> (i32, String) {
    let bin = Path::new(env!("CARGO_BIN_EXE_afresh")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(folder)
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn the_jobs_of_the_examples_find_what_is_denied_and_end_well_without() {
    for file in ["github.yaml", "gitlab.yaml"] {
        let (_home, folder) = findings_in_sources();
        copy(&folder.join("policies"), &folder.join("copy/policies"));
        let script = job(file);
        let (code, said) = shell(&folder, &folder.join("copy"), &script);
        assert!(code == 1 && said.contains("mutable image tags"), "{file}: {code}: {said}");
        if file == "github.yaml" {
            assert!(said.contains("::error file=apps/shop/web.yaml,line="), "{said}");
            let sarif = std::fs::read_to_string(folder.join("copy/findings/shop.sarif")).unwrap();
            assert!(serde_json::from_str::<Value>(&sarif).unwrap()["version"] == "2.1.0");
        }
        let good = Path::new(ROOT).join("policies/examples/probes/passes/web.yaml");
        std::fs::copy(good, folder.join("copy/apps/shop/web.yaml")).unwrap();
        std::fs::remove_file(folder.join("copy/.env")).unwrap();
        commit_again(&folder.join("copy"));
        let (code, said) = shell(&folder, &folder.join("copy"), &script);
        assert_eq!(code, 0, "{file}: {said}");
    }
}

/// Takes what a folder has now into the index.
fn commit_again(folder: &Path) {
    let repository = git2::Repository::open(folder).unwrap();
    let mut index = repository.index().unwrap();
    index.add_all(["*"], git2::IndexAddOption::FORCE, None).unwrap();
    index.update_all(["*"], None).unwrap();
    index.write().unwrap();
}

#[test]
fn the_hook_checks_what_is_staged() {
    let (_home, folder) = findings_in_sources();
    let copy_of = folder.join("copy");
    let hooks = copy_of.join(".git/hooks");
    std::fs::create_dir_all(&hooks).unwrap();
    std::fs::copy(Path::new(ROOT).join("examples/ci/pre-commit"), hooks.join("pre-commit")).unwrap();
    let commit = format!(
        "POLICIES='{}' git -c user.name=J -c user.email=j@example.com commit --allow-empty -m next",
        folder.join("policies").display()
    );
    let (code, said) = shell(&folder, &copy_of, &commit);
    assert!(code == 1 && said.contains("mutable image tags") && said.contains(".env"), "{code}: {said}");
    // what is mended and not staged is not committed either
    let good = Path::new(ROOT).join("policies/examples/probes/passes/web.yaml");
    std::fs::copy(good, copy_of.join("apps/shop/web.yaml")).unwrap();
    std::fs::remove_file(copy_of.join(".env")).unwrap();
    assert_eq!(shell(&folder, &copy_of, &commit).0, 1);
    commit_again(&copy_of);
    let (code, said) = shell(&folder, &copy_of, &commit);
    assert_eq!(code, 0, "{said}");
}

/// A policy of one validation for a kind of the core group, with its binding, in a folder `policies` of its own.
fn one_policy(home: &Path, resource: &str, expression: &str, message: &str) {
    let rule = json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource] });
    let validation = json!({ "expression": expression, "messageExpression": message });
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": "p" },
        "spec": { "matchConstraints": { "resourceRules": [rule] }, "validations": [validation] },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": "p" }, "spec": { "policyName": "p", "validationActions": ["Deny"] },
    });
    std::fs::create_dir_all(home.join("policies")).unwrap();
    std::fs::write(home.join("policies/policy.yaml"), format!("{policy}\n---\n{binding}\n")).unwrap();
}

#[test]
fn what_is_encrypted_is_opened_with_the_keys_of_a_person_and_shown_to_nobody() {
    let home = TempDir::new().unwrap();
    let recorded = |file: &str| Path::new(ROOT).join("tests/sops").join(file);
    std::fs::create_dir(home.path().join("app")).unwrap();
    std::fs::copy(recorded("encrypted/secret.yaml"), home.path().join("app/secret.yaml")).unwrap();
    let key = |name: &str| recorded(&format!("keys/{name}.agekey")).display().to_string();
    // true of what was encrypted alone
    one_policy(home.path(), "secrets", "object.data.raw == 'aGVsbG8='", "'it is ' + object.data.raw");
    let arguments = ["app", "--policies", "policies"];
    let run = |more: &[&str], from_environment: Option<&str>| {
        let mut command = afresh(home.path());
        command.arg("check").args(arguments).args(more);
        if let Some(file) = from_environment {
            command.env("SOPS_AGE_KEY_FILE", file);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        for value in ["correct horse", "aGVsbG8=", "Y29ycmVjdCBob3Jz", "AGE-SECRET-KEY"] {
            assert!(!said.contains(value), "it tells {value}:\n{said}");
        }
        (output.status.code().unwrap(), said)
    };
    let (code, said) = run(&["--sops-age-key-file", &key("team")], None);
    assert_eq!(code, 0, "{said}");
    assert_eq!(run(&[], Some(&key("team"))).0, 0, "as `sops` is told");
    let team = std::fs::read_to_string(key("team")).unwrap();
    let recipient = team.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    let (code, said) = run(&["--sops-age-key-file", &key("stranger")], None);
    assert_eq!((code, said.contains(recipient)), (1, true), "{said}");
    let (code, said) = run(&[], None);
    assert_eq!((code, said.contains("no `--sops-age-key-file`")), (1, true), "{said}");
    let (code, said) = run(&["--sops-age-key-file", "nowhere.agekey"], None);
    assert_eq!((code, said.contains("nowhere.agekey")), (2, true), "{said}");
    // a message that would quote the value is not made
    one_policy(home.path(), "secrets", "object.data.raw != 'aGVsbG8='", "'it is ' + object.data.raw");
    let (code, said) = run(&["--sops-age-key-file", &key("team")], None);
    assert_eq!((code, said.contains("secret.yaml")), (1, true), "{said}");
}

#[test]
fn a_policy_sees_the_namespace_as_the_tree_declares_it() {
    let home = TempDir::new().unwrap();
    std::fs::create_dir(home.path().join("app")).unwrap();
    let write = |tier: &str| {
        let space = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop", "labels": { "tier": tier } } });
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a", "namespace": "shop" } });
        std::fs::write(home.path().join("app/all.yaml"), format!("{space}\n---\n{map}\n")).unwrap();
    };
    let (expression, message) =
        ("namespaceObject.metadata.labels.tier == 'free'", "'it is ' + namespaceObject.metadata.labels.tier");
    one_policy(home.path(), "configmaps", expression, message);
    write("free");
    assert_eq!(check(home.path(), &["app", "--policies", "policies"]), (0, Vec::new()));
    write("closed");
    let (code, findings) = check(home.path(), &["app", "--policies", "policies"]);
    assert_eq!((code, findings[0]["message"].as_str().unwrap()), (1, "ConfigMap/shop/a: it is closed"));
}

#[test]
fn a_policy_sees_the_account_that_a_kustomization_names() {
    let home = TempDir::new().unwrap();
    std::fs::create_dir(home.path().join("app")).unwrap();
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a", "namespace": "shop" } });
    std::fs::write(home.path().join("app/map.yaml"), map.to_string()).unwrap();
    one_policy(
        home.path(),
        "configmaps",
        "request.userInfo.username == 'system:serviceaccount:flux-system:team' && 'system:serviceaccounts:flux-system' in request.userInfo.groups",
        "'by `' + request.userInfo.username + '`'",
    );
    let write = |account: Option<&str>| {
        let kustomization = json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "metadata": { "name": "app", "namespace": "flux-system" },
            "spec": { "interval": "10m", "prune": true, "path": "./app", "serviceAccountName": account,
                "sourceRef": { "kind": "GitRepository", "name": "platform" } },
        });
        std::fs::write(home.path().join("ks.yaml"), kustomization.to_string()).unwrap();
    };
    let arguments = ["app", "--policies", "policies", "--kustomization", "ks.yaml", "--root", "."];
    write(Some("team"));
    assert_eq!(check(home.path(), &arguments), (0, Vec::new()));
    write(None);
    let (code, findings) = check(home.path(), &arguments);
    assert_eq!((code, findings[0]["message"].as_str().unwrap()), (1, "ConfigMap/shop/a: by ``"));
    // as the daemon is told, for those that name none, and for a folder of which no Kustomization is known
    let by_default = ["--default-service-account", "team"];
    assert_eq!(check(home.path(), &[&arguments[..], &by_default].concat()), (0, Vec::new()));
    assert_eq!(check(home.path(), &[&arguments[..3], &by_default].concat()), (0, Vec::new()));
    write(Some("other"));
    let (code, findings) = check(home.path(), &[&arguments[..], &by_default].concat());
    let message = "ConfigMap/shop/a: by `system:serviceaccount:flux-system:other`";
    assert_eq!((code, findings[0]["message"].as_str().unwrap()), (1, message));
}
