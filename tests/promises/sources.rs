//! What a source can follow besides a branch over HTTP, and that what goes wrong there is named and mended like the rest.

use afresh::api::{GitRepository, READY};
use afresh::sandbox::repository::TestRepository;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::env::{Env, PATIENCE, SOURCE};
use crate::support::forward_proxy::ForwardProxy;
use crate::support::manifests::config_map;
use crate::support::receiver::{Answers, Receiver};
use crate::support::scenarios;
use crate::support::socks_proxy::SocksProxy;
use crate::support::tls::Authority;
use crate::support::wait::watch_until;

const APP_KEY: &str = include_str!("../source/keys/app.pem");

scenarios! {
    a_new_tag_in_the_range_goes_live,
    what_another_repository_brings_goes_live_and_its_faults_do_not_hold_back_its_fix,
    an_include_that_is_missing_is_named_and_a_circle_is_refused_until_it_is_open,
    a_sparse_source_shows_what_it_names_and_nothing_else,
    a_source_behind_a_proxy_is_asked_through_it_alone,
    a_source_behind_a_socks_proxy_is_asked_through_it_alone,
    a_source_behind_a_proxy_that_speaks_tls_is_asked_through_it_alone,
    a_forge_with_a_certificate_authority_of_its_own_gives_tokens_to_an_app,
    a_field_that_is_not_served_is_refused_by_name,
}

fn ready_message(source: Option<&GitRepository>) -> String {
    let ready = source.and_then(|source| source.status.as_ref()?.conditions.get(READY));
    ready.map(|ready| ready.message.clone()).unwrap_or_default()
}

/// Until the source `name` says `text`.
async fn says(env: &Env, name: &str, text: &str) {
    let mut seen = String::new();
    let sources = env.sources();
    let outcome = watch_until(&sources, name, PATIENCE, |source| {
        seen = ready_message(source);
        seen.contains(text)
    });
    if outcome.await.is_err() {
        panic!("GitRepository/{name} doesn't say `{text}` but `{seen}`");
    }
}

async fn value(env: &Env, name: &str, value: &str) {
    env.until_live("ConfigMap", name, &format!("it holds `{value}`"), |map| map["data"]["value"] == value).await;
}

/// A second repository, and a GitRepository `base` that follows it.
async fn base(env: &Env) -> TestRepository {
    let repository = TestRepository::create(&env.repository.path().with_file_name("base")).unwrap();
    repository.commit("base A", &[("maps/shared.yaml", Some(&config_map("shared", "a")))]).unwrap();
    env.source_at("base", &env.git.url("base"), |_| {}).await;
    repository
}

fn includes_base(spec: &mut Value) {
    spec["include"] = json!([{ "repository": { "name": "base" }, "fromPath": "./maps", "toPath": "app/base" }]);
}

async fn a_new_tag_in_the_range_goes_live(env: &mut Env) {
    let commit = |value: &str| {
        let text = config_map("settings", value);
        env.repository.commit(value, &[("app/settings.yaml", Some(&text))]).unwrap()
    };
    let first = commit("a");
    env.repository.tag("v1.0.0", first, None).unwrap();
    commit("not tagged");
    env.source(|spec| spec["ref"] = json!({ "semver": ">=1.0.0 <2.0.0" })).await;
    env.kustomization("app", |_| {}).await;
    let (second, third, fourth) = (commit("b"), commit("c"), commit("d"));
    env.start();
    env.ready_at("app", &format!("v1.0.0@sha1:{first}")).await;

    env.repository.tag("v1.10.0", second, Some("annotated")).unwrap();
    env.repository.tag("v1.9.0", third, None).unwrap();
    env.repository.tag("v2.0.0", fourth, None).unwrap();
    env.repository.tag("v1.11.0-rc.1", fourth, None).unwrap();
    env.announce().await;
    env.ready_at("app", &format!("v1.10.0@sha1:{second}")).await;
    value(env, "settings", "b").await;
}

async fn what_another_repository_brings_goes_live_and_its_faults_do_not_hold_back_its_fix(env: &mut Env) {
    let base = base(env).await;
    let other = config_map("other", "x");
    base.commit("beside", &[("beside/other.yaml", Some(&other))]).unwrap();
    env.source(includes_base).await;
    let revision = env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.kustomization("app", |_| {}).await;
    env.start();
    env.ready_at("app", &revision).await;
    value(env, "shared", "a").await;
    assert!(env.live("ConfigMap", "other").await.is_none(), "only `fromPath` is included");
    let included = env.sources().get(SOURCE).await.unwrap().status.unwrap().included_artifacts.unwrap();
    assert_eq!(included[0].revision, format!("main@sha1:{}", base.tip("main").unwrap().unwrap()));

    base.commit("broken", &[("maps/shared.yaml", Some("kind: ["))]).unwrap();
    env.announce_source("base").await;
    env.failed_at("app", &revision, "app/base/shared.yaml").await;
    value(env, "shared", "a").await;

    // Nobody announces the fix.
    base.commit("fixed", &[("maps/shared.yaml", Some(&config_map("shared", "c")))]).unwrap();
    env.ready_at("app", &revision).await;
    value(env, "shared", "c").await;
}

