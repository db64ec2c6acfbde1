//! Sending what the cluster doesn't hold, stage by stage.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::apply::{self, Action, Outcome, Stage};
use crate::cluster::{ApiError, ApiKind, ErrorClass, Holding};
use crate::config;
use crate::manifest::ObjectId;
use crate::plan::{Desired, Handling};
use crate::report::{Severity, Verdict};

use super::attempt::Decision;
use super::configuration::Overlay;
use super::drift::line_of;
use super::identity::Identity;
use super::render::{ERRORS_SHOWN_MAX, KIND_WAIT_MAX, KIND_WAIT_STEP};
use super::report::{Changes, listed};
use super::{Application, Failure, Mode, Prepared, Stop, Work};

/// How long an object that is being deleted may take to go before it is a failure.
const DELETION_WAIT_MAX: Duration = Duration::from_secs(60);

/// One object that is to be sent.
struct Todo {
    desired: Desired,
    /// What is laid over the declared workload.
    overlay: Option<Overlay>,
    /// What is laid over it is another than the cluster has, and nothing else is.
    renewed: bool,
    /// What others have changed of it, if Git has not.
    drift: Option<String>,
    /// It is sent without what others have scaled.
    scaled: bool,
}

impl Application {
    /// Sends what is not held. `correcting`: the same was held before, so that whatever is sent was changed by others.
    pub async fn apply(
        &self,
        work: &Work,
        prepared: &Prepared,
        correcting: bool,
        changes: &mut Changes,
    ) -> Result<(), Stop> {
        let mut stages: BTreeMap<Stage, Vec<&Desired>> = BTreeMap::new();
        for desired in &prepared.desired {
            stages.entry(apply::stage_of(&desired.object.id)).or_default().push(desired);
        }
        let (mut said, mut first_sent) = (false, None);
        if !stages.contains_key(&Stage::Workloads) {
            self.lay_over_nothing(work).await;
        }
        for (stage, objects) in &stages {
            self.watch_kinds(objects).await?;
            if *stage == Stage::Workloads {
                self.lay_over(work, prepared, objects).await?;
            }
            let todo = self.todo(work, objects, correcting).await?;
            if todo.is_empty() {
                continue;
            }
            if work.yield_soon.is_cancelled() && !work.unyielding {
                return Err(Stop::Yielded);
            }
            let permit = self.shared.applies.acquire(work.urgency).await;
            let told_at = *first_sent.get_or_insert_with(Instant::now) + config::PROGRESS_UNTOLD_MAX;
            let mut send = Box::pin(async {
                let _permit = permit;
                work.applying.store(true, Ordering::Release);
                let order = apply::Work {
                    stages: vec![todo.iter().map(|todo| Arc::new(todo.desired.object.unpacked())).collect()],
                    unknown_fields: self.shared.unknown_fields,
                    defines: prepared.defines.clone(),
                    namespaces: prepared.namespaces.clone(),
                    forced: todo
                        .iter()
                        .filter(|todo| todo.desired.forced || work.object.spec.forces())
                        .map(|todo| todo.desired.object.id.clone())
                        .collect(),
                    ignored: todo
                        .iter()
                        .filter(|todo| !todo.desired.ignored.is_empty())
                        .map(|todo| (todo.desired.object.id.clone(), todo.desired.ignored.clone()))
                        .collect(),
                    revision: work.revision(),
                };
                let stop = apply::Stop { after_stage: CancellationToken::new(), now: work.stop.clone() };
                work.identity.applier.apply(&order, &stop, &|_| {}).await
            });
            let rolls = todo.iter().any(|todo| todo.overlay.as_ref().is_some_and(Overlay::rolls));
            let only_drift = todo.iter().all(|todo| todo.drift.is_some());
            let telling = !said && ((!correcting && !only_drift) || rolls);
            // that something is being changed is said while it is being changed, not before
            let result = tokio::select! {
                biased;
                result = &mut send => result,
                () = tokio::time::sleep_until(told_at.into()), if telling => {
                    said = true;
                    tokio::join!(send, self.tell_progress(work)).0
                }
            };
            let outcome = match result {
                Ok(applied) => {
                    self.memory().present.extend(applied.left);
                    self.note(work, prepared, &todo, &applied.objects, changes);
                    Ok(())
                }
                Err(error) => {
                    self.note(work, prepared, &todo, error.applied(), changes);
                    self.let_go_of_forbidden(&error);
                    Err(refused(&error, prepared, &work.identity))
                }
            };
            work.applying.store(false, Ordering::Release);
            outcome?;
        }
        Ok(())
    }

    async fn tell_progress(&self, work: &Work) {
        let message = format!("applying revision {}", work.revision());
        if let Err(error) = self.progressing(work, &message, None).await {
            tracing::warn!(object = %self.key, %error, "the status could not be written; it is written with the next one");
        }
    }

