//! Sends the work, stage by stage.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::APPLY_MANAGER;
use crate::cluster::{
    Abandoned, Answer, ApiError, ApiKind, ApplyOptions, Cluster, ErrorClass, FieldValidation, Marks, Observed, Ssa,
    WriteGate,
};
use crate::manifest::{GroupKind, Object, ObjectId, Pointer};

use super::outcome::{Action, Applied, ApplyError, Dropped, Outcome, Progress, Refusal, UnknownFields};
use super::recreation::Replacement;
use super::{adoption, left, unknown};

/// What is to be applied.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// In order. Each object carries its owner labels and its digest already.
    pub stages: Vec<Vec<Arc<Object>>>,
    pub unknown_fields: UnknownFields,
    /// Kinds that the declared set defines, besides those whose definition is in `stages`.
    pub defines: HashSet<GroupKind>,
    /// Namespaces that the declared set holds, besides those in `stages`.
    pub namespaces: HashSet<String>,
    /// Objects that are to be created anew where they can't be changed in place; Jobs are in any case.
    pub forced: HashSet<ObjectId>,
    /// Places that are left to others, of the objects that have any.
    pub ignored: HashMap<ObjectId, Arc<[Pointer]>>,
    /// What a person's consent must name.
    pub revision: String,
}

impl Work {
    fn ignored_of(&self, id: &ObjectId) -> &[Pointer] {
        self.ignored.get(id).map_or(&[], |places| places)
    }
}

/// How the work is told to stop. What is in flight is finished in any case.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Don't begin another stage.
    pub after_stage: CancellationToken,
    /// Don't begin another object.
    pub now: CancellationToken,
}

/// Applies and deletes declared objects. Clones share the order of writes.
#[derive(Clone)]
pub struct Applier {
    pub(super) cluster: Cluster,
    pub(super) gate: WriteGate,
    observed: Observed,
}

/// Objects of one stage that are on their way at the same time: enough to hide the latency, few enough that one
/// application doesn't take the API server's whole share for us.
pub const PARALLEL: usize = 8;
/// A definition is served within a second or two of its creation, a namespace at once.
const JUST_MADE: Duration = Duration::from_secs(10);
const JUST_MADE_PAUSE: Duration = Duration::from_millis(250);
/// Unknown fields dropped from one object: the server names them one at a time.
const DROPPED_MAX: usize = 64;
/// An object that changes between reading its managers and folding them is read again.
const FOLD_TRIES: usize = 3;
/// An object that changes between reading what is left to others and sending it is read again.
const LEAVE_TRIES: usize = 5;

/// An object that the server would take as it is now.
struct Checked {
    object: Arc<Object>,
    kind: ApiKind,
    /// Without the fields that the server doesn't know.
    value: Arc<Value>,
    dropped: Vec<Dropped>,
}

/// What the server says of a stage.
#[derive(Default)]
struct Answers {
    checked: Vec<Checked>,
    /// Not ours, and to be left alone.
    left: Vec<ObjectId>,
    refusals: Vec<Refusal>,
    stopped: bool,
}

pub(super) enum Failure {
    Api(ApiError),
    Stopped,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<Abandoned> for Failure {
    fn from(_: Abandoned) -> Self {
        Self::Stopped
    }
}

/// What the same work makes: its absence is a matter of moments.
pub(super) struct Made {
    pub kinds: HashSet<GroupKind>,
    pub namespaces: HashSet<String>,
}

impl Applier {
    pub fn new(cluster: Cluster, gate: WriteGate, observed: Observed) -> Self {
        Self { cluster, gate, observed }
    }

    /// The same, acting as someone else.
    pub fn acting_on(&self, cluster: Cluster) -> Self {
        Self { cluster, ..self.clone() }
    }

