//! What was asked of the server: counts by verb, resource and code, and the last requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::request::{Request, Subresource, Verb};

/// Requests kept for tests to look at: a thousand applications with four objects each, applied once.
const ENTRIES_MAX: usize = 8192;

/// One request that was answered. A watch is noted when it begins.
#[derive(Clone, Debug)]
pub struct Entry {
    pub at: Instant,
    pub verb: Verb,
    /// `plural.group`, or `plural` alone in the core group.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub subresource: Subresource,
    pub content_type: String,
    pub manager: String,
    /// Whom the request was made as, if it said so; the sandbox grants everything to everybody.
    pub impersonated: String,
    pub dry_run: bool,
    /// 0 where the connection was closed without an answer.
    pub code: u16,
}

#[derive(Debug, Default)]
struct Noted {
    counts: BTreeMap<(Verb, String, u16), u64>,
    last: VecDeque<Entry>,
}

/// Written by every request, read by tests.
#[derive(Debug, Default)]
pub struct Journal {
    noted: Mutex<Noted>,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, request: &Request, name: &str, code: u16) {
        let entry = Entry {
            at: Instant::now(),
            verb: request.verb,
            resource: request.resource.qualified(),
            namespace: request.namespace.clone(),
            name: name.to_owned(),
            subresource: request.subresource,
            content_type: request.content_type.clone(),
            manager: request.manager.clone(),
            impersonated: request.impersonated.clone(),
            dry_run: request.dry_run,
            code,
        };
        let mut noted = self.lock();
        *noted.counts.entry((entry.verb, entry.resource.clone(), code)).or_default() += 1;
        if noted.last.len() == ENTRIES_MAX {
            noted.last.pop_front();
        }
        noted.last.push_back(entry);
    }

    /// Requests by verb, resource and code since the start or the last [`Journal::reset`].
    pub fn counts(&self) -> BTreeMap<(Verb, String, u16), u64> {
        self.lock().counts.clone()
    }

    /// All requests that `matches` says yes to, of those that are kept.
    pub fn find(&self, matches: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        self.lock().last.iter().filter(|e| matches(e)).cloned().collect()
    }

    /// Requests that write, whatever their answer.
    pub fn writes(&self) -> u64 {
        self.lock().counts.iter().filter(|((verb, ..), _)| verb.writes()).map(|(_, n)| n).sum()
    }

    /// All requests.
    pub fn total(&self) -> u64 {
        self.lock().counts.values().sum()
    }

    pub fn reset(&self) {
        *self.lock() = Noted::default();
    }
}
