//! How close probes may follow each other. Pure: the time comes in as an argument, decisions go out, nothing waits here.
//!
//! Two parts, because they have two owners:
//! - [`RemotePace`], one per remote, which several sources may share;
//! - [`HostPace`], one per host: how many unannounced probes a minute it has to bear.
//!
//! Both say "go" or "not before"; when a source wants to go is [`super::pacing`]'s.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Unannounced probes of one remote keep this distance.
pub const UNANNOUNCED_SPACING: Duration = Duration::from_secs(2);
/// Announced probes of one remote: so many at once …
pub const ANNOUNCED_BURST: u32 = 5;
/// … and then one more each.
pub const ANNOUNCED_REFILL: Duration = Duration::from_secs(1);
/// A commit that was announced by name and is not to be seen yet is looked for this often: forges tell of a push before
/// all of their servers know it.
pub const EXPECTED_PERIOD: Duration = Duration::from_secs(1);
/// Unannounced probes a minute that one host has to bear from this process.
pub const HOST_PROBES_A_MINUTE: usize = 60;
const MINUTE: Duration = Duration::from_secs(60);
/// A `Retry-After` beyond this is cut: a mistaken header must not stop deliveries for a day.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Somebody said that there is something new: a webhook, `requestedAt`, a changed spec or Secret.
    Announced,
    /// What was announced was not there yet. Spaced by itself, so that it takes no announced probe from anybody.
    Expected,
    Unannounced,
}

/// How close the probes of one remote may follow each other. Shared by all sources on that remote.
#[derive(Clone, Debug)]
pub struct RemotePace {
    last_unannounced: Option<Instant>,
    last_expected: Option<Instant>,
    announced_tokens: u32,
    announced_refilled: Instant,
    silent_until: Option<Instant>,
}

impl RemotePace {
    pub fn new(now: Instant) -> RemotePace {
        RemotePace {
            last_unannounced: None,
            last_expected: None,
            announced_tokens: ANNOUNCED_BURST,
            announced_refilled: now,
            silent_until: None,
        }
    }

    /// Takes the leave for one probe now, or says when to ask again. Takes nothing from either if one of them refuses.
    pub fn take(&mut self, kind: ProbeKind, host: Option<&mut HostPace>, now: Instant) -> Result<(), Instant> {
        if let Some(until) = self.silent_until.filter(|until| *until > now) {
            return Err(until);
        }
        match kind {
            ProbeKind::Announced => self.take_announced(now),
            ProbeKind::Expected => {
                if let Some(free) = self.last_expected.map(|last| last + EXPECTED_PERIOD).filter(|at| *at > now) {
                    return Err(free);
                }
                self.last_expected = Some(now);
                Ok(())
            }
            ProbeKind::Unannounced => {
                if let Some(free) = self.last_unannounced.map(|last| last + UNANNOUNCED_SPACING).filter(|at| *at > now)
                {
                    return Err(free);
                }
                if let Some(host) = host {
                    host.take(now)?;
                }
                self.last_unannounced = Some(now);
                Ok(())
            }
        }
    }

    /// The server asked to be left alone: binds announced probes too.
    pub fn silence(&mut self, pause: Duration, now: Instant) {
        let until = now + pause.min(RETRY_AFTER_MAX);
        self.silent_until = Some(self.silent_until.map_or(until, |before| before.max(until)));
    }

    fn take_announced(&mut self, now: Instant) -> Result<(), Instant> {
        while self.announced_tokens < ANNOUNCED_BURST && self.announced_refilled + ANNOUNCED_REFILL <= now {
            self.announced_tokens += 1;
            self.announced_refilled += ANNOUNCED_REFILL;
        }
        if self.announced_tokens == ANNOUNCED_BURST {
            self.announced_refilled = now;
        }
        match self.announced_tokens.checked_sub(1) {
            Some(left) => {
                self.announced_tokens = left;
                Ok(())
            }
            None => Err(self.announced_refilled + ANNOUNCED_REFILL),
        }
    }
}

/// The unannounced probes of the last minute on one host.
#[derive(Clone, Debug, Default)]
pub struct HostPace {
    taken: VecDeque<Instant>,
}

impl HostPace {
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        while self.taken.front().is_some_and(|taken| *taken + MINUTE <= now) {
            self.taken.pop_front();
        }
        match self.taken.front() {
            Some(oldest) if self.taken.len() >= HOST_PROBES_A_MINUTE => Err(*oldest + MINUTE),
            _ => {
                self.taken.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ProbeKind::{Announced, Expected, Unannounced};
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn unannounced_probes_of_a_remote_keep_two_seconds() {
        let start = Instant::now();
        let mut remote = RemotePace::new(start);
        let mut host = HostPace::default();
        assert_eq!(remote.take(Unannounced, Some(&mut host), start), Ok(()));
        assert_eq!(remote.take(Unannounced, Some(&mut host), start + seconds(1)), Err(start + seconds(2)));
        assert_eq!(remote.take(Announced, Some(&mut host), start + seconds(1)), Ok(()));
        assert_eq!(remote.take(Unannounced, Some(&mut host), start + seconds(2)), Ok(()));
    }

    #[test]
    fn announced_probes_come_from_a_bucket_of_five() {
        let start = Instant::now();
        let mut remote = RemotePace::new(start);
        let later = start + seconds(1000);
        for _ in 0..ANNOUNCED_BURST {
            assert_eq!(remote.take(Announced, None, later), Ok(()));
        }
        assert_eq!(remote.take(Announced, None, later), Err(later + seconds(1)));
        assert_eq!(remote.take(Announced, None, later + seconds(1)), Ok(()));
        assert_eq!(remote.take(Announced, None, later + seconds(1)), Err(later + seconds(2)));
    }

    #[test]
    fn looking_for_what_is_expected_takes_nothing_from_those_who_announce() {
        let start = Instant::now();
        let mut remote = RemotePace::new(start);
        for second in 0..30 {
            let now = start + seconds(second);
            assert_eq!(remote.take(Expected, None, now), Ok(()));
            assert_eq!(remote.take(Expected, None, now), Err(now + EXPECTED_PERIOD));
        }
        for _ in 0..ANNOUNCED_BURST {
            assert_eq!(remote.take(Announced, None, start + seconds(29)), Ok(()));
        }
    }

    #[test]
    fn a_pause_that_the_server_asks_for_binds_announced_probes_too() {
        let start = Instant::now();
        let mut remote = RemotePace::new(start);
        remote.silence(seconds(90), start);
        remote.silence(seconds(10), start);
        for kind in [Announced, Unannounced] {
            assert_eq!(remote.take(kind, None, start + seconds(89)), Err(start + seconds(90)));
        }
        assert_eq!(remote.take(Announced, None, start + seconds(90)), Ok(()));
    }

    #[test]
    fn a_host_bears_sixty_unannounced_probes_a_minute_from_all_remotes() {
        let start = Instant::now();
        let mut host = HostPace::default();
        let mut remotes: Vec<_> = (0..70).map(|_| RemotePace::new(start)).collect();
        let granted =
            remotes.iter_mut().filter_map(|remote| remote.take(Unannounced, Some(&mut host), start).ok()).count();
        assert_eq!(granted, HOST_PROBES_A_MINUTE);
        let late = remotes.last_mut().unwrap();
        assert_eq!(late.take(Unannounced, Some(&mut host), start + seconds(59)), Err(start + seconds(60)));
        assert_eq!(late.take(Announced, Some(&mut host), start + seconds(59)), Ok(()));
        assert_eq!(late.take(Unannounced, Some(&mut host), start + seconds(60)), Ok(()));
    }
}
