//! What differs between two objects, in fields.
//!
//! In: two values of one type. Out: the sets of added, removed and modified fields as server-side apply counts
//! them: besides leaves, each struct and map that appears or disappears is itself a member.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::extract::{Form, form, item_step};
use super::fields::{FieldSet, Step, same};
use super::schema::{ListKind, Type};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: FieldSet,
    pub removed: FieldSet,
    pub modified: FieldSet,
}

#[derive(Clone, Copy)]
enum Change {
    Added,
    Removed,
    Modified,
}

/// From `old` to `new`.
pub fn compare(ty: Type<'_>, old: &Value, new: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    comparison.below(ty, Some(old), Some(new));
    comparison
}

impl Comparison {
    /// Without the members of `fields` and all below them.
    #[must_use]
    pub fn without_subtrees(&self, fields: &FieldSet) -> Self {
        Self {
            added: self.added.without_subtrees(fields),
            removed: self.removed.without_subtrees(fields),
            modified: self.modified.without_subtrees(fields),
        }
    }

    fn set_of(&mut self, change: Change) -> &mut FieldSet {
        match change {
            Change::Added => &mut self.added,
            Change::Removed => &mut self.removed,
            Change::Modified => &mut self.modified,
        }
    }

    /// Records one part of the value under its name.
    fn part(&mut self, step: Step, ty: Type<'_>, old: Option<&Value>, new: Option<&Value>) {
        let mut below = Self::default();
        if let Some(change) = below.below(ty, old, new) {
            self.set_of(change).insert_member(step.clone());
        }
        self.added.insert_child(step.clone(), below.added);
        self.removed.insert_child(step.clone(), below.removed);
        self.modified.insert_child(step, below.modified);
    }

    /// Records the parts of a value; how the value itself changed.
    fn below(&mut self, ty: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> Option<Change> {
        let old_form = old.map(|value| form(ty, value));
        let new_form = new.map(|value| form(ty, value));
        let mut leaf = false;
        if let Some(form) = old_form.filter(|form| Some(*form) != new_form) {
            leaf |= self.as_form(form, ty, old, new);
        }
        if let Some(form) = new_form {
            leaf |= self.as_form(form, ty, old, new);
        }
        match (old, new) {
            (None, Some(_)) => Some(Change::Added),
            (Some(_), None) => Some(Change::Removed),
            (Some(old), Some(new)) if leaf && !same(old, new) => Some(Change::Modified),
            _ => None,
        }
    }

    /// Whether the value is a leaf in this form.
    fn as_form(&mut self, form: Form, ty: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> bool {
        match form {
            Form::Scalar => return true,
            Form::Map => {
                let empty = Map::new();
                let old = old.and_then(Value::as_object).unwrap_or(&empty);
                let new = new.and_then(Value::as_object).unwrap_or(&empty);
                if ty.atomic_map() || (old.is_empty() && new.is_empty()) {
                    return true;
                }
                for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
                    if let Some(entry) = ty.entry(name) {
                        self.part(Step::field(name), entry, old.get(name), new.get(name));
                    }
                }
            }
            Form::List => {
                let old = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                let new = new.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                if *ty.list_kind() == ListKind::Atomic || (old.is_empty() && new.is_empty()) {
                    return true;
                }
                self.items(ty, old, new);
            }
        }
        false
    }

    fn items(&mut self, ty: Type<'_>, old: &[Value], new: &[Value]) {
        let mut pairs: BTreeMap<Step, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for item in old {
            if let Ok(step) = item_step(ty, item) {
                pairs.entry(step).or_default().0.push(item);
            }
        }
        for item in new {
            if let Ok(step) = item_step(ty, item) {
                pairs.entry(step).or_default().1.push(item);
            }
        }
        for (step, (old, new)) in pairs {
            match (old.as_slice(), new.as_slice()) {
                ([] | [_], [] | [_]) => {
                    self.part(step, ty.item(), old.first().copied(), new.first().copied());
                }
                ([_, _, ..], [_, _, ..]) => {
                    if old.len() != new.len() || old.iter().zip(&new).any(|(old, new)| !same(old, new)) {
                        self.modified.insert_member(step);
                    }
                }
                ([_, _, ..], once) => {
                    if let [item] = once {
                        self.part(step.clone(), ty.item(), None, Some(item));
                    }
                    self.removed.insert_member(step);
                }
                (once, [_, _, ..]) => {
                    if let [item] = once {
                        self.part(step.clone(), ty.item(), Some(item), None);
                    }
                    self.added.insert_member(step);
                }
            }
        }
    }
}
