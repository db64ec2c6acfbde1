//! What the API server answers when it does not do as asked, sorted into the classes that decisions depend on.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::manifest::Redaction;

/// A refused or failed call. Displays as the server's own message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub class: ErrorClass,
    /// The HTTP status; 0 when there was no answer.
    pub code: u16,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The object does not exist.
    NotFound,
    /// Another field manager owns a field, or the object is not at the version that was named.
    Conflict,
    /// Created by someone else in the meantime.
    AlreadyExists,
    /// Validation refused the object (422).
    Invalid {
        causes: Vec<Cause>,
    },
    /// The object has fields that its kind does not declare; the paths as the server spells them.
    UnknownField {
        paths: Vec<String>,
    },
    /// The object or the request has the wrong shape: a text where a number belongs, a name that no object can have.
    BadRequest,
    /// Not allowed by RBAC, or not known at all (401).
    Forbidden,
    /// Refused by an admission webhook or policy, a quota or pod security.
    Denied,
    /// Neither the kind nor its version is served.
    NoSuchKind,
    NamespaceMissing,
    NamespaceTerminating,
    /// A watch or a list continues from a version that is gone.
    Expired,
    Throttled {
        retry_after: Option<Duration>,
    },
    /// No answer within the deadline: the request may still take effect.
    Timeout,
    /// The server could not be reached or says that it can't serve now.
    Unreachable,
    /// Not sent: another replica leads.
    NotLeading,
    Other,
}

/// One entry of `details.causes`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Cause {
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub field: String,
}

impl Cause {
    /// Whether it says that a field can't be changed in place. What it quotes does not count: that is a value.
    pub fn is_immutable(&self) -> bool {
        let said: String = outside_quotes(&self.message).map(|(_, c)| c).collect();
        CHANGE_IN_PLACE.iter().any(|words| said.contains(words))
    }
}

impl ApiError {
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, code: 0, message: message.into() }
    }

    /// True if the same request may well succeed in a moment, without anyone changing what is declared.
    pub fn is_transient(&self) -> bool {
        match self.class {
            ErrorClass::Throttled { .. }
            | ErrorClass::Timeout
            | ErrorClass::Unreachable
            | ErrorClass::NotLeading
            | ErrorClass::Conflict
            | ErrorClass::AlreadyExists
            | ErrorClass::NamespaceTerminating => true,
            ErrorClass::Other => self.code >= 500,
            _ => false,
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self.class, ErrorClass::NotFound | ErrorClass::NoSuchKind | ErrorClass::NamespaceMissing)
    }

    /// True if nothing but fields that can't be changed in place stands in the way.
    pub fn is_only_immutable(&self) -> bool {
        matches!(&self.class, ErrorClass::Invalid { causes } if !causes.is_empty() && causes.iter().all(Cause::is_immutable))
    }

    /// What a person can do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self.class {
            ErrorClass::NoSuchKind => Some("install the CustomResourceDefinition first, or declare it in this set"),
            ErrorClass::NamespaceMissing => Some("declare the Namespace, or depend on what creates it"),
            ErrorClass::NamespaceTerminating => {
                Some("the namespace is being deleted; wait for it or look at its finalizers")
            }
            ErrorClass::Forbidden => Some("grant the named verb to the service account that Afresh applies with"),
            ErrorClass::Invalid { .. } if CHANGE_IN_PLACE.iter().any(|words| self.message.contains(words)) => Some(
                "the field can't be changed in place: delete the object, declare it under a new name, or let it be created anew with the annotation `kustomize.toolkit.fluxcd.io/force: enabled`",
            ),
            _ => None,
        }
    }

    /// Takes values out of the message, so that what is quoted back to us is not passed on.
    pub fn redacted(mut self, redaction: &Redaction) -> Self {
        redaction.apply(&mut self.message);
        if let ErrorClass::Invalid { causes } = &mut self.class {
            causes.iter_mut().for_each(|cause| redaction.apply(&mut cause.message));
        }
        self
    }
}

/// How API servers say that a field can't be changed: most kinds and claims, Services, StatefulSets, role bindings,
/// classes of storage, classes of priority.
const CHANGE_IN_PLACE: [&str; 7] = [
    "immutable",
    "may not change once set",
    "updates to statefulset spec",
    "cannot change roleRef",
    "updates to provisioner are forbidden",
    "updates to parameters are forbidden",
    "may not be changed in an update",
];

