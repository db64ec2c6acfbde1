//! How fast kustomizations are built, beside kubectl: `cargo bench --bench kustomize`.
//!
//! ```text
//!  tests/kustomize/cases ──┬─▶ afresh::render, in this process
//!  a large overlay ────────┴─▶ `kubectl kustomize`, a process for each tree     (KUBECTL, or beside KUBEBUILDER_ASSETS)
//! ```
//!
//! Both build the same trees in the same run, one after the other. Without kubectl the rows that compare are left out.
//! Peak memory is that of a process of its own, which builds the large overlay and nothing else.

#[path = "../tests/kustomize/corpus.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod corpus;
#[path = "support/table.rs"]
#[expect(dead_code, reason = "other benches use more of it")]
mod table;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use afresh::manifest::{Entry, EntryId, EntryKind, MemoryTree, Tree, TreeError};
use afresh::render::{AppRef, Failed, Rendered, Request, render};
use anyhow::{Context as _, ensure};
use bytes::Bytes;

use corpus::{Case, Content};
use table::{Table, median, worst};

const RESOURCES: usize = 500;
const PATCHES: usize = 50;
/// Files of the repository that the large overlay doesn't read.
const ELSEWHERE: usize = 2000;
const ROUNDS: usize = 15;
/// Rounds of kubectl, which takes its time.
const PAIRS: usize = 5;
/// The process that builds the large overlay alone.
const ALONE: &str = "AFRESH_BENCH_ALONE";

fn main() -> anyhow::Result<()> {
    let large = large_overlay();
    if std::env::var_os(ALONE).is_some() {
        build(&large.tree(), &large.directory, &|| false).map_err(|failed| failed.error)?;
        println!("{}", peak_kib()?);
        return Ok(());
    }
    let mut table = Table::default();
    match kubectl() {
        Some(kubectl) => beside_kubectl(&mut table, &kubectl, &large)?,
        None => println!("neither KUBECTL nor KUBEBUILDER_ASSETS leads to a kubectl: nothing is compared"),
    }
    alone(&mut table, &large)?;
    table.print();
    Ok(())
}

fn kubectl() -> Option<String> {
    let beside = || Some(format!("{}/kubectl", std::env::var("KUBEBUILDER_ASSETS").ok()?));
    std::env::var("KUBECTL").ok().or_else(beside).filter(|program| Path::new(program).exists())
}

fn beside_kubectl(table: &mut Table, kubectl: &str, large: &Case) -> anyhow::Result<()> {
    let cases = corpus::cases();
    let (mut ours, mut theirs) = (0.0, 0.0);
    for case in &cases {
        let folder = tempfile::tempdir()?;
        case.write(folder.path())?;
        let tree = Fixed::new(case);
        ours += milliseconds(|| drop(build(&tree, &case.directory, &|| false)));
        theirs += kubectl_ms(kubectl, &folder.path().join(&case.directory))?;
    }
    table.row(format!("{} trees of the corpus, to kubectl / 50", cases.len()), ours, theirs / 50.0, "ms");

    let folder = tempfile::tempdir()?;
    large.write(folder.path())?;
    let tree = Fixed::new(large);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        ours.push(milliseconds(|| drop(build(&tree, &large.directory, &|| false))));
        theirs.push(kubectl_ms(kubectl, &folder.path().join(&large.directory))?);
    }
    let name = format!("{RESOURCES} objects, {PATCHES} patches, to kubectl / 10");
    table.row(name, median(&mut ours), median(&mut theirs) / 10.0, "ms");
    Ok(())
}

