//! Jobs that were seen complete: a Job removed by its TTL or by a person is not run again.
//!
//! Recorded in the annotation `afresh.dev/state` on the Kustomization, bounded by what the application declares.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::{self, Kustomization};
use crate::manifest::ObjectId;
use crate::plan::Desired;

use super::{Application, Prepared};

/// The digest that each completed Job was sent with, by inventory id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Completed {
    jobs: BTreeMap<String, String>,
}

/// The annotation stays far below the 256 KiB that all annotations of an object may have.
const JOBS_MAX: usize = 500;

impl Completed {
    /// What is recorded on the object; a record that can't be read counts as none.
    pub fn read(object: &Kustomization) -> Self {
        object.annotation(api::STATE).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    pub fn has(&self, job: &Desired) -> bool {
        is_job(&job.object.id) && self.jobs.get(&job.object.id.inventory_id()) == Some(&job.digest)
    }
}

pub(super) fn is_job(id: &ObjectId) -> bool {
    id.group == "batch" && id.kind == "Job"
}

impl Application {
    /// Records the declared Jobs that are seen complete at their present digest.
    pub async fn record_completed_jobs(&self, prepared: &Prepared) {
        let new = {
            let memory = self.memory();
            let mut new = Completed::default();
            for job in prepared.desired.iter().filter(|d| is_job(&d.object.id)).take(JOBS_MAX) {
                if memory.jobs.has(job) || self.is_complete(job) {
                    new.jobs.insert(job.object.id.inventory_id(), job.digest.clone());
                }
            }
            if new == memory.jobs {
                return;
            }
            new
        };
        let text = serde_json::to_string(&new).expect("a map of strings serialises");
        let patch = json!({"metadata": {"annotations": {api::STATE: text}}});
        match self.patch_object(patch).await {
            Ok(_) => self.memory().jobs = new,
            Err(error) => {
                tracing::warn!(object = %self.key, %error, "completed Jobs could not be recorded; tried again with the next change")
            }
        }
    }

    fn is_complete(&self, job: &Desired) -> bool {
        let Some(seen) = self.shared.observed.get(&job.object.id) else { return false };
        seen.desired.as_deref() == Some(&job.digest)
            && seen.health.as_ref().and_then(|h| h.status.condition("Complete")).is_some_and(|c| &*c.status == "True")
    }
}
