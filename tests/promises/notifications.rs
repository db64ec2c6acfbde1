//! People hear of what breaks once, and of its repair once; and whoever doesn't answer delays nobody.

use std::time::Duration;

use afresh::api::{Alert, Provider};
use hmac::{Hmac, KeyInit as _, Mac as _};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::env::{Env, SOURCE};
use crate::support::manifests::{config_map, deployment, deployment_behaving};
use crate::support::receiver::{Answers, Received, Receiver};
use crate::support::scenarios;

scenarios! {
    a_broken_push_is_one_message_and_its_repair_one,
    a_failure_is_not_told_again_after_a_restart_and_its_repair_is,
    a_source_that_is_broken_under_three_applications_is_one_message,
    endpoints_that_hang_or_fail_delay_neither_others_nor_the_fix,
    after_an_outage_the_newest_state_is_told,
    an_alert_takes_what_its_lists_let_through,
    who_is_suspended_hears_nothing,
    a_page_ends_with_the_repair,
    a_commit_is_pending_then_failed_and_the_next_succeeds,
    a_commit_that_changes_nothing_here_has_no_status,
    a_type_that_is_not_served_is_refused_by_name,
    whether_alerts_and_providers_are_served_is_measured_as_long_as_they_are_there,
}

mod definitions {
    use super::*;

    scenarios! {
        // on a real server the definitions are those of all tests
        only on the sandbox:
        what_is_installed_later_is_served_without_a_restart,
    }
}

/// Long enough for a message too many to arrive.
const WHILE: Duration = Duration::from_secs(2);

/// Waits until `count` requests have come, and a while for one more that must not.
async fn exactly(env: &Env, receiver: &Receiver, count: usize, what: &str) -> Vec<Received> {
    env.eventually(what, async || (receiver.received().len() >= count).then_some(())).await;
    tokio::time::sleep(WHILE).await;
    let received = receiver.received();
    let texts: Vec<_> = received.iter().map(|r| format!("{} {:#}", r.path, r.json())).collect();
    assert_eq!(received.len(), count, "{what}: {}", texts.join("\n"));
    received
}

fn message(received: &Received) -> String {
    received.json()["message"].as_str().unwrap_or_default().to_owned()
}

/// The usual beginning, with a Provider `chat` of generic type.
async fn begin(env: &mut Env, receiver: &Receiver) {
    begin_with(env, json!({ "type": "generic", "address": format!("{}/hook", receiver.url) })).await;
}

/// The usual beginning, with a Provider `chat` and an Alert `all` on everything that asks for errors.
pub async fn begin_with(env: &mut Env, provider: Value) {
    env.provider("chat", provider).await;
    env.alert("all", "chat", |spec| spec["eventSeverity"] = json!("error")).await;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
}

