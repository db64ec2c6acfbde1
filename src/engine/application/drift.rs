//! What others change of our objects: whether it is put back, how soon, and what is said of what is left.
//!
//! ```text
//!  seen in the cluster ─▶ how an object stands ─┬─ put back ─▶ apply ─▶ event with the fields, heat of that object
//!                                               └─ left ─────▶ condition `afresh.dev/Drift`, event, metric
//! ```
//!
//! Comes in: how an object stands, its mode, its heat. Goes out: what is to be done with it. It concerns what others
//! changed; what Git changes is applied in every mode.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::{DRIFT_CONDITION, Kustomization, KustomizationSpec, Truth};
use crate::cluster::{DriftMark, Holding, Seen};
use crate::manifest::ObjectId;
use crate::plan::{Desired, DriftMode, Handling, IgnoreRules};
use crate::report::{Severity, Verdict};

use super::attempt::Decision;
use super::heat::Heat;
use super::{Application, Failure, Mode, Prepared, Work};

/// What is known of changes that others made. Lost at a restart; the condition is what was said before.
#[derive(Default)]
pub(super) struct Drifting {
    /// That of the Kustomization.
    mode: DriftMode,
    heats: HashMap<ObjectId, Heat>,
    /// Where drift is left: the digest with which an object was last held or sent.
    held: HashMap<ObjectId, String>,
    /// What was there when the daemon started, if Git still says what it said then.
    found: HashSet<ObjectId>,
    /// What Git said of a field when others took it through the scale subresource.
    scaled: HashMap<ObjectId, Value>,
    /// The lines that were told; `None`: not yet since the start.
    told: Option<HashSet<String>>,
    said: Option<Standing>,
    /// What is fought over no longer, and not told yet.
    over: Vec<String>,
}

/// What is left as others have changed it, as people are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing(BTreeMap<Kind, Vec<String>>);

/// In the order in which people should look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Fight,
    UnknownMode,
    Left,
    Scaled,
}

/// What calls for an attempt, as far as it is seen in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disturbance {
    /// Objects of ours are to be sent: each has a heat of its own.
    Objects,
    /// What workloads read, or health.
    Other,
}

/// Lines of the condition: what a person reads. A line is bounded itself.
const LINES_MAX: usize = 10;
/// Letters of one line, and of what one Event tells.
const LINE_MAX: usize = 600;
const EVENT_MAX: usize = 1000;

/// What can be said of `spec.ignore` without looking at anything.
pub(super) fn validate(spec: &KustomizationSpec) -> Result<(), Failure> {
    match IgnoreRules::compile(&spec.ignore) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new("InvalidDriftSettings", error.to_string()).stalled()),
    }
}

/// What a Kustomization asks to be done when others change its objects.
pub(super) fn mode_of(object: &Kustomization) -> Result<DriftMode, Failure> {
    let Some(text) = object.metadata.annotations.as_ref().and_then(|all| all.get(DriftMode::KEY)) else {
        return Ok(DriftMode::default());
    };
    DriftMode::parse(text).ok_or_else(|| {
        let (key, values) = (DriftMode::KEY, DriftMode::VALUES);
        let message = format!("the annotation `{key}: {text}` is not served\nhint: use {values}, or remove it");
        Failure::new("InvalidDriftSettings", message).stalled()
    })
}

/// What is to be done with an object that is not held. `known`: Git says of it what it said when it was last sent, so that
/// others have changed it. `hot`: it was put back too often.
fn respond(mode: DriftMode, known: bool, hot: bool, holding: Holding) -> Decision {
    match (mode, known, holding) {
        (_, _, Holding::Held) => Decision::Held,
        (DriftMode::Off, true, _) => Decision::Leave,
        (DriftMode::Warn, true, Holding::Undecided) => Decision::Ask,
        (DriftMode::Warn, true, _) => Decision::Standing,
        (_, _, Holding::Deleting) => Decision::Deleting,
        _ if hot => Decision::Paused,
        _ => Decision::Send,
    }
}

impl Application {
    pub(super) fn drifting(&self) -> MutexGuard<'_, Drifting> {
        self.drifting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up the mode that the Kustomization asks for.
    pub(super) fn set_drift_mode(&self, mode: DriftMode) {
        self.drifting().mode = mode;
    }

