//! What waits for one provider: at most one parcel for each object and Alert, the newest.
//!
//! Why the newest: after an hour without an answer people want to know how things are, not to read how they were. A
//! recovery that overtakes the failure before it takes its place; it says that there was one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::Notify;

use super::format::Notice;
use super::news::Commit;
use super::standing::Phase;
use crate::api::Key;

/// Parcels that wait: one for each application of the largest installation that we serve. At about 5 KiB each that is
/// 5 MiB for an endpoint that is away.
pub const PARCELS_MAX: usize = 1000;

/// What is one and the same matter to a receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    pub alert: Key,
    pub kind: &'static str,
    pub object: Key,
    pub matter: Matter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Matter {
    /// Whether the object is as it should be.
    State,
    /// A note, by its reason.
    Note(String),
    /// A commit, by its revision.
    Commit(String),
}

#[derive(Clone, Debug)]
pub struct Parcel {
    pub slot: Slot,
    pub since: Timestamp,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    Message {
        notice: Box<Notice>,
        phase: Phase,
    },
    /// The name of its status, and how it fares.
    Commit {
        name: String,
        commit: Box<Commit>,
    },
}

/// Filled by the router, emptied by the provider's delivery.
#[derive(Debug, Default)]
pub struct Mailbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    parcels: HashMap<Slot, Parcel>,
    /// Oldest first.
    order: VecDeque<Slot>,
}

/// What became of what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Added,
    /// An older one on the same matter will not be delivered.
    Replaced,
    /// The oldest of all had to go.
    Overflowed,
}

impl Mailbox {
    pub fn put(&self, parcel: Parcel) -> Put {
        let mut waiting = self.waiting();
        let slot = parcel.slot.clone();
        let put = if waiting.parcels.insert(slot.clone(), parcel).is_some() {
            Put::Replaced
        } else {
            waiting.order.push_back(slot);
            let oldest = if waiting.order.len() > PARCELS_MAX { waiting.order.pop_front() } else { None };
            match oldest {
                Some(oldest) => {
                    waiting.parcels.remove(&oldest);
                    Put::Overflowed
                }
                None => Put::Added,
            }
        };
        drop(waiting);
        self.wake.notify_one();
        put
    }

    /// The oldest; waits for one.
    pub async fn take(&self) -> Parcel {
        loop {
            if let Some(parcel) = self.try_take() {
                return parcel;
            }
            self.wake.notified().await;
        }
    }

    fn try_take(&self) -> Option<Parcel> {
        let mut waiting = self.waiting();
        let slot = waiting.order.pop_front()?;
        waiting.parcels.remove(&slot)
    }

    /// One that could not be delivered, to be the next; gives way to something newer, and goes where there is no room.
    pub fn put_back(&self, parcel: Parcel) -> Put {
        let mut waiting = self.waiting();
        if waiting.parcels.contains_key(&parcel.slot) {
            return Put::Replaced;
        }
        if waiting.order.len() >= PARCELS_MAX {
            return Put::Overflowed;
        }
        waiting.order.push_front(parcel.slot.clone());
        waiting.parcels.insert(parcel.slot.clone(), parcel);
        Put::Added
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(object: &str, matter: Matter, message: &str) -> Parcel {
        let slot =
            Slot { alert: Key::new("prod", "all"), kind: "Kustomization", object: Key::new("prod", object), matter };
        let notice = Notice { message: message.into(), ..Notice::default() };
        let content = Content::Message { notice: Box::new(notice), phase: Phase::News };
        Parcel { slot, since: Timestamp::UNIX_EPOCH, content }
    }

    fn message(parcel: &Parcel) -> &str {
        match &parcel.content {
            Content::Message { notice, .. } => &notice.message,
            Content::Commit { commit, .. } => &commit.message,
        }
    }

    #[test]
    fn the_newest_on_a_matter_takes_the_place_of_an_older_one() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.put(parcel("web", Matter::State, "failed")), Put::Added);
        assert_eq!(mailbox.put(parcel("db", Matter::State, "failed, too")), Put::Added);
        assert_eq!(mailbox.put(parcel("web", Matter::State, "recovered")), Put::Replaced);
        assert_eq!(mailbox.put(parcel("web", Matter::Commit("b".into()), "pending")), Put::Added);
        let all: Vec<_> = std::iter::from_fn(|| mailbox.try_take()).map(|p| message(&p).to_owned()).collect();
        assert_eq!(all, ["recovered", "failed, too", "pending"]);
    }

    #[test]
    fn what_could_not_be_delivered_comes_next_unless_something_newer_came() {
        let mailbox = Mailbox::default();
        mailbox.put(parcel("web", Matter::State, "failed"));
        mailbox.put(parcel("db", Matter::State, "failed, too"));
        let failed = mailbox.try_take().unwrap();
        assert_eq!(mailbox.put_back(failed), Put::Added);
        let failed = mailbox.try_take().unwrap();
        assert_eq!(message(&failed), "failed");
        mailbox.put(parcel("web", Matter::State, "recovered"));
        assert_eq!(mailbox.put_back(failed), Put::Replaced);
        let all: Vec<_> = std::iter::from_fn(|| mailbox.try_take()).map(|p| message(&p).to_owned()).collect();
        assert_eq!(all, ["failed, too", "recovered"]);
    }

    #[test]
    fn a_full_mailbox_drops_the_oldest() {
        let mailbox = Mailbox::default();
        for number in 0..PARCELS_MAX {
            assert_eq!(mailbox.put(parcel(&number.to_string(), Matter::State, "")), Put::Added);
        }
        assert_eq!(mailbox.put(parcel("one more", Matter::State, "")), Put::Overflowed);
        let first = mailbox.try_take().unwrap();
        assert_eq!(first.slot.object.name, "1");
        mailbox.put(parcel("another", Matter::State, ""));
        assert_eq!(mailbox.put_back(first), Put::Overflowed, "there is no room for it");
    }
}
