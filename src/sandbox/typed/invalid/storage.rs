//! PersistentVolumeClaims.

use super::forms::invalid_text;
use super::node::Node;
use crate::sandbox::typed::cause::Cause;
use crate::sandbox::typed::names::subdomain;
use crate::sandbox::typed::quantity::Quantity;

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const SPEC_IMMUTABLE: &str =
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

pub fn claim(claim: &Node<'_>, old: Option<&Node<'_>>) -> Vec<Cause> {
    let spec = claim.get("spec");
    let mut causes = claim_spec(&spec);
    if let Some(old) = old {
        causes.extend(claim_update(&spec, old));
    }
    causes
}

/// Also of a StatefulSet's templates.
pub fn claim_spec(spec: &Node<'_>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        causes.push(Cause::required(&modes.path, "at least 1 access mode is required"));
    }
    for mode in modes.items().iter().filter(|mode| !ACCESS_MODES.contains(&mode.text())) {
        causes.push(Cause::unsupported(&modes.path, mode.value, &ACCESS_MODES));
    }
    let storage = spec.at("resources.requests").entry("storage");
    let path = spec.get("resources").entry("storage").path;
    match Quantity::parse(storage.text()) {
        Ok(amount) if amount.is_negative() || amount.is_zero() => {
            causes.push(Cause::invalid(path, storage.value, "must be greater than zero"));
        }
        Ok(_) => {}
        Err(_) => causes.push(Cause::required(path, "")),
    }
    let class = spec.get("storageClassName");
    if !class.text().is_empty() {
        causes.extend(invalid_text(&class, subdomain(class.text())));
    }
    causes
}

fn claim_update(spec: &Node<'_>, old: &Node<'_>) -> Option<Cause> {
    let old_spec = old.get("spec");
    let bound = old.at("status.phase").text() == "Bound";
    let (mut new_value, mut old_value) = (spec.value.clone(), old_spec.value.clone());
    for value in [&mut new_value, &mut old_value] {
        let Some(map) = value.as_object_mut() else { continue };
        // The binder sets the volume; a class may be given to a claim that has none.
        if old_spec.get("volumeName").text().is_empty() {
            map.remove("volumeName");
        }
        if !old_spec.get("storageClassName").is_set() {
            map.remove("storageClassName");
        }
        if bound {
            map.remove("volumeAttributesClassName");
            if let Some(resources) = map.get_mut("resources").and_then(|resources| resources.as_object_mut()) {
                resources.remove("requests");
            }
        }
    }
    if new_value != old_value {
        return Some(Cause::forbidden(&spec.path, SPEC_IMMUTABLE));
    }
    let amount = |spec: &Node<'_>| Quantity::parse(spec.at("resources.requests.storage").text()).ok();
    let shrinks = bound && amount(spec) < amount(&old_spec);
    let path = format!("{}.resources.requests.storage", spec.path);
    shrinks.then(|| Cause::forbidden(path, "field can not be less than status.capacity"))
}
