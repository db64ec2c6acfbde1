//! Which kinds the cluster serves: their plural, their scope and the versions, in the server's order of preference.
//!
//! What is known is kept. A kind that is not known is asked for, at most twice a second for each group. A group whose
//! server is down keeps what was last known of it and does not disturb the others.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use http::Method;
use serde::Deserialize;

use super::connection::{Call, Cluster, JSON};
use super::error::{ApiError, ErrorClass};

/// A kind as the API server addresses it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiKind {
    /// Empty for the core group.
    pub group: Arc<str>,
    pub version: Arc<str>,
    pub kind: Arc<str>,
    pub plural: Arc<str>,
    pub namespaced: bool,
    /// Whether it can be listed and watched: reviews and the like can't.
    pub watchable: bool,
}

impl ApiKind {
    pub fn new(group: &str, version: &str, kind: &str, plural: &str, namespaced: bool) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: plural.into(),
            namespaced,
            watchable: true,
        }
    }

    /// `deployments.apps`, `pods`.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The path of all objects, or of those in one namespace.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let base = group_version_path(&self.group, &self.version);
        match namespace {
            Some(namespace) if self.namespaced && !namespace.is_empty() => {
                format!("{base}/namespaces/{namespace}/{}", self.plural)
            }
            _ => format!("{base}/{}", self.plural),
        }
    }
}

fn group_version_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// The versions of each group and kind, the preferred one first.
type Kinds = HashMap<(Arc<str>, Arc<str>), Vec<ApiKind>>;

/// What is known; written by `discover` and by questions about unknown kinds only.
#[derive(Default)]
pub(super) struct Discovery {
    kinds: RwLock<Kinds>,
    /// When a group (or, as `None`, everything) was last asked about.
    asked: tokio::sync::Mutex<HashMap<Option<String>, Instant>>,
}

/// The least time between two questions about the same group: an attempt that waits for a new kind asks again and again.
const ASK_SPACING: Duration = Duration::from_millis(500);

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;q=0.9";

impl Cluster {
    /// Asks for all kinds. Fails only if the server can't be asked at all.
    pub async fn discover(&self) -> Result<(), ApiError> {
        let mut asked = self.discovery.asked.lock().await;
        let core = self.groups("/api").await?;
        let named = self.groups("/apis").await?;
        let mut found = Vec::new();
        let mut silent = HashSet::new();
        for answer in [core, named] {
            match answer {
                Groups::Aggregated(list) => {
                    for group in list.items {
                        let name = group.metadata.name;
                        for version in group.versions {
                            if version.freshness == "Stale" {
                                silent.insert((name.clone(), version.version.clone()));
                            }
                            found.extend(
                                version.resources.into_iter().filter_map(|r| r.into_kind(&name, &version.version)),
                            );
                        }
                    }
                }
                Groups::Plain(versions) => {
                    for (group, version) in versions {
                        match self.resources_of(&group, &version).await {
                            Ok(kinds) => found.extend(kinds),
                            Err(_) => {
                                silent.insert((group, version));
                            }
                        }
                    }
                }
            }
        }
        self.discovery.replace(found, &silent);
        asked.insert(None, Instant::now());
        Ok(())
    }

    /// What is known of a kind; without a version, the version that the server prefers.
    pub fn resource(&self, group: &str, kind: &str, version: Option<&str>) -> Option<ApiKind> {
        self.discovery.get(group, kind, version)
    }

    /// All kinds that live in namespaces and can be listed, each in the version that the server prefers.
    pub(super) fn namespaced_kinds(&self) -> Vec<ApiKind> {
        self.discovery.preferred(|kind| kind.namespaced && kind.watchable)
    }

    /// The kind, asking the server if it is not known.
    pub async fn resolve(&self, group: &str, kind: &str, version: Option<&str>) -> Result<ApiKind, ApiError> {
        if let Some(known) = self.resource(group, kind, version) {
            return Ok(known);
        }
        self.ask(group, version).await?;
        self.resource(group, kind, version).ok_or_else(|| {
            let version = version.map(|v| format!("/{v}")).unwrap_or_default();
            let group = if group.is_empty() { "the core group" } else { group };
            ApiError::new(ErrorClass::NoSuchKind, format!("the API server has no kind `{kind}` in {group}{version}"))
        })
    }

    /// Asks for the kinds of one group anew: its definitions changed.
    pub async fn refresh_group(&self, group: &str) -> Result<(), ApiError> {
        let kinds = match self.resources_of_group(group).await {
            Ok(kinds) => kinds,
            Err(e) if e.is_not_found() => Vec::new(),
            Err(e) => return Err(e),
        };
        self.discovery.write().retain(|(g, _), _| &**g != group);
        self.discovery.add(kinds);
        Ok(())
    }

