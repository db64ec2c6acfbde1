//! Bodies as the forges send them, shortened to what is around the fields that are read.

use serde_json::{Value, json};

use super::address::Address;
use super::payload::*;

const BEFORE: &str = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";
const AFTER: &str = "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c";
const TAG: &str = "a10867b14bb761a232cd80139fbd4c0d33264240";
const ZERO: &str = "0000000000000000000000000000000000000000";

fn github(change: Value) -> Value {
    let mut body = json!({
        "ref": "refs/heads/main", "before": BEFORE, "after": AFTER, "base_ref": null,
        "created": false, "deleted": false, "forced": false,
        "compare": "https://github.com/octo-org/Hello-World/compare/6113728f27ae...0d1a26e67d8f",
        "repository": {
            "id": 186853002, "name": "Hello-World", "full_name": "octo-org/Hello-World", "private": true,
            "owner": { "name": "octo-org", "login": "octo-org", "type": "Organization" },
            "html_url": "https://github.com/octo-org/Hello-World", "url": "https://github.com/octo-org/Hello-World",
            "git_url": "git://github.com/octo-org/Hello-World.git",
            "ssh_url": "git@github.com:octo-org/Hello-World.git",
            "clone_url": "https://github.com/octo-org/Hello-World.git",
            "svn_url": "https://github.com/octo-org/Hello-World", "pushed_at": 1_700_000_000, "default_branch": "main",
        },
        "pusher": { "name": "octocat", "email": "octocat@example.com" }, "sender": { "login": "octocat" },
        "commits": [{ "id": AFTER, "message": "Update README.md", "added": [], "removed": [], "modified": ["README.md"] }],
        "head_commit": { "id": AFTER, "message": "Update README.md", "timestamp": "2026-01-01T00:00:00Z" },
    });
    json_patch::merge(&mut body, &change);
    body
}

fn gitea() -> Value {
    json!({
        "ref": "refs/heads/develop", "before": BEFORE, "after": AFTER,
        "compare_url": "http://localhost:3000/gitea/webhooks/compare/6113728f...0d1a26e6",
        "commits": [{ "id": AFTER, "message": "Webhooks Yay!", "author": { "name": "Gitea" } }],
        "total_commits": 1, "head_commit": { "id": AFTER, "message": "Webhooks Yay!" },
        "repository": {
            "id": 140, "owner": { "id": 1, "login": "gitea" }, "name": "webhooks", "full_name": "gitea/webhooks",
            "html_url": "http://localhost:3000/gitea/webhooks", "ssh_url": "ssh://gitea@localhost:2222/gitea/webhooks.git",
            "clone_url": "http://localhost:3000/gitea/webhooks.git", "default_branch": "master",
        },
        "pusher": { "id": 1, "login": "gitea" }, "sender": { "id": 1, "login": "gitea" },
    })
}

fn gitlab(change: Value) -> Value {
    let mut body = json!({
        "object_kind": "push", "event_name": "push", "before": BEFORE, "after": AFTER, "ref": "refs/heads/main",
        "ref_protected": true, "checkout_sha": AFTER, "user_id": 4, "user_username": "jsmith", "project_id": 15,
        "project": {
            "id": 15, "name": "Diaspora", "web_url": "https://gitlab.example.com/mike/diaspora",
            "git_ssh_url": "git@gitlab.example.com:mike/diaspora.git",
            "git_http_url": "https://gitlab.example.com/mike/diaspora.git", "namespace": "Mike",
            "path_with_namespace": "mike/diaspora", "default_branch": "main",
            "url": "git@gitlab.example.com:mike/diaspora.git",
        },
        "repository": {
            "name": "Diaspora", "url": "git@gitlab.example.com:mike/diaspora.git",
            "homepage": "https://gitlab.example.com/mike/diaspora", "visibility_level": 0,
        },
        "commits": [{ "id": AFTER, "title": "fixed readme" }], "total_commits_count": 1,
    });
    json_patch::merge(&mut body, &change);
    body
}

fn cloud(old: Value, new: Value) -> Value {
    json!({
        "push": { "changes": [{ "old": old, "new": new, "created": false, "forced": false, "commits": [] }] },
        "repository": {
            "type": "repository", "full_name": "team/repo", "uuid": "{1}", "is_private": true, "scm": "git",
            "links": {
                "self": { "href": "https://api.bitbucket.org/2.0/repositories/team/repo" },
                "html": { "href": "https://bitbucket.org/team/repo" },
            },
        },
        "actor": { "display_name": "A" },
    })
}

