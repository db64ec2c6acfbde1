//! A small client of Git's smart HTTP protocol: one remote's address and credentials in, refs and streams of packets
//! out. Version 2, with versions 0 and 1 for servers (or proxies) that don't speak it.
//!
//! It never follows a redirect to another host, never sends credentials anywhere but to the remote, and never waits
//! without a deadline.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::ExposeSecret;

use super::advertisement::{AdvertisedRef, Advertisement, AdvertisementError, Capabilities};
use super::pktline::{Decoder, Encoder, Packet};
use crate::source::attempt::Attempt;
use crate::source::credentials::{Access, Credentials};
use crate::source::error::SourceError;
use crate::source::reference::{Reference, Revision, Selection};

/// Some hosts answer only to agents that begin like Git's own.
pub const AGENT: &str = concat!("git/2.0 (afresh/", env!("CARGO_PKG_VERSION"), ")");
/// A server that says nothing for this long is given up, however much time is left.
pub const IDLE_MAX: Duration = Duration::from_secs(20);
/// The refs of a repository: 5,000 of them take 425 kB.
const REFS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// From `http` to `https`, to the name with `.git`, and one for luck.
const REDIRECTS_MAX: usize = 3;

const SERVICE: &str = "info/refs?service=git-upload-pack";
const ADVERTISEMENT_TYPE: &str = "application/x-git-upload-pack-advertisement";
const REQUEST_TYPE: &str = "application/x-git-upload-pack-request";
const RESULT_TYPE: &str = "application/x-git-upload-pack-result";

/// One remote over HTTP.
pub struct HttpClient {
    client: Client,
    /// Where the user says that the repository is.
    base: Url,
    access: Access,
    authorization: Option<HeaderValue>,
    /// What the server said about itself; asked for once, and again after it surprised us.
    server: Mutex<Option<Arc<Server>>>,
}

/// What is known of a server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where requests go: differs from the configured address after a redirect on the same host.
    base: Url,
    pub version: Version,
    pub capabilities: Capabilities,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V2,
    /// 0 or 1.
    V0,
}

impl HttpClient {
    pub fn new(client: Client, base: Url, access: Access) -> HttpClient {
        let authorization = authorization(&access.credentials);
        HttpClient { client, base, access, authorization, server: Mutex::default() }
    }

    /// The revision that the reference names now; the names of the refs to choose from begin with `prefix`.
    pub async fn resolve(
        &self,
        reference: &Reference,
        prefix: &str,
        attempt: &Attempt,
    ) -> Result<Revision, SourceError> {
        if let Some(server) = self.known().filter(|server| server.version == Version::V2) {
            match self.resolve_v2(&server, reference, prefix, attempt).await {
                // The server may have become another one behind the same address: ask it for its capabilities again.
                Err(SourceError::Protocol { .. } | SourceError::NotFound { .. } | SourceError::Redirected { .. }) => {
                    self.forget()
                }
                answer => return answer,
            }
        }
        let (server, advertisement) = self.connect(attempt).await?;
        match advertisement {
            Advertisement::V2(_) => self.resolve_v2(&server, reference, prefix, attempt).await,
            Advertisement::V0 { refs, .. } if refs.is_empty() => {
                Err(SourceError::EmptyRepository { url: attempt.url.clone() })
            }
            Advertisement::V0 { refs, .. } => {
                let mut selection = Selection::of(reference);
                refs.iter().for_each(|advertised| selection.offer(&advertised.name, advertised.target()));
                selection.finish().ok_or_else(|| not_found(reference, attempt))
            }
        }
    }

    async fn resolve_v2(
        &self,
        server: &Server,
        reference: &Reference,
        prefix: &str,
        attempt: &Attempt,
    ) -> Result<Revision, SourceError> {
        let mut answer = self.list_refs(server, Some(prefix), attempt).await?;
        // The answer is read to its end, so that the connection can be kept.
        let mut selection = Selection::of(reference);
        while let Some(advertised) = next_ref(&mut answer, attempt).await? {
            selection.offer(&advertised.name, advertised.target());
        }
        if let Some(revision) = selection.finish() {
            return Ok(revision);
        }
        let mut answer = self.list_refs(server, None, attempt).await?;
        match next_ref(&mut answer, attempt).await? {
            None => Err(SourceError::EmptyRepository { url: attempt.url.clone() }),
            Some(_) => Err(not_found(reference, attempt)),
        }
    }

    async fn list_refs(
        &self,
        server: &Server,
        prefix: Option<&str>,
        attempt: &Attempt,
    ) -> Result<Packets, SourceError> {
        let mut body = Encoder::default();
        command(&mut body, "ls-refs", &server.capabilities);
        body.line("peel");
        if let Some(prefix) = prefix {
            body.line(&format!("ref-prefix {prefix}"));
        }
        body.flush();
        self.post(server, body.finish(), REFS_BYTES_MAX, attempt).await
    }

    /// What the server said about itself, asking it if need be.
    pub async fn server(&self, attempt: &Attempt) -> Result<Arc<Server>, SourceError> {
        match self.known() {
            Some(server) => Ok(server),
            None => Ok(self.connect(attempt).await?.0),
        }
    }