    /// What is done about changes of an object: the live annotation counts before Git's, and that before the
    /// Kustomization's.
    fn drift_mode(&self, desired: &Desired, seen: Option<&Seen>) -> DriftMode {
        let live = seen.and_then(|seen| seen.marks.drift).and_then(|mark| match mark {
            DriftMark::Correct => Some(DriftMode::Correct),
            DriftMark::Warn => Some(DriftMode::Warn),
            DriftMark::Off => Some(DriftMode::Off),
            DriftMark::Unknown => None,
        });
        live.or(desired.drift).unwrap_or_else(|| self.drifting().mode)
    }

    /// What is to be done with an object that is not held as it is declared.
    pub(super) fn respond(&self, desired: &Desired, seen: Option<&Seen>, holding: Holding) -> Decision {
        let mode = self.drift_mode(desired, seen);
        let (id, digest, now) = (&desired.object.id, desired.digest.as_str(), Instant::now());
        let drifting = self.drifting();
        let known = drifting.held.get(id).is_some_and(|held| held == digest)
            || seen.is_some_and(|seen| seen.desired.as_deref() == Some(digest))
            || (holding == Holding::Absent && drifting.found.contains(id));
        let hot = drifting.heats.get(id).is_some_and(|heat| heat.holds_back(digest, now));
        respond(mode, known, hot, holding)
    }

    /// What others have taken of an object, as people read it.
    pub(super) fn drift_of(&self, desired: &Desired, holding: Holding) -> String {
        let id = &desired.object.id;
        match holding {
            Holding::Absent | Holding::Deleting => "deleted".to_owned(),
            Holding::Outdated => format!("metadata.annotations[\"{}\"]", crate::api::DESIRED),
            _ => self.shared.observed.drift(id, &desired.object.value(), &desired.ignored).to_string(),
        }
    }

    /// An attempt begins at the revision that the status recorded as applied: what it recorded was there.
    pub(super) fn found_as_recorded(&self, ids: impl Iterator<Item = ObjectId>) {
        self.drifting().found = ids.collect();
    }

    /// All was sent or is left: that is what others change from here on.
    pub(super) fn settle_drift(&self, prepared: &Prepared) {
        let mut held = HashMap::new();
        for desired in prepared.desired.iter().filter(|desired| desired.handling != Handling::Ignore) {
            let seen = self.shared.observed.get(&desired.object.id);
            if self.drift_mode(desired, seen.as_deref()) != DriftMode::Correct {
                let overlay = self.overlay(desired);
                let sent = overlay.as_ref().map_or(desired, |overlay| &overlay.desired);
                held.insert(desired.object.id.clone(), sent.digest.clone());
            }
        }
        let declared: HashSet<&ObjectId> = prepared.desired.iter().map(|desired| &desired.object.id).collect();
        let mut drifting = self.drifting();
        drifting.held = held;
        drifting.found.clear();
        drifting.heats.retain(|id, _| declared.contains(id));
        drifting.scaled.retain(|id, _| declared.contains(id));
    }

    /// Takes in that an object was sent again, and slows the next time if that was too often. `changed`: what others had
    /// changed of it.
    pub(super) fn was_put_back(&self, id: &ObjectId, digest: &str, changed: Option<&str>) {
        let now = Instant::now();
        let mut drifting = self.drifting();
        let heat = drifting.heats.entry(id.clone()).or_insert_with(|| Heat::new(digest, now));
        heat.put_back(digest, now, changed);
    }

    /// When something is to be looked at again though nothing has changed.
    pub(super) fn drift_wakes_at(&self) -> Option<Instant> {
        let now = Instant::now();
        self.drifting().heats.values().filter_map(|heat| heat.wakes_at(now)).min()
    }

    /// What calls for an attempt, and what is left as others have changed it.
    pub(super) fn survey(&self) -> Option<(Option<Disturbance>, Standing)> {
        let (prepared, mode) = {
            let memory = self.memory();
            match (&memory.prepared, memory.mode) {
                (Some(prepared), mode @ (Mode::Applied | Mode::Unhealthy)) => (prepared.clone(), mode),
                (_, Mode::Blind) => return self.sees_again().then(|| (Some(Disturbance::Other), Standing::default())),
                _ => return None,
            }
        };
        self.cool();
        let mut standing = Standing::default();
        for desired in &prepared.desired {
            let decision = self.decide(desired);
            // what is seen of an object that is being written to may be older than the answer
            let calls = matches!(decision, Decision::Send | Decision::Ask);
            if calls && !self.shared.gate.in_flight(&desired.object.id) {
                return Some((Some(Disturbance::Objects), standing));
            }
            self.stands(desired, decision, &mut standing);
        }
        let blind = self.shared.observed.is_blind(&self.key);
        if blind || self.others_changed_keys() || self.health_turned(&prepared, mode) {
            return Some((Some(Disturbance::Other), standing));
        }
        Some((None, standing.redacted(&prepared)))
    }

