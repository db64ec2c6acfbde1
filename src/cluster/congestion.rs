//! How many requests are under way at a time: as many as the API server takes without complaint.
//!
//! Comes in: requests that want to be sent, and whether the server complained. Goes out: turns, first come, first served;
//! what is urgent goes before the rest, which never stands still for it.
//! The limit is that of TCP: one more for each round trip that used it up, half of it for each round trip with a
//! complaint. What this never does: send, delay or repeat a request by itself.
//!
//! ```text
//!  call ─▶ turn ─▶ exchange ─▶ 2xx, 4xx …            limit + 1/limit, if it was used up
//!           ▲         └──────▶ 429, Retry-After, no answer in time    limit / 2, once for all that were under way
//!           └── next in line, whenever one has ended or the limit has grown
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::connection::RequestObserver;

/// The limit is never below this: a single request that hangs must not be able to stand before all others, and no API
/// server is overloaded by four.
const FLOOR: usize = 4;

/// A request that has been under way for longer gives its turn to another: an admission webhook or an aggregated API
/// that hangs must not hold back what goes elsewhere. A server that is merely slow answers within it, so that it is
/// never sent more than the limit.
const TURN_MAX: Duration = Duration::from_secs(5);

/// Of so many turns that are handed out while both kinds wait, one goes to who is not in a hurry: a status that a repair
/// waits for may be among those, and a repair of everything must not silence everything else.
const ORDINARY_EVERY: u32 = 4;

/// The time between two complaints that are told apart. What was sent in an earlier one tells nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch(u64);

/// What the end of a request says of the server's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// It answered as one that has time.
    Served,
    /// It asked for a pause, or did not answer in time.
    Overloaded,
    /// Nothing: it was not reached, or broke down.
    Unknown,
}

/// The limit and how it moves; no clock, no queue.
#[derive(Debug)]
pub(super) struct Window {
    ceiling: usize,
    limit: f64,
    under_way: usize,
    epoch: u64,
}

impl Window {
    /// Begins at the ceiling: the first complaint finds the right limit sooner than growing up to it would.
    pub fn new(ceiling: usize) -> Self {
        let ceiling = ceiling.max(1);
        Self { ceiling, limit: ceiling as f64, under_way: 0, epoch: 0 }
    }

    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Takes a turn, if there is one.
    pub fn admit(&mut self) -> Option<Epoch> {
        if self.under_way >= self.limit() {
            return None;
        }
        self.under_way += 1;
        Some(Epoch(self.epoch))
    }

    /// Gives a turn back.
    pub fn leave(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A request ended; its turn is still taken.
    pub fn ended(&mut self, sent: Epoch, load: Load) {
        // an answer to what was sent before the last complaint is about the load of that time
        if sent.0 != self.epoch {
            return;
        }
        match load {
            // a limit that was not reached was not tried either
            Load::Served if self.under_way >= self.limit() => {
                self.limit = (self.limit + 1.0 / self.limit).min(self.ceiling as f64);
            }
            Load::Overloaded => {
                self.limit = (self.limit() / 2).max(FLOOR.min(self.ceiling)) as f64;
                self.epoch += 1;
            }
            Load::Served | Load::Unknown => {}
        }
    }
}

/// Hands out the turns. Clones share them.
#[derive(Clone)]
pub(super) struct Congestion(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    observer: Arc<dyn RequestObserver>,
}

struct State {
    window: Window,
    /// Those in a hurry, and the rest.
    urgent: Line,
    waiting: Line,
    /// Turns that went to the former while the latter waited, since one last went to these.
    overtaken: u32,
}

type Line = VecDeque<oneshot::Sender<Turn>>;

impl State {
    fn is_anybody_waiting(&self) -> bool {
        !(self.urgent.is_empty() && self.waiting.is_empty())
    }

    fn next_in_line(&mut self) -> Option<oneshot::Sender<Turn>> {
        let ordinary = self.urgent.is_empty() || self.overtaken + 1 >= ORDINARY_EVERY;
        if ordinary && let Some(next) = self.waiting.pop_front() {
            self.overtaken = 0;
            return Some(next);
        }
        self.overtaken = if self.waiting.is_empty() { 0 } else { self.overtaken + 1 };
        self.urgent.pop_front()
    }
}

/// The right to have one request under way, given back when dropped.
pub(super) struct Turn {
    of: Option<Congestion>,
    epoch: Epoch,
    /// It was given to another.
    passed_on: bool,
}

impl Congestion {
    pub fn new(ceiling: usize, observer: Arc<dyn RequestObserver>) -> Self {
        let window = Window::new(ceiling);
        observer.concurrency(window.limit());
        Self(Arc::new(Shared {
            state: Mutex::new(State { window, urgent: Line::new(), waiting: Line::new(), overtaken: 0 }),
            observer,
        }))
    }

