//! An HTTP server that keeps what it is sent: a chat, a pager, a forge, or one of them that is away.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::canaries::Canaries;

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    With(u16),
    /// Takes the request and says nothing.
    Never,
}

#[derive(Clone, Debug)]
pub struct Received {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

pub struct Receiver {
    pub url: String,
    socket: SocketAddr,
    state: Shared,
    _stop: DropGuard,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Kept>>);

struct Kept {
    answers: Answers,
    says: String,
    received: Vec<Received>,
    canaries: Canaries,
}

impl Receiver {
    /// What it is sent is looked at.
    pub async fn start(canaries: &Canaries) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let socket = listener.local_addr().expect("an address");
        let state = Shared(Arc::new(Mutex::new(Kept {
            answers: Answers::With(200),
            says: String::new(),
            received: Vec::new(),
            canaries: canaries.clone(),
        })));
        let router = Router::new().fallback(take).with_state(state.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                served = axum::serve(listener, router) => served.expect("it serves"),
                () = stopped.cancelled() => {}
            }
        });
        Receiver { url: format!("http://{socket}"), socket, state, _stop: stop.drop_guard() }
    }

    pub fn answer(&self, answers: Answers) {
        self.state.kept().answers = answers;
    }

    /// The body of its answers from now on.
    pub fn say(&self, text: &str) {
        self.state.kept().says = text.to_owned();
    }

    pub fn socket(&self) -> SocketAddr {
        self.socket
    }

    /// What came so far, oldest first, also what was not answered well.
    pub fn received(&self) -> Vec<Received> {
        self.state.kept().received.clone()
    }
}

impl Shared {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take(
    State(state): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let (answers, says) = {
        let mut kept = state.kept();
        kept.canaries.look("a delivery", &String::from_utf8_lossy(&body));
        kept.received.push(Received { method, path: uri.to_string(), headers, body, at: Instant::now() });
        (kept.answers, kept.says.clone())
    };
    match answers {
        Answers::With(code) => (StatusCode::from_u16(code).expect("a code"), says),
        Answers::Never => std::future::pending().await,
    }
}