fn cloud_ref(kind: &str, name: &str) -> Value {
    json!({ "type": kind, "name": name, "target": { "type": "commit", "hash": AFTER, "message": "m" } })
}

fn server(kind: &str, to: &str) -> Value {
    json!({
        "eventKey": "repo:refs_changed", "date": "2026-01-13T22:26:25+1100",
        "actor": { "name": "admin", "id": 2 },
        "repository": {
            "slug": "repository", "id": 84, "name": "repository", "scmId": "git", "state": "AVAILABLE",
            "project": { "key": "PROJECT_1", "id": 84, "name": "Project 1", "type": "NORMAL" },
            "links": {
                "clone": [
                    { "href": "ssh://git@bitbucket.example.com:7999/project_1/repository.git", "name": "ssh" },
                    { "href": "https://bitbucket.example.com/scm/project_1/repository.git", "name": "http" },
                ],
                "self": [{ "href": "https://bitbucket.example.com/projects/PROJECT_1/repos/repository/browse" }],
            },
        },
        "changes": [{
            "ref": { "id": "refs/heads/master", "displayId": "master", "type": "BRANCH" },
            "refId": "refs/heads/master", "fromHash": BEFORE, "toHash": to, "type": kind,
        }],
    })
}

/// The repository by one of its URLs, the ref and the commit (`-`: deleted, empty: not said) that a body comes to.
fn said(forge: Forge, event: &str, body: &Value) -> Option<(Push, String)> {
    let News::Push(push) = read(forge, event, false, body.to_string().as_bytes()).unwrap() else { return None };
    let changes = push.changes.iter().map(|change| {
        let commit = match change.moved {
            Moved::To(commit) => commit.to_string(),
            Moved::Deleted => "-".to_owned(),
            Moved::Unknown => String::new(),
        };
        format!("{} {commit}", change.reference.as_deref().unwrap_or("any"))
    });
    let text = changes.collect::<Vec<_>>().join(", ");
    Some((push, text))
}

#[test]
fn pushes_are_read_as_each_forge_writes_them() {
    use Forge::*;
    let to = |reference: &str| format!("{reference} {AFTER}");
    let tag = json!({ "ref": "refs/tags/v1.0.0", "before": ZERO, "after": TAG });
    let gone = json!({ "after": ZERO, "deleted": true, "head_commit": null, "checkout_sha": null });
    let hello = "git@github.com:octo-org/Hello-World";
    let diaspora = "ssh://git@gitlab.example.com/mike/diaspora";
    let mut gitlab_tag = gitlab(json!({ "object_kind": "tag_push", "event_name": "tag_push" }));
    json_patch::merge(&mut gitlab_tag, &tag);
    let update = gitlab(json!({
        "object_kind": null, "event_name": "repository_update", "ref": null, "after": null, "repository": null,
        "changes": [
            { "before": BEFORE, "after": AFTER, "ref": "refs/heads/main" },
            { "before": AFTER, "after": ZERO, "ref": "refs/heads/old" },
        ],
        "refs": ["refs/heads/main", "refs/heads/old"],
    }));
    let of_ref = |kind: &str, name: &str| {
        let mut body = github(json!({ "head_commit": null, "after": null }));
        json_patch::merge(&mut body, &json!({ "ref": name, "ref_type": kind, "pusher_type": "user" }));
        body
    };
    let main = cloud_ref("branch", "main");
    let cases = [
        (GitHub, "push", github(json!({})), hello, to("refs/heads/main")),
        (GitHub, "push", github(tag.clone()), hello, to("refs/tags/v1.0.0")),
        (GitHub, "push", github(gone.clone()), hello, "refs/heads/main -".into()),
        (GitHub, "create", of_ref("tag", "v1"), hello, "refs/tags/v1 ".into()),
        (GitHub, "delete", of_ref("branch", "a/b"), hello, "refs/heads/a/b -".into()),
        (Gitea, "push", gitea(), "ssh://gitea@localhost:2222/gitea/webhooks.git", to("refs/heads/develop")),
        (Gitea, "push", gitea(), "http://localhost:3000/gitea/webhooks", to("refs/heads/develop")),
        (GitLab, "Push Hook", gitlab(json!({})), diaspora, to("refs/heads/main")),
        (GitLab, "Tag Push Hook", gitlab_tag, diaspora, to("refs/tags/v1.0.0")),
        (GitLab, "Push Hook", gitlab(gone), diaspora, "refs/heads/main -".into()),
        (GitLab, "System Hook", update, diaspora, format!("{}, refs/heads/old -", to("refs/heads/main"))),
        (
            Bitbucket,
            "repo:push",
            cloud(main.clone(), main.clone()),
            "git@bitbucket.org:team/repo.git",
            to("refs/heads/main"),
        ),
        (
            Bitbucket,
            "repo:push",
            cloud(Value::Null, cloud_ref("annotated_tag", "v1")),
            "https://x@bitbucket.org/team/repo.git",
            to("refs/tags/v1"),
        ),
        (
            Bitbucket,
            "repo:push",
            cloud(main, Value::Null),
            "https://bitbucket.org/team/repo",
            "refs/heads/main -".into(),
        ),
        (
            Bitbucket,
            "repo:refs_changed",
            server("UPDATE", AFTER),
            "https://bitbucket.example.com/scm/project_1/repository.git",
            to("refs/heads/master"),
        ),
        (
            Bitbucket,
            "repo:refs_changed",
            server("DELETE", ZERO),
            "ssh://git@bitbucket.example.com:7999/project_1/repository.git",
            "refs/heads/master -".into(),
        ),
        (
            Generic,
            "",
            json!({ "url": "git@example.com:a/b.git", "ref": "main", "commit": AFTER }),
            "https://example.com/a/b",
            to("main"),
        ),
        (Generic, "", json!({ "url": "https://example.com/a/b" }), "https://example.com/a/b", "any ".into()),
        (
            Generic,
            "",
            json!({ "url": "https://example.com/a/b", "commit": "0123" }),
            "https://example.com/a/b",
            "any ".into(),
        ),
    ];
    for (forge, event, body, url, expected) in cases {
        let (push, changes) = said(forge, event, &body).unwrap_or_else(|| panic!("{forge:?} {event}: no push"));
        assert_eq!(changes, expected, "{forge:?} {event}");
        assert!(push.addresses.contains(&Address::parse(url).unwrap()), "{forge:?} {event}: {:?}", push.addresses);
    }
}

