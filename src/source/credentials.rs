//! How a remote is accessed: the data of a Secret in, credentials and TLS material out.
//!
//! Values are held in types that neither print nor compare, and are wiped when dropped; errors name keys, never values.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret, SecretBox, SecretSlice, SecretString};

use super::url::SourceUrl;

/// Keys of Secrets for accesses that are not served yet, with the name of the access.
const LATER: [(&str, &str); 6] = [
    ("identity", "ssh"),
    ("known_hosts", "ssh"),
    ("githubAppID", "GitHub App"),
    ("githubAppInstallationID", "GitHub App"),
    ("githubAppInstallationOwner", "GitHub App"),
    ("githubAppPrivateKey", "GitHub App"),
];

/// Parts of a secret shorter than this are not searched for in messages: they would blot out ordinary words.
const SCRUBBED_BYTES_MIN: usize = 4;

#[derive(Clone, Debug, Default)]
pub enum Credentials {
    #[default]
    None,
    Basic {
        username: SecretString,
        password: SecretString,
    },
    Bearer {
        token: SecretString,
    },
}

/// TLS material in PEM. An own CA replaces the system's.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    pub ca_pem: Option<SecretSlice<u8>>,
    /// Certificate chain and key for mutual TLS; both or neither.
    pub client_cert_pem: Option<SecretSlice<u8>>,
    pub client_key_pem: Option<SecretSlice<u8>>,
}

#[derive(Clone, Debug, Default)]
pub struct Access {
    pub credentials: Credentials,
    pub tls: Tls,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    #[error("the Secret has `{present}` but no `{missing}`")]
    Missing { present: &'static str, missing: &'static str },
    #[error("the Secret has both `bearerToken` and `username`/`password`: one must go")]
    Ambiguous,
    #[error("`{key}` of the Secret is empty")]
    Empty { key: &'static str },
    #[error("`{key}` of the Secret is not text on one line")]
    NotText { key: &'static str },
    #[error("`{key}` of the Secret holds no valid PEM {expected}")]
    NotPem { key: &'static str, expected: &'static str },
    #[error("the Secret has `{key}`: {kind} access is not served yet, it comes with a later version")]
    LaterVersion { key: &'static str, kind: &'static str },
}

/// Reads the data of a Secret that `spec.secretRef` of a GitRepository names. Keys that mean nothing to Git are let be.
///
/// One newline at the end of a user name, password or token is dropped: it is what `echo` leaves and never meant.
pub fn from_secret(data: &BTreeMap<String, Vec<u8>>) -> Result<Access, CredentialsError> {
    if let Some((key, kind)) = LATER.iter().find(|(key, _)| data.contains_key(*key)) {
        return Err(CredentialsError::LaterVersion { key, kind });
    }
    let username = text(data, "username")?;
    let password = text(data, "password")?;
    let credentials = match (username, password, text(data, "bearerToken")?) {
        (None, None, None) => Credentials::None,
        (None, None, Some(token)) => Credentials::Bearer { token },
        // Hosts take an access token as the user name, without a password.
        (Some(username), password, None) => {
            Credentials::Basic { username, password: password.unwrap_or_else(|| "".into()) }
        }
        (None, Some(_), None) => {
            return Err(CredentialsError::Missing { present: "password", missing: "username" });
        }
        (_, _, Some(_)) => return Err(CredentialsError::Ambiguous),
    };
    Ok(Access { credentials, tls: tls(data)? })
}

fn tls(data: &BTreeMap<String, Vec<u8>>) -> Result<Tls, CredentialsError> {
    let ca_key = if data.contains_key("ca.crt") { "ca.crt" } else { "caFile" };
    let ca_pem = data.get(ca_key);
    if let Some(pem) = ca_pem {
        let certificates = reqwest::Certificate::from_pem_bundle(pem).unwrap_or_default();
        if certificates.is_empty() {
            return Err(CredentialsError::NotPem { key: ca_key, expected: "certificate" });
        }
    }
    let (certificate, key) = (data.get("tls.crt"), data.get("tls.key"));
    match (certificate, key) {
        (Some(_), None) => return Err(CredentialsError::Missing { present: "tls.crt", missing: "tls.key" }),
        (None, Some(_)) => return Err(CredentialsError::Missing { present: "tls.key", missing: "tls.crt" }),
        (Some(certificate), Some(key)) => {
            if reqwest::Certificate::from_pem_bundle(certificate).unwrap_or_default().is_empty() {
                return Err(CredentialsError::NotPem { key: "tls.crt", expected: "certificate" });
            }
            if reqwest::Identity::from_pem(&[certificate.as_slice(), b"\n", key].concat()).is_err() {
                return Err(CredentialsError::NotPem { key: "tls.key", expected: "private key" });
            }
        }
        (None, None) => {}
    }
    let secret = |bytes: Option<&Vec<u8>>| bytes.map(|bytes| SecretBox::from(bytes.clone()));
    Ok(Tls { ca_pem: secret(ca_pem), client_cert_pem: secret(certificate), client_key_pem: secret(key) })
}

fn text(data: &BTreeMap<String, Vec<u8>>, key: &'static str) -> Result<Option<SecretString>, CredentialsError> {
    let Some(bytes) = data.get(key) else { return Ok(None) };
    let text = std::str::from_utf8(bytes).map_err(|_| CredentialsError::NotText { key })?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    // An empty password is legitimate, an empty token or user name is a mistake.
    if text.is_empty() && key != "password" {
        return Err(CredentialsError::Empty { key });
    }
    if text.chars().any(char::is_control) {
        return Err(CredentialsError::NotText { key });
    }
    Ok(Some(text.into()))
}

impl Access {
    /// This access, or, if it has no credentials, the ones written into the URL.
    pub fn or_userinfo(&self, url: &SourceUrl) -> Access {
        let mut access = self.clone();
        if let (Credentials::None, Some((username, password))) = (&self.credentials, url.userinfo()) {
            access.credentials = Credentials::Basic { username: username.into(), password: password.into() };
        }
        access
    }

    /// Everything that tells two accesses apart, for a keyed hash only.
    pub(super) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let (kind, first, second): (&[u8], &[u8], &[u8]) = match &self.credentials {
            Credentials::None => (b"none", b"", b""),
            Credentials::Basic { username, password } => {
                (b"basic", username.expose_secret().as_bytes(), password.expose_secret().as_bytes())
            }
            Credentials::Bearer { token } => (b"bearer", token.expose_secret().as_bytes(), b""),
        };
        let tls = [&self.tls.ca_pem, &self.tls.client_cert_pem, &self.tls.client_key_pem];
        [kind, first, second].into_iter().chain(tls.map(|pem| pem.as_ref().map_or(&[][..], |pem| pem.expose_secret())))
    }

    /// A server's own words, bounded, on one line, and without any of our secrets that it may have repeated.
    pub(super) fn scrub(&self, words: &str) -> String {
        const WORDS_CHARS_MAX: usize = 200;
        let mut words = words.to_owned();
        let secrets: &[&SecretString] = match &self.credentials {
            Credentials::None => &[],
            Credentials::Basic { username, password } => &[password, username],
            Credentials::Bearer { token } => &[token],
        };
        for secret in secrets.iter().map(|secret| secret.expose_secret()) {
            if secret.len() >= SCRUBBED_BYTES_MIN {
                words = words.replace(secret, "***");
            }
        }
        let words: String =
            words.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
        words.trim().chars().take(WORDS_CHARS_MAX).collect()
    }
}

/// Says of which kind the access is, for events and logs.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.credentials {
            Credentials::None => "no credentials",
            Credentials::Basic { .. } => "user name and password",
            Credentials::Bearer { .. } => "bearer token",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(entries: &[(&str, &str)]) -> Result<Access, CredentialsError> {
        let data = entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
        from_secret(&data)
    }

