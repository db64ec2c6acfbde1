//! The fence before the API server: writes pass only while this process leads.
//!
//! Comes in: until when the Leases are ours, from who renews them. Goes out, for each write: may it be sent, and by
//! when must it be answered. Nothing is asked of anyone for that: a process that is cut off stops by its own clock.
//!
//! ```text
//!  renewed ──────────────▶ no write begins after this ─────▶ no answer is waited for after this: the Lease is over
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Writes pass while it is open. Clones share one fence; the default lets everything pass.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    span: Option<Arc<Mutex<Option<Span>>>>,
    /// What every write passes besides.
    outer: Option<Box<Fence>>,
}

/// The write was not sent: this process doesn't lead (any more).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not sent: this replica does not hold the Lease")]
pub struct Closed;

/// How long writes pass, by two clocks: the monotonic one may stand still while the machine sleeps, the other may be
/// set back.
#[derive(Clone, Copy, Debug)]
struct Span {
    begin_until: Instant,
    begin_until_by_wall: SystemTime,
    answer_until: Instant,
}

impl Fence {
    /// A fence that is shut until it is extended.
    pub fn shut() -> Self {
        Self { span: Some(Arc::default()), outer: None }
    }

    /// This fence behind another one: what passes has to pass both.
    pub fn within(self, outer: &Self) -> Self {
        Self { outer: Some(Box::new(outer.clone())), ..self }
    }

    /// Lets writes begin for `begin` from now on; their answers are waited for no longer than `answer` from now on.
    pub fn extend(&self, begin: Duration, answer: Duration) {
        let Some(span) = &self.span else { return };
        let now = Instant::now();
        *span.lock().unwrap_or_else(PoisonError::into_inner) = Some(Span {
            begin_until: now + begin,
            begin_until_by_wall: SystemTime::now() + begin,
            answer_until: now + answer,
        });
    }

    /// Nothing passes from now on, until it is extended.
    pub fn close(&self) {
        if let Some(span) = &self.span {
            span.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// Whether a write may be sent now, and when its answer comes too late; `None`: no bound.
    pub fn admit(&self) -> Result<Option<Instant>, Closed> {
        let outer = self.outer.as_ref().map_or(Ok(None), |outer| outer.admit())?;
        let Some(span) = &self.span else { return Ok(outer) };
        let span = span.lock().unwrap_or_else(PoisonError::into_inner).ok_or(Closed)?;
        if Instant::now() >= span.begin_until || SystemTime::now() >= span.begin_until_by_wall {
            return Err(Closed);
        }
        Ok(Some(outer.map_or(span.answer_until, |until| until.min(span.answer_until))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn writes_begin_only_before_the_deadline_and_wait_no_longer_than_the_lease() {
        let fence = Fence::shut();
        assert_eq!(fence.admit(), Err(Closed));
        fence.extend(Duration::from_secs(25), Duration::from_secs(35));
        let end = Instant::now() + Duration::from_secs(35);
        tokio::time::advance(Duration::from_secs(24)).await;
        assert_eq!(fence.admit(), Ok(Some(end)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(fence.admit(), Err(Closed));
        fence.extend(Duration::from_secs(25), Duration::from_secs(35));
        assert!(fence.admit().is_ok());
        fence.close();
        assert_eq!(fence.admit(), Err(Closed));
        assert_eq!(Fence::default().admit(), Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn behind_two_fences_the_narrower_one_decides() {
        let (wide, narrow) = (Fence::shut(), Fence::shut());
        let both = narrow.clone().within(&wide);
        narrow.extend(Duration::from_secs(10), Duration::from_secs(20));
        assert_eq!(both.admit(), Err(Closed));
        wide.extend(Duration::from_secs(25), Duration::from_secs(35));
        assert_eq!(both.admit(), Ok(Some(Instant::now() + Duration::from_secs(20))));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(both.admit(), Err(Closed));
        narrow.extend(Duration::from_secs(60), Duration::from_secs(60));
        assert_eq!(both.admit(), Ok(Some(Instant::now() + Duration::from_secs(25))));
        wide.close();
        assert_eq!(both.admit(), Err(Closed));
    }
}
