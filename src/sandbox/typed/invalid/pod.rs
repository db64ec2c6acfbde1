//! Pods and the Pod templates of workloads.

use serde_json::{Value, json};

use super::forms::{annotations, invalid_text, labels, non_negative, port, port_number};
use super::node::Node;
use crate::sandbox::typed::cause::Cause;
use crate::sandbox::typed::names::{label, port_name, subdomain};
use crate::sandbox::typed::quantity::Quantity;

const UPDATE_FORBIDDEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const USER_RANGE: &str = "must be between 0 and 2147483647, inclusive";
/// Fields of a volume that don't say what it is.
const VOLUME_NAME: &str = "name";
const GRACE: &str = "terminationGracePeriodSeconds";
/// The kinds of a volume in the order in which the server looks for them; the others come last.
const VOLUME_KINDS: [&str; 14] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "secret",
    "nfs",
    "iscsi",
    "persistentVolumeClaim",
    "downwardAPI",
    "fc",
    "configMap",
    "projected",
    "csi",
    "ephemeral",
    "image",
];

pub fn pod(pod: &Node<'_>, old: Option<&Node<'_>>) -> Vec<Cause> {
    let spec = pod.get("spec");
    let mut causes = pod_spec(&spec, &[]);
    if let Some(old) = old {
        let old = old.get("spec");
        if fixed_part(spec.value) != fixed_part(old.value) && !shortens_negative_grace(&spec, &old) {
            causes.push(Cause::forbidden(&spec.path, UPDATE_FORBIDDEN));
        }
    }
    causes
}

/// A grace period that should never have been stored may be mended.
fn shortens_negative_grace(new: &Node<'_>, old: &Node<'_>) -> bool {
    let of = |spec: &Node<'_>| spec.get(GRACE).int();
    if !(of(old).is_some_and(|seconds| seconds < 0) && of(new) == Some(1)) {
        return false;
    }
    let without = |spec: &Node<'_>| {
        let mut rest = fixed_part(spec.value);
        rest.as_object_mut().and_then(|map| map.remove(GRACE));
        rest
    };
    without(new) == without(old)
}

/// What of a Pod's spec can't change.
fn fixed_part(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(map) = spec.as_object_mut() {
        for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            map.remove(name);
        }
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            for container in map.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(container) = container.as_object_mut() {
                    container.remove("image");
                }
            }
        }
    }
    spec
}

/// A Pod template; `claims` are the volumes that each Pod gets besides those in its spec.
pub fn template(template: &Node<'_>, claims: &[&str]) -> Vec<Cause> {
    let mut causes = labels(&template.at("metadata.labels"));
    causes.extend(annotations(&template.at("metadata.annotations")));
    causes.extend(pod_spec(&template.get("spec"), claims));
    causes
}

fn pod_spec(spec: &Node<'_>, claims: &[&str]) -> Vec<Cause> {
    let volumes = spec.get("volumes");
    let mut causes = volume_list(&volumes);
    let own = volumes.items();
    let volume_names: Vec<&str> =
        own.iter().map(|volume| volume.get("name").text()).chain(claims.iter().copied()).collect();
    let scope = Scope { volumes: &volume_names, host_network: spec.get("hostNetwork").is_true() };

    let containers = spec.get("containers");
    if containers.is_empty() {
        causes.push(Cause::required(&containers.path, ""));
    }
    let mut names: Vec<&str> = Vec::new();
    for container in containers.items().iter().chain(&spec.get("initContainers").items()) {
        causes.extend(scope.container(container));
        let name = container.get("name");
        if !name.text().is_empty() {
            if names.contains(&name.text()) {
                causes.push(Cause::duplicate(&name.path, name.value));
            }
            names.push(name.text());
        }
        causes.extend(lifecycle(container));
    }

    causes.extend(host_ports(&containers));
    causes.extend(one_of(&spec.get("restartPolicy"), &["Always", "OnFailure", "Never"]));
    causes.extend(one_of(&spec.get("dnsPolicy"), &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]));
    causes.extend(labels(&spec.get("nodeSelector")));
    causes.extend(user(&spec.get("securityContext")));
    for toleration in spec.get("tolerations").items() {
        let operator = toleration.get("operator");
        if !operator.text().is_empty() {
            causes.extend(one_of(&operator, &["Equal", "Exists"]));
        }
    }
    let account = spec.get("serviceAccountName");
    if !account.text().is_empty() {
        causes.extend(invalid_text(&account, subdomain(account.text())));
    }
    let deadline = spec.get("activeDeadlineSeconds");
    if deadline.int().is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds)) {
        causes.push(Cause::invalid(&deadline.path, deadline.value, "must be between 1 and 2147483647, inclusive"));
    }
    for name in ["hostname", "subdomain"] {
        let node = spec.get(name);
        if !node.text().is_empty() {
            causes.extend(invalid_text(&node, label(node.text())));
        }
    }
    causes
}

