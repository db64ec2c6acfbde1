//! Bases in other repositories: what of an address is the repository, the revision, and the directory in it.
//!
//! Nothing is fetched here. A tree that the engine fetched is seen at [`RemoteBase::mount`] in the application's own
//! tree; where it isn't yet, rendering ends with [`RenderError::RemoteBase`](crate::render::RenderError::RemoteBase).

use std::time::Duration;

use sha2::{Digest, Sha256};

/// Where trees of other repositories are seen. No repository has a reason to have a directory of this name.
const MOUNTS: &str = ".afresh-remote";
/// As long as kustomize waits.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(27);
/// Nobody waits longer for any repository.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// A full commit id.
const COMMIT_LENGTH: usize = 40;
const SCHEMES: [&str; 4] = ["https://", "http://", "ssh://", "file://"];
const FILES: [&str; 3] = [".yaml", ".yml", ".json"];

/// A directory of another repository at a pinned revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteBase {
    /// Of the repository, without credentials.
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
        let user = rest.split_once('@').filter(|(user, _)| {
            user.starts_with(|c: char| c.is_ascii_alphabetic())
                && user.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        });
        // without a scheme, only `user@host:path` is no file's name
        let user = user.filter(|_| scheme.is_some() || rest.contains(':'));
        let is_github = without(rest, "github.com/").or_else(|| without(rest, "github.com:")).is_some();
        if scheme.is_none() && user.is_none() && !is_github {
            return None;
        }
        Some(Self::read(scheme, rest, user.is_some(), query))
    }

    fn read(scheme: Option<&str>, rest: &str, has_user: bool, query: &str) -> Result<Self, String> {
        let is_ssh = scheme == Some("ssh://") || (scheme.is_none() && (has_user || rest.contains("github.com:")));
        if is_ssh {
            return Err("it would be fetched over ssh, for which there is no key here".into());
        }
        let authority = rest.split('/').next().unwrap_or_default();
        if scheme != Some("file://") && authority.contains('@') {
            return Err("an address with credentials in it is never used".into());
        }
        let (host, path) = match scheme {
            Some("file://") => (String::new(), rest),
            _ => match rest.split_once('/') {
                Some((host, path)) if !host.is_empty() => (format!("{host}/"), path),
                _ => return Err("it names no repository".into()),
            },
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
        let (repository, directory) = split(path, scheme == Some("file://"))?;
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
        let url = format!("{}{host}{repository}", scheme.unwrap_or("https://"));
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
    if let Ok(seconds) = text.parse::<u64>() {
        return (seconds > 0).then(|| Duration::from_secs(seconds));
    }
    for (unit, seconds) in [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            let number: f64 = number.parse().ok()?;
            return Duration::try_from_secs_f64(number * seconds).ok().filter(|duration| !duration.is_zero());
        }
    }
    None
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
        ] {
            let base = RemoteBase::parse(text).expect("an address").expect(text);
            assert_eq!((base.url.as_str(), base.path.as_str(), base.pin.text()), (url, path, pin), "{text}");
        }
        let pinned = RemoteBase::parse(&format!("https://h/o/r?ref={SHA}")).expect("an address").expect("pinned");
        assert_eq!(pinned.pin, Pin::Commit(SHA.into()));
    }

    #[test]
    fn what_can_not_be_fetched_says_why() {
        for (text, why) in [
            ("https://host/o/r", "names no revision"),
            ("https://host/o/r/x.yaml", "single files"),
            ("https://raw.example/o/r/main/x.yaml", "single files"),
            ("git@host:o/r?ref=v1", "over ssh"),
            ("ssh://git@host/o/r?ref=v1", "over ssh"),
            ("https://me:secret@host/o/r?ref=v1", "credentials"),
            ("https://host/o/r//../../x?ref=v1", "leads out"),
            ("https://host/o?ref=v1", "names no repository"),
            ("https://host/o/r?ref=v1&timeout=soon", "`timeout=soon`"),
        ] {
            let said = RemoteBase::parse(text).expect("an address").expect_err(text);
            assert!(said.contains(why), "{text}: {said}");
        }
        for path in ["../base", "a/b.yaml", "base", "a@b/c", "github.computer/x"] {
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
