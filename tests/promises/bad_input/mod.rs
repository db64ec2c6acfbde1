//! Bad input is a clear error on its own application; every other one is served on.

use crate::support::env::{Env, message};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    bad_input_is_named_with_its_file_and_holds_back_nobody_else,
    a_repository_without_commits_is_no_reason_to_give_up,
    a_force_push_is_followed,
}

/// What is committed as `app/bad.yaml`, and a word that the message must have.
fn bad_files() -> Vec<(&'static str, String, &'static str)> {
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned()
        + &('b'..='h')
            .map(|name| {
                let before = (name as u8 - 1) as char;
                let aliases = vec![format!("*{before}"); 10].join(", ");
                format!("{name}: &{name} [{aliases}]\n")
            })
            .collect::<String>();
    let map = |metadata: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {metadata}\n");
    vec![
        ("aliases that explode", bomb, "bad.yaml"),
        ("ten thousand levels", format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)), "bad.yaml"),
        ("a duplicate key", format!("{}kind: Secret\n", map("{ name: x }")), "bad.yaml"),
        ("one object twice", map("{ name: settings }"), "settings"),
        ("no name", map("{}"), "bad.yaml"),
        (
            "a namespace on what has none",
            "apiVersion: v1\nkind: Namespace\nmetadata: { name: x, namespace: y }\n".to_owned(),
            "bad.yaml",
        ),
        ("no kind", "apiVersion: v1\nmetadata: { name: x }\n".to_owned(), "bad.yaml"),
        ("an unknown kind", "apiVersion: example.com/v1\nkind: Nothing\nmetadata: { name: x }\n".to_owned(), "Nothing"),
    ]
}

async fn bad_input_is_named_with_its_file_and_holds_back_nobody_else(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a")), ("other/other.yaml", &config_map("other", "0"))])
        .await;
    env.kustomization("other", |_| {}).await;
    for (number, (what, text, word)) in bad_files().into_iter().enumerate() {
        let value = number.to_string();
        let revision = env.push(what, &[("app/bad.yaml", &text), ("other/other.yaml", &config_map("other", &value))]);
        env.announce().await;
        let failed = env.failed_at("app", &revision, "").await;
        assert!(message(&failed).contains(word), "{what}: {}", message(&failed));
        env.ready_at("other", &revision).await;
        assert_eq!(env.live("ConfigMap", "other").await.unwrap()["data"]["value"], value);
        assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "a");
    }
    let fix = env.push_changes("fix", &[("app/bad.yaml", None)]);
    env.ready_at("app", &fix).await;
}

async fn a_repository_without_commits_is_no_reason_to_give_up(env: &mut Env) {
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    env.start();
    env.until("app", "it says that there is no revision", |app| !message(app).is_empty()).await;
    let first = env.push("first", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.ready_at("app", &first).await;
}

async fn a_force_push_is_followed(env: &mut Env) {
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let text = config_map("settings", "b");
    let commit = env.repository.force_push("another history", &[("app/settings.yaml", &text)]).unwrap();
    env.announce().await;
    env.ready_at("app", &format!("main@sha1:{commit}")).await;
    assert_eq!(env.live("ConfigMap", "settings").await.unwrap()["data"]["value"], "b");
}