/// Two containers of a Pod can't have the same port of the node.
fn host_ports(containers: &Node<'_>) -> Vec<Cause> {
    let mut taken: Vec<String> = Vec::new();
    let mut causes = Vec::new();
    for port in containers.items().iter().flat_map(|container| container.get("ports").items()) {
        let number = port.get("hostPort");
        let Some(host) = number.int().filter(|port| *port != 0) else { continue };
        let key = format!("{}/{}/{host}", port.get("protocol").text(), port.get("hostIP").text());
        if taken.contains(&key) {
            causes.push(Cause::duplicate(&number.path, &Value::from(key.as_str())));
        }
        taken.push(key);
    }
    causes
}

/// What the server takes and warns of, in a Pod's spec.
pub fn warnings(spec: &Node<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let grace = spec.get(GRACE);
    if grace.int().is_some_and(|seconds| seconds < 0) {
        warnings.push(format!("{}: must be >= 0; negative values are invalid and will be treated as 1", grace.path));
    }
    for secret in spec.get("imagePullSecrets").items() {
        let name = secret.get("name");
        if name.text().is_empty() {
            warnings.push(format!("{}: invalid empty name \"\"", name.path));
        }
    }
    warnings
}

/// A value of a closed list.
pub(super) fn one_of(node: &Node<'_>, allowed: &[&str]) -> Option<Cause> {
    if node.text().is_empty() {
        return Some(Cause::required(&node.path, ""));
    }
    (!allowed.contains(&node.text())).then(|| Cause::unsupported(&node.path, node.value, allowed))
}

fn user(context: &Node<'_>) -> Vec<Cause> {
    ["runAsUser", "runAsGroup"]
        .iter()
        .map(|name| context.get(name))
        .filter(|id| id.int().is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id)))
        .map(|id| Cause::invalid(&id.path, id.value, USER_RANGE))
        .collect()
}

fn volume_list(volumes: &Node<'_>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for volume in volumes.items() {
        let name = volume.get(VOLUME_NAME);
        if name.text().is_empty() {
            causes.push(Cause::required(&name.path, ""));
        } else {
            causes.extend(invalid_text(&name, label(name.text())));
            if names.contains(&name.text()) {
                causes.push(Cause::duplicate(&name.path, name.value));
            }
        }
        names.push(name.text());
        let kinds = volume.value.as_object().into_iter().flatten().map(|(kind, _)| kind);
        let mut kinds: Vec<&String> = kinds.filter(|kind| *kind != VOLUME_NAME).collect();
        kinds.sort_by_key(|kind| VOLUME_KINDS.iter().position(|k| k == kind).unwrap_or(VOLUME_KINDS.len()));
        for kind in kinds.into_iter().skip(1) {
            let detail = "may not specify more than 1 volume type";
            causes.push(Cause::forbidden(volume.get(kind).path, detail));
        }
        for (kind, required) in [
            ("secret", "secretName"),
            ("configMap", "name"),
            ("persistentVolumeClaim", "claimName"),
            ("hostPath", "path"),
            ("csi", "driver"),
        ] {
            let field = volume.get(kind).get(required);
            if volume.get(kind).is_set() && field.text().is_empty() {
                causes.push(Cause::required(field.path, ""));
            }
        }
    }
    causes
}

