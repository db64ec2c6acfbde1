//! Promise 6: no value of a Secret reaches a log, a status or an Event.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::env::{Env, SOURCE};
use crate::support::forge::Forge;
use crate::support::manifests::{config_map, secret};
use crate::support::receiver::{Answers, Receiver};
use crate::support::scenarios;

scenarios! {
    the_value_of_a_secret_is_nowhere,
    wrong_credentials_are_not_echoed,
    each_failure_is_told_without_the_secret_that_it_is_about,
    who_is_notified_and_who_notifies_are_told_no_secret,
}

const VALUE: &str = "correct-horse-battery-staple";

async fn assert_nowhere(env: &Env, value: &str) {
    let log = env.daemon.as_ref().unwrap().log().join("\n");
    assert!(!log.contains(value), "the log tells it");
    let status = json!([
        env.kustomizations().list(&Default::default()).await.unwrap().items,
        env.sources()
            .list(&Default::default())
            .await
            .unwrap()
            .items
            .iter()
            .map(|s| json!(s.status))
            .collect::<Vec<_>>(),
    ]);
    assert!(!status.to_string().contains(value), "a status tells it");
    let events = env.objects("Event").list(&Default::default()).await.unwrap();
    assert!(!json!(events.items).to_string().contains(value), "an Event tells it");
}

async fn the_value_of_a_secret_is_nowhere(env: &mut Env) {
    env.begin(&[("app/secret.yaml", &secret("token", VALUE))]).await;
    // Drift of it, and a revision in which it is refused.
    let change = json!({ "stringData": { "value": "something else" } });
    env.objects("Secret").patch("token", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    env.until_live("Secret", "token", "it is corrected", |found| {
        found["data"]["value"] == "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ=="
    })
    .await;
    let invalid = secret("token", VALUE).replace("\"stringData\"", "\"immutable\": \"many\", \"stringData\"");
    let broken = env.push("B", &[("app/secret.yaml", &invalid)]);
    env.announce().await;
    env.failed_at("app", &broken, "Secret").await;
    assert_nowhere(env, VALUE).await;
    assert_nowhere(env, "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ==").await;
}

async fn wrong_credentials_are_not_echoed(env: &mut Env) {
    env.git.require_basic("git", "the-right-one");
    let credentials = |password: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "git" },
            "stringData": { "username": "git", "password": password },
        })
    };
    let params = PatchParams::apply("test").force();
    let secrets = env.objects("Secret");
    secrets.patch("git", &params, &Patch::Apply(credentials(VALUE))).await.unwrap();
    let revision = env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.source(|spec| spec["secretRef"] = json!({ "name": "git" })).await;
    env.kustomization("app", |_| {}).await;
    env.start();
    env.eventually("the source fails", async || {
        let source = env.sources().get(SOURCE).await.ok()?;
        source.status?.conditions.is_true("FetchFailed").then_some(())
    })
    .await;
    assert_nowhere(env, VALUE).await;

    // A new Secret is tried at once, without anybody's request.
    secrets.patch("git", &params, &Patch::Apply(credentials("the-right-one"))).await.unwrap();
    env.ready_at("app", &revision).await;
    assert_nowhere(env, "the-right-one").await;
}

/// Of `tests/sops`, encrypted by the real sops.
fn recorded(file: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sops").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What an encrypted file of `tests/sops` holds as the password of a database.
const DECRYPTED: &str = "pa$$ word";
/// And what it is after substitution.
const SUBSTITUTED: &str = "pa$ word";

fn secret_with(fields: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: broken}}\n{fields}\n")
}

fn labelled(value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: labelled\n  labels:\n    tier: {value}\n")
}

/// What is wrong, the files of the commit, and what is said of it.
type Mistake = (&'static str, Vec<(&'static str, String)>, &'static str);

