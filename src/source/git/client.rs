//! A small client of Git's protocol: one remote in, refs and streams of packets out. Version 2, with versions 0 and 1 for
//! servers (or proxies) that don't speak it.
//!
//! ```text
//!  resolve, fetch ──▶ Session ──▶ HttpTransport   a request each; what the server can is asked for once
//!                             └─▶ SshTransport    a child process each, which begins with what the server can
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use reqwest::Url;

use super::advertisement::{AdvertisedRef, Advertisement, AdvertisementError, Capabilities};
use super::http::HttpTransport;
use super::packets::{Body, Packets};
use super::pktline::{Encoder, Packet};
use super::ssh::{Conversation, SshTransport};
use crate::source::attempt::Attempt;
use crate::source::credentials::Access;
use crate::source::error::SourceError;
use crate::source::probes::Shown;
use crate::source::reference::{Reference, Selections};

/// The refs of a repository: 5,000 of them take 425 kB.
const REFS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// One remote that speaks Git's protocol.
pub struct Client {
    transport: Transport,
    access: Access,
    /// What the server said about itself over HTTP; asked for once, and again after it surprised us.
    server: Mutex<Option<Server>>,
}

pub enum Transport {
    Http(HttpTransport),
    Ssh(SshTransport),
}

/// What is known of a server.
#[derive(Clone, Debug)]
pub struct Server {
    pub version: Version,
    pub capabilities: Arc<Capabilities>,
    /// Where requests go: over HTTP it may differ from the configured address, after a redirect on the same host.
    base: Option<Url>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V2,
    /// 0 or 1.
    V0,
}

/// A server that waits for one request.
pub struct Session {
    pub server: Server,
    /// Versions 0 and 1 list them unasked.
    refs: Option<Vec<AdvertisedRef>>,
    conversation: Option<Box<Conversation>>,
}

impl Client {
    pub fn new(transport: Transport, access: Access) -> Client {
        Client { transport, access, server: Mutex::default() }
    }

    /// What each of the references names now, by one request.
    pub async fn resolve(&self, references: &[Reference], attempt: &Attempt) -> Result<Shown, SourceError> {
        // Versions 0 and 1 tell refs together with what they can, so there it is asked for anew.
        if let Some(server) = self.known().filter(|server| server.version == Version::V2) {
            let session = Session { server, refs: None, conversation: None };
            match self.choose(session, references, attempt).await {
                // The server may have become another one behind the same address: ask it for its capabilities again.
                Err(SourceError::Protocol { .. } | SourceError::NotFound { .. } | SourceError::Redirected { .. }) => {
                    self.forget()
                }
                answer => return answer,
            }
        }
        let session = self.connect(attempt).await?;
        self.choose(session, references, attempt).await
    }

    async fn choose(
        &self,
        mut session: Session,
        references: &[Reference],
        attempt: &Attempt,
    ) -> Result<Shown, SourceError> {
        let mut selections = Selections::of(references);
        let mut any = false;
        if let Some(refs) = session.refs.take() {
            for advertised in &refs {
                selections.offer(&advertised.name, advertised.target());
            }
            any = !refs.is_empty();
        } else {
            let request = list_refs(&session.server.capabilities, &selections.prefixes());
            let mut answer = self.ask(session, request, REFS_BYTES_MAX, attempt).await?;
            // The answer is read to its end, so that the connection can be kept.
            while let Some(advertised) = next_ref(&mut answer, attempt).await? {
                selections.offer(&advertised.name, advertised.target());
                any = true;
            }
            if !any {
                // Whether there is nothing of these names, or nothing at all.
                let session = self.session(attempt).await?;
                let request = list_refs(&session.server.capabilities, &[]);
                let mut answer = self.ask(session, request, REFS_BYTES_MAX, attempt).await?;
                any = next_ref(&mut answer, attempt).await?.is_some();
            }
        }
        if !any {
            return Err(SourceError::EmptyRepository { url: attempt.url.clone() });
        }
        let not_found =
            |reference: &Reference| SourceError::RefNotFound { url: attempt.url.clone(), reference: reference.clone() };
        let found = selections.finish().into_iter();
        Ok(found
            .map(|(reference, revision)| {
                let revision = revision.ok_or_else(|| not_found(reference));
                (reference.clone(), revision)
            })
            .collect())
    }

