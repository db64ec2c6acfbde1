//! The functions: CEL's own, and Kubernetes' libraries of texts, lists, sets, regular expressions, quantities and URLs.
//!
//! One table says what there is ([`SIGNATURES`]); the checker reads it before anything is evaluated.

use std::cmp::Ordering;
use std::rc::Rc;

use regex::Regex;

use super::EvaluationError;
use super::evaluate::{Budget, Evaluated, no_overload};
use super::quantity::Quantity;
use super::value::{Text, Value};

/// Compiled expressions beyond this are refused: what they match is short.
const REGEX_BYTES_MAX: usize = 256 * 1024;
/// To compile one takes about as long as so many steps.
const REGEX_STEPS: usize = 2_000;
/// A text that a function makes.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;

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
    of("sets.contains", 2, 2, "list", "bool"),
    of("sets.equivalent", 2, 2, "list", "bool"),
    of("sets.intersects", 2, 2, "list", "bool"),
    of("math.greatest", 1, 16, "", ""),
    of("math.least", 1, 16, "", ""),
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
    on("sign", 0, 0, "kubernetes.Quantity", "int"),
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
];

/// Of Kubernetes' libraries, what is not served; refused by these names.
pub const UNSERVED: &[&str] = &[
    "ip",
    "isIP",
    "cidr",
    "isCIDR",
    "semver",
    "isSemver",
    "duration",
    "timestamp",
    "format.named",
    "base64.encode",
    "base64.decode",
    "sort",
    "flatten",
    "reverse",
    "quote",
    "validate",
];

/// Names of types, which are values as well.
pub fn type_named(name: &str) -> Option<&'static str> {
    const TYPES: [&str; 10] = ["null_type", "bool", "int", "uint", "double", "string", "bytes", "list", "map", "type"];
    TYPES.into_iter().find(|known| *known == name)
}

/// A regular expression. One that is written out is compiled with the program, one that is made each time.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Pattern {
    pub fn new(pattern: &str) -> Result<Pattern, String> {
        let built = regex::RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build();
        let told = |error: regex::Error| error.to_string().lines().last().unwrap_or_default().trim().to_owned();
        built.map(Pattern).map_err(told)
    }

    fn made(pattern: &str, budget: &Budget) -> Result<Pattern, EvaluationError> {
        budget.take(REGEX_STEPS)?;
        Self::new(pattern).map_err(|why| other(format!("the regular expression is wrong: {why}")))
    }
}

/// `matches`, `find` and `findAll`.
pub fn search<'a>(
    function: &str,
    text: &Value<'_>,
    Pattern(regex): &Pattern,
    rest: &[Value<'_>],
    budget: &Budget,
) -> Evaluated<'a> {
    budget.take(cost(text))?;
    let Value::Text(within) = text else { return Err(no_overload(function, &[text])) };
    let within = within.as_str();
    let limit = match rest {
        [] => usize::MAX,
        [Value::Int(limit)] if function == "findAll" => usize::try_from(*limit).unwrap_or(usize::MAX),
        _ => return Err(no_overload(function, &rest.iter().collect::<Vec<_>>())),
    };
    Ok(match function {
        "matches" => Value::Bool(regex.is_match(within)),
        "find" => Value::text(regex.find(within).map_or("", |found| found.as_str())),
        _ => Value::list(regex.find_iter(within).take(limit).map(|found| Value::text(found.as_str())).collect()),
    })
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
        ([Value::Text(text), rest @ ..], true) => on_text(function, text, rest, budget)?,
        ([Value::List(list), rest @ ..], true) => {
            let items: Vec<Value<'a>> = list.iter().collect();
            on_list(function, &items, rest)?
        }
        ([Value::Optional(inner), rest @ ..], true) => on_optional(function, inner.as_ref(), rest)?,
        ([Value::Quantity(quantity), rest @ ..], true) => on_quantity(function, *quantity, rest)?,
        ([Value::Url(url), ..], true) => on_url(function, url),
        ([value, ..], true) if function == "size" => size(value),
        _ => None,
    };
    made.ok_or_else(refused)
}

type Maybe<'a> = Result<Option<Value<'a>>, EvaluationError>;

fn other(message: impl Into<String>) -> EvaluationError {
    EvaluationError::Other(message.into())
}

