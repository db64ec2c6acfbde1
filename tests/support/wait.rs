//! Waiting for conditions: by a watch where an object is meant, by looking again where there is nothing to watch.

use std::fmt::Debug;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::api::{Api, ListParams, Resource, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;

/// Pause between two looks of [`eventually`].
const LOOK: Duration = Duration::from_millis(20);

/// Looks until `look` has found something; `None` after `timeout`.
pub async fn eventually<T>(timeout: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What was last seen of an object that didn't become what it should.
#[derive(Debug)]
pub struct NotInTime<K> {
    pub last: Option<K>,
}

/// Watches the object `name` until `done` says yes to what it is (`None`: there is no such object).
pub async fn watch_until<K>(
    api: &Api<K>,
    name: &str,
    timeout: Duration,
    mut done: impl FnMut(Option<&K>) -> bool,
) -> Result<Option<K>, NotInTime<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut last = None;
    let watch = async {
        loop {
            if let Ok(true) = watch_once(api, name, &mut last, &mut done).await {
                return;
            }
            // The server was not there, or ended the watch.
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(timeout, watch).await {
        Ok(()) => Ok(last),
        Err(_) => Err(NotInTime { last }),
    }
}

async fn watch_once<K>(
    api: &Api<K>,
    name: &str,
    last: &mut Option<K>,
    done: &mut impl FnMut(Option<&K>) -> bool,
) -> Result<bool, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let field = format!("metadata.name={name}");
    let list = api.list(&ListParams::default().fields(&field)).await?;
    let version = list.metadata.resource_version.unwrap_or_default();
    *last = list.items.into_iter().next();
    if done(last.as_ref()) {
        return Ok(true);
    }
    let mut events = pin!(api.watch(&WatchParams::default().fields(&field), &version).await?);
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => *last = Some(object),
            WatchEvent::Deleted(_) => *last = None,
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        }
        if done(last.as_ref()) {
            return Ok(true);
        }
    }
    Ok(false)
}
