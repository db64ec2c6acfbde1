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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::Reading;

    /// When changes, in milliseconds from the first, are taken up.
    async fn taken_up_at(changes: &[u64]) -> u64 {
        let reference = Reference::secret("shop", "a");
        let (held, seen) = Held::told_by_hand(&reference);
        let version = |number: usize| Some(number.to_string());
        let used = Used::Read(Digested { version: version(0), reading: Reading::Absent });
        let mut following = Following::default();
        following.live.insert(reference, Followed { held, used, noticed: None });
        let start = Instant::now();
        seen.tell(version(0));
        assert_eq!(following.notice(start), None, "nothing has changed");
        let mut over_at = None;
        for (number, at) in changes.iter().enumerate() {
            let now = start + Duration::from_millis(*at);
            seen.tell(version(number + 1));
            over_at = following.notice(now);
            // looked at again because something else was told: no change of its own
            assert_eq!(following.notice(now + Duration::from_millis(50)), over_at, "{changes:?}");
        }
        u64::try_from((over_at.expect("there is a change") - start).as_millis()).expect("some seconds")
    }

    #[tokio::test]
    async fn a_burst_is_taken_up_one_second_after_its_last_change_and_five_after_its_first_at_most() {
        let cases: [(&[u64], u64); 6] = [
            (&[0], 1000),
            (&[0, 999], 1999),
            (&[0, 300, 600, 900], 1900),
            (&[0, 900, 1800, 2700, 3600], 4600),
            (&[0, 900, 1800, 2700, 3600, 4500], 5000),
            (&[0, 900, 1800, 2700, 3600, 4500, 4999], 5000),
        ];
        for (changes, expected) in cases {
            assert_eq!(taken_up_at(changes).await, expected, "{changes:?}");
        }
    }

    #[tokio::test]
    async fn a_change_that_is_taken_back_is_no_burst() {
        let reference = Reference::secret("shop", "a");
        let (held, seen) = Held::told_by_hand(&reference);
        let mut following = Following::default();
        let used = Used::Read(Digested { version: None, reading: Reading::Absent });
        following.live.insert(reference, Followed { held, used, noticed: None });
        let start = Instant::now();
        seen.tell(Some("1".into()));
        assert!(following.notice(start).is_some());
        seen.tell(None);
        assert_eq!(following.notice(start + Duration::from_millis(500)), None, "it is gone again");
        seen.tell(Some("2".into()));
        let later = start + Duration::from_secs(3);
        assert_eq!(following.notice(later), Some(later + BURST_QUIET), "a burst of its own");
    }
}