fn cost(value: &Value<'_>) -> usize {
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
            "true" | "True" | "TRUE" | "t" | "1" => Some(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Some(Value::Bool(false)),
            _ => return Err(other("the text is no boolean")),
        },
        ("int", [value]) => match value {
            Value::Int(_) => Some(value.clone()),
            Value::Uint(value) => Some(Value::Int(i64::try_from(*value).map_err(|_| EvaluationError::Overflow)?)),
            Value::Double(value) if value.is_finite() && value.abs() < 9.2e18 => Some(Value::Int(*value as i64)),
            Value::Double(_) => return Err(EvaluationError::Overflow),
            Value::Text(text) => Some(Value::Int(text.as_str().parse().map_err(|_| other("the text is no int"))?)),
            _ => None,
        },
        ("uint", [value]) => match value {
            Value::Uint(_) => Some(value.clone()),
            Value::Int(value) => Some(Value::Uint(u64::try_from(*value).map_err(|_| EvaluationError::Overflow)?)),
            Value::Double(value) if (0.0..1.8e19).contains(value) => Some(Value::Uint(*value as u64)),
            Value::Double(_) => return Err(EvaluationError::Overflow),
            Value::Text(text) => Some(Value::Uint(text.as_str().parse().map_err(|_| other("the text is no uint"))?)),
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
        ("math.greatest" | "math.least", arguments) => {
            let items: Vec<Value<'a>> = match arguments {
                [Value::List(list)] => list.iter().collect(),
                all => all.to_vec(),
            };
            if items.iter().any(|item| !matches!(item, Value::Int(_) | Value::Uint(_) | Value::Double(_))) {
                return Ok(None);
            }
            extreme(&items, function == "math.greatest")?
        }
        ("optional.none", []) => Some(Value::Optional(None)),
        ("optional.of", [value]) => Some(Value::some(value.clone())),
        ("optional.ofNonZeroValue", [value]) => {
            Some(if value.is_zero() { Value::Optional(None) } else { Value::some(value.clone()) })
        }
        ("quantity", [Value::Text(text)]) => {
            let parsed = Quantity::parse(text.as_str());
            Some(Value::Quantity(parsed.ok_or_else(|| other("the text is no quantity"))?))
        }
        ("isQuantity", [Value::Text(text)]) => Some(Value::Bool(Quantity::parse(text.as_str()).is_some())),
        ("url", [Value::Text(text)]) => {
            let parsed = url::Url::parse(text.as_str()).map_err(|_| other("the text is no URL"))?;
            Some(Value::Url(Rc::new(parsed)))
        }
        ("isURL", [Value::Text(text)]) => Some(Value::Bool(url::Url::parse(text.as_str()).is_ok())),
        _ => None,
    })
}

/// Positions count characters, as CEL has it.
fn on_text<'a>(function: &str, text: &Text<'a>, arguments: &[Value<'a>], budget: &Budget) -> Maybe<'a> {
    let text = text.as_str();
    let outside = || other("index out of range");
    Ok(match (function, arguments) {
        ("size", []) => Some(Value::Int(text.chars().count() as i64)),
        ("contains", [Value::Text(part)]) => Some(Value::Bool(text.contains(part.as_str()))),
        ("startsWith", [Value::Text(part)]) => Some(Value::Bool(text.starts_with(part.as_str()))),
        ("endsWith", [Value::Text(part)]) => Some(Value::Bool(text.ends_with(part.as_str()))),
        ("matches" | "find" | "findAll", [Value::Text(pattern), rest @ ..]) => {
            let pattern = Pattern::made(pattern.as_str(), budget)?;
            Some(search(function, &Value::Text(Text::Borrowed(text)), &pattern, rest, budget)?)
        }
        ("charAt", [Value::Int(at)]) => {
            let (at, length) = (usize::try_from(*at).map_err(|_| outside())?, text.chars().count());
            if at > length {
                return Err(outside());
            }
            Some(Value::text(text.chars().nth(at).map(String::from).unwrap_or_default()))
        }
        ("indexOf" | "lastIndexOf", [Value::Text(part), rest @ ..]) => {
            let bound = match rest {
                [] => None,
                [Value::Int(at)] => Some(usize::try_from(*at).map_err(|_| outside())?),
                _ => return Ok(None),
            };
            Some(Value::Int(position(function, text, part.as_str(), bound).ok_or_else(outside)?))
        }
        ("lowerAscii", []) => Some(Value::text(text.to_ascii_lowercase())),
        ("upperAscii", []) => Some(Value::text(text.to_ascii_uppercase())),
        ("trim", []) => Some(Value::text(text.trim())),
        ("replace", [Value::Text(from), Value::Text(to), rest @ ..]) => {
            let limit = match rest {
                [] => usize::MAX,
                [Value::Int(limit)] => usize::try_from(*limit).unwrap_or(usize::MAX),
                _ => return Ok(None),
            };
            let times = text.matches(from.as_str()).take(limit).count();
            let length = text.len() + times.saturating_mul(to.as_str().len());
            bounded(length, budget)?;
            Some(Value::text(text.replacen(from.as_str(), to.as_str(), limit)))
        }
        ("split", [Value::Text(separator), rest @ ..]) => {
            let limit = match rest {
                [] => usize::MAX,
                [Value::Int(0)] => return Ok(Some(Value::list(Vec::new()))),
                [Value::Int(limit)] => usize::try_from(*limit).unwrap_or(usize::MAX),
                _ => return Ok(None),
            };
            let parts: Vec<Value<'a>> = if separator.as_str().is_empty() {
                text.chars().map(|c| Value::text(c.to_string())).collect()
            } else {
                text.splitn(limit, separator.as_str()).map(Value::text).collect()
            };
            budget.take(parts.len())?;
            Some(Value::list(parts))
        }
        ("substring", [Value::Int(start), rest @ ..]) => {
            let length = text.chars().count();
            let end = match rest {
                [] => length,
                [Value::Int(end)] => usize::try_from(*end).map_err(|_| outside())?,
                _ => return Ok(None),
            };
            let start = usize::try_from(*start).map_err(|_| outside())?;
            if start > end || end > length {
                return Err(outside());
            }
            Some(Value::text(text.chars().skip(start).take(end - start).collect::<String>()))
        }
        ("format", [Value::List(values)]) => {
            Some(Value::text(format(text, &values.iter().collect::<Vec<_>>(), budget)?))
        }
        _ => None,
    })
}

