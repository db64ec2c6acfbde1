//! The HTTP side: connections, bodies, faults that need time, and the writing of answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::Printer;
use super::api::{Answer, Api};
use super::collector;
use super::discovery;
use super::faults::{Effect, Faults};
use super::journal::Journal;
use super::metadata;
use super::refusal::Refusal;
use super::removal::Options as DeleteOptions;
use super::request::{Query, Request, Subresource, Target, Verb, View, target};
use super::{body, kubeconfig, watching};

/// The API server's own limit on a request's body.
const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// A client has this long to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How the sandbox is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// A loopback address; port 0 takes any free one.
    pub listen: SocketAddr,
    /// If set, requests must carry it as a bearer token.
    pub token: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), token: None }
    }
}

/// Why the sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Without authentication, only this machine may reach it.
    #[error("the sandbox listens on loopback addresses only, and `{0}` is none")]
    NotLoopback(SocketAddr),
    #[error("the sandbox can't listen on `{address}`: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the kubeconfig `{path}` can't be written: {source}")]
    Kubeconfig { path: String, source: std::io::Error },
}

/// A running API server. Dropping it ends it.
#[derive(Debug)]
pub struct Sandbox {
    address: SocketAddr,
    token: Option<String>,
    api: Arc<Api>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    accepting: JoinHandle<()>,
}

impl Sandbox {
    /// Starts an empty cluster. It serves as soon as this returns.
    pub async fn start(options: Options) -> Result<Self, SandboxError> {
        if !options.listen.ip().is_loopback() {
            return Err(SandboxError::NotLoopback(options.listen));
        }
        let failed = |source| SandboxError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let api = Arc::new(Api::new());
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(collector::run(Arc::clone(&api), shutdown.clone()));
        let server = Arc::new(Server {
            api: Arc::clone(&api),
            token: options.token.clone(),
            shutdown: shutdown.clone(),
            tasks: tasks.clone(),
        });
        let accepting = tokio::spawn(accept(listener, server));
        Ok(Self { address, token: options.token, api, shutdown, tasks, accepting })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig whose only context is this server.
    pub fn kubeconfig_yaml(&self) -> String {
        kubeconfig::yaml(&self.url(), self.token.as_deref())
    }

    pub fn write_kubeconfig(&self, path: &Path) -> Result<(), SandboxError> {
        kubeconfig::write(path, &self.kubeconfig_yaml())
            .map_err(|source| SandboxError::Kubeconfig { path: path.display().to_string(), source })
    }

    /// What the server shall do wrong.
    pub fn faults(&self) -> &Faults {
        &self.api.faults
    }

    /// What was asked of the server.
    pub fn requests(&self) -> &Journal {
        &self.api.journal
    }

    /// Ends all watches and connections.
    pub async fn shutdown(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.accepting.abort();
    }
}

struct Server {
    api: Arc<Api>,
    token: Option<String>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection was closed by a fault rule")]
struct Cut;

async fn accept(listener: TcpListener, server: Arc<Server>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let server = Arc::clone(&server);
                server.tasks.clone().spawn(serve(stream, server));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                // out of file descriptors: give others time to close theirs
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, server: Arc<Server>) {
    // an answer is one small packet that a client waits for
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let shutdown = server.shutdown.clone();
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { server.respond(request).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        result = connection => if let Err(error) = result {
            tracing::trace!(%error, "a connection ended");
        },
        () = shutdown.cancelled() => {}
    }
}

impl Server {
    async fn respond(self: Arc<Self>, request: http::Request<Incoming>) -> Result<Response<Body>, Cut> {
        let (parts, body) = request.into_parts();
        if !self.is_authenticated(&parts.headers) {
            return Ok(refused(&Refusal::injected(401, "Unauthorized")));
        }
        let path = parts.uri.path();
        let found = match target(&self.api.registry, path) {
            Target::Resource { resource, namespace, name, subresource } => (resource, namespace, name, subresource),
            Target::Unserved(why) => return Ok(refused(&Refusal::not_implemented(why))),
            Target::Nothing => return Ok(refused(&Refusal::no_such_resource())),
            Target::NoGroup => return Ok(no_such_page()),
            Target::Other => return Ok(self.other(&parts.method, path, &parts.headers)),
        };
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let request = match Request::new(&parts.method, found, query, &parts.headers) {
            Ok(request) => request,
            Err(refusal) => return Ok(refused(&refusal)),
        };
        let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Ok(refused(&Refusal::too_large(BODY_BYTES_MAX))),
            Err(_) => return Err(Cut),
        };
        if !request.verb.writes() {
            return self.carry_out(request, body).await;
        }
        // a write that has begun is done, whether the client waits for it or not
        let server = Arc::clone(&self);
        let work = self.tasks.spawn(async move { server.carry_out(request, body).await });
        work.await.unwrap_or(Err(Cut))
    }