    /// Applies all stages in order. `progress` is told after each object.
    pub async fn apply(
        &self,
        work: &Work,
        stop: &Stop,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Applied, ApplyError> {
        let made = Made::of(work);
        let (mut applied, mut left) = (Vec::new(), Vec::new());
        for (stages, stage) in work.stages.iter().enumerate() {
            if stop.after_stage.is_cancelled() || stop.now.is_cancelled() {
                return Err(ApplyError::Stopped { applied });
            }
            let Answers { checked, left: alone, refusals, stopped } = self.check(stage, work, &made, stop).await;
            left.extend(alone);
            if !refusals.is_empty() {
                return Err(ApplyError::Refused { refusals, applied });
            }
            if stopped {
                return Err(ApplyError::Stopped { applied });
            }
            let before = applied.len();
            let mut sent = futures::stream::iter(checked)
                .map(|checked| async {
                    let (id, origin) = (checked.object.id.clone(), checked.object.origin.clone());
                    (id, origin, self.send(checked, work, &made, stop).await)
                })
                .buffer_unordered(PARALLEL);
            let mut refusals = Vec::new();
            let mut stopped = false;
            while let Some((id, origin, result)) = sent.next().await {
                match result {
                    Ok(outcome) => {
                        applied.push(outcome);
                        progress(Progress { stages, objects: applied.len() });
                    }
                    Err(Failure::Api(error)) => refusals.push(Refusal { id, origin, error }),
                    Err(Failure::Stopped) => stopped = true,
                }
            }
            drop(sent);
            applied[before..].sort_by(|a, b| a.id.cmp(&b.id));
            if !refusals.is_empty() {
                refusals.sort_by(|a, b| a.id.cmp(&b.id));
                return Err(ApplyError::Refused { refusals, applied });
            }
            if stopped {
                return Err(ApplyError::Stopped { applied });
            }
            progress(Progress { stages: stages + 1, objects: applied.len() });
        }
        Ok(Applied { objects: applied, left })
    }

    /// What the server would make of an object: nothing is changed.
    pub async fn dry_run(&self, object: &Object, unknown_fields: UnknownFields) -> Result<Answer, ApiError> {
        let kind = self.kind_of(object).await?;
        let mut value = Arc::new(object.value.clone());
        submit(&self.cluster, &kind, &object.id, &mut value, &mut Vec::new(), unknown_fields, true).await
    }

    /// Asks the server about all objects of a stage; a single one that was seen before is its own question.
    async fn check(&self, stage: &[Arc<Object>], work: &Work, made: &Made, stop: &Stop) -> Answers {
        let alone = stage.len() == 1;
        let mut answers = futures::stream::iter(stage.iter().cloned())
            .map(|object| async move {
                let checked = self.check_one(&object, work, made, stop, !alone).await;
                (object, checked)
            })
            .buffer_unordered(PARALLEL);
        let mut of_all = Answers::default();
        while let Some((object, answer)) = answers.next().await {
            match answer {
                Ok(Some(object)) => of_all.checked.push(object),
                Ok(None) => of_all.left.push(object.id.clone()),
                Err(Failure::Api(error)) => {
                    of_all.refusals.push(Refusal { id: object.id.clone(), origin: object.origin.clone(), error });
                }
                Err(Failure::Stopped) => of_all.stopped = true,
            }
        }
        of_all.refusals.sort_by(|a, b| a.id.cmp(&b.id));
        of_all
    }

    /// `None`: nobody has seen it, for it isn't ours, and it asks to be left alone.
    async fn check_one(
        &self,
        object: &Arc<Object>,
        work: &Work,
        made: &Made,
        stop: &Stop,
        dry_run: bool,
    ) -> Result<Option<Checked>, Failure> {
        if stop.now.is_cancelled() {
            return Err(Failure::Stopped);
        }
        let mut value = Arc::new(object.value.clone());
        let mut dropped = Vec::new();
        let deadline = Instant::now() + JUST_MADE;
        let unseen = self.observed.get(&object.id).is_none();
        loop {
            let asked = async {
                let kind = self.kind_of(object).await?;
                // in a dry run's answer it would hide what the live object says
                if unseen && Marks::are_in(&object.value) {
                    let live = self.cluster.get_seen(&kind, &object.id).await?;
                    if live.is_some_and(|live| live.marks.leaves_alone()) {
                        return Ok(None);
                    }
                }
                if dry_run || unseen {
                    let (cluster, unknown_fields) = (&self.cluster, work.unknown_fields);
                    // what is sent takes them anew
                    left::take(cluster, &kind, &object.id, &mut value, work.ignored_of(&object.id)).await?;
                    let answer =
                        submit(cluster, &kind, &object.id, &mut value, &mut dropped, unknown_fields, true).await;
                    match answer {
                        Err(error) if error.is_only_immutable() => {
                            let forced = work.forced.contains(&object.id);
                            let (revision, kind, value) = (&*work.revision, &kind, &*value);
                            Replacement { cluster, kind, object, value, unknown_fields, forced, revision }
                                .rehearse(error)
                                .await?;
                        }
                        Ok(answer) if unseen && !answer.created && answer.seen.marks.leaves_alone() => return Ok(None),
                        other => drop(other?),
                    }
                }
                Ok::<_, ApiError>(Some(kind))
            };
            match asked.await {
                Ok(Some(kind)) => {
                    if !work.ignored_of(&object.id).is_empty() {
                        value = Arc::new(object.value.clone());
                        for dropped in &dropped {
                            unknown::remove(Arc::make_mut(&mut value), &dropped.path);
                        }
                    }
                    return Ok(Some(Checked { object: object.clone(), kind, value, dropped }));
                }
                Ok(None) => return Ok(None),
                Err(error) => made.wait(&object.id, error, deadline, stop).await?,
            }
        }
    }

    async fn kind_of(&self, object: &Object) -> Result<ApiKind, ApiError> {
        self.cluster.resolve(&object.id.group, &object.id.kind, Some(&object.version)).await
    }

    /// Sends one object, when it is its turn.
    async fn send(&self, checked: Checked, work: &Work, made: &Made, stop: &Stop) -> Result<Outcome, Failure> {
        let id = checked.object.id.clone();
        let Checked { object, kind, value, dropped } = checked;
        let deadline = Instant::now() + JUST_MADE;
        loop {
            if stop.now.is_cancelled() {
                return Err(Failure::Stopped);
            }
            let write = Write {
                cluster: self.cluster.clone(),
                observed: self.observed.clone(),
                object: object.clone(),
                kind: kind.clone(),
                value: value.clone(),
                dropped: dropped.clone(),
                unknown_fields: work.unknown_fields,
                forced: work.forced.contains(&id),
                ignored: work.ignored.get(&id).cloned(),
                revision: work.revision.clone(),
                stop: stop.now.clone(),
            };
            match self.gate.write(&id, &stop.now, write.run()).await? {
                Err(Failure::Api(error)) => made.wait(&id, error, deadline, stop).await?,
                done => return done,
            }
        }
    }
}

impl Made {
    fn of(work: &Work) -> Self {
        let mut made = Self::of_objects(work.stages.iter().flatten());
        made.kinds.extend(work.defines.iter().cloned());
        made.namespaces.extend(work.namespaces.iter().cloned());
        made
    }