fn position(function: &str, text: &str, part: &str, bound: Option<usize>) -> Option<i64> {
    let offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let chars = |bytes: usize| offsets.binary_search(&bytes).ok();
    let found = match (function, bound) {
        ("indexOf", bound) => {
            let start = *offsets.get(bound.unwrap_or(0))?;
            text[start..].find(part).map(|at| start + at)
        }
        (_, None) => text.rfind(part),
        (_, Some(bound)) => {
            let last = *offsets.get(bound)?;
            let end = (last + part.len()).min(text.len());
            let end = (end..=text.len()).find(|end| text.is_char_boundary(*end))?;
            text[..end].rfind(part).filter(|at| *at <= last)
        }
    };
    Some(found.and_then(chars).map_or(-1, |at| at as i64))
}

fn bounded(bytes: usize, budget: &Budget) -> Result<(), EvaluationError> {
    if bytes > TEXT_BYTES_MAX {
        return Err(EvaluationError::TooCostly);
    }
    budget.take(bytes / 64)
}

/// `'%s has %d'.format([…])`, as cel-go has it.
fn format(pattern: &str, values: &[Value<'_>], budget: &Budget) -> Result<String, EvaluationError> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let precision = rest.strip_prefix('.').map(|digits| {
            let length = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            (digits[..length].parse::<usize>().unwrap_or(6).min(30), &digits[length..])
        });
        let precision = precision.map(|(precision, after)| {
            rest = after;
            precision
        });
        let Some(verb) = rest.chars().next() else { return Err(other("a format ends in `%`")) };
        rest = &rest[verb.len_utf8()..];
        let Some(value) = values.next() else { return Err(other("a format has more verbs than values")) };
        let text = match (verb, value) {
            ('s', value) => plain(value),
            ('d', Value::Int(_) | Value::Uint(_) | Value::Double(_)) => plain(value),
            ('f', value) => std::format!("{:.*}", precision.unwrap_or(6), number(value)?),
            ('e', value) => std::format!("{:.*e}", precision.unwrap_or(6), number(value)?),
            ('b', Value::Int(value)) => std::format!("{value:b}"),
            ('b', Value::Bool(value)) => u8::from(*value).to_string(),
            ('o', Value::Int(value)) => std::format!("{value:o}"),
            ('x', Value::Int(value)) => std::format!("{value:x}"),
            ('X', Value::Int(value)) => std::format!("{value:X}"),
            ('x', Value::Text(text)) => text.as_str().bytes().map(|byte| std::format!("{byte:02x}")).collect(),
            ('X', Value::Text(text)) => text.as_str().bytes().map(|byte| std::format!("{byte:02X}")).collect(),
            (verb, value) => return Err(other(std::format!("`%{verb}` is not for a {}", value.type_name()))),
        };
        out.push_str(&text);
        bounded(out.len(), budget)?;
    }
    out.push_str(rest);
    Ok(out)
}

