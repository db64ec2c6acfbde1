//! Objects that kubectl and other Go clients send as protocol buffers.
//!
//! In: the envelope that Kubernetes puts around them. Out: the same object as JSON, by the types of the built-in kinds
//! and the field numbers of `typed/protobuf.json` (from the server's own types; `tests/tools/gotypes` makes it).
//! Never writes protocol buffers: answers are JSON.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use base64::Engine as _;
use serde_json::{Map, Value};

use super::typed::{Empty, Field, Primitive, Shape, Type};

/// Before the envelope.
const MAGIC: &[u8] = b"k8s\0";
/// Deeper messages are not read. Definitions nest deepest, and theirs stay below 64.
const DEPTH_MAX: usize = 100;

/// Types that are sent and are no kind of a resource of their own.
const OTHERS: [(&str, &str); 4] = [
    ("DeleteOptions", "meta.v1.DeleteOptions"),
    ("Eviction", "policy.v1.Eviction"),
    ("Scale", "autoscaling.v1.Scale"),
    ("TokenRequest", "authentication.v1.TokenRequest"),
];

/// What a number in a message stands for.
enum Numbered {
    Field(String),
    /// A message whose fields JSON has beside the others; they have the numbers of this type.
    Inlined(String),
}

type Numbers = HashMap<String, HashMap<u64, Numbered>>;

/// By type.
fn numbers() -> &'static Numbers {
    static NUMBERS: OnceLock<Numbers> = OnceLock::new();
    NUMBERS.get_or_init(|| {
        let table: BTreeMap<String, BTreeMap<String, u64>> = serde_json::from_str(include_str!("typed/protobuf.json"))
            .expect("the embedded table of numbers is valid, a test reads it");
        let of_type = |fields: BTreeMap<String, u64>| {
            let numbered = |(name, number): (String, u64)| match name.strip_prefix('+') {
                Some(inlined) => (number, Numbered::Inlined(inlined.to_owned())),
                None => (number, Numbered::Field(name)),
            };
            fields.into_iter().map(numbered).collect()
        };
        table.into_iter().map(|(name, fields)| (name, of_type(fields))).collect()
    })
}

