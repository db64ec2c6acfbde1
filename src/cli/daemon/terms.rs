//! Serving by terms of leadership: as the one that leads, or as one of the replicas that divide the shards among themselves.
//!
//! A term ends with its Lease, or when we are told to end; whatever serves in it is stopped first, and the Lease is given up
//! only once no write of ours can be under way.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Daemon, Part};
use crate::cluster::Fence;
use crate::engine::{self, Election, ElectionOptions, Ended, Shards, Share, Standing, Term, Vacant};

/// Cancelled when a term is lost, or with `cancel`, or when it is dropped.
fn stopped_by(lost: &CancellationToken, cancel: &CancellationToken) -> Stopped {
    let stop = cancel.child_token();
    let (lost, end) = (lost.clone(), stop.clone());
    let task = tokio::spawn(async move {
        lost.cancelled().await;
        end.cancel();
    });
    Stopped { stop, task }
}

struct Stopped {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl std::ops::Deref for Stopped {
    type Target = CancellationToken;

    fn deref(&self) -> &CancellationToken {
        &self.stop
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Daemon {
    /// Serves whenever this replica leads, until cancelled.
    pub(super) async fn lead(
        &self,
        mut election: Election,
        part: &Part,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            let Some(term) = election.win(&cancel).await? else {
                election.release().await;
                return Ok(());
            };
            self.serve_term(&mut election, term, part, None, &cancel).await?;
            if cancel.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Serves until the term is over or cancelled, and gives up its Leases. `outer`: what writes have to pass besides.
    async fn serve_term(
        &self,
        election: &mut Election,
        term: Term,
        part: &Part,
        outer: Option<&Fence>,
        cancel: &CancellationToken,
    ) -> anyhow::Result<()> {
        let stop = stopped_by(&term.lost, cancel);
        let fence = outer.map_or(term.fence.clone(), |outer| term.fence.clone().within(outer));
        let result = self.serve(part, self.cluster.behind(fence.clone()), fence.clone(), (*stop).clone()).await;
        // nothing could be written any more, or we were told to end
        let lost = term.lost.is_cancelled() || (outer.is_some() && fence.admit().is_err());
        // a write that is still under way must not meet a successor: the Leases then run out by themselves
        let quiet = result.as_ref().is_ok_and(|ended| *ended == Ended::Quiet);
        election.end(term, quiet && !lost).await?;
        match result {
            // what failed because of that is no reason to end
            Err(error) if lost => tracing::warn!("the work of this term ended: {error:#}"),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        Ok(())
    }

    /// Serves our part of the shards whenever the replicas together hold the Leases, until cancelled. `first` is told
    /// whether the first shard is ours.
    pub(super) async fn lead_together(
        &self,
        mut election: Election,
        shards: u32,
        first: &watch::Sender<Standing>,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        let own = self.election_options()?.context("shards need Leases")?;
        let replicas = Shards::new(self.cluster.clone(), own.clone(), shards, self.readiness.clone());
        loop {
            let Some(term) = election.win(&cancel).await? else { return Ok(()) };
            let stop = stopped_by(&term.lost, &cancel);
            let serve = self.server_of_shards(&own, shards, first, &term.fence);
            let result = replicas.share(&stop, serve).await;
            let lost = term.lost.is_cancelled();
            // the others go on, and hold in common what we leave
            let alone = cancel.is_cancelled() && replicas.leave().await;
            election.end(term, alone && result.is_ok() && !lost).await?;
            result?;
            if cancel.is_cancelled() {
                return Ok(());
            }
        }
    }

    fn server_of_shards<'a>(
        &'a self,
        own: &ElectionOptions,
        shards: u32,
        first: &'a watch::Sender<Standing>,
        outer: &Fence,
    ) -> impl Fn(u32, Vacant, CancellationToken) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>> + use<'a>
    {
        let (own, outer) = (own.clone(), outer.clone());
        move |index, vacant, end| {
            let share = Share::Shard { index, of: shards };
            Box::pin(self.serve_shard(own.clone(), share, vacant, first, outer.clone(), end))
        }
    }

    /// Takes a shard and serves it until it is lost or `end` is cancelled.
    async fn serve_shard(
        &self,
        own: ElectionOptions,
        share: Share,
        vacant: Vacant,
        first: &watch::Sender<Standing>,
        outer: Fence,
        end: CancellationToken,
    ) -> anyhow::Result<()> {
        let shard = share.shard().unwrap_or_default();
        let patience = own.duration / 7;
        let options =
            ElectionOptions { lease: engine::shard_lease(shard), flux_namespace: None, flux_leases: Vec::new(), ..own };
        let metrics = self.metrics.clone();
        let office = Arc::new(move |serves| metrics.shard(shard, serves));
        let mut election = Election::of_shard(self.cluster.clone(), options, vacant, office, self.readiness.clone());
        let term = match tokio::time::timeout(patience, election.win(&end)).await {
            Ok(won) => won?,
            // another replica was quicker
            Err(_) => None,
        };
        let Some(term) = term else {
            election.release().await;
            return Ok(());
        };
        if shard == 0 {
            first.send_replace(Standing::Leading);
        }
        let branch = self.sources.branch();
        let part = Part { share, sources: branch.sources.clone(), folder: shard == 0 };
        let result = self.serve_term(&mut election, term, &part, Some(&outer), &end).await;
        if shard == 0 {
            first.send_replace(Standing::Starting);
        }
        result
    }
}
