//! The watches that keep what the listener knows of sources and applications current.

use serde_json::Value;

use super::address::Address;
use super::known::{Application, Known, Labels, Source};
use crate::api::{Key, RefSpec};
use crate::cluster::{ApiKind, Cluster, Collection, WatchEvent, Watcher};
use crate::source::Reference;
use crate::source::reference::Fields;

/// Follows all GitRepositories (of a namespace). Never ends.
pub async fn follow_sources(cluster: &Cluster, namespace: Option<&str>, known: &Known) {
    let collection =
        Collection { namespace: namespace.map(str::to_owned), ..Collection::all(ApiKind::git_repository()) };
    let mut watcher = Watcher::<Value>::new(cluster.clone(), collection);
    loop {
        match watcher.next().await {
            WatchEvent::Listed { items, .. } => {
                known.set_sources(items.iter().map(|item| (Key::of(item), source(item))))
            }
            WatchEvent::Changed(item) => known.put_source(Key::of(&item), source(&item)),
            WatchEvent::Deleted(item) => known.remove_source(&Key::of(&item)),
            WatchEvent::Resumed => {}
            WatchEvent::Lost { error, .. } => tracing::debug!(%error, "the webhooks' watch of sources was lost"),
        }
    }
}

/// Follows names and labels of all Kustomizations (of a namespace), and which source each has if that is to be known.
/// Never ends.
pub async fn follow_applications(cluster: &Cluster, namespace: Option<&str>, known: &Known, with_source: bool) {
    let collection = Collection {
        namespace: namespace.map(str::to_owned),
        metadata_only: !with_source,
        ..Collection::all(ApiKind::kustomization())
    };
    let mut watcher = Watcher::<Value>::new(cluster.clone(), collection);
    loop {
        match watcher.next().await {
            WatchEvent::Listed { items, .. } => {
                known.set_applications(items.iter().map(|item| (Key::of(item), application(item))));
            }
            WatchEvent::Changed(item) => known.put_application(Key::of(&item), application(&item)),
            WatchEvent::Deleted(item) => known.remove_application(&Key::of(&item)),
            WatchEvent::Resumed => {}
            WatchEvent::Lost { error, .. } => tracing::debug!(%error, "the webhooks' watch of applications was lost"),
        }
    }
}

fn source(item: &Value) -> Source {
    let reference = item.pointer("/spec/ref").cloned().map(serde_json::from_value::<RefSpec>);
    let follows = match reference {
        None => Reference::from_spec(Fields::default()).ok(),
        Some(Ok(RefSpec { branch, tag, semver, name, commit })) => Reference::from_spec(Fields {
            branch: branch.as_deref(),
            tag: tag.as_deref(),
            semver: semver.as_deref(),
            name: name.as_deref(),
            commit: commit.as_deref(),
        })
        .ok(),
        Some(Err(_)) => None,
    };
    Source {
        labels: labels(item),
        address: item.pointer("/spec/url").and_then(Value::as_str).and_then(Address::parse),
        follows,
        suspended: item.pointer("/spec/suspend") == Some(&Value::Bool(true)),
    }
}

fn application(item: &Value) -> Application {
    let text = |pointer| item.pointer(pointer).and_then(Value::as_str);
    let namespace = text("/spec/sourceRef/namespace").or_else(|| text("/metadata/namespace")).unwrap_or_default();
    let follows = text("/spec/sourceRef/name").map(|name| Key::new(namespace, name));
    Application { labels: labels(item), follows }
}

fn labels(item: &Value) -> Labels {
    let labels = item.pointer("/metadata/labels").and_then(Value::as_object);
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    labels.into_iter().flatten().filter_map(text).collect()
}
