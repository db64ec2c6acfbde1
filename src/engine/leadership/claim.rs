//! One Lease and our claim to it: client-go's algorithm for a single resource lock.

use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio::time::{Duration, Instant};

use crate::cluster::{ApiError, ApiKind, Cluster, ErrorClass, Lease, Tenure};

/// Whose Lease it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Whose {
    Ours,
    /// Held so that Flux's controller of that name stands by.
    Flux,
}

/// A Lease that we want.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Claim {
    pub whose: Whose,
    pub namespace: String,
    pub name: String,
    /// As it was last read or written, and when it was first seen so: by our clock.
    observed: Option<(Lease, Instant)>,
    /// When the last successful renewal was begun: the Lease is ours for its duration from then on.
    held_since: Option<Instant>,
}

/// What came of one try.
#[derive(Debug)]
pub(in crate::engine) enum Outcome {
    Held,
    /// Another's, which is not over yet.
    Others {
        holder: String,
        /// How long until it counts as over, unless it is renewed.
        left: Duration,
    },
    /// The namespace of Flux's Lease does not exist: there is no Flux to keep from writing.
    NoSuchPlace,
    /// Somebody wrote it at the same moment, or the API server did not do as asked.
    Failed(ApiError),
}

impl Claim {
    pub fn new(whose: Whose, namespace: &str, name: &str) -> Self {
        Self { whose, namespace: namespace.into(), name: name.into(), observed: None, held_since: None }
    }

    /// To look at only.
    pub fn of_another(namespace: &str, name: &str) -> Self {
        Self::new(Whose::Ours, namespace, name)
    }

    pub fn held_since(&self) -> Option<Instant> {
        self.held_since
    }

    /// Whose it is now; nothing is written. `None`: nobody's, or one that is over, or ours.
    pub async fn look(&mut self, cluster: &Cluster, identity: &str) -> Result<Option<Outcome>, ApiError> {
        let found = cluster.get_lease(&self.namespace, &self.name).await?;
        Ok(found.and_then(|lease| self.others(lease, identity)))
    }

    /// As [`Claim::look`], for a Lease that was listed.
    pub fn seen(&mut self, found: Option<Lease>, identity: &str) -> Option<Outcome> {
        found.and_then(|lease| self.others(lease, identity))
    }

    /// Renews the Lease if it is ours, takes it if nobody holds it or its holder is silent for its duration.
    pub async fn acquire_or_renew(&mut self, cluster: &Cluster, identity: &str, duration: Duration) -> Outcome {
        let began = Instant::now();
        match self.try_to_hold(cluster, identity, duration).await {
            Ok(Ok(lease)) => {
                self.observed = Some((lease, began));
                self.held_since = Some(began);
                Outcome::Held
            }
            Ok(Err(outcome)) => {
                if matches!(outcome, Outcome::Others { .. }) {
                    self.held_since = None;
                }
                outcome
            }
            Err(error) => Outcome::Failed(error),
        }
    }

    async fn try_to_hold(
        &mut self,
        cluster: &Cluster,
        identity: &str,
        duration: Duration,
    ) -> Result<Result<Lease, Outcome>, ApiError> {
        // what is ours as last seen needs no reading; if it changed since, the server says so
        if let Some((lease, _)) = self.observed.as_ref().filter(|(lease, _)| lease.tenure().holder == identity)
            && let Ok(renewed) = cluster.replace_lease(lease, &next(&lease.tenure(), identity, duration)).await
        {
            return Ok(Ok(renewed));
        }
        let mut tries = 1;
        loop {
            let Some(found) = cluster.get_lease(&self.namespace, &self.name).await? else {
                return self.create(cluster, &first(identity, duration)).await;
            };
            if let Some(others) = self.others(found.clone(), identity) {
                return Ok(Err(others));
            }
            match cluster.replace_lease(&found, &next(&found.tenure(), identity, duration)).await {
                // those who hold it in common with us renew it, too
                Err(error) if error.class == ErrorClass::Conflict && tries < TRIES_MAX => tries += 1,
                result => return Ok(Ok(result?)),
            }
        }
    }

    async fn create(&self, cluster: &Cluster, tenure: &Tenure) -> Result<Result<Lease, Outcome>, ApiError> {
        match cluster.create_lease(&self.namespace, &self.name, tenure).await {
            Err(error) if error.class == ErrorClass::NamespaceMissing && self.whose == Whose::Flux => {
                Ok(Err(Outcome::NoSuchPlace))
            }
            Err(error) if error.class == ErrorClass::NamespaceMissing => {
                make_namespace(cluster, &self.namespace).await?;
                Ok(Ok(cluster.create_lease(&self.namespace, &self.name, tenure).await?))
            }
            other => Ok(Ok(other?)),
        }
    }

    /// Takes in what was read; answers who else holds it.
    fn others(&mut self, found: Lease, identity: &str) -> Option<Outcome> {
        let tenure = found.tenure();
        let since = match &self.observed {
            Some((known, since)) if known.tenure() == tenure => *since,
            _ => Instant::now(),
        };
        self.observed = Some((found, since));
        if tenure.holder.is_empty() || tenure.holder == identity {
            return None;
        }
        let lasts = Duration::from_secs(tenure.duration_s.min(DURATION_S_MAX));
        let left = (since + silence_max(lasts)).saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(Outcome::Others { holder: tenure.holder, left })
    }

