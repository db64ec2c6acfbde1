//! Git's protocol over HTTP: requests out, streams of packets in.
//!
//! It never follows a redirect to another host, never sends credentials anywhere but to the remote, and never waits
//! without a deadline.

use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::ExposeSecret;

use super::packets::{Body, IDLE_MAX, Packets, idle};
use super::reason;
use crate::source::attempt::Attempt;
use crate::source::credentials::Credentials;
use crate::source::error::SourceError;
use crate::source::github_app::GitHubApp;

/// Some hosts answer only to agents that begin like Git's own.
pub const AGENT: &str = concat!("git/2.0 (afresh/", env!("CARGO_PKG_VERSION"), ")");
/// From `http` to `https`, to the name with `.git`, and one for luck.
const REDIRECTS_MAX: usize = 3;

const SERVICE: &str = "info/refs?service=git-upload-pack";
const ADVERTISEMENT_TYPE: &str = "application/x-git-upload-pack-advertisement";
const REQUEST_TYPE: &str = "application/x-git-upload-pack-request";
const RESULT_TYPE: &str = "application/x-git-upload-pack-result";

/// The way to one remote over HTTP.
pub struct HttpTransport {
    client: Client,
    /// Where the user says that the repository is.
    base: Url,
    authorization: Authorization,
}

enum Authorization {
    Fixed(Option<HeaderValue>),
    /// Tokens that expire.
    App(GitHubApp),
}

/// An answer that is being read.
pub struct HttpAnswer(Response);

impl HttpTransport {
    pub fn new(client: Client, base: Url, credentials: &Credentials) -> HttpTransport {
        HttpTransport { client, base, authorization: Authorization::Fixed(authorization(credentials)) }
    }

    pub fn with_app(client: Client, base: Url, app: GitHubApp) -> HttpTransport {
        HttpTransport { client, base, authorization: Authorization::App(app) }
    }

    /// The first request of the protocol: where it was answered, and the answer.
    pub async fn advertisement(&self, limit: u64, attempt: &Attempt) -> Result<(Url, Packets), SourceError> {
        let mut base = self.base.clone();
        let mut redirects = 0;
        let response = loop {
            let url = endpoint(&base, SERVICE, attempt)?;
            let request = self.request(Method::GET, url.clone(), attempt).await?.header(ACCEPT, "*/*");
            let response = self.send(request, attempt).await?;
            if !response.status().is_redirection() {
                break response;
            }
            redirects += 1;
            base = redirected(&url, response.headers())
                .filter(|_| redirects <= REDIRECTS_MAX)
                .ok_or_else(|| redirection(&url, response.headers(), attempt))?;
        };
        self.check_status(&response, attempt)?;
        if content_type(&response) != ADVERTISEMENT_TYPE {
            let reason = match content_type(&response) {
                // A plain web server hands out the file `info/refs` of a repository in this way.
                "text/plain" | "application/octet-stream" | "" => {
                    "the server offers the repository as plain files, not with Git's smart protocol"
                }
                _ => "the address leads to a page, not to a Git repository",
            };
            return Err(SourceError::Unsupported { url: attempt.url.clone(), reason: reason.to_owned() });
        }
        Ok((base, Packets::new(Body::Http(HttpAnswer(response)), limit)))
    }

    /// Sends a request to `upload-pack`; of the answer at most `limit` bytes are read.
    pub async fn post(&self, base: &Url, body: Bytes, limit: u64, attempt: &Attempt) -> Result<Packets, SourceError> {
        let url = endpoint(base, "git-upload-pack", attempt)?;
        let request = self
            .request(Method::POST, url.clone(), attempt)
            .await?
            .header(CONTENT_TYPE, REQUEST_TYPE)
            .header(ACCEPT, RESULT_TYPE)
            .body(body);
        let response = self.send(request, attempt).await?;
        if response.status().is_redirection() {
            return Err(redirection(&url, response.headers(), attempt));
        }
        self.check_status(&response, attempt)?;
        if content_type(&response) != RESULT_TYPE {
            return Err(attempt.protocol("its answer is not of Git's type"));
        }
        Ok(Packets::new(Body::Http(HttpAnswer(response)), limit))
    }

