//! Services and Ingresses.

use serde_json::{Value, json};

use super::forms::{invalid_text, labels, port, port_number};
use super::node::Node;
use super::pod::one_of;
use crate::sandbox::typed::cause::Cause;
use crate::sandbox::typed::names::{label, port_name, subdomain};

const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

pub fn service(service: &Node<'_>, old: Option<&Node<'_>>) -> Vec<Cause> {
    let spec = service.get("spec");
    let mut causes = Vec::new();
    if let Some(old) = old {
        causes.extend(fixed_address(&spec, &old.get("spec")));
    }
    let (kind, ports) = (spec.get("type"), spec.get("ports"));
    let headless = spec.get("clusterIP").text() == "None";
    if ports.is_empty() && !headless && kind.text() != "ExternalName" {
        causes.push(Cause::required(&ports.path, ""));
    }
    if kind.text() == "ExternalName" {
        let name = spec.get("externalName");
        if name.text().is_empty() {
            causes.push(Cause::required(&name.path, ""));
        } else {
            causes.extend(invalid_text(&name, subdomain(name.text().trim_end_matches('.'))));
        }
    }
    causes.extend(service_ports(&ports, kind.text()));
    causes.extend(labels(&spec.get("selector")));
    causes.extend(one_of(&spec.get("sessionAffinity"), &["ClientIP", "None"]));
    causes.extend(one_of(&kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]));
    let address = spec.get("clusterIP");
    if !address.text().is_empty() && !headless && address.text().parse::<std::net::IpAddr>().is_err() {
        causes.push(Cause::invalid(format!("{}.clusterIPs[0]", spec.path), address.value, ADDRESS));
    }
    if headless && matches!(kind.text(), "NodePort" | "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {} services", kind.text());
        causes.push(Cause::invalid(format!("{}.clusterIPs[0]", spec.path), address.value, &detail));
    }
    causes
}

fn fixed_address(spec: &Node<'_>, old: &Node<'_>) -> Option<Cause> {
    let (new, before) = (spec.get("clusterIP"), old.get("clusterIP"));
    let without_address = |spec: &Node<'_>| spec.get("type").text() == "ExternalName";
    let changed = !before.text().is_empty() && new.value != before.value;
    if !changed || without_address(spec) || without_address(old) {
        return None;
    }
    let path = format!("{}.clusterIPs[0]", spec.path);
    Some(Cause::invalid(path, &json!([new.text()]), "may not change once set"))
}

fn service_ports(ports: &Node<'_>, kind: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let items = ports.items();
    let mut names: Vec<&str> = Vec::new();
    for item in &items {
        let name = item.get("name");
        if name.text().is_empty() {
            if items.len() > 1 {
                causes.push(Cause::required(&name.path, ""));
            }
        } else {
            causes.extend(invalid_text(&name, label(name.text())));
            if names.contains(&name.text()) {
                causes.push(Cause::duplicate(&name.path, name.value));
            }
            names.push(name.text());
        }
        causes.extend(port_number(&item.get("port")));
        causes.extend(one_of(&item.get("protocol"), &["SCTP", "TCP", "UDP"]));
        causes.extend(port(&item.get("targetPort")));
    }
    for item in &items {
        let node_port = item.get("nodePort");
        if node_port.int().is_some_and(|port| port != 0) && matches!(kind, "ClusterIP" | "ExternalName") {
            causes.push(Cause::forbidden(node_port.path, &format!("may not be used when `type` is '{kind}'")));
        }
    }
    let identity = |item: &Node<'_>| (item.get("port").value.clone(), item.get("protocol").value.clone());
    for (i, item) in items.iter().enumerate() {
        if items[..i].iter().any(|other| identity(other) == identity(item)) {
            causes.push(Cause::duplicate(&item.path, &go_port(item)));
        }
    }
    causes
}

/// What identifies a port, as the server prints its own type.
fn go_port(port: &Node<'_>) -> Value {
    json!({"Name": "", "Protocol": port.get("protocol").value, "AppProtocol": null,
        "Port": port.get("port").value, "TargetPort": 0, "NodePort": 0})
}

pub fn ingress(ingress: &Node<'_>) -> Vec<Cause> {
    let spec = ingress.get("spec");
    let (rules, default) = (spec.get("rules"), spec.get("defaultBackend"));
    let mut causes = Vec::new();
    if rules.is_empty() && !default.is_set() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        causes.push(Cause::invalid(&spec.path, &Value::Null, detail));
    }
    if default.is_set() {
        causes.extend(backend(&default));
    }
    for rule in rules.items() {
        let host = rule.get("host");
        if !host.text().is_empty() {
            let name = host.text().strip_prefix("*.").unwrap_or(host.text());
            causes.extend(invalid_text(&host, subdomain(name)));
        }
        let http = rule.get("http");
        if !http.is_set() {
            continue;
        }
        let paths = http.get("paths");
        if paths.is_empty() {
            causes.push(Cause::required(&paths.path, ""));
        }
        for item in paths.items() {
            let (kind, path) = (item.get("pathType"), item.get("path"));
            if !kind.is_set() {
                causes.push(Cause::required(kind.path, "pathType must be specified"));
            } else {
                causes.extend(one_of(&kind, &["Exact", "ImplementationSpecific", "Prefix"]));
                let may_be_empty = kind.text() == "ImplementationSpecific" && path.text().is_empty();
                if !path.text().starts_with('/') && !may_be_empty {
                    causes.push(Cause::invalid(&path.path, &json!(path.text()), "must be an absolute path"));
                }
            }
            causes.extend(backend(&item.get("backend")));
        }
    }
    causes
}

fn backend(backend: &Node<'_>) -> Vec<Cause> {
    let (service, resource) = (backend.get("service"), backend.get("resource"));
    let mut causes = Vec::new();
    let mut fault = |detail: &str| causes.push(Cause::invalid(&backend.path, &json!(""), detail));
    match (service.is_set(), resource.is_set()) {
        (true, true) => fault("cannot set both resource and service backends"),
        (false, true) => {}
        (false, false) => fault("resource or service backend is required"),
        (true, false) => {
            let (name, number) = (service.at("port.name"), service.at("port.number"));
            match (!name.text().is_empty(), number.int().unwrap_or_default() != 0) {
                (true, true) => fault("cannot set both port name & port number"),
                (false, false) => causes.push(Cause::required(&backend.path, "port name or number is required")),
                (true, false) => causes.extend(invalid_text(&name, port_name(name.text()))),
                (false, true) => causes.extend(port_number(&number)),
            }
            let name = service.get("name");
            if name.text().is_empty() {
                causes.push(Cause::required(name.path, ""));
            }
        }
    }
    causes
}
