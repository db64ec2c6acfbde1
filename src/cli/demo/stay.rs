//! After the story: everything stays up, for whoever wants to go on by hand.
//!
//! Prints how, then each change of a Ready condition as it happens, until Ctrl-C. Pushes into the repository are
//! announced to the daemon, as a forge's webhook would.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::screen::Screen;
use super::sight::{self, Sight};
use super::stage::{SOURCE, Stage};
use super::story;

pub async fn stay(stage: &Stage, screen: &mut Screen, cancel: &CancellationToken) -> anyhow::Result<()> {
    let clone = stage.folder().join(SOURCE);
    clone_repository(stage.repository(), &clone).await?;
    let (mut pushes, _watcher) = pushes(stage.repository())?;
    let (mut sources, mut applications) = (stage.sources().await, stage.applications().await);
    directions(stage, &clone, screen);
    let mut shown = Shown::default();
    let mut tip = stage.tip()?;
    loop {
        for line in shown.news(&sources).into_iter().chain(shown.news(&applications)) {
            screen.short_line(&line);
        }
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            _ = sources.change() => {}
            _ = applications.change() => {}
            Some(()) = pushes.recv() => {
                let newest = stage.tip()?;
                if newest != tip {
                    screen.line(&format!("\npushed: main is at {newest}"));
                    stage.announce().await?;
                    tip = newest;
                }
            }
        }
    }
}

fn directions(stage: &Stage, clone: &Path, screen: &mut Screen) {
    let lines = [
        String::new(),
        "Everything stays up: go on by hand. Break the platform and repair it, in a clone of its repository:".into(),
        String::new(),
        format!("  cd {}", clone.display()),
        format!("  {}", story::HOW_TO_BREAK),
        "  git commit -am B && git push".into(),
        "  git revert --no-edit HEAD && git push".into(),
        String::new(),
        "and look at it:".into(),
        String::new(),
        format!("  export KUBECONFIG={}", stage.kubeconfig().display()),
        "  kubectl get gitrepositories,kustomizations -A".into(),
        "  kubectl get pods -A".into(),
        String::new(),
        "Ready conditions are printed here as they change. Ctrl-C ends it all.".into(),
        String::new(),
    ];
    for line in lines {
        screen.line(&line);
    }
}

/// A working clone that can commit and push whoever its user is.
async fn clone_repository(bare: &Path, clone: &Path) -> anyhow::Result<()> {
    git(&["clone", "--quiet", &bare.display().to_string(), &clone.display().to_string()]).await?;
    let clone = clone.display().to_string();
    for (key, value) in [("user.name", "You"), ("user.email", "you@example.com")] {
        git(&["-C", &clone, "config", key, value]).await?;
    }
    Ok(())
}

async fn git(arguments: &[&str]) -> anyhow::Result<()> {
    let output = tokio::process::Command::new("git").args(arguments).output().await.context("can't run git")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`git {}` failed: {}", arguments.join(" "), said.trim());
    Ok(())
}

/// A message whenever a branch of the repository may have moved, for as long as the watcher lives.
fn pushes(bare: &Path) -> anyhow::Result<(mpsc::Receiver<()>, notify::RecommendedWatcher)> {
    // one place: a message that waits stands for all changes until it is taken
    let (sender, receiver) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let moved = |path: &std::path::PathBuf| path.extension().is_none_or(|extension| extension != "lock");
        if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(moved)) {
            // full: a message waits already
            let _ = sender.try_send(());
        }
    })?;
    watcher.watch(&bare.join("refs/heads"), RecursiveMode::NonRecursive)?;
    Ok((receiver, watcher))
}

/// The Ready conditions that were printed last, by kind and name.
#[derive(Default)]
struct Shown(BTreeMap<String, String>);

impl Shown {
    /// A line for each object whose Ready condition says something else than before.
    fn news(&mut self, sight: &Sight) -> Vec<String> {
        let mut lines = Vec::new();
        for object in sight.objects() {
            let Some(ready) = sight::ready(object) else { continue };
            let name = format!("{}/{}", sight.kind, sight::name(object));
            let text = format!("{name:<24} Ready={:<8} {}", ready.status, sight::first_line(&ready.message));
            if self.0.insert(name, text.clone()).as_ref() != Some(&text) {
                lines.push(text);
            }
        }
        lines
    }
}
