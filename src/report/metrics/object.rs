//! What is measured of each object that is served.
//!
//! One record for each, held by its worker: when the worker lets go of it, all series of the object end with it, counters
//! included. A scrape walks over the records; ages are computed then, from when something began.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

use crate::api::{Condition, Key, Truth};

use super::catalogue as c;
use super::exposition::{Exposition, Histogram, label};

pub const APPLICATION: &str = "Kustomization";
pub const SOURCE: &str = "GitRepository";

/// Durations of attempts in seconds, from what changes nothing to the default health timeout and beyond. Eight, since
/// each costs one series for each object.
const DURATION_BOUNDS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0];
/// Times to recovery in seconds, from a fix that follows at once to a day.
const RECOVERY_BOUNDS: &[f64] = &[5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0];

type Id = (&'static str, Key);

/// All records; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Objects(Arc<Mutex<BTreeMap<Id, Arc<Record>>>>);

struct Record {
    id: Id,
    /// `kind`, `namespace` and `name`, and without `kind`, as they stand between the braces.
    object: String,
    named: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None`: nothing is known yet; `Some(None)`: unknown.
    ready: Option<Option<bool>>,
    suspended: bool,
    consecutive_failures: u64,
    failing_since: Option<Instant>,
    failures: BTreeMap<&'static str, u64>,
    notifications: BTreeMap<&'static str, u64>,
    recovery: Option<Histogram>,
    durations: Option<Histogram>,
    application: Option<Application>,
    source: Option<Source>,
}

#[derive(Default)]
struct Application {
    source: Option<Key>,
    applied: Option<String>,
    /// Since when a revision that is not applied has been visible.
    behind_since: Option<Instant>,
    attempt_since: Option<Instant>,
    dependency_since: Option<Instant>,
    attempts: BTreeMap<&'static str, u64>,
    objects: BTreeMap<&'static str, u64>,
    drift: u64,
    /// Left, fought over, scaled.
    drift_objects: [usize; 3],
    /// `None`: nothing is followed.
    rollouts: Option<Rollouts>,
}

/// The rollouts because of what workloads read.
#[derive(Default)]
struct Rollouts {
    total: u64,
    held_up: HeldUp,
}

/// How much of what workloads read holds rollouts up, by the reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeldUp {
    pub missing: usize,
    pub unreadable: usize,
    /// Immutable, and made anew under its name.
    pub recreated: usize,
    /// Workloads, not references.
    pub loops: usize,
}

#[derive(Default)]
struct Source {
    /// The newest revision and when it was seen.
    head: Option<(String, Instant)>,
    probes: BTreeMap<&'static str, u64>,
    fetches: BTreeMap<&'static str, u64>,
    errors: BTreeMap<&'static str, u64>,
    bytes: u64,
}

/// The record of one object; its series end when this is dropped.
pub struct ObjectMetrics {
    objects: Objects,
    record: Arc<Record>,
}

/// The record of one application.
pub struct ApplicationMetrics {
    object: ObjectMetrics,
    live: prometheus::Histogram,
}

/// The record of one source.
pub struct SourceMetrics(ObjectMetrics);

impl Deref for ApplicationMetrics {
    type Target = ObjectMetrics;

    fn deref(&self) -> &ObjectMetrics {
        &self.object
    }
}

impl Deref for SourceMetrics {
    type Target = ObjectMetrics;

    fn deref(&self) -> &ObjectMetrics {
        &self.0
    }
}

impl Drop for ObjectMetrics {
    fn drop(&mut self) {
        let mut records = self.objects.lock();
        // an object of the same name may have come meanwhile, and a source may be followed by another engine, too
        let followed_elsewhere = self.record.id.0 == SOURCE && Arc::strong_count(&self.record) > 2;
        if !followed_elsewhere && records.get(&self.record.id).is_some_and(|there| Arc::ptr_eq(there, &self.record)) {
            records.remove(&self.record.id);
        }
    }
}

impl ObjectMetrics {
    /// `None`: unknown.
    pub fn ready(&self, ready: Option<bool>) {
        self.record.state().ready = Some(ready);
    }

    pub fn suspended(&self, suspended: bool) {
        self.record.state().suspended = suspended;
    }

    /// The Ready condition that it was found with: a restart of the daemon neither ends a failure nor begins one.
    pub fn recall(&self, ready: &Condition, failing: bool) {
        let mut state = self.record.state();
        state.ready = match ready.status {
            Truth::True => Some(Some(true)),
            Truth::False => Some(Some(false)),
            Truth::Unknown => Some(None),
        };
        if failing && ready.status == Truth::False {
            let since = ready.last_transition_time.parse().unwrap_or_else(|_| Timestamp::now());
            let age = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
            state.consecutive_failures = 1;
            state.failing_since = Instant::now().checked_sub(age);
        }
    }

    pub fn failed(&self, reason: &'static str) {
        let mut state = self.record.state();
        state.consecutive_failures += 1;
        state.failing_since.get_or_insert_with(Instant::now);
        *state.failures.entry(reason).or_default() += 1;
    }

    pub fn succeeded(&self) {
        let mut state = self.record.state();
        state.consecutive_failures = 0;
        if let Some(since) = state.failing_since.take() {
            let recovery = state.recovery.get_or_insert_with(|| Histogram::new(RECOVERY_BOUNDS));
            recovery.observe(since.elapsed().as_secs_f64());
        }
    }

    /// One attempt of a provider to deliver a notification.
    pub fn notification(&self, result: &'static str) {
        *self.record.state().notifications.entry(result).or_default() += 1;
    }

    /// One attempt, or one observation of a source.
    pub fn took(&self, duration: Duration) {
        let mut state = self.record.state();
        let durations = state.durations.get_or_insert_with(|| Histogram::new(DURATION_BOUNDS));
        durations.observe(duration.as_secs_f64());
    }
}

impl ApplicationMetrics {
    /// The source that it follows.
    pub fn follows(&self, source: &Key) {
        let records = self.object.objects.lock();
        let head = head_of(&records, source);
        self.application(|app| {
            if app.source.as_ref() != Some(source) {
                app.source = Some(source.clone());
                app.behind_since = head.filter(|(head, _)| app.applied.as_ref() != Some(head)).map(|(_, seen)| seen);
            }
        });
    }

    /// What the status recorded as applied when the daemon started.
    pub fn was_applied(&self, revision: &str) {
        self.application(|app| app.applied = Some(revision.into()));
    }

    pub fn applied(&self, revision: &str) {
        // nothing newer can come up between looking and noting: heads are noted under the same lock
        let records = self.object.objects.lock();
        let behind_since = self.application(|app| {
            let head = app.source.as_ref().and_then(|source| head_of(&records, source));
            app.applied = Some(revision.into());
            let newer = head.filter(|(head, _)| head != revision).map(|(_, seen)| seen);
            std::mem::replace(&mut app.behind_since, newer)
        });
        drop(records);
        if let Some(since) = behind_since {
            self.live.observe(since.elapsed().as_secs_f64());
        }
        self.succeeded();
    }

    /// An attempt, until what is returned is dropped.
    pub fn attempt(&self) -> Span {
        Span::begin(&self.object.record, |app| &mut app.attempt_since, true)
    }

    /// Waiting for `dependsOn`, until what is returned is dropped.
    pub fn dependency_wait(&self) -> Span {
        Span::begin(&self.object.record, |app| &mut app.dependency_since, false)
    }

    pub fn attempt_ended(&self, result: &'static str) {
        self.application(|app| *app.attempts.entry(result).or_default() += 1);
    }

    pub fn objects(&self, action: &'static str, count: usize) {
        self.application(|app| *app.objects.entry(action).or_default() += count as u64);
    }

    pub fn drift_corrected(&self, count: usize) {
        self.application(|app| app.drift += count as u64);
    }

    /// Objects that are left as others changed them, that are fought over, and that others scale.
    pub fn drift_standing(&self, left: usize, fought: usize, scaled: usize) {
        self.application(|app| app.drift_objects = [left, fought, scaled]);
    }

    pub fn rolled(&self, workloads: usize) {
        self.application(|app| app.rollouts.get_or_insert_default().total += workloads as u64);
    }

    /// What is wrong with what workloads read. Who has followed nothing yet, and does not now, has no such figures.
    pub fn configuration(&self, follows: bool, held_up: HeldUp) {
        self.application(|app| {
            if !follows && app.rollouts.is_none() {
                return;
            }
            app.rollouts.get_or_insert_default().held_up = held_up;
        });
    }

    fn application<T>(&self, change: impl FnOnce(&mut Application) -> T) -> T {
        change(self.object.record.state().application.get_or_insert_default())
    }
}

impl SourceMetrics {
    /// The newest revision that is visible. The clocks of all that follow it and have another one begin.
    pub fn head(&self, revision: &str) {
        let records = self.0.objects.lock();
        let now = Instant::now();
        let changed = self.source(|source| {
            let changed = source.head.as_ref().is_none_or(|(head, _)| head != revision);
            if changed {
                source.head = Some((revision.into(), now));
            }
            changed
        });
        if !changed {
            return;
        }
        let (_, key) = &self.0.record.id;
        for record in records.values() {
            if let Some(app) = &mut record.state().application
                && app.source.as_ref() == Some(key)
            {
                let behind = app.applied.as_deref() != Some(revision);
                app.behind_since = behind.then(|| app.behind_since.unwrap_or(now));
            }
        }
    }

    pub fn probed(&self, result: &'static str) {
        self.source(|source| *source.probes.entry(result).or_default() += 1);
    }

    pub fn fetched(&self, result: &'static str) {
        self.source(|source| *source.fetches.entry(result).or_default() += 1);
    }

    pub fn received(&self, bytes: u64) {
        self.source(|source| source.bytes += bytes);
    }

    pub fn error(&self, class: &'static str) {
        self.source(|source| *source.errors.entry(class).or_default() += 1);
    }

    fn source<T>(&self, change: impl FnOnce(&mut Source) -> T) -> T {
        change(self.0.record.state().source.get_or_insert_default())
    }
}

/// Something that goes on. Dropped, it is over, whoever dropped it.
pub struct Span {
    record: Arc<Record>,
    field: fn(&mut Application) -> &mut Option<Instant>,
    began: Instant,
    /// Its duration is that of a reconciliation.
    whole: bool,
}

impl Span {
    fn begin(record: &Arc<Record>, field: fn(&mut Application) -> &mut Option<Instant>, whole: bool) -> Self {
        let began = Instant::now();
        *field(record.state().application.get_or_insert_default()) = Some(began);
        Self { record: record.clone(), field, began, whole }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let mut state = self.record.state();
        if let Some(app) = &mut state.application {
            *(self.field)(app) = None;
        }
        if self.whole {
            let durations = state.durations.get_or_insert_with(|| Histogram::new(DURATION_BOUNDS));
            durations.observe(self.began.elapsed().as_secs_f64());
        }
    }
}

fn head_of(records: &BTreeMap<Id, Arc<Record>>, source: &Key) -> Option<(String, Instant)> {
    records.get(&(SOURCE, source.clone()))?.state().source.as_ref()?.head.clone()
}

impl Record {
    fn new(id: Id, state: State) -> Self {
        let named = format!("{},{}", label("namespace", &id.1.namespace), label("name", &id.1.name));
        Self { object: format!("{},{named}", label("kind", id.0)), named, id, state: Mutex::new(state) }
    }

    /// Locked after the map of records, never before it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects {
    pub fn object(&self, kind: &'static str, key: &Key) -> ObjectMetrics {
        self.insert(kind, key, State::default())
    }

    pub fn application(&self, key: &Key, live: prometheus::Histogram) -> ApplicationMetrics {
        let state = State { application: Some(Application::default()), ..State::default() };
        ApplicationMetrics { object: self.insert(APPLICATION, key, state), live }
    }

    pub fn source(&self, key: &Key) -> SourceMetrics {
        let record = self.lock().get(&(SOURCE, key.clone())).cloned();
        match record {
            // several engines of one process may follow it
            Some(record) => SourceMetrics(ObjectMetrics { objects: self.clone(), record }),
            None => {
                SourceMetrics(self.insert(SOURCE, key, State { source: Some(Source::default()), ..State::default() }))
            }
        }
    }

    fn insert(&self, kind: &'static str, key: &Key, state: State) -> ObjectMetrics {
        let record = Arc::new(Record::new((kind, key.clone()), state));
        self.lock().insert(record.id.clone(), record.clone());
        ObjectMetrics { objects: self.clone(), record }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Id, Arc<Record>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self, out: &mut Exposition, now: Instant) {
        let records: Vec<Arc<Record>> = self.lock().values().cloned().collect();
        let mut each = |definition: &c::Definition, write: &dyn Fn(&mut Exposition, &Record, &State)| {
            out.begin(definition);
            for record in &records {
                write(out, record, &record.state());
            }
        };
        each(&c::READY, &|out, record, state| {
            if let Some(ready) = state.ready {
                out.sample(&c::READY, &record.object, None, ready.map_or(-1, i64::from));
            }
        });
        for definition in [&c::SUSPENDED, &c::FLUX_SUSPEND] {
            each(definition, &|out, record, state| {
                out.sample(definition, &record.object, None, u8::from(state.suspended));
            });
        }
        each(&c::CONSECUTIVE_FAILURES, &|out, record, state| {
            out.sample(&c::CONSECUTIVE_FAILURES, &record.object, None, state.consecutive_failures);
        });
        each(&c::FAILURES, &|out, record, state| {
            by_value(out, &c::FAILURES, &record.object, "reason", &state.failures);
        });
        for (definition, field) in HISTOGRAMS {
            each(definition, &|out, record, state| {
                if let Some(histogram) = field(state) {
                    out.histogram(definition, &record.object, histogram);
                }
            });
        }
        each(&c::FLUX_CONDITION, &|out, record, state| {
            let Some(ready) = state.ready else { return };
            let labels = format!("{},type=\"Ready\"", record.object);
            for (status, truth) in [("True", Some(true)), ("False", Some(false)), ("Unknown", None)] {
                out.sample(&c::FLUX_CONDITION, &labels, Some(("status", status)), u8::from(ready == truth));
            }
        });
        for (definition, began) in AGES {
            each(definition, &|out, record, state| {
                if let Some(app) = &state.application {
                    let age = began(state, app).map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
                    out.sample(definition, &record.named, None, age);
                }
            });
        }
        for (definition, name, counts) in BY_VALUE {
            each(definition, &|out, record, state| {
                if let Some(counts) = counts(state) {
                    by_value(out, definition, &record.named, name, counts);
                }
            });
        }
        // from 0 on, so that the first one is an increase
        each(&c::DRIFT, &|out, record, state| {
            if let Some(app) = &state.application {
                out.sample(&c::DRIFT, &record.named, None, app.drift);
            }
        });
        each(&c::DRIFT_OBJECTS, &|out, record, state| {
            if let Some(app) = &state.application {
                for (value, count) in ["left", "fought", "scaled"].into_iter().zip(app.drift_objects) {
                    out.sample(&c::DRIFT_OBJECTS, &record.named, Some(("state", value)), count);
                }
            }
        });
        for (definition, count) in ROLLOUTS {
            each(definition, &|out, record, state| {
                if let Some(rollouts) = state.application.as_ref().and_then(|app| app.rollouts.as_ref()) {
                    out.sample(definition, &record.named, None, count(rollouts));
                }
            });
        }
        each(&c::ROLLOUT_REFERENCES, &|out, record, state| {
            if let Some(rollouts) = state.application.as_ref().and_then(|app| app.rollouts.as_ref()) {
                let HeldUp { missing, unreadable, recreated, .. } = rollouts.held_up;
                for (value, count) in [("missing", missing), ("unreadable", unreadable), ("recreated", recreated)] {
                    out.sample(&c::ROLLOUT_REFERENCES, &record.named, Some(("state", value)), count);
                }
            }
        });
        each(&c::SOURCE_BYTES, &|out, record, state| {
            if let Some(source) = &state.source {
                out.sample(&c::SOURCE_BYTES, &record.named, None, source.bytes);
            }
        });
    }
}

type CountOf = fn(&Rollouts) -> u64;
const ROLLOUTS: [(&c::Definition, CountOf); 2] =
    [(&c::ROLLOUTS, |rollouts| rollouts.total), (&c::ROLLOUT_LOOPS, |rollouts| rollouts.held_up.loops as u64)];

type HistogramOf = fn(&State) -> Option<&Histogram>;
const HISTOGRAMS: [(&c::Definition, HistogramOf); 2] =
    [(&c::RECOVERY, |s| s.recovery.as_ref()), (&c::FLUX_DURATION, |s| s.durations.as_ref())];

type BeganAt = fn(&State, &Application) -> Option<Instant>;
const AGES: [(&c::Definition, BeganAt); 3] = [
    (&c::COMMIT_LAG, |state, app| app.behind_since.filter(|_| !state.suspended)),
    (&c::ATTEMPT, |_, app| app.attempt_since),
    (&c::DEPENDENCY_WAIT, |_, app| app.dependency_since),
];

type CountsOf = fn(&State) -> Option<&BTreeMap<&'static str, u64>>;
const BY_VALUE: [(&c::Definition, &str, CountsOf); 6] = [
    (&c::NOTIFICATIONS, "result", |s| Some(&s.notifications)),
    (&c::ATTEMPTS, "result", |s| Some(&s.application.as_ref()?.attempts)),
    (&c::OBJECTS, "action", |s| Some(&s.application.as_ref()?.objects)),
    (&c::PROBES, "result", |s| Some(&s.source.as_ref()?.probes)),
    (&c::FETCHES, "result", |s| Some(&s.source.as_ref()?.fetches)),
    (&c::SOURCE_ERRORS, "class", |s| Some(&s.source.as_ref()?.errors)),
];

fn by_value(
    out: &mut Exposition,
    definition: &c::Definition,
    labels: &str,
    name: &str,
    counts: &BTreeMap<&'static str, u64>,
) {
    for (value, count) in counts {
        out.sample(definition, labels, Some((name, value)), count);
    }
}
