//! References by name: where an object was renamed, those who name it learn its new name.

use std::collections::{HashMap, HashSet};

use super::budget::Budget;
use super::field_spec::{Create, FieldSpec, NameReference, Tables};
use super::node::{Node, Scalar, Tag, keep_style};
use super::resource::{Affixes, Gvk, Id, Resource};

/// What is known of each object while references are written.
struct Known {
    now: Id,
    previous: Vec<Id>,
    original: Gvk,
    affixes: Affixes,
    /// Namespaces of the accounts that a RoleBinding names.
    account_namespaces: HashSet<String>,
    role: Option<Gvk>,
}

pub fn fix(all: &mut [Resource], tables: &Tables, budget: &Budget<'_>) -> Result<(), (usize, String)> {
    let known = all.iter().enumerate().map(|(index, resource)| {
        budget.go_on().map_err(|message| (index, message))?;
        Ok(Known::of(resource))
    });
    let known = known.collect::<Result<Vec<Known>, _>>()?;
    let mut by_old_name: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, one) in known.iter().enumerate() {
        let names: HashSet<&str> = one.previous.iter().map(|id| id.name.as_str()).collect();
        for name in names {
            by_old_name.entry(name).or_default().push(index);
        }
    }
    if by_old_name.is_empty() {
        return Ok(());
    }
    for list in by_old_name.values_mut() {
        list.sort_unstable();
    }
    for (index, resource) in all.iter_mut().enumerate() {
        budget.go_on().map_err(|message| (index, message))?;
        for reference in &tables.name_reference {
            for spec in reference.field_specs.iter().filter(|spec| spec.selects(&known[index].original)) {
                let referrer = Referrer { index, known: &known, by_old_name: &by_old_name, spec, reference };
                let gvk = &known[index].now.gvk;
                let here = FieldSpec {
                    group: gvk.group.clone(),
                    version: gvk.version.clone(),
                    kind: gvk.kind.clone(),
                    path: spec.path.clone(),
                    create: spec.create,
                };
                here.visit(&mut resource.node, Create::Never, &mut |node| referrer.write(node))
                    .map_err(|error| (index, error))?;
            }
        }
    }
    Ok(())
}

impl Known {
    fn of(resource: &Resource) -> Self {
        let mut account_namespaces = HashSet::new();
        if resource.gvk().kind == "RoleBinding"
            && let Some(Node::List(subjects)) = resource.node.at(&["subjects"])
        {
            let accounts = subjects.iter().filter(|s| s.get("kind").and_then(Node::text) == Some("ServiceAccount"));
            account_namespaces.extend(accounts.filter_map(|s| s.get("namespace")?.text()).map(str::to_owned));
        }
        let role = match (resource.node.text_at(&["roleRef", "apiGroup"]), resource.node.text_at(&["roleRef", "kind"]))
        {
            (Some(group), Some(kind)) => Some(Gvk::new(group, "", kind)),
            _ => None,
        };
        Self {
            now: resource.id(),
            previous: resource.previous_ids().collect(),
            original: resource.original_id().gvk,
            affixes: resource.affixes.clone(),
            account_namespaces,
            role,
        }
    }

    fn was(&self, wanted: &Gvk) -> bool {
        self.previous.iter().any(|id| id.gvk.is(wanted))
    }
}

/// One field of one object that names objects of one kind.
struct Referrer<'a> {
    index: usize,
    known: &'a [Known],
    by_old_name: &'a HashMap<&'a str, Vec<usize>>,
    spec: &'a FieldSpec,
    reference: &'a NameReference,
}

