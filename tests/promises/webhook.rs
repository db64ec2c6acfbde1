//! A push is live before its author looks up: webhooks, and all that forges and others get wrong with them.

use std::time::{Duration, Instant};

use afresh::api::{Key, READY, Receiver, Truth, receiver_path};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::daemon::Daemon;
use crate::support::env::{Env, PATIENCE, SOURCE};
use crate::support::forge::{Forge, address};
use crate::support::manifests::config_map;
use crate::support::scenarios;
use crate::support::wait::watch_until;

scenarios! {
    a_webhook_makes_a_push_live_and_its_replay_does_nothing,
    a_wrong_signature_is_refused_and_counted,
    a_commit_that_the_forge_shows_late_is_looked_for_until_it_is_there,
    a_deleted_branch_is_noticed,
    a_new_secret_is_in_force_at_once,
    a_receiver_has_a_path_takes_pushes_and_says_so,
    a_receiver_that_cannot_be_served_says_why,
    a_replica_that_does_not_lead_passes_webhooks_on_by_annotation,
}

mod floods {
    use super::*;

    scenarios! {
        only on the sandbox:
        lies_about_bodies_are_answered_and_counted,
        what_concerns_nobody_is_answered_and_counted,
        ten_thousand_requests_of_one_sender_delay_no_honest_webhook,
        connections_that_say_nothing_make_room_for_those_who_do,
    }
}

pub(crate) const TOKEN: &str = "correct-horse-battery";

/// An application that is live at its first commit, with a daemon that takes webhooks; nobody looks for ten minutes.
async fn begin(env: &mut Env) -> Forge {
    secret(env, "webhook", TOKEN).await;
    env.arguments.extend(["--webhook-addr", "127.0.0.1:0", "--webhook-secret"].map(str::to_owned));
    env.arguments.push(format!("{}/webhook", env.namespace));
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let forge = Forge::new(TOKEN, &env.git.url(SOURCE));
    // what it knows of the cluster comes in by and by
    env.eventually("webhooks are taken", async || {
        (forge.deliver(daemon(env), "/webhook", "ping", "{}").await.0 == 200).then_some(())
    })
    .await;
    forge
}

pub(crate) async fn secret(env: &Env, name: &str, token: &str) {
    env.canaries.keep("the token of webhooks", token);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "token": token },
    });
    let params = PatchParams::apply("scenario").force();
    env.objects("Secret").patch(name, &params, &Patch::Apply(secret)).await.expect("the Secret is accepted");
}

fn daemon(env: &Env) -> &Daemon {
    env.daemon.as_ref().expect("a daemon")
}

fn push(env: &Env, value: &str) -> String {
    env.push(value, &[("app/settings.yaml", &config_map("settings", value))])
}

/// How often the repository was asked what is newest.
fn looks(env: &Env) -> usize {
    env.git.records().iter().filter(|record| record.command.as_deref() == Some("ls-refs")).count()
}

