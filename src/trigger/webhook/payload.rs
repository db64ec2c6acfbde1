//! What a forge says: the body of a delivery in, what moved in which repository out. Pure.
//!
//! Only what is needed is read, and all of it is a hint: what the remote shows is the truth.

use git2::Oid;
use reqwest::Url;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::address::Address;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forge {
    GitHub,
    GitLab,
    /// Gitea and Forgejo, which send the same.
    Gitea,
    /// Bitbucket's cloud and its own server, which send different things.
    Bitbucket,
    /// Anybody: `{"url": …, "ref": …, "commit": …}`.
    Generic,
}

impl Forge {
    pub fn label(self) -> &'static str {
        match self {
            Forge::GitHub => "github",
            Forge::GitLab => "gitlab",
            Forge::Gitea => "gitea",
            Forge::Bitbucket => "bitbucket",
            Forge::Generic => "generic",
        }
    }
}

/// What happened there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The forge tries whether somebody listens.
    Ping,
    Push(Push),
    /// Something that moves no ref.
    Other,
}

/// Refs of a repository that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The repository by all names that the forge gives.
    pub addresses: Vec<Address>,
    pub changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The full name, or a short one of a branch or a tag; `None`: the sender doesn't say.
    pub reference: Option<String>,
    pub moved: Moved,
}

/// Where a ref moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    To(Oid),
    Deleted,
    /// Not said, or not in a way that is understood here.
    Unknown,
}

#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Not JSON, or not of the shape that the forge sends.
    #[error("the body is not what {forge} sends with this event (line {line}, column {column})", forge = forge.label())]
    Shape { forge: Forge, line: usize, column: usize },
    #[error("the form has no field `payload`")]
    Form,
    #[error("the body names no repository by a URL that is understood")]
    NoRepository,
}

/// More refs in one push are a mirror's; they are all looked at by one probe anyway.
const CHANGES_MAX: usize = 1000;
/// A forge gives four or five.
const ADDRESSES_MAX: usize = 16;

/// Reads a body. `form`: it is a web form that has the JSON in a field, GitHub's older way.
pub fn read(forge: Forge, event: &str, form: bool, body: &[u8]) -> Result<News, PayloadError> {
    let unwrapped;
    let body = if form {
        unwrapped = form_payload(body)?;
        unwrapped.as_bytes()
    } else {
        body
    };
    let push = match forge {
        Forge::GitHub | Forge::Gitea => match event {
            "ping" => return Ok(News::Ping),
            "push" => parse::<GitHubPush>(forge, body)?.into(),
            "create" | "delete" => parse::<GitHubRef>(forge, body)?.into_push(event == "delete"),
            _ => return Ok(News::Other),
        },
        Forge::GitLab => match parse::<GitLabPush>(forge, body)?.into_push() {
            Some(push) => push,
            None => return Ok(News::Other),
        },
        Forge::Bitbucket => match event {
            "diagnostics:ping" => return Ok(News::Ping),
            "repo:push" => parse::<CloudPush>(forge, body)?.into(),
            "repo:refs_changed" => parse::<ServerPush>(forge, body)?.into(),
            _ => return Ok(News::Other),
        },
        Forge::Generic => parse::<GenericPush>(forge, body)?.into(),
    };
    if push.addresses.is_empty() { Err(PayloadError::NoRepository) } else { Ok(News::Push(push)) }
}

fn parse<T: DeserializeOwned>(forge: Forge, body: &[u8]) -> Result<T, PayloadError> {
    // where it broke is said, what stood there is not: it is the forge's, and may be private
    serde_json::from_slice(body).map_err(|e| PayloadError::Shape { forge, line: e.line(), column: e.column() })
}

fn form_payload(body: &[u8]) -> Result<String, PayloadError> {
    let text = std::str::from_utf8(body).map_err(|_| PayloadError::Form)?;
    let mut url = Url::parse("form:").map_err(|_| PayloadError::Form)?;
    url.set_query(Some(text));
    let field = url.query_pairs().find(|(name, _)| name == "payload");
    field.map(|(_, value)| value.into_owned()).ok_or(PayloadError::Form)
}

