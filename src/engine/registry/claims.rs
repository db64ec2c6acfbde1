//! Who has which object: one application at a time, and who lets go of one hands it to another that declares it, so that
//! nobody deletes it in between.

use std::collections::BTreeSet;

use crate::api::Key;
use crate::manifest::ObjectId;

use super::{Registry, State};

/// Whether an object may be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    Granted,
    /// Others of the same source have not rendered this revision yet: they may let go of it.
    Pending,
    Refused(Vec<(ObjectId, Key)>),
}

/// Whether deletions may go ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handover {
    /// All others of the source have rendered the revision: who declares what is known.
    Settled,
    /// These have not; `elsewhere`: another instance serves one of them, and its status takes its time.
    Pending { waiting: Vec<Key>, elsewhere: bool },
    /// These could not render it: what they declare is not known.
    Unknown(Vec<Key>),
}

impl Registry {
    /// What it owned when the daemon started: first come is who is recorded.
    pub fn adopt(&self, app: &Key, ids: impl IntoIterator<Item = ObjectId>) {
        self.change(|state| {
            let entry = state.applications.entry(app.clone()).or_default();
            for id in ids {
                state.claims.entry(id.clone()).or_insert_with(|| app.clone());
                entry.adopted.insert(id);
            }
            true
        });
    }

    /// The application may not have these objects: whoever else declares them takes over.
    pub fn let_go<'a>(&self, app: &Key, ids: impl Iterator<Item = &'a ObjectId>) {
        self.change(|state| {
            let own: Vec<ObjectId> = ids.filter(|id| state.claims.get(*id) == Some(app)).cloned().collect();
            state.hand_on(app, &own);
            !own.is_empty()
        });
    }

    /// Whether all of `declared` belong to the application, after [`Registry::rendered`].
    pub fn claim(&self, app: &Key, revision: &str, declared: &BTreeSet<ObjectId>) -> Claim {
        let mut granted_late = false;
        let result = {
            let mut state = self.state();
            let mut refused = Vec::new();
            for id in declared {
                match state.claims.get(id) {
                    Some(owner) if owner != app => refused.push((id.clone(), owner.clone())),
                    Some(_) => {}
                    None => {
                        granted_late = true;
                        state.claims.insert(id.clone(), app.clone());
                    }
                }
            }
            if refused.is_empty() {
                Claim::Granted
            } else if refused.iter().any(|(_, owner)| state.unsettled(app, owner, revision)) {
                Claim::Pending
            } else {
                Claim::Refused(refused)
            }
        };
        if granted_late {
            self.changed.send_modify(|n| *n += 1);
        }
        result
    }

    /// True if each instance elsewhere that has something of `declared` goes on declaring it at `revision`.
    pub fn is_kept_elsewhere(&self, app: &Key, revision: &str, declared: &BTreeSet<ObjectId>) -> bool {
        let state = self.state();
        let mut owners = declared.iter().filter_map(|id| state.claims.get(id)).filter(|owner| *owner != app);
        owners.all(|owner| {
            state.applications.get(owner).is_none_or(|other| !other.elsewhere || other.was_ready_at(revision))
        })
    }

    /// Whether it is known who declares what at `revision`.
    pub fn handover(&self, app: &Key, revision: &str) -> Handover {
        let state = self.state();
        let Some(source) = state.applications.get(app).and_then(|a| a.source.clone()) else { return Handover::Settled };
        let others = state
            .applications
            .iter()
            .filter(|(key, a)| *key != app && a.source.as_ref() == Some(&source) && !a.suspended);
        let (mut unknown, mut waiting, mut is_elsewhere) = (Vec::new(), Vec::new(), false);
        for (key, other) in others {
            match &other.rendered {
                Some(r) if other.is_at(&r.revision, revision) && r.ok => {}
                Some(r) if other.is_at(&r.revision, revision) => unknown.push(key.clone()),
                _ => {
                    waiting.push(key.clone());
                    is_elsewhere |= other.elsewhere;
                }
            }
        }
        if !waiting.is_empty() {
            return Handover::Pending { waiting, elsewhere: is_elsewhere };
        }
        if unknown.is_empty() { Handover::Settled } else { Handover::Unknown(unknown) }
    }

    /// Which other application declares an object.
    pub fn owner(&self, app: &Key, id: &ObjectId) -> Option<Key> {
        self.state().claims.get(id).filter(|owner| *owner != app).cloned()
    }
}

