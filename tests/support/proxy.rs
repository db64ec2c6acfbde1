//! A wire between the daemon and its API server that a test can cut.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections until it is cut; then nothing passes in either direction, and nobody is told: what a lost
/// network looks like. What was under way when it is cut never arrives.
pub struct Proxy {
    address: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Proxy {
    /// In front of the server that a kubeconfig names; gives a kubeconfig that leads through it.
    pub async fn before(kubeconfig: &Path, folder: &Path) -> (Proxy, PathBuf) {
        let text = std::fs::read_to_string(kubeconfig).expect("a kubeconfig");
        let mut config: Value = serde_json::from_str(&text).expect("the kubeconfigs of tests are JSON");
        let server = config["clusters"][0]["cluster"]["server"].as_str().expect("a server").to_owned();
        let (scheme, target) = server.split_once("://").expect("a URL");
        let target = target.trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (cut, is_cut) = watch::channel(false);
        let proxy = Proxy { address: listener.local_addr().expect("an address"), cut };
        config["clusters"][0]["cluster"]["server"] = format!("{scheme}://{}", proxy.address).into();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, target.clone(), is_cut.clone()));
            }
        });
        let path = folder.join(format!("proxy-{}.kubeconfig", proxy.address.port()));
        std::fs::write(&path, config.to_string()).expect("the kubeconfig is written");
        (proxy, path)
    }

    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

async fn forward(mut client: TcpStream, target: String, mut cut: watch::Receiver<bool>) {
    if !*cut.borrow_and_update() {
        let Ok(mut server) = TcpStream::connect(&target).await else { return };
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = cut.wait_for(|cut| *cut) => {}
        }
    }
    // held open, and silent, until the wire is mended; then the client has to connect anew
    let _ = cut.wait_for(|cut| !*cut).await;
}
