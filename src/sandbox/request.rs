//! A request taken apart: what it asks for, on which resource, and in which form the answer is wanted.

use std::sync::Arc;

use http::Method;
use http::header::{ACCEPT, HeaderMap, HeaderName, USER_AGENT};
use serde_json::json;

use super::pods;
use super::refusal::{Cause, Refusal};
use super::registry::Registry;
use super::resource::Resource;

/// What is asked for, in the words of RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }

    /// The kind of the request's parameters, as errors name it.
    pub fn options_kind(self) -> &'static str {
        match self {
            Verb::Get => "GetOptions",
            Verb::List | Verb::Watch => "ListOptions",
            Verb::Create => "CreateOptions",
            Verb::Update => "UpdateOptions",
            Verb::Patch => "PatchOptions",
            Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
        }
    }

    pub fn writes(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    None,
    Status,
    Scale,
    /// `namespaces/finalize`.
    Finalize,
    /// `pods/binding`.
    Binding,
    /// `pods/eviction`.
    Eviction,
}

impl Subresource {
    /// Empty for none, as field managers note it.
    pub fn as_str(self) -> &'static str {
        match self {
            Subresource::None => "",
            Subresource::Status => "status",
            Subresource::Scale => "scale",
            Subresource::Finalize => "finalize",
            Subresource::Binding => "binding",
            Subresource::Eviction => "eviction",
        }
    }

    fn takes(self, verb: Verb) -> bool {
        match self {
            Subresource::None => true,
            Subresource::Binding | Subresource::Eviction => verb == Verb::Create,
            Subresource::Status | Subresource::Scale | Subresource::Finalize => {
                matches!(verb, Verb::Get | Verb::Update | Verb::Patch)
            }
        }
    }
}

/// The form of the answer, from `Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Whole,
    Metadata,
    Table,
}

/// The parameters of a query, by name; a repeated one counts once.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (percent_decode(key), percent_decode(value))
                })
                .collect(),
        )
    }

    pub fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v.as_str())
    }

    /// As the API server reads booleans in queries: present and neither `0` nor `false`.
    pub fn flag(&self, key: &str) -> bool {
        self.0.iter().any(|(k, v)| k == key && v != "0" && !v.eq_ignore_ascii_case("false"))
    }
}

/// A request for one resource.
#[derive(Clone, Debug)]
pub struct Request {
    pub verb: Verb,
    pub resource: Arc<Resource>,
    pub subresource: Subresource,
    /// Empty for cluster-scoped resources and for all namespaces.
    pub namespace: String,
    /// Empty for collections and for creation.
    pub name: String,
    pub query: Query,
    pub view: View,
    pub content_type: String,
    /// From the query, else the first word of `User-Agent`, as the API server does.
    pub manager: String,
    /// From `Impersonate-User`, for the journal.
    pub impersonated: String,
    pub dry_run: bool,
    /// What admission answers, where a fault rule denies the request.
    pub denial: Option<Refusal>,
}

