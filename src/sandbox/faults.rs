//! Faults on demand: what the server shall do wrong, for which requests, and how often.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::request::{Request, Subresource, Verb};

/// Which requests a rule concerns; what is `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Empty for all.
    pub verbs: Vec<Verb>,
    /// `deployments` or `deployments.apps`.
    pub resource: Option<String>,
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// `Some(None)` for requests without a subresource.
    pub subresource: Option<Subresource>,
    /// The field manager of a write.
    pub manager: Option<String>,
}

impl Match {
    pub fn any() -> Self {
        Self::default()
    }

    /// All requests that write.
    pub fn writes() -> Self {
        use Verb::{Create, Delete, DeleteCollection, Patch, Update};
        Self { verbs: vec![Create, Update, Patch, Delete, DeleteCollection], ..Self::default() }
    }

    pub fn verb(verb: Verb) -> Self {
        Self { verbs: vec![verb], ..Self::default() }
    }

    #[must_use]
    pub fn on(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    #[must_use]
    pub fn in_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    #[must_use]
    pub fn by_manager(mut self, manager: impl Into<String>) -> Self {
        self.manager = Some(manager.into());
        self
    }

    /// `name` is the object's, which for a creation is only known from the body.
    fn matches(&self, request: &Request, name: &str) -> bool {
        let is = |wanted: &Option<String>, actual: &str| wanted.as_deref().is_none_or(|w| w == actual);
        (self.verbs.is_empty() || self.verbs.contains(&request.verb))
            && self
                .resource
                .as_deref()
                .is_none_or(|w| w == request.resource.plural || w == request.resource.qualified())
            && is(&self.namespace, &request.namespace)
            && is(&self.name, name)
            && self.subresource.is_none_or(|w| w == request.subresource)
            && is(&self.manager, &request.manager)
    }
}

/// What happens instead of, before or after the right thing.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Answered so at once; nothing is done.
    Answer { code: u16, message: String },
    /// Answered as RBAC refuses: 403 with the verb, resource and namespace.
    Forbid,
    /// Denied by an admission webhook of that name; the code is 400 or 403.
    Deny { webhook: String, message: String, code: u16 },
    /// Done and answered after a while. A write is done even if the client has gone by then.
    Delay(Duration),
    /// Done at once, answered after a while.
    DelayAnswer(Duration),
    /// Neither done nor answered while the rule stands.
    Hang,
    /// Done; then the connection is closed without an answer.
    DropAfter,
    /// The connection is closed without an answer; the write lands after a while.
    LandLate(Duration),
}

/// A rule that stands until it was applied `times` times, or until it is removed.
#[derive(Clone, Debug)]
pub struct Rule {
    pub matches: Match,
    pub effect: Effect,
    /// `None` for as long as it stands.
    pub times: Option<u32>,
}

/// Names a rule that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(u64);

#[derive(Debug)]
struct Standing {
    id: RuleId,
    rule: Rule,
    applied: u32,
}

#[derive(Debug, Default)]
struct Rules {
    standing: Vec<Standing>,
    next: u64,
}

/// Written by tests, read by every request.
#[derive(Debug)]
pub struct Faults {
    rules: Mutex<Rules>,
    changed: watch::Sender<()>,
}

impl Faults {
    pub(super) fn new() -> Self {
        Self { rules: Mutex::default(), changed: watch::Sender::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, rule: Rule) -> RuleId {
        let mut rules = self.lock();
        let id = RuleId(rules.next);
        rules.next += 1;
        rules.standing.push(Standing { id, rule, applied: 0 });
        id
    }

    /// Adds a rule that stands until it is removed.
    pub fn always(&self, matches: Match, effect: Effect) -> RuleId {
        self.add(Rule { matches, effect, times: None })
    }

    /// Adds a rule that is applied once.
    pub fn once(&self, matches: Match, effect: Effect) -> RuleId {
        self.add(Rule { matches, effect, times: Some(1) })
    }

    /// How often a rule was applied so far.
    pub fn applied(&self, id: RuleId) -> u32 {
        self.lock().standing.iter().find(|s| s.id == id).map_or(0, |s| s.applied)
    }

    /// Ends a rule; requests that hang on it lose their connections.
    pub fn remove(&self, id: RuleId) {
        self.lock().standing.retain(|s| s.id != id);
        self.changed.send_replace(());
    }

    pub fn clear(&self) {
        self.lock().standing.clear();
        self.changed.send_replace(());
    }

    /// The effect of the first rule that concerns the request, and counts it as applied.
    pub(super) fn take(&self, request: &Request, name: &str) -> Option<(RuleId, Effect)> {
        let mut rules = self.lock();
        let found = rules
            .standing
            .iter_mut()
            .find(|s| s.rule.times.is_none_or(|times| s.applied < times) && s.rule.matches.matches(request, name))?;
        found.applied += 1;
        Some((found.id, found.rule.effect.clone()))
    }

    /// Waits until a rule no longer stands.
    pub(super) async fn removed(&self, id: RuleId) {
        let mut changed = self.changed.subscribe();
        while self.lock().standing.iter().any(|s| s.id == id) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}
