//! How a remote is accessed: the data of a Secret in, credentials and TLS material out.
//!
//! Values are held in types that neither print nor compare, and are wiped when dropped; errors name keys, never values.

use std::collections::BTreeMap;
use std::fmt;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretBox, SecretSlice, SecretString};

use super::github_app;
use super::proxy::Proxy;
use super::url::{Location, SourceUrl};

/// Where GitHub's own API is.
const GITHUB_API: &str = "https://api.github.com";

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
    Ssh(SshKey),
    GitHubApp(AppKey),
}

/// Who we are for an ssh host, and whom we take for that host.
#[derive(Clone, Debug)]
pub struct SshKey {
    pub identity: SecretString,
    /// For an encrypted identity.
    pub password: Option<SecretString>,
    pub known_hosts: String,
}

/// A GitHub App, installed for somebody.
#[derive(Clone, Debug)]
pub struct AppKey {
    /// Numbers, as text.
    pub app: String,
    pub installation: String,
    pub private_key: SecretString,
    pub base: Url,
}

impl AppKey {
    /// The same App for the same installation, and the same way to prove it.
    pub fn is(&self, other: &AppKey) -> bool {
        let public = |key: &AppKey| (key.app.clone(), key.installation.clone(), key.base.clone());
        let private = |key: &AppKey| key.private_key.expose_secret().to_owned();
        public(self) == public(other) && private(self) == private(other)
    }
}

/// What a Secret is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Http,
    Ssh,
    /// `provider: github`.
    GitHubApp,
}