fn addresses<'a>(urls: impl IntoIterator<Item = Option<&'a str>>) -> Vec<Address> {
    let mut known: Vec<Address> = Vec::new();
    for address in urls.into_iter().flatten().filter_map(Address::parse) {
        if !known.contains(&address) && known.len() < ADDRESSES_MAX {
            known.push(address);
        }
    }
    known
}

/// A commit as forges write it; all zeros: there is none any more.
fn moved(commit: Option<&str>) -> Moved {
    let Some(text) = commit.filter(|text| text.len() == 40) else { return Moved::Unknown };
    match Oid::from_str(text) {
        Ok(id) if id.is_zero() => Moved::Deleted,
        Ok(id) => Moved::To(id),
        Err(_) => Moved::Unknown,
    }
}

#[derive(Deserialize)]
struct GitHubPush {
    #[serde(rename = "ref")]
    reference: String,
    after: Option<String>,
    #[serde(default)]
    deleted: bool,
    head_commit: Option<CommitId>,
    repository: GitHubRepository,
}

#[derive(Deserialize)]
struct CommitId {
    id: Option<String>,
}

#[derive(Deserialize)]
struct GitHubRepository {
    clone_url: Option<String>,
    ssh_url: Option<String>,
    git_url: Option<String>,
    html_url: Option<String>,
}

impl GitHubRepository {
    fn addresses(&self) -> Vec<Address> {
        addresses([&self.clone_url, &self.ssh_url, &self.git_url, &self.html_url].map(Option::as_deref))
    }
}

impl From<GitHubPush> for Push {
    fn from(push: GitHubPush) -> Push {
        // of an annotated tag `after` is the tag, the head commit what it leads to
        let head = push.head_commit.and_then(|commit| commit.id);
        let moved = if push.deleted { Moved::Deleted } else { moved(head.as_deref().or(push.after.as_deref())) };
        Push {
            addresses: push.repository.addresses(),
            changes: vec![Change { reference: Some(push.reference), moved }],
        }
    }
}

/// The events `create` and `delete`; forges send them beside the push, or instead of it.
#[derive(Deserialize)]
struct GitHubRef {
    #[serde(rename = "ref")]
    name: String,
    ref_type: String,
    repository: GitHubRepository,
}

impl GitHubRef {
    fn into_push(self, deleted: bool) -> Push {
        let reference = match self.ref_type.as_str() {
            _ if self.name.starts_with("refs/") => self.name,
            "tag" => format!("refs/tags/{}", self.name),
            _ => format!("refs/heads/{}", self.name),
        };
        let moved = if deleted { Moved::Deleted } else { Moved::Unknown };
        Push { addresses: self.repository.addresses(), changes: vec![Change { reference: Some(reference), moved }] }
    }
}

#[derive(Deserialize)]
struct GitLabPush {
    /// In a project's hooks.
    object_kind: Option<String>,
    /// In hooks of the whole system.
    event_name: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    after: Option<String>,
    checkout_sha: Option<String>,
    /// In `repository_update`, a system's word for many refs at once.
    #[serde(default)]
    changes: Value,
    project: Option<GitLabProject>,
    repository: Option<GitLabProject>,
}

#[derive(Deserialize)]
struct GitLabProject {
    git_http_url: Option<String>,
    git_ssh_url: Option<String>,
    web_url: Option<String>,
    url: Option<String>,
    homepage: Option<String>,
}

#[derive(Deserialize)]
struct GitLabChange {
    #[serde(rename = "ref")]
    reference: String,
    after: Option<String>,
}

