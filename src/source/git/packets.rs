//! The packets of an answer as they arrive, whatever carries them. Bounded in bytes and in silence.

use std::time::Duration;

use super::http::HttpAnswer;
use super::pktline::{Decoder, Packet};
use super::ssh::Conversation;
use crate::source::attempt::Attempt;
use crate::source::error::SourceError;

/// A server that says nothing for this long is given up, however much time is left.
pub const IDLE_MAX: Duration = Duration::from_secs(20);

/// What carries an answer.
pub enum Body {
    Http(HttpAnswer),
    /// Dropping it ends the child process.
    Ssh(Box<Conversation>),
}

pub struct Packets {
    body: Body,
    decoder: Decoder,
    received: u64,
    limit: u64,
}

impl Packets {
    /// Of the answer at most `limit` bytes are read.
    pub fn new(body: Body, limit: u64) -> Packets {
        Packets { body, decoder: Decoder::default(), received: 0, limit }
    }

    /// The next packet; `None` at the end of the answer.
    pub async fn next(&mut self, attempt: &Attempt) -> Result<Option<Packet>, SourceError> {
        loop {
            if let Some(packet) = self.decoder.next_packet().map_err(|error| attempt.protocol(error.to_string()))? {
                return Ok(Some(packet));
            }
            let body = &mut self.body;
            let chunk = tokio::time::timeout(IDLE_MAX, async {
                match body {
                    Body::Http(answer) => answer.chunk(attempt).await,
                    Body::Ssh(conversation) => conversation.chunk(attempt).await,
                }
            });
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
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(idle(attempt)),
            }
        }
    }

    /// What carried the answer, for the next request. Only what was read to the end of a section loses nothing.
    pub fn into_body(self) -> Body {
        self.body
    }
}

pub fn idle(attempt: &Attempt) -> SourceError {
    SourceError::Unreachable { url: attempt.url.clone(), reason: format!("it said nothing for {IDLE_MAX:?}") }
}