impl State {
    /// All that is free of what an application declares is its own from now on, and nothing else is.
    pub(super) fn claim_no_more_than(&mut self, app: &Key, declared: &BTreeSet<ObjectId>) -> bool {
        let mut changed = self.let_go(app, declared);
        for id in declared.iter() {
            changed |= !self.claims.contains_key(id);
            self.claims.entry(id.clone()).or_insert_with(|| app.clone());
        }
        changed
    }

    /// Ends an application's claims on what it no longer declares; another that declares it takes over at once, so that
    /// there is no moment in which nobody does.
    fn let_go(&mut self, app: &Key, declared: &BTreeSet<ObjectId>) -> bool {
        let Some(entry) = self.applications.get_mut(app) else { return false };
        let adopted = std::mem::take(&mut entry.adopted);
        let known = entry.declares.iter().chain(&adopted).filter(|id| !declared.contains(*id));
        let stale: Vec<_> = known.filter(|id| self.claims.get(*id) == Some(app)).cloned().collect();
        self.hand_on(app, &stale);
        !stale.is_empty()
    }

    fn hand_on(&mut self, app: &Key, ids: &[ObjectId]) {
        for id in ids {
            let heir = self.applications.iter().find(|(key, other)| *key != app && other.declares.contains(id));
            match heir.map(|(key, _)| key.clone()) {
                Some(heir) => self.claims.insert(id.clone(), heir),
                None => self.claims.remove(id),
            };
        }
    }

