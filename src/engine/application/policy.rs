//! What policies say of a render, before anything of it reaches the cluster.
//!
//! Comes in: a render, ready to be applied. Goes out: leave to apply it, or a failure that names each denial with its
//! file and line. Asked once for each render and set of policies. The cluster is only asked where a policy asks for what
//! it alone knows: the object as it is, or its Namespace.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::cluster::{Cluster, ErrorClass};
use crate::manifest::{ObjectId, REDACTED_BYTES_MIN};
use crate::plan::Desired;
use crate::policy::{Action, Allowance, Finding, PolicySet, Resources, Subject, place};
use crate::report::{Severity, Verdict};

use super::attempt::Decision;
use super::render::{CancelWhenDropped, ERRORS_SHOWN_MAX};
use super::{Application, Failure, Prepared, Work};

/// The reason of conditions and Events.
pub(super) const POLICY_DENIED: &str = "PolicyDenied";
/// Findings that are kept of one render: more than a person reads, and memory stays bounded.
const FINDINGS_MAX: usize = 100;
/// Events of one render for what is warned of or noted.
const EVENTS_MAX: usize = 10;

/// What was said of a render, which holds as long as neither it nor the policies change.
#[derive(Clone)]
pub(super) struct Judged {
    digest: [u8; 32],
    policies: Arc<PolicySet>,
    denial: Option<Failure>,
}

/// A finding, told with its place.
struct Told {
    action: Action,
    text: String,
}

/// All that was found, of which not all is kept.
#[derive(Default)]
struct Findings {
    kept: Vec<Told>,
    denied: usize,
    /// The evaluations took too long: what was found is not all.
    unfinished: bool,
}

/// One object, with what only the cluster knows of it.
struct Known {
    desired: Desired,
    resource: String,
    namespaced: bool,
    before: Option<Value>,
    namespace: Option<Arc<Value>>,
}

impl Application {
    /// Denials end the attempt before anything is written.
    pub async fn judge(&self, work: &Work, prepared: &Arc<Prepared>) -> Result<(), Failure> {
        let policies = self.shared.policies.current();
        if policies.is_empty() {
            return Ok(());
        }
        let digest = prepared.rendered.digest;
        let judged = self.memory().judged.clone();
        if let Some(judged) = judged.filter(|j| j.digest == digest && Arc::ptr_eq(&j.policies, &policies)) {
            return judged.denial.map_or(Ok(()), Err);
        }
        let resources = Resources::of(prepared.desired.iter().map(|desired| &desired.object));
        let (known, asked) = self.known(work, &policies, prepared, &resources).await?;
        let _permit = self.shared.renders.acquire(work.urgency).await;
        let cancel = Arc::new(AtomicBool::new(false));
        let _cancel_when_dropped = CancelWhenDropped(cancel.clone());
        let evaluation = {
            let (policies, prepared) = (policies.clone(), prepared.clone());
            tokio::task::spawn_blocking(move || evaluate(&policies, &prepared, &known, &cancel))
        };
        let findings = evaluation
            .await
            .map_err(|panic| Failure::new(POLICY_DENIED, format!("the policies could not be evaluated: {panic}")))?;
        self.tell(work, &findings);
        // what the cluster had a say in may be said otherwise without a push
        let denial = findings.denial().map(|denial| if asked { denial } else { denial.until_changed() });
        if !(asked && denial.is_some()) {
            self.memory().judged = Some(Judged { digest, policies, denial: denial.clone() });
        }
        denial.map_or(Ok(()), Err)
    }

    /// The objects, with what policies ask the cluster for; and whether anything was asked for.
    async fn known(
        &self,
        work: &Work,
        policies: &PolicySet,
        prepared: &Prepared,
        resources: &Resources,
    ) -> Result<(Vec<Known>, bool), Failure> {
        let mut namespaces: HashMap<String, Option<Arc<Value>>> = HashMap::new();
        for desired in &prepared.desired {
            if desired.object.id.group.is_empty() && desired.object.id.kind == "Namespace" {
                namespaces.insert(desired.object.id.name.clone(), Some(Arc::new(desired.object.value.clone())));
            }
        }
        let (mut known, mut asked) = (Vec::with_capacity(prepared.desired.len()), false);
        for desired in &prepared.desired {
            let id = &desired.object.id;
            let (resource, namespaced) = self.resource(resources, desired);
            let subject = subject(desired, &resource, namespaced, None, None);
            let mut before = None;
            if policies.asks_before(&subject) {
                asked = true;
                before = self.before(work, desired).await?;
            }
            if namespaced && policies.asks_for_namespace(&subject) && !namespaces.contains_key(&id.namespace) {
                asked = true;
                // policies, not who writes, ask for it
                let id = ObjectId::new("", "Namespace", "", &*id.namespace);
                let namespace = live(&self.shared.cluster, &id).await?;
                namespaces.insert(id.name, namespace.map(Arc::new));
            }
            let namespace = namespaces.get(&id.namespace).cloned().flatten();
            known.push(Known { desired: desired.clone(), resource, namespaced, before, namespace });
        }
        Ok((known, asked))
    }

    /// The object as it is: as it is declared, if the cluster holds it so.
    async fn before(&self, work: &Work, desired: &Desired) -> Result<Option<Value>, Failure> {
        let id = &desired.object.id;
        if let Some(kind) = self.shared.cluster.resource(&id.group, &id.kind, Some(&desired.object.version)) {
            let watched = [(&kind, &*id.namespace)].into_iter();
            let watched = self.shared.observed.ensure_watched_in(&self.key, watched).await;
            if watched.is_ok() && self.decide(desired) == Decision::Held {
                return Ok(Some(desired.object.value.clone()));
            }
        }
        live(&work.identity.cluster, id).await
    }

