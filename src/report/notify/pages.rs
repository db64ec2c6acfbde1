//! What one Alertmanager was told is firing: raised by a failure, repeated while it lasts, lowered by the repair. Pure.
//!
//! An alert without an end is resolved by Alertmanager after its `resolve_timeout`, whatever the state. So each has an
//! end a while ahead, which is moved on by repetition, as Prometheus does it: if we are gone, it ends by itself.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::format::{Notice, severity};
use super::mailbox::Slot;
use super::standing::Phase;
use crate::api::rfc3339;
use crate::report::events::{RecordedFailure, Severity, Subject};

/// How often what fires is repeated.
pub const REPEATED_EVERY: std::time::Duration = std::time::Duration::from_secs(300);
/// How far ahead an end is: three repetitions, so that one may fail.
const LASTS: SignedDuration = SignedDuration::from_mins(15);
/// Alerts that fire at a time; more is no longer read by anyone.
const PAGES_MAX: usize = 2000;

type Labels = BTreeMap<String, String>;

/// Owned by the delivery of one provider.
#[derive(Debug, Default)]
pub struct Pages(BTreeMap<(Slot, Labels), Page>);

#[derive(Debug)]
struct Page {
    annotations: BTreeMap<String, String>,
    starts_at: Timestamp,
    /// It is over since then.
    ended_at: Option<Timestamp>,
    /// Not told yet.
    due: bool,
}

impl Pages {
    /// Takes in a message. False: there are too many already.
    pub fn take(&mut self, slot: &Slot, notice: &Notice, phase: &Phase) -> bool {
        let labels = labels(notice, &notice.reason);
        match phase {
            Phase::Failed | Phase::StillFailed => {
                self.lower(slot, notice.at, Some(&labels));
                if self.0.len() >= PAGES_MAX && !self.0.contains_key(&(slot.clone(), labels.clone())) {
                    return false;
                }
                let page = self.0.entry((slot.clone(), labels)).or_insert_with(|| Page {
                    annotations: BTreeMap::new(),
                    starts_at: notice.at,
                    ended_at: None,
                    due: true,
                });
                (page.annotations, page.ended_at, page.due) = (annotations(notice), None, true);
            }
            Phase::Recovered(of) | Phase::Gone(of) => {
                // raised before a restart of the daemon: known by its reason
                let before = (slot.clone(), self::labels(notice, &of.reason));
                let raised = self.0.keys().any(|(raised, _)| raised == slot);
                if !raised {
                    let (annotations, starts_at) = (annotations(notice), notice.at);
                    self.0.insert(before, Page { annotations, starts_at, ended_at: Some(notice.at), due: true });
                }
                self.lower(slot, notice.at, None);
            }
            Phase::News => {}
        }
        true
    }

    fn lower(&mut self, slot: &Slot, at: Timestamp, except: Option<&Labels>) {
        for ((raised, labels), page) in &mut self.0 {
            if raised == slot && Some(labels) != except && page.ended_at.is_none() {
                (page.ended_at, page.due) = (Some(at), true);
            }
        }
    }

    /// What fires is due again.
    pub fn repeat(&mut self) {
        self.0.values_mut().for_each(|page| page.due = true);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is due, as `POST /api/v2/alerts` takes it; `None` if nothing is.
    pub fn body(&self, now: Timestamp) -> Option<Value> {
        let due: Vec<_> = self
            .0
            .iter()
            .filter(|(_, page)| page.due)
            .map(|((_, labels), page)| {
                json!({
                    "labels": labels,
                    "annotations": page.annotations,
                    "startsAt": rfc3339(page.starts_at),
                    "endsAt": rfc3339(page.ended_at.unwrap_or(now + LASTS)),
                })
            })
            .collect();
        (!due.is_empty()).then_some(Value::Array(due))
    }

    /// What was due was taken.
    pub fn taken(&mut self) {
        self.0.retain(|_, page| page.ended_at.is_none());
        self.0.values_mut().for_each(|page| page.due = false);
    }
}

/// The message by which a failure is lowered of which nobody told the end: its object, or its Alert, is gone.
pub fn ending(subject: &Subject, of: &RecordedFailure, metadata: BTreeMap<String, String>, at: Timestamp) -> Notice {
    let (reason, message) = (of.reason.clone(), of.message.clone());
    Notice { subject: subject.clone(), at, severity: Severity::Warning, reason, message, metadata }
}

/// What makes it this alert and no other. The revision is none of it: the next broken commit is the same trouble.
fn labels(notice: &Notice, reason: &str) -> Labels {
    let subject = &notice.subject;
    let title: String =
        reason.chars().enumerate().map(|(at, c)| if at == 0 { c } else { c.to_ascii_lowercase() }).collect();
    let mut labels = notice.metadata.clone();
    labels.retain(|key, _| key != "revision" && key != "summary");
    for (key, value) in [
        ("alertname", format!("Flux{}{title}", subject.kind)),
        ("severity", severity(Severity::Warning).to_owned()),
        ("reason", reason.to_owned()),
        ("kind", subject.kind.to_owned()),
        ("name", subject.name.clone()),
        ("namespace", subject.namespace.clone()),
        ("reportingcontroller", subject.reporter().to_owned()),
    ] {
        labels.insert(key.to_owned(), value);
    }
    labels
}

fn annotations(notice: &Notice) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([("message".to_owned(), notice.message.clone())]);
    for key in ["revision", "summary"] {
        if let Some(value) = notice.metadata.get(key) {
            annotations.insert(key.to_owned(), value.clone());
        }
    }
    annotations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Key;
    use crate::report::notify::mailbox::Matter;

