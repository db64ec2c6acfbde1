//! A SOCKS5 proxy on loopback (RFC 1928, with a user name and a password as RFC 1929 has them).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const VERSION: u8 = 5;
const BY_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const BY_IPV4: u8 = 1;
const BY_NAME: u8 = 3;

/// Ends with the runtime of the test.
pub struct SocksProxy {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicU64,
    credentials: Mutex<Option<String>>,
}

impl SocksProxy {
    pub async fn start() -> SocksProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        let counted = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = counted.clone();
                tokio::spawn(async move { pass_on(stream, &seen).await });
            }
        });
        SocksProxy { address, seen }
    }

    pub fn address(&self) -> String {
        format!("socks5://{}", self.address)
    }

    /// The connections that it made for others.
    pub fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// The newest credentials that it was given, as `name:password`.
    pub fn credentials(&self) -> Option<String> {
        self.seen.credentials.lock().expect("not poisoned").clone()
    }
}

/// One conversation; ends at whatever is not as it should be.
async fn pass_on(mut client: TcpStream, seen: &Seen) -> std::io::Result<()> {
    let refused = || std::io::Error::other("not served");
    let [version, methods] = bytes(&mut client).await?;
    let offered = some(&mut client, methods).await?;
    if version != VERSION || !offered.contains(&BY_PASSWORD) {
        return Err(refused());
    }
    client.write_all(&[VERSION, BY_PASSWORD]).await?;
    let [_, length] = bytes(&mut client).await?;
    let name = some(&mut client, length).await?;
    let [length] = bytes(&mut client).await?;
    let password = some(&mut client, length).await?;
    let credentials = format!("{}:{}", String::from_utf8_lossy(&name), String::from_utf8_lossy(&password));
    *seen.credentials.lock().expect("not poisoned") = Some(credentials);
    client.write_all(&[1, 0]).await?;

    let [_, command, _, kind] = bytes(&mut client).await?;
    let host = match (command, kind) {
        (CONNECT, BY_IPV4) => std::net::Ipv4Addr::from(bytes::<4>(&mut client).await?).to_string(),
        (CONNECT, BY_NAME) => {
            let [length] = bytes(&mut client).await?;
            String::from_utf8_lossy(&some(&mut client, length).await?).into_owned()
        }
        _ => return Err(refused()),
    };
    let port = u16::from_be_bytes(bytes(&mut client).await?);
    let mut server = TcpStream::connect((host, port)).await?;
    seen.connections.fetch_add(1, Ordering::SeqCst);
    client.write_all(&[VERSION, 0, 0, BY_IPV4, 0, 0, 0, 0, 0, 0]).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

async fn bytes<const N: usize>(stream: &mut TcpStream) -> std::io::Result<[u8; N]> {
    let mut read = [0; N];
    stream.read_exact(&mut read).await?;
    Ok(read)
}

async fn some(stream: &mut TcpStream, length: u8) -> std::io::Result<Vec<u8>> {
    let mut read = vec![0; usize::from(length)];
    stream.read_exact(&mut read).await?;
    Ok(read)
}
