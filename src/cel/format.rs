//! Named forms of texts, as Kubernetes' library `Format` has them.

use std::sync::LazyLock;

use regex::Regex;

use super::url::Url;
use super::value::Value;

pub const FORMAT: &str = "kubernetes.NamedFormat";

const LABEL_BYTES_MAX: usize = 63;
const SUBDOMAIN_BYTES_MAX: usize = 253;

/// A form, and what is said of a text that has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    name: &'static str,
    /// The beginning of a name that is completed by others: it may end with a dash.
    prefix: bool,
}

/// All of them, by the names that expressions use.
const FORMATS: [(&str, Format); 13] = [
    ("dns1123Label", Format { name: "dns1123Label", prefix: false }),
    ("dns1123Subdomain", Format { name: "dns1123Subdomain", prefix: false }),
    ("dns1035Label", Format { name: "dns1035Label", prefix: false }),
    ("dns1123LabelPrefix", Format { name: "dns1123Label", prefix: true }),
    ("dns1123SubdomainPrefix", Format { name: "dns1123Subdomain", prefix: true }),
    ("dns1035LabelPrefix", Format { name: "dns1035Label", prefix: true }),
    ("qualifiedName", Format { name: "qualifiedName", prefix: false }),
    ("labelValue", Format { name: "labelValue", prefix: false }),
    ("uuid", Format { name: "uuid", prefix: false }),
    ("byte", Format { name: "byte", prefix: false }),
    ("date", Format { name: "date", prefix: false }),
    ("datetime", Format { name: "datetime", prefix: false }),
    ("uri", Format { name: "uri", prefix: false }),
];

pub fn named(name: &str) -> Option<Format> {
    FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const NAME: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

macro_rules! pattern {
    ($pattern:expr) => {{
        static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(&format!("^(?:{})$", $pattern)).expect("a regular expression that is written here")
        });
        &*PATTERN
    }};
}

impl Format {
    /// An optional list of what is wrong; none if nothing is.
    pub fn validate<'a>(self, text: &str) -> Value<'a> {
        let wrong = self.wrong(text);
        if wrong.is_empty() {
            return Value::Optional(None);
        }
        Value::some(Value::list(wrong.into_iter().map(Value::text).collect()))
    }

    fn wrong(self, text: &str) -> Vec<String> {
        let completed = match text.strip_suffix('-') {
            Some(rest) if self.prefix && text.len() > 1 => {
                let mut rest = rest.to_owned();
                rest.pop();
                rest.push('a');
                rest
            }
            _ => text.to_owned(),
        };
        let text = completed.as_str();
        match self.name {
            "dns1123Label" => {
                let message = format!(
                    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
                );
                shaped(text, LABEL_BYTES_MAX, pattern!(LABEL), message)
            }
            "dns1123Subdomain" => shaped(text, SUBDOMAIN_BYTES_MAX, pattern!(SUBDOMAIN), subdomain_message()),
            "dns1035Label" => {
                let message = format!(
                    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '{LABEL_1035}')"
                );
                shaped(text, LABEL_BYTES_MAX, pattern!(LABEL_1035), message)
            }
            "qualifiedName" => qualified_name(text),
            "labelValue" => {
                let message = format!(
                    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '{VALUE}')"
                );
                shaped(text, LABEL_BYTES_MAX, pattern!(VALUE), message)
            }
            "uuid" => {
                let is_one = pattern!("[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}");
                unless(is_one.is_match(text), "does not match the UUID format")
            }
            "byte" => {
                let is_one = pattern!("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})");
                unless(is_one.is_match(text), "invalid base64")
            }
            "uri" => Url::check(text).err().into_iter().collect(),
            "datetime" => unless(is_datetime(text), "invalid datetime"),
            _ => unless(is_date(text), "invalid date"),
        }
    }
}

fn is_date(text: &str) -> bool {
    pattern!("[0-9]{4}-[0-9]{2}-[0-9]{2}").is_match(text) && text.parse::<jiff::civil::Date>().is_ok()
}

/// RFC 3339, as the API servers' library reads it: either case, any sign before the fraction, whatever offset, and
/// nothing is looked at behind another `t`.
fn is_datetime(text: &str) -> bool {
    let mut parts = text.split(['t', 'T']);
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    let time = pattern!("([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?([zZ]|[+-][0-9]{2}:[0-9]{2})").captures(time);
    let within = |time: regex::Captures<'_>| &time[1] <= "23" && &time[2] <= "59" && &time[3] <= "59";
    is_date(date) && time.is_some_and(within)
}

fn unless(fine: bool, message: &str) -> Vec<String> {
    if fine { Vec::new() } else { vec![message.to_owned()] }
}

fn subdomain_message() -> String {
    format!(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{SUBDOMAIN}')"
    )
}

fn shaped(text: &str, bytes_max: usize, pattern: &Regex, message: String) -> Vec<String> {
    let mut wrong = unless(text.len() <= bytes_max, &format!("must be no more than {bytes_max} bytes"));
    wrong.extend((!pattern.is_match(text)).then_some(message));
    wrong
}

fn qualified_name(text: &str) -> Vec<String> {
    let shape = format!(
        "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{NAME}')"
    );
    let mut wrong = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match *parts {
        [name] => name,
        [prefix, name] => {
            wrong.extend(prefix.is_empty().then(|| "prefix part must be non-empty".to_owned()));
            if !prefix.is_empty() {
                let of_prefix = shaped(prefix, SUBDOMAIN_BYTES_MAX, pattern!(SUBDOMAIN), subdomain_message());
                wrong.extend(of_prefix.into_iter().map(|message| format!("prefix part {message}")));
            }
            name
        }
        _ => {
            let optional = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {shape} {optional}")];
        }
    };
    wrong.extend(name.is_empty().then(|| "name part must be non-empty".to_owned()));
    let of_name = shaped(name, LABEL_BYTES_MAX, pattern!(NAME), shape);
    wrong.extend(of_name.into_iter().map(|message| format!("name part {message}")));
    wrong
}
