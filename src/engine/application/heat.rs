//! How soon an object is put back that somebody changes again and again.
//!
//! Comes in: when it was put back. Goes out: when it may be put back next, and whether that is a fight. Other objects of
//! the application are not concerned.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So often within [`WINDOW`] an object is put back at once; once more is a fight.
const CORRECTIONS_MAX: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// The pauses of a fight, each twice the one before: a person sees that something is wrong, the API server hardly does.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// So long after a pause nobody must have changed the object again for the fight to be over.
const CALM: Duration = Duration::from_secs(20);

/// One object that was put back lately.
#[derive(Debug)]
pub(super) struct Heat {
    /// What it was put back to: something else is another matter, and goes at once.
    digest: String,
    recent: VecDeque<Instant>,
    last: Instant,
    pause: Duration,
    /// What was changed, and by whom, when the fight began.
    fight: Option<String>,
}

impl Heat {
    pub fn new(digest: &str, now: Instant) -> Self {
        Self { digest: digest.into(), recent: VecDeque::new(), last: now, pause: Duration::ZERO, fight: None }
    }

    /// Takes in that the object was sent again. `changed`: what others had changed of it; `None` if nothing was different.
    /// True if that begins a fight.
    pub fn put_back(&mut self, digest: &str, now: Instant, changed: Option<&str>) -> bool {
        if self.digest != digest {
            *self = Self::new(digest, now);
        }
        self.recent.retain(|at| now.duration_since(*at) < WINDOW);
        self.recent.push_back(now);
        self.last = now;
        let slowed = !self.pause.is_zero();
        if !slowed && self.recent.len() <= CORRECTIONS_MAX {
            return false;
        }
        self.recent.clear();
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        match changed {
            Some(changed) if self.fight.is_none() => {
                self.fight = Some(changed.to_owned());
                true
            }
            _ => false,
        }
    }

    /// True if what is to be sent has to wait.
    pub fn holds_back(&self, digest: &str, now: Instant) -> bool {
        self.digest == digest && now < self.free_at()
    }

    /// When it may be put back next.
    pub fn free_at(&self) -> Instant {
        self.last + self.pause
    }

    /// When it is over if nobody changes the object until then.
    pub fn over_at(&self) -> Instant {
        if self.pause.is_zero() { self.last + WINDOW } else { self.free_at() + CALM }
    }

    pub fn fight(&self) -> Option<&str> {
        self.fight.as_deref()
    }

    /// When something is to be done about it, after `now`.
    pub fn wakes_at(&self, now: Instant) -> Option<Instant> {
        let over_at = self.fight.is_some().then(|| self.over_at());
        [Some(self.free_at()), over_at].into_iter().flatten().filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_sixth_correction_within_a_minute_begins_a_fight_of_growing_and_bounded_pauses() {
        let start = Instant::now();
        let mut heat = Heat::new("d", start);
        for at in 0..5 {
            assert!(!heat.put_back("d", start + seconds(at), Some("spec.x")));
            assert!(!heat.holds_back("d", start + seconds(at)), "the first five are put back at once");
        }
        let mut now = start + seconds(5);
        assert!(heat.put_back("d", now, Some("spec.x")));
        let mut pauses = Vec::new();
        for _ in 0..7 {
            assert!(heat.holds_back("d", now) && heat.holds_back("d", heat.free_at() - seconds(1)));
            pauses.push(heat.free_at().duration_since(now).as_secs());
            now = heat.free_at();
            assert!(!heat.holds_back("d", now));
            assert!(!heat.put_back("d", now, Some("spec.y")), "it is said once");
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300]);
        assert_eq!(heat.fight(), Some("spec.x"));
    }

    #[test]
    fn five_corrections_a_minute_are_no_fight() {
        let start = Instant::now();
        let mut heat = Heat::new("d", start);
        for n in 0..50 {
            let now = start + seconds(n * 12);
            assert!(!heat.put_back("d", now, Some("spec.x")), "{n}");
            assert!(!heat.holds_back("d", now));
        }
    }

    #[test]
    fn a_fight_is_over_when_nobody_has_changed_the_object_for_a_while_beyond_the_pause() {
        let start = Instant::now();
        let mut heat = Heat::new("d", start);
        for _ in 0..6 {
            heat.put_back("d", start, Some("spec.x"));
        }
        assert_eq!(heat.wakes_at(start), Some(start + seconds(5)));
        assert_eq!(heat.wakes_at(start + seconds(5)), Some(start + seconds(25)));
        assert_eq!(heat.over_at(), start + seconds(25));
        assert_eq!(heat.wakes_at(start + seconds(25)), None);
    }

    #[test]
    fn something_else_in_git_goes_at_once() {
        let start = Instant::now();
        let mut heat = Heat::new("a", start);
        for _ in 0..6 {
            heat.put_back("a", start, Some("spec.x"));
        }
        assert!(heat.holds_back("a", start) && !heat.holds_back("b", start));
        assert!(!heat.put_back("b", start, Some("spec.x")));
        assert_eq!((heat.fight(), heat.free_at()), (None, start));
    }

    #[test]
    fn what_is_sent_in_vain_is_slowed_and_is_no_fight() {
        let start = Instant::now();
        let mut heat = Heat::new("d", start);
        assert!((0..6).all(|_| !heat.put_back("d", start, None)));
        assert!(heat.holds_back("d", start) && heat.fight().is_none());
    }
}