    /// Whether all is watched that was asked for.
    fn sees_again(&self) -> bool {
        self.shared.observed.sees_all(&self.key)
    }

    /// What is left of one object as others have changed it.
    fn stands(&self, desired: &Desired, decision: Decision, standing: &mut Standing) {
        let id = &desired.object.id;
        let seen = self.shared.observed.get(id);
        if seen.as_ref().is_some_and(|seen| seen.marks.drift == Some(DriftMark::Unknown)) {
            let (key, values) = (DriftMode::KEY, DriftMode::VALUES);
            standing.say(Kind::UnknownMode, format!("{id}: its live annotation `{key}` is not served: use {values}"));
        }
        let fight = self.drifting().heats.get(id).and_then(|heat| heat.fight().map(str::to_owned));
        if let Some(changed) = fight {
            let what = if changed.is_empty() { String::new() } else { format!(" ({changed})") };
            standing
                .say(Kind::Fight, format!("{id} is changed again and again{what}, and is put back ever more slowly"));
        } else if decision == Decision::Standing {
            let overlay = self.overlay(desired);
            let sent = overlay.as_ref().map_or(desired, |overlay| &overlay.desired);
            standing.say(Kind::Left, format!("{id}: {}", self.drift_of(sent, self.holding(sent))));
        }
        let Some(seen) = seen.filter(|_| decision != Decision::Leave) else { return };
        let Some(scaled) = &seen.scaled else {
            self.drifting().scaled.remove(id);
            return;
        };
        let declared = desired.object.value();
        let Some(value) = scaled.field.find(&declared) else { return };
        if desired.ignored.contains(&scaled.field) || self.drift_mode(desired, Some(&seen)) == DriftMode::Off {
            return;
        }
        self.drifting().scaled.entry(id.clone()).or_insert_with(|| value.clone());
        let field = scaled.field.tokens().join(".");
        standing.say(Kind::Scaled, format!("{id}: {field} is left to {}, which scales it", scaled.by));
    }

    /// The object as it is sent: without what was scaled, as long as Git says of it what it said when that began.
    pub(super) fn without_scaled(&self, desired: &Desired) -> Option<Desired> {
        let seen = self.shared.observed.get(&desired.object.id)?;
        let scaled = seen.scaled.as_ref()?;
        let declared = desired.object.value();
        let value = scaled.field.find(&declared)?;
        let mut drifting = self.drifting();
        let before = drifting.scaled.entry(desired.object.id.clone()).or_insert_with(|| value.clone());
        if before != value {
            drifting.scaled.remove(&desired.object.id);
            return None;
        }
        Some(desired.without(&scaled.field))
    }

