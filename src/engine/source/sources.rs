//! The faces of all sources of the process: for applications, and for those outside who announce something.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::Key;

use super::{Hint, SourceHandle};

/// Cheap to clone; made before the engine, since announcements come in whether it runs or not.
#[derive(Clone, Default)]
pub struct Sources(Arc<Mutex<HashMap<Key, SourceHandle>>>);

impl Sources {
    /// Tells the worker of a source that there is something new; what it is, if that is known. False if no worker
    /// serves that source here. Never waits.
    pub fn announce(&self, key: &Key, hint: Option<Hint>) -> bool {
        let Some(source) = self.faces().get(key).cloned() else { return false };
        if !source.is_served() {
            return false;
        }
        match hint {
            Some(hint) => source.hint(hint),
            None => source.ask(true),
        }
        true
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
