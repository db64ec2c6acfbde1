//! Causes for names, labels, ports and numbers that don't have the form they must have.

use serde_json::Value;

use super::node::Node;
use crate::sandbox::typed::cause::Cause;
use crate::sandbox::typed::names::{label_value, port_name, qualified};

pub(super) const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";
pub(super) const NON_NEGATIVE: &str = "must be greater than or equal to 0";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

/// One cause for each fault of a text.
pub fn invalid_text(node: &Node<'_>, faults: Vec<String>) -> impl Iterator<Item = Cause> {
    let (path, value) = (node.path.clone(), node.value.clone());
    faults.into_iter().map(move |fault| Cause::invalid(&path, &value, &fault))
}

/// Labels, node selectors and the like.
pub fn labels(node: &Node<'_>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for entry in node.entries() {
        let key = Value::from(entry.name());
        causes.extend(qualified(entry.name()).iter().map(|fault| Cause::invalid(&node.path, &key, fault)));
        causes.extend(label_value(entry.text()).iter().map(|fault| Cause::invalid(&node.path, entry.value, fault)));
    }
    causes
}

pub fn annotations(node: &Node<'_>) -> Vec<Cause> {
    let faulty = |key: &str| {
        let lower = key.to_lowercase();
        qualified(&lower)
            .into_iter()
            .map(|fault| Cause::invalid(&node.path, &Value::from(key), &fault))
            .collect::<Vec<_>>()
    };
    node.entries().iter().flat_map(|entry| faulty(entry.name())).collect()
}

/// A port by number or by name.
pub fn port(node: &Node<'_>) -> Vec<Cause> {
    match node.value {
        Value::String(name) => invalid_text(node, port_name(name)).collect(),
        _ => port_number(node).into_iter().collect(),
    }
}

pub fn port_number(node: &Node<'_>) -> Option<Cause> {
    let fits = node.int().is_some_and(|port| (1..=65535).contains(&port));
    (!fits).then(|| Cause::invalid(&node.path, node.value, PORT_RANGE))
}

/// A number that is absent or not negative.
pub fn non_negative(node: &Node<'_>) -> Option<Cause> {
    node.int().filter(|n| *n < 0).map(|_| Cause::invalid(&node.path, node.value, NON_NEGATIVE))
}

/// A number that is not negative, or a percentage.
pub fn number_or_percent(node: &Node<'_>) -> Option<Cause> {
    match node.value {
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            let fits = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
            (!fits).then(|| Cause::invalid(&node.path, node.value, PERCENT))
        }
        _ => non_negative(node),
    }
}
