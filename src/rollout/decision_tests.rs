//! Decisions as stories: what a workload has read, what becomes of it, and whether that rolls it.

use std::collections::BTreeMap;

use super::decision::*;
use super::digest::content_digests;
use super::record::{Entry, Record};
use super::reference::{Configuration, Kind, References, Wanted};
use crate::manifest::DigestKey;

/// A workload that is followed from decision to decision, as the cluster would hold it.
struct Workload {
    references: References,
    content: BTreeMap<Configuration, Reading>,
    live: Option<Live>,
    template: &'static str,
    key: DigestKey,
    now: i64,
    asked: bool,
    makes_pods: bool,
}

fn secret(name: &str) -> Configuration {
    Configuration::new(Kind::Secret, name)
}

fn required() -> Wanted {
    Wanted { whole: true, required: true, ..Wanted::default() }
}

fn key_of(name: &str, required: bool) -> Wanted {
    Wanted { whole: false, required, keys: BTreeMap::from([(name.to_owned(), required)]) }
}

impl Workload {
    /// That reads all of `secret/a`, which holds `user: x`, and was there before anyone followed it.
    fn adopted() -> Self {
        let mut workload = Self {
            references: References::from([(secret("a"), required())]),
            content: BTreeMap::new(),
            live: Some(Live::default()),
            template: "t",
            key: DigestKey::new([7; 32]),
            now: 1000,
            asked: false,
            makes_pods: true,
        };
        workload.holds("a", &[("user", "x")]);
        workload
    }

    fn holds(&mut self, name: &str, content: &[(&str, &str)]) {
        self.hold(name, content, true);
    }

    fn hold(&mut self, name: &str, content: &[(&str, &str)], live: bool) {
        let content = content.iter().map(|(k, v)| (*k, v.as_bytes()));
        let digests = content_digests(&self.key, "n", &secret(name), content);
        self.content.insert(secret(name), Reading::Content { digests, live, sealed: false });
    }

    fn seal(&mut self, name: &str) {
        let Some(Reading::Content { sealed, .. }) = self.content.get_mut(&secret(name)) else {
            panic!("it has content")
        };
        *sealed = true;
    }

    /// Decides and takes what was decided to the cluster, unless it is held. Answers why it was rolled.
    fn step(&mut self) -> Vec<String> {
        let decision = self.decision();
        let before = self.live.clone().and_then(|live| live.hash);
        assert!(
            decision.rolls.is_empty() || decision.hash != before || !self.makes_pods,
            "what is rolled has another hash"
        );
        if self.live.is_some() {
            assert_eq!(decision.rolls.is_empty(), decision.hash == before, "and what is not, has the same");
        }
        if !decision.held {
            self.live = Some(Live { record: Some(decision.record), hash: decision.hash });
        }
        self.now += 1;
        decision.rolls.iter().map(ToString::to_string).collect()
    }

    fn decision(&self) -> Decision {
        decide(&Situation {
            references: &self.references,
            readings: &self.content,
            live: self.live.as_ref(),
            template: self.template,
            now: self.now,
            asked: self.asked,
            makes_pods: self.makes_pods,
            key: &self.key,
        })
    }

    fn record(&self) -> &Record {
        self.live.as_ref().unwrap().record.as_ref().unwrap()
    }

    fn hash(&self) -> Option<&str> {
        self.live.as_ref().unwrap().hash.as_deref()
    }
}

#[test]
fn first_sight_is_a_baseline_and_the_annotation_comes_with_the_first_change() {
    let mut w = Workload::adopted();
    assert_eq!(w.step(), [""; 0]);
    assert_eq!(w.hash(), None);
    let before = w.record().clone();
    assert_eq!(w.step(), [""; 0]);
    assert_eq!(*w.record(), before, "nothing to write in steady state");
    w.holds("a", &[("user", "y"), ("password", "p")]);
    assert_eq!(w.step(), ["secret/a: user, password"]);
    assert!(w.hash().unwrap().starts_with(&format!("v1.{}.", w.key.id())));
    assert_eq!(w.record().rolled.as_ref().unwrap().by, ["secret/a: user, password"]);
    assert_eq!(w.step(), [""; 0]);
}

#[test]
fn what_is_taken_back_has_the_hash_that_it_had() {
    let mut w = Workload::adopted();
    w.live = None;
    w.step();
    let created = w.hash().unwrap().to_owned();
    w.holds("a", &[("user", "y")]);
    assert_eq!(w.step(), ["secret/a: user"]);
    w.holds("a", &[("user", "x")]);
    assert_eq!(w.step(), ["secret/a: user"]);
    assert_eq!(w.hash(), Some(created.as_str()));
}