/// What a path names.
pub enum Target {
    Resource {
        resource: Arc<Resource>,
        namespace: String,
        name: String,
        subresource: Subresource,
    },
    /// A subresource that real clusters have, and why this one hasn't.
    Unserved(&'static str),
    /// Anything else: discovery, health, version.
    Other,
    /// Nothing in a group that is served.
    Nothing,
    /// Nothing at all.
    NoGroup,
}

/// As whom a request is made, if not as whoever sends it.
const IMPERSONATE_USER: &str = "impersonate-user";
/// Longest name of a field manager.
const MANAGER_MAX: usize = 128;

/// Finds what a path names among the served resources.
pub fn target(registry: &Registry, path: &str) -> Target {
    let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(percent_decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Target::Other,
    };
    if !registry.serves(group, version) {
        return if !group.is_empty() && registry.has_group(group) { Target::Nothing } else { Target::NoGroup };
    }
    let find = |plural: &str| registry.find(group, version, plural);
    let found = |resource: Arc<Resource>, namespace: &str, name: &str, sub: &str| {
        let subresource = match sub {
            "" => Subresource::None,
            "status" if resource.status => Subresource::Status,
            "scale" if resource.scale => Subresource::Scale,
            "finalize" if resource.is("", "namespaces") => Subresource::Finalize,
            "binding" if resource.is("", "pods") => Subresource::Binding,
            "eviction" if resource.is("", "pods") => Subresource::Eviction,
            other => return pods::unserved(&resource, other).map_or(Target::Nothing, Target::Unserved),
        };
        Target::Resource { resource, namespace: namespace.to_owned(), name: name.to_owned(), subresource }
    };
    match rest {
        // `namespaces/x/status` is a subresource of the Namespace, all other third parts are resources in it
        ["namespaces", namespace, plural, tail @ ..] if group.is_empty() => {
            if let ("status" | "finalize", []) = (*plural, tail)
                && let Some(resource) = find("namespaces")
            {
                return found(resource, "", namespace, plural);
            }
            in_namespace(find(plural), namespace, tail, found)
        }
        ["namespaces", namespace, plural, tail @ ..] => in_namespace(find(plural), namespace, tail, found),
        [plural] => find(plural).map_or(Target::Nothing, |r| found(r, "", "", "")),
        [plural, name] => cluster_scoped(find(plural)).map_or(Target::Nothing, |r| found(r, "", name, "")),
        [plural, name, sub @ "proxy", ..] | [plural, name, sub] => {
            cluster_scoped(find(plural)).map_or(Target::Nothing, |r| found(r, "", name, sub))
        }
        _ => Target::Nothing,
    }
}

fn cluster_scoped(resource: Option<Arc<Resource>>) -> Option<Arc<Resource>> {
    resource.filter(|r| !r.namespaced)
}

fn in_namespace(
    resource: Option<Arc<Resource>>,
    namespace: &str,
    tail: &[&str],
    found: impl Fn(Arc<Resource>, &str, &str, &str) -> Target,
) -> Target {
    let Some(resource) = resource.filter(|r| r.namespaced) else { return Target::Nothing };
    match tail {
        [] => found(resource, namespace, "", ""),
        [name] => found(resource, namespace, name, ""),
        [name, sub] => found(resource, namespace, name, sub),
        // the path behind a proxy
        [name, "proxy", ..] => found(resource, namespace, name, "proxy"),
        _ => Target::Nothing,
    }
}

impl Request {
    /// Completes a target with the method, the query and the headers.
    pub fn new(
        method: &Method,
        target: (Arc<Resource>, String, String, Subresource),
        query: Query,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        let (resource, namespace, name, subresource) = target;
        let verb = match (method, name.is_empty()) {
            (&Method::GET, false) => Verb::Get,
            (&Method::GET, true) if query.flag("watch") => Verb::Watch,
            (&Method::GET, true) => Verb::List,
            (&Method::POST, true) => Verb::Create,
            (&Method::POST, false) if subresource.takes(Verb::Create) && subresource != Subresource::None => {
                Verb::Create
            }
            (&Method::PUT, false) => Verb::Update,
            (&Method::PATCH, false) => Verb::Patch,
            (&Method::DELETE, false) => Verb::Delete,
            (&Method::DELETE, true) => Verb::DeleteCollection,
            _ => return Err(Refusal::method_not_allowed()),
        };
        if !resource.verbs().contains(&verb.as_str()) {
            return Err(Refusal::method_not_allowed());
        }
        if resource.namespaced && namespace.is_empty() && verb.writes() {
            return Err(Refusal::method_not_allowed());
        }
        if !subresource.takes(verb) {
            return Err(Refusal::method_not_allowed());
        }
        let dry_run = match query.get("dryRun") {
            "" => false,
            "All" => true,
            other => {
                let cause = Cause::unsupported("dryRun", &json!([other]), &["All"]);
                return Err(Refusal::invalid_options(verb.options_kind(), &cause));
            }
        };
        let header = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let manager = match query.get("fieldManager") {
            "" => header(USER_AGENT).split('/').next().unwrap_or_default().trim(),
            explicit => explicit,
        };
        let manager = manager.chars().take(MANAGER_MAX).collect::<String>();
        let content_type = header(http::header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        Ok(Self {
            verb,
            resource,
            subresource,
            namespace,
            name,
            view: View::from_accept(header(ACCEPT))?,
            content_type: content_type.to_lowercase(),
            impersonated: header(HeaderName::from_static(IMPERSONATE_USER)).to_owned(),
            manager: if manager.is_empty() { "unknown".to_owned() } else { manager },
            dry_run,
            query,
            denial: None,
        })
    }

    /// A creation by the server itself.
    pub fn internal(resource: &Arc<Resource>, namespace: &str) -> Self {
        Self {
            verb: Verb::Create,
            resource: Arc::clone(resource),
            subresource: Subresource::None,
            namespace: namespace.to_owned(),
            name: String::new(),
            query: Query::default(),
            view: View::Whole,
            content_type: String::new(),
            manager: "kube-apiserver".to_owned(),
            impersonated: String::new(),
            dry_run: false,
            denial: None,
        }
    }
}

impl View {
    /// The first form in the list that the server can answer in.
    pub fn from_accept(accept: &str) -> Result<Self, Refusal> {
        if accept.trim().is_empty() {
            return Ok(View::Whole);
        }
        for clause in accept.split(',') {
            let mut parts = clause.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            if !matches!(media_type, "application/json" | "application/*" | "*/*") {
                continue;
            }
            let mut kind = "";
            let mut version = "v1";
            for part in parts {
                match part.split_once('=') {
                    Some(("as", value)) => kind = value,
                    Some(("v", value)) => version = value,
                    _ => {}
                }
            }
            match (kind, version) {
                ("", _) => return Ok(View::Whole),
                ("Table", "v1") => return Ok(View::Table),
                ("PartialObjectMetadata" | "PartialObjectMetadataList", "v1") => return Ok(View::Metadata),
                _ => {}
            }
        }
        Err(Refusal::not_acceptable())
    }
}

/// Undoes `%xx` and `+`; malformed escapes stay as they are.
fn percent_decode(text: &str) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let pair = bytes.get(i + 1..i + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[i], pair.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(path: &str) -> String {
        match target(&Registry::new(), path) {
            Target::Resource { resource, namespace, name, subresource } => {
                format!("{} {namespace}/{name} {}", resource.qualified(), subresource.as_str())
            }
            Target::Other => "other".into(),
            Target::Nothing => "nothing".into(),
            Target::Unserved(why) => why.into(),
            Target::NoGroup => "no group".into(),
        }
    }

    #[test]
    fn paths_name_resources_as_in_kubernetes() {
        for (path, expected) in [
            ("/api/v1/pods", "pods / "),
            ("/api/v1/namespaces/a/pods/b", "pods a/b "),
            ("/api/v1/namespaces/a/pods/b/status", "pods a/b status"),
            ("/api/v1/namespaces/a", "namespaces /a "),
            ("/api/v1/namespaces/a/status", "namespaces /a status"),
            ("/api/v1/namespaces", "namespaces / "),
            ("/apis/apps/v1/namespaces/a/deployments/b/scale", "deployments.apps a/b scale"),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Aa",
                "clusterroles.rbac.authorization.k8s.io /system:a ",
            ),
            ("/apis/apps/v1", "other"),
            ("/healthz", "other"),
            ("/apis/apps/v1/deployments/b", "nothing"),
            ("/apis/apps/v2/deployments", "nothing"),
            ("/apis/nonsense/v1/deployments", "no group"),
            ("/api/v1/namespaces/a/pods/b/binding", "pods a/b binding"),
            ("/api/v1/namespaces/a/pods/b/nonsense", "nothing"),
            ("/api/v1/namespaces/a/pods/b/log", "the sandbox runs no containers: there are no logs"),
            ("/api/v1/nodes/a/proxy/stats", "the sandbox runs no containers: there is nothing to proxy to"),
        ] {
            assert_eq!(describe(path), expected, "{path}");
        }
    }

    #[test]
    fn the_first_form_that_can_be_served_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(View::from_accept(table), Ok(View::Table));
        assert_eq!(View::from_accept("application/vnd.kubernetes.protobuf, application/json"), Ok(View::Whole));
        let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(View::from_accept(metadata), Ok(View::Metadata));
        assert_eq!(View::from_accept("*/*"), Ok(View::Whole));
        assert!(View::from_accept("text/html").is_err());
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc+in+%28d%29&watch=1&force=false");
        assert_eq!(query.get("labelSelector"), "a=b,c in (d)");
        assert!(query.flag("watch") && !query.flag("force") && !query.flag("absent"));
    }
}
