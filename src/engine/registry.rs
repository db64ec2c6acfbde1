//! What applications know of each other: who declares which object, who was ready at which revision, who depends on whom.
//!
//! Written by each application's own worker about itself, read by all. Every change wakes whoever waits on an edge.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::api::{Key, Kustomization};
use crate::manifest::ObjectId;

use super::ready::ReadyExpression;
use super::source::CONTENT;

/// A source's revision as one application's render saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rendered {
    revision: String,
    ok: bool,
}

/// What the status of an application says that another instance serves.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    /// The revision that was attempted last.
    pub rendered: Option<String>,
    /// It could be rendered, and what it declares is recorded.
    pub rendered_ok: bool,
    /// The recorded inventory: what it declares, and what it has not deleted yet.
    pub owned: BTreeSet<ObjectId>,
    /// The revision that it was Ready at.
    pub ready_at: Option<String>,
    /// The last attempt came to nothing, or waits for others.
    pub failing: bool,
    pub message: Option<String>,
}

/// Whom an application waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Dependency {
    pub key: Key,
    /// Says when it is ready, in place of the rule.
    pub ready: Option<Arc<ReadyExpression>>,
}

#[derive(Clone, Debug, Default)]
struct Application {
    /// As it was seen last; what expressions are about.
    object: Option<Arc<Kustomization>>,
    source: Option<Key>,
    depends_on: Vec<Dependency>,
    suspended: bool,
    rendered: Option<Rendered>,
    /// What it declares at the newest revision that it could render.
    declares: BTreeSet<ObjectId>,
    /// What it owned when the daemon started, until the first render tells what of it is declared still.
    adopted: BTreeSet<ObjectId>,
    /// The newest revision that it was Ready at; losing health later does not take it back.
    ready_at: Option<String>,
    /// Why it is not ready, for those who wait for it.
    message: String,
    /// Another instance serves it: what is known is what its status says, revisions by their plain names.
    elsewhere: bool,
    failing: bool,
}

#[derive(Default)]
struct State {
    applications: BTreeMap<Key, Application>,
    /// Each is among what its owner declares or has adopted.
    claims: HashMap<ObjectId, Key>,
    /// Those whose dependencies have expressions.
    asking: BTreeSet<Key>,
}

/// The shared registry; cheap to clone.
#[derive(Clone)]
pub struct Registry {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

/// What stands between an application and its dependencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dependencies {
    Met,
    /// The first one that is not met, in words.
    Waiting(String),
    /// The members of a cycle, from the application back to it.
    Cycle(Vec<Key>),
}

/// Whether an object may be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    Granted,
    /// Others of the same source have not rendered this revision yet: they may let go of it.
    Pending,
    Refused(Vec<(ObjectId, Key)>),
}

/// Whether deletions may go ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handover {
    /// All others of the source have rendered the revision: who declares what is known.
    Settled,
    /// These have not; `elsewhere`: another instance serves one of them, and its status takes its time.
    Pending { waiting: Vec<Key>, elsewhere: bool },
    /// These could not render it: what they declare is not known.
    Unknown(Vec<Key>),
}

impl Default for Registry {
    fn default() -> Self {
        Self { state: Arc::default(), changed: watch::channel(0).0 }
    }
}

impl Registry {
    /// Wakes on every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// An application appeared or its spec changed.
    pub fn declare(&self, app: &Key, source: Key, depends_on: Vec<Dependency>, suspended: bool) {
        self.change(|state| {
            let entry = state.applications.entry(app.clone()).or_default();
            let new = (Some(source), depends_on, suspended);
            entry.elsewhere = false;
            let same = (&entry.source, &entry.depends_on, entry.suspended) == (&new.0, &new.1, new.2);
            if !same {
                if entry.source != new.0 {
                    (entry.rendered, entry.ready_at) = (None, None);
                }
                (entry.source, entry.depends_on, entry.suspended) = new;
                if entry.depends_on.iter().any(|dependency| dependency.ready.is_some()) {
                    state.asking.insert(app.clone());
                } else {
                    state.asking.remove(app);
                }
            }
            !same
        });
    }

