//! One worker for each Kustomization: it waits on cells that always hold the newest, and never on a queue.
//!
//! ```text
//!            ┌──────────── idle ◀──────────────┐
//!            │ object · head · values · drift  │ applied, failed
//!            ▼                                 │
//!         attempt ── render ── dependencies ── apply ── health ── prune
//!            ▲                                 │
//!            └── preempted: something newer ───┘
//! ```
//!
//! While an attempt runs, a newer revision is rendered beside it: if the rendered objects are the same the attempt goes on
//! under the new revision with its clock untouched, else it is preempted whatever it waits for.

mod apply;
mod attempt;
mod checks;
mod commits;
mod configuration;
mod deletion;
mod dependencies;
mod drift;
mod flux;
mod following;
mod health;
mod heat;
mod identity;
mod idle;
mod jobs;
mod keys;
mod live_configuration;
mod policy;
mod prune;
mod render;
mod report;
mod trouble;
mod values;
mod worker;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::api::{Key, Kustomization};
use crate::engine::bases::Bases;
use crate::health::Patience;
use crate::manifest::{GroupKind, ObjectId, Origin};
use crate::plan::{Desired, Inventory};
use crate::render::{Outline, ReadSet, Rendered};
use crate::report::{ApplicationMetrics, AttemptTrace};

use super::permits::{Permit, Urgency};
use super::shared::Shared;
use super::source::{Head, SourceHandle};

pub(super) use keys::keys;
pub(super) use render::Scopes;
pub(super) use values::{substitutions, unread};
pub use worker::refusal;
pub(super) use worker::{declare, declare_of_others, recorded_ready, run};

pub(super) const KIND: &str = "Kustomization";

/// One application: what its worker and its attempts share.
struct Application {
    key: Key,
    shared: Arc<Shared>,
    metrics: ApplicationMetrics,
    memory: Mutex<Memory>,
    report: Arc<tokio::sync::Mutex<report::Report>>,
    /// Since when each workload is in trouble; kept across attempts.
    patience: Mutex<Patience>,
    /// The configuration that its workloads read.
    following: Mutex<following::Following>,
    /// What others change, and what is done about it.
    drifting: Mutex<drift::Drifting>,
    /// Whose health counts, as the last attempt had it.
    checks: Mutex<Arc<checks::Checks>>,
}

/// What is known from earlier attempts. Lost at a restart, and then found out again without writing.
#[derive(Default)]
struct Memory {
    /// The last good render and what it was made of.
    prepared: Option<Arc<Prepared>>,
    inventory: Inventory,
    /// The revision that the status recorded as applied when the daemon started, until the first attempt.
    recorded: Option<String>,
    /// What its kustomizations name in other repositories.
    bases: Bases,
    /// How the last attempt ended, as far as what is seen in the cluster may change it.
    mode: Mode,
    /// The render that was applied last as a whole.
    applied: Option<[u8; 32]>,
    /// The last render that failed for good, and what it had read.
    failed: Option<Arc<(render::Inputs, ReadSet, Failure)>>,
    /// What policies said of the last render.
    judged: Option<policy::Judged>,
    /// The finding of a revision that is in a trace already.
    traced: Option<std::time::Instant>,
    /// What was told of which commit.
    commits: commits::Commits,
    /// What was found to be there without being ours, and is left alone: it is to be created only where there is none, or
    /// it says so itself.
    present: HashSet<ObjectId>,
    /// Jobs seen complete with the digest that they were sent with; recorded on the Kustomization.
    jobs: jobs::Completed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Unsettled,
    Applied,
    /// Applied, but not healthy: it may heal by itself.
    Unhealthy,
    /// Not attempted to the end, since a kind that is declared can't be watched: that may be allowed by and by.
    Blind,
}

/// A render, ready to be applied.
struct Prepared {
    rendered: Outline,
    /// What besides the tree went into it.
    inputs: render::Inputs,
    /// In the order of `rendered.ids`.
    desired: Vec<Desired>,
    /// Kinds and namespaces that are declared here: their objects may come a moment before the server knows them.
    defines: HashSet<GroupKind>,
    namespaces: HashSet<String>,
    /// Values that came from Secrets by substitution or were decrypted.
    secrets: Arc<[String]>,
}

impl Prepared {
    fn new(rendered: Rendered, inputs: render::Inputs, desired: Vec<Desired>, secrets: Arc<[String]>) -> Self {
        let ids = || desired.iter().map(|d| &d.object);
        let defines = ids().filter(|o| o.id.kind == "CustomResourceDefinition").filter_map(|o| {
            let value = o.value();
            let text = |pointer| value.pointer(pointer)?.as_str().map(str::to_owned);
            Some(GroupKind { group: text("/spec/group")?, kind: text("/spec/names/kind")? })
        });
        let namespaces = ids().filter(|o| o.id.group.is_empty() && o.id.kind == "Namespace").map(|o| o.id.name.clone());
        let (defines, namespaces) = (defines.collect(), namespaces.collect());
        Self { defines, namespaces, rendered: rendered.into(), inputs, desired, secrets }
    }

