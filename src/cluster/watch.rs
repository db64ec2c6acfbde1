//! One list and watch of a collection, kept up for as long as someone pulls events from it.
//!
//! Comes in: a collection. Goes out: the whole collection first, then each change, and the collection anew only when the
//! thread was lost (`410`). A connection that ends is resumed from the last version seen; troubles are events too, so
//! that nobody has to guess why nothing comes. Never ends by itself.

use std::marker::PhantomData;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::Stream;
use http::Method;
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use tokio::time::Instant;

use super::connection::{Call, Cluster, JSON};
use super::discovery::{ApiKind, segment};
use super::error::{ApiError, ErrorClass};
use super::objects::{METADATA, METADATA_LIST, PAGE};

/// Something that can be watched: what is decoded of each object.
pub trait Watchable: DeserializeOwned + Send + 'static {
    fn resource_version(&self) -> &str;
}

impl Watchable for Value {
    fn resource_version(&self) -> &str {
        self.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default()
    }
}

#[derive(Debug)]
pub enum WatchEvent<T> {
    /// The whole collection: what is not in it does not exist. Comes first, and again whenever the thread was lost.
    Listed { items: Vec<T>, resource_version: String },
    /// Created or changed.
    Changed(T),
    /// Deleted, or no longer selected; as it was last.
    Deleted(T),
    /// The connection is up again after `Lost`; nothing was missed.
    Resumed,
    /// The connection is down; the next attempt is made after `retry_in`. Until then what was told may be outdated.
    Lost { error: ApiError, retry_in: Duration },
}

/// What is watched.
#[derive(Clone, Debug)]
pub struct Collection {
    pub kind: ApiKind,
    pub namespace: Option<String>,
    /// A label selector.
    pub labels: Option<String>,
    /// A field selector.
    pub fields: Option<String>,
    /// Leave out everything but the metadata.
    pub metadata_only: bool,
}

impl Collection {
    pub fn all(kind: ApiKind) -> Self {
        Self { kind, namespace: None, labels: None, fields: None, metadata_only: false }
    }
}

/// The server ends a watch after this time; client-go asks for 5 to 10 minutes.
const WATCH_S: u64 = 290;
/// Bookmarks come about once a minute: after this silence the connection is taken for dead and resumed, which is cheap.
const SILENCE_MAX: Duration = Duration::from_secs(150);
/// A line of a watch: an object is at most 1.5 MiB in etcd and rarely doubles as JSON.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Objects in one collection: beyond that the installation must be split.
const ITEMS_MAX: usize = 500_000;
const BACK_OFF_MIN: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// The pauses after a refusal: seconds after a right was granted it is made use of, and a right that is never granted costs
/// six requests a minute.
const REFUSED_MIN: Duration = Duration::from_secs(2);
const REFUSED_MAX: Duration = Duration::from_secs(10);
/// A connection that lived this long was a good one: the next failure starts a new back-off.
const LIVED: Duration = Duration::from_secs(5);

/// Pulls events of one collection.
pub struct Watcher<T> {
    cluster: Cluster,
    collection: Collection,
    state: State,
    back_off: Duration,
    /// `Lost` was told and neither `Resumed` nor `Listed` since.
    lost: bool,
    item: PhantomData<fn() -> T>,
}

enum State {
    /// Nothing is known: list.
    Unlisted,
    /// Listed up to a version: open a watch from there.
    Idle {
        version: String,
    },
    Streaming {
        version: String,
        body: Box<Body>,
        buffer: BytesMut,
        since: Instant,
    },
    /// After a failure; continues with the version, or from the start without one.
    Waiting {
        until: Instant,
        version: Option<String>,
    },
}

impl Cluster {
    /// Everything that happens in a collection, beginning with all that is in it. Never ends.
    pub fn watch<T: Watchable>(&self, collection: Collection) -> impl Stream<Item = WatchEvent<T>> + Send + use<T> {
        let watcher = Watcher::new(self.clone(), collection);
        futures::stream::unfold(watcher, |mut watcher| async move { Some((watcher.next().await, watcher)) })
    }
}

/// An object's name and version, when nothing else is asked for: whoever references a Secret or a ConfigMap needs only
/// to know that it changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "NamedObject")]
pub struct Named {
    pub namespace: String,
    pub name: String,
    pub resource_version: String,
}