/// `metav1.Status`, as far as we read it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireStatus {
    message: String,
    reason: String,
    details: Details,
    code: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    name: String,
    kind: String,
    causes: Vec<Cause>,
    retry_after_seconds: u64,
}

/// The longest message that is kept of an answer, in bytes: a thousand causes help nobody.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

impl ApiError {
    /// Reads the answer to a call that did not succeed. `retry_after` is the header of that name.
    pub(super) fn from_answer(code: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        match serde_json::from_slice::<WireStatus>(body) {
            Ok(status) if !status.message.is_empty() || !status.reason.is_empty() => {
                Self::from_status(code, status, retry_after)
            }
            _ => {
                let text = String::from_utf8_lossy(&body[..body.len().min(512)]);
                let class = match code {
                    401 | 403 => ErrorClass::Forbidden,
                    404 => ErrorClass::NoSuchKind,
                    410 => ErrorClass::Expired,
                    429 => ErrorClass::Throttled { retry_after },
                    408 | 504 => ErrorClass::Timeout,
                    502 | 503 => ErrorClass::Unreachable,
                    400 | 415 => ErrorClass::BadRequest,
                    _ => ErrorClass::Other,
                };
                Self { class, code, message: format!("the API server answered {code}: {}", text.trim()) }
            }
        }
    }

    /// Reads a `Status` that came as an event of a watch.
    pub(super) fn from_watch(status: &serde_json::Value) -> Self {
        let wire = serde_json::from_value::<WireStatus>(status.clone()).unwrap_or_default();
        let code = wire.code;
        Self::from_status(code, wire, None)
    }

    fn from_status(code: u16, status: WireStatus, retry_after: Option<Duration>) -> Self {
        let WireStatus { message, reason, details, .. } = status;
        let retry_after = retry_after
            .or_else(|| (details.retry_after_seconds > 0).then(|| Duration::from_secs(details.retry_after_seconds)));
        let unknown = unknown_fields(&message);
        let class = if !unknown.is_empty() {
            ErrorClass::UnknownField { paths: unknown }
        } else {
            match (code, reason.as_str()) {
                _ if details.causes.iter().any(|c| c.reason == "NamespaceTerminating") => {
                    ErrorClass::NamespaceTerminating
                }
                (_, "Expired" | "Gone") | (410, _) => ErrorClass::Expired,
                (404, _) if details.kind == "namespaces" && message.starts_with("namespaces ") => {
                    ErrorClass::NamespaceMissing
                }
                (404, _) if details.name.is_empty() => ErrorClass::NoSuchKind,
                (404, _) => ErrorClass::NotFound,
                (_, "AlreadyExists") => ErrorClass::AlreadyExists,
                (409, _) => ErrorClass::Conflict,
                (429, _) => ErrorClass::Throttled { retry_after },
                _ if is_denial(code, &message) => ErrorClass::Denied,
                (401 | 403, _) => ErrorClass::Forbidden,
                (422, _) => ErrorClass::Invalid { causes: details.causes },
                (408 | 504, _) | (_, "Timeout" | "ServerTimeout") => ErrorClass::Timeout,
                (502 | 503, _) => ErrorClass::Unreachable,
                (400 | 415, _) => ErrorClass::BadRequest,
                _ if MISSHAPEN.iter().any(|words| message.starts_with(words)) => ErrorClass::BadRequest,
                _ => ErrorClass::Other,
            }
        };
        let message = match &class {
            ErrorClass::Invalid { causes } => without_dumps(&message, causes),
            _ => without_values(if message.is_empty() { reason } else { message }),
        };
        Self { class, code, message: shortened(message) }
    }
}

/// Apply answers 500 to objects that don't fit their schema (tried on 1.36).
const MISSHAPEN: [&str; 2] = ["failed to create typed patch object", "failed to convert new object"];

/// `.data.a: expected string, got &value.valueUnstructured{Value:…}`: the value helps nobody and may be a secret.
fn without_values(message: String) -> String {
    match message.split_once("got &value.valueUnstructured{") {
        Some((before, _)) => format!("{before}got something else"),
        None => message,
    }
}

