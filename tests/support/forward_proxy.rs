//! A forward proxy on loopback for plain HTTP: it takes requests with whole URLs and passes them on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use tokio::net::TcpListener;

/// Ends with the runtime of the test.
pub struct ForwardProxy {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    authorization: Mutex<Option<String>>,
}

impl ForwardProxy {
    pub async fn start() -> ForwardProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        let router = Router::new().fallback(pass_on).with_state(seen.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        ForwardProxy { address, seen }
    }

    pub fn socket(&self) -> SocketAddr {
        self.address
    }

    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> u64 {
        self.seen.requests.load(Ordering::SeqCst)
    }

    /// The newest credentials that it was given.
    pub fn authorization(&self) -> Option<String> {
        self.seen.authorization.lock().expect("not poisoned").clone()
    }
}

async fn pass_on(State(seen): State<Arc<Seen>>, request: Request) -> Result<Response, StatusCode> {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let (mut head, body) = request.into_parts();
    // Only a request to a proxy names the host in its first line.
    if head.uri.host().is_none() {
        return Err(StatusCode::BAD_REQUEST);
    }
    let given = head.headers.remove("proxy-authorization").and_then(|value| value.to_str().map(str::to_owned).ok());
    *seen.authorization.lock().expect("not poisoned") = given;
    let body = to_bytes(body, usize::MAX).await.map_err(|_| StatusCode::BAD_REQUEST)?;
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
    head.headers.remove("host");
    let sent = client.request(head.method, head.uri.to_string()).headers(head.headers).body(body).send().await;
    let answer = sent.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if name != "transfer-encoding" && name != "connection" {
            response = response.header(name, value);
        }
    }
    let body = answer.bytes().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    response.body(Body::from(body)).map_err(|_| StatusCode::BAD_GATEWAY)
}
