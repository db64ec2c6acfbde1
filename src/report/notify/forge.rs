//! How a commit's status is told to the forge that it came from. Pure: an address and a commit become a request.

use serde_json::{Value, json};

use super::news::{Commit, CommitState};
use crate::report::events::Subject;

/// What GitHub takes; GitLab and Gitea take more.
const DESCRIPTION_CHARS_MAX: usize = 140;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forge {
    GitHub,
    GitLab,
    Gitea,
}

/// A repository on a forge, from any of the spellings of its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Scheme, host and port.
    base: String,
    /// Without slashes at its ends and without `.git`.
    path: String,
}

/// A request to a forge; its body is JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub url: String,
    pub body: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    #[error(
        "the address is not one of a repository: give `https://host/owner/repository` or `ssh://git@host/owner/repository`"
    )]
    Address,
    #[error("`{revision}` names no commit")]
    Revision { revision: String },
}

impl Repository {
    /// `https://host/owner/repo.git`, `ssh://git@host:22/owner/repo`, `git@host:owner/repo.git`. Of ssh only the host is
    /// taken: the API is served by https, at its own port.
    pub fn parse(address: &str) -> Result<Self, ForgeError> {
        let (base, path) = match address.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => {
                let (authority, path) = rest.split_once('/').ok_or(ForgeError::Address)?;
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                (format!("{scheme}://{host}"), path)
            }
            Some(("ssh" | "git+ssh", rest)) => {
                let (authority, path) = rest.split_once('/').ok_or(ForgeError::Address)?;
                (format!("https://{}", without_port(authority)), path)
            }
            Some(_) => return Err(ForgeError::Address),
            // as scp writes it
            None => {
                let (authority, path) = address.split_once(':').ok_or(ForgeError::Address)?;
                (format!("https://{}", without_port(authority)), path)
            }
        };
        let path = path.split(['?', '#']).next().unwrap_or_default().trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let segments = path.split('/').collect::<Vec<_>>();
        let plain =
            |s: &&str| !s.is_empty() && *s != "." && *s != ".." && !s.contains(|c: char| c.is_control() || c == '%');
        if base.ends_with("//") || segments.len() < 2 || !segments.iter().all(plain) {
            return Err(ForgeError::Address);
        }
        Ok(Self { base, path: path.to_owned() })
    }

    /// The server's path (where it doesn't serve at the root), the owner, the repository.
    fn owned(&self) -> (String, &str, &str) {
        let (rest, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let (prefix, owner) = rest.rsplit_once('/').map_or((String::new(), rest), |(p, o)| (format!("/{p}"), o));
        (prefix, owner, name)
    }
}

fn without_port(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

impl Forge {
    /// Sets the status of a commit; `context` tells it from those of others.
    pub fn status(self, repository: &Repository, commit: &Commit, context: &str) -> Result<Request, ForgeError> {
        let sha = sha(&commit.revision).ok_or_else(|| ForgeError::Revision { revision: commit.revision.clone() })?;
        let (state, description) = (self.state(commit.state), description(commit));
        let base = &repository.base;
        let (prefix, owner, name) = repository.owned();
        let (owner, name) = (segment(owner), segment(name));
        Ok(match self {
            Forge::GitHub => {
                let api = match base.as_str() {
                    "https://github.com" | "http://github.com" => "https://api.github.com".to_owned(),
                    _ => format!("{base}{prefix}/api/v3"),
                };
                Request {
                    url: format!("{api}/repos/{owner}/{name}/statuses/{sha}"),
                    body: json!({"state": state, "context": context, "description": description}),
                }
            }
            Forge::Gitea => Request {
                url: format!("{base}{prefix}/api/v1/repos/{owner}/{name}/statuses/{sha}"),
                body: json!({"state": state, "context": context, "description": description}),
            },
            // groups may be nested: the whole path is the project
            Forge::GitLab => Request {
                url: format!("{base}/api/v4/projects/{}/statuses/{sha}", segment(&repository.path)),
                body: json!({"state": state, "name": context, "description": description}),
            },
        })
    }

    fn state(self, state: CommitState) -> &'static str {
        match (self, state) {
            (_, CommitState::Pending) => "pending",
            (_, CommitState::Success) => "success",
            (Forge::GitLab, CommitState::Failure) => "failed",
            (_, CommitState::Failure) => "failure",
            (Forge::GitLab, CommitState::Superseded) => "canceled",
            (_, CommitState::Superseded) => "error",
        }
    }

    /// True of an answer that says that the status is as asked for already.
    pub fn is_repetition(self, code: u16, answer: &str) -> bool {
        self == Forge::GitLab && code == 400 && answer.contains("Cannot transition status")
    }
}

/// Flux's: kind, name and the beginning of the provider's uid, so that clusters don't overwrite each other's.
pub fn context(subject: &Subject, provider_uid: &str) -> String {
    let cluster = provider_uid.split('-').next().unwrap_or_default();
    format!("{}/{}/{cluster}", subject.kind, subject.name).to_lowercase()
}

/// The reason in words, as Flux has it; of what was superseded, by what.
fn description(commit: &Commit) -> String {
    let text = if commit.state == CommitState::Superseded { commit.message.clone() } else { in_words(&commit.reason) };
    text.chars().take(DESCRIPTION_CHARS_MAX).collect()
}

