//! How fast policies are evaluated, and in how much memory: `cargo bench --bench policies`.
//!
//! ```text
//!  policies/            ──▶ each policy on each object that it is for, one at a time: the median
//!  1,000 policies       ──▶ 5,000 objects, in a process of its own: time and peak memory
//!  100,000 files        ──▶ the rules for repositories
//! ```

#[path = "support/table.rs"]
#[expect(dead_code, reason = "other benches use more of it")]
mod table;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use afresh::manifest::yaml;
use afresh::policy::{Allowance, Document, PolicySet, Subject, snapshot};
use afresh::source::{File, Listing};
use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};

use table::{Table, median};

const POLICIES: usize = 1_000;
const OBJECTS: usize = 5_000;
const FILES: usize = 100_000;
const ROUNDS: usize = 2_000;
/// The process that evaluates many policies on many objects, and nothing else.
const ALONE: &str = "AFRESH_BENCH_ALONE";

fn main() -> anyhow::Result<()> {
    if std::env::var_os(ALONE).is_some() {
        return many();
    }
    let mut table = Table::default();
    table.row("one evaluation, the slowest shipped policy".to_owned(), shipped()?, 100.0, "µs");
    let output = Command::new(std::env::current_exe()?).env(ALONE, "1").output()?;
    let text = String::from_utf8(output.stdout)?;
    let [seconds, objects, kib, findings] = text.split_whitespace().collect::<Vec<_>>()[..] else {
        return Err(anyhow!("the process said `{text}`: {}", String::from_utf8_lossy(&output.stderr)));
    };
    println!("{POLICIES} policies for {OBJECTS} objects: {findings} findings");
    table.row(format!("{POLICIES} policies, {OBJECTS} objects"), seconds.parse()?, 120.0, "s");
    let beyond = (kib.parse::<f64>()? - objects.parse::<f64>()?) / 1024.0;
    table.row(format!("{POLICIES} policies, {OBJECTS} objects: memory"), beyond, 64.0, "MiB");
    table.row(format!("the rules for repositories, {FILES} files"), large_repository()?, 2_000.0, "ms");
    table.finish()
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")
}

/// The documents of one file.
fn documents(path: &Path) -> anyhow::Result<Vec<Document>> {
    let shown = path.display().to_string();
    let read = yaml::documents(&shown, &std::fs::read(path)?).map_err(|error| anyhow!(error.to_string()))?;
    Ok(read.into_iter().map(|read| Document { path: shown.clone(), line: read.line, value: read.value }).collect())
}

fn compiled(documents: Vec<Document>) -> anyhow::Result<PolicySet> {
    PolicySet::compile(documents).map_err(|errors| anyhow!("{errors:?}"))
}

/// A Deployment of three containers, as they are.
fn deployment(name: usize) -> Value {
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("registry.example.com/shop/{name}:1.4.2"),
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
            "env": (0..20).map(|n| json!({"name": format!("SETTING_{n}"), "value": "on"})).collect::<Vec<_>>(),
            "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true,
                "seccompProfile": {"type": "RuntimeDefault"}, "capabilities": {"drop": ["ALL"]}},
        })
    };
    let labels = json!({"app": format!("web-{name}")});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": format!("web-{name}"), "namespace": "shop", "labels": labels},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [container("web"), container("proxy"), container("metrics")]}}},
    })
}

fn subject(object: &Value) -> Subject<'_> {
    Subject {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        resource: "deployments",
        namespaced: true,
        object,
        old_object: None,
        namespace_object: None,
        user: None,
    }
}

/// Each policy that is for Deployments, one evaluation at a time: the median of the slowest of them, in µs.
fn shipped() -> anyhow::Result<f64> {
    let object = deployment(0);
    let subject = subject(&object);
    let mut times = Vec::new();
    for entry in std::fs::read_dir(folder())? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let read = documents(&path)?;
        let rules = &read[0].value["spec"]["matchConstraints"]["resourceRules"];
        if !rules.to_string().contains("\"deployments\"") {
            continue;
        }
        let set = compiled(read)?;
        let mut own = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            std::hint::black_box(set.evaluate(&subject));
            own.push(began.elapsed().as_secs_f64() * 1e6);
        }
        let own = median(&mut own);
        println!("{:>8.1} µs  {}", own, path.file_stem().unwrap_or_default().to_string_lossy());
        times.push(own);
    }
    // the slowest of them is to keep the bar as well as the one in the middle
    anyhow::ensure!(!times.is_empty(), "no shipped policy is for Deployments");
    Ok(times.iter().copied().fold(0.0, f64::max))
}

/// A thousand policies, of which each is for each object: prints the time, the memory that the objects themselves take,
/// the peak, and how much is found.
fn many() -> anyhow::Result<()> {
    let objects: Vec<Value> = (0..OBJECTS).map(deployment).collect();
    let before = peak_kib()?;
    let mut all = Vec::new();
    for n in 0..POLICIES {
        let name = format!("p{n}");
        let rules = json!([{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}]);
        let expression = format!("object.spec.template.spec.containers.all(c, c.name != 'name-{n}')");
        let fields = [
            (
                "ValidatingAdmissionPolicy",
                json!({"matchConstraints": {"resourceRules": rules}, "validations": [{"expression": expression}]}),
            ),
            ("ValidatingAdmissionPolicyBinding", json!({"policyName": name, "validationActions": ["Deny"]})),
        ];
        for (kind, spec) in fields {
            let value = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
            all.push(Document { path: "policies.yaml".into(), line: 1, value });
        }
    }
    let set = compiled(all)?;
    let (began, allowance) = (Instant::now(), Allowance::default());
    let findings: usize = objects.iter().map(|object| set.evaluate_within(&subject(object), &allowance).len()).sum();
    anyhow::ensure!(!allowance.is_used_up(), "a revision is allowed to be that large");
    println!("{} {before} {} {findings}", began.elapsed().as_secs_f64(), peak_kib()?);
    Ok(())
}

/// In ms, with the object made.
fn large_repository() -> anyhow::Result<f64> {
    let files =
        (0..FILES).map(|n| File { path: format!("apps/{}/file-{n}.yaml", n % 500), size: 300, mode: "100644".into() });
    let listing = Listing { files: files.collect(), author: "Jane Doe".into(), message: "A commit".into() };
    let mut rules = documents(&folder().join("no-terraform-state.yaml"))?;
    rules.extend(documents(&folder().join("no-secret-files.yaml"))?);
    let set = compiled(rules)?;
    let began = Instant::now();
    let object = snapshot("flux-system", "platform", &json!({}), &listing);
    let findings = set.evaluate(&Subject::repository(&object));
    anyhow::ensure!(findings.is_empty(), "{findings:?}");
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn peak_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