impl GitLabPush {
    fn into_push(self) -> Option<Push> {
        let changes = match self.object_kind.as_deref().or(self.event_name.as_deref())? {
            "push" | "tag_push" => {
                let moved = match moved(self.after.as_deref()) {
                    Moved::Deleted => Moved::Deleted,
                    // of an annotated tag `after` is the tag
                    other => match moved(self.checkout_sha.as_deref()) {
                        Moved::To(commit) => Moved::To(commit),
                        _ => other,
                    },
                };
                vec![Change { reference: self.reference, moved }]
            }
            "repository_update" => {
                let changes: Vec<GitLabChange> = serde_json::from_value(self.changes).unwrap_or_default();
                let changes = changes.into_iter().take(CHANGES_MAX);
                changes.map(|c| Change { moved: moved(c.after.as_deref()), reference: Some(c.reference) }).collect()
            }
            _ => return None,
        };
        let projects: Vec<_> = [self.project, self.repository].into_iter().flatten().collect();
        let urls = projects
            .iter()
            .flat_map(|p| [&p.git_http_url, &p.git_ssh_url, &p.web_url, &p.url, &p.homepage].map(Option::as_deref));
        Some(Push { addresses: addresses(urls), changes })
    }
}

#[derive(Deserialize)]
struct CloudPush {
    push: CloudChanges,
    repository: CloudRepository,
}

#[derive(Deserialize)]
struct CloudChanges {
    changes: Vec<CloudChange>,
}

#[derive(Deserialize)]
struct CloudChange {
    new: Option<CloudRef>,
    old: Option<CloudRef>,
}

#[derive(Deserialize)]
struct CloudRef {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    target: Option<CloudTarget>,
}

#[derive(Deserialize)]
struct CloudTarget {
    hash: Option<String>,
}

#[derive(Deserialize)]
struct CloudRepository {
    links: CloudLinks,
}

#[derive(Deserialize)]
struct CloudLinks {
    html: Option<Link>,
}

#[derive(Deserialize)]
struct Link {
    href: String,
}

impl From<CloudPush> for Push {
    fn from(push: CloudPush) -> Push {
        let change = |change: CloudChange| {
            let deleted = change.new.is_none();
            let reference = change.new.or(change.old)?;
            let folder = if reference.kind.contains("tag") { "tags" } else { "heads" };
            let commit = reference.target.and_then(|target| target.hash);
            let moved = if deleted { Moved::Deleted } else { moved(commit.as_deref()) };
            Some(Change { reference: Some(format!("refs/{folder}/{}", reference.name)), moved })
        };
        let html = push.repository.links.html;
        Push {
            addresses: addresses([html.as_ref().map(|link| link.href.as_str())]),
            changes: push.push.changes.into_iter().take(CHANGES_MAX).filter_map(change).collect(),
        }
    }
}

#[derive(Deserialize)]
struct ServerPush {
    changes: Vec<ServerChange>,
    repository: ServerRepository,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerChange {
    ref_id: String,
    to_hash: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct ServerRepository {
    links: Option<ServerLinks>,
}

#[derive(Deserialize)]
struct ServerLinks {
    #[serde(default)]
    clone: Vec<Link>,
}

impl From<ServerPush> for Push {
    fn from(push: ServerPush) -> Push {
        let change = |change: ServerChange| Change {
            moved: match change.kind.as_deref() {
                Some("DELETE") => Moved::Deleted,
                _ => moved(change.to_hash.as_deref()),
            },
            reference: Some(change.ref_id),
        };
        let links = push.repository.links.map(|links| links.clone).unwrap_or_default();
        Push {
            addresses: addresses(links.iter().map(|link| Some(link.href.as_str()))),
            changes: push.changes.into_iter().take(CHANGES_MAX).map(change).collect(),
        }
    }
}

#[derive(Deserialize)]
struct GenericPush {
    url: String,
    #[serde(rename = "ref")]
    reference: Option<String>,
    commit: Option<String>,
}

impl From<GenericPush> for Push {
    fn from(push: GenericPush) -> Push {
        let moved = moved(push.commit.as_deref());
        Push {
            addresses: addresses([Some(push.url.as_str())]),
            changes: vec![Change { reference: push.reference, moved }],
        }
    }
}