#[derive(Deserialize)]
struct NamedObject {
    #[serde(default)]
    metadata: NamedMetadata,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NamedMetadata {
    namespace: String,
    name: String,
    resource_version: String,
}

impl From<NamedObject> for Named {
    fn from(NamedObject { metadata: NamedMetadata { namespace, name, resource_version } }: NamedObject) -> Self {
        Self { namespace, name, resource_version }
    }
}

impl Watchable for Named {
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}

impl<T: Watchable> Watcher<T> {
    pub fn new(cluster: Cluster, collection: Collection) -> Self {
        Self { cluster, collection, state: State::Unlisted, back_off: BACK_OFF_MIN, lost: false, item: PhantomData }
    }

    /// The next event. Nothing is lost when the future is dropped: what was begun is begun again.
    pub async fn next(&mut self) -> WatchEvent<T> {
        loop {
            match &mut self.state {
                State::Unlisted => match self.list().await {
                    Ok((items, version)) => {
                        self.state = State::Idle { version: version.clone() };
                        self.lost = false;
                        return WatchEvent::Listed { items, resource_version: version };
                    }
                    Err(error) => return self.lost(error, None),
                },
                State::Idle { version } => {
                    let version = version.clone();
                    match self.cluster.open(self.watch_call(&version)).await {
                        Ok(body) => {
                            let (body, buffer) = (Box::new(body), BytesMut::new());
                            self.state = State::Streaming { version, body, buffer, since: Instant::now() };
                            if std::mem::take(&mut self.lost) {
                                return WatchEvent::Resumed;
                            }
                        }
                        Err(error) if error.class == ErrorClass::Expired => self.state = State::Unlisted,
                        Err(error) => return self.lost(error, Some(version)),
                    }
                }
                State::Streaming { .. } => {
                    if let Some(event) = self.read().await {
                        return event;
                    }
                }
                State::Waiting { until, version } => {
                    tokio::time::sleep_until(*until).await;
                    self.state = match version.take() {
                        Some(version) => State::Idle { version },
                        None => State::Unlisted,
                    };
                }
            }
        }
    }