/// Commits whose errors are about a secret.
fn failures(env: &Env) -> Vec<Mistake> {
    let plant = || env.canaries.plant("a value of a Secret in Git");
    let file = |content: String| vec![("app/a.yaml", content)];
    let kustomized = |content: String| vec![("app/kustomization.yaml", content)];
    let secret = || secret_with(&format!("stringData: {{password: {}}}", plant()));
    vec![
        ("a file that ends too early", file(secret_with(&format!("stringData: {{password: {},", plant()))), "app/a.yaml"),
        (
            "a key given twice",
            file(secret_with(&format!("stringData:\n  password: {}\n  password: {}", plant(), plant()))),
            "app/a.yaml",
        ),
        ("a list for a text", file(secret_with(&format!("stringData: {{password: [{}]}}", plant()))), "stringData"),
        (
            "a text for a truth value",
            file(secret_with(&format!("immutable: {}\nstringData: {{password: {}}}", plant(), plant()))),
            "immutable",
        ),
        ("what is not base64", file(secret_with(&format!("data: {{password: \"{}!\"}}", plant()))), "Secret"),
        ("a key that is none", file(secret_with(&format!("stringData: {{\"a key\": {}}}", plant()))), "a key"),
        ("a value of the cluster in a label", file(labelled("${password}")), "labelled"),
        ("a value of the cluster for a number", file(deployment_with("${password}")), "replicas"),
        (
            "a decrypted value in a label",
            vec![
                ("app/afresh.yaml", "render: template\nvalues: [values.yaml]\n".to_owned()),
                ("app/values.yaml", recorded("encrypted/values.yaml")),
                ("app/a.yaml", labelled("\"{{ values.database.password }}\"")),
            ],
            "labelled",
        ),
        (
            "a decrypted value that ends its line",
            vec![
                ("app/afresh.yaml", "render: template\nvalues: [values.yaml]\n".to_owned()),
                ("app/values.yaml", recorded("encrypted/values.yaml")),
                ("app/a.yaml", labelled("'{{ values.database.password }}")),
            ],
            "app/a.yaml",
        ),
        (
            "a forged file",
            file(recorded("encrypted/secret.yaml").replace("name: s3", "name: s4")),
            "changed after it was encrypted",
        ),
        (
            "what looks like substitution in a Secret",
            file(secret_with(&format!("stringData: {{password: \"${{{}^^^\"}}", plant()))),
            "no form of substitution",
        ),
        (
            "a patch that expects another value",
            vec![
                ("app/a.yaml", secret()),
                (
                    "app/kustomization.yaml",
                    format!(
                        "resources: [a.yaml]\npatches:\n- target: {{kind: Secret}}\n  patch: |-\n    - {{op: test, path: /stringData/password, value: {}}}\n",
                        plant()
                    ),
                ),
            ],
            "app/kustomization.yaml",
        ),
        (
            "a literal without a key",
            kustomized(format!("secretGenerator:\n- name: broken\n  literals: [\"{}\"]\n", plant())),
            "app/kustomization.yaml",
        ),
        (
            "a line without a key",
            vec![
                ("app/kustomization.yaml", "secretGenerator:\n- name: broken\n  envs: [a.env]\n".to_owned()),
                ("app/a.env", format!("{} = x\n= {}\n", plant(), plant())),
            ],
            "a.env",
        ),
        (
            "a value of a Secret that a kustomization puts into a label",
            vec![
                ("app/a.yaml", secret_with(&format!("stringData: {{password: {} x}}", plant()))),
                ("app/b.yaml", labelled("none")),
                (
                    "app/kustomization.yaml",
                    "resources: [a.yaml, b.yaml]\nreplacements:\n- source: {kind: Secret, fieldPath: stringData.password}\n  targets:\n  - {select: {kind: ConfigMap}, fieldPaths: [metadata.labels.tier]}\n".to_owned(),
                ),
            ],
            "labelled",
        ),
    ]
}

fn deployment_with(replicas: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: counted}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: a}}}}\n  template:\n    metadata: {{labels: {{app: a}}}}\n    spec: {{containers: [{{name: a, image: a:1}}]}}\n"
    )
}

