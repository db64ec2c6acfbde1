//! Why a server can't be reached, in the words that a person would use.
//!
//! In: the HTTP client's error, whose own words (`error sending request`) hide the reason in the chain of its sources.

use std::error::Error;
use std::io;

/// The reason, from the innermost error that tells it.
pub fn of(error: &(dyn Error + 'static)) -> String {
    let chain = || std::iter::successors(Some(error), |&error| error.source());
    // what the resolver says differs between systems, and may say no more than "try again"
    if chain().any(|error| error.to_string() == "dns error") {
        return "its name can't be resolved".to_owned();
    }
    let mut system = chain().filter_map(|error| error.downcast_ref::<io::Error>());
    if let Some(words) = system.find_map(|error| in_words(error.kind())) {
        return words.to_owned();
    }
    // the innermost: TLS says what is wrong with a certificate, HTTP where an answer ended
    chain().last().unwrap_or(error).to_string()
}

fn in_words(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => "the connection broke off",
        io::ErrorKind::TimedOut => "connecting timed out",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "there is no route to it",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error of the HTTP client: its words, and what is behind them.
    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Layer {
        words: &'static str,
        source: Option<Box<dyn Error + Send + Sync>>,
    }

    fn chain(words: &[&'static str], inner: Option<io::Error>) -> Layer {
        let inner = inner.map(|error| Box::new(error) as Box<dyn Error + Send + Sync>);
        let source = words[1..].iter().rev().fold(inner, |source, words| Some(Box::new(Layer { words, source })));
        Layer { words: words[0], source }
    }

    #[test]
    fn the_reason_is_what_a_person_needs() {
        let sending = "error sending request";
        let connect = "client error (Connect)";
        let system = |kind| Some(io::Error::from(kind));
        let cases = [
            (
                chain(&[sending, connect, "tcp connect error"], system(io::ErrorKind::ConnectionRefused)),
                "connection refused",
            ),
            (
                chain(
                    &[sending, "client error (SendRequest)", "connection error"],
                    system(io::ErrorKind::ConnectionReset),
                ),
                "the connection broke off",
            ),
            (chain(&[sending, connect, "tcp connect error"], system(io::ErrorKind::TimedOut)), "connecting timed out"),
            (
                chain(&[sending, connect, "dns error"], Some(io::Error::other("failed to lookup address information"))),
                "its name can't be resolved",
            ),
            (
                chain(&[sending, connect, "invalid peer certificate: UnknownIssuer"], None),
                "invalid peer certificate: UnknownIssuer",
            ),
            (
                chain(&[sending, "client error (SendRequest)", "connection closed before message completed"], None),
                "connection closed before message completed",
            ),
            (chain(&[sending], None), sending),
        ];
        for (error, expected) in cases {
            assert_eq!(of(&error), expected);
        }
    }

    #[tokio::test]
    async fn a_closed_port_and_an_unknown_name_are_told_apart() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        for (url, expected) in [
            (format!("http://{closed}/"), "connection refused"),
            ("http://name.invalid/".to_owned(), "its name can't be resolved"),
        ] {
            let error = client.get(url).send().await.unwrap_err().without_url();
            assert_eq!(of(&error), expected);
        }
    }
}
