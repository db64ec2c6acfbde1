//! Replacements: a value of one object, or a constant, written into fields of others.

use super::budget::{Budget, weight};
use super::embedded;
use super::field_spec::split_path;
use super::file::{FieldOptions, Replacement, ReplacementSource, ReplacementTarget};
use super::node::{Node, Scalar, Tag};
use super::regular;
use super::resource::{Id, Resource};

const DEFAULT_PATH: &str = "metadata.name";

pub fn apply(all: &mut [Resource], replacement: &Replacement, budget: &Budget<'_>) -> Result<(), String> {
    let value = match (&replacement.source, &replacement.source_value) {
        (Some(_), Some(_)) => return Err("`source` and `sourceValue` exclude each other".into()),
        (None, None) => return Err("a replacement needs a `source` or a `sourceValue`".into()),
        (None, Some(text)) => Node::Scalar(Scalar::plain(text.clone(), Tag::Any)),
        (Some(source), None) => value_of(all, source)?,
    };
    if replacement.targets.is_empty() {
        return Err("a replacement needs at least one target".into());
    }
    replacement.targets.iter().try_for_each(|target| write(all, &value, target, budget))
}

fn value_of(all: &[Resource], source: &ReplacementSource) -> Result<Node, String> {
    let wanted = |id: &Id| {
        let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        let namespace = if source.namespace.is_empty() { "" } else { id.namespace() };
        fits(&source.group, &id.gvk.group)
            && fits(&source.version, &id.gvk.version)
            && fits(&source.kind, &id.gvk.kind)
            && fits(&source.name, &id.name)
            && fits(&source.namespace, namespace)
    };
    let mut found = all.iter().filter(|resource| resource.any_id(wanted));
    let named = || format!("`{}`", [&source.kind, &source.namespace, &source.name].map(String::as_str).join("/"));
    let first = found.next().ok_or_else(|| format!("the source {} selects nothing", named()))?;
    if found.next().is_some() {
        return Err(format!("the source {} selects more than one object", named()));
    }
    let path = if source.field_path.is_empty() { DEFAULT_PATH } else { &source.field_path };
    let value = look_up(&first.node, &parts(path)).filter(|node| !is_nothing(node));
    let value = value.ok_or_else(|| format!("`{}` has no field `{path}` to take", first.id()))?;
    Ok(refine(value, source.options.as_ref())?.alone())
}

fn is_nothing(node: &Node) -> bool {
    match node {
        Node::Scalar(scalar) => scalar.is_null(),
        Node::List(items) => items.is_empty(),
        Node::Map(entries) => entries.is_empty(),
    }
}

/// One part of a value, if a delimiter is given.
fn refine(value: &Node, options: Option<&FieldOptions>) -> Result<Node, String> {
    let Some(options) = options.filter(|options| !options.delimiter.is_empty()) else { return Ok(value.clone()) };
    let Node::Scalar(scalar) = value else { return Err("`delimiter` is for scalars only".into()) };
    let part = usize::try_from(options.index).ok().and_then(|i| scalar.text.split(options.delimiter.as_str()).nth(i));
    let part = part.ok_or_else(|| format!("`index` {} is beyond the parts of the value", options.index))?;
    Ok(Node::Scalar(Scalar { text: part.to_owned(), ..scalar.clone() }))
}

