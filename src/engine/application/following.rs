//! What live Secrets and ConfigMaps an application's workloads read, and which changes of them wait to be taken up.
//!
//! Comes in: what their watches tell. Goes out: the moment at which a burst of changes is over. Reads nothing itself.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::engine::references::{Digested, Held, Reference};
use crate::manifest::ObjectId;
use crate::rollout::Wish;

use super::configuration::Overlay;

/// A burst is over this long after its last change.
const BURST_QUIET: Duration = Duration::from_secs(1);
/// A burst that doesn't end is taken up after this time, from its first change on.
const BURST_MAX: Duration = Duration::from_secs(5);

/// What an application's workloads follow. Written by the attempt, and by the worker while a burst goes on.
#[derive(Default)]
pub(super) struct Following {
    pub overlays: HashMap<ObjectId, Overlay>,
    pub live: BTreeMap<Reference, Followed>,
    /// Of declared objects, the keys that others held when that was last taken into account.
    pub keys_of_others: BTreeMap<ObjectId, Vec<Box<str>>>,
    /// What the namespaces asked for when that was last taken into account.
    pub namespaces: BTreeMap<String, Option<Wish>>,
    pub burst: Option<Burst>,
    pub read_again_at: Option<Instant>,
    /// Rung when other objects are followed than before.
    pub bell: watch::Sender<u64>,
}

/// A live object that is followed.
pub(super) struct Followed {
    pub held: Held,
    pub used: Used,
    /// The version that the burst has counted.
    pub noticed: Option<Option<String>>,
}

/// What was last taken into account of a live object.
pub(super) enum Used {
    /// It was not read yet.
    Nothing,
    Read(Digested),
    /// It could not be read when the watch knew this version, or none.
    Failed(Option<Option<String>>),
}

impl Followed {
    /// True if there is something that was not taken into account.
    pub fn is_outdated(&self) -> bool {
        match (&self.used, self.held.version()) {
            (Used::Nothing, _) => false,
            (Used::Failed(then), now) => now.is_some() && *then != now,
            (Used::Read(_), None) => false,
            (Used::Read(used), Some(now)) => used.version != now,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Burst {
    first: Instant,
    last: Instant,
}

impl Burst {
    fn over_at(&self) -> Instant {
        (self.last + BURST_QUIET).min(self.first + BURST_MAX)
    }
}

impl Following {
    /// Takes notice of what changed since it was last taken into account; answers when that is to be taken up.
    pub fn notice(&mut self, now: Instant) -> Option<Instant> {
        let mut outdated = false;
        for followed in self.live.values_mut() {
            if !followed.is_outdated() {
                followed.noticed = None;
                continue;
            }
            outdated = true;
            let version = followed.held.version();
            if followed.noticed != version {
                followed.noticed = version;
                self.burst = Some(Burst { first: self.burst.map_or(now, |burst| burst.first), last: now });
            }
        }
        if !outdated {
            self.burst = None;
        }
        self.burst.map(|burst| burst.over_at())
    }
}
