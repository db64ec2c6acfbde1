//! The daemon in the process of the test, on a runtime of its own as in a process: its threads write to a log of its
//! own, and all that it started ends with it.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::thread::JoinHandle;

use afresh::cli::{daemon, logging, run};
use anyhow::Context as _;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::dispatcher::{self, DefaultGuard, Dispatch};
use tracing_subscriber::fmt::MakeWriter;

use super::daemon::{Log, STOPS_WITHIN};

/// What is logged: as much as there is.
pub const EVERYTHING: &str = "trace";

pub struct InProcess {
    /// As SIGTERM.
    stop: CancellationToken,
    /// As SIGKILL.
    kill: CancellationToken,
    end: oneshot::Receiver<anyhow::Result<()>>,
    thread: Option<JoinHandle<()>>,
}

impl InProcess {
    /// What `afresh run` does with `arguments`, but for signals and where the log goes.
    pub fn start(arguments: Vec<OsString>, version: Option<&str>, log: &Log) -> anyhow::Result<InProcess> {
        let mut config = run::config(arguments)?;
        if let Some(version) = version {
            config.version = version.to_owned();
        }
        let log = Dispatch::new(logging::json(EVERYTHING, log.clone()));
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let (ended, end) = oneshot::channel();
        let (stopped, killed) = (stop.clone(), kill.clone());
        let thread = std::thread::Builder::new().name("daemon".to_owned()).spawn(move || {
            let runtime = runtime_logging_to(&log);
            let daemon = async {
                tokio::select! {
                    result = daemon::run(config, stopped) => result,
                    () = killed.cancelled() => Ok(()),
                }
            };
            let result = dispatcher::with_default(&log, || runtime.block_on(daemon));
            // a restart needs the data dir, which work on blocking threads may hold
            runtime.shutdown_timeout(STOPS_WITHIN);
            let _ = ended.send(result);
        })?;
        Ok(InProcess { stop, kill, end, thread: Some(thread) })
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let end = tokio::time::timeout(STOPS_WITHIN, &mut self.end).await;
        end.with_context(|| format!("the daemon did not stop within {STOPS_WITHIN:?}"))?
            .context("the daemon's thread panicked")?
    }

    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.kill.cancel();
        (&mut self.end).await.context("the daemon's thread panicked")?
    }

    pub fn ended(&mut self) -> Option<anyhow::Result<()>> {
        match self.end.try_recv() {
            Ok(result) => Some(result),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(anyhow::anyhow!("the daemon's thread panicked"))),
        }
    }
}

/// It may not outlive its cluster.
impl Drop for InProcess {
    fn drop(&mut self) {
        self.kill.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The runtime of `afresh run`; each of its threads has `log` as its subscriber as long as it lives.
fn runtime_logging_to(log: &Dispatch) -> runtime::Runtime {
    thread_local! {
        static SUBSCRIBER: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
    }
    let log = log.clone();
    runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || SUBSCRIBER.set(Some(dispatcher::set_default(&log))))
        .on_thread_stop(|| drop(SUBSCRIBER.take()))
        .build()
        .expect("a runtime")
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        Lines { log: self.clone(), text: Vec::new() }
    }
}

/// Collects what is written of one event; its lines are kept at the end.
pub struct Lines {
    log: Log,
    text: Vec<u8>,
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        String::from_utf8_lossy(&self.text).lines().for_each(|line| self.log.push(line.to_owned()));
    }
}
