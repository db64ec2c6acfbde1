//! `afresh demo`: the story that the project exists for, played on real parts.
//!
//! ```text
//!  story (what breaks) ─▶ player (pushes, watches, measures) ─▶ outcome ─▶ screen (prints)
//!                           │
//!                         stage: the sandbox or a cluster · a Git repository over HTTP · the daemon, as `run` runs it
//! ```
//!
//! Commit A goes live. Then, for each way of being broken, commit B breaks the platform, the daemon says so on the
//! object's condition, and commit C repairs it; the time from C's push to the API server holding C is what is shown.
//! In the ninth chapter nothing is broken: a push that changes nothing but a Secret rolls what reads it.
//! Nothing here reaches into the daemon: it pushes, annotates and watches, as anyone can.

mod admission;
mod declare;
mod outcome;
mod platform;
mod player;
mod screen;
mod sight;
mod stage;
mod stay;
mod story;

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::logging;
use outcome::Summary;
use player::Player;
use screen::Screen;
use stage::Stage;
use story::Chapter;

/// A pause between two failures, so that a person can follow, and so that announced probes never wait for the daemon's
/// own limit of one a second (after a burst of five).
const PACE: Duration = Duration::from_millis(2000);
/// After this a daemon that was told to stop is left behind: it promises five seconds.
const STOP_MAX: Duration = Duration::from_secs(6);

#[derive(clap::Args, Debug)]
pub struct DemoArgs {
    /// End after the story; without it, everything stays up for you to go on
    #[arg(long)]
    exit: bool,
    /// `json` prints a summary for machines on stdout, and everything else on stderr
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    /// Play on this cluster, which should be one to throw away, instead of the sandbox
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Keep repository, kubeconfig and log in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Text,
    Json,
}

pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let interrupted = cancel.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                interrupted.cancel();
            }
        });
        demo(args, cancel).await
    });
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

/// Sets the stage, plays, and takes it down again, however the play ended.
async fn demo(args: &DemoArgs, cancel: CancellationToken) -> anyhow::Result<()> {
    let mut screen = Screen::new(args.output == Output::Json);
    screen.status("setting the stage");
    let mut stage = Stage::set(args.kubeconfig.as_deref(), args.keep.as_deref()).await?;
    logging::install_into(File::create(stage.log())?);
    screen.introduction(&stage);
    let daemon_stop = CancellationToken::new();
    let mut daemon = tokio::spawn(super::daemon::run(stage.daemon_config(), daemon_stop.clone()));
    let played = tokio::select! {
        played = play(args, &stage, &mut screen, &cancel) => played,
        ended = &mut daemon => Err(ended_early(ended)),
        () = cancel.cancelled() => Ok(()),
    };
    screen.clear_status();
    if !daemon.is_finished() {
        if let Err(error) = stage.clear().await {
            screen.line(&format!("The cluster could not be left as it was: {error:#}"));
        }
        daemon_stop.cancel();
        let _ = tokio::time::timeout(STOP_MAX, daemon).await;
    }
    if played.is_err() {
        stage.keep();
        screen.line(&format!("The daemon's log is kept: {}", stage.log().display()));
    }
    played
}

fn ended_early(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("the daemon ended by itself"),
        Ok(Err(error)) => error.context("the daemon ended"),
        Err(error) => anyhow::Error::new(error).context("the daemon ended"),
    }
}

async fn play(args: &DemoArgs, stage: &Stage, screen: &mut Screen, cancel: &CancellationToken) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut player = Player::new(stage).await?;
    screen.status("commit A is pushed");
    let first = player.go_live().await.context("commit A did not go live")?;
    screen.first(&first);
    let mut summary = Summary::new(stage, first);
    let mut unrolled = None;
    for chapter in story::chapters() {
        let next = tokio::time::sleep(PACE);
        match chapter {
            Chapter::Broken(failure) => match player.play(failure, screen).await {
                Ok(outcome) => {
                    screen.row(failure, &outcome);
                    summary.played(failure, outcome);
                }
                Err(error) => {
                    screen.stuck(failure, &error);
                    summary.stuck(failure, &error);
                    break;
                }
            },
            Chapter::Rotated => match player.rotate(screen).await {
                Ok(rotation) => {
                    screen.rotation(&rotation);
                    summary.rotation = Some(rotation);
                }
                Err(error) => {
                    unrolled = Some(error);
                    break;
                }
            },
        }
        next.await;
    }
    summary.finish(started.elapsed());
    screen.summary(&summary);
    if args.output == Output::Json {
        anstream::println!("{}", summary.to_json()?);
    }
    if let Some(error) = unrolled {
        return Err(error.context("a changed Secret did not roll the gateway"));
    }
    anyhow::ensure!(summary.repaired_all(), "not every failure was repaired");
    if !args.exit {
        stay::stay(stage, screen, cancel).await?;
    }
    Ok(())
}
