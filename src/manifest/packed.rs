//! A declared object at rest.

use serde_json::Value;

use super::identity::ObjectId;
use super::object::{Object, Origin};

/// An [`Object`] whose value is kept as JSON: as a tree of maps it takes ten times as much memory, which counts where a
/// thousand applications wait for a change.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    pub id: ObjectId,
    /// The version part of `apiVersion`.
    pub version: String,
    pub origin: Origin,
    json: Box<str>,
}

impl Packed {
    /// The value is made anew with each call.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.json).expect("it was written from a value")
    }

    pub fn unpacked(&self) -> Object {
        let Self { id, version, origin, .. } = self;
        Object { id: id.clone(), version: version.clone(), value: self.value(), origin: origin.clone() }
    }
}

impl From<Object> for Packed {
    fn from(object: Object) -> Self {
        let Object { id, version, value, origin } = object;
        Self { id, version, origin, json: value.to_string().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_comes_back_as_it_was() {
        let numbers = json!([0.1, 1e300, -0.0, 5e-324, 123456789.12345679, u64::MAX, i64::MIN, 1.0]);
        let value = json!({"kind": "X", "text": "ü\n\u{0}\"", "numbers": numbers, "none": null, "empty": {}});
        let object = Object {
            id: ObjectId::new("", "X", "n", "a"),
            version: "v1".into(),
            value,
            origin: Origin { path: "a.yaml".into(), line: 3 },
        };
        assert_eq!(Packed::from(object.clone()).unpacked(), object);
    }
}
