//! What a person at `kubectl get -w` sees: the objects of one kind, and each change as it comes.
//!
//! In: a collection of the API server. Out: objects, with the moment at which this process was told of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::timeout_at;

use crate::api::READY;
use crate::cluster::{ApiKind, Cluster, Collection, WatchEvent, Watcher};

/// What is not seen by then counts as never.
pub const BOUND: Duration = Duration::from_secs(60);

/// What was waited for in vain.
#[derive(Clone, Debug)]
pub struct Stuck {
    pub waited_for: String,
    pub bound: Duration,
    /// The daemon's own words on the object that it is about.
    pub said: String,
}

impl std::fmt::Display for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = if self.said.is_empty() { "nothing" } else { &self.said };
        write!(f, "not within {} s: {}; the daemon says: {said}", self.bound.as_secs(), self.waited_for)
    }
}

impl std::error::Error for Stuck {}

/// One watch, and what it has shown so far.
pub struct Sight {
    /// The kind, as kubectl takes it.
    pub kind: String,
    watcher: Watcher<Value>,
    objects: BTreeMap<String, Value>,
}

impl Sight {
    /// Opens the watch: returns once the collection was listed.
    pub async fn of(cluster: &Cluster, kind: ApiKind, namespace: &str) -> Self {
        let lower = kind.kind.to_lowercase();
        let collection = Collection { namespace: Some(namespace.to_owned()), ..Collection::all(kind) };
        let mut sight =
            Self { kind: lower, watcher: Watcher::new(cluster.clone(), collection), objects: BTreeMap::new() };
        while !sight.change().await {}
        sight
    }

    /// Waits until an object passes the test; gives it and the moment it was seen. `what` is waited for in words.
    pub async fn until(
        &mut self,
        name: &str,
        what: &str,
        mut test: impl FnMut(&Value) -> bool,
    ) -> Result<(Value, Instant), Stuck> {
        let deadline = tokio::time::Instant::now() + BOUND;
        loop {
            if let Some(object) = self.objects.get(name).filter(|object| test(object)) {
                return Ok((object.clone(), Instant::now()));
            }
            if timeout_at(deadline, self.change()).await.is_err() {
                return Err(Stuck { waited_for: what.to_owned(), bound: BOUND, said: said_of(self.get(name)) });
            }
        }
    }

    /// Waits until there is no such object.
    pub async fn until_gone(&mut self, name: &str) -> Result<(), Stuck> {
        let deadline = tokio::time::Instant::now() + BOUND;
        while let Some(object) = self.objects.get(name) {
            let said = said_of(object);
            if timeout_at(deadline, self.change()).await.is_err() {
                return Err(Stuck { waited_for: format!("`{name}` is gone"), bound: BOUND, said });
            }
        }
        Ok(())
    }

    /// As it was last seen; `null` if there is no such object.
    pub fn get(&self, name: &str) -> &Value {
        self.objects.get(name).unwrap_or(&Value::Null)
    }

    pub fn objects(&self) -> impl Iterator<Item = &Value> {
        self.objects.values()
    }

    /// Waits for the next change; true if the whole collection was listed.
    pub async fn change(&mut self) -> bool {
        match self.watcher.next().await {
            WatchEvent::Listed { items, .. } => {
                self.objects = items.into_iter().map(|object| (name(&object), object)).collect();
                return true;
            }
            WatchEvent::Changed(object) => {
                self.objects.insert(name(&object), object);
            }
            WatchEvent::Deleted(object) => {
                self.objects.remove(&name(&object));
            }
            WatchEvent::Resumed | WatchEvent::Lost { .. } => {}
        }
        false
    }
}

/// All that an object's conditions say, in one line.
pub fn said_of(object: &Value) -> String {
    let said = conditions(object).filter(|condition| !condition.message.is_empty());
    let lines: Vec<_> = said.map(|c| format!("{}={} {}", c.kind, c.status, first_line(&c.message))).collect();
    lines.join("; ")
}

pub fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

pub fn name(object: &Value) -> String {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// One condition of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub kind: String,
    pub status: String,
    pub message: String,
}

pub fn conditions(object: &Value) -> impl Iterator<Item = Said> {
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.map(move |condition| Said {
        kind: text(condition, "type"),
        status: text(condition, "status"),
        message: text(condition, "message"),
    })
}

/// The condition that people look at.
pub fn ready(object: &Value) -> Option<Said> {
    conditions(object).find(|condition| condition.kind == READY)
}

pub fn is_ready(object: &Value) -> bool {
    ready(object).is_some_and(|ready| ready.status == "True")
}

/// True if the condition says so, rather than nothing or that something is under way.
pub fn is_unready(object: &Value) -> bool {
    ready(object).is_some_and(|ready| ready.status == "False")
}

/// True once the object is Ready at a revision and the daemon says that the cluster holds it.
pub fn is_applied(object: &Value, revision: &str) -> bool {
    is_ready(object) && object.pointer("/status/lastAppliedRevision").and_then(Value::as_str) == Some(revision)
}
