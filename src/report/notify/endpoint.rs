//! Where a provider's notifications go, and with which credentials: its spec and its Secrets, read anew for each
//! delivery, so that a corrected Secret counts at once.
//!
//! Whatever comes from a Secret stays in this file's types: they don't print it, and [`Endpoint::scrub`] takes it out of
//! what others say.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Proxy, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::expression::Expression;
use super::forge::Forge;
use crate::api::{Key, LocalReference, ProviderSpec};
use crate::cluster::{Cluster, SecretData};
use crate::source::credentials::{self, AppKey};

/// Flux's default.
const TIMEOUT: Duration = Duration::from_secs(15);
/// One delivery holds up those behind it: this is the most that a spec may ask for.
const TIMEOUT_MAX: Duration = Duration::from_secs(120);
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Shorter words would be found by chance in any text.
const SCRUBBED_BYTES_MIN: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Generic,
    GenericHmac,
    Slack,
    Alertmanager,
    Forge(Forge),
}

const KINDS: [(&str, Kind); 7] = [
    ("generic", Kind::Generic),
    ("generic-hmac", Kind::GenericHmac),
    ("slack", Kind::Slack),
    ("alertmanager", Kind::Alertmanager),
    ("github", Kind::Forge(Forge::GitHub)),
    ("gitlab", Kind::Forge(Forge::GitLab)),
    ("gitea", Kind::Forge(Forge::Gitea)),
];

impl Kind {
    pub fn parse(name: &str) -> Option<Kind> {
        KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    pub fn is_forge(self) -> bool {
        matches!(self, Kind::Forge(_))
    }
}

/// Why a provider can't be served as its spec is; `None` if it can.
pub fn refusal(spec: &ProviderSpec) -> Option<String> {
    let Some(kind) = Kind::parse(&spec.kind) else {
        let served: Vec<_> = KINDS.iter().map(|(name, _)| format!("`{name}`")).collect();
        return Some(format!(
            "`spec.type: {}` is not served by this version of Afresh; served: {}",
            spec.kind,
            served.join(", ")
        ));
    };
    let unserved: Vec<_> = spec.unserved().into_iter().map(|field| format!("`{field}`")).collect();
    if !unserved.is_empty() {
        return Some(format!("not served by this version of Afresh: {}", unserved.join(", ")));
    }
    let address = spec.address.as_deref().unwrap_or_default();
    if address.is_empty() && spec.secret_ref.is_none() {
        return Some("there is no address: set `spec.address`, or `address` in the Secret of `spec.secretRef`".into());
    }
    let token = matches!(kind, Kind::GenericHmac | Kind::Forge(_));
    if token && spec.secret_ref.is_none() {
        return Some(format!("`spec.type: {}` needs `spec.secretRef`, a Secret with `token`", spec.kind));
    }
    let text = commit_status_expression(spec)?;
    if !kind.is_forge() {
        return Some(format!(
            "`spec.commitStatusExpr` makes no sense for `spec.type: {}`: it sets no status",
            spec.kind
        ));
    }
    Expression::compile(text).err().map(|why| format!("`spec.commitStatusExpr`: {why}"))
}

/// What makes the name of a commit's status, if not the default does.
pub fn commit_status_expression(spec: &ProviderSpec) -> Option<&str> {
    spec.commit_status_expr.as_deref().filter(|text| !text.is_empty())
}

/// Why a Provider, as the API server has it, can't be served; `None` if it can.
pub fn refusal_of_provider(provider: &Value) -> Option<String> {
    match serde_json::from_value::<ProviderSpec>(provider["spec"].clone()) {
        Ok(spec) => refusal(&spec),
        Err(error) => Some(format!("it can't be read: {error}")),
    }
}

type Headers = Vec<(HeaderName, HeaderValue)>;

/// Everything that a delivery needs.
pub struct Endpoint {
    pub kind: Kind,
    pub client: Client,
    pub timeout: Duration,
    pub channel: Option<String>,
    pub username: Option<String>,
    pub address: SecretString,
    pub token: Option<SecretString>,
    /// In place of a token: a GitHub App's key gets one.
    pub app: Option<AppKey>,
    pub password: Option<SecretString>,
    pub headers: Headers,
    secrets: Vec<SecretString>,
}

/// Why there is no endpoint. The messages name keys, never values.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// It may be there the next time.
    #[error("can't read Secret `{secret}`: {why}")]
    Unreadable { secret: Key, why: String },
    #[error("Secret `{secret}` of `{field}` does not exist")]
    Missing { secret: Key, field: &'static str },
    #[error("Secret `{secret}`: {why}")]
    Unusable { secret: Key, why: String },
    #[error("{0}")]
    Spec(String),
}

impl EndpointError {
    /// True if only another spec or Secret helps.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Unreadable { .. })
    }
}