    /// The most there may ever be under way.
    pub fn ceiling(&self) -> usize {
        self.state().window.ceiling
    }

    /// Waits for a turn, before all others if it is urgent. Dropping the future gives up the place in the queue.
    pub async fn turn(&self, urgent: bool) -> Turn {
        let waiting = {
            let mut state = self.state();
            if !state.is_anybody_waiting()
                && let Some(epoch) = state.window.admit()
            {
                return self.grant(epoch);
            }
            let (sender, receiver) = oneshot::channel();
            let line = if urgent { &mut state.urgent } else { &mut state.waiting };
            line.push_back(sender);
            receiver
        };
        // the queue lives as long as we do
        waiting.await.unwrap_or_else(|_| Turn { of: None, epoch: Epoch(0), passed_on: false })
    }

    fn grant(&self, epoch: Epoch) -> Turn {
        Turn { of: Some(self.clone()), epoch, passed_on: false }
    }

    /// Gives turns to those who wait, as many as there are.
    fn hand_out(&self, state: &mut State) {
        while state.is_anybody_waiting()
            && let Some(epoch) = state.window.admit()
        {
            let Some(next) = state.next_in_line() else { return };
            if let Err(mut unwanted) = next.send(self.grant(epoch)) {
                // its drop would ask for the lock that is held
                unwanted.of = None;
                state.window.leave();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// A turn of what never waits for one.
    pub fn exempt() -> Self {
        Self { of: None, epoch: Epoch(0), passed_on: false }
    }

    /// Does the work. What takes too long goes on without a turn.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(TURN_MAX) => {}
        }
        self.leave();
        work.await
    }

    /// Says what became of the request.
    pub fn ended(self, load: Load) {
        let Some(congestion) = &self.of else { return };
        let mut state = congestion.state();
        let before = state.window.limit();
        state.window.ended(self.epoch, load);
        let now = state.window.limit();
        congestion.hand_out(&mut state);
        drop(state);
        if now != before {
            congestion.0.observer.concurrency(now);
        }
        if now < before {
            tracing::info!(limit = now, "the API server asks for less: so many requests at a time from now on");
        }
    }

    fn leave(&mut self) {
        if let Some(congestion) = &self.of
            && !std::mem::replace(&mut self.passed_on, true)
        {
            let mut state = congestion.state();
            state.window.leave();
            congestion.hand_out(&mut state);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;

    use super::*;
    use crate::cluster::{NoObserver, RequestFacts};

    /// Sends as many as there are turns for.
    fn fill(window: &mut Window) -> Vec<Epoch> {
        std::iter::from_fn(|| window.admit()).collect()
    }

    /// All of these end.
    fn end(window: &mut Window, sent: Vec<Epoch>, load: Load) {
        for epoch in sent {
            window.ended(epoch, load);
            window.leave();
        }
    }

    /// A round trip in which the limit is used up at all times.
    fn busy_round(window: &mut Window) {
        let mut sent = fill(window);
        for _ in 0..sent.len() {
            window.ended(sent.remove(0), Load::Served);
            window.leave();
            sent.extend(fill(window));
        }
        sent.into_iter().for_each(|_| window.leave());
    }

    #[test]
    fn a_complaint_halves_the_limit_once_for_all_that_were_under_way() {
        let mut window = Window::new(64);
        let sent = fill(&mut window);
        assert_eq!(sent.len(), 64);
        end(&mut window, sent, Load::Overloaded);
        assert_eq!(window.limit(), 32);
        // those of the next round trip are about the new limit
        let sent = fill(&mut window);
        assert_eq!(sent.len(), 32);
        end(&mut window, sent, Load::Overloaded);
        assert_eq!(window.limit(), 16);
        for _ in 0..10 {
            let sent = fill(&mut window);
            end(&mut window, sent, Load::Overloaded);
        }
        assert_eq!(window.limit(), FLOOR);
    }

    #[test]
    fn a_round_trip_that_used_the_limit_up_adds_one_and_no_other_does() {
        let mut window = Window::new(64);
        let sent = fill(&mut window);
        end(&mut window, sent, Load::Overloaded);
        (0..10).for_each(|_| busy_round(&mut window));
        assert!((40..=42).contains(&window.limit()), "ten more after ten round trips: {}", window.limit());
        let before = window.limit();
        // one after the other: the limit was not tried
        for _ in 0..1000 {
            let one = window.admit().expect("a turn");
            end(&mut window, vec![one], Load::Served);
        }
        assert_eq!(window.limit(), before);
        (0..100).for_each(|_| busy_round(&mut window));
        assert_eq!(window.limit(), 64, "not beyond the ceiling");
    }

    #[test]
    fn what_was_sent_before_a_complaint_and_what_broke_down_change_nothing() {
        let mut window = Window::new(16);
        let mut sent = fill(&mut window);
        let complaint = sent.pop().expect("a turn");
        end(&mut window, vec![complaint], Load::Overloaded);
        assert_eq!(window.limit(), 8);
        end(&mut window, sent, Load::Served);
        assert_eq!(window.limit(), 8);
        let sent = fill(&mut window);
        end(&mut window, sent, Load::Unknown);
        assert_eq!(window.limit(), 8);
    }

    #[test]
    fn a_ceiling_below_the_floor_is_kept() {
        let mut window = Window::new(1);
        let sent = fill(&mut window);
        assert_eq!(sent.len(), 1);
        end(&mut window, sent, Load::Overloaded);
        assert_eq!((window.limit(), Window::new(0).limit()), (1, 1));
    }

    struct Told(AtomicUsize);

    impl RequestObserver for Told {
        fn finished(&self, _: RequestFacts<'_>) {}

        fn concurrency(&self, limit: usize) {
            self.0.store(limit, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn turns_come_in_order_and_a_place_given_up_is_not_lost() {
        let told = Arc::new(Told(AtomicUsize::new(0)));
        let congestion = Congestion::new(2, told.clone());
        assert_eq!(told.0.load(Ordering::SeqCst), 2);
        let (first, second) = (congestion.turn(false).await, congestion.turn(false).await);
        let mut gone = Box::pin(congestion.turn(false));
        let mut third = Box::pin(congestion.turn(false));
        let mut fourth = Box::pin(congestion.turn(false));
        for waiting in [&mut gone, &mut third, &mut fourth] {
            assert!(waiting.now_or_never().is_none());
        }
        drop(gone);
        first.ended(Load::Served);
        let third = (&mut third).now_or_never().expect("the first in line");
        assert!((&mut fourth).now_or_never().is_none());
        drop(second);
        assert!((&mut fourth).now_or_never().is_some());
        drop(third);
        assert!(congestion.turn(false).now_or_never().is_some());
    }

    /// The order in which those who wait get the only turn that there is: each gives it on.
    async fn order(wanted: &[(usize, bool)]) -> Vec<usize> {
        let congestion = Congestion::new(1, Arc::new(NoObserver));
        let held = congestion.turn(true).await;
        let order = Mutex::new(Vec::new());
        let waiting = wanted.iter().map(async |(name, urgent)| {
            let turn = congestion.turn(*urgent).await;
            order.lock().unwrap().push(*name);
            turn.ended(Load::Served);
        });
        let all = futures::future::join_all(waiting);
        let begin = async {
            tokio::task::yield_now().await;
            held.ended(Load::Served);
        };
        tokio::join!(all, begin);
        order.into_inner().unwrap()
    }

    #[tokio::test]
    async fn what_is_urgent_goes_before_a_thousand_and_in_a_long_run_of_it_the_others_have_their_turns() {
        let mut wanted: Vec<_> = (0..1000).map(|name| (name, false)).collect();
        wanted.push((1000, true));
        assert_eq!(order(&wanted).await[0], 1000);
        let wanted: Vec<_> = (0..3).map(|name| (name, false)).chain((10..16).map(|name| (name, true))).collect();
        assert_eq!(order(&wanted).await, [10, 11, 12, 0, 13, 14, 15, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_gives_its_turn_to_another_and_still_counts_as_a_complaint() {
        let congestion = Congestion::new(8, Arc::new(NoObserver));
        let hanging: Vec<_> = (0..8)
            .map(|_| {
                let congestion = congestion.clone();
                tokio::spawn(async move {
                    let mut turn = congestion.turn(false).await;
                    turn.during(tokio::time::sleep(Duration::from_secs(30))).await;
                    turn.ended(Load::Overloaded);
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let began = tokio::time::Instant::now();
        drop(congestion.turn(false).await);
        assert!(began.elapsed() <= TURN_MAX);
        for task in hanging {
            task.await.expect("it ends");
        }
        assert_eq!(congestion.state().window.limit(), 4, "halved once");
        assert_eq!(congestion.state().window.under_way, 0);
    }
}
