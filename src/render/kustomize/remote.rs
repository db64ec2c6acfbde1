//! Bases in other repositories: what of an address is the repository, the revision, and the directory in it.
//!
//! Nothing is fetched here. A tree that the engine fetched is seen at [`RemoteBase::mount`] in the application's own
//! tree; where it isn't yet, rendering ends with [`RenderError::RemoteBase`](crate::render::RenderError::RemoteBase).

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::api::GoDuration;

/// Where trees of other repositories are seen. No repository has a reason to have a directory of this name.
const MOUNTS: &str = ".afresh-remote";
/// As long as kustomize waits.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(27);
/// Nobody waits longer for any repository.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// A full commit id.
const COMMIT_LENGTH: usize = 40;
const SSH: &str = "ssh://";
const SCHEMES: [&str; 4] = ["https://", "http://", SSH, "file://"];
const FILES: [&str; 3] = [".yaml", ".yml", ".json"];

/// A directory of another repository at a pinned revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteBase {
    /// Of the repository, without credentials: over ssh it names a user, and the key is somebody else's to give.
    pub url: String,
    pub pin: Pin,
    /// The directory in it.
    pub path: String,
    pub timeout: Duration,
}

/// What doesn't change by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// 40 hexadecimal digits.
    Commit(String),
    Tag(String),
}

impl Pin {
    pub fn text(&self) -> &str {
        match self {
            Self::Commit(text) | Self::Tag(text) => text,
        }
    }
}

impl std::fmt::Display for RemoteBase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}?ref={}", self.url, self.pin.text())
    }
}

impl RemoteBase {
    /// `None`: the text is a path. An error: it is an address, but none that can be fetched.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let address = without(address, "git::").unwrap_or(address);
        let scheme = SCHEMES.into_iter().find(|scheme| without(address, scheme).is_some());
        let rest = scheme.and_then(|scheme| without(address, scheme)).unwrap_or(address);
        let (user, rest) = user_of(rest);
        let is_github = without(rest, "github.com/").or_else(|| without(rest, "github.com:")).is_some();
        // without a scheme, only `user@host:path` is no file's name
        let is_short = user.is_some() && rest.find(['/', ':']).is_some_and(|at| rest[at..].starts_with(':'));
        if scheme.is_none() && !is_short && !is_github {
            return None;
        }
        Some(Self::read(scheme, user, rest, query))
    }

    fn read(scheme: Option<&str>, user: Option<&str>, rest: &str, query: &str) -> Result<Self, String> {
        let is_local = scheme == Some("file://");
        let is_ssh = scheme == Some(SSH) || (scheme.is_none() && user.is_some());
        let authority = rest.split('/').next().unwrap_or_default();
        if !is_local && (authority.contains('@') || (user.is_some() && !is_ssh)) {
            return Err("an address with credentials in it is never used".into());
        }
        let (start, path) = match scheme {
            Some("file://") => (format!("file://{}", user.map(|user| format!("{user}@")).unwrap_or_default()), rest),
            _ => {
                let end = if scheme.is_none() { rest.find(['/', ':']) } else { rest.find('/') };
                let end = end.filter(|end| *end > 0).ok_or("it names no repository")?;
                let (host, path) = (&rest[..end], rest[end + 1..].trim_start_matches('/'));
                let scheme = if is_ssh { SSH } else { scheme.unwrap_or("https://") };
                (format!("{scheme}{}{host}/", user.map(|user| format!("{user}@")).unwrap_or_default()), path)
            }
        };
        let parameter = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value).next()
        };
        let reference = parameter("ref").or_else(|| parameter("version"));
        let last = path.rsplit('/').next().unwrap_or_default();
        if reference.is_none() && FILES.iter().any(|ending| last.ends_with(ending)) {
            return Err("single files are not fetched".into());
        }
        let (repository, directory) = split(path, is_local)?;
        if directory.split('/').any(|part| part == "..") {
            return Err("its path leads out of the repository".into());
        }
        let pin = match reference {
            None => return Err("it names no revision, so what is built would change by itself".into()),
            Some(text) if text.len() == COMMIT_LENGTH && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Pin::Commit(text.to_ascii_lowercase())
            }
            Some(text) => Pin::Tag(text.to_owned()),
        };
        let timeout = match parameter("timeout") {
            Some(text) => duration(text).ok_or_else(|| format!("`timeout={text}` is no duration"))?,
            None => TIMEOUT_DEFAULT,
        };
        let url = format!("{start}{repository}");
        let path: Vec<&str> = directory.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        Ok(Self { url, pin, path: path.join("/"), timeout: timeout.min(TIMEOUT_MAX) })
    }

    /// Where the root of its repository is seen, the same for all directories of one revision.
    pub fn mount(&self) -> String {
        let digest = Sha256::digest(format!("{}\n{:?}", self.url, self.pin));
        format!("{MOUNTS}/{}", hex::encode(&digest[..10]))
    }
}

/// The tree of another repository that a path is in, if it is in one.
pub fn mount_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix(MOUNTS)?.strip_prefix('/')?;
    let end = name.find('/').unwrap_or(name.len());
    Some(&path[..MOUNTS.len() + 1 + end])
}