    fn is_authenticated(&self, headers: &HeaderMap) -> bool {
        use subtle::ConstantTimeEq as _;
        let Some(token) = &self.token else { return true };
        let given = headers.get(http::header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        given.strip_prefix(b"Bearer ").is_some_and(|given| given.ct_eq(token.as_bytes()).into())
    }

    fn other(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Body> {
        if method != Method::GET {
            return no_such_page();
        }
        match path {
            "/healthz" | "/livez" | "/readyz" => {
                respond(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(b"ok"))
            }
            "/version" => respond_value(200, &discovery::version()),
            _ => {
                let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
                match discovery::document(&self.api.registry, path, accept) {
                    Some((kind, value)) => respond(StatusCode::OK, kind, value.to_string().into()),
                    None => no_such_page(),
                }
            }
        }
    }

    /// Carries out a request with the faults that concern it.
    async fn carry_out(&self, mut request: Request, body: Bytes) -> Result<Response<Body>, Cut> {
        let created = match request.verb {
            Verb::Create => match body::decode(&request.content_type, &body) {
                Ok(value) => Some(value),
                Err(refusal) => {
                    self.api.journal.note(&request, "", refusal.code);
                    return Ok(refused(&refusal));
                }
            },
            _ => None,
        };
        let name = match &created {
            Some(value) => metadata::name(value).to_owned(),
            None => request.name.clone(),
        };
        let fault = self.api.faults.take(&request, &name);
        let mut cut = false;
        let mut answer_delay = None;
        match fault {
            None => {}
            Some((_, Effect::Answer { code, message })) => {
                return Ok(self.note(&request, &name, Err(Refusal::injected(code, message))));
            }
            Some((_, Effect::Forbid)) => return Ok(self.note(&request, &name, Err(rbac_refusal(&request, &name)))),
            Some((_, Effect::Deny { webhook, message, code })) => {
                request.denial = Some(Refusal::denied(code, &webhook, &message));
            }
            Some((_, Effect::Delay(delay))) => tokio::time::sleep(delay).await,
            Some((_, Effect::DelayAnswer(delay))) => answer_delay = Some(delay),
            Some((id, Effect::Hang)) => {
                tokio::select! {
                    () = self.api.faults.removed(id) => {}
                    () = self.shutdown.cancelled() => {}
                }
                self.api.journal.note(&request, &name, 0);
                return Err(Cut);
            }
            Some((_, Effect::DropAfter)) => cut = true,
            Some((_, Effect::LandLate(delay))) => {
                self.land_late(request, name, created, body, delay);
                return Err(Cut);
            }
        }
        let result = self.perform(&request, created, &body);
        if cut {
            self.api.journal.note(&request, &name, 0);
            return Err(Cut);
        }
        let response = self.note(&request, &name, result);
        if let Some(delay) = answer_delay {
            tokio::time::sleep(delay).await;
        }
        Ok(response)
    }

    /// Carries out a write whose client was already sent away.
    fn land_late(&self, request: Request, name: String, created: Option<Value>, body: Bytes, delay: Duration) {
        let (api, shutdown) = (Arc::clone(&self.api), self.shutdown.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = shutdown.cancelled() => return,
            }
            let result = perform(&api, &request, created, &body);
            let landed = matches!(result, Ok(Done::Answer(_)));
            tracing::debug!(name, landed, "a late write was carried out");
            api.journal.note(&request, &name, 0);
        });
    }

