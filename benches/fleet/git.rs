//! The real git: it keeps repositories as a forge does, and what it needs to keep up with one is the limit for others.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// A copy without history, which takes in the newest commit when it is told to.
pub struct Copy {
    folder: PathBuf,
    url: String,
}

impl Copy {
    pub async fn of(url: String, folder: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        run(&folder, &["init", "--quiet", "--bare", "."])?;
        let copy = Self { folder, url };
        copy.fetch().await?;
        Ok(copy)
    }

    /// Gives the time that it took.
    pub async fn fetch(&self) -> anyhow::Result<Duration> {
        let (folder, url) = (self.folder.clone(), self.url.clone());
        let fetch = move || {
            let branch = "+refs/heads/main:refs/heads/main";
            let began = Instant::now();
            run(&folder, &["fetch", "--quiet", "--no-auto-maintenance", "--depth", "1", &url, branch])?;
            Ok(began.elapsed())
        };
        // this process serves the repository meanwhile
        tokio::task::spawn_blocking(fetch).await?
    }
}

/// Puts what is new into a pack, as a forge does with a push of many objects.
pub fn pack(repository: &Path) -> anyhow::Result<()> {
    run(repository, &["repack", "-d", "-q"])
}

/// As [`pack`], for what can't be compressed.
pub fn pack_noise(repository: &Path) -> anyhow::Result<()> {
    run(repository, &["repack", "-a", "-d", "-q", "--window=0"])
}

fn run(folder: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let git = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", folder)
        .output()
        .context("start git")?;
    ensure!(git.status.success(), "git {}: {}", arguments.join(" "), String::from_utf8_lossy(&git.stderr));
    Ok(())
}
