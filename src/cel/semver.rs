//! Versions, as Kubernetes' library `Semver` has them: strict, or made so from what people write.

use std::cmp::Ordering;
use std::rc::Rc;

use ::semver::Version;

use super::functions::{Maybe, other};
use super::value::Value;

pub const SEMVER: &str = "kubernetes.Semver";

/// `semver` and `isSemver`; `normal` may be asked for.
pub fn made<'a>(function: &str, text: &str, normal: &[Value<'a>]) -> Maybe<'a> {
    let parsed = match normal {
        [] | [Value::Bool(false)] => Version::parse(text).ok(),
        [Value::Bool(true)] => normalised(text),
        _ => return Ok(None),
    };
    Ok(Some(match function {
        "isSemver" => Value::Bool(parsed.is_some()),
        _ => Value::Semver(Rc::new(parsed.ok_or_else(|| other("the text is no semantic version"))?)),
    }))
}

/// `v1` is `1.0.0`, `01.02` is `1.2.0`; what follows a short version is no part of it.
fn normalised(text: &str) -> Option<Version> {
    let mut parts: Vec<String> =
        text.strip_prefix('v').unwrap_or(text).splitn(3, '.').map(without_leading_zeros).collect();
    if parts.len() < 3 {
        if parts.last().is_some_and(|part| part.contains(['+', '-'])) {
            return None;
        }
        parts.resize(3, "0".to_owned());
    }
    Version::parse(&parts.join(".")).ok()
}

fn without_leading_zeros(part: &str) -> String {
    if part.len() < 2 {
        return part.to_owned();
    }
    let rest = part.trim_start_matches('0');
    if rest.starts_with(|c: char| c.is_ascii_digit()) { rest.to_owned() } else { format!("0{rest}") }
}

/// Build metadata has no rank.
pub fn order(a: &Version, b: &Version) -> Ordering {
    a.cmp_precedence(b)
}

pub fn on_version<'a>(function: &str, version: &Version, arguments: &[Value<'a>]) -> Option<Value<'a>> {
    let number = |part: u64| i64::try_from(part).ok().map(Value::Int);
    match (function, arguments) {
        ("major", []) => number(version.major),
        ("minor", []) => number(version.minor),
        ("patch", []) => number(version.patch),
        ("compareTo", [Value::Semver(other)]) => Some(Value::Int(order(version, other) as i64)),
        ("isLessThan", [Value::Semver(other)]) => Some(Value::Bool(order(version, other).is_lt())),
        ("isGreaterThan", [Value::Semver(other)]) => Some(Value::Bool(order(version, other).is_gt())),
        _ => None,
    }
}
