//! Conditions as kstatus reads them: `Ready`, and the abnormal-true `Reconciling` and `Stalled`.

use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const READY: &str = "Ready";
pub const RECONCILING: &str = "Reconciling";
pub const STALLED: &str = "Stalled";
pub const HEALTHY: &str = "Healthy";

/// The three values of a condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    pub fn as_str(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
}

/// One condition, field by field `metav1.Condition`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    #[schemars(
        regex(
            pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
        ),
        length(max = 316)
    )]
    pub kind: String,
    pub status: Truth,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    #[schemars(regex(pattern = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"), length(min = 1, max = 1024))]
    pub reason: String,
    #[schemars(length(max = 32768))]
    pub message: String,
}

/// The longest message we write, in bytes: Flux's own limit is the schema's 32768; a person reads less.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The conditions of one object, at most one of each type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Conditions(pub Vec<Condition>);

impl Conditions {
    pub fn get(&self, kind: &str) -> Option<&Condition> {
        self.0.iter().find(|c| c.kind == kind)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn is_true(&self, kind: &str) -> bool {
        self.get(kind).is_some_and(|c| c.status == Truth::True)
    }

    /// Sets a condition. The transition time moves only when the status changes; nothing changes when all is as said.
    pub fn set(
        &mut self,
        kind: &str,
        status: Truth,
        reason: &str,
        message: &str,
        generation: Option<i64>,
        now: Timestamp,
    ) {
        let message = shortened(message);
        let old = self.0.iter().position(|c| c.kind == kind);
        let last_transition_time = match old {
            Some(at) if self.0[at].status == status => self.0[at].last_transition_time.clone(),
            _ => rfc3339(now),
        };
        let new = Condition {
            kind: kind.into(),
            status,
            observed_generation: generation,
            last_transition_time,
            reason: reason.into(),
            message,
        };
        match old {
            Some(at) => self.0[at] = new,
            // Ready first: that is where people look
            None if kind == READY => self.0.insert(0, new),
            None => self.0.push(new),
        }
    }

    pub fn remove(&mut self, kind: &str) {
        self.0.retain(|c| c.kind != kind);
    }
}

/// Whole seconds, as Kubernetes writes times.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn shortened(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.into();
    }
    let end = (0..=MESSAGE_BYTES_MAX).rev().find(|&i| message.is_char_boundary(i)).unwrap_or(0);
    format!("{}… ({} bytes in all)", &message[..end], message.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_stays_keeps_its_transition_time() {
        let mut conditions = Conditions::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        conditions.set(READY, Truth::False, "BuildFailed", "first", Some(1), at(10));
        conditions.set(READY, Truth::False, "BuildFailed", "second", Some(1), at(20));
        assert_eq!(conditions.get(READY).unwrap().last_transition_time, "1970-01-01T00:00:10Z");
        conditions.set(READY, Truth::True, "ReconciliationSucceeded", "done", Some(1), at(30));
        assert_eq!(conditions.get(READY).unwrap().last_transition_time, "1970-01-01T00:00:30Z");
        assert_eq!(conditions.0.len(), 1);
    }
}
