//! When a source wants to be probed. Pure: the time comes in as an argument, decisions go out, nothing waits here.
//!
//! A [`Pacing`], one per source, says "at"; what the remote and its host then say to it, "go" or "not before", is
//! [`super::spacing`]'s.

use std::time::{Duration, Instant};

use super::error::{Class, SourceError};
use super::spacing::{EXPECTED_PERIOD, ProbeKind, RETRY_AFTER_MAX, UNANNOUNCED_SPACING};

/// While something on a source fails or waits, a fix is looked for this often …
pub const ATTENTION_PERIOD: Duration = Duration::from_secs(5);
/// … over ssh, where each probe is a new connection with a key exchange, …
pub const ATTENTION_PERIOD_SSH: Duration = Duration::from_secs(15);
/// … for this long after the last change of state, …
pub const ATTENTION_KEEN: Duration = Duration::from_secs(5 * 60);
/// … and then more seldom, down to this (or the interval, if that is shorter).
pub const ATTENTION_PERIOD_MAX: Duration = Duration::from_secs(60);
/// How the attention fades: a probe costs a tenth of the time that has passed since the keen phase.
const ATTENTION_FADING: u32 = 10;

/// Waits after consecutive failures to reach the server; the last one repeats.
const UNREACHABLE_BACKOFF: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(5)];

/// For a rate limit without `Retry-After`.
pub const RATE_LIMIT_DEFAULT: Duration = Duration::from_secs(60);
/// What is expected is looked for this long.
pub const EXPECTED_MAX: Duration = Duration::from_secs(30);

/// When the next probe is wanted, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    pub at: Instant,
    pub kind: ProbeKind,
    /// An answer of the remote that began no earlier will do, whoever asked for it.
    pub since: Instant,
}

/// What pacing needs to know of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: Class,
    /// Present if the server asked for fewer requests.
    pub retry_after: Option<Duration>,
}

impl From<&SourceError> for Failure {
    fn from(error: &SourceError) -> Self {
        let limited = matches!(error, SourceError::RateLimited { .. });
        let retry_after = limited.then(|| error.retry_after().unwrap_or(RATE_LIMIT_DEFAULT).min(RETRY_AFTER_MAX));
        Failure { class: error.class(), retry_after }
    }
}

/// One source's wish for probes. Owned by the source's worker.
#[derive(Clone, Debug)]
pub struct Pacing {
    interval: Duration,
    attention_period: Duration,
    /// The last announcement that no probe has answered yet.
    announced: Option<Instant>,
    /// A retry wants a look that no probe has answered yet.
    requested: Option<Instant>,
    /// Something that was announced by name is looked for until then.
    expected_until: Option<Instant>,
    /// Something on this source fails or waits.
    attention: bool,
    /// The last change of state: attention counts from here.
    changed: Instant,
    started: Instant,
    ended: Instant,
    running: bool,
    failure: Option<Class>,
    failures_in_a_row: usize,
    /// The server asked for silence until then.
    silent_until: Option<Instant>,
    /// The remote or its host takes no probe of this kind until then.
    refused: Option<(ProbeKind, Instant)>,
}

impl Pacing {
    /// A new source is announced by its own creation.
    pub fn new(interval: Duration, now: Instant) -> Pacing {
        Pacing {
            interval,
            attention_period: ATTENTION_PERIOD,
            announced: Some(now),
            requested: None,
            expected_until: None,
            attention: false,
            changed: now,
            started: now,
            ended: now,
            running: false,
            failure: None,
            failures_in_a_row: 0,
            silent_until: None,
            refused: None,
        }
    }

    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// How often to look while something fails or waits: what a probe costs depends on the way to the remote.
    pub fn set_attention_period(&mut self, period: Duration) {
        self.attention_period = period;
    }

    /// Something new is said to be there. Calls before the next probe starts count as one.
    pub fn announce(&mut self, now: Instant) {
        self.announced = Some(now);
    }

