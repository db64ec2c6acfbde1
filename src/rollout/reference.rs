//! Which Secrets and ConfigMaps the containers of a workload read.
//!
//! Followed: `env[].valueFrom` by key, `envFrom`, volumes with their listed items, projected volumes; of all containers,
//! those that run before or beside included. Not followed, since no container reads them or they change by themselves:
//! image pull secrets, service account tokens, `kube-root-ca.crt`, and the credentials of storage drivers.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// A Secret or a ConfigMap in the workload's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Configuration {
    pub kind: Kind,
    pub name: String,
}

impl Configuration {
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    /// From how it prints.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        let kind = match kind {
            "secret" => Kind::Secret,
            "configmap" => Kind::ConfigMap,
            _ => return None,
        };
        Some(Self::new(kind, name))
    }
}

/// `secret/a`, as kubectl names it.
impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str().to_ascii_lowercase(), self.name)
    }
}

/// What of an object is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All of it; `keys` then says only which must be there.
    pub whole: bool,
    /// Without the object no Pod starts.
    pub required: bool,
    /// Keys that are read by name; `true`: without it no Pod starts.
    pub keys: BTreeMap<String, bool>,
}

impl Wanted {
    /// All of it, whether it is there or not.
    pub fn if_there() -> Self {
        Self { whole: true, ..Self::default() }
    }
}

pub type References = BTreeMap<Configuration, Wanted>;

/// Every namespace has it, and the cluster rotates it by itself.
const CLUSTER_CA: &str = "kube-root-ca.crt";
/// Where Helm keeps its releases.
const HELM_RELEASE_PREFIX: &str = "sh.helm.release.v1.";

/// True for what is never followed, by its name.
fn is_ambient(configuration: &Configuration) -> bool {
    match configuration.kind {
        Kind::ConfigMap => configuration.name == CLUSTER_CA,
        Kind::Secret => configuration.name.starts_with(HELM_RELEASE_PREFIX),
    }
}

/// What the Pods of this specification read.
pub fn references(pod_spec: &Value) -> References {
    let mut found = References::new();
    for containers in ["initContainers", "containers"] {
        for container in each(pod_spec, containers) {
            for variable in each(container, "env") {
                let Some(from) = variable.get("valueFrom") else { continue };
                for (field, kind) in [("secretKeyRef", Kind::Secret), ("configMapKeyRef", Kind::ConfigMap)] {
                    if let Some(selector) = from.get(field) {
                        note_key(&mut found, kind, selector);
                    }
                }
            }
            for source in each(container, "envFrom") {
                for (field, kind) in [("secretRef", Kind::Secret), ("configMapRef", Kind::ConfigMap)] {
                    if let Some(source) = source.get(field) {
                        note_source(&mut found, kind, source, "name");
                    }
                }
            }
        }
    }
    for volume in each(pod_spec, "volumes") {
        for (field, kind, name) in [("secret", Kind::Secret, "secretName"), ("configMap", Kind::ConfigMap, "name")] {
            if let Some(source) = volume.get(field) {
                note_source(&mut found, kind, source, name);
            }
        }
        for source in volume.get("projected").into_iter().flat_map(|projected| each(projected, "sources")) {
            for (field, kind) in [("secret", Kind::Secret), ("configMap", Kind::ConfigMap)] {
                if let Some(source) = source.get(field) {
                    note_source(&mut found, kind, source, "name");
                }
            }
        }
    }
    found.retain(|configuration, _| !is_ambient(configuration));
    found
}

fn each<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

/// One key of an object.
fn note_key(found: &mut References, kind: Kind, selector: &Value) {
    let text = |field: &str| selector.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (Some(name), Some(key)) = (text("name"), text("key")) else { return };
    let required = !is_optional(selector);
    let wanted = found.entry(Configuration::new(kind, name)).or_default();
    wanted.required |= required;
    *wanted.keys.entry(key.to_owned()).or_default() |= required;
}

/// The listed items of an object, or all of it.
fn note_source(found: &mut References, kind: Kind, source: &Value, name: &str) {
    let Some(name) = source.get(name).and_then(Value::as_str).filter(|name| !name.is_empty()) else { return };
    let required = !is_optional(source);
    let wanted = found.entry(Configuration::new(kind, name)).or_default();
    wanted.required |= required;
    let mut listed = false;
    for key in each(source, "items").filter_map(|item| item.get("key")?.as_str()) {
        listed = true;
        *wanted.keys.entry(key.to_owned()).or_default() |= required;
    }
    wanted.whole |= !listed;
}

