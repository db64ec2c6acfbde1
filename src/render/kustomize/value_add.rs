//! `ValueAddTransformer`: one value, written into fields of some objects or between the parts of paths there.

use super::budget::Budget;
use super::field_spec::split_path;
use super::node::{Node, Scalar, Tag};
use super::resource::{Resource, select};
use super::selector::Selector;
use super::transform::{self, Namespace};

const NAMESPACE: &str = "metadata/namespace";

pub struct ValueAdd {
    pub value: String,
    pub targets: Vec<Target>,
}

#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Target {
    pub selector: Option<Selector>,
    pub field_path: String,
    /// 0: the value is the field; from 1 on, where among the parts of the path that the field holds.
    pub file_path_position: i64,
}

impl ValueAdd {
    pub fn check(&self) -> Result<(), String> {
        if self.targets.is_empty() {
            return Err("it needs at least one of `targets`".into());
        }
        for target in &self.targets {
            if target.field_path.is_empty() {
                return Err("a target needs a `fieldPath`".into());
            }
            if target.file_path_position < 0 {
                return Err("`filePathPosition` can't be negative".into());
            }
        }
        Ok(())
    }

    pub fn apply(&self, all: &mut [Resource], budget: &Budget<'_>) -> Result<(), String> {
        for target in &self.targets {
            let chosen = match &target.selector {
                Some(selector) => select(all, selector, budget)?,
                None => (0..all.len()).collect(),
            };
            for index in chosen {
                let id = all[index].id();
                let outcome = if target.field_path == NAMESPACE {
                    transform::put_into_namespace(&mut all[index], &Namespace::of(&self.value, &[]))
                } else {
                    let path = split_path_of(&target.field_path);
                    put(&mut all[index].node, &path, &self.value, target.file_path_position)
                };
                outcome.map_err(|message| format!("`{id}`, `{}`: {message}", target.field_path))?;
            }
        }
        Ok(())
    }
}

/// Unlike elsewhere, a path that begins with `/` begins with an empty name, which is skipped.
fn split_path_of(path: &str) -> Vec<String> {
    split_path(path, '/').into_iter().filter(|part| !part.is_empty()).collect()
}

/// Makes what is missing on the way.
fn put(node: &mut Node, path: &[String], value: &str, position: i64) -> Result<(), String> {
    let Some((part, rest)) = path.split_first() else {
        let Node::Scalar(old) = node else { return Err("a scalar was expected".into()) };
        let text = if position > 0 { inserted(&old.text, position, value) } else { value.to_owned() };
        *old = Scalar { text, tag: Tag::Any, ..*old };
        return Ok(());
    };
    let item = part.strip_prefix('[').and_then(|part| part.strip_suffix(']'));
    match (node, item, part.parse::<usize>()) {
        (Node::List(items), Some(wanted), _) => {
            let (key, wanted) = wanted.split_once('=').ok_or_else(|| format!("`{part}` is not `[name=value]`"))?;
            let is_wanted = |item: &Node| match key {
                "" => item.text() == Some(wanted),
                key => item.get(key).and_then(Node::text) == Some(wanted),
            };
            if !items.iter().any(is_wanted) {
                let value = Node::Scalar(Scalar::plain(wanted, Tag::Any));
                items.push(if key.is_empty() { value } else { Node::Map(vec![(key.to_owned(), value)]) });
            }
            items.iter_mut().find(|item| is_wanted(item)).map_or(Ok(()), |item| put(item, rest, value, position))
        }
        (Node::List(items), None, Ok(index)) => match items.get_mut(index) {
            Some(item) => put(item, rest, value, position),
            None => Err(format!("there is no item {index}, but {}", items.len())),
        },
        (Node::List(items), None, Err(_)) if part == "-" => match items.last_mut() {
            Some(item) => put(item, rest, value, position),
            None => Err("the list is empty".into()),
        },
        (node @ Node::Map(_), None, Err(_)) => {
            if node.get(part).is_none_or(Node::is_null) {
                let is_list = rest.first().is_some_and(|next| next.starts_with('[') || next.parse::<usize>().is_ok());
                node.remove(part);
                node.set(
                    part,
                    match rest {
                        [] => Node::Scalar(Scalar::plain("", Tag::Any)),
                        _ if is_list => Node::List(Vec::new()),
                        _ => Node::Map(Vec::new()),
                    },
                );
            }
            node.get_mut(part).map_or(Ok(()), |field| put(field, rest, value, position))
        }
        (Node::List(_), ..) => Err(format!("`{part}` picks no item of a list: write its number or `[name=value]`")),
        (Node::Scalar(_), ..) => Err(format!("a mapping or a list was expected before `{part}`")),
        (Node::Map(_), ..) => Err(format!("`{part}` is for lists")),
    }
}

/// An absolute path stays one: its parts are counted from the first name.
fn inserted(path: &str, position: i64, value: &str) -> String {
    let (root, names) = path.strip_prefix('/').map_or(("", path), |names| ("/", names));
    let mut parts: Vec<&str> = names.split('/').filter(|part| !part.is_empty()).collect();
    let at = usize::try_from(position - 1).unwrap_or(0).min(parts.len());
    parts.insert(at, value);
    format!("{root}{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_goes_between_the_parts_of_a_path() {
        for (path, position, wanted) in [
            ("", 1, "v"),
            ("/", 1, "/v"),
            ("pie", 1, "v/pie"),
            ("/pie", 1, "/v/pie"),
            ("/raw", 2, "/raw/v"),
            ("a/b/c", 3, "a/b/v/c"),
            ("a/b", 999, "a/b/v"),
        ] {
            assert_eq!(inserted(path, position, "v"), wanted, "{path}");
        }
    }
}
