//! What a worker waits on: cells that hold the newest object, source, values and cluster state, and what of them it has
//! dealt with already.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::api::{self, Key, Kustomization};
use crate::engine::references::{Reference, Watched};
use crate::engine::source::SourceState;
use crate::policy::PolicySet;

use super::{Application, Cause};

/// The cell that the API watch writes: the newest object, `None` once it is gone.
pub type Goal = watch::Receiver<Option<Arc<Kustomization>>>;

/// Something that calls for an attempt.
#[derive(Clone, Copy, Debug)]
pub struct News {
    pub cause: Cause,
    pub at: Instant,
}

impl News {
    /// It came up this moment.
    pub fn of(cause: Cause) -> Self {
        Self { cause, at: Instant::now() }
    }
}

/// What of an object makes an attempt when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Asked {
    uid: String,
    generation: i64,
    deleting: bool,
    wishes: [Option<String>; 4],
}

/// What of a source makes an attempt when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Offered {
    /// The identity of the head.
    head: Option<String>,
    /// Counts only while there is no revision.
    failure: Option<String>,
    exists: bool,
}

/// Corrections of what others changed come at once, but not in a hot loop: see [`Heat`].
const CORRECTION_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A quiet time after which the next correction comes at once again.
const CORRECTION_COOLING: Duration = Duration::from_secs(60);

/// Slows corrections that follow each other: 0, 1, 2, 4 … 30 s.
#[derive(Debug, Default)]
struct Heat {
    pause: Duration,
    last: Option<Instant>,
}

impl Heat {
    /// When the next correction may begin.
    fn free_at(&self, now: Instant) -> Instant {
        match self.last {
            Some(last) if now.duration_since(last) < CORRECTION_COOLING => last + self.pause,
            _ => now,
        }
    }

    fn corrected(&mut self, now: Instant) {
        let cool = self.last.is_none_or(|last| now.duration_since(last) >= CORRECTION_COOLING);
        self.pause = if cool { Duration::from_secs(1) } else { (self.pause * 2).min(CORRECTION_PAUSE_MAX) };
        self.last = Some(now);
    }
}

pub(super) struct Idle {
    goal: Goal,
    asked: Asked,
    source: watch::Receiver<SourceState>,
    source_key: Option<Key>,
    offered: Offered,
    cluster: watch::Receiver<u64>,
    values: Watched,
    policies: watch::Receiver<Arc<PolicySet>>,
    heat: Heat,
    returned: Option<News>,
}

impl Idle {
    pub fn new(app: &Application, goal: Goal) -> Self {
        Self {
            goal,
            asked: Asked::default(),
            source: watch::channel(SourceState::default()).1,
            source_key: None,
            offered: Offered::default(),
            cluster: app.shared.observed.subscribe(&app.key),
            values: Watched::default(),
            policies: app.shared.policies.subscribe(),
            heat: Heat::default(),
            returned: None,
        }
    }

    /// The newest object, taken as dealt with; `None` once it is gone.
    pub fn object(&mut self) -> Option<Arc<Kustomization>> {
        let object = self.goal.borrow_and_update().clone()?;
        self.asked = asked(&object);
        Some(object)
    }

    /// Follows the source and the values that the object names.
    pub fn follow(&mut self, app: &Application, object: &Kustomization) {
        let key = source_key(object);
        if self.source_key.as_ref() != Some(&key) {
            self.source = app.shared.source(&key).subscribe();
            self.offered = Offered::default();
            self.source_key = Some(key);
        }
        let namespace = &app.key.namespace;
        let mut wanted = Reference::of(namespace, object);
        wanted.extend(Reference::keys(namespace, object, app.shared.keys_by_default.as_ref()));
        self.values = app.shared.references.watch(wanted, std::mem::take(&mut self.values));
    }

    /// The state of the source that an attempt is made with.
    pub fn observed(&mut self, state: &SourceState) {
        self.offered = offered(state);
    }

    /// A newer revision was taken up by the running attempt.
    pub fn taken_up(&mut self, identity: &str) {
        self.offered.head = Some(identity.into());
    }

    /// News that could not be answered yet.
    pub fn put_back(&mut self, news: News) {
        self.returned = Some(news);
    }

    /// News that were put back.
    pub fn returned(&mut self) -> Option<News> {
        self.returned.take()
    }

