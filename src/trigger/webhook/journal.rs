//! What the listener has to say to people, written elsewhere: a log that is read slowly must not delay an answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::desk::Answer;
use crate::report::Delivery;

/// Notes that wait to be written; beyond that they are left out, which the metric of deliveries doesn't.
const NOTES_MAX: usize = 64;
/// The same complaint is written at most so often.
const COMPLAINTS_SPACING: Duration = Duration::from_secs(10);

/// The listener's end.
pub struct Journal(mpsc::Sender<Note>);

pub struct Note {
    /// Who is connected: the forge, or what stands before us.
    peer: IpAddr,
    forge: &'static str,
    outcome: Delivery,
    text: String,
}

impl Journal {
    pub fn new() -> (Journal, mpsc::Receiver<Note>) {
        let (sender, notes) = mpsc::channel(NOTES_MAX);
        (Journal(sender), notes)
    }

    /// Never waits.
    pub fn note(&self, answer: &Answer, peer: IpAddr) {
        if let Ok(place) = self.0.try_reserve() {
            place.send(Note { peer, forge: answer.forge, outcome: answer.outcome, text: answer.text.to_string() });
        }
    }
}

/// Writes until the listener is gone.
pub async fn write(mut notes: mpsc::Receiver<Note>) {
    let mut written: HashMap<(&'static str, &'static str), Instant> = HashMap::new();
    while let Some(Note { peer, forge, outcome, text }) = notes.recv().await {
        let result = outcome.label();
        match outcome {
            Delivery::Accepted => tracing::info!(%peer, forge, result, "a webhook came in: {text}"),
            Delivery::Ping | Delivery::Ignored | Delivery::Unmatched | Delivery::Replayed => {
                tracing::debug!(forge, result, "a webhook came in: {text}");
            }
            _ => {
                let now = Instant::now();
                let last = written.get(&(forge, result));
                if last.is_none_or(|last| now.saturating_duration_since(*last) >= COMPLAINTS_SPACING) {
                    written.insert((forge, result), now);
                    tracing::warn!(%peer, forge, result, "a webhook was refused: {text}");
                }
            }
        }
    }
}
