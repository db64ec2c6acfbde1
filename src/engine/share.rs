//! Which of the objects that people write are ours to serve, where several instances share the work.

use std::collections::BTreeMap;

use crate::api::{Key, LabelSelector};

/// Our part of the work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// Everything: nobody else is there.
    #[default]
    All,
    /// What these labels select; others serve the rest.
    Selected(LabelSelector),
}

impl Share {
    /// Whether an object is ours to write to.
    pub fn has(&self, _key: &Key, labels: Option<&BTreeMap<String, String>>) -> bool {
        match self {
            Self::All => true,
            Self::Selected(selector) => selector.matches(labels),
        }
    }

    /// Whether there may be objects that others serve.
    pub fn is_partial(&self) -> bool {
        *self != Self::All
    }
}
