//! JSON patches (RFC 6902) as kustomize's library applies them, which is more lenient than the RFC: `replace` adds a
//! field that isn't there, what stands before the first `/` of a path doesn't count, and a negative index counts from
//! the end.
//!
//! In: operations and a value. Out: the value changed, or which operation fails, and why.

use serde_json::{Map, Value};

use super::budget::{Budget, NODE_BYTES};

/// Operations as written; each is looked at when it is applied.
#[derive(Clone, Debug)]
pub struct Operations(Vec<Map<String, Value>>);

/// Names shown of what is there instead.
const SHOWN_MAX: usize = 5;

impl Operations {
    /// A list of mappings.
    pub fn read(value: Value) -> Result<Self, String> {
        let Value::Array(operations) = value else { return Err("a JSON patch is a list of operations".into()) };
        let mut read = Vec::with_capacity(operations.len());
        for (index, operation) in operations.into_iter().enumerate() {
            match operation {
                Value::Object(operation) => read.push(operation),
                _ => return Err(format!("operation {} is not a mapping with `op` and `path`", index + 1)),
            }
        }
        Ok(Self(read))
    }

    pub fn apply(&self, value: &mut Value, budget: &Budget<'_>) -> Result<(), String> {
        for (index, operation) in self.0.iter().enumerate() {
            apply(value, operation, budget).map_err(|error| {
                let path = operation.get("path").and_then(Value::as_str).unwrap_or_default();
                format!("operation {} at `{path}`: {error}", index + 1)
            })?;
        }
        Ok(())
    }
}

fn apply(document: &mut Value, operation: &Map<String, Value>, budget: &Budget<'_>) -> Result<(), String> {
    let text = |field: &str| operation.get(field).and_then(Value::as_str);
    let path = |field: &str| text(field).ok_or_else(|| format!("the operation has no `{field}`"));
    // a value that is missing is null
    budget.spend(operation.get("value").map_or(0, weight))?;
    let value = || operation.get("value").cloned().unwrap_or_default();
    match text("op").unwrap_or_default() {
        "add" => {
            let (parent, key) = parent(document, path("path")?)?;
            add(parent, &key, value())
        }
        "remove" => {
            let (parent, key) = parent(document, path("path")?)?;
            remove(parent, &key).map(drop)
        }
        "replace" if path("path")?.is_empty() => match value() {
            whole @ Value::Object(_) => {
                *document = whole;
                Ok(())
            }
            _ => Err("an object can only be replaced by a mapping".into()),
        },
        "replace" => {
            let (parent, key) = parent(document, path("path")?)?;
            match parent {
                Value::Array(items) => {
                    let index = index(&key, items.len(), false)?;
                    items[index] = value();
                }
                other => {
                    other[key.as_str()] = value();
                }
            }
            Ok(())
        }
        "move" => {
            let (from, key) = parent(document, path("from")?)?;
            let moved = remove(from, &key)?;
            let (parent, key) = parent(document, path("path")?)?;
            add(parent, &key, moved)
        }
        "copy" => {
            let (from, key) = parent(document, path("from")?)?;
            let copied = get(from, &key)?;
            budget.spend(copied.map_or(0, weight))?;
            let copied = copied.cloned().unwrap_or_default();
            let (parent, key) = parent(document, path("path")?)?;
            add(parent, &key, copied)
        }
        "test" => {
            let found = match path("path")? {
                "" => Some(&*document),
                path => {
                    let (parent, key) = parent(document, path)?;
                    get(parent, &key)?
                }
            };
            // null stands for what isn't there; the values may be secret
            if found.unwrap_or(&Value::Null) == &value() { Ok(()) } else { Err("the value is another".into()) }
        }
        "" => Err("the operation has no `op`".into()),
        other => Err(format!("`{other}` is none of add, remove, replace, move, copy and test")),
    }
}

/// What a copy of a value costs.
fn weight(value: &Value) -> usize {
    NODE_BYTES
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| key.len() + weight(value)).sum(),
            _ => 0,
        }
}

/// What holds the end of a path, and the end.
fn parent<'a>(document: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), String> {
    let mut parts = path.split('/').map(|part| part.replace("~1", "/").replace("~0", "~"));
    // what is before the first slash doesn't count
    parts.next();
    let Some(mut key) = parts.next() else { return Err("a path begins with `/`".into()) };
    let mut at = document;
    for next in parts {
        at = match get_mut(at, &key) {
            Some(value @ (Value::Object(_) | Value::Array(_))) => value,
            Some(Value::Null) | None => return Err(format!("there is no `{key}`")),
            Some(_) => return Err(format!("`{key}` is neither a mapping nor a list")),
        };
        key = next;
    }
    Ok((at, key))
}