    /// A server that waits for a request, and what it said about itself.
    pub async fn session(&self, attempt: &Attempt) -> Result<Session, SourceError> {
        match self.known() {
            Some(server) => Ok(Session { server, refs: None, conversation: None }),
            None => self.connect(attempt).await,
        }
    }

    fn known(&self) -> Option<Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn forget(&self) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Asks the server what it is.
    async fn connect(&self, attempt: &Attempt) -> Result<Session, SourceError> {
        let (base, mut answer) = match &self.transport {
            Transport::Http(http) => {
                let (base, answer) = http.advertisement(REFS_BYTES_MAX, attempt).await?;
                (Some(base), answer)
            }
            Transport::Ssh(ssh) => {
                let conversation = ssh.open(attempt).await?;
                (None, Packets::new(Body::Ssh(Box::new(conversation)), REFS_BYTES_MAX))
            }
        };
        let mut packets = Vec::new();
        while let Some(packet) = answer.next(attempt).await? {
            let ends = base.is_none() && packet == Packet::Flush;
            packets.push(packet);
            // Over ssh the server now waits; over HTTP the answer ends.
            if ends {
                break;
            }
        }
        let mut conversation = match answer.into_body() {
            Body::Http(_) => None,
            Body::Ssh(conversation) => Some(conversation),
        };
        if let Some(conversation) = &mut conversation {
            if packets.last() != Some(&Packet::Flush) {
                return Err(conversation.failure(&self.access, attempt).await);
            }
            conversation.authenticated();
        }
        let advertisement = match (&packets[..], &conversation) {
            // How an old Git lists no refs.
            ([Packet::Flush], Some(_)) => Advertisement::V0 { capabilities: Capabilities::default(), refs: Vec::new() },
            (packets, _) => Advertisement::parse(packets).map_err(|error| match error {
                AdvertisementError::Sha256 => {
                    SourceError::Unsupported { url: attempt.url.clone(), reason: error.to_string() }
                }
                AdvertisementError::Refused(words) => attempt.protocol(self.access.scrub(&words)),
                _ => attempt.protocol(error.to_string()),
            })?,
        };
        let (version, capabilities, refs) = match advertisement {
            Advertisement::V2(capabilities) => (Version::V2, capabilities, None),
            Advertisement::V0 { capabilities, refs } => (Version::V0, capabilities, Some(refs)),
        };
        let over_http = base.is_some();
        let server = Server { version, capabilities: Arc::new(capabilities), base };
        if over_http {
            *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server.clone());
        }
        Ok(Session { server, refs, conversation })
    }

    /// Sends a request to `upload-pack`; of the answer at most `limit` bytes are read.
    pub async fn ask(
        &self,
        session: Session,
        request: Bytes,
        limit: u64,
        attempt: &Attempt,
    ) -> Result<Packets, SourceError> {
        match (&self.transport, session.conversation, session.server.base) {
            (_, Some(mut conversation), _) => {
                conversation.send(&request, attempt).await?;
                Ok(Packets::new(Body::Ssh(conversation), limit))
            }
            (Transport::Http(http), None, Some(base)) => http.post(&base, request, limit, attempt).await,
            _ => Err(attempt.protocol("there is no connection to ask on")),
        }
    }

    /// A server's own words for a message.
    pub fn scrub(&self, words: &[u8]) -> String {
        self.access.scrub(&String::from_utf8_lossy(words))
    }
}

/// Only refs whose full names begin with one of the prefixes; none given: all.
fn list_refs(capabilities: &Capabilities, prefixes: &[&str]) -> Bytes {
    let mut body = Encoder::default();
    command(&mut body, "ls-refs", capabilities);
    body.line("peel");
    for prefix in prefixes {
        body.line(&format!("ref-prefix {prefix}"));
    }
    body.flush();
    body.finish()
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
