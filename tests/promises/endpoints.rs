//! Notifications on their way: what each kind of endpoint is sent, and with which credentials it is reached.

use serde_json::json;

use crate::notifications::{begin_with, break_it, repair_it};
use crate::support::env::Env;
use crate::support::forward_proxy::ForwardProxy;
use crate::support::manifests::config_map;
use crate::support::receiver::{Answers, Received, Receiver};
use crate::support::scenarios;
use crate::support::tls::Authority;

scenarios! {
    a_chat_reads_what_failed_and_where_and_that_it_is_repaired,
    a_chat_that_says_no_with_200_is_heard,
    an_alertmanager_behind_basic_authentication_is_told,
    headers_of_the_secret_go_with_each_message_and_into_no_log,
    an_endpoint_that_asks_for_a_certificate_is_told_once_there_is_one,
    an_endpoint_behind_a_proxy_is_told_through_it_alone,
    a_github_app_sets_the_status_of_commits_with_one_token,
    the_name_of_a_commits_status_is_what_the_provider_says,
}

const APP_KEY: &str = include_str!("../source/keys/app.pem");

async fn nth(env: &Env, receiver: &Receiver, number: usize, what: &str) -> Received {
    env.eventually(what, async || receiver.received().into_iter().nth(number)).await
}

/// Until so many notifications of the Provider `name` had this result.
async fn until_counted(env: &Env, name: &str, result: &str) {
    env.eventually(&format!("{name} counts `{result}`"), async || {
        env.is_counted("afresh_notifications_total", &[("name", name), ("result", result)]).await.then_some(())
    })
    .await;
}

fn log(env: &Env) -> String {
    env.daemon.as_ref().expect("a daemon").log().join("\n")
}

async fn a_chat_reads_what_failed_and_where_and_that_it_is_repaired(env: &mut Env) {
    let chat = Receiver::start(&env.canaries).await;
    // as Slack gives it: who knows the address may post
    env.secret("chat", json!({ "address": format!("{}/services/T0/B0/s3cr3t-path", chat.url) })).await;
    let spec = json!({
        "type": "slack", "channel": "#ops", "username": "gitops", "secretRef": { "name": "chat" },
    });
    begin_with(env, spec).await;
    let broken = break_it(env).await;
    let failure = nth(env, &chat, 0, "the chat reads of the failure").await;
    assert_eq!(
        (failure.path.as_str(), failure.header("content-type")),
        ("/services/T0/B0/s3cr3t-path", "application/json")
    );
    let body = failure.json();
    assert_eq!((body["channel"].as_str(), body["username"].as_str()), (Some("#ops"), Some("gitops")), "{body:#}");
    let attachment = &body["attachments"][0];
    assert_eq!(attachment["color"], "danger");
    assert_eq!(attachment["author_name"], format!("kustomization/app.{}", env.namespace));
    assert!(attachment["text"].as_str().unwrap().contains("app/settings.yaml"), "{body:#}");
    assert_eq!(attachment["fields"][0]["value"], broken.as_str());

    let fix = repair_it(env).await;
    let repair = nth(env, &chat, 1, "the chat reads of the repair").await.json();
    let attachment = &repair["attachments"][0];
    assert_eq!(attachment["color"], "good");
    assert!(attachment["text"].as_str().unwrap().starts_with("recovered: "), "{repair:#}");
    assert_eq!(attachment["fields"][0]["value"], fix.as_str());
    assert!(!log(env).contains("s3cr3t-path"));
}