    /// Reads up to the next line; `None` if the state changed or the line was none of the caller's business.
    async fn read(&mut self) -> Option<WatchEvent<T>> {
        let State::Streaming { version, body, buffer, since } = &mut self.state else { return None };
        if since.elapsed() >= LIVED {
            self.back_off = BACK_OFF_MIN;
        }
        let Some(end) = buffer.iter().position(|b| *b == b'\n') else {
            let lived = since.elapsed() >= LIVED;
            let ended = match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        buffer.extend_from_slice(&data);
                    }
                    if buffer.len() <= LINE_BYTES_MAX {
                        return None;
                    }
                    Some(ApiError::new(ErrorClass::Other, "the API server sent an object of more than 16 MiB"))
                }
                // the server ends watches regularly; too soon is a failure in disguise
                Ok(None) if lived => None,
                Ok(None) => Some(ApiError::new(ErrorClass::Unreachable, "the API server ended the watch at once")),
                Ok(Some(Err(e))) => Some(ApiError::new(ErrorClass::Unreachable, format!("the watch broke off: {e}"))),
                Err(_) => None,
            };
            let version = std::mem::take(version);
            return match ended {
                None => {
                    self.state = State::Idle { version };
                    None
                }
                Some(error) => Some(self.lost(error, Some(version))),
            };
        };
        let line = buffer.split_to(end);
        buffer.advance(1);
        if line.iter().all(u8::is_ascii_whitespace) {
            return None;
        }
        match serde_json::from_slice::<Line<T>>(&line) {
            Ok(Line(Told::Changed(item))) => {
                item.resource_version().clone_into(version);
                Some(WatchEvent::Changed(item))
            }
            Ok(Line(Told::Deleted(item))) => {
                item.resource_version().clone_into(version);
                Some(WatchEvent::Deleted(item))
            }
            Ok(Line(Told::Bookmark(at))) => {
                if !at.is_empty() {
                    *version = at;
                }
                None
            }
            Ok(Line(Told::Error(status))) => {
                let error = ApiError::from_watch(&status);
                if error.class == ErrorClass::Expired {
                    self.state = State::Unlisted;
                    return None;
                }
                let version = std::mem::take(version);
                Some(self.lost(error, Some(version)))
            }
            Ok(Line(Told::Unknown)) => None,
            // what can't be read can't be skipped either: it may be a deletion. List anew, not at once.
            Err(e) => {
                let text = format!("an event of the watch can't be read (column {})", e.column());
                Some(self.lost(ApiError::new(ErrorClass::Other, text), None))
            }
        }
    }

    fn lost(&mut self, error: ApiError, version: Option<String>) -> WatchEvent<T> {
        let retry_in = match error.class {
            ErrorClass::Throttled { retry_after: Some(after) } => after.max(self.back_off),
            // nothing but a person's act helps here, and a person then looks whether it has
            ErrorClass::Forbidden | ErrorClass::NoSuchKind | ErrorClass::NotFound => {
                jittered(self.back_off.clamp(REFUSED_MIN, REFUSED_MAX))
            }
            _ => jittered(self.back_off),
        };
        self.lost = true;
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
        self.state = State::Waiting { until: Instant::now() + retry_in, version };
        WatchEvent::Lost { error, retry_in }
    }

    /// All pages, and the version that the first of them was read at.
    async fn list(&mut self) -> Result<(Vec<T>, String), ApiError> {
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let accept = if self.collection.metadata_only { METADATA_LIST } else { JSON };
            let mut query = format!("limit={PAGE}");
            if !next.is_empty() {
                query.push_str("&continue=");
                query.push_str(&segment(&next));
            }
            let reply = self.cluster.call(self.call_for("list", &query, accept)).await?;
            let page: Page<T> = serde_json::from_slice(&reply.body).map_err(|e| {
                ApiError::new(ErrorClass::Other, format!("a list can't be read (column {})", e.column()))
            })?;
            items.extend(page.items);
            if items.len() > ITEMS_MAX {
                return Err(ApiError::new(
                    ErrorClass::Other,
                    format!("more than {ITEMS_MAX} objects in one collection"),
                ));
            }
            if page.metadata.next.is_empty() {
                return Ok((items, page.metadata.resource_version));
            }
            next = page.metadata.next;
        }
    }

    fn watch_call(&self, version: &str) -> Call {
        let accept = if self.collection.metadata_only { METADATA } else { JSON };
        let query = format!(
            "watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_S}&resourceVersion={}",
            segment(version)
        );
        self.call_for("watch", &query, accept)
    }

    fn call_for(&self, verb: &'static str, query: &str, accept: &'static str) -> Call {
        let Collection { kind, namespace, labels, fields, .. } = &self.collection;
        let namespace = namespace.as_deref().map(segment);
        let mut path = format!("{}?{query}", kind.collection(namespace.as_deref()));
        for (key, selector) in [("labelSelector", labels), ("fieldSelector", fields)] {
            if let Some(selector) = selector {
                path.push_str(&format!("&{key}={}", segment(selector)));
            }
        }
        Call { verb, resource: kind.resource(), method: Method::GET, path, accept, body: None }
    }
}

/// Within a fifth of what is said, so that all watches don't come back at the same moment.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.8..1.2))
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Page<T> {
    #[serde(default)]
    metadata: PageMetadata,
    // an empty list is `null` when an old Go server writes it
    #[serde(default = "Vec::new", deserialize_with = "null_is_empty")]
    items: Vec<T>,
}

fn null_is_empty<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PageMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

/// One line of a watch, its object decoded according to the line's type.
struct Line<T>(Told<T>);

