//! What the listener knows of the cluster, so that it asks nobody while somebody waits for its answer.
//!
//! Written by the watches beside this file, read for each delivery. Held for short moments only.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use secrecy::SecretSlice;

use super::address::Address;
use super::payload::{Change, Moved, Push};
use crate::api::{Key, ReceiverResource};
use crate::engine::Hint;
use crate::source::Reference;

pub type Labels = BTreeMap<String, String>;
pub type Token = Arc<SecretSlice<u8>>;

/// A GitRepository as far as deliveries concern it.
#[derive(Clone, Debug, Default)]
pub struct Source {
    pub labels: Labels,
    pub address: Option<Address>,
    /// `None`: its `spec.ref` can't be served.
    pub follows: Option<Reference>,
    pub suspended: bool,
}

/// A Kustomization as far as deliveries concern it.
#[derive(Clone, Debug, Default)]
pub struct Application {
    pub labels: Labels,
    /// Its source; known where those who serve it are told by way of it.
    pub follows: Option<Key>,
}

/// A Receiver as far as deliveries concern it.
pub struct Hook {
    pub key: Key,
    /// `spec.type`, one of those that are served.
    pub kind: HookKind,
    pub token: Token,
    pub events: Vec<String>,
    pub resources: Vec<ReceiverResource>,
    /// Why nothing is taken, if so.
    pub closed: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    GitHub,
    GitLab,
    Bitbucket,
    GenericHmac,
    Generic,
}

/// Somebody to be told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Addressee {
    Source(Key),
    Application(Key),
}

#[derive(Default)]
pub struct Known(RwLock<State>);

#[derive(Default)]
struct State {
    /// The sources have been listed: who is not there does not exist.
    listed: bool,
    secret: Option<Token>,
    sources: BTreeMap<Key, Source>,
    by_address: HashMap<Address, Vec<Key>>,
    applications: BTreeMap<Key, Application>,
    hooks: HashMap<String, Arc<Hook>>,
    /// The path of each Receiver.
    paths: HashMap<Key, String>,
}

impl Known {
    /// The secret of `/webhook`; `None`: there is none (yet).
    pub fn secret(&self) -> Option<Token> {
        self.state().secret.clone()
    }

    pub fn set_secret(&self, secret: Option<Token>) {
        self.change().secret = secret;
    }

    pub fn is_listed(&self) -> bool {
        self.state().listed
    }

    pub fn set_sources(&self, sources: impl IntoIterator<Item = (Key, Source)>) {
        // read before anybody has to wait for it
        let sources: Vec<_> = sources.into_iter().collect();
        let mut state = self.change();
        (state.sources, state.by_address) = Default::default();
        for (key, source) in sources {
            state.put_source(key, source);
        }
        state.listed = true;
    }

    pub fn put_source(&self, key: Key, source: Source) {
        self.change().put_source(key, source);
    }

    pub fn remove_source(&self, key: &Key) {
        self.change().remove_source(key);
    }

    pub fn set_applications(&self, applications: impl IntoIterator<Item = (Key, Application)>) {
        let applications = applications.into_iter().collect();
        self.change().applications = applications;
    }

    pub fn put_application(&self, key: Key, application: Application) {
        self.change().applications.insert(key, application);
    }

    /// One of the applications that follow a source, and the same whoever asks.
    pub fn follower_of(&self, source: &Key) -> Option<Key> {
        let state = self.state();
        let mut applications = state.applications.iter();
        applications.find(|(_, application)| application.follows.as_ref() == Some(source)).map(|(key, _)| key.clone())
    }

    pub fn remove_application(&self, key: &Key) {
        self.change().applications.remove(key);
    }

    pub fn hook(&self, path: &str) -> Option<Arc<Hook>> {
        self.state().hooks.get(path).cloned()
    }

    /// A Receiver and its path, instead of what was known of it; `None`: it has none.
    pub fn set_hook(&self, key: &Key, hook: Option<(String, Hook)>) {
        let mut state = self.change();
        if let Some(path) = state.paths.remove(key) {
            state.hooks.remove(&path);
        }
        if let Some((path, hook)) = hook {
            state.paths.insert(key.clone(), path.clone());
            state.hooks.insert(path, Arc::new(hook));
        }
    }

    /// Who follows what moved, and what each of them should see then.
    pub fn followers(&self, push: &Push) -> Vec<(Key, Option<Hint>)> {
        let state = self.state();
        let mut followers = BTreeMap::new();
        for key in push.addresses.iter().filter_map(|address| state.by_address.get(address)).flatten() {
            let Some(source) = state.sources.get(key).filter(|source| !source.suspended) else { continue };
            if let Some(hint) = news_for(source, push) {
                followers.insert(key.clone(), hint);
            }
        }
        followers.into_iter().collect()
    }

