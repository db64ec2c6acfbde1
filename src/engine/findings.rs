//! What policies say of declared objects, before anything of them reaches the cluster.
//!
//! Comes in: a render, and with each object what only the cluster knows of it. Goes out: findings with file and line,
//! without a value that Git does not hold. Asks the cluster for nothing itself, but for [`live`].

use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::cluster::{Cluster, ErrorClass};
use crate::manifest::{Object, ObjectId, REDACTED_BYTES_MIN};
use crate::plan::Desired;
use crate::policy::{Action, Allowance, Finding, PolicySet, Resources, Subject, User, place};
use crate::render::Outline;

/// Findings that are kept of one render: more than a person reads, and memory stays bounded.
const FINDINGS_MAX: usize = 100;
/// Denials of one render that are told: the first explain the others.
pub(super) const DENIALS_SHOWN_MAX: usize = 5;

/// A finding, told with its place.
pub(super) struct Told {
    pub action: Action,
    pub text: String,
}

/// All that was found, of which not all is kept.
#[derive(Default)]
pub(super) struct Findings {
    pub kept: Vec<Told>,
    pub denied: usize,
    /// The evaluations took too long: what was found is not all.
    pub unfinished: bool,
}

/// What is said instead of findings that are not all.
pub(super) const UNFINISHED: &str = "the policies take too long for what this revision declares\nhint: let their rules match less, or look at what their expressions go through";

/// One object, with what only the cluster knows of it.
pub(super) struct Known {
    pub desired: Desired,
    pub resource: String,
    pub namespaced: bool,
    pub before: Option<Value>,
    pub namespace: Option<Arc<Value>>,
}

/// A render that is looked at.
pub(super) struct Look<'a> {
    pub rendered: &'a Outline,
    /// Values that Git does not hold.
    pub secrets: &'a [String],
    /// As whom it is applied, where that is known.
    pub user: Option<&'a User>,
    /// In the order of the render's objects.
    pub known: &'a [Known],
}

impl Findings {
    /// The denials that are told, and how many there are beyond.
    pub fn denials(&self) -> (Vec<String>, usize) {
        let denied = self.kept.iter().filter(|told| told.action == Action::Deny);
        let lines: Vec<String> = denied.take(DENIALS_SHOWN_MAX).map(|told| told.text.clone()).collect();
        let more = self.denied - lines.len();
        (lines, more)
    }

    fn add(&mut self, finding: &Finding, text: impl FnOnce() -> String) {
        let denies = finding.action == Action::Deny;
        self.denied += usize::from(denies);
        // a denial is worth more than a note
        if self.kept.len() == FINDINGS_MAX && denies && self.denied <= DENIALS_SHOWN_MAX {
            self.kept.pop();
        }
        if self.kept.len() < FINDINGS_MAX {
            self.kept.push(Told { action: finding.action, text: text() });
        }
    }
}

/// Evaluates until `cancelled`; what is found then is not all.
pub(super) fn evaluate(policies: &PolicySet, look: &Look<'_>, cancelled: &dyn Fn() -> bool) -> Findings {
    let Look { rendered, secrets, user, known } = look;
    let (mut findings, allowance) = (Findings::default(), Allowance::default());
    // a message may be made of what a Secret was substituted into
    let redaction = LazyCell::new(|| rendered.redaction(secrets.iter().map(String::as_str)));
    for (index, Known { desired, resource, namespaced, before, namespace }) in known.iter().enumerate() {
        if cancelled() {
            break;
        }
        let mut object = desired.object.unpacked();
        hide_what_git_has_not(&mut object, secrets);
        let subject = Subject {
            old_object: before.as_ref(),
            namespace_object: namespace.as_deref(),
            user: *user,
            ..subject(&object, resource, *namespaced)
        };
        for finding in policies.evaluate_within(&subject, &allowance) {
            findings.add(&finding, || {
                let at = rendered.error_at(index, &place(&subject, &finding), "");
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

/// An object that policies ask for as it is in the cluster.
pub(super) async fn live(cluster: &Cluster, id: &ObjectId) -> Result<Option<Value>, String> {
    let found = match cluster.resolve(&id.group, &id.kind, None).await {
        Ok(kind) => cluster.get(&kind, id).await,
        // its definition comes with it
        Err(error) if error.class == ErrorClass::NoSuchKind => return Ok(None),
        Err(error) => Err(error),
    };
    found.map_err(|error| format!("{id}: policies ask for it as it is in the cluster, and it can't be read: {error}"))
}

/// What the definitions among declared objects say of their kinds.
pub(super) fn resources(desired: &[Desired]) -> Resources {
    let definitions = desired.iter().filter(|d| d.object.id.kind == "CustomResourceDefinition");
    let definitions: Vec<Object> = definitions.map(|d| d.object.unpacked()).collect();
    Resources::of(definitions.iter())
}

/// The Namespaces that are declared.
pub(super) fn namespaces(desired: &[Desired]) -> HashMap<String, Option<Arc<Value>>> {
    let declared = desired.iter().map(|d| &d.object).filter(|o| o.id.group.is_empty() && o.id.kind == "Namespace");
    declared.map(|namespace| (namespace.id.name.clone(), Some(Arc::new(namespace.value())))).collect()
}

/// Of a declared object, what is known without asking anybody.
pub(super) fn subject<'a>(object: &'a Object, resource: &'a str, namespaced: bool) -> Subject<'a> {
    let id = &object.id;
    Subject {
        group: &id.group,
        version: &object.version,
        kind: &id.kind,
        resource,
        namespaced,
        object: &object.value,
        old_object: None,
        namespace_object: None,
        user: None,
    }
}

/// In place of a value that Git does not hold.
const NOT_IN_GIT: &str = "ENC[…]";

/// Takes out of a Secret the values that substitution or decryption put there.
fn hide_what_git_has_not(object: &mut Object, secrets: &[String]) {
    if secrets.is_empty() || !object.id.group.is_empty() || object.id.kind != "Secret" {
        return;
    }
    let data = object.value.get_mut("data").and_then(Value::as_object_mut);
    for entry in data.into_iter().flat_map(|data| data.values_mut()) {
        let decoded = entry.as_str().and_then(|text| BASE64.decode(text).ok()).unwrap_or_default();
        let text = String::from_utf8_lossy(&decoded);
        let is_put_there = |secret: &String| {
            *text == **secret || (secret.len() >= REDACTED_BYTES_MIN && text.contains(secret.as_str()))
        };
        if secrets.iter().any(is_put_there) {
            *entry = NOT_IN_GIT.into();
        }
    }
}
