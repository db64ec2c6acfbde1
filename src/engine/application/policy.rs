//! What policies say of a render, before anything of it reaches the cluster.
//!
//! Comes in: a render, ready to be applied. Goes out: leave to apply it, or a failure that names each denial with its
//! file and line. Asked once for each render and set of policies. The cluster is only asked where a policy asks for what
//! it alone knows: the object as it is, or its Namespace.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use serde_json::Value;

use crate::engine::findings::{self, Findings, Known, Look, UNFINISHED, live, subject};
use crate::manifest::ObjectId;
use crate::plan::Desired;
use crate::policy::{Action, PolicySet, Resources, User};
use crate::report::{Severity, Verdict};

use super::attempt::Decision;
use super::identity::Account;
use super::render::CancelWhenDropped;
use super::{Application, Failure, Prepared, Work};

/// The reason of conditions and Events.
pub(super) const POLICY_DENIED: &str = "PolicyDenied";
/// Events of one render for what is warned of or noted.
const EVENTS_MAX: usize = 10;

/// What was said of a render, which holds as long as neither it nor the policies change. A denial names lines, which may
/// move while what is declared stays the same.
#[derive(Clone)]
pub(super) struct Judged {
    digest: [u8; 32],
    prepared: Weak<Prepared>,
    policies: Arc<PolicySet>,
    account: Option<Account>,
    denial: Option<Failure>,
}

/// What policies ask of the cluster for a render.
#[derive(Clone, Copy, Default)]
struct Asked {
    /// An object or a Namespace as it is, which may be another the next time.
    of_objects: bool,
    /// Who applies.
    for_user: bool,
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
        let account = work.identity.account.clone();
        let as_written = |j: &Judged| j.denial.is_none() || j.prepared.ptr_eq(&Arc::downgrade(prepared));
        let holds = |j: &Judged| {
            j.digest == digest && as_written(j) && Arc::ptr_eq(&j.policies, &policies) && j.account == account
        };
        if let Some(judged) = judged.filter(holds) {
            return judged.denial.map_or(Ok(()), Err);
        }
        let resources = findings::resources(&prepared.desired);
        let (known, asked) = self.known(work, &policies, prepared, &resources).await?;
        let user = match &account {
            Some(Account { namespace, name }) => Some(Arc::new(User::service_account(namespace, name))),
            None if asked.for_user => Some(self.shared.own_user().await.map_err(unanswered)?),
            None => None,
        };
        let asked = asked.of_objects;
        let _permit = self.shared.renders.acquire(work.urgency).await;
        let cancel = Arc::new(AtomicBool::new(false));
        let _cancel_when_dropped = CancelWhenDropped(cancel.clone());
        let evaluation = {
            let (policies, prepared) = (policies.clone(), prepared.clone());
            tokio::task::spawn_blocking(move || {
                let (rendered, secrets) = (&prepared.rendered, &*prepared.secrets);
                let look = Look { rendered, secrets, user: user.as_deref(), known: &known };
                findings::evaluate(&policies, &look, &|| cancel.load(Ordering::Acquire))
            })
        };
        let findings = evaluation
            .await
            .map_err(|panic| Failure::new(POLICY_DENIED, format!("the policies could not be evaluated: {panic}")))?;
        self.tell(work, &findings);
        // what the cluster had a say in may be said otherwise without a push
        let denial = denial(&findings).map(|denial| if asked { denial } else { denial.until_changed() });
        if !(asked && denial.is_some()) {
            let (prepared, denial) = (Arc::downgrade(prepared), denial.clone());
            self.memory().judged = Some(Judged { digest, prepared, policies, account, denial });
        }
        denial.map_or(Ok(()), Err)
    }

    /// The objects, with what policies ask the cluster for; and what was asked for.
    async fn known(
        &self,
        work: &Work,
        policies: &PolicySet,
        prepared: &Prepared,
        resources: &Resources,
    ) -> Result<(Vec<Known>, Asked), Failure> {
        let mut namespaces = findings::namespaces(&prepared.desired);
        let (mut known, mut asked) = (Vec::with_capacity(prepared.desired.len()), Asked::default());
        for desired in &prepared.desired {
            let id = &desired.object.id;
            let (resource, namespaced) = self.resource(resources, desired);
            let object = desired.object.unpacked();
            let subject = subject(&object, &resource, namespaced);
            let mut before = None;
            asked.for_user |= policies.asks_for_user(&subject);
            if policies.asks_before(&subject) {
                asked.of_objects = true;
                before = self.before(work, desired).await?;
            }
            if namespaced && policies.asks_for_namespace(&subject) && !namespaces.contains_key(&id.namespace) {
                asked.of_objects = true;
                // policies, not who writes, ask for it
                let id = ObjectId::new("", "Namespace", "", &*id.namespace);
                let namespace = live(&self.shared.cluster, &id).await.map_err(unanswered)?;
                namespaces.insert(id.name.clone(), namespace.map(Arc::new));
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
                return Ok(Some(desired.object.value()));
            }
        }
        live(&work.identity.cluster, id).await.map_err(unanswered)
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

fn denial(findings: &Findings) -> Option<Failure> {
    if findings.unfinished {
        return Some(Failure::new(POLICY_DENIED, UNFINISHED));
    }
    let (mut lines, more) = findings.denials();
    if more > 0 {
        lines.push(format!("… and {more} more"));
    }
    (findings.denied > 0).then(|| Failure::new(POLICY_DENIED, lines.join("\n")))
}

fn unanswered(why: String) -> Failure {
    Failure::new(POLICY_DENIED, why)
}