enum Told<T> {
    Changed(T),
    Deleted(T),
    Bookmark(String),
    Error(Value),
    Unknown,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Line<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for Fields<T> {
            type Value = Line<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an event of a watch")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line<T>, A::Error> {
                use serde::de::Error;
                let mut kind: Option<String> = None;
                let mut told = None;
                let mut early: Option<Value> = None;
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "type" => kind = Some(map.next_value()?),
                        "object" => match &kind {
                            Some(kind) => told = Some(map.next_value_seed(Object::new(kind))?),
                            None => early = Some(map.next_value()?),
                        },
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let told = match (told, kind, early) {
                    (Some(told), ..) => told,
                    // Kubernetes writes the type first; JSON does not oblige anyone to
                    (None, Some(kind), Some(object)) => {
                        Object::new(&kind).deserialize(object).map_err(|e| A::Error::custom(e.to_string()))?
                    }
                    _ => return Err(A::Error::missing_field("object")),
                };
                Ok(Line(told))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

struct Object<'a, T>(&'a str, PhantomData<T>);

impl<'a, T> Object<'a, T> {
    fn new(kind: &'a str) -> Self {
        Self(kind, PhantomData)
    }
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Object<'_, T> {
    type Value = Told<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Told<T>, D::Error> {
        #[derive(Deserialize)]
        struct Bookmark {
            #[serde(default)]
            metadata: PageMetadata,
        }
        Ok(match self.0 {
            "ADDED" | "MODIFIED" => Told::Changed(T::deserialize(deserializer)?),
            "DELETED" => Told::Deleted(T::deserialize(deserializer)?),
            "BOOKMARK" => Told::Bookmark(Bookmark::deserialize(deserializer)?.metadata.resource_version),
            "ERROR" => Told::Error(Value::deserialize(deserializer)?),
            _ => {
                IgnoredAny::deserialize(deserializer)?;
                Told::Unknown
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::Body as Answer;
    use axum::extract::Request;
    use axum::http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::cluster::ClusterOptions;

    /// What the server does with the next request.
    enum Step {
        Say(u16, Value),
        /// Lines of a watch, and then its end.
        Stream(Vec<Value>),
    }

    /// A server that plays the steps in order and then goes silent; and the queries that it got.
    async fn server(steps: Vec<Step>) -> (Cluster, Arc<Mutex<Vec<String>>>) {
        let steps = Arc::new(Mutex::new(VecDeque::from(steps)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let queries = asked.clone();
        let app = Router::new().fallback(move |request: Request| {
            asked.lock().unwrap().push(request.uri().query().unwrap_or_default().to_owned());
            let step = steps.lock().unwrap().pop_front();
            async move {
                match step {
                    Some(Step::Say(code, body)) => {
                        (StatusCode::from_u16(code).unwrap(), Answer::from(body.to_string()))
                    }
                    Some(Step::Stream(lines)) => {
                        let text: String = lines.into_iter().map(|line| format!("{line}\n")).collect();
                        (StatusCode::OK, Answer::from(text))
                    }
                    None => std::future::pending().await,
                }
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = kube::Config::new(format!("http://{address}").parse().unwrap());
        config.default_retry = false;
        let client = kube::Client::try_from(config).unwrap();
        (Cluster::from_client(client, ClusterOptions::default()), queries)
    }

    fn watcher(cluster: Cluster) -> Watcher<Named> {
        let kind = ApiKind::new("", "v1", "ConfigMap", "configmaps", true);
        Watcher::new(cluster, Collection { labels: Some("a in (b,c)".into()), ..Collection::all(kind) })
    }

    fn object(name: &str, version: u64) -> Value {
        json!({"metadata": {"name": name, "namespace": "n", "resourceVersion": version.to_string()}})
    }

    fn list(version: u64, next: &str, names: &[&str]) -> Step {
        let items: Vec<Value> = names.iter().map(|name| object(name, version)).collect();
        Step::Say(200, json!({"metadata": {"resourceVersion": version.to_string(), "continue": next}, "items": items}))
    }

    fn line(kind: &str, name: &str, version: u64) -> Value {
        json!({"type": kind, "object": object(name, version)})
    }

    /// An event in a few words.
    async fn next(watcher: &mut Watcher<Named>) -> String {
        match tokio::time::timeout(Duration::from_secs(30), watcher.next()).await.expect("an event") {
            WatchEvent::Listed { items, resource_version } => {
                let names: Vec<String> = items.into_iter().map(|item| item.name).collect();
                format!("listed {} at {resource_version}", names.join(","))
            }
            WatchEvent::Changed(item) => format!("changed {}", item.name),
            WatchEvent::Deleted(item) => format!("deleted {}", item.name),
            WatchEvent::Resumed => "resumed".into(),
            WatchEvent::Lost { error, .. } => format!("lost: {}", error.message),
        }
    }

    #[tokio::test]
    async fn a_collection_is_listed_in_pages_and_then_watched_from_there() {
        let steps = vec![
            list(5, "more", &["a"]),
            list(5, "", &["b"]),
            Step::Stream(vec![line("ADDED", "c", 6), line("MODIFIED", "a", 7), line("DELETED", "b", 8)]),
        ];
        let (cluster, asked) = server(steps).await;
        let mut watcher = watcher(cluster);
        for expected in ["listed a,b at 5", "changed c", "changed a", "deleted b"] {
            assert_eq!(next(&mut watcher).await, expected);
        }
        let asked = asked.lock().unwrap();
        assert!(
            asked[0].contains("limit=500") && asked[0].ends_with("labelSelector=a%20in%20%28b%2Cc%29"),
            "{asked:?}"
        );
        assert!(asked[1].contains("continue=more") && asked[2].contains("resourceVersion=5"), "{asked:?}");
    }

    #[tokio::test]
    async fn a_connection_that_ends_is_resumed_from_the_last_version_seen() {
        let bookmark = json!({"object": {"metadata": {"resourceVersion": "9"}}, "type": "BOOKMARK"});
        let steps = vec![
            list(5, "", &[]),
            Step::Stream(vec![line("ADDED", "a", 6), bookmark]),
            Step::Say(503, json!({"message": "not now", "reason": "ServiceUnavailable"})),
            Step::Stream(vec![line("ADDED", "b", 10)]),
        ];
        let (cluster, asked) = server(steps).await;
        let mut watcher = watcher(cluster);
        assert_eq!(next(&mut watcher).await, "listed  at 5");
        assert_eq!(next(&mut watcher).await, "changed a");
        assert!(next(&mut watcher).await.starts_with("lost: the API server ended the watch"));
        assert_eq!(next(&mut watcher).await, "lost: not now");
        assert_eq!(next(&mut watcher).await, "resumed");
        assert_eq!(next(&mut watcher).await, "changed b");
        let asked = asked.lock().unwrap();
        assert!(asked[2..4].iter().all(|query| query.contains("resourceVersion=9")), "{asked:?}");
    }

    #[tokio::test]
    async fn only_a_lost_thread_leads_to_a_new_list() {
        let expired = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}});
        let unreadable = json!({"type": "ADDED", "object": {"metadata": {"name": ["not a name"]}}});
        let steps = vec![
            list(5, "", &["a"]),
            Step::Stream(vec![expired]),
            list(7, "more", &["a"]),
            list(7, "", &["b"]),
            Step::Say(410, json!({"message": "too old", "reason": "Expired"})),
            list(9, "", &["b"]),
            Step::Stream(vec![unreadable]),
            list(11, "", &["c"]),
        ];
        let (cluster, asked) = server(steps).await;
        let mut watcher = watcher(cluster);
        for expected in ["listed a at 5", "listed a,b at 7", "listed b at 9"] {
            assert_eq!(next(&mut watcher).await, expected);
        }
        let lists = asked.lock().unwrap().iter().filter(|query| query.contains("limit=500")).count();
        assert_eq!(lists, 4, "in pages, each time");
        assert!(next(&mut watcher).await.starts_with("lost: an event of the watch can't be read"));
        assert_eq!(next(&mut watcher).await, "listed c at 11");
    }

    #[tokio::test]
    async fn a_watch_that_never_lives_is_asked_for_less_and_less_often_whatever_it_says_before() {
        let garbled = || Step::Stream(vec![line("ADDED", "a", 6), json!("garbage")]);
        let steps = (0..8).flat_map(|_| [list(5, "", &[]), garbled()]).collect();
        let (cluster, _) = server(steps).await;
        let mut watcher = watcher(cluster);
        let mut pauses = Vec::new();
        while pauses.len() < 8 {
            if let WatchEvent::Lost { retry_in, .. } = watcher.next().await {
                pauses.push(retry_in.as_secs_f64());
            }
            // nobody waits for the end of it here
            if let State::Waiting { until, .. } = &mut watcher.state {
                *until = Instant::now();
            }
        }
        assert!(pauses[0] < 0.5 && pauses[4] > 2.0 && pauses[7] > 20.0, "{pauses:?}");
    }

    #[tokio::test]
    async fn what_is_forbidden_is_told_and_not_hammered_and_made_use_of_once_it_is_allowed() {
        let no = || {
            Step::Say(403, json!({"message": "configmaps is forbidden: User \"u\" cannot list", "reason": "Forbidden"}))
        };
        let steps = (0..8).map(|_| no()).chain([list(5, "", &["a"])]).collect();
        let (cluster, asked) = server(steps).await;
        let mut watcher = watcher(cluster);
        let mut pauses = Vec::new();
        let listed = loop {
            match watcher.next().await {
                WatchEvent::Lost { error, retry_in } => {
                    assert_eq!(error.class, ErrorClass::Forbidden);
                    pauses.push(retry_in.as_secs_f64());
                }
                WatchEvent::Listed { items, .. } => break items,
                _ => panic!("it can't be listed"),
            }
            // nobody waits for the end of it here
            if let State::Waiting { until, .. } = &mut watcher.state {
                *until = Instant::now();
            }
        };
        assert_eq!((listed.len(), asked.lock().unwrap().len()), (1, 9));
        assert!(pauses.iter().all(|pause| (1.6..=12.0).contains(pause)) && pauses[7] > 7.9, "{pauses:?}");
    }
}
