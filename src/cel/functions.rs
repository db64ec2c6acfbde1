//! The functions: CEL's own, and Kubernetes' libraries of texts, lists, sets, regular expressions, quantities, URLs,
//! addresses, versions, times and formats.
//!
//! One table says what there is ([`SIGNATURES`]); the checker reads it before anything is evaluated.

use std::cmp::Ordering;
use std::rc::Rc;

use super::EvaluationError;
use super::evaluate::{Budget, Evaluated, no_overload};
use super::quantity::Quantity;
use super::regular::{Pattern, search};
use super::url::Url;
use super::value::Value;
use super::{format, formatting, lists, network, semver, text, time};

/// What a function takes and gives, as far as that is known without its arguments.
pub struct Signature {
    pub name: &'static str,
    /// Called on a value.
    pub member: bool,
    pub least: usize,
    pub most: usize,
    /// As CEL names it; `""` if it depends.
    pub result: &'static str,
    /// What the target, or of a global function the first argument, has to be; `""`: it depends.
    pub on: &'static str,
}

const fn of(name: &'static str, least: usize, most: usize, on: &'static str, result: &'static str) -> Signature {
    Signature { name, member: false, least, most, result, on }
}

const fn on(name: &'static str, least: usize, most: usize, on: &'static str, result: &'static str) -> Signature {
    Signature { name, member: true, least, most, result, on }
}

