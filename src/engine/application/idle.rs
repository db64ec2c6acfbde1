//! What a worker waits on: cells that hold the newest object, source, values and cluster state, and what of them it has
//! dealt with already.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::api::{self, Key, Kustomization};
use crate::engine::references::{Reference, Watched};
use crate::engine::source::SourceState;
use crate::policy::PolicySet;

use super::drift::Disturbance;
use super::live_configuration::at;
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
    wishes: [Option<String>; 5],
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

/// An attempt because of health or of what workloads read comes at once, but not in a hot loop: see [`Unrest`]. Objects that
/// others change have a heat each.
const UNREST_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A quiet time after which the next attempt comes at once again.
const UNREST_COOLING: Duration = Duration::from_secs(60);

/// Slows attempts that follow each other: 0, 1, 2, 4 … 30 s.
#[derive(Debug, Default)]
struct Unrest {
    pause: Duration,
    last: Option<Instant>,
}

impl Unrest {
    /// When the next attempt may begin.
    fn free_at(&self, now: Instant) -> Instant {
        match self.last {
            Some(last) if now.duration_since(last) < UNREST_COOLING => last + self.pause,
            _ => now,
        }
    }

    fn answered(&mut self, now: Instant) {
        let cool = self.last.is_none_or(|last| now.duration_since(last) >= UNREST_COOLING);
        self.pause = if cool { Duration::from_secs(1) } else { (self.pause * 2).min(UNREST_PAUSE_MAX) };
        self.last = Some(now);
    }
}

/// So many attempts a minute because of objects that others change come at once: each object has its own heat, but there
/// are many.
const RUSH_MAX: usize = 30;
const RUSH_WINDOW: Duration = Duration::from_secs(60);
const RUSH_PAUSE: Duration = Duration::from_secs(2);

/// Spaces attempts once there are many.
#[derive(Debug, Default)]
struct Rush(VecDeque<Instant>);

impl Rush {
    fn free_at(&mut self, now: Instant) -> Instant {
        self.0.retain(|at| now.duration_since(*at) < RUSH_WINDOW);
        match self.0.back() {
            Some(last) if self.0.len() >= RUSH_MAX => *last + RUSH_PAUSE,
            _ => now,
        }
    }

    fn answered(&mut self, now: Instant) {
        self.0.push_back(now);
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
    unrest: Unrest,
    rush: Rush,
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
            unrest: Unrest::default(),
            rush: Rush::default(),
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
        let key = object.source_key();
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

    /// Whether the newest revision does not seem to concern the application.
    pub fn is_untouched(&self, app: &Application) -> bool {
        let newest = self.source.borrow().head.clone();
        newest.is_some_and(|head| app.is_untouched_by(&head, self.offered.head.as_deref()))
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
        let object = self.goal.borrow().clone();
        loop {
            tokio::select! {
                biased;
                news = Self::asked_for(&mut self.goal, &self.asked) => return news,
                news = Self::offered_for(&mut self.source, &self.offered) => return news,
                () = self.values.changed() => return News::of(Cause::Values),
                () = app.configuration_changed() => return News::of(Cause::Configuration),
                () = Self::replaced(&mut self.policies) => return News::of(Cause::Policies),
                disturbance = Self::disturbed(&mut self.cluster, app, object.as_deref()) => {
                    let now = Instant::now();
                    let free_at = match disturbance {
                        Disturbance::Objects => self.rush.free_at(now),
                        Disturbance::Other => self.unrest.free_at(now),
                    };
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
                        if app.survey().is_none_or(|(disturbance, _)| disturbance.is_none()) {
                            continue;
                        }
                    }
                    match disturbance {
                        Disturbance::Objects => self.rush.answered(Instant::now()),
                        Disturbance::Other => self.unrest.answered(Instant::now()),
                    }
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

    /// Something newer than the newest revision.
    pub async fn newer(&mut self) -> News {
        let newest = offered(&self.source.borrow());
        tokio::select! {
            biased;
            news = Self::asked_for(&mut self.goal, &self.asked) => news,
            news = Self::offered_for(&mut self.source, &newest) => news,
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

    /// Returns when what is seen in the cluster calls for an attempt. What is left as others have changed it is told.
    async fn disturbed(
        cluster: &mut watch::Receiver<u64>,
        app: &Application,
        object: Option<&Kustomization>,
    ) -> Disturbance {
        loop {
            let wakes_at = app.drift_wakes_at();
            tokio::select! {
                changed = cluster.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
                () = at(wakes_at) => {}
            }
            let Some((disturbance, standing)) = app.survey() else { continue };
            if let Some(disturbance) = disturbance {
                return disturbance;
            }
            if let Some(object) = object {
                Box::pin(app.tell_drift(object, &standing, true)).await;
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

/// The annotations that make an attempt when they change.
fn wishes(object: &Kustomization) -> [Option<&str>; 5] {
    [api::REQUESTED_AT, api::CONFIRM_PRUNE, api::PRUNE_WHEN, api::ROLLOUT, api::DRIFT].map(|key| object.annotation(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_attempts_because_of_many_objects_are_spaced() {
        let start = Instant::now();
        let mut rush = Rush::default();
        for _ in 0..RUSH_MAX {
            assert_eq!(rush.free_at(start), start);
            rush.answered(start);
        }
        assert_eq!(rush.free_at(start), start + RUSH_PAUSE);
        let later = start + RUSH_WINDOW;
        assert_eq!(rush.free_at(later), later);
    }

    #[test]
    fn attempts_that_follow_each_other_are_slowed_and_cool_down_again() {
        let start = Instant::now();
        let mut unrest = Unrest::default();
        assert_eq!(unrest.free_at(start), start);
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            unrest.answered(now);
            pauses.push(unrest.free_at(now).duration_since(now).as_secs());
            now = unrest.free_at(now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        let later = now + UNREST_COOLING;
        assert_eq!(unrest.free_at(later), later);
    }
}
