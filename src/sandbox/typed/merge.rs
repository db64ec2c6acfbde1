//! A live object with a configuration laid over it.
//!
//! In: two values of one type, both checked. Out: their merge as server-side apply does it: maps by entry, lists
//! by their kind, everything else replaced. Never removes anything: [`super::apply`] does.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::extract::{Form, form, item_step};
use super::fields::Step;
use super::schema::{ListKind, Type};

/// `config` over `live`.
pub fn merge(ty: Type<'_>, live: &Value, config: &Value) -> Value {
    match form(ty, config) {
        Form::Scalar => config.clone(),
        Form::Map => merge_maps(ty, live, config),
        Form::List => merge_lists(ty, live, config),
    }
}

fn merge_maps(ty: Type<'_>, live: &Value, config: &Value) -> Value {
    let empty = Map::new();
    let below = live.as_object().unwrap_or(&empty);
    let above = config.as_object().unwrap_or(&empty);
    if ty.atomic_map() || (below.is_empty() && above.is_empty()) {
        return config.clone();
    }
    let mut out = below.clone();
    for (name, value) in above {
        let merged = match (below.get(name), ty.entry(name)) {
            (Some(live), Some(ty)) => merge(ty, live, value),
            _ => value.clone(),
        };
        out.insert(name.clone(), merged);
    }
    Value::Object(out)
}

fn merge_lists(ty: Type<'_>, live: &Value, config: &Value) -> Value {
    let below = live.as_array().map_or(&[][..], Vec::as_slice);
    let above = config.as_array().map_or(&[][..], Vec::as_slice);
    if *ty.list_kind() == ListKind::Atomic || (below.is_empty() && above.is_empty()) {
        return config.clone();
    }
    let named = |items: &[Value]| -> Vec<(Step, Value)> {
        items.iter().filter_map(|item| item_step(ty, item).ok().map(|step| (step, item.clone()))).collect()
    };
    let (below, above) = (named(below), named(above));

    // A live item by name; `None` where the name occurs twice: such items are replaced, not merged.
    let mut live_items: BTreeMap<&Step, Option<&Value>> = BTreeMap::new();
    for (step, item) in &below {
        live_items.entry(step).and_modify(|twice| *twice = None).or_insert(Some(item));
    }
    let merged = |step: &Step, item: &Value| match live_items.get(step) {
        Some(Some(live)) => merge(ty.item(), live, item),
        _ => item.clone(),
    };

    // The configuration's items keep its order; live items that it doesn't have keep their place before the shared
    // item that follows them.
    let shared: Vec<&Step> = above.iter().map(|(step, _)| step).filter(|step| live_items.contains_key(step)).collect();
    let configured: BTreeSet<&Step> = above.iter().map(|(step, _)| step).collect();
    let mut out = Vec::new();
    let (mut at_live, mut at_config, mut next_shared) = (0, 0, 0);
    let mut taken: BTreeSet<&Step> = BTreeSet::new();
    while at_live < below.len() || at_config < above.len() {
        if let (Some((live, _)), Some((step, item))) = (below.get(at_live), above.get(at_config)) {
            if live == step {
                out.push(merged(step, item));
                taken.insert(step);
                at_live += 1;
                at_config += 1;
                next_shared += 1;
                continue;
            }
            if configured.contains(live) && shared.get(next_shared).is_some_and(|next| *next != live) {
                at_live += 1;
                continue;
            }
        }
        if let Some((live, item)) = below.get(at_live) {
            if !configured.contains(live) {
                out.push(item.clone());
                at_live += 1;
                continue;
            }
            if taken.contains(live) {
                at_live += 1;
            }
        }
        if let Some((step, item)) = above.get(at_config) {
            out.push(merged(step, item));
            taken.insert(step);
            at_config += 1;
            if shared.get(next_shared).is_some_and(|next| *next == step) {
                next_shared += 1;
            }
        }
    }
    Value::Array(out)
}
