//! A Git server on loopback for tests and the demo: `git http-backend` behind HTTP, with faults that can be switched.
//!
//! It serves every bare repository in a folder and nothing else. The child process gets an environment of its own.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::io::ReaderStream;

/// Requests of a fetch are short; a push to this server may be larger.
const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A line of the protocol holds so much beside its length and its band.
const PACKET_BYTES_MAX: usize = 65_515;
/// The newest so many requests are remembered.
const RECORDS_MAX: usize = 10_000;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What goes wrong until it is cleared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Connections are dropped as soon as they are made, and those that exist are cut.
    Unreachable,
    /// Every request is answered with this status.
    Status(u16),
    /// 429, with `Retry-After` in seconds if given.
    RateLimited { retry_after: Option<u32> },
    /// Requests are read and never answered.
    Hang,
    /// Answers come one byte a second.
    Drip,
    /// Answers break off in their middle.
    Truncate,
    /// As a proxy that takes the protocol header away: the server answers in version 0.
    WithoutVersion2,
    /// The body of every answer is replaced by bytes that are not Git's.
    Garbage,
    /// Every fetch is answered with this pack.
    Pack(Bytes),
    /// Every request is redirected: to this base, followed by its own path and query.
    Redirect(String),
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub struct Record {
    pub method: String,
    pub path: String,
    /// Protocol version 2's command, for example `ls-refs`.
    pub command: Option<String>,
    pub user_agent: String,
    pub authorization: Option<String>,
    pub request_bytes: u64,
}

/// The switch for what goes wrong.
#[derive(Clone)]
pub struct Faults(watch::Sender<Fault>);

impl Faults {
    pub fn set(&self, fault: Fault) {
        self.0.send_replace(fault);
    }

    pub fn clear(&self) {
        self.set(Fault::None);
    }
}

/// The running server; dropping it stops it.
pub struct GitServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    root: PathBuf,
    backend: PathBuf,
    faults: Faults,
    /// The header that requests must carry.
    authorization: Mutex<Option<String>>,
    records: Mutex<Vec<Record>>,
    requests: AtomicU64,
    response_bytes: AtomicU64,
}

