//! URLs as Go reads them: what Kubernetes' library `URLs` and the form `uri` take, an absolute URI or an absolute path.
//!
//! Comes in: a text. Goes out: its parts, or what is wrong in the words of Go's `net/url`. Nothing is normalised but the
//! case of the scheme.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::rc::Rc;

use super::text::quoted;
use super::value::{Key, Mapping, Value};

/// The parts of the text, by which two of them are compared as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    /// What follows a scheme without a slash.
    opaque: String,
    user: Option<(Vec<u8>, Option<Vec<u8>>)>,
    /// With the port.
    host: String,
    /// Escaped.
    path: String,
    query: Option<String>,
    fragment: Vec<u8>,
}

/// More fields than that are none: Go's limit.
const QUERY_FIELDS_MAX: usize = 10_000;

impl Url {
    /// What is wrong with a text as a request has it: what is relative, for one. A fragment is a part of the path here.
    pub fn check(text: &str) -> Result<(), String> {
        read(text, true).map(drop).map_err(|why| format!("parse {}: {why}", quoted(text)))
    }

    pub fn parse(text: &str) -> Result<Url, String> {
        Self::check(text)?;
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let mut url = read(rest, false).map_err(|why| format!("parse {}: {why}", quoted(rest)))?;
        let fragment = decoded(fragment, Part::Fragment);
        url.fragment = fragment.map_err(|why| format!("parse {}: {why}", quoted(text)))?;
        Ok(url)
    }

    pub fn call<'a>(&self, function: &str) -> Option<Value<'a>> {
        Some(match function {
            "getScheme" => Value::text(self.scheme.as_str()),
            "getHost" => Value::text(self.host.as_str()),
            "getHostname" => {
                let (name, _) = self.host_and_port();
                let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
                Value::text(bare.unwrap_or(name))
            }
            "getPort" => Value::text(self.host_and_port().1),
            "getEscapedPath" => Value::text(self.path.as_str()),
            "getQuery" => self.fields(),
            _ => return None,
        })
    }

    fn host_and_port(&self) -> (&str, &str) {
        match self.host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
            _ => (&self.host, ""),
        }
    }

    /// What can't be read is left out.
    fn fields<'a>(&self) -> Value<'a> {
        let query = self.query.as_deref().unwrap_or_default();
        let mut fields = BTreeMap::<Key, Vec<Value<'a>>>::new();
        let few = query.split('&').nth(QUERY_FIELDS_MAX).is_none();
        for field in query.split('&').filter(|field| few && !field.is_empty() && !field.contains(';')) {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            if let (Ok(key), Ok(value)) = (decoded(key, Part::Query), decoded(value, Part::Query)) {
                let (key, value) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
                fields.entry(Key::Text(key.into_owned())).or_default().push(Value::text(&*value));
            }
        }
        let fields = fields.into_iter().map(|(key, values)| (key, Value::list(values))).collect();
        Value::Map(Mapping::Made(Rc::new(fields)))
    }
}

fn read(text: &str, request: bool) -> Result<Url, String> {
    let nothing = || Url {
        scheme: String::new(),
        opaque: String::new(),
        user: None,
        host: String::new(),
        path: String::new(),
        query: None,
        fragment: Vec::new(),
    };
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    if text.is_empty() && request {
        return Err("empty url".to_owned());
    }
    if text == "*" {
        return Ok(Url { path: text.to_owned(), ..nothing() });
    }
    let (scheme, rest) = scheme(text)?;
    let (mut rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query.to_owned())),
        None => (rest, None),
    };
    let mut url = Url { scheme: scheme.to_ascii_lowercase(), query, ..nothing() };
    if !rest.starts_with('/') {
        if !scheme.is_empty() {
            return Ok(Url { opaque: rest.to_owned(), ..url });
        }
        if request {
            return Err("invalid URI for request".to_owned());
        }
        if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
    }
    let has_host = !scheme.is_empty() || (!request && !rest.starts_with("///"));
    if let Some(after) = rest.strip_prefix("//").filter(|_| has_host) {
        let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
        rest = path;
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        url.host = self::host(&url.scheme, host)?;
        url.user = user.map(self::user).transpose()?;
    }
    let path = decoded(rest, Part::Path)?;
    let as_written = rest.bytes().all(|byte| byte == b'%' || b"!'()*[]".contains(&byte) || stays(byte, Part::Path));
    url.path = if as_written { rest.to_owned() } else { escaped(&path) };
    Ok(url)
}