#[test]
fn a_key_that_is_not_read_rolls_nothing() {
    let mut w = Workload::adopted();
    w.references = References::from([(secret("a"), key_of("user", true))]);
    w.step();
    w.holds("a", &[("user", "x"), ("other", "z")]);
    assert_eq!(w.step(), [""; 0]);
    w.holds("a", &[("user", "y")]);
    assert_eq!(w.step(), ["secret/a: user"]);
}

#[test]
fn another_key_or_a_lost_record_is_a_first_sight_again() {
    let mut w = Workload::adopted();
    w.step();
    w.holds("a", &[("user", "y")]);
    w.step();
    let hash = w.hash().unwrap().to_owned();
    w.key = DigestKey::new([8; 32]);
    w.holds("a", &[("user", "y")]);
    assert_eq!(w.step(), [""; 0]);
    assert_eq!(w.hash(), Some(hash.as_str()), "taking the old one out would roll it");
    assert!(w.record().rolled.is_some(), "what was told of the last rollout stays");
    w.live.as_mut().unwrap().record = None;
    assert_eq!(w.step(), [""; 0]);
    w.holds("a", &[("user", "z")]);
    assert_eq!(w.step(), ["secret/a: user"]);
}

#[test]
fn a_name_that_is_followed_from_now_on_rolls_nothing_and_one_no_longer_followed_neither() {
    let mut w = Workload::adopted();
    w.step();
    w.holds("b", &[("k", "1")]);
    w.references.insert(secret("b"), Wanted::if_there());
    assert_eq!(w.step(), [""; 0]);
    w.holds("b", &[("k", "2")]);
    assert_eq!(w.step(), ["secret/b: k"]);
    w.references.remove(&secret("b"));
    assert_eq!(w.step(), [""; 0]);
    assert!(!w.record().reads.contains_key("secret/b"));
}

#[test]
fn an_optional_object_rolls_when_it_appears_and_when_it_goes() {
    let mut w = Workload::adopted();
    w.references = References::from([(secret("a"), Wanted::if_there()), (secret("b"), key_of("k", false))]);
    w.content.insert(secret("a"), Reading::Absent);
    w.content.insert(secret("b"), Reading::Absent);
    w.step();
    assert_eq!(w.record().reads["secret/a"], Entry::Absent);
    w.holds("a", &[]);
    assert_eq!(w.step(), ["secret/a"]);
    w.holds("b", &[("k", "1")]);
    assert_eq!(w.step(), ["secret/b"]);
    w.holds("b", &[]);
    assert_eq!(w.step(), ["secret/b: k"]);
    w.content.insert(secret("a"), Reading::Absent);
    assert_eq!(w.step(), ["secret/a"]);
}

#[test]
fn what_can_not_be_read_counts_as_it_was_and_does_not_hold_back_the_rest() {
    let mut w = Workload::adopted();
    w.references.insert(secret("b"), required());
    w.holds("b", &[("k", "1")]);
    w.step();
    w.content.insert(secret("a"), Reading::Unreadable("forbidden".into()));
    assert_eq!(w.step(), [""; 0]);
    assert_eq!(w.record().unreadable, ["secret/a"]);
    w.holds("b", &[("k", "2")]);
    assert_eq!(w.step(), ["secret/b: k"]);
    w.holds("a", &[("user", "x")]);
    assert_eq!(w.step(), [""; 0], "it is readable again, and as it was");
    assert_eq!(w.record().unreadable, [""; 0]);
    w.content.insert(secret("a"), Reading::Unreadable("forbidden".into()));
    w.step();
    w.holds("a", &[("user", "y")]);
    assert_eq!(w.step(), ["secret/a: user"], "it changed while it could not be read");
}

#[test]
fn nothing_is_rolled_while_something_required_is_missing() {
    let mut w = Workload::adopted();
    w.references.insert(secret("b"), key_of("k", true));
    w.holds("b", &[("k", "1")]);
    w.step();
    w.content.insert(secret("a"), Reading::Absent);
    w.holds("b", &[("k", "2")]);
    assert_eq!(w.step(), [""; 0]);
    assert_eq!(w.record().missing, ["secret/a"]);
    w.holds("b", &[]);
    assert_eq!(w.step(), [""; 0]);
    assert_eq!(w.record().missing, ["secret/a", "secret/b: k"]);
    w.holds("b", &[("k", "2")]);
    w.holds("a", &[("user", "x")]);
    assert_eq!(
        w.step(),
        ["secret/b: k"],
        "what changed meanwhile is not forgotten; what came back as it was, no change"
    );
    assert_eq!(w.record().missing, [""; 0]);
}

