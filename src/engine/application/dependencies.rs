//! Waiting for others: by edge, never by polling.

use crate::engine::registry::{Claim, Dependencies};
use crate::manifest::ObjectId;

use super::report::{DEPENDENCY_NOT_READY, listed};
use super::{Application, Prepared, Work};

impl Application {
    /// Returns once each application in `dependsOn` was Ready at the revision that this attempt works on. `quiet`: the
    /// status says nothing of the wait, since what it says is still so.
    pub async fn await_dependencies(&self, work: &Work, quiet: bool) {
        if work.object.spec.depends_on.is_empty() {
            return;
        }
        let mut changes = self.shared.registry.subscribe();
        let mut said = String::new();
        let mut measured = None;
        loop {
            changes.borrow_and_update();
            let message = match self.shared.registry.dependencies(&self.key, &work.revision()) {
                Dependencies::Met => return,
                Dependencies::Waiting(message) => message,
                Dependencies::Cycle(members) => {
                    let names: Vec<_> = members.iter().map(|m| format!("`{m}`")).collect();
                    format!("dependency cycle: {}\nhint: remove one of these from `spec.dependsOn`", names.join(" → "))
                }
            };
            measured.get_or_insert_with(|| self.metrics.dependency_wait());
            if message != said && quiet {
                self.shared.registry.waiting(&self.key, &message);
                said = message;
            } else if message != said {
                self.wait_for(work, DEPENDENCY_NOT_READY, &message).await;
                said = message;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns once no other application declares what this one declares.
    pub async fn await_claims(&self, work: &Work, prepared: &Prepared) {
        let declared = prepared.desired.iter().map(|d| d.object.id.clone()).collect();
        let mut changes = self.shared.registry.subscribe();
        let mut said = String::new();
        loop {
            changes.borrow_and_update();
            match self.shared.registry.claim(&self.key, &work.revision(), &declared) {
                Claim::Granted => return,
                // they are about to say whether they let go
                Claim::Pending => {}
                Claim::Refused(refused) => {
                    let message = refusal(&refused);
                    if message != said {
                        self.wait_for(work, "ReconciliationFailed", &message).await;
                        said = message;
                    }
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn wait_for(&self, work: &Work, reason: &'static str, message: &str) {
        work.source.attention(&self.key, true, true);
        self.waiting(work, reason, message).await;
    }
}

fn refusal(refused: &[(ObjectId, crate::api::Key)]) -> String {
    let named: Vec<_> = refused.iter().map(|(id, owner)| format!("{id} (Kustomization `{owner}`)")).collect();
    format!(
        "declared by another application already: {}\nhint: declare each object in one Kustomization only",
        listed(&named)
    )
}
