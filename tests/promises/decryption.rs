//! Secrets that are encrypted in Git: opened with the keys of `spec.decryption`, and quoted nowhere.

use std::path::Path;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::env::{Env, message};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    a_secret_that_is_encrypted_in_git_goes_live_in_the_clear,
    another_key_is_tried_at_once_and_the_wrong_one_names_who_can_open_the_file,
    a_forged_file_leaves_the_last_good_one_live,
    the_keys_of_the_daemon_are_for_those_that_name_none,
    a_diff_reads_the_keys_of_the_cluster_or_of_a_file_and_shows_no_value,
}

/// Of `tests/sops`, encrypted by the real sops.
fn recorded(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sops").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What `tests/sops/plain/secret.yaml` holds as `password`.
const PASSWORD: &str = "correct horse: battery # staple";
/// As the API server gives it.
const ENCODED_PASSWORD: &str = "Y29ycmVjdCBob3JzZTogYmF0dGVyeSAjIHN0YXBsZQ==";

async fn hold_key(env: &Env, name: &str) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "sops-age" },
        "stringData": { "identity.agekey": recorded(&format!("keys/{name}.agekey")) },
    });
    let params = PatchParams::apply("test").force();
    env.objects("Secret").patch("sops-age", &params, &Patch::Apply(secret)).await.unwrap();
}

fn decrypting(spec: &mut Value) {
    spec["decryption"] = json!({ "provider": "sops", "secretRef": { "name": "sops-age" } });
}

/// Pushes the recorded Secret and starts with a key.
async fn begin(env: &mut Env, key: &str) -> String {
    hold_key(env, key).await;
    let revision = env.push("A", &[("app/secret.yaml", &recorded("encrypted/secret.yaml"))]);
    env.source(|_| {}).await;
    env.kustomization("app", decrypting).await;
    env.start();
    revision
}

/// Until the application fails by the name of whose key would open the file.
async fn names_the_team(env: &Env, revision: &str) {
    let key = recorded("keys/team.agekey");
    let recipient = key.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("a public key");
    env.failed_at("app", revision, recipient).await;
}

async fn assert_is_told_nowhere(env: &Env) {
    let log = env.daemon.as_ref().unwrap().log().join("\n");
    let events = json!(env.objects("Event").list(&Default::default()).await.unwrap().items).to_string();
    let status = json!(env.kustomizations().list(&Default::default()).await.unwrap().items).to_string();
    for (place, text) in [("the log", log), ("an Event", events), ("a status", status)] {
        for value in [PASSWORD, "AGE-SECRET-KEY", "grüße"] {
            assert!(!text.contains(value), "{place} tells {value}");
        }
    }
}

async fn password_of(env: &Env) -> Option<Value> {
    env.live("Secret", "s3").await.map(|secret| secret["data"]["password"].clone())
}

async fn a_secret_that_is_encrypted_in_git_goes_live_in_the_clear(env: &mut Env) {
    let revision = begin(env, "team").await;
    env.ready_at("app", &revision).await;
    let secret = env.live("Secret", "s3").await.expect("it is there");
    assert_eq!(secret["data"]["password"], ENCODED_PASSWORD);
    assert_eq!(secret["data"]["raw"], "aGVsbG8=");
    assert!(secret.get("sops").is_none(), "{secret}");
    assert_is_told_nowhere(env).await;
}

async fn another_key_is_tried_at_once_and_the_wrong_one_names_who_can_open_the_file(env: &mut Env) {
    let revision = begin(env, "stranger").await;
    names_the_team(env, &revision).await;
    hold_key(env, "team").await;
    env.ready_at("app", &revision).await;
    assert_eq!(password_of(env).await, Some(ENCODED_PASSWORD.into()));
    assert_is_told_nowhere(env).await;
}

