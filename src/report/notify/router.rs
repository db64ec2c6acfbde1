//! Who is to hear of what: Alerts and Providers as they are now, what was said of whom, a mailbox for each provider.
//!
//! One task owns all of it and never waits for an endpoint.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::alert::Rule;
use super::delivery::Delivery;
use super::endpoint::{Kind, commit_status_expression, refusal};
use super::expression::{Expression, Variables};
use super::forge;
use super::format::{self, Notice};
use super::mailbox::{Content, Mailbox, Matter, Parcel, Put, Slot};
use super::news::{Commit, CommitState, Happened, News};
use super::pages;
use super::standing::{Phase, Said, Standings};
use crate::api::{Alert, Key, Provider};
use crate::cluster::{ApiKind, Cluster, Collection, ErrorClass, WatchEvent, Watcher};
use crate::report::events::{Event, Events, RecordedFailure, Severity, Subject, Verdict};
use crate::report::metrics::{Metrics, ObjectMetrics};

const API_VERSION: &str = "notification.toolkit.fluxcd.io/v1beta3";
/// The reason of an Alert or Provider that can't be served.
const REFUSED: &str = "ValidationFailed";

pub struct Router {
    cluster: Cluster,
    events: Events,
    metrics: Metrics,
    alerts: Objects<Alert>,
    providers: Objects<Provider>,
    rules: HashMap<Key, Rule>,
    /// The Alert of each rule, for expressions.
    sources: HashMap<Key, Alert>,
    posts: HashMap<Key, Post>,
    /// Of each Alert and Provider, served or not.
    records: HashMap<(&'static str, Key), Record>,
    standings: Standings,
    ours: Ours,
}

/// Whether one of our objects is ours to speak of, where several instances read it.
type Ours = Box<dyn Fn(&Key, Option<&BTreeMap<String, String>>) -> bool + Send + Sync>;

/// The metrics of one of our objects; they end with it.
struct Record {
    metrics: Arc<ObjectMetrics>,
    /// Why it is not served, as it was counted last.
    trouble: Option<String>,
}

/// A provider that is served.
struct Post {
    kind: Kind,
    suspended: bool,
    provider: watch::Sender<Arc<Provider>>,
    mailbox: Arc<Mailbox>,
    metrics: Arc<ObjectMetrics>,
    /// Makes the names of commits' statuses; `None`: the default.
    expression: Option<Expression>,
    delivery: AbortHandle,
}

impl Drop for Post {
    fn drop(&mut self) {
        self.delivery.abort();
    }
}

impl Router {
    /// Every instance reads all Alerts and tells of what it serves itself; `ours` says of which of them it complains.
    pub fn new(
        cluster: Cluster,
        events: Events,
        metrics: Metrics,
        namespace: Option<&str>,
        ours: impl Fn(&Key, Option<&BTreeMap<String, String>>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            alerts: Objects::new(&cluster, ApiKind::alert(), namespace),
            providers: Objects::new(&cluster, ApiKind::provider(), namespace),
            cluster,
            events,
            metrics,
            rules: HashMap::new(),
            sources: HashMap::new(),
            posts: HashMap::new(),
            records: HashMap::new(),
            standings: Standings::default(),
            ours: Box::new(ours),
        }
    }

    /// Routes until cancelled, or until nobody is left to report. Where the cluster doesn't know the kinds, or doesn't
    /// let us see them, there is nobody to tell until it does.
    pub async fn run(mut self, mut news: mpsc::Receiver<News>) {
        loop {
            // what happened before the Alerts were seen waits in the queue
            let ready = self.alerts.listed && self.providers.listed;
            tokio::select! {
                biased;
                changes = self.alerts.next() => changes.into_iter().for_each(|(key, alert)| self.alert(key, alert)),
                changes = self.providers.next() => changes.into_iter().for_each(|(key, p)| self.provider(key, p)),
                news = news.recv(), if ready => match news {
                    Some(news) => self.take(news),
                    None => return,
                },
            }
        }
    }