fn number(value: &Value<'_>) -> Result<f64, EvaluationError> {
    match value {
        Value::Int(value) => Ok(*value as f64),
        Value::Uint(value) => Ok(*value as f64),
        Value::Double(value) => Ok(*value),
        other => Err(no_overload("format", &[other])),
    }
}

/// A value as people read it.
pub fn plain(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
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
        Value::Url(url) => url.to_string(),
        other => other.type_name().to_owned(),
    }
}

fn extreme<'a>(items: &[Value<'a>], greatest: bool) -> Maybe<'a> {
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

fn on_list<'a>(function: &str, items: &[Value<'a>], arguments: &[Value<'a>]) -> Maybe<'a> {
    Ok(match (function, arguments) {
        ("size", []) => Some(Value::Int(items.len() as i64)),
        ("isSorted", []) => {
            let ordered = items.windows(2).map(|pair| pair[0].compare(&pair[1]));
            let mut sorted = true;
            for (order, pair) in ordered.zip(items.windows(2)) {
                sorted &= order.ok_or_else(|| no_overload("isSorted", &[&pair[0], &pair[1]]))?.is_le();
            }
            Some(Value::Bool(sorted))
        }
        ("sum", []) => {
            let mut sum = match items.first() {
                Some(Value::Double(_)) => Value::Double(0.0),
                Some(Value::Uint(_)) => Value::Uint(0),
                _ => Value::Int(0),
            };
            for item in items {
                sum = match (&sum, item) {
                    (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(*b).ok_or(EvaluationError::Overflow)?),
                    (Value::Uint(a), Value::Uint(b)) => {
                        Value::Uint(a.checked_add(*b).ok_or(EvaluationError::Overflow)?)
                    }
                    (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
                    _ => return Ok(None),
                };
            }
            Some(sum)
        }
        ("min", []) => extreme(items, false)?,
        ("max", []) => extreme(items, true)?,
        ("indexOf", [value]) => Some(Value::Int(place(items.iter().position(|item| item.equals(value))))),
        ("lastIndexOf", [value]) => Some(Value::Int(place(items.iter().rposition(|item| item.equals(value))))),
        ("join", separator) => {
            let separator = match separator {
                [] => "",
                [Value::Text(text)] => text.as_str(),
                _ => return Ok(None),
            };
            let mut texts = Vec::with_capacity(items.len());
            for item in items {
                let Value::Text(text) = item else { return Ok(None) };
                texts.push(text.as_str());
            }
            Some(Value::text(texts.join(separator)))
        }
        _ => None,
    })
}

fn place(at: Option<usize>) -> i64 {
    at.map_or(-1, |at| at as i64)
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
        ("sign", []) => Some(Value::Int(quantity.sign())),
        ("compareTo", [Value::Quantity(other)]) => Some(Value::Int(quantity.cmp(other) as i64)),
        ("isLessThan", [Value::Quantity(other)]) => Some(Value::Bool(quantity < *other)),
        ("isGreaterThan", [Value::Quantity(other)]) => Some(Value::Bool(quantity > *other)),
        ("add", [value]) => sum(value).map(|value| overflow(quantity.add(value))).transpose()?,
        ("sub", [value]) => sum(value).map(|value| overflow(quantity.subtract(value))).transpose()?,
        _ => None,
    })
}

fn on_url<'a>(function: &str, url: &url::Url) -> Option<Value<'a>> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| port.to_string()).unwrap_or_default();
    Some(match function {
        "getScheme" => Value::text(url.scheme()),
        "getHostname" => Value::text(host.trim_matches(['[', ']'])),
        "getHost" if port.is_empty() => Value::text(host),
        "getHost" => Value::text(std::format!("{host}:{port}")),
        "getPort" => Value::text(port),
        "getEscapedPath" => Value::text(url.path()),
        "getQuery" => {
            let mut fields = std::collections::BTreeMap::<_, Vec<Value<'a>>>::new();
            for (key, value) in url.query_pairs() {
                fields.entry(super::value::Key::Text(key.into_owned())).or_default().push(Value::text(&*value));
            }
            let fields = fields.into_iter().map(|(key, values)| (key, Value::list(values))).collect();
            Value::Map(super::value::Mapping::Made(Rc::new(fields)))
        }
        _ => return None,
    })
}
