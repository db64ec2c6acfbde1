//! A forge as far as its webhooks go: it signs what it says, and delivers it to a daemon.

use std::time::Duration;

use afresh::source::Revision;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::daemon::Daemon;
use super::wait::eventually;

/// Nothing that listens takes longer to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

pub struct Forge {
    client: reqwest::Client,
    secret: String,
    /// The repository's URL as the forge says it.
    url: String,
}

impl Forge {
    pub fn new(secret: &str, url: &str) -> Forge {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).build().expect("a client");
        Forge { client, secret: secret.to_owned(), url: url.to_owned() }
    }

    /// The same forge with another secret.
    pub fn with_secret(&self, secret: &str) -> Forge {
        Forge { client: self.client.clone(), secret: secret.to_owned(), url: self.url.clone() }
    }

    /// What GitHub says of a push; `after` is a revision as status shows it, or a commit. `None`: the branch is deleted.
    pub fn push(&self, branch: &str, after: Option<&str>) -> String {
        let commit = after.map(|text| Revision::parse(text).map_or(text.to_owned(), |r| r.commit.to_string()));
        let after = commit.clone().unwrap_or_else(|| "0".repeat(40));
        let body = json!({
            "ref": format!("refs/heads/{branch}"), "after": after, "deleted": commit.is_none(),
            "head_commit": commit.map(|id| json!({ "id": id })),
            "repository": { "full_name": "org/platform", "clone_url": self.url },
        });
        body.to_string()
    }

    /// Delivers as GitHub does. The code and the text of the answer.
    pub async fn deliver(&self, daemon: &Daemon, path: &str, event: &str, body: &str) -> (u16, String) {
        let request = self
            .client
            .post(format!("{}{path}", address(daemon).await))
            .header("x-github-event", event)
            .header("x-github-delivery", format!("{:032x}", rand::random::<u128>()))
            .header("x-hub-signature-256", self.signature(body))
            .header("content-type", "application/json")
            .body(body.to_owned());
        let answer = request.send().await.expect("an answer");
        let (code, text) = (answer.status().as_u16(), answer.text().await.unwrap_or_default());
        daemon.look("an answer to a webhook", &text);
        (code, text)
    }

    /// As [`Forge::deliver`]s a push to `main` to where all forges deliver.
    pub async fn announce(&self, daemon: &Daemon, revision: &str) -> (u16, String) {
        self.deliver(daemon, "/webhook", "push", &self.push("main", Some(revision))).await
    }

    pub fn signature(&self, body: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("any key");
        mac.update(body.as_bytes());
        format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
    }
}

/// Where a daemon takes webhooks: `http://127.0.0.1:12345`.
pub async fn address(daemon: &Daemon) -> String {
    let line = eventually(ANSWER_MAX, async || daemon.said("serving webhooks")).await.expect("it serves webhooks");
    let line: Value = serde_json::from_str(&line).expect("a line of JSON");
    let address = line["fields"]["address"].as_str().or(line["address"].as_str()).unwrap_or_default();
    format!("http://{address}")
}
