//! The address of a Git repository: text in, a parsed address out that never shows what it must not.
//!
//! A user name and password in a URL are kept, but neither `Display` nor `Debug` shows them, and no error repeats the
//! text that was refused.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

/// Longer addresses are a mistake or an attack; Git hosts stay far below.
const URL_BYTES_MAX: usize = 2_048;

/// Schemes of Git and of Flux's other sources, which an error may name; other words before a colon may be a user name.
const KNOWN_SCHEMES: [&str; 9] = ["git", "git+ssh", "git+https", "git+http", "ftp", "ftps", "rsync", "oci", "s3"];

/// Whom Git hosts expect.
const SSH_USER: &str = "git";

/// Cheap to clone: it is in every error.
#[derive(Clone)]
pub struct SourceUrl(Arc<Address>);

struct Address {
    location: Location,
    /// User name and password that were written into the URL.
    userinfo: Option<(SecretString, SecretString)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `http` or `https`, without userinfo, query, fragment and trailing slashes.
    Http(Url),
    Ssh(SshAddress),
    /// A repository on this machine: bare or with a worktree.
    Local(PathBuf),
}

/// Of what `ssh` gets as arguments, nothing can be taken for an option or for a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAddress {
    pub user: String,
    pub host: String,
    /// `None`: ssh's own.
    pub port: Option<u16>,
    /// Decoded; absolute, or below a home folder (`~user/…`).
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("the repository URL is empty")]
    Empty,
    #[error("the repository URL is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    #[error("`{scheme}` repositories are not served yet: they come with a later version; use `https` or `ssh`")]
    LaterVersion { scheme: &'static str },
    #[error("the scheme of the repository URL is not one of `http`, `https`, `ssh`, `file`")]
    UnknownScheme,
    /// `git@host:path`, which Flux refuses, too.
    #[error("the repository URL has no scheme: `git@host:path` is written `ssh://git@host/path`")]
    ShortSsh,
    #[error("the {part} of an ssh URL must not be empty, begin with `-`, or have other than letters, digits and `._-`")]
    SshPart { part: &'static str },
    #[error("an ssh URL must not hold a password: the key is in the Secret of `spec.secretRef`")]
    SshPassword,
    #[error("the repository URL is malformed: {reason}")]
    Malformed { reason: String },
    #[error("a repository path must be absolute")]
    RelativePath,
    #[error("the repository URL has a query or a fragment")]
    QueryOrFragment,
    #[error("a `file` URL can't name another host")]
    RemoteFile,
}

impl SourceUrl {
    pub fn parse(text: &str) -> Result<SourceUrl, UrlError> {
        if text.is_empty() {
            return Err(UrlError::Empty);
        }
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::TooLong);
        }
        if text.starts_with('/') {
            return Ok(Self::new(Location::Local(PathBuf::from(text)), None));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            // `git@host:path` is ssh in short; anything else without a scheme is a relative path.
            let before_colon = text.split(['/', '?']).next().is_some_and(|first| first.contains(':'));
            return Err(if before_colon { UrlError::ShortSsh } else { UrlError::RelativePath });
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => Self::parse_http(text),
            "ssh" => Self::parse_ssh(text),
            "file" => Self::parse_file(rest),
            other => Err(KNOWN_SCHEMES
                .iter()
                .find(|known| **known == other)
                .map_or(UrlError::UnknownScheme, |scheme| UrlError::LaterVersion { scheme })),
        }
    }

    /// The API of a forge, whose address was checked already.
    pub(super) fn api(base: &Url) -> SourceUrl {
        Self::new(Location::Http(base.clone()), None)
    }

    fn parse_http(text: &str) -> Result<SourceUrl, UrlError> {
        let mut url = Url::parse(text).map_err(|error| UrlError::Malformed { reason: error.to_string() })?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(UrlError::QueryOrFragment);
        }
        let malformed = |reason: &str| UrlError::Malformed { reason: reason.to_owned() };
        if url.host_str().is_none_or(str::is_empty) {
            return Err(malformed("it has no host"));
        }
        let userinfo = if url.username().is_empty() && url.password().is_none() {
            None
        } else {
            let user = percent_decoded(url.username()).ok_or_else(|| malformed("its user name is not UTF-8"))?;
            let password =
                percent_decoded(url.password().unwrap_or("")).ok_or_else(|| malformed("its password is not UTF-8"))?;
            Some((user.into(), password.into()))
        };
        // These can't fail: the URL has a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self::new(Location::Http(url), userinfo))
    }

    fn parse_ssh(text: &str) -> Result<SourceUrl, UrlError> {
        let malformed = |reason: &str| UrlError::Malformed { reason: reason.to_owned() };
        let url = Url::parse(text).map_err(|error| UrlError::Malformed { reason: error.to_string() })?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(UrlError::QueryOrFragment);
        }
        if url.password().is_some() {
            return Err(UrlError::SshPassword);
        }
        let word = |text: &str, more: &str| {
            let known = |character: char| character.is_ascii_alphanumeric() || more.contains(character);
            !text.is_empty() && !text.starts_with('-') && text.chars().all(known)
        };
        let user = match url.username() {
            "" => SSH_USER,
            user => user,
        };
        if !word(user, "._-") {
            return Err(UrlError::SshPart { part: "user name" });
        }
        let host = url.host_str().unwrap_or_default();
        // `ssh` takes an address of version 6 without brackets.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if !word(host, "._-:") {
            return Err(UrlError::SshPart { part: "host" });
        }
        let path = percent_decoded(url.path()).ok_or_else(|| malformed("its path is not UTF-8"))?;
        let path = path.trim_end_matches('/');
        let path = if path.starts_with("/~") { &path[1..] } else { path };
        if path.is_empty() || path.chars().any(char::is_control) {
            return Err(malformed("it has no path"));
        }
        let host = host.to_ascii_lowercase();
        let address = SshAddress { user: user.to_owned(), host, port: url.port(), path: path.to_owned() };
        Ok(Self::new(Location::Ssh(address), None))
    }

    fn parse_file(rest: &str) -> Result<SourceUrl, UrlError> {
        let path = rest.strip_prefix("localhost").unwrap_or(rest);
        if !path.starts_with('/') {
            return Err(if path.is_empty() { UrlError::RelativePath } else { UrlError::RemoteFile });
        }
        if path.contains(['?', '#']) {
            return Err(UrlError::QueryOrFragment);
        }
        let path =
            percent_decoded(path).ok_or_else(|| UrlError::Malformed { reason: "its path is not UTF-8".to_owned() })?;
        Ok(Self::new(Location::Local(PathBuf::from(path)), None))
    }

    fn new(location: Location, userinfo: Option<(SecretString, SecretString)>) -> SourceUrl {
        SourceUrl(Arc::new(Address { location, userinfo }))
    }

    pub fn location(&self) -> &Location {
        &self.0.location
    }

    /// User name and password that were written into the URL.
    pub fn userinfo(&self) -> Option<(&str, &str)> {
        self.0.userinfo.as_ref().map(|(user, password)| (user.expose_secret(), password.expose_secret()))
    }

    /// The host whose patience probes use up, with its port; `None` for a repository on this machine.
    pub fn host(&self) -> Option<String> {
        match &self.0.location {
            Location::Http(url) => {
                let host = url.host_str().unwrap_or_default();
                Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
            }
            Location::Ssh(address) => Some(address.authority()),
            Location::Local(_) => None,
        }
    }

    pub fn local_path(&self) -> Option<&Path> {
        match &self.0.location {
            Location::Local(path) => Some(path),
            Location::Http(_) | Location::Ssh(_) => None,
        }
    }
}

