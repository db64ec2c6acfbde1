//! Trees made from random choices: overlays over bases, components, generators, patches, references by name.
//!
//! A tree is made from a list of bytes, one for each choice; where they end, the first and simplest is taken. So a tree
//! that fails shrinks with its bytes.

use std::fmt::Write as _;

use crate::corpus::{Case, Content};

pub struct Choices<'a>(std::slice::Iter<'a, u8>);

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.iter())
    }

    /// One of the numbers below `count`.
    fn number(&mut self, count: usize) -> usize {
        self.0.next().map_or(0, |byte| usize::from(*byte) % count)
    }

    fn one<'b>(&mut self, all: &[&'b str]) -> &'b str {
        all[self.number(all.len())]
    }

    /// True once in `rarity` times, and never where choices have ended.
    fn sometimes(&mut self, rarity: usize) -> bool {
        self.number(rarity) == rarity - 1
    }
}

const NAMES: [&str; 4] = ["web", "db", "app-config", "x1"];
const NAMESPACES: [&str; 3] = ["", "default", "team"];
const TEXTS: [&str; 12] = [
    "text",
    "\"quoted\"",
    "'single'",
    "yes",
    "\"1\"",
    "1",
    "1.50",
    "0644",
    "\"a: b # c\"",
    "2020-01-02",
    "null",
    "\"multi\\nline\"",
];
/// Keys that several levels write.
const KEYS: [&str; 3] = ["l", "app", "tier"];
/// Values that are text in every reading.
const LABELS: [&str; 5] = ["a", "\"1\"", "\"true\"", "b-c.d", "\"\""];
const IMAGES: [&str; 4] = ["nginx", "\"nginx:1.25\"", "\"registry.example.com:5000/app:v1\"", "\"app@sha256:0123\""];

/// A whole tree, and the directory that is built.
pub fn tree(choices: &mut Choices<'_>) -> Case {
    let mut files = Vec::new();
    let mut directories: Vec<String> = Vec::new();
    for level in 0..=choices.number(3) {
        let directory = format!("level{level}");
        let mut kustomization = String::new();
        let mut resources = Vec::new();
        if level == 0 || choices.sometimes(3) {
            for file in 0..=choices.number(3) {
                let name = format!("r{file}.yaml");
                files.push((format!("{directory}/{name}"), objects(choices)));
                resources.push(name);
            }
        }
        if level > 0 {
            resources.push(format!("../{}", directories[level - 1]));
            // a diamond
            if level > 1 && choices.sometimes(6) {
                resources.push(format!("../{}", directories[level - 2]));
            }
        }
        let _ = writeln!(kustomization, "resources: [{}]", resources.join(", "));
        fields(choices, &mut kustomization, level);
        if choices.sometimes(4) {
            let component = format!("component{level}");
            let _ = writeln!(kustomization, "components: [../{component}]");
            let mut text = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n".to_owned();
            if choices.sometimes(2) {
                text.push_str("resources: [more.yaml]\n");
                files.push((format!("{component}/more.yaml"), objects(choices)));
            }
            fields(choices, &mut text, level);
            files.push((format!("{component}/kustomization.yaml"), text));
        }
        files.push((format!("{directory}/kustomization.yaml"), kustomization));
        files.push((format!("{directory}/settings.env"), "A=1\nB=two\n".to_owned()));
        directories.push(directory);
    }
    let directory = directories.pop().unwrap_or_default();
    let files = files.into_iter().map(|(path, text)| (path, Content::File(text.into_bytes()))).collect();
    Case { name: "random".into(), group: "random".into(), directory, files }
}

fn metadata(choices: &mut Choices<'_>, name: &str) -> String {
    let mut text = format!("metadata:\n  name: {name}\n");
    let namespace = choices.one(&NAMESPACES);
    if !namespace.is_empty() {
        let _ = writeln!(text, "  namespace: {namespace}");
    }
    if choices.sometimes(2) {
        let _ = writeln!(text, "  labels: {{app: {}, tier: {}}}", choices.one(&LABELS), choices.one(&LABELS));
    }
    if choices.sometimes(4) {
        let _ = writeln!(text, "  annotations: {{note: {}}}", choices.one(&LABELS));
    }
    text
}

fn objects(choices: &mut Choices<'_>) -> String {
    let count = choices.number(3) + 1;
    let documents: Vec<String> = (0..count).map(|_| object(choices)).collect();
    documents.join("---\n")
}

