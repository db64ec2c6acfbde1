//! The probes of one remote: one answer of the server serves all who follow one of its refs.
//!
//! ```text
//!  who asks ── is there an answer that began late enough? ── yes ──▶ had already, under way, or waiting for its turn
//!                   └── no ──▶ leave of the pace ──▶ a new one, behind the one under way
//!  an answer ──▶ those who asked, and as news those who follow
//! ```
//!
//! An answer is never older than what it answers: who asks says since when, and joins only what began no earlier. What
//! this never does: speak to a server; it is given the request to make.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::watch;

use super::error::SourceError;
use super::reference::{Reference, Revision};

/// What each reference names, or why it names nothing.
pub type Shown = HashMap<Reference, Result<Revision, SourceError>>;

/// What a server showed at one time.
pub struct Showing {
    /// When it was asked, no earlier.
    pub began: Instant,
    shown: Result<Shown, SourceError>,
}

impl Showing {
    /// `None`: it was not asked for that.
    pub fn of(&self, reference: &Reference) -> Option<Result<Revision, SourceError>> {
        match &self.shown {
            Ok(shown) => shown.get(reference).cloned(),
            Err(error) => Some(Err(error.clone())),
        }
    }
}

type Answer = Shared<BoxFuture<'static, Arc<Showing>>>;
type WeakAnswer = WeakShared<BoxFuture<'static, Arc<Showing>>>;

/// What somebody wants to know of a remote.
pub struct Question<'a> {
    pub reference: &'a Reference,
    /// An older answer is none.
    pub since: Instant,
    pub timeout: Duration,
}

pub struct Probes {
    /// Held by the request under way.
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
    news: watch::Sender<Option<Arc<Showing>>>,
}

#[derive(Default)]
struct State {
    /// How many follow each reference.
    followed: HashMap<Reference, usize>,
    /// Has not asked the server yet: everybody may join.
    waiting: Option<Waiting>,
    under_way: Option<UnderWay>,
    last: Option<Arc<Showing>>,
}

/// Held weakly: what nobody waits for any more is not done.
struct Waiting {
    references: HashSet<Reference>,
    /// The longest of those who asked: nobody's short patience makes the others fail.
    timeout: Duration,
    answer: WeakAnswer,
}

struct UnderWay {
    began: Instant,
    references: HashSet<Reference>,
    answer: WeakAnswer,
}

impl Default for Probes {
    fn default() -> Self {
        Self { turn: Arc::default(), state: Mutex::default(), news: watch::channel(None).0 }
    }
}

impl Probes {
    /// The answer to a question: one that serves it already, or a new one, for which `leave` is asked; its refusal says
    /// when to ask again. `ask` makes the request for these references within that time.
    pub fn ask<A>(
        self: &Arc<Self>,
        question: &Question<'_>,
        leave: impl FnOnce() -> Result<(), Instant>,
        ask: A,
    ) -> Result<BoxFuture<'static, Arc<Showing>>, Instant>
    where
        A: FnOnce(Vec<Reference>, Duration) -> BoxFuture<'static, Result<Shown, SourceError>> + Send + 'static,
    {
        let mut state = self.state();
        if let Some(answer) = state.answer_to(question) {
            return Ok(answer);
        }
        leave()?;
        let answer: Answer = self.clone().answer(question.timeout, ask).boxed().shared();
        state.waiting = answer.downgrade().map(|weak| Waiting {
            references: HashSet::from([question.reference.clone()]),
            timeout: question.timeout,
            answer: weak,
        });
        Ok(answer.boxed())
    }

    async fn answer<A>(self: Arc<Self>, patience: Duration, ask: A) -> Arc<Showing>
    where
        A: FnOnce(Vec<Reference>, Duration) -> BoxFuture<'static, Result<Shown, SourceError>> + Send + 'static,
    {
        // One that hangs longer than this one would is not waited for.
        let _turn = tokio::time::timeout(patience, self.turn.lock()).await;
        let began = now();
        let (references, timeout) = self.state().begin(began);
        let shown = ask(references, timeout.max(patience)).await;
        let showing = Arc::new(Showing { began, shown });
        // One that hung may end after one that began later.
        let mut state = self.state();
        if state.last.as_ref().is_none_or(|last| last.began < began) {
            state.last = Some(showing.clone());
            drop(state);
            self.news.send_replace(Some(showing.clone()));
        }
        showing
    }

    /// From now on each answer holds what this reference names, whoever asked. Until [`Probes::unfollow`].
    pub fn follow(&self, reference: &Reference) -> watch::Receiver<Option<Arc<Showing>>> {
        *self.state().followed.entry(reference.clone()).or_default() += 1;
        self.news.subscribe()
    }

