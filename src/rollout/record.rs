//! The record on a workload: what its Pods have read, as digests. An annotation of the workload's own metadata, so that
//! writing it rolls nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::manifest::DigestKey;

use super::digest::Digests;

/// What is recorded. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The id of the key that the digests were made with. Under another key nothing can be compared.
    pub key: String,
    /// The digest of the pod template as declared.
    pub template: String,
    /// By configuration, as it prints.
    pub reads: BTreeMap<String, Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled: Option<Rolled>,
    /// When the last rollouts were that what is live had asked for; oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rolls: Vec<i64>,
    /// Changes follow each other in a loop: nothing is rolled until a person has looked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// What the Pods can't start without, and is not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What can't be read: its entry stays as it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// What was immutable when it was read: other content has been made anew under its name.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub sealed: BTreeSet<String>,
    /// What has been: its entry stays as it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remade: Vec<String>,
}

/// What was read of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// It was not there.
    Absent,
    /// All of it.
    All(Digests),
    /// The keys that are read by name; `None`: there was no such key.
    Keys(BTreeMap<String, Option<String>>),
    /// One digest of all that is read, where there are too many keys to record each.
    Sum(String),
}

/// The last rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rolled {
    pub at: i64,
    /// Names and keys, as they are told to people.
    pub by: Vec<String>,
}

/// Keys that are recorded one by one: together with their digests some 8 KiB, where all annotations of an object may
/// have 256.
const KEYS_MAX: usize = 128;
/// The same for a record as a whole.
pub(super) const RECORD_BYTES_MAX: usize = 64 * 1024;

impl Record {
    /// `None`: there is none, or none that can be read.
    pub fn read(annotation: &str) -> Option<Self> {
        (annotation.len() <= RECORD_BYTES_MAX).then(|| serde_json::from_str(annotation).ok())?
    }

    pub fn write(&self) -> String {
        serde_json::to_string(self).expect("maps and lists of strings serialise")
    }

    /// Bounds what is recorded.
    pub(super) fn fold(&mut self, key: &DigestKey) {
        let keys: usize = self.reads.values().map(Entry::len).sum();
        if keys > KEYS_MAX {
            for entry in self.reads.values_mut() {
                *entry = entry.summed(key);
            }
        }
    }
}

impl Entry {
    /// `name` and, where only some keys are read, which.
    pub fn in_words(&self, name: &str) -> String {
        match self {
            Self::Keys(keys) => format!("{name}: {}", keys.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
            Self::Absent | Self::All(_) | Self::Sum(_) => name.to_owned(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::All(keys) => keys.len(),
            Self::Keys(keys) => keys.len(),
            Self::Absent | Self::Sum(_) => 0,
        }
    }

    pub(super) fn summed(&self, key: &DigestKey) -> Self {
        match self {
            Self::All(_) | Self::Keys(_) => {
                let text = serde_json::to_string(self).expect("maps of strings serialise");
                Self::Sum(key.short([text.as_bytes()]))
            }
            other => other.clone(),
        }
    }

    /// Which keys are different now: `None` if none is. What only one of the two looks at is not compared. An empty
    /// list: the object as a whole.
    pub(super) fn changed(&self, now: &Self, key: &DigestKey) -> Option<Vec<String>> {
        let differing: Vec<String> = match (self, now) {
            (Self::Absent, Self::Absent) => return None,
            (Self::Absent, _) | (_, Self::Absent) => return Some(Vec::new()),
            (Self::Sum(_), _) | (_, Self::Sum(_)) => {
                return (self.summed(key) != now.summed(key)).then(Vec::new);
            }
            (Self::All(before), Self::All(now)) => {
                let names = before.keys().chain(now.keys().filter(|name| !before.contains_key(*name)));
                names.filter(|name| before.get(*name) != now.get(*name)).cloned().collect()
            }
            (Self::Keys(before), Self::Keys(now)) => {
                let both = before.iter().filter(|(name, was)| now.get(*name).is_some_and(|is| is != *was));
                both.map(|(name, _)| name.clone()).collect()
            }
            (Self::All(all), Self::Keys(keys)) | (Self::Keys(keys), Self::All(all)) => {
                keys.iter().filter(|(name, digest)| all.get(*name) != digest.as_ref()).map(|(n, _)| n.clone()).collect()
            }
        };
        (!differing.is_empty()).then_some(differing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(keys: &[(&str, &str)]) -> Entry {
        Entry::All(keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    fn keys(keys: &[(&str, Option<&str>)]) -> Entry {
        Entry::Keys(keys.iter().map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned))).collect())
    }

    #[test]
    fn only_what_was_read_and_is_read_can_have_changed() {
        let key = DigestKey::new([7; 32]);
        let many: Vec<String> = (0..200).map(|n| format!("k{n}")).collect();
        let many = Entry::All(many.into_iter().map(|k| (k, "d".to_owned())).collect());
        let cases: [(Entry, Entry, Option<&[&str]>); 14] = [
            (Entry::Absent, Entry::Absent, None),
            (Entry::Absent, all(&[]), Some(&[])),
            (all(&[("a", "1")]), Entry::Absent, Some(&[])),
            (all(&[("a", "1")]), all(&[("a", "1")]), None),
            (all(&[("a", "1")]), all(&[("a", "2")]), Some(&["a"])),
            (all(&[("a", "1")]), all(&[("a", "1"), ("b", "1")]), Some(&["b"])),
            (all(&[("a", "1"), ("b", "1")]), all(&[("a", "1")]), Some(&["b"])),
            (keys(&[("a", Some("1"))]), keys(&[("a", Some("1")), ("b", Some("2"))]), None),
            (keys(&[("a", Some("1"))]), keys(&[("a", None)]), Some(&["a"])),
            (keys(&[("a", Some("1"))]), all(&[("a", "1"), ("b", "2")]), None),
            (all(&[("a", "1"), ("b", "2")]), keys(&[("a", Some("2"))]), Some(&["a"])),
            (many.summed(&key), many.clone(), None),
            (many.clone(), many.summed(&key), None),
            (many.summed(&key), all(&[("a", "1")]), Some(&[])),
        ];
        for (before, now, expected) in cases {
            let expected = expected.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(before.changed(&now, &key), expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_record_is_bounded_and_read_back_as_it_was() {
        let key = DigestKey::new([7; 32]);
        let entry = || Entry::All((0..100).map(|n| (format!("key-{n}"), "0123456789abcdef".to_owned())).collect());
        let mut record = Record { key: "k".into(), ..Record::default() };
        record.reads.insert("secret/a".into(), entry());
        record.fold(&key);
        assert!(matches!(record.reads["secret/a"], Entry::All(_)));
        for n in 0..500 {
            record.reads.insert(format!("secret/{n}"), entry());
        }
        record.fold(&key);
        let text = record.write();
        assert!(text.len() < RECORD_BYTES_MAX, "{}", text.len());
        assert_eq!(Record::read(&text), Some(record));
        assert_eq!(Record::read("{"), None);
        assert_eq!(Record::read(&format!("{{\"key\":\"{}\"}}", "x".repeat(RECORD_BYTES_MAX))), None);
    }
}
