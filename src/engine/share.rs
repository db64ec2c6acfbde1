//! Which of the objects that people write are ours to serve, where several instances share the work.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::api::{Key, LabelSelector};

/// Our part of the work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// Everything: nobody else is there.
    #[default]
    All,
    /// What these labels select; others serve the rest.
    Selected(LabelSelector),
    /// What falls into one of `of` shards by its name.
    Shard { index: u32, of: u32 },
}

impl Share {
    /// Whether an object is ours to write to.
    pub fn has(&self, key: &Key, labels: Option<&BTreeMap<String, String>>) -> bool {
        match self {
            Self::All => true,
            Self::Selected(selector) => selector.matches(labels),
            Self::Shard { index, of } => shard_of(key, *of) == *index,
        }
    }

    /// The shard, where work is shared by shards.
    pub fn shard(&self) -> Option<u32> {
        match self {
            Self::Shard { index, .. } => Some(*index),
            _ => None,
        }
    }

    /// Whether there may be objects that others serve.
    pub fn is_partial(&self) -> bool {
        *self != Self::All
    }
}

/// The same on every replica and in every version: objects must not change hands with an upgrade.
fn shard_of(key: &Key, of: u32) -> u32 {
    let digest: [u8; 32] = Sha256::digest(key.to_string()).into();
    let number = u64::from_be_bytes(std::array::from_fn(|at| digest[at]));
    u32::try_from(number % u64::from(of.max(1))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_about_equal_and_stay_what_they_are() {
        let mut counts = [0; 4];
        for number in 0..1000 {
            counts[shard_of(&Key::new("apps", format!("app-{number}")), 4) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (200..300).contains(count)), "{counts:?}");
        let known = ["a", "b", "c", "d"].map(|name| shard_of(&Key::new("flux-system", name), 4));
        assert_eq!(known, KNOWN);
    }

    /// As the first version had it.
    const KNOWN: [u32; 4] = [0, 1, 3, 2];
}
