//! Whole deliveries: heads and bodies as they come in, answers and who is told.

use std::sync::{Arc, Mutex};

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use sha2::Sha256;

use super::address::Address;
use super::announce::Announce;
use super::desk::{Answer, Desk};
use super::known::{Hook, HookKind, Known, Source};
use crate::api::Key;
use crate::engine::Hint;
use crate::report::Delivery;
use crate::source::Reference;
use crate::source::reference::Fields;

const SECRET: &str = "correct-horse";
const COMMIT: &str = "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c";
const OTHER: &str = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Announce for Told {
    fn source(&self, key: &Key, hint: Option<Hint>) {
        let hint = match hint {
            Some(Hint::Commit(commit)) => format!(" {}", &commit.to_string()[..4]),
            Some(Hint::Gone) => " gone".to_owned(),
            None => String::new(),
        };
        self.0.lock().unwrap().push(format!("{key}{hint}"));
    }

    fn application(&self, key: &Key) {
        self.0.lock().unwrap().push(format!("application {key}"));
    }
}

type Headers<'a> = &'a [(&'a str, &'a str)];

struct Fixture {
    desk: Desk,
    known: Arc<Known>,
    told: Arc<Told>,
}

impl Fixture {
    /// A source `n/repo` that follows `main` of `org/repo`, and an application `n/app`.
    fn new() -> Fixture {
        let (known, told) = (Arc::new(Known::default()), Arc::new(Told::default()));
        let desk = Desk::new(known.clone(), told.clone());
        known.set_secret(Some(Arc::new(SECRET.as_bytes().to_vec().into())));
        let follows = Reference::from_spec(Fields { branch: Some("main"), ..Fields::default() }).ok();
        let address = Address::parse("ssh://git@github.com/org/repo.git");
        known.set_sources([(Key::new("n", "repo"), Source { address, follows, ..Source::default() })]);
        known.put_application(Key::new("n", "app"), Default::default());
        Fixture { desk, known, told }
    }

    fn deliver_to(&self, path: &str, method: Method, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect();
        match self.desk.open(&method, path, &headers) {
            Err(answer) => answer,
            Ok(mut letter) => {
                body.as_bytes().chunks(7).for_each(|piece| letter.update(piece));
                self.desk.close(letter, body.as_bytes())
            }
        }
    }

    fn deliver(&self, headers: &[(&str, &str)], body: &str) -> (u16, Delivery) {
        let answer = self.deliver_to("/webhook", Method::POST, headers, body);
        (answer.status.as_u16(), answer.outcome)
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.0.lock().unwrap())
    }

    fn receiver(&self, kind: HookKind, events: &[&str], resources: Value, closed: Option<&str>) {
        let key = Key::new("n", "hook");
        let hook = Hook {
            key: key.clone(),
            kind,
            token: Arc::new(SECRET.as_bytes().to_vec().into()),
            events: events.iter().map(|event| (*event).to_owned()).collect(),
            resources: serde_json::from_value(resources).unwrap(),
            closed: closed.map(str::to_owned),
        };
        self.known.set_hook(&key, Some(("/hook/abc".to_owned(), hook)));
    }
}

fn github(reference: &str, after: &str) -> String {
    json!({
        "ref": reference, "after": after, "head_commit": { "id": after },
        "repository": { "clone_url": "https://github.com/org/repo.git" },
    })
    .to_string()
}