    pub fn of_objects<'a>(objects: impl IntoIterator<Item = &'a Arc<Object>>) -> Self {
        let mut made = Self { kinds: HashSet::new(), namespaces: HashSet::new() };
        for object in objects {
            match (object.id.group.as_str(), object.id.kind.as_str()) {
                ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                    let text = |pointer: &str| object.value.pointer(pointer).and_then(Value::as_str);
                    if let (Some(group), Some(kind)) = (text("/spec/group"), text("/spec/names/kind")) {
                        made.kinds.insert(GroupKind { group: group.to_owned(), kind: kind.to_owned() });
                    }
                }
                ("", "Namespace") => {
                    made.namespaces.insert(object.id.name.clone());
                }
                _ => {}
            }
        }
        made
    }

    /// Waits a moment if the error will pass because the same work makes what is missing; else gives it back.
    async fn wait(&self, id: &ObjectId, error: ApiError, deadline: Instant, stop: &Stop) -> Result<(), Failure> {
        let passes = match error.class {
            ErrorClass::NoSuchKind => self.kinds.contains(&id.group_kind()),
            ErrorClass::NamespaceMissing => self.namespaces.contains(&id.namespace),
            _ => false,
        };
        if !passes || Instant::now() + JUST_MADE_PAUSE > deadline {
            return Err(error.into());
        }
        tokio::select! {
            () = tokio::time::sleep(JUST_MADE_PAUSE) => Ok(()),
            () = stop.now.cancelled() => Err(Failure::Stopped),
        }
    }
}

/// One write, with all that it needs to go on when nobody waits for it any more.
struct Write {
    cluster: Cluster,
    observed: Observed,
    object: Arc<Object>,
    kind: ApiKind,
    value: Arc<Value>,
    dropped: Vec<Dropped>,
    unknown_fields: UnknownFields,
    forced: bool,
    /// Places that are left to others.
    ignored: Option<Arc<[Pointer]>>,
    revision: String,
    stop: CancellationToken,
}

