//! kubectl works on the sandbox. Skipped, with a word, where there is no kubectl.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use afresh::sandbox::{controllers, kubelet};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio_util::sync::CancellationToken;

use crate::support::{CONFIG_MAPS, Cluster, DEPLOYMENTS, PATIENCE, cluster, config_map, deployment};

/// The one that `tests/tools/build` makes, or that of this machine.
fn program() -> PathBuf {
    std::env::var_os("KUBEBUILDER_ASSETS").map_or_else(|| "kubectl".into(), |assets| Path::new(&assets).join("kubectl"))
}

struct Kubectl {
    home: TempDir,
}

impl Kubectl {
    fn for_cluster(c: &Cluster) -> Option<Self> {
        let there =
            Command::new(program()).args(["version", "--client"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !there.is_ok_and(|s| s.success()) {
            eprintln!("skipped: no kubectl");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        c.sandbox.write_kubeconfig(&home.path().join("kubeconfig")).unwrap();
        Some(Self { home })
    }

    fn spawn(&self, args: &[&str]) -> tokio::process::Child {
        let mut command = tokio::process::Command::new(program());
        command.env_clear().env("HOME", self.home.path()).env("KUBECONFIG", self.home.path().join("kubeconfig"));
        command.env("KUBE_EDITOR", "sed -i /replicas:/s/1/2/");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().unwrap()
    }

    async fn output(&self, args: &[&str], input: &str) -> Output {
        let mut child = self.spawn(args);
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        child.wait_with_output().await.unwrap()
    }

    async fn run(&self, args: &[&str], input: &str) -> String {
        let output = self.output(args, input).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "kubectl {args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    async fn refused(&self, args: &[&str], input: &str) -> String {
        let output = self.output(args, input).await;
        assert!(!output.status.success(), "kubectl {args:?} was not refused");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

#[tokio::test]
async fn kubectl_reads_and_writes() {
    let c = cluster().await;
    let Some(kubectl) = Kubectl::for_cluster(&c) else { return };
    let resources = kubectl.run(&["api-resources"], "").await;
    assert!(resources.contains("deployments") && resources.contains("apps/v1"));
    assert!(kubectl.run(&["version"], "").await.contains("Server Version: v1.36"));

    let applied = kubectl.run(&["apply", "--server-side", "-f", "-"], &deployment("web").to_string()).await;
    assert_eq!(applied.trim(), "deployment.apps/web serverside-applied");
    let table = kubectl.run(&["get", "deploy"], "").await;
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
    assert_eq!(lines[1][..4], ["web", "0/1", "0", "0"]);

    kubectl.run(&["annotate", "deploy/web", "a=b"], "").await;
    kubectl.run(&["label", "deploy", "web", "c=d"], "").await;
    kubectl.run(&["patch", "deploy", "web", "--type=merge", "-p", r#"{"spec":{"replicas":2}}"#], "").await;
    kubectl.run(&["scale", "deploy/web", "--replicas=3"], "").await;
    let live = c.get(&format!("{DEPLOYMENTS}/web")).await.body;
    assert_eq!(live["metadata"]["annotations"]["a"], "b");
    assert_eq!((&live["metadata"]["labels"]["c"], &live["spec"]["replicas"]), (&json!("d"), &json!(3)));

    let map = config_map("m", &json!({"k": "v"})).to_string();
    assert!(kubectl.run(&["apply", "-f", "-"], &map).await.contains("configmap/m created"));
    let map = config_map("m", &json!({"k": "w"})).to_string();
    assert!(kubectl.run(&["apply", "-f", "-"], &map).await.contains("configmap/m configured"));
    assert!(kubectl.run(&["get", "cm", "m", "-o", "yaml"], "").await.contains("k: w"));
    assert!(kubectl.run(&["get", "all", "-A"], "").await.contains("service/kubernetes"));
    kubectl.run(&["delete", "cm/m", "deploy/web"], "").await;
    assert_eq!(c.get(&format!("{CONFIG_MAPS}/m")).await.code, 404);
    kubectl.run(&["create", "namespace", "made"], "").await;
    kubectl.run(&["-n", "made", "create", "secret", "generic", "s", "--from-literal=k=v"], "").await;
    assert_eq!(c.get("/api/v1/namespaces/made/secrets/s").await.body["data"]["k"], "dg==");
    assert_eq!(kubectl.run(&["auth", "can-i", "create", "pods"], "").await.trim(), "yes");
    assert!(kubectl.refused(&["get", "cm", "m"], "").await.contains("(NotFound): configmaps \"m\" not found"));
}

#[tokio::test]
async fn kubectl_watches_and_waits() {
    let c = cluster().await;
    let Some(kubectl) = Kubectl::for_cluster(&c) else { return };
    let shop = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}"#;
    kubectl.run(&["create", "-f", "-"], shop).await;
    kubectl.run(&["-n", "shop", "create", "-f", "-"], &config_map("a", &json!({"k": "v"})).to_string()).await;
    let mut watch = kubectl.spawn(&["-n", "shop", "get", "cm", "-w", "--output-watch-events"]);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async |event: &str| {
        let seen = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the watch goes on");
                if line.starts_with(event) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("no {event}"));
    };
    next("ADDED").await;
    kubectl.run(&["-n", "shop", "label", "cm", "a", "x=y"], "").await;
    next("MODIFIED").await;
    kubectl.run(&["-n", "shop", "delete", "cm", "a"], "").await;
    next("DELETED").await;
    kubectl.run(&["delete", "namespace", "shop", "--timeout=20s"], "").await;
    assert_eq!(c.get("/api/v1/namespaces/shop").await.code, 404);
}

#[tokio::test]
async fn kubectl_explains_fields() {
    let c = cluster().await;
    let Some(kubectl) = Kubectl::for_cluster(&c) else { return };
    let explained = kubectl.run(&["explain", "deployment.spec.replicas"], "").await;
    assert!(explained.contains("<integer>") && explained.contains("Number of desired pods"), "{explained}");
    let tree = kubectl.run(&["explain", "pods", "--recursive"], "").await;
    assert!(tree.contains("containerPort\t<integer> -required-"), "{tree}");
    assert!(kubectl.refused(&["explain", "pod.spec.nonsense"], "").await.contains("does not exist"));

    let widgets = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.com" },
        "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": "widgets", "kind": "Widget" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "properties": { "spec": { "type": "object", "properties": {
                    "size": { "type": "integer", "description": "How big it is." } } } } } } }] },
    });
    kubectl.run(&["apply", "-f", "-"], &widgets.to_string()).await;
    let explained = kubectl.run(&["explain", "widgets.spec.size"], "").await;
    assert!(explained.contains("How big it is."), "{explained}");
    assert!(kubectl.run(&["explain", "widgets.metadata.labels"], "").await.contains("Map of string keys"));
}

