//! Counts rollouts exactly: every change of a workload's pod template, as a watch from before the first one tells.

use std::collections::BTreeMap;
use std::pin::pin;

use futures::StreamExt;
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::env::Env;

const KINDS: [(&str, &str); 4] = [
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
];

/// The rollouts of a scenario's namespace.
pub struct Rollouts {
    counted: watch::Receiver<Counted>,
    /// Ends with this.
    _watches: JoinSet<()>,
}

/// By kind and name.
type Counted = BTreeMap<(&'static str, String), Counting>;

#[derive(Clone)]
struct Counting {
    version: String,
    template: Value,
    times: usize,
}

impl Rollouts {
    /// Counts from now on; what is there counts as it is.
    pub async fn count(env: &Env) -> Self {
        let (counting, counted) = watch::channel(Counted::new());
        let mut watches = JoinSet::new();
        for (kind, path) in KINDS {
            let api = env.objects(kind);
            let list = api.list(&ListParams::default()).await.expect("workloads can be listed");
            for object in &list.items {
                counting.send_modify(|counted| note(counted, kind, path, object));
            }
            let version = list.metadata.resource_version.unwrap_or_default();
            watches.spawn(follow(api, kind, path, version, counting.clone()));
        }
        Self { counted, _watches: watches }
    }

    /// How often the workload was rolled since it was made, up to what it is now.
    pub async fn of(&self, env: &Env, kind: &str, name: &str) -> usize {
        env.eventually("the watch has told what there is", async || {
            let live = env.live(kind, name).await.expect("it is there");
            self.counting(kind, name)
                .filter(|counting| live["metadata"]["resourceVersion"] == counting.version.as_str())
                .map(|counting| counting.times)
        })
        .await
    }

    /// Waits until the workload was rolled so often, and not more often.
    pub async fn until(&self, env: &Env, kind: &str, name: &str, times: usize) {
        let what = format!("{kind}/{name} is rolled {times} times");
        let now = env.eventually(&what, async || self.seen(kind, name).filter(|now| *now >= times)).await;
        assert_eq!(now, times, "{kind}/{name}");
    }

    /// As far as the watch has told.
    pub fn seen(&self, kind: &str, name: &str) -> Option<usize> {
        self.counting(kind, name).map(|counting| counting.times)
    }

    fn counting(&self, kind: &str, name: &str) -> Option<Counting> {
        let counted = self.counted.borrow();
        counted.iter().find(|((k, n), _)| *k == kind && n == name).map(|(_, counting)| counting.clone())
    }
}

async fn follow(
    api: Api<DynamicObject>,
    kind: &'static str,
    path: &'static str,
    mut version: String,
    counting: watch::Sender<Counted>,
) {
    loop {
        let stream = api.watch(&WatchParams::default(), &version).await.expect("workloads can be watched");
        let mut events = pin!(stream);
        // one that ends goes on where it ended; one that can't would miss rollouts
        while let Some(Ok(event)) = events.next().await {
            let (WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) = &event
            else {
                assert!(!matches!(event, WatchEvent::Error(_)), "{event:?}");
                continue;
            };
            version = object.metadata.resource_version.clone().unwrap_or_default();
            counting.send_modify(|counted| {
                if matches!(event, WatchEvent::Deleted(_)) {
                    counted.remove(&(kind, object.metadata.name.clone().unwrap_or_default()));
                } else {
                    note(counted, kind, path, object);
                }
            });
        }
    }
}

fn note(counted: &mut Counted, kind: &'static str, path: &str, object: &DynamicObject) {
    let template = json!(object).pointer(path).cloned().unwrap_or_default();
    let version = object.metadata.resource_version.clone().unwrap_or_default();
    let key = (kind, object.metadata.name.clone().unwrap_or_default());
    let times = counted.get(&key).map_or(0, |before| before.times + usize::from(before.template != template));
    counted.insert(key, Counting { version, template, times });
}
