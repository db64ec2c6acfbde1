//! Why a source could not be observed, and what kind of answer that deserves.

use std::time::Duration;

use git2::Oid;

use super::reference::{Reference, Revision};
use super::url::SourceUrl;

/// How to go on after a failure; [`super::pacing`] turns it into times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The server refuses these credentials: only new ones help.
    Auth,
    /// There is no such repository or commit: only another spec helps.
    NotFound,
    /// The server can't be reached: ask again soon.
    Unreachable,
    /// The attempt failed in a way that the next may not.
    Transient,
    /// It fails as long as the spec and the server stay as they are.
    Permanent,
    /// This commit can't be taken; whoever pushes another one doesn't wait.
    Commit,
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::NotFound => "not_found",
            Self::Unreachable => "unreachable",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Commit => "commit",
        }
    }
}

/// Why a probe or a snapshot failed. Cloneable, since concurrent callers share one request.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// No connection: name resolution, TCP, TLS, or a connection that broke.
    #[error("`{url}` is unreachable: {reason}")]
    Unreachable { url: SourceUrl, reason: String },
    /// 401 or 403.
    #[error("`{url}` refuses the credentials (HTTP {status})")]
    Unauthorized { url: SourceUrl, status: u16 },
    /// An ssh host shows another key than before.
    #[error("the host key of `{url}` is not the one in `known_hosts`: it shows `{fingerprint}`")]
    HostKeyChanged { url: SourceUrl, fingerprint: String },
    #[error("`known_hosts` has no key of the host of `{url}`")]
    HostKeyUnknown { url: SourceUrl },
    #[error("the host of `{url}` doesn't accept the key")]
    KeyRefused { url: SourceUrl },
    /// The private key can't be read or opened.
    #[error("`identity` of the Secret for `{url}` can't be used: {reason}")]
    Identity { url: SourceUrl, reason: &'static str },
    /// GitHub gives no token.
    #[error("GitHub gives no token for `{url}`: {reason}")]
    GitHubApp { url: SourceUrl, reason: String },
    /// 404 or 410, or a local path without a repository.
    #[error("there is no repository at `{url}`")]
    NotFound { url: SourceUrl },
    /// 429, or 503 with `Retry-After`.
    #[error("`{url}` asks for fewer requests (HTTP {status})")]
    RateLimited { url: SourceUrl, status: u16, retry_after: Option<Duration> },
    /// Any other 5xx.
    #[error("`{url}` failed to answer (HTTP {status})")]
    ServerFailure { url: SourceUrl, status: u16 },
    /// A redirect that would carry credentials elsewhere, or that leads in circles.
    #[error("`{url}` redirects to {to}, which is not followed")]
    Redirected { url: SourceUrl, to: String },
    #[error("`{url}` has no {reference}")]
    RefNotFound { url: SourceUrl, reference: Reference },
    /// The server doesn't give this commit: a pinned one was never there, another was dropped since its id was read.
    #[error("`{url}` doesn't give commit `{commit}`")]
    CommitNotFound { url: SourceUrl, commit: Oid, pinned: bool },
    /// `spec.sparseCheckout` names what the revision doesn't have.
    #[error("`{url}` has no directory `{paths}` at `{revision}`")]
    NoDirectory { url: SourceUrl, revision: Revision, paths: String },
    #[error("the repository `{url}` has no commits")]
    EmptyRepository { url: SourceUrl },
    /// The ref or pinned id names a tree or a blob.
    #[error("{reference} of `{url}` is not a commit")]
    NotACommit { url: SourceUrl, reference: Reference },
    /// The server speaks Git, but in a way that is not served.
    #[error("`{url}` can't be used: {reason}")]
    Unsupported { url: SourceUrl, reason: String },
    /// Something that is not Git's protocol, or an answer that broke off.
    #[error("`{url}` gave an answer that is not understood: {reason}")]
    Protocol { url: SourceUrl, reason: String },
    #[error("`{url}` sends more than the limit of {limit} {unit}")]
    TooLarge { url: SourceUrl, limit: u64, unit: &'static str },
    #[error("`{url}` took longer than {after:?} while {doing}")]
    Timeout { url: SourceUrl, after: Duration, doing: &'static str },
    /// Policies deny what the revision has.
    #[error("policies deny `{revision}`: {findings}")]
    Denied { url: SourceUrl, revision: Revision, findings: String },
    /// The caller took the attempt back.
    #[error("the work on `{url}` was cancelled")]
    Cancelled { url: SourceUrl },
    /// The object store on this machine: disk full, corrupted, vanished.
    #[error("the object store of `{url}` failed: {reason}")]
    Store { url: SourceUrl, reason: String },
}

impl SourceError {
    pub fn class(&self) -> Class {
        match self {
            SourceError::Unauthorized { .. }
            | SourceError::HostKeyChanged { .. }
            | SourceError::HostKeyUnknown { .. }
            | SourceError::KeyRefused { .. }
            | SourceError::Identity { .. }
            | SourceError::GitHubApp { .. } => Class::Auth,
            SourceError::NotFound { .. } | SourceError::CommitNotFound { pinned: true, .. } => Class::NotFound,
            SourceError::Unreachable { .. } | SourceError::ServerFailure { .. } | SourceError::Timeout { .. } => {
                Class::Unreachable
            }
            // The repository is there: a push is all it takes, and whoever pushes doesn't wait.
            SourceError::RefNotFound { .. }
            | SourceError::EmptyRepository { .. }
            | SourceError::NoDirectory { .. }
            | SourceError::RateLimited { .. }
            | SourceError::CommitNotFound { pinned: false, .. }
            | SourceError::Protocol { .. }
            | SourceError::Cancelled { .. }
            | SourceError::Store { .. } => Class::Transient,
            SourceError::Denied { .. } => Class::Commit,
            SourceError::Redirected { .. }
            | SourceError::NotACommit { .. }
            | SourceError::Unsupported { .. }
            | SourceError::TooLarge { .. } => Class::Permanent,
        }
    }

    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            SourceError::RateLimited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            SourceError::Unauthorized { .. } => {
                "check the Secret that `spec.secretRef` names: it needs `username` and `password`, or `bearerToken`"
            }
            SourceError::HostKeyChanged { .. } => {
                "compare the fingerprint with the one that the host publishes: if they are equal, replace the host's line in \
                 `known_hosts` of the Secret (`ssh-keyscan HOST` shows it); if not, somebody is listening in between"
            }
            SourceError::HostKeyUnknown { .. } => {
                "add the host's line to `known_hosts` of the Secret: `ssh-keyscan HOST` shows it, with `-p PORT` if it has \
                 one; compare it with the fingerprint that the host publishes"
            }
            SourceError::KeyRefused { .. } => {
                "register the public half of `identity` with the host, with leave to read the repository"
            }
            SourceError::GitHubApp { .. } => {
                "check `githubAppID`, `githubAppInstallationID` and `githubAppPrivateKey` of the Secret"
            }
            SourceError::NotFound { .. } => "check `spec.url`; some hosts answer so to missing or wrong credentials",
            SourceError::RefNotFound { reference: Reference::Branch(name), .. }
                if name == super::reference::DEFAULT_BRANCH =>
            {
                "`spec.ref.branch` defaults to `master`: set it if the repository uses another branch"
            }
            SourceError::RefNotFound { .. } => "check `spec.ref`, or push it",
            SourceError::Redirected { .. } => "set `spec.url` to the address it leads to",
            SourceError::NoDirectory { .. } => "check `spec.sparseCheckout`, or push the directory",
            SourceError::EmptyRepository { .. } => "push a first commit",
            SourceError::Denied { .. } => "push a commit without it; the last good revision stays in force",
            SourceError::Timeout { .. } => "raise `spec.timeout` if the repository is large",
            SourceError::TooLarge { .. } => "keep large files out of the repository",
            SourceError::Store { reason, .. } => return storage_hint(reason),
            _ => return None,
        })
    }
}

/// The words of the system (strerror(3), which no locale changes here) inside of libgit2's and our own.
fn storage_hint(reason: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if says(&["No space left on device", "File too large", "quota exceeded", "Quota exceeded"]) {
        Some("make room in the folder of `--data-dir`; it is tried again by itself")
    } else if says(&["Read-only file system", "Permission denied", "Not a directory", "Operation not permitted"]) {
        Some("the folder of `--data-dir` must be writable; it is tried again by itself")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_the_disk_says_leads_to_what_to_do() {
        let url = SourceUrl::parse("https://example.com/x").unwrap();
        // ENOSPC, EFBIG, EROFS, EACCES, EIO
        let cases = [(28, Some("room")), (27, Some("room")), (30, Some("writable")), (13, Some("writable")), (5, None)];
        for (number, word) in cases {
            let reason = format!("cannot extend packfile: {}", io::Error::from_raw_os_error(number));
            let error = SourceError::Store { url: url.clone(), reason };
            assert_eq!(error.hint().is_some(), word.is_some(), "{error}");
            assert!(word.is_none_or(|word| error.hint().is_some_and(|hint| hint.contains(word))), "{error}");
            assert_eq!(error.class(), Class::Transient);
        }
    }
}