impl Use {
    pub fn of(url: &SourceUrl, github: bool) -> Use {
        match url.location() {
            Location::Ssh(_) => Use::Ssh,
            _ if github => Use::GitHubApp,
            _ => Use::Http,
        }
    }
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
    pub proxy: Option<Proxy>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    #[error("the Secret has `{present}` but no `{missing}`")]
    Incomplete { present: &'static str, missing: &'static str },
    #[error("the Secret has no `{missing}`")]
    Missing { missing: &'static str },
    #[error("the Secret has both `bearerToken` and `username`/`password`: one must go")]
    Ambiguous,
    #[error("`{key}` of the Secret is empty")]
    Empty { key: &'static str },
    #[error("`{key}` of the Secret is not text on one line")]
    NotText { key: &'static str },
    #[error("`{key}` of the Secret holds no valid PEM {expected}")]
    NotPem { key: &'static str, expected: &'static str },
    /// The key is for another way to the repository.
    #[error("the Secret has `{key}` but nothing for this URL: {instead}")]
    OtherWay { key: &'static str, instead: &'static str },
    #[error("`{key}` of the Secret is not a number")]
    NotANumber { key: &'static str },
    #[error("`identity` of the Secret is no private key that can be used: {reason}")]
    Identity { reason: &'static str },
    #[error(
        "`githubAppInstallationOwner` is not served: put the number of the installation into `githubAppInstallationID`"
    )]
    InstallationOwner,
    #[error("`githubAppBaseURL` of the Secret is not the `https` URL of an API")]
    AppBase,
    #[error("`address` of the Secret is not a proxy's: `http://`, `https://` or `socks5://`, host and port")]
    ProxyAddress,
    #[error("`address` of the Secret holds a user name or password: they belong into `username` and `password`")]
    ProxyUserinfo,
}

/// Reads the data of a Secret that `spec.secretRef` of a GitRepository names. Keys that mean nothing to Git are let be.
///
/// One newline at the end of a user name, password or token is dropped: it is what `echo` leaves and never meant.
pub fn from_secret(data: &BTreeMap<String, Vec<u8>>, purpose: Use) -> Result<Access, CredentialsError> {
    let credentials = match purpose {
        Use::Http => http(data)?,
        Use::Ssh => return Ok(Access { credentials: Credentials::Ssh(ssh(data)?), ..Access::default() }),
        Use::GitHubApp => Credentials::GitHubApp(app(data)?),
    };
    Ok(Access { credentials, tls: tls(data)?, proxy: None })
}

fn http(data: &BTreeMap<String, Vec<u8>>) -> Result<Credentials, CredentialsError> {
    let username = text(data, "username")?;
    let password = text(data, "password")?;
    if data.contains_key("githubAppID") {
        let instead = "set `spec.provider: github` to use it as a GitHub App";
        return Err(CredentialsError::OtherWay { key: "githubAppID", instead });
    }
    match (username, password, text(data, "bearerToken")?) {
        (None, _, None) if data.contains_key("identity") => {
            Err(CredentialsError::OtherWay { key: "identity", instead: "keys are for `ssh://` URLs" })
        }
        (None, None, None) => Ok(Credentials::None),
        (None, None, Some(token)) => Ok(Credentials::Bearer { token }),
        // Hosts take an access token as the user name, without a password.
        (Some(username), password, None) => {
            Ok(Credentials::Basic { username, password: password.unwrap_or_else(|| "".into()) })
        }
        (None, Some(_), None) => Err(CredentialsError::Incomplete { present: "password", missing: "username" }),
        (_, _, Some(_)) => Err(CredentialsError::Ambiguous),
    }
}

fn ssh(data: &BTreeMap<String, Vec<u8>>) -> Result<SshKey, CredentialsError> {
    let lines = |key: &'static str| match data.get(key) {
        None => Err(CredentialsError::Missing { missing: key }),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if text.trim().is_empty() => Err(CredentialsError::Empty { key }),
            Ok(text) => Ok(text),
            Err(_) => Err(CredentialsError::NotText { key }),
        },
    };
    let password = text(data, "password")?.filter(|password| !password.expose_secret().is_empty());
    let (identity, known_hosts) = (lines("identity")?, lines("known_hosts")?);
    let key = SshKey { identity: identity.into(), password, known_hosts: known_hosts.to_owned() };
    key.check().map_err(|reason| CredentialsError::Identity { reason })?;
    Ok(key)
}

/// Reads the keys of a GitHub App.
pub fn app(data: &BTreeMap<String, Vec<u8>>) -> Result<AppKey, CredentialsError> {
    if data.contains_key("githubAppInstallationOwner") && !data.contains_key("githubAppInstallationID") {
        return Err(CredentialsError::InstallationOwner);
    }
    let number = |key: &'static str| {
        let text = text(data, key)?.ok_or(CredentialsError::Missing { missing: key })?;
        let digits = text.expose_secret().trim();
        let is_number = !digits.is_empty() && digits.len() < 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { Ok(digits.to_owned()) } else { Err(CredentialsError::NotANumber { key }) }
    };
    let key = "githubAppPrivateKey";
    let pem = data.get(key).ok_or(CredentialsError::Missing { missing: key })?;
    let private_key: SecretString =
        std::str::from_utf8(pem).map_err(|_| CredentialsError::NotPem { key, expected: "RSA key" })?.into();
    if !github_app::is_usable(&private_key) {
        return Err(CredentialsError::NotPem { key, expected: "RSA key" });
    }
    let base = text(data, "githubAppBaseURL")?;
    let base = Url::parse(base.as_ref().map_or(GITHUB_API, |base| base.expose_secret().trim()))
        .map_err(|_| CredentialsError::AppBase)?;
    // A token in clear is for nobody but this machine.
    let here = matches!(base.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
    let plain = base.username().is_empty() && base.password().is_none() && base.query().is_none();
    if !plain || !(base.scheme() == "https" || (here && base.scheme() == "http")) {
        return Err(CredentialsError::AppBase);
    }
    let (app, installation) = (number("githubAppID")?, number("githubAppInstallationID")?);
    Ok(AppKey { app, installation, private_key, base })
}

const ENCRYPTED_ELSEWHERE: &str =
    "it is encrypted in another format than OpenSSH's; `ssh-keygen -p -f FILE` rewrites it";

impl SshKey {
    /// Finds what can be found without decrypting.
    pub fn check(&self) -> Result<(), &'static str> {
        let pem = self.identity.expose_secret();
        if pem.contains("BEGIN OPENSSH PRIVATE KEY") {
            let key = ssh_key::PrivateKey::from_openssh(pem).map_err(|_| "it is malformed")?;
            if key.is_encrypted() && self.password.is_none() {
                return Err("it is encrypted, and there is no `password` for it");
            }
            return Ok(());
        }
        match pem.contains("PRIVATE KEY-----") {
            true if pem.contains("ENCRYPTED") => Err(ENCRYPTED_ELSEWHERE),
            true => Ok(()),
            false => Err("it is not in PEM"),
        }
    }

    /// The identity as `ssh` reads it without asking for a password. Slow on purpose: that is what the format is for.
    pub(super) fn decrypted(&self) -> Result<SecretString, &'static str> {
        let pem = self.identity.expose_secret();
        if !pem.contains("BEGIN OPENSSH PRIVATE KEY") {
            return Ok(self.identity.clone());
        }
        let key = ssh_key::PrivateKey::from_openssh(pem).map_err(|_| "it is malformed")?;
        let Some(password) = self.password.as_ref().filter(|_| key.is_encrypted()) else {
            return Ok(self.identity.clone());
        };
        let key = key.decrypt(password.expose_secret()).map_err(|_| "`password` doesn't open it")?;
        let pem = key.to_openssh(ssh_key::LineEnding::LF).map_err(|_| "it can't be rewritten")?;
        Ok(pem.as_str().into())
    }
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
        (Some(_), None) => return Err(CredentialsError::Incomplete { present: "tls.crt", missing: "tls.key" }),
        (None, Some(_)) => return Err(CredentialsError::Incomplete { present: "tls.key", missing: "tls.crt" }),
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

