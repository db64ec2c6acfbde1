//! Waiting for what was applied to be healthy: driven by watches, holding no worker and no permit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::api::GoDuration;
use k8s_openapi::jiff::Timestamp;

use crate::cluster::{ErrorClass, Followed, Individual, Look, PodWatch, Seen};
use crate::health::{self, Expression, Patience, Verdict};
use crate::manifest::ObjectId;

use super::checks::{Checks, is_itself};
use super::report::listed;
use super::{Application, Failure, Mode, Prepared, Work};

/// How the objects of an application are doing.
#[derive(Debug, Default)]
struct Doctor {
    /// What is not current yet, with its reason.
    waiting: Vec<String>,
    failed: Vec<String>,
    /// When a verdict changes by the mere passing of time.
    look_again: Option<Timestamp>,
}

/// The watched Pods of the namespaces that an application has workloads in.
struct Wards(BTreeMap<String, (PodWatch, watch::Receiver<u64>)>);

impl Application {
    /// Returns once every object that counts is healthy, one has failed, or the time is up.
    pub async fn await_health(&self, work: &Work, prepared: &Prepared) -> Result<(), Failure> {
        let timeout = work.object.spec.health_timeout();
        let deadline = Instant::now() + timeout;
        let mut seen = self.shared.observed.subscribe(&self.key);
        let mut pods = None;
        let mut told = Told::default();
        self.checks().known().await;
        loop {
            seen.borrow_and_update();
            let doctor = self.examine(prepared, pods.as_ref());
            self.record_completed_jobs(prepared).await;
            if let Some(message) = doctor.failure() {
                return Err(Failure::new("HealthCheckFailed", message));
            }
            if doctor.waiting.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let message = format!("not healthy within {}: {}", GoDuration(timeout), doctor.waiting.join("; "));
                return Err(Failure::new("HealthCheckFailed", message));
            }
            // Pods are looked at only while something is not healthy
            if pods.is_none() {
                pods = Some(self.watch_pods(prepared).await);
                continue;
            }
            let message =
                format!("waiting for {} to be healthy: {}", count(doctor.waiting.len()), listed(&doctor.waiting));
            let mut next_look = doctor.look_again.map_or(deadline, |at| deadline.min(Instant::now() + until(at)));
            match told.next(&message, Instant::now()) {
                Tell::Nothing => {}
                Tell::At(time) => next_look = next_look.min(time),
                Tell::Now => {
                    self.waiting(work, "Progressing", &message).await;
                    work.source.attention(&self.key, true, true);
                }
            }
            tokio::select! {
                _ = seen.changed() => {}
                () = changed(&mut pods) => {}
                () = tokio::time::sleep_until(next_look.into()) => {}
            }
        }
    }

    /// True if the health of what is declared turned: an unhealthy application healed, or a healthy one failed.
    pub fn health_turned(&self, prepared: &Prepared, mode: Mode) -> bool {
        if !self.checks().any() {
            return false;
        }
        let doctor = self.examine(prepared, None);
        match mode {
            Mode::Unhealthy => doctor.waiting.is_empty() && doctor.failed.is_empty(),
            Mode::Applied => !doctor.failed.is_empty(),
            Mode::Unsettled | Mode::Blind => false,
        }
    }

    fn examine(&self, prepared: &Prepared, pods: Option<&Wards>) -> Doctor {
        let mut doctor = Doctor::default();
        let checks = self.checks();
        let mut patience = self.patience.lock().unwrap_or_else(PoisonError::into_inner);
        for desired in checks.of(&prepared.desired).filter(|d| !is_itself(&self.key, &d.object.id)) {
            let Some(seen) = self.shared.observed.get(&desired.object.id) else {
                let memory = self.memory();
                if !memory.jobs.has(desired) && !memory.present.contains(&desired.object.id) {
                    doctor.waiting.push(format!("{}: not there yet", desired.object.id));
                }
                continue;
            };
            match checks.expression(&desired.object.id) {
                None => doctor.take(&seen, health::assess(&seen), pods, &mut patience),
                Some(expression) => doctor.judge(&seen, expression, &checks, pods, &mut patience),
            }
        }
        for (id, followed) in &checks.named {
            doctor.look(id, followed, checks.expression(id), pods, &mut patience);
        }
        doctor
    }

    async fn watch_pods(&self, prepared: &Prepared) -> Wards {
        let checks = self.checks();
        let ids = checks.of(&prepared.desired).map(|d| &d.object.id).chain(checks.named.iter().map(|(id, _)| id));
        let namespaces: BTreeSet<&str> = ids.filter(|id| has_pods(id)).map(|id| id.namespace.as_str()).collect();
        let mut wards = BTreeMap::new();
        for namespace in namespaces.into_iter().filter(|namespace| !namespace.is_empty()) {
            let watch = self.shared.pods.watch(namespace);
            // without the list a cause is named a moment later
            watch.listed(PODS_LIST_MAX).await;
            let changes = watch.changes();
            wards.insert(namespace.to_owned(), (watch, changes));
        }
        Wards(wards)
    }
}

