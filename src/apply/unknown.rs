//! Fields that the server does not know: where they are in the object, and what is left without them.
//!
//! Comes in: a path as structured-merge-diff prints it, `.spec.containers[name="web"].image`. Nothing else is touched.

use serde_json::Value;

use crate::cluster::outside_quotes;

use crate::manifest::yaml::PathSegment;

/// The groups of Kubernetes itself. Other objects are custom resources, whose authors' schemas are taken at their word.
const BUILT_IN: [&str; 20] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

pub(super) fn is_built_in(group: &str) -> bool {
    BUILT_IN.contains(&group)
}

/// Takes the field at `path` out of the object; false if there is none.
pub(super) fn remove(value: &mut Value, path: &str) -> bool {
    let places = places(value, path);
    // from the last on, since an item that goes moves those behind it
    for place in places.iter().rev() {
        take(value, place);
    }
    !places.is_empty()
}

/// Where the field at `path` stands in the object; in several items of a list if its selector fits them.
pub fn places(value: &Value, path: &str) -> Vec<Vec<PathSegment>> {
    let mut found = Vec::new();
    descend(value, path, &mut Vec::new(), &mut found);
    found
}

fn descend(value: &Value, path: &str, above: &mut Vec<PathSegment>, found: &mut Vec<Vec<PathSegment>>) {
    if path.is_empty() {
        found.push(above.clone());
        return;
    }
    if let (Some(rest), Value::Object(map)) = (path.strip_prefix('.'), value) {
        // names may hold dots themselves: the longest name that fits is meant
        let fits = |name: &&String| {
            rest.strip_prefix(name.as_str()).is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
        };
        let mut names: Vec<&String> = map.keys().filter(fits).collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let before = found.len();
        for name in names {
            above.push(PathSegment::Key(name.clone()));
            descend(&map[name], &rest[name.len()..], above, found);
            above.pop();
            if found.len() > before {
                return;
            }
        }
    } else if let (Some((selector, after)), Value::Array(items)) = (bracketed(path), value) {
        for (at, item) in items.iter().enumerate().filter(|(at, item)| selector.selects(*at, item)) {
            above.push(PathSegment::Index(at));
            descend(item, after, above, found);
            above.pop();
        }
    }
}

fn take(value: &mut Value, place: &[PathSegment]) {
    let Some((last, parents)) = place.split_last() else { return };
    let parent = parents.iter().try_fold(value, |value, segment| match segment {
        PathSegment::Key(key) => value.get_mut(key),
        PathSegment::Index(index) => value.get_mut(index),
    });
    match (parent, last) {
        (Some(Value::Object(map)), PathSegment::Key(key)) => drop(map.remove(key)),
        (Some(Value::Array(items)), PathSegment::Index(index)) if *index < items.len() => drop(items.remove(*index)),
        _ => {}
    }
}

enum Selector {
    /// `[3]`
    Index(usize),
    /// `[="x"]`: an item of a set.
    Item(Value),
    /// `[name="web",port=80]`
    Keys(Vec<(String, Value)>),
}

impl Selector {
    fn selects(&self, at: usize, item: &Value) -> bool {
        match self {
            Self::Index(index) => *index == at,
            Self::Item(value) => item == value,
            // a key field that the item leaves out was defaulted by the server
            Self::Keys(keys) => keys.iter().all(|(field, value)| item.get(field).is_none_or(|own| own == value)),
        }
    }
}

/// What is inside the brackets at the start of `path`, and what follows them.
fn bracketed(path: &str) -> Option<(Selector, &str)> {
    let inside = path.strip_prefix('[')?;
    let mut parts = Vec::new();
    let mut start = 0;
    let mut end = None;
    for (at, c) in outside_quotes(inside) {
        match c {
            ',' => {
                parts.push(&inside[start..at]);
                start = at + 1;
            }
            ']' => {
                parts.push(&inside[start..at]);
                end = Some(at);
                break;
            }
            _ => {}
        }
    }
    let after = &inside[end? + 1..];
    if let [one] = parts.as_slice() {
        if let Ok(index) = one.parse() {
            return Some((Selector::Index(index), after));
        }
        if let Some(value) = one.strip_prefix('=') {
            return Some((Selector::Item(serde_json::from_str(value).ok()?), after));
        }
    }
    let keys = parts.into_iter().map(|part| {
        let (field, value) = part.split_once('=')?;
        Some((field.to_owned(), serde_json::from_str(value).ok()?))
    });
    Some((Selector::Keys(keys.collect::<Option<_>>()?), after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_field_that_the_server_names_is_taken_out_and_nothing_else() {
        let object = json!({
            "spec": {
                "foo": 1,
                "a.b": {"c": 1, "d": 2},
                "containers": [
                    {"name": "we b", "bar": 1, "ports": [{"containerPort": 80, "zork": 1}, {"containerPort": 81, "zork": 1}]},
                    {"name": "other", "bar": 2},
                ],
                "tolerations": [{"key": "a", "zig": 1}],
                "set": ["x", "y"],
            },
        });
        let cases = [
            (".spec.foo", Some("/spec/foo")),
            (".spec.a.b.c", Some("/spec/a.b/c")),
            (".spec.containers[name=\"we b\"].bar", Some("/spec/containers/0/bar")),
            (
                ".spec.containers[name=\"we b\"].ports[containerPort=80,protocol=\"TCP\"].zork",
                Some("/spec/containers/0/ports/0/zork"),
            ),
            (".spec.tolerations[0].zig", Some("/spec/tolerations/0/zig")),
            (".spec.missing", None),
            (".spec.foo.deeper", None),
            (".spec.containers[name=\"we", None),
            ("nonsense", None),
        ];
        for (path, pointer) in cases {
            let mut left = object.clone();
            assert_eq!(remove(&mut left, path), pointer.is_some(), "{path}");
            let mut expected = object.clone();
            if let Some((parent, name)) = pointer.and_then(|p| p.rsplit_once('/')) {
                expected.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
            }
            assert_eq!(left, expected, "{path}");
        }
        let mut left = object;
        assert!(remove(&mut left, ".spec.set[=\"x\"]"));
        assert_eq!(left["spec"]["set"], json!(["y"]));
    }
}
