//! From a head and a spec to objects ready to be sent, memoised by what the render read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::api::{Key, Kustomization};
use crate::engine::bases::{BASES_MAX, Bases, NO_KEY};
use crate::engine::permits::Urgency;
use crate::engine::source::Head;
use crate::manifest::{Object, ObjectId, Packed, TreeError};
use crate::plan;
use crate::render::{AppRef, Keys, ReadSet, RemoteBase, RenderError};
use crate::report::{Severity, Stage, Verdict};
use crate::source::Snapshot;

use super::{Application, Failure, Prepared, Work};

/// What besides the tree goes into a render, as a digest: values may be secret and are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inputs([u8; 32]);

/// How long a kind that no definition brings may take to be known: it was perhaps just established.
pub(super) const KIND_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(10);
pub(super) const KIND_WAIT_STEP: std::time::Duration = std::time::Duration::from_millis(500);

impl Application {
    /// Renders `head` for `object` and says in the registry what it declares.
    pub async fn render(
        &self,
        object: &Arc<Kustomization>,
        head: &Arc<Head>,
        urgency: Urgency,
    ) -> Result<Arc<Prepared>, Failure> {
        let started = Instant::now();
        let result = self.render_memoised(object, head, urgency).await;
        self.shared.metrics.stage(Stage::Render, started.elapsed());
        let declared: Option<BTreeSet<ObjectId>> =
            result.as_ref().ok().map(|p| p.desired.iter().map(|d| d.object.id.clone()).collect());
        self.shared.registry.rendered(&self.key, &head.identity, declared.as_ref());
        result
    }

    /// Whether what was rendered last read nothing that differs between the head before and this one, as far as that is
    /// known without a look at the tree: a hint about who goes first.
    pub fn is_untouched_by(&self, head: &Head, before: Option<&str>) -> bool {
        let Some(changed) = head.changed.as_ref().filter(|changed| before == Some(changed.since.as_str())) else {
            return false;
        };
        self.memory().prepared.as_ref().is_some_and(|prepared| !prepared.read_set().may_hold(&changed.paths))
    }

    /// True if a newer head renders what the attempt works on.
    pub async fn renders_the_same(&self, work: &Work, head: &Arc<Head>) -> bool {
        let after = self.render(&work.object, head, work.urgency).await;
        let before = work.rendered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        before.is_some_and(|before| after.is_ok_and(|after| (after.rendered.digest, after.inputs.clone()) == before))
    }