impl Endpoint {
    pub async fn resolve(cluster: &Cluster, provider: &Key, spec: &ProviderSpec) -> Result<Self, EndpointError> {
        if let Some(refusal) = refusal(spec) {
            return Err(EndpointError::Spec(refusal));
        }
        let kind = Kind::parse(&spec.kind).ok_or_else(|| EndpointError::Spec("its type is not served".into()))?;
        let namespace = &provider.namespace;
        let credentials = Keys::read(cluster, namespace, &spec.secret_ref, "spec.secretRef").await?;
        let certificates = Keys::read(cluster, namespace, &spec.cert_secret_ref, "spec.certSecretRef").await?;
        let proxies = Keys::read(cluster, namespace, &spec.proxy_secret_ref, "spec.proxySecretRef").await?;
        let address = credentials.text("address")?.or_else(|| spec.address.clone().map(SecretString::from));
        let address = address
            .filter(|address| !address.expose_secret().is_empty())
            .ok_or_else(|| EndpointError::Spec("there is no address, neither in the spec nor in its Secret".into()))?;
        if !kind.is_forge() && !["http://", "https://"].iter().any(|s| address.expose_secret().starts_with(s)) {
            return Err(EndpointError::Spec("the address must begin with `https://` or `http://`".into()));
        }
        let token = credentials.text("token")?;
        let app = match (kind, &token) {
            (Kind::Forge(Forge::GitHub), None) => credentials.app()?,
            _ => None,
        };
        if token.is_none() && app.is_none() && matches!(kind, Kind::GenericHmac | Kind::Forge(_)) {
            let why = match kind {
                Kind::Forge(Forge::GitHub) => "there is neither a `token` in it nor a GitHub App's `githubAppID`",
                _ => "there is no `token` in it, which this type needs",
            };
            let why = why.to_owned();
            return Err(EndpointError::Unusable { secret: credentials.name, why });
        }
        let (headers, header_values) = credentials.headers()?;
        let username = credentials.text("username")?.map(|name| name.expose_secret().to_owned());
        let password = credentials.text("password")?;
        let client = client(&address, &certificates, proxy(spec, &credentials, &proxies)?)?;
        let mut secrets: Vec<_> = token.iter().chain(&password).cloned().chain(header_values).collect();
        if credentials.text("address")?.is_some() {
            secrets.push(address.clone());
        }
        Ok(Self {
            kind,
            client,
            timeout: spec.timeout.map_or(TIMEOUT, |t| t.0).min(TIMEOUT_MAX),
            channel: spec.channel.clone().filter(|channel| !channel.is_empty()),
            username: username.or_else(|| spec.username.clone()).filter(|name| !name.is_empty()),
            address,
            token,
            app,
            password,
            headers,
            secrets,
        })
    }

    /// A server's words on one line, bounded, without our secrets.
    pub fn scrub(&self, words: &str) -> String {
        const WORDS_CHARS_MAX: usize = 200;
        let mut words = words.to_owned();
        for secret in self.secrets.iter().map(|secret| secret.expose_secret()) {
            if secret.len() >= SCRUBBED_BYTES_MIN {
                words = words.replace(secret, "***");
            }
        }
        let words: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        words.trim().chars().take(WORDS_CHARS_MAX).collect()
    }
}

