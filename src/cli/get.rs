//! `afresh get`: sources, applications, alerts and providers as a table, as names, or as data; and rollouts.

use comfy_table::{Table, presets};
use serde_json::Value;

use super::connect::ClusterArgs;
use crate::api::DRIFT_CONDITION as DRIFT;
use crate::cluster::{ApiKind, Cluster, NOTIFICATION_GROUP};
use crate::report::{refusal_of_alert, refusal_of_provider};

#[derive(clap::Args, Debug)]
pub struct GetArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The namespace; default: all
    #[arg(short, long)]
    namespace: Option<String>,
    /// How it is printed
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// What else than sources and applications
    #[arg(value_enum)]
    what: Option<What>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Which workloads follow which Secrets and ConfigMaps, and when a change rolled them last
    Rollouts,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Table,
    Wide,
    Json,
    Yaml,
}

pub async fn run(args: GetArgs) -> anyhow::Result<()> {
    let cluster = args.cluster.connect().await?;
    if args.what == Some(What::Rollouts) {
        return rollouts(&cluster, args.namespace.as_deref(), args.output).await;
    }
    let kinds = [ApiKind::git_repository(), ApiKind::kustomization(), ApiKind::alert(), ApiKind::provider()];
    let mut items = Vec::new();
    for kind in &kinds {
        let listed = match cluster.list(kind, args.namespace.as_deref()).await {
            // not every cluster has them
            Err(error) if error.is_not_found() && &*kind.group == NOTIFICATION_GROUP => continue,
            listed => listed?,
        };
        for mut item in listed {
            // lists leave out what they are lists of
            item["apiVersion"] = format!("{}/{}", kind.group, kind.version).into();
            item["kind"] = kind.kind.to_string().into();
            if let Some(metadata) = item["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            items.push(item);
        }
    }
    match args.output {
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(&items)?),
        Output::Yaml => {
            for item in &items {
                anstream::print!("---\n{}", crate::manifest::yaml::write(item));
            }
        }
        Output::Table | Output::Wide => anstream::println!("{}", table(&items, args.output == Output::Wide)),
    }
    Ok(())
}

async fn rollouts(cluster: &Cluster, namespace: Option<&str>, output: Output) -> anyhow::Result<()> {
    let rollouts = super::rollouts::list(cluster, namespace).await?;
    match output {
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(&rollouts)?),
        Output::Yaml => {
            for rollout in &rollouts {
                anstream::print!("---\n{}", crate::manifest::yaml::write(&serde_json::to_value(rollout)?));
            }
        }
        Output::Table | Output::Wide => anstream::println!("{}", super::rollouts::table(&rollouts)),
    }
    Ok(())
}

/// Of the kinds that have no status: `True` or `False`, and a sentence, as they follow from the spec.
fn notification_state(item: &Value) -> Option<(String, String)> {
    let text = |pointer: &str| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (refusal, says) = match item["kind"].as_str()? {
        "Alert" => (refusal_of_alert(item), format!("tells provider `{}`", text("/spec/providerRef/name"))),
        "Provider" => (refusal_of_provider(item), format!("type `{}`", text("/spec/type"))),
        _ => return None,
    };
    Some(match refusal {
        Some(refusal) => ("False".into(), refusal),
        None => ("True".into(), says),
    })
}

/// What is said of objects that others have changed and that are not put back.
fn drift_of(item: &Value) -> Option<String> {
    let conditions = item.pointer("/status/conditions")?.as_array()?;
    let drift = conditions.iter().find(|condition| condition["type"] == DRIFT)?;
    let (first, count) = (drift["message"].as_str()?.lines().next()?, drift["message"].as_str()?.lines().count());
    let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
    Some(format!("{}: {first}{more}", drift["reason"].as_str()?))
}

fn table(items: &[Value], wide: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut header = vec!["NAMESPACE", "NAME", "READY", "STATUS"];
    if wide {
        header.extend(["REVISION", "SUSPENDED", "OBJECTS"]);
    }
    table.set_header(header);
    for item in items {
        let text = |pointer: &str| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let ready = item
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .and_then(|conditions| conditions.iter().find(|c| c["type"] == "Ready"));
        let of_ready = |field: &str| ready.and_then(|c| c[field].as_str()).unwrap_or_default().to_owned();
        let (ready_is, message) = notification_state(item).unwrap_or_else(|| (of_ready("status"), of_ready("message")));
        let message = match drift_of(item) {
            Some(drift) => format!("{}; {drift}", message.trim_end_matches('\n')),
            None => message,
        };
        let message = if wide { message } else { message.lines().next().unwrap_or_default().to_owned() };
        let name = format!("{}/{}", text("/kind").to_lowercase(), text("/metadata/name"));
        let mut row = vec![text("/metadata/namespace"), name, ready_is, message];
        if wide {
            let applied = text("/status/lastAppliedRevision");
            row.push(if applied.is_empty() { text("/status/artifact/revision") } else { applied });
            row.push(item.pointer("/spec/suspend").is_some_and(|s| s == true).to_string());
            row.push(
                item.pointer("/status/inventory/entries")
                    .and_then(Value::as_array)
                    .map_or(String::new(), |e| e.len().to_string()),
            );
        }
        table.add_row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn where_drift_is_left_is_in_the_table() {
        let item = |message: Option<&str>| {
            let mut conditions = vec![json!({"type": "Ready", "status": "True", "message": "Applied revision: r"})];
            conditions
                .extend(message.map(|message| json!({"type": DRIFT, "reason": "DriftDetected", "message": message})));
            json!({"kind": "Kustomization", "metadata": {"name": "app", "namespace": "a"}, "status": {"conditions": conditions}})
        };
        for (message, expected) in [
            (None, "Applied revision: r"),
            (Some("Deployment/a/web: spec.x"), "Applied revision: r; DriftDetected: Deployment/a/web: spec.x"),
            (Some("x\ny\nz"), "Applied revision: r; DriftDetected: x and 2 more"),
        ] {
            let table = table(&[item(message)], false).to_string();
            assert!(table.trim_end().ends_with(expected), "{table}");
        }
    }
}