    /// The kind as the server prefers it now, whatever was known.
    pub async fn rediscover(&self, group: &str, kind: &str) -> Result<ApiKind, ApiError> {
        self.refresh_group(group).await?;
        self.resolve(group, kind, None).await
    }

    /// Refreshes one group. One question at a time; who waited for another's answer uses it.
    async fn ask(&self, group: &str, version: Option<&str>) -> Result<(), ApiError> {
        let began = Instant::now();
        let mut asked = self.discovery.asked.lock().await;
        let key = version.map(|v| format!("{group}/{v}")).or_else(|| Some(group.to_owned()));
        if let Some(last) = asked.get(&key)
            && (*last > began || began.duration_since(*last) < ASK_SPACING)
        {
            return Ok(());
        }
        let kinds = match version {
            Some(version) => self.resources_of(group, version).await,
            None => self.resources_of_group(group).await,
        };
        asked.retain(|_, at| at.elapsed() < ASK_SPACING);
        asked.insert(key, Instant::now());
        match kinds {
            Ok(kinds) => {
                self.discovery.add(kinds);
                Ok(())
            }
            Err(e) if matches!(e.class, ErrorClass::NotFound | ErrorClass::NoSuchKind) => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn resources_of_group(&self, group: &str) -> Result<Vec<ApiKind>, ApiError> {
        if group.is_empty() {
            return self.resources_of("", "v1").await;
        }
        let reply = self.discovery_call(format!("/apis/{}", segment(group)), JSON).await?;
        let group: PlainGroup = decode(&reply)?;
        let mut kinds = Vec::new();
        for version in group.versions {
            kinds.extend(self.resources_of(&group.name, &version.version).await?);
        }
        Ok(kinds)
    }

    async fn resources_of(&self, group: &str, version: &str) -> Result<Vec<ApiKind>, ApiError> {
        let path = group_version_path(&segment(group), &segment(version));
        let reply = self.discovery_call(path, JSON).await?;
        let list: PlainResources = decode(&reply)?;
        Ok(list.resources.into_iter().filter_map(|r| r.into_kind(group, version)).collect())
    }

    async fn groups(&self, path: &str) -> Result<Groups, ApiError> {
        let reply = self.discovery_call(path.to_owned(), AGGREGATED).await?;
        let answer: AnyGroups = decode(&reply)?;
        Ok(match answer {
            AnyGroups { items: Some(items), .. } => Groups::Aggregated(AggregatedGroups { items }),
            AnyGroups { groups: Some(groups), .. } => Groups::Plain(
                groups
                    .into_iter()
                    .flat_map(|g| g.versions.into_iter().map(move |v| (g.name.clone(), v.version)))
                    .collect(),
            ),
            AnyGroups { versions, .. } => {
                Groups::Plain(versions.unwrap_or_default().into_iter().map(|v| (String::new(), v)).collect())
            }
        })
    }

    async fn discovery_call(&self, path: String, accept: &'static str) -> Result<bytes::Bytes, ApiError> {
        let call = Call { verb: "discover", resource: "apis".into(), method: Method::GET, path, accept, body: None };
        Ok(self.call(call).await?.body)
    }
}

fn decode<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|e| {
        ApiError::new(ErrorClass::Other, format!("the API server's discovery document can't be read: {e}"))
    })
}

/// A path segment made of a name that comes from outside.
pub(super) fn segment(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' | b'@' => text.push(byte.into()),
            _ => {
                text.push('%');
                text.push_str(&hex::encode_upper([byte]));
            }
        }
    }
    text
}

impl Discovery {
    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Kinds> {
        self.kinds.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, group: &str, kind: &str, version: Option<&str>) -> Option<ApiKind> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        let versions = kinds.get(&(group.into(), kind.into()))?;
        match version {
            Some(version) => versions.iter().find(|k| &*k.version == version).cloned(),
            None => versions.first().cloned(),
        }
    }

    fn preferred(&self, wanted: impl Fn(&ApiKind) -> bool) -> Vec<ApiKind> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        kinds.values().filter_map(|versions| versions.first()).filter(|kind| wanted(kind)).cloned().collect()
    }

    /// Takes everything as found, but keeps what is known of the groups that gave no answer.
    fn replace(&self, found: Vec<ApiKind>, silent: &HashSet<(String, String)>) {
        let mut kinds = self.write();
        let mut kept: Vec<ApiKind> = kinds
            .drain()
            .flat_map(|(_, versions)| versions)
            .filter(|k| silent.contains(&(k.group.to_string(), k.version.to_string())))
            .collect();
        let fresh: HashSet<&ApiKind> = found.iter().collect();
        kept.retain(|k| !fresh.contains(k));
        for kind in found.into_iter().chain(kept) {
            kinds.entry((kind.group.clone(), kind.kind.clone())).or_default().push(kind);
        }
    }

    fn add(&self, found: Vec<ApiKind>) {
        let mut kinds = self.write();
        for kind in found {
            let versions = kinds.entry((kind.group.clone(), kind.kind.clone())).or_default();
            match versions.iter_mut().find(|k| k.version == kind.version) {
                Some(known) => *known = kind,
                None => versions.push(kind),
            }
        }
    }
}

