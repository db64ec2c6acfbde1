//! Whether a workload is rolled: what its Pods have read, compared with what there is to read now.
//!
//! - What is seen for the first time is a baseline. So a restart, a lost or another key, adoption, and a name that is
//!   followed from now on roll nothing; the annotation arrives with the next real change.
//! - What can't be read counts as it was.
//! - What Pods can't start without, and is missing, holds the workload as it is: neither a change of something else nor
//!   of the template rolls it into Pods that don't start.
//! - What was immutable when it was read, and is another now, was made anew under its name. Nodes keep the old content, so
//!   that Pods made now might read either: nothing is rolled because of it unless a person asks.
//! - More than five rollouts a minute that live objects asked for are a loop, which only a person ends.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::DigestKey;

use super::digest::Digests;
use super::record::{Entry, RECORD_BYTES_MAX, Record, Rolled};
use super::reference::{Configuration, References, Wanted};

/// What is there to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    Absent,
    /// Not configuration: see [`super::is_left_out`].
    LeftOut,
    /// `live`: not as this application declares it, but as others have made it.
    Content {
        digests: Digests,
        live: bool,
        /// `immutable: true`.
        sealed: bool,
    },
    /// Why not.
    Unreadable(String),
}

/// The workload as it is in the cluster.
#[derive(Clone, Debug, Default)]
pub struct Live {
    pub record: Option<Record>,
    /// The pod template's annotation.
    pub hash: Option<String>,
}

/// All that a decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub references: &'a References,
    pub readings: &'a BTreeMap<Configuration, Reading>,
    /// `None`: there is no such workload yet.
    pub live: Option<&'a Live>,
    /// The digest of the declared pod template.
    pub template: &'a str,
    /// Seconds since 1970.
    pub now: i64,
    /// A person asked: a loop is over.
    pub asked: bool,
    /// Its template's change makes Pods anew; that of a CronJob doesn't.
    pub makes_pods: bool,
    pub key: &'a DigestKey,
}

/// Why a workload is rolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub configuration: Configuration,
    /// Empty: the object as a whole.
    pub keys: Vec<String>,
}

/// `secret/a: user, password`
impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// More than a person reads.
        const KEYS_SHOWN_MAX: usize = 5;
        write!(f, "{}", self.configuration)?;
        for (at, key) in self.keys.iter().take(KEYS_SHOWN_MAX).enumerate() {
            write!(f, "{}{key}", if at == 0 { ": " } else { ", " })?;
        }
        match self.keys.len().saturating_sub(KEYS_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// What the workload is sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The pod template's annotation.
    pub hash: Option<String>,
    pub record: Record,
    /// Why it is rolled; empty: it is not.
    pub rolls: Vec<Cause>,
    /// It must not be sent: its template changed, and what its Pods need is missing.
    pub held: bool,
    /// More is followed than can be recorded: nothing is.
    pub too_much: bool,
}

/// Rollouts within [`LOOP_WINDOW_S`] that no loop needs.
pub const LOOP_ROLLS_MAX: usize = 5;
pub const LOOP_WINDOW_S: i64 = 60;

/// Decides on one workload.
pub fn decide(situation: &Situation) -> Decision {
    let key = situation.key;
    let recorded = situation.live.and_then(|live| live.record.as_ref());
    // digests of another key say nothing
    let known = recorded.filter(|record| record.key == key.id());
    let mut read = Read::default();
    for (configuration, wanted) in situation.references {
        read.take(situation, known, configuration, wanted);
    }
    let Read { mut reads, causes, any_live, missing, unreadable, mut sealed, remade } = read;
    let same_template = known.is_none_or(|record| record.template == situation.template);
    let mut record = Record {
        key: key.id().to_owned(),
        template: situation.template.to_owned(),
        rolled: recorded.and_then(|record| record.rolled.clone()),
        rolls: recorded.map(|record| record.rolls.clone()).unwrap_or_default(),
        missing,
        unreadable,
        remade,
        ..Record::default()
    };
    let hash = situation.live.and_then(|live| live.hash.clone());
    let mut stopped = known.is_some_and(|record| record.stopped) && same_template && !situation.asked;
    if known.is_some_and(|record| record.stopped) && !stopped {
        record.rolls.clear();
    }
    let exists = situation.live.is_some();
    let held = exists && !record.missing.is_empty() && !same_template;
    let recent = record.rolls.iter().filter(|at| situation.now - **at < LOOP_WINDOW_S).count();
    stopped |= any_live && situation.makes_pods && recent >= LOOP_ROLLS_MAX && record.missing.is_empty();
    record.stopped = stopped;
    let waits = exists && (!record.missing.is_empty() || stopped);
    let rolls = if waits { Vec::new() } else { causes.clone() };
    if waits {
        // what changed is still to be noticed once there is nothing to wait for any more
        for cause in &causes {
            let name = cause.configuration.to_string();
            let Some((known, before)) = known.and_then(|known| Some((known, known.reads.get(&name)?))) else {
                continue;
            };
            reads.insert(name.clone(), before.clone());
            if known.sealed.contains(&name) {
                sealed.insert(name);
            } else {
                sealed.remove(&name);
            }
        }
    }
    record.reads = reads;
    record.sealed = sealed;
    record.fold(key);
    if held && let Some(known) = known {
        record.template.clone_from(&known.template);
    }
    let hash = if rolls.is_empty() && exists { hash } else { Some(hash_of(&record.reads, key)) };
    if !rolls.is_empty() {
        record.rolled = Some(Rolled { at: situation.now, by: told(&rolls) });
        if any_live && situation.makes_pods {
            record.rolls.push(situation.now);
            let superfluous = record.rolls.len().saturating_sub(LOOP_ROLLS_MAX);
            record.rolls.drain(..superfluous);
        }
    }
    let too_much = record.write().len() > RECORD_BYTES_MAX;
    if too_much {
        let hash = situation.live.and_then(|live| live.hash.clone());
        return Decision { hash, record: Record::default(), rolls: Vec::new(), held: false, too_much };
    }
    Decision { hash, record, rolls, held, too_much }
}

