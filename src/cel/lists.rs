//! Functions on lists.

use super::EvaluationError;
use super::evaluate::{Budget, Evaluated, no_overload};
use super::functions::{Maybe, extreme, other};
use super::value::{List, Value};

pub fn on_list<'a>(function: &str, items: &[Value<'a>], arguments: &[Value<'a>], budget: &Budget) -> Maybe<'a> {
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
                Some(Value::Duration(_)) => Value::Duration(0),
                _ => Value::Int(0),
            };
            for item in items {
                sum = match (&sum, item) {
                    (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(*b).ok_or(EvaluationError::Overflow)?),
                    (Value::Uint(a), Value::Uint(b)) => {
                        Value::Uint(a.checked_add(*b).ok_or(EvaluationError::Overflow)?)
                    }
                    (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
                    (Value::Duration(a), Value::Duration(b)) => {
                        Value::Duration(a.checked_add(*b).ok_or(EvaluationError::Overflow)?)
                    }
                    _ => return Ok(None),
                };
            }
            Some(sum)
        }
        ("min", []) => extreme(items, false)?,
        ("max", []) => extreme(items, true)?,
        ("indexOf", [value]) => Some(Value::Int(place(items.iter().position(|item| item.equals(value))))),
        ("lastIndexOf", [value]) => Some(Value::Int(place(items.iter().rposition(|item| item.equals(value))))),
        ("sort", []) => Some(Value::list(sorted_by(function, items.to_vec(), items, budget)?)),
        ("distinct", []) => {
            let mut kept: Vec<Value<'a>> = Vec::new();
            for item in items {
                budget.take(kept.len())?;
                if !kept.iter().any(|known| known.equals(item)) {
                    kept.push(item.clone());
                }
            }
            Some(Value::list(kept))
        }
        ("reverse", []) => Some(Value::list(items.iter().rev().cloned().collect())),
        ("flatten", depth) => {
            let depth = match depth {
                [] => 1,
                [Value::Int(depth)] => usize::try_from(*depth).map_err(|_| other("a level can't be negative"))?,
                _ => return Ok(None),
            };
            let mut flat = Vec::new();
            flatten(items, depth, &mut flat, budget)?;
            Some(Value::list(flat))
        }
        ("slice", [Value::Int(start), Value::Int(end)]) => {
            let outside = || other("index out of range");
            let (start, end) = (usize::try_from(*start), usize::try_from(*end));
            let (start, end) = (start.map_err(|_| outside())?, end.map_err(|_| outside())?);
            Some(Value::list(items.get(start..end).ok_or_else(outside)?.to_vec()))
        }
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

/// Items in the order of their keys, which are of one type that has an order.
pub fn sorted_by<'a>(
    function: &str,
    items: Vec<Value<'a>>,
    keys: &[Value<'_>],
    budget: &Budget,
) -> Result<Vec<Value<'a>>, EvaluationError> {
    let Some(first) = keys.first() else { return Ok(items) };
    let alike = |key: &&Value<'_>| key.type_name() == first.type_name() && key.compare(key).is_some();
    if let Some(odd) = keys.iter().find(|key| !alike(key)) {
        return Err(no_overload(function, &[first, odd]));
    }
    // a comparison for each level of a merge
    budget.take(keys.len().saturating_mul(keys.len().ilog2() as usize + 1))?;
    let mut sorted: Vec<_> = items.into_iter().zip(keys).collect();
    sorted.sort_by(|(_, a), (_, b)| a.compare(b).unwrap_or(std::cmp::Ordering::Equal));
    Ok(sorted.into_iter().map(|(item, _)| item).collect())
}

/// Lists within lists, so many levels of them.
fn flatten<'a>(
    items: &[Value<'a>],
    depth: usize,
    into: &mut Vec<Value<'a>>,
    budget: &Budget,
) -> Result<(), EvaluationError> {
    budget.take(items.len())?;
    for item in items {
        match item {
            Value::List(list) if depth > 0 => flatten(&inner(list), depth - 1, into, budget)?,
            item => into.push(item.clone()),
        }
    }
    Ok(())
}

fn inner<'a>(list: &List<'a>) -> Vec<Value<'a>> {
    list.iter().collect()
}

/// `[0, 1, …]`, so many.
pub fn range<'a>(count: i64, budget: &Budget) -> Evaluated<'a> {
    let count = usize::try_from(count).unwrap_or(0);
    budget.take(count)?;
    Ok(Value::list((0..count).map(|n| Value::Int(n as i64)).collect()))
}