    /// An application that another instance serves was seen.
    pub fn elsewhere(&self, app: &Key, known: Elsewhere) {
        self.change(|state| {
            let mut changed = state.let_go(app, &known.owned);
            for id in &known.owned {
                changed |= !state.claims.contains_key(id);
                state.claims.entry(id.clone()).or_insert_with(|| app.clone());
            }
            let entry = state.applications.entry(app.clone()).or_default();
            let rendered = known.rendered.map(|revision| Rendered { revision, ok: known.rendered_ok });
            let message = known.message.unwrap_or_default();
            // losing health later does not take back that it was ready
            let ready_at = known.ready_at.or_else(|| entry.ready_at.clone());
            changed |= (&entry.rendered, &entry.declares, &entry.ready_at) != (&rendered, &known.owned, &ready_at);
            changed |= (&entry.message, entry.failing, entry.elsewhere) != (&message, known.failing, true);
            (entry.rendered, entry.declares, entry.ready_at) = (rendered, known.owned, ready_at);
            (entry.message, entry.failing, entry.elsewhere) = (message, known.failing, true);
            changed
        });
    }

    /// An application was seen as it is now.
    pub fn seen(&self, app: &Key, object: Arc<Kustomization>) {
        self.change(|state| {
            let entry = state.applications.entry(app.clone()).or_default();
            entry.object = Some(object);
            state.asking.contains(app) || state.is_asked_about(app)
        });
    }

    /// As [`Registry::seen`], by its own worker: one of the same name may have gone, and with it what was seen.
    pub fn seen_first(&self, app: &Key, object: &Arc<Kustomization>) {
        let known = self.state().applications.get(app).is_some_and(|entry| entry.object.is_some());
        if !known {
            self.seen(app, object.clone());
        }
    }

    /// What it owned when the daemon started: first come is who is recorded.
    pub fn adopt(&self, app: &Key, ids: impl IntoIterator<Item = ObjectId>) {
        self.change(|state| {
            let entry = state.applications.entry(app.clone()).or_default();
            for id in ids {
                state.claims.entry(id.clone()).or_insert_with(|| app.clone());
                entry.adopted.insert(id);
            }
            true
        });
    }

    pub fn remove(&self, app: &Key) {
        self.change(|state| {
            state.claims.retain(|_, owner| owner != app);
            state.asking.remove(app);
            state.applications.remove(app).is_some()
        });
    }

    /// The application rendered `revision`; `declared` is what it declares there, `None` if it could not be rendered.
    /// On success it lets go of all that it no longer declares and claims what is free.
    pub fn rendered(&self, app: &Key, revision: &str, declared: Option<&BTreeSet<ObjectId>>) {
        self.change(|state| {
            let new = Rendered { revision: revision.into(), ok: declared.is_some() };
            let mut changed = false;
            if let Some(declared) = declared {
                changed |= state.let_go(app, declared);
                for id in declared {
                    changed |= !state.claims.contains_key(id);
                    state.claims.entry(id.clone()).or_insert_with(|| app.clone());
                }
            }
            let entry = state.applications.entry(app.clone()).or_default();
            changed |= entry.rendered.as_ref() != Some(&new);
            entry.rendered = Some(new);
            if let Some(declared) = declared {
                entry.declares.clone_from(declared);
            }
            changed
        });
    }

