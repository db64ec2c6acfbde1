//! Values read into types as kustomize reads them, which is as Go's JSON has it: without regard to the case of a field's
//! name, and with a null for what is not said.
//!
//! In: a value. Out: what it says, where `fieldpath` and `FieldPath` are `fieldPath`. Keys of labels, of data and of all
//! that is no field stay as they are. A field that is given in two spellings is an error.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

use crate::manifest::yaml::PathSegment;

/// What a value says.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Folded(value))
}

/// Whether a key is a field, whatever its case.
pub fn is(field: &str, key: &str) -> bool {
    field.eq_ignore_ascii_case(key)
}

/// A path to a field with the names that the value has.
pub fn as_written(value: &Value, path: &[PathSegment]) -> Vec<PathSegment> {
    let mut at = Some(value);
    let segments = path.iter().map(|segment| match (at, segment) {
        (Some(Value::Object(map)), PathSegment::Key(field)) => {
            let written = map.get_key_value(field).or_else(|| map.iter().find(|(key, _)| is(field, key)));
            at = written.map(|(_, value)| value);
            written.map_or_else(|| segment.clone(), |(key, _)| key.as_str().into())
        }
        (Some(Value::Array(items)), PathSegment::Index(index)) => {
            at = items.get(*index);
            segment.clone()
        }
        _ => {
            at = None;
            segment.clone()
        }
    });
    segments.collect()
}

struct Folded(Value);

impl<'de> Deserializer<'de> for Folded {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Folded))),
            Value::Object(map) => {
                visitor.visit_map(MapDeserializer::new(map.into_iter().map(|(key, value)| (key, Folded(value)))))
            }
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let map = match self.0 {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            other => return other.deserialize_struct(name, fields, visitor),
        };
        let mut named = Map::new();
        for (key, value) in map.into_iter().filter(|(_, value)| !value.is_null()) {
            let field = fields.iter().find(|field| is(field, &key)).map_or(key, |field| (*field).to_owned());
            if named.contains_key(&field) {
                return Err(Error::custom(format!("`{field}` is given in two spellings")));
            }
            named.insert(field, value);
        }
        Folded(Value::Object(named)).deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_str("") } else { self.deserialize_any(visitor) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for Folded {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields, default, rename_all = "camelCase")]
    struct Outer {
        field_path: String,
        inner: Vec<Outer>,
        maybe: Option<Box<Outer>>,
        labels: BTreeMap<String, String>,
    }

    #[test]
    fn fields_are_found_in_any_case_and_keys_stay() {
        let value = json!({"FIELDPATH": "a", "Inner": [{"fieldpath": "b"}], "maybe": {"fieldPath": "c"}, "labels": {"Inner": "x"}});
        let leaf = |text: &str| Outer { field_path: text.into(), ..Outer::default() };
        let wanted = Outer {
            inner: vec![leaf("b")],
            maybe: Some(Box::new(leaf("c"))),
            labels: [("Inner".to_owned(), "x".to_owned())].into(),
            ..leaf("a")
        };
        assert_eq!(read::<Outer>(value).unwrap(), wanted);
    }

    #[test]
    fn a_null_is_what_is_not_said() {
        let value = json!({"fieldPath": null, "inner": [null, {"labels": null}], "maybe": null});
        let wanted = Outer { inner: vec![Outer::default(), Outer::default()], ..Outer::default() };
        assert_eq!(read::<Outer>(value).unwrap(), wanted);
        assert_eq!(read::<Vec<String>>(json!([null, "a"])).unwrap(), ["", "a"]);
    }

    #[test]
    fn what_is_wrong_is_told_as_ever() {
        for (value, wanted) in [
            (json!({"fieldpat": "a"}), "unknown field `fieldpat`"),
            (json!({"inner": [{"fieldPath": 1}]}), "invalid type: integer `1`, expected a string"),
            (json!({"inner": ["a"]}), "invalid type: string \"a\", expected struct Outer"),
            (json!({"fieldpath": "a", "fieldPath": "b"}), "`fieldPath` is given in two spellings"),
            (json!({"maybe": {"INNER": {}}}), "invalid type: map, expected a sequence"),
        ] {
            let said = read::<Outer>(value.clone()).unwrap_err().to_string();
            assert!(said.starts_with(wanted), "{value}: {said}");
        }
    }

    #[test]
    fn a_path_is_found_as_it_is_written() {
        let value = json!({"Patches": [{"TARGET": {"Kind": "A"}}], "patcheS": []});
        let path = ["patches".into(), 0.into(), "target".into(), "kind".into(), "more".into()];
        let written: Vec<PathSegment> =
            ["Patches".into(), 0.into(), "TARGET".into(), "Kind".into(), "more".into()].into();
        assert_eq!(as_written(&value, &path), written);
    }
}