async fn a_chat_that_says_no_with_200_is_heard(env: &mut Env) {
    let chat = Receiver::start(&env.canaries).await;
    chat.say(r#"{"ok": false, "error": "channel_not_found"}"#);
    env.secret("bot", json!({ "token": "xoxb-a-bot" })).await;
    let address = format!("{}/api/chat.postMessage", chat.url);
    begin_with(
        env,
        json!({ "type": "slack", "address": address, "channel": "#nowhere", "secretRef": { "name": "bot" } }),
    )
    .await;
    break_it(env).await;
    assert_eq!(nth(env, &chat, 0, "the chat is told").await.header("authorization"), "Bearer xoxb-a-bot");
    until_counted(env, "chat", "refused").await;
    let said = log(env);
    assert!(said.contains("channel_not_found") && !said.contains("xoxb-a-bot"), "{said}");
    chat.say(r#"{"ok": true}"#);
    repair_it(env).await;
    until_counted(env, "chat", "sent").await;
}

async fn an_alertmanager_behind_basic_authentication_is_told(env: &mut Env) {
    let pager = Receiver::start(&env.canaries).await;
    env.secret("pager", json!({ "username": "afresh", "password": "a pager's password" })).await;
    let address = format!("{}/prefix/api/v2/alerts", pager.url);
    begin_with(env, json!({ "type": "alertmanager", "address": address, "secretRef": { "name": "pager" } })).await;
    let broken = break_it(env).await;
    let raised = nth(env, &pager, 0, "an alert is raised").await;
    assert_eq!(raised.path, "/prefix/api/v2/alerts");
    assert_eq!(raised.header("authorization"), "Basic YWZyZXNoOmEgcGFnZXIncyBwYXNzd29yZA==");
    let alert = &raised.json()[0];
    let labels = [
        ("alertname", "FluxKustomizationBuildfailed"),
        ("severity", "error"),
        ("kind", "Kustomization"),
        ("name", "app"),
        ("namespace", env.namespace.as_str()),
    ];
    for (label, value) in labels {
        assert_eq!(alert["labels"][label], value, "{alert:#}");
    }
    assert!(alert["annotations"]["message"].as_str().unwrap().contains("app/settings.yaml"), "{alert:#}");
    assert!(alert.to_string().contains(&broken), "{alert:#}");
    assert!(!log(env).contains("a pager's password"));
}

async fn headers_of_the_secret_go_with_each_message_and_into_no_log(env: &mut Env) {
    let receiver = Receiver::start(&env.canaries).await;
    env.secret("headers", json!({ "headers": "X-Tenant: shop\nAuthorization: Bearer a-header-token\n" })).await;
    begin_with(env, json!({ "type": "generic", "address": receiver.url, "secretRef": { "name": "headers" } })).await;
    break_it(env).await;
    let failure = nth(env, &receiver, 0, "the failure is told").await;
    assert_eq!((failure.header("x-tenant"), failure.header("authorization")), ("shop", "Bearer a-header-token"));

    // What can't be a header is refused without being shown; the next message after the correction arrives.
    env.secret("headers", json!({ "headers": "X-Tenant: \"a\\nb-hidden\"\n" })).await;
    let fix = repair_it(env).await;
    until_counted(env, "chat", "refused").await;
    assert!(log(env).contains("`headers` has a name or a value that HTTP doesn't allow"));
    assert!(!log(env).contains("a-header-token") && !log(env).contains("b-hidden"));
    env.secret("headers", json!({ "headers": "X-Tenant: another\n" })).await;
    let again = env.push("D", &[("app/settings.yaml", "{")]);
    assert_ne!(again, fix);
    env.announce().await;
    assert_eq!(nth(env, &receiver, 1, "the next one arrives").await.header("x-tenant"), "another");
}

async fn an_endpoint_that_asks_for_a_certificate_is_told_once_there_is_one(env: &mut Env) {
    let receiver = Receiver::start(&env.canaries).await;
    let authority = Authority::new();
    let address = authority.front_for_known(receiver.socket()).await;
    env.secret("tls", json!({ "ca.crt": authority.pem })).await;
    begin_with(env, json!({ "type": "generic", "address": address, "certSecretRef": { "name": "tls" } })).await;
    break_it(env).await;
    until_counted(env, "chat", "retried").await;
    assert!(receiver.received().is_empty(), "nobody is let in without a certificate");

    let identity = authority.identity();
    let texts = json!({
        "ca.crt": authority.pem, "tls.crt": identity.certificate_pem, "tls.key": identity.key_pem,
    });
    env.secret("tls", texts).await;
    let failure = nth(env, &receiver, 0, "the failure is told").await;
    assert_eq!(failure.json()["reason"], "BuildFailed");

    // A server that another authority vouches for is none that may hear of it.
    env.secret("tls", json!({ "ca.crt": Authority::new().pem })).await;
    let retried = [("name", "chat"), ("result", "retried")];
    let before = env.measured("afresh_notifications_total", &retried).await;
    repair_it(env).await;
    env.eventually("it is not taken for the endpoint", async || {
        (env.measured("afresh_notifications_total", &retried).await > before).then_some(())
    })
    .await;
    assert_eq!(receiver.received().len(), 1);
}

async fn an_endpoint_behind_a_proxy_is_told_through_it_alone(env: &mut Env) {
    let (receiver, proxy) = (Receiver::start(&env.canaries).await, ForwardProxy::start().await);
    let way = json!({ "address": proxy.address(), "username": "someone", "password": "a proxy's password" });
    env.secret("way", way).await;
    begin_with(env, json!({ "type": "generic", "address": receiver.url, "proxySecretRef": { "name": "way" } })).await;
    break_it(env).await;
    nth(env, &receiver, 0, "the failure is told").await;
    assert_eq!(proxy.requests(), 1);
    assert_eq!(proxy.authorization().as_deref(), Some("Basic c29tZW9uZTphIHByb3h5J3MgcGFzc3dvcmQ="));

    // Nobody listens there; the way around stays closed.
    env.secret("way", json!({ "address": "http://127.0.0.1:1", "username": "someone", "password": "x" })).await;
    repair_it(env).await;
    until_counted(env, "chat", "retried").await;
    assert_eq!(receiver.received().len(), 1);
    env.secret("way", json!({ "address": proxy.address(), "username": "someone", "password": "x" })).await;
    nth(env, &receiver, 1, "the repair is told").await;
    assert!(!log(env).contains("a proxy's password"));
}

/// What GitHub says who asks for a token, and, since nobody reads that, whoever sets a status.
fn gives_tokens(forge: &Receiver, token: &str) {
    let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    forge.answer(Answers::With(201));
    forge.say(&json!({ "token": token, "expires_at": expires }).to_string());
}

async fn a_github_app_sets_the_status_of_commits_with_one_token(env: &mut Env) {
    let forge = Receiver::start(&env.canaries).await;
    gives_tokens(&forge, "ghs_one");
    let base = format!("{}/api/v3", forge.url);
    let keys = json!({
        "githubAppID": "7", "githubAppInstallationID": "42", "githubAppPrivateKey": APP_KEY, "githubAppBaseURL": base,
    });
    env.secret("app", keys).await;
    let address = format!("{}/acme/shop", forge.url);
    env.provider("forge", json!({ "type": "github", "address": address, "secretRef": { "name": "app" } })).await;
    env.alert("status", "forge", |_| {}).await;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let status = |received: &Received| received.path.starts_with("/api/v3/repos/acme/shop/statuses/");
    env.eventually("two statuses are set", async || {
        (forge.received().iter().filter(|received| status(received)).count() >= 2).then_some(())
    })
    .await;
    let (statuses, tokens): (Vec<_>, Vec<_>) = forge.received().into_iter().partition(status);
    assert_eq!(tokens.len(), 1, "one token for many statuses");
    assert_eq!(tokens[0].path, "/api/v3/app/installations/42/access_tokens");
    assert!(statuses.iter().all(|status| status.header("authorization") == "Bearer ghs_one"));

    // The token is taken back before its time: another one is asked for.
    forge.answer(Answers::With(401));
    let next = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.announce().await;
    env.ready_at("app", &next).await;
    until_counted(env, "forge", "retried").await;
    gives_tokens(&forge, "ghs_two");
    env.eventually("the status comes with the new token", async || {
        forge.received().iter().any(|r| status(r) && r.header("authorization") == "Bearer ghs_two").then_some(())
    })
    .await;
    assert!(!log(env).contains("ghs_") && !log(env).contains("PRIVATE KEY"));
}

async fn the_name_of_a_commits_status_is_what_the_provider_says(env: &mut Env) {
    let forge = Receiver::start(&env.canaries).await;
    forge.answer(Answers::With(201));
    env.secret("forge", json!({ "token": "a forge's token" })).await;
    let named = |expression: &str| {
        json!({
            "type": "gitea", "address": format!("{}/acme/shop", forge.url), "secretRef": { "name": "forge" },
            "commitStatusExpr": expression,
        })
    };
    let expression = "(event.involvedObject.kind + '/' + event.involvedObject.name + '/' + event.metadata.cluster + \
                      '/' + alert.metadata.name + '/' + provider.metadata.name).lowerAscii()";
    env.provider("forge", named(expression)).await;
    env.alert("status", "forge", |spec| spec["eventMetadata"] = json!({ "cluster": "ONE" })).await;
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let status = nth(env, &forge, 0, "a status is set").await;
    assert_eq!(status.json()["context"], "kustomization/app/one/status/forge");

    // What is not there makes no name: that is told where people look, and nothing else suffers.
    env.provider("forge", named("event.metadata.region")).await;
    let fix = repair_it(env).await;
    env.eventually("an Event names it", async || {
        let told = |(_, text): &(String, String)| text.contains("`spec.commitStatusExpr`") && text.contains("region");
        env.events("status").await.iter().any(told).then_some(())
    })
    .await;
    let sha = fix.rsplit_once(':').unwrap().1.to_owned();
    assert!(!forge.received().iter().any(|received| received.path.ends_with(&sha)));

    env.provider("forge", named("kustomization.metadata.name")).await;
    env.eventually("an Event refuses it", async || {
        let told = |(_, text): &(String, String)| text.contains("`kustomization` is not declared");
        env.events("forge").await.iter().any(told).then_some(())
    })
    .await;
}
