//! JSON pointers (RFC 6901): places in an object, as people write them in `spec.ignore`.

use std::fmt;

use serde_json::{Map, Value};

/// A pointer to something inside an object, never to the whole of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pointer {
    text: String,
    tokens: Vec<Box<str>>,
}

/// Why a text is no pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    #[error("it is empty, which means the whole object")]
    Whole,
    #[error("it doesn't begin with `/`")]
    Relative,
    #[error("it has a `~` that is neither `~0` (for `~`) nor `~1` (for `/`)")]
    Escape,
    #[error("it ends with `/`, or has nothing between two of them")]
    Nameless,
}

impl Pointer {
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let rest = match text.strip_prefix('/') {
            Some(rest) => rest,
            None if text.is_empty() => return Err(PointerError::Whole),
            None => return Err(PointerError::Relative),
        };
        let tokens = rest.split('/').map(token).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { text: text.to_owned(), tokens })
    }

    /// Of names that are known to be fields.
    pub fn of_fields<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let tokens: Vec<Box<str>> = names.into_iter().map(Box::from).collect();
        let escaped = tokens.iter().map(|token| token.replace('~', "~0").replace('/', "~1"));
        Self { text: escaped.map(|token| format!("/{token}")).collect(), tokens }
    }

    pub fn tokens(&self) -> &[Box<str>] {
        &self.tokens
    }

    /// What is there.
    pub fn find<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        object.pointer(&self.text)
    }

    /// Puts a value there, if the map or list that it belongs to is there.
    pub fn put(&self, object: &mut Value, value: Value) {
        match self.place(object) {
            Some((Holder::Map(map), name)) => drop(map.insert(name.to_owned(), value)),
            Some((Holder::List(list), index)) => {
                if let Some(item) = index.parse().ok().and_then(|index: usize| list.get_mut(index)) {
                    *item = value;
                }
            }
            None => {}
        }
    }

    /// Takes away what is there.
    pub fn remove(&self, object: &mut Value) {
        match self.place(object) {
            Some((Holder::Map(map), name)) => drop(map.remove(name)),
            Some((Holder::List(list), index)) => {
                if let Some(index) = index.parse().ok().filter(|index: &usize| *index < list.len()) {
                    list.remove(index);
                }
            }
            None => {}
        }
    }

    fn place<'a>(&self, object: &'a mut Value) -> Option<(Holder<'a>, &str)> {
        let (last, above) = self.tokens.split_last()?;
        let mut at = object;
        for token in above {
            at = match at {
                Value::Object(map) => map.get_mut(&**token)?,
                Value::Array(list) => list.get_mut(token.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        let holder = match at {
            Value::Object(map) => Holder::Map(map),
            Value::Array(list) => Holder::List(list),
            _ => return None,
        };
        Some((holder, last))
    }
}

enum Holder<'a> {
    Map(&'a mut Map<String, Value>),
    List(&'a mut Vec<Value>),
}

fn token(text: &str) -> Result<Box<str>, PointerError> {
    if text.is_empty() {
        return Err(PointerError::Nameless);
    }
    let escapes = text.split('~').skip(1);
    if escapes.into_iter().any(|after| !after.starts_with(['0', '1'])) {
        return Err(PointerError::Escape);
    }
    // in this order: `~01` is `~1`
    Ok(text.replace("~1", "/").replace("~0", "~").into())
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_no_pointer_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", PointerError::Whole),
            ("spec/replicas", PointerError::Relative),
            ("/spec/~2", PointerError::Escape),
            ("/spec/a~", PointerError::Escape),
            ("/", PointerError::Nameless),
            ("/spec//replicas", PointerError::Nameless),
            ("/spec/", PointerError::Nameless),
        ] {
            assert_eq!(Pointer::parse(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn names_with_slashes_and_tildes_are_escaped() {
        let pointer = Pointer::parse("/metadata/annotations/a.io~1b~0c~01").unwrap();
        assert_eq!(pointer.tokens().last().map(|t| &**t), Some("a.io/b~c~1"));
        let object = json!({"metadata": {"annotations": {"a.io/b~c~1": "x"}}});
        assert_eq!(pointer.find(&object), Some(&json!("x")));
        assert_eq!(Pointer::of_fields(["metadata", "annotations", "a.io/b~c~1"]), pointer);
    }

    #[test]
    fn values_are_put_and_taken_where_there_is_a_place_for_them() {
        let object = json!({"spec": {"replicas": 1, "list": ["a", "b"]}});
        for (text, put, removed) in [
            (
                "/spec/replicas",
                json!({"spec": {"replicas": 9, "list": ["a", "b"]}}),
                json!({"spec": {"list": ["a", "b"]}}),
            ),
            (
                "/spec/list/0",
                json!({"spec": {"replicas": 1, "list": [9, "b"]}}),
                json!({"spec": {"replicas": 1, "list": ["b"]}}),
            ),
            ("/spec/list/7", object.clone(), object.clone()),
            ("/spec/list/x", object.clone(), object.clone()),
            ("/spec/none/at/all", object.clone(), object.clone()),
            ("/spec/new", json!({"spec": {"replicas": 1, "list": ["a", "b"], "new": 9}}), object.clone()),
        ] {
            let pointer = Pointer::parse(text).unwrap();
            let (mut with, mut without) = (object.clone(), object.clone());
            pointer.put(&mut with, json!(9));
            pointer.remove(&mut without);
            assert_eq!((with, without), (put, removed), "{text}");
        }
    }
}
