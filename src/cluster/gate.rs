//! One write in flight per object.
//!
//! Comes in: a write to one object. Goes out: its answer. A write runs in a task of its own, so that who asked may go
//! away without stopping it half way; a newer write to the same object queues behind it. None is sent once the fence is
//! shut: another replica leads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::manifest::ObjectId;

use super::fence::Fence;

/// Orders the writes to each object. Clones share the order.
#[derive(Clone, Default)]
pub struct WriteGate(Arc<Shared>);

type Listener = Box<dyn Fn(&ObjectId) + Send + Sync>;

#[derive(Default)]
struct Shared {
    /// Objects that are written to or waited for; written by `write` only.
    objects: Mutex<HashMap<ObjectId, Queue>>,
    tasks: TaskTracker,
    fence: Fence,
    /// Rung whenever an object has no write queued or running any more.
    at_rest: Notify,
    /// Told whenever an object has no write in flight any more.
    listeners: Mutex<Vec<Listener>>,
}

#[derive(Default)]
struct Queue {
    /// Closes when the last write in the queue is done.
    tail: Option<oneshot::Receiver<()>>,
    /// Writes queued or running.
    writes: usize,
    /// Writes running: 0 or 1.
    running: usize,
}

/// The write was not sent: its attempt was cancelled while it queued, another replica leads, or the process is going down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled before it was sent")]
pub struct Abandoned;

impl WriteGate {
    /// A gate whose writes are dropped when the fence is shut by the time of their turn.
    pub fn behind(fence: Fence) -> Self {
        Self(Arc::new(Shared { fence, ..Shared::default() }))
    }

    /// Runs a write when it is this one's turn. Dropping the future doesn't stop a write that has begun; one that
    /// still queues is dropped if `cancel` was cancelled by then.
    pub async fn write<T, F>(&self, id: &ObjectId, cancel: &CancellationToken, write: F) -> Result<T, Abandoned>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        // the place in the queue is taken here, not when the task first runs
        let (entry, before) = Entry::new(self.0.clone(), id.clone());
        let (cancel, fence) = (cancel.clone(), self.0.fence.clone());
        let task = self.0.tasks.spawn(async move {
            if let Some(before) = before {
                // an error is what is waited for: the one before has left
                let _ = before.await;
            }
            if cancel.is_cancelled() || fence.admit().is_err() {
                return Err(Abandoned);
            }
            let _running = Running::new(&entry);
            Ok(write.await)
        });
        match task.await {
            Ok(answer) => answer,
            // a write that dies is a fault of ours, not of its caller's plan
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Abandoned),
        }
    }

    /// True while a write to the object was sent and not answered: what is seen of it may be older than our answer.
    pub fn in_flight(&self, id: &ObjectId) -> bool {
        self.0.objects().get(id).is_some_and(|queue| queue.running > 0)
    }

    /// Waits until none of these objects has a write queued or running; new ones are still taken.
    pub async fn quiet(&self, ids: &[ObjectId]) {
        loop {
            let at_rest = self.0.at_rest.notified();
            tokio::pin!(at_rest);
            // from here on nothing is missed
            at_rest.as_mut().enable();
            if !ids.iter().any(|id| self.0.objects().contains_key(id)) {
                return;
            }
            at_rest.await;
        }
    }

    /// Calls `listener` whenever a write to an object has been answered. It must not block.
    pub fn on_answer(&self, listener: impl Fn(&ObjectId) + Send + Sync + 'static) {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    /// Waits until all writes have been answered; new ones are still taken.
    pub async fn idle(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.tasks.reopen();
    }
}