impl GitServer {
    /// Serves the bare repositories in `root` on a free port. Must be called inside a tokio runtime.
    pub fn start(root: &Path) -> io::Result<GitServer> {
        Self::bind(root, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// As [`GitServer::start`], at a given address.
    pub fn bind(root: &Path, address: SocketAddr) -> io::Result<GitServer> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let shared = Arc::new(Shared {
            root: root.canonicalize()?,
            backend: http_backend()?,
            faults: Faults(watch::Sender::default()),
            authorization: Mutex::default(),
            records: Mutex::default(),
            requests: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(GitServer { address, shared, task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a repository by the name of its folder.
    pub fn url(&self, repository: &str) -> String {
        format!("http://{}/{repository}", self.address)
    }

    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// From now on requests without this user name and password are answered with 401.
    pub fn require_basic(&self, username: &str, password: &str) {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
        *lock(&self.shared.authorization) = Some(format!("Basic {encoded}"));
    }

    /// From now on requests without this token are answered with 401.
    pub fn require_bearer(&self, token: &str) {
        *lock(&self.shared.authorization) = Some(format!("Bearer {token}"));
    }

    /// How many requests came in, however they were answered.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many bytes of bodies were sent.
    pub fn response_bytes(&self) -> u64 {
        self.shared.response_bytes.load(Ordering::Relaxed)
    }

    /// The requests in the order they came in.
    pub fn records(&self) -> Vec<Record> {
        lock(&self.shared.records).clone()
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.task.abort();
        // Connections end with the switch, too.
        self.shared.faults.set(Fault::Unreachable);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where Git keeps its CGI program.
fn http_backend() -> io::Result<PathBuf> {
    let output = Command::new("git").arg("--exec-path").stdin(Stdio::null()).output()?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let program = Path::new(&folder).join("git-http-backend");
    if program.is_file() {
        Ok(program)
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "git has no http-backend"))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&shared)));
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut faults = shared.faults.0.subscribe();
    let unreachable = async move {
        // An error means that the switch is gone, and the server with it.
        let _ = faults.wait_for(|fault| *fault == Fault::Unreachable).await;
    };
    let service = hyper::service::service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let _ = stream.set_nodelay(true);
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = unreachable => {}
        _ = connection => {}
    }
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, REQUEST_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return plain(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large"),
    };
    record(shared, &head, &body);
    let fault = shared.faults.0.borrow().clone();
    match &fault {
        Fault::Hang => std::future::pending().await,
        Fault::Status(status) => {
            return plain(StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), "a fault");
        }
        Fault::RateLimited { retry_after } => {
            let mut response = plain(StatusCode::TOO_MANY_REQUESTS, "slow down");
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(*seconds));
            }
            return response;
        }
        Fault::Pack(pack) if body.get(4..).is_some_and(|line| line.starts_with(b"command=fetch")) => {
            return answer_with(pack);
        }
        Fault::Redirect(base) => {
            let rest = head.uri.path_and_query().map_or("", |rest| rest.as_str());
            return redirect(&format!("{base}{rest}"));
        }
        _ => {}
    }
    let expected = lock(&shared.authorization).clone();
    if expected.is_some()
        && head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) != expected.as_deref()
    {
        let mut response = plain(StatusCode::UNAUTHORIZED, "who are you?");
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"git\""));
        return response;
    }
    if let Some(location) = with_suffix(&shared.root, &head.uri) {
        return redirect(&location);
    }
    match run_backend(shared, &head, body, &fault).await {
        Ok(response) => response,
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Where a repository is whose address lacks `.git`: forges redirect there.
fn with_suffix(root: &Path, uri: &hyper::Uri) -> Option<String> {
    let (name, rest) = uri.path().strip_prefix('/')?.split_once('/')?;
    let there = root.join(format!("{name}.git"));
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    (!root.join(name).exists() && there.exists()).then(|| format!("/{name}.git/{rest}{query}"))
}

fn record(shared: &Shared, head: &http::request::Parts, body: &[u8]) {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let command = body
        .get(4..)
        .and_then(|line| line.strip_prefix(b"command="))
        .map(|rest| String::from_utf8_lossy(rest.split(|byte| *byte == b'\n').next().unwrap_or_default()).into_owned());
    let mut records = lock(&shared.records);
    if records.len() == RECORDS_MAX {
        records.remove(0);
    }
    records.push(Record {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        command,
        user_agent: header("user-agent").unwrap_or_default(),
        authorization: header("authorization"),
        request_bytes: body.len() as u64,
    });
}

/// Runs the CGI program for one request and streams what it says.
async fn run_backend(
    shared: &Arc<Shared>,
    head: &http::request::Parts,
    body: Bytes,
    fault: &Fault,
) -> io::Result<Response<Body>> {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut command = tokio::process::Command::new(&shared.backend);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_PROJECT_ROOT", &shared.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        // The folder may belong to another user than the one who runs the server.
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if *fault != Fault::WithoutVersion2 {
        command.env("GIT_PROTOCOL", header("git-protocol"));
    }
    let mut child = command.spawn()?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("the backend has no pipes"));
    };
    // A backend that answers without reading everything closes its end: no failure.
    let input = tokio::spawn(async move {
        let _ = stdin.write_all(&body).await;
    });
    let mut output = BufReader::new(stdout);
    let mut response = Response::builder();
    loop {
        let mut line = String::new();
        output.read_line(&mut line).await?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other("the backend sent a bad header"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            response = response.status(value.split(' ').next().unwrap_or_default());
        } else if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response = response.header(name, value);
        }
    }
    let counted = Arc::clone(shared);
    let chunks = ReaderStream::new(output).inspect(move |chunk| {
        let length = chunk.as_ref().map_or(0, Bytes::len) as u64;
        counted.response_bytes.fetch_add(length, Ordering::Relaxed);
    });
    // The child lives as long as its answer is read.
    let chunks = chunks.map(move |chunk| {
        let _running = (&child, &input);
        chunk
    });
    let body = distort(chunks.boxed(), fault).await?;
    response.body(body).map_err(io::Error::other)
}