async fn an_include_that_is_missing_is_named_and_a_circle_is_refused_until_it_is_open(env: &mut Env) {
    env.source(includes_base).await;
    let revision = env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.kustomization("app", |_| {}).await;
    env.start();
    let key = |name: &str| format!("`{}/{name}`", env.namespace);
    says(env, SOURCE, &format!("GitRepository {} of `spec.include` does not exist", key("base"))).await;
    let _base = base(env).await;
    env.ready_at("app", &revision).await;

    let back = json!([{ "repository": { "name": SOURCE } }]);
    env.source_at("base", &env.git.url("base"), |spec| spec["include"] = back).await;
    for (name, way) in [(SOURCE, [SOURCE, "base", SOURCE]), ("base", ["base", SOURCE, "base"])] {
        let way: Vec<_> = way.into_iter().map(key).collect();
        says(env, name, &format!("`spec.include` leads in a circle: {}", way.join(" → "))).await;
    }
    env.source_at("base", &env.git.url("base"), |_| {}).await;
    for name in [SOURCE, "base"] {
        says(env, name, "stored artifact for revision").await;
    }
    let next = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
    env.announce().await;
    env.ready_at("app", &next).await;
}

async fn a_sparse_source_shows_what_it_names_and_nothing_else(env: &mut Env) {
    let revision = env.push(
        "A",
        &[
            ("app/settings.yaml", &config_map("settings", "a")),
            ("other/other.yaml", &config_map("other", "a")),
            ("application/never.yaml", "kind: ["),
        ],
    );
    env.source(|spec| spec["sparseCheckout"] = json!(["./app"])).await;
    env.kustomization("app", |_| {}).await;
    env.kustomization("other", |_| {}).await;
    env.start();
    env.ready_at("app", &revision).await;
    env.failed_at("other", &revision, "other").await;
    assert!(env.live("ConfigMap", "other").await.is_none());

    // The commit is the same; what is seen of it is not.
    env.source(|spec| spec["sparseCheckout"] = json!(["app", "other"])).await;
    env.ready_at("other", &revision).await;
    value(env, "other", "a").await;

    env.source(|spec| spec["sparseCheckout"] = json!(["app", "nowhere"])).await;
    says(env, SOURCE, "has no directory `nowhere`").await;
    value(env, "settings", "a").await;
}

/// The usual beginning, with a source that names the Secret `proxy`.
async fn begin_behind_a_proxy(env: &mut Env, change: impl FnOnce(&mut Value)) {
    let revision = env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.source(|spec| {
        spec["proxySecretRef"] = json!({ "name": "proxy" });
        change(spec);
    })
    .await;
    env.kustomization("app", |_| {}).await;
    env.start();
    env.ready_at("app", &revision).await;
}

/// With this proxy, which can't be used, the source can't be had: nobody goes around it.
async fn is_unreachable_through(env: &Env, proxy: &str) {
    let requests = env.git.requests();
    proxy_secret(env, proxy).await;
    says(env, SOURCE, "is unreachable").await;
    assert_eq!(env.git.requests(), requests);
}

async fn a_source_behind_a_proxy_is_asked_through_it_alone(env: &mut Env) {
    let proxy = ForwardProxy::start().await;
    proxy_secret(env, &proxy.address()).await;
    begin_behind_a_proxy(env, |_| {}).await;
    assert!(proxy.requests() > 0);
    assert_eq!(proxy.requests(), env.git.requests(), "nothing goes past the proxy");
    assert!(proxy.authorization().is_some());

    // Nobody listens there; the way around stays closed.
    is_unreachable_through(env, "http://127.0.0.1:1").await;
    proxy_secret(env, &proxy.address()).await;
    says(env, SOURCE, "stored artifact for revision").await;
}

async fn a_source_behind_a_socks_proxy_is_asked_through_it_alone(env: &mut Env) {
    let proxy = SocksProxy::start().await;
    proxy_secret(env, &proxy.address()).await;
    begin_behind_a_proxy(env, |_| {}).await;
    assert!(proxy.connections() > 0);
    assert_eq!(proxy.credentials().as_deref(), Some("someone:hunter2"));

    // Nobody listens there; the way around stays closed.
    is_unreachable_through(env, "socks5://127.0.0.1:1").await;
    proxy_secret(env, &proxy.address()).await;
    says(env, SOURCE, "stored artifact for revision").await;
}

