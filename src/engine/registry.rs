//! What applications know of each other: who declares which object, who was ready at which revision, who depends on whom.
//!
//! Written by each application's own worker about itself, read by all. Every change wakes whoever waits on an edge.

mod claims;
mod dependencies;

pub use claims::{Claim, Handover};
pub use dependencies::Dependencies;

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
            let mut changed = state.claim_no_more_than(app, &known.owned);
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
            let mut changed = declared.is_some_and(|declared| state.claim_no_more_than(app, declared));
            let entry = state.applications.entry(app.clone()).or_default();
            changed |= entry.rendered.as_ref() != Some(&new);
            entry.rendered = Some(new);
            if let Some(declared) = declared {
                entry.declares.clone_from(declared);
            }
            changed
        });
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
}

#[cfg(test)]
mod fixture {
    use super::*;

    pub fn key(name: &str) -> Key {
        Key::new("n", name)
    }

    pub fn with(apps: &[(&str, &[&str])]) -> Registry {
        let registry = Registry::default();
        for (app, depends_on) in apps {
            let depends_on = depends_on.iter().map(|d| Dependency { key: key(d), ready: None }).collect();
            registry.declare(&key(app), key("source"), depends_on, false);
        }
        registry
    }

    pub fn ids(names: &[&str]) -> BTreeSet<ObjectId> {
        names.iter().map(|n| ObjectId::new("", "ConfigMap", "n", *n)).collect()
    }

    pub fn elsewhere(revision: &str, ready: bool, owned: &[&str]) -> Elsewhere {
        Elsewhere {
            rendered: Some(revision.into()),
            rendered_ok: true,
            owned: ids(owned),
            ready_at: ready.then(|| revision.into()),
            failing: false,
            message: None,
        }
    }
}
