//! Conditions of workloads: `type`, `status`, `reason`, `message` and the time of the last change of `status`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

pub(super) fn now() -> Value {
    json!(Time(Timestamp::now()))
}

/// The conditions of a status, to be changed and written back.
pub(super) struct Conditions(Vec<Value>);

impl Conditions {
    pub(super) fn of<C: Serialize>(current: Option<&Vec<C>>) -> Self {
        Self(current.into_iter().flatten().map(|condition| json!(condition)).collect())
    }

    pub(super) fn get(&self, kind: &str) -> Option<&Value> {
        self.0.iter().find(|condition| condition["type"] == kind)
    }

    /// Sets a condition; its time stays unless its status changes.
    pub(super) fn set(&mut self, kind: &str, status: bool, reason: &str, message: &str) {
        let status = if status { "True" } else { "False" };
        let same = self.get(kind).filter(|condition| condition["status"] == status);
        let mut condition = same.cloned().unwrap_or_else(|| json!({ "lastTransitionTime": now() }));
        condition["type"] = kind.into();
        condition["status"] = status.into();
        condition["reason"] = reason.into();
        condition["message"] = message.into();
        match self.0.iter_mut().find(|condition| condition["type"] == kind) {
            Some(old) => *old = condition,
            None => self.0.push(condition),
        }
    }

    /// Says that a Deployment progressed just now.
    pub(super) fn progress(&mut self, reason: &str, message: &str) {
        self.set("Progressing", true, reason, message);
        if let Some(condition) = self.0.iter_mut().find(|condition| condition["type"] == "Progressing") {
            condition["lastUpdateTime"] = now();
        }
    }

    pub(super) fn into_value(self) -> Value {
        self.0.into()
    }
}