async fn each_failure_is_told_without_the_secret_that_it_is_about(env: &mut Env) {
    env.canaries.keep("what was decrypted", DECRYPTED);
    env.canaries.keep("what was decrypted and substituted", SUBSTITUTED);
    let password = env.canaries.plant("the password of a source");
    env.git.require_basic("git", &password);
    env.secret("git", json!({ "username": "git", "password": password })).await;
    // with spaces it is no label
    let value = format!("{} in the cluster", env.canaries.plant("a value that is substituted"));
    env.secret("values", json!({ "password": value })).await;
    env.secret("sops-age", json!({ "team.agekey": recorded("keys/team.agekey") })).await;
    let first = env.push("A", &[("app/a.yaml", &config_map("settings", "a"))]);
    env.source(|spec| spec["secretRef"] = json!({ "name": "git" })).await;
    let spec = |spec: &mut Value| {
        spec["postBuild"] = json!({ "substituteFrom": [{ "kind": "Secret", "name": "values" }] });
        spec["decryption"] = json!({ "provider": "sops", "secretRef": { "name": "sops-age" } });
    };
    env.kustomization("app", spec).await;
    env.start();
    env.ready_at("app", &first).await;
    let mut files: Vec<&str> = vec!["app/a.yaml"];
    for (what, commit, wanted) in failures(env) {
        let gone = files.iter().filter(|path| commit.iter().all(|(other, _)| other != *path)).map(|path| (*path, None));
        let changes: Vec<_> = gone.chain(commit.iter().map(|(path, text)| (*path, Some(text.as_str())))).collect();
        let broken = env.push_changes(what, &changes);
        files = commit.iter().map(|(path, _)| *path).collect();
        env.announce().await;
        env.failed_at("app", &broken, wanted).await;
        env.assert_nothing_is_told().await;
    }
    // what is not declared any more is told of by its name
    let unknown = secret_with(&format!("stringDate: {{password: {}}}", env.canaries.plant("an unknown field's value")));
    let gone = files.iter().filter(|path| **path != "app/a.yaml").map(|path| (*path, None));
    let changes: Vec<_> = gone.chain([("app/a.yaml", Some(unknown.as_str()))]).collect();
    let good = env.push_changes("an unknown field", &changes);
    env.announce().await;
    env.ready_at("app", &good).await;

    // keys that are none, values that can't be substituted, credentials that are refused
    let key = format!("AGE-SECRET-KEY-{}", env.canaries.plant("what should be a key").to_uppercase());
    env.canaries.keep("what should be a key", &key);
    env.secret("sops-age", json!({ "team.agekey": key })).await;
    env.failed_at("app", &good, "holds no age identity").await;
    env.secret("sops-age", json!({ "team.agekey": recorded("keys/team.agekey") })).await;
    env.ready_at("app", &good).await;
    env.secret("values", json!({ "not-a-name": env.canaries.plant("a value of no name") })).await;
    env.failed_at("app", &good, "not-a-name").await;
    env.secret("git", json!({ "username": "git", "password": env.canaries.plant("a wrong password") })).await;
    env.source_fails(SOURCE, "credentials").await;
}

async fn who_is_notified_and_who_notifies_are_told_no_secret(env: &mut Env) {
    let chat = Receiver::start(&env.canaries).await;
    let token = env.canaries.plant("the token of a Provider");
    let path = env.canaries.plant("the path of a Provider's address");
    let header = env.canaries.plant("a header of a Provider");
    let address = format!("{}/{path}", chat.url);
    let headers = format!("X-Api-Key: {header}\n");
    env.secret("chat", json!({ "token": token, "address": address, "headers": headers })).await;
    env.provider("chat", json!({ "type": "generic", "secretRef": { "name": "chat" } })).await;
    env.alert("all", "chat", |spec| spec["eventSeverity"] = json!("error")).await;
    let signed = env.canaries.plant("the secret of webhooks");
    env.secret("webhook", json!({ "token": signed })).await;
    env.arguments.extend(["--webhook-addr", "127.0.0.1:0", "--webhook-secret"].map(str::to_owned));
    env.arguments.push(format!("{}/webhook", env.namespace));
    // the endpoint echoes what it is sent, as an error
    chat.answer(Answers::With(500));
    chat.say(&format!("no: {token} {header} at {address}"));
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let broken = env.push("B", &[("app/settings.yaml", "[")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    env.eventually("the endpoint is asked", async || (!chat.received().is_empty()).then_some(())).await;

    let daemon = env.daemon.as_ref().expect("a daemon");
    let (forge, liar) = (Forge::new(&signed, &env.git.url(SOURCE)), Forge::new("no", &env.git.url(SOURCE)));
    let said = forge.push("main", Some(&broken));
    for (forge, path, body) in [
        (&forge, "/webhook", "{"),
        (&forge, "/webhook", said.as_str()),
        (&liar, "/webhook", &said),
        (&liar, "/hook/none", &said),
    ] {
        forge.deliver(daemon, path, "push", body).await;
    }
}