    /// Gives the Lease up, so that the next one need not wait. What is not ours is left alone.
    pub async fn release(&mut self, cluster: &Cluster, identity: &str) -> Result<(), ApiError> {
        self.held_since = None;
        let Some((lease, _)) = self.observed.take() else { return Ok(()) };
        match give_up(cluster, &lease, identity).await {
            // a renewal that nobody waited for any more
            Err(error) if error.class == ErrorClass::Conflict => {
                let Some(lease) = cluster.get_lease(&self.namespace, &self.name).await? else { return Ok(()) };
                give_up(cluster, &lease, identity).await
            }
            result => result,
        }
    }

    /// `namespace/name`
    pub fn place(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// How long a holder may be silent until its Lease counts as over: 34 s of 35 s. The last second is what others need to
/// notice the last renewal (they look twice a second) and to ask for all Leases, so that the next one leads within the
/// duration of the Lease even where its holder dies right after a renewal. Nobody writes in it: ours waits for no answer
/// longer than this, and Flux's controllers end after 30 s of 35 s.
pub(super) fn silence_max(duration: Duration) -> Duration {
    duration * 34 / 35
}

/// How often a renewal that others forestall is tried at once: as many as there are replicas to hold a Lease in common.
const TRIES_MAX: u32 = 5;

/// A Lease that claims to last longer counts as over after this: a typing error must not lock everybody out for years.
const DURATION_S_MAX: u64 = 3600;

async fn give_up(cluster: &Cluster, lease: &Lease, identity: &str) -> Result<(), ApiError> {
    let held = lease.tenure();
    if held.holder != identity {
        return Ok(());
    }
    let now = Some(now());
    // as client-go: no holder, and over in a second for those who look at the time alone
    let free = Tenure { holder: String::new(), duration_s: 1, acquired: now.clone(), renewed: now, ..held };
    cluster.replace_lease(lease, &free).await.map(drop)
}

async fn make_namespace(cluster: &Cluster, name: &str) -> Result<(), ApiError> {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let kind = ApiKind::namespace();
    match cluster.create(&kind, &kind.object("", name), &object, "afresh").await {
        Err(error) if error.class != ErrorClass::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn now() -> String {
    // MicroTime of the Kubernetes API
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn first(identity: &str, duration: Duration) -> Tenure {
    let now = Some(now());
    Tenure {
        holder: identity.into(),
        duration_s: duration.as_secs(),
        acquired: now.clone(),
        renewed: now,
        transitions: 0,
    }
}

/// What follows upon `before`: renewed if it was ours, else taken over.
fn next(before: &Tenure, identity: &str, duration: Duration) -> Tenure {
    let mut tenure = first(identity, duration);
    tenure.transitions = before.transitions;
    if before.holder == identity {
        tenure.acquired = before.acquired.clone();
    } else {
        tenure.transitions += 1;
    }
    tenure
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn lease(holder: &str, renewed: &str, seconds: u64) -> Lease {
        let object: Value = json!({
            "metadata": {"name": "afresh", "namespace": "a", "resourceVersion": "1"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": renewed},
        });
        Lease::from(object)
    }

    #[tokio::test(start_paused = true)]
    async fn anothers_lease_is_over_when_it_was_seen_unchanged_for_its_duration_whatever_its_time_says() {
        let mut claim = Claim::new(Whose::Ours, "a", "afresh");
        // its clock is years behind: only that it changes counts
        let old = || lease("b", "2001-01-01T00:00:00.000000Z", 35);
        assert!(matches!(claim.others(old(), "me"), Some(Outcome::Others { left, .. }) if left.as_secs() == 34));
        tokio::time::advance(Duration::from_secs(33)).await;
        assert!(claim.others(old(), "me").is_some());
        let renewed = || lease("b", "2001-01-01T00:00:10.000000Z", 35);
        assert!(claim.others(renewed(), "me").is_some());
        tokio::time::advance(Duration::from_secs(33)).await;
        assert!(claim.others(renewed(), "me").is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(claim.others(renewed(), "me").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ours_or_nobodys_is_taken_at_once() {
        for holder in ["", "me"] {
            let mut claim = Claim::new(Whose::Ours, "a", "afresh");
            assert!(claim.others(lease(holder, "2001-01-01T00:00:00.000000Z", 35), "me").is_none());
        }
        let mut claim = Claim::new(Whose::Ours, "a", "afresh");
        let years = claim.others(lease("b", "", u64::MAX), "me");
        assert!(
            matches!(years, Some(Outcome::Others { left, .. }) if left == silence_max(Duration::from_secs(DURATION_S_MAX)))
        );
    }

    #[test]
    fn taking_over_counts_and_renewing_does_not() {
        let before = first("b", Duration::from_secs(35));
        assert_eq!(next(&before, "me", Duration::from_secs(35)).transitions, 1);
        let renewed = next(&before, "b", Duration::from_secs(35));
        assert_eq!((renewed.transitions, renewed.acquired), (0, before.acquired));
    }
}