    fn alert(&mut self, key: Key, alert: Option<Alert>) {
        let Some(alert) = alert else {
            self.events.forget("Alert", &key);
            self.records.remove(&("Alert", key.clone()));
            self.sources.remove(&key);
            if let Some(rule) = self.rules.remove(&key) {
                for (subject, of) in self.standings.forget_rule(&rule) {
                    self.end(&rule, subject, of);
                }
            }
            return;
        };
        let compiled = Rule::compile(&key, &alert.spec);
        let suspended = alert.spec.suspend.unwrap_or(false);
        self.judged("Alert", &key, suspended, compiled.as_ref().err());
        match compiled {
            Ok(rule) => {
                let silent = rule.silent_kinds();
                if !silent.is_empty() {
                    let kinds: Vec<_> = silent.iter().map(|kind| format!("`{kind}`")).collect();
                    let text = format!(
                        "nothing is ever reported of {}: not served by this version of Afresh",
                        kinds.join(", ")
                    );
                    self.say("Alert", &key, &alert.metadata, "UnservedKind", text);
                }
                self.sources.insert(key.clone(), alert);
                self.rules.insert(key, rule);
            }
            Err(refusal) => {
                self.rules.remove(&key);
                self.sources.remove(&key);
                self.say("Alert", &key, &alert.metadata, REFUSED, refusal);
            }
        }
    }

    fn provider(&mut self, key: Key, provider: Option<Provider>) {
        let Some(provider) = provider else {
            self.posts.remove(&key);
            self.records.remove(&("Provider", key.clone()));
            self.events.forget("Provider", &key);
            return;
        };
        let suspended = provider.spec.suspend.unwrap_or(false);
        let expression = commit_status_expression(&provider.spec).map(Expression::compile).transpose();
        let (kind, expression) = match (refusal(&provider.spec), Kind::parse(&provider.spec.kind), expression) {
            (None, Some(kind), Ok(expression)) => (kind, expression),
            (refusal, ..) => {
                self.posts.remove(&key);
                let text = refusal.unwrap_or_else(|| "its type is not served".into());
                self.judged("Provider", &key, suspended, Some(&text));
                self.say("Provider", &key, &provider.metadata, REFUSED, text);
                return;
            }
        };
        let metrics = self.judged("Provider", &key, suspended, None);
        let provider = Arc::new(provider);
        match self.posts.get_mut(&key) {
            // another type speaks another language
            Some(post) if post.kind == kind => {
                post.suspended = suspended;
                post.expression = expression;
                post.provider.send_if_modified(|old| {
                    let new = old.spec != provider.spec || old.metadata.uid != provider.metadata.uid;
                    *old = provider;
                    new
                });
            }
            _ => {
                let (sender, receiver) = watch::channel(provider);
                let mailbox = Arc::new(Mailbox::default());
                let delivery = Delivery {
                    key: key.clone(),
                    provider: receiver,
                    mailbox: mailbox.clone(),
                    cluster: self.cluster.clone(),
                    metrics: metrics.clone(),
                    dropped: self.metrics.clone(),
                    app: None,
                };
                let name = format!("the delivery of Provider {key}");
                let delivery = self.cluster.tasks().spawn(name, delivery.run());
                self.posts
                    .insert(key, Post { kind, suspended, provider: sender, mailbox, metrics, expression, delivery });
            }
        }
    }

    /// Records whether an Alert or a Provider is served; these kinds have no status to read it from.
    fn judged(
        &mut self,
        kind: &'static str,
        key: &Key,
        suspended: bool,
        trouble: Option<&String>,
    ) -> Arc<ObjectMetrics> {
        let record = self
            .records
            .entry((kind, key.clone()))
            .or_insert_with(|| Record { metrics: Arc::new(self.metrics.object(kind, key)), trouble: None });
        record.metrics.suspended(suspended);
        record.metrics.ready(Some(trouble.is_none()));
        match trouble {
            None => record.metrics.succeeded(),
            Some(_) if record.trouble.as_ref() == trouble => {}
            Some(_) => record.metrics.failed(REFUSED),
        }
        record.trouble = trouble.cloned();
        record.metrics.clone()
    }

    /// Says why an object of ours is not served; these kinds have no status. Once for each text.
    fn say(&self, kind: &'static str, key: &Key, metadata: &ObjectMeta, reason: &'static str, message: String) {
        if !(self.ours)(key, metadata.labels.as_ref()) {
            return;
        }
        self.events.publish(Event {
            subject: Subject::new(API_VERSION, kind, key, metadata),
            severity: Severity::Warning,
            verdict: Verdict::Detail,
            reason,
            state: Some(message.clone()),
            message,
            revision: None,
        });
    }