fn write(all: &mut [Resource], value: &Node, target: &ReplacementTarget, budget: &Budget<'_>) -> Result<(), String> {
    let weight = weight(value);
    let Some(select) = &target.select else { return Err("a target needs `select`".into()) };
    let selected = select.compile()?;
    let rejected =
        target.reject.iter().map(|reject| Ok((reject, reject.compile()?))).collect::<Result<Vec<_>, String>>()?;
    let fallback = [DEFAULT_PATH.to_owned()];
    let paths = if target.field_paths.is_empty() { &fallback[..] } else { &target.field_paths[..] };
    for resource in all {
        budget.go_on()?;
        let (labels, annotations) = (resource.text_map("labels"), resource.text_map("annotations"));
        let rejects = rejected.iter().any(|(reject, matcher)| {
            let by_text = !(reject.annotation_selector.is_empty() && reject.label_selector.is_empty())
                && matcher.labels(&labels)
                && matcher.annotations(&annotations);
            let by_id = !reject.names_nothing()
                && resource.any_id(|id| {
                    matcher.gvk(&id.gvk) && matcher.name(&id.name) && matcher.namespace(&id.written_namespace)
                });
            by_text || by_id
        });
        let is_meant = !rejects
            && selected.labels(&labels)
            && selected.annotations(&annotations)
            && resource.any_id(|id| {
                selected.gvk(&id.gvk) && selected.name(&id.name) && selected.namespace(&id.written_namespace)
            });
        if !is_meant {
            continue;
        }
        let id = resource.id();
        for path in paths {
            let mut writing =
                Writing { value, weight, options: target.options.as_ref(), budget, is_inside: false, count: 0 };
            writing.visit(&mut resource.node, &parts(path)).map_err(|error| format!("`{id}`, `{path}`: {error}"))?;
            if writing.count == 0 {
                return Err(format!("`{id}` has no field `{path}` to replace"));
            }
            resource.settle();
        }
    }
    Ok(())
}

fn put(node: &mut Node, value: &Node, options: Option<&FieldOptions>) -> Result<(), String> {
    let mut value = value.clone();
    if let Some(options) = options.filter(|options| !options.delimiter.is_empty()) {
        let (Node::Scalar(old), Node::Scalar(new)) = (&*node, &mut value) else {
            return Err("`delimiter` is for scalars only".into());
        };
        let mut parts: Vec<&str> = old.text.split(options.delimiter.as_str()).collect();
        let text = new.text.clone();
        match usize::try_from(options.index) {
            Err(_) => parts.insert(0, &text),
            Ok(index) if index >= parts.len() => parts.push(&text),
            Ok(index) => parts[index] = &text,
        }
        new.text = parts.join(&options.delimiter);
    }
    match (node, value) {
        // the type of the field stays: a number may be written into text
        (Node::Scalar(old), Node::Scalar(new)) => old.text = new.text,
        (Node::Scalar(old), other) => old.text = other.text().unwrap_or_default().to_owned(),
        (node, value) => *node = value,
    }
    Ok(())
}

/// Splits at dots; `[a.b]` is one name, `[name=a.b]` picks items of a list.
pub(super) fn parts(path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut open: Option<String> = None;
    for part in split_path(path, '.') {
        let joined = match open.take() {
            Some(before) => format!("{before}.{part}"),
            None => part,
        };
        if joined.starts_with('[') && !joined.ends_with(']') {
            open = Some(joined);
        } else if joined.starts_with('[') && !joined.contains('=') {
            parts.push(joined.trim_matches(['[', ']']).to_owned());
        } else {
            parts.push(joined);
        }
    }
    parts.extend(open);
    parts
}

/// `[name=value]`, or `[=value]` for items that are scalars.
fn item_selector(part: &str) -> Option<(&str, &str)> {
    part.strip_prefix('[')?.strip_suffix(']')?.split_once('=')
}

pub(super) fn look_up<'a>(node: &'a Node, path: &[String]) -> Option<&'a Node> {
    path.iter().try_fold(node, |node, part| match node {
        Node::Map(_) => node.get(part),
        Node::List(items) => match item_selector(part) {
            Some(("", wanted)) => items.iter().find(|item| item.text() == Some(wanted)),
            Some((key, wanted)) => items.iter().find(|item| item.get(key).and_then(Node::text) == Some(wanted)),
            None if part == "-" => items.last(),
            None => items.get(part.parse::<usize>().ok()?),
        },
        Node::Scalar(_) => None,
    })
}

/// A value on its way to all that a path leads to.
struct Writing<'a> {
    value: &'a Node,
    weight: usize,
    options: Option<&'a FieldOptions>,
    budget: &'a Budget<'a>,
    /// Within a text that holds structured data itself.
    is_inside: bool,
    /// Where it was written.
    count: usize,
}

