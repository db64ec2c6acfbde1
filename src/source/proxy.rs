//! The proxy on the way to a remote: the data of a Secret in, an address with credentials out, never shown.

use std::collections::BTreeMap;
use std::fmt;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::credentials::{CredentialsError, text};

const SCHEMES: [&str; 4] = ["http", "https", "socks5", "socks5h"];

#[derive(Clone, Debug)]
pub struct Proxy {
    /// Without userinfo.
    address: Url,
    credentials: Option<(SecretString, SecretString)>,
}

/// Reads the data of a Secret that `spec.proxySecretRef` names: `address`, and perhaps `username` and `password`.
pub fn from_secret(data: &BTreeMap<String, Vec<u8>>) -> Result<Proxy, CredentialsError> {
    let address = text(data, "address")?.ok_or(CredentialsError::Missing { missing: "address" })?;
    let (username, password) = (text(data, "username")?, text(data, "password")?);
    let malformed = || CredentialsError::ProxyAddress;
    let mut url = Url::parse(address.expose_secret()).map_err(|_| malformed())?;
    let has_host = url.host_str().is_some_and(|host| !host.is_empty());
    if !SCHEMES.contains(&url.scheme()) || !has_host || url.query().is_some() || url.fragment().is_some() {
        return Err(malformed());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(CredentialsError::ProxyUserinfo);
    }
    url.set_path("");
    let credentials = match (username, password) {
        (None, None) => None,
        (Some(username), password) => Some((username, password.unwrap_or_else(|| "".into()))),
        (None, Some(_)) => return Err(CredentialsError::Incomplete { present: "password", missing: "username" }),
    };
    Ok(Proxy { address: url, credentials })
}

impl Proxy {
    /// For the HTTP client.
    pub(super) fn build(&self) -> Result<reqwest::Proxy, reqwest::Error> {
        let proxy = reqwest::Proxy::all(self.address.clone())?;
        Ok(match &self.credentials {
            Some((username, password)) => proxy.basic_auth(username.expose_secret(), password.expose_secret()),
            None => proxy,
        })
    }

    /// Everything that tells two proxies apart, for a keyed hash only.
    pub(super) fn fields(&self) -> [&[u8]; 3] {
        let (username, password) = match &self.credentials {
            Some((username, password)) => (username.expose_secret().as_bytes(), password.expose_secret().as_bytes()),
            None => (&b""[..], &b""[..]),
        };
        [self.address.as_str().as_bytes(), username, password]
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        self.credentials.iter().flat_map(|(username, password)| [password, username])
    }
}

/// The address alone.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.address.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(entries: &[(&str, &str)]) -> Result<Proxy, CredentialsError> {
        from_secret(&entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect())
    }

    #[test]
    fn addresses_of_known_schemes_are_taken() {
        for address in ["http://proxy:3128", "https://proxy.example:443/", "socks5://10.0.0.1:1080", "socks5h://p"] {
            let proxy = proxy(&[("address", address), ("username", "u"), ("password", "hunter2\n")]).unwrap();
            assert!(proxy.build().is_ok(), "{address}");
            assert!(!format!("{proxy} {proxy:?}").contains("hunter2"));
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_echo() {
        let address = "`address` of the Secret is not a proxy's: `http://`, `https://` or `socks5://`, host and port";
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[], "the Secret has no `address`"),
            (&[("address", "hunter2")], address),
            (&[("address", "ftp://hunter2:1")], address),
            (&[("address", "http://")], address),
            (
                &[("address", "http://hunter2:x@proxy:1")],
                "`address` of the Secret holds a user name or password: they belong into `username` and `password`",
            ),
            (&[("address", "http://p"), ("password", "x")], "the Secret has `password` but no `username`"),
        ];
        for (entries, message) in cases {
            assert_eq!(proxy(entries).unwrap_err().to_string(), *message);
        }
    }
}