    async fn render_memoised(
        &self,
        object: &Arc<Kustomization>,
        head: &Arc<Head>,
        urgency: Urgency,
    ) -> Result<Arc<Prepared>, Failure> {
        let substitutions = self.substitutions(object).await?;
        let decryption = self.decryption(object).await?;
        let inputs = inputs(
            object,
            &head.view,
            substitutions.as_ref().map(|s| &s.variables),
            decryption.as_ref().map(|decryption| &decryption.digest),
        );
        let before = self.memory().prepared.clone().filter(|p| p.inputs == inputs);
        let failed = self.memory().failed.clone().filter(|failed| failed.0 == inputs);
        let mut permit = self.shared.renders.acquire(urgency).await;
        let values = substitutions.as_ref().map(|s| s.secrets.clone()).unwrap_or_default();
        let substitutions = Arc::new(substitutions);
        let mut bases = self.memory().bases.clone();
        let mut fetched = 0;
        let cancel = Arc::new(AtomicBool::new(false));
        let _cancel_when_dropped = CancelWhenDropped(cancel.clone());
        let job = |bases: &Bases| {
            let (object, key, before) = (object.clone(), self.key.clone(), before.clone());
            let (failed, substitutions, cancel) = (failed.clone(), substitutions.clone(), cancel.clone());
            let keys = decryption.as_ref().map(|decryption| decryption.keys.clone());
            let tree = bases.in_tree(&head.snapshot);
            move || {
                // what it read is as it was: it fails as it did
                if let Some((_, read_set, failure)) = failed.as_deref()
                    && read_set.unchanged(&tree).is_ok_and(|unchanged| unchanged)
                {
                    return Err(Unrendered::boxed(failure.clone(), None));
                }
                let variables = (*substitutions).as_ref().map(|s| &s.variables);
                render(&object, &tree, &key, variables, keys.as_deref(), before.as_deref(), &cancel)
            }
        };
        let outcome = loop {
            let outcome = tokio::task::spawn_blocking(job(&bases)).await;
            let Ok(Err(unrendered)) = &outcome else { break outcome };
            let Some(base) = unrendered.base.clone() else { break outcome };
            if !self.shared.remotes.allows_bases() || fetched == BASES_MAX {
                break outcome;
            }
            // nobody else waits for somebody's repository
            drop(permit);
            Box::pin(self.fetch_base(object, head, &mut bases, &base)).await?;
            fetched += 1;
            permit = self.shared.renders.acquire(urgency).await;
        };
        let rendered = match outcome {
            Ok(Ok(Some(rendered))) => rendered,
            // what it read is as it was
            Ok(Ok(None)) => return before.ok_or_else(|| Failure::new("BuildFailed", "the memoised render vanished")),
            Ok(Err(unrendered)) => {
                let Unrendered { failure, read_set, .. } = *unrendered;
                if let Some(read_set) = read_set {
                    let mut memory = self.memory();
                    memory.failed = Some(Arc::new((inputs, read_set, failure.clone())));
                    let tell = memory.commits.rendered(&head.revision, None);
                    drop(memory);
                    self.tell_commits(object, tell, &head.revision, failure.reason, &failure.message);
                }
                return Err(failure);
            }
            Err(panic) => return Err(Failure::new("BuildFailed", format!("the renderer failed: {panic}"))),
        };
        drop(permit);
        let tell = {
            let mut memory = self.memory();
            memory.failed = None;
            memory.commits.rendered(&head.revision, Some(rendered.digest))
        };
        let message = format!("applying revision {}", head.revision);
        self.tell_commits(object, tell, &head.revision, "Progressing", &message);
        let secrets: Arc<[String]> = rendered.secrets_with(&values).cloned().collect();
        if let Some(desired) = before.and_then(|before| read_elsewhere(&before, &rendered)) {
            let prepared = Arc::new(Prepared::new(rendered, inputs, desired, secrets));
            self.memory().prepared = Some(prepared.clone());
            return Ok(prepared);
        }
        let desired = self.desired(object, &rendered).await?;
        let prepared = Arc::new(Prepared::new(rendered, inputs, desired, secrets));
        self.memory().prepared = Some(prepared.clone());
        Ok(prepared)
    }

    /// Fetches what a kustomization names in another repository, and tells which commit that is.
    async fn fetch_base(
        &self,
        object: &Kustomization,
        head: &Head,
        bases: &mut Bases,
        base: &RemoteBase,
    ) -> Result<(), Failure> {
        let source = self.shared.source(&object.source_key()).state();
        let key = source.ssh_key.as_deref().ok_or(NO_KEY);
        let fetched = bases.fetch(&self.shared.remotes, base, key).await;
        let commit = fetched.map_err(|message| Failure::new("BuildFailed", message))?;
        tracing::info!(app = %self.key, %base, commit, "a remote base is pinned");
        let message = format!("remote base `{base}` is commit {commit}");
        self.event(object, Severity::Normal, Verdict::Detail, "RemoteBase", message, Some(&head.revision), None);
        self.memory().bases = bases.clone();
        Ok(())
    }