impl Writing<'_> {
    /// The value whose shape a missing end is given.
    fn create(&self) -> Option<&Node> {
        self.options.is_some_and(|options| options.create).then_some(self.value)
    }

    fn write(&mut self, node: &mut Node) -> Result<(), String> {
        self.count += 1;
        self.budget.spend(self.weight)?;
        // kustomize knows no parts of a value within a text
        put(node, self.value, self.options.filter(|_| !self.is_inside))
    }

    fn visit(&mut self, node: &mut Node, path: &[String]) -> Result<(), String> {
        let Some((part, rest)) = path.split_first() else { return self.write(node) };
        match node {
            Node::Map(_) => {
                if node.get(part).is_none() {
                    let Some(value) = self.create() else { return Ok(()) };
                    node.set(part, empty_for(rest.first(), value));
                }
                match node.get_mut(part) {
                    Some(Node::Scalar(scalar)) if !rest.is_empty() && !scalar.is_null() && !self.is_inside => {
                        self.is_inside = true;
                        let budget = self.budget;
                        let written = embedded::rewrite(&scalar.text, budget, |node| self.visit(node, rest));
                        self.is_inside = false;
                        scalar.text = written?;
                        Ok(())
                    }
                    Some(field) => self.visit(field, rest),
                    None => Ok(()),
                }
            }
            Node::List(items) => self.items(items, part, rest),
            Node::Scalar(scalar) if scalar.is_null() => Ok(()),
            Node::Scalar(_) => Err(format!("a mapping or a list was expected before `{part}`")),
        }
    }

    fn items(&mut self, items: &mut Vec<Node>, part: &str, rest: &[String]) -> Result<(), String> {
        if part == "*" {
            return items.iter_mut().try_for_each(|item| self.visit(item, rest));
        }
        if let Ok(index) = part.parse::<usize>() {
            if index == items.len()
                && let Some(value) = self.create()
            {
                items.push(empty_for(rest.first(), value));
            }
            let count = items.len();
            let item = items.get_mut(index).ok_or_else(|| format!("there is no item {index}, but {count}"))?;
            return self.visit(item, rest);
        }
        let Some((key, wanted)) = item_selector(part) else {
            return Err(format!("`{part}` picks no item of a list: write its number, `*` or `[name=value]`"));
        };
        let pattern = regular::compile(wanted)?;
        let is_wanted = |item: &Node| {
            let text = if key.is_empty() { item.text() } else { item.get(key).and_then(Node::text) };
            text.is_some_and(|text| pattern.is_match(text))
        };
        if !items.iter().any(is_wanted) && self.create().is_some() {
            let value = Node::Scalar(Scalar::plain(wanted, Tag::Any));
            items.push(if key.is_empty() { value } else { Node::Map(vec![(key.to_owned(), value)]) });
        }
        let rest = if key.is_empty() { &[][..] } else { rest };
        items.iter_mut().filter(|item| is_wanted(item)).try_for_each(|item| self.visit(item, rest))
    }
}

/// What stands at the end of a path, or before its next part.
fn empty_for(next: Option<&String>, value: &Node) -> Node {
    match next {
        None => match value {
            Node::Scalar(_) => Node::Scalar(Scalar::plain("", Tag::Any)),
            Node::List(_) => Node::List(Vec::new()),
            Node::Map(_) => Node::Map(Vec::new()),
        },
        Some(part) if item_selector(part).is_some() || part.parse::<usize>().is_ok() || part == "-" => {
            Node::List(Vec::new())
        }
        Some(_) => Node::Map(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_keep_dots_together() {
        for (path, wanted) in [
            ("metadata.annotations.[a.b/c]", &["metadata", "annotations", "a.b/c"][..]),
            ("spec.containers.[name=a.b].image", &["spec", "containers", "[name=a.b]", "image"]),
            (r"metadata.annotations.a\.b", &["metadata", "annotations", "a.b"]),
            ("spec.args.0", &["spec", "args", "0"]),
        ] {
            assert_eq!(parts(path), wanted, "{path}");
        }
    }
}
