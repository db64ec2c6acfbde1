//! Keyed digests of what Secrets and ConfigMaps hold, one for each key.
//!
//! Keyed, because the record and the hash are readable by whoever may read workloads. The namespace is in them: else
//! someone could guess another tenant's values by comparing with digests of Secrets of his own.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::api;
use crate::manifest::DigestKey;

use super::reference::{Configuration, Kind};
use super::wish::Wish;

/// By key. Metadata, types and labels don't count.
pub type Digests = BTreeMap<String, String>;

/// Secrets of these types are not configuration of anyone's: they are rotated by others all the time.
const TYPES_LEFT_OUT: [&str; 3] =
    ["kubernetes.io/service-account-token", "helm.sh/release.v1", "bootstrap.kubernetes.io/token"];

/// On a Secret or a ConfigMap, `true`: nobody is rolled because of it.
const RELOADER_IGNORE: &str = "reloader.stakater.com/ignore";

/// True for a Secret or a ConfigMap that is never followed: by the type of a Secret, or because its annotations ask for
/// it.
pub fn is_left_out<'a>(kind: Kind, of_type: &str, annotation: impl Fn(&str) -> Option<&'a str>) -> bool {
    (kind == Kind::Secret && TYPES_LEFT_OUT.contains(&of_type))
        || annotation(api::ROLLOUT).and_then(Wish::parse) == Some(Wish::Never)
        || annotation(RELOADER_IGNORE) == Some("true")
}

/// The digests of all keys of one object.
pub fn content_digests<'a>(
    key: &DigestKey,
    namespace: &str,
    configuration: &Configuration,
    content: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Digests {
    let digest = |name: &str, bytes: &[u8]| {
        let parts = [namespace, configuration.kind.as_str(), &configuration.name, name].map(str::as_bytes);
        key.short(parts.into_iter().chain([bytes]))
    };
    content.into_iter().map(|(name, bytes)| (name.to_owned(), digest(name, bytes))).collect()
}

/// As [`content_digests`], of an object as it is declared: `stringData` has become `data` before. What is not valid is
/// the API server's to refuse.
pub fn declared_digests(key: &DigestKey, namespace: &str, configuration: &Configuration, declared: &Value) -> Digests {
    let entries = |field: &str| declared.get(field).and_then(Value::as_object).into_iter().flatten();
    let encoded = |value: &Value| BASE64.decode(value.as_str()?).ok();
    let plain = |value: &Value| value.as_str().map(|text| text.as_bytes().to_vec());
    let mut content: Vec<(&str, Vec<u8>)> = Vec::new();
    match configuration.kind {
        Kind::Secret => content.extend(entries("data").filter_map(|(k, v)| Some((k.as_str(), encoded(v)?)))),
        Kind::ConfigMap => {
            content.extend(entries("data").filter_map(|(k, v)| Some((k.as_str(), plain(v)?))));
            content.extend(entries("binaryData").filter_map(|(k, v)| Some((k.as_str(), encoded(v)?))));
        }
    }
    content_digests(key, namespace, configuration, content.iter().map(|(k, v)| (*k, v.as_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key() -> DigestKey {
        DigestKey::new([7; 32])
    }

    #[test]
    fn the_digest_depends_on_where_a_value_is_and_on_nothing_around_it() {
        let secret = Configuration::new(Kind::Secret, "a");
        let one = |namespace: &str, configuration: &Configuration, name: &str, bytes: &[u8]| {
            content_digests(&key(), namespace, configuration, [(name, bytes)]).remove(name).unwrap()
        };
        let of = one("n", &secret, "k", b"v");
        assert_eq!(of, one("n", &secret, "k", b"v"));
        let others = [
            one("n", &secret, "k", b"w"),
            one("m", &secret, "k", b"v"),
            one("n", &Configuration::new(Kind::ConfigMap, "a"), "k", b"v"),
            one("n", &Configuration::new(Kind::Secret, "b"), "k", b"v"),
            one("n", &secret, "kv", b""),
            content_digests(&DigestKey::new([8; 32]), "n", &secret, [("k", b"v".as_slice())]).remove("k").unwrap(),
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(of, *other, "{at}");
        }
    }

    #[test]
    fn what_is_declared_has_the_digests_of_what_becomes_of_it() {
        let secret = Configuration::new(Kind::Secret, "a");
        let declared = json!({"type": "Opaque", "metadata": {"labels": {"x": "y"}}, "data": {"k": "dg==", "bad": "%", "null": null}});
        assert_eq!(
            declared_digests(&key(), "n", &secret, &declared),
            content_digests(&key(), "n", &secret, [("k", b"v".as_slice())])
        );
        let map = Configuration::new(Kind::ConfigMap, "a");
        let declared = json!({"data": {"k": "v"}, "binaryData": {"b": "AAE="}, "immutable": true});
        let expected = content_digests(&key(), "n", &map, [("k", b"v".as_slice()), ("b", b"\x00\x01".as_slice())]);
        assert_eq!(declared_digests(&key(), "n", &map, &declared), expected);
    }

    #[test]
    fn a_mebibyte_is_a_value_like_any_other() {
        let secret = Configuration::new(Kind::Secret, "a");
        let mut bytes = vec![0; 1 << 20];
        let before = content_digests(&key(), "n", &secret, [("k", bytes.as_slice())]);
        bytes[1 << 19] = 1;
        assert_ne!(before, content_digests(&key(), "n", &secret, [("k", bytes.as_slice())]));
    }
}
