//! The keyed digest of an object as sent, which its annotation `afresh.dev/desired` carries.
//!
//! Keyed, because annotations are readable by anyone who may read the object's metadata: an unkeyed hash of a Secret
//! with little entropy could be guessed. The key is the installation's.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The installation's key for digests.
#[derive(Clone)]
pub struct DigestKey {
    id: String,
    key: [u8; 32],
}

/// The form of the digest; another form is "unknown" and decided by a dry-run.
const VERSION: &str = "v1";

impl DigestKey {
    pub fn new(key: [u8; 32]) -> Self {
        Self { id: hex::encode(&Sha256::digest(key)[..4]), key }
    }

    /// `v1.<key id>.<HMAC-SHA256 of the canonical JSON, 32 hex digits>`.
    pub fn digest(&self, value: &Value) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        // maps are sorted by key, so equal objects have equal bytes
        serde_json::to_writer(MacWriter(&mut mac), value).expect("a JSON value serialises");
        format!("{VERSION}.{}.{}", self.id, hex::encode(&mac.finalize().into_bytes()[..16]))
    }

    /// Names the key without telling it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// HMAC-SHA256 of the parts, each with its length before it: 16 hex digits, for telling whether something changed.
    pub fn short<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> String {
        hex::encode(&self.parts(parts)[..8])
    }

    /// As [`DigestKey::short`], 32 hex digits.
    pub fn long<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> String {
        hex::encode(&self.parts(parts)[..16])
    }

    fn parts<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// True if the digest was made with this key and in this form.
    pub fn made(&self, digest: &str) -> bool {
        digest
            .strip_prefix(VERSION)
            .and_then(|rest| rest.strip_prefix('.'))
            .and_then(|rest| rest.split_once('.'))
            .is_some_and(|(id, _)| id == self.id)
    }
}

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DigestKey({})", self.id)
    }
}

struct MacWriter<'a>(&'a mut Hmac<Sha256>);

impl std::io::Write for MacWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_digest_depends_on_the_key_and_the_content_and_names_its_key() {
        let (a, b) = (DigestKey::new([1; 32]), DigestKey::new([2; 32]));
        let object = json!({"kind": "ConfigMap", "data": {"a": "1"}});
        assert_eq!(a.digest(&object), a.digest(&object));
        assert_ne!(a.digest(&object), b.digest(&object));
        assert_ne!(a.digest(&object), a.digest(&json!({"kind": "ConfigMap", "data": {"a": "2"}})));
        assert!(a.made(&a.digest(&object)));
        assert!(!b.made(&a.digest(&object)));
        assert!(!a.made("v0.x.y"));
    }
}
