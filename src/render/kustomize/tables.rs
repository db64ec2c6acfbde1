//! Kustomize's default field specs, as data: which fields hold labels, names, images, namespaces, replicas.

use super::field_spec::{FieldSpec, NameReference, Tables};

/// Kinds with a Pod template, and where it is.
const DEPLOYMENT: (&str, &str) = ("Deployment", "spec/template/");
const REPLICA_SET: (&str, &str) = ("ReplicaSet", "spec/template/");
const DAEMON_SET: (&str, &str) = ("DaemonSet", "spec/template/");
const STATEFUL_SET: (&str, &str) = ("StatefulSet", "spec/template/");
const CONTROLLER: (&str, &str) = ("ReplicationController", "spec/template/");
const JOB: (&str, &str) = ("Job", "spec/template/");
const CRON_JOB: (&str, &str) = ("CronJob", "spec/jobTemplate/spec/template/");
const TEMPLATE: (&str, &str) = ("PodTemplate", "template/");
const POD: (&str, &str) = ("Pod", "");

/// Whose Pods refer to ConfigMaps and Secrets.
const WITH_CONFIG: [(&str, &str); 8] =
    [POD, TEMPLATE, DEPLOYMENT, REPLICA_SET, DAEMON_SET, STATEFUL_SET, JOB, CRON_JOB];
/// Whose Pods refer to accounts, claims and priority classes.
const WITH_ACCOUNT: [(&str, &str); 7] = [POD, STATEFUL_SET, DEPLOYMENT, CONTROLLER, CRON_JOB, JOB, DAEMON_SET];

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

fn spec(group: &str, version: &str, kind: &str, path: impl Into<String>, create: bool) -> FieldSpec {
    FieldSpec { group: group.into(), version: version.into(), kind: kind.into(), path: path.into(), create }
}

/// A reference in objects of a kind.
fn of(kind: &str, path: &str) -> FieldSpec {
    spec("", "", kind, path, false)
}

pub fn defaults() -> Tables {
    let mut common_labels = selectors();
    common_labels.extend(metadata_labels());
    Tables {
        name_prefix: vec![spec("", "", "", "metadata/name", false)],
        name_suffix: vec![spec("", "", "", "metadata/name", false)],
        namespace: vec![
            spec("", "", "Namespace", "metadata/name", true),
            spec("apiregistration.k8s.io", "", "APIService", "spec/service/namespace", true),
            spec(
                "apiextensions.k8s.io",
                "",
                "CustomResourceDefinition",
                "spec/conversion/webhook/clientConfig/service/namespace",
                false,
            ),
        ],
        common_labels,
        labels: Vec::new(),
        template_labels: metadata_labels(),
        common_annotations: annotations(),
        name_reference: references(),
        var_reference: variables(),
        images: images(),
        replicas: ["Deployment", "ReplicationController", "ReplicaSet", "StatefulSet"]
            .map(|kind| spec("", "", kind, "spec/replicas", true))
            .into(),
    }
}

fn selectors() -> Vec<FieldSpec> {
    let mut specs = vec![
        spec("", "v1", "Service", "spec/selector", true),
        spec("", "v1", "ReplicationController", "spec/selector", true),
    ];
    for (group, kind) in [("", "Deployment"), ("", "ReplicaSet"), ("", "DaemonSet"), ("apps", "StatefulSet")] {
        specs.push(spec(group, "", kind, "spec/selector/matchLabels", true));
    }
    for kind in ["Deployment", "StatefulSet"] {
        for affinity in ["podAffinity", "podAntiAffinity"] {
            let base = format!("spec/template/spec/affinity/{affinity}");
            let preferred = "preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm";
            for term in [preferred, "requiredDuringSchedulingIgnoredDuringExecution"] {
                specs.push(spec("apps", "", kind, format!("{base}/{term}/labelSelector/matchLabels"), false));
            }
        }
        let spread = "spec/template/spec/topologySpreadConstraints/labelSelector/matchLabels";
        specs.push(spec("apps", "", kind, spread, false));
    }
    for (group, kind, path) in [
        ("batch", "Job", "spec/selector/matchLabels"),
        ("batch", "CronJob", "spec/jobTemplate/spec/selector/matchLabels"),
        ("policy", "PodDisruptionBudget", "spec/selector/matchLabels"),
        ("networking.k8s.io", "NetworkPolicy", "spec/podSelector/matchLabels"),
        ("networking.k8s.io", "NetworkPolicy", "spec/ingress/from/podSelector/matchLabels"),
        ("networking.k8s.io", "NetworkPolicy", "spec/egress/to/podSelector/matchLabels"),
    ] {
        specs.push(spec(group, "", kind, path, false));
    }
    specs
}