fn get_mut<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(map) => map.get_mut(key),
        Value::Array(items) => {
            let index = index(key, items.len(), false).ok()?;
            items.get_mut(index)
        }
        _ => None,
    }
}

fn get<'a>(value: &'a Value, key: &str) -> Result<Option<&'a Value>, String> {
    match value {
        Value::Array(items) => Ok(items.get(index(key, items.len(), false)?)),
        other => Ok(other.get(key)),
    }
}

fn add(parent: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match parent {
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let index = index(key, items.len(), true)?;
            items.insert(index, value);
        }
        other => other[key] = value,
    }
    Ok(())
}

fn remove(parent: &mut Value, key: &str) -> Result<Value, String> {
    match parent {
        Value::Array(items) => {
            let index = index(key, items.len(), false)?;
            Ok(items.remove(index))
        }
        Value::Object(map) => map.remove(key).ok_or_else(|| {
            let names: Vec<String> = map.keys().take(SHOWN_MAX).map(|name| format!("`{name}`")).collect();
            match names.is_empty() {
                true => format!("there is no `{key}`"),
                false => format!("there is no `{key}`, but {}", names.join(", ")),
            }
        }),
        _ => Err(format!("there is no `{key}`")),
    }
}

/// An index into a list, or `to_add` one more than its last; a negative one counts from the end.
fn index(key: &str, length: usize, to_add: bool) -> Result<usize, String> {
    let number: i64 = key.parse().map_err(|_| format!("`{key}` is not an index of a list"))?;
    let end = length as i64 + i64::from(to_add);
    let index = if number < 0 { number + end } else { number };
    if (0..end).contains(&index) {
        Ok(index as usize)
    } else {
        Err(format!("there is no item {number}: the list has {length}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_apply_as_kustomize_applies_them() {
        let object = json!({"a": {"b": 1, "list": [1, 2, 3]}, "n": null});
        for (operation, wanted) in [
            (json!({"op": "replace", "path": "/a/new", "value": 2}), Ok(json!(2))),
            (json!({"op": "add", "path": "ignored/a/new", "value": 2}), Ok(json!(2))),
            (json!({"op": "copy", "from": "/a/list/-1", "path": "/a/new"}), Ok(json!(3))),
            (json!({"op": "add", "path": "/n/x", "value": 1}), Err("operation 1 at `/n/x`: there is no `n`")),
            (
                json!({"op": "add", "path": "/a/list/4", "value": 1}),
                Err("operation 1 at `/a/list/4`: there is no item 4: the list has 3"),
            ),
            (json!({"op": "remove", "path": "/a/c"}), Err("operation 1 at `/a/c`: there is no `c`, but `b`, `list`")),
            (
                json!({"op": "put", "path": "/a"}),
                Err("operation 1 at `/a`: `put` is none of add, remove, replace, move, copy and test"),
            ),
            (json!({"op": "add", "path": "a"}), Err("operation 1 at `a`: a path begins with `/`")),
            (json!({"op": "test", "path": "/a/b", "value": 2}), Err("operation 1 at `/a/b`: the value is another")),
        ] {
            let mut value = object.clone();
            let result = Operations::read(json!([operation]))
                .and_then(|patch| patch.apply(&mut value, &Budget::new(&|| false, 1 << 20)));
            let result = result.map(|()| value["a"]["new"].clone());
            assert_eq!(result.as_ref().map_err(String::as_str), wanted.as_ref().map_err(|error| *error), "{operation}");
        }
    }

    #[test]
    fn copies_of_copies_end_with_the_budget() {
        let copy = json!({"op": "copy", "from": "/a", "path": "/a/again"});
        let more = |index: usize| json!({"op": "copy", "from": "/a", "path": format!("/a/again{index}")});
        let operations = Operations::read(std::iter::once(copy).chain((0..60).map(more)).collect());
        let budget = Budget::new(&|| false, 1 << 20);
        let result = operations.and_then(|patch| patch.apply(&mut json!({"a": {"b": "c"}}), &budget));
        assert!(result.is_err());
        assert!(matches!(budget.stopped(), Some(crate::render::RenderError::TooMuchMade { .. })));
    }
}
