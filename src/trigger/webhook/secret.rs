//! The secrets that deliveries are checked with: from a file, or from the key `token` of a Secret. A change of either is
//! noticed when it happens; values are read when they are needed and go nowhere but into the check.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher as _};
use secrecy::{ExposeSecret, SecretSlice};
use tokio::sync::mpsc;

use super::known::{Known, Token};
use crate::api::Key;
use crate::cluster::{ApiKind, Cluster, Collection, Named, WatchEvent, Watcher};

/// The key of a Secret, as Flux's Receivers have it.
const TOKEN: &str = "token";
/// A file that is larger is the wrong one.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Mounted Secrets swap a link, editors write in several steps.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How long until a Secret that could not be read is asked for again.
const RETRY: Duration = Duration::from_secs(5);

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    #[error("can't read the webhook secret in `{}`: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the webhook secret in `{}` has more than {FILE_BYTES_MAX} bytes: is it the right file?", path.display())]
    TooLarge { path: PathBuf },
    /// Everybody knows the signature that an empty secret makes.
    #[error("the webhook secret in `{}` is empty", path.display())]
    Empty { path: PathBuf },
    #[error("can't watch the folder of `{}`: {source}", path.display())]
    Watch { path: PathBuf, source: notify::Error },
}

/// A file with a secret, watched.
pub struct SecretFile {
    path: PathBuf,
    changes: mpsc::Receiver<()>,
    _watcher: notify::RecommendedWatcher,
}

impl SecretFile {
    /// Opens and reads it; what is wrong with it at start is an error.
    pub fn open(path: &Path) -> Result<(Self, Token), SecretFileError> {
        // one place: a pending wake-up stands for all changes until it is taken
        let (sender, changes) = mpsc::channel(1);
        let watch = |source| SecretFileError::Watch { path: path.to_owned(), source };
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // full: a wake-up is pending already
                let _ = sender.try_send(());
            }
        })
        .map_err(watch)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        watcher.watch(folder, RecursiveMode::NonRecursive).map_err(watch)?;
        let token = read(path)?;
        Ok((Self { path: path.to_owned(), changes, _watcher: watcher }, token))
    }

    /// Keeps what is known current. A broken edit leaves the last good secret in force. Never ends.
    pub async fn follow(mut self, known: &Known) {
        while self.changes.recv().await.is_some() {
            tokio::time::sleep(DEBOUNCE).await;
            while self.changes.try_recv().is_ok() {}
            match read(&self.path) {
                Ok(token) if known.secret().is_some_and(|old| old.expose_secret() == token.expose_secret()) => {}
                Ok(token) => {
                    known.set_secret(Some(token));
                    tracing::info!(file = %self.path.display(), "the webhook secret has changed");
                }
                Err(error) => tracing::error!("{error}\nthe last good secret stays in force"),
            }
        }
        std::future::pending().await
    }
}

fn read(path: &Path) -> Result<Token, SecretFileError> {
    let failed = |source| SecretFileError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(SecretFileError::TooLarge { path: path.to_owned() });
    }
    let mut bytes = std::fs::read(path).map_err(failed)?;
    // an editor's last line end is not meant
    while bytes.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(SecretFileError::Empty { path: path.to_owned() });
    }
    Ok(Arc::new(SecretSlice::from(bytes)))
}

/// The token in a Secret, watched by name; of the watch only metadata come along.
pub struct SecretToken {
    cluster: Cluster,
    secret: Key,
    watcher: Watcher<Named>,
    /// It changed, or could not be read, and is to be read then.
    read_at: Option<Instant>,
}

impl SecretToken {
    pub fn new(cluster: &Cluster, secret: Key) -> Self {
        let collection = Collection {
            namespace: Some(secret.namespace.clone()),
            fields: Some(format!("metadata.name={}", secret.name)),
            metadata_only: true,
            ..Collection::all(ApiKind::secret())
        };
        let watcher = Watcher::new(cluster.clone(), collection);
        Self { cluster: cluster.clone(), secret, watcher, read_at: None }
    }

    pub fn secret(&self) -> &Key {
        &self.secret
    }

    /// The token as it is now, and again after each change; else why there is none. Nothing is lost if it is dropped
    /// while it waits.
    pub async fn next(&mut self) -> Result<Token, String> {
        loop {
            tokio::select! {
                event = self.watcher.next() => match event {
                    WatchEvent::Listed { .. } | WatchEvent::Changed(_) | WatchEvent::Deleted(_) => {
                        self.read_at = Some(Instant::now());
                    }
                    WatchEvent::Resumed => {}
                    WatchEvent::Lost { error, .. } => {
                        tracing::debug!(secret = %self.secret, %error, "a watch was lost");
                    }
                },
                read = read_then(&self.cluster, &self.secret, self.read_at) => {
                    self.read_at = None;
                    return match read {
                        Ok(token) => token,
                        Err(error) => {
                            self.read_at = Some(Instant::now() + RETRY);
                            Err(error)
                        }
                    };
                }
            }
        }
    }
}

/// The outer error passes by itself, the inner one with a change of the Secret.
async fn read_then(cluster: &Cluster, secret: &Key, at: Option<Instant>) -> Result<Result<Token, String>, String> {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => return std::future::pending().await,
    }
    let found = cluster.get_secret(&secret.namespace, &secret.name).await;
    let found = found.map_err(|error| format!("can't read Secret `{secret}`: {error}"))?;
    let Some(found) = found else { return Ok(Err(format!("Secret `{secret}` does not exist"))) };
    let token = found.data.get(TOKEN).filter(|token| !token.expose_secret().is_empty());
    Ok(match token {
        Some(token) => Ok(Arc::new(SecretSlice::from(token.expose_secret().to_vec()))),
        None => Err(format!("Secret `{secret}` has no key `{TOKEN}`, or it is empty")),
    })
}

/// Keeps the secret of `/webhook` current. Never ends.
pub async fn follow(cluster: &Cluster, secret: Key, known: &Known) {
    let mut token = SecretToken::new(cluster, secret);
    loop {
        match token.next().await {
            Ok(new) => {
                let changed = known.secret().is_none_or(|old| old.expose_secret() != new.expose_secret());
                known.set_secret(Some(new));
                if changed {
                    tracing::info!(secret = %token.secret(), "the webhook secret is known");
                }
            }
            // what was good stays good until there is something better: an API server that is away changes nothing
            Err(error) => tracing::warn!("no new webhook secret: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_the_secret_without_its_last_line_end_and_is_never_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (content, secret) in
            [("geheim\n", Some("geheim")), (" ge heim\r\n", Some(" ge heim")), ("", None), ("\n", None)]
        {
            std::fs::write(&path, content).unwrap();
            let read = read(&path);
            assert_eq!(read.as_ref().ok().map(|t| t.expose_secret().to_vec()), secret.map(|s| s.as_bytes().to_vec()));
            assert!(read.err().is_none_or(|error| error.to_string().contains("is empty")));
        }
        assert!(SecretFile::open(&folder.path().join("none")).err().unwrap().to_string().contains("none"));
    }
}