    fn perform(&self, request: &Request, created: Option<Value>, body: &Bytes) -> Result<Response<Body>, Refusal> {
        if request.verb == Verb::Watch {
            let stream = watching::start(&self.api, request, self.shutdown.clone())?;
            let body = StreamBody::new(stream).boxed_unsync();
            let mut response = Response::new(body);
            let kind = if request.view == View::Table {
                HeaderValue::from_static("application/json;stream=watch;as=Table;v=v1;g=meta.k8s.io")
            } else {
                HeaderValue::from_static("application/json")
            };
            response.headers_mut().insert(CONTENT_TYPE, kind);
            return Ok(response);
        }
        match perform(&self.api, request, created, body)? {
            Done::Answer(answer) => Ok(print(request, &answer)),
        }
    }

    fn note(&self, request: &Request, name: &str, result: Result<Response<Body>, Refusal>) -> Response<Body> {
        let response = result.unwrap_or_else(|refusal| refused(&refusal));
        self.api.journal.note(request, name, response.status().as_u16());
        response
    }
}

/// What a request that is no watch results in.
enum Done {
    Answer(Answer),
}

fn perform(api: &Api, request: &Request, created: Option<Value>, body: &Bytes) -> Result<Done, Refusal> {
    let answer = match request.verb {
        Verb::Get => api.get(request),
        Verb::List => api.list(request),
        Verb::Create => {
            let object = created.unwrap_or_default();
            match request.subresource {
                Subresource::Binding => api.bind(request, &object),
                Subresource::Eviction => api.evict(request, &object),
                _ => api.create(request, object),
            }
        }
        Verb::Update => api.update(request, body::decode(&request.content_type, body)?),
        Verb::Patch => api.patch(request, body),
        Verb::Delete => api.delete(request, &DeleteOptions::read(request, body)?),
        Verb::DeleteCollection => api.delete_collection(request, &DeleteOptions::read(request, body)?),
        Verb::Watch => Err(Refusal::internal("a watch has no single answer")),
    };
    answer.map(Done::Answer)
}

/// As the RBAC authorizer refuses.
fn rbac_refusal(request: &Request, name: &str) -> Refusal {
    let resource = &request.resource;
    let sub = request.subresource.as_str();
    let plural = if sub.is_empty() { resource.plural.clone() } else { format!("{}/{sub}", resource.plural) };
    let scope = if request.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", request.namespace)
    };
    let why = format!(
        "User \"sandbox\" cannot {} resource \"{plural}\" in API group \"{}\" {scope}",
        request.verb.as_str(),
        resource.group
    );
    // a creation is refused before its name is read
    Refusal::forbidden(resource, if request.verb == Verb::Create { "" } else { name }, why)
}

fn respond(code: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn respond_value(code: u16, value: &Value) -> Response<Body> {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    respond(code, "application/json", value.to_string().into())
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = respond_value(refusal.code, &refusal.to_value());
    warn(&mut response, &refusal.warnings);
    response
}

fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let text = format!("299 - {}", Value::from(warning.as_str()));
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append("Warning", value);
        }
    }
}

fn no_such_page() -> Response<Body> {
    respond(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", Bytes::from_static(b"404 page not found\n"))
}

fn print(request: &Request, answer: &Answer) -> Response<Body> {
    match answer {
        Answer::Value { code, value } => respond_value(*code, value),
        Answer::List(list) => respond(StatusCode::OK, "application/json", Printer::new(request).list(list)),
        Answer::Object { code, object, warnings } => {
            let mut out = BytesMut::new();
            Printer::new(request).object(&mut out, object);
            let code = StatusCode::from_u16(*code).unwrap_or(StatusCode::OK);
            let mut response = respond(code, "application/json", out.freeze());
            warn(&mut response, warnings);
            response
        }
    }
}
