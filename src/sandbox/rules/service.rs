//! A Service's cluster address and node ports: taken before it is stored, given back when it is not.

use serde_json::{Value, json};

use super::{Allocation, is_service, release_difference};
use crate::sandbox::addresses::Addresses;
use crate::sandbox::refusal::{Cause, invalid_text};
use crate::sandbox::resource::Resource;

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The address families of a single-stack cluster.
pub fn families(service: &mut Value) {
    let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if spec.get("type").and_then(Value::as_str) != Some("ExternalName") {
        spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
        spec.entry("ipFamilyPolicy").or_insert_with(|| json!("SingleStack"));
    }
}

/// A client that sends a whole Service again need not know what the server gave it.
pub fn keep_allocated(old: &Value, new: &mut Value) {
    let external = |service: &Value| text(service, "/spec/type") == "ExternalName";
    if external(old) || external(new) {
        families(new);
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let given = new["spec"].get(field).is_some_and(|value| !value.is_null() && value != "");
        if let Some(kept) = old["spec"].get(field).filter(|_| !given) {
            new["spec"][field] = kept.clone();
        }
    }
}

/// Completes a Service with an address and node ports where its type has them.
pub fn allocate(addresses: &Addresses, resource: &Resource, value: &mut Value, old: Option<&Value>) -> Allocation {
    if !is_service(resource) {
        return Ok(());
    }
    let kind = text(value, "/spec/type").to_owned();
    if kind == "ExternalName" {
        if let Some(old) = old {
            addresses.release(old);
        }
        return Ok(());
    }
    allocate_address(addresses, value, old)?;
    allocate_ports(addresses, value, old, matches!(kind.as_str(), "NodePort" | "LoadBalancer"))
}

fn allocate_address(addresses: &Addresses, value: &mut Value, old: Option<&Value>) -> Allocation {
    let had = old.map(|o| text(o, "/spec/clusterIP")).unwrap_or_default().to_owned();
    let wanted = match text(value, "/spec/clusterIP") {
        "" if !had.is_empty() => had.clone(),
        wanted => wanted.to_owned(),
    };
    let address = match wanted.as_str() {
        "" => addresses
            .any()
            .ok_or_else(|| vec![invalid_text("spec.clusterIPs", "", "failed to allocate IP: range is full")])?,
        "None" => wanted,
        _ if wanted == had => wanted,
        _ => {
            let refused = |why: &str| {
                let value = json!([wanted.clone()]);
                vec![Cause::invalid("spec.clusterIPs", &value, why)]
            };
            addresses.take(&wanted).map_err(refused)?;
            wanted
        }
    };
    value["spec"]["clusterIP"] = address.clone().into();
    value["spec"]["clusterIPs"] = json!([address]);
    Ok(())
}

fn allocate_ports(addresses: &Addresses, value: &mut Value, old: Option<&Value>, wanted: bool) -> Allocation {
    let before: Vec<Value> =
        old.and_then(|o| o.pointer("/spec/ports").and_then(Value::as_array)).cloned().unwrap_or_default();
    let Some(ports) = value.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else { return Ok(()) };
    for (i, port) in ports.iter_mut().enumerate() {
        let same = before.iter().find(|b| b["port"] == port["port"] && b["protocol"] == port["protocol"]);
        let had = same.and_then(|b| b["nodePort"].as_u64());
        match port["nodePort"].as_u64().filter(|p| *p != 0) {
            Some(asked) if before.iter().any(|b| b["nodePort"].as_u64() == Some(asked)) => {}
            Some(asked) => addresses
                .take_port(asked)
                .map_err(|why| vec![Cause::invalid(format!("spec.ports[{i}].nodePort"), &json!(asked), why)])?,
            None if wanted => {
                if let Some(free) = had.or_else(|| addresses.any_port().map(u64::from)) {
                    port["nodePort"] = free.into();
                }
            }
            None => {
                if let Some(map) = port.as_object_mut() {
                    map.remove("nodePort");
                }
            }
        }
    }
    Ok(())
}

/// Gives back what was taken for a Service that was not created.
pub fn give_back(addresses: &Addresses, resource: &Resource, value: &Value) {
    if is_service(resource) {
        addresses.release(value);
    }
}

/// Gives back what was taken for a change that was not stored.
pub fn give_back_new(addresses: &Addresses, resource: &Resource, old: &Value, new: &Value) {
    if is_service(resource) {
        release_difference(addresses, old, new);
    }
}
