//! A working copy in which trees of other repositories are seen, once a render asked for them and it is allowed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::directory::DirectoryTree;
use crate::engine::bases::{BASES_MAX, Bases, TreeWithBases};
use crate::manifest::Tree;
use crate::render::{Failed, RemoteBase, RenderError, Rendered};
use crate::source::credentials::SshKey;
use crate::source::{DataDir, RemoteOptions, Remotes};

/// Whether other repositories are fetched, and with what.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct BasesArgs {
    /// Fetch what kustomizations name in other Git repositories, as `afresh run --allow-remote-bases` does
    #[arg(long)]
    allow_remote_bases: bool,
    /// File with the private key for those that are named by `ssh://` or `git@host:path`
    #[arg(long, value_name = "FILE", requires = "ssh_known_hosts")]
    ssh_identity: Option<PathBuf>,
    /// File with the host keys that are trusted, as `~/.ssh/known_hosts`
    #[arg(long, value_name = "FILE", requires = "ssh_identity")]
    ssh_known_hosts: Option<PathBuf>,
}

/// What to do about a base that is named by ssh.
const NO_KEY: &str = "give `--ssh-identity FILE` and `--ssh-known-hosts FILE`, or copy it into the repository";

pub struct WorkingCopy {
    tree: TreeWithBases,
    args: BasesArgs,
    /// Made when the first is fetched. The folder goes last: the trees are read from it.
    fetching: Option<Fetching>,
}

struct Fetching {
    remotes: Remotes,
    runtime: tokio::runtime::Runtime,
    key: Option<SshKey>,
    _folder: TempDir,
}

/// Why nothing is shown.
pub enum Refused {
    Render(Box<Failed>),
    /// Another repository can't be had.
    Fetch(String),
}

impl WorkingCopy {
    pub fn new(tree: DirectoryTree, args: BasesArgs) -> Self {
        let tree = TreeWithBases { tree: Arc::new(tree), bases: Bases::default() };
        Self { tree, args, fetching: None }
    }

    /// Renders, and again with what a render lacked.
    pub fn render(&mut self, render: impl Fn(&dyn Tree) -> Result<Rendered, Failed>) -> Result<Rendered, Refused> {
        let mut fetched = 0;
        loop {
            let failed = match render(&self.tree) {
                Ok(rendered) => return Ok(rendered),
                Err(failed) => failed,
            };
            match &failed.error {
                RenderError::RemoteBase { base, .. } if self.args.allow_remote_bases && fetched < BASES_MAX => {
                    self.fetch(base).map_err(Refused::Fetch)?;
                    fetched += 1;
                }
                _ => return Err(Refused::Render(Box::new(failed))),
            }
        }
    }

    fn fetch(&mut self, base: &RemoteBase) -> Result<(), String> {
        if self.fetching.is_none() {
            self.fetching = Some(Fetching::new(&self.args).map_err(|error| format!("can't fetch `{base}`: {error}"))?);
        }
        let Some(fetching) = &self.fetching else { return Ok(()) };
        let key = fetching.key.as_ref().ok_or(NO_KEY);
        let commit = fetching.runtime.block_on(self.tree.bases.fetch(&fetching.remotes, base, key))?;
        tracing::info!(%base, commit, "a remote base is pinned");
        Ok(())
    }
}

impl Fetching {
    fn new(args: &BasesArgs) -> anyhow::Result<Self> {
        let key = match (&args.ssh_identity, &args.ssh_known_hosts) {
            (Some(identity), Some(known_hosts)) => Some(key(identity, known_hosts)?),
            _ => None,
        };
        let folder = tempfile::tempdir()?;
        let remotes = Remotes::new(
            DataDir::open(folder.path())?,
            RemoteOptions { allow_local_sources: true, ..RemoteOptions::default() },
        );
        Ok(Self { remotes, runtime: tokio::runtime::Runtime::new()?, key, _folder: folder })
    }
}

fn key(identity: &Path, known_hosts: &Path) -> anyhow::Result<SshKey> {
    let read = |file: &Path| {
        std::fs::read_to_string(file).map_err(|error| anyhow::anyhow!("`{}` can't be read: {error}", file.display()))
    };
    let key = SshKey { identity: read(identity)?.into(), password: None, known_hosts: read(known_hosts)? };
    key.check().map_err(|why| anyhow::anyhow!("`{}` is no private key that can be used: {why}", identity.display()))?;
    Ok(key)
}
