//! A real forge in front, a real API server behind: a push is live by its webhook, and its commit says so.
//!
//! Needs `AFRESH_GITEA=$(tests/tools/gitea/build)` and `KUBEBUILDER_ASSETS=$(tests/tools/build)`; `.ci/run` runs it.

mod gitea;
#[allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses its part of the environment")]
#[path = "../support/mod.rs"]
mod support;

use std::net::{Ipv4Addr, TcpListener};

use serde_json::json;

use gitea::Gitea;
use support::env::{Env, SOURCE};
use support::manifests::{config_map, deployment};

/// Shared by the webhook's form in Gitea and the daemon.
const WEBHOOK_SECRET: &str = "between-forge-and-daemon";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Gitea and a control plane; .ci/run builds both"]
async fn a_push_to_a_forge_is_live_and_its_commit_shows_how_it_went() {
    let mut env = Env::on_real_server("forge").await.expect("KUBEBUILDER_ASSETS is set");
    let gitea = Gitea::start().await.expect("Gitea starts");
    let url = gitea.create_repository(SOURCE).await.expect("a repository");
    let token = gitea.create_token().await.expect("a token");

    let webhook = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a free port");
    let secret_file = env.repository.path().join("../webhook-secret");
    std::fs::write(&secret_file, WEBHOOK_SECRET).expect("a file for the secret");
    env.arguments.extend(["--webhook-addr".into(), webhook.to_string()]);
    env.arguments.extend(["--webhook-secret-file".into(), secret_file.display().to_string()]);
    let hook = format!("http://{webhook}/webhook");
    gitea.create_webhook(SOURCE, &hook, WEBHOOK_SECRET).await.expect("a webhook");

    // the beginning: one commit, found without any webhook
    let first = env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    gitea.push(env.repository.path(), SOURCE).expect("a push");
    env.secret("forge", gitea.credentials()).await;
    env.secret("forge-token", json!({ "token": token })).await;
    env.source(|spec| {
        spec["url"] = url.as_str().into();
        spec["secretRef"] = json!({ "name": "forge" });
    })
    .await;
    let address = format!("{}/{}/{SOURCE}", gitea.url(), gitea::USER);
    let provider = json!({ "type": "gitea", "address": address, "secretRef": { "name": "forge-token" } });
    env.provider("forge", provider).await;
    env.alert("forge", "forge", |_| {}).await;
    env.kustomization("app", |_| {}).await;
    env.start();
    env.ready_at("app", &first).await;

    // a broken one, and its fix: nothing but the webhook tells of them within the source's interval
    let wrong = deployment("web", "web:1").replace("\"replicas\": 1", "\"replicas\": \"many\"");
    let broken = env.push("B", &[("app/web.yaml", &wrong)]);
    gitea.push(env.repository.path(), SOURCE).expect("a push");
    env.failed_at("app", &broken, "replicas").await;
    commit_shows(&env, &gitea, &broken, "failure").await;

    let fix =
        env.push_changes("C", &[("app/web.yaml", None), ("app/settings.yaml", Some(&config_map("settings", "c")))]);
    gitea.push(env.repository.path(), SOURCE).expect("a push");
    env.ready_at("app", &fix).await;
    assert_eq!(env.live("ConfigMap", "settings").await.expect("the settings are there")["data"]["value"], "c");
    commit_shows(&env, &gitea, &fix, "success").await;
}

/// Waits until the newest status of a commit under this application's context is `state`.
async fn commit_shows(env: &Env, gitea: &Gitea, revision: &str, state: &str) {
    let commit = revision.rsplit_once("sha1:").map_or(revision, |(_, commit)| commit);
    env.eventually(&format!("{commit} shows {state}"), async || {
        let statuses = gitea.statuses(SOURCE, commit).await.ok()?;
        let (context, newest, _) = statuses.first()?;
        (context.starts_with("kustomization/app/") && newest == state).then_some(())
    })
    .await;
}