    fn known(&self) -> Option<Arc<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn forget(&self) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The first request of the protocol.
    async fn connect(&self, attempt: &Attempt) -> Result<(Arc<Server>, Advertisement), SourceError> {
        let mut base = self.base.clone();
        let mut redirects = 0;
        let response = loop {
            let url = endpoint(&base, SERVICE, attempt)?;
            let request = self.request(Method::GET, url.clone()).header(ACCEPT, "*/*");
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
        let mut answer = Packets::new(response, REFS_BYTES_MAX);
        let mut packets = Vec::new();
        while let Some(packet) = answer.next(attempt).await? {
            packets.push(packet);
        }
        let advertisement = Advertisement::parse(&packets).map_err(|error| match error {
            AdvertisementError::Sha256 => {
                SourceError::Unsupported { url: attempt.url.clone(), reason: error.to_string() }
            }
            AdvertisementError::Refused(words) => attempt.protocol(self.access.scrub(&words)),
            _ => attempt.protocol(error.to_string()),
        })?;
        let (version, capabilities) = match &advertisement {
            Advertisement::V2(capabilities) => (Version::V2, capabilities.clone()),
            Advertisement::V0 { capabilities, .. } => (Version::V0, capabilities.clone()),
        };
        let server = Arc::new(Server { base, version, capabilities });
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&server));
        Ok((server, advertisement))
    }

    /// Sends a request to `upload-pack`; of the answer at most `limit` bytes are read.
    pub async fn post(
        &self,
        server: &Server,
        body: Bytes,
        limit: u64,
        attempt: &Attempt,
    ) -> Result<Packets, SourceError> {
        let url = endpoint(&server.base, "git-upload-pack", attempt)?;
        let request = self
            .request(Method::POST, url.clone())
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
        Ok(Packets::new(response, limit))
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert("git-protocol", HeaderValue::from_static("version=2"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        self.client.request(method, url).headers(headers)
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
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(SourceError::Unauthorized { url, status: code }),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(SourceError::NotFound { url }),
            _ if status.is_server_error() => Err(SourceError::ServerFailure { url, status: code }),
            _ => Err(attempt.protocol(format!("HTTP {code}"))),
        }
    }

    /// A server's own words for a message.
    pub fn scrub(&self, words: &[u8]) -> String {
        self.access.scrub(&String::from_utf8_lossy(words))
    }
}

/// The packets of an answer, as they arrive.
pub struct Packets {
    response: Response,
    decoder: Decoder,
    received: u64,
    limit: u64,
}

impl Packets {
    fn new(response: Response, limit: u64) -> Packets {
        Packets { response, decoder: Decoder::default(), received: 0, limit }
    }

    /// The next packet; `None` at the end of the answer.
    pub async fn next(&mut self, attempt: &Attempt) -> Result<Option<Packet>, SourceError> {
        loop {
            if let Some(packet) = self.decoder.next_packet().map_err(|error| attempt.protocol(error.to_string()))? {
                return Ok(Some(packet));
            }
            let chunk = tokio::time::timeout(IDLE_MAX, self.response.chunk());
            match attempt.run("reading its answer", chunk).await? {
                Ok(Ok(Some(chunk))) => {
                    self.received += chunk.len() as u64;
                    attempt.received(chunk.len());
                    if self.received > self.limit {
                        let url = attempt.url.clone();
                        return Err(SourceError::TooLarge { url, limit: self.limit, unit: "bytes" });
                    }
                    self.decoder.feed(&chunk);
                }
                Ok(Ok(None)) if self.decoder.is_empty() => return Ok(None),
                Ok(Ok(None)) => return Err(attempt.protocol("it broke off inside a packet")),
                Ok(Err(error)) => return Err(unreachable(error, attempt)),
                Err(_) => return Err(idle(attempt)),
            }
        }
    }
}

/// The next ref of an answer to `ls-refs`; `None` after the last one, when the whole answer has been read.
async fn next_ref(packets: &mut Packets, attempt: &Attempt) -> Result<Option<AdvertisedRef>, SourceError> {
    loop {
        match packets.next(attempt).await? {
            Some(Packet::Data(line)) => {
                let advertised = AdvertisedRef::parse_v2(&line).map_err(|error| attempt.protocol(error.to_string()))?;
                if advertised.is_some() {
                    return Ok(advertised);
                }
            }
            Some(Packet::Flush) => {
                return match packets.next(attempt).await? {
                    None => Ok(None),
                    Some(_) => Err(attempt.protocol("its list of refs goes on after its end")),
                };
            }
            Some(_) => return Err(attempt.protocol("its list of refs is not understood")),
            // What a server makes of version 2 if it doesn't speak it.
            None => return Err(attempt.protocol("its list of refs broke off")),
        }
    }
}

/// The head of a version 2 request, up to the delimiter before its arguments.
pub fn command(body: &mut Encoder, name: &str, capabilities: &Capabilities) {
    body.line(&format!("command={name}"));
    if capabilities.agent {
        body.line(concat!("agent=git/2.0-afresh/", env!("CARGO_PKG_VERSION")));
    }
    if capabilities.object_format {
        body.line("object-format=sha1");
    }
    body.delimiter();
}

fn authorization(credentials: &Credentials) -> Option<HeaderValue> {
    let text = match credentials {
        Credentials::None => return None,
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
fn retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let seconds = at.as_second().saturating_sub(jiff::Timestamp::now().as_second());
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn not_found(reference: &Reference, attempt: &Attempt) -> SourceError {
    SourceError::RefNotFound { url: attempt.url.clone(), reference: reference.clone() }
}

fn idle(attempt: &Attempt) -> SourceError {
    SourceError::Unreachable { url: attempt.url.clone(), reason: format!("it said nothing for {IDLE_MAX:?}") }
}

/// A failure below HTTP. reqwest's own words hide the reason, which is in the chain of its sources.
fn unreachable(error: reqwest::Error, attempt: &Attempt) -> SourceError {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let words = cause.to_string();
        if !reason.contains(&words) {
            reason = format!("{reason}: {words}");
        }
        source = cause.source();
    }
    SourceError::Unreachable { url: attempt.url.clone(), reason }
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