fn kubectl_ms(kubectl: &str, directory: &Path) -> anyhow::Result<f64> {
    let begun = Instant::now();
    // what it refuses is refused by both
    let _ = corpus::ask(kubectl, directory)?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

fn alone(table: &mut Table, large: &Case) -> anyhow::Result<()> {
    let tree = Fixed::new(large);
    let rendered = build(&tree, &large.directory, &|| false).map_err(|failed| failed.error)?;
    ensure!(rendered.objects.len() == RESOURCES + 1, "{} objects were built", rendered.objects.len());
    let mut times: Vec<f64> =
        (0..ROUNDS).map(|_| milliseconds(|| drop(build(&tree, &large.directory, &|| false)))).collect();
    let whole_ms = median(&mut times);
    table.row(format!("{RESOURCES} objects, {PATCHES} patches"), whole_ms, 100.0, "ms");

    // a commit elsewhere: every directory on the way has another id
    let mut elsewhere = large_overlay();
    elsewhere.files.push(("elsewhere/changed.yaml".into(), Content::File(b"changed: 1\n".to_vec())));
    let changed = Fixed::new(&elsewhere);
    ensure!(rendered.read_set.unchanged(&changed)?, "a commit elsewhere changes what the overlay reads");
    let mut times: Vec<f64> =
        (0..ROUNDS).map(|_| milliseconds(|| drop(rendered.read_set.unchanged(&changed))) * 1e3).collect();
    table.row(
        format!("the check after a commit elsewhere ({} paths)", rendered.read_set.len()),
        median(&mut times),
        1000.0,
        "µs",
    );

    let mut latencies = Vec::new();
    for part in 1..=20 {
        let after = Duration::from_secs_f64(whole_ms / 1e3 * f64::from(part) / 21.0);
        latencies.extend(cancelled_after(&tree, &large.directory, after));
    }
    table.row("a render that is preempted stops within".into(), worst(&latencies), 5.0, "ms");

    let program = std::env::current_exe()?;
    let output = Command::new(program).env(ALONE, "1").output()?;
    let peak: f64 = String::from_utf8(output.stdout)?.trim().parse().context("the process tells its peak")?;
    table.row(format!("peak memory of a process that builds {RESOURCES} objects"), peak / 1024.0, 96.0, "MiB");
    Ok(())
}

/// How long a build goes on after it was told to stop; nothing if it was through before.
fn cancelled_after(tree: &Fixed, directory: &str, after: Duration) -> Option<f64> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let told = scope.spawn(|| {
            std::thread::sleep(after);
            stop.store(true, Ordering::Release);
            Instant::now()
        });
        let built = build(tree, directory, &|| stop.load(Ordering::Acquire));
        let ended = Instant::now();
        let told = told.join().ok()?;
        built.is_err().then(|| ended.saturating_duration_since(told).as_secs_f64() * 1e3)
    })
}

fn build(tree: &dyn Tree, directory: &str, cancelled: &dyn Fn() -> bool) -> Result<Rendered, Failed> {
    let app = AppRef { name: "app".into(), namespace: "default".into() };
    render(&Request { cancelled, ..Request::of(tree, directory, &app) })
}

fn milliseconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64() * 1e3
}

/// The most memory that this process had.
fn peak_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the system tells no peak")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// A base of many objects, an overlay of many patches, and a repository around them.
fn large_overlay() -> Case {
    let mut files: Vec<(String, Content)> = Vec::new();
    let mut add = |path: String, text: String| files.push((path, Content::File(text.into_bytes())));
    let mut resources = String::new();
    for index in 0..RESOURCES / 5 {
        resources.push_str(&format!("- app{index}.yaml\n"));
        add(format!("base/app{index}.yaml"), application(index));
    }
    add("base/kustomization.yaml".into(), format!("resources:\n{resources}"));
    let mut patches = String::new();
    for index in 0..PATCHES {
        patches.push_str(&match index % 2 {
            0 => format!("- path: patches/p{index}.yaml\n"),
            _ => format!(
                "- target: {{kind: Deployment, name: \"app{index}|app{}\"}}\n  patch: |\n    - {{op: add, path: /spec/template/spec/priorityClassName, value: high}}\n    - {{op: replace, path: /spec/replicas, value: {index}}}\n",
                index + 1
            ),
        });
        add(
            format!("overlay/patches/p{index}.yaml"),
            format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: app{index}}}\nspec:\n  template:\n    spec:\n      containers:\n      - name: main\n        env: [{{name: LEVEL, value: debug}}, {{name: EXTRA, value: \"{index}\"}}]\n        resources: {{limits: {{memory: 2Gi}}}}\n"
            ),
        );
    }
    add(
        "overlay/kustomization.yaml".into(),
        format!(
            "namespace: prod\nnamePrefix: prod-\nresources: [../base]\nlabels: [{{pairs: {{env: prod}}, includeSelectors: true}}]\ncommonAnnotations: {{team: platform}}\nimages: [{{name: registry.example.com/app, newTag: v2}}, {{name: sidecar, newTag: v3}}]\nconfigMapGenerator: [{{name: shared, literals: [a=1, b=2]}}]\npatches:\n{patches}"
        ),
    );
    for index in 0..ELSEWHERE {
        add(format!("elsewhere/{}/f{index}.yaml", index % 50), format!("value: {index}\n"));
    }
    Case { name: "large".into(), group: "large".into(), directory: "overlay".into(), files }
}

