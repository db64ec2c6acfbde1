//! One piece of work on a remote: its deadline and its cancellation, in one place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::SourceError;
use super::url::SourceUrl;

/// Everything that waits for a remote waits through [`Attempt::run`], so nothing waits without an end.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub url: SourceUrl,
    timeout: Duration,
    deadline: Instant,
    cancel: CancellationToken,
    /// Bytes that came from the remote, added up over its attempts.
    received: Arc<AtomicU64>,
}

impl Attempt {
    pub fn new(url: &SourceUrl, timeout: Duration, cancel: CancellationToken) -> Attempt {
        Attempt { url: url.clone(), timeout, deadline: Instant::now() + timeout, cancel, received: Arc::default() }
    }

    /// Adds what is received to the remote's own count.
    pub fn counting(self, received: &Arc<AtomicU64>) -> Attempt {
        Attempt { received: Arc::clone(received), ..self }
    }

    pub fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Waits for `work`, but not beyond the deadline and not after a cancellation. `doing` completes "while …".
    pub async fn run<F: Future>(&self, doing: &'static str, work: F) -> Result<F::Output, SourceError> {
        // A server that always has more to say would never let the timer have its turn.
        if Instant::now() >= self.deadline {
            return Err(self.timeout(doing));
        }
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(SourceError::Cancelled { url: self.url.clone() }),
            output = work => Ok(output),
            () = tokio::time::sleep_until(self.deadline) => Err(self.timeout(doing)),
        }
    }

    pub fn timeout(&self, doing: &'static str) -> SourceError {
        SourceError::Timeout { url: self.url.clone(), after: self.timeout, doing }
    }

    pub fn protocol(&self, reason: impl Into<String>) -> SourceError {
        SourceError::Protocol { url: self.url.clone(), reason: reason.into() }
    }

    pub fn store(&self, reason: impl Into<String>) -> SourceError {
        SourceError::Store { url: self.url.clone(), reason: reason.into() }
    }
}
