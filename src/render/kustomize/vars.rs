//! `vars`: a field of one object, written for `$(NAME)` in the fields of others.
//!
//! An object is bound to a variable where the variable is declared, by the name it has there; the value is read at the
//! end, when every name is the last one.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::field_spec::{Create, FieldSpec};
use super::node::{Node, Scalar, Tag};
use super::replace;
use super::resource::{Gvk, Id, Resource};

const DEFAULT_PATH: &str = "metadata.name";

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Var {
    pub name: String,
    pub objref: Target,
    pub fieldref: Field,
    /// The text that declares it, and where in its list.
    #[serde(skip)]
    pub declared: (usize, usize),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Target {
    pub api_version: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Field {
    pub field_path: String,
}

impl Target {
    fn gvk(&self) -> Gvk {
        match self.api_version.split('/').collect::<Vec<_>>()[..] {
            [""] => Gvk::new(&self.group, &self.version, &self.kind),
            [version] => Gvk::new(&self.group, version, &self.kind),
            [group, version] => Gvk::new(group, version, &self.kind),
            _ => Gvk::new(&self.group, &self.version, &self.kind),
        }
    }
}

impl Var {
    fn means(&self, id: &Id) -> bool {
        let target = Id::new(self.objref.gvk(), &self.objref.name, &self.objref.namespace);
        if target.written_namespace.is_empty() && !target.is_cluster_scoped() {
            return id.gvk == target.gvk && id.name == target.name;
        }
        id.same(&target)
    }

    /// Remembers which object it is about; what isn't there yet may come with a kustomization above.
    pub fn bind(&self, all: &mut [Resource]) -> Result<(), String> {
        let found: Vec<usize> = (0..all.len()).filter(|index| all[*index].any_id(|id| self.means(id))).collect();
        match found[..] {
            [] => Ok(()),
            [index] => {
                all[index].variables.push(self.name.clone());
                Ok(())
            }
            _ => {
                let ids: Vec<String> = found.iter().map(|index| format!("`{}`", all[*index].id())).collect();
                let shown = ids.join(", ");
                Err(format!("variable `{}` may mean any of {shown}: give `objref.namespace`", self.name))
            }
        }
    }

    fn value(&self, all: &[Resource]) -> Result<Option<Scalar>, String> {
        let Some(resource) = all.iter().find(|resource| resource.variables.contains(&self.name)) else {
            let target = &self.objref;
            return Err(format!("variable `{}`: there is no `{}/{}`", self.name, target.kind, target.name));
        };
        let path = if self.fieldref.field_path.is_empty() { DEFAULT_PATH } else { &self.fieldref.field_path };
        let missing = || format!("variable `{}`: `{}` has no field `{path}`", self.name, resource.id());
        match replace::look_up(&resource.node, &parts(path)).ok_or_else(missing)? {
            // kustomize writes no lists and no mappings: the reference stays
            Node::List(_) | Node::Map(_) => Ok(None),
            Node::Scalar(scalar) => typed(scalar).map(Some).ok_or_else(missing),
        }
    }
}

/// `ports[0]` is an item of `ports`.
fn parts(path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for part in replace::parts(path) {
        let index = part.strip_suffix(']').and_then(|part| part.rsplit_once('['));
        match index.filter(|(_, index)| !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit())) {
            Some((name, index)) => {
                if !name.is_empty() {
                    parts.push(name.to_owned());
                }
                parts.push(index.to_owned());
            }
            None => parts.push(part),
        }
    }
    parts
}

/// What a field says, with the type it was read with.
fn typed(scalar: &Scalar) -> Option<Scalar> {
    let text = scalar.text.as_str();
    match scalar.tag {
        Tag::Int if !scalar.quoted => Some(Scalar::plain(text.parse::<i64>().ok()?.to_string(), Tag::Int)),
        Tag::Float if !scalar.quoted => Some(Scalar::plain(text.parse::<f64>().ok()?.to_string(), Tag::Float)),
        Tag::Bool if !scalar.quoted => Some(Scalar::plain(text.to_ascii_lowercase(), Tag::Bool)),
        _ => Some(Scalar::string(text)),
    }
}

/// Adds a variable whose name is new.
pub fn declare(vars: &mut Vec<Var>, var: Var) -> Result<(), String> {
    if vars.iter().any(|known| known.name == var.name) {
        return Err(format!("variable `{}` is declared twice", var.name));
    }
    vars.push(var);
    Ok(())
}

/// Writes all variables; `specs` say where they may stand.
pub fn resolve(all: &mut [Resource], vars: &[Var], specs: &[FieldSpec]) -> Result<(), Problem> {
    let mut values = BTreeMap::new();
    for (index, var) in vars.iter().enumerate() {
        if let Some(value) = var.value(all).map_err(|message| Problem::Var(index, message))? {
            values.insert(var.name.as_str(), value);
        }
    }
    if vars.is_empty() {
        return Ok(());
    }
    for (index, resource) in all.iter_mut().enumerate() {
        for spec in specs {
            let mut write = |node: &mut Node| match node {
                Node::Scalar(scalar) => {
                    write(scalar, &values);
                    Ok(())
                }
                Node::Map(entries) => {
                    for (_, node) in entries {
                        if let Node::Scalar(scalar) = node {
                            write(scalar, &values);
                        }
                    }
                    Ok(())
                }
                Node::List(items) => items.iter_mut().try_for_each(|item| match item {
                    Node::Scalar(scalar) if is_text(scalar) => {
                        write(scalar, &values);
                        Ok(())
                    }
                    _ => Err("where variables may stand, every item must be text: quote it".to_owned()),
                }),
            };
            spec.visit(&mut resource.node, Create::Never, &mut write)
                .map_err(|message| Problem::Resource(index, message))?;
        }
    }
    Ok(())
}

/// Of a variable or of an object, by index.
pub enum Problem {
    Var(usize, String),
    Resource(usize, String),
}

fn is_text(scalar: &Scalar) -> bool {
    scalar.quoted || matches!(scalar.tag, Tag::Str | Tag::Any)
}

fn write(scalar: &mut Scalar, values: &BTreeMap<&str, Scalar>) {
    if is_text(scalar) {
        *scalar = substituted(&scalar.text, values);
    }
}

/// `$(NAME)` is a variable, `$$` a `$`; what is not known stays. A text that is one variable takes its type.
fn substituted(text: &str, values: &BTreeMap<&str, Scalar>) -> Scalar {
    let (mut result, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let name = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        rest = match name {
            Some((name, behind)) => {
                match values.get(name) {
                    Some(value) if text.len() == name.len() + 3 => return value.clone(),
                    Some(value) => result.push_str(&value.text),
                    None => result.push_str(&format!("$({name})")),
                }
                behind
            }
            None => {
                result.push('$');
                after.strip_prefix('$').unwrap_or(after)
            }
        };
    }
    result.push_str(rest);
    Scalar::string(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_and_escapes_undone() {
        let values = BTreeMap::from([("A", Scalar::string("a")), ("N", Scalar::plain("8", Tag::Int))]);
        for (text, wanted, tag) in [
            ("$(A)-$(A)", "a-a", Tag::Str),
            ("$(N)", "8", Tag::Int),
            ("x$(N)", "x8", Tag::Str),
            ("$(B)/$(A)", "$(B)/a", Tag::Str),
            ("$$(A) $x $", "$(A) $x $", Tag::Str),
            ("$(A", "$(A", Tag::Str),
        ] {
            let scalar = substituted(text, &values);
            assert_eq!((scalar.text.as_str(), scalar.tag), (wanted, tag), "{text}");
        }
    }

    #[test]
    fn an_index_may_stand_behind_a_name() {
        assert_eq!(parts("spec.ports[0].port"), ["spec", "ports", "0", "port"]);
        assert_eq!(parts("a.[b.c].d"), ["a", "b.c", "d"]);
    }
}
