//! Defaults of built-in kinds, as the API server writes them into every object it stores.

use serde_json::{Map, Value, json};

/// Completes an object of a built-in kind. Fields of the wrong type are left for validation to name.
pub fn fill(group: &str, kind: &str, value: &mut Value) {
    match (group, kind) {
        ("", "Pod") => {
            if let Some(spec) = map_at(value, "spec") {
                pod_spec(spec);
                set(spec, "enableServiceLinks", true);
                host_ports(spec);
                requests_from_limits(spec);
            }
        }
        ("", "PodTemplate") => template(map_at(value, "template")),
        ("", "ReplicationController") => replication_controller(value),
        ("apps", "Deployment") => deployment(value),
        ("apps", "StatefulSet") => stateful_set(value),
        ("apps", "DaemonSet") => daemon_set(value),
        ("apps", "ReplicaSet") => {
            if let Some(spec) = map_at(value, "spec") {
                set(spec, "replicas", 1);
                template(map_in(spec, "template"));
            }
        }
        ("batch", "Job") => {
            if let Some(spec) = map_at(value, "spec") {
                job_spec(spec);
                set(spec, "completionMode", "NonIndexed");
                set(spec, "suspend", false);
                let fails = spec.get("podFailurePolicy").is_some_and(|policy| !policy.is_null());
                set(spec, "podReplacementPolicy", if fails { "Failed" } else { "TerminatingOrFailed" });
                set(spec, "manualSelector", false);
            }
            job_labels(value);
        }
        ("batch", "CronJob") => cron_job(value),
        ("", "Service") => service(value),
        ("", "Secret") => set_at(value, "type", "Opaque"),
        ("", "PersistentVolumeClaim") => {
            if let Some(spec) = map_at(value, "spec") {
                set(spec, "volumeMode", "Filesystem");
            }
        }
        ("", "PersistentVolume") => {
            if let Some(spec) = map_at(value, "spec") {
                set(spec, "persistentVolumeReclaimPolicy", "Retain");
                set(spec, "volumeMode", "Filesystem");
            }
        }
        ("", "Endpoints") => {
            for subset in items(value.as_object_mut(), "subsets") {
                for port in items(subset.as_object_mut(), "ports") {
                    set_at(port, "protocol", "TCP");
                }
            }
        }
        ("networking.k8s.io", "NetworkPolicy") => network_policy(value),
        ("storage.k8s.io", "StorageClass") => {
            set_at(value, "reclaimPolicy", "Delete");
            set_at(value, "volumeBindingMode", "Immediate");
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => role_binding(value),
        ("autoscaling", "HorizontalPodAutoscaler") => {
            if let Some(spec) = map_at(value, "spec") {
                set(spec, "minReplicas", 1);
                let metric = json!([{ "type": "Resource", "resource": { "name": "cpu",
                    "target": { "type": "Utilization", "averageUtilization": 80 } } }]);
                set(spec, "metrics", metric);
            }
        }
        ("scheduling.k8s.io", "PriorityClass") => set_at(value, "preemptionPolicy", "PreemptLowerPriority"),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration") => {
            webhooks(value, kind == "MutatingWebhookConfiguration");
        }
        _ => {}
    }
}

/// Sets a field that is absent or null.
fn set(map: &mut Map<String, Value>, field: &str, default: impl Into<Value>) {
    let entry = map.entry(field).or_insert(Value::Null);
    if entry.is_null() {
        *entry = default.into();
    }
}

/// As [`set`], also where the field is an empty text: Go's zero value counts as absent.
fn set_text(map: &mut Map<String, Value>, field: &str, default: &str) {
    let entry = map.entry(field).or_insert(Value::Null);
    if entry.is_null() || entry == "" {
        *entry = default.into();
    }
}

fn set_at(value: &mut Value, field: &str, default: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        set(map, field, default);
    }
}

fn map_at<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    value.get_mut(field).and_then(Value::as_object_mut)
}

fn map_in<'a>(map: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(field).and_then(Value::as_object_mut)
}

/// The map in a field, made if it is absent.
fn made<'a>(map: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    set(map, field, json!({}));
    map_in(map, field)
}

fn items<'a>(map: Option<&'a mut Map<String, Value>>, field: &str) -> impl Iterator<Item = &'a mut Value> {
    map.and_then(|m| m.get_mut(field)).and_then(Value::as_array_mut).into_iter().flatten()
}

fn deployment(value: &mut Value) {
    let Some(spec) = map_at(value, "spec") else { return };
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = made(spec, "strategy") {
        set_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = made(strategy, "rollingUpdate")
        {
            set(rolling, "maxUnavailable", "25%");
            set(rolling, "maxSurge", "25%");
        }
    }
    template(map_in(spec, "template"));
}

