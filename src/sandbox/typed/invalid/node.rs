//! A part of an object with its path, for rules that report what is wrong where.

use serde_json::Value;

static NULL: Value = Value::Null;

/// A value that may be absent; then it is null.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    pub value: &'a Value,
    /// `spec.containers[0].name`.
    pub path: String,
    name: String,
}

impl<'a> Node<'a> {
    pub fn root(value: &'a Value) -> Self {
        Self { value, path: String::new(), name: String::new() }
    }

    /// The field `name`.
    pub fn get(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { value: self.value.get(name).unwrap_or(&NULL), path, name: name.to_owned() }
    }

    /// The field at the end of a path of names.
    pub fn at(&self, path: &str) -> Self {
        path.split('.').fold(self.clone(), |node, name| node.get(name))
    }

    /// The entry `name` of a map, whose path is written in brackets.
    pub fn entry(&self, name: &str) -> Self {
        let path = format!("{}[{name}]", self.path);
        Self { value: self.value.get(name).unwrap_or(&NULL), path, name: name.to_owned() }
    }

    pub fn items(&self) -> Vec<Self> {
        let item =
            |(i, value): (usize, &'a Value)| Self { value, path: format!("{}[{i}]", self.path), name: i.to_string() };
        self.value.as_array().into_iter().flatten().enumerate().map(item).collect()
    }

    pub fn entries(&self) -> Vec<Self> {
        self.value.as_object().into_iter().flatten().map(|(name, _)| self.entry(name)).collect()
    }

    /// The last name of the path.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Absent, or an empty list or map.
    pub fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        }
    }

    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The same place with an empty text where there is nothing.
    pub fn or_empty(self) -> Self {
        static EMPTY: Value = Value::String(String::new());
        if self.is_set() { self } else { Self { value: &EMPTY, ..self } }
    }

    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    pub fn is_true(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }
}