/// What was told of a wait: a rollout passes through states that are gone before anyone has read of them.
#[derive(Default)]
struct Told {
    message: String,
    at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tell {
    /// It was told already.
    Nothing,
    Now,
    /// Not before then, if it is still so.
    At(Instant),
}

/// Between two messages of one wait. A person doesn't read faster, and each is a write of the status.
const MESSAGES_APART: Duration = Duration::from_millis(250);

impl Told {
    /// When to tell a message; `Now` is taken as done.
    fn next(&mut self, message: &str, now: Instant) -> Tell {
        if self.message == message {
            return Tell::Nothing;
        }
        match self.at.map(|at| at + MESSAGES_APART).filter(|next| now < *next) {
            Some(next) => Tell::At(next),
            None => {
                *self = Self { message: message.to_owned(), at: Some(now) };
                Tell::Now
            }
        }
    }
}

/// How long to wait for the Pods of a namespace before going on without their causes.
const PODS_LIST_MAX: Duration = Duration::from_secs(5);

impl Doctor {
    /// `own`: what the object says of itself.
    fn take(&mut self, seen: &Seen, own: Verdict, pods: Option<&Wards>, patience: &mut Patience) {
        let ward = pods.filter(|_| has_pods(&seen.id)).and_then(|wards| wards.0.get(&seen.id.namespace));
        let verdict = match ward {
            Some((watch, _)) => {
                let now = Timestamp::now();
                let cause = health::cause(watch.of(seen).iter().map(AsRef::as_ref), now);
                let judgement = patience.judge(&seen.id, seen.generation, own, cause.as_ref(), now);
                self.look_again = self.look_again.into_iter().chain(judgement.look_again).min();
                judgement.verdict
            }
            None => own,
        };
        let text = format!("{}: {}", seen.id, verdict.reason());
        match verdict {
            Verdict::Current => {}
            Verdict::Failed { .. } => self.failed.push(text),
            Verdict::InProgress { .. } | Verdict::Terminating { .. } => self.waiting.push(text),
        }
    }

    /// A declared object of a kind that is judged by its whole content.
    fn judge(
        &mut self,
        seen: &Seen,
        expression: &Expression,
        checks: &Checks,
        pods: Option<&Wards>,
        patience: &mut Patience,
    ) {
        let Some(followed) = checks.whole(&seen.id) else { return };
        let own = match followed.look(&seen.id) {
            Look::Seen(individual) if !individual.is_older_than(seen) => judged(&individual, expression),
            // the watch that has the whole content is a moment behind
            Look::Seen(_) | Look::Absent => Verdict::InProgress { reason: "its newest state is not seen yet".into() },
            unseen => return self.unseen(&seen.id, &unseen),
        };
        self.take(seen, own, pods, patience);
    }

    /// An object that may be somebody else's.
    fn look(
        &mut self,
        id: &ObjectId,
        followed: &Followed,
        expression: Option<&Expression>,
        pods: Option<&Wards>,
        patience: &mut Patience,
    ) {
        match followed.look(id) {
            Look::Seen(individual) => {
                let seen = &individual.seen;
                let own = expression.map_or_else(|| health::assess(seen), |e| judged(&individual, e));
                self.take(seen, own, pods, patience);
            }
            unseen => self.unseen(id, &unseen),
        }
    }

    fn unseen(&mut self, id: &ObjectId, look: &Look) {
        let text = match look {
            Look::Absent | Look::Seen(_) => format!("{id}: not there yet"),
            Look::NoSuchKind(error) => format!("{id}: not there yet: {error}"),
            Look::Unknown(None) => format!("{id}: not looked at yet"),
            Look::Unknown(Some(error)) => format!("{id}: can't be looked at: {error}"),
            // waiting does not help: only a person does
            Look::Refused(error) => {
                let hint = match error.class {
                    ErrorClass::Forbidden => "; grant `list` and `watch`",
                    _ => "",
                };
                self.failed.push(format!("{id}: can't be looked at: {error}{hint}"));
                return;
            }
        };
        self.waiting.push(text);
    }

    fn failure(&self) -> Option<String> {
        (!self.failed.is_empty()).then(|| format!("failed: {}", listed(&self.failed)))
    }
}

fn judged(individual: &Individual, expression: &Expression) -> Verdict {
    health::ending(&individual.seen).unwrap_or_else(|| expression.judge(individual.object()))
}

/// From now; nothing if it has passed.
fn until(time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default()
}

fn has_pods(id: &ObjectId) -> bool {
    matches!(
        (id.group.as_str(), id.kind.as_str()),
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") | ("batch", "Job") | ("", "Pod")
    )
}

async fn changed(pods: &mut Option<Wards>) {
    match pods.as_mut().filter(|wards| !wards.0.is_empty()) {
        Some(wards) => {
            let changes = wards.0.values_mut().map(|(_, changes)| Box::pin(changes.changed()));
            let _ = futures::future::select_all(changes).await;
        }
        None => std::future::pending().await,
    }
}

fn count(objects: usize) -> String {
    if objects == 1 { "1 object".into() } else { format!("{objects} objects") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_at_once_and_what_it_passes_through_is_not() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut told = Told::default();
        for (ms, message, expected) in [
            (0, "not taken up", Tell::Now),
            (10, "not taken up", Tell::Nothing),
            (20, "0 of 1 updated", Tell::At(at(250))),
            (30, "not taken up", Tell::Nothing),
            (250, "0 of 1 available", Tell::Now),
            (300, "1 old replica", Tell::At(at(500))),
            (900, "1 old replica", Tell::Now),
        ] {
            assert_eq!(told.next(message, at(ms)), expected, "{message} at {ms} ms");
        }
    }
}
