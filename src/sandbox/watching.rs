//! Watch: the stream of changes, in the order they were made.
//!
//! A watcher holds a version and a wake-up signal, nothing else: it reads what it has not seen from the shared
//! changes. A slow client costs nothing but its own place in them, and is told to list again once that is gone.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use hyper::body::Frame;
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Printer};
use super::api::Api;
use super::reading::{Selection, read_version};
use super::refusal::{Cause, Refusal};
use super::request::{Request, View};
use super::store::{Change, ChangeKind, Changes, Stored};

/// Time between bookmarks, as the API server sends them.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without a timeout of its own ends after this to twice this.
const DEFAULT_TIMEOUT_SECONDS: u64 = 1800;
/// The annotation of the bookmark that ends a streamed list.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// A running watch; nothing but its stream uses it.
struct Watcher {
    api: Arc<Api>,
    request: Request,
    selection: Selection,
    printer: Printer,
    signal: watch::Receiver<u64>,
    /// Changes up to this version were sent.
    version: u64,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    shutdown: CancellationToken,
    /// What is sent before any change.
    pending: Option<Bytes>,
    over: bool,
}

/// Begins a watch.
pub fn start(
    api: &Arc<Api>,
    request: &Request,
    shutdown: CancellationToken,
) -> Result<impl Stream<Item = Result<Frame<Bytes>, Infallible>> + use<>, Refusal> {
    let selection = Selection::of(request)?;
    let query = &request.query;
    let bookmarks = query.flag("allowWatchBookmarks");
    let streamed_list = query.flag("sendInitialEvents");
    if streamed_list && query.get("resourceVersionMatch") != "NotOlderThan" {
        let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        let cause = Cause::forbidden("resourceVersionMatch", detail);
        return Err(Refusal::invalid_options("ListOptions", &cause));
    }
    let from = query.get("resourceVersion");
    let from = if from.is_empty() { 0 } else { read_version(from)? };
    let timeout = match query.get("timeoutSeconds").parse::<u64>() {
        Ok(seconds) if seconds > 0 => seconds,
        _ => DEFAULT_TIMEOUT_SECONDS + rand::rng().random_range(0..DEFAULT_TIMEOUT_SECONDS),
    };
    // subscribed before the list is read, so that no change falls between
    let signal = api.store.signal(&request.resource.collection);
    let mut watcher = Watcher {
        api: Arc::clone(api),
        selection,
        printer: Printer::new(request),
        signal,
        version: from,
        bookmarks,
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        ends: Instant::now() + Duration::from_secs(timeout),
        shutdown,
        pending: None,
        over: false,
        request: request.clone(),
    };
    if streamed_list || from == 0 {
        watcher.begin_with_everything(streamed_list && bookmarks);
    }
    Ok(futures::stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((Ok(Frame::data(chunk)), watcher))
    }))
}

impl Watcher {
    fn begin_with_everything(&mut self, end_mark: bool) {
        let (objects, version) = self.api.initial(&self.request, &self.selection);
        self.version = version;
        let mut out = BytesMut::new();
        for object in &objects {
            self.event(&mut out, "ADDED", object);
        }
        if end_mark {
            self.bookmark(&mut out, true);
        }
        if !out.is_empty() {
            self.pending = Some(out.freeze());
        }
    }

    /// The next bytes to send; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(pending) = self.pending.take() {
            return Some(pending);
        }
        loop {
            if self.over {
                return None;
            }
            self.signal.borrow_and_update();
            let mut out = BytesMut::new();
            match self.api.store.changes(&self.request.resource.collection, self.version) {
                Changes::TooOld(oldest) => {
                    let message = format!("too old resource version: {} ({oldest})", self.version);
                    line(&mut out, "ERROR", |out| {
                        out.put_slice(Refusal::expired(message).to_value().to_string().as_bytes())
                    });
                    self.over = true;
                    return Some(out.freeze());
                }
                Changes::Some(changes, version) => {
                    for change in &changes {
                        self.change(&mut out, change);
                    }
                    self.version = self.version.max(version);
                }
            }
            if !out.is_empty() {
                return Some(out.freeze());
            }
            tokio::select! {
                changed = self.signal.changed() => if changed.is_err() {
                    // the kind is no longer served
                    return None;
                },
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    self.bookmark(&mut out, false);
                    return Some(out.freeze());
                }
                () = tokio::time::sleep_until(self.ends) => return None,
                () = self.shutdown.cancelled() => return None,
            }
        }
    }

    /// An object that begins or ceases to match is added or deleted, whatever happened to it.
    fn change(&self, out: &mut BytesMut, change: &Change) {
        let matches = change.kind != ChangeKind::Deleted && self.selection.matches(&change.object);
        let before = change.previous.as_ref().filter(|previous| self.selection.matches(previous));
        match (before, matches) {
            (None, true) => self.event(out, "ADDED", &change.object),
            (Some(_), true) => self.event(out, "MODIFIED", &change.object),
            (Some(_), false) if change.kind == ChangeKind::Deleted => self.event(out, "DELETED", &change.object),
            (Some(previous), false) => {
                // the last state that matched, at the version at which it ceased to
                let last = Stored::at(previous.value.clone(), change.version);
                self.event(out, "DELETED", &last);
            }
            (None, false) => {}
        }
    }

    fn event(&self, out: &mut BytesMut, kind: &str, object: &Arc<Stored>) {
        line(out, kind, |out| self.printer.object(out, object));
    }

    fn bookmark(&self, out: &mut BytesMut, initial_end: bool) {
        let resource = &self.request.resource;
        let mut metadata = json!({ "resourceVersion": self.version.to_string(), "creationTimestamp": null });
        if initial_end {
            metadata["annotations"] = json!({ INITIAL_END: "true" });
        }
        let value: Value = match self.printer.view() {
            View::Whole => json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata }),
            View::Metadata => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
            }
            View::Table => answer::bookmark_table(resource, metadata),
        };
        line(out, "BOOKMARK", |out| out.put_slice(value.to_string().as_bytes()));
    }
}

fn line(out: &mut BytesMut, kind: &str, object: impl FnOnce(&mut BytesMut)) {
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    object(out);
    out.put_slice(b"}\n");
}
