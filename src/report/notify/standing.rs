//! What was said of whom: so that a failure is one message, its repair one more, and a source that fails under many
//! applications is not told once for each of them. Pure.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::alert::Rule;
use super::news::Happened;
use crate::api::Key;
use crate::report::events::{RecordedFailure, Severity, Subject, Verdict};

/// The same note of the same object again counts only after this time: a fight over a field is one message, not many.
const NOTE_AGAIN: SignedDuration = SignedDuration::from_mins(5);

/// How each object stands, as far as it was told. Owned by the router.
#[derive(Debug, Default)]
pub struct Standings {
    objects: HashMap<(&'static str, Key), Standing>,
    /// Alert and source → the application whose failure told of the source's. Only where the Alert is not about the
    /// source itself.
    roots: HashMap<(Key, Key), Key>,
}

#[derive(Debug, Default)]
struct Standing {
    subject: Subject,
    failure: Option<RecordedFailure>,
    /// The reasons said at the failure's revision: going back and forth between two of them is no news.
    reasons: BTreeSet<String>,
    notes: HashMap<String, Timestamp>,
}

/// What a happening is, in view of what was said before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Failure {
        root: Option<Key>,
    },
    /// The end of this failure. `changed`: something was done for it.
    Recovery {
        of: RecordedFailure,
        changed: bool,
    },
    News,
}

/// What a message is to its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Failed,
    /// Still so, after a restart of the daemon: for receivers that keep a state, no message.
    StillFailed,
    Recovered(RecordedFailure),
    /// The object is gone, and with it this failure: for receivers that keep a state, no message.
    Gone(RecordedFailure),
    News,
}

impl Standings {
    /// How an object was found at start.
    pub fn known(&mut self, subject: Subject, failure: Option<RecordedFailure>) {
        let reasons = failure.iter().map(|f| f.reason.clone()).collect();
        let standing = Standing { failure, reasons, notes: HashMap::new(), subject };
        self.objects.insert((standing.subject.kind, standing.subject.key()), standing);
    }

    /// Takes in what happened. `None`: that was said already.
    pub fn judge(&mut self, happened: &Happened) -> Option<Said> {
        let key = (happened.subject.kind, happened.subject.key());
        let standing = self.objects.entry(key).or_default();
        standing.subject = happened.subject.clone();
        match &happened.verdict {
            Verdict::Failed { root } => {
                let same =
                    standing.failure.as_ref().is_some_and(|f| f.revision == happened.revision && f.root == *root);
                if same && standing.reasons.contains(&happened.reason) {
                    return None;
                }
                if !same {
                    standing.reasons.clear();
                }
                standing.reasons.insert(happened.reason.clone());
                standing.failure = Some(RecordedFailure {
                    reason: happened.reason.clone(),
                    message: happened.message.clone(),
                    revision: happened.revision.clone(),
                    root: root.clone(),
                });
                Some(Said::Failure { root: root.clone() })
            }
            Verdict::Ready { changed } => {
                standing.reasons.clear();
                Some(match standing.failure.take() {
                    Some(of) => Said::Recovery { of, changed: *changed },
                    None => Said::News,
                })
            }
            Verdict::Note => {
                let again =
                    standing.notes.get(&happened.reason).is_some_and(|at| happened.at.duration_since(*at) < NOTE_AGAIN);
                if again {
                    return None;
                }
                standing.notes.insert(happened.reason.clone(), happened.at);
                Some(Said::News)
            }
            Verdict::Detail => None,
        }
    }

    /// What a happening is to those who hear of it by this Alert; `None`: they don't.
    pub fn phase(&mut self, rule: &Rule, happened: &Happened, said: &Said) -> Option<Phase> {
        if rule.suspended || !rule.covers(&happened.subject) {
            return None;
        }
        match said {
            Said::Failure { root } => {
                let wanted = rule.wants(Severity::Warning, &happened.message);
                (wanted && self.is_first(rule, root.as_ref(), &happened.subject.key())).then_some(Phase::Failed)
            }
            Said::Recovery { of, changed } => {
                let told = match &of.root {
                    // the application that told of its source tells of the source's recovery, too
                    Some(root) => self.told_of(rule, root, &happened.subject.key()),
                    None => rule.wants(Severity::Warning, &of.message),
                };
                if told {
                    return (!rule.excludes(&happened.message)).then(|| Phase::Recovered(of.clone()));
                }
                let news = *changed || of.root.is_none();
                (news && rule.wants(Severity::Normal, &happened.message)).then_some(Phase::News)
            }
            Said::News => rule.wants(happened.severity, &happened.message).then_some(Phase::News),
        }
    }

