//! Access as a GitHub App: the App's key signs a short-lived claim, which GitHub exchanges for a token of an hour.
//!
//! ```text
//!  App id, key ─→ JWT (RS256, 9 min) ─→ POST …/app/installations/<id>/access_tokens ─→ token ─→ x-access-token:<token>
//! ```
//!
//! A token is kept until shortly before it expires, in memory only. Neither key nor token is ever shown.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, USER_AGENT};
use reqwest::{Client, StatusCode, Url};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::attempt::Attempt;
use super::credentials::{AppKey, Credentials};
use super::error::SourceError;
use super::git::http::{AGENT, retry_after, unreachable};
use super::git::packets::{IDLE_MAX, idle};
use super::url::SourceUrl;

/// GitHub takes claims of at most 10 minutes.
const CLAIM_LIFETIME: SignedDuration = SignedDuration::from_secs(9 * 60);
/// The claim begins a little earlier: clocks differ.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);
/// A token is renewed when less than this is left of it: a fetch may take its time.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_secs(5 * 60);
/// GitHub's answer has some hundred bytes, with many repositories some kilobytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// What GitHub wants as the user name beside a token.
const USERNAME: &str = "x-access-token";

pub struct GitHubApp {
    client: Client,
    key: AppKey,
    token: Mutex<Option<Token>>,
    /// Held while a token is asked for: one request, however many wait for it.
    asking: tokio::sync::Mutex<()>,
}

struct Token {
    token: SecretString,
    expires: Timestamp,
}

#[derive(Deserialize)]
struct Answer {
    token: String,
    expires_at: Timestamp,
}

impl GitHubApp {
    pub fn new(client: Client, key: AppKey) -> GitHubApp {
        GitHubApp { client, key, token: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    pub fn key(&self) -> &AppKey {
        &self.key
    }

    /// The credentials of this moment, asking for a new token if need be.
    pub(super) async fn credentials(&self, attempt: &Attempt) -> Result<Credentials, SourceError> {
        let password = self.current(attempt).await?;
        Ok(Credentials::Basic { username: USERNAME.into(), password })
    }

    /// The token of this moment, for the API of the forge; asks for a new one, within `timeout`, if need be.
    pub async fn token(&self, timeout: Duration) -> Result<SecretString, SourceError> {
        let api = SourceUrl::api(&self.key.base);
        self.current(&Attempt::new(&api, timeout, CancellationToken::new())).await
    }

    async fn current(&self, attempt: &Attempt) -> Result<SecretString, SourceError> {
        if let Some(token) = self.held() {
            return Ok(token);
        }
        let _asking = attempt.run("waiting for a token", self.asking.lock()).await?;
        if let Some(token) = self.held() {
            return Ok(token);
        }
        let new = self.ask(attempt).await?;
        let token = new.token.clone();
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
        Ok(token)
    }

    /// The token was refused: the next request gets another one.
    pub fn forget(&self) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn held(&self) -> Option<SecretString> {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        let token = token.as_ref().filter(|token| Timestamp::now() + RENEWED_BEFORE < token.expires)?;
        Some(token.token.clone())
    }

    async fn ask(&self, attempt: &Attempt) -> Result<Token, SourceError> {
        let refused = |reason: String| SourceError::GitHubApp { url: attempt.url.clone(), reason };
        let claim = claim(&self.key, Timestamp::now()).map_err(refused)?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", claim.expose_secret()))
            .map_err(|_| refused("the signed claim is no header".to_owned()))?;
        authorization.set_sensitive(true);
        let request = self
            .client
            .post(endpoint(&self.key).map_err(refused)?)
            .header(AUTHORIZATION, authorization)
            .header(ACCEPT, "application/vnd.github+json")
            .header(USER_AGENT, AGENT)
            .send();
        let mut response = match attempt.run("asking for a token", tokio::time::timeout(IDLE_MAX, request)).await? {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(unreachable(error, attempt)),
            Err(_) => return Err(idle(attempt)),
        };
        let status = response.status();
        let pause = response.headers().get("retry-after").and_then(|value| retry_after(value.to_str().ok()?));
        let url = attempt.url.clone();
        match status {
            StatusCode::CREATED | StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS => {
                return Err(SourceError::RateLimited { url, status: status.as_u16(), retry_after: pause });
            }
            StatusCode::FORBIDDEN if pause.is_some() => {
                return Err(SourceError::RateLimited { url, status: status.as_u16(), retry_after: pause });
            }
            StatusCode::UNAUTHORIZED => return Err(refused("it refuses the App's key or id (HTTP 401)".to_owned())),
            StatusCode::NOT_FOUND => return Err(refused("it knows no such installation (HTTP 404)".to_owned())),
            _ if status.is_server_error() => {
                return Err(SourceError::ServerFailure { url, status: status.as_u16() });
            }
            _ => return Err(refused(format!("HTTP {}", status.as_u16()))),
        }
        let mut body = Vec::new();
        loop {
            let chunk = tokio::time::timeout(IDLE_MAX, response.chunk());
            match attempt.run("reading a token", chunk).await? {
                Ok(Ok(Some(chunk))) if body.len() + chunk.len() <= ANSWER_BYTES_MAX => body.extend_from_slice(&chunk),
                Ok(Ok(Some(_))) => return Err(refused("its answer is too long".to_owned())),
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(unreachable(error, attempt)),
                Err(_) => return Err(idle(attempt)),
            }
        }
        // The words of a parser could quote the token.
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| refused("its answer is not understood".to_owned()))?;
        Ok(Token { token: answer.token.into(), expires: answer.expires_at })
    }
}

fn endpoint(key: &AppKey) -> Result<Url, String> {
    let base = key.base.as_str().trim_end_matches('/');
    Url::parse(&format!("{base}/app/installations/{}/access_tokens", key.installation))
        .map_err(|error| format!("`githubAppBaseURL`: {error}"))
}

/// A JSON Web Token (RFC 7519) that says "this App, now", signed with RS256.
fn claim(key: &AppKey, now: Timestamp) -> Result<SecretString, String> {
    let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = encode(json!({ "alg": "RS256", "typ": "JWT" }));
    let from = (now - CLOCK_SKEW).as_second();
    let until = (now + CLAIM_LIFETIME).as_second();
    let claims = encode(json!({ "iat": from, "exp": until, "iss": key.app }));
    let text = format!("{header}.{claims}");
    let signature = sign(&key.private_key, text.as_bytes())?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
}

fn sign(pem: &SecretString, text: &[u8]) -> Result<Vec<u8>, String> {
    let unusable = || "`githubAppPrivateKey` of the Secret is not an RSA key in PEM".to_owned();
    let der = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).map_err(|_| unusable())?;
    let key = any_supported_type(&der).map_err(|_| unusable())?;
    let signer = key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).ok_or_else(unusable)?;
    signer.sign(text).map_err(|_| unusable())
}

/// Whether a key in PEM can sign for an App.
pub(super) fn is_usable(pem: &SecretString) -> bool {
    sign(pem, b"").is_ok()
}
