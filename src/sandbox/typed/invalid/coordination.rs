//! Leases.

use super::forms::non_negative;
use super::node::Node;
use crate::sandbox::typed::cause::Cause;

pub fn lease(lease: &Node<'_>) -> Vec<Cause> {
    let spec = lease.get("spec");
    let duration = spec.get("leaseDurationSeconds");
    let no_duration = duration.int().filter(|seconds| *seconds <= 0);
    let cause = no_duration.map(|_| Cause::invalid(&duration.path, duration.value, "must be greater than 0"));
    cause.into_iter().chain(non_negative(&spec.get("leaseTransitions"))).collect()
}
