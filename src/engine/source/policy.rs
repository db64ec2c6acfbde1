//! What policies say of a repository, before anybody is offered the revision.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::api::{GitRepository, Key};
use crate::policy::{Action, Allowance, PolicySet, Subject, snapshot};
use crate::source::{Snapshot, SourceError, SourceUrl};

/// Denials that are shown: more than a person reads at once would hide the first.
const SHOWN_MAX: usize = 5;

/// A repository that is looked at.
pub(super) struct Repository {
    pub key: Key,
    pub object: Arc<GitRepository>,
    pub url: SourceUrl,
}

/// What is said of a tree that is let through.
pub(super) struct Passed {
    pub snapshot: Snapshot,
    pub warnings: Vec<String>,
    pub notes: Vec<String>,
}

impl Passed {
    fn without_a_word(snapshot: Snapshot) -> Self {
        Self { snapshot, warnings: Vec::new(), notes: Vec::new() }
    }
}

/// Evaluates the rules that are for repositories, on a thread of its own: going through a large tree takes a while.
pub(super) async fn judge(
    policies: Arc<PolicySet>,
    repository: Repository,
    tree: Snapshot,
    cancel: CancellationToken,
) -> Result<Passed, SourceError> {
    if !policies.has_repository_rules() {
        return Ok(Passed::without_a_word(tree));
    }
    let url = repository.url.clone();
    let task = tokio::task::spawn_blocking(move || evaluate(&policies, &repository, tree, &cancel));
    task.await.unwrap_or_else(|panic| {
        Err(SourceError::Store { url, reason: format!("the policies could not be evaluated: {panic}") })
    })
}

fn evaluate(
    policies: &PolicySet,
    repository: &Repository,
    tree: Snapshot,
    cancel: &CancellationToken,
) -> Result<Passed, SourceError> {
    let Repository { key, object, url } = repository;
    let listing = tree.listing(policies.asks_for_sizes(), &|| cancel.is_cancelled()).map_err(|error| error.of(url))?;
    let labels = serde_json::json!(object.metadata.labels.clone().unwrap_or_default());
    let object = snapshot(&key.namespace, &key.name, &labels, &listing);
    drop(listing);
    let allowance = Allowance::default();
    let findings = policies.evaluate_within(&Subject::repository(&object), &allowance);
    let of = |action: Action| -> Vec<String> {
        let found = findings.iter().filter(|finding| finding.action == action);
        found.map(|f| format!("{} (policy `{}`, binding `{}`)", f.message, f.policy, f.binding)).collect()
    };
    let mut denied = of(Action::Deny);
    if allowance.is_used_up() {
        denied.insert(0, "the policies take too long for it".to_owned());
    }
    if denied.is_empty() {
        return Ok(Passed { snapshot: tree, warnings: of(Action::Warn), notes: of(Action::Audit) });
    }
    let more = denied.len().saturating_sub(SHOWN_MAX);
    denied.truncate(SHOWN_MAX);
    if more > 0 {
        denied.push(format!("… and {more} more"));
    }
    Err(SourceError::Denied { url: url.clone(), revision: tree.revision.clone(), findings: denied.join("\n") })
}
