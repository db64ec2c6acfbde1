//! Ways to a remote besides credentials: a proxy, a GitHub App.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use afresh::source::credentials::{Use, from_secret};
use afresh::source::{Access, Class, SourceError, proxy};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::forward_proxy::ForwardProxy;
use crate::support::{TIMEOUT, World, access, main_branch, message, observe};

const APP_KEY: &str = include_str!("keys/app.pem");

fn through(address: &str, credentials: &[(&str, &str)]) -> Access {
    let entries = [("address", address)].into_iter().chain(credentials.iter().copied());
    let data = entries.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).collect();
    Access { proxy: Some(proxy::from_secret(&data).unwrap()), ..access(&[]) }
}

#[tokio::test]
async fn a_proxy_carries_every_request_and_gets_its_own_credentials() {
    let world = World::new();
    let first = world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let proxy = ForwardProxy::start().await;
    let by = through(&proxy.address(), &[("username", "someone"), ("password", "hunter2")]);
    let remote = world.remotes.get(&world.url(), &by).unwrap();
    assert_eq!(observe(&remote, &main_branch()).await.unwrap().revision.commit, first);
    assert_eq!(proxy.requests(), world.server.requests(), "nothing goes past it");
    let expected = format!("Basic {}", STANDARD.encode("someone:hunter2"));
    assert_eq!(proxy.authorization().as_deref(), Some(expected.as_str()));
    assert!(world.server.records().iter().all(|record| record.authorization.is_none()));
    assert!(!std::sync::Arc::ptr_eq(&remote, &world.remote()), "another way is another remote");
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named_without_its_credentials() {
    let world = World::new();
    for scheme in ["http", "socks5"] {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let by = through(&format!("{scheme}://{nobody}"), &[("username", "someone"), ("password", "hunter2")]);
        let remote = world.remotes.get(&world.url(), &by).unwrap();
        let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
        assert_eq!(error.class(), Class::Unreachable, "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    assert_eq!(world.server.requests(), 0, "there is no way around a proxy");
}

/// GitHub's API as far as an App needs it.
#[derive(Clone, Default)]
struct Api {
    asked: Arc<AtomicU64>,
    /// How long the tokens live that it gives, in seconds.
    lifetime: Arc<AtomicU64>,
    claims: Arc<Mutex<Vec<Value>>>,
}

async fn token(
    State(api): State<Api>,
    Path(installation): Path<String>,
    headers: HeaderMap,
) -> Result<(StatusCode, String), StatusCode> {
    if installation != "42" {
        return Err(StatusCode::NOT_FOUND);
    }
    let jwt = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let parts: Vec<_> = jwt.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
    assert_eq!(serde_json::from_slice::<Value>(&parts[0]).unwrap(), json!({ "alg": "RS256", "typ": "JWT" }));
    verify(jwt, &parts[2]);
    api.claims.lock().unwrap().push(serde_json::from_slice(&parts[1]).unwrap());
    let number = api.asked.fetch_add(1, Ordering::SeqCst) + 1;
    let lifetime = i64::try_from(api.lifetime.load(Ordering::SeqCst)).unwrap();
    let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(lifetime);
    Ok((StatusCode::CREATED, json!({ "token": format!("ghs_{number}"), "expires_at": expires }).to_string()))
}

/// As GitHub does: with the App's public key.
fn verify(jwt: &str, signature: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("key.pem"), APP_KEY).unwrap();
    std::fs::write(file("signature"), signature).unwrap();
    std::fs::write(file("text"), jwt.rsplit_once('.').unwrap().0).unwrap();
    let arguments = ["dgst", "-sha256", "-prverify", "key.pem", "-signature", "signature", "text"];
    // Where there is no openssl, the signature is trusted.
    if let Ok(output) = std::process::Command::new("openssl").args(arguments).current_dir(folder.path()).output() {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

fn app(base: &str, installation: &str) -> Access {
    let entries = [
        ("githubAppID", "7"),
        ("githubAppInstallationID", installation),
        ("githubAppPrivateKey", APP_KEY),
        ("githubAppBaseURL", base),
    ];
    let data = entries.into_iter().map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).collect();
    from_secret(&data, Use::GitHubApp).unwrap()
}

#[tokio::test]
async fn a_github_app_gets_a_token_keeps_it_and_renews_it_before_it_expires() {
    let world = World::new();
    world.repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
    let api = Api::default();
    api.lifetime.store(3600, Ordering::SeqCst);
    let router = Router::new().route("/app/installations/{id}/access_tokens", post(token)).with_state(api.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    world.server.require_basic("x-access-token", "ghs_1");
    let remote = world.remotes.get(&world.url(), &app(&base, "42")).unwrap();
    for _ in 0..3 {
        observe(&remote, &main_branch()).await.unwrap();
    }
    assert_eq!(api.asked.load(Ordering::SeqCst), 1, "one token for many requests");
    let claim = api.claims.lock().unwrap()[0].clone();
    assert_eq!(claim["iss"], "7");
    let lifetime = claim["exp"].as_i64().unwrap() - claim["iat"].as_i64().unwrap();
    assert!((60..=600).contains(&lifetime), "GitHub takes ten minutes at most: {lifetime}");

    // The token is taken back: the request fails, the next one gets another token, which soon expires.
    world.server.require_basic("x-access-token", "ghs_2");
    api.lifetime.store(60, Ordering::SeqCst);
    let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
    assert!(matches!(error, SourceError::Unauthorized { .. }), "{error}");
    remote.probe(&main_branch(), TIMEOUT).await.unwrap();
    world.server.require_basic("x-access-token", "ghs_3");
    remote.probe(&main_branch(), TIMEOUT).await.unwrap();
    assert_eq!(api.asked.load(Ordering::SeqCst), 3, "it is renewed before it expires");

    let remote = world.remotes.get(&world.url(), &app(&base, "41")).unwrap();
    let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
    assert_eq!(message(&error, &world), "GitHub gives no token for `URL`: it knows no such installation (HTTP 404)");
    assert_eq!(error.class(), Class::Auth);
    assert!(!format!("{error:?} {remote:?}", remote = app(&base, "42")).contains("BEGIN"));
}
