//! Who serves an application where several instances share the work: it is marked with the Lease of the instance that
//! serves it, and nobody else writes to what it declares while that Lease is held.
//!
//! ```text
//!  in our share ── marked for us ───────────────────────────────────────────▶ served
//!       │                                                                      │ out of our share
//!       └── marked for another Lease ── it is over, or the mark is taken off ──┘ writes answered, then the mark goes
//! ```
//!
//! A mark is set and taken off only at the version of the object that was read, so that of two instances one comes
//! first. An application without a mark is the one's who serves everything. What it never does: take what a living
//! instance has not let go of.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::api::{HELD_BY, Key, Kustomization, STATUS_MANAGER};
use crate::cluster::{ApiError, ApiKind, Cluster, ErrorClass};

use super::leadership::{Claim, Outcome, own_lease};

/// How often the Lease of another instance is looked at while one of its applications is waited for; one look for all.
const LOOK: Duration = Duration::from_secs(1);
/// The pause before a mark that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Namespace and name of a Lease, in bytes, with the slash.
const PLACE_BYTES_MAX: usize = 63 + 1 + 253;

/// What came of wanting an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acquired {
    /// It was marked for us already.
    Ours,
    /// Another instance may have served it until now.
    Taken,
    /// There is no such application any more.
    Gone,
}

type Goal = watch::Receiver<Option<Arc<Kustomization>>>;

/// Our side of it; shared by all workers.
pub(super) struct Hold {
    /// Behind our fence.
    cluster: Cluster,
    /// Our own Lease: `<namespace>/<name>`.
    place: String,
    /// The Lease of the instance that serves everything, which marks nothing.
    unmarked: String,
    /// Who we are in Leases: an older process of ours has ended.
    identity: String,
    looks: Mutex<HashMap<String, Looked>>,
}

/// What is known of another's Lease.
struct Looked {
    claim: Claim,
    at: Option<Instant>,
    /// Who holds it.
    holder: Result<Option<String>, ApiError>,
}

impl Hold {
    pub fn new(cluster: Cluster, namespace: &str, lease: &str, identity: String) -> Self {
        let unmarked = format!("{namespace}/{}", own_lease(None));
        let place = format!("{namespace}/{lease}");
        Self { cluster, place, unmarked, identity, looks: Mutex::default() }
    }

    /// Whether the object has our mark.
    pub fn has_marked(&self, object: &Kustomization) -> bool {
        self.place != self.unmarked && self.holder(object) == self.place
    }

    /// Returns once the application is ours to serve.
    pub async fn acquire(&self, key: &Key, goal: &mut Goal) -> Acquired {
        let mut said = false;
        loop {
            let Some(object) = goal.borrow_and_update().clone() else { return Acquired::Gone };
            let holder = self.holder(&object);
            if holder == self.place {
                return Acquired::Ours;
            }
            let pause = match self.others(holder).await {
                Ok(None) => match self.mark(key, &object, true).await {
                    Ok(()) => return Acquired::Taken,
                    Err(error) if error.is_not_found() => return Acquired::Gone,
                    // somebody wrote to the object; the watch is about to show it
                    Err(error) if error.class == ErrorClass::Conflict => LOOK,
                    Err(error) => {
                        tracing::warn!(object = %key, %error, "it could not be marked as served here; tried again");
                        RETRY
                    }
                },
                Ok(Some(identity)) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::info!(object = %key, lease = holder, holder = identity, "waiting until the instance that serves it lets go");
                    }
                    LOOK
                }
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(object = %key, lease = holder, %error, "whether the instance that serves it still runs can't be seen; it is waited for\nhint: the daemon needs to get that Lease; or, if that instance is gone for good, remove the annotation `{HELD_BY}`");
                    }
                    RETRY
                }
            };
            tokio::select! {
                changed = goal.changed() => if changed.is_err() { return Acquired::Gone },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Says that we serve the application no more; all that was written to it has been answered.
    pub async fn release(&self, key: &Key, goal: &mut Goal) {
        loop {
            let Some(object) = goal.borrow_and_update().clone() else { return };
            if !self.has_marked(&object) {
                return;
            }
            let pause = match self.mark(key, &object, false).await {
                Ok(()) => {
                    tracing::info!(object = %key, "let go: other instances may serve it");
                    return;
                }
                Err(error) if error.is_not_found() => return,
                Err(error) if error.class == ErrorClass::Conflict => LOOK,
                Err(error) => {
                    tracing::warn!(object = %key, %error, "it could not be let go; tried again");
                    RETRY
                }
            };
            tokio::select! {
                changed = goal.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Of the Lease whose holder serves the application.
    fn holder<'a>(&'a self, object: &'a Kustomization) -> &'a str {
        object.annotation(HELD_BY).unwrap_or(&self.unmarked)
    }

    /// Who holds another's Lease; `None`: nobody.
    async fn others(&self, place: &str) -> Result<Option<String>, ApiError> {
        // what no instance can have written is nobody's
        let Some((namespace, name)) = place.split_once('/').filter(|_| place.len() <= PLACE_BYTES_MAX) else {
            return Ok(None);
        };
        let mut looks = self.looks.lock().await;
        let known = looks.entry(place.to_owned()).or_insert_with(|| Looked {
            claim: Claim::of_another(namespace, name),
            at: None,
            holder: Ok(None),
        });
        if known.at.is_none_or(|at| at.elapsed() >= LOOK) {
            let seen = known.claim.look(&self.cluster, &self.identity).await;
            known.holder = seen.map(|outcome| match outcome {
                Some(Outcome::Others { holder, .. }) => Some(holder),
                _ => None,
            });
            known.at = Some(Instant::now());
        }
        known.holder.clone()
    }

    async fn mark(&self, key: &Key, object: &Kustomization, ours: bool) -> Result<(), ApiError> {
        // who serves everything marks nothing
        let mark = if ours && self.place != self.unmarked { Value::from(self.place.as_str()) } else { Value::Null };
        let version = object.metadata.resource_version.as_deref();
        let patch = json!({"metadata": {"annotations": {HELD_BY: mark}, "resourceVersion": version}});
        let kind = ApiKind::kustomization();
        let id = kind.object(key.namespace.as_str(), key.name.as_str());
        self.cluster.merge_patch(&kind, &id, &patch, None, STATUS_MANAGER).await.map(drop)
    }
}
