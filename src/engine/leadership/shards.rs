//! Sharding over replicas: each shard has a Lease, and the replicas that live hold a fair part of them.
//!
//! ```text
//!  replicas ── each holds a place: `afresh-replica-0` … ──▶ who lives, and who is which of them ─┐
//!  shards   ── each has a holder:  `afresh-shard-0` …   ──▶ which are free ──────────────────────┤
//!                                                                                                ▼
//!             too many held: one is given up, its writes answered first ◀── fair part ──▶ too few: a free one is taken
//! ```
//!
//! Comes in: the Leases of the installation, listed once a second. Goes out: which shards are served here, each in a term
//! of its own. The parts are the same whoever counts: `N / replicas`, and one more for the first of them where that
//! leaves a rest. What it never does: take a shard that another replica holds, or give one up while a write of it is
//! under way.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claim::{Claim, Outcome, Whose};
use super::election::ElectionOptions;
use crate::cluster::{ApiError, ApiKind, Cluster, Lease};
use crate::report::Readiness;

/// The Lease of a shard.
pub fn shard_lease(index: u32) -> String {
    format!("afresh-shard-{index}")
}

/// The Lease of a replica's place.
fn replica_lease(place: u32) -> String {
    format!("afresh-replica-{place}")
}

/// Who all replicas are together: the Leases that keep others from writing are held by all of them in common, so that
/// each may renew them. Replicas that count other shards are others.
pub fn common_identity(shards: u32) -> String {
    format!("afresh-of-{shards}-shards")
}

/// The Lease of a shard that nobody holds, with what was seen of it: since when it is unchanged.
#[derive(Clone, Debug)]
pub struct Vacant(pub(super) Claim);

/// Which replicas live, and which shards nobody holds, as it was seen last.
#[derive(Clone, Debug, Default)]
struct Census {
    /// Our place; `None`: all are taken.
    place: Option<u32>,
    /// The places of all replicas that live, ours included.
    living: BTreeSet<u32>,
    /// Shards that nobody holds, or we do.
    free: BTreeMap<u32, Vacant>,
}

impl Census {
    /// How many shards are our part; `None`: we have no place.
    fn part(&self, shards: u32) -> Option<usize> {
        let place = self.place?;
        let rank = self.living.range(..place).count();
        let (shards, living) = (shards as usize, self.living.len().max(1));
        Some(shards / living + usize::from(rank < shards % living))
    }
}

/// The shards of an installation, as one replica sees them.
pub struct Shards {
    cluster: Cluster,
    /// Who we are, where our Leases live and how long they last.
    options: ElectionOptions,
    shards: u32,
    readiness: Readiness,
}

impl Shards {
    /// `cluster` may not be behind a fence of a shard.
    pub fn new(cluster: Cluster, options: ElectionOptions, shards: u32, readiness: Readiness) -> Self {
        Self { cluster, options, shards, readiness }
    }

    /// Serves our part of the shards until stopped: `serve` takes the Lease of a shard, serves it and gives it up, and
    /// returns soon when the Lease is another's after all. Returns once all have ended.
    pub async fn share<'a, E: Send>(
        &self,
        stop: &CancellationToken,
        serve: impl Fn(u32, Vacant, CancellationToken) -> Pin<Box<dyn Future<Output = Result<(), E>> + Send + 'a>>,
    ) -> Result<(), E> {
        let (told, mut census) = watch::channel(Census::default());
        let taking_part = self.cluster.tasks().spawn(
            "the census of replicas",
            Taker::new(self.cluster.clone(), self.options.clone(), self.shards).count(told),
        );
        let _counted = AbortOnDrop(taking_part);
        let mut held: BTreeMap<u32, CancellationToken> = BTreeMap::new();
        let mut serving = FuturesUnordered::new();
        let mut result = Ok(());
        loop {
            tokio::select! {
                Some((shard, ended)) = serving.next() => {
                    held.remove(&shard);
                    if let Err(error) = ended {
                        result = Err(error);
                        break;
                    }
                }
                changed = census.changed() => if changed.is_err() { break },
                () = stop.cancelled() => break,
            }
            let seen = census.borrow_and_update().clone();
            let Some(part) = seen.part(self.shards) else {
                // all places are taken: it stands by for one. Who had one gets it again in a moment
                if !seen.living.is_empty() {
                    self.readiness.set();
                }
                continue;
            };
            let staying = held.values().filter(|end| !end.is_cancelled()).count();
            let surplus = held.iter().rev().filter(|(_, end)| !end.is_cancelled());
            for (shard, end) in surplus.take(staying.saturating_sub(part)) {
                tracing::info!(shard, "giving up a shard: other replicas have too few");
                end.cancel();
            }
            let free: Vec<_> = seen.free.into_iter().filter(|(shard, _)| !held.contains_key(shard)).collect();
            for (shard, vacant) in free.into_iter().take(part.saturating_sub(staying)) {
                let end = stop.child_token();
                held.insert(shard, end.clone());
                let work = serve(shard, vacant, end);
                serving.push(async move { (shard, work.await) });
            }
        }
        held.values().for_each(CancellationToken::cancel);
        while let Some((_, ended)) = serving.next().await {
            result = result.and(ended);
        }
        result
    }

    /// Gives up our place, so that the others need not wait for its end. True if no other replica lives.
    pub async fn leave(&self) -> bool {
        let mut taker = Taker::new(self.cluster.clone(), self.options.clone(), self.shards);
        match tokio::time::timeout(LEAVE_MAX, taker.leave()).await {
            Ok(Ok(alone)) => alone,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the place of this replica could not be given up; it runs out by itself");
                false
            }
            Err(_) => false,
        }
    }
}