    /// Sees to it that all kinds are watched before it is decided what is held.
    async fn watch_kinds(&self, objects: &[&Desired]) -> Result<(), Failure> {
        let mut kinds = BTreeMap::new();
        for desired in objects {
            let id = &desired.object.id;
            let key = (&id.group, &id.kind, &id.namespace);
            if kinds.contains_key(&key) {
                continue;
            }
            let kind = self.kind(desired).await.map_err(|error| {
                Failure::new("ReconciliationFailed", format!("{}: {id}: {error}", desired.object.origin))
            })?;
            kinds.insert(key, kind);
        }
        let wanted = kinds.iter().map(|((_, _, namespace), kind)| (kind, namespace.as_str()));
        self.shared.observed.ensure_watched_in(&self.key, wanted).await.map_err(|error| {
            self.memory().mode = Mode::Blind;
            // by name: whose kind it is tells what to grant, or what to declare elsewhere
            let of_kind = |desired: &&&Desired| {
                let id = &desired.object.id;
                kinds.get(&(&id.group, &id.kind, &id.namespace)).is_some_and(|kind| error.is_about(kind))
            };
            let named = objects
                .iter()
                .find(of_kind)
                .map(|desired| format!("{}: {}: ", desired.object.origin, desired.object.id));
            Failure::new("ReconciliationFailed", format!("{}{error}", named.unwrap_or_default()))
        })
    }

    /// A kind whose definition was applied a moment ago takes a moment to be served.
    async fn kind(&self, desired: &Desired) -> Result<ApiKind, ApiError> {
        let (id, version) = (&desired.object.id, &desired.object.version);
        let deadline = Instant::now() + KIND_WAIT_MAX;
        loop {
            match self.shared.cluster.resolve(&id.group, &id.kind, Some(version)).await {
                Err(error) if error.class == ErrorClass::NoSuchKind && Instant::now() < deadline => {
                    tokio::time::sleep(KIND_WAIT_STEP).await;
                }
                result => return result,
            }
        }
    }

    /// What must be sent, once nothing of it is on its way out any more.
    async fn todo(&self, work: &Work, objects: &[&Desired], correcting: bool) -> Result<Vec<Todo>, Failure> {
        let mut seen = self.shared.observed.subscribe(&self.key);
        let deadline = Instant::now() + DELETION_WAIT_MAX;
        loop {
            seen.borrow_and_update();
            let decided: Vec<_> = objects.iter().map(|desired| (*desired, self.decide(desired))).collect();
            let going: Vec<_> =
                decided.iter().filter(|(_, d)| *d == Decision::Deleting).map(|(o, _)| o.object.id.clone()).collect();
            if going.is_empty() {
                for (asked, _) in decided.iter().filter(|(_, decision)| *decision == Decision::Ask) {
                    self.ask(work, asked).await;
                }
                let send = decided.into_iter().filter(|(_, d)| *d == Decision::Send).map(|(o, _)| o).collect();
                let send = self.without_present(work, send).await?;
                return Ok(send.into_iter().map(|desired| self.as_sent(desired, correcting)).collect());
            }
            if tokio::time::timeout_at(deadline.into(), seen.changed()).await.is_err() {
                let message = format!("still being deleted: {}\nhint: look at their finalizers", listed(&going));
                return Err(Failure::new("ReconciliationFailed", message));
            }
        }
    }

