//! Which workloads would be rolled because of what they read, told without the installation's key: what live objects
//! hold and what they would hold are compared under a key of this moment.
//!
//! Comes in: what is declared, and what the server would make of it. Goes out: workloads and causes, names and keys
//! alone. What is not declared does not change by an attempt, and is read by nobody here.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::api;
use crate::apply::{Fate, Outlook};
use crate::cluster::{ApiKind, Cluster};
use crate::manifest::{DigestKey, ObjectId};
use crate::plan::{Desired, Handling};
use crate::rollout::{
    self, Asked, Configuration, Live, Reading, Record, References, Situation, Wish, declared_digests,
};

use super::{Deletions, Expected, Question};

/// A workload that would be rolled.
pub struct Roll {
    pub id: ObjectId,
    /// `secret/a: user, password`
    pub causes: Vec<String>,
}

/// What becomes of the Secrets and ConfigMaps that an application declares or has declared.
type Changes<'a> = HashMap<&'a ObjectId, Change<'a>>;

#[derive(Clone, Copy)]
struct Change<'a> {
    /// `None`: there is none, as below.
    before: Option<&'a Value>,
    after: Option<&'a Value>,
}

/// What the workloads of an application would be rolled for.
pub(super) async fn look(
    question: &Question<'_>,
    desired: &[Desired],
    expected: &[Expected],
    deletions: &Deletions,
    unseen: &mut Vec<String>,
) -> Vec<Roll> {
    let changes = changes(expected, deletions);
    let by_kustomization = question.object.annotation(api::ROLLOUT).and_then(Wish::parse);
    let mut namespaces: BTreeMap<&str, Option<Wish>> = BTreeMap::new();
    let mut rolls = Vec::new();
    for workload in desired {
        let id = &workload.object.id;
        if !rollout::is_workload(id) || !matches!(workload.handling, Handling::Override | Handling::Merge) {
            continue;
        }
        let by_namespace = match namespaces.get(id.namespace.as_str()) {
            Some(known) => *known,
            None => {
                let wish = wish_of_namespace(question.cluster, desired, &id.namespace).await;
                namespaces.insert(&id.namespace, wish);
                wish
            }
        };
        let above = Asked { by_kustomization, by_namespace };
        let Some(references) = rollout::followed(id, &workload.object.value(), above) else { continue };
        let declared = |name: &Configuration| changes.contains_key(&object_of(&id.namespace, name));
        let (changing, others): (References, References) =
            references.into_iter().partition(|(configuration, _)| declared(configuration));
        if changing.is_empty() {
            continue;
        }
        match recorded(question.cluster, workload).await {
            Ok(Some(record)) if !waits(&record, &others) => {
                rolls.extend(roll(id, &workload.object.value(), &changing, &changes, &record));
            }
            Ok(_) => {}
            Err(why) => unseen.push(format!("what {id} has read: {why}")),
        }
    }
    rolls
}

fn object_of(namespace: &str, configuration: &Configuration) -> ObjectId {
    ObjectId::new("", configuration.kind.as_str(), namespace, configuration.name.as_str())
}

fn changes<'a>(expected: &'a [Expected], deletions: &'a Deletions) -> Changes<'a> {
    let of_interest = |id: &ObjectId| id.group.is_empty() && matches!(id.kind.as_str(), "Secret" | "ConfigMap");
    let mut changes = Changes::new();
    for Expected { id, outlook, .. } in expected.iter().filter(|expected| of_interest(&expected.id)) {
        let Outlook { live, fate, .. } = outlook;
        let after = match fate {
            Fate::Applied(would) | Fate::Recreated { becomes: would, .. } | Fate::Unasked { declared: would, .. } => {
                Some(would)
            }
            Fate::Left(_) | Fate::Refused(_) | Fate::Unreadable(_) => live.as_ref(),
        };
        changes.insert(id, Change { before: live.as_ref(), after });
    }
    for (id, _, live) in deletions.deleted.iter().filter(|(id, ..)| of_interest(id)) {
        changes.insert(id, Change { before: Some(live), after: None });
    }
    changes
}