    /// Something is announced by name: it is looked for now, and each second for a while, until [`Pacing::seen`].
    pub fn expect(&mut self, now: Instant) {
        self.announce(now);
        self.expected_until = Some(now + EXPECTED_MAX);
    }

    /// What was expected is there.
    pub fn seen(&mut self) {
        self.expected_until = None;
    }

    /// Somebody tries again and wants to know what is newest: an unannounced probe as soon as its spacing allows, unless
    /// the server itself is what fails.
    pub fn request(&mut self, now: Instant) {
        self.requested = Some(now);
    }

    /// Whether anything on this source fails or waits. A change of it is a change of state.
    pub fn set_attention(&mut self, attention: bool, now: Instant) {
        if self.attention != attention {
            self.attention = attention;
            self.changed = now;
        }
    }

    /// A new revision, another failure, a recovery: attention is keen again.
    pub fn state_changed(&mut self, now: Instant) {
        self.changed = now;
    }

    /// A probe of this kind may not start before then. One of the other kind may: nobody who announces a fix waits for
    /// the spacing of those who only look.
    pub fn on_refused(&mut self, kind: ProbeKind, until: Instant) {
        self.refused = Some((kind, until));
    }

    /// Answers what was announced before; what is announced from now on needs another probe.
    pub fn on_probe_started(&mut self, now: Instant) {
        self.announced = None;
        self.requested = None;
        self.running = true;
        self.started = now;
    }

    /// What the remote showed when it was asked then, by whoever: it answers what was announced before.
    pub fn on_answered(&mut self, began: Instant) {
        self.announced = self.announced.filter(|announced| *announced > began);
        self.requested = self.requested.filter(|requested| *requested > began);
        self.started = self.started.max(began);
    }

    /// Whether an answer that began then tells more than the last one did.
    pub fn is_news(&self, began: Instant) -> bool {
        !self.running && began > self.started
    }

    /// The probe that runs was given up, and nobody waits for its answer: the spec is another one.
    pub fn on_probe_abandoned(&mut self) {
        self.running = false;
    }

    pub fn on_probe_ended(&mut self, result: Result<(), Failure>, now: Instant) {
        self.running = false;
        self.ended = now;
        self.silent_until = None;
        match result {
            Ok(()) => {
                self.failure = None;
                self.failures_in_a_row = 0;
            }
            Err(failure) => {
                let same = self.failure == Some(failure.class);
                self.failures_in_a_row = if same { self.failures_in_a_row + 1 } else { 1 };
                self.failure = Some(failure.class);
                self.silent_until = failure.retry_after.map(|pause| now + pause);
            }
        }
    }

    /// When the next probe is wanted; `None` while one runs.
    pub fn next(&self, now: Instant) -> Option<When> {
        if self.running {
            return None;
        }
        let expected = self.expected_until.and_then(|until| {
            let at = self.started + EXPECTED_PERIOD;
            (at <= until && now <= until).then_some(When { at, kind: ProbeKind::Expected, since: at })
        });
        let wanted = match (self.announced, expected) {
            (Some(at), _) => When { at, kind: ProbeKind::Announced, since: at },
            (None, Some(expected)) => expected,
            (None, None) => {
                let at = self.unannounced(now);
                // Who only looks again gets no answer of its own within the spacing.
                let spaced = at.checked_sub(UNANNOUNCED_SPACING).unwrap_or(at);
                let since = self.requested.unwrap_or(spaced).max(self.ended);
                When { at, kind: ProbeKind::Unannounced, since }
            }
        };
        let refused = self.refused.filter(|(kind, _)| *kind == wanted.kind).map(|(_, until)| until);
        Some(When { at: wanted.at.max(self.silent_until.max(refused).unwrap_or(wanted.at)), ..wanted })
    }

