//! What all workers share. Each part has one owner, named where it is defined.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::api::Key;
use crate::apply::{Applier, UnknownFields};
use crate::cluster::{Cluster, ErrorClass, Observed, Pods, WriteGate};
use crate::config;
use crate::manifest::DigestKey;
use crate::policy::User;
use crate::report::{Events, Metrics, Traces};
use crate::source::Remotes;

use super::hold::Hold;
use super::namespaces::Namespaces;
use super::permits::Permits;
use super::policies::Policies;
use super::references::{Reference, References};
use super::registry::Registry;
use super::share::Share;
use super::source::{SourceHandle, Sources};

pub(super) struct Shared {
    pub cluster: Cluster,
    pub observed: Observed,
    pub pods: Pods,
    pub gate: WriteGate,
    pub applier: Applier,
    pub remotes: Arc<Remotes>,
    pub registry: Registry,
    pub references: References,
    pub namespaces: Namespaces,
    /// Whose keys serve where `spec.decryption` names no Secret.
    pub keys_by_default: Option<Reference>,
    pub events: Events,
    pub metrics: Metrics,
    pub digest_key: DigestKey,
    pub traces: Traces,
    pub renders: Permits,
    pub applies: Permits,
    pub statuses: Permits,
    pub background: Background,
    pub unknown_fields: UnknownFields,
    pub default_service_account: Option<String>,
    pub source_role: config::SourceRole,
    pub share: Share,
    /// Who serves what is marked on it; `None`: nobody else is there to ask.
    pub hold: Option<Hold>,
    pub sources: Sources,
    pub policies: Policies,
    /// Who this daemon is for the API server, once a policy has asked.
    pub own_user: OnceCell<Arc<User>>,
}

impl Shared {
    /// The face of a source, made where it was not asked for before.
    pub fn source(&self, key: &Key) -> SourceHandle {
        self.sources.face(key)
    }

    /// Who this daemon is for the API server, which is asked once; nobody, where it does not tell.
    pub async fn own_user(&self) -> Result<Arc<User>, String> {
        const UNSAID: &str = "the API server does not say who Afresh is";
        let asked = self.own_user.get_or_try_init(async || match self.cluster.own_user().await {
            Ok(user) => serde_json::from_value(user).map(Arc::new).map_err(|error| format!("{UNSAID}: {error}")),
            Err(error) => match error.class {
                ErrorClass::NoSuchKind | ErrorClass::NotFound | ErrorClass::Forbidden => {
                    tracing::warn!(%error, "{UNSAID}: `request.userInfo` is empty where no service account is named");
                    Ok(Arc::default())
                }
                _ => Err(format!("policies ask who applies, and {UNSAID}: {error}")),
            },
        });
        asked.await.cloned()
    }

    /// An application is gone: nothing of it is waited for or reported any more.
    pub fn forget(&self, app: &Key) {
        self.registry.remove(app);
        self.events.forget("Kustomization", app);
        self.observed.keep_watched(app, |_, _| false);
        for source in self.sources.all() {
            source.attention(app, false, false);
        }
    }
}

/// Turns for status writes that nobody waits for: some at once, then so many a second, and none while applies wait.
/// One of those who wait looks at the clock, the others stand behind it in order: a thousand do not wake for each turn.
pub(super) struct Background(tokio::sync::Mutex<Bucket>);

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// How often a contended background write looks again whether applies still wait.
const STAND_BACK: Duration = Duration::from_millis(100);

impl Background {
    pub fn new() -> Self {
        Self(tokio::sync::Mutex::new(Bucket::new(now())))
    }

    pub async fn turn(&self, applies: &Permits) {
        let mut bucket = self.0.lock().await;
        loop {
            let pause = if applies.contended() { Some(STAND_BACK) } else { bucket.take(now()) };
            match pause {
                None => return,
                Some(pause) => tokio::time::sleep(pause).await,
            }
        }
    }
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { tokens: f64::from(config::BACKGROUND_STATUS_PER_SECOND), at: now }
    }

    /// `None`: taken. Else how long until the next is there.
    fn take(&mut self, now: Instant) -> Option<Duration> {
        let rate = f64::from(config::BACKGROUND_STATUS_PER_SECOND);
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * rate;
        self.tokens = (self.tokens + gained).min(rate);
        self.at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return None;
        }
        Some(Duration::from_secs_f64((1.0 - self.tokens) / rate))
    }
}

/// By the clock that the pauses go by.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn background_turns_come_in_a_burst_and_then_at_a_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(now);
        let burst = (0..100).take_while(|_| bucket.take(now).is_none()).count();
        assert_eq!(burst as u32, config::BACKGROUND_STATUS_PER_SECOND);
        assert!(bucket.take(now).is_some());
        assert!(bucket.take(now + Duration::from_secs(1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_for_a_turn_wake_once_each() {
        let (background, applies) = (Background::new(), Permits::new(1));
        let polls = std::cell::Cell::new(0_usize);
        let waiters = (0..1000).map(|_| {
            let mut turn = Box::pin(background.turn(&applies));
            let polls = &polls;
            std::future::poll_fn(move |context| {
                polls.set(polls.get() + 1);
                turn.as_mut().poll(context)
            })
        });
        // `join_all` polls only who was woken
        futures::future::join_all(waiters).await;
        assert!(polls.get() < 5000, "{} polls for a thousand turns", polls.get());
    }
}
