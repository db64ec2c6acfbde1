//! The objects of one kind that a controller has to look at, each at most once in the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::cluster::Result;
use super::mirror::Key;

/// Pause after a failed reconciliation. The next change of the object comes first if it is sooner.
const RETRY: Duration = Duration::from_millis(200);

/// Bounded by the number of objects of the kind.
#[derive(Clone, Default)]
pub(super) struct Queue(Arc<Inner>);

#[derive(Default)]
struct Inner {
    keys: Mutex<BTreeSet<Key>>,
    added: Notify,
    /// When to look at an object again, changed or not; at most one each.
    timers: Mutex<BTreeMap<Key, AbortOnDropHandle<()>>>,
}

impl Queue {
    pub(super) fn add(&self, key: Key) {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.0.added.notify_one();
    }

    fn add_after(&self, key: Key, pause: Duration) {
        // Weak: a timer doesn't keep the queue that it is in.
        let (queue, of) = (Arc::downgrade(&self.0), key.clone());
        let timer = tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            if let Some(queue) = queue.upgrade() {
                Self(queue).add(of);
            }
        });
        self.timers().insert(key, AbortOnDropHandle::new(timer));
    }

    pub(super) async fn next(&self) -> Key {
        loop {
            if let Some(key) = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner).pop_first() {
                return key;
            }
            self.0.added.notified().await;
        }
    }

    /// Comes back to an object after a failure, or after the time that its reconciliation named because time alone can
    /// change what is to be done.
    pub(super) fn done(&self, controller: &str, key: Key, outcome: Result<Option<Duration>>) {
        match outcome {
            Ok(None) => drop(self.timers().remove(&key)),
            Ok(Some(pause)) => self.add_after(key, pause),
            Err(error) => {
                tracing::debug!(controller, namespace = key.0, name = key.1, %error, "reconciling again");
                self.add_after(key, RETRY);
            }
        }
    }

    fn timers(&self) -> MutexGuard<'_, BTreeMap<Key, AbortOnDropHandle<()>>> {
        self.0.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
