//! Autoscalers and disruption budgets.

use serde_json::json;

use super::forms::number_or_percent;
use super::node::Node;
use crate::sandbox::typed::cause::Cause;

pub fn autoscaler(autoscaler: &Node<'_>) -> Vec<Cause> {
    let spec = autoscaler.get("spec");
    let mut causes = Vec::new();
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if min.int().is_some_and(|min| min < 1) {
        causes.push(Cause::invalid(&min.path, min.value, "must be greater than or equal to 1"));
    }
    if max.int().unwrap_or_default() < 1 {
        causes.push(Cause::required(&max.path, "must be set and greater than 0"));
    }
    if min.int().is_some_and(|min| max.int().unwrap_or_default() < min) {
        causes.push(Cause::invalid(&max.path, max.value, "must be greater than or equal to `minReplicas`"));
    }
    let target = spec.get("scaleTargetRef");
    for name in ["kind", "name"] {
        if target.get(name).text().is_empty() {
            causes.push(Cause::required(target.get(name).path, ""));
        }
    }
    let version = target.get("apiVersion");
    if version.text().is_empty() {
        causes.push(Cause::invalid(version.path, &json!(""), "apiVersion must specify API group"));
    }
    causes
}

pub fn disruption_budget(budget: &Node<'_>) -> Vec<Cause> {
    let spec = budget.get("spec");
    let (min, max) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    let mut causes = Vec::new();
    if min.is_set() && max.is_set() {
        let value = json!({
            "MinAvailable": min.value,
            "Selector": spec.get("selector").value,
            "MaxUnavailable": max.value,
            "UnhealthyPodEvictionPolicy": spec.get("unhealthyPodEvictionPolicy").value,
        });
        causes.push(Cause::invalid(&spec.path, &value, "minAvailable and maxUnavailable cannot be both set"));
    }
    causes.extend(number_or_percent(&min));
    causes.extend(number_or_percent(&max));
    causes
}
