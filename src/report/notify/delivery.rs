//! The delivery of one provider: takes from its mailbox, sends, waits longer and longer while the endpoint is away.
//!
//! One request at a time. What can't be delivered now goes back; what the endpoint refuses is given up and counted.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use reqwest::{RequestBuilder, Response};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::sync::watch;

use super::endpoint::{Endpoint, Kind};
use super::forge::{Forge, Repository};
use super::format::{self, Notice};
use super::mailbox::{Content, Mailbox, Parcel, Put};
use super::news::Commit;
use super::pages::{Pages, REPEATED_EVERY};
use crate::api::{Key, Provider};
use crate::cluster::Cluster;
use crate::report::metrics::{Metrics, ObjectMetrics};
use crate::source::{GitHubApp, SourceError};

/// The pauses while an endpoint is away.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A server that asks for more patience than this is asked again anyway.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// What is older is no news to anyone.
const AGE_MAX: SignedDuration = SignedDuration::from_hours(24);
/// As much of an answer is read: Slack's and the forges' are a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Where Alertmanager takes alerts, if the address names no path.
const ALERTS_PATH: &str = "api/v2/alerts";

/// Why something was not delivered. Holds no secret.
#[derive(Debug)]
enum Trouble {
    /// The endpoint may take it later.
    Passing { why: String, retry_after: Option<Duration> },
    /// It will never be taken like this.
    Final(String),
}

/// How long is waited for an endpoint that is away: longer and longer.
struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(PAUSE_MIN)
    }
}

impl Patience {
    /// The endpoint was away when it was asked last.
    fn was_needed(&self) -> bool {
        self.0 > PAUSE_MIN
    }

    fn wait(&mut self, retry_after: Option<Duration>) -> Duration {
        let next = (self.0 * 2).min(PAUSE_MAX);
        let pause = std::mem::replace(&mut self.0, next);
        retry_after.unwrap_or(pause).min(RETRY_AFTER_MAX)
    }
}

pub struct Delivery {
    pub key: Key,
    pub provider: watch::Receiver<Arc<Provider>>,
    pub mailbox: Arc<Mailbox>,
    pub cluster: Cluster,
    pub metrics: Arc<ObjectMetrics>,
    /// Counts what is given up.
    pub dropped: Metrics,
    /// Keeps the token of a GitHub App as long as the App is the same.
    pub app: Option<GitHubApp>,
}

impl Delivery {
    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut pages = Pages::default();
        let mut patience = Patience::default();
        loop {
            let parcel = self.next(&mut pages).await;
            let trouble = match self.deliver(parcel.as_ref(), &mut pages).await {
                Ok(()) => {
                    if parcel.is_some() {
                        self.metrics.notification("sent");
                    }
                    if patience.was_needed() {
                        tracing::info!(provider = %self.key, "notifications are delivered again");
                    }
                    patience = Patience::default();
                    continue;
                }
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Final(why) => {
                    tracing::warn!(provider = %self.key, "a notification was refused and is given up: {why}");
                    self.metrics.notification("refused");
                    self.dropped.notification_dropped();
                    // what an Alertmanager refuses is not repeated either
                    pages.taken();
                }
                Trouble::Passing { why, retry_after } => {
                    if !patience.was_needed() {
                        tracing::warn!(provider = %self.key, "a notification could not be delivered and is tried again: {why}");
                    }
                    self.metrics.notification("retried");
                    if let Some(parcel) = parcel {
                        self.put_back(parcel);
                    }
                    tokio::select! {
                        () = tokio::time::sleep(patience.wait(retry_after)) => {}
                        // a corrected provider is tried at once
                        _ = self.provider.changed() => {}
                    }
                }
            }
        }
    }

    /// The next parcel; `None`: what fires is to be repeated.
    async fn next(&self, pages: &mut Pages) -> Option<Parcel> {
        let repetition = async {
            if pages.is_empty() { std::future::pending().await } else { tokio::time::sleep(REPEATED_EVERY).await }
        };
        let parcel = tokio::select! {
            biased;
            parcel = self.mailbox.take() => Some(parcel),
            () = repetition => None,
        };
        if parcel.is_none() {
            pages.repeat();
        }
        parcel
    }

    fn put_back(&self, parcel: Parcel) {
        let put = if Timestamp::now().duration_since(parcel.since) > AGE_MAX {
            Put::Overflowed
        } else {
            self.mailbox.put_back(parcel)
        };
        match put {
            Put::Added => {}
            Put::Replaced => self.metrics.notification("superseded"),
            Put::Overflowed => self.dropped.notification_dropped(),
        }
    }

    async fn deliver(&mut self, parcel: Option<&Parcel>, pages: &mut Pages) -> Result<(), Trouble> {
        let provider = self.provider.borrow_and_update().clone();
        if provider.spec.suspend.unwrap_or(false) {
            return Ok(());
        }
        let endpoint = Endpoint::resolve(&self.cluster, &self.key, &provider.spec).await.map_err(|error| {
            let (why, last) = (error.to_string(), error.is_final());
            // a Secret that is missing is usually on its way
            if last && !matches!(error, super::endpoint::EndpointError::Missing { .. }) {
                Trouble::Final(why)
            } else {
                Trouble::Passing { why, retry_after: None }
            }
        })?;
        if let Some(key) = &endpoint.app
            && self.app.as_ref().is_none_or(|app| !app.key().is(key))
        {
            self.app = Some(GitHubApp::new(endpoint.client.clone(), key.clone()));
        }
        let app = self.app.as_ref().filter(|_| endpoint.app.is_some());
        let sending = async {
            match (endpoint.kind, parcel.map(|parcel| &parcel.content)) {
                (Kind::Alertmanager, content) => {
                    if let (Some(Content::Message { notice, phase }), Some(parcel)) = (content, parcel)
                        && !pages.take(&parcel.slot, notice, phase)
                    {
                        return Err(Trouble::Final("too many alerts fire already".into()));
                    }
                    alertmanager(&endpoint, pages).await
                }
                (Kind::Forge(forge), Some(Content::Commit { name, commit })) => {
                    status(&endpoint, app, forge, commit, name).await
                }
                (kind, Some(Content::Message { notice, .. })) => message(&endpoint, kind, notice).await,
                (_, _) => Ok(()),
            }
        };
        tokio::time::timeout(endpoint.timeout, sending).await.unwrap_or_else(|_| {
            let why = format!("no answer within {} s", endpoint.timeout.as_secs_f32());
            Err(Trouble::Passing { why, retry_after: None })
        })
    }
}

