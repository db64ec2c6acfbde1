//! A server with one repository, and a process's remotes on a data folder of their own.

#[expect(dead_code, reason = "shared with other test binaries, which use the rest")]
#[path = "../support/forward_proxy.rs"]
pub mod forward_proxy;
#[expect(dead_code, reason = "shared with other test binaries, which use the rest")]
#[path = "../support/sshd.rs"]
pub mod sshd;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use afresh::manifest::Tree;
use afresh::sandbox::git_server::GitServer;
use afresh::sandbox::repository::TestRepository;
use afresh::source::credentials::{Use, from_secret};
use afresh::source::{Access, DataDir, Reference, Remote, RemoteOptions, Remotes, Snapshot, SourceError, SourceUrl};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; tests of deadlines use their own.
pub const TIMEOUT: Duration = Duration::from_secs(30);

pub struct World {
    pub folder: TempDir,
    pub repository: TestRepository,
    pub server: GitServer,
    pub remotes: Remotes,
}

pub fn main_branch() -> Reference {
    Reference::Branch("main".to_owned())
}

pub fn install_tls() {
    // Another test may have been faster.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl World {
    pub fn new() -> World {
        Self::with_options(RemoteOptions::default())
    }

    pub fn with_options(options: RemoteOptions) -> World {
        install_tls();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("git")).unwrap();
        let repository = TestRepository::create(&folder.path().join("git/platform.git")).unwrap();
        let server = GitServer::start(&folder.path().join("git")).unwrap();
        let remotes = Remotes::new(DataDir::open(&folder.path().join("data")).unwrap(), options);
        World { folder, repository, server, remotes }
    }

    /// The process ends, and another one starts on the same data folder.
    pub fn restart(self) -> World {
        self.restart_with(RemoteOptions::default())
    }

    pub fn restart_with(self, options: RemoteOptions) -> World {
        let World { folder, repository, server, remotes } = self;
        drop(remotes);
        let data = DataDir::open(&folder.path().join("data")).unwrap();
        World { folder, repository, server, remotes: Remotes::new(data, options) }
    }

    pub fn url(&self) -> SourceUrl {
        SourceUrl::parse(&self.server.url("platform.git")).unwrap()
    }

    pub fn remote(&self) -> Arc<Remote> {
        self.remote_as(&[])
    }

    pub fn remote_as(&self, secret: &[(&str, &str)]) -> Arc<Remote> {
        self.remotes.get(&self.url(), &access(secret)).unwrap()
    }

    /// The folders of generations, over all remotes.
    pub fn generations(&self) -> Vec<PathBuf> {
        let folders = |path: PathBuf| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        folders(self.folder.path().join("data/git")).flat_map(folders).collect()
    }

    pub fn packs(&self) -> usize {
        let packs = |folder: &PathBuf| std::fs::read_dir(folder.join("objects/pack")).unwrap().count() / 2;
        self.generations().iter().map(packs).sum()
    }
}

pub fn access(secret: &[(&str, &str)]) -> Access {
    let data: BTreeMap<_, _> =
        secret.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
    from_secret(&data, Use::Http).unwrap()
}

pub async fn observe(remote: &Arc<Remote>, reference: &Reference) -> Result<Snapshot, SourceError> {
    let revision = remote.probe(reference, TIMEOUT).await?;
    remote.snapshot(reference, &revision, None, TIMEOUT, CancellationToken::new()).await
}

pub fn read(snapshot: &Snapshot, path: &str) -> Option<String> {
    let bytes = snapshot.read(path, 1024 * 1024).unwrap()?;
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

pub fn names(snapshot: &Snapshot, path: &str) -> Vec<String> {
    snapshot.list(path).unwrap().unwrap().into_iter().map(|entry| entry.name).collect()
}

/// An error as a person sees it, without this test's address.
pub fn message(error: &SourceError, world: &World) -> String {
    error.to_string().replace(&world.url().to_string(), "URL")
}