    /// Says what is left and what is fought over, once for as long as it is so. `write`: at once, else with the status
    /// that is written next.
    pub(super) async fn tell_drift(&self, object: &Kustomization, standing: &Standing, write: bool) {
        if write && {
            let drifting = self.drifting();
            drifting.over.is_empty() && drifting.said.as_ref() == Some(standing)
        } {
            return;
        }
        let count = |kind| standing.0.get(&kind).map_or(0, Vec::len);
        self.metrics.drift_standing(count(Kind::Left), count(Kind::Fight), count(Kind::Scaled));
        let mut report = self.report.clone().lock_owned().await;
        let conditions = &mut report.status.conditions;
        let said =
            conditions.get(DRIFT_CONDITION).map(|condition| (condition.reason.clone(), condition.message.clone()));
        let words = standing.in_words();
        let differs = said.as_ref().map(|(reason, message)| (reason.as_str(), message.as_str()))
            != words.as_ref().map(|(reason, message)| (*reason, message.as_str()));
        match &words {
            Some((reason, message)) => {
                conditions.set(
                    DRIFT_CONDITION,
                    Truth::True,
                    reason,
                    message,
                    object.metadata.generation,
                    Timestamp::now(),
                );
            }
            None => conditions.remove(DRIFT_CONDITION),
        }
        if write && differs {
            self.write_or_log(report).await;
        } else {
            drop(report);
        }
        let revision = self.applied_revision().await;
        let (told, over) = {
            let mut drifting = self.drifting();
            let lines = standing.0.values().flatten().cloned().collect();
            // what the status says since before the start was told before
            let before = || said.iter().flat_map(|(_, message)| message.lines().map(str::to_owned)).collect();
            drifting.said = Some(standing.clone());
            (drifting.told.replace(lines).unwrap_or_else(before), std::mem::take(&mut drifting.over))
        };
        for (kind, lines) in &standing.0 {
            let new: Vec<_> = lines.iter().filter(|line| !told.contains(*line)).map(String::as_str).collect();
            if !new.is_empty() {
                let (severity, reason, text) = kind.event(&bounded(&new.join("; "), EVENT_MAX));
                self.event(object, severity, Verdict::Note, reason, text, revision.as_deref(), None);
            }
        }
        if !over.is_empty() {
            let text = bounded(&format!("nobody changes it any more: {}", over.join(", ")), EVENT_MAX);
            self.event(object, Severity::Normal, Verdict::Note, "DriftFightOver", text, revision.as_deref(), None);
        }
    }

    async fn applied_revision(&self) -> Option<String> {
        self.report.lock().await.status.last_applied_revision.clone()
    }

    /// Forgets the heat of what has cooled down.
    fn cool(&self) {
        let now = Instant::now();
        let Drifting { heats, over, .. } = &mut *self.drifting();
        heats.retain(|id, heat| {
            let hot = now < heat.over_at();
            if !hot && heat.fight().is_some() {
                over.push(id.to_string());
            }
            hot
        });
    }

    /// What is left after an attempt's apply is told with the status that follows.
    pub(super) async fn tell_drift_of(&self, work: &Work, prepared: &Prepared) {
        self.settle_drift(prepared);
        self.cool();
        let mut standing = Standing::default();
        for desired in &prepared.desired {
            self.stands(desired, self.decide(desired), &mut standing);
        }
        let standing = standing.redacted(prepared);
        self.tell_drift(&work.object, &standing, false).await;
    }
}

impl Standing {
    fn say(&mut self, kind: Kind, line: String) {
        self.0.entry(kind).or_default().push(line);
    }

    /// Without what came from Secrets, and bounded.
    fn redacted(mut self, prepared: &Prepared) -> Self {
        if !self.0.is_empty() {
            let redaction = prepared.rendered.redaction(prepared.secrets.iter().map(String::as_str));
            for line in self.0.values_mut().flatten() {
                redaction.apply(line);
                *line = bounded(line, LINE_MAX);
            }
        }
        self
    }

    /// The condition's reason and message.
    fn in_words(&self) -> Option<(&'static str, String)> {
        let reason = self.0.keys().next()?.reason();
        let all: Vec<&str> = self.0.values().flatten().map(String::as_str).collect();
        let mut lines: Vec<String> = all.iter().take(LINES_MAX).map(ToString::to_string).collect();
        if all.len() > LINES_MAX {
            lines.push(format!("… and {} more", all.len() - LINES_MAX));
        }
        Some((reason, lines.join("\n")))
    }
}

impl Kind {
    fn reason(self) -> &'static str {
        match self {
            Self::Fight => "DriftFight",
            Self::UnknownMode => "DriftModeUnknown",
            Self::Left => "DriftDetected",
            Self::Scaled => "ReplicasTakenOver",
        }
    }

    fn event(self, lines: &str) -> (Severity, &'static str, String) {
        let (severity, text) = match self {
            Self::Fight => (Severity::Warning, format!("{lines}\nhint: decide who owns these fields; docs/drift.md")),
            Self::UnknownMode => (Severity::Warning, lines.to_owned()),
            Self::Left => (Severity::Warning, format!("left as others changed it: {lines}")),
            Self::Scaled => (Severity::Normal, format!("{lines}; a new number in Git is applied")),
        };
        (severity, self.reason(), text)
    }
}

