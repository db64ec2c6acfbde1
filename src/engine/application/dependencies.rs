//! Waiting for others: by edge, never by polling.

use std::sync::atomic::Ordering;

use crate::api::KustomizationSpec;
use crate::engine::ready::ReadyExpression;
use crate::engine::registry::{Claim, Dependencies};
use crate::manifest::ObjectId;
use crate::plan::Inventory;

use super::report::{DEPENDENCY_NOT_READY, listed};
use super::{Application, Failure, Prepared, Work};

/// What there is to wait for.
enum Wait {
    Over,
    /// For a moment: nothing is said of it.
    Brief,
    For(String),
}

/// What can be said of the dependencies without looking at them.
pub(super) fn validate(spec: &KustomizationSpec) -> Result<(), Failure> {
    for (at, dependency) in spec.depends_on.iter().enumerate() {
        if let Some(Err(error)) = dependency.expression().map(ReadyExpression::compile) {
            let message = format!("`spec.dependsOn[{at}].readyExpr`: {error}");
            return Err(Failure::new("InvalidCELExpression", message).stalled());
        }
    }
    Ok(())
}

impl Application {
    /// Returns once each application in `dependsOn` was Ready at the revision that this attempt works on, or is as its
    /// `readyExpr` says. `quiet`: the
    /// status says nothing of the wait, since what it says is still so.
    pub async fn await_dependencies(&self, work: &Work, quiet: bool) {
        if work.object.spec.depends_on.is_empty() {
            return;
        }
        let mut measured = None;
        let reason = (!quiet).then_some(DEPENDENCY_NOT_READY);
        self.wait_by_edge(work, reason, || {
            let wait = match self.shared.registry.dependencies(&self.key, &work.identity()) {
                Dependencies::Met => return Wait::Over,
                Dependencies::Waiting(message) => Wait::For(message),
                Dependencies::Cycle(members) => {
                    let names: Vec<_> = members.iter().map(|m| format!("`{m}`")).collect();
                    let cycle = names.join(" → ");
                    Wait::For(format!("dependency cycle: {cycle}\nhint: remove one of these from `spec.dependsOn`"))
                }
            };
            measured.get_or_insert_with(|| self.metrics.dependency_wait());
            wait
        })
        .await;
    }

    /// Returns once no other application declares what this one declares. `before`: what it owned before this attempt.
    pub async fn await_claims(&self, work: &Work, prepared: &Prepared, before: &Inventory) {
        let declared = prepared.desired.iter().map(|d| d.object.id.clone()).collect();
        if self.shared.share.is_partial() {
            work.claiming.store(true, Ordering::Release);
            let claim = || self.shared.registry.claim(&self.key, &work.identity(), &declared);
            self.wait_by_edge(work, None, || if claim() == Claim::Pending { Wait::Brief } else { Wait::Over }).await;
            // what another keeps is recorded as the other's alone
            let kept = self.shared.registry.is_kept_elsewhere(&self.key, &work.identity(), &declared);
            if kept && matches!(claim(), Claim::Refused(_)) {
                self.memory().inventory = before.clone();
                self.record_inventory(before).await;
            }
        }
        self.wait_by_edge(work, Some("ReconciliationFailed"), || {
            match self.shared.registry.claim(&self.key, &work.identity(), &declared) {
                Claim::Granted => Wait::Over,
                // they are about to say whether they let go
                Claim::Pending => Wait::Brief,
                Claim::Refused(refused) => Wait::For(refusal(&refused)),
            }
        })
        .await;
        work.claiming.store(false, Ordering::Release);
    }

    /// Looks at each change of the registry until there is nothing to wait for. What is waited for is said once, in the
    /// status if there is a `reason` for its condition.
    async fn wait_by_edge(&self, work: &Work, reason: Option<&'static str>, mut look: impl FnMut() -> Wait + Send) {
        let mut changes = self.shared.registry.subscribe();
        let mut said = String::new();
        loop {
            changes.borrow_and_update();
            match look() {
                Wait::Over => return,
                Wait::Brief => {}
                Wait::For(message) if message == said => {}
                Wait::For(message) => {
                    match reason {
                        None => self.shared.registry.waiting(&self.key, &message),
                        Some(reason) => {
                            work.source.attention(&self.key, true, true);
                            self.waiting(work, reason, &message).await;
                        }
                    }
                    said = message;
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

fn refusal(refused: &[(ObjectId, crate::api::Key)]) -> String {
    let named: Vec<_> = refused.iter().map(|(id, owner)| format!("{id} (Kustomization `{owner}`)")).collect();
    format!(
        "declared by another application already: {}\nhint: declare each object in one Kustomization only",
        listed(&named)
    )
}