    /// Whom a Receiver tells. A source that follows what moved learns what it should see.
    pub fn addressees(&self, hook: &Hook, push: Option<&Push>) -> Vec<(Addressee, Option<Hint>)> {
        let state = self.state();
        let mut found = BTreeMap::new();
        for resource in &hook.resources {
            let namespace = resource.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(&hook.key.namespace);
            let all = resource.name == "*";
            let matches = |key: &Key, labels: &Labels| {
                (namespace == "*" || key.namespace == namespace)
                    && (all || key.name == resource.name)
                    && resource.match_labels.iter().all(|(name, value)| labels.get(name) == Some(value))
            };
            if resource.kind == "GitRepository" {
                for (key, source) in state.sources.iter().filter(|(key, source)| matches(key, &source.labels)) {
                    let concerns = |push: &&Push| source.address.as_ref().is_some_and(|a| push.addresses.contains(a));
                    let hint = push.filter(concerns).and_then(|push| news_for(source, push)).flatten();
                    found.insert(Addressee::Source(key.clone()), hint);
                }
            } else {
                for (key, _) in state.applications.iter().filter(|(key, app)| matches(key, &app.labels)) {
                    found.insert(Addressee::Application(key.clone()), None);
                }
            }
        }
        found.into_iter().collect()
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put_source(&mut self, key: Key, source: Source) {
        self.remove_source(&key);
        if let Some(address) = &source.address {
            self.by_address.entry(address.clone()).or_default().push(key.clone());
        }
        self.sources.insert(key, source);
    }

    fn remove_source(&mut self, key: &Key) {
        let Some(address) = self.sources.remove(key).and_then(|source| source.address) else { return };
        if let Some(keys) = self.by_address.get_mut(&address) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }
}

/// `None`: what moved is not what the source follows. Else what it should see; nothing if that can't be told.
fn news_for(source: &Source, push: &Push) -> Option<Option<Hint>> {
    let follows = source.follows.as_ref()?;
    // the last word of a push counts
    let change = push.changes.iter().rev().find(|change| concerns(follows, change))?;
    let hint = match (change.moved, follows) {
        (Moved::To(commit), _) => Some(Hint::Commit(commit)),
        // a lower version takes its place
        (Moved::Deleted, Reference::Semver(_)) => None,
        (Moved::Deleted, _) => Some(Hint::Gone),
        (Moved::Unknown, _) => None,
    };
    Some(hint)
}

fn concerns(follows: &Reference, change: &Change) -> bool {
    match change.reference.as_deref() {
        None => !matches!(follows, Reference::Commit { .. }),
        Some(name) if name.starts_with("refs/") => follows.is_led_by(name),
        Some(short) => ["heads", "tags"].iter().any(|folder| follows.is_led_by(&format!("refs/{folder}/{short}"))),
    }
}

#[cfg(test)]
mod tests {
    use git2::Oid;
    use serde_json::{Value, json};

    use super::*;
    use crate::source::reference::Fields;

    const URL: &str = "https://github.com/org/repo";

    fn commit() -> Oid {
        Oid::from_str("0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c").unwrap()
    }

    fn source(follows: Fields<'_>) -> Source {
        let labels = Labels::from([("team".to_owned(), "a".to_owned())]);
        let follows = Reference::from_spec(follows).ok();
        Source { labels, address: Address::parse(URL), follows, suspended: false }
    }

    fn push(reference: Option<&str>, moved: Moved) -> Push {
        let changes = vec![Change { reference: reference.map(str::to_owned), moved }];
        Push { addresses: vec![Address::parse("git@github.com:Org/Repo.git").unwrap()], changes }
    }

    fn followers(follows: Fields<'_>, reference: Option<&str>, moved: Moved) -> Option<Option<Hint>> {
        let known = Known::default();
        known.set_sources([(Key::new("n", "repo"), source(follows))]);
        known.followers(&push(reference, moved)).pop().map(|(_, hint)| hint)
    }