pub const SIGNATURES: &[Signature] = &[
    of("size", 1, 1, "", "int"),
    on("size", 0, 0, "", "int"),
    of("type", 1, 1, "", "type"),
    of("dyn", 1, 1, "", ""),
    of("int", 1, 1, "", "int"),
    of("uint", 1, 1, "", "uint"),
    of("double", 1, 1, "", "double"),
    of("string", 1, 1, "", "string"),
    of("bytes", 1, 1, "", "bytes"),
    of("bool", 1, 1, "", "bool"),
    on("contains", 1, 1, "string", "bool"),
    on("startsWith", 1, 1, "string", "bool"),
    on("endsWith", 1, 1, "string", "bool"),
    on("matches", 1, 1, "string", "bool"),
    of("matches", 2, 2, "string", "bool"),
    on("charAt", 1, 1, "string", "string"),
    on("indexOf", 1, 2, "", "int"),
    on("lastIndexOf", 1, 2, "", "int"),
    on("lowerAscii", 0, 0, "string", "string"),
    on("upperAscii", 0, 0, "string", "string"),
    on("replace", 2, 3, "string", "string"),
    on("split", 1, 2, "string", "list"),
    on("substring", 1, 2, "string", "string"),
    on("trim", 0, 0, "string", "string"),
    on("join", 0, 1, "list", "string"),
    on("format", 1, 1, "string", "string"),
    on("find", 1, 1, "string", "string"),
    on("findAll", 1, 2, "string", "list"),
    on("isSorted", 0, 0, "list", "bool"),
    on("sum", 0, 0, "list", ""),
    on("min", 0, 0, "list", ""),
    on("max", 0, 0, "list", ""),
    on("sort", 0, 0, "list", "list"),
    on("distinct", 0, 0, "list", "list"),
    on("reverse", 0, 0, "list", "list"),
    on("flatten", 0, 1, "list", "list"),
    on("slice", 2, 2, "list", "list"),
    of("lists.range", 1, 1, "int", "list"),
    of("sets.contains", 2, 2, "list", "bool"),
    of("sets.equivalent", 2, 2, "list", "bool"),
    of("sets.intersects", 2, 2, "list", "bool"),
    of("optional.of", 1, 1, "", "optional_type"),
    of("optional.none", 0, 0, "", "optional_type"),
    of("optional.ofNonZeroValue", 1, 1, "", "optional_type"),
    on("hasValue", 0, 0, "optional_type", "bool"),
    on("value", 0, 0, "optional_type", ""),
    on("or", 1, 1, "optional_type", "optional_type"),
    on("orValue", 1, 1, "optional_type", ""),
    of("quantity", 1, 1, "string", "kubernetes.Quantity"),
    of("isQuantity", 1, 1, "string", "bool"),
    on("isInteger", 0, 0, "kubernetes.Quantity", "bool"),
    on("asInteger", 0, 0, "kubernetes.Quantity", "int"),
    on("asApproximateFloat", 0, 0, "kubernetes.Quantity", "double"),
    of("sign", 1, 1, "kubernetes.Quantity", "int"),
    on("compareTo", 1, 1, "kubernetes.Quantity", "int"),
    on("isLessThan", 1, 1, "kubernetes.Quantity", "bool"),
    on("isGreaterThan", 1, 1, "kubernetes.Quantity", "bool"),
    on("add", 1, 1, "kubernetes.Quantity", "kubernetes.Quantity"),
    on("sub", 1, 1, "kubernetes.Quantity", "kubernetes.Quantity"),
    of("url", 1, 1, "string", "kubernetes.URL"),
    of("isURL", 1, 1, "string", "bool"),
    on("getScheme", 0, 0, "kubernetes.URL", "string"),
    on("getHost", 0, 0, "kubernetes.URL", "string"),
    on("getHostname", 0, 0, "kubernetes.URL", "string"),
    on("getPort", 0, 0, "kubernetes.URL", "string"),
    on("getEscapedPath", 0, 0, "kubernetes.URL", "string"),
    on("getQuery", 0, 0, "kubernetes.URL", "map"),
    of("strings.quote", 1, 1, "string", "string"),
    of("duration", 1, 1, "", time::DURATION),
    of("timestamp", 1, 1, "", time::TIMESTAMP),
    on("getHours", 0, 0, time::DURATION, "int"),
    on("getMinutes", 0, 0, time::DURATION, "int"),
    on("getSeconds", 0, 0, time::DURATION, "int"),
    on("getMilliseconds", 0, 0, time::DURATION, "int"),
    on("getFullYear", 0, 1, time::TIMESTAMP, "int"),
    on("getMonth", 0, 1, time::TIMESTAMP, "int"),
    on("getDayOfYear", 0, 1, time::TIMESTAMP, "int"),
    on("getDayOfMonth", 0, 1, time::TIMESTAMP, "int"),
    on("getDate", 0, 1, time::TIMESTAMP, "int"),
    on("getDayOfWeek", 0, 1, time::TIMESTAMP, "int"),
    on("getHours", 0, 1, time::TIMESTAMP, "int"),
    on("getMinutes", 0, 1, time::TIMESTAMP, "int"),
    on("getSeconds", 0, 1, time::TIMESTAMP, "int"),
    on("getMilliseconds", 0, 1, time::TIMESTAMP, "int"),
    of("ip", 1, 1, "string", network::IP),
    of("isIP", 1, 1, "string", "bool"),
    of("ip.isCanonical", 1, 1, "string", "bool"),
    on("family", 0, 0, network::IP, "int"),
    on("isUnspecified", 0, 0, network::IP, "bool"),
    on("isLoopback", 0, 0, network::IP, "bool"),
    on("isLinkLocalMulticast", 0, 0, network::IP, "bool"),
    on("isLinkLocalUnicast", 0, 0, network::IP, "bool"),
    on("isGlobalUnicast", 0, 0, network::IP, "bool"),
    of("cidr", 1, 1, "string", network::CIDR),
    of("isCIDR", 1, 1, "string", "bool"),
    on("containsIP", 1, 1, network::CIDR, "bool"),
    on("containsCIDR", 1, 1, network::CIDR, "bool"),
    on("ip", 0, 0, network::CIDR, network::IP),
    on("masked", 0, 0, network::CIDR, network::CIDR),
    on("prefixLength", 0, 0, network::CIDR, "int"),
    of("semver", 1, 2, "string", semver::SEMVER),
    of("isSemver", 1, 2, "string", "bool"),
    on("major", 0, 0, semver::SEMVER, "int"),
    on("minor", 0, 0, semver::SEMVER, "int"),
    on("patch", 0, 0, semver::SEMVER, "int"),
    on("compareTo", 1, 1, semver::SEMVER, "int"),
    on("isLessThan", 1, 1, semver::SEMVER, "bool"),
    on("isGreaterThan", 1, 1, semver::SEMVER, "bool"),
    of("format.named", 1, 1, "string", "optional_type"),
    of("format.dns1123Label", 0, 0, "", format::FORMAT),
    of("format.dns1123Subdomain", 0, 0, "", format::FORMAT),
    of("format.dns1035Label", 0, 0, "", format::FORMAT),
    of("format.dns1123LabelPrefix", 0, 0, "", format::FORMAT),
    of("format.dns1123SubdomainPrefix", 0, 0, "", format::FORMAT),
    of("format.dns1035LabelPrefix", 0, 0, "", format::FORMAT),
    of("format.qualifiedName", 0, 0, "", format::FORMAT),
    of("format.labelValue", 0, 0, "", format::FORMAT),
    of("format.uuid", 0, 0, "", format::FORMAT),
    of("format.byte", 0, 0, "", format::FORMAT),
    of("format.date", 0, 0, "", format::FORMAT),
    of("format.datetime", 0, 0, "", format::FORMAT),
    of("format.uri", 0, 0, "", format::FORMAT),
    on("validate", 1, 1, format::FORMAT, "optional_type"),
];