/// What a container may refer to.
struct Scope<'a> {
    volumes: &'a [&'a str],
    host_network: bool,
}

impl Scope<'_> {
    fn container(&self, container: &Node<'_>) -> Vec<Cause> {
        let mut causes = Vec::new();
        let name = container.get("name");
        if name.text().is_empty() {
            causes.push(Cause::required(&name.path, ""));
        } else {
            causes.extend(invalid_text(&name, label(name.text())));
        }
        let image = container.get("image");
        if image.text().is_empty() {
            causes.push(Cause::required(&image.path, ""));
        }
        causes.extend(one_of(&container.get("terminationMessagePolicy"), &["File", "FallbackToLogsOnError"]));
        causes.extend(self.ports(&container.get("ports")));
        causes.extend(environment(container));
        causes.extend(self.mounts(&container.get("volumeMounts")));
        causes.extend(one_of(&container.get("imagePullPolicy"), &["Always", "IfNotPresent", "Never"]));
        causes.extend(resources(&container.get("resources")));
        causes.extend(user(&container.get("securityContext")));
        causes
    }

    fn ports(&self, ports: &Node<'_>) -> Vec<Cause> {
        let mut causes = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for port in ports.items() {
            let name = port.get("name");
            if !name.text().is_empty() {
                let faults = port_name(name.text());
                if faults.is_empty() && names.contains(&name.text()) {
                    causes.push(Cause::duplicate(&name.path, name.value));
                }
                causes.extend(invalid_text(&name, faults));
                names.push(name.text());
            }
            let number = port.get("containerPort");
            if number.int().unwrap_or_default() == 0 {
                causes.push(Cause::required(&number.path, ""));
            } else {
                causes.extend(port_number(&number));
            }
            let host = port.get("hostPort");
            if host.int().is_some_and(|port| port != 0) {
                causes.extend(port_number(&host));
                if self.host_network && host.value != number.value {
                    let detail = "must match `containerPort` when `hostNetwork` is true";
                    causes.push(Cause::invalid(&host.path, host.value, detail));
                }
            }
            causes.extend(one_of(&port.get("protocol"), &PROTOCOLS));
        }
        causes
    }

    fn mounts(&self, mounts: &Node<'_>) -> Vec<Cause> {
        let mut causes = Vec::new();
        let mut paths: Vec<&str> = Vec::new();
        for mount in mounts.items() {
            let (name, path) = (mount.get("name"), mount.get("mountPath"));
            if name.text().is_empty() {
                causes.push(Cause::required(&name.path, ""));
            } else if !self.volumes.contains(&name.text()) {
                causes.push(Cause::not_found(&name.path, name.text()));
            }
            if path.text().is_empty() {
                causes.push(Cause::required(&path.path, ""));
            } else if paths.contains(&path.text()) {
                causes.push(Cause::invalid(&path.path, path.value, "must be unique"));
            }
            paths.push(path.text());
        }
        causes
    }
}

