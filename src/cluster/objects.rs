//! What is asked of single objects: apply, patch, delete, read; and the two kinds whose data is read whole.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Method;
use secrecy::SecretSlice;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::manifest::{ObjectId, Redaction};

use super::connection::{Call, Cluster, JSON, Reply};
use super::discovery::{ApiKind, segment};
use super::error::{ApiError, ErrorClass};
use super::seen::{Seen, WireObject};

/// How an object is applied.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions<'a> {
    pub manager: &'a str,
    /// Take over fields that other managers hold.
    pub force: bool,
    pub dry_run: bool,
    pub validation: FieldValidation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    Strict,
    Warn,
    Ignore,
}

impl FieldValidation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Warn => "Warn",
            Self::Ignore => "Ignore",
        }
    }
}

/// What the server says after a write: the object as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub seen: Seen,
    /// The object did not exist before.
    pub created: bool,
    /// Texts of the `Warning` headers.
    pub warnings: Vec<String>,
}

/// What a dry run answers: the whole object as it would be. Not for logs: it may be a Secret.
pub struct Would {
    pub object: Value,
    /// There is no such object now.
    pub created: bool,
    /// Texts of the `Warning` headers.
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// An event to be recorded about one of our own objects.
#[derive(Clone, Debug)]
pub struct EventNote<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    /// `Warning` if true, else `Normal`.
    pub warning: bool,
    pub reason: &'a str,
    pub message: &'a str,
    /// Who reports it: `source.component`.
    pub component: &'a str,
    pub annotations: BTreeMap<String, String>,
    pub at: jiff::Timestamp,
}

/// A Secret's data. Prints as masked.
#[derive(Debug)]
pub struct SecretData {
    pub resource_version: String,
    /// `Opaque`, `kubernetes.io/basic-auth`, …
    pub kind: String,
    pub data: BTreeMap<String, SecretSlice<u8>>,
}

/// A ConfigMap's data; `binaryData` is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigData {
    pub resource_version: String,
    pub data: BTreeMap<String, String>,
}

/// All that a Secret or a ConfigMap holds, for telling whether it changed. Prints as masked.
#[derive(Debug)]
pub struct Content {
    pub resource_version: String,
    /// Of a Secret: `Opaque`, …
    pub kind: String,
    pub immutable: bool,
    pub annotations: BTreeMap<String, String>,
    /// `binaryData` included.
    pub data: BTreeMap<String, SecretSlice<u8>>,
}

pub(super) const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;q=0.9";
pub(super) const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;q=0.9";

/// Objects asked for in one page of a list; the API server's own tools use the same.
pub(super) const PAGE: usize = 500;

const APPLY_PATCH: &str = "application/apply-patch+yaml";
const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

impl Cluster {
    /// Server-side apply. A dry run answers what would be, and changes nothing.
    pub async fn apply(
        &self,
        kind: &ApiKind,
        id: &ObjectId,
        object: &Value,
        options: ApplyOptions<'_>,
    ) -> Result<Answer, ApiError> {
        let reply = self.send_apply(kind, id, object, options).await;
        reply.and_then(|reply| answer(kind, reply)).map_err(|e| without_secrets(e, id, object))
    }

    /// What server-side apply would make of an object; nothing is changed.
    pub async fn would_apply(
        &self,
        kind: &ApiKind,
        id: &ObjectId,
        object: &Value,
        options: ApplyOptions<'_>,
    ) -> Result<Would, ApiError> {
        let reply = self.send_apply(kind, id, object, ApplyOptions { dry_run: true, ..options }).await;
        reply.and_then(would).map_err(|e| without_secrets(e, id, object))
    }

    /// What a JSON patch would make of an object; nothing is changed.
    pub async fn would_json_patch(
        &self,
        kind: &ApiKind,
        id: &ObjectId,
        patch: &Value,
        manager: &str,
    ) -> Result<Would, ApiError> {
        let body = (JSON_PATCH, patch.to_string().into_bytes());
        let query = [("fieldManager", manager), ("dryRun", "All")];
        would(self.on_object("dry-run", Method::PATCH, kind, id, None, &query, JSON, Some(body)).await?)
    }

    async fn send_apply(
        &self,
        kind: &ApiKind,
        id: &ObjectId,
        object: &Value,
        options: ApplyOptions<'_>,
    ) -> Result<Reply, ApiError> {
        let mut query = vec![
            ("fieldManager", options.manager),
            ("fieldValidation", options.validation.as_str()),
            ("force", if options.force { "true" } else { "false" }),
        ];
        if options.dry_run {
            query.push(("dryRun", "All"));
        }
        let verb = if options.dry_run { "dry-run" } else { "apply" };
        let body = (APPLY_PATCH, object.to_string().into_bytes());
        self.on_object(verb, Method::PATCH, kind, id, None, &query, JSON, Some(body)).await
    }

