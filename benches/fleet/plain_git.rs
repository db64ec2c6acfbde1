//! What the real git needs to keep up with a repository: the limit for whoever follows one.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::process::Command;

/// A copy without history, which takes in the newest commit when it is told to.
pub struct PlainGit {
    folder: PathBuf,
    url: String,
}

impl PlainGit {
    pub async fn copy(url: String, folder: PathBuf) -> anyhow::Result<Self> {
        let copy = Self { folder, url };
        std::fs::create_dir_all(&copy.folder)?;
        copy.run(&["init", "--quiet", "--bare", "."]).await?;
        copy.fetch().await?;
        Ok(copy)
    }

    /// Gives the time that it took.
    pub async fn fetch(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let branch = "+refs/heads/main:refs/heads/main";
        self.run(&["fetch", "--quiet", "--no-auto-maintenance", "--depth", "1", &self.url, branch]).await?;
        Ok(began.elapsed())
    }

    async fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let git = Command::new("git")
            .args(arguments)
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", path)
            .env("HOME", &self.folder)
            .output()
            .await?;
        ensure!(git.status.success(), "git {}: {}", arguments[0], String::from_utf8_lossy(&git.stderr));
        Ok(())
    }
}