    /// Leaves out what is to be created only where there is none, if there is one: it need not be ours to be there, so
    /// that the watches, which see what is ours, don't tell.
    async fn without_present<'a>(&self, work: &Work, todo: Vec<&'a Desired>) -> Result<Vec<&'a Desired>, Failure> {
        let mut left = Vec::with_capacity(todo.len());
        for desired in todo {
            if desired.handling == Handling::IfNotPresent {
                let id = &desired.object.id;
                let found = match self.kind(desired).await {
                    Ok(kind) => work.identity.cluster.get_seen(&kind, id).await,
                    Err(error) => Err(error),
                };
                match found {
                    Ok(Some(_)) => {
                        self.memory().present.insert(id.clone());
                        continue;
                    }
                    Ok(None) => {}
                    Err(error) if error.is_not_found() => {}
                    Err(error) => {
                        let message = format!("{}: {id}: {error}", desired.object.origin);
                        return Err(Failure::new("ReconciliationFailed", message));
                    }
                }
            }
            left.push(desired);
        }
        Ok(left)
    }

    /// Finds out by a dry-run whether an object is as declared whose drift would be left.
    async fn ask(&self, work: &Work, desired: &Desired) {
        let overlay = self.overlay(desired);
        let sent = overlay.as_ref().map_or(desired, |overlay| &overlay.desired);
        let scaled = self.without_scaled(sent);
        let object = &scaled.as_ref().unwrap_or(sent).object;
        let entry = match work.identity.applier.dry_run(&object.unpacked(), self.shared.unknown_fields).await {
            Ok(answer) => answer.seen.entry,
            Err(error) => {
                tracing::debug!(object = %self.key, id = %object.id, %error, "it is not known whether others changed it");
                None
            }
        };
        self.shared.observed.expect(&object.id, entry);
    }

    fn as_sent(&self, desired: &Desired, correcting: bool) -> Todo {
        let overlay = self.overlay(desired);
        let sent = overlay.as_ref().map_or(desired, |overlay| &overlay.desired);
        let seen = self.shared.observed.get(&desired.object.id);
        let outdated = seen.is_some_and(|seen| seen.desired.as_deref() != Some(&*sent.digest));
        let renewed = correcting && overlay.is_some() && outdated;
        let holding = self.holding(sent);
        // the same was held before, or was sent last: what is different now was changed by others
        let theirs = (correcting && !renewed) || matches!(holding, Holding::Drifted | Holding::Undecided);
        let drift = theirs.then(|| self.drift_of(sent, holding));
        let without = self.without_scaled(sent);
        let (scaled, desired) = (without.is_some(), without.unwrap_or_else(|| sent.clone()));
        Todo { desired, overlay, renewed, drift, scaled }
    }

    /// What an application may not apply stands in nobody's way: another one that declares it may.
    fn let_go_of_forbidden(&self, error: &apply::ApplyError) {
        let apply::ApplyError::Refused { refusals, .. } = error else { return };
        let forbidden = refusals.iter().filter(|refusal| refusal.error.class == ErrorClass::Forbidden);
        self.shared.registry.let_go(&self.key, forbidden.map(|refusal| &refusal.id));
    }

    /// Takes in what was done.
    fn note(&self, work: &Work, prepared: &Prepared, todo: &[Todo], outcomes: &[Outcome], changes: &mut Changes) {
        let todo_of: HashMap<&ObjectId, &Todo> = todo.iter().map(|todo| (&todo.desired.object.id, todo)).collect();
        let rolled: Vec<&Overlay> = outcomes
            .iter()
            .filter(|outcome| outcome.action != Action::Unchanged)
            .filter_map(|outcome| todo_of.get(&outcome.id)?.overlay.as_ref())
            .filter(|overlay| overlay.rolls())
            .collect();
        self.tell_rolled(work, &rolled);
        let redaction = || prepared.rendered.redaction(prepared.secrets.iter().map(String::as_str));
        let redaction = todo.iter().any(|todo| todo.drift.is_some()).then(redaction).unwrap_or_default();
        for outcome in outcomes {
            let todo = todo_of.get(&outcome.id);
            let anew = matches!(outcome.action, Action::Created | Action::Recreated);
            if todo.is_some_and(|todo| todo.scaled && anew) {
                // nobody has scaled this one: it is sent whole in a moment
                self.shared.observed.expect(&outcome.id, None);
            }
            let mut drift = todo.and_then(|todo| Some((todo, todo.drift.clone()?)));
            if let Some((todo, drift)) = &mut drift {
                redaction.apply(drift);
                let changed = (outcome.action != Action::Unchanged).then_some(drift.as_str());
                self.was_put_back(&outcome.id, &todo.desired.digest, changed);
            }
            let action = match outcome.action {
                Action::Unchanged => continue,
                Action::Created => "created",
                Action::Configured => "configured",
                Action::Recreated => "recreated",
            };
            self.metrics.objects(action, 1);
            match (drift, todo) {
                (Some((_, drift)), _) => {
                    changes.corrected.push(line_of(&outcome.id, &drift));
                    self.metrics.drift_corrected(1);
                }
                (None, Some(todo)) if todo.renewed && todo.overlay.as_ref().is_some_and(Overlay::rolls) => {
                    changes.count("rolled");
                }
                // only what is recorded of it: nothing that a person sees
                (None, Some(todo)) if todo.renewed => {}
                _ => changes.count(action),
            }
            for dropped in &outcome.dropped {
                let origin = prepared.origin_of(&outcome.id, &dropped.path).unwrap_or_else(|| outcome.origin.clone());
                let text = format!(
                    "{origin}: {} has a field that the API server doesn't know: `{}` was left out",
                    outcome.id, dropped.path
                );
                let revision = work.revision();
                self.event(
                    &work.object,
                    Severity::Warning,
                    Verdict::Detail,
                    "UnknownField",
                    text,
                    Some(&revision),
                    None,
                );
            }
        }
    }
}

fn refused(error: &apply::ApplyError, prepared: &Prepared, identity: &Identity) -> Stop {
    let apply::ApplyError::Refused { refusals, .. } = error else { return Stop::Yielded };
    let redaction = prepared.rendered.redaction(prepared.secrets.iter().map(String::as_str));
    let told = |refusal: &apply::Refusal| {
        let error = refusal.error.clone().redacted(&redaction);
        let origin = match &error.class {
            ErrorClass::UnknownField { paths } => paths.first().and_then(|path| prepared.origin_of(&refusal.id, path)),
            _ => None,
        };
        let origin = origin.unwrap_or_else(|| refusal.origin.clone());
        apply::Refusal { error, origin, ..refusal.clone() }.to_string()
    };
    let mut lines: Vec<String> = refusals.iter().take(ERRORS_SHOWN_MAX).map(told).collect();
    let more = refusals.len().saturating_sub(ERRORS_SHOWN_MAX);
    if more > 0 {
        lines.push(format!("… and {more} more"));
    }
    lines.extend(refusals.iter().find_map(|refusal| identity.hint(&refusal.error)));
    Failure::new("ReconciliationFailed", lines.join("\n")).into()
}