fn stateful_set(value: &mut Value) {
    let Some(spec) = map_at(value, "spec") else { return };
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set_text(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = made(spec, "updateStrategy") {
        set_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = made(strategy, "rollingUpdate")
        {
            set(rolling, "partition", 0);
        }
    }
    if let Some(policy) = made(spec, "persistentVolumeClaimRetentionPolicy") {
        set_text(policy, "whenDeleted", "Retain");
        set_text(policy, "whenScaled", "Retain");
    }
    for claim in items(Some(spec), "volumeClaimTemplates") {
        set_at(claim, "apiVersion", "v1");
        set_at(claim, "kind", "PersistentVolumeClaim");
        if let Some(spec) = map_at(claim, "spec") {
            set(spec, "volumeMode", "Filesystem");
        }
        if let Some(status) = claim.as_object_mut().and_then(|claim| made(claim, "status")) {
            set_text(status, "phase", "Pending");
        }
    }
    template(map_in(spec, "template"));
}

fn daemon_set(value: &mut Value) {
    if let Some(annotations) = map_at(value, "metadata").and_then(|metadata| made(metadata, "annotations")) {
        set(annotations, super::TEMPLATE_GENERATION, "0");
    }
    let Some(spec) = map_at(value, "spec") else { return };
    set(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = made(spec, "updateStrategy") {
        set_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = made(strategy, "rollingUpdate")
        {
            set(rolling, "maxUnavailable", 1);
            set(rolling, "maxSurge", 0);
        }
    }
    template(map_in(spec, "template"));
}

fn replication_controller(value: &mut Value) {
    let Some(spec) = map_at(value, "spec") else { return };
    set(spec, "replicas", 1);
    template(map_in(spec, "template"));
    let labels = spec.get("template").and_then(|t| t.pointer("/metadata/labels")).cloned();
    if let Some(labels) = labels {
        set(spec, "selector", labels);
    }
}

fn job_spec(spec: &mut Map<String, Value>) {
    let neither =
        spec.get("completions").is_none_or(Value::is_null) && spec.get("parallelism").is_none_or(Value::is_null);
    if neither {
        set(spec, "completions", 1);
    }
    set(spec, "parallelism", 1);
    set(spec, "backoffLimit", 6);
    template(map_in(spec, "template"));
}

/// A Job without labels has those of its Pods.
pub fn job_labels(job: &mut Value) {
    let is_filled = |labels: &Value| labels.as_object().is_some_and(|labels| !labels.is_empty());
    let Some(labels) = job.pointer("/spec/template/metadata/labels").filter(|labels| is_filled(labels)).cloned() else {
        return;
    };
    if let Some(metadata) = map_at(job, "metadata")
        && !metadata.get("labels").is_some_and(is_filled)
    {
        metadata.insert("labels".into(), labels);
    }
}

fn cron_job(value: &mut Value) {
    let Some(spec) = map_at(value, "spec") else { return };
    set_text(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", false);
    set(spec, "successfulJobsHistoryLimit", 3);
    set(spec, "failedJobsHistoryLimit", 1);
    // a template's Job is completed when it is made; only its Pods are completed now
    if let Some(job) = map_in(spec, "jobTemplate").and_then(|t| map_in(t, "spec")) {
        template(map_in(job, "template"));
    }
}

fn service(value: &mut Value) {
    let Some(spec) = map_at(value, "spec") else { return };
    set_text(spec, "sessionAffinity", "None");
    set_text(spec, "type", "ClusterIP");
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if spec["sessionAffinity"] == "ClientIP"
        && let Some(config) = made(spec, "sessionAffinityConfig").and_then(|c| made(c, "clientIP"))
    {
        set(config, "timeoutSeconds", 10800);
    }
    for port in items(Some(spec), "ports") {
        let Some(port) = port.as_object_mut() else { continue };
        set_text(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or(Value::Null);
        let target = port.entry("targetPort").or_insert(Value::Null);
        if target.is_null() || *target == 0 || *target == "" {
            *target = number;
        }
    }
    if kind != "ExternalName" {
        set_text(spec, "internalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        set_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn network_policy(value: &mut Value) {
    let Some(spec) = map_at(value, "spec") else { return };
    let has_egress = spec.get("egress").and_then(Value::as_array).is_some_and(|e| !e.is_empty());
    let types = if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    set(spec, "policyTypes", types);
    for (direction, _) in [("ingress", 0), ("egress", 0)] {
        for rule in items(Some(spec), direction) {
            for port in items(rule.as_object_mut(), "ports") {
                set_at(port, "protocol", "TCP");
            }
        }
    }
}

fn role_binding(value: &mut Value) {
    if let Some(reference) = map_at(value, "roleRef") {
        set_text(reference, "apiGroup", "rbac.authorization.k8s.io");
    }
    for subject in items(value.as_object_mut(), "subjects") {
        let Some(subject) = subject.as_object_mut() else { continue };
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            set_text(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
}

fn webhooks(value: &mut Value, mutating: bool) {
    for webhook in items(value.as_object_mut(), "webhooks") {
        let Some(webhook) = webhook.as_object_mut() else { continue };
        set(webhook, "failurePolicy", "Fail");
        set(webhook, "matchPolicy", "Equivalent");
        set(webhook, "namespaceSelector", json!({}));
        set(webhook, "objectSelector", json!({}));
        set(webhook, "timeoutSeconds", 10);
        if mutating {
            set(webhook, "reinvocationPolicy", "Never");
        }
        if let Some(service) = map_in(webhook, "clientConfig").and_then(|c| map_in(c, "service")) {
            set(service, "port", 443);
        }
        for rule in items(Some(webhook), "rules") {
            set_at(rule, "scope", "*");
        }
    }
}

fn template(template: Option<&mut Map<String, Value>>) {
    let Some(template) = template else { return };
    if let Some(spec) = map_in(template, "spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Map<String, Value>) {
    set_text(spec, "dnsPolicy", "ClusterFirst");
    set_text(spec, "restartPolicy", "Always");
    set_text(spec, "schedulerName", "default-scheduler");
    set(spec, "securityContext", json!({}));
    set(spec, "terminationGracePeriodSeconds", 30);
    if let Some(account) = spec.get("serviceAccountName").filter(|a| *a != "").cloned() {
        set(spec, "serviceAccount", account);
    } else if let Some(account) = spec.get("serviceAccount").filter(|a| *a != "").cloned() {
        set(spec, "serviceAccountName", account);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for entry in items(Some(spec), list) {
            if let Some(entry) = entry.as_object_mut() {
                container(entry);
            }
        }
    }
    for entry in items(Some(spec), "volumes") {
        if let Some(entry) = entry.as_object_mut() {
            volume(entry);
        }
    }
}

/// A Pod in the host's network listens on the ports it names.
fn host_ports(spec: &mut Map<String, Value>) {
    if spec.get("hostNetwork") != Some(&Value::Bool(true)) {
        return;
    }
    for list in ["containers", "initContainers"] {
        for entry in items(Some(spec), list) {
            for port in items(entry.as_object_mut(), "ports") {
                let number = port.get("containerPort").cloned().unwrap_or(Value::Null);
                set_at(port, "hostPort", number);
            }
        }
    }
}

/// A Pod's container asks for what it is limited to, unless it says otherwise.
fn requests_from_limits(spec: &mut Map<String, Value>) {
    for list in ["containers", "initContainers"] {
        for entry in items(Some(spec), list) {
            let Some(resources) = map_at(entry, "resources") else { continue };
            let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { continue };
            if let Some(requests) = made(resources, "requests") {
                for (name, limit) in limits {
                    requests.entry(name).or_insert(limit);
                }
            }
        }
    }
}

fn container(container: &mut Map<String, Value>) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    // a name that is none has no tag that could be the latest
    let malformed = image.contains(|c: char| c.is_whitespace() || c.is_ascii_uppercase());
    let latest = !malformed && !image.contains('@') && {
        let name = image.rsplit('/').next().unwrap_or_default();
        name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
    };
    set_text(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    set(container, "resources", json!({}));
    set_text(container, "terminationMessagePath", "/dev/termination-log");
    set_text(container, "terminationMessagePolicy", "File");
    for port in items(Some(container), "ports") {
        set_at(port, "protocol", "TCP");
    }
    for variable in items(Some(container), "env") {
        if let Some(reference) = map_at(variable, "valueFrom").and_then(|from| map_in(from, "fieldRef")) {
            set_text(reference, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = map_in(container, name) else { continue };
        set(probe, "timeoutSeconds", 1);
        set(probe, "periodSeconds", 10);
        set(probe, "successThreshold", 1);
        set(probe, "failureThreshold", 3);
        if let Some(get) = map_in(probe, "httpGet") {
            http_get(get);
        }
        if let Some(grpc) = map_in(probe, "grpc") {
            set(grpc, "service", "");
        }
    }
    if let Some(lifecycle) = map_in(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(get) = map_in(lifecycle, hook).and_then(|h| map_in(h, "httpGet")) {
                http_get(get);
            }
        }
    }
}

fn http_get(get: &mut Map<String, Value>) {
    set_text(get, "path", "/");
    set_text(get, "scheme", "HTTP");
}

fn volume(volume: &mut Map<String, Value>) {
    let named = volume.iter().any(|(field, value)| field != "name" && !value.is_null());
    if !named {
        set(volume, "emptyDir", json!({}));
    }
    for (kind, field) in [
        ("secret", "defaultMode"),
        ("configMap", "defaultMode"),
        ("downwardAPI", "defaultMode"),
        ("projected", "defaultMode"),
    ] {
        if let Some(source) = map_in(volume, kind) {
            set(source, field, 420);
        }
    }
    if let Some(host) = map_in(volume, "hostPath") {
        set(host, "type", "");
    }
    for source in items(map_in(volume, "projected"), "sources") {
        if let Some(token) = map_at(source, "serviceAccountToken") {
            set(token, "expirationSeconds", 3600);
        }
        for item in items(map_at(source, "downwardAPI"), "items") {
            if let Some(reference) = map_at(item, "fieldRef") {
                set_text(reference, "apiVersion", "v1");
            }
        }
    }
    for item in items(map_in(volume, "downwardAPI"), "items") {
        if let Some(reference) = map_at(item, "fieldRef") {
            set_text(reference, "apiVersion", "v1");
        }
    }
    if let Some(disk) = map_in(volume, "iscsi") {
        set_text(disk, "iscsiInterface", "default");
    }
}