/// The object in an envelope; `None` if it is not understood.
pub fn read(body: &[u8]) -> Option<Value> {
    let (mut kind, mut api_version, mut raw) = (String::new(), String::new(), None);
    for part in Parts(body.strip_prefix(MAGIC)?) {
        match part? {
            (1, Part::Bytes(bytes)) => {
                for part in Parts(bytes) {
                    match part? {
                        (1, Part::Bytes(bytes)) => api_version = text(bytes)?,
                        (2, Part::Bytes(bytes)) => kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Part::Bytes(bytes)) => raw = Some(bytes),
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let other = OTHERS.iter().find(|(other, _)| *other == kind);
    let ty = match other {
        Some((_, name)) => Type::named(name),
        None => Type::of_kind(group, version, &kind),
    }?;
    let mut object = message(ty, ty.name(), raw?, 0)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Some(Value::Object(object))
}

enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message as they stand one after the other; ends after the first that is malformed.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Option<(u64, Part<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_none() {
            self.0 = &[];
        }
        Some(part)
    }
}

impl<'a> Parts<'a> {
    fn part(&mut self) -> Option<(u64, Part<'a>)> {
        let tag = self.number()?;
        let part = match tag & 7 {
            0 => Part::Number(self.number()?),
            1 => Part::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                Part::Bytes(self.take(length)?)
            }
            5 => Part::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((tag >> 3, part))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// A struct. `numbered` is the type that says which number is which field.
fn message(ty: Type<'static>, numbered: &str, bytes: &[u8], depth: usize) -> Option<Map<String, Value>> {
    let mut object = Map::new();
    // a struct without fields has no numbers
    let fields = numbers().get(numbered);
    if depth > DEPTH_MAX {
        return None;
    }
    for part in Parts(bytes) {
        let (number, part) = part?;
        match (fields.and_then(|fields| fields.get(&number)), part) {
            (None, _) => {}
            (Some(Numbered::Inlined(name)), Part::Bytes(bytes)) => {
                object.append(&mut message(ty, name, bytes, depth + 1)?);
            }
            (Some(Numbered::Inlined(_)), Part::Number(_)) => return None,
            (Some(Numbered::Field(name)), part) => {
                let (field, ty) = ty.field(name)?;
                insert(&mut object, name, field, ty, &part, depth + 1)?;
            }
        }
    }
    Some(object)
}

fn insert(
    object: &mut Map<String, Value>,
    name: &str,
    field: &Field,
    ty: Type<'static>,
    part: &Part<'_>,
    depth: usize,
) -> Option<()> {
    match (ty.shape(), part) {
        (Shape::List(_), _) => {
            let item = value(ty.item(), part, depth)?;
            let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            list.as_array_mut()?.push(item);
        }
        (Shape::Map(_), Part::Bytes(bytes)) if !is_struct(ty) => {
            let (key, value) = entry(ty.entry("")?, bytes, depth)?;
            let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
            map.as_object_mut()?.insert(key, value);
        }
        _ => {
            let value = value(ty, part, depth)?;
            // what can't be absent is always sent: its zero value says nothing
            let says_nothing = match &value {
                Value::Null => true,
                Value::String(text) => text.is_empty(),
                Value::Number(number) => number.as_f64() == Some(0.0),
                Value::Bool(set) => !set,
                _ => false,
            };
            if !says_nothing || matches!(field.empty, Empty::Optional) && !value.is_null() {
                object.insert(name.to_owned(), value);
            }
        }
    }
    Some(())
}

fn is_struct(ty: Type<'_>) -> bool {
    !ty.name().is_empty()
}

/// Key and value of a map's entry; what is left out is empty.
fn entry(ty: Type<'static>, bytes: &[u8], depth: usize) -> Option<(String, Value)> {
    let (mut key, mut found) = (String::new(), None);
    for part in Parts(bytes) {
        match part? {
            (1, Part::Bytes(bytes)) => key = text(bytes)?,
            (2, part) => found = Some(value(ty, &part, depth)?),
            _ => {}
        }
    }
    Some((key, found.unwrap_or_else(|| ty.zero_scalar())))
}

fn value(ty: Type<'static>, part: &Part<'_>, depth: usize) -> Option<Value> {
    Some(match (ty.shape(), part) {
        (Shape::Scalar(primitive), part) => scalar(*primitive, part)?,
        (Shape::Map(_), Part::Bytes(bytes)) if is_struct(ty) => message(ty, ty.name(), bytes, depth)?.into(),
        // a list in a map is wrapped into a message
        (Shape::List(_), Part::Bytes(bytes)) => {
            let items: Option<Vec<Value>> = Parts(bytes).map(|part| value(ty.item(), &part?.1, depth)).collect();
            items?.into()
        }
        // free-form values are JSON
        (Shape::Untyped, Part::Bytes(bytes)) => {
            let raw = Parts(bytes).find_map(|part| match part {
                Some((1, Part::Bytes(raw))) => Some(raw),
                _ => None,
            });
            serde_json::from_slice(raw?).ok()?
        }
        _ => return None,
    })
}

fn scalar(primitive: Primitive, part: &Part<'_>) -> Option<Value> {
    Some(match (primitive, part) {
        (Primitive::String, Part::Bytes(bytes)) => text(bytes)?.into(),
        (Primitive::Bytes, Part::Bytes(bytes)) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        (Primitive::Int32 | Primitive::Int64, Part::Number(number)) => number.cast_signed().into(),
        (Primitive::Boolean, Part::Number(number)) => (*number != 0).into(),
        (Primitive::Number, Part::Bytes(bytes)) => f64::from_le_bytes((*bytes).try_into().ok()?).into(),
        (Primitive::Quantity, Part::Bytes(bytes)) => {
            let (_, texts) = parts(bytes)?;
            texts[0].clone().into()
        }
        (Primitive::IntOrString, Part::Bytes(bytes)) => {
            let (numbers, texts) = parts(bytes)?;
            if numbers[0] == 0 { numbers[1].cast_signed().into() } else { texts[2].clone().into() }
        }
        (Primitive::Time | Primitive::MicroTime, Part::Bytes(bytes)) => {
            let (numbers, _) = parts(bytes)?;
            let (seconds, nanoseconds) = (numbers[0].cast_signed(), i32::try_from(numbers[1].cast_signed()).ok()?);
            if seconds == 0 && nanoseconds == 0 {
                return Some(Value::Null);
            }
            let time = jiff::Timestamp::new(seconds, nanoseconds).ok()?;
            if primitive == Primitive::Time { format!("{time:.0}") } else { format!("{time:.6}") }.into()
        }
        _ => return None,
    })
}

/// The numbers and texts of a small message's first three fields.
fn parts(bytes: &[u8]) -> Option<([u64; 3], [String; 3])> {
    let (mut numbers, mut texts) = ([0; 3], [const { String::new() }; 3]);
    for part in Parts(bytes) {
        let (number, part) = part?;
        let Some(at) = usize::try_from(number).ok().and_then(|n| n.checked_sub(1)).filter(|at| *at < 3) else {
            continue;
        };
        match part {
            Part::Number(number) => numbers[at] = number,
            Part::Bytes(bytes) => texts[at] = text(bytes)?,
        }
    }
    Some((numbers, texts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A field that holds bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).unwrap();
        [&[number << 3 | 2, length], bytes].concat()
    }

    fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
        let kind = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &kind), field(2, raw)].concat()
    }

    #[test]
    fn objects_that_kubectl_makes_are_read() {
        let metadata = field(1, &[field(1, b"a"), field(2, b"")].concat());
        assert_eq!(
            read(&envelope("Namespace", &metadata)),
            Some(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}))
        );
        let entry = field(2, &[field(1, b"k"), field(2, b"v")].concat());
        let secret = [metadata, entry, field(3, b"Opaque"), vec![5 << 3, 1]].concat();
        assert_eq!(
            read(&envelope("Secret", &secret)),
            Some(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "dg=="},
                "type": "Opaque", "immutable": true}))
        );
    }

    #[test]
    fn what_is_malformed_or_of_another_kind_is_not_read() {
        assert_eq!(read(b"nonsense"), None);
        assert_eq!(read(&envelope("Nonsense", &[])), None);
        let whole = envelope("Namespace", &field(1, &field(1, b"name")));
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "{length}");
        }
    }

    #[test]
    fn numbers_times_and_absent_values_are_told_apart() {
        // minReadySeconds: 0 says nothing, replicas: 0 does
        let spec = [vec![1 << 3, 0], vec![5 << 3, 0]].concat();
        let kind = [field(1, b"apps/v1"), field(2, b"Deployment")].concat();
        let body = [MAGIC.to_vec(), field(1, &kind), field(2, &field(2, &spec))].concat();
        assert_eq!(read(&body), Some(json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 0}})));
        let port =
            [field(1, b"a"), vec![3 << 3, 80], field(4, &[vec![1 << 3, 1], field(3, b"http")].concat())].concat();
        let service = [field(1, &field(8, &[vec![1 << 3, 60]].concat())), field(2, &field(1, &port))].concat();
        assert_eq!(
            read(&envelope("Service", &service)),
            Some(json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"creationTimestamp": "1970-01-01T00:01:00Z"},
                "spec": {"ports": [{"name": "a", "port": 80, "targetPort": "http"}]}}))
        );
    }

    #[test]
    fn every_type_with_numbers_is_known_by_its_fields() {
        for (kind, info) in super::super::builtin::resources().iter().map(|r| (&r.kind, r)) {
            let ty = Type::of_kind(&info.group, &info.version, kind).unwrap();
            assert!(numbers().contains_key(ty.name()), "{kind}");
        }
        for (_, name) in OTHERS {
            assert!(Type::named(name).is_some() && numbers().contains_key(name), "{name}");
        }
    }
}