impl Write {
    async fn run(mut self) -> Result<Outcome, Failure> {
        let before = self.observed.get(&self.object.id).map(|seen| (seen.uid.clone(), seen.resource_version.clone()));
        let mut recreated = false;
        let mut answer = match self.submit().await {
            Err(error) if error.is_only_immutable() => {
                let replacement = self.replacement();
                if let Some(live) = replacement.rehearse(error).await? {
                    replacement.delete(&live, &self.stop).await?;
                }
                recreated = true;
                self.submit().await?
            }
            other => other?,
        };
        if answer.seen.foldable
            && Marks::of(&self.object.value).ssa != Ssa::Merge
            && answer.seen.marks.ssa != Ssa::Merge
        {
            answer = self.fold(answer).await?;
        }
        self.observed.note(&answer);
        let unchanged =
            before.is_some_and(|(uid, version)| uid == answer.seen.uid && version == answer.seen.resource_version);
        let action = match () {
            () if recreated => Action::Recreated,
            () if answer.created => Action::Created,
            () if unchanged => Action::Unchanged,
            () => Action::Configured,
        };
        Ok(Outcome {
            id: self.object.id.clone(),
            origin: self.object.origin.clone(),
            action,
            seen: answer.seen,
            dropped: unique(self.dropped),
            warnings: answer.warnings,
        })
    }

    fn replacement(&self) -> Replacement<'_> {
        Replacement {
            cluster: &self.cluster,
            kind: &self.kind,
            object: &self.object,
            value: &self.value,
            unknown_fields: self.unknown_fields,
            forced: self.forced,
            revision: &self.revision,
        }
    }

    async fn submit(&mut self) -> Result<Answer, ApiError> {
        let Self { cluster, kind, object, value, dropped, unknown_fields, ignored, .. } = self;
        let Some(places) = ignored else {
            return submit(cluster, kind, &object.id, value, dropped, *unknown_fields, false).await;
        };
        let mut tries = 0;
        loop {
            let mut sent = value.clone();
            // nobody's change between the look and the write is undone
            if let Some(version) = left::take(cluster, kind, &object.id, &mut sent, places).await? {
                Pointer::of_fields(["metadata", "resourceVersion"]).put(Arc::make_mut(&mut sent), version.into());
            }
            tries += 1;
            match submit(cluster, kind, &object.id, &mut sent, dropped, *unknown_fields, false).await {
                Err(error) if error.class == ErrorClass::Conflict && tries < LEAVE_TRIES => {}
                answer => return answer,
            }
        }
    }

    /// Takes over the fields of the managers that are folded into ours, and applies again: what Git does not declare
    /// of them goes.
    async fn fold(&mut self, first: Answer) -> Result<Answer, Failure> {
        let id = self.object.id.clone();
        for _ in 0..FOLD_TRIES {
            let Some(metadata) = self.cluster.get_metadata(&self.kind, &id).await? else { break };
            let Some(patch) = adoption::fold(&metadata) else { break };
            match self.cluster.json_patch(&self.kind, &id, &patch, APPLY_MANAGER).await {
                Ok(_) => {
                    let mut answer = self.submit().await?;
                    answer.created = first.created;
                    return Ok(answer);
                }
                Err(error) if error.class == ErrorClass::Conflict => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(first)
    }
}

/// Applies an object, without the fields that the server doesn't know if they may be dropped. `value` and `dropped`
/// remember what was left out.
pub(super) async fn submit(
    cluster: &Cluster,
    kind: &ApiKind,
    id: &ObjectId,
    value: &mut Arc<Value>,
    dropped: &mut Vec<Dropped>,
    unknown_fields: UnknownFields,
    dry_run: bool,
) -> Result<Answer, ApiError> {
    let options = ApplyOptions { manager: APPLY_MANAGER, force: true, dry_run, validation: FieldValidation::Strict };
    loop {
        match cluster.apply(kind, id, value, options).await {
            Ok(answer) => return Ok(answer),
            Err(error) => drop_unknown(error, id, value, dropped, unknown_fields)?,
        }
    }
}

/// Takes the fields that the server has just refused out of the object; gives the error back if it is another one or if
/// they may not be dropped.
pub(super) fn drop_unknown(
    error: ApiError,
    id: &ObjectId,
    value: &mut Arc<Value>,
    dropped: &mut Vec<Dropped>,
    unknown_fields: UnknownFields,
) -> Result<(), ApiError> {
    let ErrorClass::UnknownField { paths } = &error.class else { return Err(error) };
    if unknown_fields == UnknownFields::Refuse || !unknown::is_built_in(&id.group) {
        return Err(error);
    }
    let before = dropped.len();
    for path in paths {
        if dropped.len() < DROPPED_MAX && unknown::remove(Arc::make_mut(value), path) {
            dropped.push(Dropped { path: path.clone() });
        }
    }
    if dropped.len() == before { Err(error) } else { Ok(()) }
}

/// Each field once: an object that is sent again is told the same again.
fn unique(mut dropped: Vec<Dropped>) -> Vec<Dropped> {
    let mut known = HashSet::new();
    dropped.retain(|field| known.insert(field.path.clone()));
    dropped
}