/// Of cel-go's libraries, what an API server does not take in policies; refused by these names.
pub const UNSERVED: &[&str] =
    &["base64.encode", "base64.decode", "math.greatest", "math.least", "math.abs", "cel.bind"];

/// Names of types, which are values as well.
pub fn type_named(name: &str) -> Option<&'static str> {
    const TYPES: [&str; 10] = ["null_type", "bool", "int", "uint", "double", "string", "bytes", "list", "map", "type"];
    TYPES.into_iter().find(|known| *known == name)
}

pub fn call<'a>(
    function: &str,
    target: Option<Value<'a>>,
    mut arguments: Vec<Value<'a>>,
    budget: &Budget,
) -> Evaluated<'a> {
    let member = target.is_some();
    arguments.splice(0..0, target);
    budget.take(arguments.iter().map(cost).sum())?;
    let refused = || no_overload(function, &arguments.iter().collect::<Vec<_>>());
    let made = match (&*arguments, member) {
        (values, false) => global(function, values, budget)?,
        ([Value::Text(text), rest @ ..], true) => text::on_text(function, text, rest, budget)?,
        ([Value::List(list), rest @ ..], true) => {
            let items: Vec<Value<'a>> = list.iter().collect();
            lists::on_list(function, &items, rest, budget)?
        }
        ([Value::Optional(inner), rest @ ..], true) => on_optional(function, inner.as_ref(), rest)?,
        ([Value::Quantity(quantity), rest @ ..], true) => on_quantity(function, *quantity, rest)?,
        ([Value::Url(url), ..], true) => url.call(function),
        ([Value::Duration(duration)], true) => time::on_duration(function, *duration),
        ([Value::Timestamp(moment), zone @ ..], true) => time::on_timestamp(function, moment, zone)?,
        ([Value::Ip(ip)], true) => network::on_ip(function, *ip),
        ([Value::Cidr(cidr), rest @ ..], true) => network::on_cidr(function, cidr, rest)?,
        ([Value::Semver(version), rest @ ..], true) => semver::on_version(function, version, rest),
        ([Value::Format(format), Value::Text(text)], true) if function == "validate" => {
            Some(format.validate(text.as_str()))
        }
        ([value, ..], true) if function == "size" => size(value),
        _ => None,
    };
    made.ok_or_else(refused)
}

pub type Maybe<'a> = Result<Option<Value<'a>>, EvaluationError>;

pub fn other(message: impl Into<String>) -> EvaluationError {
    EvaluationError::Other(message.into())
}

pub fn cost(value: &Value<'_>) -> usize {
    match value {
        Value::Text(text) => text.as_str().len() / 16,
        Value::Bytes(bytes) => bytes.len() / 16,
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        _ => 0,
    }
}

fn size<'a>(value: &Value<'a>) -> Option<Value<'a>> {
    let size = match value {
        Value::Text(text) => text.as_str().chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        _ => return None,
    };
    Some(Value::Int(size as i64))
}