    /// JSON merge patch of an object or of one of its subresources; answers the whole object.
    pub async fn merge_patch(
        &self,
        kind: &ApiKind,
        id: &ObjectId,
        patch: &Value,
        subresource: Option<&str>,
        manager: &str,
    ) -> Result<Value, ApiError> {
        let body = (MERGE_PATCH, patch.to_string().into_bytes());
        let query = [("fieldManager", manager)];
        let reply = self.on_object("patch", Method::PATCH, kind, id, subresource, &query, JSON, Some(body)).await?;
        decode(&reply.body)
    }

    /// JSON patch (RFC 6902) of an object; a `test` in it makes it conditional.
    pub async fn json_patch(
        &self,
        kind: &ApiKind,
        id: &ObjectId,
        patch: &Value,
        manager: &str,
    ) -> Result<Answer, ApiError> {
        let body = (JSON_PATCH, patch.to_string().into_bytes());
        let query = [("fieldManager", manager)];
        let reply = self.on_object("patch", Method::PATCH, kind, id, None, &query, JSON, Some(body)).await?;
        answer(kind, reply)
    }

    /// Creates an object that must not exist yet; answers it whole.
    pub async fn create(
        &self,
        kind: &ApiKind,
        id: &ObjectId,
        object: &Value,
        manager: &str,
    ) -> Result<Value, ApiError> {
        let path = format!("{}?fieldManager={}", kind.collection(Some(&segment(&id.namespace))), segment(manager));
        let call = Call {
            verb: "create",
            resource: kind.resource(),
            method: Method::POST,
            path,
            accept: JSON,
            body: Some((JSON, object.to_string().into_bytes())),
        };
        let reply = self.call(call).await.map_err(|e| without_secrets(e, id, object))?;
        decode(&reply.body)
    }

    /// As whom requests are sent, in the server's own words: `username`, `groups` and so on.
    pub async fn own_user(&self) -> Result<Value, ApiError> {
        const GROUP: &str = "authentication.k8s.io/v1";
        let review = json!({ "apiVersion": GROUP, "kind": "SelfSubjectReview" });
        let call = Call {
            verb: "create",
            resource: "selfsubjectreviews.authentication.k8s.io".to_owned(),
            method: Method::POST,
            path: format!("/apis/{GROUP}/selfsubjectreviews"),
            accept: JSON,
            body: Some((JSON, review.to_string().into_bytes())),
        };
        let mut answer: Value = decode(&self.call(call).await?.body)?;
        Ok(answer.pointer_mut("/status/userInfo").map(Value::take).unwrap_or_default())
    }

    /// Sends a whole object to its own address.
    pub(super) async fn send_object(
        &self,
        verb: &'static str,
        method: Method,
        kind: &ApiKind,
        id: &ObjectId,
        object: &Value,
        manager: &str,
    ) -> Result<Value, ApiError> {
        let body = Some((JSON, object.to_string().into_bytes()));
        let reply = self.on_object(verb, method, kind, id, None, &[("fieldManager", manager)], JSON, body).await?;
        decode(&reply.body)
    }