enum Groups {
    Aggregated(AggregatedGroups),
    /// Group and version, the group empty for the core group.
    Plain(Vec<(String, String)>),
}

/// `APIGroupDiscoveryList`, `APIGroupList` or `APIVersions`, told apart by what they hold.
#[derive(Deserialize)]
struct AnyGroups {
    items: Option<Vec<AggregatedGroup>>,
    groups: Option<Vec<PlainGroup>>,
    versions: Option<Vec<String>>,
}

struct AggregatedGroups {
    items: Vec<AggregatedGroup>,
}

#[derive(Deserialize)]
struct AggregatedGroup {
    #[serde(default)]
    metadata: AggregatedName,
    #[serde(default)]
    versions: Vec<AggregatedVersion>,
}

#[derive(Default, Deserialize)]
struct AggregatedName {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct AggregatedVersion {
    version: String,
    #[serde(default)]
    resources: Vec<AggregatedResource>,
    #[serde(default)]
    freshness: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AggregatedResource {
    resource: String,
    response_kind: Option<ResponseKind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

impl AggregatedResource {
    fn into_kind(self, group: &str, version: &str) -> Option<ApiKind> {
        let kind = self.response_kind?.kind;
        if kind.is_empty() {
            return None;
        }
        Some(ApiKind {
            watchable: is_watchable(&self.verbs),
            ..ApiKind::new(group, version, &kind, &self.resource, self.scope == "Namespaced")
        })
    }
}

#[derive(Deserialize)]
struct PlainGroup {
    name: String,
    #[serde(default)]
    versions: Vec<PlainVersion>,
}

#[derive(Deserialize)]
struct PlainVersion {
    version: String,
}

#[derive(Deserialize)]
struct PlainResources {
    #[serde(default)]
    resources: Vec<PlainResource>,
}

#[derive(Deserialize)]
struct PlainResource {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

impl PlainResource {
    /// `None` for subresources.
    fn into_kind(self, group: &str, version: &str) -> Option<ApiKind> {
        if self.name.contains('/') {
            return None;
        }
        Some(ApiKind {
            watchable: is_watchable(&self.verbs),
            ..ApiKind::new(group, version, &self.kind, &self.name, self.namespaced)
        })
    }
}

fn is_watchable(verbs: &[String]) -> bool {
    ["list", "watch"].iter().all(|verb| verbs.iter().any(|v| v == verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_gives_no_answer_keeps_what_was_known_of_it() {
        let discovery = Discovery::default();
        let deployment = ApiKind::new("apps", "v1", "Deployment", "deployments", true);
        let metrics = ApiKind::new("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", true);
        discovery.replace(vec![deployment.clone(), metrics.clone()], &HashSet::new());
        let silent = HashSet::from([("metrics.k8s.io".to_owned(), "v1beta1".to_owned())]);
        discovery.replace(vec![deployment.clone()], &silent);
        assert_eq!(discovery.get("metrics.k8s.io", "PodMetrics", None), Some(metrics));
        discovery.replace(vec![deployment.clone()], &HashSet::new());
        assert_eq!(discovery.get("metrics.k8s.io", "PodMetrics", None), None);
        assert_eq!(discovery.get("apps", "Deployment", Some("v1")), Some(deployment));
        assert_eq!(discovery.get("apps", "Deployment", Some("v1beta1")), None);
    }

    #[test]
    fn paths_are_those_of_the_api_and_names_stay_inside_their_segment() {
        let pod = ApiKind::new("", "v1", "Pod", "pods", true);
        let role = ApiKind::new("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false);
        assert_eq!(pod.collection(Some("a")), "/api/v1/namespaces/a/pods");
        assert_eq!(pod.collection(None), "/api/v1/pods");
        assert_eq!(role.collection(Some("a")), "/apis/rbac.authorization.k8s.io/v1/clusterroles");
        assert_eq!(role.resource(), "clusterroles.rbac.authorization.k8s.io");
        assert_eq!(segment("system:a/../b?c"), "system:a%2F..%2Fb%3Fc");
    }
}