/// The keys of one Secret; none without a reference.
struct Keys {
    name: Key,
    data: Option<SecretData>,
}

impl Keys {
    async fn read(
        cluster: &Cluster,
        namespace: &str,
        reference: &Option<LocalReference>,
        field: &'static str,
    ) -> Result<Self, EndpointError> {
        let Some(reference) = reference else { return Ok(Self { name: Key::new(namespace, ""), data: None }) };
        let name = Key::new(namespace, reference.name.clone());
        let data = cluster
            .get_secret(namespace, &reference.name)
            .await
            .map_err(|error| EndpointError::Unreadable { secret: name.clone(), why: error.to_string() })?
            .ok_or_else(|| EndpointError::Missing { secret: name.clone(), field })?;
        Ok(Self { name, data: Some(data) })
    }

    fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.data.as_ref()?.data.get(key).map(|value| value.expose_secret())
    }

    /// A value on one line; a newline at its end is what `echo` leaves and never meant.
    fn text(&self, key: &str) -> Result<Option<SecretString>, EndpointError> {
        let Some(bytes) = self.bytes(key) else { return Ok(None) };
        let text = std::str::from_utf8(bytes).map_err(|_| self.unusable(format!("`{key}` is not text")))?.trim();
        if text.chars().any(char::is_control) {
            return Err(self.unusable(format!("`{key}` is not one line of text")));
        }
        Ok((!text.is_empty()).then(|| text.into()))
    }

    /// The keys of a GitHub App, if there are any.
    fn app(&self) -> Result<Option<AppKey>, EndpointError> {
        let Some(data) = self.data.as_ref().filter(|data| data.data.contains_key("githubAppID")) else {
            return Ok(None);
        };
        let data = data.data.iter().map(|(key, value)| (key.clone(), value.expose_secret().to_vec())).collect();
        let key = credentials::app(&data).map_err(|error| self.unusable(error.to_string()))?;
        Ok(Some(key))
    }

    /// The YAML map in `headers`.
    fn headers(&self) -> Result<(Headers, Vec<SecretString>), EndpointError> {
        let Some(bytes) = self.bytes("headers") else { return Ok(Default::default()) };
        let text = std::str::from_utf8(bytes).map_err(|_| self.unusable("`headers` is not text".into()))?;
        let map: BTreeMap<String, String> = serde_yaml::from_str(text)
            .map_err(|_| self.unusable("`headers` is not a YAML map of names and texts".into()))?;
        let mut headers = Vec::with_capacity(map.len());
        for (name, value) in &map {
            let bad = || self.unusable("`headers` has a name or a value that HTTP doesn't allow".into());
            let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| bad())?;
            value.set_sensitive(true);
            headers.push((HeaderName::try_from(name.as_str()).map_err(|_| bad())?, value));
        }
        Ok((headers, map.into_values().map(SecretString::from).collect()))
    }

    fn unusable(&self, why: String) -> EndpointError {
        EndpointError::Unusable { secret: self.name.clone(), why }
    }
}

/// `proxySecretRef` goes before the Secret's `proxy`, and that before `spec.proxy`.
fn proxy(spec: &ProviderSpec, credentials: &Keys, proxies: &Keys) -> Result<Option<Proxy>, EndpointError> {
    let (keys, address) = match proxies.text("address")? {
        Some(address) => (proxies, Some(address)),
        None if proxies.data.is_some() => return Err(proxies.unusable("there is no `address` in it".into())),
        None => (credentials, credentials.text("proxy")?.or_else(|| spec.proxy.clone().map(SecretString::from))),
    };
    let Some(address) = address else { return Ok(None) };
    let proxy =
        Proxy::all(address.expose_secret()).map_err(|_| keys.unusable("the proxy's address is no URL".into()))?;
    let proxy = match (proxies.text("username")?, proxies.text("password")?) {
        (Some(username), password) => {
            let password = password.unwrap_or_default();
            proxy.basic_auth(username.expose_secret(), password.expose_secret())
        }
        (None, _) => proxy,
    };
    Ok(Some(proxy))
}

