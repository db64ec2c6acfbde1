//! Statuses stand back for applies: that all is live counts for more than that all of it has been said.

use std::time::{Duration, Instant};

use super::permits::Permits;
use crate::config;

/// Lets those go first who wait to apply, for a while.
#[derive(Default)]
pub(super) struct Courtesy(tokio::sync::Mutex<()>);

/// So long at most is held back what an application says of itself.
const COURTESY_MAX: Duration = Duration::from_secs(5);

impl Courtesy {
    /// Returns once nobody waits to apply, or after a while. One of those who stand back looks, the others behind it.
    pub async fn stand_back(&self, applies: &Permits) {
        let until = now() + COURTESY_MAX;
        let _line = self.0.lock().await;
        while applies.contended() && now() < until {
            tokio::time::sleep(STAND_BACK).await;
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
    use crate::engine::permits::Urgency;

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
    async fn what_is_applied_is_said_when_nobody_waits_to_apply_any_more_or_after_a_while() {
        let (courtesy, applies) = (Courtesy::default(), Permits::new(1));
        let began = now();
        courtesy.stand_back(&applies).await;
        assert_eq!(now(), began, "nobody waits");

        let held = applies.acquire(Urgency::Announced).await;
        let mut waiting = Box::pin(applies.acquire(Urgency::Announced));
        assert!(futures::poll!(&mut waiting).is_pending());
        let all = (0..100).map(|_| courtesy.stand_back(&applies));
        futures::future::join_all(all).await;
        let waited = now() - began;
        assert!((COURTESY_MAX..COURTESY_MAX + 2 * STAND_BACK).contains(&waited), "{waited:?}");

        let (began, end) = (now(), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(held);
            waiting.await
        });
        tokio::join!(courtesy.stand_back(&applies), end);
        assert!(now() - began < Duration::from_secs(2));
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
