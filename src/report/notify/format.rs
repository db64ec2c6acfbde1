//! What a message looks like to its receiver. Pure: the bodies that receivers of Flux's notifications know.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;

use super::alert::Rule;
use super::news::{Commit, CommitState};
use crate::api::rfc3339;
use crate::report::events::{Severity, Subject};

/// One message of one Alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub subject: Subject,
    pub at: Timestamp,
    pub severity: Severity,
    pub reason: String,
    pub message: String,
    /// The revision, the summary, and whatever the Alert and the object add.
    pub metadata: BTreeMap<String, String>,
}

impl Notice {
    /// What the object's annotations say goes before the Alert's `eventMetadata`, and what happened before both.
    pub fn metadata(rule: &Rule, subject: &Subject, revision: Option<&str>) -> BTreeMap<String, String> {
        let mut metadata = rule.metadata.clone();
        metadata.extend(subject.metadata.clone());
        if let Some(summary) = &rule.summary {
            metadata.insert("summary".into(), summary.clone());
        }
        if let Some(revision) = revision {
            metadata.insert("revision".into(), revision.to_owned());
        }
        metadata
    }
}

pub fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Normal => "info",
        Severity::Warning => "error",
    }
}

/// Flux's event, field by field (`event.toolkit.fluxcd.io`).
pub fn generic(notice: &Notice) -> Value {
    let subject = &notice.subject;
    json!({
        "involvedObject": {
            "apiVersion": subject.api_version,
            "kind": subject.kind,
            "name": subject.name,
            "namespace": subject.namespace,
            "uid": subject.uid,
        },
        "severity": severity(notice.severity),
        "timestamp": rfc3339(notice.at),
        "message": notice.message,
        "reason": notice.reason,
        "metadata": notice.metadata,
        "reportingController": subject.reporter(),
        "reportingInstance": "afresh",
    })
}

/// The event that tells how a commit fares, for expressions.
pub fn of_commit(rule: &Rule, commit: &Commit) -> Notice {
    Notice {
        subject: commit.subject.clone(),
        at: commit.at,
        severity: if commit.state == CommitState::Failure { Severity::Warning } else { Severity::Normal },
        reason: commit.reason.clone(),
        message: commit.message.clone(),
        metadata: Notice::metadata(rule, &commit.subject, Some(&commit.revision)),
    }
}

/// The value of `X-Signature` for a body.
pub fn signature(key: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("an HMAC takes keys of any length");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// A message with one attachment, for incoming webhooks and `chat.postMessage` alike.
pub fn slack(notice: &Notice, username: Option<&str>, channel: Option<&str>) -> Value {
    let subject = &notice.subject;
    let fields: Vec<_> =
        notice.metadata.iter().map(|(title, value)| json!({"title": title, "value": value, "short": false})).collect();
    let mut message = json!({
        "username": username.unwrap_or(subject.reporter()),
        "icon_url": "",
        "icon_emoji": "",
        "attachments": [{
            "color": if notice.severity == Severity::Warning { "danger" } else { "good" },
            "author_name": format!("{}/{}.{}", subject.kind.to_lowercase(), subject.name, subject.namespace),
            "text": notice.message,
            "mrkdwn_in": ["text"],
            "fields": fields,
        }],
    });
    // a webhook has its channel; the API needs one
    if let Some(channel) = channel {
        message["channel"] = channel.into();
    }
    message
}

impl Default for Notice {
    fn default() -> Self {
        Self {
            subject: Subject::default(),
            at: Timestamp::UNIX_EPOCH,
            severity: Severity::Normal,
            reason: String::new(),
            message: String::new(),
            metadata: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{AlertSpec, Key};

    pub fn notice(severity: Severity) -> Notice {
        let subject = Subject {
            api_version: "kustomize.toolkit.fluxcd.io/v1",
            kind: "Kustomization",
            namespace: "prod".into(),
            name: "web".into(),
            uid: "7c".into(),
            ..Subject::default()
        };
        Notice {
            subject,
            severity,
            reason: "BuildFailed".into(),
            message: "app/web.yaml: it is broken".into(),
            metadata: [("revision".to_owned(), "main@sha1:abc".to_owned())].into(),
            ..Notice::default()
        }
    }

    #[test]
    fn generic_is_fluxs_event() {
        insta::assert_json_snapshot!(generic(&notice(Severity::Warning)), @r#"
        {
          "involvedObject": {
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
            "kind": "Kustomization",
            "name": "web",
            "namespace": "prod",
            "uid": "7c"
          },
          "message": "app/web.yaml: it is broken",
          "metadata": {
            "revision": "main@sha1:abc"
          },
          "reason": "BuildFailed",
          "reportingController": "kustomize-controller",
          "reportingInstance": "afresh",
          "severity": "error",
          "timestamp": "1970-01-01T00:00:00Z"
        }
        "#);
        assert_eq!(generic(&notice(Severity::Normal))["severity"], "info");
        let mut of_source = notice(Severity::Normal);
        of_source.subject.kind = "GitRepository";
        assert_eq!(generic(&of_source)["reportingController"], "source-controller");
    }

    #[test]
    fn the_signature_is_the_one_of_rfc_4231() {
        // test case 2
        let signature = signature(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(signature, "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn slack_shows_object_message_and_metadata() {
        let body = slack(&notice(Severity::Warning), None, Some("#ops"));
        insta::assert_json_snapshot!(body, @r##"
        {
          "attachments": [
            {
              "author_name": "kustomization/web.prod",
              "color": "danger",
              "fields": [
                {
                  "short": false,
                  "title": "revision",
                  "value": "main@sha1:abc"
                }
              ],
              "mrkdwn_in": [
                "text"
              ],
              "text": "app/web.yaml: it is broken"
            }
          ],
          "channel": "#ops",
          "icon_emoji": "",
          "icon_url": "",
          "username": "kustomize-controller"
        }
        "##);
        let body = slack(&notice(Severity::Normal), Some("gitops"), None);
        assert_eq!(body["attachments"][0]["color"], "good");
        assert_eq!(body["username"], "gitops");
        assert_eq!(body.get("channel"), None);
    }

    #[test]
    fn what_happened_goes_before_what_the_object_adds_and_that_before_the_alert() {
        let spec: AlertSpec = serde_json::from_value(json!({
            "providerRef": { "name": "chat" },
            "eventSources": [],
            "summary": "cluster 1",
            "eventMetadata": { "env": "prod", "team": "nobody", "revision": "mine" },
        }))
        .unwrap();
        let rule = Rule::compile(&Key::new("prod", "all"), &spec).unwrap();
        let subject = Subject { metadata: [("team".to_owned(), "shop".to_owned())].into(), ..Subject::default() };
        let metadata = Notice::metadata(&rule, &subject, Some("main@sha1:abc"));
        let expected = [("env", "prod"), ("revision", "main@sha1:abc"), ("summary", "cluster 1"), ("team", "shop")];
        assert_eq!(metadata, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }
}