/// The scheme, if there is one, and what follows it.
fn scheme(text: &str) -> Result<(&str, &str), String> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))).unwrap_or(text.len());
    match text[end..].strip_prefix(':') {
        Some(_) if end == 0 => Err("missing protocol scheme".to_owned()),
        Some(rest) if text.starts_with(|c: char| c.is_ascii_alphabetic()) => Ok((&text[..end], rest)),
        _ => Ok(("", text)),
    }
}

fn user(text: &str) -> Result<(Vec<u8>, Option<Vec<u8>>), String> {
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte)) {
        return Err("net/url: invalid userinfo".to_owned());
    }
    let (name, password) = match text.split_once(':') {
        Some((name, password)) => (name, Some(password)),
        None => (text, None),
    };
    Ok((decoded(name, Part::User)?, password.map(|password| decoded(password, Part::User)).transpose()?))
}

/// Name and port.
fn host(scheme: &str, text: &str) -> Result<String, String> {
    let port_of = |port: &str| {
        let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let fine = port.is_empty() || port.strip_prefix(':').is_some_and(digits);
        if fine { Ok(()) } else { Err(format!("invalid port {} after host", quoted(port))) }
    };
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match text.rfind('[') {
        Some(0) => {
            let end = text.rfind(']').ok_or("missing ']' in host")?;
            let (within, port) = (&text[1..end], &text[end + 1..]);
            port_of(port)?;
            // RFC 6874: a zone begins with an escaped percent sign
            let (address, zone) = within.split_at(within.find("%25").unwrap_or(within.len()));
            let literal = lossy(&[decoded(address, Part::Host)?, decoded(zone, Part::Zone)?].concat());
            let (address, zone) = literal.split_once('%').map_or((literal.as_str(), None), |(a, z)| (a, Some(z)));
            if address.parse::<Ipv6Addr>().is_err() || zone.is_some_and(str::is_empty) {
                let is_v4 = zone.is_none() && address.parse::<std::net::Ipv4Addr>().is_ok();
                let why = format!("invalid host: ParseAddr({}): unable to parse IP", quoted(&literal));
                return Err(if is_v4 { "invalid IP-literal".to_owned() } else { why });
            }
            return Ok(format!("[{literal}]{port}"));
        }
        Some(_) => return Err("invalid IP-literal".to_owned()),
        None => {}
    }
    // lists of hosts with ports are taken, but not for the web
    let at = if matches!(scheme, "http" | "https") { text.find(':') } else { text.rfind(':') };
    if let Some(at) = at {
        port_of(&text[at..])?;
    }
    Ok(lossy(&decoded(text, Part::Host)?))
}

/// What may be escaped, and what need not be, depends on where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Host,
    Zone,
    User,
    Path,
    Query,
    Fragment,
}

/// True if a byte is written as it is.
fn stays(byte: u8, part: Part) -> bool {
    let here: &[u8] = match part {
        Part::Host | Part::Zone => b"!$&'()*+,;=:[]<>\"",
        Part::Path => b"$&+,/:;=@",
        Part::User => b"$&+,;=",
        Part::Query => b"",
        Part::Fragment => b"$&+,/:;=?@!()*",
    };
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || here.contains(&byte)
}

