//! Permits for the stages that cost something: taken in fair order, announced work first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

/// Whether somebody is known to wait for the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// What failed, or was still under way, got something newer: perhaps the fix, which must not stand behind all that
    /// roll out at the same time.
    Repair,
    /// A person asked, a push was announced, or a spec changed.
    Announced,
    Routine,
}

/// A fixed number of permits; whoever waits is served first come, first served within its urgency.
#[derive(Clone)]
pub struct Permits(Arc<Mutex<State>>);

struct State {
    free: usize,
    repair: VecDeque<oneshot::Sender<Permit>>,
    announced: VecDeque<oneshot::Sender<Permit>>,
    routine: VecDeque<oneshot::Sender<Permit>>,
}

/// Gives its place back when dropped.
pub struct Permit(Option<Permits>);

impl Permits {
    pub fn new(count: usize) -> Self {
        let (repair, announced, routine) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(State { free: count, repair, announced, routine })))
    }

    /// Waits for a permit. Dropping the future gives up the place in the queue.
    pub async fn acquire(&self, urgency: Urgency) -> Permit {
        let receiver = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Permit(Some(self.clone()));
            }
            let (sender, receiver) = oneshot::channel();
            match urgency {
                Urgency::Repair => state.repair.push_back(sender),
                Urgency::Announced => state.announced.push_back(sender),
                Urgency::Routine => state.routine.push_back(sender),
            }
            receiver
        };
        receiver.await.unwrap_or(Permit(None))
    }

    /// True while somebody waits: background work stands back.
    pub fn contended(&self) -> bool {
        let state = self.state();
        state.repair.iter().chain(&state.announced).chain(&state.routine).any(|waiting| !waiting.is_closed())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn release(&self) {
        loop {
            let next = {
                let mut state = self.state();
                let State { repair, announced, routine, .. } = &mut *state;
                match repair.pop_front().or_else(|| announced.pop_front()).or_else(|| routine.pop_front()) {
                    Some(next) => next,
                    None => {
                        state.free += 1;
                        return;
                    }
                }
            };
            match next.send(Permit(Some(self.clone()))) {
                Ok(()) => return,
                // it no longer waits: the permit goes to the next one, not back through its drop
                Err(mut permit) => permit.0 = None,
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permits) = self.0.take() {
            permits.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_repair_goes_before_all_that_was_announced_before_it() {
        let permits = Permits::new(1);
        let held = permits.acquire(Urgency::Announced).await;
        let mut announced = Box::pin(permits.acquire(Urgency::Announced));
        let mut repair = Box::pin(permits.acquire(Urgency::Repair));
        assert!((&mut announced).now_or_never().is_none());
        assert!((&mut repair).now_or_never().is_none());
        drop(held);
        assert!((&mut announced).now_or_never().is_none());
        let done = (&mut repair).now_or_never().expect("the repair is served first");
        drop(done);
        assert!((&mut announced).now_or_never().is_some());
    }

    #[tokio::test]
    async fn announced_work_goes_first_and_a_place_given_up_is_not_lost() {
        let permits = Permits::new(1);
        let held = permits.acquire(Urgency::Routine).await;
        let mut routine = Box::pin(permits.acquire(Urgency::Routine));
        let mut gone = Box::pin(permits.acquire(Urgency::Announced));
        let mut announced = Box::pin(permits.acquire(Urgency::Announced));
        assert!((&mut routine).now_or_never().is_none());
        assert!((&mut gone).now_or_never().is_none());
        assert!((&mut announced).now_or_never().is_none());
        assert!(permits.contended());
        drop(gone);
        drop(held);
        assert!((&mut routine).now_or_never().is_none());
        let second = (&mut announced).now_or_never().expect("the announced one is served first");
        drop(second);
        let third = (&mut routine).now_or_never().expect("then the routine one");
        assert!(!permits.contended());
        drop(third);
        assert!(permits.acquire(Urgency::Routine).now_or_never().is_some());
    }
}