    fn take(&mut self, news: News) {
        match news {
            News::Happened(happened) => self.happened(&happened),
            News::Commit(commit) => self.commit(&commit),
            News::Known { subject, failure } => {
                self.standings.known((*subject).clone(), failure.as_deref().cloned());
                if let Some(failure) = failure {
                    self.still_failed(&subject, &failure);
                }
            }
            News::Forgotten { kind, key } => {
                if let Some((subject, of)) = self.standings.forget(kind, &key) {
                    for rule in self.rules.values().filter(|rule| rule.covers(&subject)) {
                        self.end(rule, subject.clone(), of.clone());
                    }
                }
            }
        }
    }

    fn happened(&mut self, happened: &Happened) {
        let Some(said) = self.standings.judge(happened) else { return };
        for rule in self.rules.values() {
            let Some(phase) = self.standings.phase(rule, happened, &said) else { continue };
            let matter = match (&said, &happened.verdict) {
                (Said::News, Verdict::Note) => Matter::Note(happened.reason.clone()),
                _ => Matter::State,
            };
            let notice = Notice {
                subject: happened.subject.clone(),
                at: happened.at,
                severity: happened.severity,
                reason: happened.reason.clone(),
                message: told(&happened.message, &phase),
                metadata: Notice::metadata(rule, &happened.subject, happened.revision.as_deref()),
            };
            self.post(rule, &happened.subject, matter, Content::Message { notice: Box::new(notice), phase });
        }
    }

    fn still_failed(&mut self, subject: &Subject, failure: &RecordedFailure) {
        for rule in self.rules.values() {
            let Some(phase) = self.standings.phase_at_start(rule, subject, failure) else { continue };
            let metadata = Notice::metadata(rule, subject, failure.revision.as_deref());
            let notice = Box::new(pages::ending(subject, failure, metadata, Timestamp::now()));
            self.post(rule, subject, Matter::State, Content::Message { notice, phase });
        }
    }

    /// What a failure raised is lowered without a message.
    fn end(&self, rule: &Rule, subject: Subject, of: RecordedFailure) {
        let metadata = Notice::metadata(rule, &subject, of.revision.as_deref());
        let notice = Box::new(pages::ending(&subject, &of, metadata, Timestamp::now()));
        self.post(rule, &subject, Matter::State, Content::Message { notice, phase: Phase::Gone(of) });
    }

    fn commit(&mut self, commit: &Commit) {
        let severity = if commit.state == CommitState::Failure { Severity::Warning } else { Severity::Normal };
        for rule in self.rules.values() {
            if rule.suspended || !rule.covers(&commit.subject) || !rule.wants(severity, &commit.message) {
                continue;
            }
            let name = match self.status_name(rule, commit) {
                Ok(name) => name,
                Err(why) => {
                    let text = format!("`spec.commitStatusExpr` of Provider `{}`: {why}", rule.provider);
                    if let Some(alert) = self.sources.get(&rule.key) {
                        self.say("Alert", &rule.key, &alert.metadata, "CommitStatusFailed", text);
                    }
                    self.metrics.notification_dropped();
                    continue;
                }
            };
            let matter = Matter::Commit(commit.revision.clone());
            self.post(rule, &commit.subject, matter, Content::Commit { name, commit: Box::new(commit.clone()) });
        }
    }

    /// Under which name a commit's status is set. Of a Provider that sets none it is not asked for.
    fn status_name(&self, rule: &Rule, commit: &Commit) -> Result<String, String> {
        let Some(post) = self.posts.get(&rule.provider) else { return Ok(String::new()) };
        let provider = post.provider.borrow();
        let Some(expression) = &post.expression else {
            return Ok(forge::context(&commit.subject, provider.metadata.uid.as_deref().unwrap_or_default()));
        };
        let alert = self.sources.get(&rule.key).map(serde_json::to_value).and_then(Result::ok);
        expression.evaluate(&Variables {
            alert: alert.unwrap_or_default(),
            event: format::generic(&format::of_commit(rule, commit)),
            provider: serde_json::to_value(&**provider).map_err(|error| error.to_string())?,
        })
    }

