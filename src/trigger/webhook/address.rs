//! Which repository a URL means: its spellings over https, ssh and git are one. Pure.
//!
//! Two repositories taken for one cost a look at a remote that has nothing new; one that is not recognised costs the
//! wait for the next poll. So what forges don't tell apart is not told apart here: the case of a path, `.git`.

use reqwest::Url;

/// A repository, however it is spelt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// With the port, if it is not the scheme's own; empty for a path on this machine.
    host: String,
    path: String,
}

/// Hosts at which forges serve ssh on the port of https, and the host that they mean.
const SSH_OVER_HTTPS: [(&str, &str); 3] =
    [("ssh.github.com", "github.com"), ("altssh.gitlab.com", "gitlab.com"), ("altssh.bitbucket.org", "bitbucket.org")];

/// Longer ones are no repository's.
const URL_BYTES_MAX: usize = 2_048;

impl Address {
    /// From `https://host/org/repo.git`, `ssh://git@host/org/repo`, `git@host:org/repo.git`, `file:///path` or `/path`;
    /// `None` if it is none of these.
    pub fn parse(text: &str) -> Option<Address> {
        if text.len() > URL_BYTES_MAX {
            return None;
        }
        if text.starts_with('/') {
            return Self::new(String::new(), text);
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Self::of_scp(text) };
        let scheme = scheme.to_ascii_lowercase();
        if scheme == "file" {
            return Self::new(String::new(), rest.strip_prefix("localhost").unwrap_or(rest));
        }
        let default_port = match scheme.as_str() {
            "http" | "git+http" => 80,
            "https" | "git+https" => 443,
            "ssh" | "git+ssh" => 22,
            "git" => 9418,
            _ => return None,
        };
        // one scheme for all: the library knows ports of its own, and treats hosts of unknown schemes as opaque
        let url = Url::parse(&format!("http://{rest}")).ok()?;
        let host = url.host_str()?.trim_end_matches('.');
        let explicit = rest.split('/').next().unwrap_or_default().ends_with(":80").then_some(80);
        let port = url.port().or(explicit).filter(|port| *port != default_port);
        let alias = SSH_OVER_HTTPS.iter().find(|(other, _)| default_port == 22 && *other == host);
        let host = match (alias, port) {
            (Some((_, meant)), _) => (*meant).to_owned(),
            (None, Some(port)) => format!("{host}:{port}"),
            (None, None) => host.to_owned(),
        };
        Self::new(host, url.path())
    }

    /// `git@host:org/repo.git`.
    fn of_scp(text: &str) -> Option<Address> {
        let (host, path) = text.split_once(':')?;
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let known = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]".contains(&b));
        known.then(|| Self::new(host.trim_end_matches('.').to_ascii_lowercase(), path)).flatten()
    }

    fn new(host: String, path: &str) -> Option<Address> {
        let path = path.trim_matches('/').to_ascii_lowercase();
        let path = path.strip_suffix(".git").unwrap_or(&path).trim_end_matches('/');
        // Bitbucket's own server puts this before the path, over http only
        let path = path.strip_prefix("scm/").filter(|rest| rest.contains('/')).unwrap_or(path);
        (!path.is_empty()).then(|| Address { host, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_a_repository_are_one() {
        let same = [
            "https://github.com/org/repo",
            "https://GitHub.com/Org/Repo.git",
            "https://user:password@github.com:443/org/repo.git/",
            "http://github.com/org/repo",
            "ssh://git@github.com/org/repo.git",
            "ssh://git@github.com:22/org/repo",
            "ssh://git@ssh.github.com:443/org/repo.git",
            "git@github.com:org/repo.git",
            "git@GITHUB.com:/org/repo",
            "github.com:org/repo",
            "git://github.com/org/repo.git",
            "https://github.com./org/repo",
        ];
        let first = Address::parse(same[0]).unwrap();
        for text in same {
            assert_eq!(Address::parse(text), Some(first.clone()), "{text}");
        }
        let bitbucket = Address::parse("https://git.example.com/scm/prj/repo.git");
        assert_eq!(Address::parse("ssh://git@git.example.com/prj/repo.git"), bitbucket);
        assert_eq!(Address::parse("file:///srv/git/app.git"), Address::parse("/srv/git/app"));
    }

    #[test]
    fn other_repositories_are_others() {
        let repository = Address::parse("https://github.com/org/repo").unwrap();
        for text in [
            "https://github.com/org/repo2",
            "https://github.com/org",
            "https://gitlab.com/org/repo",
            "https://github.com:8443/org/repo",
            "http://github.com:443/org/repo",
            "https://github.com:80/org/repo",
            "ssh://git@github.com:2222/org/repo",
            "/org/repo",
        ] {
            assert_ne!(Address::parse(text).expect(text), repository, "{text}");
        }
    }

    #[test]
    fn what_is_no_repository_has_no_address() {
        for text in
            ["", "https://github.com", "https://github.com/", "org/repo", "ftp://h/a/b", "https://", ":a", "a b:c"]
        {
            assert_eq!(Address::parse(text), None, "{text}");
        }
        assert_eq!(Address::parse(&format!("https://h/{}", "a".repeat(URL_BYTES_MAX))), None);
    }
}
