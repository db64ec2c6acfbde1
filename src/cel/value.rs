//! Values while an expression is evaluated. What comes from manifests is borrowed, never copied.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use serde_json::{Map, Value as Json};

use super::format::{self, Format};
use super::network::{self, Cidr};
use super::quantity::Quantity;
use super::semver;
use super::time::{self, Moment};
use super::url::Url;

#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'a>),
    Bytes(Rc<[u8]>),
    List(List<'a>),
    Map(Mapping<'a>),
    Optional(Option<Rc<Value<'a>>>),
    Quantity(Quantity),
    Url(Rc<Url>),
    /// In nanoseconds.
    Duration(i64),
    Timestamp(Moment),
    Ip(IpAddr),
    Cidr(Cidr),
    Semver(Rc<::semver::Version>),
    Format(Format),
    Type(&'static str),
}

#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Made(Rc<str>),
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    Borrowed(&'a [Json]),
    Made(Rc<Vec<Value<'a>>>),
}

#[derive(Clone, Debug)]
pub enum Mapping<'a> {
    Borrowed(&'a Map<String, Json>),
    Made(Rc<BTreeMap<Key, Value<'a>>>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i128),
    Text(String),
}

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Borrowed(items) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    pub fn get(&self, at: usize) -> Option<Value<'a>> {
        match self {
            Self::Borrowed(items) => items.get(at).map(Value::of),
            Self::Made(items) => items.get(at).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}

impl<'a> Mapping<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Borrowed(fields) => fields.len(),
            Self::Made(fields) => fields.len(),
        }
    }

    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Borrowed(fields) => fields.get(name).map(Value::of),
            Self::Made(fields) => fields.get(&Key::Text(name.to_owned())).cloned(),
        }
    }

    pub fn get(&self, key: &Key) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Borrowed(_), Key::Text(name)) => self.field(name),
            (Self::Borrowed(_), _) => None,
            (Self::Made(fields), key) => fields.get(key).cloned(),
        }
    }

    pub fn entries(&self) -> Vec<(Value<'a>, Value<'a>)> {
        match self {
            Self::Borrowed(fields) => {
                fields.iter().map(|(key, value)| (Value::Text(Text::Borrowed(key)), Value::of(value))).collect()
            }
            Self::Made(fields) => fields.iter().map(|(key, value)| (key.value(), value.clone())).collect(),
        }
    }
}

impl Key {
    /// `None`: no key can be like that.
    pub fn of(value: &Value<'_>) -> Option<Key> {
        match value {
            Value::Bool(value) => Some(Key::Bool(*value)),
            Value::Int(value) => Some(Key::Int(i128::from(*value))),
            Value::Uint(value) => Some(Key::Int(i128::from(*value))),
            // a whole number is the same key whatever its type
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 1e18 => Some(Key::Int(*value as i128)),
            Value::Text(text) => Some(Key::Text(text.as_str().to_owned())),
            _ => None,
        }
    }

    fn value<'a>(&self) -> Value<'a> {
        match self {
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(value) => i64::try_from(*value).map_or_else(|_| Value::Uint(*value as u64), Value::Int),
            Key::Text(text) => Value::text(text.as_str()),
        }
    }
}

impl<'a> Value<'a> {
    /// A value of a manifest.
    pub fn of(json: &'a Json) -> Value<'a> {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Value::Int(value),
                (_, Some(value)) => Value::Uint(value),
                _ => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Text(Text::Borrowed(text)),
            Json::Array(items) => Value::List(List::Borrowed(items)),
            Json::Object(fields) => Value::Map(Mapping::Borrowed(fields)),
        }
    }

    pub fn text(text: impl Into<Rc<str>>) -> Value<'a> {
        Value::Text(Text::Made(text.into()))
    }

    pub fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(List::Made(Rc::new(items)))
    }

    pub fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Rc::new(value)))
    }

    /// As CEL names it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::Text(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Optional(_) => "optional_type",
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Url(_) => "kubernetes.URL",
            Value::Duration(_) => time::DURATION,
            Value::Timestamp(_) => time::TIMESTAMP,
            Value::Ip(_) => network::IP,
            Value::Cidr(_) => network::CIDR,
            Value::Semver(_) => semver::SEMVER,
            Value::Format(_) => format::FORMAT,
            Value::Type(_) => "type",
        }
    }

    /// Zero, empty, false or null: what `ofNonZeroValue` takes for nothing.
    pub fn is_zero(&self) -> bool {
        match self {
            Value::Null | Value::Optional(None) => true,
            Value::Bool(value) => !value,
            Value::Int(value) => *value == 0,
            Value::Uint(value) => *value == 0,
            Value::Double(value) => *value == 0.0,
            Value::Text(text) => text.as_str().is_empty(),
            Value::Bytes(bytes) => bytes.is_empty(),
            Value::List(list) => list.len() == 0,
            Value::Map(map) => map.len() == 0,
            Value::Duration(nanoseconds) => *nanoseconds == 0,
            _ => false,
        }
    }

    /// Equality as CEL has it: numbers by what they are worth, everything else by type and content.
    pub fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => a.as_str() == b.as_str(),
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(&b)),
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len()
                    && a.entries().iter().all(|(key, value)| {
                        let other = Key::of(key).and_then(|key| b.get(&key));
                        other.is_some_and(|other| value.equals(&other))
                    })
            }
            (Value::Optional(a), Value::Optional(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.equals(b),
                _ => false,
            },
            (Value::Quantity(a), Value::Quantity(b)) => a == b,
            (Value::Url(a), Value::Url(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a.at == b.at,
            (Value::Ip(a), Value::Ip(b)) => a == b,
            (Value::Cidr(a), Value::Cidr(b)) => a == b,
            (Value::Semver(a), Value::Semver(b)) => semver::order(a, b).is_eq(),
            (Value::Format(a), Value::Format(b)) => a == b,
            (Value::Type(a), Value::Type(b)) => a == b,
            (a, b) => a.is_number() && b.is_number() && a.compare(b) == Some(Ordering::Equal),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Value::Int(_) | Value::Uint(_) | Value::Double(_))
    }

    /// `None` if there is no order between them.
    pub fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::Text(a), Value::Text(b)) => Some(a.as_str().cmp(b.as_str())),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
            (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
            (Value::Double(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Value::Double(a), Value::Uint(b)) => a.partial_cmp(&(*b as f64)),
            (Value::Int(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
            (Value::Uint(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.at.cmp(&b.at)),
            _ => None,
        }
    }
}