fn decoded(text: &str, part: Part) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes();
    let in_host = matches!(part, Part::Host | Part::Zone);
    let mut made = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'%' => {
                let three = &bytes[at - 1..bytes.len().min(at + 2)];
                let wrong = || format!("invalid URL escape {}", quoted(&String::from_utf8_lossy(three)));
                let digits = three.get(1..3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                let digits = std::str::from_utf8(digits.ok_or_else(wrong)?).map_err(|_| wrong())?;
                let value = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
                let allowed = match part {
                    Part::Host => value >= 0x80 || three == b"%25",
                    Part::Zone => value == b' ' || three == b"%25" || stays(value, Part::Host),
                    _ => true,
                };
                if !allowed {
                    return Err(wrong());
                }
                made.push(value);
                at += 2;
            }
            b'+' if part == Part::Query => made.push(b' '),
            byte if in_host && byte.is_ascii() && !stays(byte, part) => {
                return Err(format!("invalid character {} in host name", quoted(&char::from(byte).to_string())));
            }
            byte => made.push(byte),
        }
    }
    Ok(made)
}

fn escaped(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for &byte in path {
        if stays(byte, Part::Path) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_refused_in_the_words_of_go() {
        for (text, expected) in [
            ("", "parse \"\": empty url"),
            ("a b", "parse \"a b\": invalid URI for request"),
            ("../x", "parse \"../x\": invalid URI for request"),
            (":x", "parse \":x\": missing protocol scheme"),
            ("http://a\nb", "parse \"http://a\\nb\": net/url: invalid control character in URL"),
            ("https://a:b:c/", "parse \"https://a:b:c/\": invalid port \":b:c\" after host"),
            ("https://a:8x/", "parse \"https://a:8x/\": invalid port \":8x\" after host"),
            ("http://[::1/", "parse \"http://[::1/\": missing ']' in host"),
            ("http://[1.2.3.4]/", "parse \"http://[1.2.3.4]/\": invalid IP-literal"),
            ("http://a[::1]/", "parse \"http://a[::1]/\": invalid IP-literal"),
            ("http://a b/", "parse \"http://a b/\": invalid character \" \" in host name"),
            ("http://a%41/", "parse \"http://a%41/\": invalid URL escape \"%41\""),
            ("/a%zz", "parse \"/a%zz\": invalid URL escape \"%zz\""),
            ("/a%2", "parse \"/a%2\": invalid URL escape \"%2\""),
            ("http://us er@a/", "parse \"http://us er@a/\": net/url: invalid userinfo"),
            ("/a#%z", "parse \"/a#%z\": invalid URL escape \"%z\""),
        ] {
            assert_eq!(Url::parse(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn urls_have_the_parts_that_are_written() {
        for (text, parts) in [
            (
                "https://User:pw@EXAMPLE.com:443/A/../b?k=v#f",
                ["https", "EXAMPLE.com:443", "EXAMPLE.com", "443", "/A/../b"],
            ),
            ("https://example.com", ["https", "example.com", "example.com", "", ""]),
            ("/path with é", ["", "", "", "", "/path%20with%20%C3%A9"]),
            ("/a%2Fb(c)", ["", "", "", "", "/a%2Fb(c)"]),
            ("mailto:a@b", ["mailto", "", "", "", ""]),
            ("http://[fe80::1%25en0]:80/", ["http", "[fe80::1%en0]:80", "fe80::1%en0", "80", "/"]),
            ("mongodb://a:1,b:2/db", ["mongodb", "a:1,b:2", "a:1,b", "2", "/db"]),
            ("//not/a/host", ["", "not", "not", "", "/a/host"]),
            ("*", ["", "", "", "", "*"]),
        ] {
            let url = Url::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            let found = ["getScheme", "getHost", "getHostname", "getPort", "getEscapedPath"]
                .map(|part| super::super::functions::plain(&url.call(part).expect("a part")));
            assert_eq!(found, parts, "{text}");
        }
    }
}