    /// Settles scopes; a kind that nobody knows yet is waited for, since its definition may have come a moment ago.
    async fn desired(
        &self,
        object: &Kustomization,
        rendered: &crate::render::Rendered,
    ) -> Result<Vec<plan::Desired>, Failure> {
        // what is wrong with the rules was said before
        let ignore = plan::IgnoreRules::compile(&object.spec.ignore).unwrap_or_default();
        let app = plan::Application { key: &self.key, ignore: &ignore };
        let deadline = Instant::now() + KIND_WAIT_MAX;
        loop {
            let scopes = Scopes(&self.shared.cluster);
            let errors = match plan::desired(&rendered.objects, &app, &scopes, &self.shared.digest_key) {
                Ok(desired) => return Ok(desired),
                Err(errors) => errors,
            };
            let unknown: Vec<_> = errors
                .iter()
                .filter_map(|e| match e {
                    plan::PlanError::KindUnknown { kind, api_version, .. } => Some((kind.clone(), api_version.clone())),
                    _ => None,
                })
                .collect();
            if unknown.len() < errors.len() || Instant::now() >= deadline {
                let text: Vec<_> = errors.iter().take(ERRORS_SHOWN_MAX).map(ToString::to_string).collect();
                let more = errors.len().saturating_sub(ERRORS_SHOWN_MAX);
                let more = if more > 0 { format!("\n… and {more} more") } else { String::new() };
                return Err(Failure::new("BuildFailed", format!("{}{more}", text.join("\n"))));
            }
            for (kind, api_version) in &unknown {
                let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
                // an error says that it is still unknown, which the next round finds out, too
                let _ = self.shared.cluster.resolve(group, kind, Some(version)).await;
            }
            let known = unknown.iter().all(|(kind, api_version)| {
                let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
                self.shared.cluster.resource(group, kind, Some(version)).is_some()
            });
            if !known {
                tokio::time::sleep(KIND_WAIT_STEP).await;
            }
        }
    }
}

/// Errors shown in a condition: more than a person reads at once would hide the first.
pub(super) const ERRORS_SHOWN_MAX: usize = 5;

/// What was prepared before, in the order and with the lines of a render of the same objects; `None` if they differ.
fn read_elsewhere(before: &Prepared, rendered: &crate::render::Rendered) -> Option<Vec<plan::Desired>> {
    if before.rendered.digest != rendered.digest {
        return None;
    }
    let known: BTreeMap<&ObjectId, &plan::Desired> = before.rendered.ids.iter().zip(&before.desired).collect();
    let moved = |object: &Arc<Object>| {
        let mut desired = (*known.get(&object.id)?).clone();
        if desired.object.origin != object.origin {
            let mut packed = Packed::clone(&desired.object);
            packed.origin = object.origin.clone();
            desired.object = Arc::new(packed);
        }
        Some(desired)
    };
    rendered.objects.iter().map(moved).collect()
}

pub(super) struct CancelWhenDropped(pub Arc<AtomicBool>);

impl Drop for CancelWhenDropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The kinds that the cluster is known to serve.
pub(in crate::engine) struct Scopes<'a>(pub &'a crate::cluster::Cluster);

impl plan::Scopes for Scopes<'_> {
    fn namespaced(&self, group: &str, kind: &str) -> Option<bool> {
        self.0.resource(group, kind, None).map(|kind| kind.namespaced)
    }
}

/// Why nothing was rendered, and what had been read if it fails in the same way until that changes.
struct Unrendered {
    failure: Failure,
    read_set: Option<ReadSet>,
    /// What has to be fetched first.
    base: Option<Box<RemoteBase>>,
}

impl Unrendered {
    fn boxed(failure: Failure, read_set: Option<ReadSet>) -> Box<Self> {
        Box::new(Self { failure, read_set, base: None })
    }
}

/// On a thread of its own. `None`: what the memoised render read is unchanged.
fn render(
    object: &Kustomization,
    tree: &Snapshot,
    key: &Key,
    substitutions: Option<&BTreeMap<String, String>>,
    keys: Option<&Keys>,
    before: Option<&Prepared>,
    cancel: &AtomicBool,
) -> Result<Option<crate::render::Rendered>, Box<Unrendered>> {
    if let Some(before) = before {
        match before.read_set().unchanged(tree) {
            Ok(true) => return Ok(None),
            Ok(false) => {}
            Err(error) => return Err(Unrendered::boxed(failure(&error.into()), None)),
        }
    }
    let app = AppRef { name: key.name.clone(), namespace: key.namespace.clone() };
    let cancelled = || cancel.load(Ordering::Acquire);
    let request = crate::engine::request(&object.spec, &app, tree, substitutions, keys, &cancelled);
    crate::render::render(&request).map(Some).map_err(|failed| {
        let read_set = failed.error.is_final().then_some(failed.read_set);
        let mut unrendered = Unrendered::boxed(failure(&failed.error), read_set);
        if let RenderError::RemoteBase { base, .. } = failed.error {
            unrendered.base = Some(base);
        }
        unrendered
    })
}