impl SshAddress {
    /// Host and port.
    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        self.port.map_or(host.clone(), |port| format!("{host}:{port}"))
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.location {
            Location::Http(url) => f.write_str(url.as_str()),
            Location::Ssh(address) => {
                let slash = if address.path.starts_with('/') { "" } else { "/" };
                write!(f, "ssh://{}@{}{slash}{}", address.user, address.authority(), address.path)
            }
            Location::Local(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceUrl({self})")
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        if let Some((high, low)) = escaped {
            bytes.push(high << 4 | low);
            rest = &rest[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_userinfo_and_trailing_slashes() {
        let cases = [
            ("https://example.com/org/app.git", "https://example.com/org/app.git"),
            ("HTTPS://Example.com:443/org/app/", "https://example.com/org/app"),
            ("http://user:p%40ss@example.com:8080/a", "http://example.com:8080/a"),
            ("https://ghp_secret@example.com/a", "https://example.com/a"),
            ("file:///srv/git/app.git", "/srv/git/app.git"),
            ("file://localhost/srv/my%20app", "/srv/my app"),
            ("/srv/git/app", "/srv/git/app"),
            ("ssh://git@GitHub.com/org/app.git", "ssh://git@github.com/org/app.git"),
            ("ssh://example.com:2222/org/app/", "ssh://git@example.com:2222/org/app"),
            ("ssh://alice@[::1]:22/~alice/my%20app", "ssh://alice@[::1]:22/~alice/my app"),
        ];
        for (input, shown) in cases {
            let url = SourceUrl::parse(input).unwrap();
            assert_eq!(url.to_string(), shown, "{input}");
            assert!(!format!("{url:?}").contains("ss@"), "{url:?}");
        }
    }

    #[test]
    fn userinfo_is_decoded() {
        let url = SourceUrl::parse("https://us%20er:p%40ss%@example.com/a").unwrap();
        assert_eq!(url.userinfo(), Some(("us er", "p@ss%")));
        assert_eq!(SourceUrl::parse("https://example.com/a").unwrap().userinfo(), None);
    }

    #[test]
    fn what_is_refused_is_named_but_never_repeated() {
        let cases = [
            ("", UrlError::Empty),
            ("git@github.com:org/hunter2", UrlError::ShortSsh),
            ("ssh://-oProxyCommand=hunter2/a", UrlError::SshPart { part: "host" }),
            ("ssh://-hunter2@example.com/a", UrlError::SshPart { part: "user name" }),
            ("ssh://a%20b@example.com/hunter2", UrlError::SshPart { part: "user name" }),
            ("ssh://exa$mple.com/hunter2", UrlError::SshPart { part: "host" }),
            ("ssh://git:hunter2@example.com/a", UrlError::SshPassword),
            ("git+ssh://example.com/hunter2", UrlError::LaterVersion { scheme: "git+ssh" }),
            ("oci://ghcr.io/hunter2", UrlError::LaterVersion { scheme: "oci" }),
            ("hunter2://x/y", UrlError::UnknownScheme),
            ("../hunter2", UrlError::RelativePath),
            ("file://server/hunter2", UrlError::RemoteFile),
            ("https://example.com/a?token=hunter2", UrlError::QueryOrFragment),
        ];
        for (input, expected) in cases {
            let error = SourceUrl::parse(input).unwrap_err();
            assert_eq!(error, expected, "{input}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        for input in [
            "ssh://example.com",
            "ssh://example.com/hunter2%0a",
            "https://",
            "https://user:hunter2@",
            "https://user:hunter2@exa mple.com/a",
        ] {
            let error = SourceUrl::parse(input).unwrap_err();
            assert!(matches!(error, UrlError::Malformed { .. }), "{input}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_host_carries_its_port() {
        let host = |text| SourceUrl::parse(text).unwrap().host();
        assert_eq!(host("https://example.com/a").as_deref(), Some("example.com"));
        assert_eq!(host("http://127.0.0.1:3000/a").as_deref(), Some("127.0.0.1:3000"));
        assert_eq!(host("ssh://git@example.com:2222/a").as_deref(), Some("example.com:2222"));
        assert_eq!(host("/srv/a"), None);
    }
}
