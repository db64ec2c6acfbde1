//! The few objects that kubectl sends as protocol buffers: what `kubectl create namespace` and its like make.
//!
//! In: the envelope that Kubernetes puts around them. Out: the same object as JSON. Fields that nobody sets when an
//! object is created are left out; other kinds are not read.

use base64::Engine as _;
use serde_json::{Map, Value};

/// What a field holds.
enum Form {
    Text,
    Texts,
    Number,
    Flag,
    TextMap,
    BytesMap,
    Message(Fields),
}

/// Number, name and form of each field that is read.
type Fields = &'static [(u64, &'static str, Form)];

const METADATA: Fields = &[
    (1, "name", Form::Text),
    (2, "generateName", Form::Text),
    (3, "namespace", Form::Text),
    (11, "labels", Form::TextMap),
    (12, "annotations", Form::TextMap),
    (14, "finalizers", Form::Texts),
];
const ONLY_METADATA: Fields = &[(1, "metadata", Form::Message(METADATA))];
const CONFIG_MAP: Fields = &[
    (1, "metadata", Form::Message(METADATA)),
    (2, "data", Form::TextMap),
    (3, "binaryData", Form::BytesMap),
    (4, "immutable", Form::Flag),
];
const SECRET: Fields = &[
    (1, "metadata", Form::Message(METADATA)),
    (2, "data", Form::BytesMap),
    (3, "type", Form::Text),
    (4, "stringData", Form::TextMap),
    (5, "immutable", Form::Flag),
];
const ATTRIBUTES: Fields = &[
    (1, "namespace", Form::Text),
    (2, "verb", Form::Text),
    (3, "group", Form::Text),
    (4, "version", Form::Text),
    (5, "resource", Form::Text),
    (6, "subresource", Form::Text),
    (7, "name", Form::Text),
];
const REVIEW_SPEC: Fields = &[(1, "resourceAttributes", Form::Message(ATTRIBUTES))];
const REVIEW: Fields = &[(1, "metadata", Form::Message(METADATA)), (2, "spec", Form::Message(REVIEW_SPEC))];
const PRECONDITIONS: Fields = &[(1, "uid", Form::Text), (2, "resourceVersion", Form::Text)];
const DELETE_OPTIONS: Fields = &[
    (1, "gracePeriodSeconds", Form::Number),
    (2, "preconditions", Form::Message(PRECONDITIONS)),
    (3, "orphanDependents", Form::Flag),
    (4, "propagationPolicy", Form::Text),
    (5, "dryRun", Form::Texts),
];
const TYPE: Fields = &[(1, "apiVersion", Form::Text), (2, "kind", Form::Text)];

/// Before the envelope.
const MAGIC: &[u8] = b"k8s\0";

fn fields_of(kind: &str) -> Option<Fields> {
    Some(match kind {
        "Namespace" | "ServiceAccount" => ONLY_METADATA,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "SelfSubjectAccessReview" => REVIEW,
        "DeleteOptions" => DELETE_OPTIONS,
        _ => return None,
    })
}

/// The object in an envelope; `None` if it is not understood.
pub fn read(body: &[u8]) -> Option<Value> {
    let (mut kind, mut raw) = (Map::new(), None);
    for part in Parts(body.strip_prefix(MAGIC)?) {
        match part? {
            (1, Part::Bytes(bytes)) => kind = message(TYPE, bytes)?,
            (2, Part::Bytes(bytes)) => raw = Some(bytes),
            _ => {}
        }
    }
    let fields = fields_of(kind.get("kind")?.as_str()?)?;
    let mut object = message(fields, raw?)?;
    object.append(&mut kind);
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

fn message(fields: Fields, bytes: &[u8]) -> Option<Map<String, Value>> {
    let mut object = Map::new();
    for part in Parts(bytes) {
        let (number, part) = part?;
        let Some((_, name, form)) = fields.iter().find(|(n, ..)| *n == number) else { continue };
        match (form, part) {
            (Form::Flag, Part::Number(number)) => {
                object.insert((*name).into(), (number != 0).into());
            }
            (Form::Number, Part::Number(number)) => {
                object.insert((*name).into(), number.cast_signed().into());
            }
            (Form::Text, Part::Bytes(bytes)) if !bytes.is_empty() => {
                object.insert((*name).into(), text(bytes)?.into());
            }
            (Form::Texts, Part::Bytes(bytes)) => {
                let list = object.entry(*name).or_insert_with(|| Value::Array(Vec::new()));
                list.as_array_mut()?.push(text(bytes)?.into());
            }
            (Form::TextMap | Form::BytesMap, Part::Bytes(bytes)) => {
                let (key, value) = entry(bytes)?;
                let value = match form {
                    Form::TextMap => text(value)?,
                    _ => base64::engine::general_purpose::STANDARD.encode(value),
                };
                let map = object.entry(*name).or_insert_with(|| Value::Object(Map::new()));
                map.as_object_mut()?.insert(key, value.into());
            }
            (Form::Message(fields), Part::Bytes(bytes)) => {
                object.insert((*name).into(), message(fields, bytes)?.into());
            }
            _ => {}
        }
    }
    Some(object)
}

/// Key and value of a map's entry.
fn entry(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (mut key, mut value) = (String::new(), &[][..]);
    for part in Parts(bytes) {
        match part? {
            (1, Part::Bytes(bytes)) => key = text(bytes)?,
            (2, Part::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Some((key, value))
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
        assert_eq!(read(&envelope("Pod", &[])), None);
        let whole = envelope("Namespace", &field(1, &field(1, b"name")));
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "{length}");
        }
    }
}