/// The end of the process may not take long.
const LEAVE_MAX: Duration = Duration::from_millis(900);

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks at the Leases of replicas and shards, and keeps our own place.
struct Taker {
    cluster: Cluster,
    options: ElectionOptions,
    places: Vec<Claim>,
    shards: Vec<Claim>,
    place: Option<u32>,
}

impl Taker {
    fn new(cluster: Cluster, options: ElectionOptions, shards: u32) -> Self {
        let claim = |name: String| Claim::new(Whose::Ours, &options.namespace, &name);
        // a replica more than shards would have nothing to do
        let places = (0..shards).map(|place| claim(replica_lease(place))).collect();
        let shards = (0..shards).map(|shard| claim(shard_lease(shard))).collect();
        Self { cluster, options, places, shards, place: None }
    }

    async fn count(mut self, told: watch::Sender<Census>) {
        let mut said = None;
        loop {
            match self.look().await {
                Ok(census) => {
                    said = None;
                    // also the same is told: who lost a race for a shard looks again
                    told.send_replace(census);
                }
                Err(error) if said.as_ref() == Some(&error.message) => {}
                Err(error) => {
                    tracing::warn!(%error, "the Leases of the replicas could not be looked at; tried again\nhint: the daemon needs to list, get, create and update Leases in its namespace; manifests/replicas grants it");
                    said = Some(error.message);
                }
            }
            tokio::time::sleep(self.options.look_every() * 2).await;
        }
    }

    async fn look(&mut self) -> Result<Census, ApiError> {
        let listed = self.cluster.list(&ApiKind::lease(), Some(&self.options.namespace)).await?;
        let by_name: BTreeMap<String, Lease> = listed.into_iter().filter_map(named).collect();
        let identity = &self.options.identity;
        let mut census = Census::default();
        let mut vacant = None;
        for (place, claim) in (0..).zip(&mut self.places) {
            let holder = by_name.get(&claim.name).map(|lease| lease.tenure().holder);
            match claim.seen(by_name.get(&claim.name).cloned(), identity) {
                Some(_) => drop(census.living.insert(place)),
                // a restart on the same data dir finds its place
                None if holder.as_ref() == Some(identity) => self.place = self.place.or(Some(place)),
                None => vacant = vacant.or(Some(place)),
            }
        }
        for (shard, claim) in (0..).zip(&mut self.shards) {
            if claim.seen(by_name.get(&claim.name).cloned(), identity).is_none() {
                census.free.insert(shard, Vacant(claim.clone()));
            }
        }
        census.place = self.keep(vacant).await;
        census.living.extend(census.place);
        Ok(census)
    }

    /// Renews our place, or takes one that is vacant.
    async fn keep(&mut self, vacant: Option<u32>) -> Option<u32> {
        let place = self.place.or(vacant)?;
        let (cluster, options) = (&self.cluster, &self.options);
        let claim = self.places.get_mut(place as usize)?;
        let due = claim.held_since().is_none_or(|since: Instant| since.elapsed() >= options.renew_every());
        if due {
            let asked = claim.acquire_or_renew(cluster, &options.identity, options.duration);
            match tokio::time::timeout(options.renew_every(), asked).await {
                Ok(Outcome::Held) => {
                    if self.place.is_none() {
                        tracing::info!(place, "taking part");
                    }
                    self.place = Some(place);
                }
                Ok(Outcome::Others { .. }) => self.place = None,
                Ok(Outcome::NoSuchPlace) => {}
                Ok(Outcome::Failed(error)) => {
                    tracing::debug!(%error, "the place of this replica could not be renewed; tried again");
                }
                Err(_) => {}
            }
        }
        self.place
    }

    async fn leave(&mut self) -> Result<bool, ApiError> {
        let listed = self.cluster.list(&ApiKind::lease(), Some(&self.options.namespace)).await?;
        let by_name: BTreeMap<String, Lease> = listed.into_iter().filter_map(named).collect();
        let mut alone = true;
        for claim in &mut self.places {
            let Some(lease) = by_name.get(&claim.name).cloned() else { continue };
            match lease.tenure().holder {
                holder if holder == self.options.identity => {
                    claim.seen(Some(lease), &self.options.identity);
                    claim.release(&self.cluster, &self.options.identity).await?;
                }
                holder => alone &= holder.is_empty(),
            }
        }
        Ok(alone)
    }
}

fn named(lease: Value) -> Option<(String, Lease)> {
    let name = lease.pointer("/metadata/name")?.as_str()?.to_owned();
    Some((name, Lease::from(lease)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_replica_counts_the_same_fair_parts() {
        for (shards, living, expected) in [
            (4, vec![0], vec![4]),
            (4, vec![0, 1], vec![2, 2]),
            (4, vec![0, 2, 3], vec![2, 1, 1]),
            (3, vec![1, 2], vec![2, 1]),
            (2, vec![0, 1], vec![1, 1]),
        ] {
            let parts: Vec<_> = living
                .iter()
                .map(|place| {
                    let living = living.iter().copied().collect();
                    Census { place: Some(*place), living, free: BTreeMap::new() }.part(shards).unwrap()
                })
                .collect();
            assert_eq!(parts, expected, "{shards} shards, {living:?}");
            assert_eq!(parts.iter().sum::<usize>(), shards as usize);
        }
        assert_eq!(Census::default().part(4), None);
    }
}