impl Referrer<'_> {
    fn write(&self, node: &mut Node) -> Result<(), String> {
        match node {
            Node::Scalar(scalar) if scalar.is_null() => Ok(()),
            Node::Scalar(_) => self.scalar(node),
            Node::Map(_) => self.map(node),
            Node::List(items) => items.iter_mut().try_for_each(|item| match item {
                Node::Scalar(scalar) if scalar.is_null() => Ok(()),
                Node::Scalar(_) => self.scalar(item),
                Node::Map(_) => self.map(item),
                Node::List(_) => Err("a name or a mapping was expected".into()),
            }),
        }
    }

    fn scalar(&self, node: &mut Node) -> Result<(), String> {
        let old = node.text().unwrap_or_default().to_owned();
        let same = |a: &Id, b: &Id| a.name == b.name;
        let Some(target) = self.target(&old, |_| true, same)? else { return Ok(()) };
        let name = &self.known[target].now.name;
        if *name != old {
            let mut new = Node::Scalar(Scalar::plain(name.clone(), Tag::Any));
            keep_style(node, &mut new);
            *node = new;
        }
        Ok(())
    }

    /// A name with a namespace beside it.
    fn map(&self, node: &mut Node) -> Result<(), String> {
        let Some(old) = node.get("name").and_then(Node::text).map(str::to_owned) else {
            return Err("the mapping has no `name`".into());
        };
        let namespace = node.get("namespace").and_then(Node::text).map(str::to_owned);
        let anyone_was_there =
            namespace.as_ref().is_some_and(|wanted| self.reachable().any(|i| self.first(i).namespace() == wanted));
        let is_there = |index: usize| match &namespace {
            None => true,
            Some(wanted) if anyone_was_there => self.first(index).namespace() == wanted,
            Some(wanted) => self.known[index].now.namespace() == wanted,
        };
        let same = |a: &Id, b: &Id| a.name == b.name && a.written_namespace == b.written_namespace;
        let Some(target) = self.target(&old, is_there, same)? else { return Ok(()) };
        let now = &self.known[target].now;
        if now.name == old && now.written_namespace.is_empty() {
            return Ok(());
        }
        node.set("name", Node::Scalar(Scalar::plain(now.name.clone(), Tag::Any)));
        if !now.written_namespace.is_empty() {
            node.set("namespace", Node::Scalar(Scalar::plain(now.written_namespace.clone(), Tag::Any)));
        }
        Ok(())
    }

    fn first(&self, index: usize) -> &Id {
        let known = &self.known[index];
        known.previous.first().unwrap_or(&known.now)
    }

    /// Those that this object may refer to at all.
    fn reachable(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.known.len()).filter(|index| self.reaches(*index))
    }

    fn reaches(&self, index: usize) -> bool {
        let (me, target) = (&self.known[self.index], &self.known[index]);
        me.now.is_cluster_scoped()
            || target.now.is_cluster_scoped()
            || target.now.namespace() == me.now.namespace()
            || me.account_namespaces.contains(&target.now.written_namespace)
    }

    fn target(
        &self,
        old: &str,
        is_there: impl Fn(usize) -> bool,
        same: impl Fn(&Id, &Id) -> bool,
    ) -> Result<Option<usize>, String> {
        let Some(candidates) = self.by_old_name.get(old) else { return Ok(None) };
        let me = &self.known[self.index];
        let wanted = Gvk::new(&self.reference.group, &self.reference.version, &self.reference.kind);
        let role = me.role.as_ref().filter(|_| self.spec.path.ends_with("roleRef/name"));
        let mut found: Vec<usize> = candidates
            .iter()
            .copied()
            .filter(|index| self.reaches(*index) && is_there(*index))
            .filter(|index| self.known[*index].was(&wanted))
            .filter(|index| role.is_none_or(|role| self.known[*index].was(role)))
            .filter(|index| {
                let target = &self.known[*index].now;
                me.now.is_cluster_scoped()
                    || target.is_cluster_scoped()
                    || target.gvk.kind == "ServiceAccount"
                    || target.namespace() == me.now.namespace()
            })
            .collect();
        if found.len() > 1 {
            found.retain(|index| self.known[*index].affixes.same(&me.affixes, true));
        }
        if found.len() > 1 {
            found.retain(|index| self.known[*index].affixes.same(&me.affixes, false));
        }
        let Some(first) = found.first().copied() else { return Ok(None) };
        let all_same = found.iter().all(|index| same(&self.known[*index].now, &self.known[first].now));
        if all_same {
            return Ok(Some(first));
        }
        let ids: Vec<String> = found.iter().map(|index| format!("`{}`", self.known[*index].now)).collect();
        Err(format!("`{old}` may mean any of {}", ids.join(", ")))
    }
}