/// What a Namespace asks for, as it is declared or as it is.
async fn wish_of_namespace(cluster: &Cluster, desired: &[Desired], name: &str) -> Option<Wish> {
    let declared = desired
        .iter()
        .map(|d| &d.object)
        .find(|o| o.id.group.is_empty() && o.id.kind == "Namespace" && o.id.name == name);
    if let Some(wish) = declared.and_then(|object| Wish::parse(object.unpacked().annotation(api::ROLLOUT)?)) {
        return Some(wish);
    }
    // whoever may not look at Namespaces is not told what they ask for, as a daemon that may not
    let live = cluster.get(&ApiKind::namespace(), &ObjectId::new("", "Namespace", "", name)).await.ok()??;
    Wish::parse(live.get("metadata")?.get("annotations")?.get(api::ROLLOUT)?.as_str()?)
}

/// What the live workload's Pods have read; `None`: nothing is recorded, and the first sight is a baseline.
async fn recorded(cluster: &Cluster, workload: &Desired) -> Result<Option<Record>, String> {
    let object = &workload.object;
    let kind = cluster.resolve(&object.id.group, &object.id.kind, Some(&object.version)).await;
    let kind = kind.map_err(|error| error.to_string())?;
    let live = cluster.get(&kind, &object.id).await.map_err(|error| error.to_string())?;
    let text = live.as_ref().and_then(|live| live.pointer("/metadata/annotations")?.get(api::CONFIG)?.as_str());
    Ok(text.and_then(Record::read))
}

/// Whether something else than what would change holds the workload as it is.
fn waits(record: &Record, others: &References) -> bool {
    let lacks = |other: &Configuration| {
        let name = other.to_string();
        record.missing.iter().any(|missing| missing.split(':').next() == Some(name.as_str()))
    };
    record.stopped || others.keys().any(lacks)
}

/// Decides as the daemon does, but from what there is now instead of from what it has recorded.
fn roll(
    id: &ObjectId,
    declared: &Value,
    references: &References,
    changes: &Changes<'_>,
    record: &Record,
) -> Option<Roll> {
    let key = DigestKey::new([0; 32]);
    // what is followed from now on is a baseline
    let references: References = references
        .iter()
        .filter(|(configuration, _)| record.reads.contains_key(&configuration.to_string()))
        .map(|(configuration, wanted)| (configuration.clone(), wanted.clone()))
        .collect();
    let template = rollout::template_text(id, declared);
    let content = |configuration: &Configuration, is_after: bool| {
        let change = changes.get(&object_of(&id.namespace, configuration));
        let object = change.and_then(|change| if is_after { change.after } else { change.before });
        (configuration.clone(), reading(&key, &id.namespace, configuration, object))
    };
    let before: BTreeMap<_, _> = references.keys().map(|configuration| content(configuration, false)).collect();
    let after: BTreeMap<_, _> = references.keys().map(|configuration| content(configuration, true)).collect();
    let situation = Situation {
        references: &references,
        readings: &before,
        live: None,
        template: &template,
        now: 0,
        asked: false,
        makes_pods: id.kind != "CronJob",
        key: &key,
    };
    let live = Live { record: Some(rollout::decide(&situation).record), hash: None };
    let decision = rollout::decide(&Situation { readings: &after, live: Some(&live), ..situation });
    let causes: Vec<String> = decision.rolls.iter().map(ToString::to_string).collect();
    (!causes.is_empty()).then(|| Roll { id: id.clone(), causes })
}

fn reading(key: &DigestKey, namespace: &str, configuration: &Configuration, object: Option<&Value>) -> Reading {
    let Some(object) = object else { return Reading::Absent };
    let annotation = |name: &str| object.pointer("/metadata/annotations")?.get(name)?.as_str();
    let of_type = object.get("type").and_then(Value::as_str).unwrap_or_default();
    if rollout::is_left_out(configuration.kind, of_type, annotation) {
        return Reading::LeftOut;
    }
    let digests = declared_digests(key, namespace, configuration, object);
    Reading::Content { digests, live: false, sealed: false }
}
