//! What is wrong with the rollouts of an application, and how people are told.

use k8s_openapi::jiff::Timestamp;

use crate::api;
use crate::report::metrics::HeldUp;
use crate::report::{Severity, Verdict};

use super::report::listed;
use super::{Application, Work};

/// What is wrong with what workloads follow.
#[derive(Default)]
pub(super) struct Trouble {
    pub missing: Vec<String>,
    pub unreadable: Vec<String>,
    pub loops: Vec<String>,
    pub too_much: Vec<String>,
    pub remade: Vec<String>,
}

impl Application {
    /// Says what is wrong, once for as long as it is so.
    pub(super) async fn tell_trouble(&self, work: &Work, trouble: &Trouble) {
        let said = trouble.in_words();
        let mut report = self.report.clone().lock_owned().await;
        let conditions = &mut report.status.conditions;
        let before = conditions.get(ROLLOUTS).map(|c| (c.reason.clone(), c.message.clone()));
        match &said {
            Some((reason, message)) => {
                let generation = work.object.metadata.generation;
                conditions.set(ROLLOUTS, api::Truth::False, reason, message, generation, Timestamp::now());
            }
            None => conditions.remove(ROLLOUTS),
        }
        drop(report);
        if let Some((reason, message)) = said
            && before.is_none_or(|before| before != (reason.to_owned(), message.clone()))
        {
            let revision = work.revision();
            self.event(&work.object, Severity::Warning, Verdict::Note, reason, message, Some(&revision), None);
        }
    }
}

/// The condition that says what is wrong with rollouts; not there while all is well.
const ROLLOUTS: &str = "afresh.dev/Rollouts";

impl Trouble {
    pub fn counted(&self) -> HeldUp {
        HeldUp {
            missing: self.missing.len(),
            unreadable: self.unreadable.len(),
            recreated: self.remade.len(),
            loops: self.loops.len(),
        }
    }

    /// The condition's reason and message.
    fn in_words(&self) -> Option<(&'static str, String)> {
        let mut reason = None;
        let mut words = Vec::new();
        let mut say = |of: &'static str, text: &str, items: &[String], hint: &str| {
            if !items.is_empty() {
                reason.get_or_insert(of);
                words.push(format!("{text} {}\nhint: {hint}", listed(items)));
            }
        };
        say(
            "RolloutLoop",
            "configuration and rollouts follow each other in a loop, which was stopped:",
            &self.loops,
            "find out who writes back what they read; then `flux reconcile kustomization`, or a change in Git, goes on",
        );
        say("MissingReference", "not there:", &self.missing, "until it is there, the workload is left as it is");
        say(
            "UnreadableReference",
            "can't be read:",
            &self.unreadable,
            "it counts as it was; `manifests/rollouts` has the rights",
        );
        say(
            "ImmutableRecreated",
            "immutable, and made anew under its name with other content:",
            &self.remade,
            "nothing is rolled because of it, since nodes keep the old content for as long as a Pod there reads it; give new content a new name, or let `flux reconcile kustomization` roll it all the same",
        );
        say(
            "TooMuchFollowed",
            "more is read than can be recorded:",
            &self.too_much,
            "changes of it roll nothing; name what counts by `secret.reloader.stakater.com/reload`",
        );
        reason.map(|reason| (reason, words.join("\n")))
    }
}