async fn a_source_behind_a_proxy_that_speaks_tls_is_asked_through_it_alone(env: &mut Env) {
    let (proxy, authority) = (ForwardProxy::start().await, Authority::new());
    proxy_secret(env, &authority.front(proxy.socket()).await).await;
    env.secret("trust", json!({ "ca.crt": authority.pem })).await;
    begin_behind_a_proxy(env, |spec| spec["secretRef"] = json!({ "name": "trust" })).await;
    assert_eq!(proxy.requests(), env.git.requests(), "nothing goes past the proxy");
    assert!(proxy.authorization().is_some());

    // A proxy that another authority vouches for is not used, and not passed by either.
    is_unreachable_through(env, &Authority::new().front(proxy.socket()).await).await;
}

async fn a_forge_with_a_certificate_authority_of_its_own_gives_tokens_to_an_app(env: &mut Env) {
    let (forge, authority) = (Receiver::start(&env.canaries).await, Authority::new());
    let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    forge.answer(Answers::With(201));
    forge.say(&json!({ "token": "ghs_one", "expires_at": expires }).to_string());
    env.git.require_basic("x-access-token", "ghs_one");
    let base = format!("{}/api/v3", authority.front(forge.socket()).await);
    let git = authority.front(env.git.address()).await;
    let keys = |ca: &str| {
        json!({
            "githubAppID": "7", "githubAppInstallationID": "42", "githubAppPrivateKey": APP_KEY,
            "githubAppBaseURL": base, "ca.crt": ca,
        })
    };
    env.secret("app", keys(&Authority::new().pem)).await;
    let revision = env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.source_at(SOURCE, &format!("{git}/{SOURCE}"), |spec| {
        spec["provider"] = json!("github");
        spec["secretRef"] = json!({ "name": "app" });
    })
    .await;
    env.kustomization("app", |_| {}).await;
    env.start();
    says(env, SOURCE, "is unreachable").await;
    assert!(forge.received().is_empty(), "a stranger is not given the App's claim");

    env.secret("app", keys(&authority.pem)).await;
    env.ready_at("app", &revision).await;
    let asked = forge.received();
    assert_eq!(asked.len(), 1, "one token for probe and fetch");
    assert_eq!(asked[0].path, "/api/v3/app/installations/42/access_tokens");
    assert!(asked[0].header("authorization").starts_with("Bearer ey"));
    let log = env.daemon.as_ref().unwrap().log().join("\n");
    assert!(!log.contains("ghs_one"));
}

async fn proxy_secret(env: &Env, address: &str) {
    let data = json!({ "address": address, "username": "someone", "password": "hunter2" });
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "proxy" }, "stringData": data });
    let params = PatchParams::apply("scenario").force();
    env.objects("Secret").patch("proxy", &params, &Patch::Apply(secret)).await.expect("the Secret is made");
}

async fn a_field_that_is_not_served_is_refused_by_name(env: &mut Env) {
    env.push("A", &[("app/settings.yaml", &config_map("settings", "a"))]);
    env.source(|_| {}).await;
    env.start();
    says(env, SOURCE, "stored artifact for revision").await;
    let cases = [
        (json!({ "verify": { "mode": "HEAD", "secretRef": { "name": "keys" } } }), "`spec.verify`"),
        (json!({ "recurseSubmodules": true }), "`spec.recurseSubmodules`"),
        (json!({ "provider": "aws" }), "`spec.provider: aws`"),
        (json!({ "provider": "azure" }), "`spec.provider: azure`"),
        (json!({ "serviceAccountName": "reader" }), "`spec.serviceAccountName`"),
        (json!({ "provider": "github" }), "`spec.provider: github` needs the App's keys in a Secret"),
        (json!({ "ref": { "semver": "latest" } }), "`spec.ref.semver`: `latest` is not a version range"),
        (json!({ "ref": { "name": "main" } }), "`main` is not the full name of a ref"),
        (json!({ "url": "ssh://-oProxyCommand=x/a" }), "the host of an ssh URL must not"),
        (json!({ "url": "ssh://git@forge.example/a" }), "ssh needs a Secret in `spec.secretRef`"),
        (json!({ "sparseCheckout": ["../up"] }), "`spec.sparseCheckout`: `../up` leads out of the repository"),
    ];
    for (fields, text) in cases {
        env.source(|spec| {
            for (field, value) in fields.as_object().unwrap() {
                spec[field] = value.clone();
            }
        })
        .await;
        says(env, SOURCE, text).await;
    }
    env.source(|_| {}).await;
    says(env, SOURCE, "stored artifact for revision").await;
}
