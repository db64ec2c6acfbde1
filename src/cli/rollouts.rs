//! `afresh get rollouts`: which workload follows what, its last rollout and why, and what is wrong. All of it is read
//! from the workloads; no Secret is looked at.

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::api;
use crate::cluster::{ApiKind, Cluster};
use crate::rollout::Record;

/// One workload, as `-o json` has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    namespace: String,
    kind: String,
    name: String,
    follows: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_rollout: Option<String>,
    /// Names and keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cause: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<String>,
    /// Immutable, and made anew under its name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remade: Vec<String>,
    /// It was rolled in a loop.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stopped: bool,
}

/// All workloads that follow something, in order.
pub async fn list(cluster: &Cluster, namespace: Option<&str>) -> anyhow::Result<Vec<Rollout>> {
    let kinds = [
        ApiKind::new("apps", "v1", "DaemonSet", "daemonsets", true),
        ApiKind::new("apps", "v1", "Deployment", "deployments", true),
        ApiKind::new("apps", "v1", "StatefulSet", "statefulsets", true),
        ApiKind::new("batch", "v1", "CronJob", "cronjobs", true),
    ];
    let mut rollouts = Vec::new();
    for kind in &kinds {
        let workloads = cluster.list(kind, namespace).await?;
        rollouts.extend(workloads.iter().filter_map(|workload| rollout(&kind.kind, workload)));
    }
    rollouts.sort_by(|a, b| (&a.namespace, &a.kind, &a.name).cmp(&(&b.namespace, &b.kind, &b.name)));
    Ok(rollouts)
}

fn rollout(kind: &str, workload: &Value) -> Option<Rollout> {
    let metadata = workload.get("metadata")?;
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let record = Record::read(metadata.get("annotations")?.get(api::CONFIG)?.as_str()?)?;
    let mut follows: Vec<String> = record.reads.iter().map(|(name, entry)| entry.in_words(name)).collect();
    // what was never there is not among what was read
    for missing in record.missing.iter().chain(&record.unreadable) {
        let name = missing.split(':').next().unwrap_or_default();
        if !record.reads.contains_key(name) {
            follows.push(name.to_owned());
        }
    }
    follows.sort();
    follows.dedup();
    let rolled = record.rolled.unwrap_or_default();
    Some(Rollout {
        namespace: text("namespace"),
        kind: kind.to_owned(),
        name: text("name"),
        follows,
        last_rollout: Timestamp::from_second(rolled.at).ok().filter(|_| rolled.at > 0).map(|at| at.to_string()),
        cause: rolled.by,
        missing: record.missing,
        unreadable: record.unreadable,
        remade: record.remade,
        stopped: record.stopped,
    })
}

pub fn table(rollouts: &[Rollout]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NAMESPACE", "WORKLOAD", "FOLLOWS", "LAST ROLLOUT", "BECAUSE OF", "TROUBLE"]);
    for rollout in rollouts {
        let mut trouble: Vec<String> = rollout.missing.iter().map(|name| format!("missing: {name}")).collect();
        trouble.extend(rollout.unreadable.iter().map(|name| format!("can't be read: {name}")));
        trouble.extend(rollout.remade.iter().map(|name| format!("immutable, and made anew: {name}")));
        if rollout.stopped {
            trouble.push("stopped: rolled in a loop".to_owned());
        }
        table.add_row([
            rollout.namespace.clone(),
            format!("{}/{}", rollout.kind.to_lowercase(), rollout.name),
            rollout.follows.join("\n"),
            rollout.last_rollout.clone().unwrap_or_default(),
            rollout.cause.join("\n"),
            trouble.join("\n"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_workload_tells_what_it_follows_and_why_it_was_rolled_in_names_alone() {
        let record = json!({
            "key": "k", "template": "t",
            "reads": {
                "configmap/c": "absent",
                "secret/a": {"all": {"user": "0123456789abcdef"}},
                "secret/b": {"keys": {"x": "0123456789abcdef", "y": null}},
            },
            "rolled": {"at": 1_700_000_000, "by": ["secret/a: user"]},
            "missing": ["secret/gone"],
        });
        let workload = json!({"metadata": {
            "namespace": "shop", "name": "web", "annotations": {api::CONFIG: record.to_string()},
        }});
        let rollout = rollout("Deployment", &workload).unwrap();
        assert_eq!(rollout.follows, ["configmap/c", "secret/a", "secret/b: x, y", "secret/gone"]);
        let text = table(&[rollout]).to_string();
        for expected in ["shop", "deployment/web", "2023-11-14T22:13:20Z", "secret/a: user", "missing: secret/gone"] {
            assert!(text.contains(expected), "{text}");
        }
        assert!(!text.contains("0123456789abcdef"), "{text}");
        assert!(super::rollout("Deployment", &json!({"metadata": {"name": "deaf"}})).is_none());
    }
}