    fn slot() -> Slot {
        Slot {
            alert: Key::new("prod", "all"),
            kind: "Kustomization",
            object: Key::new("prod", "web"),
            matter: Matter::State,
        }
    }

    fn notice(second: i64, reason: &str, message: &str, revision: &str) -> Notice {
        let subject =
            Subject { kind: "Kustomization", namespace: "prod".into(), name: "web".into(), ..Subject::default() };
        let metadata = [("revision", revision), ("summary", "cluster 1"), ("env", "prod")];
        Notice {
            subject,
            at: Timestamp::from_second(second).unwrap(),
            severity: Severity::Warning,
            reason: reason.into(),
            message: message.into(),
            metadata: metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn failure(reason: &str) -> RecordedFailure {
        RecordedFailure { reason: reason.into(), message: "broken".into(), revision: None, root: None }
    }

    #[test]
    fn a_failure_raises_an_alert_and_its_repair_ends_the_same() {
        let mut pages = Pages::default();
        assert!(pages.take(&slot(), &notice(10, "BuildFailed", "broken", "main@sha1:b"), &Phase::Failed));
        insta::assert_json_snapshot!(pages.body(at(20)), @r#"
        [
          {
            "annotations": {
              "message": "broken",
              "revision": "main@sha1:b",
              "summary": "cluster 1"
            },
            "endsAt": "1970-01-01T00:15:20Z",
            "labels": {
              "alertname": "FluxKustomizationBuildfailed",
              "env": "prod",
              "kind": "Kustomization",
              "name": "web",
              "namespace": "prod",
              "reason": "BuildFailed",
              "reportingcontroller": "kustomize-controller",
              "severity": "error"
            },
            "startsAt": "1970-01-01T00:00:10Z"
          }
        ]
        "#);
        let raised = pages.body(at(20)).unwrap();
        pages.taken();
        assert_eq!(pages.body(at(21)), None, "it was told");
        pages.repeat();
        assert_eq!(pages.body(at(320)).unwrap()[0]["endsAt"], "1970-01-01T00:20:20Z");
        let repair = notice(400, "ReconciliationSucceeded", "applied", "main@sha1:c");
        pages.take(&slot(), &repair, &Phase::Recovered(failure("BuildFailed")));
        let lowered = pages.body(at(401)).unwrap();
        assert_eq!(lowered.as_array().unwrap().len(), 1);
        assert_eq!(lowered[0]["labels"], raised[0]["labels"], "the same labels, or it is another alert");
        assert_eq!(lowered[0]["endsAt"], "1970-01-01T00:06:40Z");
        assert_eq!(pages.body(at(402)).unwrap(), lowered, "until it was taken");
        pages.taken();
        assert!(pages.is_empty());
    }

    #[test]
    fn another_reason_ends_the_first_and_another_broken_commit_goes_on_with_it() {
        let mut pages = Pages::default();
        pages.take(&slot(), &notice(10, "BuildFailed", "broken", "b"), &Phase::Failed);
        pages.taken();
        pages.take(&slot(), &notice(20, "BuildFailed", "broken again", "c"), &Phase::Failed);
        let body = pages.body(at(20)).unwrap();
        assert_eq!(body.as_array().unwrap().len(), 1);
        assert_eq!(body[0]["startsAt"], "1970-01-01T00:00:10Z");
        assert_eq!(body[0]["annotations"]["message"], "broken again");
        pages.taken();
        pages.take(&slot(), &notice(30, "HealthCheckFailed", "crash loop", "d"), &Phase::Failed);
        let body = pages.body(at(30)).unwrap();
        let ends: Vec<_> = body.as_array().unwrap().iter().map(|a| (&a["labels"]["reason"], &a["endsAt"])).collect();
        assert_eq!(
            ends,
            [
                (&json!("BuildFailed"), &json!("1970-01-01T00:00:30Z")),
                (&json!("HealthCheckFailed"), &json!("1970-01-01T00:15:30Z")),
            ]
        );
    }

    #[test]
    fn what_was_raised_before_a_restart_is_ended_by_its_recorded_reason() {
        let mut pages = Pages::default();
        let repair = notice(400, "ReconciliationSucceeded", "applied", "c");
        pages.take(&slot(), &repair, &Phase::Recovered(failure("BuildFailed")));
        let body = pages.body(at(401)).unwrap();
        assert_eq!(body[0]["labels"]["alertname"], "FluxKustomizationBuildfailed");
        assert_eq!(body[0]["endsAt"], "1970-01-01T00:06:40Z");
    }
}