/// Validation quotes whole pod templates, as Go prints them. Short values are left: they are what the person wrote.
fn without_dumps(message: &str, causes: &[Cause]) -> String {
    const SHORT: usize = 200;
    let Some((object, _)) = message.split_once(" is invalid: ") else { return message.to_owned() };
    if causes.iter().all(|c| c.message.len() <= SHORT) {
        return message.to_owned();
    }
    let said = causes.iter().map(|cause| {
        let end = cause.message.rfind("}: ").or_else(|| cause.message.rfind("]: "));
        match end {
            Some(end) if cause.message.len() > SHORT => format!("{}: {}", cause.field, &cause.message[end + 3..]),
            _ => cause.to_string(),
        }
    });
    format!("{object} is invalid: {}", said.collect::<Vec<_>>().join(", "))
}

/// Admission speaks through many codes; its words are stable.
fn is_denial(code: u16, message: &str) -> bool {
    (message.contains("admission webhook ") && message.contains(" denied the request"))
        || (message.contains("ValidatingAdmissionPolicy ") && message.contains(" denied request"))
        || (code == 403 && (message.contains("exceeded quota") || message.contains("violates PodSecurity")))
        || (code == 403 && !message.contains("User \"") && message.contains(" is forbidden: "))
}

/// The paths in `….spec.foo: field not declared in schema`, of which one message may hold several.
fn unknown_fields(message: &str) -> Vec<String> {
    const UNDECLARED: &str = ": field not declared in schema";
    let mut paths = Vec::new();
    let mut rest = message;
    while let Some(end) = rest.find(UNDECLARED) {
        if let Some(path) = path_that_ends(&rest[..end])
            && !paths.iter().any(|p| p == path)
        {
            paths.push(path.to_owned());
        }
        rest = &rest[end + UNDECLARED.len()..];
    }
    paths
}

/// The path at the end of `text`: it begins with a dot after white space or at the start of the text. List keys may
/// hold quoted blanks.
fn path_that_ends(text: &str) -> Option<&str> {
    let mut start = None;
    let mut after_blank = true;
    for (at, c) in outside_quotes(text) {
        match c {
            c if c.is_whitespace() => {
                start = None;
                after_blank = true;
                continue;
            }
            '.' if after_blank => start = Some(at),
            _ => {}
        }
        after_blank = false;
    }
    start.map(|at| &text[at..])
}

/// The characters of a path or a message, but for what is between quotes and the quote that ends it.
pub(crate) fn outside_quotes(text: &str) -> impl Iterator<Item = (usize, char)> {
    let (mut quoted, mut escaped) = (false, false);
    text.char_indices().filter(move |(_, c)| {
        let inside = quoted;
        if inside {
            quoted = escaped || *c != '"';
            escaped = *c == '\\' && !escaped;
        } else {
            quoted = *c == '"';
        }
        !inside
    })
}

fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|&i| message.is_char_boundary(i)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.field, self.message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: u16, body: serde_json::Value) -> ErrorClass {
        ApiError::from_answer(code, body.to_string().as_bytes(), None).class
    }

    #[test]
    fn answers_are_sorted_into_the_classes_that_decisions_depend_on() {
        use serde_json::json;
        let cases = [
            (
                404,
                json!({"message": "configmaps \"a\" not found", "reason": "NotFound", "details": {"name": "a", "kind": "configmaps"}}),
                ErrorClass::NotFound,
            ),
            (
                404,
                json!({"message": "namespaces \"a\" not found", "reason": "NotFound", "details": {"name": "a", "kind": "namespaces"}}),
                ErrorClass::NamespaceMissing,
            ),
            (
                404,
                json!({"message": "the server could not find the requested resource", "reason": "NotFound", "details": {}}),
                ErrorClass::NoSuchKind,
            ),
            (409, json!({"message": "m", "reason": "AlreadyExists"}), ErrorClass::AlreadyExists),
            (409, json!({"message": "m", "reason": "Conflict"}), ErrorClass::Conflict),
            (
                403,
                json!({"message": "configmaps \"a\" is forbidden: User \"u\" cannot patch resource", "reason": "Forbidden"}),
                ErrorClass::Forbidden,
            ),
            (
                403,
                json!({"message": "pods \"a\" is forbidden: exceeded quota: q, requested: pods=1", "reason": "Forbidden"}),
                ErrorClass::Denied,
            ),
            (
                400,
                json!({"message": "admission webhook \"x.y\" denied the request: no", "reason": "BadRequest"}),
                ErrorClass::Denied,
            ),
            (
                403,
                json!({"message": "unable to create new content in namespace a because it is being terminated", "reason": "Forbidden",
                    "details": {"causes": [{"reason": "NamespaceTerminating", "message": "namespace a is being terminated"}]}}),
                ErrorClass::NamespaceTerminating,
            ),
            (
                429,
                json!({"message": "slow", "reason": "TooManyRequests", "details": {"retryAfterSeconds": 3}}),
                ErrorClass::Throttled { retry_after: Some(Duration::from_secs(3)) },
            ),
            (410, json!({"message": "too old", "reason": "Expired"}), ErrorClass::Expired),
            (
                500,
                json!({"message": "failed to create typed patch object (a/b; apps/v1, Kind=Deployment): .spec.replicas: expected numeric (int or float), got string"}),
                ErrorClass::BadRequest,
            ),
            (504, json!({"message": "slow", "reason": "Timeout"}), ErrorClass::Timeout),
            (503, json!({"message": "down", "reason": "ServiceUnavailable"}), ErrorClass::Unreachable),
        ];
        for (code, body, expected) in cases {
            assert_eq!(class(code, body.clone()), expected, "{body}");
        }
        assert_eq!(ApiError::from_answer(404, b"404 page not found\n", None).class, ErrorClass::NoSuchKind);
    }

    #[test]
    fn unknown_fields_are_named_by_their_paths() {
        for (message, expected) in [
            (
                "failed to create typed patch object (a/b; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema",
                vec![".spec.foo"],
            ),
            (
                "failed to create typed patch object (a/b; apps/v1, Kind=Deployment): errors:\n  .spec.foo: field not declared in schema\n  .spec.template.spec.containers[name=\"we b\"].bar: field not declared in schema",
                vec![".spec.foo", ".spec.template.spec.containers[name=\"we b\"].bar"],
            ),
            (".x: field not declared in schema", vec![".x"]),
            ("nothing of the kind", vec![]),
        ] {
            assert_eq!(unknown_fields(message), expected);
        }
    }

    #[test]
    fn a_cause_says_that_a_field_can_not_be_changed_but_not_what_it_quotes() {
        for (message, expected) in [
            ("Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: field is immutable", true),
            ("Forbidden: field is immutable when `immutable` is set", true),
            ("Invalid value: [\"None\"]: may not change once set", true),
            ("Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden", true),
            ("Invalid value: \"string\": Value is immutable", true),
            ("Invalid value: {\"kind\":\"Role\"}: cannot change roleRef", true),
            ("Invalid value: \"immutable\": must not be that", false),
            ("Required value", false),
        ] {
            let cause = Cause { reason: "FieldValueInvalid".into(), message: message.into(), field: "spec.x".into() };
            assert_eq!(cause.is_immutable(), expected, "{message}");
        }
    }

    #[test]
    fn what_the_server_quotes_is_cut_to_what_it_says() {
        let body = |message: String, field: &str| {
            serde_json::json!({"message": format!("Job.batch \"j\" is invalid: {field}: {message}"), "reason": "Invalid",
                "details": {"name": "j", "causes": [{"reason": "FieldValueInvalid", "message": message, "field": field}]}})
        };
        let dump = format!("Invalid value: {{\"labels\":\"{}\"}}: field is immutable", "x".repeat(900));
        for (message, expected) in [
            (dump, "Job.batch \"j\" is invalid: spec.template: field is immutable"),
            (
                "Invalid value: \"a\": no".to_owned(),
                "Job.batch \"j\" is invalid: spec.template: Invalid value: \"a\": no",
            ),
        ] {
            let error = ApiError::from_answer(422, body(message, "spec.template").to_string().as_bytes(), None);
            assert_eq!(error.message, expected);
            assert_eq!(error.is_only_immutable(), expected.ends_with("immutable"));
        }
        let secret = serde_json::json!({"message": "failed to create typed patch object (a/s; /v1, Kind=Secret): .stringData.a: expected string, got &value.valueUnstructured{Value:map[string]interface {}{\"x\":\"hunter2\"}}"});
        let error = ApiError::from_answer(500, secret.to_string().as_bytes(), None);
        assert!(error.message.ends_with(".stringData.a: expected string, got something else"), "{error}");
    }

    #[test]
    fn values_are_taken_out_of_messages() {
        let error = ApiError::new(ErrorClass::Other, ".data.a: expected string, got Value:hunter2")
            .redacted(&Redaction::of(["hunter2", "a"]));
        assert_eq!(error.message, ".data.a: expected string, got Value:***");
    }
}
