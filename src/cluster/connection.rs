//! The connection: how the cluster is found, and the one way in which a request is sent and answered.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use super::congestion::{Congestion, Load, Turn};
use super::discovery::Discovery;
use super::error::{ApiError, ErrorClass};
use super::fence::{Closed, Fence};
use super::tasks::Tasks;
use crate::config::{API_CONCURRENCY, VERSION};

/// How calls are made.
#[derive(Clone)]
pub struct ClusterOptions {
    /// The deadline of one call, body included. Watches have their own.
    pub request_timeout: Duration,
    /// Requests under way at a time, at most; fewer while the API server asks for less.
    pub concurrency: usize,
    pub observer: Arc<dyn RequestObserver>,
    /// Of this program, as the API server's audit log shows it.
    pub version: String,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        // client-go's default for one request against a loaded server is 32 s; an apply waits for webhooks of up to 30 s
        Self {
            request_timeout: Duration::from_secs(32),
            concurrency: API_CONCURRENCY,
            observer: Arc::new(NoObserver),
            version: VERSION.to_owned(),
        }
    }
}

/// What is told of one finished call; no names of objects, no content.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// `get`, `list`, `watch`, `apply`, `patch`, `create`, `delete`, `discover`.
    pub verb: &'static str,
    /// The plural, with the group behind a dot: `deployments.apps`.
    pub resource: &'a str,
    /// The HTTP status; 0 when there was no answer.
    pub code: u16,
    pub duration: Duration,
}

/// Is told of every call, for metrics. Must not block.
pub trait RequestObserver: Send + Sync {
    fn finished(&self, request: RequestFacts<'_>);

    /// So many requests may be under way from now on.
    fn concurrency(&self, _limit: usize) {}

    /// A kind of what applications declare is watched, in one namespace if that is all that is watched: `starting`,
    /// `current`, `lost`, `forbidden` or `unserved`.
    fn watch(&self, _resource: &str, _namespace: Option<&str>, _state: &'static str) {}

    /// It is not watched any more.
    fn watch_ended(&self, _resource: &str, _namespace: Option<&str>) {}
}

/// Tells nobody.
pub struct NoObserver;

impl RequestObserver for NoObserver {
    fn finished(&self, _: RequestFacts<'_>) {}
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The file is missing, unreadable or names a context that it does not hold.
    #[error("can't use the kubeconfig `{}`: {reason}", path.display())]
    Kubeconfig { path: PathBuf, reason: String },
    /// Not in a pod, and no kubeconfig was given.
    #[error(
        "no cluster to talk to: no kubeconfig was given and this is not a pod with a service account ({reason})\nhint: give --kubeconfig, set KUBECONFIG, or try `afresh demo`"
    )]
    NotInCluster { reason: String },
    /// The settings can't be used: a certificate that doesn't parse, a proxy of an unknown kind.
    #[error("can't set up the connection to `{server}`: {reason}")]
    Setup { server: String, reason: String },
}

/// One Kubernetes cluster, as one user. Cheap to clone; clones share connections and discovery.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    options: ClusterOptions,
    /// Impersonation headers.
    headers: HeaderMap,
    /// What every write passes.
    fence: Fence,
    congestion: Congestion,
    /// Whether its requests go before those of others that wait.
    urgent: bool,
    pub(super) discovery: Arc<Discovery>,
    tasks: Tasks,
}

/// Tells our requests from those of others in the API server's audit log; the version comes behind a slash.
const USER_AGENT: &str = "afresh";

/// The largest answer we read, in bytes: a page of 500 objects at half of etcd's limit each.
const ANSWER_BYTES_MAX: usize = 384 * 1024 * 1024;

/// One request.
pub(super) struct Call {
    pub verb: &'static str,
    pub resource: String,
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub accept: &'static str,
    /// Content type and content.
    pub body: Option<(&'static str, Vec<u8>)>,
}

/// A successful answer.
pub(super) struct Reply {
    pub code: u16,
    pub warnings: Vec<String>,
    pub body: Bytes,
}

/// An answer that is none of success, or no answer.
struct Failed {
    error: ApiError,
    load: Load,
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self { error, load: Load::Unknown }
    }
}

pub(super) const JSON: &str = "application/json";
/// The resource by which it is decided who leads.
const LEASES: &str = "leases.coordination.k8s.io";

impl Cluster {
    /// Connects as the kubeconfig says or, without one, as a pod's service account. Nothing is sent yet.
    pub async fn connect(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
        options: ClusterOptions,
    ) -> Result<Self, ClusterError> {
        let mut config = match kubeconfig {
            Some(path) => {
                let broken = |e: kube::config::KubeconfigError| ClusterError::Kubeconfig {
                    path: path.to_owned(),
                    reason: chain(&e),
                };
                let file = Kubeconfig::read_from(path).map_err(broken)?;
                let chosen = KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
                Config::from_custom_kubeconfig(file, &chosen).await.map_err(broken)?
            }
            None => Config::incluster_env().map_err(|e| ClusterError::NotInCluster { reason: chain(&e) })?,
        };
        // visible back-off decides, never the client
        config.default_retry = false;
        let server = config.cluster_url.to_string();
        let client = kube::Client::try_from(config).map_err(|e| ClusterError::Setup { server, reason: chain(&e) })?;
        Ok(Self::from_client(client, options))
    }

