//! The daemon of a scenario: a process of its own, or a runtime of its own in the process of the test.
//!
//! Both are told by the same command line and run the same `afresh::cli::daemon::run`. In the test's process a scenario
//! costs less; only a process shows what SIGTERM and SIGKILL do, and what the daemon uses.

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::canaries::Canaries;
use super::in_process::InProcess;
use super::process::Process;

/// The promise is 5 s; a machine that compiles beside the test gets some more.
pub const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// What is printed of the log when a test fails.
const TAIL_LINES: usize = 60;
/// `process` or `in-process`: where the daemon runs in scenarios that don't insist.
const CHOICE: &str = "AFRESH_TEST_RUNNER";

/// Where the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    Process,
    /// A process with no more than the Deployment's `securityContext` leaves it.
    Confined,
    InProcess,
}

impl Runner {
    /// As the environment says; in this process where it says nothing.
    ///
    /// # Panics
    /// When it says something else.
    pub fn chosen() -> Runner {
        match std::env::var(CHOICE).as_deref() {
            Ok("process") => Runner::Process,
            Ok("in-process") | Err(_) => Runner::InProcess,
            Ok(other) => panic!("{CHOICE}={other}: it is `process` or `in-process`"),
        }
    }
}

pub struct Daemon {
    running: Running,
    log: Log,
}

enum Running {
    Process(Process),
    InProcess(InProcess),
}

impl Daemon {
    /// Starts `afresh run` on a cluster for one namespace; for all if it is empty. `home` outlives restarts: the data dir
    /// is in it. `version` is another one than that of this build, which only a daemon in this process can have.
    pub fn start(
        runner: Runner,
        kubeconfig: &Path,
        namespace: &str,
        home: &Path,
        more: &[String],
        version: Option<&str>,
        canaries: &Canaries,
    ) -> anyhow::Result<Daemon> {
        std::fs::create_dir_all(home)?;
        let mut arguments: Vec<OsString> = vec!["--kubeconfig".into(), kubeconfig.into()];
        arguments.extend(["--data-dir".into(), home.join("data").into()]);
        if !namespace.is_empty() {
            arguments.extend(["--watch-namespace", namespace].map(OsString::from));
        }
        let fixed = ["--metrics-addr", "127.0.0.1:0", "--log-format", "json"];
        arguments.extend(fixed.map(OsString::from));
        arguments.extend(more.iter().map(OsString::from));
        let log = Log { canaries: canaries.clone(), ..Log::default() };
        let running = match runner {
            Runner::Process => Running::Process(Process::start(&arguments, home, &log)?),
            Runner::Confined => Running::Process(Process::start_confined(&arguments, home, &log)?),
            Runner::InProcess => Running::InProcess(InProcess::start(arguments, version, &log)?),
        };
        Ok(Daemon { running, log })
    }

    /// SIGTERM or what it leads to, and an orderly end; any other is an error.
    pub async fn stop(self) -> anyhow::Result<()> {
        let ended = match self.running {
            Running::Process(process) => process.stop().await,
            Running::InProcess(running) => running.stop().await,
        };
        ended.map_err(|error| error.context(self.log.tail()))
    }

    /// SIGKILL, or the same moment as far as one process can show it: nothing more is sent, nothing is finished.
    pub async fn kill(self) -> anyhow::Result<()> {
        match self.running {
            Running::Process(process) => process.kill().await,
            Running::InProcess(running) => running.kill().await,
        }
    }

    /// How it ended, if it has ended by itself: `Err` says why.
    pub fn ended(&mut self) -> Option<anyhow::Result<()>> {
        match &mut self.running {
            Running::Process(process) => process.ended(),
            Running::InProcess(running) => running.ended(),
        }
    }

    /// The id of its process, if it has one of its own.
    pub fn id(&self) -> Option<u32> {
        match &self.running {
            Running::Process(process) => process.id(),
            Running::InProcess(_) => None,
        }
    }

    /// Processor time used so far, in hundredths of a second; `None` where there is no `/proc`, or no process.
    pub fn cpu_ticks(&self) -> Option<u64> {
        match &self.running {
            Running::Process(process) => process.cpu_ticks(),
            Running::InProcess(_) => None,
        }
    }

    /// Every line so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// The first line of the log that holds `text`.
    pub fn said(&self, text: &str) -> Option<String> {
        self.log().into_iter().find(|line| line.contains(text))
    }

    /// What `/metrics`, `/healthz` or `/readyz` answers: the code and the text; `None` while nobody listens.
    pub async fn ask(&self, path: &str) -> Option<(u16, String)> {
        let line: serde_json::Value = serde_json::from_str(&self.said("serving /metrics")?).ok()?;
        let address = line["fields"]["address"].as_str().or(line["address"].as_str())?.to_owned();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().ok()?;
        let answer = client.get(format!("http://{address}{path}")).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Looks for what nobody may be told in something that it said elsewhere than in its log.
    pub fn look(&self, place: &str, text: &str) {
        self.log.canaries.look(place, text);
    }

    pub fn log_tail(&self) -> String {
        self.log.tail()
    }
}

/// What a daemon logged, line by line; its runner writes all that there is to write.
#[derive(Clone, Default)]
pub struct Log {
    kept: Arc<Mutex<Vec<String>>>,
    canaries: Canaries,
}

/// What is looked at and not kept: people who look for the cause of something don't see it either.
const NOT_KEPT: [&str; 2] = [r#""level":"TRACE""#, r#""level":"DEBUG""#];

impl Log {
    pub fn push(&self, line: String) {
        self.canaries.look("the log", &line);
        // the level stands at the beginning
        let head = line.get(..100).unwrap_or(&line);
        if !NOT_KEPT.iter().any(|level| head.contains(level)) {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    fn lines(&self) -> Vec<String> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tail(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}