async fn message(endpoint: &Endpoint, kind: Kind, notice: &Notice) -> Result<(), Trouble> {
    let address = endpoint.address.expose_secret();
    let request = endpoint.client.post(address).header(CONTENT_TYPE, "application/json");
    let request = match kind {
        Kind::Slack => {
            let body = format::slack(notice, endpoint.username.as_deref(), endpoint.channel.as_deref());
            bearer(request, endpoint).body(body.to_string())
        }
        Kind::Generic | Kind::GenericHmac | Kind::Alertmanager | Kind::Forge(_) => {
            let body = format::generic(notice).to_string();
            let request = request.header("gotk-component", notice.subject.reporter());
            let request = match (&endpoint.token, kind) {
                (Some(key), Kind::GenericHmac) => {
                    request.header("X-Signature", format::signature(key.expose_secret().as_bytes(), body.as_bytes()))
                }
                _ => request,
            };
            endpoint.headers.iter().fold(request, |request, (name, value)| request.header(name, value)).body(body)
        }
    };
    let answer = accepted(endpoint, request).await?;
    // chat.postMessage says 200 whatever it did
    if kind == Kind::Slack && address.ends_with("/api/chat.postMessage") {
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        if answer["ok"] != true {
            let why = endpoint.scrub(answer["error"].as_str().unwrap_or("an answer that can't be read"));
            return Err(match why.as_str() {
                "ratelimited" | "internal_error" | "service_unavailable" | "fatal_error" => {
                    Trouble::Passing { why: format!("Slack says `{why}`"), retry_after: None }
                }
                _ => Trouble::Final(format!("Slack says `{why}`")),
            });
        }
    }
    Ok(())
}

async fn alertmanager(endpoint: &Endpoint, pages: &mut Pages) -> Result<(), Trouble> {
    let Some(body) = pages.body(Timestamp::now()) else { return Ok(()) };
    let address = endpoint.address.expose_secret();
    let bare = address.splitn(4, '/').nth(3).unwrap_or_default().is_empty();
    let address = if bare { format!("{}/{ALERTS_PATH}", address.trim_end_matches('/')) } else { address.to_owned() };
    let request = endpoint.client.post(address).header(CONTENT_TYPE, "application/json").body(body.to_string());
    let request = match (&endpoint.username, &endpoint.password) {
        (Some(username), Some(password)) => request.basic_auth(username, Some(password.expose_secret())),
        _ => bearer(request, endpoint),
    };
    accepted(endpoint, request).await?;
    pages.taken();
    Ok(())
}

