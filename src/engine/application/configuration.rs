//! The configuration that workloads read, turned into an annotation of the pod template in the same apply as everything
//! else.
//!
//! ```text
//!  declared Secrets, ConfigMaps ──────────────┐
//!  live ones ── watch ── burst ── digests ────┼──▶ rollout::decide ──▶ overlay of the declared workload ──▶ apply
//!  live workloads ────────────────────────────┘
//! ```
//!
//! An overlay stands for the declared workload wherever it is asked what is to be sent and what the cluster is to hold.
//! What live objects hold comes from [`super::live_configuration`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::api;
use crate::engine::references::Reference;
use crate::manifest::ObjectId;
use crate::plan::{Desired, Handling};
use crate::report::metrics::HeldUp;
use crate::report::{Severity, Verdict};
use crate::rollout::{self, Asked, Configuration, Live, Reading, Record, References, Situation, Wish};

use super::following::Following;
use super::report::listed;
use super::trouble::Trouble;
use super::{Application, Failure, Prepared, Work};

/// A declared workload as it is sent.
#[derive(Clone)]
pub(super) struct Overlay {
    /// The digest of the workload as declared, without what is laid over it.
    base: String,
    pub desired: Desired,
    /// Why it is rolled; empty: it is not.
    rolls: Vec<String>,
    /// What it must not be sent without.
    held_for: Option<String>,
}

/// What is declared of a Secret or a ConfigMap, and which of its keys are others'.
type Declared<'a> = (&'a Desired, Vec<Box<str>>);

/// What a workload is to be decided upon with.
struct Candidate<'a> {
    desired: &'a Desired,
    references: Option<References>,
    live: Option<Live>,
}

impl Application {
    pub(super) fn following(&self) -> MutexGuard<'_, Following> {
        self.following.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is sent for a declared object, and what the cluster is to hold.
    pub(super) fn overlay(&self, desired: &Desired) -> Option<Overlay> {
        let following = self.following();
        following.overlays.get(&desired.object.id).filter(|overlay| overlay.base == desired.digest).cloned()
    }

    /// Nothing is followed: there is no workload.
    pub(super) async fn lay_over_nothing(&self, work: &Work) {
        {
            let mut following = self.following();
            following.overlays.clear();
            following.keys_of_others.clear();
        }
        self.follow(std::iter::empty());
        self.tell_trouble(work, &Trouble::default()).await;
        self.metrics.configuration(false, HeldUp::default());
    }

    /// Decides on all workloads among `objects`, which are about to be sent: what they read is there by now, as far as
    /// it is declared.
    pub(super) async fn lay_over(&self, work: &Work, prepared: &Prepared, objects: &[&Desired]) -> Result<(), Failure> {
        let workloads: Vec<&Desired> = objects
            .iter()
            .copied()
            .filter(|d| {
                rollout::is_workload(&d.object.id) && matches!(d.handling, Handling::Override | Handling::Merge)
            })
            .collect();
        if workloads.is_empty() {
            self.lay_over_nothing(work).await;
            return Ok(());
        }
        let by_kustomization = self.wish_of_kustomization(work)?;
        let candidates = self.candidates(prepared, &workloads, by_kustomization).await;
        let readings = self.readings(prepared, &candidates).await;
        let mut overlays = HashMap::new();
        let mut trouble = Trouble::default();
        for candidate in &candidates {
            if let Some(overlay) = self.decided(work, candidate, &readings, &mut trouble) {
                overlays.insert(candidate.desired.object.id.clone(), overlay);
            }
        }
        self.following().overlays = overlays;
        self.tell_trouble(work, &trouble).await;
        let follows = candidates.iter().any(|candidate| candidate.references.is_some());
        self.metrics.configuration(follows, trouble.counted());
        Ok(())
    }

    fn wish_of_kustomization(&self, work: &Work) -> Result<Option<Wish>, Failure> {
        let Some(text) = work.object.annotation(api::ROLLOUT) else { return Ok(None) };
        let unknown = || {
            let message = format!(
                "the annotation `{}: {text}` is not served\nhint: use {}, or remove it",
                api::ROLLOUT,
                Wish::VALUES
            );
            Failure::new("ReconciliationFailed", message).until_changed()
        };
        Wish::parse(text).map(Some).ok_or_else(unknown)
    }