pub(super) fn text(
    data: &BTreeMap<String, Vec<u8>>,
    key: &'static str,
) -> Result<Option<SecretString>, CredentialsError> {
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
        fn exposed(secret: &SecretString) -> &[u8] {
            secret.expose_secret().as_bytes()
        }
        let fields: Vec<&[u8]> = match &self.credentials {
            Credentials::None => vec![b"none", b"", b""],
            Credentials::Basic { username, password } => vec![b"basic", exposed(username), exposed(password)],
            Credentials::Bearer { token } => vec![b"bearer", exposed(token), b""],
            Credentials::Ssh(key) => vec![
                b"ssh",
                exposed(&key.identity),
                key.password.as_ref().map_or(b"", exposed),
                key.known_hosts.as_bytes(),
            ],
            Credentials::GitHubApp(key) => vec![
                b"github",
                exposed(&key.private_key),
                key.base.as_str().as_bytes(),
                key.app.as_bytes(),
                key.installation.as_bytes(),
            ],
        };
        let tls = [&self.tls.ca_pem, &self.tls.client_cert_pem, &self.tls.client_key_pem];
        let tls = tls.map(|pem| pem.as_ref().map_or(&[][..], |pem| pem.expose_secret()));
        let proxy = self.proxy.iter().flat_map(Proxy::fields);
        fields.into_iter().chain(tls).chain(proxy)
    }

    /// A server's own words, bounded, on one line, and without any of our secrets that it may have repeated.
    pub(super) fn scrub(&self, words: &str) -> String {
        const WORDS_CHARS_MAX: usize = 200;
        let mut words = words.to_owned();
        let secrets: Vec<&SecretString> = match &self.credentials {
            Credentials::None | Credentials::Ssh(_) | Credentials::GitHubApp(_) => Vec::new(),
            Credentials::Basic { username, password } => vec![password, username],
            Credentials::Bearer { token } => vec![token],
        };
        let secrets = secrets.into_iter().chain(self.proxy.iter().flat_map(Proxy::secrets));
        for secret in secrets.map(ExposeSecret::expose_secret) {
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
            Credentials::Ssh(_) => "ssh key",
            Credentials::GitHubApp(_) => "GitHub App",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(entries: &[(&str, &str)]) -> Result<Access, CredentialsError> {
        let data = entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
        from_secret(&data, Use::Http)
    }

    fn shape(access: &Access) -> (String, String) {
        match &access.credentials {
            Credentials::None => ("none".into(), String::new()),
            Credentials::Basic { username, password } => {
                (username.expose_secret().into(), password.expose_secret().into())
            }
            Credentials::Bearer { token } => ("bearer".into(), token.expose_secret().into()),
            other => panic!("{other:?}"),
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
                &[("identity", "hunter2"), ("password", "hunter2")],
                "the Secret has `identity` but nothing for this URL: keys are for `ssh://` URLs",
            ),
            (
                &[("githubAppID", "hunter2")],
                "the Secret has `githubAppID` but nothing for this URL: set `spec.provider: github` to use it as a GitHub App",
            ),
        ];
        for (data, message) in cases {
            assert_eq!(secret(data).unwrap_err().to_string(), *message);
        }
    }

    #[test]
    fn keys_that_cannot_work_are_refused_before_they_are_tried() {
        let hosts = ("known_hosts", "example.com ssh-ed25519 AAAA");
        type Case<'a> = (Use, &'a [(&'a str, &'a str)], &'a str);
        let cases: &[Case] = &[
            (Use::Ssh, &[("known_hosts", "x")], "the Secret has no `identity`"),
            (Use::Ssh, &[("identity", "x")], "the Secret has no `known_hosts`"),
            (Use::Ssh, &[("identity", " "), hosts], "`identity` of the Secret is empty"),
            (
                Use::Ssh,
                &[("identity", "hunter2"), hosts],
                "`identity` of the Secret is no private key that can be used: it is not in PEM",
            ),
            (
                Use::Ssh,
                &[("identity", "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2"), hosts],
                "`identity` of the Secret is no private key that can be used: it is malformed",
            ),
            (
                Use::Ssh,
                &[("identity", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2"), hosts],
                "`identity` of the Secret is no private key that can be used: it is encrypted in another format than \
                 OpenSSH's; `ssh-keygen -p -f FILE` rewrites it",
            ),
            (Use::GitHubApp, &[("githubAppID", "1")], "the Secret has no `githubAppPrivateKey`"),
            (
                Use::GitHubApp,
                &[("githubAppID", "1"), ("githubAppInstallationID", "2"), ("githubAppPrivateKey", "hunter2")],
                "`githubAppPrivateKey` of the Secret holds no valid PEM RSA key",
            ),
            (
                Use::GitHubApp,
                &[("githubAppID", "1"), ("githubAppInstallationOwner", "hunter2")],
                "`githubAppInstallationOwner` is not served: put the number of the installation into \
                 `githubAppInstallationID`",
            ),
        ];
        for (purpose, entries, message) in cases {
            let data = entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
            assert_eq!(from_secret(&data, *purpose).unwrap_err().to_string(), *message);
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