    /// What an object's recorded failure is to those of this Alert.
    pub fn phase_at_start(&mut self, rule: &Rule, subject: &Subject, failure: &RecordedFailure) -> Option<Phase> {
        let wanted = !rule.suspended && rule.covers(subject) && rule.wants(Severity::Warning, &failure.message);
        (wanted && self.is_first(rule, failure.root.as_ref(), &subject.key())).then_some(Phase::StillFailed)
    }

    /// True unless others told, or will tell, of the source that is to blame.
    fn is_first(&mut self, rule: &Rule, root: Option<&Key>, app: &Key) -> bool {
        let Some(root) = root else { return true };
        let source = self.objects.get(&("GitRepository", root.clone())).map(|standing| standing.subject.clone());
        let unseen = || Subject {
            kind: "GitRepository",
            namespace: root.namespace.clone(),
            name: root.name.clone(),
            ..Subject::default()
        };
        if rule.covers(&source.unwrap_or_else(unseen)) {
            return false;
        }
        let teller = self.roots.entry((rule.key.clone(), root.clone())).or_insert_with(|| app.clone());
        teller == app
    }

    fn told_of(&mut self, rule: &Rule, root: &Key, app: &Key) -> bool {
        let slot = (rule.key.clone(), root.clone());
        let teller = self.roots.get(&slot) == Some(app);
        if teller {
            self.roots.remove(&slot);
        }
        teller
    }

    /// The object is gone: its subject, and the failure that went with it.
    pub fn forget(&mut self, kind: &'static str, key: &Key) -> Option<(Subject, RecordedFailure)> {
        let standing = self.objects.remove(&(kind, key.clone()))?;
        self.roots.retain(|_, teller| teller != key);
        Some((standing.subject, standing.failure?))
    }

