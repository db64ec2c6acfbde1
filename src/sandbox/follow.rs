//! Follows the objects of one kind: lists them, watches from there, and begins again where the server says so.
//!
//! In: an `Api`. Out: changes in the order of the server, beginning with everything there is. It never ends by itself
//! and never asks at intervals: a pause is only made after a failure.

use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, ListParams, Resource, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;

/// The first pause after a failure; it doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Long enough not to press a server that starts, short enough for a person who watches.
const LAST_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) enum Change<K> {
    /// Everything there is: what is missing here is gone.
    All(Vec<K>),
    Stored(K),
    Removed(K),
}

/// Tells `take_in` of every change, until the future is dropped.
pub(crate) async fn follow<K>(api: &Api<K>, mut take_in: impl FnMut(Change<K>)) -> Infallible
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut pause = FIRST_PAUSE;
    loop {
        if let Err(error) = list_and_watch(api, &mut take_in, &mut pause).await {
            tracing::debug!(url = api.resource_url(), %error, "the watch ended; listing again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

/// Ends with an error, or without one where the server asks for a new list.
async fn list_and_watch<K>(
    api: &Api<K>,
    take_in: &mut impl FnMut(Change<K>),
    pause: &mut Duration,
) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let list = api.list(&ListParams::default()).await?;
    let mut version = list.metadata.resource_version.unwrap_or_default();
    take_in(Change::All(list.items));
    loop {
        let mut events = pin!(api.watch(&WatchParams::default(), &version).await?);
        while let Some(event) = events.next().await {
            let change = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => Change::Stored(object),
                WatchEvent::Deleted(object) => Change::Removed(object),
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                // 410: the version is too old for the server's history.
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            };
            *pause = FIRST_PAUSE;
            if let Change::Stored(object) | Change::Removed(object) = &change
                && let Some(seen) = &object.meta().resource_version
            {
                version.clone_from(seen);
            }
            take_in(change);
        }
        // The server ends a watch after some minutes; at once only while it stops.
        tokio::time::sleep(FIRST_PAUSE).await;
    }
}