    async fn candidates<'a>(
        &self,
        prepared: &Prepared,
        workloads: &[&'a Desired],
        by_kustomization: Option<Wish>,
    ) -> Vec<Candidate<'a>> {
        self.shared.namespaces.known().await;
        let mut wishes: BTreeMap<String, Option<Wish>> = BTreeMap::new();
        let mut candidates = Vec::with_capacity(workloads.len());
        for desired in workloads {
            let id = &desired.object.id;
            let live_wish =
                *wishes.entry(id.namespace.clone()).or_insert_with(|| self.shared.namespaces.wish(&id.namespace));
            // what is declared is live by now, but the watch may not have told yet
            let declared = prepared.desired.iter().find(|d| {
                d.object.id.kind == "Namespace" && d.object.id.group.is_empty() && d.object.id.name == id.namespace
            });
            let declared_wish = declared.and_then(|d| Wish::parse(d.object.unpacked().annotation(api::ROLLOUT)?));
            let above = Asked { by_kustomization, by_namespace: declared_wish.or(live_wish) };
            let references = rollout::followed(id, &desired.object.value(), above);
            let live = self.shared.observed.get(id).map(|seen| Live {
                record: seen.config.as_deref().and_then(Record::read),
                hash: seen.health.as_ref().and_then(|health| health.spec.config_hash()).map(str::to_owned),
            });
            candidates.push(Candidate { desired, references, live });
        }
        let mut following = self.following();
        if following.namespaces.is_empty() {
            following.bell.send_modify(|n| *n += 1);
        }
        following.namespaces = wishes;
        drop(following);
        candidates
    }

    /// What there is to be read of everything that is followed, by namespace.
    async fn readings(
        &self,
        prepared: &Prepared,
        candidates: &[Candidate<'_>],
    ) -> HashMap<String, BTreeMap<Configuration, Reading>> {
        let mut readings: HashMap<String, BTreeMap<Configuration, Reading>> = HashMap::new();
        let mut wanted: BTreeSet<(&str, &Configuration)> = BTreeSet::new();
        for candidate in candidates {
            let names = candidate.references.iter().flat_map(References::keys);
            wanted.extend(names.map(|name| (candidate.desired.object.id.namespace.as_str(), name)));
        }
        // by namespace and name: what is declared, and which of its keys are others'
        let mut live: Vec<(&str, &Configuration, Option<Declared<'_>>)> = Vec::new();
        let declared: HashMap<&ObjectId, &Desired> = prepared
            .desired
            .iter()
            .filter(|d| d.object.id.group.is_empty() && matches!(d.object.id.kind.as_str(), "Secret" | "ConfigMap"))
            .map(|d| (&d.object.id, d))
            .collect();
        let mut keys_of_others = BTreeMap::new();
        for (namespace, configuration) in wanted {
            let id = ObjectId::new("", configuration.kind.as_str(), namespace, configuration.name.as_str());
            let seen = self.shared.observed.get(&id);
            let left_alone = seen.as_ref().is_some_and(|seen| seen.marks.leaves_alone());
            let ours =
                declared.get(&id).filter(|d| matches!(d.handling, Handling::Override | Handling::Merge) && !left_alone);
            let Some(desired) = ours else {
                live.push((namespace, configuration, None));
                continue;
            };
            let others: Vec<Box<str>> = seen.map(|seen| seen.keys_of_others.clone()).unwrap_or_default();
            keys_of_others.insert(id, others.clone());
            // what is declared is as it is declared, whoever holds it, too
            let value = if others.is_empty() { Value::Null } else { desired.object.value() };
            let is_declared =
                |key: &str| ["data", "binaryData"].into_iter().any(|field| value[field].get(key).is_some());
            let others: Vec<Box<str>> = others.into_iter().filter(|key| !is_declared(key)).collect();
            if others.is_empty() {
                let reading = self.declared(namespace, configuration, desired, BTreeMap::new());
                readings.entry(namespace.to_owned()).or_default().insert(configuration.clone(), reading);
            } else {
                live.push((namespace, configuration, Some((desired, others))));
            }
        }
        self.following().keys_of_others = keys_of_others;
        self.follow(
            live.iter().map(|(namespace, configuration, _)| Reference::configuration(namespace, configuration)),
        );
        for (namespace, configuration, ours) in live {
            let reading = self.live_reading(&Reference::configuration(namespace, configuration)).await;
            let reading = match (ours, reading) {
                (None, reading) => reading,
                (Some((desired, others)), Reading::Content { digests, .. }) => {
                    let foreign =
                        digests.into_iter().filter(|(name, _)| others.iter().any(|o| **o == **name)).collect();
                    self.declared(namespace, configuration, desired, foreign)
                }
                (Some((desired, _)), Reading::Absent) => {
                    self.declared(namespace, configuration, desired, BTreeMap::new())
                }
                (Some(_), other) => other,
            };
            readings.entry(namespace.to_owned()).or_default().insert(configuration.clone(), reading);
        }
        readings
    }

    /// What becomes of an object that is declared: its keys, and those that others hold beside them.
    fn declared(
        &self,
        namespace: &str,
        configuration: &Configuration,
        desired: &Desired,
        of_others: BTreeMap<String, String>,
    ) -> Reading {
        let object = desired.object.unpacked();
        let of_type = object.value.get("type").and_then(Value::as_str).unwrap_or_default();
        if rollout::is_left_out(configuration.kind, of_type, |name| object.annotation(name)) {
            return Reading::LeftOut;
        }
        let live = !of_others.is_empty();
        let mut digests = of_others;
        digests.extend(rollout::declared_digests(&self.shared.digest_key, namespace, configuration, &object.value));
        let sealed = object.value.get("immutable").and_then(Value::as_bool) == Some(true);
        Reading::Content { digests, live, sealed }
    }

    /// The overlay of one workload; `None`: there is nothing to lay over it.
    fn decided(
        &self,
        work: &Work,
        candidate: &Candidate,
        readings: &HashMap<String, BTreeMap<Configuration, Reading>>,
        trouble: &mut Trouble,
    ) -> Option<Overlay> {
        let (desired, key) = (candidate.desired, &self.shared.digest_key);
        let id = &desired.object.id;
        let base = desired.digest.clone();
        let Some(references) = &candidate.references else {
            // no longer followed: taking the annotation out of the template would roll it
            let hash = candidate.live.as_ref()?.hash.as_deref()?;
            let desired = desired.changed(key, |value| rollout::set_hash(id, value, Some(hash)));
            return Some(Overlay { base, desired, rolls: Vec::new(), held_for: None });
        };
        let none = BTreeMap::new();
        let template = rollout::template_text(id, &desired.object.value());
        let situation = Situation {
            references,
            readings: readings.get(&id.namespace).unwrap_or(&none),
            live: candidate.live.as_ref(),
            template: &key.short([template.as_bytes()]),
            now: Timestamp::now().as_second(),
            asked: work.asked,
            makes_pods: id.kind != "CronJob",
            key,
        };
        let decision = rollout::decide(&situation);
        let of = |what: &String| format!("{what} of {id}");
        trouble.missing.extend(decision.record.missing.iter().map(of));
        trouble.unreadable.extend(decision.record.unreadable.iter().map(of));
        trouble.remade.extend(decision.record.remade.iter().map(of));
        if decision.record.stopped {
            trouble.loops.push(id.to_string());
        }
        if decision.too_much {
            trouble.too_much.push(id.to_string());
        }
        let held_for = decision.held.then(|| decision.record.missing.join(", "));
        let record = (!decision.too_much).then(|| decision.record.write());
        let desired = desired.changed(key, |value| {
            rollout::set_hash(id, value, decision.hash.as_deref());
            if let Some(record) = record {
                set_annotation(value, api::CONFIG, record);
            }
        });
        let rolls = decision.rolls.iter().map(ToString::to_string).collect();
        Some(Overlay { base, desired, rolls, held_for })
    }

    /// Says which workloads were rolled, and why.
    pub(super) fn tell_rolled(&self, work: &Work, rolled: &[&Overlay]) {
        if rolled.is_empty() {
            return;
        }
        self.metrics.rolled(rolled.len());
        let because =
            |overlay: &&Overlay| format!("{} because of {}", overlay.desired.object.id, overlay.rolls.join("; "));
        let told: Vec<String> = rolled.iter().map(because).collect();
        let text = format!("rolled {}", listed(&told));
        let revision = work.revision();
        self.event(
            &work.object,
            Severity::Normal,
            Verdict::Detail,
            "ConfigurationChanged",
            text,
            Some(&revision),
            None,
        );
    }

    /// Gives up after a while if workloads are held back: as soon as what they need is there, that is news which
    /// preempts the wait.
    pub(super) async fn await_configuration(&self, work: &Work) -> Result<(), Failure> {
        let held: Vec<String> = {
            let following = self.following();
            let mut held: Vec<String> = following
                .overlays
                .values()
                .filter_map(|o| Some(format!("{} needs {}", o.desired.object.id, o.held_for.as_ref()?)))
                .collect();
            held.sort();
            held
        };
        if held.is_empty() {
            return Ok(());
        }
        let message = format!(
            "what workloads read is missing: {}\nhint: they keep running as they were, and are changed as soon as it is there",
            listed(&held)
        );
        self.waiting(work, "Progressing", &message).await;
        tokio::time::sleep(work.object.spec.health_timeout()).await;
        Err(Failure::new("MissingReference", message).until_changed())
    }
}

impl Overlay {
    pub(super) fn is_held(&self) -> bool {
        self.held_for.is_some()
    }

    pub(super) fn rolls(&self) -> bool {
        !self.rolls.is_empty()
    }
}

fn set_annotation(object: &mut Value, key: &str, value: String) {
    // it has annotations: those that say who owns it
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.insert(key.into(), json!(value));
    }
}