#[test]
fn a_changed_template_is_held_while_something_required_is_missing_but_a_new_workload_is_not() {
    let mut w = Workload::adopted();
    w.step();
    w.template = "u";
    w.references.insert(secret("new"), required());
    w.content.insert(secret("new"), Reading::Absent);
    assert!(w.decision().held);
    assert_eq!(w.step(), [""; 0]);
    assert!(w.decision().held, "for as long as it is missing");
    w.holds("new", &[("k", "1")]);
    assert!(!w.decision().held);
    assert_eq!(w.step(), [""; 0], "the template's change rolls it");
    let mut new = Workload::adopted();
    new.live = None;
    new.content.insert(secret("a"), Reading::Absent);
    assert!(!new.decision().held);
    new.step();
    assert!(new.hash().is_some(), "what is created rolls nothing");
    new.holds("a", &[("user", "x")]);
    assert_eq!(new.step(), [""; 0], "Pods that wait for it find it by themselves");
}

#[test]
fn a_sixth_rollout_within_a_minute_is_a_loop_until_a_person_asks_or_the_template_changes() {
    for ended_by_a_person in [true, false] {
        let mut w = Workload::adopted();
        w.step();
        for n in 0..LOOP_ROLLS_MAX {
            w.holds("a", &[("user", &n.to_string())]);
            assert_eq!(w.step(), ["secret/a: user"]);
        }
        w.holds("a", &[("user", "again")]);
        assert_eq!(w.step(), [""; 0]);
        assert!(w.record().stopped);
        w.now += 10 * LOOP_WINDOW_S;
        w.holds("a", &[("user", "and again")]);
        assert_eq!(w.step(), [""; 0], "time alone does not end it");
        if ended_by_a_person {
            w.asked = true;
        } else {
            w.template = "u";
        }
        assert_eq!(w.step(), ["secret/a: user"]);
        assert!(!w.record().stopped);
    }
}

#[test]
fn what_is_declared_is_never_taken_for_a_loop_and_slow_changes_neither() {
    let mut w = Workload::adopted();
    w.step();
    for n in 0..3 * LOOP_ROLLS_MAX {
        w.hold("a", &[("user", &n.to_string())], false);
        assert_eq!(w.step(), ["secret/a: user"]);
    }
    for n in 0..3 * LOOP_ROLLS_MAX {
        w.now += LOOP_WINDOW_S / 4;
        w.holds("a", &[("user", &format!("slow {n}"))]);
        assert_eq!(w.step(), ["secret/a: user"]);
    }
    w.makes_pods = false;
    for n in 0..3 * LOOP_ROLLS_MAX {
        w.holds("a", &[("user", &format!("cron {n}"))]);
        assert_eq!(w.step(), ["secret/a: user"], "the template of a CronJob runs nothing");
    }
}

#[test]
fn what_is_immutable_and_made_anew_under_its_name_rolls_only_if_a_person_asks() {
    let mut w = Workload::adopted();
    w.step();
    w.holds("a", &[("user", "y")]);
    w.seal("a");
    assert_eq!(w.step(), ["secret/a: user"], "it was sealed with its last change");
    let sealed = w.record().clone();
    w.holds("a", &[("user", "z")]);
    for _ in 0..2 {
        assert_eq!(w.step(), [""; 0]);
        assert_eq!(w.record().remade, ["secret/a"]);
    }
    w.content.insert(secret("a"), Reading::Absent);
    assert_eq!(w.step(), [""; 0]);
    w.holds("a", &[("user", "y")]);
    w.seal("a");
    assert_eq!(w.step(), [""; 0], "made anew as it was");
    assert_eq!(*w.record(), sealed);
    w.holds("a", &[("user", "z")]);
    w.asked = true;
    assert_eq!(w.step(), ["secret/a: user"]);
    w.asked = false;
    w.holds("a", &[("user", "x")]);
    assert_eq!(w.step(), ["secret/a: user"], "it is sealed no more");
}

#[test]
fn what_is_left_out_by_its_type_leaves_no_trace() {
    let mut w = Workload::adopted();
    w.content.insert(secret("a"), Reading::LeftOut);
    w.step();
    assert!(w.record().reads.is_empty());
    assert!(w.record().missing.is_empty());
}

#[test]
fn more_than_can_be_recorded_is_not_followed_and_rolls_nothing() {
    let mut w = Workload::adopted();
    w.step();
    w.holds("a", &[("user", "y")]);
    w.step();
    for n in 0..5000 {
        let name = format!("{n}-{}", "x".repeat(200));
        w.holds(&name, &[]);
        w.references.insert(secret(&name), Wanted::if_there());
    }
    let decision = w.decision();
    assert!(decision.too_much);
    assert_eq!(decision.hash.as_deref(), w.hash());
}