    pub fn unfollow(&self, reference: &Reference) {
        let mut state = self.state();
        if let Some(count) = state.followed.get_mut(reference) {
            *count -= 1;
            if *count == 0 {
                state.followed.remove(reference);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn answer_to(&mut self, question: &Question<'_>) -> Option<BoxFuture<'static, Arc<Showing>>> {
        let had = self.last.as_ref().filter(|last| last.began > question.since);
        if let Some(last) = had.filter(|last| last.of(question.reference).is_some()) {
            return Some(futures::future::ready(last.clone()).boxed());
        }
        let under_way = self.under_way.as_ref().filter(|under_way| under_way.began > question.since);
        let joined = under_way.filter(|under_way| under_way.references.contains(question.reference));
        if let Some(answer) = joined.and_then(|under_way| under_way.answer.upgrade()) {
            return Some(answer.boxed());
        }
        let waiting = self.waiting.as_mut()?;
        let answer = waiting.answer.upgrade()?;
        waiting.references.insert(question.reference.clone());
        waiting.timeout = waiting.timeout.max(question.timeout);
        Some(answer.boxed())
    }

    /// The one that waits asks now: from here on nobody joins who needs a later answer.
    fn begin(&mut self, began: Instant) -> (Vec<Reference>, Duration) {
        let Some(Waiting { mut references, timeout, answer }) = self.waiting.take() else { return Default::default() };
        // A range makes the server list all its tags: only if that is what somebody asked for.
        let named = self.followed.keys().filter(|reference| !matches!(reference, Reference::Semver(_)));
        references.extend(named.cloned());
        let asked = references.iter().cloned().collect();
        self.under_way = Some(UnderWay { began, references, answer });
        (asked, timeout)
    }
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use git2::Oid;

    use super::*;
    use crate::source::version::VersionRange;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn branch(name: &str) -> Reference {
        Reference::Branch(name.to_owned())
    }

    /// A server that answers when it is told to, and notes what it was asked.
    #[derive(Clone, Default)]
    struct Server {
        asked: Arc<Mutex<Vec<Vec<Reference>>>>,
        open: Arc<tokio::sync::Notify>,
        leave: Arc<AtomicUsize>,
    }

    impl Server {
        fn ask(&self, probes: &Arc<Probes>, reference: &Reference, since: Instant) -> BoxFuture<'static, Arc<Showing>> {
            let (server, taken) = (self.clone(), self.leave.clone());
            let leave = move || {
                taken.fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            let ask = move |mut references: Vec<Reference>, _: Duration| {
                references.sort_by_key(ToString::to_string);
                server.asked.lock().unwrap().push(references.clone());
                async move {
                    server.open.notified().await;
                    let commit = Oid::from_str(&"1".repeat(40)).unwrap();
                    let shown = references.into_iter().map(|reference| (reference.clone(), Ok(reference.at(commit))));
                    Ok::<Shown, SourceError>(shown.collect())
                }
                .boxed()
            };
            let question = Question { reference, since, timeout: TIMEOUT };
            probes.ask(&question, leave, ask).expect("there is leave for all")
        }

        fn asked(&self) -> Vec<Vec<Reference>> {
            self.asked.lock().unwrap().clone()
        }

        fn leaves(&self) -> usize {
            self.leave.load(Ordering::Relaxed)
        }
    }

    async fn step() {
        tokio::time::advance(Duration::from_millis(1)).await;
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_answer_serves_all_who_follow_and_began_after_each_of_them_asked() {
        let (probes, server) = (Arc::new(Probes::default()), Server::default());
        let (a, b) = (branch("a"), branch("b"));
        let range = Reference::Semver(VersionRange::parse(">=1").unwrap());
        let mut news = probes.follow(&b);
        let _range = probes.follow(&range);
        let since = now();
        let first = tokio::spawn(server.ask(&probes, &a, since));
        step().await;
        // what was said before it began is in it, for whoever follows; what is said later is not
        let second = tokio::spawn(server.ask(&probes, &b, since));
        let third = tokio::spawn(server.ask(&probes, &b, now()));
        let fourth = tokio::spawn(server.ask(&probes, &range, now()));
        step().await;
        assert_eq!(server.asked(), [vec![a.clone(), b.clone()]], "all its tags are listed only if somebody wants them");
        assert_eq!(server.leaves(), 2, "one under way, one behind it");
        server.open.notify_one();
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert!(Arc::ptr_eq(&first, &second) && first.of(&b).is_some() && first.of(&range).is_none());
        news.changed().await.unwrap();
        assert!(Arc::ptr_eq(news.borrow_and_update().as_ref().unwrap(), &first));
        step().await;
        server.open.notify_one();
        let (third, fourth) = (third.await.unwrap(), fourth.await.unwrap());
        assert!(Arc::ptr_eq(&third, &fourth) && third.began > first.began && third.of(&range).is_some());

        // an answer that is young enough is not asked for again
        let again = server.ask(&probes, &b, first.began).await;
        assert!(Arc::ptr_eq(&again, &third));
        assert_eq!(server.leaves(), 2);
        probes.unfollow(&b);
        let last = tokio::spawn(server.ask(&probes, &a, now()));
        step().await;
        assert_eq!(server.asked().last(), Some(&vec![a]), "nobody follows the other any more");
        server.open.notify_one();
        last.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_any_more_holds_up_nobody() {
        let (probes, server) = (Arc::new(Probes::default()), Server::default());
        let a = branch("a");
        let hanging = tokio::spawn(server.ask(&probes, &a, now()));
        step().await;
        let waiting = tokio::spawn(server.ask(&probes, &a, now()));
        step().await;
        hanging.abort();
        waiting.abort();
        step().await;
        let asked = tokio::spawn(server.ask(&probes, &a, now()));
        step().await;
        server.open.notify_one();
        assert!(asked.await.unwrap().of(&a).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_hangs_is_not_waited_for_longer_than_ones_own_would_take() {
        let (probes, server) = (Arc::new(Probes::default()), Server::default());
        let a = branch("a");
        let _hanging = tokio::spawn(server.ask(&probes, &a, now()));
        step().await;
        let next = tokio::spawn(server.ask(&probes, &a, now()));
        step().await;
        assert_eq!(server.asked().len(), 1);
        tokio::time::sleep(TIMEOUT).await;
        step().await;
        assert_eq!(server.asked().len(), 2);
        next.abort();
    }

    #[tokio::test]
    async fn without_leave_nothing_is_asked() {
        let (probes, until) = (Arc::new(Probes::default()), Instant::now());
        let question = Question { reference: &branch("a"), since: until, timeout: TIMEOUT };
        let asked = probes.ask(&question, || Err(until), |_, _| futures::future::pending().boxed());
        assert_eq!(asked.err(), Some(until));
    }
}