fn is_optional(source: &Value) -> bool {
    source.get("optional").and_then(Value::as_bool).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `secret/a!: user! more` reads: without `a` and its key `user` no Pod starts; `*` is all of it.
    fn told(references: &References) -> Vec<String> {
        let mark = |required: bool| if required { "!" } else { "" };
        references
            .iter()
            .map(|(configuration, wanted)| {
                let keys: Vec<_> =
                    wanted.keys.iter().map(|(key, required)| format!("{key}{}", mark(*required))).collect();
                let all = if wanted.whole { " *" } else { "" };
                let keys = if keys.is_empty() { String::new() } else { format!(" {}", keys.join(" ")) };
                format!("{configuration}{}:{all}{keys}", mark(wanted.required))
            })
            .collect()
    }

    #[test]
    fn every_way_to_read_configuration_is_followed_as_far_as_it_reads() {
        let container = |fields: Value| json!({"containers": [fields]});
        let cases = [
            ("nothing", json!({}), vec![]),
            (
                "a key of a Secret",
                container(json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "a", "key": "k"}}}]})),
                vec!["secret/a!: k!"],
            ),
            (
                "a key of a ConfigMap that may be absent",
                container(
                    json!({"env": [{"valueFrom": {"configMapKeyRef": {"name": "a", "key": "k", "optional": true}}}]}),
                ),
                vec!["configmap/a: k"],
            ),
            (
                "all of a Secret and of a ConfigMap",
                container(
                    json!({"envFrom": [{"secretRef": {"name": "a"}}, {"configMapRef": {"name": "b", "optional": true}}]}),
                ),
                vec!["configmap/b: *", "secret/a!: *"],
            ),
            (
                "init containers and sidecars",
                json!({"initContainers": [
                    {"envFrom": [{"secretRef": {"name": "init"}}]},
                    {"restartPolicy": "Always", "envFrom": [{"secretRef": {"name": "sidecar"}}]},
                ]}),
                vec!["secret/init!: *", "secret/sidecar!: *"],
            ),
            (
                "volumes",
                json!({"volumes": [
                    {"secret": {"secretName": "a"}},
                    {"configMap": {"name": "b", "items": [{"key": "x", "path": "y"}]}},
                    {"secret": {"secretName": "c", "optional": true, "items": [{"key": "z", "path": "z"}]}},
                    {"emptyDir": {}},
                ]}),
                vec!["configmap/b!: x!", "secret/a!: *", "secret/c: z"],
            ),
            (
                "projected volumes",
                json!({"volumes": [{"projected": {"sources": [
                    {"secret": {"name": "a", "items": [{"key": "x", "path": "y"}]}},
                    {"configMap": {"name": "b"}},
                    {"serviceAccountToken": {"path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt"}},
                ]}}]}),
                vec!["configmap/b!: *", "secret/a!: x!"],
            ),
            (
                "one object read in several ways",
                json!({
                    "containers": [
                        {"env": [{"valueFrom": {"secretKeyRef": {"name": "a", "key": "k", "optional": true}}}]},
                        {"env": [{"valueFrom": {"secretKeyRef": {"name": "a", "key": "j"}}}]},
                    ],
                    "volumes": [{"secret": {"secretName": "a", "optional": true}}],
                }),
                vec!["secret/a!: * j! k"],
            ),
            (
                "what no container reads, or what is not ours to follow",
                json!({
                    "imagePullSecrets": [{"name": "registry"}],
                    "serviceAccountName": "web",
                    "volumes": [
                        {"cephfs": {"secretRef": {"name": "ceph"}}},
                        {"csi": {"nodePublishSecretRef": {"name": "csi"}}},
                        {"secret": {"secretName": "sh.helm.release.v1.web.v3"}},
                    ],
                }),
                vec![],
            ),
            (
                "what has an odd form is the API server's to refuse",
                json!({"containers": "x", "volumes": [{"secret": null}, {"secret": {"secretName": 3}}, 7]}),
                vec![],
            ),
        ];
        for (what, pod_spec, expected) in cases {
            assert_eq!(told(&references(&pod_spec)), expected, "{what}");
        }
    }

    #[test]
    fn a_configuration_is_read_as_it_prints() {
        for text in ["secret/a", "configmap/a.b"] {
            assert_eq!(Configuration::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Configuration::parse("job/a"), None);
    }
}