    /// While nothing is being done: also what is seen in the cluster counts.
    pub async fn next(&mut self, app: &Application) -> News {
        if let Some(news) = self.returned.take() {
            return news;
        }
        // what happened while an attempt ran
        self.cluster.mark_changed();
        loop {
            tokio::select! {
                biased;
                news = Self::asked_for(&mut self.goal, &self.asked) => return news,
                news = Self::offered_for(&mut self.source, &self.offered) => return news,
                () = self.values.changed() => return News::of(Cause::Values),
                () = app.configuration_changed() => return News::of(Cause::Configuration),
                () = Self::replaced(&mut self.policies) => return News::of(Cause::Policies),
                () = Self::disturbed(&mut self.cluster, app) => {
                    let now = Instant::now();
                    let free_at = self.heat.free_at(now);
                    if free_at > now {
                        tokio::select! {
                            biased;
                            news = Self::asked_for(&mut self.goal, &self.asked) => return news,
                            news = Self::offered_for(&mut self.source, &self.offered) => return news,
                            () = self.values.changed() => return News::of(Cause::Values),
                            () = app.configuration_changed() => return News::of(Cause::Configuration),
                            () = Self::replaced(&mut self.policies) => return News::of(Cause::Policies),
                            () = tokio::time::sleep_until(free_at.into()) => {}
                        }
                        if !app.is_disturbed() {
                            continue;
                        }
                    }
                    self.heat.corrected(Instant::now());
                    return News::of(Cause::Cluster);
                }
            }
        }
    }

    /// While an attempt runs, which looks at the cluster itself.
    pub async fn next_while_busy(&mut self, app: &Application) -> News {
        tokio::select! {
            biased;
            news = Self::asked_for(&mut self.goal, &self.asked) => news,
            news = Self::offered_for(&mut self.source, &self.offered) => news,
            () = self.values.changed() => News::of(Cause::Values),
            () = app.configuration_changed() => News::of(Cause::Configuration),
            () = Self::replaced(&mut self.policies) => News::of(Cause::Policies),
        }
    }

    pub async fn object_changed(&mut self) -> News {
        Self::asked_for(&mut self.goal, &self.asked).await
    }

    async fn asked_for(goal: &mut Goal, dealt_with: &Asked) -> News {
        loop {
            let different = goal.borrow_and_update().as_ref().is_none_or(|object| asked(object) != *dealt_with);
            if different {
                return News::of(Cause::Object);
            }
            if goal.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn offered_for(source: &mut watch::Receiver<SourceState>, dealt_with: &Offered) -> News {
        loop {
            let different = {
                let state = source.borrow_and_update();
                !state.suspended
                    && offered(&state) != *dealt_with
                    && (state.head.is_some() || dealt_with.head.is_none())
            };
            if different {
                return News::of(Cause::Revision);
            }
            if source.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn replaced(policies: &mut watch::Receiver<Arc<PolicySet>>) {
        if policies.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn disturbed(cluster: &mut watch::Receiver<u64>, app: &Application) {
        loop {
            if cluster.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if app.is_disturbed() {
                return;
            }
        }
    }
}

fn asked(object: &Kustomization) -> Asked {
    Asked {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        deleting: object.metadata.deletion_timestamp.is_some(),
        wishes: wishes(object).map(|w| w.map(str::to_owned)),
    }
}

fn offered(state: &SourceState) -> Offered {
    let head = state.head.as_ref().map(|h| h.identity.clone());
    let failure = if head.is_none() { state.failure.as_deref().map(str::to_owned) } else { None };
    Offered { exists: head.is_some() || state.exists, head, failure }
}

/// The source that a Kustomization follows.
pub(in crate::engine) fn source_key(object: &Kustomization) -> Key {
    let reference = &object.spec.source_ref;
    let namespace = reference.namespace.clone().or_else(|| object.metadata.namespace.clone()).unwrap_or_default();
    Key::new(namespace, reference.name.clone())
}

/// The annotations that make an attempt when they change.
fn wishes(object: &Kustomization) -> [Option<&str>; 4] {
    let annotations = object.metadata.annotations.as_ref();
    [api::REQUESTED_AT, api::CONFIRM_PRUNE, api::PRUNE_WHEN, api::ROLLOUT]
        .map(|key| annotations.and_then(|a| a.get(key)).map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrections_that_follow_each_other_are_slowed_and_cool_down_again() {
        let start = Instant::now();
        let mut heat = Heat::default();
        assert_eq!(heat.free_at(start), start);
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            heat.corrected(now);
            pauses.push(heat.free_at(now).duration_since(now).as_secs());
            now = heat.free_at(now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        let later = now + CORRECTION_COOLING;
        assert_eq!(heat.free_at(later), later);
    }
}
