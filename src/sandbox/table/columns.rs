//! The columns of the built-in kinds.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::duration::{age, human};
use crate::sandbox::metadata;

/// `name type priority`; the type may carry a format after a colon.
type Columns = &'static [(&'static str, &'static str, i64)];

const NAME: (&str, &str, i64) = ("Name", "string:name", 0);
const AGE: (&str, &str, i64) = ("Age", "string", 0);
const CONTAINERS: (&str, &str, i64) = ("Containers", "string", 1);
const IMAGES: (&str, &str, i64) = ("Images", "string", 1);
const SELECTOR: (&str, &str, i64) = ("Selector", "string", 1);

fn columns(group: &str, kind: &str) -> Columns {
    match (group, kind) {
        ("", "Pod") => &[
            NAME,
            ("Ready", "string", 0),
            ("Status", "string", 0),
            ("Restarts", "string", 0),
            AGE,
            ("IP", "string", 1),
            ("Node", "string", 1),
            ("Nominated Node", "string", 1),
            ("Readiness Gates", "string", 1),
        ],
        ("apps", "Deployment") => &[
            NAME,
            ("Ready", "string", 0),
            ("Up-to-date", "string", 0),
            ("Available", "string", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        ("apps", "ReplicaSet") | ("", "ReplicationController") => &[
            NAME,
            ("Desired", "integer", 0),
            ("Current", "integer", 0),
            ("Ready", "integer", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        ("apps", "StatefulSet") => &[NAME, ("Ready", "string", 0), AGE, CONTAINERS, IMAGES],
        ("apps", "DaemonSet") => &[
            NAME,
            ("Desired", "integer", 0),
            ("Current", "integer", 0),
            ("Ready", "integer", 0),
            ("Up-to-date", "integer", 0),
            ("Available", "integer", 0),
            ("Node Selector", "string", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        ("batch", "Job") => &[
            NAME,
            ("Status", "string", 0),
            ("Completions", "string", 0),
            ("Duration", "string", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        ("batch", "CronJob") => &[
            NAME,
            ("Schedule", "string", 0),
            ("Timezone", "string", 0),
            ("Suspend", "boolean", 0),
            ("Active", "integer", 0),
            ("Last Schedule", "string", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        ("", "Service") => &[
            NAME,
            ("Type", "string", 0),
            ("Cluster-IP", "string", 0),
            ("External-IP", "string", 0),
            ("Port(s)", "string", 0),
            AGE,
            SELECTOR,
        ],
        ("networking.k8s.io", "Ingress") => &[
            NAME,
            ("Class", "string", 0),
            ("Hosts", "string", 0),
            ("Address", "string", 0),
            ("Ports", "string", 0),
            AGE,
        ],
        ("networking.k8s.io", "IngressClass") => &[NAME, ("Controller", "string", 0), ("Parameters", "string", 0), AGE],
        ("networking.k8s.io", "NetworkPolicy") => &[NAME, ("Pod-Selector", "string", 0), AGE],
        ("", "ConfigMap") => &[NAME, ("Data", "string", 0), AGE],
        ("", "Secret") => &[NAME, ("Type", "string", 0), ("Data", "string", 0), AGE],
        ("", "Namespace") => &[NAME, ("Status", "string", 0), AGE],
        ("", "ServiceAccount") => &[NAME, ("Secrets", "string", 0), AGE],
        ("", "Node") => &[
            NAME,
            ("Status", "string", 0),
            ("Roles", "string", 0),
            AGE,
            ("Version", "string", 0),
            ("Internal-IP", "string", 1),
            ("External-IP", "string", 1),
            ("OS-Image", "string", 1),
            ("Kernel-Version", "string", 1),
            ("Container-Runtime", "string", 1),
        ],
        (_, "Event") => &[
            ("Last Seen", "string", 0),
            ("Type", "string", 0),
            ("Reason", "string", 0),
            ("Object", "string", 0),
            ("Subobject", "string", 1),
            ("Source", "string", 1),
            ("Message", "string", 0),
            ("First Seen", "string", 1),
            ("Count", "string", 1),
            ("Name", "string:name", 1),
        ],
        ("", "PersistentVolumeClaim") => &[
            NAME,
            ("Status", "string", 0),
            ("Volume", "string", 0),
            ("Capacity", "string", 0),
            ("Access Modes", "string", 0),
            ("StorageClass", "string", 0),
            ("VolumeAttributesClass", "string", 0),
            AGE,
            ("VolumeMode", "string", 1),
        ],
        ("", "PersistentVolume") => &[
            NAME,
            ("Capacity", "string", 0),
            ("Access Modes", "string", 0),
            ("Reclaim Policy", "string", 0),
            ("Status", "string", 0),
            ("Claim", "string", 0),
            ("StorageClass", "string", 0),
            AGE,
        ],
        ("policy", "PodDisruptionBudget") => &[
            NAME,
            ("Min Available", "string", 0),
            ("Max Unavailable", "string", 0),
            ("Allowed Disruptions", "integer", 0),
            AGE,
        ],
        ("autoscaling", "HorizontalPodAutoscaler") => &[
            NAME,
            ("Reference", "string", 0),
            ("MinPods", "string", 0),
            ("MaxPods", "string", 0),
            ("Replicas", "integer", 0),
            AGE,
        ],
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => &[NAME, ("Created At", "date", 0)],
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => &[NAME, ("Role", "string", 0), AGE],
        ("storage.k8s.io", "StorageClass") => &[
            NAME,
            ("Provisioner", "string", 0),
            ("ReclaimPolicy", "string", 0),
            ("VolumeBindingMode", "string", 0),
            ("AllowVolumeExpansion", "boolean", 0),
            AGE,
        ],
        ("coordination.k8s.io", "Lease") => &[NAME, ("Holder", "string", 0), AGE],
        ("scheduling.k8s.io", "PriorityClass") => {
            &[NAME, ("Value", "integer", 0), ("Global-Default", "boolean", 0), AGE, ("PreemptionPolicy", "string", 0)]
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => &[NAME, ("Created At", "date", 0)],
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration") => {
            &[NAME, ("Webhooks", "integer", 0), AGE]
        }
        _ => &[NAME, AGE],
    }
}

pub fn definitions(group: &str, kind: &str) -> Vec<Value> {
    let definition = |(name, kind, priority): &(&str, &str, i64)| {
        let (kind, format) = kind.split_once(':').unwrap_or((kind, ""));
        super::definition(name, kind, format, *priority, "")
    };
    columns(group, kind).iter().map(definition).collect()
}

/// The cells of one object, in the order of the columns.
pub fn cells(group: &str, kind: &str, value: &Value, now: Timestamp) -> Vec<Value> {
    let row = Row { value, now };
    columns(group, kind).iter().map(|(column, ..)| row.cell(group, kind, column)).collect()
}

struct Row<'a> {
    value: &'a Value,
    now: Timestamp,
}

const NONE: &str = "<none>";

impl<'a> Row<'a> {
    fn at(&self, path: &str) -> Option<&'a Value> {
        self.value.pointer(path).filter(|v| !v.is_null())
    }

    fn text(&self, path: &str) -> &'a str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    fn text_or(&self, path: &str, absent: &str) -> Value {
        match self.at(path) {
            Some(Value::String(text)) if !text.is_empty() => text.clone().into(),
            Some(Value::Number(number)) => number.to_string().into(),
            _ => absent.into(),
        }
    }

    fn number(&self, path: &str) -> i64 {
        self.at(path).and_then(Value::as_i64).unwrap_or(0)
    }

    fn list(&self, path: &str) -> &'a [Value] {
        self.at(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn since(&self, path: &str) -> Value {
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

    fn pod(&self, column: &str) -> Value {
        match column {
            "Ready" => {
                let ready = self.list("/status/containerStatuses").iter().filter(|c| c["ready"] == true).count();
                format!("{ready}/{}", self.list("/spec/containers").len()).into()
            }
            "Status" => pod_status(self).into(),
            "Restarts" => {
                let count = |c: &Value| c["restartCount"].as_i64().unwrap_or(0);
                let restarts: i64 = self.list("/status/containerStatuses").iter().map(count).sum();
                let last = self
                    .list("/status/containerStatuses")
                    .iter()
                    .filter_map(|c| c.pointer("/lastState/terminated/finishedAt").and_then(Value::as_str))
                    .max();
                match last {
                    Some(last) if restarts > 0 => format!("{restarts} ({} ago)", age(last, self.now)).into(),
                    _ => restarts.to_string().into(),
                }
            }
            "IP" => self.text_or("/status/podIP", NONE),
            "Node" => self.text_or("/spec/nodeName", NONE),
            "Nominated Node" => self.text_or("/status/nominatedNodeName", NONE),
            _ => NONE.into(),
        }
    }

    fn workload(&self, kind: &str, column: &str) -> Value {
        match (kind, column) {
            ("Deployment" | "StatefulSet", "Ready") => {
                let desired = self.at("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
                format!("{}/{desired}", self.number("/status/readyReplicas")).into()
            }
            ("Deployment", "Up-to-date") => self.number("/status/updatedReplicas").into(),
            ("Deployment", "Available") => self.number("/status/availableReplicas").into(),
            ("DaemonSet", "Desired") => self.number("/status/desiredNumberScheduled").into(),
            ("DaemonSet", "Current") => self.number("/status/currentNumberScheduled").into(),
            ("DaemonSet", "Ready") => self.number("/status/numberReady").into(),
            ("DaemonSet", "Up-to-date") => self.number("/status/updatedNumberScheduled").into(),
            ("DaemonSet", "Available") => self.number("/status/numberAvailable").into(),
            ("DaemonSet", "Node Selector") => labels(self.at("/spec/template/spec/nodeSelector")).into(),
            (_, "Desired") => self.number("/spec/replicas").into(),
            (_, "Current") => self.number("/status/replicas").into(),
            (_, "Ready") => self.number("/status/readyReplicas").into(),
            ("ReplicationController", "Selector") => labels(self.at("/spec/selector")).into(),
            (_, "Selector") => selector(self.at("/spec/selector")).into(),
            _ => Value::Null,
        }
    }

    fn job(&self, column: &str) -> Value {
        let condition =
            |kind: &str| self.list("/status/conditions").iter().any(|c| c["type"] == kind && c["status"] == "True");
        match column {
            "Status" if condition("Complete") => "Complete".into(),
            "Status" if condition("Failed") => "Failed".into(),
            "Status" if metadata::is_terminating(self.value) => "Terminating".into(),
            "Status" if condition("Suspended") => "Suspended".into(),
            "Status" if condition("FailureTarget") => "FailureTarget".into(),
            "Status" if condition("SuccessCriteriaMet") => "SuccessCriteriaMet".into(),
            "Status" => "Running".into(),
            "Completions" => {
                let succeeded = self.number("/status/succeeded");
                match (self.at("/spec/completions"), self.number("/spec/parallelism")) {
                    (Some(completions), _) => format!("{succeeded}/{completions}").into(),
                    (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}").into(),
                    _ => format!("{succeeded}/1").into(),
                }
            }
            "Duration" => match self.text("/status/startTime").parse::<Timestamp>() {
                Err(_) => "".into(),
                Ok(start) => {
                    let end = self.text("/status/completionTime").parse().unwrap_or(self.now);
                    human(end.as_second() - start.as_second()).into()
                }
            },
            "Selector" => selector(self.at("/spec/selector")).into(),
            _ => Value::Null,
        }
    }

    fn cron_job(&self, column: &str) -> Value {
        match column {
            "Schedule" => self.text("/spec/schedule").into(),
            "Timezone" => self.text_or("/spec/timeZone", NONE),
            "Suspend" => (self.at("/spec/suspend") == Some(&Value::Bool(true))).to_string().into(),
            "Active" => self.list("/status/active").len().into(),
            "Last Schedule" if self.at("/status/lastScheduleTime").is_none() => NONE.into(),
            "Last Schedule" => self.since("/status/lastScheduleTime"),
            _ => NONE.into(),
        }
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

fn labels(map: Option<&Value>) -> String {
    let pairs = map.and_then(Value::as_object).into_iter().flatten();
    let text = pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>();
    if text.is_empty() { NONE.into() } else { text.join(",") }
}

fn selector(selector: Option<&Value>) -> String {
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

/// What kubectl shows in STATUS: the phase, or what the containers say where they say more.
fn pod_status(row: &Row<'_>) -> String {
    let mut status = match row.text("/status/reason") {
        "" => row.text("/status/phase").to_owned(),
        reason => reason.to_owned(),
    };
    let ended = |state: &Value| -> String {
        match (state["reason"].as_str().unwrap_or_default(), state["signal"].as_i64().unwrap_or(0)) {
            ("", 0) => format!("ExitCode:{}", state["exitCode"]),
            ("", signal) => format!("Signal:{signal}"),
            (reason, _) => reason.to_owned(),
        }
    };
    let total = row.list("/spec/initContainers").len();
    let mut initializing = false;
    for (i, container) in row.list("/status/initContainerStatuses").iter().enumerate() {
        let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        if terminated["exitCode"] == 0 || container["started"] == true {
            continue;
        }
        status = if terminated.is_object() {
            format!("Init:{}", ended(terminated))
        } else {
            match waiting["reason"].as_str().unwrap_or_default() {
                "" | "PodInitializing" => format!("Init:{i}/{total}"),
                reason => format!("Init:{reason}"),
            }
        };
        initializing = true;
        break;
    }
    if !initializing {
        let mut running = false;
        for container in row.list("/status/containerStatuses").iter().rev() {
            let state = &container["state"];
            if let Some(reason) = state["waiting"]["reason"].as_str().filter(|r| !r.is_empty()) {
                status = reason.to_owned();
            } else if state["terminated"].is_object() {
                status = ended(&state["terminated"]);
            } else if container["ready"] == true && state["running"].is_object() {
                running = true;
            }
        }
        if status == "Completed" && running {
            let ready = row.list("/status/conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            status = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
    match (metadata::is_terminating(row.value), row.text("/status/phase")) {
        (true, "Succeeded" | "Failed") | (false, _) => status,
        _ => "Terminating".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_shows_what_holds_it_up() {
        let now = Timestamp::now();
        for (status, expected) in [
            (json!({"phase": "Pending"}), "Pending"),
            (
                json!({"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                "CrashLoopBackOff",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
                "Init:ImagePullBackOff",
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}),
                "Completed",
            ),
        ] {
            let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{}]}, "status": status});
            assert_eq!(cells("", "Pod", &pod, now)[2], expected);
        }
    }

    #[test]
    fn every_kind_has_a_cell_for_each_column() {
        for resource in crate::sandbox::builtin::resources() {
            let value = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}});
            let cells = cells(&resource.group, &resource.kind, &value, Timestamp::now());
            assert_eq!(cells.len(), definitions(&resource.group, &resource.kind).len());
        }
    }
}
