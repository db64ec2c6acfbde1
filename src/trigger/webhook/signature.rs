//! Who sent a request: what it claims, and whether that is so. Pure; bytes go through as they come in.
//!
//! A code is compared in constant time, over the raw body, before anything in the body is looked at.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

/// What a request brings along to show who sent it.
#[derive(Clone, PartialEq, Eq)]
pub enum Claim {
    /// A keyed hash of the body.
    Code(Algorithm, Vec<u8>),
    /// The secret itself.
    Token(Vec<u8>),
    /// The address is the secret: whoever knows it may send.
    Address,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

impl Algorithm {
    fn bytes(self) -> usize {
        match self {
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

impl Claim {
    /// `sha256=<hex>`, as GitHub and most others write it.
    pub fn prefixed(header: &str) -> Option<Claim> {
        let (name, code) = header.split_once('=')?;
        let algorithm = match name {
            "sha1" => Algorithm::Sha1,
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return None,
        };
        Self::code(algorithm, code)
    }

    /// `<hex>` of SHA-256, as Gitea and Forgejo write it.
    pub fn bare(header: &str) -> Option<Claim> {
        Self::code(Algorithm::Sha256, header)
    }

    fn code(algorithm: Algorithm, text: &str) -> Option<Claim> {
        if text.len() != 2 * algorithm.bytes() {
            return None;
        }
        hex::decode(text).ok().map(|code| Claim::Code(algorithm, code))
    }
}

/// Identifies what was sent, without telling it.
pub type Content = [u8; 32];

/// The examination of one request.
pub struct Examination(State);

enum State {
    Sha1(Box<Hmac<Sha1>>, Vec<u8>),
    Sha256(Box<Hmac<Sha256>>, Vec<u8>),
    Sha512(Box<Hmac<Sha512>>, Vec<u8>),
    /// Decided before the body.
    Known {
        genuine: bool,
        content: Sha256,
    },
}

impl Examination {
    pub fn new(claim: Claim, secret: &[u8]) -> Examination {
        Examination(match claim {
            Claim::Code(Algorithm::Sha1, code) => State::Sha1(Box::new(keyed(secret)), code),
            Claim::Code(Algorithm::Sha256, code) => State::Sha256(Box::new(keyed(secret)), code),
            Claim::Code(Algorithm::Sha512, code) => State::Sha512(Box::new(keyed(secret)), code),
            Claim::Token(token) => {
                // hashed first: the time tells nothing of the secret's length either
                let (given, wanted) = (Sha256::digest(&token), Sha256::digest(secret));
                State::Known { genuine: given.ct_eq(&wanted).into(), content: Sha256::new() }
            }
            Claim::Address => State::Known { genuine: true, content: Sha256::new() },
        })
    }

    /// False as soon as it is known that the request is not genuine: its body need not be read.
    pub fn may_be_genuine(&self) -> bool {
        !matches!(self.0, State::Known { genuine: false, .. })
    }

    /// The next piece of the raw body.
    pub fn update(&mut self, piece: &[u8]) {
        match &mut self.0 {
            State::Sha1(mac, _) => mac.update(piece),
            State::Sha256(mac, _) => mac.update(piece),
            State::Sha512(mac, _) => mac.update(piece),
            State::Known { content, .. } => Digest::update(content, piece),
        }
    }

    /// `None`: somebody else sent it.
    pub fn finish(self) -> Option<Content> {
        let of = |code: &[u8]| -> Content { Sha256::digest(code).into() };
        match self.0 {
            State::Sha1(mac, code) => mac.verify_slice(&code).ok().map(|()| of(&code)),
            State::Sha256(mac, code) => mac.verify_slice(&code).ok().map(|()| of(&code)),
            State::Sha512(mac, code) => mac.verify_slice(&code).ok().map(|()| of(&code)),
            State::Known { genuine, content } => genuine.then(|| content.finalize().into()),
        }
    }
}

fn keyed<M: KeyInit>(secret: &[u8]) -> M {
    M::new_from_slice(secret).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn genuine(claim: Option<Claim>, secret: &str, body: &str) -> bool {
        let Some(claim) = claim else { return false };
        let mut examination = Examination::new(claim, secret.as_bytes());
        for piece in body.as_bytes().chunks(5) {
            examination.update(piece);
        }
        examination.finish().is_some()
    }

    /// The example of GitHub's documentation, and the same with other algorithms (`openssl dgst -sha512 -hmac …`).
    #[test]
    fn codes_are_those_that_forges_make() {
        let (secret, body) = ("It's a Secret to Everybody", "Hello, World!");
        let sha256 = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let github = format!("sha256={sha256}");
        assert!(genuine(Claim::prefixed(&github), secret, body));
        assert!(genuine(Claim::bare(sha256), secret, body));
        assert!(!genuine(Claim::prefixed(&github), secret, "Hello, World?"));
        assert!(!genuine(Claim::prefixed(&github), "another", body));
        assert!(genuine(Claim::prefixed("sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59"), secret, body));
        assert!(genuine(
            Claim::prefixed(concat!(
                "sha512=",
                "11ed355a617e98134e842012a7944ccf59c10256cb182357bd7e3a42013ff07c",
                "376f8c14cf5cc1923da20b51d64256b2fb8ebbf100aa67a61326f61fea8111bc",
            )),
            secret,
            body
        ));
    }

    #[test]
    fn what_is_no_code_is_none() {
        for header in ["", "sha256", "sha256=", "sha256=00", "md5=00000000000000000000000000000000", "=", "sha256=zz"] {
            assert!(Claim::prefixed(header).is_none(), "{header}");
        }
        assert!(Claim::prefixed(&format!("sha1={}", "0".repeat(64))).is_none(), "the length is another algorithm's");
        assert!(Claim::bare(&"g".repeat(64)).is_none());
    }

    #[test]
    fn a_token_is_known_before_the_body() {
        let examination = |token: &[u8]| Examination::new(Claim::Token(token.to_vec()), b"secret");
        assert!(examination(b"secret").may_be_genuine());
        assert!(examination(b"secret").finish().is_some());
        for token in [&b"secre"[..], b"secret ", b"", b"Secret"] {
            assert!(!examination(token).may_be_genuine());
            assert!(examination(token).finish().is_none());
        }
    }

    #[test]
    fn the_same_content_is_recognised() {
        let content = |body: &[u8]| {
            let mut examination = Examination::new(Claim::Address, b"");
            examination.update(body);
            examination.finish()
        };
        assert_eq!(content(b"a"), content(b"a"));
        assert_ne!(content(b"a"), content(b"b"));
    }
}