    /// Uses a client that exists already; it must not retry.
    pub fn from_client(client: kube::Client, options: ClusterOptions) -> Self {
        Self {
            client,
            congestion: Congestion::new(options.concurrency, options.observer.clone()),
            urgent: false,
            options,
            headers: HeaderMap::new(),
            fence: Fence::default(),
            discovery: Arc::default(),
            tasks: Tasks::default(),
        }
    }

    /// The same cluster, acting as a service account.
    pub fn as_service_account(&self, namespace: &str, name: &str) -> Result<Self, ApiError> {
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let value = HeaderValue::from_str(&user).map_err(|_| {
            ApiError::new(ErrorClass::BadRequest, format!("`{namespace}/{name}` is not a service account's name"))
        })?;
        let mut other = self.clone();
        other.headers.insert(HeaderName::from_static("impersonate-user"), value);
        Ok(other)
    }

    /// Who is told of what happens here.
    pub(super) fn observer(&self) -> &dyn RequestObserver {
        &*self.options.observer
    }

    /// Requests under way at a time, at most.
    pub fn concurrency_max(&self) -> usize {
        self.congestion.ceiling()
    }

    /// The tasks that keep watching, and which of them died. Clones share them.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The same cluster, where nothing is written but behind this fence.
    pub fn behind(&self, fence: Fence) -> Self {
        Self { fence, ..self.clone() }
    }

    /// The same cluster, whose requests go before all that wait: for what must not stand behind a crowd.
    pub fn urgently(&self) -> Self {
        Self { urgent: true, ..self.clone() }
    }

    /// How long an answer is waited for; an error if the request may not be sent now.
    fn deadline(&self, call: &Call) -> Result<Duration, Closed> {
        let timeout = self.options.request_timeout;
        if call.method == Method::GET {
            return Ok(timeout);
        }
        Ok(match self.fence.admit()? {
            Some(until) => timeout.min(until.saturating_duration_since(tokio::time::Instant::now())),
            None => timeout,
        })
    }

    /// Sends one request when it is its turn, and reads its whole answer, within the deadline.
    pub(super) async fn call(&self, call: Call) -> Result<Reply, ApiError> {
        // who leads must be able to go on leading, however busy the server is
        let mut turn = if call.resource == LEASES { Turn::exempt() } else { self.congestion.turn(self.urgent).await };
        let started = Instant::now();
        let (verb, resource) = (call.verb, call.resource.clone());
        let timeout =
            self.deadline(&call).map_err(|closed| ApiError::new(ErrorClass::NotLeading, closed.to_string()))?;
        // an exchange is large; boxed, it is no part of all that may ever send a request
        let exchange = Box::pin(self.exchange(call));
        let (result, load) = match turn.during(tokio::time::timeout(timeout, exchange)).await {
            Ok(Ok(reply)) => (Ok(reply), Load::Served),
            Ok(Err(failed)) => (Err(failed.error), failed.load),
            Err(_) => {
                let text = format!("no answer from the API server within {} s", timeout.as_secs());
                (Err(ApiError::new(ErrorClass::Timeout, text)), Load::Overloaded)
            }
        };
        turn.ended(load);
        let code = match &result {
            Ok(reply) => reply.code,
            Err(error) => error.code,
        };
        self.options.observer.finished(RequestFacts { verb, resource: &resource, code, duration: started.elapsed() });
        result
    }

    async fn exchange(&self, call: Call) -> Result<Reply, Failed> {
        let response = self.send(call).await?;
        let code = response.status().as_u16();
        let warnings = warnings(response.headers());
        let retry_after = retry_after(response.headers());
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|e| ApiError::new(ErrorClass::Unreachable, format!("the API server's answer broke off: {e}")))?
            .to_bytes();
        if (200..300).contains(&code) {
            Ok(Reply { code, warnings, body })
        } else {
            let error = ApiError::from_answer(code, &body, retry_after);
            let load = load_of(code, retry_after, &error);
            Err(Failed { error, load })
        }
    }

    /// Opens a stream: the answer's head within the deadline, its body by and by.
    pub(super) async fn open(&self, call: Call) -> Result<Body, ApiError> {
        let started = Instant::now();
        let (verb, resource) = (call.verb, call.resource.clone());
        let head = async {
            let response = self.send(call).await?;
            let code = response.status().as_u16();
            if response.status().is_success() {
                return Ok((code, response.into_body()));
            }
            let retry_after = retry_after(response.headers());
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_or_else(|_| Bytes::new(), |b| b.to_bytes());
            Err(ApiError::from_answer(code, &body, retry_after))
        };
        let result = match tokio::time::timeout(self.options.request_timeout, head).await {
            Ok(result) => result,
            Err(_) => Err(ApiError::new(ErrorClass::Timeout, "the API server did not open the watch in time")),
        };
        let code = match &result {
            Ok((code, _)) => *code,
            Err(error) => error.code,
        };
        self.options.observer.finished(RequestFacts { verb, resource: &resource, code, duration: started.elapsed() });
        result.map(|(_, body)| body)
    }

    async fn send(&self, call: Call) -> Result<Response<Body>, ApiError> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(http::header::ACCEPT, call.accept)
            .header(http::header::USER_AGENT, format!("{USER_AGENT}/{}", self.options.version));
        let body = match call.body {
            Some((content_type, body)) => {
                request = request.header(http::header::CONTENT_TYPE, content_type);
                body
            }
            None => Vec::new(),
        };
        let mut request = request
            .body(Body::from(body))
            .map_err(|e| ApiError::new(ErrorClass::BadRequest, format!("not a request that can be sent: {e}")))?;
        request.headers_mut().extend(self.headers.clone());
        self.client.send(request).await.map_err(|e| match e {
            kube::Error::Auth(e) => ApiError::new(
                ErrorClass::Unreachable,
                format!("can't get credentials for the API server: {}", chain(&e)),
            ),
            e => ApiError::new(ErrorClass::Unreachable, format!("can't reach the API server: {}", root(&e))),
        })
    }
}

