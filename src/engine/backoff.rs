//! When a failed attempt is tried again.

use std::time::Duration;

/// The first pause after a failure.
const FIRST: Duration = Duration::from_secs(1);

/// 1 s, doubling up to a ceiling; anything new starts it over.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure.
    pub fn next(&mut self, ceiling: Duration) -> Duration {
        let pause = FIRST.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(ceiling.max(FIRST));
        self.failures = self.failures.saturating_add(1);
        pause
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_one_second_to_the_ceiling_and_start_over_after_something_new() {
        let mut backoff = Backoff::default();
        let ceiling = Duration::from_secs(10);
        let pauses: Vec<_> = (0..6).map(|_| backoff.next(ceiling).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        for _ in 0..100 {
            assert_eq!(backoff.next(ceiling), ceiling);
        }
        backoff.reset();
        assert_eq!(backoff.next(ceiling), FIRST);
    }
}
