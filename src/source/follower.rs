//! One who follows a ref of a remote: looks when it is time to, and learns what others were shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::watch;

use super::error::SourceError;
use super::pacing::When;
use super::probes::{Probes, Showing};
use super::reference::{Reference, Revision};
use super::remote::Remote;

/// What a remote showed of one reference.
pub struct Sight {
    /// When it was asked, no earlier: what happened before is in it.
    pub began: Instant,
    pub revision: Result<Revision, SourceError>,
}

/// One who follows a reference of a remote. As long as it lives, each answer of the remote holds what that names.
pub struct Follower {
    remote: Arc<Remote>,
    reference: Reference,
    probes: Arc<Probes>,
    news: watch::Receiver<Option<Arc<Showing>>>,
}

impl Follower {
    pub(super) fn new(remote: Arc<Remote>, reference: Reference, probes: &Arc<Probes>) -> Follower {
        let news = probes.follow(&reference);
        Follower { remote, reference, probes: Arc::clone(probes), news }
    }

    /// Looks, if the pace of the remote and its host allow it or somebody's look will do; else says when to ask again.
    pub fn look(&self, when: When, timeout: Duration) -> Result<BoxFuture<'static, Sight>, Instant> {
        // The runtime's clock, which tests can stop.
        let (remote, now) = (&self.remote, tokio::time::Instant::now().into_std());
        remote.look(&self.reference, when.since, timeout, move || remote.permit(when.kind, now))
    }

    /// The next answer that the remote gives, whoever asked.
    pub async fn news(&mut self) -> Sight {
        loop {
            // The sender lives in the remote.
            if self.news.changed().await.is_err() {
                return std::future::pending().await;
            }
            let showing = self.news.borrow_and_update().clone();
            if let Some(showing) = showing
                && let Some(revision) = showing.of(&self.reference)
            {
                return Sight { began: showing.began, revision };
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.probes.unfollow(&self.reference);
    }
}