async fn status(
    endpoint: &Endpoint,
    app: Option<&GitHubApp>,
    forge: Forge,
    commit: &Commit,
    name: &str,
) -> Result<(), Trouble> {
    let repository =
        Repository::parse(endpoint.address.expose_secret()).map_err(|error| Trouble::Final(error.to_string()))?;
    let request = forge.status(&repository, commit, name).map_err(|error| Trouble::Final(error.to_string()))?;
    let token = match app {
        Some(app) => Some(app.token(endpoint.timeout).await.map_err(|error| without_token(&error))?),
        None => endpoint.token.clone(),
    };
    let token = token.as_ref().map(|token| token.expose_secret()).unwrap_or_default();
    let post = endpoint.client.post(&request.url).header(CONTENT_TYPE, "application/json");
    let post = match forge {
        Forge::GitHub => post
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header(ACCEPT, "application/vnd.github+json")
            .header("X-GitHub-Api-Version", "2022-11-28"),
        Forge::GitLab => post.header("PRIVATE-TOKEN", token),
        Forge::Gitea => post.header(AUTHORIZATION, format!("token {token}")).header(ACCEPT, "application/json"),
    };
    let (code, answer) = send(endpoint, post.body(request.body.to_string())).await?;
    if let (401, Some(app)) = (code, app) {
        // a token may be taken back before its time
        app.forget();
        return Err(Trouble::Passing { why: "HTTP 401: the App's token is refused".into(), retry_after: None });
    }
    if forge.is_repetition(code, &answer) { Ok(()) } else { judged(endpoint, code, &answer, None) }
}

/// Whatever the reason is, it is not the status that is wrong: it waits for the App to be put right.
fn without_token(error: &SourceError) -> Trouble {
    Trouble::Passing { why: error.to_string(), retry_after: error.retry_after() }
}

fn bearer(request: RequestBuilder, endpoint: &Endpoint) -> RequestBuilder {
    match &endpoint.token {
        Some(token) => request.bearer_auth(token.expose_secret()),
        None => request,
    }
}

/// Sends, and answers what a 2xx says.
async fn accepted(endpoint: &Endpoint, request: RequestBuilder) -> Result<String, Trouble> {
    let (code, answer) = send(endpoint, request).await?;
    judged(endpoint, code, &answer, None)?;
    Ok(answer)
}

/// The code and the beginning of the answer; 429 and 503 with a time are troubles here, since only here it is known.
async fn send(endpoint: &Endpoint, request: RequestBuilder) -> Result<(u16, String), Trouble> {
    let response = request.send().await.map_err(|error| {
        // the URL may be the secret
        let error = error.without_url();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Trouble::Passing { why: endpoint.scrub(&format!("{error}{cause}")), retry_after: None }
    })?;
    let code = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    let retry_after = retry_after.map(Duration::from_secs);
    let answer = beginning(response).await;
    if retry_after.is_some() && matches!(code, 429 | 503) {
        judged(endpoint, code, &answer, retry_after)?;
    }
    Ok((code, answer))
}

async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(ANSWER_BYTES_MAX);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn judged(endpoint: &Endpoint, code: u16, answer: &str, retry_after: Option<Duration>) -> Result<(), Trouble> {
    let said = endpoint.scrub(answer);
    let why = if said.is_empty() { format!("HTTP {code}") } else { format!("HTTP {code}: {said}") };
    match code {
        200..=299 => Ok(()),
        300..=399 => Err(Trouble::Final(format!("HTTP {code}: the address redirects; give the one that it leads to"))),
        408 | 425 | 429 | 500..=599 => Err(Trouble::Passing { why, retry_after }),
        _ => Err(Trouble::Final(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_is_away_for_an_hour_is_asked_about_once_a_minute() {
        const HOUR: Duration = Duration::from_secs(3600);
        let (mut patience, mut waits) = (Patience::default(), Vec::new());
        assert!(!patience.was_needed());
        while waits.iter().sum::<Duration>() < HOUR {
            waits.push(patience.wait(None));
        }
        assert_eq!(waits[..7], [1, 2, 4, 8, 16, 32, 60].map(Duration::from_secs));
        assert!((60..=66).contains(&waits.len()), "{} times in an hour", waits.len());
        assert!(patience.was_needed());
        assert_eq!(patience.wait(Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(patience.wait(Some(HOUR)), RETRY_AFTER_MAX);
    }
}
