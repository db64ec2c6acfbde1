//! The policies in force: written by who watches their folder, read by each attempt and each fetch.

use std::sync::Arc;

use tokio::sync::watch;

use crate::policy::PolicySet;

/// Holds the newest set; clones share it.
#[derive(Clone, Debug)]
pub struct Policies(watch::Sender<Arc<PolicySet>>);

impl Default for Policies {
    fn default() -> Self {
        Self::new(PolicySet::default())
    }
}

impl Policies {
    pub fn new(set: PolicySet) -> Self {
        Self(watch::channel(Arc::new(set)).0)
    }

    pub fn current(&self) -> Arc<PolicySet> {
        self.0.borrow().clone()
    }

    /// Puts another set into force; false if it says what the present one says.
    pub fn replace(&self, set: PolicySet) -> bool {
        self.0.send_if_modified(|current| {
            let is_other = current.digest() != set.digest();
            if is_other {
                *current = Arc::new(set);
            }
            is_other
        })
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<PolicySet>> {
        self.0.subscribe()
    }
}