    fn unannounced(&self, now: Instant) -> Instant {
        match self.failure {
            Some(Class::Auth | Class::NotFound | Class::Permanent) => self.started + self.interval,
            Some(Class::Unreachable | Class::Transient) => {
                let index = self.failures_in_a_row.saturating_sub(1).min(UNREACHABLE_BACKOFF.len() - 1);
                self.ended + UNREACHABLE_BACKOFF[index]
            }
            None | Some(Class::Commit) if self.requested.is_some() => now,
            Some(Class::Commit) => self.started + self.attention_period(now),
            None if self.attention => self.started + self.attention_period(now),
            None => self.started + self.interval,
        }
    }

    /// Grows with the time that nothing has changed.
    fn attention_period(&self, now: Instant) -> Duration {
        let fading = now.saturating_duration_since(self.changed).saturating_sub(ATTENTION_KEEN) / ATTENTION_FADING;
        (self.attention_period + fading).min(ATTENTION_PERIOD_MAX).min(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::ProbeKind::{Announced, Expected, Unannounced};
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(600);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn failure(class: Class) -> Result<(), Failure> {
        Err(Failure { class, retry_after: None })
    }

    /// A source whose first probe has just succeeded.
    fn settled(start: Instant) -> Pacing {
        let mut pacing = Pacing::new(INTERVAL, start);
        pacing.on_probe_started(start);
        pacing.on_probe_ended(Ok(()), start);
        pacing
    }

    fn due(pacing: &Pacing, start: Instant, now: Instant) -> (u64, ProbeKind) {
        let when = pacing.next(now).expect("no probe runs");
        (when.at.duration_since(start).as_secs(), when.kind)
    }

    #[test]
    fn a_new_source_is_probed_at_once_and_then_each_interval() {
        let start = Instant::now();
        let mut pacing = Pacing::new(INTERVAL, start);
        assert_eq!(due(&pacing, start, start), (0, Announced));
        pacing.on_probe_started(start);
        assert_eq!(pacing.next(start), None);
        pacing.on_probe_ended(Ok(()), start + seconds(1));
        assert_eq!(due(&pacing, start, start + seconds(1)), (600, Unannounced));
    }

    #[test]
    fn an_announcement_does_not_wait_for_the_spacing_of_unannounced_probes() {
        let start = Instant::now();
        let mut pacing = settled(start);
        pacing.request(start);
        pacing.on_refused(Unannounced, start + seconds(2));
        assert_eq!(due(&pacing, start, start), (2, Unannounced));
        pacing.announce(start + seconds(1));
        assert_eq!(due(&pacing, start, start + seconds(1)), (1, Announced));
        pacing.on_refused(Announced, start + seconds(3));
        assert_eq!(due(&pacing, start, start + seconds(1)), (3, Announced));
    }

    #[test]
    fn attention_is_keen_for_five_minutes_and_then_fades() {
        let start = Instant::now();
        // Seconds since the last change of state → seconds between probes.
        for (since, period) in [(0, 5), (299, 5), (300, 5), (350, 10), (500, 25), (850, 60), (5000, 60)] {
            let mut pacing = settled(start);
            pacing.set_attention(true, start);
            let now = start + seconds(since);
            pacing.on_probe_started(now);
            pacing.on_probe_ended(Ok(()), now);
            assert_eq!(due(&pacing, now, now), (period, Unannounced), "after {since} s");
        }
    }

    #[test]
    fn a_change_of_state_makes_attention_keen_again() {
        let start = Instant::now();
        let mut pacing = settled(start);
        pacing.set_attention(true, start);
        let later = start + seconds(3600);
        pacing.on_probe_started(later);
        pacing.on_probe_ended(Ok(()), later);
        pacing.set_attention(true, later);
        assert_eq!(due(&pacing, later, later).0, 60);
        pacing.state_changed(later);
        assert_eq!(due(&pacing, later, later).0, 5);
        pacing.set_attention(false, later);
        assert_eq!(due(&pacing, later, later).0, 600);
    }

    #[test]
    fn a_short_interval_bounds_the_faded_attention() {
        let start = Instant::now();
        let mut pacing = settled(start);
        pacing.set_interval(seconds(30));
        pacing.set_attention(true, start);
        let later = start + seconds(3600);
        pacing.on_probe_started(later);
        pacing.on_probe_ended(Ok(()), later);
        assert_eq!(due(&pacing, later, later).0, 30);
    }

    #[test]
    fn an_unreachable_server_is_asked_after_1_2_4_5_5_seconds() {
        let start = Instant::now();
        let mut pacing = settled(start);
        let mut now = start;
        for wait in [1, 2, 4, 5, 5, 5] {
            pacing.on_probe_started(now);
            now += seconds(10);
            pacing.on_probe_ended(failure(Class::Unreachable), now);
            assert_eq!(due(&pacing, now, now), (wait, Unannounced));
            now += seconds(wait);
        }
        pacing.on_probe_started(now);
        pacing.on_probe_ended(Ok(()), now);
        pacing.on_probe_started(now);
        pacing.on_probe_ended(failure(Class::Unreachable), now);
        assert_eq!(due(&pacing, now, now).0, 1, "a success starts the back-off over");
    }

    #[test]
    fn refused_credentials_wait_for_the_interval_or_an_announcement() {
        let start = Instant::now();
        for class in [Class::Auth, Class::NotFound, Class::Permanent] {
            let mut pacing = settled(start);
            pacing.set_attention(true, start);
            pacing.on_probe_started(start);
            pacing.on_probe_ended(failure(class), start + seconds(1));
            assert_eq!(due(&pacing, start, start + seconds(1)), (600, Unannounced), "{class:?}");
            pacing.announce(start + seconds(7));
            assert_eq!(due(&pacing, start, start + seconds(7)), (7, Announced), "{class:?}");
        }
    }

    #[test]
    fn a_probe_that_was_given_up_is_not_waited_for() {
        let start = Instant::now();
        let mut pacing = settled(start);
        pacing.on_probe_started(start);
        pacing.announce(start + seconds(1));
        assert_eq!(pacing.next(start + seconds(1)), None);
        pacing.on_probe_abandoned();
        assert_eq!(due(&pacing, start, start + seconds(1)), (1, Announced));
    }

    #[test]
    fn another_commit_than_one_that_cannot_be_taken_is_looked_for_with_attention() {
        let start = Instant::now();
        let mut pacing = settled(start);
        pacing.state_changed(start);
        pacing.on_probe_started(start);
        pacing.on_probe_ended(failure(Class::Commit), start + seconds(1));
        assert_eq!(due(&pacing, start, start + seconds(1)), (5, Unannounced));
    }

    #[test]
    fn an_announcement_during_a_probe_needs_another_one() {
        let start = Instant::now();
        let mut pacing = settled(start);
        pacing.announce(start + seconds(1));
        pacing.announce(start + seconds(2));
        assert_eq!(due(&pacing, start, start + seconds(2)), (2, Announced));
        pacing.on_probe_started(start + seconds(3));
        pacing.announce(start + seconds(4));
        pacing.on_probe_ended(Ok(()), start + seconds(5));
        assert_eq!(due(&pacing, start, start + seconds(5)), (4, Announced));
        pacing.on_probe_started(start + seconds(5));
        pacing.on_probe_ended(Ok(()), start + seconds(5));
        assert_eq!(due(&pacing, start, start + seconds(5)), (605, Unannounced));
    }

    #[test]
    fn an_answer_that_others_asked_for_serves_as_ones_own() {
        let start = Instant::now();
        let mut pacing = settled(start);
        pacing.announce(start + seconds(10));
        assert!(!pacing.is_news(start), "it is the last one that was had");
        assert!(pacing.is_news(start + seconds(9)));
        pacing.on_answered(start + seconds(9));
        pacing.on_probe_ended(Ok(()), start + seconds(11));
        assert_eq!(due(&pacing, start, start + seconds(11)), (10, Announced), "it began before the announcement");
        pacing.on_answered(start + seconds(12));
        pacing.on_probe_ended(Ok(()), start + seconds(13));
        assert_eq!(due(&pacing, start, start + seconds(13)), (612, Unannounced));
        pacing.on_probe_started(start + seconds(20));
        assert!(!pacing.is_news(start + seconds(21)), "one's own answer is on its way");
    }

    #[test]
    fn only_an_answer_that_began_after_the_trigger_will_do() {
        let start = Instant::now();
        let since = |pacing: &Pacing, now| pacing.next(now).unwrap().since.duration_since(start).as_secs();
        let mut pacing = settled(start);
        assert_eq!(since(&pacing, start + seconds(600)), 598, "who only looks again takes what the spacing leaves");
        pacing.request(start + seconds(5));
        assert_eq!(since(&pacing, start + seconds(7)), 5);
        pacing.announce(start + seconds(8));
        pacing.announce(start + seconds(9));
        assert_eq!(since(&pacing, start + seconds(9)), 9);
        pacing.on_probe_started(start + seconds(9));
        pacing.on_probe_ended(failure(Class::Unreachable), start + seconds(30));
        assert_eq!(since(&pacing, start + seconds(31)), 30, "its own failure is no answer");
    }

    #[test]
    fn what_is_expected_is_looked_for_each_second_until_it_is_seen() {
        let start = Instant::now();
        let mut pacing = settled(start);
        pacing.expect(start + seconds(100));
        assert_eq!(due(&pacing, start, start + seconds(100)), (100, Announced));
        for second in 100..130 {
            let now = start + seconds(second);
            pacing.on_probe_started(now);
            pacing.on_probe_ended(Ok(()), now);
            assert_eq!(due(&pacing, start, now), (second + 1, Expected));
        }
        let mut given_up = pacing.clone();
        given_up.on_probe_started(start + seconds(130));
        given_up.on_probe_ended(Ok(()), start + seconds(130));
        assert_eq!(due(&given_up, start, start + seconds(130)), (730, Unannounced), "30 s are enough");
        pacing.seen();
        assert_eq!(due(&pacing, start, start + seconds(129)), (729, Unannounced));
    }

    #[test]
    fn a_failing_server_is_asked_each_second_for_what_is_expected() {
        let start = Instant::now();
        for class in [Class::NotFound, Class::Unreachable] {
            let mut pacing = settled(start);
            pacing.expect(start);
            pacing.on_probe_started(start);
            pacing.on_probe_ended(failure(class), start);
            assert_eq!(due(&pacing, start, start), (1, Expected), "{class:?}");
        }
    }

    #[test]
    fn retry_after_binds_announced_probes_too() {
        let start = Instant::now();
        let mut pacing = settled(start);
        pacing.on_probe_started(start);
        let limited = Failure { class: Class::Transient, retry_after: Some(seconds(90)) };
        pacing.on_probe_ended(Err(limited), start);
        assert_eq!(due(&pacing, start, start), (90, Unannounced));
        pacing.announce(start + seconds(1));
        assert_eq!(due(&pacing, start, start), (90, Announced));
    }

    #[test]
    fn a_rate_limit_without_a_time_and_one_without_measure_are_bounded() {
        let url = super::super::SourceUrl::parse("https://example.com/a").unwrap();
        let limited = |retry_after| SourceError::RateLimited { url: url.clone(), status: 429, retry_after };
        let pause = |retry_after| Failure::from(&limited(retry_after)).retry_after;
        assert_eq!(pause(None), Some(RATE_LIMIT_DEFAULT));
        assert_eq!(pause(Some(seconds(7))), Some(seconds(7)));
        assert_eq!(pause(Some(seconds(1_000_000))), Some(RETRY_AFTER_MAX));
    }
}
