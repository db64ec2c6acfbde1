//! What was delivered already, so that a replay does nothing. Pure.
//!
//! The id of a delivery is not signed, its content is. So the same content is a replay under the same id, and under any
//! id while nothing else was delivered for the same refs in between: a branch that is put back to where it was sends the
//! same content again, and that is news.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use sha2::{Digest, Sha256};

use super::payload::Push;
use super::signature::Content;

/// Deliveries that are remembered: a few days of a busy organisation, in half a megabyte.
pub const DELIVERIES_MAX: usize = 4096;

/// Owned by the desk of the listener; lost with the process, and with it what a replay would have to do.
#[derive(Default)]
pub struct Deliveries {
    seen: Bounded<Content, ()>,
    /// What was delivered last for some refs of a repository.
    last: Bounded<Content, Content>,
}

impl Deliveries {
    /// Takes note of a delivery; false if it is a replay.
    pub fn take(&mut self, id: Option<&str>, content: Content, push: &Push) -> bool {
        let place = place(push);
        let delivery = Sha256::new().chain_update(content).chain_update(id.unwrap_or_default()).finalize().into();
        if self.seen.get(&delivery).is_some() || self.last.get(&place) == Some(&content) {
            return false;
        }
        self.seen.put(delivery, ());
        self.last.put(place, content);
        true
    }
}

/// The repository and the refs that a push is about.
fn place(push: &Push) -> Content {
    let mut hash = Sha256::new();
    let addresses = push.addresses.iter().map(|address| format!("{address:?}"));
    let refs = push.changes.iter().map(|change| format!("{:?}", change.reference));
    for part in addresses.chain(refs) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// A map that lets go of the oldest entry when it is full.
struct Bounded<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Eq + Hash + Copy, V> Bounded<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    fn put(&mut self, key: K, value: V) {
        if self.entries.insert(key, value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > DELIVERIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::Address;
    use super::super::payload::{Change, Moved};
    use super::*;

    fn push(reference: &str) -> Push {
        Push {
            addresses: vec![Address::parse("https://github.com/org/repo").unwrap()],
            changes: vec![Change { reference: Some(reference.to_owned()), moved: Moved::Unknown }],
        }
    }

    #[test]
    fn a_replay_is_recognised_and_what_was_put_back_is_none() {
        let mut deliveries = Deliveries::default();
        let main = push("refs/heads/main");
        assert!(deliveries.take(Some("1"), [1; 32], &main));
        assert!(!deliveries.take(Some("1"), [1; 32], &main), "the same again");
        assert!(!deliveries.take(Some("2"), [1; 32], &main), "under an id that somebody made up");
        assert!(deliveries.take(Some("3"), [2; 32], &main));
        assert!(!deliveries.take(Some("1"), [1; 32], &main), "an old one again");
        assert!(deliveries.take(Some("4"), [1; 32], &main), "the branch was put back");
        assert!(deliveries.take(Some("5"), [3; 32], &push("refs/heads/other")));
        assert!(!deliveries.take(Some("6"), [1; 32], &main), "another branch changes nothing");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut deliveries = Deliveries::default();
        for number in 0..3 * DELIVERIES_MAX {
            let content = Sha256::digest(number.to_be_bytes()).into();
            assert!(deliveries.take(Some(&number.to_string()), content, &push(&format!("refs/heads/{number}"))));
        }
        assert_eq!(deliveries.seen.entries.len(), DELIVERIES_MAX);
        assert_eq!(deliveries.last.entries.len(), DELIVERIES_MAX);
        assert_eq!(deliveries.seen.order.len(), DELIVERIES_MAX);
    }
}