/// How many deliveries of a forge had a result.
async fn counted(daemon: &Daemon, forge: &str, result: &str) -> u64 {
    let (_, text) = daemon.ask("/metrics").await.expect("metrics");
    let series = format!("afresh_webhook_deliveries_total{{forge=\"{forge}\",result=\"{result}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
}

async fn a_webhook_makes_a_push_live_and_its_replay_does_nothing(env: &mut Env) {
    let forge = begin(env).await;
    let b = push(env, "b");
    let said = forge.push("main", Some(&b));
    assert_eq!(forge.deliver(daemon(env), "/webhook", "push", &said).await.0, 202);
    env.ready_at("app", &b).await;

    let before = looks(env);
    let (code, text) = forge.deliver(daemon(env), "/webhook", "push", &said).await;
    assert_eq!((code, text.contains("before")), (200, true), "{text}");
    assert_eq!(counted(daemon(env), "github", "replayed").await, 1);
    // another branch concerns nobody
    let other = forge.push("other", Some(&b));
    assert_eq!(forge.deliver(daemon(env), "/webhook", "push", &other).await.0, 200);
    assert_eq!(counted(daemon(env), "github", "unmatched").await, 1);

    let c = push(env, "c");
    assert_eq!(forge.announce(daemon(env), &c).await.0, 202);
    env.ready_at("app", &c).await;
    assert_eq!(looks(env), before + 1, "the one look that the new push asked for");
    assert_eq!(counted(daemon(env), "github", "accepted").await, 2);
}

async fn a_wrong_signature_is_refused_and_counted(env: &mut Env) {
    let forge = begin(env).await;
    let before = looks(env);
    let b = push(env, "b");
    let (code, text) = forge.with_secret("guessed").announce(daemon(env), &b).await;
    assert_eq!(code, 401);
    assert!(!text.contains(TOKEN), "{text}");
    assert_eq!(counted(daemon(env), "github", "wrong_signature").await, 1);
    let unsigned = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/webhook", address(daemon(env)).await);
    let answer = unsigned.post(&url).header("x-gitlab-event", "Push Hook").body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(counted(daemon(env), "gitlab", "missing_signature").await, 1);

    assert_eq!(forge.announce(daemon(env), &b).await.0, 202);
    env.ready_at("app", &b).await;
    assert_eq!(looks(env), before + 1, "whoever can't sign can't make it look");
    let log = daemon(env).log().join("\n");
    assert!(log.contains("wrong_signature") && !log.contains(TOKEN));
}

async fn a_commit_that_the_forge_shows_late_is_looked_for_until_it_is_there(env: &mut Env) {
    let forge = begin(env).await;
    let a = env.repository.tip("main").unwrap().unwrap();
    let b = push(env, "b");
    let late = env.repository.tip("main").unwrap().unwrap();
    // the forge has told of it, and the server that is asked does not know it yet
    env.repository.set_branch("main", a).unwrap();
    let before = looks(env);
    assert_eq!(forge.announce(daemon(env), &b).await.0, 202);
    env.eventually("it looks again", async || (looks(env) >= before + 3).then_some(())).await;
    env.repository.set_branch("main", late).unwrap();
    env.ready_at("app", &b).await;
    let (_, metrics) = daemon(env).ask("/metrics").await.unwrap();
    assert!(!metrics.contains("result=\"failed\"}"), "looking again is no failure: {metrics}");
}

async fn a_deleted_branch_is_noticed(env: &mut Env) {
    let forge = begin(env).await;
    let a = env.repository.tip("main").unwrap().unwrap();
    env.repository.set_branch("other", a).unwrap();
    env.repository.delete_branch("main").unwrap();
    let deleted = forge.push("main", None);
    assert_eq!(forge.deliver(daemon(env), "/webhook", "push", &deleted).await.0, 202);
    let sources = env.sources();
    let failed = watch_until(&sources, SOURCE, PATIENCE, |source| {
        let status = source.and_then(|source| source.status.as_ref());
        let ready = status.and_then(|status| status.conditions.get(READY));
        ready.is_some_and(|ready| ready.status == Truth::False && ready.message.contains("main"))
    });
    failed.await.expect("the source says that its branch is gone");
}

async fn a_new_secret_is_in_force_at_once(env: &mut Env) {
    let forge = begin(env).await;
    secret(env, "webhook", "another").await;
    let new = forge.with_secret("another");
    env.eventually("the new secret is in force", async || {
        (new.deliver(daemon(env), "/webhook", "ping", "{}").await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(forge.deliver(daemon(env), "/webhook", "ping", "{}").await.0, 401, "the old one is not");
}

fn receivers(env: &Env) -> Api<Receiver> {
    Api::namespaced(env.client.clone(), &env.namespace)
}

pub(crate) async fn receiver(env: &Env, change: Value) {
    let mut spec = json!({
        "type": "github", "events": ["ping", "push"], "secretRef": { "name": "receiver" },
        "resources": [{ "kind": "GitRepository", "name": SOURCE }],
    });
    json_patch::merge(&mut spec, &change);
    let object = json!({
        "apiVersion": "notification.toolkit.fluxcd.io/v1", "kind": "Receiver",
        "metadata": { "name": "github" }, "spec": spec,
    });
    let params = PatchParams::apply("scenario").force();
    receivers(env).patch("github", &params, &Patch::Apply(object)).await.expect("the Receiver is accepted");
}

pub(crate) async fn until_receiver(env: &Env, what: &str, done: impl Fn(&Receiver) -> bool) -> Receiver {
    let outcome = watch_until(&receivers(env), "github", PATIENCE, |found| found.is_some_and(&done)).await;
    match outcome {
        Ok(Some(found)) => found,
        other => panic!("the Receiver: {what}: {other:?}\n{}", daemon(env).log_tail()),
    }
}

/// Status and message of Ready, and the path.
pub(crate) fn standing(receiver: &Receiver) -> (Option<Truth>, String, Option<String>) {
    let Some(status) = &receiver.status else { return Default::default() };
    let ready = status.conditions.get(READY);
    (ready.map(|r| r.status), ready.map(|r| r.message.clone()).unwrap_or_default(), status.webhook_path.clone())
}

async fn a_receiver_has_a_path_takes_pushes_and_says_so(env: &mut Env) {
    let forge = begin(env).await.with_secret("of-the-receiver");
    receiver(env, json!({})).await;
    let without = until_receiver(env, "says that it has no token", |r| standing(r).0 == Some(Truth::False)).await;
    let (_, message, path) = standing(&without);
    assert!(message.contains("Secret") && message.contains("does not exist") && path.is_none(), "{message}");

    secret(env, "receiver", "of-the-receiver").await;
    let key = Key::new(env.namespace.as_str(), "github");
    let path = receiver_path(b"of-the-receiver", &key);
    let ready = until_receiver(env, "is Ready", |r| standing(r).0 == Some(Truth::True)).await;
    assert_eq!(
        standing(&ready),
        (Some(Truth::True), format!("Receiver initialized for path: {path}"), Some(path.clone()))
    );

    let b = push(env, "b");
    let said = forge.push("main", Some(&b));
    assert_eq!(forge.deliver(daemon(env), &path, "push", &said).await.0, 200);
    env.ready_at("app", &b).await;
    assert_eq!(forge.deliver(daemon(env), &path, "issues", "{}").await.0, 400, "an event that it does not take");
    assert_eq!(forge.with_secret(TOKEN).deliver(daemon(env), &path, "push", &said).await.0, 400, "another's secret");
    let nowhere = format!("/hook/{}", "0".repeat(64));
    assert_eq!(forge.deliver(daemon(env), &nowhere, "push", &said).await.0, 404);

    receiver(env, json!({ "suspend": true })).await;
    env.eventually("it is suspended", async || {
        (forge.deliver(daemon(env), &path, "push", &said).await.0 == 503).then_some(())
    })
    .await;
    receiver(env, json!({ "suspend": false, "resources": [{ "kind": "Kustomization", "name": "app" }] })).await;
    env.eventually("it goes on", async || {
        (forge.deliver(daemon(env), &path, "push", &said).await.0 == 200).then_some(())
    })
    .await;
    env.until("app", "it is asked for", |app| {
        app.status.as_ref().is_some_and(|status| status.last_handled_reconcile_at.is_some())
    })
    .await;

    secret(env, "receiver", "rotated").await;
    let rotated = receiver_path(b"rotated", &key);
    until_receiver(env, "has a new path", |r| standing(r).2.as_ref() == Some(&rotated)).await;
    assert_eq!(forge.deliver(daemon(env), &path, "push", &said).await.0, 404, "the old path is nobody's");
    assert_eq!(forge.with_secret("rotated").deliver(daemon(env), &rotated, "push", &said).await.0, 200);
    env.until_served("Receiver", "github", Some(true)).await;
    receivers(env).delete("github", &DeleteParams::default()).await.expect("it is deleted");
    env.until_served("Receiver", "github", None).await;
    assert!(!daemon(env).log().join("\n").contains("of-the-receiver"));
}

async fn a_receiver_that_cannot_be_served_says_why(env: &mut Env) {
    let forge = begin(env).await.with_secret("of-the-receiver");
    secret(env, "receiver", "of-the-receiver").await;
    let resources = json!([{ "kind": "GitRepository", "name": SOURCE }, { "kind": "ImageRepository", "name": "web" }]);
    receiver(env, json!({ "resourceFilter": "req.ref == 'x'", "resources": resources })).await;
    let refused = until_receiver(env, "is refused", |r| standing(r).0 == Some(Truth::False)).await;
    env.until_served("Receiver", "github", Some(false)).await;
    assert!(env.is_counted("afresh_failures_total", &[("kind", "Receiver"), ("reason", "UnservedField")]).await);
    let (_, message, path) = standing(&refused);
    assert!(message.contains("`spec.resourceFilter`"), "{message}");
    assert!(message.contains("`spec.resources[1].kind: ImageRepository`"), "{message}");
    let path = path.unwrap_or_else(|| receiver_path(b"of-the-receiver", &Key::new(env.namespace.as_str(), "github")));
    let (code, text) = forge.deliver(daemon(env), &path, "push", &forge.push("main", None)).await;
    assert_eq!((code, text.contains("resourceFilter")), (503, true), "{text}");
}

async fn a_replica_that_does_not_lead_passes_webhooks_on_by_annotation(env: &mut Env) {
    let forge = begin(env).await;
    let second = env.start_replica("second", env.kubeconfig());
    env.eventually("the second takes webhooks", async || {
        (forge.deliver(&second, "/webhook", "ping", "{}").await.0 == 200).then_some(())
    })
    .await;
    assert!(second.ask("/metrics").await.unwrap().1.contains("afresh_leader 0"));
    let b = push(env, "b");
    assert_eq!(forge.announce(&second, &b).await.0, 202);
    env.ready_at("app", &b).await;
    let source = env.sources().get(SOURCE).await.unwrap();
    assert!(source.metadata.annotations.is_some_and(|all| all.contains_key(afresh::api::REQUESTED_AT)));

    // a commit that the server shows late is passed on by name, and looked for until it is there
    let tip = || env.repository.tip("main").unwrap().unwrap();
    let earlier = tip();
    let c = push(env, "c");
    let late = tip();
    env.repository.set_branch("main", earlier).unwrap();
    let before = looks(env);
    assert_eq!(forge.announce(&second, &c).await.0, 202);
    env.eventually("it looks again", async || (looks(env) >= before + 3).then_some(())).await;
    env.repository.set_branch("main", late).unwrap();
    env.ready_at("app", &c).await;
    second.stop().await.unwrap();
}

/// Sends bytes as they are; gives what comes back until the other side is done.
async fn raw(daemon: &Daemon, bytes: &[u8]) -> String {
    let address = address(daemon).await;
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).await.expect("a connection");
    // who is refused early may not be read to the end
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    let read = async {
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            answer.extend_from_slice(&piece[..count]);
            if answer.windows(4).any(|window| window == b"\r\n\r\n") {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer, or the end of the connection");
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

async fn lies_about_bodies_are_answered_and_counted(env: &mut Env) {
    let forge = begin(env).await;
    let body = forge.push("main", None);
    let request = |length: &str| {
        let signature = forge.signature(&body);
        format!(
            "POST /webhook HTTP/1.1\r\nhost: afresh\r\nx-github-event: push\r\n\
             x-hub-signature-256: {signature}\r\n{length}\r\n\r\n{body}"
        )
    };
    let env = &*env;
    let sent = |length: String| {
        let request = request(&length);
        async move { raw(daemon(env), request.as_bytes()).await }
    };
    // more than there is: it is waited for, and then answered
    assert!(sent(format!("content-length: {}", body.len() + 10)).await.contains("408"));
    // less than there is: another body than was signed
    assert!(sent(format!("content-length: {}", body.len() - 10)).await.contains("401"));
    assert!(sent("content-length: 1000000000".to_owned()).await.contains("413"));
    assert!(sent("content-length: -1".to_owned()).await.contains("400"));
    assert!(sent(format!("content-length: 1\r\ncontent-length: {}", body.len())).await.contains("400"));
    let endless = {
        let mut bytes = request("transfer-encoding: chunked").split("\r\n\r\n").next().unwrap().as_bytes().to_vec();
        bytes.extend_from_slice(b"\r\n\r\n");
        for _ in 0..40 {
            bytes.extend_from_slice(format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000)).as_bytes());
        }
        raw(daemon(env), &bytes).await
    };
    assert!(endless.contains("413"), "{endless}");
    let header = format!("POST /webhook HTTP/1.1\r\nx-long: {}\r\n\r\n", "x".repeat(100_000));
    assert!(raw(daemon(env), header.as_bytes()).await.contains("431"));
    assert!(raw(daemon(env), b"\x16\x03\x01\x02\x00\x01\x00").await.contains("400"), "TLS to a plain port");
    let json = "{\"ref\": ";
    assert_eq!(forge.deliver(daemon(env), "/webhook", "push", json).await.0, 400);
    for (result, count) in [("timed_out", 1), ("too_large", 2), ("wrong_signature", 1), ("malformed", 1)] {
        assert_eq!(counted(daemon(env), "github", result).await, count, "{result}");
    }

    let b = push(env, "b");
    assert_eq!(forge.announce(daemon(env), &b).await.0, 202);
    env.ready_at("app", &b).await;
}

async fn what_concerns_nobody_is_answered_and_counted(env: &mut Env) {
    let forge = begin(env).await;
    let before = looks(env);
    let elsewhere = Forge::new(TOKEN, "https://forge.example/nobody/follows").push("main", Some(&"1".repeat(40)));
    let cases = [
        ("/webhook", "star", "{}".to_owned(), 200, "ignored"),
        ("/webhook", "no-such-event", "{}".to_owned(), 200, "ignored"),
        ("/webhook", "push", elsewhere, 200, "unmatched"),
        ("/webhook", "push", "{}".to_owned(), 400, "malformed"),
        ("/webhook", "push", "[1, 2".to_owned(), 400, "malformed"),
        ("/nowhere", "push", "{}".to_owned(), 404, "unknown_path"),
    ];
    for (path, event, body, code, result) in cases {
        let forge_of = if path == "/webhook" { "github" } else { "unknown" };
        let counted_before = counted(daemon(env), forge_of, result).await;
        let (answered, text) = forge.deliver(daemon(env), path, event, &body).await;
        assert_eq!(answered, code, "{event} at {path}: {text}");
        assert!(!text.is_empty(), "{event} at {path} is answered in words");
        assert_eq!(counted(daemon(env), forge_of, result).await, counted_before + 1, "{event} at {path}: {result}");
    }
    assert_eq!(looks(env), before, "nobody was looked at");
    let b = push(env, "b");
    assert_eq!(forge.announce(daemon(env), &b).await.0, 202);
    env.ready_at("app", &b).await;
}

/// How many connections the listener has.
async fn connections(daemon: &Daemon) -> u64 {
    let (_, text) = daemon.ask("/metrics").await.expect("metrics");
    let line = text.lines().find_map(|line| line.strip_prefix("afresh_webhook_connections "));
    line.and_then(|count| count.parse().ok()).expect("the metric of connections")
}

async fn ten_thousand_requests_of_one_sender_delay_no_honest_webhook(env: &mut Env) {
    const REQUESTS: usize = 10_000;
    const SENDERS: usize = 50;
    let forge = begin(env).await;
    let url = format!("{}/webhook", address(daemon(env)).await);
    // made once: it reads certificates, and nothing else runs on this thread meanwhile
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let flood: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (client, url) = (client.clone(), url.clone());
            tokio::spawn(async move {
                let signature = format!("sha256={}", "0".repeat(64));
                for _ in 0..REQUESTS / SENDERS {
                    let request = client.post(&url).header("x-github-event", "push");
                    let request = request.header("x-hub-signature-256", &signature).body("{}".repeat(500));
                    assert_eq!(request.send().await.expect("an answer").status(), 401);
                }
            })
        })
        .collect();
    let mut delays = Vec::new();
    let mut newest = String::new();
    for round in 0.. {
        newest = push(env, &format!("round-{round}"));
        let sent = Instant::now();
        assert_eq!(forge.announce(daemon(env), &newest).await.0, 202);
        delays.push(sent.elapsed());
        assert!(connections(daemon(env)).await <= 512);
        if flood.iter().all(tokio::task::JoinHandle::is_finished) {
            break;
        }
    }
    for sender in flood {
        sender.await.unwrap();
    }
    let slowest = delays.iter().max().unwrap();
    assert!(*slowest < Duration::from_secs(1), "{slowest:?} of {}", delays.len());
    assert_eq!(counted(daemon(env), "github", "wrong_signature").await, REQUESTS as u64);
    env.ready_at("app", &newest).await;
}

async fn connections_that_say_nothing_make_room_for_those_who_do(env: &mut Env) {
    let forge = begin(env).await;
    let address = address(daemon(env)).await;
    let mut silent = Vec::new();
    for number in 0..700 {
        let mut stream = TcpStream::connect(address.trim_start_matches("http://")).await.expect("everybody is let in");
        // half of them begin a head that never ends
        if number % 2 == 0 {
            let _ = stream.write_all(b"POST /webhook HTTP/1.1\r\nx-slow: ").await;
        }
        silent.push(stream);
    }
    let b = push(env, "b");
    let sent = Instant::now();
    assert_eq!(forge.announce(daemon(env), &b).await.0, 202);
    assert!(sent.elapsed() < Duration::from_secs(1), "{:?}", sent.elapsed());
    assert!(connections(daemon(env)).await <= 512, "the oldest made room");
    env.ready_at("app", &b).await;
    env.eventually("who says nothing is let go", async || (connections(daemon(env)).await <= 2).then_some(())).await;
}
