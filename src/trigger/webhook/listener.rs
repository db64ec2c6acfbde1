//! The listener: a thread of its own with a runtime of its own, so that it shares no queue with anything slow.
//!
//! Connections in, answers out. Reads heads and bodies within limits of size and time, and leaves the rest to the desk.
//! It does no other input or output: what is to be logged goes through a bounded queue.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::connections::{Connections, Crowded};
use super::desk::{Answer, Desk, Letter};
use super::journal::Journal;
use crate::report::{Delivery, Metrics};

/// As Flux's Receiver: GitHub cuts the list of commits long before.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Forges send one to three kilobytes of headers.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 100;
/// A head comes in one piece; also how long a connection may be silent between two deliveries.
const HEAD_READ_MAX: Duration = Duration::from_secs(10);
/// A whole body.
const BODY_READ_MAX: Duration = Duration::from_secs(10);
/// No connection stays longer, however busy: forges open new ones.
const CONNECTION_MAX: Duration = Duration::from_secs(120);
/// What is sent beyond the limit is read up to this much and this long, so that the sender gets to read the answer.
const DISCARDED_BYTES_MAX: usize = 8 * 1024 * 1024;
const DISCARD_MAX: Duration = Duration::from_millis(500);
/// After a failure to accept (no file descriptors left), connections that end make room.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub struct Listener {
    pub desk: Desk,
    pub metrics: Metrics,
    pub journal: Journal,
}

/// Serves until cancelled, on a thread of its own. What comes back ends when the thread does.
pub fn spawn(
    socket: std::net::TcpListener,
    listener: Listener,
    cancel: CancellationToken,
) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new().name("webhook".to_owned()).spawn(move || {
        let result = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
            runtime.block_on(async {
                let socket = TcpListener::from_std(socket)?;
                cancel.run_until_cancelled(accept(socket, Arc::new(listener), &cancel)).await;
                Ok(())
            })
        });
        // nobody to tell: the daemon has ended
        let _ = ended.send(result);
    })?;
    Ok(end)
}

async fn accept(socket: TcpListener, listener: Arc<Listener>, cancel: &CancellationToken) {
    let connections = Arc::new(Mutex::new(Connections::default()));
    loop {
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let end = cancel.child_token();
        let id = lock(&connections).enter(peer.ip(), end.clone());
        listener.metrics.webhook_connections(lock(&connections).len());
        let guest = Guest { id, peer: peer.ip(), connections: connections.clone(), listener: listener.clone() };
        tokio::spawn(async move { end.run_until_cancelled(guest.stay(stream)).await });
    }
}

/// One connection.
struct Guest {
    id: u64,
    peer: IpAddr,
    connections: Arc<Mutex<Connections>>,
    listener: Arc<Listener>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        lock(&self.connections).leave(self.id);
        self.listener.metrics.webhook_connections(lock(&self.connections).len());
    }
}

impl Guest {
    async fn stay(self, stream: TcpStream) {
        // answers are small and somebody waits for them
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request| self.answer(request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_READ_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service);
        // how a connection ends is the sender's affair: what was answered is counted
        let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let answer = match self.listener.desk.open(&head.method, head.uri.path(), &head.headers) {
            Err(answer) => answer,
            Ok(letter) => {
                let answer = self.read(letter, body).await;
                lock(&self.connections).release(self.id);
                answer
            }
        };
        self.listener.metrics.delivery(answer.forge, answer.outcome);
        self.listener.journal.note(&answer, self.peer);
        let mut response = Response::new(Full::from(format!("{}\n", answer.text)));
        *response.status_mut() = answer.status;
        Ok(response)
    }

    async fn read(&self, mut letter: Letter, mut body: Incoming) -> Answer {
        let announced = body.size_hint().lower();
        if announced > BODY_BYTES_MAX as u64 {
            discard(body).await;
            return letter.unread(Delivery::TooLarge);
        }
        let mut bytes = Vec::new();
        let whole = async {
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return Err(Delivery::BrokenOff) };
                let Ok(piece) = frame.into_data() else { continue };
                if bytes.len() + piece.len() > BODY_BYTES_MAX {
                    return Err(Delivery::TooLarge);
                }
                let held = lock(&self.connections).hold(self.id, piece.len());
                held.map_err(|Crowded| Delivery::Crowded)?;
                letter.update(&piece);
                bytes.extend_from_slice(&piece);
            }
            Ok(())
        };
        match tokio::time::timeout(BODY_READ_MAX, whole).await {
            Ok(Ok(())) => self.listener.desk.close(letter, &bytes),
            Ok(Err(outcome)) => {
                drop(bytes);
                discard(body).await;
                letter.unread(outcome)
            }
            Err(_) => letter.unread(Delivery::TimedOut),
        }
    }
}

/// Reads on for a moment without keeping anything.
async fn discard(mut body: Incoming) {
    let mut left = DISCARDED_BYTES_MAX;
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(less) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = less;
        }
    };
    let _ = tokio::time::timeout(DISCARD_MAX, read).await;
}

fn lock(connections: &Mutex<Connections>) -> MutexGuard<'_, Connections> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}