fn metadata_labels() -> Vec<FieldSpec> {
    vec![
        spec("", "", "", "metadata/labels", true),
        spec("", "v1", "ReplicationController", "spec/template/metadata/labels", true),
        spec("", "", "Deployment", "spec/template/metadata/labels", true),
        spec("", "", "ReplicaSet", "spec/template/metadata/labels", true),
        spec("", "", "DaemonSet", "spec/template/metadata/labels", true),
        spec("apps", "", "StatefulSet", "spec/template/metadata/labels", true),
        spec("apps", "", "StatefulSet", "spec/volumeClaimTemplates[]/metadata/labels", true),
        spec("batch", "", "Job", "spec/template/metadata/labels", true),
        spec("batch", "", "CronJob", "spec/jobTemplate/metadata/labels", true),
        spec("batch", "", "CronJob", "spec/jobTemplate/spec/template/metadata/labels", true),
    ]
}

fn annotations() -> Vec<FieldSpec> {
    vec![
        spec("", "", "", "metadata/annotations", true),
        spec("", "v1", "ReplicationController", "spec/template/metadata/annotations", true),
        spec("", "", "Deployment", "spec/template/metadata/annotations", true),
        spec("", "", "ReplicaSet", "spec/template/metadata/annotations", true),
        spec("", "", "DaemonSet", "spec/template/metadata/annotations", true),
        spec("", "", "StatefulSet", "spec/template/metadata/annotations", true),
        spec("batch", "", "Job", "spec/template/metadata/annotations", true),
        spec("batch", "", "CronJob", "spec/jobTemplate/metadata/annotations", true),
        spec("batch", "", "CronJob", "spec/jobTemplate/spec/template/metadata/annotations", true),
    ]
}

fn images() -> Vec<FieldSpec> {
    let mut specs = Vec::new();
    for base in ["spec", "spec/template/spec"] {
        for field in ["containers[]/image", "initContainers[]/image", "volumes[]/image/reference"] {
            specs.push(spec("", "", "", format!("{base}/{field}"), true));
        }
    }
    specs
}

fn reference(group: &str, version: &str, kind: &str, field_specs: Vec<FieldSpec>) -> NameReference {
    NameReference { group: group.into(), version: version.into(), kind: kind.into(), field_specs }
}

/// Fields of the Pods of some kinds. A Pod's own are told apart by its version, as kustomize does for some.
fn in_pods(kinds: &[(&str, &str)], pod_version: &str, paths: &[&str]) -> Vec<FieldSpec> {
    let of_kind = |(kind, base): &(&str, &str)| -> Vec<FieldSpec> {
        let version = if *kind == "Pod" { pod_version } else { "" };
        paths.iter().map(|path| spec("", version, kind, format!("{base}spec/{path}"), false)).collect()
    };
    kinds.iter().flat_map(of_kind).collect()
}

fn variables() -> Vec<FieldSpec> {
    let mut specs = Vec::new();
    for (kind, base) in [CRON_JOB, DAEMON_SET, DEPLOYMENT, JOB, POD, REPLICA_SET, STATEFUL_SET] {
        for containers in ["containers", "initContainers"] {
            for field in ["args", "command", "env/value", "volumeMounts/mountPath"] {
                specs.push(of(kind, &format!("{base}spec/{containers}/{field}")));
            }
        }
        specs.push(match kind {
            // kustomize's own slip: there is nothing at this path
            "CronJob" => of(kind, "spec/jobTemplate/spec/template/volumes/nfs/server"),
            "StatefulSet" => of(kind, "spec/volumeClaimTemplates/spec/nfs/server"),
            _ => of(kind, &format!("{base}spec/volumes/nfs/server")),
        });
    }
    for (kind, path) in [
        ("Deployment", "spec/template/metadata/annotations"),
        ("Ingress", "spec/rules/host"),
        ("Ingress", "spec/tls/hosts"),
        ("Ingress", "spec/tls/secretName"),
        ("Service", "spec/ports/port"),
        ("Service", "spec/ports/targetPort"),
        ("PersistentVolume", "spec/nfs/server"),
        ("", "metadata/labels"),
        ("", "metadata/annotations"),
    ] {
        specs.push(of(kind, path));
    }
    specs
}