fn code(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

fn prefixed(body: &str) -> String {
    format!("sha256={}", code(SECRET, body))
}

#[test]
fn each_forge_is_believed_by_its_own_signature_only() {
    let push = github("refs/heads/main", COMMIT);
    let gitlab = json!({
        "object_kind": "push", "ref": "refs/heads/main", "after": COMMIT, "checkout_sha": COMMIT,
        "project": { "git_ssh_url": "git@github.com:org/repo.git" },
    })
    .to_string();
    let bitbucket = json!({
        "push": { "changes": [{ "new": { "type": "branch", "name": "main", "target": { "hash": COMMIT } } }] },
        "repository": { "links": { "html": { "href": "https://github.com/org/repo" } } },
    })
    .to_string();
    let generic = json!({ "url": "https://github.com/org/repo", "ref": "main", "commit": COMMIT }).to_string();
    let bare = code(SECRET, &push);
    let (signed, of_bitbucket, of_generic) = (prefixed(&push), prefixed(&bitbucket), prefixed(&generic));
    let wrong = format!("sha256={}", code("another", &push));
    let event = ("x-github-event", "push");
    let (missing, refused) = ((401, Delivery::MissingSignature), (401, Delivery::WrongSignature));
    let accepted = (202, Delivery::Accepted);
    let cases: [(Headers<'_>, &str, (u16, Delivery)); 19] = [
        (&[event, ("x-hub-signature-256", &signed)], &push, accepted),
        (&[event, ("x-hub-signature-256", &wrong)], &push, refused),
        (&[event, ("x-hub-signature-256", "sha256=00")], &push, refused),
        (&[event, ("x-hub-signature-256", "")], &push, missing),
        (&[event, ("x-hub-signature", &signed)], &push, missing),
        (&[event], &push, missing),
        (&[("x-gitea-event", "push"), event, ("x-gitea-signature", &bare)], &push, accepted),
        (&[("x-forgejo-event", "push"), event, ("x-forgejo-signature", &bare)], &push, accepted),
        (&[("x-gitea-event", "push"), event, ("x-hub-signature-256", &signed)], &push, accepted),
        (&[("x-gitea-event", "push"), ("x-gitea-signature", &signed)], &push, refused),
        (&[("x-gitlab-event", "Push Hook"), ("x-gitlab-token", SECRET)], &gitlab, accepted),
        (&[("x-gitlab-event", "Push Hook"), ("x-gitlab-token", "wrong")], &gitlab, refused),
        (&[("x-gitlab-event", "Push Hook")], &gitlab, missing),
        (&[("x-event-key", "repo:push"), ("x-hub-signature", &of_bitbucket)], &bitbucket, accepted),
        (&[("x-event-key", "repo:push"), ("x-hub-signature", &signed)], &bitbucket, refused),
        (&[("x-signature", &of_generic)], &generic, accepted),
        (&[("x-signature", &signed)], &generic, refused),
        (&[("x-signature", "sha256=")], &generic, refused),
        (&[("content-type", "application/json")], &push, missing),
    ];
    for (headers, body, expected) in cases {
        let fixture = Fixture::new();
        assert_eq!(fixture.deliver(headers, body), expected, "{headers:?}");
        let told: &[&str] = if expected == accepted { &["n/repo 0d1a"] } else { &[] };
        assert_eq!(fixture.told(), told, "{headers:?}");
    }
}

#[test]
fn what_is_genuine_is_answered_by_what_it_says() {
    let fixture = Fixture::new();
    let elsewhere = github("refs/heads/main", COMMIT).replace("org/repo", "org/other");
    let cases = [
        ("ping", "{\"zen\": \"\"}".to_owned(), (200, Delivery::Ping)),
        ("issues", "{\"action\": \"opened\"}".to_owned(), (200, Delivery::Ignored)),
        ("push", github("refs/heads/other", COMMIT), (200, Delivery::Unmatched)),
        ("push", elsewhere, (200, Delivery::Unmatched)),
        ("push", "{".to_owned(), (400, Delivery::Malformed)),
        ("push", "{\"ref\": \"refs/heads/main\", \"repository\": {}}".to_owned(), (400, Delivery::Malformed)),
    ];
    for (event, body, expected) in cases {
        let signature = prefixed(&body);
        let answered = fixture.deliver(&[("x-github-event", event), ("x-hub-signature-256", &signature)], &body);
        assert_eq!(answered, expected, "{event} {body}");
        assert_eq!(fixture.told(), [] as [&str; 0]);
    }
}

#[test]
fn a_replay_does_nothing_and_a_deletion_is_told() {
    let fixture = Fixture::new();
    let deliver = |id: &str, body: &str| {
        let signature = prefixed(body);
        let headers = [("x-github-event", "push"), ("x-github-delivery", id), ("x-hub-signature-256", &signature)];
        fixture.deliver(&headers, body)
    };
    let (first, second) = (github("refs/heads/main", COMMIT), github("refs/heads/main", OTHER));
    assert_eq!(deliver("1", &first), (202, Delivery::Accepted));
    assert_eq!(deliver("1", &first), (200, Delivery::Replayed));
    assert_eq!(deliver("made-up", &first), (200, Delivery::Replayed));
    assert_eq!(deliver("2", &second), (202, Delivery::Accepted));
    assert_eq!(deliver("1", &first), (200, Delivery::Replayed));
    assert_eq!(fixture.told(), ["n/repo 0d1a", "n/repo 6113"]);
    let deleted = github("refs/heads/main", &"0".repeat(40)).replace("\"ref\"", "\"deleted\":true,\"ref\"");
    assert_eq!(deliver("3", &deleted), (202, Delivery::Accepted));
    assert_eq!(fixture.told(), ["n/repo gone"]);
}

#[test]
fn what_nobody_follows_is_not_remembered() {
    let fixture = Fixture::new();
    let body = github("refs/heads/main", COMMIT);
    let signature = prefixed(&body);
    let headers = [("x-github-event", "push"), ("x-github-delivery", "1"), ("x-hub-signature-256", &*signature)];
    let key = Key::new("n", "repo");
    fixture.known.remove_source(&key);
    assert_eq!(fixture.deliver(&headers, &body), (200, Delivery::Unmatched));
    let follows = Reference::from_spec(Fields { branch: Some("main"), ..Fields::default() }).ok();
    let address = Address::parse("https://github.com/org/repo");
    fixture.known.put_source(key, Source { address, follows, ..Source::default() });
    assert_eq!(fixture.deliver(&headers, &body), (202, Delivery::Accepted));
}

#[test]
fn other_paths_methods_and_times_have_answers_of_their_own() {
    let fixture = Fixture::new();
    let answer = |path: &str, method| fixture.deliver_to(path, method, &[("x-signature", "sha256=00")], "");
    for (path, method, status) in [
        ("/", Method::POST, 404),
        ("/webhook/", Method::POST, 404),
        ("/hook/none", Method::POST, 404),
        ("/webhook", Method::GET, 405),
    ] {
        assert_eq!(answer(path, method.clone()).status.as_u16(), status, "{method} {path}");
    }
    fixture.known.set_secret(None);
    assert_eq!(fixture.deliver(&[("x-signature", "sha256=00")], ""), (503, Delivery::NotReady));
}

#[test]
fn receivers_answer_with_fluxs_codes() {
    let push = github("refs/heads/main", COMMIT);
    let (signed, wrong) = (prefixed(&push), format!("sha256={}", code("another", &push)));
    let event = ("x-github-event", "push");
    let signature = ("x-hub-signature-256", signed.as_str());
    let sha1 = {
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(push.as_bytes());
        format!("sha1={}", hex::encode(mac.finalize().into_bytes()))
    };
    use HookKind::*;
    let cases: [(HookKind, &[&str], Headers<'_>, u16); 20] = [
        (GitHub, &[], &[event, signature], 200),
        (GitHub, &[], &[event, ("x-hub-signature", &sha1)], 200),
        (GitHub, &[], &[event, ("x-hub-signature-256", &wrong)], 400),
        (GitHub, &[], &[event], 400),
        (GitHub, &["ping", "Push"], &[event, signature], 200),
        (GitHub, &["push"], &[("x-github-event", "ping"), signature], 400),
        (GitHub, &["push"], &[signature], 400),
        (GitLab, &[], &[("x-gitlab-token", SECRET)], 200),
        (GitLab, &["Push Hook"], &[("x-gitlab-token", SECRET), ("x-gitlab-event", "push hook")], 200),
        (GitLab, &["Push Hook"], &[("x-gitlab-token", SECRET), ("x-gitlab-event", "Tag Push Hook")], 400),
        (GitLab, &[], &[("x-gitlab-token", "wrong")], 400),
        (GitLab, &[], &[], 400),
        (Bitbucket, &["repo:refs_changed"], &[("x-hub-signature", &signed), ("x-event-key", "repo:refs_changed")], 200),
        (Bitbucket, &["repo:refs_changed"], &[("x-hub-signature", &signed), ("x-event-key", "pr:opened")], 400),
        (Bitbucket, &[], &[("x-hub-signature", &wrong)], 400),
        (GenericHmac, &["push"], &[("x-signature", &signed)], 200),
        (GenericHmac, &[], &[("x-signature", &sha1)], 200),
        (GenericHmac, &[], &[("x-signature", &wrong)], 400),
        (GenericHmac, &[], &[], 400),
        (Generic, &["push"], &[], 200),
    ];
    let resources = json!([{ "kind": "GitRepository", "name": "repo" }, { "kind": "Kustomization", "name": "app" }]);
    for (kind, events, headers, status) in cases {
        let fixture = Fixture::new();
        fixture.receiver(kind, events, resources.clone(), None);
        let answer = fixture.deliver_to("/hook/abc", Method::POST, headers, &push);
        assert_eq!(answer.status.as_u16(), status, "{kind:?} {events:?} {headers:?}: {}", answer.text);
        let told = fixture.told();
        // the payload of a GitHub push says what to look for; others are told that there is something
        let hint = if kind == GitHub && headers.contains(&event) { "n/repo 0d1a" } else { "n/repo" };
        let expected: &[&str] = if status == 200 { &[hint, "application n/app"] } else { &[] };
        assert_eq!(told, expected, "{kind:?} {events:?} {headers:?}");
    }
    let fixture = Fixture::new();
    fixture.receiver(GitHub, &[], resources.clone(), Some("it is suspended"));
    let answer = fixture.deliver_to("/hook/abc", Method::POST, &[event, signature], &push);
    assert_eq!((answer.status.as_u16(), fixture.told()), (503, vec![]));
    assert!(answer.text.contains("it is suspended"));
    fixture.receiver(Generic, &[], resources, None);
    for _ in 0..2 {
        assert_eq!(fixture.deliver_to("/hook/abc", Method::POST, &[], "").status.as_u16(), 200, "each time anew");
    }
    assert_eq!(fixture.told().len(), 4);
}