    fn shape(access: &Access) -> (String, String) {
        match &access.credentials {
            Credentials::None => ("none".into(), String::new()),
            Credentials::Basic { username, password } => {
                (username.expose_secret().into(), password.expose_secret().into())
            }
            Credentials::Bearer { token } => ("bearer".into(), token.expose_secret().into()),
        }
    }

    #[test]
    fn secrets_become_credentials() {
        type Case<'a> = (&'a [(&'a str, &'a str)], (&'a str, &'a str));
        let cases: &[Case] = &[
            (&[], ("none", "")),
            (&[("username", "git"), ("password", "pw")], ("git", "pw")),
            (&[("username", "git\n"), ("password", "pw\r\n")], ("git", "pw")),
            (&[("username", "token")], ("token", "")),
            (&[("bearerToken", "abc\n")], ("bearer", "abc")),
            (&[("unrelated", "x")], ("none", "")),
        ];
        for (data, (first, second)) in cases {
            assert_eq!(shape(&secret(data).unwrap()), ((*first).to_owned(), (*second).to_owned()), "{data:?}");
        }
    }

    #[test]
    fn combinations_without_meaning_are_refused_without_echo() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("password", "hunter2")], "the Secret has `password` but no `username`"),
            (
                &[("bearerToken", "hunter2"), ("username", "hunter2")],
                "the Secret has both `bearerToken` and `username`/`password`: one must go",
            ),
            (&[("bearerToken", "")], "`bearerToken` of the Secret is empty"),
            (&[("bearerToken", "hunter2\nx")], "`bearerToken` of the Secret is not text on one line"),
            (&[("ca.crt", "hunter2")], "`ca.crt` of the Secret holds no valid PEM certificate"),
            (&[("caFile", "hunter2")], "`caFile` of the Secret holds no valid PEM certificate"),
            (&[("tls.crt", "hunter2")], "the Secret has `tls.crt` but no `tls.key`"),
            (
                &[("identity", "hunter2")],
                "the Secret has `identity`: ssh access is not served yet, it comes with a later version",
            ),
            (
                &[("githubAppID", "hunter2")],
                "the Secret has `githubAppID`: GitHub App access is not served yet, it comes with a later version",
            ),
        ];
        for (data, message) in cases {
            assert_eq!(secret(data).unwrap_err().to_string(), *message);
        }
    }

    #[test]
    fn tls_material_is_checked() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        let access = secret(&[("ca.crt", &certificate), ("tls.crt", &certificate), ("tls.key", &key)]).unwrap();
        assert!(access.tls.ca_pem.is_some() && access.tls.client_cert_pem.is_some());
        assert!(matches!(
            secret(&[("tls.crt", &certificate), ("tls.key", &certificate)]),
            Err(CredentialsError::NotPem { key: "tls.key", .. })
        ));
    }

    #[test]
    fn no_secret_is_ever_printed() {
        let access = secret(&[("username", "someone"), ("password", "hunter2")]).unwrap();
        assert!(!format!("{access:?} {access}").contains("hunter2"));
        assert_eq!(access.scrub(" denied for\nsomeone:hunter2\0 "), "denied for ***:***");
    }

    #[test]
    fn credentials_of_the_secret_win_over_those_in_the_url() {
        let url = SourceUrl::parse("https://other:pw2@example.com/a").unwrap();
        let access = secret(&[("username", "git"), ("password", "pw")]).unwrap();
        assert_eq!(shape(&access.or_userinfo(&url)).0, "git");
        assert_eq!(shape(&Access::default().or_userinfo(&url)), ("other".into(), "pw2".into()));
    }
}