    /// `owner` follows the same source and has not looked at `revision` yet.
    fn unsettled(&self, app: &Key, owner: &Key, revision: &str) -> bool {
        let (Some(mine), Some(theirs)) = (self.applications.get(app), self.applications.get(owner)) else {
            return false;
        };
        let rendered = theirs.rendered.as_ref().is_some_and(|r| theirs.is_at(&r.revision, revision));
        // elsewhere it has let go of what it doesn't declare once it is Ready
        let settled = match theirs.elsewhere {
            true => theirs.was_ready_at(revision) || (rendered && theirs.failing),
            false => rendered,
        };
        mine.source == theirs.source && !theirs.suspended && !settled
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{elsewhere, ids, key, with};
    use super::*;

    #[test]
    fn an_object_goes_from_one_instance_to_another_without_being_deleted() {
        // `a` is served here and has `x`; `b`, elsewhere, declares it from r2 on
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.rendered(&key("a"), "r1", Some(&ids(&["x"])));
        registry.elsewhere(&key("b"), elsewhere("r1", true, &[]));
        registry.rendered(&key("a"), "r2", Some(&ids(&[])));
        let pending = Handover::Pending { waiting: vec![key("b")], elsewhere: true };
        assert_eq!(registry.handover(&key("a"), "r2"), pending, "what `b` declares at r2 is not recorded yet");
        registry.elsewhere(&key("b"), elsewhere("r2", false, &["x"]));
        assert_eq!(registry.handover(&key("a"), "r2"), Handover::Settled);
        assert_eq!(registry.owner(&key("a"), &ids(&["x"]).pop_first().unwrap()), Some(key("b")));

        // the same, seen by the instance that serves `b`
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.elsewhere(&key("a"), elsewhere("r1", true, &["x"]));
        registry.rendered(&key("b"), "r2", Some(&ids(&["x"])));
        assert_eq!(registry.claim(&key("b"), "r2", &ids(&["x"])), Claim::Pending);
        registry.elsewhere(&key("a"), elsewhere("r2", false, &["x"]));
        assert_eq!(registry.claim(&key("b"), "r2", &ids(&["x"])), Claim::Pending, "`a` is about to let go");
        assert!(!registry.is_kept_elsewhere(&key("b"), "r2", &ids(&["x"])));
        registry.elsewhere(&key("a"), elsewhere("r2", true, &[]));
        assert_eq!(registry.claim(&key("b"), "r2", &ids(&["x"])), Claim::Granted);
        // at r3 both declare it
        registry.elsewhere(&key("a"), elsewhere("r3", true, &["y"]));
        assert!(matches!(registry.claim(&key("b"), "r3", &ids(&["y"])), Claim::Refused(_)));
        assert!(registry.is_kept_elsewhere(&key("b"), "r3", &ids(&["y"])));
    }

    #[test]
    fn an_object_moves_between_applications_only_once_the_first_has_let_go_of_it() {
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.rendered(&key("a"), "r1", Some(&ids(&["x"])));
        registry.rendered(&key("b"), "r2", Some(&ids(&["x"])));
        assert_eq!(registry.claim(&key("b"), "r2", &ids(&["x"])), Claim::Pending);
        assert_eq!(registry.handover(&key("a"), "r2"), Handover::Settled);
        assert_eq!(registry.handover(&key("b"), "r2"), Handover::Pending { waiting: vec![key("a")], elsewhere: false });
        registry.rendered(&key("a"), "r2", Some(&ids(&[])));
        assert_eq!(registry.claim(&key("b"), "r2", &ids(&["x"])), Claim::Granted);
        assert_eq!(registry.owner(&key("a"), ids(&["x"]).first().unwrap()), Some(key("b")));
    }

    #[test]
    fn what_one_lets_go_of_belongs_at_once_to_another_that_declares_it() {
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.rendered(&key("a"), "r1", Some(&ids(&["x", "y"])));
        registry.rendered(&key("b"), "r2", Some(&ids(&["x"])));
        registry.rendered(&key("a"), "r2", Some(&ids(&[])));
        let owner = |name: &str| registry.owner(&key("a"), &ObjectId::new("", "ConfigMap", "n", name));
        assert_eq!(owner("x"), Some(key("b")), "nothing may delete it in between");
        assert_eq!(owner("y"), None);
    }

    #[test]
    fn the_second_application_that_declares_an_object_is_refused_by_the_name_of_the_first() {
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.rendered(&key("a"), "r1", Some(&ids(&["x"])));
        registry.rendered(&key("b"), "r1", Some(&ids(&["x", "y"])));
        let Claim::Refused(refused) = registry.claim(&key("b"), "r1", &ids(&["x", "y"])) else { panic!("not refused") };
        assert_eq!(refused, [(ids(&["x"]).pop_first().unwrap(), key("a"))]);
        registry.remove(&key("a"));
        assert_eq!(registry.claim(&key("b"), "r1", &ids(&["x", "y"])), Claim::Granted);
    }

    #[test]
    fn what_an_application_may_not_apply_is_free_for_another_that_declares_it() {
        let registry = with(&[("intruder", &[]), ("owner", &[]), ("late", &[])]);
        registry.rendered(&key("intruder"), "r1", Some(&ids(&["x", "y"])));
        registry.rendered(&key("owner"), "r1", Some(&ids(&["x"])));
        registry.rendered(&key("late"), "r1", Some(&ids(&[])));
        assert!(matches!(registry.claim(&key("owner"), "r1", &ids(&["x"])), Claim::Refused(_)));
        registry.let_go(&key("intruder"), ids(&["x", "y"]).iter());
        assert_eq!(registry.claim(&key("owner"), "r1", &ids(&["x"])), Claim::Granted);
        assert_eq!(registry.claim(&key("late"), "r1", &ids(&["y"])), Claim::Granted);
        assert!(matches!(registry.claim(&key("intruder"), "r1", &ids(&["x", "y"])), Claim::Refused(_)));
        registry.let_go(&key("intruder"), ids(&["x"]).iter());
        assert_eq!(registry.claim(&key("owner"), "r1", &ids(&["x"])), Claim::Granted, "what is another's stays so");
    }

    #[test]
    fn deletions_wait_for_applications_whose_render_failed() {
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.rendered(&key("b"), "r2", None);
        assert_eq!(registry.handover(&key("a"), "r2"), Handover::Unknown(vec![key("b")]));
    }

    #[test]
    fn what_was_owned_before_a_restart_stays_with_its_owner() {
        let registry = with(&[("a", &[]), ("b", &[])]);
        registry.adopt(&key("a"), ids(&["x"]));
        registry.rendered(&key("b"), "r1", Some(&ids(&["x"])));
        assert_eq!(registry.claim(&key("b"), "r1", &ids(&["x"])), Claim::Pending);
        registry.rendered(&key("a"), "r1", Some(&ids(&["x"])));
        assert!(matches!(registry.claim(&key("b"), "r1", &ids(&["x"])), Claim::Refused(_)));
    }
}