impl Shared {
    fn objects(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectId, Queue>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue of one object, given up when dropped.
struct Entry {
    shared: Arc<Shared>,
    id: ObjectId,
    _done: oneshot::Sender<()>,
}

impl Entry {
    /// Also returns what closes when the write before this one is done.
    fn new(shared: Arc<Shared>, id: ObjectId) -> (Self, Option<oneshot::Receiver<()>>) {
        let (done, tail) = oneshot::channel();
        let before = {
            let mut objects = shared.objects();
            let queue = objects.entry(id.clone()).or_default();
            queue.writes += 1;
            queue.tail.replace(tail)
        };
        (Self { shared, id, _done: done }, before)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut objects = self.shared.objects();
        if let Some(queue) = objects.get_mut(&self.id) {
            queue.writes = queue.writes.saturating_sub(1);
            if queue.writes == 0 {
                objects.remove(&self.id);
                self.shared.at_rest.notify_waiters();
            }
        }
    }
}

/// Marks the object as written to, until dropped: also when the write panics.
struct Running<'a>(&'a Entry);

impl<'a> Running<'a> {
    fn new(entry: &'a Entry) -> Self {
        entry.shared.objects().entry(entry.id.clone()).or_default().running += 1;
        Self(entry)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(queue) = self.0.shared.objects().get_mut(&self.0.id) {
            queue.running = queue.running.saturating_sub(1);
        }
        for listener in self.0.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            listener(&self.0.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot;

    fn id() -> ObjectId {
        ObjectId::new("", "ConfigMap", "a", "b")
    }

    #[tokio::test]
    async fn dropping_who_asked_does_not_stop_the_write_and_a_newer_one_queues_behind() {
        let gate = WriteGate::default();
        let cancel = CancellationToken::new();
        let (started, has_started) = oneshot::channel();
        let (finish, may_finish) = oneshot::channel::<()>();
        let order = Arc::new(Mutex::new(Vec::new()));
        let answered = Arc::new(AtomicUsize::new(0));
        let count = answered.clone();
        gate.on_answer(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });

        let first = order.clone();
        let write = async move {
            started.send(()).unwrap();
            may_finish.await.unwrap();
            first.lock().unwrap().push("old");
        };
        let object = id();
        let mut asked = Box::pin(gate.write(&object, &cancel, write));
        tokio::select! {
            _ = &mut asked => panic!("can't be done yet"),
            started = has_started => started.unwrap(),
        }
        drop(asked);
        assert!(gate.in_flight(&id()));

        let second = order.clone();
        let newer = tokio::spawn({
            let (gate, cancel) = (gate.clone(), cancel.clone());
            async move { gate.write(&id(), &cancel, async move { second.lock().unwrap().push("new") }).await }
        });
        finish.send(()).unwrap();
        newer.await.unwrap().unwrap();
        assert_eq!(*order.lock().unwrap(), ["old", "new"]);
        assert_eq!(answered.load(Ordering::SeqCst), 2);
        gate.idle().await;
        assert!(!gate.in_flight(&id()));
    }

    #[tokio::test]
    async fn an_object_is_quiet_once_all_its_writes_were_answered_whatever_others_do() {
        let gate = WriteGate::default();
        let (finish, may_finish) = oneshot::channel::<()>();
        let write = |gate: &WriteGate, id: ObjectId, work: oneshot::Receiver<()>| {
            let gate = gate.clone();
            tokio::spawn(async move { gate.write(&id, &CancellationToken::new(), async { work.await.is_ok() }).await })
        };
        let other = ObjectId::new("", "ConfigMap", "a", "other");
        let (_never, unanswered) = oneshot::channel::<()>();
        write(&gate, other.clone(), unanswered);
        let written = write(&gate, id(), may_finish);
        while !gate.in_flight(&id()) {
            tokio::task::yield_now().await;
        }
        let ids = [id()];
        let mut quiet = Box::pin(gate.quiet(&ids));
        assert!(futures::poll!(&mut quiet).is_pending());
        finish.send(()).unwrap();
        quiet.await;
        assert!(written.await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn a_queued_write_whose_attempt_was_cancelled_is_not_sent() {
        let gate = WriteGate::default();
        let cancel = CancellationToken::new();
        cancel.cancel();
        assert_eq!(gate.write(&id(), &cancel, async { 1 }).await, Err(Abandoned));
        assert_eq!(gate.write(&id(), &CancellationToken::new(), async { 1 }).await, Ok(1));
    }

    #[tokio::test]
    async fn a_queued_write_is_not_sent_once_another_replica_leads() {
        let fence = Fence::shut();
        let gate = WriteGate::behind(fence.clone());
        let cancel = CancellationToken::new();
        assert_eq!(gate.write(&id(), &cancel, async { 1 }).await, Err(Abandoned));
        fence.extend(std::time::Duration::from_secs(60), std::time::Duration::from_secs(60));
        assert_eq!(gate.write(&id(), &cancel, async { 1 }).await, Ok(1));
    }
}
