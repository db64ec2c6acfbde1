//! The objects of one kind that a controller has to look at, each at most once in the queue.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::mirror::Key;

/// Pause after a failed reconciliation. The next change of the object comes first if it is sooner.
const RETRY: Duration = Duration::from_millis(200);

/// Bounded by the number of objects of the kind.
#[derive(Default)]
pub(super) struct Queue {
    keys: Mutex<BTreeSet<Key>>,
    added: Notify,
}

impl Queue {
    pub(super) fn add(&self, key: Key) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.added.notify_one();
    }

    fn add_after(self: &Arc<Self>, key: Key, pause: Duration) {
        let queue = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            queue.add(key);
        });
    }

    async fn next(&self) -> Key {
        loop {
            if let Some(key) = self.keys.lock().unwrap_or_else(PoisonError::into_inner).pop_first() {
                return key;
            }
            self.added.notified().await;
        }
    }

    /// Reconciles one object after the other for ever. `reconcile` answers after which time to look again, if time
    /// alone can change what is to be done.
    pub(super) async fn work<E: Display>(
        self: &Arc<Self>,
        controller: &'static str,
        reconcile: impl AsyncFn(&Key) -> Result<Option<Duration>, E>,
    ) {
        loop {
            let key = self.next().await;
            match reconcile(&key).await {
                Ok(None) => {}
                Ok(Some(pause)) => self.add_after(key, pause),
                Err(error) => {
                    tracing::debug!(controller, namespace = key.0, name = key.1, %error, "reconciling again");
                    self.add_after(key, RETRY);
                }
            }
        }
    }
}