/// Applies the faults that concern a body.
async fn distort(chunks: futures::stream::BoxStream<'static, io::Result<Bytes>>, fault: &Fault) -> io::Result<Body> {
    let chunks = match fault {
        Fault::Drip => {
            let bytes = chunks.flat_map(|chunk| {
                let bytes: Vec<_> = match chunk {
                    Ok(chunk) => chunk.into_iter().map(|byte| Ok(Bytes::from(vec![byte]))).collect(),
                    Err(error) => vec![Err(error)],
                };
                futures::stream::iter(bytes)
            });
            let slow = bytes.then(|byte| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                byte
            });
            slow.boxed()
        }
        Fault::Truncate => {
            let whole: Vec<Bytes> = chunks.collect::<Vec<_>>().await.into_iter().collect::<io::Result<_>>()?;
            let mut whole = whole.into_iter().fold(BytesMut::new(), |mut whole, chunk| {
                whole.extend_from_slice(&chunk);
                whole
            });
            whole.truncate(whole.len() / 2);
            futures::stream::iter([Ok(whole.freeze()), Err(io::Error::other("cut"))]).boxed()
        }
        Fault::Garbage => {
            drop(chunks);
            futures::stream::iter([Ok(Bytes::from_static(b"<html>Please sign in</html>"))]).boxed()
        }
        _ => chunks,
    };
    Ok(BodyExt::boxed_unsync(StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data)))))
}

/// An answer to a fetch in version 2 that holds a pack.
fn answer_with(pack: &[u8]) -> Response<Body> {
    let mut body = BytesMut::from(&b"000dpackfile\n"[..]);
    for piece in pack.chunks(PACKET_BYTES_MAX) {
        body.extend_from_slice(format!("{:04x}\x01", piece.len() + 5).as_bytes());
        body.extend_from_slice(piece);
    }
    body.extend_from_slice(b"0000");
    let body = Full::new(body.freeze()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-git-upload-pack-result"));
    response
}

fn redirect(location: &str) -> Response<Body> {
    let mut response = plain(StatusCode::MOVED_PERMANENTLY, "elsewhere");
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(format!("{text}\n"))).map_err(|never| match never {});
    let mut response = Response::new(BodyExt::boxed_unsync(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    use super::super::repository::TestRepository;
    use super::*;

    /// What the real git says about a repository of the server.
    async fn ls_remote(server: &GitServer, repository: &str) -> String {
        let output = tokio::process::Command::new("git")
            .args(["ls-remote", &server.url(repository)])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_TERMINAL_PROMPT", "0")
            .output()
            .await
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[tokio::test]
    async fn the_real_git_reads_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let repository = TestRepository::create(&folder.path().join("a.git")).unwrap();
        let commit = repository.commit("first", &[("a.yaml", Some("a: 1"))]).unwrap();
        let server = GitServer::start(folder.path()).unwrap();
        assert!(ls_remote(&server, "a.git").await.contains(&format!("{commit}\trefs/heads/main")));
        let records = server.records();
        assert_eq!(records.last().unwrap().command.as_deref(), Some("ls-refs"));
        assert!(server.requests() >= 2 && server.response_bytes() > 0);

        server.faults().set(Fault::WithoutVersion2);
        assert!(ls_remote(&server, "a.git").await.contains(&commit.to_string()));
        server.faults().set(Fault::Unreachable);
        assert_eq!(ls_remote(&server, "a.git").await, "");
        server.faults().clear();
        server.require_basic("git", "pw");
        assert_eq!(ls_remote(&server, "a.git").await, "");
    }
}
