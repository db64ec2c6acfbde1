//! The faces of all sources of the process: for applications, and for those outside who announce something.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::Key;

use super::{Hint, SourceHandle};

/// Cheap to clone; made before the engine, since announcements come in whether it runs or not.
#[derive(Clone, Default)]
pub struct Sources {
    faces: Arc<Mutex<HashMap<Key, SourceHandle>>>,
    /// Those of other engines of the process.
    branches: Arc<Mutex<Vec<Sources>>>,
}

/// Faces of an engine of its own; they end with it.
pub struct Branch {
    pub sources: Sources,
    trunk: Sources,
}

impl Drop for Branch {
    fn drop(&mut self) {
        self.trunk.branches().retain(|branch| !Arc::ptr_eq(&branch.faces, &self.sources.faces));
    }
}

impl Sources {
    /// Tells the worker of a source that there is something new; what it is, if that is known. False if no worker
    /// serves that source here. Never waits.
    pub fn announce(&self, key: &Key, hint: Option<Hint>) -> bool {
        let branches = self.branches().clone();
        let elsewhere = branches.iter().filter(|branch| branch.announce(key, hint)).count() > 0;
        let Some(source) = self.faces().get(key).cloned() else { return elsewhere };
        if !source.is_served() {
            return elsewhere;
        }
        match hint {
            Some(hint) => source.hint(hint),
            None => source.ask(true),
        }
        true
    }

    /// Faces for another engine of this process, which hears what is announced here, too.
    pub fn branch(&self) -> Branch {
        let sources = Self::default();
        self.branches().push(sources.clone());
        Branch { sources, trunk: self.clone() }
    }

    /// The face of a source, made where it was not asked for before.
    pub(in crate::engine) fn face(&self, key: &Key) -> SourceHandle {
        self.faces().entry(key.clone()).or_insert_with(|| SourceHandle::new(key.clone())).clone()
    }

    pub(in crate::engine) fn all(&self) -> Vec<SourceHandle> {
        self.faces().values().cloned().collect()
    }

    /// Forgets all: who serves next learns everything anew.
    pub(in crate::engine) fn clear(&self) {
        self.faces().clear();
    }

    fn faces(&self) -> MutexGuard<'_, HashMap<Key, SourceHandle>> {
        self.faces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn branches(&self) -> MutexGuard<'_, Vec<Sources>> {
        self.branches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