fn environment(container: &Node<'_>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for variable in container.get("env").items() {
        let (name, source) = (variable.get("name"), variable.get("valueFrom"));
        if name.text().is_empty() {
            causes.push(Cause::required(&name.path, ""));
        } else if name.text().contains('=') {
            let detail = "environment variable names must be printable ASCII and not contain '='";
            causes.push(Cause::invalid(&name.path, name.value, detail));
        }
        if !source.is_set() {
            continue;
        }
        let kinds = source.value.as_object().map_or(0, serde_json::Map::len);
        let fault = if kinds == 0 {
            Some(
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            )
        } else if !variable.get("value").text().is_empty() {
            Some("may not be specified when `value` is not empty")
        } else if kinds > 1 {
            Some("may not have more than one field specified at a time")
        } else {
            None
        };
        for kind in ["configMapKeyRef", "secretKeyRef"] {
            let reference = source.get(kind);
            if reference.is_set() {
                let name = reference.get("name").or_empty();
                causes.extend(invalid_text(&name, subdomain(name.text())));
                if reference.get("key").text().is_empty() {
                    causes.push(Cause::required(reference.get("key").path, ""));
                }
            }
        }
        causes.extend(fault.map(|fault| Cause::invalid(&source.path, &json!(""), fault)));
    }
    let sources = container.get("envFrom");
    for source in sources.items() {
        if !source.get("configMapRef").is_set() && !source.get("secretRef").is_set() {
            let detail = "must specify one of: `configMapRef` or `secretRef`";
            causes.push(Cause::invalid(&sources.path, &json!(""), detail));
        }
    }
    causes
}

fn resources(resources: &Node<'_>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let limits = resources.get("limits");
    for amounts in [limits.clone(), resources.get("requests")] {
        for amount in amounts.entries() {
            let name = amount.name();
            let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
            if !standard && !name.contains('/') {
                for detail in [
                    "must be a standard resource type or fully qualified",
                    "must be a standard resource for containers",
                ] {
                    causes.push(Cause::invalid(&amount.path, &json!(name), detail));
                }
            }
            let Ok(quantity) = Quantity::parse(amount.text()) else { continue };
            if quantity.is_negative() {
                causes.push(Cause::invalid(&amount.path, amount.value, super::forms::NON_NEGATIVE));
            }
            let limit = limits.entry(name);
            if amounts.path != limits.path && Quantity::parse(limit.text()).is_ok_and(|limit| quantity > limit) {
                let detail = format!("must be less than or equal to {name} limit of {}", limit.text());
                causes.push(Cause::invalid(&amounts.path, amount.value, &detail));
            }
        }
    }
    causes
}

fn lifecycle(container: &Node<'_>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for name in ["postStart", "preStop"] {
        let hook = container.get("lifecycle").get(name);
        if hook.is_set() {
            causes.extend(handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"]));
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.get(name);
        if !probe.is_set() {
            continue;
        }
        causes.extend(handler(&probe, &["exec", "httpGet", "tcpSocket", "grpc"]));
        for number in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            causes.extend(non_negative(&probe.get(number)));
        }
        let successes = probe.get("successThreshold");
        if name != "readinessProbe" && successes.int().is_some_and(|n| n != 1 && n >= 0) {
            causes.push(Cause::invalid(&successes.path, successes.value, "must be 1"));
        }
    }
    causes
}

fn handler(node: &Node<'_>, kinds: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let given: Vec<Node<'_>> = kinds.iter().map(|kind| node.get(kind)).filter(Node::is_set).collect();
    if given.is_empty() {
        causes.push(Cause::required(&node.path, "must specify a handler type"));
    }
    for (i, handler) in given.iter().enumerate() {
        if i > 0 {
            causes.push(Cause::forbidden(&handler.path, "may not specify more than 1 handler type"));
            continue;
        }
        match handler.name() {
            "exec" if handler.get("command").is_empty() => {
                causes.push(Cause::required(handler.get("command").path, ""));
            }
            "httpGet" => {
                if handler.get("path").text().is_empty() {
                    causes.push(Cause::required(handler.get("path").path, ""));
                }
                causes.extend(port(&handler.get("port")));
                causes.extend(one_of(&handler.get("scheme"), &["HTTP", "HTTPS"]));
            }
            "tcpSocket" | "grpc" => causes.extend(port(&handler.get("port"))),
            _ => {}
        }
    }
    causes
}