fn object(choices: &mut Choices<'_>) -> String {
    let name = choices.one(&NAMES);
    let other = choices.one(&NAMES);
    let kind = choices.number(12);
    let metadata = metadata(choices, name);
    let head = |version: &str, kind: &str| format!("apiVersion: {version}\nkind: {kind}\n{metadata}");
    match kind {
        0 => {
            let mut text = head("v1", "ConfigMap");
            let _ = writeln!(text, "data:\n  key: {}\n  other: {}", choices.one(&LABELS), choices.one(&LABELS));
            text
        }
        1 => head("v1", "Secret") + "stringData: {password: secret}\n",
        2 | 3 => {
            let (kind, extra) = if kind == 2 { ("Deployment", "") } else { ("StatefulSet", "  serviceName: web\n") };
            let mut text = head("apps/v1", kind) + "spec:\n" + extra;
            if choices.sometimes(2) {
                let _ = writeln!(text, "  replicas: {}", choices.number(5));
            }
            text.push_str("  selector: {matchLabels: {app: a}}\n  template:\n    metadata: {labels: {app: a}}\n");
            text.push_str(&indented(&pod(choices, other), 4));
            text
        }
        4 => head("v1", "Service") + "spec:\n  selector: {app: a}\n  ports: [{port: 80, name: http}, {port: 443}]\n",
        5 => {
            let mut text = head("networking.k8s.io/v1", "Ingress");
            let _ = writeln!(
                text,
                "spec:\n  tls: [{{secretName: {other}}}]\n  defaultBackend: {{service: {{name: {other}, port: {{number: 80}}}}}}"
            );
            text
        }
        6 => head("v1", "ServiceAccount"),
        7 => {
            let mut text = head("rbac.authorization.k8s.io/v1", "RoleBinding");
            let _ = writeln!(
                text,
                "roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {other}}}\nsubjects: [{{kind: ServiceAccount, name: {name}}}, {{kind: ServiceAccount, name: default, namespace: x}}]"
            );
            text
        }
        8 => head("rbac.authorization.k8s.io/v1", "Role") + "rules: []\n",
        9 => {
            let mut text = head("example.com/v1", "Thing");
            let _ = writeln!(
                text,
                "spec:\n  value: {}\n  list: [{}, {{name: x, value: {}}}]\n  image: nginx\n  containers: [{{image: {}}}]",
                choices.one(&TEXTS),
                choices.one(&LABELS),
                choices.one(&TEXTS),
                choices.one(&IMAGES)
            );
            text
        }
        10 => {
            let mut text = head("autoscaling/v2", "HorizontalPodAutoscaler");
            let _ =
                writeln!(text, "spec: {{scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {other}}}}}");
            text
        }
        _ => head("v1", "Pod") + &pod(choices, other),
    }
}

fn pod(choices: &mut Choices<'_>, other: &str) -> String {
    let mut text = "spec:\n  containers:\n".to_owned();
    for name in ["main", "side"].into_iter().take(1 + choices.number(2)) {
        let _ = writeln!(text, "  - name: {name}\n    image: {}", choices.one(&IMAGES));
        if choices.sometimes(2) {
            let _ = writeln!(text, "    env: [{{name: A, value: {}}}, {{name: B, value: x}}]", choices.one(&LABELS));
        }
        if choices.sometimes(3) {
            let _ =
                writeln!(text, "    envFrom: [{{configMapRef: {{name: {other}}}}}, {{secretRef: {{name: {other}}}}}]");
        }
        if choices.sometimes(3) {
            text.push_str("    ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]\n");
        }
    }
    if choices.sometimes(3) {
        let _ = writeln!(text, "  volumes: [{{name: v, configMap: {{name: {other}}}}}]\n  serviceAccountName: {other}");
    }
    text
}

fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// Any of the fields that a kustomization and a component have.
fn fields(choices: &mut Choices<'_>, text: &mut String, level: usize) {
    if choices.sometimes(3) {
        let _ = writeln!(text, "namePrefix: {}", choices.one(&["p-", "q-", "\"1\""]));
    }
    if choices.sometimes(4) {
        let _ = writeln!(text, "nameSuffix: {}", choices.one(&["-s", "-v2"]));
    }
    if choices.sometimes(4) {
        let _ = writeln!(text, "namespace: {}", choices.one(&["prod", "team", "default"]));
    }
    if choices.sometimes(4) {
        let options = choices.one(&["", ", includeSelectors: true", ", includeTemplates: true"]);
        let key = choices.one(&KEYS);
        let _ = writeln!(text, "labels: [{{pairs: {{{key}: {}}}{options}}}]", choices.one(&LABELS));
    }
    if choices.sometimes(5) {
        let _ = writeln!(text, "commonLabels: {{c{level}: {}}}", choices.one(&LABELS));
    }
    if choices.sometimes(5) {
        let _ = writeln!(text, "commonAnnotations: {{note: {}}}", choices.one(&LABELS));
    }
    if choices.sometimes(4) {
        let name = choices.one(&["nginx", "registry.example.com:5000/app", "app"]);
        let new = choices.one(&[
            "newTag: v9",
            "newName: other/name",
            "digest: \"sha256:99\"",
            "newTag: \"1.10\"",
            "tagSuffix: -x",
        ]);
        let _ = writeln!(text, "images: [{{name: \"{name}\", {new}}}]");
    }
    if choices.sometimes(8) {
        let _ = writeln!(text, "replicas: [{{name: {}, count: 3}}]", choices.one(&NAMES));
    }
    if choices.sometimes(3) {
        generators(choices, text);
    }
    if choices.sometimes(2) {
        patches(choices, text);
    }
    if choices.sometimes(5) {
        let source = choices.one(&[
            "sourceValue: new",
            "sourceValue: \"5\"",
            "source: {kind: Service}",
            "source: {name: web, fieldPath: metadata.name}",
        ]);
        let (kind, path) = [
            ("Thing", "spec.value"),
            ("ConfigMap", "data.key"),
            ("Deployment", "spec.template.spec.containers.*.image"),
            ("Thing", "spec.list.1.name"),
            ("Thing", "spec.list.[name=x].value"),
            ("ConfigMap", "data.created"),
            ("Deployment", "metadata.labels.l"),
            ("Deployment", "spec.selector.matchLabels.app"),
        ][choices.number(8)];
        let options = choices.one(&["", ", options: {create: true}", ", options: {delimiter: \":\", index: 1}"]);
        let _ = writeln!(
            text,
            "replacements:\n- {source}\n  targets: [{{select: {{kind: {kind}}}, fieldPaths: [\"{path}\"]{options}}}]"
        );
    }
}