    /// The application may not have these objects: whoever else declares them takes over.
    pub fn let_go<'a>(&self, app: &Key, ids: impl Iterator<Item = &'a ObjectId>) {
        self.change(|state| {
            let own: Vec<ObjectId> = ids.filter(|id| state.claims.get(*id) == Some(app)).cloned().collect();
            state.hand_on(app, &own);
            !own.is_empty()
        });
    }

    /// Whether all of `declared` belong to the application, after [`Registry::rendered`].
    pub fn claim(&self, app: &Key, revision: &str, declared: &BTreeSet<ObjectId>) -> Claim {
        let mut granted_late = false;
        let result = {
            let mut state = self.state();
            let mut refused = Vec::new();
            for id in declared {
                match state.claims.get(id) {
                    Some(owner) if owner != app => refused.push((id.clone(), owner.clone())),
                    Some(_) => {}
                    None => {
                        granted_late = true;
                        state.claims.insert(id.clone(), app.clone());
                    }
                }
            }
            if refused.is_empty() {
                Claim::Granted
            } else if refused.iter().any(|(_, owner)| state.unsettled(app, owner, revision)) {
                Claim::Pending
            } else {
                Claim::Refused(refused)
            }
        };
        if granted_late {
            self.changed.send_modify(|n| *n += 1);
        }
        result
    }

    /// True if each instance elsewhere that has something of `declared` goes on declaring it at `revision`.
    pub fn is_kept_elsewhere(&self, app: &Key, revision: &str, declared: &BTreeSet<ObjectId>) -> bool {
        let state = self.state();
        let mut owners = declared.iter().filter_map(|id| state.claims.get(id)).filter(|owner| *owner != app);
        owners.all(|owner| {
            state.applications.get(owner).is_none_or(|other| !other.elsewhere || other.was_ready_at(revision))
        })
    }

    /// Whether it is known who declares what at `revision`.
    pub fn handover(&self, app: &Key, revision: &str) -> Handover {
        let state = self.state();
        let Some(source) = state.applications.get(app).and_then(|a| a.source.clone()) else { return Handover::Settled };
        let others = state
            .applications
            .iter()
            .filter(|(key, a)| *key != app && a.source.as_ref() == Some(&source) && !a.suspended);
        let (mut unknown, mut waiting, mut is_elsewhere) = (Vec::new(), Vec::new(), false);
        for (key, other) in others {
            match &other.rendered {
                Some(r) if other.is_at(&r.revision, revision) && r.ok => {}
                Some(r) if other.is_at(&r.revision, revision) => unknown.push(key.clone()),
                _ => {
                    waiting.push(key.clone());
                    is_elsewhere |= other.elsewhere;
                }
            }
        }
        if !waiting.is_empty() {
            return Handover::Pending { waiting, elsewhere: is_elsewhere };
        }
        if unknown.is_empty() { Handover::Settled } else { Handover::Unknown(unknown) }
    }

    /// Which other application declares an object.
    pub fn owner(&self, app: &Key, id: &ObjectId) -> Option<Key> {
        self.state().claims.get(id).filter(|owner| *owner != app).cloned()
    }

    /// The application is Ready at `revision`.
    pub fn ready(&self, app: &Key, revision: &str) {
        self.change(|state| {
            let entry = state.applications.entry(app.clone()).or_default();
            let changed = entry.ready_at.as_deref() != Some(revision) || !entry.message.is_empty();
            entry.ready_at = Some(revision.into());
            entry.message.clear();
            changed
        });
    }

    /// Why it is not ready, for those who wait.
    pub fn waiting(&self, app: &Key, message: &str) {
        self.change(|state| {
            let entry = state.applications.entry(app.clone()).or_default();
            let changed = entry.message != message;
            entry.message = message.into();
            changed
        });
    }

    /// Whether the dependencies of `app` are met at `revision` of its source.
    pub fn dependencies(&self, app: &Key, revision: &str) -> Dependencies {
        let state = self.state();
        if let Some(cycle) = state.cycle(app) {
            return Dependencies::Cycle(cycle);
        }
        let Some(entry) = state.applications.get(app) else { return Dependencies::Met };
        for Dependency { key, ready } in &entry.depends_on {
            let Some(dependency) = state.applications.get(key) else {
                return Dependencies::Waiting(format!("dependency `{key}` does not exist"));
            };
            if let Some(ready) = ready {
                match entry.holds(ready, dependency) {
                    Ok(true) => continue,
                    Ok(false) => {
                        return Dependencies::Waiting(format!(
                            "dependency `{key}` is not ready: its `readyExpr` is false"
                        ));
                    }
                    Err(why) => {
                        return Dependencies::Waiting(format!(
                            "dependency `{key}` is not ready: its `readyExpr`: {why}"
                        ));
                    }
                }
            }
            let same_source = dependency.source == entry.source;
            let met =
                dependency.ready_at.as_deref().is_some_and(|ready| !same_source || dependency.is_at(ready, revision));
            if !met {
                let needed = if same_source { format!(" at revision {revision}") } else { String::new() };
                let why = match (dependency.suspended, dependency.message.as_str()) {
                    (true, _) => ": it is suspended".to_owned(),
                    (_, "") => String::new(),
                    (_, message) => format!(": {}", message.lines().next().unwrap_or_default()),
                };
                return Dependencies::Waiting(format!("dependency `{key}` is not ready{needed}{why}"));
            }
        }
        Dependencies::Met
    }

    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        if change(&mut self.state()) {
            self.changed.send_modify(|n| *n += 1);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Application {
    /// Whether a revision that is known of it is the one that is asked for. A status has the name alone, without what
    /// else decides on the content.
    fn is_at(&self, known: &str, revision: &str) -> bool {
        let content = |rest: &str| rest.is_empty() || rest.starts_with(CONTENT);
        known == revision || (self.elsewhere && revision.strip_prefix(known).is_some_and(content))
    }

    fn was_ready_at(&self, revision: &str) -> bool {
        self.ready_at.as_deref().is_some_and(|ready| self.is_at(ready, revision))
    }

    /// Whether an expression of this application holds for another one.
    fn holds(&self, ready: &ReadyExpression, dependency: &Application) -> Result<bool, String> {
        match (&self.object, &dependency.object) {
            (Some(own), Some(object)) => ready.holds(own, object),
            _ => Err("it was not seen yet".to_owned()),
        }
    }
}

impl State {
    /// Whether an expression of another application is about this one.
    fn is_asked_about(&self, app: &Key) -> bool {
        let asking = self.asking.iter().filter_map(|key| self.applications.get(key));
        let mut dependencies = asking.flat_map(|other| &other.depends_on);
        dependencies.any(|dependency| dependency.ready.is_some() && dependency.key == *app)
    }

    /// Ends an application's claims on what it no longer declares; another that declares it takes over at once, so that
    /// there is no moment in which nobody does.
    fn let_go(&mut self, app: &Key, declared: &BTreeSet<ObjectId>) -> bool {
        let Some(entry) = self.applications.get_mut(app) else { return false };
        let adopted = std::mem::take(&mut entry.adopted);
        let known = entry.declares.iter().chain(&adopted).filter(|id| !declared.contains(*id));
        let stale: Vec<_> = known.filter(|id| self.claims.get(*id) == Some(app)).cloned().collect();
        self.hand_on(app, &stale);
        !stale.is_empty()
    }

    fn hand_on(&mut self, app: &Key, ids: &[ObjectId]) {
        for id in ids {
            let heir = self.applications.iter().find(|(key, other)| *key != app && other.declares.contains(id));
            match heir.map(|(key, _)| key.clone()) {
                Some(heir) => self.claims.insert(id.clone(), heir),
                None => self.claims.remove(id),
            };
        }
    }

    /// `owner` follows the same source and has not looked at `revision` yet.
    fn unsettled(&self, app: &Key, owner: &Key, revision: &str) -> bool {
        let (Some(mine), Some(theirs)) = (self.applications.get(app), self.applications.get(owner)) else {
            return false;
        };
        let rendered = theirs.rendered.as_ref().is_some_and(|r| theirs.is_at(&r.revision, revision));
        // elsewhere it has let go of what it doesn't declare once it is Ready
        let settled = match theirs.elsewhere {
            true => theirs.was_ready_at(revision) || (rendered && theirs.failing),
            false => rendered,
        };
        mine.source == theirs.source && !theirs.suspended && !settled
    }

    /// The cycle that `app` is a member of, from it back to it.
    fn cycle(&self, app: &Key) -> Option<Vec<Key>> {
        let mut path = vec![app.clone()];
        let mut visited = BTreeSet::new();
        self.walk(app, app, &mut path, &mut visited).then_some(path)
    }

    fn walk(&self, goal: &Key, at: &Key, path: &mut Vec<Key>, visited: &mut BTreeSet<Key>) -> bool {
        let dependencies = self.applications.get(at).map(|a| a.depends_on.as_slice()).unwrap_or_default();
        for Dependency { key: next, .. } in dependencies {
            path.push(next.clone());
            if next == goal || (visited.insert(next.clone()) && self.walk(goal, next, path, visited)) {
                return true;
            }
            path.pop();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("n", name)
    }

    fn with(apps: &[(&str, &[&str])]) -> Registry {
        let registry = Registry::default();
        for (app, depends_on) in apps {
            let depends_on = depends_on.iter().map(|d| Dependency { key: key(d), ready: None }).collect();
            registry.declare(&key(app), key("source"), depends_on, false);
        }
        registry
    }

    fn ids(names: &[&str]) -> BTreeSet<ObjectId> {
        names.iter().map(|n| ObjectId::new("", "ConfigMap", "n", *n)).collect()
    }

    #[test]
    fn a_dependency_is_met_once_it_was_ready_at_the_needed_revision() {
        let registry = with(&[("db", &[]), ("api", &["db"])]);
        assert_eq!(
            registry.dependencies(&key("api"), "r2"),
            Dependencies::Waiting("dependency `n/db` is not ready at revision r2".into())
        );
        registry.ready(&key("db"), "r1");
        registry.waiting(&key("db"), "pod db-0 is crashing\nand more");
        assert_eq!(
            registry.dependencies(&key("api"), "r2"),
            Dependencies::Waiting("dependency `n/db` is not ready at revision r2: pod db-0 is crashing".into())
        );
        registry.ready(&key("db"), "r2");
        registry.waiting(&key("db"), "lost its health later");
        assert_eq!(registry.dependencies(&key("api"), "r2"), Dependencies::Met);
    }

    fn elsewhere(revision: &str, ready: bool, owned: &[&str]) -> Elsewhere {
        Elsewhere {
            rendered: Some(revision.into()),
            rendered_ok: true,
            owned: ids(owned),
            ready_at: ready.then(|| revision.into()),
            failing: false,
            message: None,
        }
    }

    #[test]
    fn an_application_elsewhere_is_judged_by_what_its_status_records() {
        let registry = with(&[("db", &[]), ("api", &["db"])]);
        registry.elsewhere(&key("db"), elsewhere("main@sha1:1", false, &[]));
        assert!(matches!(registry.dependencies(&key("api"), "main@sha1:1"), Dependencies::Waiting(_)));
        registry.elsewhere(&key("db"), elsewhere("main@sha1:1", true, &[]));
        assert_eq!(registry.dependencies(&key("api"), "main@sha1:1"), Dependencies::Met);
        // what else decides on the content is not in a status
        assert_eq!(registry.dependencies(&key("api"), "main@sha1:1 (content 01234567)"), Dependencies::Met);
        assert!(matches!(registry.dependencies(&key("api"), "main@sha1:11"), Dependencies::Waiting(_)));
        registry.elsewhere(&key("db"), elsewhere("main@sha1:2", false, &[]));
        assert_eq!(
            registry.dependencies(&key("api"), "main@sha1:1"),
            Dependencies::Met,
            "losing health later takes nothing back"
        );
    }

    #[test]
    fn an_object_goes_from_one_instance_to_another_without_being_deleted() {
        // `a` is served here and has `x`; `b`, elsewhere, declares it from r2 on
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.rendered(&key("a"), "r1", Some(&ids(&["x"])));
        registry.elsewhere(&key("b"), elsewhere("r1", true, &[]));
        registry.rendered(&key("a"), "r2", Some(&ids(&[])));
        let pending = Handover::Pending { waiting: vec![key("b")], elsewhere: true };
        assert_eq!(registry.handover(&key("a"), "r2"), pending, "what `b` declares at r2 is not recorded yet");
        registry.elsewhere(&key("b"), elsewhere("r2", false, &["x"]));
        assert_eq!(registry.handover(&key("a"), "r2"), Handover::Settled);
        assert_eq!(registry.owner(&key("a"), &ids(&["x"]).pop_first().unwrap()), Some(key("b")));

        // the same, seen by the instance that serves `b`
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.elsewhere(&key("a"), elsewhere("r1", true, &["x"]));
        registry.rendered(&key("b"), "r2", Some(&ids(&["x"])));
        assert_eq!(registry.claim(&key("b"), "r2", &ids(&["x"])), Claim::Pending);
        registry.elsewhere(&key("a"), elsewhere("r2", false, &["x"]));
        assert_eq!(registry.claim(&key("b"), "r2", &ids(&["x"])), Claim::Pending, "`a` is about to let go");
        assert!(!registry.is_kept_elsewhere(&key("b"), "r2", &ids(&["x"])));
        registry.elsewhere(&key("a"), elsewhere("r2", true, &[]));
        assert_eq!(registry.claim(&key("b"), "r2", &ids(&["x"])), Claim::Granted);
        // at r3 both declare it
        registry.elsewhere(&key("a"), elsewhere("r3", true, &["y"]));
        assert!(matches!(registry.claim(&key("b"), "r3", &ids(&["y"])), Claim::Refused(_)));
        assert!(registry.is_kept_elsewhere(&key("b"), "r3", &ids(&["y"])));
    }

    #[test]
    fn an_expression_takes_the_place_of_the_rule_and_is_asked_whenever_its_objects_change() {
        let registry = with(&[("db", &[])]);
        let object = |phase: &str| -> Arc<Kustomization> {
            let object = serde_json::json!({
                "metadata": {"annotations": {"phase": phase}},
                "spec": {"interval": "1m", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "s"}},
            });
            Arc::new(serde_json::from_value(object).unwrap())
        };
        let ready = ReadyExpression::compile("dep.metadata.annotations['phase'] == 'up'").unwrap();
        let depends_on = vec![Dependency { key: key("db"), ready: Some(Arc::new(ready)) }];
        registry.declare(&key("api"), key("source"), depends_on, false);
        let waiting =
            |why: &str| Dependencies::Waiting(format!("dependency `n/db` is not ready: its `readyExpr`{why}"));
        assert_eq!(registry.dependencies(&key("api"), "r2"), waiting(": it was not seen yet"));
        let mut changes = registry.subscribe();
        let mut told = |app: &str, phase: &str| {
            changes.borrow_and_update();
            registry.seen(&key(app), object(phase));
            changes.has_changed().unwrap()
        };
        assert!(told("api", "") && told("db", "down"));
        assert_eq!(registry.dependencies(&key("api"), "r2"), waiting(" is false"));
        registry.ready(&key("db"), "r2");
        assert_eq!(registry.dependencies(&key("api"), "r2"), waiting(" is false"));
        assert!(!told("other", "up"), "nobody asks about it");
        assert!(told("db", "up"));
        assert_eq!(registry.dependencies(&key("api"), "r3"), Dependencies::Met);
    }

    #[test]
    fn a_cycle_names_its_members_and_holds_back_only_them() {
        let registry = with(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("free", &[])]);
        assert_eq!(registry.dependencies(&key("b"), "r"), Dependencies::Cycle(vec![key("b"), key("c"), key("b")]));
        assert!(matches!(registry.dependencies(&key("a"), "r"), Dependencies::Waiting(_)));
        assert_eq!(registry.dependencies(&key("free"), "r"), Dependencies::Met);
    }

    #[test]
    fn an_object_moves_between_applications_only_once_the_first_has_let_go_of_it() {
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.rendered(&key("a"), "r1", Some(&ids(&["x"])));
        registry.rendered(&key("b"), "r2", Some(&ids(&["x"])));
        assert_eq!(registry.claim(&key("b"), "r2", &ids(&["x"])), Claim::Pending);
        assert_eq!(registry.handover(&key("a"), "r2"), Handover::Settled);
        assert_eq!(registry.handover(&key("b"), "r2"), Handover::Pending { waiting: vec![key("a")], elsewhere: false });
        registry.rendered(&key("a"), "r2", Some(&ids(&[])));
        assert_eq!(registry.claim(&key("b"), "r2", &ids(&["x"])), Claim::Granted);
        assert_eq!(registry.owner(&key("a"), ids(&["x"]).first().unwrap()), Some(key("b")));
    }

    #[test]
    fn what_one_lets_go_of_belongs_at_once_to_another_that_declares_it() {
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.rendered(&key("a"), "r1", Some(&ids(&["x", "y"])));
        registry.rendered(&key("b"), "r2", Some(&ids(&["x"])));
        registry.rendered(&key("a"), "r2", Some(&ids(&[])));
        let owner = |name: &str| registry.owner(&key("a"), &ObjectId::new("", "ConfigMap", "n", name));
        assert_eq!(owner("x"), Some(key("b")), "nothing may delete it in between");
        assert_eq!(owner("y"), None);
    }

    #[test]
    fn the_second_application_that_declares_an_object_is_refused_by_the_name_of_the_first() {
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.rendered(&key("a"), "r1", Some(&ids(&["x"])));
        registry.rendered(&key("b"), "r1", Some(&ids(&["x", "y"])));
        let Claim::Refused(refused) = registry.claim(&key("b"), "r1", &ids(&["x", "y"])) else { panic!("not refused") };
        assert_eq!(refused, [(ids(&["x"]).pop_first().unwrap(), key("a"))]);
        registry.remove(&key("a"));
        assert_eq!(registry.claim(&key("b"), "r1", &ids(&["x", "y"])), Claim::Granted);
    }

    #[test]
    fn what_an_application_may_not_apply_is_free_for_another_that_declares_it() {
        let registry = with(&[("intruder", &[]), ("owner", &[]), ("late", &[])]);
        registry.rendered(&key("intruder"), "r1", Some(&ids(&["x", "y"])));
        registry.rendered(&key("owner"), "r1", Some(&ids(&["x"])));
        registry.rendered(&key("late"), "r1", Some(&ids(&[])));
        assert!(matches!(registry.claim(&key("owner"), "r1", &ids(&["x"])), Claim::Refused(_)));
        registry.let_go(&key("intruder"), ids(&["x", "y"]).iter());
        assert_eq!(registry.claim(&key("owner"), "r1", &ids(&["x"])), Claim::Granted);
        assert_eq!(registry.claim(&key("late"), "r1", &ids(&["y"])), Claim::Granted);
        assert!(matches!(registry.claim(&key("intruder"), "r1", &ids(&["x", "y"])), Claim::Refused(_)));
        registry.let_go(&key("intruder"), ids(&["x"]).iter());
        assert_eq!(registry.claim(&key("owner"), "r1", &ids(&["x"])), Claim::Granted, "what is another's stays so");
    }

    #[test]
    fn deletions_wait_for_applications_whose_render_failed() {
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.rendered(&key("b"), "r2", None);
        assert_eq!(registry.handover(&key("a"), "r2"), Handover::Unknown(vec![key("b")]));
    }

    #[test]
    fn what_was_owned_before_a_restart_stays_with_its_owner() {
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.adopt(&key("a"), ids(&["x"]));
        registry.rendered(&key("b"), "r1", Some(&ids(&["x"])));
        assert_eq!(registry.claim(&key("b"), "r1", &ids(&["x"])), Claim::Pending);
        registry.rendered(&key("a"), "r1", Some(&ids(&["x"])));
        assert!(matches!(registry.claim(&key("b"), "r1", &ids(&["x"])), Claim::Refused(_)));
    }
}