#[test]
fn what_moves_no_ref_is_told_apart() {
    let ping = json!({ "zen": "Keep it logically awesome.", "hook_id": 1, "hook": { "type": "Repository" } });
    let read = |forge, event: &str, body: &Value| read(forge, event, false, body.to_string().as_bytes()).unwrap();
    assert_eq!(read(Forge::GitHub, "ping", &ping), News::Ping);
    assert_eq!(read(Forge::Bitbucket, "diagnostics:ping", &json!({ "test": true })), News::Ping);
    assert_eq!(read(Forge::GitHub, "issues", &json!({ "action": "opened" })), News::Other);
    assert_eq!(read(Forge::Gitea, "workflow_run", &json!({})), News::Other);
    assert_eq!(read(Forge::GitLab, "Issue Hook", &json!({ "object_kind": "issue" })), News::Other);
    assert_eq!(read(Forge::Bitbucket, "pullrequest:created", &json!({})), News::Other);
}

#[test]
fn a_web_form_is_unwrapped() {
    let mut form = reqwest::Url::parse("form:").unwrap();
    form.query_pairs_mut().append_pair("payload", &github(json!({ "note": "a+b & c=d ä" })).to_string());
    let body = form.query().unwrap();
    let News::Push(push) = read(Forge::GitHub, "push", true, body.as_bytes()).unwrap() else { panic!("no push") };
    assert_eq!(push.changes[0].reference.as_deref(), Some("refs/heads/main"));
    assert!(matches!(read(Forge::GitHub, "push", true, b"other=1"), Err(PayloadError::Form)));
    assert!(matches!(read(Forge::GitHub, "push", true, b"\xff"), Err(PayloadError::Form)));
}

#[test]
fn what_is_not_understood_says_where_and_repeats_nothing() {
    let cases: [(Forge, &str, &[u8], &str); 8] = [
        (Forge::GitHub, "push", b"", "line 1, column 0"),
        (Forge::GitHub, "push", b"{\"secret\": ", "line 1, column 11"),
        (Forge::GitHub, "push", b"[]", "github"),
        (Forge::GitHub, "push", b"{\"ref\": 7}", "github"),
        (Forge::GitLab, "Push Hook", b"\xff\xfe", "gitlab"),
        (Forge::Generic, "", b"{\"url\": \"secret\"}", "names no repository"),
        (Forge::Generic, "", b"{\"url\": null}", "generic"),
        (Forge::Bitbucket, "repo:refs_changed", b"{\"changes\": [], \"repository\": {}}", "names no repository"),
    ];
    for (forge, event, body, text) in cases {
        let error = read(forge, event, false, body).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let deep = "[".repeat(100_000);
    assert!(read(Forge::GitHub, "push", false, deep.as_bytes()).is_err());
}