    /// Puts it into the mailbox of the Alert's provider, if it speaks of such things.
    fn post(&self, rule: &Rule, subject: &Subject, matter: Matter, content: Content) {
        let Some(post) = self.posts.get(&rule.provider) else {
            tracing::warn!(alert = %rule.key, provider = %rule.provider, "there is no such Provider that is served: nobody hears of {} {}", subject.kind, subject.key());
            self.metrics.notification_dropped();
            return;
        };
        let heard = match &content {
            Content::Commit { .. } => post.kind.is_forge(),
            Content::Message { phase: Phase::StillFailed | Phase::Gone(_), .. } => post.kind == Kind::Alertmanager,
            Content::Message { phase: Phase::News, .. } => post.kind != Kind::Alertmanager && !post.kind.is_forge(),
            Content::Message { .. } => !post.kind.is_forge(),
        };
        if post.suspended || !heard {
            return;
        }
        let slot = Slot { alert: rule.key.clone(), kind: subject.kind, object: subject.key(), matter };
        match post.mailbox.put(Parcel { slot, since: Timestamp::now(), content }) {
            Put::Added => {}
            Put::Replaced => post.metrics.notification("superseded"),
            Put::Overflowed => self.metrics.notification_dropped(),
        }
    }
}

/// Whoever heard of a failure reads in the first word that it is over.
fn told(message: &str, phase: &Phase) -> String {
    const RECOVERED: &str = "recovered: ";
    match phase {
        Phase::Recovered(_) if !message.starts_with(RECOVERED) => format!("{RECOVERED}{message}"),
        _ => message.to_owned(),
    }
}

/// The objects of one of our kinds, as their watch tells.
struct Objects<T> {
    watcher: Watcher<Value>,
    kind: ApiKind,
    known: Vec<Key>,
    /// What there is is known: nothing, where there is no such kind.
    listed: bool,
    /// That it can't be watched was said.
    lost: bool,
    item: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Objects<T> {
    fn new(cluster: &Cluster, kind: ApiKind, namespace: Option<&str>) -> Self {
        let collection = Collection { namespace: namespace.map(str::to_owned), ..Collection::all(kind.clone()) };
        let watcher = Watcher::new(cluster.clone(), collection);
        Self { watcher, kind, known: Vec::new(), listed: false, lost: false, item: std::marker::PhantomData }
    }

    /// What changed: an object as it is now, or `None` for one that is gone.
    async fn next(&mut self) -> Vec<(Key, Option<T>)> {
        match self.watcher.next().await {
            WatchEvent::Listed { items, .. } => {
                (self.listed, self.lost) = (true, false);
                let now: Vec<Key> = items.iter().map(Key::of).collect();
                let before = std::mem::replace(&mut self.known, now.clone());
                let gone = before.into_iter().filter(|key| !now.contains(key)).map(|key| (key, None));
                gone.chain(items.into_iter().filter_map(|item| self.read(item))).collect()
            }
            WatchEvent::Changed(item) => {
                let key = Key::of(&item);
                if !self.known.contains(&key) {
                    self.known.push(key);
                }
                self.read(item).into_iter().collect()
            }
            WatchEvent::Deleted(item) => {
                let key = Key::of(&item);
                self.known.retain(|known| *known != key);
                vec![(key, None)]
            }
            WatchEvent::Resumed => {
                self.lost = false;
                Vec::new()
            }
            WatchEvent::Lost { error, .. } => {
                let said = std::mem::replace(&mut self.lost, true);
                if !matches!(error.class, ErrorClass::NoSuchKind | ErrorClass::NotFound | ErrorClass::Forbidden) {
                    if !said {
                        tracing::warn!(kind = %self.kind.kind, %error, "the watch was lost");
                    }
                    return Vec::new();
                }
                // it is looked for again and again: the definition, or the right, may come
                if !said {
                    tracing::info!(kind = %self.kind.kind, %error, "there are none to be seen: nobody is notified");
                }
                self.listed = true;
                if error.class == ErrorClass::Forbidden {
                    return Vec::new();
                }
                std::mem::take(&mut self.known).into_iter().map(|key| (key, None)).collect()
            }
        }
    }

    fn read(&self, item: Value) -> Option<(Key, Option<T>)> {
        let key = Key::of(&item);
        match serde_json::from_value(item) {
            Ok(object) => Some((key, Some(object))),
            Err(error) => {
                tracing::error!(kind = %self.kind.kind, object = %key, %error, "the object can't be read; it is left as it was");
                None
            }
        }
    }
}
