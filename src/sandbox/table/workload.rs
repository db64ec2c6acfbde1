//! The cells of what runs containers: Pods, the workloads that make them, Jobs.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{NONE, Row, labels, selector};
use super::duration::{age, human};
use crate::sandbox::metadata;

impl Row<'_> {
    pub(super) fn pod(&self, column: &str) -> Value {
        match column {
            "Ready" => {
                let ready = self.list("/status/containerStatuses").iter().filter(|c| c["ready"] == true).count();
                format!("{ready}/{}", self.list("/spec/containers").len()).into()
            }
            "Status" => pod_status(self).into(),
            "Restarts" => {
                let count = |c: &Value| c["restartCount"].as_i64().unwrap_or(0);
                let restarts: i64 = self.list("/status/containerStatuses").iter().map(count).sum();
                let last = self
                    .list("/status/containerStatuses")
                    .iter()
                    .filter_map(|c| c.pointer("/lastState/terminated/finishedAt").and_then(Value::as_str))
                    .max();
                match last {
                    Some(last) if restarts > 0 => format!("{restarts} ({} ago)", age(last, self.now)).into(),
                    _ => restarts.to_string().into(),
                }
            }
            "IP" => self.text_or("/status/podIP", NONE),
            "Node" => self.text_or("/spec/nodeName", NONE),
            "Nominated Node" => self.text_or("/status/nominatedNodeName", NONE),
            _ => NONE.into(),
        }
    }

    pub(super) fn workload(&self, kind: &str, column: &str) -> Value {
        match (kind, column) {
            ("Deployment" | "StatefulSet", "Ready") => {
                let desired = self.at("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
                format!("{}/{desired}", self.number("/status/readyReplicas")).into()
            }
            ("Deployment", "Up-to-date") => self.number("/status/updatedReplicas").into(),
            ("Deployment", "Available") => self.number("/status/availableReplicas").into(),
            ("DaemonSet", "Desired") => self.number("/status/desiredNumberScheduled").into(),
            ("DaemonSet", "Current") => self.number("/status/currentNumberScheduled").into(),
            ("DaemonSet", "Ready") => self.number("/status/numberReady").into(),
            ("DaemonSet", "Up-to-date") => self.number("/status/updatedNumberScheduled").into(),
            ("DaemonSet", "Available") => self.number("/status/numberAvailable").into(),
            ("DaemonSet", "Node Selector") => labels(self.at("/spec/template/spec/nodeSelector")).into(),
            (_, "Desired") => self.number("/spec/replicas").into(),
            (_, "Current") => self.number("/status/replicas").into(),
            (_, "Ready") => self.number("/status/readyReplicas").into(),
            ("ReplicationController", "Selector") => labels(self.at("/spec/selector")).into(),
            (_, "Selector") => selector(self.at("/spec/selector")).into(),
            _ => Value::Null,
        }
    }

    pub(super) fn job(&self, column: &str) -> Value {
        let condition =
            |kind: &str| self.list("/status/conditions").iter().any(|c| c["type"] == kind && c["status"] == "True");
        match column {
            "Status" if condition("Complete") => "Complete".into(),
            "Status" if condition("Failed") => "Failed".into(),
            "Status" if metadata::is_terminating(self.value) => "Terminating".into(),
            "Status" if condition("Suspended") => "Suspended".into(),
            "Status" if condition("FailureTarget") => "FailureTarget".into(),
            "Status" if condition("SuccessCriteriaMet") => "SuccessCriteriaMet".into(),
            "Status" => "Running".into(),
            "Completions" => {
                let succeeded = self.number("/status/succeeded");
                match (self.at("/spec/completions"), self.number("/spec/parallelism")) {
                    (Some(completions), _) => format!("{succeeded}/{completions}").into(),
                    (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}").into(),
                    _ => format!("{succeeded}/1").into(),
                }
            }
            "Duration" => match self.text("/status/startTime").parse::<Timestamp>() {
                Err(_) => "".into(),
                Ok(start) => {
                    let end = self.text("/status/completionTime").parse().unwrap_or(self.now);
                    human(end.as_second() - start.as_second()).into()
                }
            },
            "Selector" => selector(self.at("/spec/selector")).into(),
            _ => Value::Null,
        }
    }

    pub(super) fn cron_job(&self, column: &str) -> Value {
        match column {
            "Schedule" => self.text("/spec/schedule").into(),
            "Timezone" => self.text_or("/spec/timeZone", NONE),
            "Suspend" => (self.at("/spec/suspend") == Some(&Value::Bool(true))).to_string().into(),
            "Active" => self.list("/status/active").len().into(),
            "Last Schedule" if self.at("/status/lastScheduleTime").is_none() => NONE.into(),
            "Last Schedule" => self.since("/status/lastScheduleTime"),
            _ => NONE.into(),
        }
    }
}

/// What kubectl shows in STATUS: the phase, or what the containers say where they say more.
fn pod_status(row: &Row<'_>) -> String {
    let mut status = match row.text("/status/reason") {
        "" => row.text("/status/phase").to_owned(),
        reason => reason.to_owned(),
    };
    let ended = |state: &Value| -> String {
        match (state["reason"].as_str().unwrap_or_default(), state["signal"].as_i64().unwrap_or(0)) {
            ("", 0) => format!("ExitCode:{}", state["exitCode"]),
            ("", signal) => format!("Signal:{signal}"),
            (reason, _) => reason.to_owned(),
        }
    };
    let total = row.list("/spec/initContainers").len();
    let mut initializing = false;
    for (i, container) in row.list("/status/initContainerStatuses").iter().enumerate() {
        let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        if terminated["exitCode"] == 0 || container["started"] == true {
            continue;
        }
        status = if terminated.is_object() {
            format!("Init:{}", ended(terminated))
        } else {
            match waiting["reason"].as_str().unwrap_or_default() {
                "" | "PodInitializing" => format!("Init:{i}/{total}"),
                reason => format!("Init:{reason}"),
            }
        };
        initializing = true;
        break;
    }
    if !initializing {
        let mut running = false;
        for container in row.list("/status/containerStatuses").iter().rev() {
            let state = &container["state"];
            if let Some(reason) = state["waiting"]["reason"].as_str().filter(|r| !r.is_empty()) {
                status = reason.to_owned();
            } else if state["terminated"].is_object() {
                status = ended(&state["terminated"]);
            } else if container["ready"] == true && state["running"].is_object() {
                running = true;
            }
        }
        if status == "Completed" && running {
            let ready = row.list("/status/conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            status = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
    match (metadata::is_terminating(row.value), row.text("/status/phase")) {
        (true, "Succeeded" | "Failed") | (false, _) => status,
        _ => "Terminating".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sandbox::table::cells::cells;

    #[test]
    fn a_pod_shows_what_holds_it_up() {
        let now = Timestamp::now();
        for (status, expected) in [
            (json!({"phase": "Pending"}), "Pending"),
            (
                json!({"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                "CrashLoopBackOff",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
                "Init:ImagePullBackOff",
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}),
                "Completed",
            ),
        ] {
            let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{}]}, "status": status});
            assert_eq!(cells("", "Pod", &pod, now)[2], expected);
        }
    }
}