/// Five objects that refer to each other.
fn application(index: usize) -> String {
    format!(
        r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: app{index}
  labels: {{app: app{index}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: app{index}}}}}
  template:
    metadata: {{labels: {{app: app{index}}}}}
    spec:
      serviceAccountName: app{index}
      containers:
      - name: main
        image: registry.example.com/app:v1
        env:
        - {{name: LEVEL, value: info}}
        - {{name: HOST, valueFrom: {{configMapKeyRef: {{name: app{index}, key: host}}}}}}
        envFrom: [{{configMapRef: {{name: app{index}}}}}, {{configMapRef: {{name: shared}}}}]
        ports: [{{containerPort: 8080, name: http}}]
        resources: {{requests: {{cpu: 100m, memory: 256Mi}}, limits: {{memory: 1Gi}}}}
        readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 5}}
      - {{name: proxy, image: "sidecar:1"}}
      volumes: [{{name: config, configMap: {{name: app{index}}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: app{index}}}
spec: {{selector: {{app: app{index}}}, ports: [{{port: 80, targetPort: http, name: http}}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: app{index}}}
data:
  host: app{index}.example.com
  config.yaml: |
    server:
      port: 8080
      timeout: 30s
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: app{index}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: app{index}}}
spec:
  rules:
  - host: app{index}.example.com
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: app{index}, port: {{name: http}}}}}}}}]}}
"#
    )
}

/// A tree whose ids are known beforehand, as those of a Git repository are.
struct Fixed {
    entries: BTreeMap<String, Entry>,
    lists: BTreeMap<String, Vec<Entry>>,
    contents: BTreeMap<String, Bytes>,
}

impl Fixed {
    fn new(case: &Case) -> Self {
        let mut fixed = Self { entries: BTreeMap::new(), lists: BTreeMap::new(), contents: BTreeMap::new() };
        for (path, content) in &case.files {
            let (kind, bytes) = match content {
                Content::File(bytes) => (EntryKind::File, Bytes::copy_from_slice(bytes)),
                Content::Symlink(target) => (EntryKind::Symlink, Bytes::copy_from_slice(target.as_bytes())),
            };
            // the content's id, and up to the root those of all that is below
            let mut id =
                MemoryTree::new().with("f", bytes.clone()).entry("f").ok().flatten().map_or([0; 20], |e| e.id.0);
            fixed.contents.insert(path.clone(), bytes);
            fixed.note(path, kind, id);
            let mut at = path.as_str();
            while let Some((directory, _)) = at.rsplit_once('/') {
                let known = fixed.entries.get(directory).map_or([1; 20], |entry| entry.id.0);
                id = std::array::from_fn(|i| known[i].rotate_left(1) ^ id[(i + path.len()) % 20]);
                fixed.note(directory, EntryKind::Directory, id);
                at = directory;
            }
            let known = fixed.entries.get("").map_or([1; 20], |entry| entry.id.0);
            fixed.note("", EntryKind::Directory, std::array::from_fn(|i| known[i].rotate_left(1) ^ id[i]));
        }
        let entries: Vec<(String, Entry)> =
            fixed.entries.iter().map(|(path, entry)| (path.clone(), entry.clone())).collect();
        for (path, entry) in entries.into_iter().filter(|(path, _)| !path.is_empty()) {
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            fixed.lists.entry(directory.to_owned()).or_default().push(entry);
        }
        fixed
    }

    fn note(&mut self, path: &str, kind: EntryKind, id: [u8; 20]) {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        self.entries.insert(path.to_owned(), Entry { name, kind, id: EntryId(id) });
    }
}

impl Tree for Fixed {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        Ok(self.entries.get(path).cloned())
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, TreeError> {
        Ok(self.lists.get(path).cloned())
    }

    fn read(&self, path: &str, _limit: u64) -> Result<Option<Bytes>, TreeError> {
        Ok(self.contents.get(path).cloned())
    }
}