fn client(address: &SecretString, certificates: &Keys, proxy: Option<Proxy>) -> Result<Client, EndpointError> {
    let unusable = |key: &str, what: &str| certificates.unusable(format!("`{key}` holds no PEM {what}"));
    let first = |keys: [&'static str; 2]| keys.into_iter().find_map(|key| Some((key, certificates.bytes(key)?)));
    // a redirected POST becomes a GET, and its credentials would go to whoever is named
    let builder = || -> Result<ClientBuilder, EndpointError> {
        let agent = concat!("afresh/", env!("CARGO_PKG_VERSION"));
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .user_agent(agent)
            .connect_timeout(CONNECT_MAX);
        if let Some((key, pem)) = first(["ca.crt", "caFile"]) {
            let bundle = Certificate::from_pem_bundle(pem).unwrap_or_default();
            if bundle.is_empty() {
                return Err(unusable(key, "certificate"));
            }
            builder = builder.tls_certs_only(bundle);
        }
        match (first(["tls.crt", "certFile"]), first(["tls.key", "keyFile"])) {
            (Some((_, certificate)), Some((key, private))) => {
                let identity = Identity::from_pem(&[certificate, b"\n", private].concat());
                builder = builder.identity(identity.map_err(|_| unusable(key, "private key"))?);
            }
            (None, None) => {}
            _ => return Err(certificates.unusable("a client certificate needs both `tls.crt` and `tls.key`".into())),
        }
        let loopback = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
        Ok(match &proxy {
            Some(proxy) => builder.proxy(proxy.clone()),
            None if loopback.iter().any(|l| address.expose_secret().starts_with(l)) => builder.no_proxy(),
            None => builder,
        })
    };
    let plain = address.expose_secret().starts_with("http://");
    match builder()?.build() {
        Ok(client) => Ok(client),
        // a machine without system certificates can speak plain HTTP
        Err(_) if plain => builder()?.tls_certs_only([]).build().map_err(|error| no_client(&error)),
        Err(error) => Err(no_client(&error)),
    }
}

fn no_client(error: &reqwest::Error) -> EndpointError {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    EndpointError::Spec(format!("no HTTP client can be made{cause}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        let status_named = |expression: &str| {
            json!({
                "type": "github", "address": "https://h/a/b", "secretRef": { "name": "token" },
                "commitStatusExpr": expression,
            })
        };
        let cases = [
            (json!({ "type": "generic", "address": "https://h/x" }), None),
            (json!({ "type": "gitea", "address": "https://h/a/b", "secretRef": { "name": "token" } }), None),
            (json!({ "type": "slack", "secretRef": { "name": "hook" } }), None),
            (json!({ "type": "msteams", "address": "https://h/x" }), Some("`spec.type: msteams`")),
            (json!({ "type": "generic" }), Some("there is no address")),
            (json!({ "type": "generic-hmac", "address": "https://h/x" }), Some("needs `spec.secretRef`")),
            (json!({ "type": "github", "address": "https://h/a/b" }), Some("needs `spec.secretRef`")),
            (status_named("'x'"), None),
            (status_named("''.map(x, x)"), Some("`spec.commitStatusExpr`: a string has no items")),
            (status_named("event."), Some("`spec.commitStatusExpr`: ")),
            (status_named("app.metadata.name"), Some("`spec.commitStatusExpr`: `app` is not declared")),
            (
                json!({ "type": "generic", "address": "https://h/x", "commitStatusExpr": "'x'" }),
                Some("`spec.commitStatusExpr` makes no sense for `spec.type: generic`"),
            ),
            (
                json!({ "type": "generic", "address": "https://h/x", "serviceAccountName": "x" }),
                Some("`spec.serviceAccountName`"),
            ),
        ];
        for (spec, expected) in cases {
            let refusal = refusal_of_provider(&json!({ "spec": spec }));
            match expected {
                None => assert_eq!(refusal, None, "{spec}"),
                Some(text) => assert!(refusal.as_ref().is_some_and(|r| r.contains(text)), "{spec}: {refusal:?}"),
            }
        }
    }
}