/// The user of an address, and the rest of it.
fn user_of(rest: &str) -> (Option<&str>, &str) {
    let is_name = |user: &str| {
        user.starts_with(|c: char| c.is_ascii_alphabetic())
            && user.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    match rest.split_once('@') {
        Some((user, rest)) if is_name(user) => (Some(user), rest),
        _ => (None, rest),
    }
}

fn without<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// Repository and directory: told apart by `_git/`, `//` or `.git`, else the first two names are the repository.
fn split(path: &str, is_local: bool) -> Result<(String, String), String> {
    let (repository, directory) = if let Some(at) = path.find("_git/") {
        let end = path[at + 5..].find('/').map_or(path.len(), |end| at + 5 + end);
        (&path[..end], &path[end..])
    } else if let Some((repository, directory)) = path.split_once("//") {
        (repository, directory)
    } else if let Some(at) = path.find(".git") {
        path.split_at(at + 4)
    } else if is_local {
        (path, "")
    } else {
        let names: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        match names[..] {
            [] => return Err("it names no repository".into()),
            [_] => (path, ""),
            [_, second, ..] => path.split_at(second),
        }
    };
    let repository = repository.trim_end_matches('/');
    if repository.is_empty() {
        return Err("it names no repository".into());
    }
    Ok((repository.to_owned(), directory.to_owned()))
}

/// Seconds, or as Go writes durations.
fn duration(text: &str) -> Option<Duration> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| Some(GoDuration::parse(text)?.0)).filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "0123456789012345678901234567890123456789";

    #[test]
    fn an_address_is_taken_apart_as_kustomize_does() {
        for (text, url, path, pin) in [
            ("https://host/org/repo//a/b?ref=v1", "https://host/org/repo", "a/b", "v1"),
            ("github.com/org/repo/a/b?ref=v1", "https://github.com/org/repo", "a/b", "v1"),
            ("github.com/org/repo?ref=v1&timeout=5", "https://github.com/org/repo", "", "v1"),
            ("https://host/deep/er/repo.git/a?version=v2", "https://host/deep/er/repo.git", "a", "v2"),
            ("https://dev.example/org/p/_git/repo/a?ref=v1", "https://dev.example/org/p/_git/repo", "a", "v1"),
            ("git::https://host/o/r//./a/?ref=v1&submodules=false", "https://host/o/r", "a", "v1"),
            ("file:///srv/repo//a?ref=v1", "file:///srv/repo", "a", "v1"),
            ("HTTPS://host/o/r/x.yaml?ref=v1", "https://host/o/r", "x.yaml", "v1"),
            ("github.com:org/repo/a?ref=v1", "https://github.com/org/repo", "a", "v1"),
            ("git@github.com/org/repo/a?ref=v1", "ssh://git@github.com/org/repo", "a", "v1"),
            ("git@host:org/repo/a/b?ref=v1", "ssh://git@host/org/repo", "a/b", "v1"),
            ("git@host:deep/er/repo.git/a?ref=v1", "ssh://git@host/deep/er/repo.git", "a", "v1"),
            ("git@host:/srv/repo//a?ref=v1", "ssh://git@host/srv/repo", "a", "v1"),
            ("git::ssh://me@host:2222/o/r//a?ref=v1", "ssh://me@host:2222/o/r", "a", "v1"),
            ("ssh://host/o/r?ref=v1", "ssh://host/o/r", "", "v1"),
        ] {
            let base = RemoteBase::parse(text).expect("an address").expect(text);
            assert_eq!((base.url.as_str(), base.path.as_str(), base.pin.text()), (url, path, pin), "{text}");
        }
        let pinned = RemoteBase::parse(&format!("https://h/o/r?ref={SHA}")).expect("an address").expect("pinned");
        assert_eq!(pinned.pin, Pin::Commit(SHA.into()));
    }

    #[test]
    fn the_time_that_may_be_waited_is_in_seconds_or_as_go_writes_durations() {
        for (text, millis) in
            [("5", 5_000), ("0.5m", 30_000), ("250ms", 250), ("1m30s", 60_000), ("5s", 5_000), ("1h", 60_000)]
        {
            let base = RemoteBase::parse(&format!("https://host/o/r?ref=v1&timeout={text}")).expect("an address");
            assert_eq!(base.expect(text).timeout, Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_fetched_says_why() {
        for (text, why) in [
            ("https://host/o/r", "names no revision"),
            ("https://host/o/r/x.yaml", "single files"),
            ("https://raw.example/o/r/main/x.yaml", "single files"),
            ("git@host:o/r", "names no revision"),
            ("ssh://git@host/o/r?version=", "names no revision"),
            ("ssh://git:secret@host/o/r?ref=v1", "credentials"),
            ("https://git@host/o/r?ref=v1", "credentials"),
            ("git@host:?ref=v1", "names no repository"),
            ("https://me:secret@host/o/r?ref=v1", "credentials"),
            ("https://host/o/r//../../x?ref=v1", "leads out"),
            ("https://host/o?ref=v1", "names no repository"),
            ("https://host/o/r?ref=v1&timeout=soon", "`timeout=soon`"),
            ("https://host/o/r?ref=v1&timeout=0", "`timeout=0`"),
        ] {
            let said = RemoteBase::parse(text).expect("an address").expect_err(text);
            assert!(said.contains(why), "{text}: {said}");
        }
        for path in ["../base", "a/b.yaml", "base", "a@b/c", "a@b/c:d", "github.computer/x"] {
            assert_eq!(RemoteBase::parse(path).map(|parsed| parsed.is_ok()), None, "{path}");
        }
    }

    #[test]
    fn directories_of_one_revision_share_a_tree() {
        let mount = |text: &str| RemoteBase::parse(text).expect("an address").expect(text).mount();
        assert_eq!(mount("https://h/o/r//a?ref=v1"), mount("https://h/o/r//b?ref=v1"));
        assert_ne!(mount("https://h/o/r//a?ref=v1"), mount("https://h/o/r//a?ref=v2"));
        let path = format!("{}/a/b", mount("https://h/o/r//a?ref=v1"));
        assert_eq!(mount_of(&path), Some(mount("https://h/o/r//a?ref=v1").as_str()));
        assert_eq!(mount_of("a/b"), None);
    }
}