    #[test]
    fn a_source_is_told_of_what_it_follows_and_of_nothing_else() {
        let main = Fields { branch: Some("main"), ..Fields::default() };
        let tag = Fields { tag: Some("v1"), ..Fields::default() };
        let range = Fields { semver: Some(">=1.2.0"), ..Fields::default() };
        let name = Fields { name: Some("refs/pull/7/head"), ..Fields::default() };
        let pinned = Fields { commit: Some("0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c"), ..main };
        let cases = [
            (main, Some("refs/heads/main"), true),
            (main, Some("refs/heads/main2"), false),
            (main, Some("refs/tags/main"), false),
            (main, Some("main"), true),
            (main, None, true),
            (Fields::default(), Some("refs/heads/master"), true),
            (tag, Some("refs/tags/v1"), true),
            (tag, Some("refs/heads/v1"), false),
            (tag, Some("v1"), true),
            (range, Some("refs/tags/v1.3.0"), true),
            (range, Some("refs/tags/1.2.0"), true),
            (range, Some("refs/tags/v1.1.0"), false),
            (range, Some("refs/tags/nightly"), false),
            (range, Some("refs/heads/1.3.0"), false),
            (name, Some("refs/pull/7/head"), true),
            (name, Some("refs/pull/8/head"), false),
            (pinned, Some("refs/heads/main"), false),
            (pinned, None, false),
        ];
        for (follows, reference, told) in cases {
            let hint = followers(follows, reference, Moved::To(commit()));
            assert_eq!(hint, told.then_some(Some(Hint::Commit(commit()))), "{follows:?}: {reference:?}");
        }
        assert_eq!(followers(main, Some("refs/heads/main"), Moved::Deleted), Some(Some(Hint::Gone)));
        assert_eq!(followers(range, Some("refs/tags/1.3.0"), Moved::Deleted), Some(None));
        assert_eq!(followers(main, Some("refs/heads/main"), Moved::Unknown), Some(None));
    }

    #[test]
    fn of_the_applications_of_a_source_all_know_the_same_one() {
        let (known, key) = (Known::default(), |name: &str| Key::new("n", name));
        let follows = |source: &str| Application { follows: Some(key(source)), ..Application::default() };
        known.set_applications([(key("a"), follows("x")), (key("b"), follows("y")), (key("c"), follows("y"))]);
        known.put_application(key("d"), Application::default());
        assert_eq!(known.follower_of(&key("y")), Some(key("b")));
        known.remove_application(&key("b"));
        assert_eq!((known.follower_of(&key("y")), known.follower_of(&key("z"))), (Some(key("c")), None));
    }

    #[test]
    fn suspended_removed_and_other_sources_are_not_told() {
        let known = Known::default();
        let (main, push) = (Fields { branch: Some("main"), ..Fields::default() }, push(None, Moved::Unknown));
        let key = |name: &str| Key::new("n", name);
        known.set_sources([(key("a"), source(main)), (key("b"), source(main)), (key("c"), source(main))]);
        known.put_source(key("a"), Source { suspended: true, ..source(main) });
        known.put_source(key("b"), Source { address: Address::parse("https://github.com/org/other"), ..source(main) });
        assert_eq!(known.followers(&push), [(key("c"), None)]);
        known.remove_source(&key("c"));
        assert_eq!(known.followers(&push), []);
    }

    #[test]
    fn a_receiver_tells_those_it_names_and_those_with_its_labels() {
        let known = Known::default();
        let main = Fields { branch: Some("main"), ..Fields::default() };
        let key = |namespace: &str, name: &str| Key::new(namespace, name);
        known.set_sources([
            (key("n", "a"), source(main)),
            (key("n", "b"), Source { labels: Labels::new(), ..source(main) }),
            (key("m", "a"), source(Fields { branch: Some("other"), ..main })),
        ]);
        let labels = Labels::from([("team".to_owned(), "a".to_owned())]);
        known.set_applications([(key("n", "app"), Application { labels, follows: None })]);
        let tell = |resource: Value| {
            let hook = Hook {
                key: key("n", "hook"),
                kind: HookKind::GitHub,
                token: Arc::new(vec![1].into()),
                events: Vec::new(),
                resources: vec![serde_json::from_value(resource).unwrap()],
                closed: None,
            };
            let push = push(Some("refs/heads/main"), Moved::To(commit()));
            let told = known.addressees(&hook, Some(&push));
            told.into_iter().map(|(who, hint)| (who, hint.is_some())).collect::<Vec<_>>()
        };
        let source = |namespace: &str, name: &str, hint| (Addressee::Source(key(namespace, name)), hint);
        let labels = json!({ "team": "a" });
        assert_eq!(tell(json!({ "kind": "GitRepository", "name": "b" })), [source("n", "b", true)]);
        assert_eq!(tell(json!({ "kind": "GitRepository", "name": "a", "namespace": "m" })), [source("m", "a", false)]);
        assert_eq!(tell(json!({ "kind": "GitRepository", "name": "c" })), []);
        assert_eq!(
            tell(json!({ "kind": "GitRepository", "name": "*", "matchLabels": labels })),
            [source("n", "a", true)]
        );
        assert_eq!(
            tell(json!({ "kind": "GitRepository", "name": "*", "namespace": "*", "matchLabels": labels })),
            [source("m", "a", false), source("n", "a", true)]
        );
        assert_eq!(
            tell(json!({ "kind": "Kustomization", "name": "*", "matchLabels": labels })),
            [(Addressee::Application(key("n", "app")), false)]
        );
    }
}
