//! What Leases are called: one name for each part of the work that can be held by itself.

use sha2::{Digest, Sha256};

use crate::api::LabelSelector;
use crate::config::SourceRole;

/// Our own Lease.
const OWN: &str = "afresh";
/// The controllers of Flux that write what we write hold these.
const KUSTOMIZE_CONTROLLER: &str = "kustomize-controller-leader-election";
const SOURCE_CONTROLLER: &str = "source-controller-leader-election";

/// Our own Lease for what a selector selects; `None`: for everything.
pub fn own_lease(selector: Option<&LabelSelector>) -> String {
    of(OWN, selector)
}

/// The Leases that Flux's controllers of the same selector hold.
pub fn flux_leases(role: SourceRole, selector: Option<&LabelSelector>) -> Vec<String> {
    let names: &[&str] = match role {
        SourceRole::Serve => &[KUSTOMIZE_CONTROLLER, SOURCE_CONTROLLER],
        SourceRole::Observe => &[KUSTOMIZE_CONTROLLER],
    };
    names.iter().map(|name| of(name, selector)).collect()
}

/// As `GenerateID` of Flux's runtime: the first eight hexadecimal digits of the selector's SHA-256, as it is written.
fn of(base: &str, selector: Option<&LabelSelector>) -> String {
    match selector {
        None => base.to_owned(),
        Some(selector) => {
            let digest = hex::encode(&Sha256::digest(selector.as_str())[..4]);
            format!("{base}-{digest}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_of_a_selector_are_called_as_flux_calls_them() {
        // the pair is one of Flux's own test
        assert_eq!(of("foo", Some(&LabelSelector::parse("bar").unwrap())), "foo-fcde2b2e");
        let selector = LabelSelector::parse("sharding.fluxcd.io/key=shard1").unwrap();
        assert_eq!(own_lease(Some(&selector)), "afresh-73fdc1be");
        assert_eq!(
            flux_leases(SourceRole::Observe, Some(&selector)),
            ["kustomize-controller-leader-election-73fdc1be"]
        );
        assert_eq!(own_lease(None), "afresh");
        assert_eq!(flux_leases(SourceRole::Serve, None), [KUSTOMIZE_CONTROLLER, SOURCE_CONTROLLER]);
    }
}