/// At most so many letters.
pub(super) fn bounded(text: &str, letters_max: usize) -> String {
    match text.char_indices().nth(letters_max) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// What was corrected, for an Event.
pub(super) fn corrected(lines: &[String]) -> String {
    bounded(&lines.join("; "), EVENT_MAX)
}

/// One object and what others had changed of it, if that is known.
pub(super) fn line_of(id: &ObjectId, changed: &str) -> String {
    if changed.is_empty() { id.to_string() } else { format!("{id} ({changed})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_changed_is_answered_as_the_mode_says_and_what_git_changes_is_sent() {
        use DriftMode::{Correct, Off, Warn};
        use Holding::{Absent, Deleting, Drifted, Held, Outdated, Undecided};
        for (mode, known, hot, holding, expected) in [
            (Correct, true, false, Drifted, Decision::Send),
            (Correct, true, false, Absent, Decision::Send),
            (Correct, true, false, Undecided, Decision::Send),
            (Correct, true, false, Deleting, Decision::Deleting),
            (Correct, true, true, Drifted, Decision::Paused),
            (Correct, true, true, Absent, Decision::Paused),
            (Correct, true, true, Deleting, Decision::Deleting),
            (Correct, true, true, Held, Decision::Held),
            (Warn, true, false, Drifted, Decision::Standing),
            (Warn, true, false, Absent, Decision::Standing),
            (Warn, true, false, Deleting, Decision::Standing),
            (Warn, true, false, Outdated, Decision::Standing),
            (Warn, true, false, Undecided, Decision::Ask),
            (Warn, true, false, Held, Decision::Held),
            (Off, true, false, Drifted, Decision::Leave),
            (Off, true, false, Absent, Decision::Leave),
            (Off, true, false, Undecided, Decision::Leave),
            // Git says something new, or the object was never there
            (Warn, false, false, Outdated, Decision::Send),
            (Warn, false, false, Absent, Decision::Send),
            (Off, false, false, Outdated, Decision::Send),
            (Off, false, false, Absent, Decision::Send),
            (Off, false, false, Deleting, Decision::Deleting),
        ] {
            assert_eq!(respond(mode, known, hot, holding), expected, "{mode:?} {known} {hot} {holding:?}");
        }
    }

    #[test]
    fn what_is_left_is_said_in_order_and_bounded() {
        let mut standing = Standing::default();
        assert_eq!(standing.in_words(), None);
        for n in 0..12 {
            standing.say(Kind::Scaled, format!("Deployment/a/{n}: spec.replicas"));
        }
        standing.say(Kind::Left, "ConfigMap/a/b: data.x".into());
        let (reason, message) = standing.in_words().unwrap();
        assert_eq!(reason, "DriftDetected");
        let lines: Vec<_> = message.lines().collect();
        assert_eq!((lines[0], lines.len(), lines[10]), ("ConfigMap/a/b: data.x", 11, "… and 3 more"));
        standing.say(Kind::Fight, "x".into());
        assert_eq!(standing.in_words().unwrap().0, "DriftFight");
    }

    #[test]
    fn texts_are_cut_between_letters() {
        assert_eq!(bounded("äöü", 2), "äö…");
        assert_eq!(bounded("äöü", 3), "äöü");
    }

    #[test]
    fn settings_that_are_not_served_are_refused_by_name() {
        let object = |annotation: Option<&str>, path: &str| {
            let spec = serde_json::json!({
                "interval": "1m", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "a"},
                "ignore": [{"paths": [path]}],
            });
            let mut object = Kustomization::new("app", serde_json::from_value(spec).unwrap());
            let annotations = annotation.map(|value| (DriftMode::KEY.to_owned(), value.to_owned()));
            object.metadata.annotations = Some(annotations.into_iter().collect());
            validate(&object.spec).and_then(|()| mode_of(&object))
        };
        assert_eq!(object(Some("warn"), "/spec/replicas").ok(), Some(DriftMode::Warn));
        assert_eq!(object(None, "/spec/replicas").ok(), Some(DriftMode::Correct));
        for (annotation, path, named) in [
            (Some("never"), "/spec/replicas", "`afresh.dev/drift: never`"),
            (Some("warn"), "spec/replicas", "`spec.ignore[0].paths[0]`"),
        ] {
            let failure = object(annotation, path).err().unwrap();
            assert!(failure.stalled && failure.message.contains(named), "{}", failure.message);
        }
    }
}