    fn read_set(&self) -> &ReadSet {
        &self.rendered.read_set
    }

    /// The line of a field that the API server names; of the nearest parent if a template or a transformation made it.
    fn origin_of(&self, id: &ObjectId, field: &str) -> Option<Origin> {
        let index = self.desired.iter().position(|desired| desired.object.id == *id)?;
        let place = crate::apply::field_places(&self.desired[index].object.value(), field).into_iter().next()?;
        let at = self.rendered.error_at(index, &place, "");
        Some(Origin { path: at.path.into(), line: at.line })
    }
}

/// What one attempt works on. The revision may be exchanged under way for one that renders the same.
struct Work {
    object: Arc<Kustomization>,
    identity: identity::Identity,
    source: SourceHandle,
    head: Mutex<Arc<Head>>,
    /// What it renders; `None` until that is known.
    rendered: Mutex<Option<([u8; 32], render::Inputs)>>,
    urgency: Urgency,
    /// Of one whom the revision does not seem to concern, until its render was looked at.
    turn: Mutex<Option<Permit>>,
    /// Asked to give way: an apply under way may finish its stage.
    yield_soon: CancellationToken,
    /// Give way now: what is queued is dropped, what is under way lands on its own.
    stop: CancellationToken,
    /// The attempt is between the first and the last write of declared objects.
    applying: AtomicBool,
    /// It waits for what an instance elsewhere has, which goes by the revision that is recorded: another one is begun
    /// with anew.
    claiming: AtomicBool,
    trace: AttemptTrace,
    /// Preempted too often in a row: it completes its apply.
    unyielding: bool,
    /// A person asked for it.
    asked: bool,
}

/// What set an attempt off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The daemon started, or the object appeared.
    Start,
    /// The spec, a consent or a request of a person.
    Object,
    Revision,
    /// A referenced Secret or ConfigMap.
    Values,
    /// What workloads read, and what their namespaces ask for.
    Configuration,
    /// Other policies are in force.
    Policies,
    /// Someone else changed what is ours, or its health changed.
    Cluster,
    Retry,
}

impl Cause {
    fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Object => "object",
            Self::Revision => "revision",
            Self::Values => "values",
            Self::Configuration => "configuration",
            Self::Policies => "policies",
            Self::Cluster => "cluster",
            Self::Retry => "retry",
        }
    }
}

/// Why an attempt did not end well.
#[derive(Clone, Debug)]
struct Failure {
    /// The reason of the condition.
    reason: &'static str,
    message: String,
    retry: Retry,
    /// Only a person can change that: the condition `Stalled` says so.
    stalled: bool,
    /// The source's tree could not be read: it must be opened anew.
    unreadable: bool,
    /// What was attempted; `None` if it came to nothing before there was a revision.
    revision: Option<String>,
    /// The source whose failure this is.
    blames: Option<Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// After a pause, with a new observation of the source.
    Backoff,
    /// Only something new helps: a spec, a consent, a revision.
    OnChange,
}

/// Why an attempt stopped before its end.
#[derive(Debug)]
enum Stop {
    Failed(Failure),
    /// It was asked to give way and did so at the end of a stage.
    Yielded,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// How an attempt ended.
enum Ended {
    Applied,
    Failed(Failure),
    /// It gave way to something newer.
    Preempted,
}

impl Failure {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            retry: Retry::Backoff,
            stalled: false,
            unreadable: false,
            revision: None,
            blames: None,
        }
    }

    fn at(mut self, revision: String) -> Self {
        self.revision = Some(revision);
        self
    }

    fn blaming(mut self, source: Key) -> Self {
        self.blames = Some(source);
        self
    }

    fn until_changed(mut self) -> Self {
        self.retry = Retry::OnChange;
        self
    }

    fn stalled(mut self) -> Self {
        self.stalled = true;
        self.until_changed()
    }
}

/// Whoever ends it, and however: what is queued for it is void.
impl Drop for Work {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Work {
    fn head(&self) -> Arc<Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn adopt(&self, head: Arc<Head>) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
    }

    /// For people.
    fn revision(&self) -> String {
        self.head().revision.clone()
    }

    /// For comparisons: the same revision may have other content.
    fn identity(&self) -> String {
        self.head().identity.clone()
    }

    /// The digest of what it renders to.
    fn renders(&self) -> Option<[u8; 32]> {
        self.rendered.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(digest, _)| *digest)
    }

    /// A repair doesn't stand behind the statuses of all that roll out; with others the permits of applies decide.
    fn urgency_of_status(&self) -> Urgency {
        if self.urgency == Urgency::Repair { Urgency::Repair } else { Urgency::Routine }
    }

    fn is_applying(&self) -> bool {
        self.applying.load(Ordering::Acquire)
    }
}

impl Application {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