async fn the_keys_of_the_daemon_are_for_those_that_name_none(env: &mut Env) {
    env.arguments.push("--sops-age-secret=sops-age".into());
    hold_key(env, "stranger").await;
    let revision = env.push("A", &[("app/secret.yaml", &recorded("encrypted/secret.yaml"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| spec["decryption"] = json!({ "provider": "sops" })).await;
    env.start();
    names_the_team(env, &revision).await;
    // a change of the daemon's Secret is tried at once as well
    hold_key(env, "team").await;
    env.ready_at("app", &revision).await;
    assert_eq!(password_of(env).await, Some(ENCODED_PASSWORD.into()));
    // so does a diff that is told of it
    let namespace = env.namespace.clone();
    let told = |secret| ["--sops-age-secret", secret, "--runtime-namespace", &namespace];
    assert_eq!(diff(env, &told("sops-age")).await.0, 0);
    let (code, said) = diff(env, &told("nowhere")).await;
    assert!(code == 2 && said.contains("nowhere` of `--sops-age-secret`: it does not exist"), "{code}: {said}");
    let (code, said) = diff(env, &[]).await;
    assert!(code == 2 && said.contains("there is no age identity"), "{code}: {said}");

    // who names a Secret has its keys, and no others
    env.kustomization("app", |spec| {
        spec["decryption"] = json!({ "provider": "sops", "secretRef": { "name": "other" } });
    })
    .await;
    env.until("app", "its own Secret is missing", |found| message(found).contains("other")).await;
    assert_is_told_nowhere(env).await;
}

/// What a diff of the application says, which tells no secret; with its exit code.
async fn diff(env: &Env, more: &[&str]) -> (i32, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_afresh"));
    command.args(["diff", "ks/app", "-n", &env.namespace]).args(more).arg("--kubeconfig").arg(env.kubeconfig());
    command.env_clear().env("HOME", env.folder()).env("TMPDIR", env.folder());
    let output = command.output().await.expect("afresh runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("text");
    for value in [PASSWORD, ENCODED_PASSWORD, "AGE-SECRET-KEY"] {
        assert!(!said.contains(value), "it tells {value}:\n{said}");
    }
    (output.status.code().unwrap_or(-1), said)
}

async fn a_diff_reads_the_keys_of_the_cluster_or_of_a_file_and_shows_no_value(env: &mut Env) {
    let revision = begin(env, "team").await;
    env.ready_at("app", &revision).await;
    let file = |name: &str| format!("{}/tests/sops/keys/{name}.agekey", env!("CARGO_MANIFEST_DIR"));
    assert_eq!(diff(env, &[]).await.0, 0, "with the Secret of the cluster");
    assert_eq!(diff(env, &["--sops-age-key-file", &file("team")]).await.0, 0);
    let (code, said) = diff(env, &["--sops-age-key-file", &file("stranger")]).await;
    let key = recorded("keys/team.agekey");
    let recipient = key.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("a public key");
    assert_eq!((code, said.contains(recipient)), (2, true), "{said}");
    // what has changed in the cluster is shown as changed, and that is all
    let patch = Patch::Merge(json!({ "stringData": { "password": "drifted-password" } }));
    env.daemon.take().unwrap().stop().await.unwrap();
    env.objects("Secret").patch("s3", &PatchParams::default(), &patch).await.unwrap();
    let (code, said) = diff(env, &["--sops-age-key-file", &file("team")]).await;
    assert!(code == 1 && said.contains("*** (before)") && !said.contains("drifted"), "{code}: {said}");
}

async fn a_forged_file_leaves_the_last_good_one_live(env: &mut Env) {
    let revision = begin(env, "team").await;
    env.ready_at("app", &revision).await;
    let forged = recorded("encrypted/secret.yaml").replace("tier: \"1\"", "tier: \"2\"");
    let settings = config_map("settings", "b");
    let broken = env.push("B", &[("app/secret.yaml", &forged), ("app/settings.yaml", &settings)]);
    env.announce().await;
    env.failed_at("app", &broken, "changed after it was encrypted").await;
    assert!(password_of(env).await.is_some(), "the last good one is live");
    assert!(env.live("ConfigMap", "settings").await.is_none(), "nothing of the forged revision is applied");
    let fix = env.push("C", &[("app/secret.yaml", &recorded("encrypted/secret.yaml"))]);
    env.ready_at("app", &fix).await;
    assert_is_told_nowhere(env).await;
}