    async fn request(&self, method: Method, url: Url, attempt: &Attempt) -> Result<RequestBuilder, SourceError> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert("git-protocol", HeaderValue::from_static("version=2"));
        let authorization = match &self.authorization {
            Authorization::Fixed(authorization) => authorization.clone(),
            Authorization::App(app) => authorization(&app.credentials(attempt).await?),
        };
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        Ok(self.client.request(method, url).headers(headers))
    }

    async fn send(&self, request: RequestBuilder, attempt: &Attempt) -> Result<Response, SourceError> {
        let sent = tokio::time::timeout(IDLE_MAX, request.send());
        match attempt.run("waiting for its answer", sent).await? {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unreachable(error, attempt)),
            Err(_) => Err(idle(attempt)),
        }
    }

    fn check_status(&self, response: &Response, attempt: &Attempt) -> Result<(), SourceError> {
        let url = attempt.url.clone();
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
        let code = status.as_u16();
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::TOO_MANY_REQUESTS => Err(SourceError::RateLimited { url, status: code, retry_after }),
            StatusCode::FORBIDDEN | StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => {
                Err(SourceError::RateLimited { url, status: code, retry_after })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                // A token may be taken back before it expires.
                if let Authorization::App(app) = &self.authorization {
                    app.forget();
                }
                Err(SourceError::Unauthorized { url, status: code })
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(SourceError::NotFound { url }),
            _ if status.is_server_error() => Err(SourceError::ServerFailure { url, status: code }),
            _ => Err(attempt.protocol(format!("HTTP {code}"))),
        }
    }
}

impl HttpAnswer {
    pub async fn chunk(&mut self, attempt: &Attempt) -> Result<Option<Bytes>, SourceError> {
        self.0.chunk().await.map_err(|error| unreachable(error, attempt))
    }
}

fn authorization(credentials: &Credentials) -> Option<HeaderValue> {
    let text = match credentials {
        // A key is for ssh, an App's key is for its tokens.
        Credentials::None | Credentials::Ssh(_) | Credentials::GitHubApp(_) => return None,
        Credentials::Basic { username, password } => {
            let pair = format!("{}:{}", username.expose_secret(), password.expose_secret());
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        }
        Credentials::Bearer { token } => format!("Bearer {}", token.expose_secret()),
    };
    // Credentials without control characters always make a header.
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn endpoint(base: &Url, rest: &str, attempt: &Attempt) -> Result<Url, SourceError> {
    Url::parse(&format!("{}/{rest}", base.as_str().trim_end_matches('/')))
        .map_err(|error| SourceError::Unsupported { url: attempt.url.clone(), reason: error.to_string() })
}

/// The base that a redirect leads to, if it may be followed: on the same host, at most from `http` to `https`.
fn redirected(from: &Url, headers: &HeaderMap) -> Option<Url> {
    let to = from.join(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    let same_origin = to.scheme() == from.scheme() && to.port_or_known_default() == from.port_or_known_default();
    let upgrade = from.scheme() == "http" && to.scheme() == "https";
    if to.host_str() != from.host_str() || !(same_origin || upgrade) || to.query() != from.query() {
        return None;
    }
    if !to.username().is_empty() || to.password().is_some() {
        return None;
    }
    let mut base = to.clone();
    base.set_query(None);
    base.set_path(to.path().strip_suffix("/info/refs")?);
    Some(base)
}

fn redirection(from: &Url, headers: &HeaderMap, attempt: &Attempt) -> SourceError {
    let location = headers.get(LOCATION).and_then(|value| from.join(value.to_str().ok()?).ok());
    // Only the origin: the rest of a foreign address may hold a token.
    let to = location.map_or_else(
        || "nowhere".to_owned(),
        |to| format!("`{}://{}`", to.scheme(), to.host_str().unwrap_or_default()),
    );
    SourceError::Redirected { url: attempt.url.clone(), to }
}

fn content_type(response: &Response) -> &str {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Seconds, or a date as HTTP writes it.
pub fn retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let seconds = at.as_second().saturating_sub(jiff::Timestamp::now().as_second());
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// A failure below HTTP.
pub fn unreachable(error: reqwest::Error, attempt: &Attempt) -> SourceError {
    SourceError::Unreachable { url: attempt.url.clone(), reason: reason::of(&error.without_url()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_followed_on_the_same_host_only() {
        let from = Url::parse("http://example.com/a/info/refs?service=git-upload-pack").unwrap();
        let query = "?service=git-upload-pack";
        let cases = [
            (format!("/a.git/info/refs{query}"), Some("http://example.com/a.git")),
            (format!("https://example.com/a.git/info/refs{query}"), Some("https://example.com/a.git")),
            (format!("http://other.example/a/info/refs{query}"), None),
            (format!("http://example.com:81/a/info/refs{query}"), None),
            (format!("http://x:y@example.com/a/info/refs{query}"), None),
            ("/login".to_owned(), None),
            ("/a/info/refs".to_owned(), None),
        ];
        for (location, expected) in cases {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_str(&location).unwrap())]);
            assert_eq!(redirected(&from, &headers).map(String::from).as_deref(), expected, "{location}");
        }
        let secure = Url::parse("https://example.com/a/info/refs?service=git-upload-pack").unwrap();
        let down = format!("http://example.com/a/info/refs{query}");
        let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_str(&down).unwrap())]);
        assert_eq!(redirected(&secure, &headers), None);
    }

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        assert_eq!(retry_after("120"), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(100);
        let later = later.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        assert!((98..=100).contains(&retry_after(&later).unwrap().as_secs()));
        assert_eq!(retry_after("soon"), None);
    }
}