fn generators(choices: &mut Choices<'_>, text: &mut String) {
    let field = choices.one(&["configMapGenerator", "secretGenerator"]);
    let _ = writeln!(text, "{field}:");
    for _ in 0..=choices.number(2) {
        let source = choices.one(&[
            "literals: [a=1, b=two]",
            "literals: [\"c=x y\"]",
            "envs: [settings.env]",
            "files: [k=settings.env]",
        ]);
        // files lie beside kustomizations, not beside components
        let source = if text.contains("kind: Component") { "literals: [a=9]" } else { source };
        let behaviour = choices.one(&["", ", behavior: merge", ", behavior: replace"]);
        let options = choices.one(&["", ", options: {disableNameSuffixHash: true}", ", options: {labels: {g: \"1\"}}"]);
        let name = choices.one(&NAMES);
        let _ = writeln!(text, "- {{name: {name}, {source}{behaviour}{options}}}");
    }
}

fn patches(choices: &mut Choices<'_>, text: &mut String) {
    text.push_str("patches:\n");
    for _ in 0..=choices.number(3) {
        let target = choices.one(&[
            "{kind: Deployment}",
            "{kind: Thing}",
            "{name: \"web|db\"}",
            "{labelSelector: \"app=a\"}",
            "{kind: \".*Set\", namespace: team}",
            "{group: apps}",
        ]);
        match choices.number(7) {
            0 => {
                let _ = writeln!(
                    text,
                    "- target: {target}\n  patch: |\n    - {{op: add, path: /metadata/annotations, value: {{patched: x}}}}"
                );
            }
            1 => {
                let _ = writeln!(
                    text,
                    "- target: {{kind: Thing}}\n  patch: |\n    - {{op: replace, path: /spec/value, value: {}}}\n    - {{op: remove, path: /spec/list/0}}",
                    choices.one(&TEXTS)
                );
            }
            2 => {
                let _ = writeln!(
                    text,
                    "- target: {target}\n  patch: |\n    apiVersion: v1\n    kind: Any\n    metadata: {{name: any, labels: {{{}: {}, tier: null}}}}",
                    choices.one(&["merged", "l", "app"]),
                    choices.one(&LABELS)
                );
            }
            3 => {
                let _ = writeln!(
                    text,
                    "- target: {{kind: Deployment}}\n  patch: |\n    apiVersion: apps/v1\n    kind: Deployment\n    metadata: {{name: any}}\n    spec: {{replicas: 7, selector: {{matchLabels: {{l: patched}}}}, template: {{spec: {{containers: [{{name: {}, env: [{{name: A, value: {}}}]}}]}}}}}}",
                    choices.one(&["main", "side", "new"]),
                    choices.one(&LABELS)
                );
            }
            4 => {
                let directive = choices.one(&["delete", "replace", "merge"]);
                let _ = writeln!(
                    text,
                    "- target: {{kind: Deployment}}\n  patch: |\n    apiVersion: apps/v1\n    kind: Deployment\n    metadata: {{name: any}}\n    spec: {{template: {{spec: {{containers: [{{name: side, $patch: {directive}, image: z}}]}}}}}}"
                );
            }
            5 => {
                let kind = choices.one(&["Deployment", "StatefulSet", "Thing"]);
                let _ = writeln!(
                    text,
                    "- target: {{kind: {kind}}}\n  patch: |\n    $patch: delete\n    apiVersion: v1\n    kind: Any\n    metadata: {{name: any}}"
                );
            }
            _ => {
                let name = choices.one(&NAMES);
                let _ = writeln!(
                    text,
                    "- patch: |\n    apiVersion: v1\n    kind: ConfigMap\n    metadata: {{name: {name}}}\n    data: {{key: null, more: {}}}",
                    choices.one(&LABELS)
                );
            }
        }
    }
}
