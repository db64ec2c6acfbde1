//! The cells of the built-in kinds: one object comes in, what it shows in each of its columns goes out. An absent field is
//! an empty cell, never an error.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::columns::columns;
use super::duration::age;
use crate::sandbox::metadata;

/// The cells of one object, in the order of the columns.
pub fn cells(group: &str, kind: &str, value: &Value, now: Timestamp) -> Vec<Value> {
    let row = Row { value, now };
    columns(group, kind).iter().map(|(column, ..)| row.cell(group, kind, column)).collect()
}

pub(super) struct Row<'a> {
    pub(super) value: &'a Value,
    pub(super) now: Timestamp,
}

pub(super) const NONE: &str = "<none>";

impl<'a> Row<'a> {
    pub(super) fn at(&self, path: &str) -> Option<&'a Value> {
        self.value.pointer(path).filter(|v| !v.is_null())
    }

    pub(super) fn text(&self, path: &str) -> &'a str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn text_or(&self, path: &str, absent: &str) -> Value {
        match self.at(path) {
            Some(Value::String(text)) if !text.is_empty() => text.clone().into(),
            Some(Value::Number(number)) => number.to_string().into(),
            _ => absent.into(),
        }
    }

    pub(super) fn number(&self, path: &str) -> i64 {
        self.at(path).and_then(Value::as_i64).unwrap_or(0)
    }

    pub(super) fn list(&self, path: &str) -> &'a [Value] {
        self.at(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    pub(super) fn since(&self, path: &str) -> Value {
        age(self.text(path), self.now).into()
    }

    fn cell(&self, group: &str, kind: &str, column: &str) -> Value {
        match column {
            "Name" => return metadata::name(self.value).into(),
            "Age" => return self.since("/metadata/creationTimestamp"),
            "Created At" => return self.text("/metadata/creationTimestamp").into(),
            "Containers" => return self.of_containers(kind, "name"),
            "Images" => return self.of_containers(kind, "image"),
            _ => {}
        }
        match (group, kind) {
            ("", "Pod") => self.pod(column),
            ("apps", _) | ("", "ReplicationController") => self.workload(kind, column),
            ("batch", "Job") => self.job(column),
            ("batch", "CronJob") => self.cron_job(column),
            ("", "Service") => self.service(column),
            ("networking.k8s.io", _) => self.network(kind, column),
            ("", "Node") => self.node(column),
            (_, "Event") => self.event(column),
            ("", "PersistentVolumeClaim" | "PersistentVolume") => self.storage(kind, column),
            _ => self.other(group, kind, column),
        }
    }

    fn of_containers(&self, kind: &str, field: &str) -> Value {
        let path = if kind == "CronJob" {
            "/spec/jobTemplate/spec/template/spec/containers"
        } else {
            "/spec/template/spec/containers"
        };
        let values = self.list(path).iter().map(|c| c[field].as_str().unwrap_or_default());
        values.collect::<Vec<_>>().join(",").into()
    }

    fn service(&self, column: &str) -> Value {
        match column {
            "Type" => self.text("/spec/type").into(),
            "Cluster-IP" => self.text_or("/spec/clusterIP", NONE),
            "External-IP" => {
                let external = self.list("/spec/externalIPs").iter().filter_map(Value::as_str);
                let given = self.list("/status/loadBalancer/ingress").iter();
                let given = given.filter_map(|i| i["ip"].as_str().or_else(|| i["hostname"].as_str()));
                let all: Vec<&str> = given.chain(external).collect();
                match (self.text("/spec/type"), all.is_empty()) {
                    ("ExternalName", _) => self.text("/spec/externalName").into(),
                    ("LoadBalancer", true) => "<pending>".into(),
                    (_, true) => NONE.into(),
                    _ => all.join(",").into(),
                }
            }
            "Port(s)" => {
                let port = |p: &Value| {
                    let protocol = p["protocol"].as_str().unwrap_or("TCP");
                    match p["nodePort"].as_i64() {
                        Some(node) if node > 0 => format!("{}:{node}/{protocol}", p["port"]),
                        _ => format!("{}/{protocol}", p["port"]),
                    }
                };
                let ports: Vec<String> = self.list("/spec/ports").iter().map(port).collect();
                if ports.is_empty() { NONE.into() } else { ports.join(",").into() }
            }
            _ => labels(self.at("/spec/selector")).into(),
        }
    }

    fn network(&self, kind: &str, column: &str) -> Value {
        match (kind, column) {
            ("Ingress", "Class") => self.text_or("/spec/ingressClassName", NONE),
            ("Ingress", "Hosts") => {
                let hosts: Vec<&str> = self
                    .list("/spec/rules")
                    .iter()
                    .filter_map(|r| r["host"].as_str())
                    .filter(|h| !h.is_empty())
                    .collect();
                if hosts.is_empty() { "*".into() } else { hosts.join(",").into() }
            }
            ("Ingress", "Address") => {
                let given = self.list("/status/loadBalancer/ingress").iter();
                given
                    .filter_map(|i| i["ip"].as_str().or_else(|| i["hostname"].as_str()))
                    .collect::<Vec<_>>()
                    .join(",")
                    .into()
            }
            ("Ingress", "Ports") => if self.list("/spec/tls").is_empty() { "80" } else { "80, 443" }.into(),
            ("IngressClass", "Controller") => self.text("/spec/controller").into(),
            ("NetworkPolicy", _) => selector(self.at("/spec/podSelector")).into(),
            _ => NONE.into(),
        }
    }

    fn node(&self, column: &str) -> Value {
        let address = |kind: &str| {
            let found = self.list("/status/addresses").iter().find(|a| a["type"] == kind);
            found.and_then(|a| a["address"].as_str()).unwrap_or(NONE).into()
        };
        match column {
            "Status" => {
                let ready = self.list("/status/conditions").iter().find(|c| c["type"] == "Ready");
                let status = match ready.map(|c| &c["status"]) {
                    Some(status) if status == "True" => "Ready",
                    Some(_) => "NotReady",
                    None => "Unknown",
                };
                let closed = self.at("/spec/unschedulable") == Some(&Value::Bool(true));
                if closed { format!("{status},SchedulingDisabled").into() } else { status.into() }
            }
            "Roles" => {
                let labels = self.at("/metadata/labels").and_then(Value::as_object);
                let roles =
                    labels.into_iter().flatten().filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"));
                let roles: Vec<&str> = roles.collect();
                if roles.is_empty() { NONE.into() } else { roles.join(",").into() }
            }
            "Version" => self.text("/status/nodeInfo/kubeletVersion").into(),
            "Internal-IP" => address("InternalIP"),
            "External-IP" => address("ExternalIP"),
            "OS-Image" => self.text_or("/status/nodeInfo/osImage", "<unknown>"),
            "Kernel-Version" => self.text_or("/status/nodeInfo/kernelVersion", "<unknown>"),
            _ => self.text_or("/status/nodeInfo/containerRuntimeVersion", "<unknown>"),
        }
    }

    fn event(&self, column: &str) -> Value {
        let first = ["/firstTimestamp", "/eventTime"].into_iter().find(|p| !self.text(p).is_empty());
        let last = ["/series/lastObservedTime", "/lastTimestamp"].into_iter().find(|p| !self.text(p).is_empty());
        match column {
            "Last Seen" => last.or(first).map_or_else(|| "<unknown>".into(), |p| self.since(p)),
            "First Seen" => first.map_or_else(|| "<unknown>".into(), |p| self.since(p)),
            "Type" => self.text("/type").into(),
            "Reason" => self.text("/reason").into(),
            "Object" => {
                format!("{}/{}", self.text("/involvedObject/kind").to_lowercase(), self.text("/involvedObject/name"))
                    .into()
            }
            "Subobject" => self.text("/involvedObject/fieldPath").into(),
            "Source" => match (self.text("/source/component"), self.text("/reportingComponent")) {
                ("", reporting) => reporting.into(),
                (component, _) => component.into(),
            },
            "Message" => self.text("/message").trim().into(),
            _ => {
                let count = self.number("/series/count").max(self.number("/count")).max(1);
                count.to_string().into()
            }
        }
    }

    fn storage(&self, kind: &str, column: &str) -> Value {
        match (kind, column) {
            (_, "Status") if metadata::is_terminating(self.value) => "Terminating".into(),
            (_, "Status") => self.text("/status/phase").into(),
            ("PersistentVolumeClaim", "Volume") => self.text("/spec/volumeName").into(),
            ("PersistentVolumeClaim", "Capacity") => self.text("/status/capacity/storage").into(),
            ("PersistentVolumeClaim", "Access Modes") => access_modes(self.list("/status/accessModes")).into(),
            ("PersistentVolumeClaim", "VolumeAttributesClass") => {
                self.text_or("/spec/volumeAttributesClassName", "<unset>")
            }
            (_, "Capacity") => self.text("/spec/capacity/storage").into(),
            (_, "Access Modes") => access_modes(self.list("/spec/accessModes")).into(),
            (_, "StorageClass") => self.text("/spec/storageClassName").into(),
            (_, "Reclaim Policy") => self.text("/spec/persistentVolumeReclaimPolicy").into(),
            (_, "Claim") if self.at("/spec/claimRef").is_some() => {
                format!("{}/{}", self.text("/spec/claimRef/namespace"), self.text("/spec/claimRef/name")).into()
            }
            (_, "VolumeMode") => self.text_or("/spec/volumeMode", "<unset>"),
            _ => "".into(),
        }
    }

    fn other(&self, group: &str, kind: &str, column: &str) -> Value {
        let entries = |path: &str| self.at(path).and_then(Value::as_object).map_or(0, Map::len);
        match (group, kind, column) {
            ("", "ConfigMap", _) => (entries("/data") + entries("/binaryData")).into(),
            ("", "Secret", "Type") => self.text("/type").into(),
            ("", "Secret", _) => entries("/data").into(),
            ("", "Namespace", _) => self.text("/status/phase").into(),
            ("", "ServiceAccount", _) => self.list("/secrets").len().to_string().into(),
            ("policy", _, "Min Available") => self.text_or("/spec/minAvailable", "N/A"),
            ("policy", _, "Max Unavailable") => self.text_or("/spec/maxUnavailable", "N/A"),
            ("policy", _, _) => self.number("/status/disruptionsAllowed").into(),
            ("autoscaling", _, "Reference") => {
                format!("{}/{}", self.text("/spec/scaleTargetRef/kind"), self.text("/spec/scaleTargetRef/name")).into()
            }
            ("autoscaling", _, "MinPods") => self.text_or("/spec/minReplicas", "<unset>"),
            ("autoscaling", _, "MaxPods") => self.number("/spec/maxReplicas").to_string().into(),
            ("autoscaling", _, _) => self.number("/status/currentReplicas").into(),
            ("rbac.authorization.k8s.io", _, "Role") => {
                format!("{}/{}", self.text("/roleRef/kind"), self.text("/roleRef/name")).into()
            }
            ("storage.k8s.io", _, "Provisioner") => self.text("/provisioner").into(),
            ("storage.k8s.io", _, "ReclaimPolicy") => self.text("/reclaimPolicy").into(),
            ("storage.k8s.io", _, "VolumeBindingMode") => self.text("/volumeBindingMode").into(),
            ("storage.k8s.io", _, "AllowVolumeExpansion") => {
                (self.at("/allowVolumeExpansion") == Some(&json!(true))).into()
            }
            ("coordination.k8s.io", _, _) => self.text("/spec/holderIdentity").into(),
            ("scheduling.k8s.io", _, "Value") => self.number("/value").into(),
            ("scheduling.k8s.io", _, "Global-Default") => (self.at("/globalDefault") == Some(&json!(true))).into(),
            ("scheduling.k8s.io", _, _) => self.text("/preemptionPolicy").into(),
            ("admissionregistration.k8s.io", _, _) => self.list("/webhooks").len().into(),
            _ => Value::Null,
        }
    }
}

fn access_modes(modes: &[Value]) -> String {
    let short = modes.iter().filter_map(Value::as_str).map(|mode| match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        other => other,
    });
    short.collect::<Vec<_>>().join(",")
}

pub(super) fn labels(map: Option<&Value>) -> String {
    let pairs = map.and_then(Value::as_object).into_iter().flatten();
    let text = pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>();
    if text.is_empty() { NONE.into() } else { text.join(",") }
}

pub(super) fn selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return NONE.into() };
    let mut parts = Vec::new();
    if let Some(map) = selector.get("matchLabels").and_then(Value::as_object).filter(|m| !m.is_empty()) {
        parts.push(labels(Some(&Value::Object(map.clone()))));
    }
    for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values = expression["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(",");
        parts.push(match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    if parts.is_empty() { NONE.into() } else { parts.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::table::columns::definitions;

    #[test]
    fn every_kind_has_a_cell_for_each_column() {
        for resource in crate::sandbox::builtin::resources() {
            let value = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}});
            let cells = cells(&resource.group, &resource.kind, &value, Timestamp::now());
            assert_eq!(cells.len(), definitions(&resource.group, &resource.kind).len());
        }
    }
}