#[tokio::test]
async fn kubectl_works_on_what_runs() {
    let c = cluster().await;
    let Some(kubectl) = Kubectl::for_cluster(&c) else { return };
    let cancel = CancellationToken::new();
    let _end = cancel.clone().drop_guard();
    tokio::spawn(controllers::run(c.client.clone(), cancel.clone()));
    tokio::spawn(kubelet::run(c.client.clone(), None, cancel.clone()));

    // as protocol buffers
    kubectl.run(&["create", "deployment", "web", "--image=example.com/web:1", "--port=80"], "").await;
    kubectl.run(&["rollout", "status", "deploy/web", "--timeout=20s"], "").await;
    kubectl.run(&["wait", "--for=condition=Available", "deploy/web", "--timeout=20s"], "").await;
    assert!(kubectl.run(&["edit", "deploy/web"], "").await.contains("deployment.apps/web edited"));
    assert_eq!(c.get(&format!("{DEPLOYMENTS}/web")).await.body["spec"]["replicas"], 2);
    kubectl.run(&["rollout", "status", "deploy/web", "--timeout=20s"], "").await;
    kubectl.run(&["set", "image", "deploy/web", "web=example.com/web:2"], "").await;
    kubectl.run(&["rollout", "status", "deploy/web", "--timeout=20s"], "").await;
    kubectl.run(&["rollout", "restart", "deploy/web"], "").await;
    kubectl.run(&["rollout", "undo", "deploy/web"], "").await;
    assert!(kubectl.run(&["rollout", "history", "deploy/web"], "").await.contains("REVISION"));
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e" }, "reason": "Seen", "message": "it is there",
        "involvedObject": { "apiVersion": "apps/v1", "kind": "Deployment", "namespace": "default", "name": "web",
            "uid": c.get(&format!("{DEPLOYMENTS}/web")).await.body["metadata"]["uid"] },
    });
    kubectl.run(&["create", "-f", "-"], &event.to_string()).await;
    let described = kubectl.run(&["describe", "deploy", "web"], "").await;
    assert!(described.contains("Image:") && described.contains("it is there"), "{described}");
    assert!(kubectl.run(&["describe", "node", "sandbox"], "").await.contains("Non-terminated Pods:"));
    kubectl.run(&["create", "job", "once", "--image=example.com/once:1"], "").await;
    kubectl.run(&["wait", "--for=condition=complete", "job/once", "--timeout=20s"], "").await;
    kubectl.run(&["cordon", "sandbox"], "").await;
    kubectl
        .run(&["drain", "sandbox", "--ignore-daemonsets", "--force", "--disable-eviction=false", "--timeout=20s"], "")
        .await;
}

#[tokio::test]
async fn what_needs_containers_or_tokens_is_refused_in_words() {
    let c = cluster().await;
    let Some(kubectl) = Kubectl::for_cluster(&c) else { return };
    kubectl.run(&["run", "one", "--image=example.com/one:1"], "").await;
    kubectl.run(&["patch", "pod", "one", "--subresource=status", "-p", r#"{"status":{"phase":"Running"}}"#], "").await;
    for (args, words) in [
        (&["logs", "one"][..], "the sandbox runs no containers: there are no logs"),
        (&["exec", "one", "--", "ls"], "the sandbox runs no containers: there is nothing to execute in"),
        (&["attach", "one"], "the sandbox runs no containers: there is nothing to execute in or to attach to"),
        (&["port-forward", "one", "18080:80"], "the sandbox runs no containers: there is no port to forward to"),
        (
            &["debug", "one", "--image=example.com/tools:1"],
            "the sandbox runs no containers: there is nothing to debug in",
        ),
        (&["create", "token", "default"], "the sandbox issues no tokens"),
        (&["top", "pods"], "Metrics API not available"),
        (&["get", "--raw", "/api/v1/nodes/sandbox/proxy/stats"], "there is nothing to proxy to"),
    ] {
        let said = kubectl.refused(args, "").await;
        assert!(said.contains(words), "kubectl {args:?}: {said}");
    }
}
