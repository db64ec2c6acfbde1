//! Servers whose certificate only the Secret's CA vouches for.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use afresh::source::{Class, SourceUrl};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::support::{TIMEOUT, World, access, main_branch};

/// Answers every request on a TLS connection with 404.
fn serve(listener: TcpListener, config: rustls::ServerConfig) {
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(connection) = rustls::ServerConnection::new(Arc::clone(&config)) else { return };
            let Ok(stream) = stream else { return };
            let mut stream = rustls::StreamOwned::new(connection, stream);
            // A client that doesn't trust us leaves here.
            if stream.read(&mut [0; 4096]).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.flush();
            }
        }
    });
}

#[tokio::test]
async fn the_ca_of_the_secret_is_trusted_and_no_other() {
    let world = World::new();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &Issuer::new(ca, ca_key))
        .unwrap();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], der)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = SourceUrl::parse(&format!("https://localhost:{}/a.git", listener.local_addr().unwrap().port())).unwrap();
    serve(listener, config);

    let other = CertificateParams::new(vec!["other".to_owned()]).unwrap().self_signed(&KeyPair::generate().unwrap());
    let cases = [(ca_pem, Class::NotFound), (other.unwrap().pem(), Class::Unreachable)];
    for (pem, class) in cases {
        let remote = world.remotes.get(&url, &access(&[("ca.crt", &pem)])).unwrap();
        let error = remote.probe(&main_branch(), TIMEOUT).await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
    }
}