    /// The Alert is gone: who fails, so that what it raised can be lowered.
    pub fn forget_rule(&mut self, rule: &Rule) -> Vec<(Subject, RecordedFailure)> {
        self.roots.retain(|(alert, _), _| *alert != rule.key);
        let failing = self.objects.values().filter(|standing| rule.covers(&standing.subject));
        failing.filter_map(|standing| Some((standing.subject.clone(), standing.failure.clone()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subject(kind: &'static str, name: &str) -> Subject {
        Subject { kind, namespace: "prod".into(), name: name.into(), ..Subject::default() }
    }

    fn happened(kind: &'static str, name: &str, verdict: Verdict, reason: &str, revision: &str) -> Happened {
        let severity = if matches!(verdict, Verdict::Failed { .. }) { Severity::Warning } else { Severity::Normal };
        Happened {
            subject: subject(kind, name),
            at: Timestamp::UNIX_EPOCH,
            severity,
            verdict,
            reason: reason.into(),
            message: format!("{reason} at {revision}"),
            revision: Some(revision.into()),
        }
    }

    fn failed(name: &str, reason: &str, revision: &str) -> Happened {
        happened("Kustomization", name, Verdict::Failed { root: None }, reason, revision)
    }

    fn ready(name: &str, revision: &str) -> Happened {
        happened("Kustomization", name, Verdict::Ready { changed: true }, "ReconciliationSucceeded", revision)
    }

    fn rule(spec: serde_json::Value) -> Rule {
        let mut whole =
            json!({ "providerRef": { "name": "chat" }, "eventSources": [{ "kind": "Kustomization", "name": "*" }] });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        Rule::compile(&Key::new("prod", "all"), &serde_json::from_value(whole).unwrap()).unwrap()
    }

    fn phase(standings: &mut Standings, rule: &Rule, happened: &Happened) -> Option<Phase> {
        let said = standings.judge(happened)?;
        standings.phase(rule, happened, &said)
    }

    #[test]
    fn a_failure_is_said_once_for_each_revision_and_reason_and_its_end_once() {
        let mut standings = Standings::default();
        let rule = rule(json!({}));
        let told: Vec<_> = [
            ready("web", "a"),
            failed("web", "BuildFailed", "b"),
            failed("web", "BuildFailed", "b"),
            failed("web", "HealthCheckFailed", "b"),
            failed("web", "BuildFailed", "b"),
            failed("web", "BuildFailed", "c"),
            ready("web", "d"),
            ready("web", "e"),
        ]
        .iter()
        .map(|happened| match phase(&mut standings, &rule, happened) {
            Some(Phase::Failed) => "failed",
            Some(Phase::Recovered(_)) => "recovered",
            Some(_) => "news",
            None => "-",
        })
        .collect();
        assert_eq!(told, ["news", "failed", "-", "failed", "-", "failed", "recovered", "news"]);
    }

    #[test]
    fn after_a_restart_nothing_is_said_again_and_the_recovery_is() {
        let mut standings = Standings::default();
        let failure = RecordedFailure {
            reason: "BuildFailed".into(),
            message: "BuildFailed at b".into(),
            revision: Some("b".into()),
            root: None,
        };
        standings.known(subject("Kustomization", "web"), Some(failure.clone()));
        let rule = rule(json!({ "eventSeverity": "error" }));
        assert_eq!(phase(&mut standings, &rule, &failed("web", "BuildFailed", "b")), None);
        assert_eq!(phase(&mut standings, &rule, &ready("web", "c")), Some(Phase::Recovered(failure)));
        assert_eq!(phase(&mut standings, &rule, &ready("web", "d")), None, "no news for who asks for errors");
    }

    #[test]
    fn a_recovery_goes_to_whom_the_failure_went() {
        let cases = [
            (json!({ "eventSeverity": "error" }), true),
            (json!({ "eventSeverity": "error", "inclusionList": ["BuildFailed"] }), true),
            (json!({ "eventSeverity": "error", "inclusionList": ["HealthCheck"] }), false),
            (json!({ "exclusionList": ["BuildFailed"], "eventSeverity": "error" }), false),
            (json!({ "exclusionList": ["ReconciliationSucceeded"] }), false),
            (json!({ "suspend": true }), false),
        ];
        for (spec, heard) in cases {
            let (mut standings, rule) = (Standings::default(), rule(spec.clone()));
            phase(&mut standings, &rule, &failed("web", "BuildFailed", "b"));
            let recovery = phase(&mut standings, &rule, &ready("web", "c"));
            assert_eq!(matches!(recovery, Some(Phase::Recovered(_))), heard, "{spec}");
        }
    }

    #[test]
    fn a_source_that_fails_under_many_applications_is_one_message_and_its_recovery_one() {
        let root = Key::new("prod", "platform");
        let blamed = |name: &str| {
            happened("Kustomization", name, Verdict::Failed { root: Some(root.clone()) }, "ArtifactFailed", "")
        };
        let unchanged =
            |name: &str| happened("Kustomization", name, Verdict::Ready { changed: false }, "Succeeded", "a");
        let source = happened("GitRepository", "platform", Verdict::Failed { root: None }, "GitOperationFailed", "");
        let both = json!({ "eventSources": [{ "kind": "Kustomization", "name": "*" }, { "kind": "GitRepository", "name": "*" }] });
        for (spec, of_source, of_apps) in [(both, 1, 0), (json!({}), 0, 1)] {
            let (mut standings, rule) = (Standings::default(), rule(spec.clone()));
            standings.known(subject("GitRepository", "platform"), None);
            let mut count =
                |happened: &[Happened]| happened.iter().filter(|h| phase(&mut standings, &rule, h).is_some()).count();
            assert_eq!(count(&[blamed("x"), blamed("y"), blamed("z")]), of_apps, "{spec}");
            assert_eq!(count(std::slice::from_ref(&source)), of_source, "{spec}");
            let end = happened("GitRepository", "platform", Verdict::Ready { changed: true }, "NewArtifact", "a");
            assert_eq!(count(&[end, unchanged("y"), unchanged("x"), unchanged("z")]), 1, "{spec}");
        }
    }

    #[test]
    fn a_note_is_said_again_after_some_time_only() {
        let mut standings = Standings::default();
        let mut note = happened("Kustomization", "web", Verdict::Note, "DriftCorrected", "a");
        assert_eq!(standings.judge(&note), Some(Said::News));
        assert_eq!(standings.judge(&note), None);
        note.at += NOTE_AGAIN;
        assert_eq!(standings.judge(&note), Some(Said::News));
    }
}
