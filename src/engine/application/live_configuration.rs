//! The live Secrets and ConfigMaps that workloads read: followed while somebody reads them, read anew once a burst of their
//! changes is over. Comes in: which they are. Goes out: what they hold as digests, and the news that it is another.
//! Changes are taken up together, one second after the last of a burst and at most five after its first; until then they
//! count as they were.

use std::time::{Duration, Instant};

use futures::future::select_all;
use tokio::sync::watch;

use crate::cluster::ErrorClass;
use crate::engine::references::{Held, Reference};
use crate::manifest::ObjectId;
use crate::rollout::Reading;

use super::Application;
use super::following::{Followed, Used};

/// What could not be read for a passing reason is asked for again after this time.
const READ_AGAIN: Duration = Duration::from_secs(15);

impl Application {
    /// Watches these from now on, and nothing else.
    pub(super) fn follow(&self, wanted: impl Iterator<Item = Reference>) {
        let mut following = self.following();
        let mut before = std::mem::take(&mut following.live);
        let mut changed = false;
        for reference in wanted {
            let followed = before.remove(&reference).unwrap_or_else(|| {
                changed = true;
                Followed { held: self.shared.references.hold(&reference), used: Used::Nothing, noticed: None }
            });
            following.live.insert(reference, followed);
        }
        changed |= !before.is_empty();
        if changed {
            following.bell.send_modify(|n| *n += 1);
        }
    }

    /// What a live object holds. While a burst goes on, what it held before.
    pub(super) async fn live_reading(&self, reference: &Reference) -> Reading {
        let held = {
            let mut following = self.following();
            let settling = following.notice(Instant::now()).is_some();
            let Some(followed) = following.live.get(reference) else {
                return Reading::Unreadable("it is not followed".into());
            };
            match &followed.used {
                Used::Read(used) if settling => return used.reading.clone(),
                _ => followed.held.clone(),
            }
        };
        let read = self.shared.references.digests(&held, &self.shared.digest_key).await;
        let mut following = self.following();
        match read {
            Ok(digested) => {
                let reading = digested.reading.clone();
                if let Some(followed) = following.live.get_mut(reference) {
                    followed.used = Used::Read(digested);
                }
                reading
            }
            Err(error) => {
                if error.class != ErrorClass::Forbidden {
                    following.read_again_at = Some(Instant::now() + READ_AGAIN);
                }
                if let Some(followed) = following.live.get_mut(reference) {
                    followed.used = Used::Failed(followed.held.version());
                }
                Reading::Unreadable(error.to_string())
            }
        }
    }

    /// True if others hold other keys of what is declared than when that was last taken into account.
    pub(super) fn others_changed_keys(&self) -> bool {
        let held_now = |id: &ObjectId| self.shared.observed.get(id).map(|seen| seen.keys_of_others.clone());
        let following = self.following();
        following.keys_of_others.iter().any(|(id, then)| held_now(id).is_some_and(|now| now != *then))
    }

    /// Returns when what is followed has changed and is to be taken into account.
    pub(super) async fn configuration_changed(&self) {
        let mut namespaces = None;
        loop {
            // asked for only where there are workloads
            if namespaces.is_none() && !self.following().namespaces.is_empty() {
                namespaces = Some(self.shared.namespaces.changes());
            }
            let mut bells: Vec<watch::Receiver<u64>> = {
                let following = self.following();
                let bell = following.bell.subscribe();
                following.live.values().map(|followed| followed.held.bell()).chain([bell]).collect()
            };
            if let Some(namespaces) = &mut namespaces {
                namespaces.borrow_and_update();
            }
            let (over_at, read_again_at) = {
                let mut following = self.following();
                let asked = following.namespaces.iter();
                if asked.clone().any(|(name, wish)| self.shared.namespaces.wish(name) != *wish) {
                    // told once: the attempt that follows takes it into account
                    for (name, wish) in &mut following.namespaces {
                        *wish = self.shared.namespaces.wish(name);
                    }
                    return;
                }
                (following.notice(Instant::now()), following.read_again_at)
            };
            let rung = select_all(bells.iter_mut().map(|bell| Box::pin(bell.changed())));
            tokio::select! {
                _ = rung => {}
                () = changed(&mut namespaces) => {}
                () = at(over_at) => {
                    if Box::pin(self.take_up()).await {
                        return;
                    }
                }
                () = at(read_again_at) => {
                    self.following().read_again_at = None;
                    if Box::pin(self.take_up()).await {
                        return;
                    }
                }
            }
        }
    }

    /// Takes in what live objects hold now. True if any of it is other than before: a label of an object is not.
    async fn take_up(&self) -> bool {
        let outdated: Vec<(Reference, Held)> = {
            let following = self.following();
            let outdated = following.live.iter().filter(|(_, f)| f.is_outdated() || matches!(f.used, Used::Failed(_)));
            outdated.map(|(reference, followed)| (reference.clone(), followed.held.clone())).collect()
        };
        let mut changed = false;
        for (reference, held) in outdated {
            let read = self.shared.references.digests(&held, &self.shared.digest_key).await;
            let mut following = self.following();
            let Some(followed) = following.live.get_mut(&reference) else { continue };
            match read {
                Ok(digested) => {
                    changed |= !matches!(&followed.used, Used::Read(used) if used.reading == digested.reading);
                    followed.used = Used::Read(digested);
                    followed.noticed = None;
                }
                Err(error) => {
                    tracing::debug!(object = %self.key, %reference, %error, "what a workload reads could not be read");
                    changed |= matches!(followed.used, Used::Read(_));
                    followed.used = Used::Failed(followed.held.version());
                    if error.class != ErrorClass::Forbidden {
                        following.read_again_at = Some(Instant::now() + READ_AGAIN);
                    }
                }
            }
        }
        self.following().burst = None;
        changed
    }
}

async fn changed<T>(cell: &mut Option<watch::Receiver<T>>) {
    let open = match cell {
        Some(cell) => cell.changed().await.is_ok(),
        None => false,
    };
    if !open {
        std::future::pending().await
    }
}

pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