/// Breaks `app`, sees it fail, and gives the revision.
pub async fn break_it(env: &Env) -> String {
    let broken = env.push("B", &[("app/settings.yaml", "[")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    broken
}

/// Repairs `app`, sees it Ready, and gives the revision.
pub async fn repair_it(env: &Env) -> String {
    let fix = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    env.announce().await;
    env.ready_at("app", &fix).await;
    fix
}

async fn a_broken_push_is_one_message_and_its_repair_one(env: &mut Env) {
    let receiver = Receiver::start(&env.canaries).await;
    env.secret("signing", json!({ "token": "a signing key" })).await;
    let address = format!("{}/signed", receiver.url);
    let spec = json!({ "type": "generic-hmac", "address": address, "secretRef": { "name": "signing" } });
    env.provider("chat", spec).await;
    env.alert("all", "chat", |spec| {
        spec["eventSeverity"] = json!("error");
        spec["summary"] = json!("the shop");
        spec["eventMetadata"] = json!({ "cluster": "one" });
    })
    .await;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let broken = break_it(env).await;
    // a retry, and a commit elsewhere, tell nothing new
    env.request_now("app").await;
    let failure = exactly(env, &receiver, 1, "one message of the failure").await.remove(0);
    let body = failure.json();
    assert_eq!(failure.path, "/signed");
    assert_eq!(body["severity"], "error");
    assert_eq!(body["involvedObject"]["kind"], "Kustomization");
    assert_eq!(body["involvedObject"]["name"], "app");
    assert_eq!(body["involvedObject"]["namespace"], env.namespace);
    assert_eq!(body["reason"], "BuildFailed");
    assert_eq!(body["metadata"], json!({ "revision": broken, "summary": "the shop", "cluster": "one" }));
    assert_eq!(body["reportingController"], "kustomize-controller");
    assert!(message(&failure).contains("app/settings.yaml"), "{body:#}");
    let mut mac = Hmac::<Sha256>::new_from_slice(b"a signing key").unwrap();
    mac.update(&failure.body);
    assert_eq!(failure.header("X-Signature"), format!("sha256={}", hex::encode(mac.finalize().into_bytes())));

    let fix = repair_it(env).await;
    let repair = exactly(env, &receiver, 2, "one message of the repair").await.remove(1);
    assert_eq!(repair.json()["severity"], "info");
    assert_eq!(repair.json()["metadata"]["revision"], fix);
    assert!(message(&repair).contains("recovered"), "{}", repair.json());
    let log = env.daemon.as_ref().unwrap().log().join("\n");
    assert!(!log.contains("a signing key"));
}

async fn a_failure_is_not_told_again_after_a_restart_and_its_repair_is(env: &mut Env) {
    let receiver = Receiver::start(&env.canaries).await;
    begin(env, &receiver).await;
    break_it(env).await;
    exactly(env, &receiver, 1, "one message of the failure").await;
    env.daemon.take().unwrap().stop().await.unwrap();
    env.start();
    let token = env.request_now("app").await;
    env.until("app", "the request is echoed", |app| {
        app.status.as_ref().and_then(|status| status.last_handled_reconcile_at.as_deref()) == Some(&token)
    })
    .await;
    exactly(env, &receiver, 1, "nothing new").await;
    let fix = repair_it(env).await;
    let repair = exactly(env, &receiver, 2, "one message of the repair").await.remove(1);
    assert_eq!(repair.json()["metadata"]["revision"], fix);
}

async fn a_source_that_is_broken_under_three_applications_is_one_message(env: &mut Env) {
    let receiver = Receiver::start(&env.canaries).await;
    env.provider("chat", json!({ "type": "generic", "address": receiver.url })).await;
    env.alert("all", "chat", |spec| spec["eventSeverity"] = json!("error")).await;
    let applications = Receiver::start(&env.canaries).await;
    env.provider("applications", json!({ "type": "generic", "address": applications.url })).await;
    env.alert("of-applications", "applications", |spec| {
        spec["eventSeverity"] = json!("error");
        spec["eventSources"] = json!([{ "kind": "Kustomization", "name": "*" }]);
    })
    .await;
    let map = |name| config_map(name, "a");
    let a = env.push("A", &[("x/x.yaml", &map("x")), ("y/y.yaml", &map("y")), ("z/z.yaml", &map("z"))]);
    let url = env.git.url("no-such-repository");
    env.source(|spec| spec["url"] = json!(url)).await;
    for name in ["x", "y", "z"] {
        env.kustomization(name, |_| {}).await;
    }
    env.start();
    for name in ["x", "y", "z"] {
        env.until(name, "it blames its source", |app| crate::support::env::message(app).contains("has no revision"))
            .await;
    }
    let failure = exactly(env, &receiver, 1, "one message for all").await.remove(0);
    assert_eq!(failure.json()["involvedObject"]["kind"], "GitRepository");
    let failure = exactly(env, &applications, 1, "one message for who hears of applications only").await.remove(0);
    assert!(message(&failure).contains("has no revision"));
    env.source(|_| {}).await;
    for name in ["x", "y", "z"] {
        env.ready_at(name, &a).await;
    }
    let repair = exactly(env, &receiver, 2, "one message of the repair").await.remove(1);
    assert_eq!(repair.json()["involvedObject"]["kind"], "GitRepository");
    exactly(env, &applications, 2, "one message of the repair").await;
}

async fn endpoints_that_hang_or_fail_delay_neither_others_nor_the_fix(env: &mut Env) {
    let (well, hanging, failing) = (
        Receiver::start(&env.canaries).await,
        Receiver::start(&env.canaries).await,
        Receiver::start(&env.canaries).await,
    );
    hanging.answer(Answers::Never);
    failing.answer(Answers::With(500));
    for (name, receiver) in [("hanging", &hanging), ("failing", &failing)] {
        env.provider(name, json!({ "type": "generic", "address": receiver.url, "timeout": "30s" })).await;
        env.alert(name, name, |_| {}).await;
    }
    begin(env, &well).await;
    break_it(env).await;
    exactly(env, &well, 1, "the well one hears of the failure").await;
    repair_it(env).await;
    exactly(env, &well, 2, "the well one hears of the repair").await;
    let tried = failing.received();
    assert!(tried.len() > 1, "it is tried again: {tried:?}");
    assert!(tried.len() < 20, "with longer and longer pauses: {tried:?}");
    env.eventually("the hanging one was asked", async || (!hanging.received().is_empty()).then_some(())).await;
    assert_eq!(hanging.received().len(), 1, "one request at a time");
}

async fn after_an_outage_the_newest_state_is_told(env: &mut Env) {
    let receiver = Receiver::start(&env.canaries).await;
    begin(env, &receiver).await;
    receiver.answer(Answers::With(503));
    break_it(env).await;
    env.eventually("it is tried", async || (!receiver.received().is_empty()).then_some(())).await;
    let fix = repair_it(env).await;
    let during = receiver.received().len();
    receiver.answer(Answers::With(200));
    let last =
        env.eventually("something is delivered", async || receiver.received().get(during..)?.last().cloned()).await;
    let (mut last, started) = (last, std::time::Instant::now());
    // one more try of the failure may have been under way
    while last.json()["severity"] != "info" && started.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        last = receiver.received().pop().unwrap();
    }
    assert_eq!(last.json()["metadata"]["revision"], fix);
    tokio::time::sleep(WHILE).await;
    assert_eq!(receiver.received().last().unwrap().json()["severity"], "info", "the failure doesn't come after it");
}

async fn an_alert_takes_what_its_lists_let_through(env: &mut Env) {
    let (included, excluded, labelled) = (
        Receiver::start(&env.canaries).await,
        Receiver::start(&env.canaries).await,
        Receiver::start(&env.canaries).await,
    );
    env.provider("included", json!({ "type": "generic", "address": included.url })).await;
    env.provider("excluded", json!({ "type": "generic", "address": excluded.url })).await;
    env.provider("labelled", json!({ "type": "generic", "address": labelled.url })).await;
    env.alert("included", "included", |spec| spec["inclusionList"] = json!(["app/settings\\.yaml"])).await;
    env.alert("excluded", "excluded", |spec| spec["exclusionList"] = json!([".*settings.*", "^stored", "applied"]))
        .await;
    env.alert("labelled", "labelled", |spec| {
        spec["eventSources"] = json!([{ "kind": "Kustomization", "name": "*", "matchLabels": { "team": "shop" } }]);
    })
    .await;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    break_it(env).await;
    let received = exactly(env, &included, 1, "the failure only").await;
    assert!(message(&received[0]).contains("app/settings.yaml"));
    repair_it(env).await;
    exactly(env, &included, 2, "and its end").await;
    assert!(excluded.received().is_empty(), "{:?}", excluded.received());
    assert!(labelled.received().is_empty(), "{:?}", labelled.received());
}

async fn who_is_suspended_hears_nothing(env: &mut Env) {
    let (by_alert, by_provider, other) = (
        Receiver::start(&env.canaries).await,
        Receiver::start(&env.canaries).await,
        Receiver::start(&env.canaries).await,
    );
    env.provider("by-alert", json!({ "type": "generic", "address": by_alert.url })).await;
    env.provider("by-provider", json!({ "type": "generic", "address": by_provider.url, "suspend": true })).await;
    env.alert("by-alert", "by-alert", |spec| spec["suspend"] = json!(true)).await;
    env.alert("by-provider", "by-provider", |_| {}).await;
    begin(env, &other).await;
    break_it(env).await;
    exactly(env, &other, 1, "who is not suspended hears it").await;
    assert!(by_alert.received().is_empty() && by_provider.received().is_empty());
    // it counts from the next message on
    env.alert("by-alert", "by-alert", |spec| spec["suspend"] = json!(false)).await;
    let daemon_knows = || by_alert.received().len();
    env.eventually("the alert speaks again", async || {
        env.push("more", &[("app/settings.yaml", &format!("[ {}", daemon_knows()))]);
        env.announce().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        (daemon_knows() > 0).then_some(())
    })
    .await;
    assert!(by_provider.received().is_empty());
}

async fn a_page_ends_with_the_repair(env: &mut Env) {
    let receiver = Receiver::start(&env.canaries).await;
    env.secret("pager", json!({ "token": "a pager's token" })).await;
    let spec = json!({ "type": "alertmanager", "address": receiver.url, "secretRef": { "name": "pager" } });
    env.provider("pager", spec).await;
    env.alert("all", "pager", |_| {}).await;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    break_it(env).await;
    let raised = exactly(env, &receiver, 1, "one alert").await.remove(0);
    assert_eq!(raised.path, "/api/v2/alerts");
    assert_eq!(raised.header("authorization"), "Bearer a pager's token");
    let alert = &raised.json()[0];
    assert_eq!(alert["labels"]["alertname"], "FluxKustomizationBuildfailed");
    assert_eq!(alert["labels"]["name"], "app");
    // the daemon that ends it is not the one that raised it
    env.daemon.take().unwrap().kill().await.unwrap();
    env.start();
    repair_it(env).await;
    let time = |value: &Value| value.as_str().unwrap().parse::<k8s_openapi::jiff::Timestamp>().unwrap();
    let ended = env
        .eventually("the same alert ends", async || {
            let received =
                receiver.received().into_iter().flat_map(|r| r.json().as_array().cloned().unwrap_or_default());
            received.into_iter().find(|other| {
                other["labels"] == alert["labels"] && time(&other["endsAt"]) <= k8s_openapi::jiff::Timestamp::now()
            })
        })
        .await;
    assert!(time(&ended["startsAt"]) <= time(&ended["endsAt"]));
}

/// A forge that keeps the statuses of commits.
async fn begin_with_forge(env: &mut Env, files: &[(&str, &str)]) -> (Receiver, String) {
    let forge = Receiver::start(&env.canaries).await;
    forge.answer(Answers::With(201));
    env.secret("forge", json!({ "token": "a forge's token" })).await;
    let address = format!("{}/acme/shop.git", forge.url);
    env.provider("forge", json!({ "type": "gitea", "address": address, "secretRef": { "name": "forge" } })).await;
    env.alert("status", "forge", |_| {}).await;
    let revision = env.push("A", files);
    env.source(|_| {}).await;
    healthy_within(env, "1m").await;
    env.start();
    env.ready_at("app", &revision).await;
    (forge, revision)
}

/// What takes longer has failed.
async fn healthy_within(env: &Env, timeout: &str) {
    env.kustomization("app", |spec| {
        spec["wait"] = json!(true);
        spec["timeout"] = json!(timeout);
    })
    .await;
}

/// The states that a revision was given, one after another.
fn states_of(forge: &Receiver, revision: &str) -> Vec<String> {
    let sha = revision.rsplit_once(':').unwrap().1;
    let path = format!("/api/v1/repos/acme/shop/statuses/{sha}");
    let of = forge.received().into_iter().filter(|r| r.path == path);
    of.map(|r| r.json()["state"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn until_states(env: &Env, forge: &Receiver, revision: &str, states: &[&str]) {
    env.eventually(&format!("{revision} goes {states:?}"), async || {
        (states_of(forge, revision) == states).then_some(())
    })
    .await;
}

async fn a_commit_is_pending_then_failed_and_the_next_succeeds(env: &mut Env) {
    let (forge, a) = begin_with_forge(env, &[("app/web.yaml", &deployment("web", "web:1"))]).await;
    until_states(env, &forge, &a, &["pending", "success"]).await;
    healthy_within(env, "4s").await;
    let b = env.push("B", &[("app/web.yaml", &deployment_behaving("web", "web:2", "never"))]);
    env.announce().await;
    env.failed_at("app", &b, "web").await;
    until_states(env, &forge, &b, &["pending", "failure"]).await;
    healthy_within(env, "1m").await;
    let c = env.push("C", &[("app/web.yaml", &deployment("web", "web:3"))]);
    env.announce().await;
    env.ready_at("app", &c).await;
    until_states(env, &forge, &c, &["pending", "success"]).await;
    until_states(env, &forge, &b, &["pending", "failure"]).await;
    let status = forge.received().pop().unwrap();
    assert_eq!(status.method, "POST");
    assert_eq!(status.header("authorization"), "token a forge's token");
    let context = status.json()["context"].as_str().unwrap().to_owned();
    assert!(context.starts_with("kustomization/app/") && context.len() == "kustomization/app/".len() + 8, "{context}");
    assert_eq!(status.json()["description"], "reconciliation succeeded");
    let log = env.daemon.as_ref().unwrap().log().join("\n");
    assert!(!log.contains("a forge's token"));
}

async fn a_commit_that_changes_nothing_here_has_no_status(env: &mut Env) {
    let (forge, a) = begin_with_forge(env, &[("app/settings.yaml", &config_map("settings", "a"))]).await;
    until_states(env, &forge, &a, &["pending", "success"]).await;
    let elsewhere = env.push("B", &[("elsewhere/readme.md", "b\n")]);
    env.announce().await;
    env.ready_at("app", &elsewhere).await;
    let broken = env.push("C", &[("app/settings.yaml", "[")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    until_states(env, &forge, &broken, &["failure"]).await;
    let while_broken = env.push("D", &[("elsewhere/readme.md", "d\n")]);
    env.announce().await;
    env.failed_at("app", &while_broken, "app/settings.yaml").await;
    let fix = env.push("E", &[("app/settings.yaml", &config_map("settings", "e"))]);
    env.announce().await;
    env.ready_at("app", &fix).await;
    until_states(env, &forge, &fix, &["pending", "success"]).await;
    tokio::time::sleep(WHILE).await;
    for other in [&elsewhere, &while_broken] {
        assert_eq!(states_of(&forge, other), [""; 0], "{other}");
    }
}

async fn a_type_that_is_not_served_is_refused_by_name(env: &mut Env) {
    env.provider("teams", json!({ "type": "msteams", "address": "https://teams.example.com/hook" })).await;
    env.alert("strange", "teams", |spec| spec["inclusionList"] = json!(["(?=x)"])).await;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    for (object, text) in [("teams", "`spec.type: msteams`"), ("strange", "`spec.inclusionList`")] {
        env.eventually(&format!("an Event names {text}"), async || {
            env.events(object).await.iter().any(|(_, message)| message.contains(text)).then_some(())
        })
        .await;
    }
}

async fn whether_alerts_and_providers_are_served_is_measured_as_long_as_they_are_there(env: &mut Env) {
    let teams = json!({ "type": "msteams", "address": "https://teams.example.com/hook" });
    env.provider("chat", teams).await;
    env.alert("all", "chat", |spec| spec["inclusionList"] = json!(["(?=x)"])).await;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    for (kind, name) in [("Provider", "chat"), ("Alert", "all")] {
        env.until_served(kind, name, Some(false)).await;
        let failures = env.measured("afresh_consecutive_failures", &[("kind", kind), ("name", name)]).await;
        assert_eq!(failures, Some(1.0), "{kind}");
    }
    let receiver = Receiver::start(&env.canaries).await;
    env.provider("chat", json!({ "type": "generic", "address": receiver.url })).await;
    env.alert("all", "chat", |_| {}).await;
    for (kind, name) in [("Provider", "chat"), ("Alert", "all")] {
        env.until_served(kind, name, Some(true)).await;
        assert_eq!(env.measured("afresh_consecutive_failures", &[("kind", kind), ("name", name)]).await, Some(0.0));
    }
    let params = DeleteParams::default();
    Api::<Provider>::namespaced(env.client.clone(), &env.namespace).delete("chat", &params).await.unwrap();
    Api::<Alert>::namespaced(env.client.clone(), &env.namespace).delete("all", &params).await.unwrap();
    for (kind, name) in [("Provider", "chat"), ("Alert", "all")] {
        env.until_served(kind, name, None).await;
        assert!(!env.is_counted("afresh_failures_total", &[("kind", kind), ("name", name)]).await, "{kind}");
    }
}

async fn what_is_installed_later_is_served_without_a_restart(env: &mut Env) {
    let names = ["alerts", "providers", "receivers"].map(|plural| format!("{plural}.notification.toolkit.fluxcd.io"));
    let definitions = env.cluster_objects("CustomResourceDefinition");
    for name in &names {
        definitions.delete(name, &DeleteParams::default()).await.expect("the definition is deleted");
        env.eventually("it is gone", async || definitions.get_opt(name).await.unwrap().is_none().then_some(())).await;
    }
    env.arguments.extend(["--webhook-addr", "127.0.0.1:0"].map(str::to_owned));
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;

    env.install_definitions().await;
    let receiver = Receiver::start(&env.canaries).await;
    env.provider("chat", json!({ "type": "generic", "address": receiver.url })).await;
    env.alert("all", "chat", |spec| spec["eventSeverity"] = json!("error")).await;
    env.secret("hook", json!({ "token": "a token" })).await;
    let hook = json!({
        "apiVersion": "notification.toolkit.fluxcd.io/v1", "kind": "Receiver", "metadata": { "name": "hook" },
        "spec": {
            "type": "generic", "secretRef": { "name": "hook" },
            "resources": [{ "kind": "GitRepository", "name": SOURCE }],
        },
    });
    let hooks: Api<afresh::api::Receiver> = Api::namespaced(env.client.clone(), &env.namespace);
    hooks.patch("hook", &PatchParams::apply("scenario"), &Patch::Apply(hook)).await.expect("it is accepted");
    for (kind, name) in [("Provider", "chat"), ("Alert", "all"), ("Receiver", "hook")] {
        env.until_served(kind, name, Some(true)).await;
    }
    break_it(env).await;
    exactly(env, &receiver, 1, "the failure is told").await;
}
