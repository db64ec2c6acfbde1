//! That something in a folder changed, told once for a burst.
//!
//! Comes in: what the file system tells. Goes out: a wake-up once it is quiet. What changed is not told: the folder is
//! read anew.

use std::path::Path;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Editors write a file in several steps; mounted ConfigMaps swap a link.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How long until what could not be used is looked at again, whether a change was told or not.
const RETRY: Duration = Duration::from_secs(5);

/// The changes of one folder, from the moment it is made.
pub(super) struct Changes {
    told: mpsc::Receiver<()>,
    _watcher: notify::RecommendedWatcher,
}

impl Changes {
    pub fn watch(folder: &Path, mode: RecursiveMode) -> notify::Result<Self> {
        // one place: a pending wake-up stands for all changes until it is taken
        let (sender, told) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // full: a wake-up is pending already
                let _ = sender.try_send(());
            }
        })?;
        watcher.watch(folder, mode)?;
        Ok(Self { told, _watcher: watcher })
    }

    /// Returns once the folder has changed and is quiet again, or, where the last reading `failed`, after a while.
    pub async fn next(&mut self, failed: bool) {
        let retry = async { if failed { tokio::time::sleep(RETRY).await } else { std::future::pending().await } };
        tokio::select! {
            Some(()) = self.told.recv() => {}
            () = retry => {}
        }
        tokio::time::sleep(DEBOUNCE).await;
        while self.told.try_recv().is_ok() {}
    }
}
