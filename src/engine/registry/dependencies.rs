//! Who waits for whom: what each application was ready at, and what stands between an application and its dependencies.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::{Key, Kustomization};
use crate::engine::ready::ReadyExpression;

use super::{Application, Dependency, Registry, State};

/// What stands between an application and its dependencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dependencies {
    Met,
    /// The first one that is not met, in words.
    Waiting(String),
    /// The members of a cycle, from the application back to it.
    Cycle(Vec<Key>),
}

impl Registry {
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
}

impl Application {
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
    use super::super::fixture::{elsewhere, key, with};
    use super::*;

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
}