/// What was found of all references.
#[derive(Default)]
struct Read {
    reads: BTreeMap<String, Entry>,
    causes: Vec<Cause>,
    /// Something live is among the causes.
    any_live: bool,
    missing: Vec<String>,
    unreadable: Vec<String>,
    sealed: BTreeSet<String>,
    remade: Vec<String>,
}

impl Read {
    fn take(&mut self, situation: &Situation, known: Option<&Record>, what: &Configuration, wanted: &Wanted) {
        let name = what.to_string();
        let before = known.and_then(|record| record.reads.get(&name));
        let was_sealed = known.is_some_and(|record| record.sealed.contains(&name));
        let keep = |read: &mut Self| {
            if let Some(before) = before {
                read.reads.insert(name.clone(), before.clone());
            }
            if was_sealed {
                read.sealed.insert(name.clone());
            }
        };
        let (entry, live, sealed) = match situation.readings.get(what) {
            Some(Reading::LeftOut) => return,
            Some(Reading::Absent) if wanted.required => {
                self.missing.push(name.clone());
                return keep(self);
            }
            Some(Reading::Absent) => (Entry::Absent, true, false),
            Some(Reading::Content { digests, live, sealed }) => {
                let lacking: Vec<&str> = wanted
                    .keys
                    .iter()
                    .filter(|(k, required)| **required && !digests.contains_key(*k))
                    .map(|(k, _)| k.as_str())
                    .collect();
                if !lacking.is_empty() {
                    self.missing.push(format!("{name}: {}", lacking.join(", ")));
                    return keep(self);
                }
                let entry = if wanted.whole {
                    Entry::All(digests.clone())
                } else {
                    Entry::Keys(wanted.keys.keys().map(|k| (k.clone(), digests.get(k).cloned())).collect())
                };
                (entry, *live, *sealed)
            }
            Some(Reading::Unreadable(_)) | None => {
                self.unreadable.push(name.clone());
                return keep(self);
            }
        };
        if let Some(keys) = before.and_then(|before| before.changed(&entry, situation.key)) {
            if was_sealed && entry != Entry::Absent && !situation.asked {
                self.remade.push(name.clone());
                return keep(self);
            }
            self.any_live |= live;
            self.causes.push(Cause { configuration: what.clone(), keys });
        }
        if sealed {
            self.sealed.insert(name.clone());
        }
        self.reads.insert(name, entry);
    }
}

/// Causes that are recorded: more than a person reads.
const CAUSES_MAX: usize = 10;

fn told(causes: &[Cause]) -> Vec<String> {
    let mut told: Vec<String> = causes.iter().take(CAUSES_MAX).map(ToString::to_string).collect();
    if causes.len() > CAUSES_MAX {
        told.push(format!("{} more", causes.len() - CAUSES_MAX));
    }
    told
}

/// The pod template's annotation: the same for the same content, so that what is taken back is as it was.
fn hash_of(reads: &BTreeMap<String, Entry>, key: &DigestKey) -> String {
    let text = serde_json::to_string(reads).expect("maps of strings serialise");
    format!("v1.{}.{}", key.id(), key.long([text.as_bytes()]))
}
