//! The data folder: locked by one process, with a private folder for each remote in it.
//!
//! ```text
//!  data/lock    held by the process
//!  data/key     for the names below: nobody reads a URL or a credential off them
//!  data/ssh/…   keys of ssh while a connection is being made; emptied at start
//!  data/git/<keyed hash of URL, credentials, CA>/…      generations, see `cache`
//! ```
//!
//! Nothing in it is needed: it may be deleted whenever no process uses it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::credentials::Access;
use super::git::ssh::clean_folder;
use super::url::SourceUrl;

/// Folders of remotes that nobody asked for in this time are removed at start.
const UNUSED_MAX: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The data folder of this process. The lock is held as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    key: [u8; 32],
    /// Locked.
    lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds the lock; its id, if it could be read.
    #[error("the data folder `{}` is in use by another process{}\nhint: stop that one, or choose another folder with `--data-dir`", path.display(), in_words(*pid))]
    InUse { path: PathBuf, pid: Option<u32> },
    #[error("the data folder `{}` can't be written: {source}\nhint: choose another folder with `--data-dir`", path.display())]
    NotWritable { path: PathBuf, source: io::Error },
}

fn in_words(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (id {pid})"))
}

impl DataDir {
    /// Makes the folder if need be and locks it. What crashed processes left behind is removed.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let failed = |source| DataDirError::NotWritable { path: path.to_owned(), source };
        make_dir(path).map_err(failed)?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(DataDirError::InUse { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(failed)?;
        let key = read_or_make_key(&path.join("key")).map_err(failed)?;
        make_dir(&path.join("git")).map_err(failed)?;
        clean_folder(&path.join("ssh")).map_err(failed)?;
        let data = DataDir { path: path.to_owned(), key, lock };
        data.remove_unused();
        Ok(data)
    }

    /// The folder of a remote. Its name is a keyed hash: two remotes that differ in URL, credentials or CA share none.
    pub(super) fn remote_folder(&self, url: &SourceUrl, access: &Access) -> PathBuf {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        let mut field = |bytes: &[u8]| {
            mac.update(&(bytes.len() as u64).to_be_bytes());
            mac.update(bytes);
        };
        field(url.to_string().as_bytes());
        access.fields().for_each(&mut field);
        let name = hex::encode(&mac.finalize().into_bytes()[..16]);
        self.path.join("git").join(name)
    }

    /// Where private files may lie for a moment.
    pub(super) fn ssh_folder(&self) -> PathBuf {
        self.path.join("ssh")
    }

    fn remove_unused(&self) {
        for folder in subfolders(&self.path.join("git")) {
            let used = fs::metadata(&folder).and_then(|metadata| metadata.modified());
            let age = used.map(|used| SystemTime::now().duration_since(used).unwrap_or_default());
            if age.is_ok_and(|age| age > UNUSED_MAX) {
                remove(&folder);
            }
        }
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child process that was forked a moment ago.
        let _ = self.lock.unlock();
    }
}

fn read_or_make_key(path: &Path) -> io::Result<[u8; 32]> {
    if let Ok(bytes) = fs::read(path)
        && let Ok(key) = bytes.try_into()
    {
        return Ok(key);
    }
    let key: [u8; 32] = rand::random();
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(&key)?;
    Ok(key)
}

pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What remains after a failure is removed at the next start.
pub(super) fn remove(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
}

pub(super) fn subfolders(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::source::credentials::{Use, from_secret};

    #[test]
    fn a_data_folder_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataDir::open(&path).unwrap();
        fs::create_dir(first.ssh_folder().join("key-left")).unwrap();
        fs::write(first.ssh_folder().join("key-left/identity"), "by a process that was killed").unwrap();
        let error = DataDir::open(&path).unwrap_err();
        assert!(matches!(error, DataDirError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
        drop(first);
        let second = DataDir::open(&path).unwrap();
        assert_eq!(fs::read_dir(second.ssh_folder()).unwrap().count(), 0, "no key outlives its process for long");
    }

    #[test]
    fn a_path_below_a_file_is_not_writable() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = DataDir::open(&folder.path().join("file").join("data")).unwrap_err();
        assert!(matches!(error, DataDirError::NotWritable { .. }), "{error}");
    }

    #[test]
    fn folders_of_remotes_are_private_told_apart_by_access_and_the_same_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let url = SourceUrl::parse("https://example.com/secret-project").unwrap();
        let access = |entries: &[(&str, &str)]| {
            let data = entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
            from_secret(&data, Use::Http).unwrap()
        };
        let accesses = [
            access(&[]),
            access(&[("username", "a"), ("password", "bc")]),
            access(&[("username", "ab"), ("password", "c")]),
            access(&[("bearerToken", "abc")]),
        ];
        let names = || {
            let data = DataDir::open(folder.path()).unwrap();
            accesses.iter().map(|access| data.remote_folder(&url, access)).collect::<Vec<_>>()
        };
        let first = names();
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), accesses.len());
        assert_eq!(first, names());
        assert!(first.iter().all(|path| !path.display().to_string().contains("secret")));

        let elsewhere = tempfile::tempdir().unwrap();
        let other = DataDir::open(elsewhere.path()).unwrap().remote_folder(&url, &accesses[0]);
        assert_ne!(other.file_name(), first[0].file_name(), "the hash is keyed");
    }
}