fn references() -> Vec<NameReference> {
    let scaled = || vec![of("HorizontalPodAutoscaler", "spec/scaleTargetRef/name")];
    let mut all: Vec<_> = ["Deployment", "ReplicationController", "ReplicaSet", "StatefulSet"]
        .map(|kind| reference("", "", kind, scaled()))
        .into();

    let mut config_maps = in_pods(
        &WITH_CONFIG,
        "v1",
        &[
            "volumes/configMap/name",
            "containers/env/valueFrom/configMapKeyRef/name",
            "initContainers/env/valueFrom/configMapKeyRef/name",
            "containers/envFrom/configMapRef/name",
            "initContainers/envFrom/configMapRef/name",
            "volumes/projected/sources/configMap/name",
        ],
    );
    config_maps.extend([
        of("Node", "spec/configSource/configMap"),
        of("Role", "rules/resourceNames"),
        of("ClusterRole", "rules/resourceNames"),
        of("Ingress", r"metadata/annotations/nginx.ingress.kubernetes.io\/fastcgi-params-configmap"),
    ]);
    all.push(reference("", "v1", "ConfigMap", config_maps));

    let mut secrets = in_pods(
        &WITH_CONFIG,
        "v1",
        &[
            "volumes/secret/secretName",
            "containers/env/valueFrom/secretKeyRef/name",
            "initContainers/env/valueFrom/secretKeyRef/name",
            "containers/envFrom/secretRef/name",
            "initContainers/envFrom/secretRef/name",
            "imagePullSecrets/name",
            "volumes/projected/sources/secret/name",
        ],
    );
    secrets.extend([
        of("Ingress", "spec/tls/secretName"),
        of("Ingress", r"metadata/annotations/ingress.kubernetes.io\/auth-secret"),
        of("Ingress", r"metadata/annotations/nginx.ingress.kubernetes.io\/auth-secret"),
        of("Ingress", r"metadata/annotations/nginx.ingress.kubernetes.io\/auth-tls-secret"),
        of("ServiceAccount", "imagePullSecrets/name"),
        of("StorageClass", "parameters/secretName"),
        of("StorageClass", "parameters/adminSecretName"),
        of("StorageClass", "parameters/userSecretName"),
        of("StorageClass", "parameters/secretRef"),
        of("Role", "rules/resourceNames"),
        of("ClusterRole", "rules/resourceNames"),
        spec(
            "serving.knative.dev",
            "v1",
            "Service",
            "spec/template/spec/containers/env/valueFrom/secretKeyRef/name",
            false,
        ),
        of("PersistentVolume", "spec/azureFile/secretName"),
    ]);
    all.push(reference("", "v1", "Secret", secrets));

    all.push(reference(
        "",
        "v1",
        "Service",
        vec![
            spec("apps", "", "StatefulSet", "spec/serviceName", false),
            of("Ingress", "spec/rules/http/paths/backend/serviceName"),
            of("Ingress", "spec/backend/serviceName"),
            of("Ingress", "spec/rules/http/paths/backend/service/name"),
            of("Ingress", "spec/defaultBackend/service/name"),
            spec("apiregistration.k8s.io", "", "APIService", "spec/service/name", false),
            spec(ADMISSION, "", "ValidatingWebhookConfiguration", "webhooks/clientConfig/service", false),
            spec(ADMISSION, "", "MutatingWebhookConfiguration", "webhooks/clientConfig/service", false),
        ],
    ));
    all.push(reference(RBAC, "", "Role", vec![spec(RBAC, "", "RoleBinding", "roleRef/name", false)]));
    let bindings = ["RoleBinding", "ClusterRoleBinding"];
    let role_refs = bindings.map(|kind| spec(RBAC, "", kind, "roleRef/name", false));
    all.push(reference(RBAC, "", "ClusterRole", role_refs.into()));

    let mut accounts: Vec<_> = bindings.map(|kind| spec(RBAC, "", kind, "subjects", false)).into();
    accounts.extend(in_pods(&WITH_ACCOUNT, "", &["serviceAccountName"]));
    all.push(reference("", "v1", "ServiceAccount", accounts));
    let claims = in_pods(&WITH_ACCOUNT, "", &["volumes/persistentVolumeClaim/claimName"]);
    all.push(reference("", "v1", "PersistentVolumeClaim", claims));
    let volumes = vec![of("PersistentVolumeClaim", "spec/volumeName"), of("ClusterRole", "rules/resourceNames")];
    all.push(reference("", "v1", "PersistentVolume", volumes));
    all.push(reference(
        "storage.k8s.io",
        "v1",
        "StorageClass",
        vec![
            of("PersistentVolume", "spec/storageClassName"),
            of("PersistentVolumeClaim", "spec/storageClassName"),
            of("StatefulSet", "spec/volumeClaimTemplates/spec/storageClassName"),
        ],
    ));
    let priorities = in_pods(&WITH_ACCOUNT, "", &["priorityClassName"]);
    all.push(reference("scheduling.k8s.io", "v1", "PriorityClass", priorities));
    // the group is kustomize's own slip: no object has it, and so nothing is renamed
    let classes = vec![of("Ingress", "spec/ingressClassName")];
    all.push(reference("networking.k8s.io/v1", "v1", "IngressClass", classes));
    let policies = vec![spec(ADMISSION, "", "ValidatingAdmissionPolicyBinding", "spec/policyName", false)];
    all.push(reference(ADMISSION, "", "ValidatingAdmissionPolicy", policies));
    all
}
