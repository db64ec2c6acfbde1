//! An answer other than success, in the API server's own form: the `Status` object with its code, reason and causes.

use serde_json::{Value, json};

use super::resource::Resource;
pub use super::typed::Cause;

/// A text with a wrong value.
pub fn invalid_text(field: impl Into<String>, text: &str, detail: impl AsRef<str>) -> Cause {
    Cause::invalid(field, &Value::from(text), detail.as_ref())
}

fn cause_value(cause: &Cause) -> Value {
    let mut value = json!({ "reason": cause.reason, "message": cause.message });
    if !cause.field.is_empty() {
        value["field"] = cause.field.clone().into();
    }
    value
}

/// A request that was not carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: u16,
    /// The machine-readable word; empty where the API server gives none.
    pub reason: &'static str,
    pub message: String,
    /// Warnings that the answer carries all the same.
    pub warnings: Vec<String>,
    details: Option<Value>,
}

impl Refusal {
    fn plain(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), warnings: Vec::new(), details: None }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        let mut details = serde_json::Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !resource.group.is_empty() {
            details.insert("group".into(), resource.group.clone().into());
        }
        details.insert("kind".into(), resource.plural.clone().into());
        self.details = Some(Value::Object(details));
        self
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::plain(400, "BadRequest", message)
    }

    /// A group that is served has no such resource.
    pub fn no_such_resource() -> Self {
        let mut refusal = Self::plain(404, "NotFound", "the server could not find the requested resource");
        refusal.details = Some(json!({}));
        refusal
    }

    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::plain(404, "NotFound", format!("{} \"{name}\" not found", resource.qualified())).about(resource, name)
    }

    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        let mut refusal = Self::plain(405, "MethodNotAllowed", message);
        refusal.details = Some(json!({}));
        refusal
    }

    pub fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json, application/json;stream=watch";
        Self::plain(406, "NotAcceptable", message)
    }

    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::plain(409, "AlreadyExists", format!("{} \"{name}\" already exists", resource.qualified()))
            .about(resource, name)
    }

    pub fn conflict(resource: &Resource, name: &str, why: impl AsRef<str>) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {}", resource.qualified(), why.as_ref());
        Self::plain(409, "Conflict", message).about(resource, name)
    }

    /// A conflict about a subresource.
    pub fn conflict_at(resource: &Resource, subresource: &str, name: &str, why: &str) -> Self {
        let kind = format!("{}/{subresource}", resource.plural);
        let mut refusal =
            Self::plain(409, "Conflict", format!("Operation cannot be fulfilled on {kind} \"{name}\": {why}"));
        refusal.details = Some(json!({ "name": name, "kind": kind }));
        refusal
    }

    /// What a real cluster does and this one does not.
    pub fn not_implemented(why: &str) -> Self {
        Self::plain(501, "NotImplemented", why)
    }

    pub fn modified(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// Server-side apply met fields of other managers.
    pub fn apply_conflict(message: String, causes: &[Cause]) -> Self {
        let mut refusal = Self::plain(409, "Conflict", message);
        refusal.details = Some(json!({ "causes": causes.iter().map(cause_value).collect::<Vec<_>>() }));
        refusal
    }

    pub fn invalid(resource: &Resource, name: &str, causes: &[Cause]) -> Self {
        let kind = resource.qualified_kind();
        // the same error twice is printed once
        let mut lines: Vec<String> = Vec::new();
        for cause in causes {
            let line = if cause.field.is_empty() {
                cause.message.clone()
            } else {
                format!("{}: {}", cause.field, cause.message)
            };
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let text = if let [only] = lines.as_slice() { only.clone() } else { format!("[{}]", lines.join(", ")) };
        let mut refusal = Self::plain(422, "Invalid", format!("{kind} \"{name}\" is invalid: {text}"));
        let mut details = serde_json::Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !resource.group.is_empty() {
            details.insert("group".into(), resource.group.clone().into());
        }
        details.insert("kind".into(), resource.kind.clone().into());
        details.insert("causes".into(), causes.iter().map(cause_value).collect());
        refusal.details = Some(Value::Object(details));
        refusal
    }

    pub fn forbidden(resource: &Resource, name: &str, why: impl AsRef<str>) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {}", resource.qualified(), why.as_ref())
        } else {
            format!("{} \"{name}\" is forbidden: {}", resource.qualified(), why.as_ref())
        };
        Self::plain(403, "Forbidden", message).about(resource, name)
    }

    pub fn with_warnings(mut self, warnings: &[String]) -> Self {
        self.warnings = warnings.to_vec();
        self
    }

    /// The result of a patch is of a kind that the resource does not have.
    pub fn patched_into(why: &str, patched: &Value) -> Self {
        let cause = Cause::invalid("patch", &Value::from(patched.to_string()), why);
        let mut refusal = Self::plain(422, "Invalid", format!(" \"\" is invalid: patch: {}", cause.message));
        refusal.details = Some(json!({ "causes": [cause_value(&cause)] }));
        refusal
    }

    /// The version that an update of a custom object must state.
    pub fn version_required(resource: &Resource, name: &str) -> Self {
        let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
        let message = format!("{} \"{name}\" is invalid: {}: {}", resource.qualified(), cause.field, cause.message);
        let mut refusal = Self::plain(422, "Invalid", message).about(resource, name);
        refusal = refusal.with_causes(&[cause]);
        refusal
    }

    /// A `Scale` that cannot be.
    pub fn invalid_scale(name: &str, cause: &Cause) -> Self {
        let message = format!("Scale.autoscaling \"{name}\" is invalid: {}: {}", cause.field, cause.message);
        let mut refusal = Self::plain(422, "Invalid", message);
        refusal.details =
            Some(json!({ "name": name, "group": "autoscaling", "kind": "Scale", "causes": [cause_value(cause)] }));
        refusal
    }

    pub fn with_causes(mut self, causes: &[Cause]) -> Self {
        let list: Value = causes.iter().map(cause_value).collect();
        match &mut self.details {
            Some(Value::Object(details)) => {
                details.insert("causes".into(), list);
            }
            details => *details = Some(json!({ "causes": list })),
        }
        self
    }

    /// The denial of a validating webhook: its code is 400 unless the webhook says otherwise, its reason empty.
    pub fn denied(code: u16, webhook: &str, why: &str) -> Self {
        let reason = if code == 403 { "Forbidden" } else { "BadRequest" };
        Self::plain(code, reason, format!("admission webhook \"{webhook}\" denied the request: {why}"))
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::plain(410, "Expired", message)
    }

    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::plain(413, "RequestEntityTooLarge", message)
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::plain(415, "UnsupportedMediaType", message)
    }

    /// A PATCH of a type that no resource takes.
    pub fn unknown_media_type() -> Self {
        let mut refusal = Self::plain(415, "UnsupportedMediaType", "415: Unsupported Media Type");
        refusal.details = Some(json!({}));
        refusal
    }

    /// A patch that was understood and cannot be carried out.
    pub fn patch_failed() -> Self {
        let mut refusal = Self::plain(422, "Invalid", "the server rejected our request due to an error in our request");
        refusal.details = Some(json!({}));
        refusal
    }

    /// A strategic merge patch that does not fit the object.
    pub fn unprocessable_patch(why: &str) -> Self {
        Self::plain(500, "", why)
    }

    /// Errors in the parameters of a request; `kind` is `CreateOptions` and the like.
    pub fn invalid_options(kind: &str, cause: &Cause) -> Self {
        let message = format!("{kind}.meta.k8s.io \"\" is invalid: {}: {}", cause.field, cause.message);
        let mut refusal = Self::plain(422, "Invalid", message);
        refusal.details = Some(json!({ "group": "meta.k8s.io", "kind": kind, "causes": [cause_value(cause)] }));
        refusal
    }

    /// A deletion's condition does not hold; it names the kind, not the resource.
    pub fn precondition(resource: &Resource, name: &str, why: impl AsRef<str>) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {}", resource.qualified_kind(), why.as_ref());
        let mut refusal = Self::plain(409, "Conflict", message);
        let mut details = serde_json::Map::new();
        details.insert("name".into(), name.into());
        if !resource.group.is_empty() {
            details.insert("group".into(), resource.group.clone().into());
        }
        details.insert("kind".into(), resource.kind.clone().into());
        refusal.details = Some(Value::Object(details));
        refusal
    }

    pub fn internal(why: impl AsRef<str>) -> Self {
        Self::plain(500, "InternalError", format!("Internal error occurred: {}", why.as_ref()))
    }

    /// An error that the API server passes on without a reason of its own.
    pub fn internal_plain(message: impl Into<String>) -> Self {
        Self::plain(500, "", message)
    }

    /// An answer that a fault rule asks for; the reason is the usual one of that code.
    pub fn injected(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        Self::plain(code, reason, message)
    }

    /// The `Status` object.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status["code"] = self.code.into();
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::builtin;

    #[test]
    fn messages_read_as_the_api_servers_do() {
        let deployments = builtin::resource("apps", "deployments");
        let causes = [
            Cause::invalid("spec.replicas", &json!(-1), "must be greater than or equal to 0"),
            Cause::required("spec.selector", ""),
        ];
        assert_eq!(
            Refusal::invalid(&deployments, "web", &causes[..1]).message,
            "Deployment.apps \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
        assert_eq!(
            Refusal::invalid(&deployments, "web", &causes).message,
            "Deployment.apps \"web\" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, \
             spec.selector: Required value]"
        );
        let pods = builtin::resource("", "pods");
        assert_eq!(
            Refusal::not_found(&pods, "a").to_value(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "pods \"a\" not found", "reason": "NotFound",
                "details": {"name": "a", "kind": "pods"}, "code": 404})
        );
    }
}
