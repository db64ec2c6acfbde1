//! `afresh reconcile|suspend|resume`

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::connect::ClusterArgs;
use crate::api::REQUESTED_AT;
use crate::cluster::{ApiKind, Cluster, Collection, WatchEvent, Watcher};
use crate::manifest::ObjectId;

/// The field manager of what a person asks for.
const MANAGER: &str = "afresh-cli";

#[derive(clap::Args, Debug)]
pub struct TargetArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// `NAME` or `ks/NAME` of a Kustomization, `gitrepo/NAME` of a source
    target: String,
    /// Its namespace
    #[arg(short, long, default_value = "flux-system")]
    namespace: String,
}

#[derive(clap::Args, Debug)]
pub struct ReconcileArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Look at the source first
    #[arg(long)]
    with_source: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "300")]
    timeout: u64,
}

pub async fn reconcile(args: ReconcileArgs) -> anyhow::Result<()> {
    let cluster = args.target.cluster.connect().await?;
    let (kind, id) = target(&args.target)?;
    let timeout = Duration::from_secs(args.timeout);
    let object = cluster
        .get(&kind, &id)
        .await?
        .with_context(|| format!("there is no {} `{}/{}`", kind.kind, id.namespace, id.name))?;
    if args.with_source && &*kind.kind == "Kustomization" {
        let reference = &object["spec"]["sourceRef"];
        let namespace = reference["namespace"].as_str().unwrap_or(&id.namespace).to_owned();
        let name = reference["name"].as_str().unwrap_or_default();
        let kind = ApiKind::git_repository();
        request(&cluster, &kind, &kind.object(namespace, name), timeout).await?;
    }
    request(&cluster, &kind, &id, timeout).await
}

pub async fn suspend(args: TargetArgs, suspended: bool) -> anyhow::Result<()> {
    let cluster = args.cluster.connect().await?;
    let (kind, id) = target(&args)?;
    cluster.merge_patch(&kind, &id, &json!({"spec": {"suspend": suspended}}), None, MANAGER).await?;
    anstream::eprintln!(
        "{} `{}/{}` {}",
        kind.kind,
        id.namespace,
        id.name,
        if suspended { "suspended" } else { "resumed" }
    );
    Ok(())
}

fn target(args: &TargetArgs) -> anyhow::Result<(ApiKind, ObjectId)> {
    let (prefix, name) = args.target.split_once('/').unwrap_or(("ks", &args.target));
    let kind = match prefix {
        "ks" | "kustomization" | "kustomizations" => ApiKind::kustomization(),
        "gitrepo" | "gitrepository" | "gitrepositories" => ApiKind::git_repository(),
        other => bail!("`{other}` is not a kind that can be named here: use `ks/NAME` or `gitrepo/NAME`"),
    };
    let id = kind.object(args.namespace.clone(), name);
    Ok((kind, id))
}

/// Asks, and waits on a watch until the request was handled.
async fn request(cluster: &Cluster, kind: &ApiKind, id: &ObjectId, timeout: Duration) -> anyhow::Result<()> {
    let token = k8s_openapi::jiff::Timestamp::now().to_string();
    cluster.merge_patch(kind, id, &json!({"metadata": {"annotations": {REQUESTED_AT: token}}}), None, MANAGER).await?;
    let collection = Collection {
        namespace: Some(id.namespace.clone()),
        fields: Some(format!("metadata.name={}", id.name)),
        ..Collection::all(kind.clone())
    };
    let mut watcher = Watcher::<Value>::new(cluster.clone(), collection);
    let deadline = Instant::now() + timeout;
    loop {
        let event = tokio::time::timeout_at(deadline.into(), watcher.next()).await;
        let object = match event {
            Err(_) => bail!(
                "{} `{}/{}` did not answer within {} s: is the daemon running?",
                kind.kind,
                id.namespace,
                id.name,
                timeout.as_secs()
            ),
            Ok(WatchEvent::Listed { mut items, .. }) => items.pop(),
            Ok(WatchEvent::Changed(object)) => Some(object),
            Ok(WatchEvent::Deleted(_)) => bail!("{} `{}/{}` was deleted", kind.kind, id.namespace, id.name),
            Ok(WatchEvent::Lost { .. } | WatchEvent::Resumed) => None,
        };
        let Some(object) = object else { continue };
        if object.pointer("/status/lastHandledReconcileAt").and_then(Value::as_str) != Some(&token) {
            continue;
        }
        let ready = object
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .and_then(|c| c.iter().find(|c| c["type"] == "Ready"));
        let message = ready.and_then(|r| r["message"].as_str()).unwrap_or_default();
        return match ready.and_then(|r| r["status"].as_str()) {
            Some("True") => {
                anstream::println!("{} `{}/{}`: {message}", kind.kind, id.namespace, id.name);
                Ok(())
            }
            _ => bail!("{} `{}/{}`: {message}", kind.kind, id.namespace, id.name),
        };
    }
}