fn global<'a>(function: &str, arguments: &[Value<'a>], budget: &Budget) -> Maybe<'a> {
    Ok(match (function, arguments) {
        ("size", [value]) => size(value),
        ("dyn", [value]) => Some(value.clone()),
        ("type", [value]) => Some(Value::Type(value.type_name())),
        ("string", [value]) => match value {
            Value::Text(_) => Some(value.clone()),
            Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Bool(_) => Some(Value::text(plain(value))),
            Value::Duration(_) | Value::Timestamp(_) | Value::Ip(_) | Value::Cidr(_) => Some(Value::text(plain(value))),
            Value::Bytes(bytes) => {
                let text = std::str::from_utf8(bytes).map_err(|_| other("the bytes are no UTF-8"))?;
                Some(Value::text(text))
            }
            _ => None,
        },
        ("bytes", [Value::Text(text)]) => Some(Value::Bytes(text.as_str().as_bytes().into())),
        ("bytes", [value @ Value::Bytes(_)]) => Some(value.clone()),
        ("bool", [value @ Value::Bool(_)]) => Some(value.clone()),
        ("bool", [Value::Text(text)]) => match text.as_str() {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => Some(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "F" | "0" => Some(Value::Bool(false)),
            _ => return Err(other("the text is no boolean")),
        },
        ("int", [value]) => match value {
            Value::Int(_) => Some(value.clone()),
            Value::Uint(value) => Some(Value::Int(i64::try_from(*value).map_err(|_| EvaluationError::Overflow)?)),
            Value::Double(value) if value.is_finite() && value.abs() < 9.2e18 => Some(Value::Int(*value as i64)),
            Value::Double(_) => return Err(EvaluationError::Overflow),
            Value::Text(text) => Some(Value::Int(text.as_str().parse().map_err(|_| other("the text is no int"))?)),
            Value::Timestamp(moment) => Some(Value::Int(moment.seconds())),
            Value::Duration(nanoseconds) => Some(Value::Int(*nanoseconds)),
            _ => None,
        },
        ("uint", [value]) => match value {
            Value::Uint(_) => Some(value.clone()),
            Value::Int(value) => Some(Value::Uint(u64::try_from(*value).map_err(|_| EvaluationError::Overflow)?)),
            Value::Double(value) if (0.0..1.8e19).contains(value) => Some(Value::Uint(*value as u64)),
            Value::Double(_) => return Err(EvaluationError::Overflow),
            Value::Text(text) => {
                let digits = text.as_str().parse().ok().filter(|_| !text.as_str().starts_with('+'));
                Some(Value::Uint(digits.ok_or_else(|| other("the text is no uint"))?))
            }
            _ => None,
        },
        ("double", [value]) => match value {
            Value::Double(_) => Some(value.clone()),
            Value::Int(value) => Some(Value::Double(*value as f64)),
            Value::Uint(value) => Some(Value::Double(*value as f64)),
            Value::Text(text) => {
                Some(Value::Double(text.as_str().parse().map_err(|_| other("the text is no double"))?))
            }
            _ => None,
        },
        ("matches", [text @ Value::Text(_), Value::Text(pattern)]) => {
            Some(search(function, text, &Pattern::made(pattern.as_str(), budget)?, &[], budget)?)
        }
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [Value::List(a), Value::List(b)]) => {
            let (a, b): (Vec<_>, Vec<_>) = (a.iter().collect(), b.iter().collect());
            let within = |some: &[Value<'_>], all: &[Value<'_>]| {
                some.iter().all(|one| all.iter().any(|other| other.equals(one)))
            };
            Some(Value::Bool(match function {
                "sets.contains" => within(&b, &a),
                "sets.equivalent" => within(&a, &b) && within(&b, &a),
                _ => a.iter().any(|one| b.iter().any(|other| other.equals(one))),
            }))
        }
        ("lists.range", [Value::Int(count)]) => Some(lists::range(*count, budget)?),
        ("optional.none", []) => Some(Value::Optional(None)),
        ("optional.of", [value]) => Some(Value::some(value.clone())),
        ("optional.ofNonZeroValue", [value]) => {
            Some(if value.is_zero() { Value::Optional(None) } else { Value::some(value.clone()) })
        }
        ("quantity", [Value::Text(text)]) => {
            let parsed = Quantity::parse(text.as_str());
            Some(Value::Quantity(parsed.ok_or_else(|| other("the text is no quantity"))?))
        }
        ("sign", [Value::Quantity(quantity)]) => Some(Value::Int(quantity.sign())),
        ("isQuantity", [Value::Text(text)]) => Some(Value::Bool(Quantity::parse(text.as_str()).is_some())),
        ("url", [Value::Text(text)]) => {
            let parsed = Url::parse(text.as_str()).map_err(other)?;
            Some(Value::Url(Rc::new(parsed)))
        }
        ("isURL", [Value::Text(text)]) => Some(Value::Bool(Url::check(text.as_str()).is_ok())),
        ("strings.quote", [Value::Text(text)]) => {
            text::bounded(text.as_str().len() * 2, budget)?;
            Some(Value::text(text::quoted(text.as_str())))
        }
        ("duration" | "timestamp", [value]) => time::made(function, value)?,
        ("ip" | "isIP" | "ip.isCanonical" | "cidr" | "isCIDR", [Value::Text(text)]) => {
            network::made(function, text.as_str())?
        }
        ("semver" | "isSemver", [Value::Text(text), normal @ ..]) => semver::made(function, text.as_str(), normal)?,
        ("format.named", [Value::Text(name)]) => {
            Some(format::named(name.as_str()).map_or(Value::Optional(None), |found| Value::some(Value::Format(found))))
        }
        (function, []) => function.strip_prefix("format.").and_then(format::named).map(Value::Format),
        _ => None,
    })
}

