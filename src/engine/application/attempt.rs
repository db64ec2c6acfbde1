//! One attempt, from a head to a cluster that was seen to hold it.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::cluster::Holding;
use crate::engine::permits::Urgency;
use crate::engine::source::Head;
use crate::manifest::ObjectId;
use crate::plan::{Desired, Handling, Inventory, TooLarge};
use crate::report::Stage;

use super::configuration::Overlay;
use super::report::Changes;
use super::{Application, Failure, Mode, Scopes, Stop, Work};

impl Application {
    /// Carries the work through all stages; answers the head that was reported as applied. Dropping the future at any
    /// await leaves the cluster in a state that the next attempt finds out and repairs: what may exist is recorded before
    /// it does. Each stage has its room only while it lasts: a thousand attempts may wait at the same time.
    pub async fn attempt(&self, work: &Work) -> Result<Arc<Head>, Stop> {
        let applied = {
            let mut memory = self.memory();
            memory.mode = Mode::Unsettled;
            memory.present.clear();
            if memory.recorded.take().is_some_and(|recorded| recorded == work.revision()) {
                self.found_as_recorded(memory.inventory.ids().cloned());
            }
            memory.applied.take()
        };
        let rendering = work.trace.stage(Stage::Render);
        let prepared = self.render(&work.object, &work.head(), work.urgency).await?;
        drop(rendering);
        if let Some(failure) = self.renders_flux(work, &prepared) {
            return Err(failure.into());
        }
        let rendered = (prepared.rendered.digest, prepared.inputs.clone());
        *work.rendered.lock().unwrap_or_else(PoisonError::into_inner) = Some(rendered);
        Box::pin(self.judge(work, &prepared)).await?;
        self.look_at(work, &prepared);
        work.turn.lock().unwrap_or_else(PoisonError::into_inner).take();
        // what comes out as it was applied stays Ready at its revision until its dependencies are at the newer one
        let unchanged = applied == Some(prepared.rendered.digest);
        if unchanged {
            self.memory().applied = applied;
            // what a revision changes is found among many: those that nobody has looked at yet go first
            if work.urgency != Urgency::Routine {
                drop(self.shared.renders.acquire(Urgency::Routine).await);
            }
        }
        let declared: Inventory =
            prepared.desired.iter().map(|d| (d.object.id.clone(), d.object.version.clone())).collect();
        // instances elsewhere learn from the inventory what is declared here, and hand over what was theirs
        let before = {
            let mut memory = self.memory();
            memory.inventory = std::mem::take(&mut memory.inventory).scoped(&Scopes(&self.shared.cluster));
            memory.inventory.clone()
        };
        if self.shared.share.is_partial() {
            self.record(work, &declared).await?;
        }
        self.await_dependencies(work, unchanged).await;
        self.await_claims(work, &prepared, &before).await;
        self.record(work, &declared).await?;

        let mut changes = Changes::default();
        let started = Instant::now();
        // what was held before and is sent again was changed by others
        let correcting = unchanged;
        let applying = work.trace.stage(Stage::Apply);
        Box::pin(self.apply(work, &prepared, correcting, &mut changes)).await?;
        self.await_configuration(work).await?;
        drop(applying);
        self.shared.metrics.stage(Stage::Apply, started.elapsed());
        {
            let mut memory = self.memory();
            memory.mode = Mode::Unhealthy;
            memory.applied = Some(prepared.rendered.digest);
        }
        self.tell_drift_of(work, &prepared).await;

        let prune_first = self.prunes_before_health(work);
        let mut left = Inventory::default();
        if prune_first {
            left = Box::pin(self.prune(work, &prepared, &mut changes)).await?;
        }
        if work.object.spec.checks_health() {
            let started = Instant::now();
            let waiting = work.trace.stage(Stage::Health);
            let result = Box::pin(self.await_health(work, &prepared)).await;
            drop(waiting);
            self.shared.metrics.stage(Stage::Health, started.elapsed());
            result?;
        }
        if !prune_first {
            left = Box::pin(self.prune(work, &prepared, &mut changes)).await?;
        }
        let inventory = declared.union(&left);
        self.shared.observed.keep_watched(&self.key, |kind, namespace| {
            let mut ids = inventory.ids();
            let is_in = |id: &ObjectId| namespace.is_none_or(|namespace| id.namespace == namespace);
            ids.any(|id| id.kind == kind.kind && id.group == kind.group && is_in(id))
        });
        self.memory().inventory = inventory.clone();
        self.memory().mode = Mode::Applied;
        Ok(self.applied(work, &inventory, &changes).await)
    }

    /// Records what is declared before anything of it is created: whatever happens from then on, nothing is orphaned.
    async fn record(&self, work: &Work, declared: &Inventory) -> Result<(), Failure> {
        let before = self.memory().inventory.clone();
        let recorded = before.union(declared);
        if recorded != before {
            let too_large = |error: TooLarge| Failure::new("ReconciliationFailed", error.to_string()).until_changed();
            recorded.check_size().map_err(too_large)?;
            let message = format!("applying revision {}", work.revision());
            self.progressing(work, &message, Some(&recorded)).await.map_err(|error| {
                Failure::new("ReconciliationFailed", format!("the inventory could not be recorded: {error}"))
            })?;
            self.memory().inventory = recorded;
        }
        Ok(())
    }

    /// What is to be done with one object, by what is seen of it.
    pub fn decide(&self, desired: &Desired) -> Decision {
        if desired.handling == Handling::Ignore {
            return Decision::Leave;
        }
        let overlay = self.overlay(desired);
        if overlay.as_ref().is_some_and(Overlay::is_held) {
            return Decision::Leave;
        }
        let desired = overlay.as_ref().map_or(desired, |overlay| &overlay.desired);
        let id = &desired.object.id;
        let seen = self.shared.observed.get(id);
        if seen.as_ref().is_some_and(|seen| seen.marks.leaves_alone()) {
            return Decision::Leave;
        }
        // what is under way lands before what is sent now
        if self.shared.gate.in_flight(id) {
            return Decision::Send;
        }
        let there = |id| {
            let memory = self.memory();
            memory.jobs.has(desired) || memory.present.contains(id)
        };
        match self.holding(desired) {
            Holding::Held => Decision::Held,
            Holding::Absent if there(id) => Decision::Held,
            Holding::Outdated | Holding::Drifted | Holding::Undecided if desired.handling == Handling::IfNotPresent => {
                Decision::Held
            }
            holding => self.respond(desired, seen.as_deref(), holding),
        }
    }

    /// How what is sent for an object stands, but for what is left to others.
    pub(super) fn holding(&self, sent: &Desired) -> Holding {
        self.shared.observed.holding_but_for(&sent.object.id, &sent.digest, || sent.object.value(), &sent.ignored)
    }
}

/// What is to be done with one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The cluster holds it as declared.
    Held,
    Send,
    /// It is on its way out; it is sent once it is gone.
    Deleting,
    /// It, or the live object, asks to be left alone; or what others change of it is not looked at.
    Leave,
    /// What others changed of it is reported, and left.
    Standing,
    /// Whether others changed it is not known; as it would be left, a dry-run tells.
    Ask,
    /// Others changed it, and it was put back too often a moment ago.
    Paused,
}