    fn resource(&self, resources: &Resources, desired: &Desired) -> (String, bool) {
        let id = &desired.object.id;
        match self.shared.cluster.resource(&id.group, &id.kind, Some(&desired.object.version)) {
            Some(kind) => (kind.plural.to_string(), kind.namespaced),
            None => resources.find(&id.group, &id.kind),
        }
    }

    /// What is warned of or noted, as Events.
    fn tell(&self, work: &Work, findings: &Findings) {
        let told = findings.kept.iter().filter(|told| told.action != Action::Deny);
        for told in told.take(EVENTS_MAX) {
            let (severity, reason) = match told.action {
                Action::Warn => (Severity::Warning, "PolicyWarning"),
                _ => (Severity::Normal, "PolicyAudit"),
            };
            let (text, revision) = (told.text.clone(), work.revision());
            self.event(&work.object, severity, Verdict::Detail, reason, text, Some(&revision), None);
        }
    }
}

impl Findings {
    fn denial(&self) -> Option<Failure> {
        if self.unfinished {
            let message = "the policies take too long for what this revision declares\nhint: let their rules match less, or look at what their expressions go through";
            return Some(Failure::new(POLICY_DENIED, message));
        }
        let denied = self.kept.iter().filter(|told| told.action == Action::Deny);
        let mut lines: Vec<String> = denied.take(ERRORS_SHOWN_MAX).map(|told| told.text.clone()).collect();
        let more = self.denied - lines.len();
        if more > 0 {
            lines.push(format!("… and {more} more"));
        }
        (self.denied > 0).then(|| Failure::new(POLICY_DENIED, lines.join("\n")))
    }

    fn add(&mut self, finding: &Finding, text: impl FnOnce() -> String) {
        let denies = finding.action == Action::Deny;
        self.denied += usize::from(denies);
        // a denial is worth more than a note
        if self.kept.len() == FINDINGS_MAX && denies && self.denied <= ERRORS_SHOWN_MAX {
            self.kept.pop();
        }
        if self.kept.len() < FINDINGS_MAX {
            self.kept.push(Told { action: finding.action, text: text() });
        }
    }
}

async fn live(cluster: &Cluster, id: &ObjectId) -> Result<Option<Value>, Failure> {
    let found = match cluster.resolve(&id.group, &id.kind, None).await {
        Ok(kind) => cluster.get(&kind, id).await,
        // its definition comes with it
        Err(error) if error.class == ErrorClass::NoSuchKind => return Ok(None),
        Err(error) => Err(error),
    };
    found.map_err(|error| {
        let message = format!("{id}: policies ask for it as it is in the cluster, and it can't be read: {error}");
        Failure::new(POLICY_DENIED, message)
    })
}

fn subject<'a>(
    desired: &'a Desired,
    resource: &'a str,
    namespaced: bool,
    old_object: Option<&'a Value>,
    namespace_object: Option<&'a Value>,
) -> Subject<'a> {
    let id = &desired.object.id;
    Subject {
        group: &id.group,
        version: &desired.object.version,
        kind: &id.kind,
        resource,
        namespaced,
        object: &desired.object.value,
        old_object,
        namespace_object,
        user: "",
    }
}

/// On a thread of its own.
fn evaluate(policies: &PolicySet, prepared: &Prepared, known: &[Known], cancel: &AtomicBool) -> Findings {
    let (mut findings, allowance) = (Findings::default(), Allowance::default());
    // a message may be made of what a Secret was substituted into
    let redaction = LazyCell::new(|| prepared.rendered.redaction(prepared.secrets.iter().map(String::as_str)));
    for (index, Known { desired, resource, namespaced, before, namespace }) in known.iter().enumerate() {
        if cancel.load(Ordering::Acquire) {
            break;
        }
        let subject = subject(desired, resource, *namespaced, before.as_ref(), namespace.as_deref());
        let shown = as_in_git(desired, &prepared.secrets);
        let subject = Subject { object: shown.as_ref().unwrap_or(&desired.object.value), ..subject };
        for finding in policies.evaluate_within(&subject, &allowance) {
            findings.add(&finding, || {
                let at = prepared.rendered.error_at(index, &place(&subject, &finding), "");
                let Finding { policy, binding, message, .. } = &finding;
                let (id, mut message) = (&desired.object.id, message.clone());
                redaction.apply(&mut message);
                format!("{}:{}: {id}: {message} (policy `{policy}`, binding `{binding}`)", at.path, at.line)
            });
        }
        if allowance.is_used_up() {
            findings.unfinished = true;
            break;
        }
    }
    findings
}

/// In place of a value that Git does not hold.
const NOT_IN_GIT: &str = "ENC[…]";

/// A Secret without the values that substitution or decryption put there; `None`: it is as it is in Git.
fn as_in_git(desired: &Desired, secrets: &[String]) -> Option<Value> {
    let id = &desired.object.id;
    if secrets.is_empty() || !id.group.is_empty() || id.kind != "Secret" {
        return None;
    }
    let mut value = desired.object.value.clone();
    let mut changed = false;
    for entry in value.get_mut("data")?.as_object_mut()?.values_mut() {
        let decoded = entry.as_str().and_then(|text| BASE64.decode(text).ok()).unwrap_or_default();
        let text = String::from_utf8_lossy(&decoded);
        let is_put_there = |secret: &String| {
            *text == **secret || (secret.len() >= REDACTED_BYTES_MIN && text.contains(secret.as_str()))
        };
        if secrets.iter().any(is_put_there) {
            *entry = NOT_IN_GIT.into();
            changed = true;
        }
    }
    changed.then_some(value)
}
