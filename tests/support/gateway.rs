//! A gateway before the API server that a test can make misbehave, whichever API server it is.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::TryStreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, RETRY_AFTER, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the API server does instead of the right thing.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It takes this long before it begins.
    Slow(Duration),
    /// It answers with a Status of this code, and says after how many seconds to come again if it is 429.
    Answer(u16),
    /// It opens a watch, says this and ends it.
    Say(String),
    /// It neither answers nor ends.
    Hang,
}

type Which = Box<dyn Fn(&Method, &str) -> bool + Send + Sync>;

/// For requests that `which` says yes to: by method, and path with query.
struct Rule {
    which: Which,
    fault: Fault,
    times: Option<u32>,
    applied: u32,
}

/// Forwards requests to the API server, but for those that a fault is set for.
pub struct Gateway {
    kubeconfig: PathBuf,
    server: Arc<Server>,
}

struct Server {
    url: String,
    client: reqwest::Client,
    rules: Mutex<Vec<Rule>>,
    /// Nobody is let in, and all connections are closed.
    down: watch::Sender<bool>,
    turned_away: watch::Sender<u32>,
    crowd: Mutex<Crowd>,
}

/// Requests that are under way, without watches and what is about Leases.
#[derive(Default)]
struct Crowd {
    now: usize,
    peak: usize,
}

type Body = UnsyncBoxBody<Bytes, reqwest::Error>;

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection ends")]
struct Ended;

impl Gateway {
    /// Before the server that a kubeconfig names.
    pub async fn before(kubeconfig: &Path, folder: &Path) -> Gateway {
        let text = std::fs::read_to_string(kubeconfig).expect("a kubeconfig");
        let mut config: Value = serde_json::from_str(&text).expect("the kubeconfigs of tests are JSON");
        let cluster = &mut config["clusters"][0]["cluster"];
        let mut client = reqwest::Client::builder().no_proxy();
        if let Some(authority) = cluster["certificate-authority-data"].as_str() {
            let pem = BASE64.decode(authority).expect("base64");
            client = client.tls_certs_only([reqwest::Certificate::from_pem(&pem).expect("a certificate")]);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = Arc::new(Server {
            url: cluster["server"].as_str().expect("a server").trim_end_matches('/').to_owned(),
            client: client.build().expect("a client"),
            rules: Mutex::default(),
            down: watch::Sender::new(false),
            turned_away: watch::Sender::new(0),
            crowd: Mutex::default(),
        });
        *cluster = json!({ "server": format!("http://{address}") });
        let path = folder.join(format!("gateway-{}.kubeconfig", address.port()));
        std::fs::write(&path, config.to_string()).expect("the kubeconfig is written");
        tokio::spawn(accept(listener, server.clone()));
        Gateway { kubeconfig: path, server }
    }

    /// The way through it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// From now on, until [`Gateway::clear`], requests that `which` says yes to (by method, and path with query) meet
    /// this fault.
    pub fn set(&self, fault: Fault, which: impl Fn(&Method, &str) -> bool + Send + Sync + 'static) {
        self.server.rules().push(Rule { which: Box::new(which), fault, times: None, applied: 0 });
    }

    /// As [`Gateway::set`], for so many requests.
    pub fn times(&self, times: u32, fault: Fault, which: impl Fn(&Method, &str) -> bool + Send + Sync + 'static) {
        self.server.rules().push(Rule { which: Box::new(which), fault, times: Some(times), applied: 0 });
    }

    /// How many requests have met a fault since the last [`Gateway::clear`].
    pub fn applied(&self) -> u32 {
        self.server.rules().iter().map(|rule| rule.applied).sum()
    }

    /// The most requests that were under way at a time, but for watches and what is about Leases.
    pub fn peak(&self) -> usize {
        self.server.crowd().peak
    }

    /// All is well again.
    pub fn clear(&self) {
        self.server.rules().clear();
    }

    /// The server goes away: open connections break, new ones are closed at once.
    pub fn go_down(&self) {
        self.server.turned_away.send_replace(0);
        self.server.down.send_replace(true);
    }

    /// It is back.
    pub fn come_up(&self) {
        self.server.down.send_replace(false);
    }

    /// Until so many connections were turned away since it went down.
    pub async fn turned_away(&self, count: u32) {
        let mut away = self.server.turned_away.subscribe();
        away.wait_for(|away| *away >= count).await.expect("the gateway lives");
    }
}

impl Server {
    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, target: &str) -> Option<Inside<'_>> {
        if target.contains("watch=true") || target.contains("/leases") {
            return None;
        }
        let mut crowd = self.crowd();
        crowd.now += 1;
        crowd.peak = crowd.peak.max(crowd.now);
        Some(Inside(self))
    }

    fn fault(&self, method: &Method, target: &str) -> Option<Fault> {
        let mut rules = self.rules();
        let open = |rule: &&mut Rule| rule.times.is_none_or(|times| rule.applied < times);
        let rule = rules.iter_mut().filter(open).find(|rule| (rule.which)(method, target))?;
        rule.applied += 1;
        Some(rule.fault.clone())
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Body>, Ended> {
        let (parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let _inside = self.enter(&target);
        match self.fault(&parts.method, &target) {
            None => {}
            Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
            Some(Fault::Answer(code)) => return Ok(status(code)),
            Some(Fault::Say(text)) => return Ok(Response::new(whole(text))),
            Some(Fault::Hang) => std::future::pending().await,
        }
        let body = body.collect().await.map_err(|_| Ended)?.to_bytes();
        let mut headers = parts.headers;
        headers.remove(HOST);
        let request = self.client.request(parts.method, format!("{}{target}", self.url)).headers(headers).body(body);
        let answer = request.send().await.map_err(|_| Ended)?;
        let mut response = Response::builder().status(answer.status());
        for (name, value) in answer.headers() {
            if ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
                response = response.header(name, value);
            }
        }
        let stream = StreamBody::new(answer.bytes_stream().map_ok(Frame::data));
        response.body(stream.boxed_unsync()).map_err(|_| Ended)
    }
}

/// A request that is under way, until dropped.
struct Inside<'a>(&'a Server);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.crowd().now -= 1;
    }
}

fn whole(text: String) -> Body {
    Full::from(text).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn status(code: u16) -> Response<Body> {
    let message = format!("the gateway of the test answers {code}");
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code });
    let mut response = Response::builder().status(code).header("content-type", "application/json");
    if code == 429 {
        response = response.header(RETRY_AFTER, "1");
    }
    response.body(whole(status.to_string())).expect("an answer")
}

async fn accept(listener: TcpListener, server: Arc<Server>) {
    while let Ok((stream, _)) = listener.accept().await {
        if *server.down.borrow() {
            server.turned_away.send_modify(|away| *away += 1);
        } else {
            tokio::spawn(serve(stream, server.clone()));
        }
    }
}

async fn serve(stream: TcpStream, server: Arc<Server>) {
    let mut down = server.down.subscribe();
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { server.respond(request).await }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = connection => {}
        _ = down.wait_for(|down| *down) => {}
    }
}