fn failure(error: &RenderError) -> Failure {
    let reason = match error {
        RenderError::PathNotFound { .. } | RenderError::NotADirectory { .. } | RenderError::Tree(_) => "ArtifactFailed",
        _ => "BuildFailed",
    };
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    let unreadable = matches!(error, RenderError::Tree(TreeError::Store { .. }));
    Failure { unreadable, ..Failure::new(reason, format!("{error}{hint}")) }
}

fn inputs(
    object: &Kustomization,
    view: &str,
    substitutions: Option<&BTreeMap<String, String>>,
    keys: Option<&[u8; 32]>,
) -> Inputs {
    let spec = &object.spec;
    let parts = serde_json::json!([
        spec.path,
        spec.source_ref,
        spec.target_namespace,
        [&spec.name_prefix, &spec.name_suffix],
        [serde_json::json!(spec.patches), serde_json::json!(spec.images), serde_json::json!(spec.build_metadata)],
        [serde_json::json!(spec.components), serde_json::json!(spec.ignore_missing_components)],
        spec.common_metadata,
        spec.post_build.as_ref().and_then(|p| p.substitute_strategy),
        substitutions,
        keys,
        spec.ignore,
        view
    ]);
    Inputs(Sha256::digest(parts.to_string()).into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(change: impl FnOnce(&mut Value)) -> Kustomization {
        let mut spec = json!({
            "interval": "10m", "prune": true, "path": "./app", "sourceRef": {"kind": "GitRepository", "name": "platform"},
        });
        change(&mut spec);
        let object = json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "metadata": {"name": "app", "namespace": "flux-system"}, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn whatever_goes_into_a_render_besides_the_tree_makes_a_new_one_and_nothing_else_does() {
        let values = |text: &str| BTreeMap::from([("colour".to_owned(), text.to_owned())]);
        let same = inputs(&object(|_| {}), "", Some(&values("red")), None);
        let with = |change: fn(&mut Value)| inputs(&object(change), "", Some(&values("red")), None);
        for (what, other) in [
            ("a value of substituteFrom", inputs(&object(|_| {}), "", Some(&values("blue")), None)),
            ("none of them", inputs(&object(|_| {}), "", None, None)),
            ("keys", inputs(&object(|_| {}), "", Some(&values("red")), Some(&[1; 32]))),
            ("what hides parts of the tree", inputs(&object(|_| {}), "*.md", Some(&values("red")), None)),
            ("the path", with(|spec| spec["path"] = json!("./other"))),
            ("the namespace", with(|spec| spec["targetNamespace"] = json!("shop"))),
            ("patches", with(|spec| spec["patches"] = json!([{"patch": "[]", "target": {"kind": "Pod"}}]))),
            ("images", with(|spec| spec["images"] = json!([{"name": "web", "newTag": "2"}]))),
            ("components", with(|spec| spec["components"] = json!(["../part"]))),
            ("common metadata", with(|spec| spec["commonMetadata"] = json!({"labels": {"a": "b"}}))),
            ("a prefix", with(|spec| spec["namePrefix"] = json!("x-"))),
            ("the strategy", with(|spec| spec["postBuild"] = json!({"substituteStrategy": "Always"}))),
        ] {
            assert_ne!(other, same, "{what}");
        }
        for (what, other) in [
            ("nothing", with(|_| {})),
            ("the interval", with(|spec| spec["interval"] = json!("1m"))),
            ("pruning", with(|spec| spec["prune"] = json!(false))),
            ("waiting", with(|spec| spec["wait"] = json!(true))),
        ] {
            assert_eq!(other, same, "{what}");
        }
    }
}