/// `HealthCheckFailed` → `health check failed`.
fn in_words(reason: &str) -> String {
    let mut words = String::with_capacity(reason.len() + 4);
    for (at, character) in reason.chars().enumerate() {
        if at > 0 && character.is_uppercase() {
            words.push(' ');
        }
        words.extend(character.to_lowercase());
    }
    words
}

/// The commit in `main@sha1:…`, `sha1:…`.
fn sha(revision: &str) -> Option<&str> {
    let (_, sha) = revision.rsplit_once(':')?;
    let valid = matches!(sha.len(), 40 | 64) && sha.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then_some(sha)
}

/// One segment of a path, with its slashes escaped.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

    fn commit(state: CommitState, reason: &str, message: &str) -> Commit {
        let subject = Subject { kind: "Kustomization", name: "Web".into(), ..Subject::default() };
        let (reason, message) = (reason.to_owned(), message.to_owned());
        Commit { subject, at: Timestamp::UNIX_EPOCH, revision: format!("main@sha1:{SHA}"), state, reason, message }
    }

    #[test]
    fn each_spelling_of_an_address_leads_to_the_forges_api() {
        use Forge::{GitHub, GitLab, Gitea};
        let cases = [
            (GitHub, "https://github.com/acme/shop", "https://api.github.com/repos/acme/shop/statuses/"),
            (GitHub, "https://github.com/acme/shop.git", "https://api.github.com/repos/acme/shop/statuses/"),
            (GitHub, "ssh://git@github.com/acme/shop.git", "https://api.github.com/repos/acme/shop/statuses/"),
            (GitHub, "git@github.com:acme/shop.git", "https://api.github.com/repos/acme/shop/statuses/"),
            (GitHub, "https://git.example.com/acme/shop/", "https://git.example.com/api/v3/repos/acme/shop/statuses/"),
            (Gitea, "https://git.example.com/acme/shop", "https://git.example.com/api/v1/repos/acme/shop/statuses/"),
            (Gitea, "http://127.0.0.1:3000/acme/shop.git", "http://127.0.0.1:3000/api/v1/repos/acme/shop/statuses/"),
            (
                Gitea,
                "ssh://git@git.example.com:2222/acme/shop",
                "https://git.example.com/api/v1/repos/acme/shop/statuses/",
            ),
            (
                Gitea,
                "https://user:word@git.example.com/git/acme/shop",
                "https://git.example.com/git/api/v1/repos/acme/shop/statuses/",
            ),
            (
                GitLab,
                "https://gitlab.com/acme/web/shop.git",
                "https://gitlab.com/api/v4/projects/acme%2Fweb%2Fshop/statuses/",
            ),
        ];
        for (forge, address, url) in cases {
            let repository = Repository::parse(address).unwrap();
            let request = forge.status(&repository, &commit(CommitState::Pending, "Progressing", ""), "x").unwrap();
            assert_eq!(request.url, format!("{url}{SHA}"), "{address}");
        }
    }

    #[test]
    fn what_is_no_address_of_a_repository_is_refused() {
        for address in [
            "",
            "https://",
            "https://github.com",
            "https://github.com/acme",
            "ftp://h/a/b",
            "acme/shop",
            "https://h/a/../b",
            "https:///a/b",
        ] {
            assert_eq!(Repository::parse(address), Err(ForgeError::Address), "{address}");
        }
    }

    #[test]
    fn each_forge_has_its_own_words() {
        use CommitState::{Failure, Pending, Success, Superseded};
        let cases = [
            (Forge::GitHub, [("pending", Pending), ("success", Success), ("failure", Failure), ("error", Superseded)]),
            (Forge::Gitea, [("pending", Pending), ("success", Success), ("failure", Failure), ("error", Superseded)]),
            (
                Forge::GitLab,
                [("pending", Pending), ("success", Success), ("failed", Failure), ("canceled", Superseded)],
            ),
        ];
        let repository = Repository::parse("https://git.example.com/acme/shop").unwrap();
        for (forge, states) in cases {
            for (word, state) in states {
                let request = forge.status(&repository, &commit(state, "Progressing", ""), "x").unwrap();
                assert_eq!(request.body["state"], word);
            }
        }
        let context = context(&commit(Success, "", "").subject, "93e7a3b1-0000-4000-8000-000000000000");
        assert_eq!(context, "kustomization/web/93e7a3b1");
        let failure =
            commit(Failure, "HealthCheckFailed", "a Secret's value must not be here: only the reason is told");
        let request = Forge::Gitea.status(&repository, &failure, &context).unwrap();
        let expected =
            json!({"state": "failure", "context": "kustomization/web/93e7a3b1", "description": "health check failed"});
        assert_eq!(request.body, expected);
        let request = Forge::GitLab.status(&repository, &failure, &context).unwrap();
        assert_eq!(request.body["name"], "kustomization/web/93e7a3b1");
        let superseded = commit(Superseded, "Superseded", "superseded by main@sha1:89ab");
        let request = Forge::GitHub.status(&repository, &superseded, &context).unwrap();
        assert_eq!(request.body["description"], "superseded by main@sha1:89ab");
    }

    #[test]
    fn a_revision_without_a_commit_has_no_status() {
        let repository = Repository::parse("https://git.example.com/acme/shop").unwrap();
        for revision in ["main", "latest@sha256:abc", "main@sha1:xyz", ""] {
            let commit = Commit { revision: revision.into(), ..commit(CommitState::Success, "", "") };
            let refused = Forge::Gitea.status(&repository, &commit, "x");
            assert_eq!(refused, Err(ForgeError::Revision { revision: revision.into() }));
        }
    }
}