/// The texts of `Warning` headers: `299 - "text"`.
fn warnings(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(http::header::WARNING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .filter_map(|value| {
            let text = value.split_once('"')?.1;
            let text = text.rsplit_once('"').map_or(text, |(inside, _)| inside);
            Some(text.replace("\\\"", "\"").replace("\\\\", "\\"))
        })
        .take(WARNINGS_MAX)
        .collect()
}

/// Warnings kept of one answer: they are shown to people.
const WARNINGS_MAX: usize = 16;

/// What an answer other than success says of the server's load.
fn load_of(code: u16, retry_after: Option<Duration>, error: &ApiError) -> Load {
    match code {
        // of one kind, while its definition changes
        429 if error.message.contains(INITIALIZING) => Load::Served,
        408 | 429 | 504 => Load::Overloaded,
        _ if retry_after.is_some() => Load::Overloaded,
        500.. => Load::Unknown,
        _ => Load::Served,
    }
}

/// The words by which the API server asks for a moment because of one custom resource.
const INITIALIZING: &str = "storage is (re)initializing";

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_S_MAX)))
}

/// No server may silence us for longer, in seconds.
const RETRY_AFTER_S_MAX: u64 = 300;

/// An error and its causes, `: ` between them, none said twice.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The last cause, which is the one that a person needs: `connection refused`, not `ServiceError`.
fn root(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warning_headers_are_read_without_their_quotes() {
        let mut headers = HeaderMap::new();
        headers.append("warning", HeaderValue::from_static(r#"299 - "unknown field \"spec.foo\"""#));
        headers.append("warning", HeaderValue::from_static("nonsense"));
        assert_eq!(warnings(&headers), [r#"unknown field "spec.foo""#]);
    }

    #[test]
    fn only_what_is_about_the_servers_load_asks_for_less() {
        let second = Some(Duration::from_secs(1));
        for (code, retry_after, message, expected) in [
            (429, second, "too many requests, please try again later", Load::Overloaded),
            (429, None, "slow down", Load::Overloaded),
            (429, second, "storage is (re)initializing", Load::Served),
            (503, second, "not now", Load::Overloaded),
            (503, None, "shutting down", Load::Unknown),
            (504, None, "timeout", Load::Overloaded),
            (500, None, "etcdserver: no leader", Load::Unknown),
            (409, None, "conflict", Load::Served),
            (422, None, "invalid", Load::Served),
        ] {
            let error = ApiError::new(ErrorClass::Other, message);
            assert_eq!(load_of(code, retry_after, &error), expected, "{code} {message}");
        }
    }

    /// A server that answers Leases at once and nothing else ever.
    fn answers_leases_alone() -> Cluster {
        let service = axum::Router::new().fallback(|request: axum::extract::Request| async move {
            if !request.uri().path().contains("/leases") {
                std::future::pending::<()>().await;
            }
            "{}"
        });
        let options = ClusterOptions { concurrency: 2, ..ClusterOptions::default() };
        Cluster::from_client(kube::Client::new(service, "default"), options)
    }

    #[tokio::test(start_paused = true)]
    async fn who_leads_never_waits_for_a_turn() {
        use crate::cluster::ApiKind;
        assert_eq!(ApiKind::lease().resource(), LEASES);
        let cluster = answers_leases_alone();
        let crowd: Vec<_> = (0..1000)
            .map(|_| {
                let cluster = cluster.clone();
                tokio::spawn(async move { cluster.list(&ApiKind::kustomization(), None).await.map(drop) })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let lease = ApiKind::lease();
        let id = lease.object("afresh-system", "afresh");
        let began = tokio::time::Instant::now();
        let renewed = cluster.merge_patch(&lease, &id, &serde_json::json!({}), None, "afresh").await;
        renewed.expect("it is answered");
        assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
        crowd.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let error =
            Cluster::connect(Some(Path::new("/nonexistent/config")), None, ClusterOptions::default()).await.err();
        assert!(error.is_some_and(|e| e.to_string().contains("`/nonexistent/config`")));
    }
}
