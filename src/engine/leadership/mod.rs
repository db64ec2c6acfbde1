//! Who writes: the one replica that holds the Leases; with `--shards` the one that holds the Lease of a shard, while all
//! replicas hold those in common that keep Flux and other instances from writing.
//!
//! ```text
//!  standing by ── all Leases are ours ──▶ leading ── one can't be renewed, or is another's ──▶ standing by
//!       ▲                                    │
//!       │                                    ├─ renew every 2/7 of the Lease (10 s of 35 s)
//!       │                                    ├─ the fence shuts 5/7 after the last renewal (25 s): no write begins
//!       │                                    └─ no answer is waited for beyond 34/35 of it (34 s): by then the Lease
//!       │                                       counts as over, and the next one leads within 35 s
//!       └── another replica, or Flux, holds one: said once, looked at twice a second, and right when it is over
//! ```
//!
//! Comes in: the names of our own Lease and of Flux's. Goes out: terms, each with a fence of its own that every write of
//! the term passes. The algorithm is client-go's: whether another's Lease is over is told by how long it has been seen
//! unchanged on our own clock, so that clocks may differ. What it never does: write anything but Leases (and the
//! namespace that ours lives in).

mod claim;
mod election;
mod names;
mod shards;

use tokio::sync::watch;

pub(super) use claim::{Claim, Outcome};
pub use election::{Election, ElectionError, ElectionOptions, Term};
pub use names::{flux_leases, own_lease};
pub use shards::{Shards, Vacant, common_identity, shard_lease};

/// Whether this replica leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The API server was not asked yet, or has not answered.
    Starting,
    /// Somebody else holds a Lease; in words.
    StandingBy(String),
    Leading,
}

/// What others may know of leadership; cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Standing>);

impl Leadership {
    /// Without election: this is the only one.
    pub fn always() -> Self {
        Self(watch::channel(Standing::Leading).1)
    }

    /// One that is told by hand: what the sender says. Standing by at first.
    pub fn told() -> (watch::Sender<Standing>, Self) {
        let (sender, receiver) = watch::channel(Standing::Starting);
        (sender, Self(receiver))
    }

    /// Whether this replica may write. Writes pass the fence in any case: this is for deciding what to do instead.
    pub fn leads(&self) -> bool {
        *self.0.borrow() == Standing::Leading
    }

    pub fn standing(&self) -> Standing {
        self.0.borrow().clone()
    }

    /// Returns when the standing is another than when it was last asked for here; never, once the election is over.
    pub async fn changed(&mut self) -> Standing {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.0.borrow_and_update().clone()
    }
}