    /// Asks for deletion of the object with this uid; a newer object of the same name is left alone (`Conflict`).
    /// Returns once the deletion is accepted, which may be long before the object is gone.
    pub async fn delete(
        &self,
        kind: &ApiKind,
        id: &ObjectId,
        uid: &str,
        propagation: Propagation,
    ) -> Result<(), ApiError> {
        let propagation = match propagation {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        };
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "propagationPolicy": propagation, "preconditions": {"uid": uid},
        });
        let body = (JSON, options.to_string().into_bytes());
        self.on_object("delete", Method::DELETE, kind, id, None, &[], JSON, Some(body)).await.map(drop)
    }

    /// The whole object; `None` if there is none.
    pub async fn get(&self, kind: &ApiKind, id: &ObjectId) -> Result<Option<Value>, ApiError> {
        self.read(kind, id, JSON).await?.map(|body| decode(&body)).transpose()
    }

    /// The object's metadata as JSON, managed fields included; `None` if there is no object.
    pub async fn get_metadata(&self, kind: &ApiKind, id: &ObjectId) -> Result<Option<Value>, ApiError> {
        #[derive(Deserialize)]
        struct Partial {
            metadata: Value,
        }
        let body = self.read(kind, id, METADATA).await?;
        body.map(|body| decode::<Partial>(&body).map(|p| p.metadata)).transpose()
    }

    /// The object as a metadata-only watch would see it; `None` if there is none.
    pub async fn get_seen(&self, kind: &ApiKind, id: &ObjectId) -> Result<Option<Seen>, ApiError> {
        let body = self.read(kind, id, METADATA).await?;
        body.map(|body| decode::<WireObject>(&body).map(|o| o.into_seen(kind, false).0)).transpose()
    }

    /// A Secret's data, decoded; `None` if there is no such Secret.
    pub async fn get_secret(&self, namespace: &str, name: &str) -> Result<Option<SecretData>, ApiError> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Versioned,
            #[serde(default, rename = "type")]
            kind: String,
            #[serde(default)]
            data: Option<BTreeMap<String, String>>,
        }
        let kind = ApiKind::secret();
        let Some(body) = self.read(&kind, &kind.object(namespace, name), JSON).await? else {
            return Ok(None);
        };
        let wire: Wire = decode(&body)?;
        let mut data = BTreeMap::new();
        for (key, value) in wire.data.unwrap_or_default() {
            // the server checks this on every write
            let value = BASE64.decode(value.as_bytes()).map_err(|_| {
                ApiError::new(ErrorClass::Other, format!("key `{key}` of Secret `{namespace}/{name}` is not base64"))
            })?;
            data.insert(key, SecretSlice::from(value));
        }
        Ok(Some(SecretData { resource_version: wire.metadata.resource_version, kind: wire.kind, data }))
    }

    /// A ConfigMap's data; `None` if there is no such ConfigMap.
    pub async fn get_config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigData>, ApiError> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Versioned,
            #[serde(default)]
            data: Option<BTreeMap<String, String>>,
        }
        let kind = ApiKind::config_map();
        let Some(body) = self.read(&kind, &kind.object(namespace, name), JSON).await? else {
            return Ok(None);
        };
        let wire: Wire = decode(&body)?;
        Ok(Some(ConfigData { resource_version: wire.metadata.resource_version, data: wire.data.unwrap_or_default() }))
    }

    /// What a Secret or a ConfigMap holds, decoded; `None` if there is no such object.
    pub async fn get_content(&self, kind: &ApiKind, namespace: &str, name: &str) -> Result<Option<Content>, ApiError> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Annotated,
            #[serde(default, rename = "type")]
            kind: String,
            #[serde(default)]
            data: Option<BTreeMap<String, String>>,
            #[serde(default, rename = "binaryData")]
            binary: Option<BTreeMap<String, String>>,
            #[serde(default)]
            immutable: Option<bool>,
        }
        let Some(body) = self.read(kind, &kind.object(namespace, name), JSON).await? else {
            return Ok(None);
        };
        let Wire { metadata, kind: r#type, data, binary, immutable } = decode(&body)?;
        let encoded = |(key, value): (String, String)| match BASE64.decode(value.as_bytes()) {
            Ok(bytes) => Ok((key, SecretSlice::from(bytes))),
            // the server checks this on every write
            Err(_) => Err(ApiError::new(
                ErrorClass::Other,
                format!("key `{key}` of {} `{namespace}/{name}` is not base64", kind.kind),
            )),
        };
        let data = data.unwrap_or_default().into_iter();
        let mut content: BTreeMap<String, SecretSlice<u8>> = if &*kind.kind == "Secret" {
            data.map(encoded).collect::<Result<_, _>>()?
        } else {
            data.map(|(key, text)| (key, SecretSlice::from(text.into_bytes()))).collect()
        };
        for entry in binary.unwrap_or_default() {
            let (key, bytes) = encoded(entry)?;
            content.insert(key, bytes);
        }
        let annotations = metadata.annotations.unwrap_or_default();
        Ok(Some(Content {
            resource_version: metadata.resource_version,
            kind: r#type,
            immutable: immutable == Some(true),
            annotations,
            data: content,
        }))
    }

    /// Records an event.
    pub async fn create_event(&self, note: &EventNote<'_>) -> Result<(), ApiError> {
        let namespace = if note.namespace.is_empty() { "default" } else { note.namespace };
        let at = note.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        // named as client-go names them: the object and a number that no other event of it has
        let name = format!("{}.{:016x}", note.name, rand::random::<u64>());
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace, "annotations": note.annotations},
            "involvedObject": {
                "apiVersion": note.api_version, "kind": note.kind,
                "namespace": note.namespace, "name": note.name, "uid": note.uid,
            },
            "type": if note.warning { "Warning" } else { "Normal" },
            "reason": note.reason,
            "message": note.message,
            "source": {"component": note.component},
            "reportingComponent": note.component,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        });
        let kind = ApiKind::event();
        self.create(&kind, &kind.object(namespace, name.as_str()), &event, note.component).await.map(drop)
    }

    async fn read(&self, kind: &ApiKind, id: &ObjectId, accept: &'static str) -> Result<Option<Bytes>, ApiError> {
        match self.on_object("get", Method::GET, kind, id, None, &[], accept, None).await {
            Ok(reply) => Ok(Some(reply.body)),
            Err(e) if e.class == ErrorClass::NotFound || e.class == ErrorClass::NamespaceMissing => Ok(None),
            Err(e) => Err(e),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request, named at each of the five callers above")]
    async fn on_object(
        &self,
        verb: &'static str,
        method: Method,
        kind: &ApiKind,
        id: &ObjectId,
        subresource: Option<&str>,
        query: &[(&str, &str)],
        accept: &'static str,
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<Reply, ApiError> {
        // the same names that the server refuses as path segments
        if id.name.is_empty() || matches!(id.name.as_str(), "." | "..") || id.name.contains(['/', '%']) {
            return Err(ApiError::new(
                ErrorClass::BadRequest,
                format!("`{}` is not a name that an object can have", id.name),
            ));
        }
        if kind.namespaced && id.namespace.is_empty() {
            return Err(ApiError::new(ErrorClass::BadRequest, format!("`{id}` needs a namespace")));
        }
        let mut path = format!("{}/{}", kind.collection(Some(&segment(&id.namespace))), segment(&id.name));
        if let Some(subresource) = subresource {
            path.push('/');
            path.push_str(subresource);
        }
        for (at, (key, value)) in query.iter().enumerate() {
            path.push(if at == 0 { '?' } else { '&' });
            path.push_str(key);
            path.push('=');
            path.push_str(&segment(value));
        }
        self.call(Call { verb, resource: kind.resource(), method, path, accept, body }).await
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versioned {
    #[serde(default)]
    resource_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Annotated {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

fn answer(kind: &ApiKind, reply: Reply) -> Result<Answer, ApiError> {
    let object: WireObject = decode(&reply.body)?;
    let (seen, _) = object.into_seen(kind, true);
    Ok(Answer { seen, created: reply.code == 201, warnings: reply.warnings })
}

fn would(reply: Reply) -> Result<Would, ApiError> {
    Ok(Would { object: decode(&reply.body)?, created: reply.code == 201, warnings: reply.warnings })
}

fn decode<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|e| {
        // no excerpt: the body may be a Secret
        ApiError::new(ErrorClass::Other, format!("the API server's answer can't be read (column {})", e.column()))
    })
}

/// Fields of a Secret that tell which one it is.
const PUBLIC_FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "type"];

/// The server quotes what it refuses; of a Secret, nothing is passed on.
fn without_secrets(error: ApiError, id: &ObjectId, object: &Value) -> ApiError {
    if !(id.kind == "Secret" && id.group.is_empty()) {
        return error;
    }
    let mut values = Vec::new();
    // also what was meant for `data` and stands elsewhere
    let fields = object.as_object().into_iter().flatten();
    for (_, value) in fields.filter(|(field, _)| !PUBLIC_FIELDS.contains(&field.as_str())) {
        collect(value, &mut values);
    }
    error.redacted(&Redaction::of(values.iter().map(String::as_str)))
}

/// All texts and numbers inside, and what the texts are in base64.
fn collect(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.values().for_each(|value| collect(value, into)),
        Value::Array(items) => items.iter().for_each(|value| collect(value, into)),
        Value::String(text) => {
            into.extend(BASE64.decode(text).ok().and_then(|plain| String::from_utf8(plain).ok()));
            into.push(text.clone());
        }
        Value::Number(number) => into.push(number.to_string()),
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_quotes_of_a_secret_is_not_passed_on() {
        let object = json!({"data": {"a": BASE64.encode("hunter2"), "b": 12345}, "stringData": {"c": "swordfish"}});
        let error = ApiError::new(ErrorClass::Other, "got hunter2, 12345, swordfish");
        let secret = ObjectId::new("", "Secret", "a", "b");
        assert_eq!(without_secrets(error.clone(), &secret, &object).message, "got ***, ***, ***");
        let other = ObjectId::new("", "ConfigMap", "a", "b");
        assert_eq!(without_secrets(error.clone(), &other, &object), error);
    }
}
