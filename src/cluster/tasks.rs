//! Tasks in the background that nobody awaits: the watches. One that panics would leave silence where news should be,
//! so it is told to whoever runs the daemon, who ends it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Starts tasks and remembers the first that panicked. Clones share that.
#[derive(Clone)]
pub struct Tasks(Arc<watch::Sender<Option<Died>>>);

/// A task of the daemon has panicked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{task} died: {message}")]
pub struct Died {
    pub task: String,
    pub message: String,
}

impl Default for Tasks {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Tasks {
    /// Starts a task; `name` is for the person who reads that it died. One that returns or is aborted is no trouble.
    pub fn spawn(&self, name: impl Into<String>, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let (name, died) = (name.into(), self.0.clone());
        let task = async move {
            // nothing of it is used after a panic: the daemon ends
            let Err(panic) = AssertUnwindSafe(work).catch_unwind().await else { return };
            let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
            let message = text.unwrap_or("it panicked without a message").to_owned();
            died.send_if_modified(|first| first.is_none() && first.replace(Died { task: name, message }).is_none());
        };
        tokio::spawn(task).abort_handle()
    }

    /// Returns once a task has panicked.
    pub async fn died(&self) -> Died {
        let mut died = self.0.subscribe();
        match died.wait_for(Option::is_some).await.ok().and_then(|first| first.clone()) {
            Some(first) => first,
            // the sender is our own: it is there as long as we are
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_task_that_panics_is_told_with_its_message_and_no_other() {
        let tasks = Tasks::default();
        tasks.spawn("one that returns", async {});
        tasks.spawn("one that is aborted", std::future::pending()).abort();
        let (text, formatted) = (tasks.clone(), 7);
        tasks.spawn("the watch of x", async move { panic!("no room for {formatted}") });
        let first = text.died().await;
        assert_eq!(first.to_string(), "the watch of x died: no room for 7");
        tasks.spawn("the watch of y", async { panic!("later") });
        tokio::task::yield_now().await;
        assert_eq!(tasks.died().await, first);
    }
}