/// A value as people read it.
pub fn plain(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => formatting::shortest(*value),
        Value::Text(text) => text.as_str().to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::List(list) => {
            let items: Vec<_> = list.iter().map(|item| plain(&item)).collect();
            std::format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let entries: Vec<_> =
                map.entries().iter().map(|(key, value)| std::format!("{}: {}", plain(key), plain(value))).collect();
            std::format!("{{{}}}", entries.join(", "))
        }
        Value::Duration(duration) => time::plain(*duration),
        Value::Timestamp(moment) => moment.to_string(),
        Value::Ip(ip) => ip.to_string(),
        Value::Cidr(cidr) => cidr.to_string(),
        Value::Semver(version) => version.to_string(),
        Value::Type(name) => (*name).to_owned(),
        other => other.type_name().to_owned(),
    }
}

pub fn extreme<'a>(items: &[Value<'a>], greatest: bool) -> Maybe<'a> {
    let Some((first, rest)) = items.split_first() else { return Err(other("the list is empty")) };
    let mut best = first.clone();
    for item in rest {
        let order = item.compare(&best).ok_or_else(|| no_overload("compare", &[item, &best]))?;
        if order == (if greatest { Ordering::Greater } else { Ordering::Less }) {
            best = item.clone();
        }
    }
    Ok(Some(best))
}

fn on_optional<'a>(function: &str, inner: Option<&Rc<Value<'a>>>, arguments: &[Value<'a>]) -> Maybe<'a> {
    Ok(match (function, arguments) {
        ("hasValue", []) => Some(Value::Bool(inner.is_some())),
        ("value", []) => {
            let value = inner.ok_or_else(|| other("the optional has no value"))?;
            Some((**value).clone())
        }
        ("or", [alternative @ Value::Optional(_)]) => {
            Some(inner.map_or_else(|| alternative.clone(), |inner| Value::Optional(Some(inner.clone()))))
        }
        ("orValue", [alternative]) => Some(inner.map_or_else(|| alternative.clone(), |inner| (**inner).clone())),
        _ => None,
    })
}

fn on_quantity<'a>(function: &str, quantity: Quantity, arguments: &[Value<'a>]) -> Maybe<'a> {
    let sum = |other: &Value<'_>| match other {
        Value::Quantity(value) => Some(*value),
        Value::Int(value) => Some(Quantity::of(*value)),
        _ => None,
    };
    let overflow = |value: Option<Quantity>| value.map(Value::Quantity).ok_or(EvaluationError::Overflow);
    Ok(match (function, arguments) {
        ("isInteger", []) => Some(Value::Bool(quantity.is_integer())),
        ("asInteger", []) => {
            Some(Value::Int(quantity.as_integer().ok_or_else(|| other("the quantity is no integer"))?))
        }
        ("asApproximateFloat", []) => Some(Value::Double(quantity.as_float())),
        ("compareTo", [Value::Quantity(other)]) => Some(Value::Int(quantity.cmp(other) as i64)),
        ("isLessThan", [Value::Quantity(other)]) => Some(Value::Bool(quantity < *other)),
        ("isGreaterThan", [Value::Quantity(other)]) => Some(Value::Bool(quantity > *other)),
        ("add", [value]) => sum(value).map(|value| overflow(quantity.add(value))).transpose()?,
        ("sub", [value]) => sum(value).map(|value| overflow(quantity.subtract(value))).transpose()?,
        _ => None,
    })
}
